"""The settings that an agent trains with on a problem: general defaults, and what was tuned for problems of the catalogue."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from optctl.agents import AGENTS
from optctl.hybrid.warm_start import WarmStartConfig
from optctl.problem import Problem
from optctl.problem.controller import RandomController, rollout
from optctl.training.loops.off_policy import OffPolicyConfig
from optctl.training.run import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that `train` can be told."""

    agent: Any
    loop: OffPolicyConfig
    train: TrainConfig
    warm: WarmStartConfig


Changes = dict[str, dict[str, Any]]
"""Part of `Settings` → its changed fields."""

_WARM: Changes = {
    "agent": {
        "hidden": (64,) * 4,
        "initial_temperature": 1e-3,
        "temperature_lr": 1e-4,
        "actor_lr": 1e-3,
        "critic_lr": 1e-3,
    },
    "train": {"iterations": 50, "evaluate_every": 5},
}
"""Fine-tuning a clone: deeper, because a clone is exact where it can be, with hardly any entropy, and short."""

TUNED: dict[tuple[str, str], Changes] = {
    ("sac", "double-integrator"): {
        "agent": {"target_entropy": 0.0, "polyak": 0.1, "decay_updates": 8000, "final_lr": 0.02, "reward_scale": 1.0},
        "train": {"num_envs": 256, "replay_capacity": 50_000, "iterations": 1000},
    },
    ("sac", "pendulum"): {"agent": {"gamma": 0.995}, "train": {"iterations": 1500}},
    ("sac", "pendulum-v1"): {"agent": {"reward_scale": 0.1}},
    ("sac-warm", "pendulum-v1"): {
        "agent": {"reward_scale": 0.1},
        "warm": {
            "num_starts": 192,
            "steps": 100,
            "clone_updates": 5000,
            "critic_updates": 150,
            "review_every": 20,
            "review_starts": 128,
        },
        "train": {"iterations": 40},
    },
}
"""(agent, or agent-warm, and problem) → changes to the defaults. Tuned on seeds from 100 on; figures are reported on 0, 1, …"""


def natural_reward_scale(problem: Problem, num: int = 32) -> float:
    """One over the mean cost of a step under random control, to one significant digit: rewards of order one."""
    starts = problem.initial_state.sample(np.random.default_rng(0), num)
    with np.errstate(all="ignore"):
        costs = np.abs(rollout(problem, RandomController(problem), starts, steps=min(problem.steps, 200)).costs)
    typical = np.median(costs[np.isfinite(costs)]) if np.isfinite(costs).any() else 1.0
    return float(f"{1 / max(typical, 1e-6):.1g}")


def settings(agent: str, problem: Problem, *, warm_start: bool = False) -> Settings:
    """The settings of `agent` on `problem`: defaults for a cold or a warm start, then what was tuned for the pair."""
    base = Settings(agent=AGENTS[agent][1](), loop=OffPolicyConfig(), train=TrainConfig(), warm=WarmStartConfig())
    tuned = TUNED.get((f"{agent}-warm" if warm_start else agent, problem.name), {})
    for changes in ([_WARM] if warm_start else []) + [tuned]:
        base = replace(base, **{part: replace(getattr(base, part), **fields) for part, fields in changes.items()})
    if "reward_scale" not in tuned.get("agent", {}):
        base = replace(base, agent=replace(base.agent, reward_scale=natural_reward_scale(problem)))
    return base
