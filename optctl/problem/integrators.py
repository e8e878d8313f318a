"""Symbolic one-step maps: (ẋ = f, running cost l) over one interval h, controls held constant (zero-order hold).

Each scheme advances the state and integrates the cost ∫ l dt with the same stages, so the cost of a trajectory has the same
order of accuracy as the trajectory. `INTEGRATORS` gives each scheme with its order of convergence, which the tests measure.

Source: Hairer, Lubich, Wanner, Geometric Numerical Integration (2006), I.1 and II.1. The exact scheme is in `optctl.problem.exponential`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import casadi as ca

from optctl.problem.exponential import Ranges, Rate, exponential

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


def integrate(
    name: str, rate: Rate, x: ca.SX, t: ca.SX, h: float | ca.SX, substeps: int, ranges: Ranges | None = None
) -> tuple[ca.SX, ca.SX]:
    """`substeps` equal steps of the named scheme over h: (x(t + h), cost). The exponential is built for the `ranges` of its
    symbols, and for any values where none are given."""
    cost = ca.SX(0)
    step = (
        partial(exponential, ranges=ranges and ranges.shortened(substeps))
        if name == "exponential"
        else INTEGRATORS[name].step
    )
    for k in range(substeps):
        x, part = step(rate, x, t + k * h / substeps, h / substeps)
        cost += part
    return x, cost
