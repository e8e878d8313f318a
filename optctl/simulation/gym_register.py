"""Gymnasium ids such as `optctl/cartpole` for every problem of the catalogue: `import optctl.simulation.gym_register` adds them.

So does `gymnasium.make("optctl.simulation.gym_register:optctl/cartpole")`. Gymnasium has loaded no plugins by itself since 1.0.
Importing this loads casadi, which the catalogue is written in, but neither torch nor warp: those wait for `gymnasium.make`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import gymnasium
from gymnasium.envs.registration import EnvSpec


def register() -> None:
    """Add an id for every name of the catalogue to Gymnasium's registry; calling it again changes nothing."""
    from optctl.envs import CATALOGUE

    for name in CATALOGUE:
        name_id = gym_id(name, CATALOGUE)
        gymnasium.registry[name_id] = EnvSpec(
            id=name_id,
            entry_point="optctl.simulation.gym_adapter:GymEnv",
            vector_entry_point="optctl.simulation.gym_adapter:GymVectorEnv",
            kwargs={"problem": name},
        )


def gym_id(name: str, catalogue: Iterable[str]) -> str:
    """`optctl/<name>`, but `optctl/<name>-plain` where the catalogue also has a `<name>-v<number>`.

    Gymnasium takes the two for versions of one environment and would give the latest for either.
    """
    versioned = any(re.fullmatch(rf"{re.escape(name)}-v\d+", other) for other in catalogue)
    return f"optctl/{name}-plain" if versioned else f"optctl/{name}"


register()
