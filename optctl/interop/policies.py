"""`from_policy`: a policy trained anywhere becomes a `Controller`, so that `compare` measures its gap to the optimum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from optctl.envs import resolve_problem
from optctl.errors import require
from optctl.problem import Problem


class PolicyController:
    """u = control of act(y), actions in [−1, 1]; see `from_policy`."""

    observes = True
    clips = True

    def __init__(self, problem: Problem, act: Callable[[np.ndarray], Any], name: str) -> None:
        self.problem, self.act, self.name = problem, act, name

    def reset(self, observations: np.ndarray, params: np.ndarray) -> None:
        pass

    def __call__(self, observations: np.ndarray, time: float) -> np.ndarray:
        action = np.asarray(self.act(observations), dtype=np.float64)
        shape = (len(observations), self.problem.n_u)
        require(action.shape == shape, "act", f"return actions of shape {shape}", f"returns shape {action.shape}")
        return self.problem.to_control(action)


def from_policy(problem: Problem | str, act: Callable[[np.ndarray], Any], name: str = "policy") -> PolicyController:
    """A controller for `compare` and `rollout` of a policy on observations, whatever library has trained it.

    `act`: observations (B, n_y), float32, with the problem's observation noise where `compare` or `rollout` draws it → actions (B, n_u)
    in [−1, 1], what lies beyond being clipped; deterministic, if gaps are to mean anything. Raises ArgumentError for actions of
    another shape.
    """
    require(callable(act), "act", "be a function of observations", f"is {act!r}")
    return PolicyController(resolve_problem(problem), lambda observations: act(observations.astype(np.float32)), name)
