"""`solve` and `solve_many`: the best certified local optimum from many guesses.

Which method, for `method="auto"`: bilinear problems go to GRAPE when there is one start, or more than 16 states; others with
bounds on controls only and a fixed final time to batched DDP; constrained ones with a fixed final time to its augmented Lagrangian
form from 32 starts on; everything else (and whatever names an option of multiple shooting) to multiple shooting.
Where DDP's guesses come from: `guess`; else coarse dynamic programming (up to four states), with homotopy in the bounds for
eight or more starts of more than two states; else multi-start multiple shooting for a few seeds. Then, in rounds, each start tries
what its solved neighbours do, shifted in time where the problem allows (Bellman's principle), and the better one is kept.
Everything is a function of (problem, starts, seed) while no time limit strikes: neither the number of cores nor of processes
changes a result.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from optctl.errors import ArgumentError, require
from optctl.problem import Problem, check_problem
from optctl.problem.controller import check_params, check_states
from optctl.problem.structure import convex, missing_derivative, smooth, unconstrained
from optctl.problem.trajectory import Trajectory
from optctl.shared import in_turn
from optctl.solvers.certificates import gradient_functions, runs_away
from optctl.solvers.guesses import dynamic_programming
from optctl.solvers.guesses.parallel import solve_each, solve_list
from optctl.solvers.guesses.targets import Neighbours
from optctl.solvers.idle import awake
from optctl.solvers.methods import ddp
from optctl.solvers.methods.bilinear import bilinear
from optctl.solvers.methods.ddp import DdpResult, solve_ddp
from optctl.solvers.methods.multiple_shooting import Guess, solve_multiple_shooting
from optctl.solvers.methods.sweeps import NO_BOUND, control_box
from optctl.solvers.second_order import second_order, second_order_applies
from optctl.solvers.solution import FLAT, UNTRUE, Solution, Status, Verdict
from optctl.solvers.solution_batch import SolutionBatch, collect
from optctl.solvers.units import natural

Progress = Callable[[int, int], None]
"""Called with (starts done, starts in all)."""


_DISTURBANCES, _WAVES = (1e-3, 1e-2, 0.1), 4
"""Of the controls where a saddle is left: sizes beside half of their range, and number of frequencies."""
_SOME, _TRUER = 4, 64
"""Members that multiple shooting tries first, and at most, where differential dynamic programming lives on the error of the integrator."""


class _Best:
    """The best trajectory of each start so far, and the values of the optima it met."""

    def __init__(
        self, problem: Problem, x0: np.ndarray, p: np.ndarray, kernels: bool, tolerance: float = 1e-10
    ) -> None:
        self.problem, self.x0, self.p, self.kernels, self.tolerance = problem, x0, p, kernels, tolerance
        self.result: DdpResult | None = None
        self.values = np.full(len(x0), np.inf)
        self.seen: list[list[float]] = [[] for _ in x0]
        self.tried: set[tuple[int, int]] = set()

    def params(self, index: np.ndarray) -> np.ndarray:
        return self.p if len(self.p) == 1 else self.p[index]

    def offer(self, index: np.ndarray, result: DdpResult) -> np.ndarray:
        """Keep what is better (or equal and converged); returns a mask of the improved. `index` may repeat a start."""
        improved = np.zeros(len(index), dtype=bool)
        if self.result is None:
            self.result = self._nothing(result)
        for j, (i, value) in enumerate(zip(index, result.value, strict=True)):
            if not np.isfinite(value) or not np.isfinite(result.gradient[j]):
                continue
            if result.converged[j] and all(abs(value - v) > 1e-4 * (1 + abs(v)) for v in self.seen[i]):
                self.seen[i].append(float(value))
            tiny = 1e-9 * (1 + abs(value))
            cleaner = value < self.values[i] + tiny and result.gradient[j] < self.result.gradient[i]
            finished = (
                result.converged[j]
                and not self.result.converged[i]
                and value < self.values[i] + 1e-3 * (1 + abs(value))
            )
            if value < self.values[i] - tiny or cleaner or finished:
                improved[j] = value < self.values[i] - 1e-6 * (1 + abs(value))
                self.values[i] = value
                for name, array in self.result.__dict__.items():
                    array[i] = result.__dict__[name][j]
        return improved

    def _nothing(self, like: DdpResult) -> DdpResult:
        """Every start held under the resting control, without a cost: what remains of those from which nothing is finite."""
        empty = like.take(np.zeros(len(self.x0), dtype=int))
        for name in ("costs", "terminal_cost", "gains", "costates", "hessians"):
            getattr(empty, name)[:] = np.nan
        empty.states[:], empty.controls[:] = self.x0[:, None], self.problem.resting_control
        empty.gradient[:], empty.converged[:], empty.iterations[:] = np.inf, False, 0
        return empty

    def run(self, index: np.ndarray, states: np.ndarray, controls: np.ndarray, **options: Any) -> np.ndarray:
        options = {"tolerance": self.tolerance} | options
        found = solve_ddp(self.problem, states, controls, self.params(index), kernels=self.kernels, **options)
        return self.offer(index, found)


def _from_start(x0: np.ndarray, controls: np.ndarray) -> np.ndarray:
    states = np.zeros((len(x0), controls.shape[1] + 1, x0.shape[1]))
    states[:, 0] = x0
    return states


def _regulated(best: _Best) -> tuple[np.ndarray, np.ndarray]:
    """States and controls of a linear-quadratic problem under its optimal feedback without bounds, clipped to them."""
    problem, num, f = best.problem, len(best.x0), ddp.bundle(best.problem)
    p, one = np.broadcast_to(best.p, (num, problem.n_p)), np.ones((1, 1))
    low, high = control_box(problem)
    rest = np.zeros((num, problem.steps + 1, problem.n_x))
    middle = np.tile(problem.resting_control, (num, problem.steps, 1))
    _, _, feed, gains, _, _ = f.clamped(rest, middle, p, 0 * one, 0 * low - NO_BOUND, 0 * high + NO_BOUND, one)
    gain = gains.reshape(num, problem.steps, problem.n_x, problem.n_u)[:, 0]
    feed[:, 0] -= np.einsum("nxu,nx->nu", gain, best.x0)  # `forward` measures deviations from its own start
    rest[:, 0] = best.x0
    states, controls, *_ = f.forward(rest, middle, feed, gains, one, p, low, high, 0 * one)
    return states, controls


def _improvable(best: _Best) -> np.ndarray:
    """The members that a Newton step would still improve by more than a millionth of their cost: where J explodes with the states, no
    gradient is large beside it. They are not converged."""
    problem, r = best.problem, best.result
    assert r is not None
    one, (low, high) = np.ones((1, 1)), control_box(problem)
    p = np.broadcast_to(best.p, (len(best.x0), problem.n_p))
    slopes = ddp.bundle(problem).clamped(r.states, r.controls, p, 0 * one, low, high, one)[4]
    lost = ~(np.abs(slopes.sum(axis=1)) <= 1e-6 * (1 + np.abs(r.value)))
    r.converged[lost], r.gradient[lost] = False, np.inf
    return np.flatnonzero(lost)


def _grid_guesses(best: _Best, index: np.ndarray, policy: dynamic_programming.GridPolicy) -> None:
    """The policy of coarse dynamic programming, rolled out greedily; DDP from there."""
    problem = best.problem
    controls = policy.rollouts(best.x0[index])
    states = ddp.rollout_controls(problem, best.x0[index], controls, best.params(index))[0]
    _follow(best, index, states, controls, (1e-2, 1e-3, 1e-4) if best.kernels else (1e-3,))  # not always the same basin


def _follow(
    best: _Best,
    index: np.ndarray,
    states: np.ndarray,
    controls: np.ndarray,
    barriers: tuple[float, ...],
    **options: Any,
) -> None:
    """DDP from guesses with each weight of the barrier; where that lost the guess's basin, with hardly any."""
    for barrier in barriers:
        best.run(index, states, controls, follow=True, barrier=barrier, **options)
    _, costs, end = ddp.rollout_controls(best.problem, best.x0[index], controls, best.params(index))
    worse = ~(best.values[index] <= costs.sum(axis=1) + end)
    if worse.any():
        best.run(index[worse], states[worse], controls[worse], follow=True, barrier=1e-5, **options)


def _wide_guesses(best: _Best, seed: int, most: int = 128, guesses: int = 12) -> None:
    """Homotopy in the bounds from many guesses, for `most` starts: what neighbours have not to offer yet."""
    from optctl.solvers.guesses.homotopy import homotopy  # worth its compilation

    total = len(best.x0)
    index = np.arange(total) if total <= most else np.linspace(0, total - 1, most).astype(int)
    for members, found in homotopy(best.problem, best.x0[index], best.params(index), guesses, seed):
        best.offer(index[members], found)


def _direct_guesses(
    best: _Best, index: np.ndarray, num: int | None, seed: int, processes: int | None, report: Progress
) -> None:
    """Multi-start multiple shooting, whose first iterates need not be feasible; DDP turns its results into rollouts."""
    if not len(index):
        return
    _adopt(best, index, solve_list(
        best.problem, best.x0[index], best.params(index), "multiple_shooting", guess=None, num_starts=num, seed=seed,
        tolerance=1e-8, processes=processes, progress=report, options={"max_iterations": 250},
    ))  # fmt: skip


def _repair(best: _Best, index: np.ndarray) -> None:
    """Multiple shooting from where DDP stalled: it closes gaps where no rollout reproduces a plan."""
    assert best.result is not None
    x, u, p = best.result.states, best.result.controls, np.broadcast_to(best.p, (len(best.x0), best.problem.n_p))
    _adopt(best, index, [
        solve_multiple_shooting(
            best.problem, best.x0[i], params=p[i], guess=Guess(x[i], u[i]), tolerance=1e-8, max_iterations=250
        )
        for i in index
    ])  # fmt: skip


def _adopt(best: _Best, index: np.ndarray, found: list[Solution]) -> None:
    """Offer what multiple shooting found, by way of DDP and as it is."""
    states = np.stack([s.trajectory.states for s in found])
    controls = np.stack([s.trajectory.controls for s in found])
    best.run(index, states, controls, follow=True, barrier=1e-6)
    # on the most unstable arcs no rollout reproduces the plan: then the plan itself stands, with its defect
    best.offer(index, _adopted(best, index, found))


def _adopted(best: _Best, index: np.ndarray, found: list[Solution]) -> DdpResult:
    """Multiple shooting's own points as they are."""
    problem, stack = best.problem, lambda field: np.stack([getattr(s.trajectory, field) for s in found])
    p = np.broadcast_to(best.params(index), (len(index), problem.n_p))
    low, high = control_box(problem)
    states, controls = stack("states"), stack("controls")
    num, steps, n_u = controls.shape
    one = np.ones((1, 1))
    _, hessians, _, gains, _, _ = ddp.bundle(problem).clamped(states, controls, p, 1e-6 * one, low, high, 0 * one)
    return DdpResult(
        states=states,
        controls=controls,
        costs=stack("costs"),
        terminal_cost=stack("terminal_cost"),
        gradient=np.array([s.certificate.stationarity if s.ok else np.inf for s in found]),
        converged=np.array([s.ok for s in found]),
        iterations=np.array([s.iterations for s in found]),
        gains=np.swapaxes(gains.reshape(num, steps, problem.n_x, n_u), -1, -2),
        costates=stack("costates"),
        hessians=hessians.reshape(num, steps + 1, problem.n_x, problem.n_x),
    )


def _rescue(best: _Best, num: int | None, seed: int, processes: int | None, report: Progress) -> None:
    """In a smooth problem no start may stall: a stronger barrier, then multiple shooting."""
    if not smooth(best.problem):
        return
    assert best.result is not None
    for attempt in (1e-2, 1e-1, 1e-3, 1e-4, 1e-5) if best.kernels else (1e-2, 1e-5):
        lost = np.flatnonzero(~best.result.converged)
        if len(lost):
            x, u = best.result.states[lost], best.result.controls[lost]
            best.run(lost, x, u, follow=True, barrier=attempt, max_iterations=400 if best.kernels else 150)
    lost = np.flatnonzero(~best.result.converged)
    if len(lost):
        _repair(best, lost)
        lost = np.flatnonzero(~best.result.converged)
        _direct_guesses(best, lost, num, seed, processes, report)


def _leave_saddles(best: _Best) -> None:
    """Starts that converged where a second-order condition fails go on from the cheapest of some disturbed trajectories: slow cosines
    in one control, in open loop and under the gains of the solution. From below the saddle no descent leads back to it."""
    problem, r = best.problem, best.result
    assert r is not None
    if not second_order_applies(problem):
        return
    times = np.arange(problem.steps + 1) * problem.dt
    path = Trajectory(times, r.states, r.controls, r.costs, r.terminal_cost, r.costates)
    saddles = np.flatnonzero((second_order(problem, path, best.p)[1] < -FLAT) & r.converged)
    reach, phase = 0.5 * (problem.action_high - problem.action_low), np.pi * times[:-1] / times[-1]
    waves = np.stack([size * np.cos(n * phase) for size in _DISTURBANCES for n in range(_WAVES)])
    ways = np.concatenate(
        [sign * wave[:, None] * axis for sign in (1, -1) for wave in waves for axis in np.diag(reach)]
    )
    ways = ways.reshape(-1, problem.steps, problem.n_u)
    for i in saddles:
        num = len(ways)
        rows = lambda a, num=num: np.broadcast_to(a, (num, *a.shape)).copy()
        p = np.broadcast_to(best.params(np.array([i])), (num, problem.n_p))
        low, high = control_box(problem)
        one = np.ones((1, 1))
        gains = rows(np.swapaxes(np.nan_to_num(r.gains[i]), -1, -2).reshape(problem.steps, -1))
        tried = []
        with np.errstate(all="ignore"):
            for feedback in (gains, 0.0 * gains):
                x, u, c, e, _ = ddp.bundle(problem).forward(
                    rows(r.states[i]), rows(r.controls[i]), ways, feedback, one, p, low, high, 0 * one
                )
                tried.append((x, u, c.reshape(num, -1).sum(axis=1) + e[:, 0]))
        states, controls, costs = (np.concatenate(parts) for parts in zip(*tried, strict=True))
        lowest = int(np.argmin(np.where(np.isfinite(costs), costs, np.inf)))
        if costs[lowest] < r.value[i]:
            best.run(np.array([i]), states[[lowest]], controls[[lowest]], follow=True, barrier=1e-5)


def _neighbour_round(best: _Best, candidates: int, tries: int, only: np.ndarray | None = None) -> int:
    """Every start tries its nearest solved trajectories as guesses. Returns how often one improved."""
    problem, result = best.problem, best.result
    assert result is not None
    solved = np.flatnonzero(np.isfinite(best.values))
    if not len(solved):
        return 0
    index = np.arange(len(best.x0)) if only is None else only
    near = Neighbours(problem, result.states[solved], result.controls[solved])
    states, controls = near.references(best.x0[index], candidates)
    num = states.shape[1]
    rows = np.repeat(index, num)
    flat_x, flat_u = states.reshape(-1, *states.shape[2:]), controls.reshape(-1, *controls.shape[2:])
    if best.kernels:  # to solve them all costs less than to choose
        keys = [(i, hash(u.tobytes())) for i, u in zip(rows.tolist(), flat_u, strict=True)]
        new = np.array([n for n, key in enumerate(keys) if key not in best.tried], dtype=int)
        best.tried.update(keys)  # the same guess would end the same
        if not len(new):
            return 0
        return int(best.run(rows[new], flat_x[new], flat_u[new], follow=True, barrier=1e-4, max_iterations=60).sum())
    first = ddp.follow_reference(problem, flat_x, flat_u, best.params(rows))
    value = first.value.reshape(len(index), num)
    order = np.argsort(value, axis=1, kind="stable")[:, :tries]
    chosen = np.take_along_axis(value, order, axis=1)
    hopeful = np.isfinite(chosen) & (chosen < best.values[index, None] + 0.01 * (1 + np.abs(best.values[index, None])))
    same = np.abs(chosen - best.values[index, None]) < 1e-7 * (1 + np.abs(chosen))
    pick = np.flatnonzero((hopeful & ~same).ravel())
    if not len(pick):
        return 0
    source = (np.arange(len(index))[:, None] * num + order).ravel()[pick]
    return int(
        best.run(
            rows[source], first.states[source], first.controls[source], follow=True, barrier=1e-4, max_iterations=60
        ).sum()
    )


def _solve_batch(
    problem: Problem, x0: np.ndarray, p: np.ndarray, *, guess: Trajectory | None, num_starts: int | None, seed: int,
    tolerance: float, rounds: int | None, processes: int | None, progress: Progress | None,
) -> SolutionBatch:  # fmt: skip
    started = time.perf_counter()
    total = len(x0)
    proved = convex(problem, p)
    best = _Best(problem, x0, p, kernels=total >= (32 if proved else 8), tolerance=tolerance)
    everyone = np.arange(total)
    report = progress or (lambda done, of: None)
    report(0, total)
    if guess is not None:
        states = np.broadcast_to(guess.states, (total, *guess.states.shape[-2:])).copy()
        states[:, 0] = x0
        controls = np.broadcast_to(guess.controls, (total, *guess.controls.shape[-2:]))
        _follow(best, everyone, states, controls, (1e-3,))
    elif proved:
        best.run(everyone, *_regulated(best), follow=True)
        lost = _improvable(best)
        if len(lost):
            _repair(best, lost)
            _improvable(best)
    elif dynamic_programming.applies(problem):
        policy = dynamic_programming.grid_policy(problem, p.mean(axis=0), x0)
        for part in np.array_split(everyone, -(-total // 1024)):
            _grid_guesses(best, part, policy)
            report(int(part[-1]) + 1, total)
        if best.kernels and problem.n_x > 2:  # in a plane the grid has them all
            _wide_guesses(best, seed)
        u = np.empty(0) if best.result is None else best.result.controls
        wide = bool(((u < problem.action_low) | (u > problem.action_high)).any())  # beyond the levels that were tried
        if num_starts or (wide and total < 8):
            _direct_guesses(best, everyone, num_starts, seed, processes, report)
        for _ in range(10 if rounds is None else rounds):
            if total < 4 or not _neighbour_round(best, 6, 1):
                break
        _rescue(best, num_starts, seed, processes, report)
    else:
        seeds = everyone if total <= 8 else np.linspace(0, total - 1, 8).astype(int)
        _direct_guesses(best, seeds, num_starts, seed, processes, lambda done, of: report(done, total))
        for _ in range(3 if rounds is None else rounds):
            if total == 1 or not _neighbour_round(best, 6, 2):
                break
        assert best.result is not None
        lost = np.flatnonzero(~best.result.converged | ~np.isfinite(best.values))
        _direct_guesses(best, np.setdiff1d(lost, seeds), num_starts, seed, processes, report)
        _rescue(best, 8, seed + 1, processes, report)
    if not proved:
        _leave_saddles(best)
    report(total, total)
    return _batch_solution(best, proved, time.perf_counter() - started)


def _expanded(best: _Best) -> None:
    """Replace what the method left of members that did not converge, and derivatives that are not finite, by `ddp.expansion`."""
    problem, r = best.problem, best.result
    assert r is not None
    finite = np.isfinite(r.gains).all(axis=(1, 2, 3)) & np.isfinite(r.hessians).all(axis=(1, 2, 3))
    loose = np.flatnonzero(~(r.converged & finite))
    if len(loose):
        p = np.broadcast_to(best.p, (len(r.states), problem.n_p))[loose]
        low, high = control_box(problem)
        slopes, r.hessians[loose], r.gains[loose] = ddp.expansion(
            problem, r.states[loose], r.controls[loose], p, low, high
        )
        open_ = ~r.converged[loose]
        r.costates[loose[open_]] = slopes[open_]


_BESIDE = 1e-9
"""How far from a state its sides are, in units of 1 + |x|."""
_ELSEWHERE = 1e-4
"""How far from a control another one is, in units of 1 + |u|: a kink that it leaves is one of the control's, no kink of J*."""
_JUMP = 1e-3
"""Relative jump of a slope between both sides from which there is no gradient; of the largest slope, a thousandth of that."""


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


def _first_order(best: _Best, statuses: list[Status]) -> tuple[dict[str, np.ndarray], np.ndarray]:
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


def _batch_solution(best: _Best, proved: bool, wall_time: float) -> SolutionBatch:
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
        times=np.arange(problem.steps + 1) * problem.dt, states=r.states, controls=r.controls, costs=r.costs,
        terminal_cost=r.terminal_cost, costates=costates,
    )  # fmt: skip
    num = len(r.states)
    return SolutionBatch(
        problem, "ddp", trajectory, statuses,
        {"stationarity": r.gradient, **residuals, "transversality": np.zeros(num)},
        best.p, wall_time, gains=r.gains, hessians=r.hessians, iterations=r.iterations,
        basins=np.array([max(1, len(values)) for values in best.seen]), proved=proved,
    )  # fmt: skip


def _polished(
    problem: Problem, x0: np.ndarray, p: np.ndarray, num_starts: int | None, seed: int, tolerance: float,
    processes: int | None, progress: Progress | None,
) -> SolutionBatch | None:  # fmt: skip
    """Direct solutions of all starts, polished together by batched indirect shooting; what that loses, one by one. `None` for a problem
    that it does not take."""
    from optctl.solvers.batched import shooting  # worth its compilation

    try:
        shooting.check_suitable(problem)
    except ArgumentError:
        return None
    started = time.perf_counter()
    direct = solve_many(problem, x0, params=p, num_starts=num_starts, seed=seed, processes=processes, progress=progress)
    found = shooting.solve_pontryagin(problem, direct.trajectory, params=p, tolerance=min(tolerance, 1e-10))
    lost = np.flatnonzero(~found.ok)
    if not len(lost):
        found.wall_time = time.perf_counter() - started
        return found
    rest = solve_list(
        problem, x0[lost], p if len(p) == 1 else p[lost], "pontryagin", guess=None, num_starts=num_starts, seed=seed,
        tolerance=tolerance, processes=processes, progress=None, options={},
    )  # fmt: skip
    members = list(found)
    for i, solution in zip(lost, rest, strict=True):
        members[i] = solution
    return collect(problem, members, p, time.perf_counter() - started)


def _truer(
    found: SolutionBatch,
    guess: Trajectory | None,
    num_starts: int | None,
    seed: int,
    tolerance: float,
    processes: int | None,
) -> SolutionBatch:
    """What lives on the error of its integrator, from multiple shooting, which prefers what is true to the plant: where that certifies it.
    Where it helps none of the first few, the step is too coarse for all."""
    true = found.certificates().get("accumulated", np.zeros(len(found)))
    hopeless = np.isnan(true) & (not smooth(found.problem))  # a kink that no integrator passes
    lost = np.flatnonzero([s.certifiable for s in found.statuses] & ~(true <= UNTRUE) & ~hopeless)
    if not len(lost):
        return found
    began, p = time.perf_counter(), found.params
    sure: dict[int, Solution] = {}
    batched = guess is not None and guess.batch_shape
    for part in (lost[:_SOME], lost[_SOME:_TRUER]):
        if not len(part) or (part[0] != lost[0] and not sure):
            break
        other = solve_list(
            found.problem, found.trajectory.states[part, 0], p if len(p) == 1 else p[part], "multiple_shooting",
            guess=guess[part] if batched else guess, num_starts=num_starts, seed=seed, tolerance=tolerance,  # type: ignore[index]
            processes=processes, progress=None, options={},
        )  # fmt: skip
        sure |= {
            i: s for i, s in zip(part.tolist(), other, strict=True) if s.verdict in (Verdict.PROVED, Verdict.EXTREMAL)
        }
    if not sure:
        return found
    members = [sure.get(i, found[i]) for i in range(len(found))]
    return collect(found.problem, members, p, found.wall_time + time.perf_counter() - began)


def _check_options(method: str, taken: tuple[str, ...], options: dict[str, Any]) -> None:
    """Raise for the first option that the method does not take."""
    own = [name for name in taken if name not in ("problem", "x0")]
    common = [name for name in inspect.signature(solve_many).parameters if name not in ("problem", "starts", "options")]
    for name in options:
        known = ", ".join(dict.fromkeys([*common, *own]))
        require(name in own, name, f"be an option of `{method}` ({known})", "is none")


def _check_guess(problem: Problem, guess: Any) -> None:
    """Raise for a guess of differential dynamic programming that does not fit the grid."""
    shape, fits = None if guess is None else np.shape(guess.controls), (problem.steps, problem.n_u)
    require(shape is None or shape[-2:] == fits, "guess", f"have controls of shape {fits}", f"has {shape}")


def pulses(problem: Problem, num: int) -> bool:
    """Where GRAPE comes first: bilinear, and a single start or more states than sweeps are unrolled for."""
    return (num == 1 or problem.n_x > ddp.UNROLLED) and bilinear(problem) is not None


@in_turn
@np.errstate(all="ignore")  # numbers that end are NaN, and are judged as such
def solve_many(
    problem: Problem,
    starts: np.ndarray,
    *,
    method: str = "auto",
    params: np.ndarray | None = None,
    guess: Trajectory | None = None,
    num_starts: int | None = None,
    seed: int = 0,
    tolerance: float | None = None,
    rounds: int | None = None,
    processes: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> SolutionBatch:
    """Solve every start (B, n_x). `num_starts` random guesses a start (default: as many as the problem needs), `rounds` of
    neighbour improvement. Deterministic for a given `seed`."""
    from optctl.solvers import SOLVERS

    check_problem(problem)
    obstacle = missing_derivative(problem)
    require(obstacle is None, "problem", "have derivatives to be solved", obstacle)
    require(
        isinstance(seed, (int, np.integer)) and seed >= 0, "seed", "be an integer that is not negative", f"is {seed!r}"
    )
    guess = getattr(guess, "trajectory", guess)  # solutions are guesses too
    x0 = check_states(problem, starts, "starts")
    require(guess is None or hasattr(guess, "controls"), "guess", "be a trajectory or a solution", f"is {guess!r}")
    lead = () if guess is None else np.shape(guess.controls)[:-2]
    require(
        lead in ((), (1,), (len(x0),)), "guess", f"be one, or one for each of {len(x0)} starts", f"has {lead} of them"
    )
    require(len(x0) > 0, "starts", "hold at least one start", "is empty")
    p = check_params(problem, params, len(x0))
    require(method == "auto" or method in SOLVERS, "method", f"be one of auto, {', '.join(SOLVERS)}", f"is {method!r}")
    require(tolerance is None or tolerance > 0, "tolerance", "be positive", f"is {tolerance!r}")
    whole = num_starts is None or (isinstance(num_starts, (int, np.integer)) and num_starts > 0)
    require(whole, "num_starts", "be a positive integer", f"is {num_starts!r}")
    if (busy := awake(problem)) is not None:
        inside = solve_many(
            busy.problem, x0, method=method, params=p, guess=busy.guess(guess), num_starts=num_starts, seed=seed,
            tolerance=tolerance, rounds=rounds, processes=processes, progress=progress, **options,
        )  # fmt: skip
        return busy.restored(problem, inside)
    if (units := natural(problem)) is not None:
        inside = solve_many(
            units.problem, x0 / units.state, method=method, params=p, guess=units.guess(guess), num_starts=num_starts, seed=seed,
            tolerance=tolerance, rounds=rounds, processes=processes, progress=progress, **options,
        )  # fmt: skip
        return units.restored(problem, inside)
    if method == "auto" and guess is None and not options and pulses(problem, len(x0)):
        method = "grape"
    shooting = inspect.signature(SOLVERS["multiple_shooting"]).parameters
    asked = method == "auto" and options and all(name in shooting for name in options)
    if method in ("auto", "ddp") and unconstrained(problem) and not asked:
        _check_options("ddp", (), options)
        _check_guess(problem, guess)
        found = _solve_batch(
            problem, x0, p, guess=guess, num_starts=num_starts, seed=seed, tolerance=tolerance or 1e-10, rounds=rounds,
            processes=processes, progress=progress,
        )  # fmt: skip
        if method == "ddp":
            return found
        return _truer(found, guess, num_starts, seed, tolerance or 1e-10, processes)
    require(
        method != "ddp" or problem.final_time is None, "method", "suit the problem", "`ddp` takes no free final time"
    )
    if method == "ddp" or (method == "auto" and problem.final_time is None and len(x0) >= 32 and not asked):
        from optctl.solvers.batched.constrained import solve_many_constrained  # worth its compilation

        _check_options("ddp", (), options)
        _check_guess(problem, guess)
        found = solve_many_constrained(
            problem, x0, p, guess=guess, num_starts=num_starts, seed=seed, tolerance=tolerance or 1e-10, rounds=rounds,
            processes=processes, progress=progress,
        )  # fmt: skip
        if found is not None:
            return found
    if method == "pontryagin" and guess is None and not options and len(x0) >= 8:
        extremals = _polished(problem, x0, p, num_starts, seed, tolerance or 1e-10, processes, progress)
        if extremals is not None:
            return extremals
    name = "multiple_shooting" if method in ("auto", "ddp") else method
    _check_options(name, tuple(inspect.signature(SOLVERS[name]).parameters), options)
    return solve_each(
        problem, x0, p, name, guess=guess, num_starts=num_starts, seed=seed, tolerance=tolerance or 1e-10, processes=processes,
        progress=progress, options=options,
    )  # fmt: skip


def solve_ddp_start(problem: Problem, x0: np.ndarray, **options: Any) -> Solution:
    """`solve` by batched DDP for one start."""
    return solve_many(problem, x0, method="ddp", **options)[0]


@in_turn
def solve(
    problem: Problem,
    x0: np.ndarray,
    *,
    method: str = "auto",
    params: np.ndarray | None = None,
    guess: Trajectory | None = None,
    num_starts: int | None = None,
    seed: int = 0,
    tolerance: float | None = None,
    **options: Any,
) -> Solution | SolutionBatch:
    """The best certified solution from x0 (n_x,), or a batch of them from x0 (B, n_x). Never raises for non-convergence.

    `method`: "auto" or a name in `SOLVERS`. `num_starts`: guesses per start. Further options go to the method.
    """
    check_problem(problem)
    states = check_states(problem, x0)
    batch = solve_many(
        problem, states, method=method, params=params, guess=guess, num_starts=num_starts, seed=seed, tolerance=tolerance,
        **options,
    )  # fmt: skip
    return batch if np.ndim(x0) > 1 else batch[0]
