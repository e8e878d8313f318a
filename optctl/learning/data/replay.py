"""Replay of single transitions.

Assumes SAME_STEP autoreset: `next_obs` is the final observation of the step (`info["final_obs"]`), never the first of the next
episode, so every transition stands alone and the ring may be cut anywhere. `terminated` marks the problem's own end; a truncation
leaves no trace here, because the value beyond it is bootstrapped.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from optctl.errors import ArgumentError


class Transition(NamedTuple):
    """A batch of (s, a, r, s', terminated), with any leading axes: (batch, …) or (num_batches, batch, …)."""

    obs: Tensor  # (…, obs_dim)
    action: Tensor  # (…, action_dim), in [-1, 1]
    reward: Tensor  # (…)
    next_obs: Tensor  # (…, obs_dim)
    terminated: Tensor  # (…), float 0/1 when sampled


class Replay:
    """Ring of the last `capacity` transitions, on the device, one row of one tensor each.

    One tensor means that adding is one copy and sampling one gather. Pointer and size derive from `added`, the number of transitions
    ever written, which is a tensor, so that nothing waits for the device.
    """

    def __init__(
        self,
        capacity: int,
        obs_dim: int,
        action_dim: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        self.capacity, self.obs_dim, self.action_dim = capacity, obs_dim, action_dim
        self.rows = torch.zeros(capacity, 2 * obs_dim + action_dim + 2, dtype=dtype, device=device)
        self.added = torch.zeros((), dtype=torch.int64, device=device)

    def __len__(self) -> int:
        return min(int(self.added), self.capacity)

    @torch.no_grad()
    def add(self, transition: Transition) -> None:
        """Append a batch (batch, …), overwriting the oldest. Copies: the arguments may be an environment's own buffers."""
        obs, action, reward, next_obs, terminated = transition
        columns = (obs, action, reward.unsqueeze(-1), next_obs, terminated.to(self.rows.dtype).unsqueeze(-1))
        rows = torch.cat(columns, 1)
        if rows.shape[0] > self.capacity:
            raise ArgumentError(
                f"Argument `transition` must hold at most `capacity` = {self.capacity} transitions, but holds {rows.shape[0]}."
            )
        index = (torch.arange(rows.shape[0], device=rows.device) + self.added) % self.capacity
        self.rows.index_copy_(0, index, rows)
        self.added += rows.shape[0]

    @torch.no_grad()
    def sample(self, batch_size: int, num_batches: int, generator: torch.Generator) -> Transition:
        """`num_batches` batches, uniform with replacement, as one gather: fields of shape (num_batches, batch_size, …).

        The memory behind the fields is feature first, as `optctl.learning.networks` reads it.
        """
        uniform = torch.rand(
            num_batches * batch_size, dtype=torch.float64, device=self.rows.device, generator=generator
        )
        index = (uniform * self.added.clamp(max=self.capacity)).long()
        columns = self.rows[index].view(num_batches, batch_size, -1).mT.contiguous()
        obs, action, reward, next_obs, terminated = columns.split(
            (self.obs_dim, self.action_dim, 1, self.obs_dim, 1), 1
        )
        return Transition(obs.mT, action.mT, reward.squeeze(1), next_obs.mT, terminated.squeeze(1))

    def state_dict(self) -> dict[str, Tensor]:
        """The rows written so far (all of them once the ring is full) and their number."""
        return {"rows": self.rows[: len(self)], "added": self.added}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        if state["rows"].shape[0] > self.capacity or state["rows"].shape[1] != self.rows.shape[1]:
            raise ArgumentError(
                f"Argument `state` must hold at most {self.capacity} rows of {self.rows.shape[1]} columns, "
                f"but holds {tuple(state['rows'].shape)}: the capacity or the environment is another."
            )
        self.rows[: state["rows"].shape[0]].copy_(state["rows"])
        self.added.copy_(state["added"])
