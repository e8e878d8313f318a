"""TorchRL: `TorchRLEnv`, the batched environment as a `torchrl.envs.EnvBase`, without a copy more than TorchRL asks for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from optctl.errors import require
from optctl.optional import library
from optctl.problem import Problem
from optctl.simulation.environment_source import constrained
from optctl.simulation.vector_env import VectorEnv, make_vec

tensordict = library("tensordict", "TorchRL", "torchrl")
envs = library("torchrl.envs", "TorchRL", "torchrl")
specs = library("torchrl.data", "TorchRL", "torchrl")


class TorchRLEnv(envs.EnvBase):  # type: ignore[name-defined, misc]
    """`num_envs` environments of a problem or of the catalogue's problem of that name, batch size (num_envs,).

    Keys: "observation" (num_envs, n_y), "action" (num_envs, n_u) in [−1, 1], "reward", "done", "terminated", "truncated"
    (num_envs, 1), and "cost" (num_envs, 1), the largest violation of the step, where there are constraints. The last observation
    of an episode stands under "next", its successor at the root of the following step, as TorchRL has it. `options` are those
    of `make_vec`. `reset` keeps to the environments of its "_reset" mask and takes `seed`, `state` and `params` as `VectorEnv.reset` does.
    """

    def __init__(self, problem: Problem | str, num_envs: int = 1, **options: Any) -> None:
        env = make_vec(problem, num_envs, **options)
        super().__init__(device=env.device, batch_size=(env.num_envs,))
        self._env: VectorEnv
        self.__dict__["_env"] = env  # not a torch module, but EnvBase is one
        self.__dict__["_restarted"] = torch.zeros(env.num_envs, dtype=torch.bool, device=env.device)
        n, real = (env.num_envs,), {"dtype": env.dtype, "device": env.device}
        flag = {"n": 2, "dtype": torch.bool, "device": env.device}
        sizes = {"observation": env.obs_dim} | ({"cost": 1} if constrained(env.problem) else {})
        self.observation_spec = specs.Composite(
            {key: specs.Unbounded(shape=(*n, size), **real) for key, size in sizes.items()}, shape=n, device=env.device
        )
        self.action_spec = specs.Bounded(low=-1.0, high=1.0, shape=(*n, env.action_dim), **real)
        self.reward_spec = specs.Unbounded(shape=(*n, 1), **real)
        ends = ("done", "terminated", "truncated")
        self.done_spec = specs.Composite(
            {key: specs.Categorical(shape=(*n, 1), **flag) for key in ends}, shape=n, device=env.device
        )

    def _reset(
        self, data: Any = None, *, seed: int | None = None, state: Any = None, params: Any = None, **other: Any
    ) -> Any:
        """New episodes where the mask says so; those that the last step has begun of itself are only handed over, unless they are to
        begin at `state` (1 or num_envs, n_x) or with `params` (1 or num_envs, n_p)."""
        require(not other, "reset", "be given seed, state and params only", f"is given {', '.join(other)}")
        given = {k: v for k, v in (("state", state), ("params", params)) if v is not None}
        mask = None if data is None else data.get("_reset", None)
        if mask is None:
            kept = self.__dict__.pop("_seed", None)
            obs, _ = self._env.reset(seed=kept if seed is None else seed, options=given)
            self._restarted.fill_(False)
        else:
            require(seed is None, "seed", "be absent where a mask is given", f"is {seed}")
            mask = mask.reshape(self._env.num_envs)
            due = mask if given else mask & ~self._restarted
            obs = self._env.reset(options={"mask": due, **given})[0] if due.any() else self._env.obs
            self._restarted.masked_fill_(mask, False)
        costs = {}
        if "cost" in self.observation_spec.keys():  # noqa: SIM118 (a Composite)
            costs["cost"] = obs.new_zeros(len(obs), 1)
            if mask is not None and data.get("cost", None) is not None:
                costs["cost"] = data["cost"].masked_fill(mask[:, None], 0.0)
        return self._data(observation=obs.clone(), **costs, **self._ends(torch.zeros_like(self._restarted)))

    def _step(self, data: Any) -> Any:
        _, reward, terminated, truncated, info = self._env.step(data.get("action"))
        torch.logical_or(terminated, truncated, out=self._restarted)
        costs = {"cost": info["cost"].clone()[:, None]} if "cost" in info else {}
        return self._data(
            observation=info["final_obs"].clone(),
            reward=reward.clone()[:, None],
            **costs,
            **self._ends(terminated, truncated),
        )

    def _set_seed(self, seed: int | None) -> None:
        """The next full reset begins the streams of this seed."""
        self.__dict__["_seed"] = seed

    def _ends(self, terminated: Tensor, truncated: Tensor | None = None) -> dict[str, Tensor]:
        truncated = terminated if truncated is None else truncated
        flags = {"done": terminated | truncated, "terminated": terminated.clone(), "truncated": truncated.clone()}
        return {key: value[:, None] for key, value in flags.items()}

    def _data(self, **entries: Tensor) -> Any:
        return tensordict.TensorDict(entries, batch_size=self.batch_size, device=self.device)
