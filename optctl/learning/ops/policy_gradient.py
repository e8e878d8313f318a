"""Losses of policy gradients. Batches are on the last axis."""

from __future__ import annotations

import math

import torch
from torch import Tensor

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def gaussian_log_prob(mean: Tensor, log_std: Tensor, action: Tensor, dim: int = 0) -> Tensor:
    """log N(a; mean, exp(log_std)²), summed over the components on axis `dim`."""
    noise = (action - mean) * torch.exp(-log_std)
    return (-0.5 * noise.square() - log_std - HALF_LOG_2PI).sum(dim)


def gaussian_divergence(mean: Tensor, log_std: Tensor, new_mean: Tensor, new_log_std: Tensor, dim: int = 0) -> Tensor:
    """KL(old ‖ new) of two normal distributions with independent components, summed over axis `dim`."""
    variance, new_variance = (2 * log_std).exp(), (2 * new_log_std).exp()
    ratio = (variance + (mean - new_mean).square()) / (2 * new_variance)
    return (new_log_std - log_std + ratio - 0.5).sum(dim)


def clipped_surrogate(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """−mean min(ρ A, clamp(ρ, 1 − ε, 1 + ε) A) with ρ = π(a|s) / π_old(a|s). Source: Schulman et al. 2017, arXiv 1707.06347, equation 7."""
    ratio = (log_prob - old_log_prob).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()
