"""Differentiable rollouts: gradients of many steps with respect to the start, the controls, the parameters, the time and the noise.

The adjoint is a kernel generated from CasADi's reverse mode of the step (`adjoint_source`); neither torch nor Warp keeps a tape.
For B environments, T steps and n_x states, with a checkpoint every c steps, a rollout keeps

    ⌈T/c⌉ B n_x   numbers between the forward and the backward pass, and
    c B n_x       more during the backward pass (B rounded up to whole tiles of at most 256),

besides its arguments, its results and their gradients. c = ⌈√T⌉ by default, so about 2 √T B n_x numbers in all: 2.1 MB for
4,096 pendulums over 1,000 steps in float32, where keeping every state would take 33 MB.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from optctl.codegen.cache import load_module
from optctl.codegen.function import CompiledFunction
from optctl.codegen.launch import launch, target
from optctl.problem import Problem
from optctl.simulation.adjoint_source import AdjointSource


class AdjointKernels:
    """Forward and backward rollouts of a problem by its `step`, with noise or without; each kernel is compiled on first use."""

    def __init__(self, problem: Problem, step: CompiledFunction, *, shared_params: bool) -> None:
        kind = target(step.device, step.dtype)
        source = AdjointSource(problem, step.function, step.vjp.function, kind, shared_params=shared_params)
        self.device, self.width, self.stored_width = step.device, source.width, source.stored_width
        self.operations = {
            "forward": source.step.operations,
            "backward": source.step.operations + source.vjp.operations,
        }
        self._source = {"forward": source.forward, "backward": source.backward}
        self._loaded: dict[str, Any] = {}

    def launch(
        self, name: str, arrays: list[Tensor], num: int, steps: int, every: int, segment: int, stride: int
    ) -> None:
        if name not in self._loaded:
            self._loaded[name] = getattr(load_module(self._source[name](), self.device), name)
        work = self.operations[name] * self.width * steps
        arguments = [*arrays, num, steps, every, segment, stride]
        launch(self._loaded[name], -(-num // self.width), arguments, self.device, work, alignment=1)


def rollout(
    kernels: AdjointKernels, x: Tensor, sequences: list[Tensor], p: Tensor, t: Tensor, every: int, segment: int
) -> tuple[Tensor, Tensor]:
    """States and sums of costs, time first: (T/every, B, n_x) and (T/every, B). `sequences`: u[, w], time first, contiguous."""
    return _Rollout.apply(kernels, every, segment, x, p, t, *sequences)  # type: ignore[return-value]


def checkpoint_interval(steps: int) -> int:
    """⌈√T⌉, which makes ⌈T/c⌉ + c smallest."""
    return math.isqrt(steps - 1) + 1


class _Rollout(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, kernels: AdjointKernels, every: int, segment: int, x: Tensor, p: Tensor, t: Tensor, *sequences: Tensor
    ) -> tuple[Tensor, Tensor]:
        (num, n_x), steps = x.shape, len(sequences[0])
        states, costs = x.new_empty(steps // every, num, n_x), x.new_empty(steps // every, num)
        needed = any(ctx.needs_input_grad)
        kept = x.new_empty(-(-steps // segment) if needed else 0, num, n_x)
        stride = int(len(t) > 1)
        inside = [x.contiguous(), *sequences, p.contiguous(), t.contiguous(), states, costs, kept]
        kernels.launch("forward", inside, num, steps, every, segment if needed else 0, stride)
        ctx.kernels, ctx.every, ctx.segment = kernels, every, segment
        if needed:
            ctx.save_for_backward(kept, p, t, *sequences)
        return states, costs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, adj_states: Tensor, adj_costs: Tensor) -> tuple[Any, ...]:
        kept, p, t, *sequences = ctx.saved_tensors
        _, num, n_x = kept.shape
        steps, tiles = len(sequences[0]), -(-num // ctx.kernels.stored_width)
        scratch = kept.new_empty(tiles * ctx.kernels.stored_width * ctx.segment * n_x)
        grad_x, grad_p, grad_t = kept.new_empty(num, n_x), kept.new_empty(num, p.shape[1]), kept.new_empty(num)
        grads = [torch.empty_like(sequence) for sequence in sequences]
        inside = [
            kept,
            *sequences,
            p.contiguous(),
            t.contiguous(),
            adj_states.contiguous(),
            adj_costs.contiguous(),
            scratch,
            grad_x,
            *grads,
            grad_p,
            grad_t,
        ]
        ctx.kernels.launch("backward", inside, num, steps, ctx.every, ctx.segment, int(len(t) > 1))
        if len(p) < num:
            grad_p = grad_p.sum(0, keepdim=True)
        if len(t) < num:
            grad_t = grad_t.sum(0, keepdim=True)
        results = [grad_x, grad_p, grad_t, *grads]
        return (None, None, None, *(g if n else None for g, n in zip(results, ctx.needs_input_grad[3:], strict=True)))
