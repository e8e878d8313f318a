"""Hamilton–Jacobi–Bellman by dynamic programming on a fine grid, up to three states: a feedback law for every start at once.

    V_m(x) = min_u { cost of u held for m₀ intervals from x + V_{m−1}(x then) },   V_0 = φ,   m = stages to go

One interval is the problem's own step, so V approaches the optimum of what environments step. V is multilinear between the nodes:
monotone, hence stable, and from above where V is convex; the sweep is a Warp kernel (`batched/hjb.py`). Holding a control for m₀
intervals (`hold`) divides the number of interpolations, and so their error, by m₀. States with a period (angles) are wrapped; others
end where the box ends. The law chooses anew at every interval: it looks ahead to the next stage over the same controls and refines
the best one by a parabola. Assumptions: one-step map free of time, finite control bounds, no state, path or terminal constraints.
Its cost is an upper bound of the optimum; V itself is no bound. Cubic interpolation was tried and dropped: its overshoots add up.
Memory: 8 bytes for every node and stage, and 8 (n_x + 1) for every node and control until the sweep is done.
Sources: Bellman (1957); Kushner and Dupuis (2001), §5; Falcone and Ferretti, Semi-Lagrangian approximation schemes (2014), §8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import casadi as ca
import numpy as np

from optctl.errors import require
from optctl.problem import Problem
from optctl.problem.controller import check_params, check_states
from optctl.problem.structure import periods, time_invariant
from optctl.solvers.batch import Batched
from optctl.solvers.guesses.dynamic_programming import PROHIBITIVE, interpolation, reachable_box

_NODES: dict[int, int | tuple[int, int]] = {1: 1001, 2: (640, 513), 3: 61}


class HjbController:
    """`HjbController(problem)` solves the grid; then it is a controller, and `value(x, k)` is the optimal cost from step k on.

    Args:
        problem: What to solve.
        nodes: Nodes of every axis, one number or one an axis; default: 1001, (640, 513) or 61 for one, two or three states.
        levels: Controls tried on every control's axis.
        hold: Intervals a stage of the grid.
        box: (low, high), each (n_x,): what the grid covers (angles: a full turn); default: what starts and random control reach.
        params: Of the plant (n_p,); the law knows no other.
        device: Where the grid is solved: cpu, cuda or cuda:N.
    """

    name = "hjb"

    def __init__(
        self,
        problem: Problem,
        *,
        nodes: int | Sequence[int] | None = None,
        levels: int = 15,
        hold: int = 2,
        box: Any = None,
        params: Any = None,
        device: str = "cpu",
    ) -> None:
        require(problem.n_x <= 3, "problem", "have at most three states", f"has {problem.n_x}")
        require(not problem.constrained, "problem", "have neither state, path nor terminal constraints", "has them")
        require(problem.final_time is None, "problem", "have a fixed final time", "its final time is free")
        require(time_invariant(problem), "problem", "not depend on time", "does")
        finite = np.isfinite(problem.control_low).all() and np.isfinite(problem.control_high).all()
        require(bool(finite), "problem", "have finite control bounds", "has not")
        require(isinstance(levels, int) and levels >= 3, "levels", "be an integer of at least 3", f"is {levels!r}")
        require(isinstance(hold, int) and hold > 0, "hold", "be a positive integer", f"is {hold!r}")
        counts = np.broadcast_to(np.asarray(_NODES[problem.n_x] if nodes is None else nodes), problem.n_x)
        require(bool((counts >= 3).all()), "nodes", "be at least 3 on every axis", f"is {nodes!r}")
        self.problem, self.params = problem, check_params(problem, params, 1)
        self.counts = np.array(counts, dtype=int)
        turn = periods(problem)
        self.wrapped = turn > 0
        low, high = self._box(box)
        self.low, high = np.where(self.wrapped, 0.0, low), np.where(self.wrapped, turn, high)
        self.spacing = (high - self.low) / np.where(self.wrapped, self.counts, self.counts - 1)
        axes = [np.linspace(a, b, levels) for a, b in zip(problem.control_low, problem.control_high, strict=True)]
        self.controls = np.stack([g.ravel() for g in np.meshgrid(*axes, indexing="ij")], axis=-1)
        self.gap = (problem.control_high - problem.control_low) / (levels - 1)
        self.held = [Batched(_held(problem, k + 1)) for k in range(hold)]
        from optctl.solvers.batched.hjb import sweep  # needs warp

        self.values = sweep(
            problem, self.params, self.controls, self.low, self.spacing, self.counts, self.wrapped, hold, device
        )
        """V (stages + 1, ∏ counts), by stages to go."""

    def _box(self, box: Any) -> tuple[np.ndarray, np.ndarray]:
        if box is None:
            starts = self.problem.initial_state.sample(np.random.default_rng(0), 256)
            return reachable_box(self.problem, self.params[0], starts)
        n = self.problem.n_x
        require(np.shape(box) == (2, n), "box", f"have shape (2, {n})", f"has shape {np.shape(box)}")
        low, high = np.asarray(box, dtype=float)
        require(bool((low < high).all()), "box", "have low < high", f"is {np.asarray(box).tolist()}")
        return low, high

    def _ahead(self, x: np.ndarray, u: np.ndarray, intervals: int) -> tuple[np.ndarray, np.ndarray]:
        """u held: states and costs; where they are no numbers, the state stays and the cost is prohibitive."""
        after, cost = self.held[intervals - 1](x, u, self.params)
        bad = ~np.isfinite(after).all(axis=1) | ~np.isfinite(cost[:, 0])
        return np.where(bad[:, None], x, after), np.where(bad, PROHIBITIVE, cost[:, 0])

    def value(self, x: np.ndarray, step: int = 0) -> np.ndarray:
        """Cost of the law's choices from states (B, n_x) at `step` on, as the grid sees it."""
        states = check_states(self.problem, x, "x")
        return self._best(states, step)[1]

    # --- the law ----------------------------------------------------------------------------------------------------------

    def reset(self, states: np.ndarray, params: np.ndarray) -> None:
        require(np.allclose(params, self.params), "params", "be the plant that the grid was solved for", "are others")

    def __call__(self, states: np.ndarray, time: float) -> np.ndarray:
        return self._best(states, min(round(time / self.problem.dt), self.problem.steps - 1))[0]

    def _best(self, states: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The best of the levels, then the vertex of the parabola through its neighbours on each control's axis: u, cost."""
        problem, num, m = self.problem, len(states), len(self.controls)
        total = self._cost_to_go(np.repeat(states, m, axis=0), np.tile(self.controls, (num, 1)), step).reshape(num, m)
        u, best = self.controls[np.argmin(total, axis=1)].copy(), total.min(axis=1)
        for i in range(problem.n_u):
            shift = self.gap * np.eye(problem.n_u)[i]
            middle = np.clip(u, problem.control_low + shift, problem.control_high - shift)
            left, centre, right = (self._cost_to_go(states, middle + k * shift, step) for k in (-1, 0, 1))
            bend = left - 2 * centre + right
            offset = np.where(bend > 0, 0.5 * (left - right) / np.where(bend > 0, bend, 1.0), 0.0)
            trial = np.clip(middle + np.clip(offset, -1, 1)[:, None] * shift, problem.control_low, problem.control_high)
            cost = self._cost_to_go(states, trial, step)
            better = cost < best
            u[better], best = trial[better], np.minimum(cost, best)
        return u, best

    def _cost_to_go(self, x: np.ndarray, u: np.ndarray, step: int) -> np.ndarray:
        """Up to the next stage with u held, and V there."""
        left = self.problem.steps - step
        stage = (left - 1) // len(self.held)
        after, cost = self._ahead(x, u, left - stage * len(self.held))
        index, weight = interpolation(after, self.low, self.spacing, self.counts, self.wrapped)
        return cost + (self.values[stage][index] * weight).sum(axis=0)


def _held(problem: Problem, intervals: int) -> ca.Function:
    """(x, u, p) → x and cost after so many intervals with u held."""
    x, u, p = problem.x, problem.u, problem.p
    after, total = x, ca.SX(0)
    for _ in range(intervals):
        after, cost = problem.step_function(after, u, p, 0.0)
        total += cost
    return ca.Function("held", [x, u, p], [after, total])
