"""The sweeps of differential dynamic programming as CasADi functions: rollout, backward, forward, adjoint, whole batches at once.

Problem: x⁺ = F(x, u), min Σ l(x, u) + φ(x_N), u_low ≤ u ≤ u_high. With H = l + λ⁺'F, J = ∂F/∂(x, u) and the quadratic model
Q = ∇²H + J'P⁺J, the backward sweep gives

    Δu = k − K Δx,   K = Q_uu⁻¹ Q_ux,   k = −Q_uu⁻¹ Q_u,   P = Q_xx + K'Q_uu K − Q_xu K − K'Q_ux

Two treatments of the bounds. `clamped`: a control at a bound that the gradient pushes outwards gets k = 0 and K = 0 (what
holds at the optimum). `interior`: primal-dual barrier −b Σ log(u − u_low) − b Σ log(u_high − u), with multipliers z and
Q_uu + z_low/(u − u_low) + z_high/(u_high − u), which does not zigzag between active sets on bang-bang arcs.
θ = 1 takes exact second derivatives (quadratic convergence), θ = 0 the convex Gauss–Newton model without ∇²F (iLQR), which
cannot break down. Q_uu gains μ times its scale, and the moduli of its LDL' pivots.

Assumptions: no state, path or terminal constraints and a fixed final time; with constraints see `batched/constrained.py`.
Sources: Jacobson and Mayne (1970); Tassa, Mansard, Todorov, Control-limited DDP, ICRA 2014; Pavlov, Shames, Manzie,
Interior point DDP, IEEE TCST 29 (2021). One CasADi function a sweep, mapped over the batch: a member does not see the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import casadi as ca
import numpy as np

from optctl.problem import Problem
from optctl.shared import kept
from optctl.solvers.batch import Batched

_Results = TypeVar("_Results")

EXACT, CONVEX = np.ones((1, 1)), np.zeros((1, 1))
"""θ: exact second derivatives, or the convex Gauss–Newton model."""
UNDAMPED = np.zeros((1, 1))
"""μ where the model is taken as it is."""
WHOLE_STEP = np.ones((1, 1))
"""α."""
NO_MARGIN = np.zeros((1, 1))
"""Of a step that may end on a bound."""
NO_BOUND = 1e20
"""A bound that is none: what sweeps take in place of an infinity, which would make NaN of products with zero."""


def control_box(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """The bounds on controls as sweeps take them, (1, n_u) each; ± `NO_BOUND` where there is none."""
    low, high = problem.control_low[None], problem.control_high[None]
    return low.clip(-NO_BOUND, NO_BOUND), high.clip(-NO_BOUND, NO_BOUND)


class Rollout(NamedTuple):
    """An open-loop rollout."""

    states: np.ndarray
    """(B, N+1, n_x)."""
    costs: np.ndarray
    """(B, N)."""
    terminal_cost: np.ndarray
    """(B, 1)."""


class Trial(NamedTuple):
    """A step along k and K."""

    states: np.ndarray
    """(B, N+1, n_x)."""
    controls: np.ndarray
    """(B, N, n_u)."""
    costs: np.ndarray
    """(B, N)."""
    terminal_cost: np.ndarray
    """(B, 1)."""
    logs: np.ndarray
    """Σ log distances to the bounds, (B, 1)."""


class Clamped(NamedTuple):
    """A backward sweep with controls held at their bounds."""

    costates: np.ndarray
    """λ (B, N+1, n_x)."""
    hessians: np.ndarray
    """P (B, N+1, n_x²)."""
    feed: np.ndarray
    """k (B, N, n_u)."""
    gains: np.ndarray
    """K' (B, N, n_x n_u)."""
    change: np.ndarray
    """Σ [k'Q_u, ½ k'Q_uu k] (B, 2)."""
    gradient: np.ndarray
    """Largest projected gradient, (B, 1)."""


class Interior(NamedTuple):
    """A backward sweep inside the barrier."""

    feed: np.ndarray
    """k (B, N, n_u)."""
    gains: np.ndarray
    """K' (B, N, n_x n_u)."""
    change: np.ndarray
    """Σ [slope, curvature] (B, 2)."""
    residual: np.ndarray
    """[dual residual, complementarity, least pivot] (B, 3)."""


class Adjoint(NamedTuple):
    """The derivative of the cost of a trajectory."""

    costates: np.ndarray
    """Exact λ (B, N+1, n_x)."""
    slopes: np.ndarray
    """H_u (B, N, n_u)."""


@dataclass
class Sweeps:
    """The functions of one problem: generated here, or of larger ones in `batched/tiles.py`."""

    rollout: Callable[..., Rollout]
    """Of (x0, u, p)."""
    forward: Callable[..., Trial]
    """Of (x, u, k, K', α, p, low, high, margin). The control stays at least `margin` times its old distance away from each bound."""
    clamped: Callable[..., Clamped]
    """Of (x, u, p, μ, low, high, θ)."""
    interior: Callable[..., Interior]
    """Of (x, u, p, μ, low, high, θ, z_low, z_high, b)."""
    tracking: Callable[..., list[np.ndarray]]
    """Of (x, u, p, q, r): [K'] of the LQR that tracks the trajectory with weights diag(q), diag(r)."""
    adjoint: Callable[..., Adjoint]
    """Of (x, u, p)."""


def named(results: Callable[..., _Results], function: Callable[..., list[np.ndarray]]) -> Callable[..., _Results]:
    """The function with names for its results."""
    return lambda *arguments: results(*function(*arguments))


def sweeps(problem: Problem, steps: int | None = None) -> Sweeps:
    """The sweeps over `steps` intervals (default: the problem's), built once."""
    return _build(problem, problem.steps if steps is None else steps)


def newton_step(q_uu: ca.SX, q_u: ca.SX, q_ux: ca.SX, u: ca.SX, low: ca.SX, high: ca.SX) -> tuple[ca.SX, ca.SX]:
    """Minimise ½Δ'Q_uuΔ + Q_u'Δ over the box: clamp what sits at a bound with the gradient outwards, solve, clamp what
    leaves the box, solve again. Branch-free; the pivots of LDL' enter by their modulus."""
    n = u.numel()
    outward = ca.logic_or(ca.logic_and(u <= low, q_u > 0), ca.logic_and(u >= high, q_u < 0))
    free, shift = ca.if_else(outward, 0.0, 1.0), ca.SX.zeros(n)
    k, feedback = ca.SX.zeros(n), ca.SX.zeros(n, q_ux.size2())
    for _ in range(min(n, 3) + 1):
        mask = ca.diag(free)
        reduced = mask @ q_uu @ mask + ca.diag(1 - free)
        right = ca.horzcat(-free * (q_u + q_uu @ ((1 - free) * shift)), mask @ q_ux)
        solved = _modulus_solve(reduced, right)
        k = free * solved[:, 0] + (1 - free) * shift
        feedback = mask @ solved[:, 1:]
        bounded = ca.fmin(ca.fmax(u + k, low), high)
        left = ca.logic_and(free > 0.5, ca.logic_or(u + k < low, u + k > high))
        shift = ca.if_else(left, bounded - u, shift)
        free = ca.if_else(left, 0.0, free)
    return ca.fmin(ca.fmax(u + k, low), high) - u, ca.diag(free) @ feedback


def signed_pivots(matrix: ca.SX) -> tuple[ca.SX, list[ca.SX], ca.SX]:
    """L, the moduli of the pivots of LDL', and the least signed pivot."""
    n = matrix.size1()
    lower, least = ca.SX.eye(n), ca.SX.inf()
    pivots: list[ca.SX] = []
    for j in range(n):
        d = matrix[j, j] - sum((lower[j, m] ** 2 * pivots[m] for m in range(j)), ca.SX(0))
        least = ca.fmin(least, d)
        pivots.append(ca.fmax(ca.fabs(d), 1e-12))
        for i in range(j + 1, n):
            s = matrix[i, j] - sum((lower[i, m] * lower[j, m] * pivots[m] for m in range(j)), ca.SX(0))
            lower[i, j] = s / pivots[j]
    return lower, pivots, least


def modulus(matrix: ca.SX) -> ca.SX:
    """L|D|L': a positive semidefinite relative of a symmetric matrix."""
    n = matrix.size1()
    if all(matrix[i, j].is_zero() for i in range(n) for j in range(n) if i != j):
        return ca.diag(ca.fabs(ca.diag(matrix)))
    lower, pivots, _ = signed_pivots(matrix)
    return lower @ ca.diag(ca.vertcat(*pivots)) @ lower.T


def _modulus_solve(matrix: ca.SX, right: ca.SX) -> ca.SX:
    """Solve |A| z = b, where |A| is LDL' with the modulus of the pivots."""
    n = matrix.size1()
    lower, pivots, _ = signed_pivots(matrix)
    z = [right[i, :] for i in range(n)]
    for i in range(n):
        for m in range(i):
            z[i] = z[i] - lower[i, m] * z[m]
    z = [z[i] / pivots[i] for i in range(n)]
    for i in reversed(range(n)):
        for m in range(i + 1, n):
            z[i] = z[i] - lower[m, i] * z[m]
    return ca.vertcat(*z)


def trials(problem: Problem, steps: int) -> tuple[Callable[..., Rollout], Callable[..., Trial], Callable[..., Adjoint]]:
    """`rollout`, `forward` and `adjoint`: what costs no more than the derivatives of one step."""
    n_x, n_u = problem.n_x, problem.n_u
    x, u, p, t = problem.x, problem.u, problem.p, problem.t
    after, cost = problem.step_function(x, u, p, t)
    low, high, costate = ca.SX.sym("low", n_u), ca.SX.sym("high", n_u), ca.SX.sym("costate", n_x)
    h_z = ca.gradient(cost + ca.dot(costate, after), ca.vertcat(x, u))
    adjoint = ca.Function(
        "adjoint", [costate, x, u, p, t], [ca.densify(h_z[:n_x]), ca.densify(h_z[n_x:])], {"cse": True}
    )
    x_ref, feed, gain_in, alpha = ca.SX.sym("xr", n_x), ca.SX.sym("k", n_u), ca.SX.sym("K", n_u, n_x), ca.SX.sym("a")
    margin = ca.SX.sym("margin")
    wanted = u + alpha * feed - gain_in @ (x - x_ref)
    applied = ca.fmin(ca.fmax(wanted, low + margin * (u - low)), high - margin * (high - u))
    x_new, c_new = problem.step_function(x, applied, p, t)
    advance = ca.Function(
        "advance",
        [x, x_ref, u, feed, gain_in, alpha, p, t, low, high, margin],
        [x_new, applied, c_new, ca.sum1(ca.log(applied - low) + ca.log(high - applied))],
    )

    times, end_time, end = _horizon(problem, steps)
    xs, us, pm = ca.MX.sym("x", n_x, steps + 1), ca.MX.sym("u", n_u, steps), ca.MX.sym("p", problem.n_p)
    x0, a, m = ca.MX.sym("x0", n_x), ca.MX.sym("alpha"), ca.MX.sym("margin")
    ks, gains = ca.MX.sym("k", n_u, steps), ca.MX.sym("K", n_u, n_x * steps)
    lo, hi = ca.MX.sym("low", n_u), ca.MX.sym("high", n_u)
    over = lambda value: ca.repmat(value, 1, steps)

    path, costs = problem.step_function.mapaccum("rollout", steps)(x0, us, over(pm), times)
    rollout = ca.Function("rollout", [x0, us, pm], [ca.horzcat(x0, path), costs, end(path[:, -1], pm, end_time)[0]])

    path, controls, costs, logs = advance.mapaccum("advance", steps)(
        xs[:, 0], xs[:, :-1], us, ks, gains, over(a), over(pm), times, over(lo), over(hi), over(m)
    )
    forward = ca.Function(
        "forward",
        [xs, us, ks, gains, a, pm, lo, hi, m],
        [ca.horzcat(xs[:, 0], path), controls, costs, end(path[:, -1], pm, end_time)[0], ca.sum2(logs)],
    )

    lam_end = end(xs[:, -1], pm, end_time)[1]
    lam, h_u = adjoint.mapaccum("adjoint", steps)(lam_end, xs[:, -2::-1], us[:, ::-1], over(pm), times[:, ::-1])
    exact = ca.Function("adjoint", [xs, us, pm], [ca.horzcat(lam[:, ::-1], lam_end), h_u[:, ::-1]])
    return (
        named(Rollout, Batched(rollout)),
        named(Trial, Batched(forward, sequences=(1,))),
        named(Adjoint, Batched(exact, sequences=(1,))),
    )


def _horizon(problem: Problem, steps: int) -> tuple[ca.DM, float, ca.Function]:
    """Times of the intervals, time of the end, and (x, p, t) → φ, its gradient and Hessian."""
    x, p, t = problem.x, problem.p, problem.t
    phi = ca.SX(0) if problem.horizon == "infinite" else problem.terminal_cost_function(x, p, t)
    phi_xx, phi_x = ca.hessian(phi, x)
    end = ca.Function("end", [x, p, t], [ca.densify(phi), ca.densify(phi_x), ca.densify(phi_xx)])
    return ca.DM(np.arange(steps) * problem.dt).T, steps * problem.dt, end


@kept
def _build(problem: Problem, steps: int) -> Sweeps:
    n_x, n_u = problem.n_x, problem.n_u
    x, u, p, t = problem.x, problem.u, problem.p, problem.t
    after, cost = problem.step_function(x, u, p, t)
    costate, hessian = ca.SX.sym("costate", n_x), ca.SX.sym("P", n_x, n_x)
    mu, low, high = ca.SX.sym("mu"), ca.SX.sym("low", n_u), ca.SX.sym("high", n_u)
    z = ca.vertcat(x, u)

    # --- one stage of each sweep
    theta = ca.SX.sym("theta")
    h_zz, q_z = ca.hessian(cost + ca.dot(costate, after), z)
    jacobian = ca.jacobian(after, z)
    convex = modulus(ca.densify(ca.hessian(cost, z)[0]))
    q_zz = ca.densify(theta * h_zz + (1 - theta) * convex + jacobian.T @ hessian @ jacobian)
    q_x, q_u = ca.densify(q_z[:n_x]), ca.densify(q_z[n_x:])
    q_xx, q_ux, q_uu = q_zz[:n_x, :n_x], q_zz[n_x:, :n_x], q_zz[n_x:, n_x:]
    scale = ca.fmax(1.0, ca.fabs(ca.diag(q_uu)))
    k, gain = newton_step(q_uu + mu * ca.diag(scale), q_u, q_ux, u, low, high)
    p_new = q_xx + gain.T @ q_uu @ gain - q_ux.T @ gain - gain.T @ q_ux
    costate_new = q_x - gain.T @ q_u + (q_ux - q_uu @ gain).T @ k
    gradient = ca.norm_inf(u - ca.fmin(ca.fmax(u - q_u, low), high))
    symbols = [costate, hessian, x, u, p, t, mu, low, high, theta]
    clamped = ca.Function(
        "clamped_stage",
        symbols,
        [
            costate_new,
            (p_new + p_new.T) / 2,
            k,
            ca.densify(gain),
            ca.vertcat(ca.dot(k, q_u), ca.dot(k, q_uu @ k) / 2),
            gradient,
        ],
        {"cse": True},
    )
    z_low, z_high, barrier = ca.SX.sym("z_low", n_u), ca.SX.sym("z_high", n_u), ca.SX.sym("b")
    near, far = 1 / (u - low), 1 / (high - u)
    b_u = q_u - barrier * near + barrier * far
    b_uu = q_uu + ca.diag(z_low * near + z_high * far)
    solved = _modulus_solve(b_uu + mu * ca.diag(scale), ca.horzcat(-b_u, q_ux))
    k, gain = solved[:, 0], solved[:, 1:]
    p_new = q_xx + gain.T @ b_uu @ gain - q_ux.T @ gain - gain.T @ q_ux
    costate_new = q_x - gain.T @ b_u + (q_ux - b_uu @ gain).T @ k
    interior = ca.Function(
        "interior_stage",
        [*symbols, z_low, z_high, barrier],
        [
            costate_new,
            (p_new + p_new.T) / 2,
            k,
            gain,
            ca.vertcat(ca.dot(k, b_u), ca.dot(k, b_uu @ k) / 2),
            ca.norm_inf(q_u - z_low + z_high),
            -signed_pivots(b_uu)[2],
            ca.mmax(ca.fabs(ca.vertcat(z_low / near, z_high / far) - barrier)),
        ],
        {"cse": True},
    )
    weight_x, weight_u = ca.SX.sym("q", n_x), ca.SX.sym("r", n_u)
    a_mat, b_mat = jacobian[:, :n_x], jacobian[:, n_x:]
    gain = _modulus_solve(
        ca.densify(ca.diag(weight_u) + b_mat.T @ hessian @ b_mat), ca.densify(b_mat.T @ hessian @ a_mat)
    )
    p_new = ca.diag(weight_x) + a_mat.T @ hessian @ (a_mat - b_mat @ gain)
    track = ca.Function(
        "track", [hessian, x, u, p, t, weight_x, weight_u], [ca.densify(p_new + p_new.T) / 2, gain], {"cse": True}
    )

    # --- sweeps over the horizon
    times, end_time, end = _horizon(problem, steps)
    xs, us, pm = ca.MX.sym("x", n_x, steps + 1), ca.MX.sym("u", n_u, steps), ca.MX.sym("p", problem.n_p)
    m = ca.MX.sym("mu")
    lo, hi, th = ca.MX.sym("low", n_u), ca.MX.sym("high", n_u), ca.MX.sym("theta")
    backwards = lambda value: value[:, ::-1]
    over = lambda value: ca.repmat(value, 1, steps)

    _, lam_end, p_end = end(xs[:, -1], pm, end_time)
    back_x, back_u, back_t = backwards(xs[:, :-1]), backwards(us), backwards(times)
    blocks = lambda value: backwards(ca.reshape(value, -1, steps))
    lam, hess, k_all, gain_all, slopes, gradients = clamped.mapaccum("clamped", steps, 2)(
        lam_end, p_end, back_x, back_u, over(pm), back_t, over(m), over(lo), over(hi), over(th)
    )
    clamped_sweep = ca.Function(
        "clamped",
        [xs, us, pm, m, lo, hi, th],
        [
            ca.horzcat(backwards(lam), lam_end),
            ca.horzcat(blocks(hess), ca.vec(p_end)),
            backwards(k_all),
            blocks(gain_all),
            ca.sum2(slopes),
            ca.mmax(gradients),
        ],
    )
    zl, zh, b = ca.MX.sym("z_low", n_u, steps), ca.MX.sym("z_high", n_u, steps), ca.MX.sym("b")
    _, _, k_all, gain_all, slopes, dual, pivot, gaps = interior.mapaccum("interior", steps, 2)(
        lam_end,
        p_end,
        back_x,
        back_u,
        over(pm),
        back_t,
        over(m),
        over(lo),
        over(hi),
        over(th),
        backwards(zl),
        backwards(zh),
        over(b),
    )
    interior_sweep = ca.Function(
        "interior",
        [xs, us, pm, m, lo, hi, th, zl, zh, b],
        [
            backwards(k_all),
            blocks(gain_all),
            ca.sum2(slopes),
            ca.vertcat(ca.mmax(dual), ca.mmax(gaps), -ca.mmax(pivot)),
        ],
    )

    q, r = ca.MX.sym("q", n_x), ca.MX.sym("r", n_u)
    _, gain_all = track.mapaccum("track", steps)(ca.diag(q), back_x, back_u, over(pm), back_t, over(q), over(r))
    tracking = ca.Function("tracking", [xs, us, pm, q, r], [blocks(gain_all)])
    rollout, forward, exact = trials(problem, steps)
    return Sweeps(
        rollout,
        forward,
        named(Clamped, Batched(clamped_sweep, sequences=(2, 3))),
        named(Interior, Batched(interior_sweep, sequences=(0, 1))),
        Batched(tracking, sequences=(0,)),
        exact,
    )
