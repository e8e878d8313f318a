"""A `casadi.Function` as a straight-line program: a list of scalar instructions in single-assignment form.

The function is expanded to scalars (SX), common subexpressions are merged, and CasADi's own instruction list is walked; each
work-vector slot that CasADi reuses becomes a value of its own, and instructions that no output needs are dropped. Sparse
outputs are made dense: a structural zero is the constant 0. Entries of a matrix are in column-major order, as in CasADi.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import casadi as ca

from optctl.errors import ProblemError

OPERATION = {
    code: name.removeprefix("OP_").lower()
    for name, code in vars(ca).items()
    if name.startswith("OP_") and isinstance(code, int)
}
"""CasADi's operation codes by name: {1: "add", ...}."""

BINARY = (
    "add",
    "sub",
    "mul",
    "div",
    "pow",
    "constpow",
    "lt",
    "le",
    "eq",
    "ne",
    "and",
    "or",
    "fmod",
    "copysign",
    "if_else_zero",
    "fmin",
    "fmax",
    "atan2",
    "hypot",
    "remainder",
)
UNARY = (
    "assign",
    "neg",
    "exp",
    "log",
    "sqrt",
    "sq",
    "twice",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "not",
    "floor",
    "ceil",
    "fabs",
    "sign",
    "erf",
    "inv",
    "sinh",
    "cosh",
    "tanh",
    "asinh",
    "acosh",
    "atanh",
    "erfinv",
    "log1p",
    "expm1",
)
ARITY = dict.fromkeys(BINARY, 2) | dict.fromkeys(UNARY, 1) | {"lift": 1}
"""The operations that have a translation, with the number of their arguments (`lift` is the identity on its first)."""


_INSTEAD = (
    "Rewrite it with elementary operations: a table (`interpolant`) as `casadi.pw_lin` or `casadi.pw_const`, the solution of an "
    "equation (`rootfinder`) as a fixed number of Newton steps."
)


class TranslationError(ProblemError):
    """A function contains an operation that no kernel can compute."""


@dataclass(frozen=True)
class Instruction:
    """Value k of the program: `operation(*arguments)`, an entry of an input, or a constant."""

    operation: str
    arguments: tuple[int, ...] = ()
    """Indices of earlier values; for "input": (input, entry)."""
    constant: float = 0.0


@dataclass(frozen=True)
class Program:
    """Straight-line code of one function; `outputs[j][k]` is the value that holds entry k of output j."""

    name: str
    input_names: tuple[str, ...]
    input_sizes: tuple[int, ...]
    output_names: tuple[str, ...]
    output_shapes: tuple[tuple[int, int], ...]
    instructions: tuple[Instruction, ...]
    outputs: tuple[tuple[int, ...], ...]

    @property
    def operations(self) -> int:
        """Number of arithmetic operations."""
        return sum(instruction.operation not in ("input", "const") for instruction in self.instructions)

    def work(self, weights: Mapping[str, int]) -> int:
        """Number of arithmetic operations, each counted by its weight (default 1)."""
        return sum(weights.get(k.operation, 1) for k in self.instructions if k.operation not in ("input", "const"))

    def depends_on(self, name: str) -> bool:
        """Whether any output needs the input `name`."""
        j = self.input_names.index(name)
        return any(k.operation == "input" and k.arguments[0] == j for k in self.instructions)


def build_program(function: ca.Function) -> Program:
    """The program of a CasADi function (MX functions are expanded)."""
    scalar = _expand(function)
    values: list[Instruction] = []
    slots: dict[int, int] = {}  # work-vector slot -> the value it holds now
    stored: dict[tuple[int, int], int] = {}  # (output, nonzero) -> value
    untranslated: dict[int, str] = {}

    def append(instruction: Instruction) -> int:
        values.append(instruction)
        return len(values) - 1

    for k in range(scalar.n_instructions()):
        operation = OPERATION.get(scalar.instruction_id(k), f"number {scalar.instruction_id(k)}")
        if operation == "output":
            (source,), (j, nonzero) = scalar.instruction_input(k), scalar.instruction_output(k)
            stored[j, nonzero] = slots[source]
            continue
        targets = scalar.instruction_output(k)
        if operation == "const":
            new = append(Instruction("const", constant=scalar.instruction_constant(k)))
        elif operation == "input":
            new = append(Instruction("input", tuple(scalar.instruction_input(k))))
        else:
            arguments = tuple(slots[s] for s in scalar.instruction_input(k) if s >= 0)
            arity = ARITY.get(operation)
            new = append(Instruction(operation, arguments if arity is None else arguments[:arity]))
            if arity is None:
                untranslated[new] = operation
        for target in targets:
            slots[target] = new

    outputs = []
    for j in range(scalar.n_out()):
        rows, columns = scalar.size_out(j)
        nonzeros = {r + rows * c: k for k, (r, c) in enumerate(zip(*scalar.sparsity_out(j).get_triplet(), strict=True))}
        entries = []
        for entry in range(rows * columns):
            known = entry in nonzeros and (j, nonzeros[entry]) in stored
            entries.append(stored[j, nonzeros[entry]] if known else append(Instruction("const")))
        outputs.append(tuple(entries))

    needed = [_reachable(values, entries) for entries in outputs]
    for j, reached in enumerate(needed):
        for k in sorted(reached & untranslated.keys()):
            raise TranslationError(
                f"Function `{function.name()}` cannot be compiled: its output `{scalar.name_out(j)}` needs the CasADi "
                f"operation `{untranslated[k]}`, which has no translation. {_INSTEAD}"
            )
    return _compact(scalar, values, tuple(outputs), set().union(*needed) if needed else set())


def _expand(function: ca.Function) -> ca.Function:
    name = function.name()
    free = function.get_free() if hasattr(function, "get_free") else []
    if free:
        raise TranslationError(f"Function `{name}` cannot be compiled: it uses the free symbol {', '.join(free)}.")
    try:
        inputs = [ca.SX.sym(function.name_in(i), *function.size_in(i)) for i in range(function.n_in())]
        outputs = function.expand().call(inputs)
        outputs = ca.cse(outputs)
        return ca.Function(name, inputs, outputs, function.name_in(), function.name_out())
    except RuntimeError as error:
        detail = str(error).strip().splitlines()[-1]
        raise TranslationError(
            f"Function `{name}` cannot be compiled: its outputs {', '.join(f'`{n}`' for n in function.name_out())} do not "
            f"expand to scalar operations ({detail}). {_INSTEAD}"
        ) from error


def _reachable(values: list[Instruction], entries: tuple[int, ...]) -> set[int]:
    reached: set[int] = set()
    stack = list(entries)
    while stack:
        k = stack.pop()
        if k not in reached:
            reached.add(k)
            if values[k].operation != "input":
                stack.extend(values[k].arguments)
    return reached


def _compact(
    scalar: ca.Function, values: list[Instruction], outputs: tuple[tuple[int, ...], ...], needed: set[int]
) -> Program:
    """Drop what no output needs and renumber."""
    order = sorted(needed)
    new = {old: k for k, old in enumerate(order)}
    instructions = []
    for old in order:
        value = values[old]
        arguments = value.arguments if value.operation == "input" else tuple(new[a] for a in value.arguments)
        instructions.append(Instruction(value.operation, arguments, value.constant))
    return Program(
        name=scalar.name(),
        input_names=tuple(scalar.name_in()),
        input_sizes=tuple(scalar.numel_in(i) for i in range(scalar.n_in())),
        output_names=tuple(scalar.name_out()),
        output_shapes=tuple(scalar.size_out(j) for j in range(scalar.n_out())),
        instructions=tuple(instructions),
        outputs=tuple(tuple(new[k] for k in entries) for entries in outputs),
    )
