"""`Buffers`: the tensors that decide what a batch of environments does next."""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch import Tensor


@dataclass
class Buffers:
    """The state of `num_envs` environments and what they show; kernels read and write the tensors in place."""

    state: Tensor
    """(num_envs, n_x)"""
    params: Tensor
    """(1 or num_envs, n_p)"""
    clock: Tensor
    """Steps since each episode began (num_envs,), int32."""
    episode: Tensor
    """Episodes that each environment has ended (num_envs,), int32; −1 before the first reset."""
    key: Tensor
    """64 bits of the seed (1,), int64: with environment, episode and clock they decide every random number."""
    obs: Tensor
    """The last observations (num_envs, n_y)."""

    def items(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
