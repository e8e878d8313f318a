"""A replay that mixes experience with demonstrations."""

from __future__ import annotations

from typing import Any

import torch

from optctl.learning.data.replay import Replay, Transition


class MixedReplay:
    """A replay of experience that fills part of each batch from demonstrations; that part falls linearly with every call."""

    def __init__(self, online: Replay, share: float, calls: int) -> None:
        self.online, self.share, self.calls = online, share, calls
        self.demonstrations: Replay | None = None
        self.done = 0

    def demonstrate(self, transition: Transition) -> None:
        """Set the demonstrations."""
        num, obs_dim = transition.obs.shape
        device, dtype = transition.obs.device, transition.obs.dtype
        self.demonstrations = Replay(num, obs_dim, transition.action.shape[1], device=device, dtype=dtype)
        self.demonstrations.add(transition)

    def __len__(self) -> int:
        return len(self.online)

    def add(self, transition: Transition) -> None:
        self.online.add(transition)

    def sample(self, batch_size: int, num_batches: int, generator: torch.Generator) -> Transition:
        self.done += 1
        share = self.share * max(0.0, 1.0 - (self.done - 1) / self.calls)
        return self.mix(batch_size, num_batches, share, generator)

    def mix(self, batch_size: int, num_batches: int, share: float, generator: torch.Generator) -> Transition:
        """Batches with this share from the demonstrations."""
        demonstrated = round(batch_size * share)
        parts = []
        if self.demonstrations is not None and demonstrated > 0:
            parts.append(self.demonstrations.sample(demonstrated, num_batches, generator))
        if not parts or demonstrated < batch_size:
            demonstrated = demonstrated if parts else 0
            parts.append(self.online.sample(batch_size - demonstrated, num_batches, generator))
        return (
            Transition(*(torch.cat(fields, dim=1) for fields in zip(*parts, strict=True)))
            if len(parts) > 1
            else parts[0]
        )

    def state_dict(self) -> dict[str, Any]:
        state = {"online": self.online.state_dict(), "done": self.done}
        if self.demonstrations is not None:
            state["demonstrations"] = self.demonstrations.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.online.load_state_dict(state["online"])
        self.done = int(state["done"])
        if "demonstrations" in state:
            rows = state["demonstrations"]["rows"]
            own = self.online
            self.demonstrations = Replay(
                len(rows), own.obs_dim, own.action_dim, device=own.rows.device, dtype=own.rows.dtype
            )
            self.demonstrations.load_state_dict(state["demonstrations"])
