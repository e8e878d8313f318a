"""Pontryagin's principle by indirect multiple shooting: the boundary value problem of states and costates, by Newton's method.

    H = l + λ'f,   u* = argmin_u H,   ẋ = f(x, u*),   λ̇ = −H_x,   x(0) = x0,   λ(T) = φ_x + e_x'ν,   e(x(T)) = 0
    free final time: H(T) + φ_t + e_t'ν = 0

u* is closed form where H is quadratic in u: where H_uu > 0 inside the bounds, or else the better bound (linear: the sign of the
switching function); otherwise the best of projected Newton steps from several points and of the corners. Afterwards u* is compared
with a grid of controls. Arcs between the segments' nodes are integrated by DOP853 together with
their sensitivities. Assumptions: continuous dynamics, no state or path constraints, no singular arcs. On the discontinuities of
bang-bang controls the integrator only refines: such problems reach fewer digits. Where dynamics or cost mention the time and the
final time is free, the time is one more state.
Sources: Pontryagin et al. (1962); Bryson and Ho (1975), §2.7, §7.3; Bulirsch and Stoer, Numerical Analysis (2002), §7.3.5.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import casadi as ca
import numpy as np
from scipy.integrate import solve_ivp

from optctl.errors import require
from optctl.problem import Fixed, Problem
from optctl.problem.structure import autonomous, path_constrained
from optctl.problem.trajectory import Trajectory
from optctl.shared import kept
from optctl.solvers.methods.hamiltonian import EXCESS, excess, hamiltonian
from optctl.solvers.solution import Certificate, Solution, Status

_RTOL, _ATOL = 1e-12, 1e-13
_GRACE = 1.0  # [s] to sample what Newton's method found when the time is up


@dataclass(frozen=True)
class Extremals:
    """Generated functions of one problem."""

    flow: ca.Function
    """(y, p, t) → ẏ, y = (x, λ, cost)."""
    jacobian: ca.Function
    """(y, p, t) → ∂ẏ/∂(x, λ)."""
    control: ca.Function
    """(x, λ, p, t) → u*."""
    hamiltonian: ca.Function
    """(x, λ, p, t) → H(x, u*, λ)."""
    end: ca.Function
    """(x, λ, ν, p, T) → boundary conditions at T, their Jacobian with respect to (x, λ, ν)."""
    n_end: int
    autonomous: bool


def minimiser(h: ca.SX, u: ca.SX, low: np.ndarray, high: np.ndarray) -> ca.SX:
    """u* = argmin of h over the box: closed form where h is quadratic, control by control or for up to three that are coupled; or else
    projected Newton steps from points spread over it, and its corners. NaN where h falls without limit."""
    (hessian, gradient), n_u = ca.hessian(h, u), u.numel()
    at_zero = lambda e: ca.substitute(e, u, ca.SX.zeros(n_u))
    if not ca.depends_on(ca.simplify(ca.vec(hessian)), u):
        weight, slope = ca.simplify(ca.densify(at_zero(hessian))), ca.densify(at_zero(gradient))
        for i in range(n_u):
            linear = all(weight[i, j].is_zero() for j in range(n_u))
            require(
                not linear or bool(np.isfinite([low[i], high[i]]).all()),
                "control_bounds",
                "be finite where the Hamiltonian is linear in the control",
                "are not",
            )
        if all(weight[i, j].is_zero() for i in range(n_u) for j in range(n_u) if i != j):
            rows = [_least(weight[i, i], slope[i], float(low[i]), float(high[i])) for i in range(n_u)]
            return ca.vertcat(*rows)
        if n_u <= _COUPLED:
            return _least_on_faces(weight, slope, low, high)
        if not (np.isfinite(low).any() or np.isfinite(high).any()):
            return -ca.solve(weight, slope)
    box = lambda v: ca.fmin(ca.fmax(v, ca.SX(low)), ca.SX(high))
    rest = [s for s in ca.symvar(h) if not any(s.__hash__() == v.__hash__() for v in ca.vertsplit(u))]
    others = ca.vertcat(*rest)
    one = n_u == 1  # then |H_uu| makes every step a descent
    curvature = ca.fabs(hessian) + 1e-12 if one else hessian + 1e-12 * ca.SX.eye(n_u)
    step = ca.Function("step", [u, others], [box(u - ca.solve(curvature, gradient))])
    value_of = ca.Function("value_of", [u, others], [h])
    bounded = n_u <= _COUPLED and np.isfinite([low, high]).all()
    corners = [np.where(side, high, low) for side in itertools.product((False, True), repeat=n_u)] if bounded else []
    return descended(spread(low, high), step, value_of, others, corners)


_COUPLED = 3
"""Controls up to which all faces of their box are looked at."""


def _least(weight: ca.SX, slope: ca.SX, low: float, high: float) -> ca.SX:
    """argmin of ½ w u² + s u between the bounds: where the slope vanishes if w > 0, or else the better bound."""
    inside = ca.fmin(ca.fmax(-slope / weight, low), high)
    if weight.is_constant() and float(weight) > 0:
        return inside
    ends = np.isfinite([low, high]).all()
    edge = ca.if_else((slope + weight * (low + high) / 2) > 0, low, high) if ends else ca.SX(np.nan)
    return edge if weight.is_constant() else ca.if_else(weight > 0, inside, edge)


def _least_on_faces(weight: ca.SX, slope: ca.SX, low: np.ndarray, high: np.ndarray) -> ca.SX:
    """argmin of ½ u'Wu + s'u over a box: the best of the points where the slope vanishes along one of its faces."""
    n_u = len(low)
    value_of = lambda u: ca.bilin(weight, u, u) / 2 + ca.dot(slope, u)
    sides = [[side for side in ("low", "high") if np.isfinite({"low": low, "high": high}[side][i])] for i in range(n_u)]
    best, value = ca.SX.nan(n_u, 1), ca.SX(np.inf)
    for face in itertools.product(*([*side, "free"] for side in sides)):
        free = [i for i, side in enumerate(face) if side == "free"]
        u = ca.SX([low[i] if side == "low" else high[i] if side == "high" else 0.0 for i, side in enumerate(face)])
        lowest = ca.SX(1)
        if free:
            block = weight[free, free]
            u[free] = -ca.solve(block, (ca.mtimes(weight, u) + slope)[free])
            minors = [ca.det(block[: k + 1, : k + 1]) > 0 for k in range(len(free))]
            within = [ca.logic_and(u[i] >= float(low[i]), u[i] <= float(high[i])) for i in free]
            for test in [*minors, *within]:
                lowest = ca.logic_and(lowest, test)
        candidate = ca.if_else(lowest, value_of(u), ca.inf)
        better = candidate < value
        best, value = ca.if_else(better, u, best), ca.if_else(better, candidate, value)
    return best


def descended(
    starts: Sequence[np.ndarray],
    step: ca.Function,
    value_of: ca.Function,
    others: ca.SX,
    corners: Sequence[np.ndarray] = (),
) -> ca.SX:
    """Of what twenty of `step` make of each start, and of `corners`, the one with the least value; both take (u, others)."""
    best = None
    for i, start in enumerate([*starts, *corners]):
        value = ca.SX(start)
        for _ in range(20 if i < len(starts) else 0):
            value = step(value, others)
        best = value if best is None else ca.if_else(value_of(value, others) < value_of(best, others), value, best)
    assert best is not None
    return best


def spread(low: np.ndarray, high: np.ndarray) -> list[np.ndarray]:
    """In one dimension points of a finite box, or over a turn where there are no bounds (an angle is the usual unbounded control
    with several minima of H); otherwise the admissible control nearest to zero."""
    if len(low) == 1 and np.isfinite(low).all() and np.isfinite(high).all():
        return [low + fraction * (high - low) for fraction in (0.1, 0.3, 0.5, 0.7, 0.9)]
    if len(low) == 1 and not (np.isfinite(low).any() or np.isfinite(high).any()):
        return [np.array([turn * np.pi]) for turn in (0.0, -0.8, -0.4, 0.4, 0.8)]
    return [np.clip(np.zeros(len(low)), low, high)]


@kept
def extremals(problem: Problem) -> Extremals:
    """The functions, built once."""
    n, x, u, p, t = problem.n_x, problem.x, problem.u, problem.p, problem.t
    costate = ca.SX.sym("costate", n)
    assert problem.dynamics_function is not None  # not discrete
    f, cost = problem.dynamics_function(x, u, p, t), problem.stage_cost_function(x, u, p, t)
    h = cost + ca.dot(costate, f)
    best = minimiser(h, u, problem.control_low, problem.control_high)
    h_x = ca.gradient(h, x)
    with_best = ca.Function("with_best", [x, costate, u, p, t], [f, -h_x, cost, h])
    rates = with_best(x, costate, best, p, t)
    y = ca.SX.sym("y", 2 * n + 1)
    flow = ca.Function("flow0", [x, costate, p, t], [ca.vertcat(*rates[:3])])
    out = flow(y[:n], y[n : 2 * n], p, t)
    nu = ca.SX.sym("nu", 0)
    e = ca.SX.zeros(0, 1)
    if problem.terminal_constraint_function is not None:
        e = problem.terminal_constraint_function(x, p, t)
        nu = ca.SX.sym("nu", e.numel())
    phi = ca.SX(0) if problem.horizon == "infinite" else problem.terminal_cost_function(x, p, t)
    lagrangian = phi + (ca.dot(nu, e) if e.numel() else 0)
    conditions = ca.vertcat(costate - ca.gradient(lagrangian, x), e)
    if problem.final_time is not None:
        conditions = ca.vertcat(conditions, rates[3] + ca.gradient(lagrangian, t))
    unknowns = ca.vertcat(x, costate, nu)
    return Extremals(
        flow=ca.Function("flow", [y, p, t], [out]),
        jacobian=ca.Function("flow_jacobian", [y, p, t], [ca.densify(ca.jacobian(out, y[: 2 * n])[: 2 * n, :])]),
        control=ca.Function("control", [x, costate, p, t], [best]),
        hamiltonian=ca.Function("hamiltonian", [x, costate, p, t], [rates[3]]),
        end=ca.Function(
            "end",
            [x, costate, nu, p, t],
            [
                ca.densify(conditions),
                ca.densify(ca.jacobian(conditions, unknowns)),
                ca.densify(ca.jacobian(conditions, t)),
            ],
        ),
        n_end=e.numel(),
        autonomous=autonomous(problem),
    )


def integrate_arc(
    functions: Any, y0: np.ndarray, p: np.ndarray, start: float, stop: float, deadline: float
) -> tuple[np.ndarray, np.ndarray]:
    """Integrate (x, λ, cost) with sensitivities from start to stop: (y, ∂(x, λ)/∂(x, λ)₀); NaN if it explodes or the time is up.
    `functions` holds `flow` and `jacobian`."""
    m = len(y0) - 1

    def rate(t: float, z: np.ndarray) -> np.ndarray:
        y, s = z[: m + 1], z[m + 1 :].reshape(m, m)
        check_flight(y, deadline)
        return np.concatenate(
            [np.asarray(functions.flow(y, p, t)).ravel(), (np.asarray(functions.jacobian(y, p, t)) @ s).ravel()]
        )

    try:
        with np.errstate(all="ignore"):
            run = solve_ivp(
                rate, (start, stop), np.concatenate([y0, np.eye(m).ravel()]), method="DOP853", rtol=_RTOL, atol=_ATOL
            )
    except Abandoned:
        return np.full(m + 1, np.nan), np.full((m, m), np.nan)
    if run.status != 0 or not np.isfinite(run.y[:, -1]).all():
        return np.full(m + 1, np.nan), np.full((m, m), np.nan)
    return run.y[: m + 1, -1], run.y[m + 1 :, -1].reshape(m, m)


@kept
def clocked(problem: Problem) -> Problem:
    """The same problem with the time as its last state, so that nothing else mentions it."""
    n, name = problem.n_x, "clock" + "_" * sum(s.startswith("clock") for s in problem.state)
    f, cost, end = problem.dynamics_function, problem.stage_cost_function, problem.terminal_cost_function
    path, last = problem.path_constraint_function, problem.terminal_constraint_function
    p_of = lambda p: ca.vertcat(*[getattr(p, q) for q in problem.params])
    assert f is not None  # not discrete
    return problem.replace(
        state={**dict.fromkeys(problem.state, ""), name: "s"},
        initial_state=Fixed(np.append(problem.initial_state.location, 0.0)),
        dynamics=lambda x, u, p: ca.vertcat(f(x[:n], u, p_of(p), x[n]), 1.0),
        stage_cost=lambda x, u, p: cost(x[:n], u, p_of(p), x[n]),
        terminal_cost=None if problem.terminal_cost is None else lambda x, p: end(x[:n], p_of(p), x[n]),
        terminal_constraints=None if last is None else lambda x, p: last(x[:n], p_of(p), x[n]),
        path_constraints=None if path is None else lambda x, u, p: path(x[:n], u, p_of(p), x[n]),
        diffusion=None,
        observation=None,
        observation_names=(),
        observation_noise=0.0,
    )


def on_a_clock(
    method: Callable[..., Solution], problem: Problem, x0: np.ndarray, guess: Trajectory, **options: Any
) -> Solution:
    """Solve `clocked(problem)` from the guess, and take the clock off again."""
    assert guess.costates is not None
    times = (guess.times - guess.times[0])[:, None]
    plan = dataclasses.replace(
        guess, states=np.hstack([guess.states, times]), costates=np.hstack([guess.costates, 0 * times])
    )
    found = method(clocked(problem), np.append(x0, 0.0), plan, **options)
    way = found.trajectory
    costates = None if way.costates is None else way.costates[:, :-1]
    return found.replace(trajectory=dataclasses.replace(way, states=way.states[:, :-1], costates=costates))


class Abandoned(ArithmeticError):
    """An arc that explodes or takes too long."""


def check_flight(y: np.ndarray, deadline: float) -> None:
    """Raise `Abandoned` for what explodes, or after the deadline (`time.perf_counter`)."""
    if not np.abs(y).max() < 1e8 or time.perf_counter() > deadline:
        raise Abandoned


def check_suitable(problem: Problem) -> None:
    """Raise ArgumentError for a problem that `shoot` does not take."""
    require(not problem.discrete, "problem", "have continuous dynamics", "is discrete")
    require(
        not path_constrained(problem),
        "problem",
        "have neither state bounds nor path constraints for indirect shooting",
        "has them",
    )
    extremals(problem)


def shoot(
    problem: Problem,
    x0: np.ndarray,
    guess: Trajectory,
    *,
    params: np.ndarray | None = None,
    segments: int | None = None,
    tolerance: float = 1e-10,
    max_iterations: int = 40,
    time_limit: float = 60.0,
) -> Solution:
    """Newton on the boundary conditions from a trajectory with costates; options as in `optctl.solvers.solve_pontryagin`."""
    check_suitable(problem)
    started = time.perf_counter()
    p = problem.param_values if params is None else np.asarray(params, dtype=float)
    n, functions = problem.n_x, extremals(problem)
    x0 = np.asarray(x0, dtype=float)
    require(guess.costates is not None, "guess", "hold costates", "holds none")
    assert guess.costates is not None
    slopes = np.nan_to_num(guess.costates)
    guess = dataclasses.replace(guess, costates=slopes)
    if problem.final_time is not None and not functions.autonomous:
        left = time_limit - (time.perf_counter() - started)
        options = {"segments": segments, "tolerance": tolerance, "max_iterations": max_iterations, "time_limit": left}
        return on_a_clock(shoot, problem, x0, guess, params=p, **options)
    final, end_costate = float(guess.times[-1] - guess.times[0]), slopes[-1]
    m = max(5, int(np.ceil(final))) if segments is None else segments
    require(isinstance(m, int) and m > 0, "segments", "be a positive integer", f"is {segments!r}")
    free = problem.final_time is not None
    interpolate = lambda values: np.stack(
        [np.interp(np.linspace(0, final, m + 1), guess.times - guess.times[0], v) for v in values.T], axis=1
    )
    nodes = np.concatenate([interpolate(guess.states), interpolate(slopes)], axis=1)[:m]
    nodes[0, :n] = x0
    nu: np.ndarray = np.zeros(functions.n_end)

    def gaps(nodes: np.ndarray, nu: np.ndarray, final: float):
        """Residual, its Jacobian in (λ_0, y_1, …, y_{m−1}, ν, T)."""
        size = 2 * n * m - n + len(nu) + free
        residual, jacobian = [], np.zeros((size, size))
        if free and not final > 0:
            return np.full(size, np.nan), jacobian
        h, row = final / m, 0
        column = lambda k: slice(0, n) if k == 0 else slice(2 * n * k - n, 2 * n * (k + 1) - n)
        for k in range(m):
            y, s = integrate_arc(functions, np.append(nodes[k], 0.0), p, k * h, (k + 1) * h, started + time_limit)
            if not np.isfinite(y).all():
                return np.full(size, np.nan), jacobian
            s = s[:, n:] if k == 0 else s
            speed = np.asarray(functions.flow(y, p, (k + 1) * h)).ravel()[: 2 * n]
            if k < m - 1:
                residual.append(y[: 2 * n] - nodes[k + 1])
                jacobian[row : row + 2 * n, column(k)] = s
                jacobian[row : row + 2 * n, column(k + 1)] = -np.eye(2 * n)
                if free:
                    jacobian[row : row + 2 * n, -1] = speed / m
                row += 2 * n
            else:
                values, slope, in_time = (np.asarray(v) for v in functions.end(y[:n], y[n : 2 * n], nu, p, final))
                residual.append(values.ravel())
                jacobian[row:, column(k)] = slope[:, : 2 * n] @ s
                if len(nu):
                    jacobian[row:, 2 * n * m - n : 2 * n * m - n + len(nu)] = slope[:, 2 * n :]
                if free:
                    jacobian[row:, -1] += slope[:, : 2 * n] @ speed / m + in_time.ravel()
        return np.concatenate(residual), jacobian

    if len(nu):  # least squares: λ(T) = φ_x + e_x'ν at the guess
        values, slope, _ = (np.asarray(v) for v in functions.end(guess.states[-1], end_costate, nu, p, final))
        nu = np.linalg.lstsq(slope[:n, 2 * n :], -values.ravel()[:n], rcond=None)[0]
    start = np.concatenate([nodes.ravel()[n:], nu, [final] if free else []])

    def split(z: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        ends = 2 * n * m - n
        nodes = np.concatenate([x0, z[:ends]]).reshape(m, 2 * n)
        return nodes, z[ends : ends + len(nu)], float(z[-1]) if free else final

    deadline = started + time_limit
    finite = np.isfinite(gaps(*split(start))[0]).all()
    z, worst, iterations = newton(lambda z: gaps(*split(z)), start, tolerance, max_iterations, deadline)
    nodes, nu, final = split(z)
    if worst <= 1e-7 * (1 + np.abs(nodes).max()):
        status = Status.CONVERGED
    elif time.perf_counter() > deadline:
        status = Status.TIME_LIMIT
    else:
        status = Status.MAX_ITERATIONS if iterations == max_iterations else Status.SHOOTING_FAILED
    message = "" if finite or status is Status.TIME_LIMIT else _NOWHERE
    return _solution(
        problem,
        functions,
        nodes,
        nu,
        final,
        p,
        worst,
        status,
        iterations,
        time.perf_counter() - started,
        message,
        deadline,
    )


_NOWHERE = (
    "the extremal through the guess is not finite: a control leaves the domain of a logarithm or root (bound it away from there), H falls "
    "without limit in a control, or the motion explodes (use more segments)"
)


def newton(
    function: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    z: np.ndarray,
    tolerance: float,
    max_iterations: int,
    deadline: float,
) -> tuple[np.ndarray, float, int]:
    """Damped Gauss–Newton on r(z) = 0, function(z) → (r, ∂r/∂z): (z, max |r|, iterations). NaN residuals are refused steps; it
    ends at max |r| ≤ tolerance (1 + max |z|), without further descent, or at the deadline (`time.perf_counter`)."""
    residual, jacobian = function(z)
    iteration = 0
    while iteration < max_iterations and time.perf_counter() < deadline:
        if not np.max(np.abs(residual)) > tolerance * (1 + np.abs(z).max()):
            break
        iteration += 1
        step = np.linalg.lstsq(jacobian, -residual, rcond=1e-14)[0]
        for alpha in 0.4 ** np.arange(8):
            trial = function(z + alpha * step)
            if np.linalg.norm(trial[0]) < (1 - 1e-4 * alpha) * np.linalg.norm(residual):
                z, (residual, jacobian) = z + alpha * step, trial
                break
        else:
            break
    return z, float(np.max(np.abs(residual))), iteration


def _solution(
    problem, functions, nodes, nu, final, p, worst, status, iterations, wall_time, message, deadline
) -> Solution:
    """Sample the arcs at the problem's own `steps` and measure the certificate."""
    n, m, steps = problem.n_x, len(nodes), problem.steps
    times = np.linspace(0, final, steps + 1)
    y = np.full((steps + 1, 2 * n + 1), np.nan)
    offset, limit = 0.0, max(deadline, time.perf_counter() + _GRACE)
    for k in range(m):
        start, stop = final * k / m, final * (k + 1) / m
        inside = np.flatnonzero((times >= start - 1e-12) & (times <= stop + 1e-12))

        def rate(t: float, z: np.ndarray) -> np.ndarray:
            check_flight(z, limit)
            return np.asarray(functions.flow(z, p, t)).ravel()

        try:
            with np.errstate(all="ignore"):
                run = solve_ivp(
                    rate,
                    (start, stop),
                    np.append(nodes[k], offset),
                    method="DOP853",
                    rtol=_RTOL,
                    atol=_ATOL,
                    dense_output=True,
                )
            if len(inside):
                y[inside] = run.sol(np.clip(times[inside], start, stop)).T
            offset = run.y[-1, -1]
        except Abandoned:
            status = Status.SHOOTING_FAILED
    x, costates = y[:, :n], y[:, n : 2 * n]
    middle = (times[:-1] + times[1:]) / 2
    centre = (y[:-1] + y[1:]) / 2
    controls = np.asarray(functions.control(centre[:, :n].T, centre[:, n : 2 * n].T, p, middle[None])).T
    phi = float(problem.terminal_cost_function(x[-1], p, final)) if problem.horizon == "finite" else 0.0
    u = np.asarray(functions.control(x.T, costates.T, p, times[None]))
    h, terms, slope = (np.asarray(v) for v in hamiltonian(problem)(x.T, u, costates.T, p, times[None]))
    left = np.abs(u.T - np.clip(u.T - slope.T, problem.control_low, problem.control_high))
    missed, size = float(np.max(np.asarray(excess(problem)(x.T, u, costates.T, p, times[None])))), float(terms.max())
    if status.ok and not missed <= EXCESS * (1 + size):
        status, message = Status.SHOOTING_FAILED, f"the control misses the minimum of the Hamiltonian by {missed:.2g}"
    if not status.ok:
        costates = np.full_like(costates, np.nan)  # not the gradient of anything
    last = len(functions_end := np.asarray(functions.end(y[-1, :n], y[-1, n : 2 * n], nu, p, final)[0]).ravel())
    ends = functions_end[n : n + functions.n_end]
    certificate = Certificate(
        defect=worst,
        resimulation=worst,
        stationarity=float(np.maximum(np.max(left), missed)),
        costate_defect=worst,
        hamiltonian_drift=float(np.ptp(h)) if functions.autonomous else None,
        hamiltonian_size=size if functions.autonomous else None,
        transversality=float(np.max(np.abs(np.delete(functions_end, np.arange(n, n + functions.n_end))), initial=0.0))
        if last
        else 0.0,
        constraint_violation=float(np.max(np.abs(ends), initial=0.0)),
    )
    trajectory = Trajectory(
        times=times,
        states=x,
        controls=controls,
        costs=np.diff(y[:, -1]),
        terminal_cost=np.asarray(phi),
        costates=costates,
    )
    return Solution(
        problem=problem.name,
        solver="pontryagin",
        trajectory=trajectory,
        status=status,
        certificate=certificate,
        wall_time=wall_time,
        iterations=iterations,
        message=message,
    )
