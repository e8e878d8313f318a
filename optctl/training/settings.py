"""The settings that an agent trains with on a problem: its defaults, and what was tuned for the problem.

What was tuned is data: `presets/<agent>.toml`, in tables `[cold]` and `[warm]` for every problem of an agent trained from scratch or
after a warm start, then `[cold.problems.NAME]` and `[warm.problems.NAME]` for one problem. Each holds the changed fields of the parts
`agent`, `loop`, `train` and `warm`, and `run`: the command that shows what they reach.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from optctl.agents import AGENTS
from optctl.errors import require
from optctl.hybrid.warm_start import WarmStartConfig
from optctl.problem import Problem
from optctl.problem.controller import RandomController, rollout
from optctl.training.config import TrainConfig
from optctl.training.loops import LOOPS


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that `train` can be told."""

    agent: Any
    """The agent's configuration."""
    loop: Any
    """Its loop's."""
    train: TrainConfig
    warm: WarmStartConfig


@cache
def presets(agent: str) -> dict[str, Any]:
    """What was tuned for the agent; empty where nothing was."""
    file = files("optctl.training") / "presets" / f"{agent}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def natural_reward_scale(problem: Problem, num: int = 32) -> float:
    """One over the mean cost of a step under random control, to one significant digit: rewards of order one."""
    starts = problem.initial_state.sample(np.random.default_rng(0), num)
    with np.errstate(all="ignore"):
        costs = np.abs(rollout(problem, RandomController(problem), starts, steps=min(problem.steps, 200)).costs)
    typical = np.median(costs[np.isfinite(costs)]) if np.isfinite(costs).any() else 1.0
    return float(f"{1 / max(typical, 1e-6):.1g}")


def settings(agent: str, problem: Problem, *, warm_start: bool = False) -> Settings:
    """The settings of `agent` on `problem`: defaults, then the presets of a cold or a warm start, then those of the problem."""
    require(agent in AGENTS, "agent", f"be one of {', '.join(AGENTS)}", f"is {agent!r}")
    entry = AGENTS[agent]
    base = Settings(
        agent=entry.load()[1](), loop=LOOPS[entry.loop].Config(), train=TrainConfig(), warm=WarmStartConfig()
    )
    every = presets(agent).get("warm" if warm_start else "cold", {})
    for changes in (every, every.get("problems", {}).get(problem.name, {})):
        parts = {part: fields for part, fields in changes.items() if part not in ("problems", "run")}
        base = replace(base, **{part: replace(getattr(base, part), **_tuples(new)) for part, new in parts.items()})
    return base


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
