"""The critic of the cloned policy, fitted before any improvement."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from optctl.hybrid.warm_start.clone import Targets
from optctl.hybrid.warm_start.config import WarmStartConfig
from optctl.learning.data.experience import Experience
from optctl.learning.data.mixed import MixedReplay
from optctl.learning.data.replay import Transition


def collect(env: Any, agent: Any, replay: Experience, steps: int, seed: int, reward_scale: float = 1.0) -> None:
    """Run the policy as it is, with its exploration noise, for `steps` steps of all environments."""
    obs = env.reset(seed=seed)[0].clone()
    for _ in range(steps):
        action = agent.act(obs, explore=True)
        following, reward, terminated, _, info = env.step(action)
        replay.add(Transition(obs, action, reward * reward_scale, info["final_obs"], terminated))
        obs = following.clone()


def fit_critic(
    agent: Any, replay: MixedReplay, targets: Targets, config: WarmStartConfig, generator: torch.Generator
) -> None:
    """Policy evaluation of the actor as it stands: the actor does not move."""

    def penalty(agent: Any, obs: Tensor, batch: Transition) -> Tensor:
        index = targets.pick(config.critic_batch // 2, generator)
        return targets.critic_loss(agent, index, config.value_weight, config.costate_weight)

    if config.value_weight or config.costate_weight:
        agent.hooks.critic_penalty = penalty
    teacher, agent.hooks.teacher = agent.hooks.teacher, None  # the clone alone is evaluated
    for _ in range(config.critic_updates):
        agent.update(replay.mix(config.critic_batch, 1, 0.5, generator), update_actor=False)
    agent.hooks.critic_penalty, agent.hooks.teacher = None, teacher
    agent.reset_followers()
