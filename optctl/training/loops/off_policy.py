"""Loops: iterables that yield a metrics dict per iteration. Whoever iterates logs, saves, or stops.

A loop assumes of an environment what docs/design.md says of a `VectorEnv` and no more; the environment's tensors are its own
buffers, so what is kept is copied (`Replay.add` copies).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optctl.errors import require
from optctl.learning.data.experience import Experience
from optctl.learning.data.replay import Transition


@dataclass(frozen=True, kw_only=True)
class OffPolicyConfig:
    """Settings of `OffPolicyLoop`; measured on pendulum-v1 and the double integrator with 128 and 256 environments."""

    batch_size: int = 256  # transitions per update, >= 1
    updates_per_step: int = 8  # updates after each step of all environments, >= 1
    warmup_steps: int = 10  # steps of all environments with uniform actions before the first update, >= 0

    def __post_init__(self):
        for name, least in (("batch_size", 1), ("updates_per_step", 1), ("warmup_steps", 0)):
            require(getattr(self, name) >= least, name, f"be at least {least}", f"is {getattr(self, name)!r}")


class OffPolicyLoop:
    """Act, store, update: one iteration is one step of all environments and `updates_per_step` updates of the agent.

        for metrics in OffPolicyLoop(env, agent, replay):
            ...                                            # break whenever enough is enough

    Never ends by itself. The state between iterations is complete: a loop that is saved after any iteration, loaded in another process
    and continued gives the same bits as one that was never interrupted. warmup_steps=0 acts with the agent from the start, as one
    that was cloned from demonstrations should.
    """

    def __init__(
        self, env: Any, agent: Any, replay: Experience, config: OffPolicyConfig | None = None, *, seed: int = 0
    ):
        self.env, self.agent, self.replay, self.config = env, agent, replay, config or OffPolicyConfig()
        self.generator = torch.Generator(env.device).manual_seed(seed)
        self.iteration = 0
        self.obs, _ = env.reset(seed=seed)
        self.obs = self.obs.clone()

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
            transition = Transition(self.obs, action, reward, info["final_obs"], terminated)
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
