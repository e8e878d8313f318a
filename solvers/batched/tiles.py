"""The sweeps of DDP for larger systems: one problem per block, its stage matrices in tiles of shared memory.

`sweeps` offers the bundle of `optctl.solvers.methods.sweeps`, with the same signatures and equations, to the same orchestrator
(`optctl.solvers.methods.ddp`). Unrolled code grows with n³; here only the derivatives are generated, and what costs n³ are products
of tiles whose shapes alone (n_x, n_u) are compiled in:

    Q = M + J'P⁺J,   q = ∇l + J'λ⁺,   [k, K] = Q_uu⁻¹ [−Q_u, Q_ux],   P = Q_xx + K'Q_uu K − Q_xu K − K'Q_ux

M is the curvature of a stage. θ = 1: ∇²(l + λ⁺'F), which needs the λ⁺ of the sweep: the derivatives of all members at one stage, then
their tiles, stage by stage. θ = 0: the convex part of ∇²l, known beforehand: all stages in one launch; so for dynamics whose step is
affine in (x, u), with any θ. The derivatives are generated code; rollouts are CasADi's (`optctl.solvers.batch`), on the host.

Q_uu is solved by Gauss–Jordan elimination, its pivots replaced by their moduli: the LDL' of `sweeps`, in another order. No member sees
another. Warp keeps the tiles of a CPU block in one place per process, so a CPU runs its blocks one after the other.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import casadi as ca
import numpy as np
import torch
import warp as wp

from optctl.codegen.cache import init_warp, load_module
from optctl.codegen.cpp_source import each, expression, module, statements
from optctl.codegen.launch import WARP_DTYPE, current_stream, num_threads, ranges, resolve_device, run_parts, target
from optctl.codegen.program import TranslationError, build_program
from optctl.codegen.warp_source import emit
from optctl.errors import require
from optctl.problem import Problem
from optctl.shared import kept, once
from optctl.solvers.batch import Batched
from optctl.solvers.batched.kernels import text
from optctl.solvers.methods.sweeps import Clamped, Interior, Sweeps, named, trials

_THREADS = 64
"""Of a block on a GPU; on a CPU a block is one thread."""
_LARGEST, _WIDEST = 2**27, 64
"""Numbers in an array of one sweep, and the largest n_x + n_u: its matrices then fill the 256 KiB that a block has for tiles."""
_LONGEST = 20_000
"""Operations of a function that is compiled."""


def source(n_x: int, n_u: int) -> str:
    """The module of one size."""
    source = text("tiles.warp").replace("<n_x>", str(n_x)).replace("<n_u>", str(n_u))
    sizes = {"N_X": n_x, "N_U": n_u, "N_Z": n_x + n_u, "WIDTH": n_u + 1 + n_x}
    numbers = {"REAL": "wp.float64"} | {
        name: f"wp.float64({value})" for name, value in (("ZERO", 0.0), ("HALF", 0.5), ("ONE", 1.0), ("TINY", 1e-12))
    }
    for name, value in (sizes | numbers).items():
        source = re.sub(rf"\b{name}\b", str(value), source)
    return source


@functools.cache
def kernels(n_x: int, n_u: int, device: torch.device) -> Any:
    """The module with `backward` and `convex`, compiled on first use, for all problems of one size."""
    return load_module(source(n_x, n_u), device, block_dim=1 if device.type == "cpu" else _THREADS)


class _Generated:
    """A CasADi function as a kernel, an evaluation per row: arrays in (one row: for all), tensors (B, columns, rows) or (B, rows) out.

    Compiled on first use, scalar and with little optimisation: what the vectoriser would gain, it would spend on code of this length.
    """

    def __init__(self, function: ca.Function, device: torch.device) -> None:
        self.device, self.program = device, build_program(function)
        self.width = 16 if device.type == "cpu" else 1
        self.operations = self.width * self.program.operations

    @once
    def kernel(self) -> wp.Kernel:
        program, kind = self.program, target(self.device, torch.float64)
        names = [f"in{k}" for k in range(len(program.input_names))]
        used = {k.arguments for k in program.instructions if k.operation == "input"}
        entries = [[f"{name}_{j}" for j in range(n)] for name, n in zip(names, program.input_sizes, strict=True)]
        body = [f"const REAL in{k}_{j} = in{k}.data[start{k} + i * row{k} + {j}];" for k, j in sorted(used)]
        lines, outputs = emit(program, dict(zip(program.input_names, entries, strict=True)), "v", kind)
        body += statements(lines)
        for k, name in enumerate(program.output_names):
            values = outputs[name]
            body += [f"put(out{k}, i, {len(values)}, {j}, {expression(value)});" for j, value in enumerate(values)]
        arrays = [*names, *(f"out{k}" for k in range(len(program.output_names)))]
        arguments = dict.fromkeys(arrays, "wp.array(dtype=wp.float64)")
        places = [f"{place}{k}" for place in ("row", "start") for k in range(len(names))]
        arguments |= dict.fromkeys([*places, "num"], "wp.int64")
        scalar = ["#ifdef __clang__\n#pragma clang loop vectorize(disable)\n#endif", *each(body)]
        text = module("evaluate", f"{program.name} over a batch", arguments, [program], scalar, self.width, kind)
        return load_module(text, self.device, {"optimization_level": 1}).evaluate

    def __call__(self, *arguments: np.ndarray) -> list[torch.Tensor]:
        num = max(len(a) for a in arguments)
        results = [
            torch.empty((num, m, n) if m > 1 else (num, n), dtype=torch.float64, device=self.device)
            for n, m in self.program.output_shapes
        ]
        inputs = [_Input(_tensor(a, self.device), 0 if len(a) == 1 else a.shape[1]) for a in arguments]
        self.staged(num, inputs, results)(0)
        return results

    def staged(self, num: int, inputs: list[_Input], results: list[torch.Tensor]) -> Callable[[int], None]:
        """A call that fills `results` with the values of a stage."""
        tiles, where = -(-num // self.width), str(self.device)
        cpu = self.device.type == "cpu"
        parts = ranges(tiles, self.operations, num_threads(), 1) if cpu else [(0, tiles)]
        arrays = [_array(a, 0) for a in (*(one.values for one in inputs), *results)]
        settings = [*(one.row for one in inputs), *(one.start for one in inputs), num]
        commands = [
            wp.launch(self.kernel, length, [*arrays, *settings, first], device=where, record_cmd=True)
            for first, length in parts
        ]
        place = len(arrays) + len(inputs)

        def run(stage: int, keep: object = arrays) -> None:
            for command in commands:
                for k, one in enumerate(inputs):
                    command.set_param_at_index(place + k, one.start + stage * one.step)
            if cpu:
                run_parts([command.launch for command in commands])
            else:
                commands[0].launch(stream=current_stream(self.device))

        return run


@dataclass(frozen=True)
class _Input:
    """Of member b at stage k: the numbers of `values` from `start` + b · `row` + k · `step` on."""

    values: torch.Tensor
    row: int
    step: int = 0
    start: int = 0


class _Interpreted(Batched):
    """What has no translation, or one that would take minutes to compile, by CasADi."""

    def __call__(self, *arguments: np.ndarray) -> list[torch.Tensor]:  # type: ignore[override]
        return [torch.from_numpy(a) for a in super().__call__(*arguments)]

    def staged(self, num: int, inputs: list[_Input], results: list[torch.Tensor]) -> Callable[[int], None]:
        def run(stage: int) -> None:
            rows = np.arange(num)[:, None]
            values = [
                one.values.reshape(-1)
                .cpu()
                .numpy()[one.start + stage * one.step + rows * one.row + np.arange(self.function.numel_in(k))]
                for k, one in enumerate(inputs)
            ]
            for result, value in zip(results, self(*values), strict=True):
                result.copy_(value.reshape(result.shape))

        return run


def _tensor(a: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.as_tensor(np.require(a, np.float64, ["C", "W"]), device=device)


_one_at_a_time = threading.Lock()


def fits(problem: Problem) -> bool:
    """Whether the matrices of a stage fit a block."""
    return problem.n_x + problem.n_u <= _WIDEST


def sweeps(problem: Problem, steps: int | None = None, device: str | torch.device = "cpu") -> Sweeps:
    """The bundle over `steps` intervals (default: the problem's), built once; tiles on `device`."""
    size = problem.n_x + problem.n_u
    require(fits(problem), "problem", f"have at most {_WIDEST} states and controls", f"has {size}")
    return _sweeps(problem, problem.steps if steps is None else steps, resolve_device(device))


@kept
def _sweeps(problem: Problem, steps: int, device: torch.device) -> Sweeps:
    rollout, forward, adjoint = trials(problem, steps)
    tiles = _Tiles(problem, steps, device)
    return Sweeps(
        rollout, forward, named(Clamped, tiles.clamped), named(Interior, tiles.interior), tiles.tracking, adjoint
    )


@dataclass(frozen=True)
class _Model:
    """The curvature M: row block b · `member` + k · `stage` of `values` is that of member b in interval k."""

    values: torch.Tensor
    member: int
    stage: int


class _Tiles:
    """The backward sweeps; arguments and results as in `Sweeps`."""

    def __init__(self, problem: Problem, steps: int, device: torch.device) -> None:
        init_warp()
        self.n_x, self.n_u, self.n_z = problem.n_x, problem.n_u, problem.n_x + problem.n_u
        self.steps, self.device = steps, device
        self.times, self.end_time = problem.dt * np.arange(steps), np.full((1, 1), steps * problem.dt)
        x, u, p, t = problem.x, problem.u, problem.p, problem.t
        z, costate = ca.vertcat(x, u), ca.SX.sym("costate", problem.n_x)
        after, cost = problem.step_function(x, u, p, t)
        curvature = ca.hessian(cost + ca.dot(costate, after), z)[0]
        phi = ca.SX(0) if problem.horizon == "infinite" else problem.terminal_cost_function(x, p, t)
        phi_xx, phi_x = ca.hessian(phi, x)

        def function(name: str, inputs: list[ca.SX], *outputs: ca.SX) -> _Generated | _Interpreted:
            made = ca.Function(name, inputs, [ca.densify(o) for o in outputs], {"cse": True})
            if made.n_instructions() > _LONGEST:
                return _Interpreted(made)
            try:
                return _Generated(made, device)
            except TranslationError:
                return _Interpreted(made)

        self.first = function("first", [x, u, p, t], ca.jacobian(after, z), ca.gradient(cost, z))
        self.cost = function("curvature", [x, u, p, t], ca.hessian(cost, z)[0])
        self.exact: _Generated | _Interpreted | None = None
        if ca.depends_on(curvature, costate):
            self.exact = function("exact_curvature", [costate, x, u, p, t], curvature)
        self.end = Batched(ca.Function("end", [x, p, t], [ca.densify(phi_x), ca.densify(phi_xx)]))

    # --- the bundle ---

    def clamped(self, x, u, p, mu, low, high, theta) -> list[np.ndarray]:
        return self._in_parts(self._clamped, x, u, p, mu, low, high, theta)

    def interior(self, x, u, p, mu, low, high, theta, z_low, z_high, b) -> list[np.ndarray]:
        return self._in_parts(self._interior, x, u, p, mu, low, high, theta, z_low, z_high, b)

    def tracking(self, x, u, p, q, r) -> list[np.ndarray]:
        return self._in_parts(self._tracking, x, u, p, q, r)

    def _in_parts(self, sweep: Callable[..., list[np.ndarray]], *arguments: np.ndarray) -> list[np.ndarray]:
        """At most so many members at once that every array can be addressed."""
        num, size = len(arguments[0]), max(1, _LARGEST // (self.steps * self.n_z**2))
        parts = [
            sweep(*(a if len(a) == 1 else a[start : start + size] for a in arguments)) for start in range(0, num, size)
        ]
        return [np.concatenate(results) for results in zip(*parts, strict=True)] if len(parts) > 1 else parts[0]

    def _clamped(self, x, u, p, mu, low, high, theta) -> list[np.ndarray]:
        zero = np.zeros_like(u)
        found = self._backward(x, u, p, mu, low, high, theta, zero, zero, np.zeros((1, 1)), min(self.n_u, 3) + 1)
        num = len(x)
        return [
            found["costates"],
            found["hessians"].reshape(num, self.steps + 1, -1),
            found["feed"],
            self._gains(found),
            self._change(found),
            found["residuals"].reshape(num, -1).max(axis=1, keepdims=True),
        ]

    def _interior(self, x, u, p, mu, low, high, theta, z_low, z_high, b) -> list[np.ndarray]:
        found = self._backward(x, u, p, mu, low, high, theta, z_low, z_high, b, 1)
        most = lambda name: found[name].reshape(len(x), -1).max(axis=1)
        residual = np.stack([most("residuals"), most("products"), found["pivots"].min(axis=1)], axis=1)
        return [found["feed"], self._gains(found), self._change(found), residual]

    def _tracking(self, x, u, p, q, r) -> list[np.ndarray]:
        num, free = len(x), np.full((1, self.n_u), np.inf)
        weights = np.concatenate([np.broadcast_to(a, (num, a.shape[1])) for a in (q, r)], axis=1)
        model = np.zeros((num, self.n_z, self.n_z))
        diagonal = np.arange(self.n_z)
        model[:, diagonal, diagonal] = weights
        jacobian, slope = self._first(x, u, p)
        end = (np.zeros((num, self.n_x)), model[:, : self.n_x, : self.n_x])
        settings = self._settings(
            u, np.zeros((1, 1)), -free, free, np.zeros_like(u), np.zeros_like(u), np.zeros((1, 1))
        )
        run, found = self._prepare(jacobian, _Model(self._tensor(model), 1, 0), 0 * slope, settings, end, 1)
        run(0, self.steps)
        return [self._gains(self._numbers(found))]

    # --- one backward sweep ---

    def _backward(self, x, u, p, mu, low, high, theta, z_low, z_high, b, rounds) -> dict[str, np.ndarray]:
        """All results of the kernel: arrays (B, N or N + 1, …)."""
        num, n_z = len(x), self.n_z
        weight = self._tensor(np.broadcast_to(theta, (num, 1)).reshape(num, 1, 1, 1))
        exact, convex = self.exact if bool((weight > 0).any()) else None, bool((weight < 1).any())
        jacobian, slope = self._first(x, u, p)
        end_slope, end_hessian = self.end(x[:, -1], p, self.end_time)
        model = torch.zeros((num, 1, n_z, n_z), dtype=torch.float64, device=self.device)
        if self.exact is None or convex:
            flat = self.cost(*self._flat(x, u, p))[0].to(self.device)
            model = flat.reshape(num, self.steps, n_z, n_z)
        if convex:
            model = (1 - weight) * self._convex(model) + (weight * model if self.exact is None else 0.0)
        settings = self._settings(u, mu, low, high, z_low, z_high, b)
        values = torch.zeros_like(model[:, 0]) if exact else model
        run, found = self._prepare(
            jacobian,
            _Model(values, 1, 0) if exact else _Model(values, self.steps, 1),
            slope,
            settings,
            (end_slope, end_hessian),
            rounds,
        )
        if exact is None:
            run(0, self.steps)
            return self._numbers(found)
        n_x, n_u, length = self.n_x, self.n_u, (self.steps + 1) * self.n_x
        p, shared = self._tensor(p), len(p) == 1
        curve = exact.staged(
            num,
            [
                _Input(found["costates"], length, n_x, n_x),
                _Input(self._tensor(x), length, n_x),
                _Input(self._tensor(u), self.steps * n_u, n_u),
                _Input(p, 0 if shared else p.shape[1]),
                _Input(self._tensor(self.times), 0, 1),
            ],
            [values],
        )
        for k in range(self.steps)[::-1]:
            curve(k)
            if convex:
                values.mul_(weight[:, 0]).add_(model[:, k])
            run(k, k + 1)
        return self._numbers(found)

    def _prepare(
        self,
        jacobian: torch.Tensor,
        model: _Model,
        slope: torch.Tensor,
        settings: list[np.ndarray],
        end: tuple[np.ndarray, np.ndarray],
        rounds: int,
    ) -> tuple[Callable[[int, int], None], dict[str, torch.Tensor]]:
        """A call that makes the stages `first` … `last` − 1, and what it fills."""
        num, n_x, n_u, steps = len(end[0]), self.n_x, self.n_u, self.steps
        shapes = {
            "costates": (steps + 1, n_x),
            "hessians": (steps + 1, n_x, n_x),
            "feed": (steps, n_u),
            "gains": (steps, n_u, n_x),
            "pull": (steps, n_u),
            "bend": (steps, n_u),
            "residuals": (steps, n_u),
            "products": (steps, n_u),
            "pivots": (steps,),
        }
        found = {
            name: torch.empty((num, *shape), dtype=torch.float64, device=self.device) for name, shape in shapes.items()
        }
        found["costates"][:, -1], found["hessians"][:, -1] = self._tensor(end[0]), self._tensor(end[1])
        *vectors, mu, b = (self._tensor(a) for a in settings)
        columns = [(jacobian, n_x), (model.values, self.n_z), (slope, 1), *((a, 1) for a in vectors), (mu, 0), (b, 0)]
        columns += [(found[name], {"hessians": n_x, "gains": n_x, "pivots": 0}.get(name, 1)) for name in shapes]
        inputs = [_array(tensor, width) for tensor, width in columns]
        command = wp.launch_tiled(
            kernels(n_x, n_u, self.device).backward,
            dim=[num],
            inputs=[*inputs, steps, 0, steps, rounds, model.member, model.stage],
            device=str(self.device),
            block_dim=_THREADS,
            record_cmd=True,
        )
        place = len(inputs) + 1

        def run(first: int, last: int, keep: object = inputs) -> None:  # a recorded launch knows addresses only
            command.set_param_at_index(place, first)
            command.set_param_at_index(place + 1, last)
            self._run(command.launch)

        return run, found

    def _run(self, call: Callable[..., Any]) -> None:
        if self.device.type == "cpu":
            with _one_at_a_time:
                call()
        else:
            call(stream=current_stream(self.device))

    def _convex(self, curvature: torch.Tensor) -> torch.Tensor:
        """L|D|L' of every matrix."""
        values = curvature.clone()
        self._run(
            functools.partial(
                wp.launch_tiled,
                kernels(self.n_x, self.n_u, self.device).convex,
                dim=[values.numel() // self.n_z**2],
                inputs=[_array(values, self.n_z)],
                device=str(self.device),
                block_dim=_THREADS,
            )
        )
        return values

    # --- arrays ---

    def _flat(self, x: np.ndarray, u: np.ndarray, p: np.ndarray) -> list[np.ndarray]:
        num = len(x)
        rows = np.repeat(np.broadcast_to(p, (num, p.shape[1])), self.steps, axis=0)
        return [x[:, :-1].reshape(-1, self.n_x), u.reshape(-1, self.n_u), rows, np.tile(self.times, num)[:, None]]

    def _first(self, x: np.ndarray, u: np.ndarray, p: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """J' (B · N, n_z, n_x) and ∇l (B · N, n_z)."""
        jacobian, slope = self.first(*self._flat(x, u, p))
        return jacobian.to(self.device), slope.to(self.device)

    def _settings(self, u, mu, low, high, z_low, z_high, b) -> list[np.ndarray]:
        """u, bounds and their multipliers, then μ and b, one row a member."""
        num = len(u)
        rows = lambda a: np.broadcast_to(a, (num, self.n_u))
        return [u, rows(low), rows(high), z_low, z_high, np.broadcast_to(mu, (num, 1)), np.broadcast_to(b, (num, 1))]

    def _tensor(self, a: np.ndarray) -> torch.Tensor:
        return _tensor(a, self.device)

    def _numbers(self, found: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        return {name: tensor.cpu().numpy() for name, tensor in found.items()}

    def _gains(self, found: dict[str, np.ndarray]) -> np.ndarray:
        """K', as `Sweeps` has it."""
        return np.swapaxes(found["gains"], -1, -2).reshape(len(found["gains"]), self.steps, -1)

    def _change(self, found: dict[str, np.ndarray]) -> np.ndarray:
        """[k'Q_u, ½ k'Q_uu k] (B, 2)."""
        k = found["feed"].reshape(len(found["feed"]), -1)
        with np.errstate(over="ignore", invalid="ignore"):
            return np.stack(
                [
                    (k * found["pull"].reshape(k.shape)).sum(axis=1),
                    (k * found["bend"].reshape(k.shape)).sum(axis=1) / 2,
                ],
                axis=1,
            )


def _array(tensor: torch.Tensor, width: int) -> Any:
    """A Warp view with rows of `width`; a vector for 0."""
    shaped = tensor.reshape(-1, width) if width else tensor.reshape(-1)
    return wp.from_torch(shaped, dtype=WARP_DTYPE[tensor.dtype], requires_grad=False)
