"""Coarse dynamic programming on a grid: a guess in the right basin for problems of up to four states.

    V_k(x) = min_u { l(x, u) + V_{k+1}(F(x, u)) },   V_N = φ

with controls held over `stride` steps, multilinear interpolation on the nodes and a finite set of controls. Interpolation makes
each sweep a sparse product per control. States with a period (an angle) are wrapped; others are cut off at the edge of what
random control reaches; with four states the box is then shrunk to what the first policy visits, and leaving it is expensive.
The result is a guess, never a solution. Source: Bellman (1957); Kushner and Dupuis (2001), §5.
"""

from __future__ import annotations

from dataclasses import dataclass

import casadi as ca
import numpy as np
from scipy import sparse

from optctl.problem import Problem
from optctl.problem.structure import periods, time_invariant
from optctl.solvers.batch import Batched
from optctl.solvers.methods.sweeps import sweeps

PROHIBITIVE = 1e9
"""Cost of what is not a number, on fine grids (`feedback.hjb`)."""
_HOPELESS = 1e12
"""What an interval or an end costs that has no finite cost."""


def applies(problem: Problem) -> bool:
    small = (problem.n_x <= 3 and problem.n_u <= 2) or (problem.n_x == 4 and problem.n_u == 1)
    return small and problem.final_time is None and time_invariant(problem)


@dataclass
class GridPolicy:
    """Value tables V (stages + 1, ∏ counts) of one problem and one parameter vector."""

    problem: Problem
    p: np.ndarray
    stride: int
    low: np.ndarray
    spacing: np.ndarray
    counts: np.ndarray
    wrapped: np.ndarray
    values: np.ndarray
    levels: np.ndarray
    """Controls tried, (m, n_u)."""
    held: Batched
    """(x, u, p) → (x after `stride` steps, cost)."""

    def interpolate(self, stage: int, x: np.ndarray) -> np.ndarray:
        """V_stage at states (B, n_x)."""
        index, weight = interpolation(x, self.low, self.spacing, self.counts, self.wrapped)
        return (self.values[stage][index] * weight).sum(axis=0)

    def rollouts(self, x0: np.ndarray, first: np.ndarray | None = None) -> np.ndarray:
        """Controls (B, N, n_u) that are greedy for V from x0 (B, n_x); `first` (B,) forces a level in the first stage."""
        num, m, x, chosen = len(x0), len(self.levels), x0, []
        for stage in range(len(self.values) - 1):
            after, cost = self.held(np.repeat(x, m, axis=0), np.tile(self.levels, (num, 1)), self.p[None])
            hopeless = ~(np.abs(after) < 1e9).all(axis=1)
            after[hopeless] = self.low
            total = cost[:, 0] + self.interpolate(stage + 1, after)
            total = np.where(hopeless | np.isnan(total), np.inf, total).reshape(num, m)
            best = np.argmin(total, axis=1) if stage or first is None else first
            x = after.reshape(num, m, -1)[np.arange(num), best]
            chosen.append(self.levels[best])
        return np.repeat(np.stack(chosen, axis=1), self.stride, axis=1)[:, : self.problem.steps]


def interpolation(x, low, spacing, counts, wrapped):
    """Indices and weights (2^n, B) of multilinear interpolation."""
    position = (x - low) / spacing
    position = np.where(wrapped, position, np.clip(position, 0, counts - 1.000001))
    base = np.floor(position).astype(np.int32)
    part = position - base
    strides = np.concatenate([np.cumprod(counts[::-1])[::-1][1:], [1]]).astype(np.int32)
    below, above = (
        strides * np.where(wrapped, node % counts, np.clip(node, 0, counts - 1)).astype(np.int32)
        for node in (base, base + 1)
    )
    index, weight = np.zeros((len(x), 1), dtype=np.int32), np.ones((len(x), 1))
    for i in reversed(range(len(counts))):  # rows of corners, so that their ravelled form is that of a sparse matrix
        index = np.concatenate([index + below[:, i, None], index + above[:, i, None]], axis=1)
        weight = np.concatenate([weight * (1 - part[:, i, None]), weight * part[:, i, None]], axis=1)
    return index.T, weight.T


def reachable_box(problem: Problem, p: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The box that starts and random bang-bang controls reach."""
    rng = np.random.default_rng(0)
    x0 = np.concatenate([starts, problem.initial_state.sample(rng, 64)])[:256]
    signs = rng.choice([-1.0, 1.0], (len(x0), -(-problem.steps // 10), problem.n_u))
    controls = problem.to_control(np.repeat(signs, 10, axis=1)[:, : problem.steps])
    states = sweeps(problem).rollout(x0, controls, p[None]).states
    states = np.where(np.isfinite(states), states, 0.0).reshape(-1, problem.n_x)
    low, high = np.quantile(states, [0.005, 0.995], axis=0)
    low, high = np.minimum(low, starts.min(axis=0)), np.maximum(high, starts.max(axis=0))
    margin = 0.1 * (high - low) + 1e-6
    return low - margin, high + margin


def _visited(policy: GridPolicy, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The box that the policy's own trajectories fill, with a quarter to spare."""
    controls = policy.rollouts(starts)
    states = sweeps(policy.problem).rollout(starts, controls, policy.p[None]).states
    states = np.where(np.isfinite(states), states, 0.0).reshape(-1, policy.problem.n_x)
    low, high = np.quantile(states, [0.001, 0.999], axis=0)
    margin = 0.25 * (high - low) + 1e-6
    return low - margin, high + margin


def grid_policy(problem: Problem, p: np.ndarray, starts: np.ndarray) -> GridPolicy:
    """Solve the coarse dynamic programme once for all starts."""
    low, high = reachable_box(problem, p, starts)
    if problem.n_x <= 3:
        return _solve_on(problem, p, low, high, nodes=40_000, levels=7 if problem.n_u == 1 else 5, leaving=0.0)
    few = len(starts) < 8  # then the box that their own trajectories fill is small, and so is the grid
    around = problem.initial_state.sample(np.random.default_rng(1), 4 if few else 64)
    some = np.concatenate([starts, around])[:128]
    for nodes in (10_000, 20_000, 40_000) if few else (40_000, 80_000, 160_000):
        policy = _solve_on(problem, p, low, high, nodes=nodes, levels=5, leaving=1.0)
        low, high = (
            f(a, b) for f, a, b in zip((np.maximum, np.minimum), (low, high), _visited(policy, some), strict=True)
        )
    return policy


def _solve_on(
    problem: Problem, p: np.ndarray, low: np.ndarray, high: np.ndarray, *, nodes: int, levels: int, leaving: float
) -> GridPolicy:
    """Backward induction on a box; each interval that ends outside costs `leaving` times the dearest interval inside."""
    turn = periods(problem)
    wrapped = turn > 0
    per_axis = max(5, round(nodes ** (1 / problem.n_x)))
    counts = np.full(problem.n_x, per_axis)
    low, high = np.where(wrapped, 0.0, low), np.where(wrapped, turn, high)
    spacing = np.where(wrapped, (high - low) / counts, (high - low) / (counts - 1))
    axes = [np.linspace(a, b, levels) for a, b in zip(problem.action_low, problem.action_high, strict=True)]
    controls = np.stack([g.ravel() for g in np.meshgrid(*axes, indexing="ij")], axis=-1)
    stride = max(1, min(2, problem.steps // 50))
    stages = -(-problem.steps // stride)

    x, u, q = ca.SX.sym("x", problem.n_x), ca.SX.sym("u", problem.n_u), ca.SX.sym("p", problem.n_p)
    y, total = x, ca.SX(0)
    for _ in range(stride):
        y, cost = problem.step_function(y, u, q, 0.0)
        total += cost
    held = Batched(ca.Function("held", [x, u, q], [y, total]))

    grid = np.stack(
        [
            g.ravel()
            for g in np.meshgrid(
                *[lo + s * np.arange(n) for lo, s, n in zip(low, spacing, counts, strict=True)], indexing="ij"
            )
        ],
        axis=-1,
    )
    size = len(grid)
    arrived, costs = held(np.tile(grid, (len(controls), 1)), np.repeat(controls, size, axis=0), p[None])
    hopeless = ~(np.abs(arrived) < 1e9).all(axis=1) | ~(np.abs(costs[:, 0]) < _HOPELESS)
    arrived[hopeless] = low
    index, weight = interpolation(arrived, low, spacing, counts, wrapped)
    row_ends = np.arange(0, index.size + 1, len(index))
    transition = sparse.csr_matrix((weight.T.ravel(), index.T.ravel(), row_ends), shape=(len(arrived), size))
    paid = np.where(hopeless, _HOPELESS, costs[:, 0])
    if leaving:
        outside = ((arrived < low - spacing / 2) | (arrived > high + spacing / 2)) & ~wrapped
        outside = outside.any(axis=1)
        paid += leaving * np.abs(paid[~outside & ~hopeless]).max(initial=0.0) * outside
    values = np.empty((stages + 1, size))
    if problem.horizon == "finite":
        end = np.asarray(problem.terminal_cost_function(grid.T, p, problem.duration)).ravel()
        values[-1] = np.where(np.abs(end) < _HOPELESS, end, _HOPELESS)
    else:
        values[-1] = 0.0
    for stage in reversed(range(stages)):
        values[stage] = (paid + transition @ values[stage + 1]).reshape(len(controls), size).min(axis=0)
    return GridPolicy(problem, p, stride, low, spacing, counts, wrapped, values, controls, held)
