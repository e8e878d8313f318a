"""One stage of multiple-shooting DDP as CasADi functions, from which the kernels are generated.

Notation and the treatment of the bounds: `optctl.solvers.methods.sweeps`. In addition a trajectory may have gaps
d_k = F(x_k, u_k) − x_{k+1}: the gradient at the next state is v = λ⁺ + P⁺d, and a step of length α leaves (1 − α) d
(Giftthaler et al., A family of iterative Gauss–Newton shooting methods, IROS 2018; Mastalli et al., Crocoddyl, ICRA 2020).

Everything is free of branches, so that the two treatments of the bounds, the interior (barrier weight b > 0) and the clamped one
(b = 0), share one instruction stream, and so do all members of a batch.

Constraints enter by the augmented Lagrangian (Hestenes 1969, Powell 1969; Nocedal and Wright 2006, §17.4), for c ≤ 0 and e = 0

    l + Σ ([y + ρc]₊² − y²) / 2ρ,   φ + Σ ([y + ρc]₊² − y²) / 2ρ + Σ (ye + ρe²/2)

with gradient ∇c [y + ρc]₊ and, in its convex part, the Hessian ρ∇c∇c' where y + ρc > 0. Multipliers y of a stage are its `data`;
the weights ρ and the multipliers of the end come after the problem's own parameters in `p`.
"""

from __future__ import annotations

from dataclasses import dataclass

import casadi as ca
import numpy as np

from optctl.problem import Problem
from optctl.solvers.methods.sweeps import NO_BOUND, modulus, newton_step, signed_pivots

_FAR = NO_BOUND / 10
"""A bound beyond this is none."""


@dataclass(frozen=True)
class Constraints:
    """All constraints but the bounds on controls."""

    stage: ca.Function
    """(x, u, p, t) → c ≤ 0: path constraints, then the finite bounds on states."""
    end: ca.Function
    """(x, p, t) → the bounds on the last state and the path constraints without controls ≤ 0, then e = 0."""
    n_path: int
    n_bound: int
    n_last: int
    """Inequalities of the end."""
    n_equal: int

    @property
    def n_stage(self) -> int:
        return self.n_path + self.n_bound

    @property
    def n_end(self) -> int:
        return self.n_last + self.n_equal

    @property
    def n_p(self) -> int:
        """Entries of `p` after the problem's own: ρ of a stage, ρ of the end, y of the end."""
        return self.n_stage + 2 * self.n_end


def constraints(problem: Problem) -> Constraints:
    """State bounds count from the second state to the last: the first is given."""
    x, u, p, t = problem.x, problem.u, problem.p, problem.t
    above = [x[i] - high for i, high in enumerate(problem.state_high) if np.isfinite(high)]
    bounds = ca.vertcat(*above, *(low - x[i] for i, low in enumerate(problem.state_low) if np.isfinite(low)))
    path, last, end = (
        problem.path_constraint_function,
        problem.last_constraint_function,
        problem.terminal_constraint_function,
    )
    c = ca.SX(0, 1) if path is None else ca.vec(ca.densify(path(x, u, p, t)))
    at_end = bounds if last is None else ca.vertcat(bounds, last(x, p, t))
    e = ca.SX(0, 1) if end is None else ca.vec(ca.densify(end(x, p, t)))
    return Constraints(
        ca.Function("stage_constraints", [x, u, p, t], [ca.densify(ca.vertcat(c, bounds))]),
        ca.Function("end_constraints", [x, p, t], [ca.densify(ca.vertcat(at_end, e))]),
        c.numel(),
        bounds.numel(),
        at_end.numel(),
        e.numel(),
    )


@dataclass(frozen=True)
class _Augmentation:
    """What constraints of given values add."""

    values: ca.SX
    force: ca.SX
    """[y + ρc]₊: the multipliers after this round."""
    stiffness: ca.SX
    """ρ where y + ρc > 0."""
    penalty: ca.SX


def _augment(c: ca.SX, y: ca.SX, weight: ca.SX, inequalities: int) -> _Augmentation:
    if c.is_empty():
        return _Augmentation(c, c, c, ca.SX(0))
    wanted = y + weight * c
    unequal, _ = ca.vertsplit(wanted, [0, inequalities, c.numel()])  # wanted[:0] of one row is 1 × 0
    active = ca.vertcat(unequal > 0, ca.SX.ones(c.numel() - inequalities))
    terms = ca.if_else(active, c * (y + weight * c / 2), -(y**2) / (2 * ca.fmax(weight, 1e-300)))
    return _Augmentation(
        c, ca.if_else(active, wanted, 0.0), ca.if_else(active, weight, 0.0), ca.sum1(ca.densify(terms))
    )


class _Stage:
    """Symbols and one-step map of a stage of `problem`, constraints included."""

    def __init__(self, problem: Problem) -> None:
        self.limits = constraints(problem)
        self.x, self.u, self.t = problem.x, problem.u, problem.t
        self.p = ca.SX.sym("p", problem.n_p + self.limits.n_p)
        self.data = ca.SX.sym("data", self.limits.n_stage)
        sizes = [problem.n_p, self.limits.n_stage, self.limits.n_end, self.limits.n_end]
        self.own, *self.weights = ca.vertsplit(self.p, [0, *np.cumsum(sizes).tolist()])  # p[1:] of one row is 1 × 0

    def augmentation(self) -> _Augmentation:
        c = self.limits.stage(self.x, self.u, self.own, self.t)
        return _augment(c, self.data, self.weights[0], self.limits.n_stage)

    def end_augmentation(self) -> _Augmentation:
        c = self.limits.end(self.x, self.own, self.t)
        return _augment(c, self.weights[2], self.weights[1], self.limits.n_last)


def backward(problem: Problem) -> ca.Function:
    """Model of one stage and its minimiser; see `sweeps` for the equations.

    change: what the quadratic model expects of the whole step, [k'Q_u, ½ k'Q_uu k, λ⁺'d + ½ d'P⁺d].
    residual: interior |Q_u − z_low + z_high|, clamped |u − clip(u − Q_u)|; complement: |z s − b|; pivot: the least of Q_uu's.
    """
    n_x, n_u, stage = problem.n_x, problem.n_u, _Stage(problem)
    x, u, p, t = stage.x, stage.u, stage.p, stage.t
    sym = ca.SX.sym
    costate, hessian, gap = sym("costate", n_x), sym("hessian", n_x, n_x), sym("gap", n_x)
    low, high, z_low, z_high = (sym(name, n_u) for name in ("low", "high", "z_low", "z_high"))
    mu, theta, barrier = sym("mu"), sym("theta"), sym("barrier")
    after, cost = problem.step_function(x, u, stage.own, t)
    added = stage.augmentation()
    z = ca.vertcat(x, u)

    slope, pull = sym("slope", n_x), sym("pull", stage.limits.n_stage)
    h_zz, h_z = ca.hessian(cost + ca.dot(slope, after) + ca.dot(pull, added.values), z)
    jacobian = ca.densify(ca.jacobian(after, z))
    convex = modulus(ca.densify(ca.hessian(cost, z)[0]))
    v = costate + hessian @ gap
    h_zz, h_z = ca.substitute([ca.densify(h_zz), ca.densify(h_z)], [slope, pull], [v, added.force])
    q_zz = theta * h_zz + (1 - theta) * convex + jacobian.T @ hessian @ jacobian
    normals = ca.densify(ca.jacobian(added.values, z))
    q_zz = q_zz + normals.T @ ca.diag(added.stiffness) @ normals if stage.limits.n_stage else q_zz
    q_x, q_u = h_z[:n_x], h_z[n_x:]
    q_xx, q_ux, q_uu = q_zz[:n_x, :n_x], q_zz[n_x:, :n_x], q_zz[n_x:, n_x:]
    scale = ca.fmax(1.0, ca.fabs(ca.diag(q_uu)))

    interior = barrier > 0
    near, far = _nearness(u, low, high)
    near, far = ca.if_else(interior, near, 0.0), ca.if_else(interior, far, 0.0)
    b_u = q_u - barrier * near + barrier * far
    b_uu = q_uu + ca.diag(z_low * near + z_high * far)
    box_low, box_high = ca.if_else(interior, -1e30, low), ca.if_else(interior, 1e30, high)
    k, gain = newton_step(b_uu + mu * ca.diag(scale), b_u, q_ux, u, box_low, box_high)
    gain = ca.densify(gain)
    p_new = q_xx + gain.T @ b_uu @ gain - q_ux.T @ gain - gain.T @ q_ux
    costate_new = q_x - gain.T @ b_u + (q_ux - b_uu @ gain).T @ k
    projected = ca.mmax(ca.fabs(u - ca.fmin(ca.fmax(u - q_u, low), high)))
    dual = ca.mmax(ca.fabs(q_u - z_low + z_high))
    products = ca.vertcat(ca.if_else(near > 0, z_low / near, barrier), ca.if_else(far > 0, z_high / far, barrier))
    return ca.Function(
        "backward",
        [costate, hessian, gap, x, u, p, t, low, high, z_low, z_high, mu, theta, barrier, stage.data],
        [
            costate_new,
            (p_new + p_new.T) / 2,
            k,
            gain,
            ca.vertcat(ca.dot(k, b_u), ca.dot(k, b_uu @ k) / 2, ca.dot(gap, costate + v) / 2),
            ca.if_else(interior, dual, projected),
            ca.mmax(ca.fabs(products - barrier)),
            signed_pivots(b_uu)[2],
        ],
        [
            "costate",
            "hessian",
            "gap",
            "x",
            "u",
            "p",
            "t",
            "low",
            "high",
            "z_low",
            "z_high",
            "mu",
            "theta",
            "barrier",
            "data",
        ],
        ["costate_new", "hessian_new", "k", "gain", "change", "residual", "complement", "pivot"],
    )


def _nearness(u: ca.SX, low: ca.SX, high: ca.SX) -> tuple[ca.SX, ca.SX]:
    """1/(u − low), 1/(high − u); 0 where there is no bound."""
    return ca.if_else(low > -_FAR, 1 / (u - low), 0.0), ca.if_else(high < _FAR, 1 / (high - u), 0.0)


def forward(problem: Problem) -> ca.Function:
    """One stage of a trial step of length α from `x` where the old trajectory was at `x_old`.

    `evaluate` = 1 applies the old controls; with `follow` = 1 besides, the states stay the old ones and the gaps are measured.
    cost: the problem's own; penalty: what the constraints add.
    distance: ∏ (u − low)(high − u) over the bounds that exist, for the barrier; step_low, step_high: how far the multipliers may
    go towards their Newton values (fraction to the boundary 0.995).
    """
    n_x, n_u, stage = problem.n_x, problem.n_u, _Stage(problem)
    x, p, t = stage.x, stage.p, stage.t
    sym = ca.SX.sym
    x_old, x_old_next, u, k, gain, gap = (
        sym("x_old", n_x),
        sym("x_old_next", n_x),
        sym("u", n_u),
        sym("k", n_u),
        sym("gain", n_u, n_x),
        sym("gap", n_x),
    )
    low, high, z_low, z_high = (sym(name, n_u) for name in ("low", "high", "z_low", "z_high"))
    alpha, margin, barrier, evaluate, follow = (sym(n) for n in ("alpha", "margin", "barrier", "evaluate", "follow"))
    wanted = ca.if_else(evaluate, u, u + alpha * k - gain @ (x - x_old))
    applied = ca.fmin(ca.fmax(wanted, low + margin * (u - low)), high - margin * (high - u))
    applied = ca.if_else(evaluate, u, applied)
    after, cost = problem.step_function(x, applied, stage.own, t)
    penalty = ca.substitute(stage.augmentation().penalty, stage.u, applied)
    x_next = ca.if_else(follow, x_old_next, after - (1 - alpha) * gap)
    gap_new = ca.if_else(follow, after - x_old_next, gap)
    bounded_low, bounded_high = low > -_FAR, high < _FAR
    distance = ca.SX(1)
    steps = []
    near, far = _nearness(u, low, high)
    for j in range(n_u):
        distance *= ca.if_else(bounded_low[j], applied[j] - low[j], 1.0)
        distance *= ca.if_else(bounded_high[j], high[j] - applied[j], 1.0)
    for z, s, sign in ((z_low, near, 1.0), (z_high, far, -1.0)):
        dz = (barrier - sign * z * (applied - u)) * s - z
        steps.append(ca.mmin(ca.if_else(ca.logic_and(dz < 0, barrier > 0), -0.995 * z / dz, 1.0)))
    return ca.Function(
        "forward",
        [
            x,
            x_old,
            x_old_next,
            u,
            k,
            gain,
            gap,
            p,
            t,
            low,
            high,
            z_low,
            z_high,
            alpha,
            margin,
            barrier,
            evaluate,
            follow,
            stage.data,
        ],
        [x_next, applied, cost, gap_new, distance, *steps, ca.sum1(ca.fabs(gap_new)), penalty],
        [
            "x",
            "x_old",
            "x_old_next",
            "u",
            "k",
            "gain",
            "gap",
            "p",
            "t",
            "low",
            "high",
            "z_low",
            "z_high",
            "alpha",
            "margin",
            "barrier",
            "evaluate",
            "follow",
            "data",
        ],
        ["x_next", "applied", "cost", "gap_new", "distance", "step_low", "step_high", "gap_size", "penalty"],
    )


def accept(problem: Problem) -> ca.Function:
    """Multipliers after an accepted step: z + s Δz, kept within a factor 1000 of b / distance (Wächter and Biegler 2006, eq. 16)."""
    n_u = problem.n_u
    sym = ca.SX.sym
    u, new, low, high, z_low, z_high = (sym(name, n_u) for name in ("u", "new", "low", "high", "z_low", "z_high"))
    step_low, step_high, barrier = sym("step_low"), sym("step_high"), sym("barrier")
    near, far = _nearness(u, low, high)
    near_new, far_new = _nearness(new, low, high)
    updated = []
    for z, s, after, step, sign in ((z_low, near, near_new, step_low, 1.0), (z_high, far, far_new, step_high, -1.0)):
        moved = z + step * ((barrier - sign * z * (new - u)) * s - z)
        updated.append(ca.fmin(ca.fmax(moved, 1e-3 * barrier * after), 1e3 * barrier * after))
    return ca.Function(
        "accept",
        [u, new, low, high, z_low, z_high, step_low, step_high, barrier],
        updated,
        ["u", "new", "low", "high", "z_low", "z_high", "step_low", "step_high", "barrier"],
        ["z_low_new", "z_high_new"],
    )


def end(problem: Problem) -> ca.Function:
    """φ, with what the constraints of the end add, and its derivatives; zero for an infinite horizon without constraints.

    Where there are constraints, θ = 0 takes the convex part of the Hessian.
    """
    stage, theta = _Stage(problem), ca.SX.sym("theta")
    x, p, t = stage.x, stage.p, stage.t
    phi = ca.SX(0) if problem.horizon == "infinite" else problem.terminal_cost_function(x, stage.own, t)
    hessian, gradient = ca.hessian(phi, x)
    if stage.limits.n_end:
        added, pull = stage.end_augmentation(), ca.SX.sym("pull", stage.limits.n_end)
        convex = modulus(ca.densify(hessian))
        normals = ca.densify(ca.jacobian(added.values, x))
        hessian, gradient = ca.hessian(phi + ca.dot(pull, added.values), x)
        hessian, gradient = ca.substitute([ca.densify(hessian), ca.densify(gradient)], [pull], [added.force])
        hessian = theta * hessian + (1 - theta) * convex + normals.T @ ca.diag(added.stiffness) @ normals
        phi = phi + added.penalty
    return ca.Function(
        "end",
        [x, p, t, theta],
        [ca.densify(phi), ca.densify(gradient), ca.densify(hessian)],
        ["x", "p", "t", "theta"],
        ["cost", "gradient", "hessian"],
    )
