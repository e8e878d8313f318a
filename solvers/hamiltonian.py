"""The Hamiltonian H = l + λ'f along a solution of a continuous problem: how far it drifts, and whether the control minimises it.

    u*(t) = argmin_u H(x, u, λ),   dH/dt = ∂H/∂t (autonomous problems: H is constant; where the final time is free too, H + φ_t = 0)

Both are necessary (Pontryagin et al., 1962); Bryson and Ho, Applied Optimal Control (1975), §2.7 and §3.9. A transcription with too
coarse a grid can meet its own first-order conditions and miss these.
"""

from __future__ import annotations

import weakref

import casadi as ca
import numpy as np

from optctl.problem import Problem

EXCESS = 1e-6
"""Largest H(u*) − min H, relative to the terms of H, that is taken for rounding."""


def autonomous(problem: Problem) -> bool:
    """Neither dynamics nor stage cost nor path constraints mention the time."""
    x, u, p, t = problem._x, problem._u, problem._p, problem._t
    functions = (problem.dynamics_function, problem.stage_cost_function, problem.path_constraint_function)
    return not any(ca.depends_on(function(x, u, p, t), t) for function in functions if function is not None)


_BUILT: weakref.WeakKeyDictionary[Problem, ca.Function] = weakref.WeakKeyDictionary()


def hamiltonian(problem: Problem) -> ca.Function:
    """(x, u, λ, p, t) → H, |l| + Σ|λ_i f_i|, H_u."""
    if problem not in _BUILT:
        x, u, p, t = problem._x, problem._u, problem._p, problem._t
        costate = ca.SX.sym("costate", problem.n_x)
        assert problem.dynamics_function is not None  # not discrete
        f, cost = problem.dynamics_function(x, u, p, t), problem.stage_cost_function(x, u, p, t)
        h = cost + ca.dot(costate, f)
        size = ca.fabs(cost) + ca.sum1(ca.fabs(costate * f))
        _BUILT[problem] = ca.Function("hamiltonian", [x, u, costate, p, t], [ca.densify(v) for v in (h, size, ca.gradient(h, u))])
    return _BUILT[problem]
