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
from optctl.solvers.batched import kernels
from optctl.solvers.batched.source import FLAGS, LANE_LOOP, LANES, TRIGONOMETRY
from optctl.solvers.methods.pontryagin import extremals

_RTOL, _ATOL, _MAX_STEPS = 1e-12, 1e-13, 5000
_WIDE, LARGEST = 24, 64
"""States up to which eight arcs, and up to which one arc fits a thread's stack."""
_ARGUMENTS = dict.fromkeys(("start", "span", "params", "finish"), "wp.array(dtype=wp.float64)") | {
    "num": "wp.int64",
    "rows": "wp.int64",
    "rtol": "wp.float64",
    "atol": "wp.float64",
    "most": "wp.int64",
    "threads": "wp.int64",
    "offset": "wp.int64",
}


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
    body = kernels.text("flow.cpp").replace("<lanes>", LANE_LOOP)
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
