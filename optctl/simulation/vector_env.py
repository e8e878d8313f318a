"""`VectorEnv`: thousands of copies of a problem stepped by one generated kernel, torch tensors in and out.

One launch does a whole public step for every environment: clip and scale the action, advance the state with its process noise,
charge the cost, move the clock, end and restart episodes, observe. The rules, in full:

* reward = −(cost of the interval), and at the end of a finite horizon also − terminal cost.
* The end of a finite horizon is `terminated`; the step limit of an infinite one is `truncated`.
* Autoreset is SAME_STEP: where an episode ended, `obs` is the first observation of the next and `info["final_obs"]` the last of
  the old; elsewhere the two are equal.
* `info["final_obs"]` is always there; on a CPU it is `obs` itself in a step where no episode can have ended.
* Where the problem has path constraints or bounds of the state, `info["cost"]` (num_envs,) is the largest violation of the step, in
  the constraint's own units, 0 where all is kept: c(x, u, p, t) at its start, the bounds at its end. It is no part of the reward.
* The tensors returned are the environment's own buffers, overwritten by the next `step` or `reset`; nothing flows back through
  them (for gradients: `compile_problem`).
* An action of 1 is the upper bound of the control, or its `control_scale` (default 1) where it has none: what a solver does beyond
  that no policy can do. `compare` says so where it happens; `problem.replace(control_scale={...})` states a wider range.
* Values of actions are never looked at on the host: what exceeds [−1, 1] is clipped; a NaN makes that environment's state, reward
  and observation NaN, and no other's, until its episode ends and a fresh one begins.
* Environment i draws from a stream of its own, a function of (seed, i, episode, clock) alone.
* On a GPU `step` only launches on torch's current stream: no allocation, no synchronisation; it can be captured in a CUDA graph
  (after one uncaptured step; the captured step reads its action from the same tensor at each replay).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from optctl.codegen.cache import load_module
from optctl.codegen.launch import RecordedLaunch, resolve_device, resolve_dtype, target
from optctl.envs import resolve_problem
from optctl.errors import require
from optctl.problem import Problem
from optctl.simulation.buffers import Buffers
from optctl.simulation.environment_source import constrained
from optctl.simulation.rollout import Rollout, Rollouts
from optctl.simulation.rollout_source import EnvironmentRollout

LONGEST_EPISODE = 2**29 - 1
"""Steps that the kernels' 32-bit clocks and counts hold with room to spare."""


class VectorEnv:
    """`num_envs` environments of one problem; see the module's text for the rules and `make_vec` for the arguments.

    A copy (`copy.deepcopy`, `pickle`) has buffers of its own and goes on exactly where the original stands.
    """

    def __init__(
        self,
        problem: Problem,
        num_envs: int,
        *,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype = "float32",
        params: Any = None,
        randomize: bool = False,
        max_episode_steps: int | None = None,
    ) -> None:
        for name, value in (("num_envs", num_envs), ("max_episode_steps", max_episode_steps or 1)):
            whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
            require(whole and 0 < value <= LONGEST_EPISODE, name, "be a positive integer below 2²⁹", f"is {value!r}")
        require(
            problem.final_time is None,
            "problem",
            "have a fixed final time to be stepped",
            "its final time is free (`problem.replace(final_time=None)` lasts `steps` · `dt`)",
        )
        self.problem = problem
        self.num_envs = int(num_envs)
        self.obs_dim, self.action_dim = problem.n_y, problem.n_u
        self.device, self.dtype = resolve_device(device), resolve_dtype(dtype)
        self.target = target(self.device, self.dtype)
        self.randomize = bool(randomize)
        self.max_episode_steps = int(max_episode_steps or problem.steps)
        if problem.horizon == "finite":
            require(
                self.max_episode_steps == problem.steps,
                "max_episode_steps",
                f"be {problem.steps} or absent, for the horizon is finite",
                f"is {max_episode_steps}",
            )
        widest = max(problem.n_x, problem.n_u, problem.n_p, problem.n_y)
        require(
            self.num_envs * widest < 2**31, "num_envs", f"be below 2³¹ / {widest} for this problem", f"is {num_envs}"
        )

        def zeros(*shape: int, dtype: torch.dtype = self.dtype) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=self.device)

        n = self.num_envs
        rows = self._parameter_rows(problem.param_values[None] if params is None else params)
        self.buffers = Buffers(
            state=zeros(n, problem.n_x),
            params=rows.repeat(n, 1) if self.randomize and len(rows) != n else rows,
            clock=zeros(n, dtype=torch.int32),
            episode=torch.full((n,), -1, dtype=torch.int32, device=self.device),
            key=zeros(1, dtype=torch.int64),
            obs=zeros(n, problem.n_y),
        )
        self._final_obs, self._reward = zeros(n, problem.n_y), zeros(n)
        self._terminated, self._truncated = zeros(n, dtype=torch.bool), zeros(n, dtype=torch.bool)
        self._mask = torch.ones(n, dtype=torch.bool, device=self.device)
        self._given_state = zeros(n, problem.n_x)
        self.seeded = False
        """Whether episodes have begun: `step` and `rollout` reset what has never been reset."""
        self._cost = zeros(n) if constrained(problem) else None
        cost = {} if self._cost is None else {"cost": self._cost}
        obs = self.buffers.obs
        self._ended_info, self._quiet_info = {"final_obs": self._final_obs} | cost, {"final_obs": obs} | cost
        self._rollouts = Rollouts(
            problem, self.num_envs, self.max_episode_steps, self.randomize, self.device, self.dtype
        )
        self._quiet = 0  # on a CPU: so many steps to come in which no episode can end
        self._record()

    # --- the public calls -----------------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Begin new episodes; returns observations (num_envs, n_y) and info.

        `seed` restarts every random stream, so it goes with a reset of all environments. Without it the streams go on (the first
        reset draws a seed, and is of all environments). `options`: "state" (1 or num_envs, n_x) instead of random initial
        states; "params" (1 or num_envs, n_p) instead of the present or random ones; "mask" (num_envs,) bool: only these
        environments; the others keep theirs.
        """
        options = dict(options or {})
        mask, state, params = (options.pop(name, None) for name in ("mask", "state", "params"))
        require(not options, "options", "have keys among state, params, mask", f"has {', '.join(map(str, options))}")
        require(seed is None or mask is None, "seed", "be absent where a mask is given", f"is {seed}")
        if mask is not None:
            mask = self._boolean(mask)
        if seed is not None or not self.seeded:
            mask = None
            self.buffers.key.fill_(_key(seed))
            self.buffers.episode.fill_(-1)
            self.seeded = True
        self._mask.fill_(True) if mask is None else self._mask.copy_(mask)
        if params is not None:
            self._set_params(self._parameter_rows(params), mask)
        if state is not None:
            self._given_state.copy_(self._rows("state", state, self.problem.n_x))
        self._launch_reset(state is not None, params is None)
        flag = self._terminated if self.problem.horizon == "finite" else self._truncated
        flag.masked_fill_(self._mask, False)
        if self._cost is not None:
            self._cost.masked_fill_(self._mask, 0.0)
        self._count_quiet_steps()
        return self.buffers.obs, self._quiet_info

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Advance every environment by one interval under `action` (num_envs, n_u) in [−1, 1].

        Returns observations (num_envs, n_y), rewards, terminated and truncated (num_envs,), and {"final_obs": (num_envs, n_y)}, for
        constrained problems also {"cost": (num_envs,)}.
        """
        if (
            action.__class__ is not Tensor
            or action.shape != self._action_shape
            or action.dtype is not self.dtype
            or action.device != self.device
            or not action.is_contiguous()
        ):
            action = self._checked_action(action)
        if not self.seeded:
            self.reset()
        if self._quiet:
            self._quiet -= 1
            self._advance(action)
            return self.buffers.obs, self._reward, self._terminated, self._truncated, self._quiet_info
        self._step(action)
        self._count_quiet_steps()
        return self.buffers.obs, self._reward, self._terminated, self._truncated, self._ended_info

    def rollout(
        self,
        policy: Tensor | str | nn.Module,
        steps: int | None = None,
        *,
        save_every: int | None = None,
        record_actions: bool = False,
    ) -> Rollout:
        """Many steps in one launch: the same as calling `step` so many times, restarts included, without its overhead.

        `policy`: actions (num_envs, T, n_u) in [−1, 1], read without a copy if they lie time first in memory, that is, if they
        are `actions.transpose(0, 1)` of a contiguous tensor (T, num_envs, n_u); or "random", uniform in [−1, 1); or a network
        of the observation, an `nn.Linear` (linear policy) or `nn.Sequential` of Linear with Tanh or ReLU between. `save_every`:
        keep states and sums of rewards after every so many steps (a divisor of `steps`; default: once, at the end).
        """
        if not self.seeded:
            self.reset()
        kept = self._rollouts.run(self.buffers, policy, steps, save_every=save_every, record_actions=record_actions)
        self._count_quiet_steps()
        return kept

    @property
    def obs(self) -> Tensor:
        """The observations that `step` or `reset` returned last, a buffer."""
        return self.buffers.obs

    @property
    def state(self) -> Tensor:
        """States (num_envs, n_x), a buffer; change them through `reset(options={"state": ...})`."""
        return self.buffers.state

    @property
    def params(self) -> Tensor:
        """Parameters (1 or num_envs, n_p), a buffer."""
        return self.buffers.params

    @property
    def time(self) -> Tensor:
        """Time since each episode began [s], shape (num_envs,)."""
        return self.buffers.clock.to(self.dtype) * self.problem.dt

    @property
    def episode_steps(self) -> Tensor:
        """Steps since each episode began (num_envs,), int32."""
        return self.buffers.clock.clone()

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of everything that decides the future, and of the last observations."""
        copies = {name: value.clone() for name, value in self.buffers.items().items()}
        return copies | {"seeded": torch.tensor(self.seeded)}

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        """Go on exactly where `state_dict` was taken."""
        missing = {*self.buffers.items(), "seeded"} ^ saved.keys()
        require(not missing, "saved", "come from `state_dict`", f"differs in the entries {', '.join(sorted(missing))}")
        for name, own in self.buffers.items().items():
            value = saved[name]
            if name == "params" and value.dim() == 2 and len(value) in (1, self.num_envs) and len(value) != len(own):
                own = self.buffers.params = own[:1].repeat(len(value), 1)
                self._record()
            require(
                value.shape == own.shape and value.dtype == own.dtype,
                f"saved[{name!r}]",
                f"have shape {tuple(own.shape)} and dtype {own.dtype}",
                f"has {tuple(value.shape)} and {value.dtype}",
            )
            own.copy_(value)
        self.seeded = bool(saved["seeded"])
        self._count_quiet_steps()

    def __reduce__(self) -> tuple[Any, ...]:
        options = {
            "device": str(self.device),
            "dtype": str(self.dtype),
            "params": self.buffers.params.cpu(),
            "randomize": self.randomize,
            "max_episode_steps": self.max_episode_steps,
        }
        state = {name: value.cpu() for name, value in self.state_dict().items()}
        return _restored, (type(self), self.problem, self.num_envs, options, state)

    # --- launches -------------------------------------------------------------------------------------------------------

    def _record(self) -> None:
        """Compile and fix the arguments of the launches; again whenever the parameter buffer changes its size."""
        finite = self.problem.horizon == "finite"
        generator = EnvironmentRollout(
            self.problem,
            self.target,
            shared_params=len(self.buffers.params) == 1 and not self.randomize,
            randomize=self.randomize,
        )
        self.kernels = load_module(generator.source(), self.device)
        self._action_shape = torch.Size((self.num_envs, self.action_dim))
        self._blank_action = torch.zeros(self._action_shape, dtype=self.dtype, device=self.device)
        now = self.buffers
        arguments = [
            self._blank_action,
            now.state,
            now.params,
            now.clock,
            now.episode,
            now.key,
            now.obs,
            self._final_obs,
            self._reward,
            *([] if self._cost is None else [self._cost]),
            self._terminated if finite else self._truncated,
            self.max_episode_steps,
            self.num_envs,
        ]
        self.operations = generator.operations
        if self.device.type == "cuda":
            kernels, widths = [self.kernels.step], [1]
        else:
            self.tile_kernels = load_module(generator.step_source(), self.device)
            kernels, widths = [self.tile_kernels.step, self.kernels.finish], [generator.width, 1]
        fixed = self.num_envs, arguments, self.device, self.operations
        self._step = RecordedLaunch(kernels, *fixed, widths)
        self._advance = RecordedLaunch(kernels[:1], *fixed, widths[:1])
        self._resets: dict[tuple[bool, bool], RecordedLaunch] = {}

    def _count_quiet_steps(self) -> None:
        if self.device.type == "cpu":  # on a GPU that would wait for it, and the kernel looks for ends at every step
            self._quiet = max(0, self.max_episode_steps - 1 - int(self.buffers.clock.numpy().max()))

    def _launch_reset(self, given: bool, redraw: bool) -> None:
        if (given, redraw) not in self._resets:
            now = self.buffers
            arguments = [
                self._mask,
                self._given_state,
                int(given),
                int(redraw),
                now.state,
                now.params,
                now.clock,
                now.episode,
                now.key,
                now.obs,
            ]
            kernels = [self.kernels.reset]
            self._resets[given, redraw] = RecordedLaunch(kernels, self.num_envs, arguments, self.device, 100)
        self._resets[given, redraw]()

    # --- checks ---------------------------------------------------------------------------------------------------------

    def _checked_action(self, action: Any) -> Tensor:
        require(isinstance(action, Tensor), "action", "be a torch tensor", f"is {type(action).__name__}")
        shape = tuple(self._action_shape)
        require(action.shape == self._action_shape, "action", f"have shape {shape}", f"has shape {tuple(action.shape)}")
        require(action.dtype == self.dtype, "action", f"have dtype {self.dtype}", f"has {action.dtype}")
        require(action.device == self.device, "action", f"be on {self.device}", f"is on {action.device}")
        return action.detach().contiguous()

    def _boolean(self, mask: Any) -> Tensor:
        mask = torch.as_tensor(mask)
        require(
            mask.dtype == torch.bool and mask.shape == (self.num_envs,),
            "options['mask']",
            f"be boolean with shape ({self.num_envs},)",
            f"is {mask.dtype} with shape {tuple(mask.shape)}",
        )
        return mask

    def _rows(self, name: str, value: Any, size: int) -> Tensor:
        rows = torch.as_tensor(value, dtype=self.dtype).to(self.device)
        require(
            rows.dim() == 2 and rows.shape[1] == size and len(rows) in (1, self.num_envs),
            name,
            f"have shape (1, {size}) or ({self.num_envs}, {size})",
            f"has shape {tuple(rows.shape)}",
        )
        return rows

    def _parameter_rows(self, value: Any) -> Tensor:
        rows = self._rows("params", value, self.problem.n_p)
        require(bool(rows.isfinite().all()), "params", "be finite", "has entries that are not")
        return rows.clone()

    def _set_params(self, rows: Tensor, mask: Tensor | None) -> None:
        if mask is None and len(rows) == len(self.buffers.params):
            self.buffers.params.copy_(rows)
            return
        if len(self.buffers.params) != self.num_envs:
            self.buffers.params = self.buffers.params.repeat(self.num_envs, 1)
            self._record()
        chosen = self._mask[:, None] if mask is not None else True
        self.buffers.params.copy_(torch.where(torch.as_tensor(chosen, device=self.device), rows, self.buffers.params))


def _restored(
    kind: type[VectorEnv], problem: Problem, num_envs: int, options: dict[str, Any], state: dict[str, Tensor]
) -> VectorEnv:
    env = kind(problem, num_envs, **options)
    env.load_state_dict(state)
    return env


def _key(seed: int | None) -> int:
    """64 bits from a seed, well mixed, as torch's int64."""
    if seed is not None:
        whole = isinstance(seed, (int, np.integer)) and not isinstance(seed, bool)
        require(whole and seed >= 0, "seed", "be a non-negative integer", f"is {seed!r}")
    return int(np.random.SeedSequence(seed).generate_state(1, np.uint64).view(np.int64)[0])


def make_vec(
    problem: Problem | str,
    num_envs: int,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float32",
    params: Any = None,
    randomize: bool = False,
    max_episode_steps: int | None = None,
) -> VectorEnv:
    """Environments of a problem that step together.

    Args:
        problem: The problem, or its name in the catalogue.
        num_envs: How many environments, at least 1.
        device: "cpu", "cuda" or "cuda:N".
        dtype: "float32" or "float64": of states, observations and rewards.
        params: Parameters (1, n_p) or (num_envs, n_p) in place of the nominal ones.
        randomize: Draw a new plant, uniform in the problem's `param_ranges`, at each reset.
        max_episode_steps: Another step limit, for infinite horizons only; default: the problem's `steps`.

    Raises:
        ArgumentError: An argument is not what it must be; the sentence names it.
    """
    return VectorEnv(
        resolve_problem(problem),
        num_envs,
        device=device,
        dtype=dtype,
        params=params,
        randomize=randomize,
        max_episode_steps=max_episode_steps,
    )
