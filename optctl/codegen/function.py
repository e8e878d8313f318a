"""Any CasADi function over a batch of torch tensors: its kernel's source, compiled on first use, and its exact derivative.

Kernel arguments are flat arrays; member i of the batch reads entry j of an array with rows of n at `i * n + j`, or at `j` where all
share one row: which of the two is decided when the source is generated, for the sake of the vectoriser.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import casadi as ca
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from optctl.codegen.cache import load_module
from optctl.codegen.launch import launch, resolve_device, resolve_dtype, target
from optctl.codegen.program import build_program
from optctl.codegen.warp_source import Target, emit, helpers, titled
from optctl.errors import require
from optctl.shared import once

# --- source --------------------------------------------------------------------------------------------------------------

HEADER = """import warp as wp

wp.set_module_options({{"enable_backward": False, "cpu_compiler_flags": "{flags}"}})


@wp.func_native("return tid + offset;")
def index(tid: wp.int32, offset: wp.int64) -> wp.int64: ...


@wp.func_native("return a.data[i * n + j];")
def get(a: wp.array(dtype=wp.{dtype}), i: wp.int64, n: wp.int32, j: wp.int32) -> wp.{dtype}: ...


@wp.func_native("a.data[i * n + j] = value;")
def put(a: wp.array(dtype=wp.{dtype}), i: wp.int64, n: wp.int32, j: wp.int32, value: wp.{dtype}): ...


"""
# Plain 64-bit addressing, because Warp's own (32-bit indices that may be negative, strides) defeats LLVM's vectoriser. Scalar
# arguments are 64-bit for the same reason: LLVM must know that storing a 32-bit clock does not overwrite them.

FLAGS = "-march=native -mllvm -runtime-memory-check-threshold=256"
"""For the CPU: let the vectoriser check at run time that all the arrays of a kernel are distinct (its default gives up at 8)."""


def function_source(function: ca.Function, target: Target, shared: tuple[bool, ...]) -> str:
    """Kernel `batched`: arguments are the inputs, the outputs (row-major) and the offset; `shared` inputs have one row for all."""
    program = build_program(function)
    inputs, loads, stores = {}, [], []
    used = {k.arguments for k in program.instructions if k.operation == "input"}
    for k, (size, one) in enumerate(zip(program.input_sizes, shared, strict=True)):
        inputs[program.input_names[k]] = [f"in{k}_{j}" for j in range(size)]
        for j in (j for j in range(size) if (k, j) in used):
            loads.append(f"in{k}_{j} = in{k}[{j}]" if one else f"in{k}_{j} = get(in{k}, i, {size}, {j})")
    lines, outputs = emit(program, inputs, "v", target)
    for k, (n, m) in enumerate(program.output_shapes):
        for entry, value in enumerate(outputs[program.output_names[k]]):
            column, row = divmod(entry, n)
            stores.append(f"put(out{k}, i, {n * m}, {row * m + column}, {value})")
    arrays = [f"in{k}" for k in range(len(program.input_names))] + [f"out{k}" for k in range(len(program.output_names))]
    arguments = [*(f"{array}: wp.array(dtype=wp.{target.dtype})" for array in arrays), "offset: wp.int64"]
    return (
        titled(f"{function.name()} over a batch, {target.dtype}")
        + HEADER.format(flags=FLAGS, dtype=target.dtype)
        + helpers([program], target)
        + kernel("batched", arguments, ["i = index(wp.tid(), offset)", *loads, *lines, *stores])
    )


def kernel(name: str, arguments: Iterable[str], body: Iterable[str]) -> str:
    """Source of one kernel without a backward pass."""
    signature = ",\n".join(f"    {argument}" for argument in arguments)
    statements = "\n".join(f"    {line}" for line in body)
    return f"@wp.kernel(enable_backward=False)\ndef {name}(\n{signature},\n):\n{statements}\n"


# --- over tensors --------------------------------------------------------------------------------------------------------


class CompiledFunction:
    """A CasADi function of column vectors over a batch, differentiable once by torch.

    Each argument is a tensor of shape (B, n) or (1, n), the latter shared by the whole batch (scalars: also (B,) and (1,)).
    Results have shape (B, n) for columns, scalars included, and (B, n, m) for matrices.
    """

    def __init__(self, function: ca.Function, device: str | torch.device = "cpu", dtype: str | torch.dtype = "float32"):
        self.function = function
        self.device, self.dtype = resolve_device(device), resolve_dtype(dtype)
        self.names = tuple(function.name_in())
        self.sizes = tuple(function.numel_in(i) for i in range(function.n_in()))
        self.shapes = tuple(function.size_out(j) for j in range(function.n_out()))
        self.operations = max(1, function.n_instructions()) if function.is_a("SXFunction") else 100
        self._kernels: dict[tuple[bool, ...], Any] = {}

    @once
    def vjp(self) -> CompiledFunction:
        """(inputs…, one cotangent per output) → Σ_j (∂ output_j / ∂ input_i)ᵀ cotangent_j for every input i."""
        f = self.function
        inputs = [ca.SX.sym(name, size) for name, size in zip(self.names, self.sizes, strict=True)]
        outputs = f.call(inputs)
        cotangents = [ca.SX.sym(f"adj_{name}", *shape) for name, shape in zip(f.name_out(), self.shapes, strict=True)]
        product = sum((ca.dot(y, a) for y, a in zip(outputs, cotangents, strict=True)), ca.SX(0))
        gradients = [ca.densify(ca.gradient(product, x)) if x.numel() else ca.SX(0, 1) for x in inputs]
        names = [*self.names, *(f"adj_{name}" for name in f.name_out())]
        adjoint = ca.Function(
            f"vjp_{f.name()}", [*inputs, *cotangents], gradients, names, [f"grad_{name}" for name in self.names]
        )
        return CompiledFunction(adjoint, self.device, self.dtype)

    def evaluate(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Results without a gradient."""
        rows = [self._rows(name, size, a) for name, size, a in zip(self.names, self.sizes, arguments, strict=True)]
        lengths = {len(a) for n, a in zip(self.sizes, rows, strict=True) if n} or {1}
        size = min(lengths) if 0 in lengths else max(lengths)
        for name, a in zip(self.names, rows, strict=True):
            require(len(a) in (1, size), name, f"have 1 or {size} rows", f"has {len(a)}")
        widest = max((n * m for n, m in self.shapes), default=0)
        require(
            size * max(widest, *self.sizes) < 2**31,
            self.names[0],
            "have fewer than 2³¹ entries in each array",
            f"the batch of {size} needs more",
        )
        results = [torch.empty((size, n * m), dtype=self.dtype, device=self.device) for n, m in self.shapes]
        if size:
            launch(
                self._kernel(tuple(len(a) == 1 for a in rows), size),
                size,
                [*rows, *results],
                self.device,
                self.operations,
            )
        return tuple(r if m == 1 else r.view(size, n, m) for r, (n, m) in zip(results, self.shapes, strict=True))

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Results, recorded for autograd where an argument requires a gradient."""
        if torch.is_grad_enabled() and any(a.requires_grad for a in arguments):
            return _Differentiable.apply(self, *arguments)
        return self.evaluate(*arguments)

    def _kernel(self, shared: tuple[bool, ...], size: int) -> Any:
        """The kernel for inputs of which some have one row for all (in a batch of one, any will do); compiled on first use."""
        if size == 1 and self._kernels:
            return next(iter(self._kernels.values()))
        if shared not in self._kernels:
            source = function_source(self.function, target(self.device, self.dtype), shared)
            self._kernels[shared] = load_module(source, self.device).batched
        return self._kernels[shared]

    def _rows(self, name: str, size: int, argument: Tensor) -> Tensor:
        a = argument.detach()
        require(a.dtype == self.dtype, name, f"have dtype {self.dtype}", f"has {a.dtype}")
        require(a.device == self.device, name, f"be on {self.device}", f"is on {a.device}")
        if a.numel() and (a.dim() != 2 or a.shape[1] != size):
            a = a.reshape(len(a) if a.dim() else 1, -1)
            require(a.shape[1] == size, name, f"have shape (B, {size})", f"has shape {tuple(argument.shape)}")
        return a.contiguous() if size else a.new_empty(1, 0)


class _Differentiable(torch.autograd.Function):
    """Reverse mode through a `CompiledFunction` by its generated adjoint."""

    @staticmethod
    def forward(ctx: Any, compiled: CompiledFunction, *arguments: Tensor) -> tuple[Tensor, ...]:
        ctx.compiled = compiled
        ctx.save_for_backward(*arguments)
        return compiled.evaluate(*arguments)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        arguments = ctx.saved_tensors
        gradients = ctx.compiled.vjp.evaluate(*arguments, *_column_major(cotangents))
        results = []
        for needed, argument, gradient in zip(ctx.needs_input_grad[1:], arguments, gradients, strict=True):
            shared = needed and argument.numel() < gradient.numel()
            total = gradient.sum(0) if shared else gradient
            results.append(total.reshape(argument.shape) if needed else None)
        return (None, *results)


def _column_major(cotangents: tuple[Tensor, ...]) -> list[Tensor]:
    """Kernels read matrices column by column, as CasADi does."""
    return [c.transpose(1, 2).reshape(len(c), -1) if c.dim() == 3 else c for c in cotangents]
