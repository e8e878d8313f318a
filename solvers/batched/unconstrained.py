"""Many starts with bounds on controls only and a fixed final time: guesses from every source, then rounds among neighbours.

The recipe is that of `optctl.solvers.select`; candidates live in `guesses.basins`. What comes out is certified here: derivatives where
the method left none, residuals of the first-order conditions, and costates only where they are gradients of the optimal cost.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from optctl.problem import Problem
from optctl.problem.structure import convex, smooth
from optctl.problem.trajectory import Trajectory
from optctl.solvers.batched.choice import engine
from optctl.solvers.certificates import gradient_functions, runs_away
from optctl.solvers.guesses import dynamic_programming
from optctl.solvers.guesses.basins import (
    Best,
    direct_guesses,
    follow,
    grid_guesses,
    improvable,
    leave_saddles,
    neighbour_round,
    regulated,
    repair,
    rescue,
    wide_guesses,
)
from optctl.solvers.guesses.parallel import Progress
from optctl.solvers.methods import ddp
from optctl.solvers.methods.sweeps import control_box
from optctl.solvers.solution import Status
from optctl.solvers.solution_batch import SolutionBatch

_MANY, _MANY_CONVEX = 8, 32
"""Starts from which on a kernel is worth its compilation; a convex problem needs one solve a start and is quick on the host."""

_BESIDE = 1e-9
"""How far from a state its sides are, in units of 1 + |x|."""

_ELSEWHERE = 1e-4
"""How far from a control another one is, in units of 1 + |u|: a kink that it leaves is one of the control's, no kink of J*."""

_JUMP = 1e-3
"""Relative jump of a slope between both sides from which there is no gradient; of the largest slope, a thousandth of that."""


def solve_many_unconstrained(
    problem: Problem,
    x0: np.ndarray,
    p: np.ndarray,
    *,
    guess: Trajectory | None,
    num_starts: int | None,
    seed: int,
    tolerance: float,
    rounds: int | None,
    processes: int | None,
    progress: Progress | None,
) -> SolutionBatch:
    """Every start (B, n_x) of a problem with bounds on controls only and a fixed final time, by differential dynamic programming."""
    started = time.perf_counter()
    total = len(x0)
    proved = convex(problem, p)
    best = Best(problem, x0, p, engine(total >= (_MANY_CONVEX if proved else _MANY)), tolerance)
    everyone = np.arange(total)
    report = progress or (lambda done, of: None)
    report(0, total)
    if guess is not None:
        states = np.broadcast_to(guess.states, (total, *guess.states.shape[-2:])).copy()
        states[:, 0] = x0
        controls = np.broadcast_to(guess.controls, (total, *guess.controls.shape[-2:]))
        follow(best, everyone, states, controls, (1e-3,))
    elif proved:
        best.run(everyone, *regulated(best), follow=True)
        lost = improvable(best)
        if len(lost):
            repair(best, lost)
            improvable(best)
    elif dynamic_programming.applies(problem):
        policy = dynamic_programming.grid_policy(problem, p.mean(axis=0), x0)
        for part in np.array_split(everyone, -(-total // 1024)):
            grid_guesses(best, part, policy)
            report(int(part[-1]) + 1, total)
        if best.kernels and problem.n_x > 2:  # in a plane the grid has them all
            wide_guesses(best, seed)
        u = np.empty(0) if best.result is None else best.result.controls
        wide = bool(((u < problem.action_low) | (u > problem.action_high)).any())  # beyond the levels that were tried
        if num_starts or (wide and total < 8):
            direct_guesses(best, everyone, num_starts, seed, processes, report)
        for _ in range(10 if rounds is None else rounds):
            if total < 4 or not neighbour_round(best, 6, 1):
                break
        rescue(best, num_starts, seed, processes, report)
    else:
        seeds = everyone if total <= 8 else np.linspace(0, total - 1, 8).astype(int)
        direct_guesses(best, seeds, num_starts, seed, processes, lambda done, of: report(done, total))
        for _ in range(3 if rounds is None else rounds):
            if total == 1 or not neighbour_round(best, 6, 2):
                break
        assert best.result is not None
        lost = np.flatnonzero(~best.result.converged | ~np.isfinite(best.values))
        direct_guesses(best, np.setdiff1d(lost, seeds), num_starts, seed, processes, report)
        rescue(best, 8, seed + 1, processes, report)
    if not proved:
        leave_saddles(best)
    report(total, total)
    return _batch_solution(best, proved, time.perf_counter() - started)


def _expanded(best: Best) -> None:
    """Replace what the method left of members that did not converge, and derivatives that are not finite, by `ddp.expansion`."""
    problem, r = best.problem, best.result
    assert r is not None
    finite = np.isfinite(r.gains).all(axis=(1, 2, 3)) & np.isfinite(r.hessians).all(axis=(1, 2, 3))
    loose = np.flatnonzero(~(r.converged & finite))
    if len(loose):
        p = np.broadcast_to(best.p, (len(r.states), problem.n_p))[loose]
        low, high = control_box(problem)
        slopes, r.hessians[loose], r.gains[loose] = ddp.expansion(
            problem, r.states[loose], r.controls[loose], p, low, high, best.engine.bundle
        )
        open_ = ~r.converged[loose]
        r.costates[loose[open_]] = slopes[open_]


def _kinks(states: np.ndarray, costates: np.ndarray, slope: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Where (B, N) a state lies on a kink of its own interval: `slope` H_x(x) jumps between both sides in some direction."""
    size = np.abs(costates).max(axis=2)
    bound = np.maximum(_JUMP * size, 1e-3 * _JUMP * (1 + size.max(axis=1, keepdims=True)))
    found = np.zeros(size.shape, dtype=bool)
    for j in range(states.shape[2]):
        aside = np.zeros_like(states)
        aside[..., j] = _BESIDE * (1 + np.abs(states[..., j]))
        found |= np.abs(slope(states + aside) - slope(states - aside)).max(axis=2) > bound
    return found


def _first_order(best: Best, statuses: list[Status]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """max |F(x_k, u_k) − x_{k+1}| and max |H_x(x_k, u_k, λ_{k+1}) − λ_k| of every member; the costates that are given, of a
    converged member all."""
    problem, r = best.problem, best.result
    assert r is not None
    flat = lambda a: a.reshape(-1, a.shape[-1]).T
    num, steps = r.controls.shape[:2]
    p = np.repeat(np.broadcast_to(best.p, (num, problem.n_p)), steps, axis=0).T
    times = np.tile(np.arange(steps) * problem.dt, num)[None]
    inner = gradient_functions(problem)[0]
    at = lambda x, u: inner(flat(x), flat(u), p, times, problem.dt, flat(r.costates[:, 1:]))
    after, _, h_x, h_u = at(r.states[:, :-1], r.controls)
    gap = lambda a, b: np.abs(np.asarray(a).T.reshape(num, steps, -1) - b).max(axis=(1, 2))
    u = flat(r.controls).T
    projected = u - np.clip(u - np.asarray(h_u).T, problem.control_low, problem.control_high)
    tolerance = ddp.STATIONARY * (1 + np.abs(r.value))
    tolerance[[status.ok for status in statuses]] = np.inf
    tolerance[[status in (Status.DIVERGED, Status.UNBOUNDED) for status in statuses]] = np.nan
    costates = ddp.gradients(r.costates, np.abs(projected).max(axis=1).reshape(num, steps), tolerance)
    if not smooth(problem):
        other = r.controls + _ELSEWHERE * (1 + np.abs(r.controls))
        slope = lambda x: np.asarray(at(x, other)[2]).T.reshape(num, steps, -1)
        costates[:, :-1][_kinks(r.states[:, :-1], r.costates[:, :-1], slope)] = np.nan
    return {"defect": gap(after, r.states[:, 1:]), "costate_defect": gap(h_x, r.costates[:, :-1])}, costates


def _batch_solution(best: Best, proved: bool, wall_time: float) -> SolutionBatch:
    problem, r = best.problem, best.result
    assert r is not None
    statuses = []
    for converged, value, gradient, u in zip(r.converged, r.value, r.gradient, r.controls, strict=True):
        if not np.isfinite(value):
            statuses.append(Status.DIVERGED)
        elif runs_away(problem, u):
            statuses.append(Status.UNBOUNDED)
        else:
            near = gradient <= ddp.STATIONARY * (1 + abs(value))
            statuses.append(Status.CONVERGED if converged else Status.ACCEPTABLE if near else Status.STALLED)
    with np.errstate(all="ignore"):  # numbers that end are NaN
        _expanded(best)
        residuals, costates = _first_order(best, statuses)
    trajectory = Trajectory(
        times=np.arange(problem.steps + 1) * problem.dt,
        states=r.states,
        controls=r.controls,
        costs=r.costs,
        terminal_cost=r.terminal_cost,
        costates=costates,
    )
    num = len(r.states)
    return SolutionBatch(
        problem,
        "ddp",
        trajectory,
        statuses,
        {"stationarity": r.gradient, **residuals, "transversality": np.zeros(num)},
        best.p,
        wall_time,
        gains=r.gains,
        hessians=r.hessians,
        iterations=r.iterations,
        basins=np.array([max(1, len(values)) for values in best.seen]),
        proved=proved,
    )
