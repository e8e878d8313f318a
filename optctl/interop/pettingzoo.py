"""PettingZoo: `ParallelEnv`, a problem of several controls as a team of agents with local observations and one common reward.

    agent i        some of the controls, by default one each
    it observes    the states that it drives, those that act on them and those that they act on, found from the sparsity of the
                   dynamics: a mass in a chain sees itself and its neighbours

The reward of every agent is minus the whole cost: the optimum of the problem is the optimum of the team.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import casadi as ca
import gymnasium
import numpy as np
from gymnasium import spaces

from optctl.envs import resolve_problem
from optctl.errors import require
from optctl.interop.gymnasium import GymEnv
from optctl.optional import library
from optctl.problem import Problem

pettingzoo = library("pettingzoo", "PettingZoo", "pettingzoo")

Team = Mapping[str, tuple[Sequence[str], Sequence[str]]]
"""Agent → (names of the states it observes, names of the controls it has)."""


class ParallelEnv(pettingzoo.ParallelEnv):  # type: ignore[name-defined, misc]
    """A problem, or the catalogue's problem of that name, as PettingZoo's parallel environment.

    `agents`: {agent: (states, controls)} by name; by default `local_agents(problem)`. Every control belongs to one agent. Observations
    are states, with the elapsed fraction of a finite horizon at the end; actions are in [−1, 1]. `reset(options={"state": …,
    "params": …})` begins where you say. All agents end together. `state()` is the whole state. Where the problem has constraints, each
    agent's info holds "cost", the largest violation of the step.
    """

    metadata = {"render_modes": ["rgb_array"], "name": "optctl", "is_parallelizable": True}

    def __init__(
        self, problem: Problem | str, agents: Team | None = None, render_mode: str | None = None, **options: Any
    ) -> None:
        problem = resolve_problem(problem)
        team = local_agents(problem) if agents is None else agents
        _check(problem, team)
        states, controls = list(problem.state), list(problem.control)
        self._env = GymEnv(problem, render_mode, **options)
        self.problem, self.render_mode = problem, render_mode
        self.metadata = {**type(self).metadata, "name": problem.name, "render_fps": self._env.metadata["render_fps"]}
        self.possible_agents: list[str] = list(team)
        self.agents: list[str] = []
        self._sees = {agent: [states.index(name) for name in seen] for agent, (seen, _) in team.items()}
        self._drives = {agent: [controls.index(name) for name in had] for agent, (_, had) in team.items()}
        extra = problem.horizon == "finite"
        self.observation_spaces = {
            agent: spaces.Box(-np.inf, np.inf, (len(seen) + extra,), np.float32) for agent, seen in self._sees.items()
        }
        self.action_spaces = {a: spaces.Box(-1.0, 1.0, (len(d),), np.float32) for a, d in self._drives.items()}

    def observation_space(self, agent: str) -> spaces.Box:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Box:
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        """Begin an episode. Of the options, "state" and "params" count; PettingZoo wants unknown ones ignored."""
        known = {name: value for name, value in (options or {}).items() if name in ("state", "params")}
        self._about = self._env.reset(seed=seed, options=known)[1]
        self.agents = list(self.possible_agents)
        return self._observations(), self._infos()

    def step(self, actions: dict[str, np.ndarray]) -> tuple[dict, dict, dict, dict, dict]:
        """One control interval under every agent's action (its number of controls,)."""
        if not self.agents:
            raise gymnasium.error.ResetNeeded("Call `reset` before `step`: the episode has ended or has not begun.")
        missing = [agent for agent in self.agents if agent not in actions]
        require(not missing, "actions", "hold an action for every agent", f"has none for {', '.join(missing)}")
        action = np.zeros(self.problem.n_u, dtype=np.float32)
        for agent in self.agents:
            given, size = np.asarray(actions[agent]), len(self._drives[agent])
            require(given.shape == (size,), f"actions[{agent!r}]", f"have shape ({size},)", f"has shape {given.shape}")
            action[self._drives[agent]] = given
        _, reward, terminated, truncated, self._about = self._env.step(action)
        shared = [dict.fromkeys(self.agents, value) for value in (reward, terminated, truncated)]
        infos = self._infos()
        if terminated or truncated:
            self.agents = []
        return self._observations(), *shared, infos  # type: ignore[return-value]

    def state(self) -> np.ndarray:
        """The whole state (n_x,), for centralised training."""
        return self._about["state"].astype(np.float32)

    def render(self) -> np.ndarray | None:
        return self._env.render()

    def _infos(self) -> dict[str, dict[str, float]]:
        return {agent: {key: self._about[key] for key in ("cost",) if key in self._about} for agent in self.agents}

    def _observations(self) -> dict[str, np.ndarray]:
        state = self.state()
        elapsed = [np.float32(self._about["time"] / self.problem.duration)] if self.problem.horizon == "finite" else []
        return {agent: np.append(state[seen], elapsed).astype(np.float32) for agent, seen in self._sees.items()}


def local_agents(problem: Problem) -> dict[str, tuple[list[str], list[str]]]:
    """One agent for each control, named after it, with the states near it.

    A control drives some states at once (the velocity of its mass); the agent sees those, the states that their rates depend on
    (the neighbours' positions), and the states whose rates depend on them (its own position).
    """
    x, u = problem.x, problem.u
    rate = problem.step_function if problem.dynamics_function is None else problem.dynamics_function
    value = rate(x, u, problem.p, problem.t)
    value = value[0] if isinstance(value, tuple) else value
    couples = np.array(ca.DM(ca.jacobian_sparsity(value, x), 1), dtype=bool)
    pushes = np.array(ca.DM(ca.jacobian_sparsity(value, u), 1), dtype=bool)
    team = {}
    for k, control in enumerate(problem.control):
        driven = pushes[:, k]
        seen = driven | couples[driven].any(axis=0) | couples[:, driven].any(axis=1)
        team[control] = ([name for name, sees in zip(problem.state, seen, strict=True) if sees], [control])
    return team


def _check(problem: Problem, team: Team) -> None:
    require(len(team) > 0, "agents", "name at least one agent", "is empty")
    for agent, (seen, had) in team.items():
        for field, names, known in (("states", seen, problem.state), ("controls", had, problem.control)):
            strange = [name for name in names if name not in known]
            require(not strange, "agents", f"name {field} of {problem.name}", f"{agent} has {', '.join(strange)}")
    given = [name for _, had in team.values() for name in had]
    ok = sorted(given) == sorted(problem.control)
    require(
        ok, "agents", f"share out the controls {', '.join(problem.control)}, each once", f"share out {', '.join(given)}"
    )
