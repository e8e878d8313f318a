"""Returns and advantages along rollouts, with ends of both kinds.

Assumes: axes (time, …); s' is the final observation of a step, before any reset. A `terminated` step has no value beyond it. A step
that is `done` for either reason ends the recursion: what follows belongs to another episode.
"""

from __future__ import annotations

import torch
from torch import Tensor


def generalized_advantage(
    reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, done: Tensor, gamma: float, lam: float
) -> Tensor:
    """A_t = δ_t + γ λ (1 − done_t) A_{t+1},   δ_t = r_t + γ (1 − terminated_t) V(s'_t) − V(s_t).

    All of shape (T, …). λ = 1 gives the Monte Carlo return minus the value, λ = 0 the temporal difference.
    Source: Schulman et al. 2016, arXiv 1506.02438, equation 16; truncation as in Pardo et al. 2018, arXiv 1712.00378.
    """
    delta = reward + gamma * (1 - terminated) * next_value - value
    decay = gamma * lam * (1 - done)
    advantage = torch.empty_like(delta)
    following = torch.zeros_like(delta[0])
    for t in reversed(range(len(delta))):
        following = delta[t] + decay[t] * following
        advantage[t] = following
    return advantage
