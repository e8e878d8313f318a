"""Who sweeps: CasADi on the host, tiles for larger systems, or one kernel for the whole solve.

Kernels are worth their compilation for many or difficult problems. Warp is loaded only where something that needs it is chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from optctl.codegen.program import TranslationError
from optctl.problem import Problem
from optctl.solvers.methods import ddp
from optctl.solvers.methods.ddp import DdpResult, Engine
from optctl.solvers.methods.sweeps import Sweeps, sweeps

UNROLLED = 16
"""States up to which the linear algebra of a stage is unrolled (`sweeps.py`, `batched/ddp.py`); beyond, tiles (`batched/tiles.py`)."""


def bundle(problem: Problem, steps: int | None = None) -> Sweeps:
    """The sweeps that suit the number of states."""
    if problem.n_x <= UNROLLED:
        return sweeps(problem, steps)
    from optctl.solvers.batched import tiles  # loads warp

    return tiles.sweeps(problem, steps) if tiles.fits(problem) else sweeps(problem, steps)


def kernel_of(problem: Problem) -> Callable[..., DdpResult] | None:
    """The solver whose kernel does a whole solve, compiled; `None` for a problem that cannot be translated."""
    from optctl.solvers.batched import ddp as batched  # loads warp

    try:
        batched.kernel(problem)
    except TranslationError:
        return None
    return batched.solve_ddp


def solve_on_host(
    problem: Problem, states: np.ndarray, controls: np.ndarray, params: np.ndarray, **options: Any
) -> DdpResult:
    """`methods.ddp.solve_ddp` with the sweeps of `bundle`."""
    return ddp.solve_ddp(problem, states, controls, params, bundle=bundle, **options)


def solve_by_kernel(
    problem: Problem,
    states: np.ndarray,
    controls: np.ndarray,
    params: np.ndarray,
    *,
    follow: bool = False,
    **options: Any,
) -> DdpResult:
    """`batched.ddp.solve_ddp`. The host solves the members that are left with gaps or without numbers, problems without a kernel, and
    systems of more than `UNROLLED` states."""
    solve = kernel_of(problem) if problem.n_x <= UNROLLED else None
    if solve is None:
        return solve_on_host(problem, states, controls, params, follow=follow, **options)
    found = solve(problem, states, controls, params, follow=follow, **options)
    lost = np.flatnonzero(~np.isfinite(found.gradient) | ~np.isfinite(found.value))
    if len(lost):
        p = params if len(params) == 1 else params[lost]
        again = solve_on_host(problem, states[lost], controls[lost], p, follow=follow, **options)
        for name, array in found.__dict__.items():
            array[lost] = again.__dict__[name]
    return found


def engine(kernels: bool) -> Engine:
    """With `kernels` those where there are some, otherwise the host."""
    return Engine(kernels, solve_by_kernel if kernels else solve_on_host, bundle, kernel_of)
