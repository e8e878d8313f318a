"""Data that hold over an interval: prices, weather, a schedule. Dynamics, costs and constraints read them as `p.<name>`.

A value jumps at the ends of its interval. A scheme with a stage at the end of a step (RK4) or a quadrature with a node there (Radau)
would read the next value at that stage. So whatever integrates over an interval reads at its middle: `hold` gives the
function of the moment at which it reads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import casadi as ca
import numpy as np

from optctl.errors import require


@dataclass(frozen=True, eq=False)
class Held:
    """`values[k]` for k · interval ≤ t < (k + 1) · interval, the last one ever after."""

    values: tuple[float, ...]
    interval: float
    """[s]."""

    @classmethod
    def of(cls, name: str, values: Sequence[float] | Held, interval: float) -> Held:
        """What a `Problem` was given; plain numbers hold for its `dt`."""
        if isinstance(values, Held):
            return values
        try:
            numbers = np.asarray(values, dtype=float)
        except (TypeError, ValueError):
            numbers = np.array(np.nan)
        require(
            numbers.ndim == 1 and numbers.size > 0 and bool(np.isfinite(numbers).all()),
            "data",
            f"be sequences of finite numbers, one for each interval (`{name}`)",
            f"is {values!r}",
        )
        return cls(tuple(numbers.tolist()), float(interval))

    @property
    def duration(self) -> float:
        """How far the data go [s]."""
        return len(self.values) * self.interval

    def at(self, t: ca.SX, early: float) -> ca.SX | float:
        """The value at the time t, read by the fraction `early` of an interval too soon: t = k · interval is rounded."""
        k, last = ca.floor(t / self.interval + early), len(self.values) - 1
        if not last:
            return self.values[0]
        within = [k <= 0, *(k == i for i in range(1, last)), k >= last]
        return sum((value * here for value, here in zip(self.values, within, strict=True) if value), ca.SX(0))


def hold(function: ca.Function) -> ca.Function:
    """(x, u, p, t, s): the outputs of `function`(x, u, p, t), where every `floor` of the time alone reads s instead of t.

    Raises ValueError where there is one beside an operation that cannot be written anew, such as a table.
    """
    inputs, moment = function.sx_in(), ca.SX.sym("s")
    clocks = _clocks(function)
    if not any(clocks):
        return ca.Function("held", [*inputs, moment], list(function.call(inputs)))
    slots: dict[int, tuple[ca.SX, ca.SX]] = {}  # at t, and at s
    entries: dict[tuple[int, int], ca.SX] = {}
    for k in range(function.n_instructions()):
        operation, sources, targets = (
            function.instruction_id(k),
            function.instruction_input(k),
            function.instruction_output(k),
        )
        if operation == ca.OP_OUTPUT:
            entries[targets[0], targets[1]] = slots[sources[0]][0]
            continue
        if operation == ca.OP_CONST:
            now = then = ca.SX(function.instruction_constant(k))
        elif operation == ca.OP_INPUT:
            now = inputs[sources[0]].nz[sources[1]]
            then = moment if sources[0] == _TIME else now
        elif len(sources) == 1:
            now, then = (ca.SX.unary(operation, slots[sources[0]][i]) for i in (0, 1))
        elif len(sources) == 2 and operation != ca.OP_CALL:
            now, then = (ca.SX.binary(operation, slots[sources[0]][i], slots[sources[1]][i]) for i in (0, 1))
        else:
            raise ValueError(
                "Data that hold over an interval cannot stand beside a table or another function that is called."
            )
        if clocks[k]:
            now = then
        for target in targets:
            slots[target] = now, then
    outputs = []
    for j in range(function.n_out()):
        pattern = function.sparsity_out(j)
        outputs.append(ca.SX(pattern, ca.vertcat(*(entries[j, i] for i in range(pattern.nnz())))))
    return ca.Function("held", [*inputs, moment], outputs)


_TIME = 3
"""The place of t among the inputs."""


def dependence(function: ca.Function, inputs: Collection[int]) -> Iterator[tuple[int, list[bool]]]:
    """Of every instruction its operation, and of each argument whether it depends on one of the `inputs`."""
    slots: dict[int, bool] = {}
    for k in range(function.n_instructions()):
        operation, sources = function.instruction_id(k), function.instruction_input(k)
        known = [sources[0] in inputs] if operation == ca.OP_INPUT else [slots.get(source, False) for source in sources]
        yield operation, known
        if operation != ca.OP_OUTPUT:
            slots.update(dict.fromkeys(function.instruction_output(k), any(known)))


def _clocks(function: ca.Function) -> list[bool]:
    """Of every instruction, whether it is the floor of the time alone."""
    timed, moved = dependence(function, {_TIME}), dependence(function, {0, 1})
    return [op == ca.OP_FLOOR and any(a) and not any(b) for (op, a), (_, b) in zip(timed, moved, strict=True)]
