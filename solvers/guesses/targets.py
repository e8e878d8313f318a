"""Guesses for non-convex problems: targets, straight lines to them, random controls, and neighbours already solved."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from optctl.problem import Problem
from optctl.problem.structure import periods, time_invariant


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
