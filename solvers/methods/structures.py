"""The switching structure of a direct solution: which controls are at which bound, and which bounds on states are active or touched.

A structure is read from the samples of a plan. Several readings are tried in turn, for noise and chatter hide what is sharp.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import casadi as ca
import numpy as np

from optctl.problem import Problem
from optctl.problem.trajectory import Trajectory
from optctl.solvers.methods.arcs import Bound, Mode, bounds

Structure = list[tuple[Mode, int]]
"""(mode, number of intervals); with none, the mode's bounds are touched there."""


@dataclass(frozen=True)
class _Reading:
    """How a plan is read."""

    window: int
    """Intervals over which controls are averaged."""
    shortest: int
    """Free stretches of fewer intervals are switches."""
    near: tuple[float, float]
    """What counts as S = 0 relative to the range of S, for order one and beyond."""
    free: bool
    """All controls are free on a bound, or only those that the plan frees."""
    longest: int
    """Contacts with so many nodes are touches, where the order allows them."""


def structures(problem: Problem, plan: Trajectory, params: np.ndarray | None = None) -> Iterator[Structure]:
    """Candidate structures of a direct solution: sharp switches first, then averaged ones; each with short contacts as touches
    first, then all of them, then only those of one node."""
    p, steps = problem.param_values if params is None else params, len(plan.controls)
    seen = []
    for window, shortest, near in ((1, 2, (1e-6, 1e-3)), (1, 4, late := (1e-3, 1e-5)), (5, 7, late), (9, 13, late)):
        for free, longest in ((True, 2), (False, 2), (True, steps), (True, 1)):
            found = _structure(problem, plan, p, _Reading(window, shortest, near, free, longest))
            names = [(mode, count > 0) for mode, count in found]
            if names not in seen:
                seen.append(names)
                yield found


def _structure(problem: Problem, plan: Trajectory, p: np.ndarray, reading: _Reading) -> Structure:
    low, high = problem.control_low, problem.control_high
    u = plan.controls
    if (window := reading.window) > 1:
        padded = np.pad(u, ((window // 2, window // 2), (0, 0)), mode="edge")
        u = np.stack([np.convolve(column, np.ones(window) / window, "valid") for column in padded.T], axis=1)
    width = np.where(np.isfinite(high - low), high - low, 1.0)
    labels = np.where(u <= low + 0.01 * width, "low", np.where(u >= high - 0.01 * width, "high", "free"))
    active: list[list[str]] = [[] for _ in u]
    touched: list[list[str]] = [[] for _ in plan.times]
    for name, bound in bounds(problem).items():
        for first, last in [] if bound.top is None else _contacts(bound, plan, p, reading.near[bound.order > 1]):
            if bound.order > 1 and last - first < reading.longest and first > 0 and last < len(u):
                touched[(first + last) // 2].append(name)
            elif bound.order and first == last == len(u) and not _implied(problem, bound, plan, p):
                touched[last].append(name)
            else:
                for k in range(first, last):
                    active[k].append(name)
    on = [bool(names) for names in active]
    sources = [_absorb(np.where(on, "on", column), reading.shortest) for column in labels.T]
    labels = np.stack([column[source] for column, source in zip(labels.T, sources, strict=True)], axis=1)
    active = [max((active[k] for k in row), key=len) for row in zip(*sources, strict=True)]
    found: Structure = []
    for k, (row, names) in enumerate(zip(labels, active, strict=True)):
        released = names and (reading.free or np.count_nonzero(row == "free") < len(names))
        mode = (*("free" if released else str(m) for m in row), *names)
        if touched[k]:
            found.append(((*mode[: problem.n_u], *touched[k]), 0))
        if found and found[-1][0] == mode:
            found[-1] = (mode, found[-1][1] + 1)
        else:
            found.append((mode, 1))
    return found + [((*found[-1][0][: problem.n_u], *touched[-1]), 0)] * bool(touched[-1])


def _contacts(bound: Bound, plan: Trajectory, p: np.ndarray, near: float) -> list[tuple[int, int]]:
    """(first, last) node of each stretch on the bound, where S(x, u) = 0 at least two intervals: multiple shooting keeps it at their
    starts, collocation has controls in their middles. One node on S(x) = 0 is enough, or the top of the parabola through three."""
    x, u = plan.states, plan.controls
    if bound.order:
        s = np.asarray(bound.value(x.T, 0.0, p)).ravel()
        close = np.append(peaks(s) >= -near * np.ptp(s) - 1e-9, False)
    else:
        pairs = [np.asarray(bound.value(at.T, u.T, p)).ravel() for at in (x[:-1], (x[:-1] + x[1:]) / 2)]
        close = max((np.append(np.abs(s) <= near * np.ptp(s) + 1e-7, False) for s in pairs), key=np.count_nonzero)
    edges = np.flatnonzero(np.diff(close, prepend=False)).reshape(-1, 2)
    return [(a, b - 1) for a, b in edges] if bound.order else [(a, b) for a, b in edges if b - a > 1]


def peaks(s: np.ndarray) -> np.ndarray:
    """Samples, at local maxima the top of the parabola through three; where it is a plateau's edge, the plateau."""
    s = s.copy()
    slope, bend = s[2:] - s[:-2], 2 * s[1:-1] - s[2:] - s[:-2]
    top = np.abs(slope) < bend
    s[1:-1][top] += slope[top] ** 2 / (8 * bend[top])
    return s


def _implied(problem: Problem, bound: Bound, plan: Trajectory, p: np.ndarray) -> bool:
    """The terminal constraints keep S at the end as it is."""
    if problem.terminal_constraint_function is None:
        return False
    x, t = problem.x, problem.t
    rows = [problem.terminal_constraint_function(x, problem.p, t), bound.chain[0]]
    slopes = ca.Function("slopes", [x, problem.p, t], [ca.jacobian(ca.vertcat(*rows), x)])
    values = np.asarray(slopes(plan.states[-1], p, plan.times[-1]))
    return bool(np.linalg.matrix_rank(values) == np.linalg.matrix_rank(values[:-1]))


def _absorb(labels: np.ndarray, shortest: int) -> np.ndarray:
    """The intervals whose labels hold: free runs shorter than `shortest` are a switch inside an interval, half goes to either
    neighbour."""
    sources = np.arange(len(labels))
    edges = np.concatenate([[0], np.flatnonzero(labels[1:] != labels[:-1]) + 1, [len(labels)]])
    for a, b in pairwise(edges):
        if labels[a] == "free" and b - a < shortest and b - a < len(labels):
            before = sources[a - 1] if a else b
            sources[a : (a + b + 1) // 2], sources[(a + b + 1) // 2 : b] = before, b if b < len(labels) else before
    return sources
