r"""The tanh-squashed Gaussian policy: a = tanh(u), u = mean + exp(log_std) * noise.

Assumes: `noise` is standard normal and independent of the parameters, and the components of an action are independent given the
state. Arguments have one shape, in which `dim` is the axis of the components. Log-probabilities are densities of `a` on (-1, 1)^n.
Source: Haarnoja et al. 2018, "Soft actor-critic algorithms and applications", arXiv 1812.05905, appendix C.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
LOG_2 = math.log(2.0)


def tanh_gaussian_sample(mean: Tensor, log_std: Tensor, noise: Tensor, dim: int = -1) -> tuple[Tensor, Tensor]:
    r"""Reparametrised sample and its log-probability.

        a = tanh(u),  u = mean + exp(log_std) * noise
        log pi(a) = sum_i [ -noise_i^2 / 2 - log_std_i - log(2 pi) / 2 - log(1 - a_i^2) ]

    Returns the action, shaped as the arguments, and the log-probability without the axis `dim`.
    log(1 - tanh(u)^2) is computed as 2 (log 2 - u - softplus(-2u)), exact where 1 - a^2 has cancelled to zero.
    Source: arXiv 1812.05905, equation 26.
    """
    raw = torch.addcmul(mean, log_std.exp(), noise)
    minus_log_slope = 2 * (softplus(-2 * raw) + raw - LOG_2)
    log_prob = torch.addcmul(minus_log_slope - log_std, noise, noise, value=-0.5) - HALF_LOG_2PI
    return raw.tanh(), log_prob.sum(dim)


def tanh_gaussian_gradient(
    action: Tensor, log_std: Tensor, noise: Tensor, grad_action: Tensor, grad_log_prob: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Gradients in mean and log_std of a loss whose gradients in `action` and `log_prob` are given.

        dL/dmean    = dL/da (1 - a^2) + dL/dlog_prob * 2 a
        dL/dlog_std = dL/dmean * exp(log_std) * noise - dL/dlog_prob

    since log pi depends on u through -log(1 - a^2) alone, whose slope is 2 a. `grad_log_prob` must broadcast against `action`.
    """
    grad_mean = torch.addcmul(grad_action, action, 2 * grad_log_prob - action * grad_action)
    return grad_mean, grad_mean * log_std.exp() * noise - grad_log_prob


def tanh_gaussian_log_prob(mean: Tensor, log_std: Tensor, action: Tensor, dim: int = -1) -> Tensor:
    """log pi(a) of a given action, by the formula of `tanh_gaussian_sample` with u = atanh(a).

    Actions are first moved inside (-1, 1) by 1e-6: a demonstration may sit on its bound, where the density has no finite value.
    """
    action = action.clamp(-1 + 1e-6, 1 - 1e-6)
    noise = (torch.atanh(action) - mean) * torch.exp(-log_std)
    return (-0.5 * noise**2 - log_std - HALF_LOG_2PI - torch.log1p(-(action**2))).sum(dim)
