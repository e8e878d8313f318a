"""Gymnasium ids such as `optctl/cartpole-v0` for every problem of the catalogue: `import optctl.gym` adds them.

So does `gymnasium.make("optctl.gym:optctl/cartpole-v0")`. Gymnasium has loaded no plugins by itself since 1.0.
Importing this loads casadi, which the catalogue is written in, but neither torch nor warp: those wait for `gymnasium.make`.

The step limit is Gymnasium's own (`TimeLimit`) where the horizon is infinite: `max_episode_steps` of the spec is the problem's `steps`,
and that of `gymnasium.make` lengthens or shortens the episode. A finite horizon ends by itself (`terminated`) after `steps`: its spec in
the registry has no limit, that of an environment says `steps`, and a smaller limit truncates earlier. `gymnasium.make_vec` refuses other
limits for it.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from optctl.envs import CATALOGUE, make


class CatalogueSpec(EnvSpec):
    """The spec of a problem of the catalogue, which is built when its step limit is first asked for."""

    def __init__(self, id: str, name: str, **fields: Any) -> None:
        self._name = name
        self._given: int | None = None
        super().__init__(id=id, kwargs={"problem": name}, **fields)

    @cached_property
    def _limit(self) -> int | None:
        problem = make(self._name)
        return problem.steps if problem.horizon == "infinite" else None

    @property  # type: ignore[override]
    def max_episode_steps(self) -> int | None:
        """`steps` of an infinite horizon, unless it has been set."""
        return self._limit if self._given is None else self._given

    @max_episode_steps.setter
    def max_episode_steps(self, steps: int | None) -> None:
        self._given = steps


def register() -> None:
    """Add an id for every name of the catalogue to Gymnasium's registry; calling it again changes nothing."""
    for name in CATALOGUE:
        name_id = gym_id(name)
        gymnasium.registry[name_id] = CatalogueSpec(
            name_id,
            name,
            entry_point="optctl.interop.gymnasium:RegisteredEnv",
            vector_entry_point="optctl.interop.gymnasium:GymVectorEnv",
        )


def gym_id(name: str) -> str:
    """`optctl/<name>-v0`; the problems that restate an environment of Gymnasium's keep its version: `optctl/gymnasium-<name>`.

    Gymnasium takes `optctl/pendulum-v1` for a newer version of `optctl/pendulum-v0`, which is another problem.
    """
    return f"optctl/gymnasium-{name}" if re.search(r"-v\d+$", name) else f"optctl/{name}-v0"


register()
