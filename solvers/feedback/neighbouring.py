"""Neighbouring optimal feedback along solved trajectories, and solvers as controllers.

The second-order sweep about an extremal (x*, u*, λ*) gives, to first order in a deviation Δx,

    u = u* − K Δx,   λ = λ* + P Δx,   J* ≈ J*(x*) + λ*'Δx + ½ Δx'PΔx,   K = H_uu⁻¹ H_ux (Hessians of l + λ⁺'F + ½ F'P⁺F)

with K = 0 for controls held at a bound. Note the ½: P is the Hessian of the value, twice the Riccati matrix of `lqr`.
Source: Bryson and Ho, Applied Optimal Control (1975), §6.3; Breakwell, Speyer, Bryson (1963).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from optctl.errors import require
from optctl.problem import Problem
from optctl.problem.controller import check_params, check_states
from optctl.problem.structure import periods
from optctl.problem.trajectory import Trajectory
from optctl.solvers.feedback.hjb import HjbController
from optctl.solvers.feedback.lqg import LqgController
from optctl.solvers.feedback.lqr import lqr_controller
from optctl.solvers.methods.ddp import GAUSS_NEWTON_DAMPING
from optctl.solvers.methods.sweeps import CONVEX, EXACT, UNDAMPED, control_box, sweeps
from optctl.solvers.select import solve_many
from optctl.solvers.solution_batch import SolutionBatch
from optctl.solvers.units import natural


@dataclass(frozen=True)
class Feedback:
    """Gains and value Hessians along trajectories."""

    K: np.ndarray
    """(*B, N, n_u, n_x)."""
    P: np.ndarray
    """(*B, N+1, n_x, n_x)."""
    regularised: np.ndarray
    """(*B,): the exact Hessian was not positive definite in the free controls and its convex Gauss–Newton part was taken."""


def tvlqr(problem: Problem, trajectory: Trajectory, params: np.ndarray | None = None) -> Feedback:
    """Time-varying gains and value Hessians along one trajectory or a batch. The final time must be fixed; state, path and
    terminal constraints do not enter."""
    require(problem.final_time is None, "problem", "have a fixed final time", "its final time is free")
    if (units := natural(problem)) is not None:
        inside = tvlqr(units.problem, units.guess(trajectory), params)
        return Feedback(units.gains(inside.K), units.hessians(inside.P), inside.regularised)  # type: ignore[arg-type]
    batch = trajectory.batch_shape
    x = trajectory.states.reshape(-1, *trajectory.states.shape[-2:])
    u = trajectory.controls.reshape(-1, *trajectory.controls.shape[-2:])
    num, steps = len(x), u.shape[1]
    p = np.broadcast_to(check_params(problem, params, num), (num, problem.n_p))
    low, high = control_box(problem)
    width = np.minimum(high - low, 1.0)
    u = np.where(u <= low + 1e-7 * width, low, np.where(u >= high - 1e-7 * width, high, u))
    f = sweeps(problem, steps)
    with np.errstate(all="ignore"):
        exact = f.clamped(x, u, p, UNDAMPED, low, high, EXACT)
        P, K = exact.hessians, exact.gains
        bad = ~(np.abs(K).max(axis=(1, 2), initial=0.0) < 1e6) | ~(np.abs(P).max(axis=(1, 2)) < 1e12)
    if bad.any():
        model = f.clamped(x[bad], u[bad], p[bad], np.full((1, 1), GAUSS_NEWTON_DAMPING), low, high, CONVEX)
        P[bad], K[bad] = model.hessians, model.gains
    K = np.swapaxes(K.reshape(num, steps, problem.n_x, problem.n_u), -1, -2)
    P = P.reshape(num, steps + 1, problem.n_x, problem.n_x)
    return Feedback(K.reshape(*batch, *K.shape[1:]), P.reshape(*batch, *P.shape[1:]), bad.reshape(batch))


class OptimalController:
    """Solves every start in `reset` and replays the plans, with neighbouring feedback unless `feedback=False`."""

    def __init__(self, problem: Problem, *, feedback: bool = True, name: str = "optimal", **options: Any) -> None:
        self.problem, self.feedback, self.name, self.options = problem, feedback, name, options
        self.solutions: SolutionBatch | None = None
        self._gains: np.ndarray | None = None
        require(problem.final_time is None, "problem", "have a fixed final time", "its final time is free")

    def reset(self, states: np.ndarray, params: np.ndarray) -> None:
        states = check_states(self.problem, states, "states")
        self.solutions = solve_many(self.problem, states, params=params, **self.options)
        self._gains = None
        if self.feedback:
            gains = self.solutions.gains
            gains = tvlqr(self.problem, self.solutions.trajectory, params).K if gains is None else gains
            self._gains = np.nan_to_num(gains)  # without a gain the plan stands open loop

    def __call__(self, states: np.ndarray, time: float) -> np.ndarray:
        require(self.solutions is not None, "states", "follow a reset", "`reset` was not called")
        assert self.solutions is not None
        plan = self.solutions.trajectory
        k = min(round(time / self.problem.dt), plan.controls.shape[1] - 1)
        control = plan.controls[:, k]
        if self._gains is not None:
            deviation, turn = states - plan.states[:, k], periods(self.problem)
            deviation = np.where(
                turn > 0, deviation - turn * np.round(deviation / np.where(turn > 0, turn, 1.0)), deviation
            )
            control = control - np.einsum("bij,bj->bi", self._gains[:, k], deviation)
        return np.clip(control, self.problem.control_low, self.problem.control_high)


CONTROLLERS: dict[str, Callable[..., Any]] = {
    "lqr": lqr_controller,
    "lqg": LqgController,
    "optimal": OptimalController,
    "hjb": HjbController,
}
"""Name → function(problem, …) → Controller."""
