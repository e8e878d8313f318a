"""What a loop needs of a store of transitions."""

from __future__ import annotations

from typing import Protocol

import torch

from optctl.learning.data.replay import Transition


class Experience(Protocol):
    """What `OffPolicyLoop` needs of a replay: `Replay` has it, and so may a mixture with demonstrations."""

    def add(self, transition: Transition) -> None: ...

    def sample(self, batch_size: int, num_batches: int, generator: torch.Generator) -> Transition: ...

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> None: ...
