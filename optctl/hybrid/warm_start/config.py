"""Settings of the warm start."""

from __future__ import annotations

import math
from dataclasses import dataclass

from optctl.errors import require


@dataclass(frozen=True, kw_only=True)
class WarmStartConfig:
    """Settings of the warm start; every part can be switched off."""

    num_starts: int = 128
    """Optimal trajectories solved, >= 1."""
    dataset: str | None = None
    """File or folder of trajectories made by `optctl demos`; `None`: solve `num_starts` new ones. At most `num_starts` are read."""
    steps: int | None = None
    """Intervals of each, >= 1; `None`: the problem's own. Fewer are enough where an infinite horizon comes to rest early."""
    perturbed: float = 0.3
    """Perturbed states around the demonstrated ones, per demonstrated state, >= 0."""
    spread: float = 0.05
    """Their standard deviation in units of that of the demonstrated states, >= 0."""
    clone: bool = True
    """Clone the actor from the demonstrations."""
    clone_updates: int = 7000
    clone_batch: int = 128
    clone_lr: float = 1e-2
    """Falls to zero linearly."""
    initial_std: float = 0.1
    """Standard deviation of the cloned policy before the tanh, > 0."""
    fit_critic: bool = True
    """Fit the critic to the cloned policy before any improvement."""
    critic_updates: int = 200
    critic_batch: int = 256
    rollout_steps: int = 50
    """Steps of all environments with the cloned policy before the fit, >= 1."""
    value_weight: float = 1.0
    """Weight of the regression on the demonstrated cost-to-go; 0 switches it off."""
    costate_weight: float = 0.1
    """Weight of the regression on its gradient; 0 switches it off."""
    demonstration_share: float = 0.5
    """Share of each batch from demonstrations at the start of fine-tuning, in [0, 1]."""
    share_iterations: int = 500
    """Iterations over which that share falls to zero, >= 1."""
    cloning_weight: float = 5.0
    """Weight of cloning the demonstrations in the actor's loss while fine-tuning; 0 switches it off."""
    teacher: bool = True
    """Act and bootstrap with whichever of clone and actor the critic values more."""
    review_every: int = 10
    """Iterations between reviews, >= 0; 0: none, and the latest policy is returned instead of the best reviewed one."""
    review_starts: int = 256
    """Validation starts, >= 1, drawn apart from those of the learning curve."""
    review_tolerance: float = 0.01
    """By how much of its cost the learner may fall behind the best policy before it is taken back, >= 0."""

    def __post_init__(self) -> None:
        least = dict.fromkeys(
            ("num_starts", "clone_batch", "rollout_steps", "share_iterations", "review_starts"), 1
        ) | {"critic_batch": 2}
        names = (
            "perturbed",
            "spread",
            "clone_updates",
            "critic_updates",
            "value_weight",
            "costate_weight",
            "cloning_weight",
            "review_every",
            "review_tolerance",
        )
        for name, bound in (least | dict.fromkeys(names, 0)).items():
            value = getattr(self, name)
            require(math.isfinite(value) and value >= bound, name, f"be at least {bound}", f"is {value!r}")
        for name in ("clone_lr", "initial_std"):
            value = getattr(self, name)
            require(0 < value < math.inf, name, "be positive", f"is {value!r}")
        require(
            0 <= self.demonstration_share <= 1,
            "demonstration_share",
            "be in [0, 1]",
            f"is {self.demonstration_share!r}",
        )
