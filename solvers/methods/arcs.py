"""Arcs of extremals: controls, costates and multipliers while given bounds are active.

    H = l + λ'f, every control is at its lower or upper bound, or free:
    regular free controls    u = argmin H
    singular free control    u from d²H_u/dt² = 0
    S(x, u) ≤ 0 active       a bound on a state or a path constraint, of order q: S^(q) is the first derivative that mentions u;
                             u = argmin H subject to S^(q) = 0,   H_u + S^(q)_u'μ = 0,   λ̇ = −H_x − S^(q)_x'μ

This λ adjoins S^(q); the one that adjoins S, λ̇ = −H_x − S_x'ν with ν ≥ 0, is the gradient of the optimal cost. Both agree off the
bound, and on it the latter is λ + Σ_{j<q} (−1)^j μ^(j) S^(q−1−j)_x with ν = (−1)^q μ^(q).
Assumptions: the problem is autonomous, singular arcs are of order one and off the bounds. Sources: Bryson and Ho, Applied Optimal
Control (1975), §3.9 to §3.11 and §8.3; Hartl, Sethi, Vickson, SIAM Review 37 (1995) 181.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import casadi as ca
import numpy as np

from optctl.problem import Problem
from optctl.shared import kept
from optctl.solvers.methods.pontryagin import descended, minimiser, spread

Mode = tuple[str, ...]
"""Per control "low", "high" or "free"; then the names of the active bounds."""


class Unsupported(Exception):
    """An arc for which there is no formula here."""


@dataclass(frozen=True, eq=False)
class Bound:
    """S(x, u, p) ≤ 0: one side of a state's bounds, or a component of the path constraints."""

    name: str
    value: ca.Function
    """(x, u, p) → S."""
    chain: ca.SX
    """S, …, S^(q−1) in the problem's x and p; empty where S depends on a control (q = 0)."""
    top: ca.SX | None
    """S^(q) in the problem's x, u and p; `None` where no derivative depends on a control: nothing can be done about such a bound."""

    @property
    def order(self) -> int:
        return self.chain.numel()


@dataclass(frozen=True)
class Arc:
    """Generated functions of one kind of arc."""

    mode: Mode
    flow: ca.Function
    """(y, p, t) → ẏ, y = (x, λ, cost)."""
    jacobian: ca.Function
    """(y, p, t) → ∂ẏ/∂(x, λ)."""
    control: ca.Function
    """(x, λ, p) → u."""
    slopes: ca.Function
    """(x, λ, p) → H_u + S^(q)_u'μ and its rate (all controls, at this arc's control)."""
    hamiltonian: ca.Function
    """(x, λ, p) → H."""
    lagrangian: ca.Function
    """(x, λ, u, p) → H + Σ_{q > 0} μ S^(q), which the arc's control minimises over all that are admissible."""
    costate: ca.Function
    """(x, λ, p) → the gradient of the optimal cost."""
    multiplier: ca.Function
    """(x, λ, p) → ν, one per active bound."""
    bounds: tuple[Bound, ...]
    singular: bool
    regular: bool
    """H is curved in every control that the active bounds mention: then controls are continuous where bounds begin and end."""

    @property
    def label(self) -> str:
        controls = self.mode[: len(self.mode) - len(self.bounds)]
        if self.bounds and set(controls) == {"free"}:
            return ", ".join(b.name for b in self.bounds)
        return ", ".join("singular" if m == "free" and self.singular else m for m in self.mode)


@kept
def bounds(problem: Problem) -> dict[str, Bound]:
    """All bounds on states and components of the path constraints by name: "x0 low", "x0 high", "path 0"."""
    x, found = problem.x, {}
    for i, name in enumerate(problem.state):
        for side, limit, sign in (("low", problem.state_low[i], -1.0), ("high", problem.state_high[i], 1.0)):
            if np.isfinite(limit):
                found[f"{name} {side}"] = sign * (x[i] - float(limit))
    if problem.path_constraint_function is not None:
        c = ca.densify(problem.path_constraint_function(x, problem.u, problem.p, 0.0))
        found |= {f"path {i}": c[i] for i in range(c.numel())}
    return {name: _bound(problem, name, value) for name, value in found.items()}


def _bound(problem: Problem, name: str, value: ca.SX) -> Bound:
    x, u, p = problem.x, problem.u, problem.p
    assert problem.dynamics_function is not None  # not discrete
    f, top, chain = problem.dynamics_function(x, u, p, 0.0), value, ca.SX(0, 1)
    while _vanishes(ca.jacobian(top, u)):
        if chain.numel() == problem.n_x:
            return Bound(name, ca.Function("bound", [x, u, p], [value]), chain, None)
        chain = ca.vertcat(chain, ca.substitute(top, u, ca.SX.zeros(u.numel())))
        top = ca.jtimes(chain[-1], x, f)
    return Bound(name, ca.Function("bound", [x, u, p], [value]), chain, top)


@kept
def arc(problem: Problem, mode: Mode, normal: bool = True) -> Arc:
    """The functions of one kind of arc, built once; H without the cost where the extremal is not `normal`."""
    n, x, u, p, t = problem.n_x, problem.x, problem.u, problem.p, problem.t
    assert problem.dynamics_function is not None  # not discrete
    lam = ca.SX.sym("costate", n)
    f, cost = problem.dynamics_function(x, u, p, 0.0), problem.stage_cost_function(x, u, p, 0.0)
    h = normal * cost + ca.dot(lam, f)
    h_u, h_x = ca.densify(ca.gradient(h, u)), ca.gradient(h, x)
    active = tuple(bounds(problem)[name] for name in mode[problem.n_u :])
    fixed = {"low": problem.control_low, "high": problem.control_high}
    held = ca.vertcat(*[u[i] if m == "free" else float(fixed[m][i]) for i, m in enumerate(mode[: problem.n_u])])
    free = [i for i in range(problem.n_u) if mode[i] == "free"]
    mu, tops, singular, regular = ca.SX(0, 1), ca.SX(0, 1), False, True
    if active:
        tops = highest(active)
        slopes = ca.densify(ca.jacobian(tops, u))
        best, mu = _on_the_bounds(problem, held, free, h, tops)
        h_u, h_x = h_u + slopes.T @ mu, h_x + ca.jacobian(tops, x).T @ mu
        curvature = ca.densify(ca.hessian(h, u)[0])
        regular = all(_vanishes(slopes[:, i]) or not _vanishes(curvature[i, i]) for i in range(problem.n_u))
    else:
        best, singular = _control(problem, held, free, h, f, h_x, h_u, lam)
    put = lambda e: ca.substitute(e, u, best)
    total = lambda e: ca.jtimes(e, x, f) - ca.jtimes(e, lam, h_x)
    mu, gradient, nu = put(mu), lam, ca.SX(0, 1)
    lagrangian = h + sum((mu[i] * tops[i] for i, b in enumerate(active) if b.order), ca.SX(0))
    for i, bound in enumerate(active):
        rate = mu[i]
        for derivative in reversed(ca.vertsplit(bound.chain)):
            gradient, rate = gradient + rate * ca.gradient(derivative, x), -put(total(rate))
        nu = ca.vertcat(nu, rate)
    y = ca.SX.sym("y", 2 * n + 1)
    out = ca.substitute(ca.substitute(put(ca.vertcat(f, -h_x, cost)), x, y[:n]), lam, y[n : 2 * n])
    return Arc(
        mode=mode,
        flow=ca.Function("flow", [y, p, t], [ca.densify(out)]),
        jacobian=ca.Function("flow_jacobian", [y, p, t], [ca.densify(ca.jacobian(out, y[: 2 * n])[: 2 * n, :])]),
        control=ca.Function("control", [x, lam, p], [ca.densify(best)]),
        slopes=ca.Function("slopes", [x, lam, p], [put(h_u), ca.densify(put(total(h_u)))]),
        hamiltonian=ca.Function("hamiltonian", [x, lam, p], [put(h)]),
        lagrangian=ca.Function("lagrangian", [x, lam, u, p], [lagrangian]),
        costate=ca.Function("costate", [x, lam, p], [ca.densify(gradient)]),
        multiplier=ca.Function("multiplier", [x, lam, p], [ca.densify(nu)]),
        bounds=active,
        singular=singular,
        regular=regular,
    )


def _control(problem, held, free, h, f, h_x, h_u, lam) -> tuple[ca.SX, bool]:
    """u on an arc where every control is at a bound (as in `held`) or free, and whether the free one is singular."""
    x, u = problem.x, problem.u
    if not free:
        return held, False
    at = lambda e: ca.substitute(e, u, held)
    v = u[free]
    slope = at(h_u)[free]
    curvature = ca.densify(ca.jacobian(slope, v))
    if _vanishes(curvature):
        if len(free) > 1:
            raise Unsupported("two controls singular at once")
        rate = lambda e: ca.jtimes(e, x, at(f)) - ca.jtimes(e, lam, at(h_x))
        first = rate(slope)
        second = rate(ca.substitute(first, v, ca.SX(0)))
        gain = ca.jacobian(second, v)
        if not _vanishes(ca.jacobian(first, v)) or _vanishes(gain) or not _vanishes(ca.jacobian(gain, v)):
            raise Unsupported("a singular arc of an order other than one")
        value = ca.substitute(-second, v, ca.SX(0)) / ca.substitute(gain, v, ca.SX(0))
        return ca.substitute(held, v, value), True
    low, high = problem.control_low[free], problem.control_high[free]
    if _vanishes(ca.jacobian(curvature, v)):  # quadratic: off the bounds, which are checked afterwards
        low, high = np.full(len(free), -np.inf), np.full(len(free), np.inf)
    value = minimiser(at(h), v, low, high)
    return ca.substitute(held, v, value), False


def highest(active: Iterable[Bound]) -> ca.SX:
    """(S^(q), …) of bounds that controls reach."""
    return ca.vertcat(*[bound.top for bound in active if bound.top is not None])


def _on_the_bounds(problem: Problem, held: ca.SX, free: list[int], h: ca.SX, tops: ca.SX) -> tuple[ca.SX, ca.SX]:
    """(u, μ): the free controls minimise H subject to S^(q) = 0. μ is a function of u, by least squares."""
    u, v = problem.u, problem.u[free]
    at = lambda e: ca.substitute(e, u, held)
    h, tops = at(h), at(tops)
    a, slope = ca.densify(ca.jacobian(tops, v)), ca.densify(ca.gradient(h, v))
    if len(free) < tops.numel() or _vanishes(ca.det(a @ a.T)):
        raise Unsupported("more bounds at once than free controls reach")
    mu = -ca.solve(a @ a.T, a @ slope)
    m, nothing = ca.SX.sym("multiplier", tops.numel()), ca.SX.zeros(len(free))
    weight = ca.densify(ca.hessian(h + ca.dot(m, tops), v)[0])
    linear, at_zero = _vanishes(ca.jacobian(ca.vec(a), v)), lambda e: ca.substitute(e, v, nothing)
    if linear and len(free) == tops.numel():
        return ca.substitute(held, v, -ca.solve(at_zero(a), at_zero(tops))), mu
    if linear and _vanishes(ca.jacobian(ca.vec(weight), v)):
        kkt = ca.blockcat([[weight, a.T], [a, ca.SX.zeros(tops.numel(), tops.numel())]])
        if _vanishes(ca.det(kkt)):
            raise Unsupported("several controls on a bound in which H is linear")
        value = ca.solve(at_zero(kkt), -at_zero(ca.vertcat(slope, tops)))[: len(free)]
        return ca.substitute(held, v, value), mu
    others = ca.vertcat(*[s for s in ca.symvar(ca.vertcat(h, tops)) if not ca.depends_on(s, v)])
    weight = ca.substitute(weight, m, ca.fabs(mu))  # μ ≥ 0 in the end: other stationary points repel
    kkt = ca.blockcat([[weight, a.T], [a, -1e-12 * ca.SX.eye(tops.numel())]])
    low, high = problem.control_low[free], problem.control_high[free]
    newton = v - ca.solve(kkt, ca.vertcat(slope, tops))[: len(free)]
    step = ca.Function("step", [v, others], [ca.fmin(ca.fmax(newton, ca.SX(low)), ca.SX(high))])
    value_of = ca.Function("value_of", [v, others], [ca.if_else(ca.mmax(ca.fabs(tops)) < 1e-8, h, ca.inf)])
    return ca.substitute(held, v, descended(_around(problem, free), step, value_of, others)), mu


def _around(problem: Problem, free: list[int]) -> list[np.ndarray]:
    """Points from which one of several roots may be reached: in one dimension over the box or a turn, otherwise on the axes."""
    low, high = problem.control_low[free], problem.control_high[free]
    if len(free) == 1:
        return spread(low, high)
    low, high = problem.action_low[free], problem.action_high[free]
    return [(low + high) / 2 + sign * axis * (high - low) / 2 for axis in np.eye(len(free)) for sign in (1, -1)]


def _vanishes(expression: ca.SX) -> bool:
    """Zero at random points: cancellations that no simplification of the symbols sees."""
    symbols = ca.symvar(expression)
    if not symbols:
        return bool(np.allclose(np.asarray(ca.DM(expression)), 0.0))
    values = ca.Function("values", [ca.vertcat(*symbols)], [expression])
    points = np.random.default_rng(0).uniform(0.5, 1.5, (5, len(symbols)))
    return all(np.abs(np.asarray(values(point))).max(initial=0.0) < 1e-11 for point in points)
