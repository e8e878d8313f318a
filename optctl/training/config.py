"""How a run trains, whatever the agent."""

from __future__ import annotations

import math
from dataclasses import dataclass

from optctl.errors import require


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long an agent trains, on how many environments, and how it is watched."""

    num_envs: int = 128
    """Parallel environments, >= 1."""
    iterations: int = 600
    """Iterations of the agent's loop, >= 1: the budget, so that a run is reproducible. Off-policy: one step of all environments and
    its updates; on-policy: one rollout and the update on it."""
    budget_seconds: float | None = None
    """Stop earlier, after so many seconds of training; then the number of iterations depends on the machine."""
    reward_scale: float | None = None
    """Rewards are multiplied by it before learning, > 0; `None`: so that a step under random control costs about one."""
    evaluate_every: int = 25
    """Iterations between evaluations, >= 1."""
    evaluation_starts: int = 100
    """Starts of an evaluation, >= 1, the same every time."""
    checkpoint_seconds: float = 30.0
    """Seconds between checkpoints when there is an output folder, > 0."""
    randomize: bool = False
    """Draw the plant's parameters from their ranges at every reset."""

    def __post_init__(self) -> None:
        for name in ("num_envs", "iterations", "evaluate_every", "evaluation_starts"):
            value = getattr(self, name)
            require(isinstance(value, int) and value >= 1, name, "be a positive integer", f"is {value!r}")
        require(self.checkpoint_seconds > 0, "checkpoint_seconds", "be positive", f"is {self.checkpoint_seconds!r}")
        scale, budget = self.reward_scale, self.budget_seconds
        require(scale is None or 0 < scale < math.inf, "reward_scale", "be positive or None", f"is {scale!r}")
        require(budget is None or 0 < budget < math.inf, "budget_seconds", "be positive or None", f"is {budget!r}")
