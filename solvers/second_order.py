"""The second-order conditions of an extremal: is it a minimum, or a saddle?

The pivots Q_uu = H_uu + F_u'P⁺F_u of the exact Riccati sweep, over the controls that are not held at a bound, must be positive
definite: H_uu does not fail (Legendre and Clebsch) and P stays bounded (no conjugate point). These pivots are those of the reduced
Hessian of the whole problem, so where one is negative the extremal is no minimum. Source: Bryson and Ho, Applied Optimal Control
(1975), §6.3.
"""

from __future__ import annotations

from dataclasses import replace

import casadi as ca
import numpy as np

from optctl.problem import Problem
from optctl.problem.structure import path_constrained
from optctl.problem.trajectory import Trajectory
from optctl.shared import kept
from optctl.solvers.batch import Batched
from optctl.solvers.certificates import complementarity
from optctl.solvers.solution import FLAT, Solution

_COUPLED = 1e-7
"""A flat direction of the controls that moves the slope of the costates by more than this, relatively, leaves the curvature open."""

_LARGEST = 24
"""States and controls up to which second derivatives are cheap."""


def second_order_applies(problem: Problem) -> bool:
    """Fixed time, neither state bounds nor path constraints, at most 24 states and controls."""
    return problem.final_time is None and not path_constrained(problem) and problem.n_x + problem.n_u <= _LARGEST


@kept
def _second_derivatives(problem: Problem) -> tuple[Batched, Batched]:
    """(x, u, p, t, h, λ⁺) → F_z, H_zz, H_u of one interval; (x, p, t, λ_N) → the Hessian of φ + ν'e, e_x with e_x'ν = λ_N − φ_x."""
    x, u, p, t = problem.x, problem.u, problem.p, problem.t
    h, costate, z = ca.SX.sym("h"), ca.SX.sym("costate", problem.n_x), ca.vertcat(problem.x, problem.u)
    after, cost = problem.interval_function(x, u, p, t, h)
    hessian, gradient = ca.hessian(cost + ca.dot(costate, after), z)
    inner = [ca.jacobian(after, z), hessian, gradient[problem.n_x :]]
    end = ca.SX(0) if problem.horizon == "infinite" else problem.terminal_cost_function(x, p, t)
    e, slope = ca.SX.zeros(0, 1), ca.SX.zeros(0, problem.n_x)
    if problem.terminal_constraint_function is not None:
        e = problem.terminal_constraint_function(x, p, t)
        slope = ca.jacobian(e, x)
    nu = ca.SX.sym("nu", e.numel())
    outer = [ca.hessian(end + ca.dot(nu, e), x)[0], ca.gradient(end, x), slope]
    return (
        Batched(ca.Function("second", [x, u, p, t, h, costate], [ca.densify(v) for v in inner], {"cse": True})),
        Batched(ca.Function("second_end", [x, p, t, nu], [ca.densify(v) for v in outer])),
    )


def second_order(problem: Problem, trajectory: Trajectory, params: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Complementarity of the control bounds and `Certificate.curvature` of trajectories with costates, (B,) each.

    A terminal constraint e = 0 enters as ½ρ|e|² with a large ρ, which is positive definite with the rest exactly where the rest
    is so on e_x δx = 0 (Debreu 1952). NaN where numbers are missing.
    """
    assert trajectory.costates is not None
    (num, steps, n_u), n_x = trajectory.controls.shape, problem.n_x
    x, u, costates = trajectory.states, trajectory.controls, trajectory.costates
    times = np.broadcast_to(trajectory.times, (num, steps + 1))
    flat = lambda a: a.reshape(num * steps, -1)
    p = np.broadcast_to(params, (num, problem.n_p))
    inner, outer = _second_derivatives(problem)
    J, H, h_u = inner(
        flat(x[:, :-1]),
        flat(u),
        np.repeat(p, steps, axis=0),
        flat(times[:, :-1]),
        flat(np.diff(times)),
        flat(costates[:, 1:]),
    )
    J = np.swapaxes(J.reshape(num, steps, n_x + n_u, n_x), -1, -2)
    H, h_u = H.reshape(num, steps, n_x + n_u, n_x + n_u), h_u.reshape(num, steps, n_u)
    low, high = problem.control_low, problem.control_high
    products = complementarity(u, -h_u, low, high).reshape(num, -1).max(axis=1)

    nu = np.zeros((num, outer.function.size1_in(3)))
    P, phi_x, e_x = outer(x[:, -1], p, times[:, -1:], nu)
    if nu.size:
        e_x = np.swapaxes(e_x.reshape(num, n_x, -1), -1, -2)
        nu = (np.linalg.pinv(np.nan_to_num(e_x)).swapaxes(-1, -2) @ (costates[:, -1] - phi_x)[..., None])[..., 0]
        rho = 1e6 * (1e-9 + np.abs(H).max(axis=(1, 2, 3))) / (1e-9 + (e_x**2).max(axis=(1, 2)))
        P = (
            outer(x[:, -1], p, times[:, -1:], nu)[0].reshape(num, n_x, n_x)
            + rho[:, None, None] * e_x.swapaxes(-1, -2) @ e_x
        )
    P = P.reshape(num, n_x, n_x)
    near = 1e-7 * np.minimum(high - low, 1.0)
    free = ~(((u <= low + near) & (h_u > 0)) | ((u >= high - near) & (h_u < 0)))
    least, sizes, flat_somewhere = np.full((num, steps), np.inf), np.zeros((num, steps)), np.zeros(num, dtype=bool)
    for k in reversed(range(steps)):
        Q = H[:, k] + J[:, k].swapaxes(-1, -2) @ P @ J[:, k]
        mask, Qux = free[:, k], Q[:, n_x:, :n_x]
        size = sizes[:, k] = np.abs(Q[:, n_x:, n_x:]).max(axis=(1, 2))
        held = np.eye(n_u) * np.where(size > 0, size, 1.0)[:, None, None]
        pivots = np.where(mask[:, :, None] & mask[:, None, :], Q[:, n_x:, n_x:], held)
        lost = ~np.isfinite(pivots).all(axis=(1, 2)) | ~np.isfinite(Q).all(axis=(1, 2))
        lost |= np.isnan(h_u[:, k]).any(axis=1)  # no costate, and no telling which bounds hold
        pivots[lost] = np.eye(n_u)
        values, axes = np.linalg.eigh((pivots + pivots.swapaxes(-1, -2)) / 2)
        flat = np.abs(values) <= FLAT * size[:, None]  # redundant actuators: a direction in which nothing changes
        turned = axes.swapaxes(-1, -2) @ np.where(mask[..., None], Qux, 0.0)
        coupled = np.where(flat, np.abs(turned).max(axis=-1), 0.0).max(axis=1) > _COUPLED * np.abs(Q).max(axis=(1, 2))
        flat_somewhere |= flat.any(axis=1)
        lowest = np.where(flat, np.inf, values).min(axis=1)
        least[:, k] = np.where(lost | coupled, np.nan, np.where(mask.any(axis=1), lowest, np.inf))
        stop = ~(least[:, k] > 0)  # what lies before depends on a P that does not exist
        inverse = np.where(flat | stop[:, None], 0.0, 1.0 / np.where(flat, 1.0, values))
        K = axes @ (inverse[..., None] * turned)
        P = np.where(stop[:, None, None], 0.0, Q[:, :n_x, :n_x] - Qux.swapaxes(-1, -2) @ K)
        P = (P + P.swapaxes(-1, -2)) / 2
    curvature = _first(least, np.median(sizes, axis=1))
    return products, np.where(flat_somewhere & (curvature > 0), 0.0, curvature)


def second_order_residuals(problem: Problem, trajectory: Trajectory, params: np.ndarray) -> list[dict[str, float]]:
    """`second_order` as entries of each member's certificate; empty where it does not apply or numbers are missing."""
    if trajectory.costates is None or not second_order_applies(problem):
        return [{} for _ in trajectory.states]
    with np.errstate(all="ignore"):  # numbers that end become NaN
        found = list(zip(*second_order(problem, trajectory, params), strict=True))
    return [
        {k: float(v) for k, v in zip(("complementarity", "curvature"), row, strict=True) if np.isfinite(v)}
        for row in found
    ]


def with_curvature(problem: Problem, solution: Solution, params: np.ndarray) -> Solution:
    """The same solution with the second-order condition in its certificate, where one is to be had."""
    if not solution.ok or solution.proved or solution.certificate.curvature is not None:
        return solution
    found = second_order_residuals(problem, Trajectory.stack([solution.trajectory]), params[None])[0]
    return solution.replace(certificate=replace(solution.certificate, curvature=found.get("curvature")))


def _first(least: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The least pivot from the end back to the first that is not positive, in units of `size`."""
    alive = np.cumprod((least > 0)[:, ::-1], axis=1)[:, ::-1] > 0
    seen = np.concatenate([alive[:, 1:], np.ones((len(least), 1), dtype=bool)], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where(seen, least, np.inf).min(axis=1) / size
    return np.where(np.isinf(found), 1.0, found)  # no control is free: nothing to vary
