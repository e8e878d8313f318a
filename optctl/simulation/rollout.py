"""Rollouts of many steps in one launch: the actions given, drawn or computed by a network inside the kernel.

`Rollouts.run` is what `VectorEnv.rollout` calls. It leaves the environments where `steps` calls of `step` with the same actions
would have left them, random streams and restarts included; on a CPU to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from optctl.codegen.cache import load_module
from optctl.codegen.launch import launch, target
from optctl.errors import require
from optctl.problem import Problem
from optctl.simulation.buffers import Buffers
from optctl.simulation.rollout_source import ActionSource, EnvironmentRollout


class Rollout(NamedTuple):
    """What is kept of a rollout of T steps, saved every s of them."""

    states: Tensor
    """(num_envs, T/s, n_x): after s, 2s, …, T steps; where an episode ended just then, its last state."""
    rewards: Tensor
    """(num_envs, T/s): sums over the s steps before."""
    actions: Tensor | None
    """(num_envs, T, n_u): the actions, where they were to be recorded."""


@dataclass
class Rollouts:
    """The rollouts of `num_envs` environments of one problem. Their kernels are compiled on first use and kept."""

    problem: Problem
    num_envs: int
    max_episode_steps: int
    randomize: bool
    device: torch.device
    dtype: torch.dtype
    _kernels: dict[tuple[ActionSource, bool, bool], tuple[Any, int, int]] = field(default_factory=dict)

    def run(
        self,
        buffers: Buffers,
        policy: Tensor | str | nn.Module,
        steps: int | None,
        *,
        save_every: int | None,
        record_actions: bool,
    ) -> Rollout:
        """See `VectorEnv.rollout`; moves the environments whose `buffers` these are."""
        n, problem = self.num_envs, self.problem
        actions, given, weights = self.actions_of(policy)
        if given is not None:
            require(
                steps in (None, len(given)), "steps", f"be {len(given)}, as many as there are actions", f"is {steps}"
            )
            steps = len(given)
        require(_positive(steps) and steps < 2**31, "steps", "be a positive integer below 2³¹", f"is {steps!r}")  # type: ignore[operator]
        assert steps is not None
        every = steps if save_every is None else save_every
        divides = _positive(every) and steps % every == 0
        require(divides, "save_every", f"be a positive divisor of {steps}", f"is {save_every!r}")

        def empty(*shape: int) -> Tensor:
            return torch.empty(shape, dtype=self.dtype, device=self.device)

        record = record_actions and given is None
        states, rewards = empty(steps // every, n, problem.n_x), empty(steps // every, n)
        taken, none = empty(steps, n, problem.n_u) if record else empty(1), empty(1)
        kernel, width, operations = self._kernel(actions, record, shared_params=len(buffers.params) == 1)
        arguments = [
            none if given is None else given,
            none if weights is None else weights,
            buffers.state,
            buffers.params,
            buffers.clock,
            buffers.episode,
            buffers.key,
            buffers.obs,
            states,
            rewards,
            taken,
            n,
            steps,
            self.max_episode_steps,
            every,
        ]
        launch(kernel, -(-n // width), arguments, self.device, operations * width * steps, alignment=1)
        kept = given if given is not None and record_actions else taken if record else None
        return Rollout(states.transpose(0, 1), rewards.T, None if kept is None else kept.transpose(0, 1))

    def _kernel(self, actions: ActionSource, record: bool, shared_params: bool) -> tuple[Any, int, int]:
        """The kernel, the width of its tiles and the operations of a step."""
        shared = shared_params and not self.randomize
        key = actions, record, shared
        if key not in self._kernels:
            kind = target(self.device, self.dtype)
            generator = EnvironmentRollout(self.problem, kind, shared_params=shared, randomize=self.randomize)
            module = load_module(generator.rollout_source(actions, record=record), self.device)
            self._kernels[key] = module.rollout, generator.width, generator.operations + actions.operations
        return self._kernels[key]

    # --- policies ------------------------------------------------------------------------------------------------------

    def actions_of(self, policy: Any) -> tuple[ActionSource, Tensor | None, Tensor | None]:
        """What the actions come from, the given ones (T, num_envs, n_u), the weights of a network."""
        if isinstance(policy, str):
            require(policy == "random", "policy", "be 'random', a tensor of actions or a network", f"is {policy!r}")
            return ActionSource("random"), None, None
        if isinstance(policy, Tensor):
            return ActionSource("given"), self._given(policy), None
        require(
            isinstance(policy, nn.Module),
            "policy",
            "be 'random', a tensor of actions or a network",
            f"is {type(policy).__name__}",
        )
        actions, weights = self._network(policy)
        return actions, None, weights

    def _given(self, actions: Tensor) -> Tensor:
        shape = (self.num_envs, self.problem.n_u)
        fits = actions.dim() == 3 and (actions.shape[0], actions.shape[2]) == shape
        require(
            fits, "policy", f"have shape ({shape[0]}, T, {shape[1]}), if actions", f"has shape {tuple(actions.shape)}"
        )
        require(actions.dtype == self.dtype, "policy", f"have dtype {self.dtype}", f"has {actions.dtype}")
        require(actions.device == self.device, "policy", f"be on {self.device}", f"is on {actions.device}")
        return actions.detach().transpose(0, 1).contiguous()

    def _network(self, policy: nn.Module) -> tuple[ActionSource, Tensor]:
        """The shape of a network of `Linear`, `Tanh` and `ReLU`, and its weights, packed as the kernel reads them."""
        layers: list[Any] = list(policy) if isinstance(policy, nn.Sequential) else [policy]
        linear, others = layers[0::2], layers[1::2]
        squash = len(others) == len(linear)
        inner = others[:-1] if squash else others
        kinds = {type(layer) for layer in inner} or {nn.Tanh}
        require(
            all(type(layer) is nn.Linear for layer in linear)
            and len(kinds) == 1
            and kinds <= {nn.Tanh, nn.ReLU}
            and (not squash or type(others[-1]) is nn.Tanh),
            "policy",
            "be Linear layers with Tanh, or with ReLU, between them, and perhaps Tanh at the end",
            f"has the layers {', '.join(type(layer).__name__ for layer in layers)}",
        )
        widths = (linear[0].in_features, *(layer.out_features for layer in linear))
        n_y, n_u = self.problem.n_y, self.problem.n_u
        require(
            widths[0] == n_y and widths[-1] == n_u,
            "policy",
            f"take {n_y} observations and give {n_u} actions",
            f"takes {widths[0]} and gives {widths[-1]}",
        )
        parts = []
        for layer in linear:
            bias = torch.zeros(layer.out_features) if layer.bias is None else layer.bias.detach()
            parts += [layer.weight.detach().T.reshape(-1), bias.to(layer.weight.device)]
        weights = torch.cat(parts).to(device=self.device, dtype=self.dtype)
        return ActionSource("network", widths, "relu" if nn.ReLU in kinds else "tanh", squash), weights


def _positive(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value > 0)
