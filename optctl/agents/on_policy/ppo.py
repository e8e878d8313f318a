"""Proximal policy optimisation with a clipped surrogate and, by default, a step size that follows the divergence.

Schulman et al. 2017, arXiv 1707.06347; generalised advantages: Schulman et al. 2016, arXiv 1506.02438. The step size grows while the
policy moves less than `target_kl` per epoch and shrinks while it moves more, as in rsl_rl (Rudin et al. 2022, arXiv 2109.11978).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optctl.learning.data.rollouts import Rollouts
from optctl.learning.fields import COUNT, FRACTION, NOT_NEGATIVE, POSITIVE, SHARE, WIDTHS, check, one_of, restore
from optctl.learning.networks import ACTIVATIONS, MLP
from optctl.learning.normalizer import Normalizer
from optctl.learning.ops.policy_gradient import clipped_surrogate, gaussian_divergence, gaussian_log_prob
from optctl.learning.ops.returns import generalized_advantage
from optctl.learning.optimizer import Adam

_LR_RANGE = (1e-5, 1e-2)
"""Where the adaptive step size stays (rsl_rl's bounds)."""
_LR_FACTOR = 1.5
"""By how much it changes at once (rsl_rl's)."""


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """Settings of `PPO`. Sources in brackets: [S] arXiv 1707.06347, [R] rsl_rl, [here] measured on the double integrator."""

    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of actor and critic, each > 0 [S: (64, 64)]."""
    activation: str = "tanh"
    """"relu", "silu" or "tanh" [S: tanh]."""
    gamma: float = 0.99
    """Discount per step, in (0, 1]."""
    lam: float = 0.95
    """λ of the generalised advantage, in [0, 1] [S: 0.95]."""
    clip: float = 0.2
    """ε of the clipped ratio, > 0 [S: 0.2]."""
    epochs: int = 5
    """Passes over a rollout, >= 1 [R: 5]."""
    minibatches: int = 4
    """Parts of a pass, >= 1 [R: 4]."""
    lr: float = 1e-3
    """Step size at first, > 0 [R: 1e-3]."""
    target_kl: float = 0.01
    """Divergence per step that the step size is adapted to; 0: it is not adapted [R: 0.01]."""
    final_lr: float = 0.0
    """Fraction of the (adapted) step size left at the end of `decay_updates`, in [0, 1]."""
    decay_updates: int = 0
    """Rollouts over which it falls linearly; 0: never."""
    entropy: float = 0.0
    """Weight of the entropy bonus, >= 0 [S: 0.01 on Atari, 0 on MuJoCo]."""
    max_grad_norm: float = 1.0
    """Gradients of actor and of critic are scaled down to this norm, > 0 [R: 1]."""
    initial_std: float = 0.6
    """Standard deviation of the actions at first, in units of the action's half range, > 0."""
    normalize_obs: bool = True
    """Standardise observations by running moments."""

    def __post_init__(self) -> None:
        check(
            self,
            hidden=WIDTHS,
            activation=one_of(ACTIVATIONS),
            gamma=SHARE,
            lam=FRACTION,
            clip=POSITIVE,
            epochs=COUNT,
            minibatches=COUNT,
            lr=POSITIVE,
            target_kl=NOT_NEGATIVE,
            final_lr=FRACTION,
            decay_updates=NOT_NEGATIVE,
            entropy=NOT_NEGATIVE,
            max_grad_norm=POSITIVE,
            initial_std=POSITIVE,
        )


class PPO:
    """Proximal policy optimisation. Actions are N(μ(s), σ²), clipped to [-1, 1] by the environment; observations raw.

    The critic predicts values in units of the running mean and standard deviation of the returns.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        config: PPOConfig | None = None,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ):
        self.config = config = config or PPOConfig()
        self.obs_dim, self.action_dim, self.device, self.dtype = obs_dim, action_dim, torch.device(device), dtype
        self.generator = torch.Generator(self.device).manual_seed(seed)
        options: dict[str, Any] = {"generator": self.generator, "activation": config.activation, "device": self.device}
        self.actor = MLP((obs_dim, *config.hidden, action_dim), last_scale=0.01, dtype=dtype, **options)
        self.critic = MLP((obs_dim, *config.hidden, 1), dtype=dtype, **options)
        self.log_std = torch.full((action_dim, 1), math.log(config.initial_std), device=self.device, dtype=dtype)
        self.log_std.requires_grad_()
        self.lr = torch.tensor(config.lr, device=self.device)
        self.actor_optimizer = Adam(self.actor.flat, config.lr)
        self.critic_optimizer = Adam(self.critic.flat, config.lr)
        self.std_optimizer = Adam(self.log_std, config.lr)
        self.normalizer = Normalizer(obs_dim, enabled=config.normalize_obs, device=self.device)
        self.returns = Normalizer(1, device=self.device)
        self.value_mean = torch.zeros((), device=self.device, dtype=dtype)
        self.value_std = torch.ones((), device=self.device, dtype=dtype)
        self.updates = 0

    # --- acting

    @torch.no_grad()
    def act(self, obs: Tensor, explore: bool = False) -> Tensor:
        """(batch, obs_dim) -> actions (batch, action_dim): a sample, not clipped, when exploring, the clipped mean otherwise."""
        mean, _ = self.actor.forward(self.normalizer(obs).mT)
        if not explore:
            return mean[0].clamp(-1.0, 1.0).mT
        shape = (self.action_dim, len(obs))
        noise = torch.randn(shape, device=self.device, dtype=self.dtype, generator=self.generator)
        return torch.addcmul(mean[0], self.log_std.detach().exp(), noise).mT

    @torch.no_grad()
    def value(self, obs: Tensor) -> Tensor:
        """(…, obs_dim) -> values (…), in units of the rewards."""
        out, _ = self.critic.forward(self.normalizer(obs.flatten(0, -2)).mT)
        return (self.value_mean + self.value_std * out[0, 0]).view(obs.shape[:-1])

    # --- learning

    def update(self, rollouts: Rollouts) -> dict[str, Tensor]:
        """`epochs` passes over what the present policy has just lived through; metrics of the last step, as tensors."""
        config, r = self.config, rollouts
        value = self.value(r.obs)
        advantage = generalized_advantage(
            r.reward, value, self.value(r.next_obs), r.terminated, r.done, config.gamma, config.lam
        )
        returns = (advantage + value).flatten()
        self._rescale(returns)
        target = (returns - self.value_mean) / self.value_std
        advantage = advantage.flatten()
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        obs = self.normalizer(r.obs.flatten(0, 1)).mT.contiguous()
        action = r.action.flatten(0, 1).mT.contiguous()
        with torch.no_grad():
            old_mean, old_log_std = self.actor(obs)[0], self.log_std.detach().clone()
            old_log_prob = gaussian_log_prob(old_mean, old_log_std, action)
        metrics: dict[str, Tensor] = {}
        for _ in range(config.epochs):
            order = torch.randperm(len(target), device=self.device, generator=self.generator)
            for index in order.chunk(config.minibatches):
                mean = self.actor(obs[:, index])[0]
                log_prob = gaussian_log_prob(mean, self.log_std, action[:, index])
                surrogate = clipped_surrogate(log_prob, old_log_prob[index], advantage[index], config.clip)
                value_loss = (self.critic(obs[:, index])[0, 0] - target[index]).square().mean()
                loss = surrogate - config.entropy * self.log_std.sum() + 0.5 * value_loss
                gradients = torch.autograd.grad(loss, (self.actor.flat, self.log_std, self.critic.flat))
                divergence = gaussian_divergence(old_mean[:, index], old_log_std, mean.detach(), self.log_std.detach())
                self._step(gradients, divergence.mean())
            metrics = {"surrogate": surrogate.detach(), "value_loss": value_loss.detach()}
        self.updates += 1
        self._observe(r.obs.flatten(0, 1))
        return metrics | {"std": self.log_std.detach().exp(), "divergence": divergence.mean()}

    def _step(self, gradients: tuple[Tensor, ...], divergence: Tensor) -> None:
        """One step of actor, standard deviation and critic, with the step size adapted to the divergence so far."""
        config = self.config
        if config.target_kl > 0:
            far, near = divergence > 2 * config.target_kl, divergence < 0.5 * config.target_kl
            factor = torch.where(far, 1 / _LR_FACTOR, torch.where(near, _LR_FACTOR, 1.0))
            self.lr.mul_(factor).clamp_(*_LR_RANGE)
        left = 1.0
        if config.decay_updates:
            left = 1 - (1 - config.final_lr) * min(self.updates / config.decay_updates, 1.0)
        actor, log_std, critic = gradients
        policy_norm = torch.sqrt(actor.square().sum() + log_std.square().sum())
        parts = (
            (self.actor_optimizer, actor, policy_norm),
            (self.std_optimizer, log_std, policy_norm),
            (self.critic_optimizer, critic, critic.norm()),
        )
        for optimizer, gradient, norm in parts:
            optimizer.lr.copy_(self.lr * left)
            optimizer.step(gradient * (config.max_grad_norm / norm.clamp(min=config.max_grad_norm)))

    @torch.no_grad()
    def _observe(self, obs: Tensor) -> None:
        """Take observations (batch, obs_dim) into the running moments, and change the first layers so that their outputs stay what they
        were: else all gains would grow as the spread of the observations falls."""
        mean, std = self.normalizer.mean.clone(), self.normalizer.std
        self.normalizer.update(obs)
        shift = ((self.normalizer.mean - mean) / std).to(self.dtype).unsqueeze(-1)
        scale = (self.normalizer.std / std).to(self.dtype)
        for network in (self.actor, self.critic):
            network.biases[0].add_(network.weights[0] @ shift)
            network.weights[0].mul_(scale)

    def _rescale(self, returns: Tensor) -> None:
        """Take the new returns into the running moments in whose units the critic predicts.

        The last layer is changed so that its predictions stay what they were (van Hasselt et al. 2016, PopArt, arXiv 1602.07714).
        """
        self.returns.update(returns.unsqueeze(-1))
        mean, std = self.returns.mean[0].to(self.dtype), self.returns.std[0].to(self.dtype)
        weight, bias = self.critic.weights[-1], self.critic.biases[-1]
        weight.mul_(self.value_std / std)
        bias.mul_(self.value_std / std).add_((self.value_mean - mean) / std)
        self.value_mean.copy_(mean)
        self.value_std.copy_(std)

    # --- saving

    def state_dict(self) -> dict:
        """Everything that `update` and `act` depend on, as nested dicts of tensors and numbers. Tensors are not copied."""
        return {
            "actor": self.actor.values,
            "critic": self.critic.values,
            "log_std": self.log_std.detach(),
            "lr": self.lr,
            "actor_optimizer": self.actor_optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "std_optimizer": self.std_optimizer.state_dict(),
            "normalizer": self.normalizer.state_dict(),
            "returns": self.returns.state_dict(),
            "value_mean": self.value_mean,
            "value_std": self.value_std,
            "generator": self.generator.get_state(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore `state_dict()` of an agent with the same configuration."""
        for name, network in (("actor", self.actor), ("critic", self.critic)):
            restore(name, network.values, state[name])
        for name in ("actor_optimizer", "critic_optimizer", "std_optimizer", "normalizer", "returns"):
            getattr(self, name).load_state_dict(state[name])
        self.log_std.detach().copy_(state["log_std"])
        self.value_mean.copy_(state["value_mean"])
        self.value_std.copy_(state["value_std"])
        self.generator.set_state(state["generator"].cpu())
        self.lr.copy_(state["lr"])
        self.updates = int(state["updates"])
