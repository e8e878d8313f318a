"""What trajectories cost, and which constraints they break, by the problem's own step: the same for solutions and for rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from optctl.comparison.result import Reference
from optctl.comparison.statistics import failures_as_worst
from optctl.problem import Problem
from optctl.problem.controller import check_params
from optctl.problem.trajectory import Trajectory


def charge(problem: Problem, trajectory: Trajectory, params: np.ndarray) -> tuple[float, float]:
    """Cost of one trajectory along its own nodes by the problem's own step, and its largest defect.

    The defect is max |F(x_k, u_k) − x_{k+1}| / (1 + |x_{k+1}|). Intervals of other lengths than `dt` (free final time) are
    stepped by `interval_function`.
    """
    x, u, t = trajectory.states, trajectory.controls, trajectory.times
    h, p = np.diff(t), params.reshape(-1, 1)
    if problem.discrete or np.allclose(h, problem.dt, rtol=1e-9, atol=0.0):
        after, cost = problem.step_function(x[:-1].T, u.T, p, t[None, :-1])
    else:
        after, cost = problem.interval_function(x[:-1].T, u.T, p, t[None, :-1], h[None])
    end = problem.terminal_cost_function(x[-1], p, t[-1]) if problem.horizon == "finite" else 0.0
    defect = np.abs(np.asarray(after).T - x[1:]) / (1 + np.abs(x[1:]))
    return float(np.asarray(cost).sum() + float(end)), float(defect.max())


def violations(problem: Problem, trajectory: Trajectory, params: np.ndarray) -> dict[str, np.ndarray]:
    """Largest violation per episode, in the constraint's own units, (B,) for each kind of constraint the problem has.

    `control bounds`, `state bounds` (after the start), `path constraints` max(c, 0) at the start of every interval and, without
    controls, at the end, `terminal constraints` |e|. Zero means kept. NaN (a failed episode) counts as zero here: it is counted as
    a failure.
    """
    x, u = trajectory.states, trajectory.controls
    num, steps = u.shape[:2]
    found: dict[str, np.ndarray] = {}
    with np.errstate(invalid="ignore"):
        for name, value, low, high in (
            ("control bounds", u, problem.control_low, problem.control_high),
            ("state bounds", x[:, 1:], problem.state_low, problem.state_high),
        ):
            if np.isfinite(low).any() or np.isfinite(high).any():
                found[name] = np.maximum(low - value, value - high).max(axis=(1, 2))
    p = np.broadcast_to(params, (num, problem.n_p))
    times = np.broadcast_to(trajectory.times, (num, steps + 1))
    if problem.path_constraint_function is not None:
        c = problem.path_constraint_function(
            x[:, :-1].reshape(-1, problem.n_x).T,
            u.reshape(-1, problem.n_u).T,
            np.repeat(p, steps, axis=0).T,
            times[:, :-1].reshape(1, -1),
        )
        found["path constraints"] = np.asarray(c).reshape(-1, num, steps).max(axis=(0, 2))
    if problem.last_constraint_function is not None:
        c = problem.last_constraint_function(x[:, -1].T, p.T, times[:, -1][None])
        found["path constraints"] = np.maximum(found["path constraints"], np.asarray(c).reshape(-1, num).max(axis=0))
    if problem.terminal_constraint_function is not None:
        e = problem.terminal_constraint_function(x[:, -1].T, p.T, times[:, -1][None])
        found["terminal constraints"] = np.abs(np.asarray(e)).reshape(-1, num).max(axis=0)
    return {name: np.where(value > 0, value, 0.0) for name, value in found.items()}


def from_solutions(
    problem: Problem,
    solutions: Sequence[Any],
    params: object = None,
    *,
    name: str = "optimal",
    wall_time: float | None = None,
    tolerance: float = 1e-6,
) -> Reference:
    """One `Solution` per start → a `Reference`, charged by the problem's own step.

    A solution with a defect above `tolerance` is no trajectory of the problem and costs +∞, whatever its solver reports.
    """
    judged = getattr(solutions, "verdicts", None) or [getattr(s, "verdict", "solved") for s in solutions]
    verdicts = tuple(str(getattr(v, "value", v)) for v in judged)
    search = str(getattr(solutions, "search", ""))
    solutions = list(solutions)  # a batch makes each solution anew whenever it is asked for
    p = check_params(problem, params, len(solutions))
    p = np.broadcast_to(p, (len(solutions), problem.n_p))
    charged = [charge(problem, s.trajectory, row) for s, row in zip(solutions, p, strict=True)]
    costs, defects = np.array(charged).T.reshape(2, -1)
    kept = [violations(problem, _batch_of_one(s.trajectory), row[None]) for s, row in zip(solutions, p, strict=True)]
    return Reference(
        name=name,
        costs=np.where(defects <= tolerance, failures_as_worst(costs), np.inf),
        proved=np.array([verdict == "proved optimum" for verdict in verdicts]),
        trajectories=tuple(s.trajectory for s in solutions),
        violations={kind: np.concatenate([k[kind] for k in kept]) for kind in kept[0]} if kept else {},
        wall_time=float(sum(s.wall_time for s in solutions)) if wall_time is None else wall_time,
        search=search,
        claims=verdicts,
        defect=float(defects.max(initial=0.0)),
    )


def _batch_of_one(t: Trajectory) -> Trajectory:
    return Trajectory(t.times, t.states[None], t.controls[None], t.costs[None], np.atleast_1d(t.terminal_cost))


def rolled(name: str, trajectory: Trajectory, violations: dict[str, np.ndarray]) -> Reference:
    """A controller's rollouts, one per start, as candidates for a reference."""
    costs = failures_as_worst(trajectory.total_cost)
    paths = tuple(trajectory[i] for i in range(len(costs)))
    return Reference(
        name=name, costs=costs, trajectories=paths, violations=violations, claims=("best found",) * len(costs)
    )
