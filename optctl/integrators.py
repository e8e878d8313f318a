"""Symbolic one-step maps: (ẋ = f, running cost l) over one interval h, controls held constant (zero-order hold).

Each scheme advances the state and integrates the cost ∫ l dt with the same stages, so the cost of a trajectory has the same
order of accuracy as the trajectory. `INTEGRATORS` gives each scheme with its order of convergence, which the tests measure.

Sources: Hairer, Lubich, Wanner, Geometric Numerical Integration (2006), I.1 and II.1; Al-Mohy and Higham, SIAM J. Sci. Comput.
33 (2011) 488 for the Taylor evaluation of the action of the matrix exponential.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import casadi as ca
import numpy as np

Rate = Callable[[ca.SX, ca.SX], tuple[ca.SX, ca.SX]]
"""(x, t) -> (ẋ, l), with the control and the parameters already fixed."""
Step = Callable[[Rate, ca.SX, ca.SX, float | ca.SX], tuple[ca.SX, ca.SX]]
"""(rate, x, t, h) -> (x(t + h), ∫ l dt)."""


@dataclass(frozen=True)
class Integrator:
    """One scheme: its one-step map and its order (`inf`: exact for the systems it accepts)."""

    name: str
    step: Step
    order: float
    description: str


def euler(rate: Rate, x: ca.SX, t: ca.SX, h: float | ca.SX) -> tuple[ca.SX, ca.SX]:
    """x⁺ = x + h f(x)."""
    f, cost = rate(x, t)
    return x + h * f, h * cost


def symplectic_euler(rate: Rate, x: ca.SX, t: ca.SX, h: float | ca.SX) -> tuple[ca.SX, ca.SX]:
    """v⁺ = v + h a(q, v), q⁺ = q + h v⁺ for x = (q, v): positions in the first half of the state, velocities in the second.

    Symplectic where a does not depend on v. The cost is taken at the start of the step.
    """
    n = x.numel()
    if n % 2:
        raise ValueError(
            f"The symplectic Euler scheme needs a state (q, v) of even size, but the state has {n} entries."
        )
    f, cost = rate(x, t)
    half = ca.vertcat(x[: n // 2], x[n // 2 :] + h * f[n // 2 :])
    drift, _ = rate(half, t)
    return ca.vertcat(x[: n // 2] + h * drift[: n // 2], half[n // 2 :]), h * cost


def midpoint(rate: Rate, x: ca.SX, t: ca.SX, h: float | ca.SX) -> tuple[ca.SX, ca.SX]:
    """Explicit midpoint rule: x⁺ = x + h f(x + ½ h f(x))."""
    f, _ = rate(x, t)
    f, cost = rate(x + 0.5 * h * f, t + 0.5 * h)
    return x + h * f, h * cost


def rk4(rate: Rate, x: ca.SX, t: ca.SX, h: float | ca.SX) -> tuple[ca.SX, ca.SX]:
    """The classical Runge–Kutta scheme of order four."""
    f1, l1 = rate(x, t)
    f2, l2 = rate(x + 0.5 * h * f1, t + 0.5 * h)
    f3, l3 = rate(x + 0.5 * h * f2, t + 0.5 * h)
    f4, l4 = rate(x + h * f3, t + h)
    return x + h / 6 * (f1 + 2 * f2 + 2 * f3 + f4), h / 6 * (l1 + 2 * l2 + 2 * l3 + l4)


_TAYLOR_DEGREE = 18  # 1/19! = 8e-18: below float64 rounding while the norm of h A is at most one
_GAUSS_NODES, _GAUSS_WEIGHTS = np.polynomial.legendre.leggauss(5)


def exponential(rate: Rate, x: ca.SX, t: ca.SX, h: float | ca.SX) -> tuple[ca.SX, ca.SX]:
    """x(t + h) = exp(h A) x + ∫ exp(s A) ds b for ẋ = A x + b with A and b constant over the step.

    That covers linear systems and bilinear ones (quantum: A depends on the control). The exponential acts through its Taylor
    polynomial of degree 18, exact to float64 rounding while ‖h A‖ ≤ 1: choose `substeps` so. The cost is integrated along the
    exact solution by Gauss–Legendre quadrature with five nodes (order 10; exact for costs quadratic in x up to that order).
    """
    symbol, clock = ca.SX.sym("x", x.numel()), ca.SX.sym("t")
    affine, _ = rate(symbol, clock)
    a = ca.jacobian(affine, symbol)
    if ca.depends_on(ca.vec(a), symbol) or ca.depends_on(affine, clock):
        raise ValueError("The exponential integrator needs dynamics that are affine in the state and free of time.")
    terms = [x, h * rate(x, t)[0]]  # h^k x^(k) / k!
    for k in range(2, _TAYLOR_DEGREE + 1):
        terms.append(h / k * (a @ terms[-1]))

    def at(fraction: float) -> ca.SX:
        value = terms[-1]
        for term in reversed(terms[:-1]):
            value = value * fraction + term
        return value

    cost = ca.SX(0)
    for node, weight in zip(_GAUSS_NODES, _GAUSS_WEIGHTS, strict=True):
        fraction = float(0.5 * (node + 1))
        cost += 0.5 * float(weight) * h * rate(at(fraction), t + fraction * h)[1]
    return at(1.0), cost


INTEGRATORS = {
    scheme.name: scheme
    for scheme in (
        Integrator("euler", euler, 1, "explicit Euler"),
        Integrator("symplectic_euler", symplectic_euler, 1, "symplectic (semi-implicit) Euler on (q, v)"),
        Integrator("midpoint", midpoint, 2, "explicit midpoint"),
        Integrator("rk4", rk4, 4, "classical Runge-Kutta"),
        Integrator("exponential", exponential, float("inf"), "exact propagator of linear and bilinear systems"),
    )
}


def integrate(name: str, rate: Rate, x: ca.SX, t: ca.SX, h: float | ca.SX, substeps: int) -> tuple[ca.SX, ca.SX]:
    """`substeps` equal steps of the named scheme over h: (x(t + h), cost)."""
    cost = ca.SX(0)
    step = INTEGRATORS[name].step
    for k in range(substeps):
        x, part = step(rate, x, t + k * h / substeps, h / substeps)
        cost += part
    return x, cost
