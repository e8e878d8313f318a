"""Evaluate one CasADi function on a batch, batch axis first, on all cores, without copies or pickling.

A CasADi matrix is column-major, so a numpy array (B, columns, rows) is exactly the horizontal stack that `Function.map(B)`
reads. The batch goes through in chunks of a few fixed sizes, so that maps are built once; a member's bits do not depend on its
neighbours. Threads are CasADi's own: they live for one call, so they neither disturb a later fork nor other libraries.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import casadi as ca
import numpy as np

_CHUNKS = (1, 2, 4, 8, 16, 32, 64, 1024)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Batched:
    """`Batched(function)(a, b, …)`: arrays (B, columns, rows) or (B, rows) in, arrays (B, columns, rows) out.

    An input of first size 1 is repeated over the batch. Outputs with one column come back as (B, rows), but for
    those among `sequences` (their numbers), which are (B, columns, rows) always.
    """

    def __init__(self, function: ca.Function, threads: int | None = None, sequences: Sequence[int] = ()) -> None:
        if any(function.nnz_out(i) != function.numel_out(i) for i in range(function.n_out())):
            inputs = function.mx_in()  # a buffer holds the nonzeros only: structural zeros would shift what follows
            outputs = function.call(inputs)
            function = ca.Function(function.name(), inputs, [ca.densify(output) for output in outputs])
        self.function, self.sequences = function, sequences
        self.threads = cores() if threads is None else threads
        self._maps: dict[int, ca.Function] = {}

    def _map(self, size: int) -> ca.Function:
        if size not in self._maps:
            threaded = self.threads > 1 and size >= 2
            self._maps[size] = self.function.map(size, "thread", self.threads) if threaded else self.function.map(size)
        return self._maps[size]

    def __call__(self, *arguments: np.ndarray) -> list[np.ndarray]:
        f = self.function
        num = max(np.shape(a)[0] for a in arguments)
        inputs = []
        for i, a in enumerate(arguments):
            rows, columns = f.size_in(i)
            array = np.asarray(a, dtype=np.float64).reshape(np.shape(a)[0], columns * rows)
            if len(array) == 1:
                array = np.broadcast_to(array, (num, columns * rows))
            inputs.append(np.ascontiguousarray(array))
        outputs = [np.zeros((num, f.size2_out(i) * f.size1_out(i))) for i in range(f.n_out())]
        start = 0
        while start < num:
            size = next(c for c in reversed(_CHUNKS) if c <= num - start)
            buffer, evaluate = self._map(size).buffer()  # CasADi's stubs show the C signature of set_arg
            for i, a in enumerate(inputs):
                buffer.set_arg(i, memoryview(a[start : start + size]))  # type: ignore[call-arg,arg-type]
            for i, a in enumerate(outputs):
                buffer.set_res(i, memoryview(a[start : start + size]))  # type: ignore[call-arg,arg-type]
            evaluate()
            start += size
        shapes = [f.size_out(i) for i in range(f.n_out())]
        return [
            a.reshape((num, rows) if columns == 1 and i not in self.sequences else (num, columns, rows))
            for i, (a, (rows, columns)) in enumerate(zip(outputs, shapes, strict=True))
        ]
