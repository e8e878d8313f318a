"""Problems as Gymnasium environments: one at a time (`GymEnv`) and vectorised (`GymVectorEnv`), numpy in and out.

Both step the generated kernels of `VectorEnv`. Actions are in [−1, 1] and scaled to the control bounds: for
`optctl/gymnasium-pendulum-v1` the torque is twice the action, everything else is Gymnasium's Pendulum-v1. After `import optctl.gym`:
`gymnasium.make("optctl/cartpole-v0")`, `gymnasium.make_vec("optctl/cartpole-v0", num_envs=64)`; or use the classes with a `Problem` of
one's own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import casadi as ca
import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from optctl.envs import resolve_problem
from optctl.errors import require
from optctl.pictures.render import draw
from optctl.problem import Problem
from optctl.simulation.vector_env import LONGEST_EPISODE, VectorEnv


def _spaces(problem: Problem) -> tuple[spaces.Box, spaces.Box]:
    observation = spaces.Box(-np.inf, np.inf, (problem.n_y,), np.float32)
    return observation, spaces.Box(-1.0, 1.0, (problem.n_u,), np.float32)


def _frames_per_second(problem: Problem) -> int:
    return max(1, round(1.0 / problem.dt))


def _with_state_observed(problem: Problem) -> Problem:
    """The same problem with observation (y, x): its last observation tells the last state, which autoreset overwrites.

    y comes first, so that its noise draws the numbers that it draws alone.
    """

    def observation(x: Any, p: Any, t: Any) -> Any:
        vector = ca.vertcat(*(getattr(p, name) for name in problem.params)) if problem.n_p else ca.DM(0, 1)
        return ca.vertcat(problem.observation_function(x, vector, t), x)

    if problem.observation is None and not problem.noise_std.any():
        return problem  # y begins with x
    noise = [*problem.noise_std.tolist(), *[0.0] * problem.n_x]
    return problem.replace(observation=observation, observation_names=(), observation_noise=noise)


class GymEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """One environment, on the CPU. `reset(options={"state": (n_x,), "params": (n_p,)})` begins where you say.

    `info` holds "state", the physical state (n_x,), and "time" [s]; at the end of an episode, those of the end; where the problem
    has path constraints or bounds of the state also "cost", the largest violation of the step (0 where all is kept). With a
    `render_mode` the states of the episode are kept, for the pictures that show the past. What an action has beyond [−1, 1] is
    clipped; a NaN makes state, reward and observation NaN until the next reset.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(self, problem: Problem | str, render_mode: str | None = None, **options: Any) -> None:
        self.problem = resolve_problem(problem)
        require(render_mode in (None, "rgb_array"), "render_mode", "be None or 'rgb_array'", f"is {render_mode!r}")
        self.render_mode = render_mode
        self.metadata = {**type(self).metadata, "render_fps": _frames_per_second(self.problem)}
        self.observation_space, self.action_space = _spaces(self.problem)
        observed = _with_state_observed(self.problem)
        self._state_from = self.problem.n_y if observed is not self.problem else 0
        self._env = VectorEnv(observed, 1, **options)
        self._steps = 0
        self._ended = True
        self._states: list[np.ndarray] = []
        self._controls: list[np.ndarray] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode: observation (n_y,) and info."""
        super().reset(seed=seed)
        sizes, given = {"state": self.problem.n_x, "params": self.problem.n_p}, {}
        for name, value in (options or {}).items():
            require(name in sizes, "options", f"have keys among {', '.join(sizes)}", f"has {name}")
            given[name] = row = np.asarray(value, dtype=float)[None]
            size = (sizes[name],)
            require(row.shape[1:] == size, f"options[{name!r}]", f"have shape {size}", f"has shape {row.shape[1:]}")
        obs, info = self._env.reset(seed=seed, options=given)
        self._ended, self._steps = False, 0
        self._states, self._controls = [], []
        return self._observed(obs, info)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One control interval under `action` (n_u,) in [−1, 1]."""
        if self._ended:
            raise gymnasium.error.ResetNeeded("Call `reset` before `step`: the episode has ended or has not begun.")
        action = np.asarray(action)
        require(
            action.shape == (self.problem.n_u,),
            "action",
            f"have shape ({self.problem.n_u},)",
            f"has shape {action.shape}",
        )
        _, reward, terminated, truncated, info = self._env.step(torch.as_tensor(action[None], dtype=self._env.dtype))
        self._steps += 1
        self._ended = self._steps == self._env.max_episode_steps
        if self.render_mode is not None:
            self._controls.append(self.problem.to_control(action))
        obs, about = self._observed(info["final_obs"], info)
        return obs, float(reward), bool(terminated), bool(truncated), about

    def render(self) -> np.ndarray | None:
        """The present state as a picture (height, width, 3), uint8."""
        if self.render_mode is None:
            return None
        if not self._states:
            raise gymnasium.error.ResetNeeded("Call `reset` before `render`: there is no state yet.")
        params = self._env.params[0].numpy()
        return draw(self.problem, np.stack(self._states), np.array(self._controls), params)

    def _observed(self, obs: torch.Tensor, info: dict[str, torch.Tensor]) -> tuple[np.ndarray, dict[str, Any]]:
        row = obs[0].numpy()
        state = row[self._state_from : self._state_from + self.problem.n_x].copy()
        if self.render_mode is not None:
            self._states.append(state.astype(np.float64))
        about: dict[str, Any] = {"state": state, "time": self._steps * self.problem.dt}
        if "cost" in info:
            about["cost"] = float(info["cost"])
        return row[: self.problem.n_y].astype(np.float32), about


class RegisteredEnv(GymEnv):
    """What `gymnasium.make` makes of an id: an infinite horizon is cut by Gymnasium's `TimeLimit` alone."""

    def __init__(self, problem: Problem | str, render_mode: str | None = None, **options: Any) -> None:
        problem = resolve_problem(problem)
        if problem.horizon == "infinite":
            options.setdefault("max_episode_steps", LONGEST_EPISODE)
        super().__init__(problem, render_mode, **options)

    @property  # type: ignore[override]
    def spec(self) -> EnvSpec | None:
        """As Gymnasium has set it, with the length of a finite horizon."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        finite = self.problem.horizon == "finite" and spec is not None
        self._spec = replace(spec, max_episode_steps=self.problem.steps) if finite else spec  # type: ignore[type-var]


class GymVectorEnv(gymnasium.vector.VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Vectorised environments with SAME_STEP autoreset: where an episode ended, `infos["final_obs"][i]` is its last observation.

    `autoreset_mode` is SAME_STEP, or NEXT_STEP (the step after an end begins the next episode whatever the action, with reward 0) or
    DISABLED (`reset` with a "reset_mask" begins it): Gymnasium's wrappers of observations take these two only.

    `infos` holds "final_obs" (an object array, None where nothing ended) and the mask "_final_obs" in the steps in which an
    episode ended. Where the problem has path constraints or bounds of the state, "cost" (num_envs,) is the largest violation of
    each step, the last one of an episode included, and "_cost" its mask, true everywhere; "final_info" holds those of the
    episodes that ended. `options`: "state" and "params" as in `VectorEnv.reset`, "reset_mask" (num_envs,) bool. With
    `copy=False` the arrays returned are overwritten by the next step. Actions: as in `GymEnv`.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(
        self,
        problem: Problem | str,
        num_envs: int = 1,
        render_mode: str | None = None,
        *,
        copy: bool = True,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        **options: Any,
    ) -> None:
        self.problem = resolve_problem(problem)
        require(render_mode in (None, "rgb_array"), "render_mode", "be None or 'rgb_array'", f"is {render_mode!r}")
        modes = {mode.value: mode for mode in AutoresetMode}
        self._mode = modes.get(autoreset_mode) if isinstance(autoreset_mode, str) else autoreset_mode
        require(
            self._mode in modes.values(),
            "autoreset_mode",
            f"be an AutoresetMode ({', '.join(modes)})",
            f"is {autoreset_mode!r}",
        )
        self.render_mode, self.copy = render_mode, copy
        self.metadata = {
            **type(self).metadata,
            "autoreset_mode": self._mode,
            "render_fps": _frames_per_second(self.problem),
        }
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = _spaces(self.problem)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._env = VectorEnv(self.problem, num_envs, **options)
        self._dtype = str(self._env.dtype).removeprefix("torch.")
        self._over = np.zeros(num_envs, dtype=bool)  # has ended and waits for its next episode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin episodes everywhere, or where `options["reset_mask"]` is set."""
        require(
            seed is None or isinstance(seed, (int, np.integer)),
            "seed",
            "be an integer: each environment's stream comes from it",
            f"is {seed!r}",
        )
        super().reset(seed=seed)
        given, mask = dict(options or {}), np.ones(self.num_envs, dtype=bool)
        if "reset_mask" in given:
            given["mask"] = mask = np.asarray(given.pop("reset_mask"))
            require(
                mask.dtype == bool and mask.shape == (self.num_envs,),
                "options['reset_mask']",
                f"be boolean with shape ({self.num_envs},)",
                f"is {mask.dtype} with shape {mask.shape}",
            )
        obs, info = self._env.reset(seed=seed, options=given)
        self._over = self._over & ~mask
        return self._array(obs), self._costs(info)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One control interval under `actions` (num_envs, n_u) in [−1, 1]."""
        if self._mode is AutoresetMode.DISABLED and self._over.any():
            raise gymnasium.error.ResetNeeded("Call `reset` with a `reset_mask` before `step`: an episode has ended.")
        tensor = torch.from_numpy(np.ascontiguousarray(actions, dtype=self._dtype))
        obs, reward, terminated, truncated, info = self._env.step(tensor.to(self._env.device))
        infos, same_step = self._costs(info), self._mode is AutoresetMode.SAME_STEP
        results = [
            self._array(obs if same_step else info["final_obs"]),
            *map(self._array, (reward, terminated, truncated)),
        ]
        over = np.zeros(self.num_envs, dtype=bool)
        if info["final_obs"] is not obs:  # else no episode can have ended
            over = np.logical_or(terminated.cpu().numpy(), truncated.cpu().numpy())  # torch would wake its threads
        if not same_step:
            self._begin_waiting([*results, *([infos["cost"]] if infos else [])])
            self._over = over & ~self._over
        elif over.any():
            infos |= self._ended(over, info["final_obs"], infos)
        return (*results, infos)  # type: ignore[return-value]

    def render(self) -> tuple[np.ndarray, ...] | None:
        """One picture (height, width, 3) for each of the environments."""
        if self.render_mode != "rgb_array":
            return None
        params = np.broadcast_to(self._env.params.cpu().numpy(), (self.num_envs, self.problem.n_p))
        states = self._env.state.cpu().numpy()[:, None]
        return tuple(draw(self.problem, state, params=p) for state, p in zip(states, params, strict=True))

    def _begin_waiting(self, results: list[np.ndarray]) -> None:
        """Environments whose episode had ended begin the next instead of being stepped: its first observation, and zeros."""
        began = self._over
        if began.any():
            results[0][began] = self._array(self._env.reset(options={"mask": torch.from_numpy(began)})[0])[began]
            for array in results[1:]:
                array[began] = 0

    def _costs(self, info: dict[str, torch.Tensor]) -> dict[str, Any]:
        if "cost" not in info:
            return {}
        return {"cost": self._array(info["cost"]), "_cost": np.ones(self.num_envs, dtype=bool)}

    def _ended(self, over: np.ndarray, final_obs: torch.Tensor, infos: dict[str, Any]) -> dict[str, Any]:
        final = np.full(self.num_envs, None, dtype=object)
        rows = final_obs.cpu().numpy()[over].astype(np.float32)
        final[over] = np.fromiter(rows, dtype=object, count=len(rows))
        ended: dict[str, Any] = {"final_obs": final, "_final_obs": over}
        if infos:
            ended |= {"final_info": {"cost": np.where(over, infos["cost"], 0.0), "_cost": over}, "_final_info": over}
        return ended

    def _array(self, tensor: torch.Tensor) -> np.ndarray:
        array = tensor.cpu().numpy()
        if array.dtype == np.float64 and array.ndim == 2:
            return array.astype(np.float32)
        return array.copy() if self.copy and tensor.device.type == "cpu" else array
