"""Act, store, update: the loop of agents that learn from a replay.

A loop assumes of an environment what docs/design.md says of a `VectorEnv` and no more. The environment's tensors are its own buffers,
so what is kept is copied (`Replay.add` copies).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from optctl.learning.data.experience import Experience
from optctl.learning.data.replay import Replay, Transition
from optctl.learning.fields import COUNT, NOT_NEGATIVE, check


@dataclass(frozen=True, kw_only=True)
class OffPolicyConfig:
    """Settings of `OffPolicyLoop`; measured on pendulum-v1 and the double integrator with 128 and 256 environments."""

    batch_size: int = 256
    """Transitions per update, >= 1."""
    updates_per_step: int = 8
    """Updates after each step of all environments, >= 1."""
    warmup_steps: int = 10
    """Steps of all environments with uniform actions before the first update, >= 0."""
    replay_capacity: int = 100_000
    """Transitions kept, >= 1."""

    def __post_init__(self) -> None:
        check(self, batch_size=COUNT, updates_per_step=COUNT, warmup_steps=NOT_NEGATIVE, replay_capacity=COUNT)

    def prepared(self) -> OffPolicyConfig:
        """The same for an agent that has been cloned: it acts from the start."""
        return replace(self, warmup_steps=0)


class OffPolicyLoop:
    """One iteration is one step of all environments and `updates_per_step` updates of the agent.

        for metrics in OffPolicyLoop(env, agent):
            ...                                            # break whenever enough is enough

    Never ends by itself. The state between iterations is complete: a loop that is saved after any iteration, loaded in another process
    and continued gives the same bits as one that was never interrupted. Rewards are multiplied by `reward_scale` before they are stored.
    """

    Config = OffPolicyConfig

    def __init__(
        self, env: Any, agent: Any, config: OffPolicyConfig | None = None, *, seed: int = 0, reward_scale: float = 1.0
    ):
        self.env, self.agent, self.config, self.reward_scale = env, agent, config or OffPolicyConfig(), reward_scale
        self.replay: Experience = Replay(
            self.config.replay_capacity, env.obs_dim, env.action_dim, device=env.device, dtype=env.dtype
        )
        self.generator = torch.Generator(env.device).manual_seed(seed)
        self.iteration = 0
        self.obs, _ = env.reset(seed=seed)
        self.obs = self.obs.clone()

    @property
    def steps(self) -> int:
        """Steps of all environments so far."""
        return self.iteration

    def __iter__(self) -> Iterator[dict[str, Tensor | int]]:
        config, env, agent, replay = self.config, self.env, self.agent, self.replay
        while True:
            warming_up = self.iteration < config.warmup_steps
            if warming_up:
                action = (
                    torch.rand(
                        env.num_envs, env.action_dim, device=env.device, dtype=env.dtype, generator=self.generator
                    )
                    * 2
                    - 1
                )
            else:
                action = agent.act(self.obs, explore=True)
            obs, reward, terminated, _, info = env.step(action)
            transition = Transition(self.obs, action, reward * self.reward_scale, info["final_obs"], terminated)
            agent.observe(transition)
            replay.add(transition)
            self.obs.copy_(obs)
            self.iteration += 1
            metrics = {"iteration": self.iteration, "env_steps": self.iteration * env.num_envs, "reward": reward}
            if not warming_up:
                batch = replay.sample(config.batch_size, config.updates_per_step, self.generator)
                metrics |= agent.update(batch)
            yield metrics

    def state_dict(self) -> dict:
        """Everything: environment, agent, replay, and the loop's own counters and random state."""
        return {
            "iteration": self.iteration,
            "obs": self.obs,
            "generator": self.generator.get_state(),
            "env": self.env.state_dict(),
            "agent": self.agent.state_dict(),
            "replay": self.replay.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        self.iteration = int(state["iteration"])
        self.obs.copy_(state["obs"])
        self.generator.set_state(state["generator"].cpu())
        self.env.load_state_dict(state["env"])
        self.agent.load_state_dict(state["agent"])
        self.replay.load_state_dict(state["replay"])
