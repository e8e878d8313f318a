"""Source of a rollout of the bare step function and of its adjoint (see `cpp_source` for the form of the kernels).

Forward, the states are kept before every `segment`-th step. Backward, segment by segment from the last: its states are computed
again from the one kept, and then, from its end, with CasADi's vector–Jacobian product of the step F, l at (x, u, p, t, w),

    λ ← (∂F/∂x)ᵀ λ + ∂l/∂x μ,   ū = (∂F/∂u)ᵀ λ + ∂l/∂u μ,   p̄ += (∂F/∂p)ᵀ λ + ∂l/∂p μ   (likewise t̄ and w̄),

where λ grows by the cotangent of every saved state that is passed, and μ is the cotangent of the sum of costs that l belongs to.
"""

from __future__ import annotations

import casadi as ca

from optctl.codegen.cpp_source import each, expression, loop, module, statements, tile_width
from optctl.codegen.program import build_program
from optctl.codegen.warp_source import Target, constant, emit
from optctl.problem import Problem

_WARP = 32


class AdjointSource:
    """The kernels `forward` and `backward` of one problem; `step` is its (x, u, p, t[, w]) → (x_next, cost) and `vjp` the product."""

    def __init__(self, problem: Problem, step: ca.Function, vjp: ca.Function, target: Target, *, shared_params: bool):
        self.n_x, self.n_p, self.dt = problem.n_x, problem.n_p, problem.dt
        self.title, self.target, self.shared_params = problem.name, target, shared_params
        self.step, self.vjp = build_program(step), build_program(vjp)
        sizes = dict(zip(self.step.input_names, self.step.input_sizes, strict=True))
        self.inputs = {name: size for name, size in sizes.items() if name in ("u", "w")}
        """What changes from step to step: controls, and noise where there is any."""
        self.width = tile_width(2 * self.n_x + 2 * self.n_p + 3, target)
        self.stored_width = _WARP if target.device == "cuda" else self.width
        """Environments whose recomputed states lie side by side."""

    def forward(self) -> str:
        """Arguments: x0, u[, w], param, time → states, costs, checkpoints; num, steps, every, segment (0: keep no checkpoints)."""
        save = [
            *(
                f"states.data[((done / every - 1) * num + i) * {self.n_x} + {j}] = x[{j}][lane];"
                for j in range(self.n_x)
            ),
            "costs.data[(done / every - 1) * num + i] = total[lane]; total[lane] = 0;",
        ]
        keep = [
            f"checkpoints.data[((done / segment) * num + i) * {self.n_x} + {j}] = x[{j}][lane];"
            for j in range(self.n_x)
        ]
        lines, out = emit(self.step, self._arguments(), "d", self.target)
        body = [
            f"REAL x[{self.n_x}][{self.width}], total[{self.width}];",
            *self._begin("start"),
            *each(["total[lane] = 0;"]),
            "wp::int64 done = 0;",
            "while (done < steps) {",
            "wp::int64 run = every - done % every;",
            "if (segment > 0) {",
            "if (done % segment == 0) {",
            *each(keep),
            "}",
            "if (segment - done % segment < run) run = segment - done % segment;",
            "}",
            "for (wp::int64 step = done; step < done + run; ++step) {",
            *loop(
                [
                    *self._read("x[{j}][lane]"),
                    *statements(lines),
                    *self._advance(out["x_next"]),
                    f"total[lane] += {expression(out['cost'][0])};",
                ]
            ),
            "}",
            "done += run;",
            "if (done % every == 0) {",
            *each(save),
            "}",
            "}",
        ]
        arrays = ("start", *self.inputs, "param", "time", "states", "costs", "checkpoints")
        return self._module("forward", arrays, body)

    def backward(self) -> str:
        """Arguments: checkpoints, u[, w], param, time, adj_states, adj_costs → trajectory (scratch), grad_x, grad_u[, grad_w], grad_p,
        grad_t; num, steps, every, segment."""
        n_x, n_p, width = self.n_x, self.n_p, self.width
        again, out = emit(self.step, self._arguments(), "d", self.target)
        adjoint = self._arguments() | {"adj_x_next": [f"l{j}" for j in range(n_x)], "adj_cost": ["mu"]}
        lines, grads = emit(self.vjp, adjoint, "g", self.target)
        cotangents = [*(f"const REAL l{j} = adjoint[{j}][lane];" for j in range(n_x)), "const REAL mu = weight[lane];"]
        row = "((step + 1) / every - 1) * num + i"
        pass_saved = [
            *(f"adjoint[{j}][lane] += adj_states.data[({row}) * {n_x} + {j}];" for j in range(n_x)),
            f"weight[lane] = adj_costs.data[{row}];",
        ]
        accumulate = [
            *(f"adjoint[{j}][lane] = {expression(v)};" for j, v in enumerate(grads["grad_x"])),
            *(f"grad_params[{j}][lane] += {expression(v)};" for j, v in enumerate(grads["grad_p"])),
            f"grad_time[lane] += {expression(grads['grad_t'][0])};",
            *(
                f"grad_{name}.data[(step * num + i) * {size} + {j}] = {expression(v)};"
                for name, size in self.inputs.items()
                for j, v in enumerate(grads[f"grad_{name}"])
            ),
        ]
        body = [
            f"REAL x[{n_x}][{width}], adjoint[{n_x}][{width}] = {{}}, weight[{width}] = {{}}, grad_time[{width}] = {{}};",
            *([f"REAL grad_params[{n_p}][{width}] = {{}};"] if n_p else []),
            *self._begin(),
            "for (wp::int64 from = (steps - 1) / segment * segment; from >= 0; from -= segment) {",
            "const wp::int64 to = steps - from < segment ? steps : from + segment;",
            *each(f"x[{j}][lane] = checkpoints.data[((from / segment) * num + i) * {n_x} + {j}];" for j in range(n_x)),
            "for (wp::int64 step = from; step < to; ++step) {",
            *each(f"{self._stored(j)} = x[{j}][lane];" for j in range(n_x)),
            "if (step + 1 < to) {",
            *loop([*self._read("x[{j}][lane]"), *statements(again), *self._advance(out["x_next"])]),
            "}",
            "}",
            "for (wp::int64 step = to - 1; step >= from; --step) {",
            "if ((step + 1) % every == 0) {",
            *each(pass_saved),
            "}",
            *loop([*self._read(None), *cotangents, *statements(lines), *accumulate]),
            "}",
            "}",
            *each(
                [
                    *(f"grad_x.data[i * {n_x} + {j}] = adjoint[{j}][lane];" for j in range(n_x)),
                    *(f"grad_p.data[i * {n_p} + {j}] = grad_params[{j}][lane];" for j in range(n_p)),
                    "grad_t.data[i] = grad_time[lane];",
                ]
            ),
        ]
        arrays = (
            "checkpoints",
            *self.inputs,
            "param",
            "time",
            "adj_states",
            "adj_costs",
            "trajectory",
            "grad_x",
            *(f"grad_{name}" for name in self.inputs),
            "grad_p",
            "grad_t",
        )
        return self._module("backward", arrays, body)

    # --- pieces ---

    def _module(self, name: str, arrays: tuple[str, ...], body: list[str]) -> str:
        arguments = dict.fromkeys(arrays, f"wp.array(dtype=wp.{self.target.dtype})")
        arguments |= dict.fromkeys(("num", "steps", "every", "segment", "time_stride"), "wp.int64")
        title = f"{name} rollout of {self.title}, {self.target.dtype}"
        return module(name, title, arguments, [self.step, self.vjp], body, self.width, self.target)

    def _begin(self, start: str | None = None) -> list[str]:
        """Parameters, the starting times, and, if given, the states at the start."""
        lines = [f"x[{j}][lane] = {start}.data[i * {self.n_x} + {j}];" for j in range(self.n_x if start else 0)]
        lines.append("begun[lane] = time.data[i * time_stride];")
        declared = [f"REAL begun[{self.width}];"]
        if self.shared_params:
            declared += [f"const REAL p{j} = param.data[{j}];" for j in range(self.n_p)]
        elif self.n_p:
            declared.append(f"REAL p[{self.n_p}][{self.width}];")
            lines += [f"p[{j}][lane] = param.data[i * {self.n_p} + {j}];" for j in range(self.n_p)]
        return [*declared, *each(lines)]

    def _stored(self, j: int) -> str:
        if self.stored_width == self.width:
            return f"trajectory.data[((tile_index * segment + step - from) * {self.n_x} + {j}) * {self.width} + lane]"
        w = self.stored_width
        return f"trajectory.data[((i / {w} * segment + step - from) * {self.n_x} + {j}) * {w} + i % {w}]"

    def _arguments(self) -> dict[str, list[str]]:
        names = {name: [f"{name}{j}" for j in range(size)] for name, size in self.inputs.items()}
        return {"x": [f"x{j}" for j in range(self.n_x)], "p": [f"p{j}" for j in range(self.n_p)], "t": ["t"], **names}

    def _read(self, rows: str | None) -> list[str]:
        """The arguments of the step, the states from local rows or else from the recomputed trajectory."""
        lines = [f"const REAL x{j} = {self._stored(j) if rows is None else rows.format(j=j)};" for j in range(self.n_x)]
        if not self.shared_params:
            lines += [f"const REAL p{j} = p[{j}][lane];" for j in range(self.n_p)]
        for name, size in self.inputs.items():
            lines += [f"const REAL {name}{j} = {name}.data[(step * num + i) * {size} + {j}];" for j in range(size)]
        return [*lines, f"const REAL t = begun[lane] + REAL(step) * {expression(constant(self.dt, self.target))};"]

    def _advance(self, after: list[str]) -> list[str]:
        return [f"x[{j}][lane] = {expression(value)};" for j, value in enumerate(after)]
