"""Collect with the present policy, learn from that, forget it: the loop of on-policy agents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optctl.learning.data.rollouts import Rollouts
from optctl.learning.fields import COUNT, check


@dataclass(frozen=True, kw_only=True)
class OnPolicyConfig:
    """Settings of `OnPolicyLoop`."""

    horizon: int = 32
    """Steps of all environments per iteration, >= 1."""

    def __post_init__(self) -> None:
        check(self, horizon=COUNT)


class OnPolicyLoop:
    """One iteration is `horizon` steps of all environments and one `update` of the agent on them.

    During the first episode the environments are begun anew one after the other, so that every rollout sees all phases of an episode.
    The state between iterations is complete: nothing of a rollout outlives its update. Rewards are multiplied by `reward_scale`.
    """

    Config = OnPolicyConfig

    def __init__(
        self, env: Any, agent: Any, config: OnPolicyConfig | None = None, *, seed: int = 0, reward_scale: float = 1.0
    ):
        self.env, self.agent, self.config, self.reward_scale = env, agent, config or OnPolicyConfig(), reward_scale
        sizes = (self.config.horizon, env.num_envs, env.obs_dim, env.action_dim)
        self.rollouts = Rollouts(*sizes, device=env.device, dtype=env.dtype)
        self.first = torch.arange(env.num_envs, device=env.device) * env.max_episode_steps // env.num_envs
        """The step at which each environment is begun anew, (num_envs,); 0: not at all."""
        self.iteration = 0
        self.obs, _ = env.reset(seed=seed)
        self.obs = self.obs.clone()

    @property
    def steps(self) -> int:
        """Steps of all environments so far."""
        return self.iteration * self.config.horizon

    def __iter__(self) -> Iterator[dict[str, Tensor | int]]:
        env, agent, rollouts = self.env, self.agent, self.rollouts
        while True:
            for k in range(self.config.horizon):
                action = agent.act(self.obs, explore=True)
                obs, reward, terminated, truncated, info = env.step(action)
                step = self.steps + k + 1
                anew = self.first == step
                done = terminated | truncated | anew
                rollouts.put(k, self.obs, action, reward * self.reward_scale, info["final_obs"], terminated, done)
                if step < env.max_episode_steps:
                    obs, _ = env.reset(options={"mask": anew})
                self.obs.copy_(obs)
            metrics = agent.update(rollouts)
            self.iteration += 1
            reward = rollouts.reward.mean(0) / self.reward_scale
            yield {"iteration": self.iteration, "env_steps": self.steps * env.num_envs, "reward": reward} | metrics

    def state_dict(self) -> dict:
        """Everything: environment, agent, and the loop's own counter and observations."""
        return {
            "iteration": self.iteration,
            "obs": self.obs,
            "env": self.env.state_dict(),
            "agent": self.agent.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        self.iteration = int(state["iteration"])
        self.obs.copy_(state["obs"])
        self.env.load_state_dict(state["env"])
        self.agent.load_state_dict(state["agent"])
