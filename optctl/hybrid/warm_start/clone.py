"""Demonstrations as tensors, and the actor that imitates them."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from optctl.hybrid.demonstrations import Demonstrations
from optctl.hybrid.warm_start.config import WarmStartConfig
from optctl.learning.data.replay import Transition
from optctl.learning.optimizer import Adam


class Targets:
    """Demonstrations as tensors, and the losses that regress on them."""

    def __init__(
        self, data: Demonstrations, device: torch.device | str, dtype: torch.dtype, reward_scale: float = 1.0
    ) -> None:
        """Rewards of `transition`, values and gradients are those of the demonstrations times `reward_scale`."""
        tensor = lambda a: torch.as_tensor(a, device=device).to(dtype)
        self.reward_scale = reward_scale
        self.obs, self.action = tensor(data.obs), tensor(data.action)
        self.jacobian = tensor(data.obs_jacobian)
        self.value, self.gradient = tensor(data.discounted_value), tensor(np.nan_to_num(data.discounted_gradient))
        self.known = tensor(np.isfinite(data.discounted_gradient).all(axis=-1, keepdims=True))
        # Gradients are compared in units in which the value varies by its own spread over the spread of each state.
        self.state_scale = tensor(data.state.std(axis=0) + 1e-6)
        self.transition = Transition(
            self.obs,
            self.action,
            tensor(data.reward) * reward_scale,
            tensor(data.next_obs),
            torch.as_tensor(data.terminated, device=device),
        )

    def pick(self, size: int, generator: torch.Generator) -> Tensor:
        return torch.randint(len(self.obs), (size,), generator=generator, device=self.obs.device)

    def critic_loss(self, agent: Any, index: Tensor, value_weight: float, costate_weight: float) -> Tensor:
        """w_v mean (Q + s J)² + w_c mean huber(S_x (∂Q/∂x + s ∂J/∂x)) at the demonstrated actions.

        s is the reward scale, S_x the spread of each state. Huber, because costates are huge where trajectories part. The second mean
        is over the demonstrations whose gradient is given.
        """
        scale = self.reward_scale
        raw = self.obs[index].requires_grad_()
        q = agent.critic(agent.normalizer(raw), self.action[index])
        loss = value_weight * (q + scale * self.value[index]).square().mean()
        if costate_weight:
            per_obs = torch.stack([torch.autograd.grad(member.sum(), raw, create_graph=True)[0] for member in q])
            per_state = torch.einsum("eby,byx->ebx", per_obs, self.jacobian[index])
            known = self.known[index].expand_as(per_state)
            error = known * self.state_scale * (per_state + scale * self.gradient[index])
            total = huber_loss(error, torch.zeros_like(error), reduction="sum")
            loss = loss + costate_weight * total / known.sum().clamp(min=1)
        return loss


def clone(agent: Any, targets: Targets, config: WarmStartConfig, generator: torch.Generator) -> float:
    """Fit the agent's actor to the demonstrations; the final mean squared error of an action. The loss is the actor's `imitation`.

    The gradient is written out (see `optctl.learning.networks`): at this size it is twice as fast as autograd.
    """
    mlp, size = agent.actor.mlp, config.clone_batch
    obs, action = agent.normalizer(targets.obs).mT.contiguous(), targets.action.mT.contiguous()
    wanted = math.log(config.initial_std)
    optimizer = Adam(mlp.flat, config.clone_lr)
    picks = targets.pick(config.clone_updates * size, generator).view(-1, size)
    error = torch.zeros(1)
    for k, index in enumerate(picks):
        optimizer.lr.fill_(config.clone_lr * (1 - k / config.clone_updates))
        out, tape = mlp.forward(obs[:, index])
        error, slopes = agent.actor.imitation(out[0], action[:, index], wanted)
        optimizer.step(mlp.backward(tape, slopes.unsqueeze(0) / error.numel()))
    agent.reset_followers()
    return float(error.square().mean())


class Teacher:
    """The actor as cloned: raw observations (batch, obs_dim) → actions (batch, action_dim), frozen."""

    def __init__(self, agent: Any) -> None:
        self.actor = copy.deepcopy(agent.actor)
        self.normalizer = copy.deepcopy(agent.normalizer)

    @torch.no_grad()
    def __call__(self, obs: Tensor) -> Tensor:
        return self.actor.mean_action(self.normalizer(obs))
