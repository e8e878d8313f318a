"""The sweep of `optctl.solvers.feedback.hjb` in Warp: one launch a stage, over the nodes, on all cores of a CPU or on a GPU.

For every node and control a table holds where the state goes, in units of the grid's spacing, and what it costs; it is made once,
with the problem's generated step, and takes 8 (n_x + 1) bytes for each of them. A stage interpolates the last one's values there
and keeps the least sum. Eight nodes lie side by side in the table: a vector of a CPU, which is one thread's work, or neighbouring
threads of a GPU. Nodes exchange nothing within a stage: their bits do not depend on the number of threads.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
import torch
import warp as wp

from optctl.codegen.cache import load_module
from optctl.codegen.cpp_source import module, with_numbers
from optctl.codegen.function import CompiledFunction
from optctl.codegen.launch import launch, resolve_device, target
from optctl.codegen.warp_source import Target
from optctl.problem import Problem
from optctl.solvers.batched.kernels import text
from optctl.solvers.batched.source import LANE_LOOP
from optctl.solvers.guesses.dynamic_programming import PROHIBITIVE

_WIDTH = 8
"""Nodes side by side in the table."""

_REALS, _INTEGERS = "wp.array(dtype=wp.float64)", "wp.array(dtype=wp.int32)"
_ARGUMENTS = {
    "place": {
        "axes": _REALS,
        "counts": _INTEGERS,
        "wrapped": _INTEGERS,
        "nodes": _REALS,
        "states": _REALS,
        "costs": _REALS,
        "table": _REALS,
        "control": "wp.int64",
        "controls": "wp.int64",
        "num": "wp.int64",
    },
    "stage": {
        "counts": _INTEGERS,
        "table": _REALS,
        "before": _REALS,
        "after": _REALS,
        "controls": "wp.int64",
        "num": "wp.int64",
    },
}
# `axes`: where each begins, then its spacings


def _lanes(name: str, device: str) -> int:
    """Nodes of a thread."""
    return _WIDTH if name == "stage" and device == "cpu" else 1


def source(name: str, n: int, kind: Target) -> str:
    """The module of a kernel, `place` (fills the table for one control) or `stage`, on n axes."""
    lanes = _lanes(name, kind.device)
    numbers = {"N": n, "LANES": lanes, "WIDTH": _WIDTH, "OUTSIDE": PROHIBITIVE}
    body = with_numbers(text(f"hjb_{name}.cpp").replace("<lanes>", LANE_LOOP), numbers)
    title = f"dynamic programming on a grid of {n} states, {name}"
    return module(name, title, _ARGUMENTS[name], [], [body], lanes, kind)


@functools.cache
def _kernel(name: str, n: int, device: torch.device) -> wp.Kernel:
    return getattr(load_module(source(name, n, target(device, torch.float64)), device), name)


def sweep(
    problem: Problem,
    params: np.ndarray,
    controls: np.ndarray,
    low: np.ndarray,
    spacing: np.ndarray,
    counts: np.ndarray,
    wrapped: np.ndarray,
    hold: int,
    device: str | torch.device = "cpu",
) -> np.ndarray:
    """V (stages + 1, ∏ counts), by stages to go, each of them `hold` intervals with one of the `controls` held.

    Args:
        problem: Free of time and constraints.
        params: (1, n_p).
        controls: What is tried (m, n_u).
        low: Where each axis begins (n_x,).
        spacing: Of its nodes.
        counts: How many they are.
        wrapped: Whether the node after the last is the first.
        hold: Intervals.
        device: cpu, cuda or cuda:N.
    """
    where, n, m = resolve_device(device), problem.n_x, len(controls)
    axes = [a + h * np.arange(k) for a, h, k in zip(low, spacing, counts, strict=True)]
    grid = np.stack([g.ravel() for g in np.meshgrid(*axes, indexing="ij")], axis=-1)
    num = len(grid)
    real, integer = (functools.partial(torch.tensor, dtype=kind, device=where) for kind in (torch.float64, torch.int32))
    values = torch.zeros(1 + (problem.steps - 1) // hold, num, dtype=torch.float64, device=where)
    if problem.horizon == "finite":
        end = np.asarray(problem.terminal_cost_function(grid.T, params[0], problem.duration)).ravel()
        values[0] = real(np.where(np.isfinite(end), end, PROHIBITIVE))

    step = CompiledFunction(problem.step_function, where, torch.float64)
    nodes, p, now, shape = real(grid), real(params), real([0.0]), real(np.stack([low, spacing]))
    sizes, turns = integer(counts), integer(wrapped)
    table = values.new_zeros(-(-num // _WIDTH), m, n + 1, _WIDTH)
    for k, u in enumerate(real(controls)):
        x, cost = nodes, values.new_zeros(num, 1)
        for _ in range(hold):
            x, more = step.evaluate(x, u[None], p, now)
            cost += more
        launch(_kernel("place", n, where), num, [shape, sizes, turns, nodes, x, cost, table, k, m, num], where, 20 * n)

    lanes = _lanes("stage", where.type)
    for before, after in itertools.pairwise(values):
        arguments = [sizes, table, before, after, m, num]
        launch(_kernel("stage", n, where), -(-num // lanes), arguments, where, m * lanes * 5 * 2**n)
    return values.cpu().numpy()
