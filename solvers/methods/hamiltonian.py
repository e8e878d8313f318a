"""The Hamiltonian H = l + λ'f along a solution of a continuous problem: how far it drifts, and whether the control minimises it.

    u*(t) = argmin_u H(x, u, λ),   dH/dt = ∂H/∂t (autonomous problems: H is constant; where the final time is free too, H + φ_t = 0)

Both are necessary (Pontryagin et al., 1962); Bryson and Ho, Applied Optimal Control (1975), §2.7 and §3.9. A transcription with too
coarse a grid can meet its own first-order conditions and miss these.
"""

from __future__ import annotations

import itertools

import casadi as ca
import numpy as np

from optctl.problem import Problem
from optctl.shared import kept

EXCESS = 1e-6
"""Largest H(u*) − min H, relative to the terms of H, that is taken for rounding."""


@kept
def hamiltonian(problem: Problem) -> ca.Function:
    """(x, u, λ, p, t) → H, |l| + Σ|λ_i f_i|, H_u."""
    x, u, p, t = problem.x, problem.u, problem.p, problem.t
    costate = ca.SX.sym("costate", problem.n_x)
    assert problem.dynamics_function is not None  # not discrete
    f, cost = problem.dynamics_function(x, u, p, t), problem.stage_cost_function(x, u, p, t)
    h = cost + ca.dot(costate, f)
    size = ca.fabs(cost) + ca.sum1(ca.fabs(costate * f))
    outputs = [ca.densify(v) for v in (h, size, ca.gradient(h, u))]
    return ca.Function("hamiltonian", [x, u, costate, p, t], outputs)


_FRACTIONS = {1: 21, 2: 5, 3: 3}
"""Points per control of a grid over all of them; with more controls, five along each alone."""


@kept
def excess(problem: Problem) -> ca.Function:
    """(x, u, λ, p, t) → H(u) − min H over u and a grid of controls: over their bounds, both included, or where there is none at least half
    a turn about u. Positive where u does not minimise H."""
    n_u, names = problem.n_u, ("x", "u", "costate", "p", "t")
    sizes = (problem.n_x, n_u, problem.n_x, problem.n_p, 1)
    x, u, costate, p, t = symbols = [ca.SX.sym(name, m) for name, m in zip(names, sizes, strict=True)]
    chosen = lambda v: hamiltonian(problem)(x, v, costate, p, t)[0]
    side = lambda bound, reach: [ca.SX(float(b)) if np.isfinite(b) else reach(i) for i, b in enumerate(bound)]
    low = side(problem.control_low, lambda i: ca.fmin(float(problem.action_low[i]), u[i] - np.pi))
    high = side(problem.control_high, lambda i: ca.fmax(float(problem.action_high[i]), u[i] + np.pi))
    points = lambda i, num: [low[i] + f * (high[i] - low[i]) for f in np.linspace(0, 1, num)]
    if n_u in _FRACTIONS:
        grid = [ca.vertcat(*row) for row in itertools.product(*(points(i, _FRACTIONS[n_u]) for i in range(n_u)))]
    else:
        grid = [ca.vertcat(u[:i], v, u[i + 1 :]) for i in range(n_u) for v in points(i, 5)]
    least = chosen(u)
    for v in grid:
        least = ca.fmin(least, chosen(v))
    return ca.Function("excess", symbols, [chosen(u) - least])
