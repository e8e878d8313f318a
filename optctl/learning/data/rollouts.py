"""What an on-policy agent has just lived through: `horizon` steps of all environments."""

from __future__ import annotations

import torch
from torch import Tensor


class Rollouts:
    """Tensors of shape (horizon, num_envs, …), overwritten by the next rollout.

    `next_obs` is the final observation of a step, before any reset. `done` marks an end of either kind, `terminated` the problem's own:
    the value beyond a truncation is bootstrapped, and the advantage is cut at both.
    """

    def __init__(
        self,
        horizon: int,
        num_envs: int,
        obs_dim: int,
        action_dim: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        zeros = lambda *shape: torch.zeros(horizon, num_envs, *shape, device=device, dtype=dtype)
        self.obs, self.action, self.next_obs = zeros(obs_dim), zeros(action_dim), zeros(obs_dim)
        self.reward, self.terminated, self.done = zeros(), zeros(), zeros()

    def put(
        self, k: int, obs: Tensor, action: Tensor, reward: Tensor, next_obs: Tensor, terminated: Tensor, done: Tensor
    ) -> None:
        """Copy step k of all environments."""
        self.obs[k], self.action[k], self.next_obs[k] = obs, action, next_obs
        self.reward[k], self.terminated[k], self.done[k] = reward, terminated.to(reward.dtype), done.to(reward.dtype)
