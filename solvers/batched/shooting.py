"""Indirect multiple shooting for thousands of starts at once: extremals of the continuous problem, polished from direct solutions.

    ẋ = f(x, u*), λ̇ = −H_x, u* = clip(argmin_u H),   x(0) = x0, λ(T) = φ_x + e_x'ν, e(x(T)) = 0, free T: H(T) + φ_t + e_t'ν = 0

The arcs between the joints, and their sensitivities S = ∂(x, λ)(t₁)/∂(x, λ)(t₀), come from the kernel of `flow`. Newton's method on the
joints is block-structured: a backward sweep carries

    Δλ = P Δx + W Δθ + q,   (D − P B) [P W q]_k = [P A − C, P Z_x + W − Z_λ, P r_x + q − r_λ],   S = [[A, B], [C, D]]

with θ = (ν, T), Z the effect of T on a segment and r its gap; P is the Hessian of the optimal cost and grows without limit towards a
conjugate point. Nothing is exchanged between members: each has the same bits alone or in any batch, and a NaN stays where it is.
Assumptions: as `optctl.solvers.methods.pontryagin`, and a Hamiltonian strictly convex and quadratic in the controls.
Sources: Bulirsch and Stoer, Numerical Analysis (2002), §7.3.5; Bryson and Ho (1975), §5.3, 6.3, for the sweep.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import casadi as ca
import numpy as np
import torch

from optctl.errors import require
from optctl.problem import Problem
from optctl.problem.controller import check_params
from optctl.problem.structure import path_constrained
from optctl.problem.trajectory import Trajectory
from optctl.shared import in_turn
from optctl.solvers.batch import Batched
from optctl.solvers.batched.flow import LARGEST, integrate
from optctl.solvers.methods.hamiltonian import EXCESS, excess, hamiltonian
from optctl.solvers.methods.pontryagin import extremals
from optctl.solvers.solution import Status
from optctl.solvers.solution_batch import SolutionBatch

_AT_ONCE = 1024
"""Members of one pass: bounds the memory for the sensitivities."""


# --- Newton's method ----------------------------------------------------------------------------------------------------


@dataclass
class _Point:
    """The unknowns of some members, the gaps they leave and all that a Newton step needs."""

    y: np.ndarray
    """(x, λ) at the beginning of every segment (B, M, 2n)."""
    theta: np.ndarray
    """(ν, T) (B, n_θ); T only where it is free."""
    last: np.ndarray
    """(x, λ) at the end (B, 2n)."""
    S: np.ndarray
    gaps: np.ndarray
    """(B, M − 1, 2n)."""
    Z: np.ndarray
    """∂(end of a segment)/∂θ (B, M, 2n, n_θ)."""
    conditions: np.ndarray
    """What must vanish at the end (B, n + n_θ)."""
    slopes: np.ndarray
    """Its derivatives with respect to (x, λ, θ)."""

    @property
    def worst(self) -> np.ndarray:
        """Largest residual (B,)."""
        parts = [a.reshape(len(a), -1) for a in (self.gaps, self.conditions)]
        return np.abs(np.concatenate(parts, axis=1)).max(axis=1)

    def put(self, index: np.ndarray, other: _Point) -> None:
        for name, array in self.__dict__.items():
            array[index] = other.__dict__[name]

    def take(self, index: np.ndarray) -> _Point:
        return _Point(**{name: array[index] for name, array in self.__dict__.items()})


def _solve(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a⁻¹ b of every member by Gauss–Jordan elimination with pivots, whole columns of the batch at a time; not finite where singular."""
    both, everyone = np.concatenate([a, b], axis=2), np.arange(len(a))
    with np.errstate(all="ignore"):
        for j in range(a.shape[1]):
            pivot = j + np.abs(both[:, j:, j]).argmax(axis=1)
            row = both[everyone, pivot]
            both[everyone, pivot] = both[:, j]
            both[:, j] = row / row[:, j, None]
            factor = both[:, :, j].copy()
            factor[:, j] = 0.0
            both -= factor[:, :, None] * both[:, j, None]
    return both[:, :, a.shape[1] :]


def sweep(
    S: np.ndarray,
    Z: np.ndarray,
    gaps: np.ndarray,
    P: np.ndarray,
    W: np.ndarray,
    q: np.ndarray,
    Y: np.ndarray,
    G: np.ndarray,
    c: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """Backward from Δλ = P Δx + W Δθ + q and 0 = Y Δx + G Δθ + c at the end: [P W q] at the beginning of every segment
    (B, M, n, …), and G, c there."""
    n, found = P.shape[-1], []
    for k in reversed(range(S.shape[1])):
        A, B, C, D = S[:, k, :n, :n], S[:, k, :n, n:], S[:, k, n:, :n], S[:, k, n:, n:]
        Zx, Zl, rx, rl = Z[:, k, :n], Z[:, k, n:], gaps[:, k, :n, None], gaps[:, k, n:, None]
        right = np.concatenate([P @ A - C, P @ Zx + W - Zl, P @ rx + q - rl], axis=2)
        found.append(_solve(D - P @ B, right))
        P, W, q = np.split(found[-1], [n, n + W.shape[2]], axis=2)
        P, G, c, Y = (P + np.swapaxes(P, 1, 2)) / 2, G + Y @ (B @ W + Zx), c + Y @ (B @ q + rx), Y @ (A + B @ P)
    return np.stack(found[::-1], axis=1), G, c


def _newton_step(point: _Point) -> tuple[np.ndarray, np.ndarray]:
    """Δy (B, M, 2n), Δθ (B, n_θ)."""
    num, m, n2 = point.y.shape
    n, h = n2 // 2, point.theta.shape[1]
    J, r = point.slopes, point.conditions[..., None]
    P, W, q = -J[:, :n, :n], -J[:, :n, n2:], -r[:, :n]
    E = J[:, n:, n:n2]
    closed = np.concatenate([point.gaps, np.zeros((num, 1, n2))], axis=1)
    field, G, c = sweep(
        point.S, point.Z, closed, P, W, q, J[:, n:, :n] + E @ P, J[:, n:, n2:] + E @ W, r[:, n:] + E @ q
    )
    theta = -_solve(G, c) if h else np.zeros((num, 0, 1))
    x, steps = np.zeros((num, n, 1)), []
    for k in range(m):
        costate = field[:, k, :, :n] @ x + field[:, k, :, n : n + h] @ theta + field[:, k, :, n + h :]
        steps.append(np.concatenate([x, costate], axis=1)[..., 0])
        x = (point.S[:, k] @ steps[-1][..., None] + point.Z[:, k] @ theta + closed[:, k, :, None])[:, :n]
    return np.stack(steps, axis=1), theta[..., 0]


class _Shooting:
    """The boundary value problem of one batch."""

    def __init__(self, problem: Problem, params: np.ndarray, final: np.ndarray, device: str | torch.device) -> None:
        self.problem, self.params, self.final, self.device = problem, params, final, device
        self.free = problem.final_time is not None
        self.functions = built = extremals(problem)
        self.n_nu = built.n_end
        self.end, self.speed = Batched(built.end), Batched(built.flow)

    def evaluate(self, index: np.ndarray, y: np.ndarray, theta: np.ndarray) -> _Point:
        (num, m, n2), n, h = y.shape, self.problem.n_x, theta.shape[1]
        final = theta[:, -1] if self.free else self.final[index]
        at = np.arange(m + 1) / m
        times = np.where(final > 0, final, np.nan)[:, None] * at
        p = np.repeat(self.params[index], m, axis=0)
        span = np.stack([times[:, :-1], times[:, 1:]], axis=-1).reshape(-1, 2)
        after, S, _ = integrate(self.problem, y.reshape(-1, n2), span, p, self.device)
        ends = after.reshape(num, m, n2)
        Z = np.zeros((num, m, n2, h))
        if self.free:
            whole = np.concatenate([after, np.zeros((len(after), 1))], axis=1)
            Z[..., -1] = self.speed(whole, p, span[:, 1:])[0][:, :n2].reshape(num, m, n2) / m
        last, nu = ends[:, -1].copy(), theta[:, : self.n_nu]
        conditions, slopes, in_time = self.end(last[:, :n], last[:, n:], nu, self.params[index], final[:, None])
        slopes = np.swapaxes(slopes.reshape(num, n2 + self.n_nu, -1), 1, 2)
        if self.free:
            slopes = np.concatenate([slopes, in_time.reshape(num, -1, 1)], axis=2)
        return _Point(y, theta, last, S.reshape(num, m, n2, n2), ends[:, :-1] - y[:, 1:], Z, conditions, slopes)

    def solve(self, point: _Point, tolerance: float, max_iterations: int) -> tuple[_Point, np.ndarray]:
        """Damped Newton steps of every member until its residual is below tolerance (1 + |y|); iterations (B,)."""
        iterations = np.zeros(len(point.y), dtype=int)
        active = np.isfinite(point.worst)
        for _ in range(max_iterations):
            worst, scale = point.worst, 1 + np.abs(point.y).max(axis=(1, 2))
            active &= worst > tolerance * scale
            pending = np.flatnonzero(active)
            if not len(pending):
                break
            dy, dtheta = _newton_step(point.take(pending))
            iterations[pending] += 1
            alpha = 1.0
            for _ in range(8):
                if not len(pending):
                    break
                trial = self.evaluate(pending, point.y[pending] + alpha * dy, point.theta[pending] + alpha * dtheta)
                better = trial.worst < (1 - 1e-4 * alpha) * worst[pending]
                point.put(pending[better], trial.take(np.flatnonzero(better)))
                pending, dy, dtheta = pending[~better], dy[~better], dtheta[~better]
                alpha *= 0.4
                hopeless = worst[pending] <= 1e-10 * scale[pending]  # rounding: no shorter step will help
                active[pending[hopeless]] = False
                pending, dy, dtheta = pending[~hopeless], dy[~hopeless], dtheta[~hopeless]
            active[pending] = False
        return point, iterations


# --- what users call ----------------------------------------------------------------------------------------------------


@in_turn
def solve_pontryagin(
    problem: Problem,
    guess: Trajectory,
    *,
    params: np.ndarray | None = None,
    segments: int | None = None,
    tolerance: float = 1e-12,
    max_iterations: int = 40,
    device: str | torch.device = "cpu",
) -> SolutionBatch:
    """Polish direct solutions (B trajectories with costates on uniform grids, such as `solve_many(…).trajectory`) into extremals
    of the continuous problem.

    `segments` must divide the problem's `steps`; default: one for about four of them, and one for each where that fails. Newton's
    method goes on to `tolerance` (1 + |(x, λ)|) or to rounding. States, costates, value Hessians P (λ* + PΔx; for a fixed time
    without terminal constraints) and costs lie on the problem's grid, controls in the middle of its intervals. A member that does
    not converge has the status SHOOTING_FAILED and leaves the others alone.
    """
    check_suitable(problem)
    require(
        guess.costates is not None and len(guess.batch_shape) == 1 and guess.states.shape[-1] == problem.n_x,
        "guess",
        f"hold costates and states of shape (B, N + 1, {problem.n_x})",
        "holds no costates" if guess.costates is None else f"has states of shape {guess.states.shape}",
    )
    steps, num = problem.steps, len(guess.states)
    final = np.broadcast_to(guess.times[..., -1] - guess.times[..., 0], (num,))
    wanted = max(5, steps // 4)
    m = next((k for k in range(wanted, steps) if steps % k == 0), steps) if segments is None else segments
    require(isinstance(m, int) and m > 0 and steps % m == 0, "segments", f"divide {steps} steps", f"is {segments!r}")
    free = problem.final_time is not None
    p = np.broadcast_to(check_params(problem, params, num), (num, problem.n_p))
    began = time.perf_counter()
    parts = []
    for start in range(0, num, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        shooting = _Shooting(problem, p[part], final[part], device)
        parts.append(_polished(shooting, guess[part], m, tolerance, max_iterations))
        lost = np.flatnonzero(~parts[-1]["ok"])
        if segments is None and m < steps and len(lost):  # the shorter the arcs, the wider the net
            again = _Shooting(problem, p[part][lost], final[part][lost], device)
            found = _polished(again, guess[part][lost], steps, tolerance, max_iterations)
            for key, values in parts[-1].items():
                values[lost] = found[key]
    joined: dict[str, Any] = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    paths = {name: joined.pop(name) for name in ("states", "controls", "costs", "terminal_cost", "costates", "times")}
    if not free:
        paths["times"] = paths["times"][0]
    statuses = [Status.CONVERGED if ok else Status.SHOOTING_FAILED for ok in joined.pop("ok")]
    iterations = joined.pop("iterations")
    gains, hessians = joined.pop("gains", None), joined.pop("hessians", None)
    return SolutionBatch(
        problem,
        "pontryagin",
        Trajectory(**paths),
        statuses,
        joined,
        p,
        time.perf_counter() - began,
        gains=gains,
        hessians=hessians,
        iterations=iterations,
    )


def check_suitable(problem: Problem) -> None:
    """Raise ArgumentError for a problem that `solve_pontryagin` does not take."""
    require(not problem.discrete, "problem", "have continuous dynamics", "is discrete")
    require(
        not path_constrained(problem),
        "problem",
        "have neither state bounds nor path constraints for indirect shooting",
        "has them",
    )
    require(
        problem.n_x <= LARGEST, "problem", f"have at most {LARGEST} states for batched shooting", f"has {problem.n_x}"
    )
    u, costate = problem.u, ca.SX.sym("costate", problem.n_x)
    assert problem.dynamics_function is not None  # not discrete
    arguments = problem.x, u, problem.p, problem.t
    h = problem.stage_cost_function(*arguments) + ca.dot(costate, problem.dynamics_function(*arguments))
    curvature = ca.simplify(ca.densify(ca.hessian(h, u)[0]))
    convex = lambda v: not v.is_zero() and not (v.is_constant() and float(v) < 0)
    require(
        not ca.depends_on(ca.vec(curvature), u) and all(convex(curvature[j, j]) for j in range(problem.n_u)),
        "problem",
        "have a Hamiltonian that is quadratic and convex in every control (else: solve(…, method='pontryagin'))",
        "has another",
    )
    steady = problem.final_time is None or extremals(problem).autonomous
    require(steady, "problem", "be autonomous when the final time is free", "depends on time")


def _polished(f: _Shooting, guess: Trajectory, m: int, tolerance: float, max_iterations: int) -> dict[str, Any]:
    """Everything about some members, batch first."""
    problem, n, steps = f.problem, f.problem.n_x, f.problem.steps
    assert guess.costates is not None
    num = len(guess.states)
    nodes = _at(np.concatenate([guess.states, np.nan_to_num(guess.costates)], axis=2), m)
    last, y = nodes[:, -1], nodes[:, :-1].copy()
    theta = np.zeros((num, f.n_nu + f.free))
    if f.free:
        theta[:, -1] = f.final
    if f.n_nu:  # least squares: λ(T) = φ_x + e_x'ν at the guess
        values, slopes, _ = f.end(last[:, :n], last[:, n:], theta[:, : f.n_nu], f.params, f.final[:, None])
        by_nu = np.swapaxes(slopes.reshape(num, 2 * n + f.n_nu, -1), 1, 2)[:, :n, 2 * n :]
        theta[:, : f.n_nu] = -(np.linalg.pinv(np.nan_to_num(by_nu)) @ values[:, :n, None])[..., 0]
    point, iterations = f.solve(f.evaluate(np.arange(num), y, theta), tolerance, max_iterations)

    worst, scale = point.worst, 1 + np.abs(point.y).max(axis=(1, 2))
    final = point.theta[:, -1] if f.free else f.final
    times = final[:, None] * (np.arange(steps + 1) / steps)
    path, S, costs, again = _sampled(f, point, times)
    x, costates = path[..., :n], path[..., n:]
    ends = np.concatenate([point.y[:, 1:] + point.gaps, point.last[:, None]], axis=1)
    flat = lambda a: a.reshape(-1, a.shape[-1])
    over = lambda a, length: np.repeat(a, length, axis=0)
    middle, centre = (times[:, :-1] + times[:, 1:]) / 2, (path[:, :-1] + path[:, 1:]) / 2
    control, tests = _controls(problem)
    u = control(flat(centre[..., :n]), flat(centre[..., n:]), over(f.params, steps), middle.reshape(-1, 1))
    left, products, h, size, missed = tests(flat(x), flat(costates), over(f.params, steps + 1), times.reshape(-1, 1))
    size, missed = (v.reshape(num, -1).max(axis=1) for v in (size, missed))
    phi = Batched(problem.terminal_cost_function)(x[:, -1], f.params, times[:, -1:])[0][:, 0]
    found = {
        "states": x,
        "costates": costates,
        "controls": u[0].reshape(num, steps, -1),
        "costs": costs,
        "times": times,
        "terminal_cost": phi if problem.horizon == "finite" else np.zeros(num),
        "iterations": iterations,
        "ok": (worst <= max(tolerance, 1e-10) * scale)
        & np.isfinite(costs).all(axis=1)
        & (missed <= EXCESS * (1 + size)),
        "defect": worst,
        "costate_defect": worst,
        "resimulation": np.abs(again - ends).max(axis=(1, 2)),
        "stationarity": np.maximum(left.reshape(num, -1).max(axis=1), missed),
        "complementarity": products.reshape(num, -1).max(axis=1),
        "transversality": np.abs(np.delete(point.conditions, np.arange(n, n + f.n_nu), axis=1)).max(axis=1),
    }
    if f.functions.autonomous:
        found["hamiltonian_drift"], found["hamiltonian_size"] = np.ptp(h.reshape(num, -1), axis=1), size
    costates[~found["ok"]] = np.nan  # not the gradient of anything
    if not theta.shape[1]:
        none = np.zeros
        start = -point.slopes[:, :n, :n]
        field, _, _ = sweep(
            S,
            none((num, steps, 2 * n, 0)),
            none((num, steps, 2 * n)),
            start,
            none((num, n, 0)),
            none((num, n, 1)),
            none((num, 0, n)),
            none((num, 0, 0)),
            none((num, 0, 1)),
        )
        P = np.concatenate([field[..., :n], start[:, None]], axis=1)
        found["hessians"] = (P + np.swapaxes(P, -1, -2)) / 2
        by_x, by_costate = (np.swapaxes(a.reshape(num, steps, n, problem.n_u), -1, -2) for a in u[1:])
        found["gains"] = -(by_x + by_costate @ ((found["hessians"][:, :-1] + found["hessians"][:, 1:]) / 2))
    return found


def _at(values: np.ndarray, m: int) -> np.ndarray:
    """Samples (B, N + 1, …) of a uniform grid at m + 1 equidistant points."""
    at = np.linspace(0, values.shape[1] - 1, m + 1)
    i = np.minimum(at.astype(int), values.shape[1] - 2)
    w = (at - i)[:, None]
    return (1 - w) * values[:, i] + w * values[:, i + 1]


def _sampled(f: _Shooting, point: _Point, times: np.ndarray) -> tuple[np.ndarray, ...]:
    """(x, λ) on the problem's grid, S and cost of every interval, and the ends of the segments so reached."""
    num, m, n2 = point.y.shape
    each = (times.shape[1] - 1) // m
    p = np.repeat(f.params, m, axis=0)
    y, path, S, costs = point.y.reshape(-1, n2), [], [], []
    for j in range(each):
        path.append(y.reshape(num, m, n2))
        span = np.stack([times[:, j:-1:each], times[:, j + 1 :: each]], axis=-1).reshape(-1, 2)
        y, s, cost = integrate(f.problem, y, span, p, f.device)
        S.append(s.reshape(num, m, n2, n2))
        costs.append(cost.reshape(num, m))
    interleaved = lambda parts: np.stack(parts, axis=2).reshape(num, m * each, *parts[0].shape[2:])
    last = y.reshape(num, m, n2)
    return np.concatenate([interleaved(path), last[:, -1:]], axis=1), interleaved(S), interleaved(costs), last


def _controls(problem: Problem) -> tuple[Batched, Batched]:
    """(x, λ, p, t) → u*, ∂u*/∂x, ∂u*/∂λ; and |u* − clip(u* − H_u)|, |H_u · slack|, H, the size of its terms, H(u*) − min H."""
    x, u, p, t = problem.x, problem.u, problem.p, problem.t
    costate = ca.SX.sym("costate", problem.n_x)
    h, size, slope = hamiltonian(problem)(x, u, costate, p, t)
    best = extremals(problem).control(x, costate, p, t)
    low, high = ca.SX(problem.control_low), ca.SX(problem.control_high)
    left = ca.fabs(u - ca.fmin(ca.fmax(u - slope, low), high))
    bounded = lambda distance, side: ca.if_else(np.isfinite(side), distance, 0.0)
    slack = ca.if_else(slope > 0, bounded(u - low, problem.control_low), bounded(high - u, problem.control_high))
    inputs = [x, costate, p, t]
    missed = excess(problem)(x, u, costate, p, t)
    outputs = [ca.mmax(left), ca.mmax(ca.fabs(slope * slack)), h, size, missed]
    at_best = ca.Function("at_best", [*inputs, u], outputs)(*inputs, best)
    slopes = [ca.densify(ca.jacobian(best, v)) for v in (x, costate)]
    return Batched(ca.Function("control", inputs, [best, *slopes])), Batched(
        ca.Function("tests", inputs, list(at_best))
    )
