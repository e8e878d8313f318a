"""Targets, losses and their gradients for soft value learning.

Assumes: transitions (s, a, r, s', terminated) where s' is the *final* observation of the step, before any reset, and `terminated`
is true only where the problem itself ended. A time limit is not an end: the value beyond it is bootstrapped. Ensembles have
their members on the first axis, transitions on the last. A function `…_gradient` is the derivative of the loss before it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def discount(gamma: float, terminated: Tensor) -> Tensor:
    """gamma * (1 - terminated): what the value of the next state is worth. `terminated` (…), bool or 0/1.

    Source: Pardo et al. 2018, "Time limits in reinforcement learning", arXiv 1712.00378.
    """
    return gamma - gamma * terminated


def soft_td_target(
    reward: Tensor, discount: Tensor, next_q: Tensor, next_log_prob: Tensor, temperature: Tensor
) -> Tensor:
    """y = r + discount * (min_e Q_e(s', a') - temperature * log pi(a'|s')).

    `reward`, `discount`, `next_log_prob`: (batch,); `next_q`: (members, batch). Source: arXiv 1812.05905, equations 3 and 5, with
    the minimum over the ensemble of Fujimoto et al. 2018 (arXiv 1802.09477), equation 10.
    """
    return torch.addcmul(reward, discount, next_q.amin(0) - temperature * next_log_prob)


def td_loss(q: Tensor, target: Tensor) -> Tensor:
    """sum_e mean_b (Q_eb - y_b)^2 / 2: each member has its own regression. `q` (members, batch), `target` (batch,)."""
    return 0.5 * (q - target).square().mean(-1).sum(0)


def td_loss_gradient(q: Tensor, target: Tensor) -> Tensor:
    """dL/dQ_eb = (Q_eb - y_b) / batch, shape (members, batch)."""
    return (q - target).div_(q.shape[-1])


def soft_actor_loss(q: Tensor, log_prob: Tensor, temperature: Tensor) -> Tensor:
    """mean_b (temperature * log pi(a_b|s_b) - min_e Q_e(s_b, a_b)), a reparametrised. Source: arXiv 1812.05905, equation 7."""
    return (temperature * log_prob - q.amin(0)).mean()


def soft_actor_loss_gradient(q: Tensor) -> Tensor:
    """dL/dQ_eb = -1 / batch for the least member of each transition and 0 for the others. (dL/dlog_prob = temperature / batch.)"""
    return torch.zeros_like(q).scatter_(0, q.argmin(0, keepdim=True), -1.0 / q.shape[-1])


def deterministic_actor_loss_gradient(q: Tensor) -> Tensor:
    """dL/dQ_eb of L = -mean_b Q_0(s_b, a_b): -1 / batch for the first member and 0 for the others.

    Source: Silver et al. 2014, deterministic policy gradient; the first of two critics as in arXiv 1802.09477, algorithm 1.
    """
    gradient = torch.zeros_like(q)
    gradient[0] = -1.0 / q.shape[-1]
    return gradient


def temperature_gradient(log_temperature: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """Derivative in log(temperature) of J = -temperature * mean(log pi + target_entropy).

    Negative while the entropy, -mean(log pi), is below its target: descent then raises the temperature. Source: arXiv 1812.05905,
    equation 18, by the chain rule.
    """
    return -log_temperature.exp() * (log_prob.mean() + target_entropy)


def polyak(target: Tensor, online: Tensor, rate: float) -> None:
    """target <- (1 - rate) * target + rate * online, in place. Source: Lillicrap et al. 2015, arXiv 1509.02971, algorithm 1."""
    target.lerp_(online, rate)
