"""The pool of candidates: the best trajectory of every start, and where better ones may come from.

`Best` keeps what differential dynamic programming made of each guess. The functions below offer it guesses: the feedback of a
linear-quadratic problem, coarse dynamic programming, homotopy, multiple shooting, neighbours that are solved already, and
disturbances of what turned out to be a saddle.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from optctl.problem import Problem
from optctl.problem.structure import smooth
from optctl.problem.trajectory import Trajectory
from optctl.solvers.guesses import dynamic_programming
from optctl.solvers.guesses.homotopy import homotopy
from optctl.solvers.guesses.parallel import Progress, solve_list
from optctl.solvers.guesses.targets import Neighbours
from optctl.solvers.methods import ddp
from optctl.solvers.methods.ddp import DdpResult, Engine
from optctl.solvers.methods.multiple_shooting import Guess, solve_multiple_shooting
from optctl.solvers.methods.sweeps import CONVEX, EXACT, NO_BOUND, NO_MARGIN, UNDAMPED, WHOLE_STEP, control_box
from optctl.solvers.second_order import second_order, second_order_applies
from optctl.solvers.solution import FLAT, Solution

_ANOTHER = 1e-4
"""Relative difference of costs from which two optima count as different."""
_EQUAL = 1e-9
"""… and up to which costs are equal, so that the smaller gradient decides."""
_FINISHED = 1e-3
"""… and by which a converged trajectory may cost more than one that is not: that one has no certificate."""
_IMPROVED = 1e-6
"""Relative decrease of the cost that counts as an improvement: with less, neighbours need not be asked again."""
_DISTURBANCES, _WAVES = (1e-3, 1e-2, 0.1), 4
"""Of the controls where a saddle is left: sizes beside half of their range, and number of frequencies."""


class Pool(Protocol):
    """What the starts of one problem have found so far."""

    problem: Problem
    x0: np.ndarray
    p: np.ndarray
    engine: Engine
    tried: set[tuple[int, int]]
    """(start, hash of the controls) of the neighbours' guesses that were tried."""

    @property
    def result(self) -> DdpResult | None: ...

    @property
    def values(self) -> np.ndarray:
        """Costs (B,), infinite without a trajectory."""

    def run(self, index: np.ndarray, states: np.ndarray, controls: np.ndarray, **options: Any) -> np.ndarray:
        """Solve from these guesses for the starts `index`, keep what is better; a mask of the improved."""


class Best:
    """The best trajectory of each start so far, and the values of the optima it met."""

    def __init__(
        self, problem: Problem, x0: np.ndarray, p: np.ndarray, engine: Engine, tolerance: float = 1e-10
    ) -> None:
        self.problem, self.x0, self.p, self.engine, self.tolerance = problem, x0, p, engine, tolerance
        self.result: DdpResult | None = None
        self.values = np.full(len(x0), np.inf)
        self.seen: list[list[float]] = [[] for _ in x0]
        self.tried: set[tuple[int, int]] = set()

    @property
    def kernels(self) -> bool:
        """Whether solving every guess costs less than choosing among them."""
        return self.engine.kernels

    def params(self, index: np.ndarray) -> np.ndarray:
        """Parameters of some starts, or the one row that all share."""
        return self.p if len(self.p) == 1 else self.p[index]

    def offer(self, index: np.ndarray, result: DdpResult) -> np.ndarray:
        """Keep what is better (or equal and converged); returns a mask of the improved. `index` may repeat a start."""
        improved = np.zeros(len(index), dtype=bool)
        if self.result is None:
            self.result = self._nothing(result)
        for j, (i, value) in enumerate(zip(index, result.value, strict=True)):
            if not np.isfinite(value) or not np.isfinite(result.gradient[j]):
                continue
            if result.converged[j] and all(abs(value - v) > _ANOTHER * (1 + abs(v)) for v in self.seen[i]):
                self.seen[i].append(float(value))
            tiny = _EQUAL * (1 + abs(value))
            cleaner = value < self.values[i] + tiny and result.gradient[j] < self.result.gradient[i]
            finished = (
                result.converged[j]
                and not self.result.converged[i]
                and value < self.values[i] + _FINISHED * (1 + abs(value))
            )
            if value < self.values[i] - tiny or cleaner or finished:
                improved[j] = value < self.values[i] - _IMPROVED * (1 + abs(value))
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
        """Solve from these guesses for the starts `index` and `offer` the results; a mask of the improved."""
        options = {"tolerance": self.tolerance} | options
        found = self.engine.solve(self.problem, states, controls, self.params(index), **options)
        return self.offer(index, found)


def from_start(x0: np.ndarray, controls: np.ndarray) -> np.ndarray:
    """States (B, N+1, n_x) of which only the first is meant, for guesses that are applied open loop."""
    states = np.zeros((len(x0), controls.shape[1] + 1, x0.shape[1]))
    states[:, 0] = x0
    return states


def regulated(best: Best) -> tuple[np.ndarray, np.ndarray]:
    """States and controls of a linear-quadratic problem under its optimal feedback without bounds, clipped to them."""
    problem, num, f = best.problem, len(best.x0), best.engine.bundle(best.problem, best.problem.steps)
    p, (low, high) = np.broadcast_to(best.p, (num, problem.n_p)), control_box(problem)
    rest = np.zeros((num, problem.steps + 1, problem.n_x))
    middle = np.tile(problem.resting_control, (num, problem.steps, 1))
    nowhere = np.full_like(low, NO_BOUND)
    law = f.clamped(rest, middle, p, UNDAMPED, -nowhere, nowhere, EXACT)
    gain = law.gains.reshape(num, problem.steps, problem.n_x, problem.n_u)[:, 0]
    law.feed[:, 0] -= np.einsum("nxu,nx->nu", gain, best.x0)  # `forward` measures deviations from its own start
    rest[:, 0] = best.x0
    path = f.forward(rest, middle, law.feed, law.gains, WHOLE_STEP, p, low, high, NO_MARGIN)
    return path.states, path.controls


def improvable(best: Best) -> np.ndarray:
    """The members that a Newton step would still improve by more than a millionth of their cost: where J explodes with the states, no
    gradient is large beside it. They are not converged."""
    problem, r = best.problem, best.result
    assert r is not None
    low, high = control_box(problem)
    p = np.broadcast_to(best.p, (len(best.x0), problem.n_p))
    step = best.engine.bundle(problem, problem.steps).clamped(r.states, r.controls, p, UNDAMPED, low, high, EXACT)
    lost = ~(np.abs(step.change.sum(axis=1)) <= 1e-6 * (1 + np.abs(r.value)))
    r.converged[lost], r.gradient[lost] = False, np.inf
    return np.flatnonzero(lost)


def grid_guesses(best: Best, index: np.ndarray, policy: dynamic_programming.GridPolicy) -> None:
    """The policy of coarse dynamic programming, rolled out greedily; DDP from there."""
    problem = best.problem
    controls = policy.rollouts(best.x0[index])
    states = ddp.rollout_controls(problem, best.x0[index], controls, best.params(index), best.engine.bundle)[0]
    follow(best, index, states, controls, (1e-2, 1e-3, 1e-4) if best.kernels else (1e-3,))  # not always the same basin
    if not best.kernels:
        _other_beginnings(best, index, policy)


_BEGINNINGS = 8
"""Other first controls that a start tries, the cheapest first: what neighbours offer where there are many starts."""


def _other_beginnings(best: Best, index: np.ndarray, policy: dynamic_programming.GridPolicy) -> None:
    """DDP from rollouts that are greedy after a first stage held at each level: a start alone has no neighbours to show it other basins."""
    problem, num = best.problem, len(policy.levels)
    rows = np.repeat(index, num)
    x0, p = best.x0[rows], best.params(rows)
    controls = policy.rollouts(x0, np.tile(np.arange(num), len(index)))
    states, costs, end = ddp.rollout_controls(problem, x0, controls, p, best.engine.bundle)
    value = np.where(np.isfinite(states).all(axis=(1, 2)), costs.sum(axis=1) + end, np.inf).reshape(len(index), num)
    order = np.argsort(value, axis=1, kind="stable")[:, :_BEGINNINGS]
    chosen = (np.arange(len(index))[:, None] * num + order).ravel()
    chosen = chosen[np.isfinite(value.ravel()[chosen])]
    if len(chosen):
        best.run(rows[chosen], states[chosen], controls[chosen], follow=True, barrier=1e-3, max_iterations=100)


def follow(
    best: Best,
    index: np.ndarray,
    states: np.ndarray,
    controls: np.ndarray,
    barriers: tuple[float, ...],
    **options: Any,
) -> None:
    """DDP from guesses with each weight of the barrier; where that lost the guess's basin, with hardly any."""
    for barrier in barriers:
        best.run(index, states, controls, follow=True, barrier=barrier, **options)
    p = best.params(index)
    _, costs, end = ddp.rollout_controls(best.problem, best.x0[index], controls, p, best.engine.bundle)
    worse = ~(best.values[index] <= costs.sum(axis=1) + end)
    if worse.any():
        best.run(index[worse], states[worse], controls[worse], follow=True, barrier=1e-5, **options)


def wide_guesses(best: Best, seed: int, most: int = 128, guesses: int = 12) -> None:
    """Homotopy in the bounds from many guesses, for `most` starts: what neighbours have not to offer yet."""
    solve = best.engine.kernel(best.problem)
    if solve is None:
        return
    total = len(best.x0)
    index = np.arange(total) if total <= most else np.linspace(0, total - 1, most).astype(int)
    for members, found in homotopy(best.problem, best.x0[index], best.params(index), guesses, seed, solve):
        best.offer(index[members], found)


def direct_guesses(
    best: Best, index: np.ndarray, num: int | None, seed: int, processes: int | None, report: Progress
) -> None:
    """Multi-start multiple shooting, whose first iterates need not be feasible; DDP turns its results into rollouts."""
    if not len(index):
        return
    _adopt(
        best,
        index,
        solve_list(
            best.problem,
            best.x0[index],
            best.params(index),
            solve_multiple_shooting,
            guess=None,
            num_starts=num,
            seed=seed,
            tolerance=1e-8,
            processes=processes,
            progress=report,
            options={"max_iterations": 250},
        ),
    )


def repair(best: Best, index: np.ndarray) -> None:
    """Multiple shooting from where DDP stalled: it closes gaps where no rollout reproduces a plan."""
    assert best.result is not None
    x, u, p = best.result.states, best.result.controls, np.broadcast_to(best.p, (len(best.x0), best.problem.n_p))
    _adopt(
        best,
        index,
        [
            solve_multiple_shooting(
                best.problem, best.x0[i], params=p[i], guess=Guess(x[i], u[i]), tolerance=1e-8, max_iterations=250
            )
            for i in index
        ],
    )


def _adopt(best: Best, index: np.ndarray, found: list[Solution]) -> None:
    """Offer what multiple shooting found, by way of DDP and as it is."""
    states = np.stack([s.trajectory.states for s in found])
    controls = np.stack([s.trajectory.controls for s in found])
    best.run(index, states, controls, follow=True, barrier=1e-6)
    # on the most unstable arcs no rollout reproduces the plan: then the plan itself stands, with its defect
    best.offer(index, _adopted(best, index, found))


def _adopted(best: Best, index: np.ndarray, found: list[Solution]) -> DdpResult:
    """Multiple shooting's own points as they are."""
    problem, stack = best.problem, lambda field: np.stack([getattr(s.trajectory, field) for s in found])
    p = np.broadcast_to(best.params(index), (len(index), problem.n_p))
    low, high = control_box(problem)
    states, controls = stack("states"), stack("controls")
    num, steps, n_u = controls.shape
    mu = np.full((1, 1), ddp.GAUSS_NEWTON_DAMPING)
    model = best.engine.bundle(problem, problem.steps).clamped(states, controls, p, mu, low, high, CONVEX)
    return DdpResult(
        states=states,
        controls=controls,
        costs=stack("costs"),
        terminal_cost=stack("terminal_cost"),
        gradient=np.array([s.certificate.stationarity if s.ok else np.inf for s in found]),
        converged=np.array([s.ok for s in found]),
        iterations=np.array([s.iterations for s in found]),
        gains=np.swapaxes(model.gains.reshape(num, steps, problem.n_x, n_u), -1, -2),
        costates=stack("costates"),
        hessians=model.hessians.reshape(num, steps + 1, problem.n_x, problem.n_x),
    )


def rescue(best: Best, num: int | None, seed: int, processes: int | None, report: Progress) -> None:
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
        repair(best, lost)
        lost = np.flatnonzero(~best.result.converged)
        direct_guesses(best, lost, num, seed, processes, report)


def leave_saddles(best: Best) -> None:
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
        gains = rows(np.swapaxes(np.nan_to_num(r.gains[i]), -1, -2).reshape(problem.steps, -1))
        tried = []
        with np.errstate(all="ignore"):
            for feedback in (gains, 0.0 * gains):
                end = best.engine.bundle(problem, problem.steps).forward(
                    rows(r.states[i]), rows(r.controls[i]), ways, feedback, WHOLE_STEP, p, low, high, NO_MARGIN
                )
                cost = end.costs.reshape(num, -1).sum(axis=1) + end.terminal_cost[:, 0]
                tried.append((end.states, end.controls, cost))
        states, controls, costs = (np.concatenate(parts) for parts in zip(*tried, strict=True))
        lowest = int(np.argmin(np.where(np.isfinite(costs), costs, np.inf)))
        if costs[lowest] < r.value[i]:
            best.run(np.array([i]), states[[lowest]], controls[[lowest]], follow=True, barrier=1e-5)


def neighbour_round(best: Pool, candidates: int, tries: int, only: np.ndarray | None = None) -> int:
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
    if best.engine.kernels:  # to solve them all costs less than to choose
        keys = [(i, hash(u.tobytes())) for i, u in zip(rows.tolist(), flat_u, strict=True)]
        new = np.array([n for n, key in enumerate(keys) if key not in best.tried], dtype=int)
        best.tried.update(keys)  # the same guess would end the same
        if not len(new):
            return 0
        return int(best.run(rows[new], flat_x[new], flat_u[new], follow=True, barrier=1e-4, max_iterations=60).sum())
    p = best.p if len(best.p) == 1 else best.p[rows]
    first = ddp.follow_reference(problem, flat_x, flat_u, p, best.engine.bundle)
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
