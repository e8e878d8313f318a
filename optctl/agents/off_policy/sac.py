"""Soft actor-critic with automatic temperature.

Haarnoja et al. 2018, "Soft actor-critic algorithms and applications", arXiv 1812.05905: a squashed-Gaussian actor, the minimum of
two critics, and a temperature that holds the policy's entropy at a target.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optctl.learning.data.replay import Transition
from optctl.learning.fields import COUNT, FRACTION, NOT_NEGATIVE, POSITIVE, RANGE, SHARE, WIDTHS, check, one_of, restore
from optctl.learning.hooks import Hooks
from optctl.learning.networks import ACTIVATIONS, MLP, Actor, Critic
from optctl.learning.normalizer import Normalizer
from optctl.learning.ops import value_learning as ops
from optctl.learning.optimizer import Adam


@dataclass(frozen=True, kw_only=True)
class SACConfig:
    """Settings of `SAC`. Sources in brackets: [H] arXiv 1812.05905, [here] measured on pendulum-v1 and the double integrator."""

    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of actor and critic, each > 0 [here]."""
    activation: str = "relu"
    """"relu", "silu" or "tanh" [H: relu]."""
    critic_layer_norm: bool = False
    """Layer norm in the critic, without learnt scale; twice as slow on a CPU."""
    members: int = 2
    """Critics, of which the least counts, >= 1 [H: 2]."""
    gamma: float = 0.99
    """Discount per step, in (0, 1]."""
    polyak: float = 0.05
    """Rate at which the target critic follows, in (0, 1] [H: 0.005]."""
    actor_lr: float = 2e-3
    """> 0 [H: 3e-4]."""
    critic_lr: float = 2e-3
    """> 0 [H: 3e-4]."""
    temperature_lr: float = 1e-2
    """> 0 [H: 3e-4]."""
    final_lr: float = 1.0
    """Fraction of the learning rates left at the end of `decay_updates`, in [0, 1]."""
    decay_updates: int = 0
    """Updates over which they fall linearly; 0: never."""
    actor_delay: int = 1
    """Critic updates per actor update, >= 1 [Fujimoto et al. 2018, arXiv 1802.09477: 2]."""
    initial_temperature: float = 0.1
    """> 0."""
    least_temperature: float = 0.0
    """The temperature is kept at least here, >= 0."""
    target_entropy: float | None = None
    """Nats per action vector; None: -action_dim [H]."""
    log_std_range: tuple[float, float] = (-5.0, 2.0)
    """Log standard deviation before the tanh [H: (-20, 2)]."""
    stretch: float = 1.1
    """Actions are clamp(stretch tanh(u), -1, 1): above 1 they reach the bounds; in [1, 2] [here]."""
    average_rate: float = 0.005
    """Rate at which the evaluated policy follows the actor, in (0, 1]; 1: is the actor."""
    normalize_obs: bool = True
    """Standardise observations by running moments."""

    def __post_init__(self) -> None:
        check(
            self,
            hidden=WIDTHS,
            activation=one_of(ACTIVATIONS),
            members=COUNT,
            gamma=SHARE,
            polyak=SHARE,
            actor_lr=POSITIVE,
            critic_lr=POSITIVE,
            temperature_lr=POSITIVE,
            final_lr=FRACTION,
            decay_updates=NOT_NEGATIVE,
            actor_delay=COUNT,
            initial_temperature=POSITIVE,
            least_temperature=NOT_NEGATIVE,
            target_entropy=("finite or None", lambda v: v is None or math.isfinite(v)),
            log_std_range=RANGE,
            stretch=("in [1, 2]", lambda v: 1 <= v <= 2),
            average_rate=SHARE,
        )


class SAC:
    """Soft actor-critic. Actions in [-1, 1]; observations raw (the agent normalises them itself).

    `hooks`: a teacher and penalties, see `Hooks`; they may be set later.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        config: SACConfig | None = None,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        hooks: Hooks | None = None,
    ):
        self.config = config = config or SACConfig()
        self.obs_dim, self.action_dim, self.device, self.dtype = obs_dim, action_dim, torch.device(device), dtype
        self.hooks = hooks or Hooks()
        self.target_entropy = -float(action_dim) if config.target_entropy is None else config.target_entropy
        self.generator = torch.Generator(self.device).manual_seed(seed)

        options: dict[str, Any] = {"hidden": config.hidden, "activation": config.activation}
        options |= {"generator": self.generator, "device": self.device, "dtype": dtype}
        actor_options = options | {"log_std_range": config.log_std_range, "stretch": config.stretch}
        critic_options = options | {"members": config.members, "layer_norm": config.critic_layer_norm}
        self.actor = Actor(obs_dim, action_dim, **actor_options)
        self.average_actor = Actor(obs_dim, action_dim, **actor_options)
        self.critic = Critic(obs_dim, action_dim, **critic_options)
        self.target_critic = Critic(obs_dim, action_dim, **critic_options)
        self.reset_followers()
        self.log_temperature = torch.tensor([math.log(config.initial_temperature)], device=self.device, dtype=dtype)

        self.actor_optimizer = Adam(self.actor.mlp.flat, config.actor_lr)
        self.critic_optimizer = Adam(self.critic.mlp.flat, config.critic_lr)
        self.temperature_optimizer = Adam(self.log_temperature, config.temperature_lr)
        self.normalizer = Normalizer(obs_dim, enabled=config.normalize_obs, device=self.device)
        self.updates = 0

    def reset_followers(self) -> None:
        """Set the target critic to the critic and the averaged actor to the actor, after their parameters were overwritten."""
        self.target_critic.mlp.values.copy_(self.critic.mlp.values)
        self.average_actor.mlp.values.copy_(self.actor.mlp.values)

    @property
    def networks(self) -> dict[str, MLP]:
        """Everything that is learnt or follows, by name."""
        named = ("actor", "average_actor", "critic", "target_critic")
        return {name: getattr(self, name).mlp for name in named}

    # --- acting

    @torch.no_grad()
    def act(self, obs: Tensor, explore: bool = False) -> Tensor:
        """(batch, obs_dim) -> actions (batch, action_dim): a sample when exploring, tanh(mean) of the averaged actor otherwise."""
        normalized = self.normalizer(obs)
        if explore:
            action, _, _ = self.actor.forward(normalized, self._noise(obs.shape[0]))
        else:
            action = self.average_actor.mean_action(normalized)
        if self.hooks.teacher is None:
            return action
        proposal = self.hooks.teacher(obs)
        (q, _), (proposal_q, _) = self.critic.forward(normalized, action), self.critic.forward(normalized, proposal)
        better = proposal_q.amin(0) > q.amin(0)
        return torch.where(better.unsqueeze(-1), proposal, action)

    def observe(self, transition: Transition) -> None:
        """Told once of every new batch of experience, before it may be sampled."""
        self.normalizer.update(transition.obs)

    # --- learning

    def update(self, batch: Transition, *, update_actor: bool = True) -> dict[str, Tensor]:
        """One critic step per batch of `batch`, whose fields have shape (batch, …) or (num_batches, batch, …), and an actor and
        temperature step after every `actor_delay` of them. update_actor=False fits the critic to the actor as it stands.

        Returns metrics of the last steps, as tensors.
        """
        config = self.config
        if batch.reward.dim() == 1:
            batch = Transition(*(field.unsqueeze(0) for field in batch))
        num_batches, batch_size = batch.reward.shape
        # s and s' side by side, (num_batches, 2 * batch, obs_dim), because one pass of the actor then serves both losses
        obs_pair = self.normalizer(torch.cat((batch.obs.mT, batch.next_obs.mT), -1).mT)
        noise = self._noise(num_batches, 2 * batch_size)
        discount = ops.discount(config.gamma, batch.terminated)
        metrics: dict[str, Tensor] = {}
        per_update = zip(obs_pair.unbind(0), noise.unbind(0), batch.reward.unbind(0), discount.unbind(0), strict=True)
        steps = zip(*(field.unbind(0) for field in batch), strict=True)
        for (both, noise, reward, discount), step in zip(per_update, steps, strict=True):
            self.updates += 1
            step = Transition._make(step)
            obs, next_obs = both.split(batch_size)
            temperature = self.log_temperature.exp()

            improve = update_actor and self.updates % config.actor_delay == 0
            if improve:
                actions, log_probs, tape = self.actor.forward(both, noise)
            else:
                actions, log_probs, _ = self.actor.forward(next_obs, noise[batch_size:])
            next_action, next_log_prob = actions[-batch_size:], log_probs[-batch_size:]

            next_q, _ = self.target_critic.forward(next_obs, next_action)
            target = ops.soft_td_target(reward, discount, next_q, next_log_prob, temperature)
            if self.hooks.teacher is not None:
                teacher_q, _ = self.target_critic.forward(next_obs, self.hooks.teacher(step.next_obs))
                target = torch.maximum(target, reward + discount * teacher_q.amin(0))
            metrics |= self._update_critic(step, obs, target)
            if improve:
                action, log_prob = actions[:batch_size], log_probs[:batch_size]
                metrics |= self._update_actor(step, obs, action, log_prob, tape, temperature)
            ops.polyak(self.target_critic.mlp.values, self.critic.mlp.values, config.polyak)
        self._decay_learning_rates()
        return metrics

    def _update_critic(self, batch, obs, target):
        q, tape = self.critic.forward(obs, batch.action)
        gradient = self.critic.backward(tape, ops.td_loss_gradient(q, target))
        if self.hooks.critic_penalty is not None:
            gradient += torch.autograd.grad(self.hooks.critic_penalty(self, obs, batch), self.critic.mlp.flat)[0]
        self.critic_optimizer.step(gradient)
        return {"q": q, "q_target": target}

    def _update_actor(self, batch, obs, action, log_prob, tape, temperature):
        q, critic_tape = self.critic.forward(obs, action)
        grad_action = self.critic.action_gradient(critic_tape, ops.soft_actor_loss_gradient(q))
        gradient = self.actor.backward(tape, grad_action, temperature / q.shape[-1])
        if self.hooks.actor_penalty is not None:
            gradient += torch.autograd.grad(self.hooks.actor_penalty(self, obs, batch), self.actor.mlp.flat)[0]
        self.actor_optimizer.step(gradient)
        ops.polyak(self.average_actor.mlp.values, self.actor.mlp.values, self.config.average_rate)
        self.temperature_optimizer.step(ops.temperature_gradient(self.log_temperature, log_prob, self.target_entropy))
        if self.config.least_temperature > 0:
            self.log_temperature.clamp_(min=math.log(self.config.least_temperature))
        return {"log_prob": log_prob, "temperature": temperature}

    def _decay_learning_rates(self):
        config = self.config
        if config.decay_updates:
            left = 1 - (1 - config.final_lr) * min(self.updates / config.decay_updates, 1.0)
            self.actor_optimizer.lr.fill_(config.actor_lr * left)
            self.critic_optimizer.lr.fill_(config.critic_lr * left)

    def _noise(self, *shape: int) -> Tensor:
        """Standard normal, (*shape, action_dim), feature first in memory."""
        shape = (*shape[:-1], self.action_dim, shape[-1])
        return torch.randn(shape, device=self.device, dtype=self.dtype, generator=self.generator).mT

    # --- saving

    def state_dict(self) -> dict:
        """Everything that `update` and `act` depend on, as nested dicts of tensors and integers. Tensors are not copied."""
        return {
            **{name: network.values for name, network in self.networks.items()},
            "log_temperature": self.log_temperature,
            "actor_optimizer": self.actor_optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "temperature_optimizer": self.temperature_optimizer.state_dict(),
            "normalizer": self.normalizer.state_dict(),
            "generator": self.generator.get_state(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore `state_dict()` of an agent with the same configuration."""
        for name, network in self.networks.items():
            restore(name, network.values, state[name])
        self.log_temperature.copy_(state["log_temperature"])
        for name in ("actor_optimizer", "critic_optimizer", "temperature_optimizer", "normalizer"):
            getattr(self, name).load_state_dict(state[name])
        self.generator.set_state(state["generator"].cpu())
        self.updates = int(state["updates"])
