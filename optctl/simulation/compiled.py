"""`CompiledProblem`: a problem's functions over batches of torch tensors, with exact derivatives.

Every quantity is a CasADi function translated to one kernel: the step, its Jacobians (CasADi's forward-over-expressions
`jacobian`) and its vector–Jacobian products (CasADi's reverse mode). torch's autograd calls the latter, so no tape is kept: a
rollout of T steps stores its states and nothing else. Kernels are generated, compiled and cached on first use.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import casadi as ca
import numpy as np
import torch
from torch import Tensor

from optctl.codegen.function import CompiledFunction
from optctl.codegen.launch import resolve_device, resolve_dtype
from optctl.envs import resolve_problem
from optctl.errors import require
from optctl.problem import Problem
from optctl.shared import once
from optctl.simulation.adjoint import AdjointKernels, checkpoint_interval, rollout


class Linearization(NamedTuple):
    """First derivatives of one step: x_next ≈ … + A δx + B δu, cost ≈ … + cost_x·δx + cost_u·δu."""

    A: Tensor
    """(B, n_x, n_x)"""
    B: Tensor
    """(B, n_x, n_u)"""
    cost_x: Tensor
    """(B, n_x)"""
    cost_u: Tensor
    """(B, n_u)"""


class CompiledProblem:
    """The batched functions of a problem on a device; made by `compile_problem`.

    Arguments: states x (B, n_x), controls u (B, n_u) in units, parameters p (1 or B, n_p), default nominal, and the time t [s], a
    number or a tensor of shape (B,). All methods but `linearize` and `vjp` are differentiable by torch with respect to each of
    them.
    """

    def __init__(
        self, problem: Problem, device: str | torch.device = "cpu", dtype: str | torch.dtype = "float32"
    ) -> None:
        self.problem = problem
        self.device, self.dtype = resolve_device(device), resolve_dtype(dtype)
        self._rollouts: dict[tuple[bool, bool], AdjointKernels] = {}
        self.nominal_params = torch.tensor(problem.param_values[None], dtype=self.dtype, device=self.device)

    # --- the public calls -----------------------------------------------------------------------------------------------

    def step(
        self, x: Tensor, u: Tensor, p: Tensor | None = None, t: float | Tensor = 0.0, w: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """One control interval: next states (B, n_x) and the cost integrated over it (B,).

        `w` (B, n_w): standard normal process noise; none by default.
        """
        arguments = self._check(x, u, p, t)
        if w is None:
            after, cost = self._step(*arguments)
        else:
            require(self.problem.n_w > 0, "w", "be absent for a problem without process noise", "was given")
            self._shape("w", w, (len(x), self.problem.n_w))
            after, cost = self._noisy_step(*arguments, w)
        return after, cost[:, 0]

    def linearize(self, x: Tensor, u: Tensor, p: Tensor | None = None, t: float | Tensor = 0.0) -> Linearization:
        """Jacobians of one step and gradients of its cost."""
        a, b, cost_x, cost_u = self._linearize.evaluate(*self._check(x, u, p, t))
        n_x, n_u = self.problem.n_x, self.problem.n_u
        return Linearization(a.view(-1, n_x, n_x), b.view(-1, n_x, n_u), cost_x, cost_u)

    def vjp(
        self, x: Tensor, u: Tensor, p: Tensor | None, t: float | Tensor, adj_x_next: Tensor, adj_cost: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients (B, n_x), (B, n_u), (B, n_p) of adj_x_next · x_next + adj_cost cost, with (B, n_x) and (B,) cotangents."""
        arguments = self._check(x, u, p, t)
        self._shape("adj_x_next", adj_x_next, tuple(x.shape))
        self._shape("adj_cost", adj_cost, (len(x),))
        return self._step.vjp.evaluate(*arguments, adj_x_next, adj_cost)[:3]  # type: ignore[return-value]

    def observe(self, x: Tensor, p: Tensor | None = None, t: float | Tensor = 0.0) -> Tensor:
        """Observations without noise, (B, n_y)."""
        (y,) = self._observe(*self._check(x, None, p, t))
        return y

    def terminal_cost(self, x: Tensor, p: Tensor | None = None, t: float | Tensor | None = None) -> Tensor:
        """φ, shape (B,); zero where the problem has none. `t` defaults to the end of the horizon."""
        (cost,) = self._terminal(*self._check(x, None, p, self.problem.duration if t is None else t))
        return cost[:, 0]

    def rollout(
        self,
        x: Tensor,
        u: Tensor,
        p: Tensor | None = None,
        t: float | Tensor = 0.0,
        w: Tensor | None = None,
        *,
        save_every: int | None = None,
        checkpoint_every: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """T steps in one launch: states (B, T/s, n_x) after every s = `save_every` steps and the costs (B, T/s) of those steps.

        x (B, n_x), u (B, T, n_u) and w (B, T, n_w) as for `step`, t the time of the start. By default s = T: the last state and the
        whole cost (without the terminal cost). Differentiable with respect to all five; the backward pass computes states again
        from a checkpoint every `checkpoint_every` steps (default ⌈√T⌉; memory: see `optctl.simulation.adjoint`). u and w are
        read without a copy if they lie time first in memory, as `tensor.transpose(0, 1)` of a contiguous (T, B, n_u) does.
        """
        self._shape("x", x, (None, self.problem.n_x))
        self._shape("u", u, (len(x), None, self.problem.n_u))
        steps = u.shape[1]
        require(steps > 0, "u", "have at least one step", f"has shape {tuple(u.shape)}")
        every = steps if save_every is None else save_every
        segment = checkpoint_interval(steps) if checkpoint_every is None else checkpoint_every
        for name, value in (("save_every", every), ("checkpoint_every", segment)):
            whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
            require(whole and value > 0, name, "be a positive integer", f"is {value!r}")
        require(steps % every == 0, "save_every", f"divide the {steps} steps", f"is {every}")
        sequences = [u]
        if w is not None:
            require(self.problem.n_w > 0, "w", "be absent for a problem without process noise", "was given")
            self._shape("w", w, (len(x), steps, self.problem.n_w))
            sequences.append(w)
        _, p, t = self._check(x, None, p, t)
        rows = [sequence.transpose(0, 1).contiguous() for sequence in sequences]
        kernels = self._rollout_kernels(noisy=w is not None, shared_params=len(p) == 1)
        states, costs = rollout(kernels, x, rows, p, t, every, min(segment, steps))
        return states.transpose(0, 1), costs.T

    # --- generated functions --------------------------------------------------------------------------------------------

    def compile(self, function: ca.Function) -> CompiledFunction:
        """Any other CasADi function over batches on this device."""
        return CompiledFunction(function, self.device, self.dtype)

    @once
    def _step(self) -> CompiledFunction:
        return self.compile(self.problem.step_function)

    @once
    def _noisy_step(self) -> CompiledFunction:
        problem = self.problem
        inputs = [ca.SX.sym(n, k) for n, k in (("x", problem.n_x), ("u", problem.n_u), ("p", problem.n_p), ("t", 1))]
        w = ca.SX.sym("w", problem.n_w)
        after, cost = problem.step_function(*inputs)
        assert problem.diffusion_function is not None
        kick = problem.diffusion_function(*inputs) @ w * (1.0 if problem.discrete else np.sqrt(problem.dt))
        names = ["x", "u", "p", "t", "w"]
        return self.compile(ca.Function("noisy_step", [*inputs, w], [after + kick, cost], names, ["x_next", "cost"]))

    def _rollout_kernels(self, noisy: bool, shared_params: bool) -> AdjointKernels:
        key = noisy, shared_params
        if key not in self._rollouts:
            step = self._noisy_step if noisy else self._step
            self._rollouts[key] = AdjointKernels(self.problem, step, shared_params=shared_params)
        return self._rollouts[key]

    @once
    def _linearize(self) -> CompiledFunction:
        problem = self.problem
        x, u, p, t = (
            ca.SX.sym(n, k) for n, k in (("x", problem.n_x), ("u", problem.n_u), ("p", problem.n_p), ("t", 1))
        )
        after, cost = problem.step_function(x, u, p, t)
        outputs = [ca.jacobian(after, x), ca.jacobian(after, u), ca.gradient(cost, x), ca.gradient(cost, u)]
        names = ["A", "B", "cost_x", "cost_u"]
        return self.compile(ca.Function("linearize", [x, u, p, t], outputs, ["x", "u", "p", "t"], names))

    @once
    def _observe(self) -> CompiledFunction:
        return self.compile(self.problem.observation_function)

    @once
    def _terminal(self) -> CompiledFunction:
        return self.compile(self.problem.terminal_cost_function)

    # --- checks ---------------------------------------------------------------------------------------------------------

    def _check(self, x: Tensor, u: Tensor | None, p: Tensor | None, t: float | Tensor) -> list[Tensor]:
        self._shape("x", x, (None, self.problem.n_x))
        batch = len(x)
        if u is not None:
            self._shape("u", u, (batch, self.problem.n_u))
        p = self.nominal_params if p is None else p
        self._tensor("p", p)
        rows = {1, batch}
        require(
            p.dim() == 2 and p.shape[1] == self.problem.n_p and len(p) in rows,
            "p",
            f"have shape (1, {self.problem.n_p}) or ({batch}, {self.problem.n_p})",
            f"has shape {tuple(p.shape)}",
        )
        if not isinstance(t, Tensor):
            t = torch.full((1,), float(t), dtype=self.dtype, device=self.device)
        self._tensor("t", t)
        require(
            t.numel() in rows and t.dim() <= 1,
            "t",
            f"be a number or have shape ({batch},)",
            f"has shape {tuple(t.shape)}",
        )
        return [a for a in (x, u, p, t) if a is not None]

    def _tensor(self, name: str, value: Any) -> None:
        require(isinstance(value, Tensor), name, "be a torch tensor", f"is {type(value).__name__}")
        require(value.dtype == self.dtype, name, f"have dtype {self.dtype}", f"has {value.dtype}")
        require(value.device == self.device, name, f"be on {self.device}", f"is on {value.device}")

    def _shape(self, name: str, value: Any, shape: tuple[int | None, ...]) -> None:
        self._tensor(name, value)
        fits = value.dim() == len(shape) and all(n in (None, m) for n, m in zip(shape, value.shape, strict=True))
        unknown = "T" if shape and shape[0] is not None else "B"
        wanted = ", ".join(unknown if n is None else str(n) for n in shape) + ("," if len(shape) == 1 else "")
        require(fits, name, f"have shape ({wanted})", f"has shape {tuple(value.shape)}")


def compile_problem(
    problem: Problem | str, device: str | torch.device = "cpu", dtype: str | torch.dtype = "float32"
) -> CompiledProblem:
    """The batched, differentiable functions of a problem (or of a catalogue name) on a device."""
    return CompiledProblem(resolve_problem(problem), device, dtype)
