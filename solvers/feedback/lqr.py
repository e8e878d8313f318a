"""The linear feedback of a Riccati equation as a controller, for one plant or for one in each episode."""

from __future__ import annotations

from typing import Any

import numpy as np

from optctl.errors import require
from optctl.problem import Problem
from optctl.problem.controller import FeedbackController
from optctl.problem.structure import periods
from optctl.solvers.methods.lqr import lqr


def lqr_controller(
    problem: Problem, *, linearize_at: object = None, params: np.ndarray | None = None, name: str = "lqr"
) -> FeedbackController:
    """The linear feedback as a controller; angles are taken the short way round. Clipped to the bounds.

    `linearize_at` (x, or (x, u)) is an equilibrium, by default the problem's cheapest.
    `params` (n_p,), or one row for each of the episodes (B, n_p): a plant without a stabilising gain has no control (NaN)."""
    gain: Any
    if np.ndim(params) == 2 and len(params) > 1:  # type: ignore[arg-type]
        from optctl.solvers.batched import riccati  # loads torch and warp

        gain = riccati.lqr(problem, params, linearize_at=linearize_at)  # type: ignore[arg-type]
    else:
        gain = lqr(problem, linearize_at=linearize_at, params=None if params is None else np.ravel(params))
    (x_ref, u_ref), turn = gain.about, periods(problem)
    varying = gain.K.ndim == x_ref.ndim + 2

    def law(states: np.ndarray, time: float) -> np.ndarray:
        one_each = x_ref.ndim == 1 or len(x_ref) == len(states)
        require(one_each, "states", f"be {len(x_ref)}, one for each plant", f"are {len(states)}")
        z = states - x_ref
        z = np.where(turn > 0, z - turn * np.round(z / np.where(turn > 0, turn, 1.0)), z)
        K, k = gain.K, gain.k
        if varying:
            i = min(round(time / problem.dt), K.shape[-3] - 1)
            K, k = K[..., i, :, :], k[..., i, :]
        return np.clip(u_ref - (K @ z[..., None])[..., 0] - k, problem.control_low, problem.control_high)

    return FeedbackController(law, name)
