"""The settings that an agent trains with on a problem: general defaults, and what was tuned for problems of the catalogue."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from optctl.hybrid.warm_start import WarmStartConfig
from optctl.rl.agents import AGENTS
from optctl.rl.loops import OffPolicyConfig
from optctl.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that `train` can be told."""

    agent: Any
    loop: OffPolicyConfig
    train: TrainConfig
    warm: WarmStartConfig


TUNED: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
"""(agent, problem) → changes to the defaults."""


def settings(agent: str, problem: str, *, warm_start: bool = False) -> Settings:
    """The settings of `agent` on the problem of that name."""
    base = Settings(agent=AGENTS[agent][1](), loop=OffPolicyConfig(), train=TrainConfig(), warm=WarmStartConfig())
    changes = TUNED.get((f"{agent}-warm" if warm_start else agent, problem), {})
    return replace(base, **{part: replace(getattr(base, part), **fields) for part, fields in changes.items()})
