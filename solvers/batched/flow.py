"""Flow of (x, λ, cost) of the minimum principle and its sensitivities, for thousands of arcs in one launch.

    ẋ = f(x, u*), λ̇ = −H_x, ċ = l, u* = clip(argmin_u H),      Ṡ = ∂(ẋ, λ̇)/∂(x, λ) S, S = 1 at the start

DOP853 with step lengths of its own for every arc, to a relative error of 1e-12 of (x, λ, cost) in each step; S follows with these
steps. On a CPU a thread advances eight arcs in lock-step, and an arc that has ended makes room for the next; on a GPU a thread is one
arc. An arc that explodes or takes more than 5000 steps is NaN, and the others do not see it.
Source: Hairer, Nørsett, Wanner, Solving Ordinary Differential Equations I (1993), §II.5, II.10; the tableau is SciPy's.
"""

from __future__ import annotations

import re

import casadi as ca
import numpy as np
import torch
import warp as wp
from scipy.integrate import DOP853

from optctl.codegen.cache import load_module
from optctl.codegen.cpp_source import expression, function, native_module, statements, with_numbers
from optctl.codegen.launch import launch_shared, resolve_device, sharing_threads
from optctl.codegen.program import build_program
from optctl.codegen.warp_source import FUSED, Target, emit, typed, used_helpers
from optctl.problem import Problem
from optctl.shared import kept
from optctl.solvers.batched.source import FLAGS, LANE_LOOP, LANES, TRIGONOMETRY
from optctl.solvers.methods.pontryagin import extremals

_RTOL, _ATOL, _MAX_STEPS = 1e-12, 1e-13, 5000
_WIDE, LARGEST = 24, 64
"""States up to which eight arcs, and up to which one arc fits a thread's stack."""
_ARGUMENTS = dict.fromkeys(("start", "span", "params", "finish"), "wp.array(dtype=wp.float64)") | {
    "num": "wp.int64", "rows": "wp.int64", "rtol": "wp.float64", "atol": "wp.float64", "most": "wp.int64", "threads": "wp.int64",
    "offset": "wp.int64",
}  # fmt: skip

_BODY = """
    <tableau>
    <helpers>
    double y[SIZE][LANES] = {}, z[SIZE][LANES] = {}, k[12][SIZE][LANES] = {}, p[N_P + 1][LANES] = {};
    double now[LANES] = {}, end[LANES] = {}, h[LANES] = {}, five[LANES] = {}, three[LANES] = {};
    wp::int64 task[LANES], trials[LANES] = {}, coming = (thread + offset) * LANES;
    bool repeated[LANES] = {};
    for (int lane = 0; lane < LANES; ++lane)
        task[lane] = -1;
    while (true) {
        bool busy = false;
        for (int lane = 0; lane < LANES; ++lane) {
            if (task[lane] < 0 && coming < num) {
                task[lane] = coming++;
                if (coming % LANES == 0)
                    coming += (threads - 1) * LANES;
                const wp::int64 i = task[lane];
                for (int j = 0; j < SIZE; ++j)
                    y[j][lane] = j < N ? start.data[i * N + j] : j > N && (j - N - 1) % (N + 1) == 0 ? 1.0 : 0.0;
                for (int j = 0; j < N_P; ++j)
                    p[j][lane] = params.data[(i % rows) * N_P + j];
                now[lane] = span.data[2 * i];
                end[lane] = span.data[2 * i + 1];
                h[lane] = 0.25 * (end[lane] - now[lane]);
                trials[lane] = 0;
                repeated[lane] = false;
            }
            busy |= task[lane] >= 0;
        }
        if (!busy)
            break;
        for (int s = 0; s < 12; ++s) {
            for (int j = 0; j < SIZE; ++j) {
                double sum[LANES] = {};
                for (int q = 0; q < s; ++q)
                    <lanes> sum[lane] += A[s][q] * k[q][j][lane];
                <lanes> z[j][lane] = y[j][lane] + h[lane] * sum[lane];
            }
            <lanes>
            {
                const double t = now[lane] + C[s] * h[lane];
                <rates>
            }
        }
        for (int lane = 0; lane < LANES; ++lane)
            five[lane] = three[lane] = 0.0;
        for (int j = 0; j < SIZE; ++j) {
            double sum[LANES] = {}, e5[LANES] = {}, e3[LANES] = {};
            for (int s = 0; s < 12; ++s)
                <lanes> {
                    sum[lane] += B[s] * k[s][j][lane];
                    e5[lane] += E5[s] * k[s][j][lane];
                    e3[lane] += E3[s] * k[s][j][lane];
                }
            <lanes> {
                z[j][lane] = y[j][lane] + h[lane] * sum[lane];
                const double a = y[j][lane] < 0.0 ? -y[j][lane] : y[j][lane], b = z[j][lane] < 0.0 ? -z[j][lane] : z[j][lane];
                const double scale = j <= N ? atol + rtol * (a > b ? a : b) : INFINITY;
                five[lane] += (e5[lane] / scale) * (e5[lane] / scale);
                three[lane] += (e3[lane] / scale) * (e3[lane] / scale);
            }
        }
        for (int lane = 0; lane < LANES; ++lane) {
            const wp::int64 i = task[lane];
            if (i < 0)
                continue;
            const double spread = five[lane] + 0.01 * three[lane];
            const double error = spread > 0.0 ? h[lane] * five[lane] / wp::sqrt(spread * double(N + 1)) : spread;
            bool lost = ++trials[lane] > most, done = false;
            if (error < 1.0) {
                done = now[lane] + h[lane] >= end[lane];
                now[lane] = done ? end[lane] : now[lane] + h[lane];
                for (int j = 0; j < SIZE; ++j) {
                    y[j][lane] = z[j][lane];
                    lost |= j < N && !(y[j][lane] < 1e8 && y[j][lane] > -1e8);
                }
                double factor = error > 0.0 ? 0.9 * wp::pow(error, -0.125) : 10.0;
                factor = factor < 10.0 ? factor : 10.0;
                h[lane] *= repeated[lane] && factor > 1.0 ? 1.0 : factor;
                h[lane] = now[lane] + h[lane] < end[lane] ? h[lane] : end[lane] - now[lane];
                repeated[lane] = false;
            } else {
                const double factor = 0.9 * wp::pow(error, -0.125);
                h[lane] *= factor > 0.2 ? factor : 0.2;
                repeated[lane] = true;
                lost |= !(now[lane] + h[lane] > now[lane]);
            }
            if (done || lost) {
                for (int j = 0; j < SIZE; ++j)
                    finish.data[i * SIZE + j] = lost ? NAN : y[j][lane];
                task[lane] = -1;
                h[lane] = 0.0;
            }
        }
    }
"""


def _lanes(problem: Problem, device: str) -> int:
    return LANES if device == "cpu" and problem.n_x <= _WIDE else 1


def source(problem: Problem, device: str) -> str:
    """The module, with kernel `flow`: DOP853 on y = (x, λ, cost) and S by columns; only y is under error control."""
    n, target = 2 * problem.n_x, Target("float64", device)
    built = extremals(problem)
    y, s, p, t = ca.SX.sym("y", n), ca.SX.sym("s", n, n), ca.SX.sym("p", problem.n_p), ca.SX.sym("t")
    whole = ca.vertcat(y, 0)
    rates = ca.vertcat(built.flow(whole, p, t), ca.vec(built.jacobian(whole, p, t) @ s))
    program = build_program(ca.Function("rates", [y, s, p, t], [rates], ["y", "s", "p", "t"], ["rates"]))
    lines, out = emit(
        program,
        {
            "y": [f"z[{j}][lane]" for j in range(n)],
            "s": [f"z[{n + 1 + j}][lane]" for j in range(n * n)],
            "p": [f"p[{j}][lane]" for j in range(problem.n_p)],
            "t": ["t"],
        },
        "r",
        target,
    )
    cpu = device == "cpu"
    if cpu:
        lines = [re.sub(r"\bwp\.(sin|cos)\(", r"vector_\1(", line) for line in lines]
    lines = statements(lines) + [f"k[s][{j}][lane] = {expression(value)};" for j, value in enumerate(out["rates"])]
    fused, trigonometry = (FUSED, TRIGONOMETRY) if cpu else ("return a * b + c;", [])
    helpers = [f"auto muladd = [](double a, double b, double c) {{{fused}}};"]
    helpers += [function(typed(text, target)) for text in [*used_helpers([program], target).values(), *trigonometry]]
    row = lambda values: "{" + ", ".join(repr(float(v)) for v in values) + "}"
    tableau = [f"const double A[12][12] = {{{', '.join(map(row, DOP853.A))}}};"]
    tableau += [f"const double {name}[12] = {row(getattr(DOP853, name)[:12])};" for name in ("B", "C", "E3", "E5")]
    body = _BODY.replace("<lanes>", LANE_LOOP)
    for name, text in (("tableau", tableau), ("helpers", helpers), ("rates", lines)):
        body = body.replace(f"<{name}>", "\n    ".join(text))
    sizes = {"SIZE": n + 1 + n * n, "N": n, "N_P": problem.n_p, "LANES": _lanes(problem, device)}
    return native_module(
        "flow", f"extremals of {problem.name} with sensitivities", _ARGUMENTS, with_numbers(body, sizes), FLAGS
    )


def kernel(problem: Problem, device: str | torch.device = "cpu") -> wp.Kernel:
    """Generate and compile on first use; any horizon."""
    return _kernel(problem, resolve_device(device))


@kept
def _kernel(problem: Problem, device: torch.device) -> wp.Kernel:
    return load_module(source(problem, device.type), device).flow


def integrate(
    problem: Problem, start: np.ndarray, span: np.ndarray, params: np.ndarray, device: str | torch.device = "cpu"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """From (x, λ) (B, 2n) over span (B, 2) [s]: (x, λ) at the end, S (B, 2n, 2n), the cost on the way (B,). NaN where it explodes.
    `params` with B rows or one."""
    num, n = start.shape
    compiled, where = kernel(problem, device), resolve_device(device)
    inputs = [torch.tensor(np.ascontiguousarray(a), device=where) for a in (start, span, params)]
    finish = torch.empty((num, n + 1 + n * n), dtype=torch.float64, device=where)
    threads = sharing_threads(-(-num // _lanes(problem, where.type)), where)
    launch_shared(compiled, threads, [*inputs, finish, num, len(params), _RTOL, _ATOL, _MAX_STEPS], where)
    out = finish.cpu().numpy()
    return out[:, :n], np.swapaxes(out[:, n + 1 :].reshape(num, n, n), 1, 2), out[:, n]
