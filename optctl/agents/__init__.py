"""Agents by name. `AGENTS[name]` says where an agent and its configuration are, and which loop drives it.

To add one: its file, its line here, its gap test. Nothing is imported before it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal


@dataclass(frozen=True)
class Entry:
    """Where an agent is, and what it needs."""

    agent: str
    """"module:class". The class is made by `(obs_dim, action_dim, config, *, device, dtype, seed)`."""
    config: str
    """"module:class" of its frozen configuration, whose defaults work on every problem."""
    loop: str
    """A name in `optctl.training.loops.LOOPS`."""
    controls: Literal["continuous", "discrete"] = "continuous"
    needs: frozenset[str] = frozenset()
    """What else it must be given: "gradient" (of the environment), "model", "dataset", "grid"."""
    cloneable: bool = False
    """Whether a warm start can prepare it: it has an actor to clone and an action-value critic to fit."""

    def load(self) -> tuple[type[Any], type[Any]]:
        """The agent's class and that of its configuration."""
        return _load(self.agent), _load(self.config)


def _load(place: str) -> Any:
    module, name = place.split(":")
    return getattr(import_module(module), name)


AGENTS: dict[str, Entry] = {
    "sac": Entry(
        "optctl.agents.off_policy.sac:SAC", "optctl.agents.off_policy.sac:SACConfig", "off_policy", cloneable=True
    ),
    "td3": Entry(
        "optctl.agents.off_policy.td3:TD3", "optctl.agents.off_policy.td3:TD3Config", "off_policy", cloneable=True
    ),
    "ppo": Entry("optctl.agents.on_policy.ppo:PPO", "optctl.agents.on_policy.ppo:PPOConfig", "on_policy"),
}
"""Name → entry."""

__all__ = ["AGENTS", "Entry"]
