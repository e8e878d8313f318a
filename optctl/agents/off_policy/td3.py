"""Twin delayed deep deterministic policy gradient.

Fujimoto, van Hoof and Meger 2018, "Addressing function approximation error in actor-critic methods", arXiv 1802.09477: a
deterministic actor, the minimum of two critics in the target, targets smoothed by clipped noise, and an actor that waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optctl.learning.data.replay import Transition
from optctl.learning.fields import COUNT, FRACTION, NOT_NEGATIVE, POSITIVE, SHARE, WIDTHS, check, one_of, restore
from optctl.learning.hooks import Hooks
from optctl.learning.networks import ACTIVATIONS, MLP, Critic, DeterministicActor
from optctl.learning.normalizer import Normalizer
from optctl.learning.ops import value_learning as ops
from optctl.learning.optimizer import Adam


@dataclass(frozen=True, kw_only=True)
class TD3Config:
    """Settings of `TD3`. Sources in brackets: [F] arXiv 1802.09477, [here] measured on pendulum-v1 and the double integrator."""

    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of actor and critic, each > 0 [F: (400, 300)]."""
    activation: str = "silu"
    """"relu", "silu" or "tanh" [F: relu]. The actor climbs the critic at a point: a critic with kinks leads it astray [here]."""
    critic_layer_norm: bool = False
    """Layer norm in the critic, without learnt scale."""
    members: int = 2
    """Critics, of which the least counts in the target, >= 1 [F: 2]."""
    gamma: float = 0.99
    """Discount per step, in (0, 1]."""
    polyak: float = 0.05
    """Rate at which the target networks follow, in (0, 1] [F: 0.005]."""
    actor_lr: float = 1e-3
    """> 0 [F: 1e-3]."""
    critic_lr: float = 2e-3
    """> 0 [F: 1e-3]."""
    final_lr: float = 1.0
    """Fraction of the learning rates left at the end of `decay_updates`, in [0, 1]."""
    decay_updates: int = 0
    """Updates over which they fall linearly; 0: never."""
    actor_delay: int = 2
    """Critic updates per update of the actor and of the targets, >= 1 [F: 2]."""
    least_noise: float = 0.2
    """Standard deviation of the first environment's exploration, >= 0."""
    most_noise: float = 0.8
    """That of the last one; those between are spaced evenly [F: 0.1 for all]. Several levels: Li et al. 2023, arXiv 2307.12983."""
    smoothing: float = 0.2
    """Standard deviation of the noise on the target's action, >= 0 [F: 0.2]."""
    smoothing_clip: float = 0.5
    """It is clipped to this, >= 0 [F: 0.5]."""
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
            final_lr=FRACTION,
            decay_updates=NOT_NEGATIVE,
            actor_delay=COUNT,
            least_noise=NOT_NEGATIVE,
            most_noise=NOT_NEGATIVE,
            smoothing=NOT_NEGATIVE,
            smoothing_clip=NOT_NEGATIVE,
            stretch=("in [1, 2]", lambda v: 1 <= v <= 2),
            average_rate=SHARE,
        )


class TD3:
    """Twin delayed DDPG. Actions in [-1, 1]; observations raw (the agent normalises them itself).

    `hooks`: a teacher and penalties, see `Hooks`; they may be set later.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        config: TD3Config | None = None,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        hooks: Hooks | None = None,
    ):
        self.config = config = config or TD3Config()
        self.obs_dim, self.action_dim, self.device, self.dtype = obs_dim, action_dim, torch.device(device), dtype
        self.hooks = hooks or Hooks()
        self.generator = torch.Generator(self.device).manual_seed(seed)

        options: dict[str, Any] = {"hidden": config.hidden, "activation": config.activation}
        options |= {"generator": self.generator, "device": self.device, "dtype": dtype}
        critic_options = options | {"members": config.members, "layer_norm": config.critic_layer_norm}
        actor = lambda: DeterministicActor(obs_dim, action_dim, stretch=config.stretch, **options)
        self.actor, self.target_actor, self.average_actor = actor(), actor(), actor()
        self.critic = Critic(obs_dim, action_dim, **critic_options)
        self.target_critic = Critic(obs_dim, action_dim, **critic_options)
        self.reset_followers()

        self.actor_optimizer = Adam(self.actor.mlp.flat, config.actor_lr)
        self.critic_optimizer = Adam(self.critic.mlp.flat, config.critic_lr)
        self.normalizer = Normalizer(obs_dim, enabled=config.normalize_obs, device=self.device)
        self.updates = 0

    def reset_followers(self) -> None:
        """Set the targets and the averaged actor to what they follow, after its parameters were overwritten."""
        self.target_critic.mlp.values.copy_(self.critic.mlp.values)
        for follower in (self.target_actor, self.average_actor):
            follower.mlp.values.copy_(self.actor.mlp.values)

    @property
    def networks(self) -> dict[str, MLP]:
        """Everything that is learnt or follows, by name."""
        named = ("actor", "target_actor", "average_actor", "critic", "target_critic")
        return {name: getattr(self, name).mlp for name in named}

    # --- acting

    @torch.no_grad()
    def act(self, obs: Tensor, explore: bool = False) -> Tensor:
        """(batch, obs_dim) -> actions (batch, action_dim): with noise when exploring, those of the averaged actor otherwise."""
        normalized = self.normalizer(obs)
        if explore:
            levels = torch.linspace(
                self.config.least_noise, self.config.most_noise, len(obs), device=self.device, dtype=self.dtype
            )
            noise = levels.unsqueeze(-1) * self._noise(len(obs))
            action = (self.actor.mean_action(normalized) + noise).clamp_(-1.0, 1.0)
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
        """One critic step per batch of `batch`, whose fields have shape (batch, …) or (num_batches, batch, …), and a step of actor and
        targets after every `actor_delay` of them. update_actor=False fits the critic to the actor as it stands.

        Returns metrics of the last steps, as tensors.
        """
        config = self.config
        if batch.reward.dim() == 1:
            batch = Transition(*(field.unsqueeze(0) for field in batch))
        num_batches, batch_size = batch.reward.shape
        obs, next_obs = self.normalizer(batch.obs), self.normalizer(batch.next_obs)
        noise = (config.smoothing * self._noise(num_batches, batch_size)).clamp_(
            -config.smoothing_clip, config.smoothing_clip
        )
        discount = ops.discount(config.gamma, batch.terminated)
        metrics: dict[str, Tensor] = {}
        for k in range(num_batches):
            self.updates += 1
            step = Transition(*(field[k] for field in batch))
            next_action = (self.target_actor.mean_action(next_obs[k]) + noise[k]).clamp_(-1.0, 1.0)
            next_q, _ = self.target_critic.forward(next_obs[k], next_action)
            best = next_q.amin(0)
            if self.hooks.teacher is not None:
                teacher_q, _ = self.target_critic.forward(next_obs[k], self.hooks.teacher(step.next_obs))
                best = torch.maximum(best, teacher_q.amin(0))
            metrics |= self._update_critic(step, obs[k], torch.addcmul(step.reward, discount[k], best))
            if self.updates % config.actor_delay == 0:
                if update_actor:
                    metrics |= self._update_actor(step, obs[k])
                    ops.polyak(self.target_actor.mlp.values, self.actor.mlp.values, config.polyak)
                    ops.polyak(self.average_actor.mlp.values, self.actor.mlp.values, config.average_rate)
                ops.polyak(self.target_critic.mlp.values, self.critic.mlp.values, config.polyak)
        self._decay_learning_rates()
        return metrics

    def _update_critic(self, batch: Transition, obs: Tensor, target: Tensor) -> dict[str, Tensor]:
        q, tape = self.critic.forward(obs, batch.action)
        gradient = self.critic.backward(tape, ops.td_loss_gradient(q.clone(), target))
        if self.hooks.critic_penalty is not None:
            gradient += torch.autograd.grad(self.hooks.critic_penalty(self, obs, batch), self.critic.mlp.flat)[0]
        self.critic_optimizer.step(gradient)
        return {"q": q, "q_target": target}

    def _update_actor(self, batch: Transition, obs: Tensor) -> dict[str, Tensor]:
        action, tape = self.actor.forward(obs)
        q, critic_tape = self.critic.forward(obs, action)
        gradient = self.actor.backward(
            tape, self.critic.action_gradient(critic_tape, ops.deterministic_actor_loss_gradient(q))
        )
        if self.hooks.actor_penalty is not None:
            gradient += torch.autograd.grad(self.hooks.actor_penalty(self, obs, batch), self.actor.mlp.flat)[0]
        self.actor_optimizer.step(gradient)
        return {"actor_q": q[0]}

    def _decay_learning_rates(self) -> None:
        config = self.config
        if config.decay_updates:
            left = 1 - (1 - config.final_lr) * min(self.updates / config.decay_updates, 1.0)
            self.actor_optimizer.lr.fill_(config.actor_lr * left)
            self.critic_optimizer.lr.fill_(config.critic_lr * left)

    def _noise(self, *shape: int) -> Tensor:
        """Standard normal, (*shape, action_dim)."""
        return torch.randn(*shape, self.action_dim, device=self.device, dtype=self.dtype, generator=self.generator)

    # --- saving

    def state_dict(self) -> dict:
        """Everything that `update` and `act` depend on, as nested dicts of tensors and integers. Tensors are not copied."""
        return {
            **{name: network.values for name, network in self.networks.items()},
            "actor_optimizer": self.actor_optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "normalizer": self.normalizer.state_dict(),
            "generator": self.generator.get_state(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore `state_dict()` of an agent with the same configuration."""
        for name, network in self.networks.items():
            restore(name, network.values, state[name])
        for name in ("actor_optimizer", "critic_optimizer", "normalizer"):
            getattr(self, name).load_state_dict(state[name])
        self.generator.set_state(state["generator"].cpu())
        self.updates = int(state["updates"])
