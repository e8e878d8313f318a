"""Batched DDP on generated kernels: the whole solve of every problem in one launch, float64, all cores or a GPU.

    min Σ l(x_k, u_k) + φ(x_N),   x_{k+1} = F(x_k, u_k) + gap closed on the way,   u_low ≤ u ≤ u_high

The guess need not be consistent: its states are kept and the gaps between them are closed as the steps get longer
(multiple shooting). What is solved, its two phases and its certificate are those of `optctl.solvers.methods.ddp`. Constraints beyond the
bounds on controls enter by `Multipliers` (constrained.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import warp as wp

from optctl.codegen.cache import load_module
from optctl.codegen.launch import launch_shared, resolve_device, sharing_threads
from optctl.errors import require
from optctl.problem import Problem
from optctl.shared import kept
from optctl.solvers.batched.source import DdpSource
from optctl.solvers.methods.ddp import DdpResult
from optctl.solvers.methods.sweeps import NO_BOUND

_LARGEST_ARRAY = 2**28
"""Numbers in an array of one launch (2 GiB); larger batches go in parts."""


@dataclass(frozen=True)
class Kernel:
    """The compiled kernel of one problem on one device."""

    source: DdpSource
    function: wp.Kernel
    device: torch.device


@dataclass(frozen=True)
class Multipliers:
    """Of the augmented Lagrangian (stages.py), for B problems; zero weights and multipliers leave the constraints out."""

    stage: np.ndarray
    """y (B, N, n_c)."""
    end: np.ndarray
    """(B, n_e)."""
    stage_weight: np.ndarray
    """ρ (B, n_c)."""
    end_weight: np.ndarray
    """(B, n_e)."""

    def take(self, index: np.ndarray | slice) -> Multipliers:
        return Multipliers(**{name: value[index] for name, value in self.__dict__.items()})


def kernel(problem: Problem, device: str | torch.device = "cpu") -> Kernel:
    """Generate and compile on first use; any horizon."""
    return _kernel(problem, resolve_device(device))


@kept
def _kernel(problem: Problem, device: torch.device) -> Kernel:
    source = DdpSource(problem, device.type)
    return Kernel(source, load_module(source.source(), device).solve, device)


def solve_ddp(
    problem: Problem,
    states: np.ndarray,
    controls: np.ndarray,
    params: np.ndarray,
    *,
    follow: bool = True,
    tolerance: float = 1e-10,
    max_iterations: int = 150,
    barrier: float = 1e-2,
    polish: int = 20,
    low: np.ndarray | None = None,
    high: np.ndarray | None = None,
    start_times: np.ndarray | float = 0.0,
    multipliers: Multipliers | None = None,
    device: str | torch.device = "cpu",
) -> DdpResult:
    """Iterate from `states` (B, N+1, n_x) and `controls` (B, N, n_u); `params` and bounds with B rows or one.

    With `follow` the states are a guess with gaps; otherwise only `states[:, 0]` counts. `barrier` is the first barrier weight
    relative to (1 + |J|)/N, 0 for none: then at most `polish` projected Newton steps. Converged: no gaps, and a projected
    gradient of at most tolerance · (1 + |J|). Where gaps remain, `gradient` is infinite: that is no trajectory. State, path and
    terminal constraints count by their `multipliers` only; `costs` never contain their penalties.
    """
    num, steps, n_u = _check(problem, states, controls)
    n_x = problem.n_x
    settings: dict[str, Any] = dict(
        follow=follow, tolerance=tolerance, max_iterations=max_iterations, barrier=barrier, polish=polish, device=device
    )
    p = _rows("params", params, num, problem.n_p)
    times = _rows("start_times", np.reshape(start_times, (-1, 1)), num, 1)
    sides = [
        _rows(name, np.clip(default if side is None else side, -NO_BOUND, NO_BOUND), num, n_u)
        for name, side, default in (("low", low, problem.control_low), ("high", high, problem.control_high))
    ]
    per_launch = max(1, _LARGEST_ARRAY // ((steps + 1) * n_x**2))
    if num > per_launch:
        parts = []
        for start in range(0, num, per_launch):
            part = slice(start, start + per_launch)
            own = [a if len(a) == 1 else a[part] for a in (p, *sides, times)]
            parts.append(
                solve_ddp(
                    problem,
                    states[part],
                    controls[part],
                    own[0],
                    low=own[1],
                    high=own[2],
                    start_times=own[3],
                    multipliers=None if multipliers is None else multipliers.take(part),
                    **settings,
                )
            )
        return DdpResult(
            **{name: np.concatenate([part.__dict__[name] for part in parts]) for name in parts[0].__dict__}
        )
    return _solve(problem, states, controls, p, sides, times, multipliers, **settings)


def _check(problem: Problem, states: np.ndarray, controls: np.ndarray) -> tuple[int, int, int]:
    """B, N, n_u."""
    shape = np.shape(controls)
    require(
        len(shape) == 3 and shape[2] == problem.n_u and min(shape) > 0,
        "controls",
        f"have shape (B, N, {problem.n_u})",
        f"has shape {shape}",
    )
    num, steps, n_u = shape
    wanted = (num, steps + 1, problem.n_x)
    require(np.shape(states) == wanted, "states", f"have shape {wanted}", f"has shape {np.shape(states)}")
    return num, steps, n_u


def _rows(name: str, values: np.ndarray, num: int, width: int) -> np.ndarray:
    """One row, or one per problem."""
    rows = np.atleast_2d(np.asarray(values, dtype=np.float64))
    wanted = f"have shape (1, {width}) or ({num}, {width})"
    require(rows.shape in ((1, width), (num, width)), name, wanted, f"has shape {np.shape(values)}")
    return rows


def _solve(
    problem: Problem,
    states: np.ndarray,
    controls: np.ndarray,
    params: np.ndarray,
    sides: list[np.ndarray],
    times: np.ndarray,
    multipliers: Multipliers | None,
    *,
    follow: bool,
    tolerance: float,
    max_iterations: int,
    barrier: float,
    polish: int,
    device: str | torch.device,
) -> DdpResult:
    """One launch."""
    (num, steps, n_u), n_x = controls.shape, problem.n_x
    compiled = kernel(problem, device)
    where, limits = compiled.device, compiled.source.limits
    data = np.zeros((num, steps, limits.n_stage))
    if multipliers is not None:
        m, data = multipliers, multipliers.stage
        own = np.broadcast_to(params, (num, problem.n_p))
        params = np.concatenate([own, m.stage_weight, m.end_weight, m.end], axis=1)
    elif limits.n_p:
        params = np.concatenate([params, np.zeros((len(params), limits.n_p))], axis=1)
    rows = max(len(side) for side in sides)
    bounds = np.concatenate([np.broadcast_to(side, (rows, n_u)) for side in sides], axis=1)
    finite = bounds[np.abs(bounds) < NO_BOUND / 10]
    width = float(np.minimum(bounds[:, n_u:] - bounds[:, :n_u], 1e3).max())
    tensor = lambda a: torch.tensor(np.ascontiguousarray(a, dtype=np.float64), device=where)
    inputs = [tensor(a) for a in (states, controls, params, bounds, times, data)]
    counts = [len(a) for a in inputs[2:5]]
    shapes = [
        (steps + 1, n_x),
        (steps, n_u),
        (steps,),
        (steps + 1, n_x),
        (steps + 1, n_x, n_x),
        (steps, n_x, n_u),
        (6,),
    ]
    outputs = [torch.empty((num, *shape), dtype=torch.float64, device=where) for shape in shapes]
    settings = [
        num,
        steps,
        problem.dt,
        float(follow),
        float(barrier),
        float(len(finite) > 0),
        width,
        float(tolerance),
        float(max_iterations),
        float(polish),
    ]
    lanes = compiled.source.lanes
    threads = sharing_threads(-(-num // lanes), where)
    work = torch.zeros(threads * lanes * compiled.source.work_rows(steps), dtype=torch.float64, device=where)
    launch_shared(compiled.function, threads, [*inputs, *counts, *outputs, work, *settings], where)
    x, u, c, costates, hessians, gains, summary = (a.cpu().numpy() for a in outputs)
    open_ = ~(summary[:, 4] == 0)
    summary[open_, 1] = np.inf
    with np.errstate(invalid="ignore", over="ignore"):
        end = summary[:, 0] - c.sum(axis=1) if problem.horizon == "finite" else np.zeros(num)
    if limits.n_p and problem.horizon == "finite":  # the total holds the penalties too
        end = _end_cost(problem, x[:, -1], params[:, : problem.n_p], times + steps * problem.dt)
    return DdpResult(
        states=x,
        controls=u,
        costs=c,
        terminal_cost=end,
        gradient=summary[:, 1].copy(),
        converged=summary[:, 2] > 0,
        iterations=summary[:, 3].astype(int),
        gains=np.swapaxes(gains, -1, -2),
        costates=costates,
        hessians=hessians,
    )


def _end_cost(problem: Problem, x: np.ndarray, params: np.ndarray, times: np.ndarray) -> np.ndarray:
    """φ (B,)."""
    p, t = (np.broadcast_to(a, (len(x), a.shape[1])).T for a in (params, times))
    return np.broadcast_to(np.asarray(problem.terminal_cost_function(x.T, p, t)).ravel(), (len(x),)).copy()
