"""Guesses for non-convex problems: targets, straight lines to them, random controls, and neighbours already solved."""

from __future__ import annotations

import weakref

import casadi as ca
import numpy as np
from scipy.spatial import cKDTree

from optctl.problem import Problem
from optctl.problem.structure import periods, time_invariant


def target(problem: Problem, p: np.ndarray) -> np.ndarray | None:
    """Where the problem wants to be: e(x) = 0, or else the cheapest equilibrium. `None` where neither is found."""
    x, u = ca.SX.sym("x", problem.n_x), ca.SX.sym("u", problem.n_u)
    free = ca.vertcat(x, u)
    final = problem.duration
    low = np.concatenate([problem.state_low, problem.control_low])
    high = np.concatenate([problem.state_high, problem.control_high])
    if problem.terminal_constraint_function is not None:
        start = problem.initial_state.location + 0.5 * problem.initial_state.spread
        nlp = {
            "x": free,
            "f": 1e-6 * ca.sumsqr(x - start) + ca.sumsqr(u),
            "g": problem.terminal_constraint_function(x, p, final),
        }
    else:
        after, cost = problem.step_function(x, u, p, 0.0)
        nlp = {"x": free, "f": cost + problem.terminal_cost_function(x, p, final), "g": after - x}
    solver = ca.nlpsol(
        "target", "ipopt", nlp,
        {"ipopt": {"print_level": 0, "sb": "yes", "max_iter": 200}, "print_time": False, "error_on_fail": False,
         "show_eval_warnings": False},
    )  # fmt: skip
    rng = np.random.default_rng(0)
    best, best_cost = None, np.inf
    control, step = problem.resting_control, _numbers(problem)[0]
    first = problem.initial_state.location
    if not np.isfinite(float(step(first, control, p, 0.0, problem.dt))):
        control = next(iter(levels(problem, first, p)), control)
    for guess in problem.initial_state.sample(rng, 4):
        start = np.concatenate([guess, control])
        out = solver(x0=start, lbx=low, ubx=high, lbg=0.0, ubg=0.0)
        if solver.stats()["success"] and float(out["f"]) < best_cost - 1e-9:
            best, best_cost = np.asarray(out["x"]).ravel()[: problem.n_x], float(out["f"])
    return best


def equivalent_targets(problem: Problem, goal: np.ndarray, x0: np.ndarray) -> np.ndarray:
    """The goal and its copies a turn away that lie nearest to x0 on either side, (m, n_x), nearest first."""
    turn = periods(problem)
    copies = [goal]
    for i in np.flatnonzero(turn):
        nearest = goal[i] + turn[i] * np.round((x0[i] - goal[i]) / turn[i])
        other = nearest + turn[i] * (1 if x0[i] >= nearest else -1)
        copies = [np.where(np.arange(len(goal)) == i, value, c) for c in copies for value in (nearest, other)]
    return np.stack(copies)


def lines(x0: np.ndarray, goals: np.ndarray, steps: int) -> np.ndarray:
    """Straight lines (m, N+1, n_x)."""
    fraction = np.linspace(0, 1, steps + 1)[:, None]
    return x0 + fraction * (goals[:, None, :] - x0)


def middle(problem: Problem) -> np.ndarray:
    """The control between its bounds, or nearest to zero where one is missing, (n_u,)."""
    low, high = problem.control_low, problem.control_high
    both = np.isfinite(low) & np.isfinite(high)
    return np.where(both, 0.5 * (problem.action_low + problem.action_high), np.clip(0.0, low, high))


def flight(
    problem: Problem, x0: np.ndarray, p: np.ndarray, final_time: float | None, control: np.ndarray | None = None
) -> np.ndarray:
    """Where that control, or the one given, leads within the state bounds and as long as the numbers last, (N+1, n_x)."""
    h = (problem.duration if final_time is None else final_time) / problem.steps
    states, u = [np.asarray(x0, dtype=float)], middle(problem) if control is None else control
    for k in range(problem.steps):
        x = np.asarray(
            problem.interval_function(states[-1], u, p, k * h if final_time else k * problem.dt, h)[0]
        ).ravel()
        x = np.clip(x, problem.state_low, problem.state_high)
        states.append(x if (np.abs(x) < 1e6 * (1 + np.abs(states[0]).max())).all() else states[-1])
    return np.stack(states)


# --- where there are numbers --------------------------------------------------------------------------------------------

_NUMBERS: weakref.WeakKeyDictionary[Problem, tuple[ca.Function, ca.Function]] = weakref.WeakKeyDictionary()


def _numbers(problem: Problem) -> tuple[ca.Function, ca.Function]:
    """(x, u, p, t, h) of an interval and (x, p, t) of the end → one number, finite where all values and first derivatives are."""
    if problem not in _NUMBERS:
        x, u, p, t, h = problem.x, problem.u, problem.p, problem.t, ca.SX.sym("h")
        path, last = problem.path_constraint_function, problem.terminal_constraint_function
        after, cost = problem.interval_function(x, u, p, t, h)
        terms = ca.sum1(after) + cost + (0 if path is None else ca.sum1(ca.vec(path(x, u, p, t))))
        finish = problem.terminal_cost_function(x, p, t) if problem.horizon == "finite" else ca.SX(0)
        finish += 0 if last is None else ca.sum1(ca.vec(last(x, p, t)))
        whole = lambda value, z: ca.densify(value + ca.sum1(ca.gradient(value, z)))
        _NUMBERS[problem] = (
            ca.Function("numbers", [x, u, p, t, h], [whole(terms, ca.vertcat(x, u))]),
            ca.Function("end_numbers", [x, p, t], [whole(finish, x)]),
        )
    return _NUMBERS[problem]


def finite(
    problem: Problem, states: np.ndarray, controls: np.ndarray, p: np.ndarray, final_time: float | None = None
) -> bool:
    """Whether dynamics, costs, constraints and their gradients are finite along states (N+1, n_x) and controls (N, n_u)."""
    interval, end = _numbers(problem)
    steps = len(controls)
    final = problem.duration if final_time is None else final_time
    times = np.arange(steps)[None] * (final / steps)
    along = interval(states[:-1].T, controls.T, p, times, final / steps)
    return bool(np.isfinite(np.asarray(along)).all() and np.isfinite(float(end(states[-1], p, final))))


_INNER = 1e-2
"""How far inside its bounds a guess is put, as IPOPT does it: in units of their distance, or of the control's scale."""
_MAGNITUDES = (-3, 3)
"""Powers of ten, in units of the control's scale, among which levels are sought."""


def inside(problem: Problem, controls: np.ndarray) -> np.ndarray:
    """The nearest controls strictly inside the bounds."""
    margin = _INNER * np.minimum(problem.action_high - problem.action_low, problem.control_high - problem.control_low)
    return np.clip(controls, problem.control_low + margin, problem.control_high - margin)


def levels(problem: Problem, x0: np.ndarray, p: np.ndarray, num: int = 128) -> np.ndarray:
    """Constant controls strictly inside the bounds from which a step from x0 is finite, with its gradients, (m, n_u).

    Tried are, from the bounds on or to both sides of zero, one control scale and then random multiples of it over six decades.
    """
    rng, low, high = np.random.default_rng(0), problem.control_low, problem.control_high
    scale = 0.5 * (problem.action_high - problem.action_low)
    size = 10 ** np.concatenate([np.zeros((2, problem.n_u)), rng.uniform(*_MAGNITUDES, (num, problem.n_u))])
    up = np.concatenate([np.array([[True], [False]]).repeat(problem.n_u, 1), rng.random((num, problem.n_u)) < 0.5])
    up = np.where(np.isfinite(low) == np.isfinite(high), up, np.isfinite(low))  # away from a single bound
    base = np.where(up, np.where(np.isfinite(low), low, 0.0), np.where(np.isfinite(high), high, 0.0))
    tried = inside(problem, base + np.where(up, 1.0, -1.0) * size * scale)
    x = np.tile(x0, (len(tried), 1)).T
    with np.errstate(all="ignore"):
        sound = np.isfinite(np.asarray(_numbers(problem)[0](x, tried.T, p, 0.0, problem.dt)).ravel())
    return tried[sound]


def random_controls(problem: Problem, rng: np.random.Generator, num: int) -> np.ndarray:
    """Zero, then piecewise constant controls of random amplitude and 2 to 20 pieces, (num, N, n_u)."""
    steps, n_u = problem.steps, problem.n_u
    out = np.empty((num, steps, n_u))
    for i in range(num):
        pieces = int(rng.integers(2, 21))
        action = rng.uniform(-1, 1, (pieces, n_u)) * rng.uniform(0.1, 1.0)
        out[i] = problem.to_control(action[np.minimum(np.arange(steps) * pieces // steps, pieces - 1)])
    if num:
        out[0] = problem.resting_control
    return out


class Neighbours:
    """States along solved trajectories, to be found by distance; angles are compared on the circle.

    In a time-invariant problem with infinite horizon every state along an optimal trajectory is a start itself (Bellman), so
    trajectories are offered shifted in time; otherwise only their starts.
    """

    def __init__(self, problem: Problem, states: np.ndarray, controls: np.ndarray, stride: int = 4) -> None:
        self.problem, self.states, self.controls = problem, states, controls
        self.turn = periods(problem)
        shiftable = problem.horizon == "infinite" and time_invariant(problem)
        self.shifts = np.arange(0, problem.steps // 2, stride) if shiftable else np.array([0])
        points = states[:, self.shifts].reshape(-1, problem.n_x)
        self.scale = np.maximum(points.std(axis=0), 1e-6)
        self.tree = cKDTree(self._embed(points))

    def _embed(self, x: np.ndarray) -> np.ndarray:
        columns = []
        for i in range(x.shape[1]):
            if self.turn[i]:
                columns += [np.cos(x[:, i]), np.sin(x[:, i])]
            else:
                columns.append(x[:, i] / self.scale[i])
        return np.stack(columns, axis=1)

    def references(self, x0: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
        """The `num` nearest trajectories to each start: states (B, num, N+1, n_x) from x0 on, controls (B, num, N, n_u)."""
        num = min(num, len(self.tree.data))
        _, index = self.tree.query(self._embed(x0), k=num)
        index = np.asarray(index).reshape(len(x0), num)
        member, shift = index // len(self.shifts), self.shifts[index % len(self.shifts)]
        steps = self.controls.shape[1]
        at = np.minimum(shift[..., None] + np.arange(steps + 1), steps)
        states = self.states[member[..., None], at].copy()
        controls = self.controls[member[..., None], np.minimum(at[..., :-1], steps - 1)].copy()
        for i in np.flatnonzero(self.turn):
            turns = np.round((x0[:, None, i] - states[:, :, 0, i]) / self.turn[i])
            states[..., i] += turns[..., None] * self.turn[i]
        states[:, :, 0] = x0[:, None]
        return states, controls


_APART = 1e-3
"""Mean square distance, in standard deviations, below which two trajectories count as the same."""


def distinct(states: np.ndarray, values: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the trajectories (B, N+1, n_x) that differ most from each other, seen from their starts, by number: the one with
    the least of `values` (B,) first, then always the one furthest from those chosen."""
    paths = ((states - states[:, :1]) / np.maximum(states.std(axis=(0, 1)), 1e-6)).reshape(len(states), -1)
    chosen, apart = [int(np.argmin(values))], np.full(len(states), np.inf)
    while len(chosen) < min(most, len(states)):
        apart = np.minimum(apart, np.square(paths - paths[chosen[-1]]).mean(axis=1))
        if not apart.max() > _APART:
            break
        chosen.append(int(np.argmax(apart)))
    return np.array(chosen)


def moved(path: np.ndarray, x0: np.ndarray) -> np.ndarray:
    """A path (N+1, n_x) from other starts (B, n_x): what they are off fades linearly, (B, N+1, n_x)."""
    return path + np.linspace(1, 0, len(path))[:, None] * (x0 - path[0])[:, None]
