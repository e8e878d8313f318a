"""Loops that drive an agent, one file for each way of collecting data, and `LOOPS`, their names.

A loop owns its data. Iterating it yields one dict of metrics per iteration; whoever iterates logs, saves, or stops.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Protocol

from optctl.training.loops.off_policy import OffPolicyLoop
from optctl.training.loops.on_policy import OnPolicyLoop


class Loop(Protocol):
    """What a run needs of a loop, made by `Loop(env, agent, config, seed=, reward_scale=)`."""

    Config: ClassVar[type]
    config: Any
    obs: Any
    """Observations (num_envs, obs_dim) with which the next iteration begins."""
    iteration: int

    @property
    def steps(self) -> int:
        """Steps of all environments so far."""
        ...

    def __iter__(self) -> Iterator[dict[str, Any]]: ...

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> None: ...


LOOPS: dict[str, type[Any]] = {"off_policy": OffPolicyLoop, "on_policy": OnPolicyLoop}
"""Name → loop; an agent's `Entry` names its own."""
