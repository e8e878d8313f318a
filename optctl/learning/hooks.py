"""What may be hung on an actor–critic from outside: a teacher, and penalties on its losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from optctl.learning.data.replay import Transition

Penalty = Callable[[Any, Tensor, Transition], Tensor]
"""(agent, normalised observations (batch, obs_dim), the raw batch) → a scalar added to a loss."""


@dataclass
class Hooks:
    """Hooks of one agent; all of them are absent at first.

    With a teacher, acting and the critic's target take whichever of actor and teacher the critic values more (Hu et al. 2023, IBRL,
    arXiv 2311.02198). Penalties see the networks through `agent.actor` and `agent.critic`: behaviour cloning, costate regression.
    """

    teacher: Callable[[Tensor], Tensor] | None = None
    """A deterministic policy: raw observations (batch, obs_dim) → actions (batch, action_dim)."""
    actor_penalty: Penalty | None = None
    critic_penalty: Penalty | None = None
