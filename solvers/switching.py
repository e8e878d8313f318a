"""Indirect shooting over arcs: the switching structure is read off a direct solution, then switch times, states and costates are
polished by Newton's method to the accuracy of the integrator.

Every control is, on each arc, at its lower or upper bound, or free. With H = l + λ'f:

    regular free control     u = argmin H,                      junction with a bound: H_u(u at the bound) = 0
    bang-bang junction       H_u = 0
    singular free control    u from d²H_u/dt² = 0,              entry: H_u = 0 and dH_u/dt = 0; exit: nothing more
    state on its bound S = 0 of order q: u from S^(q) = 0,      λ̇ = −H_x − μ S^(q)_x, μ = −H_u/S^(q)_u,
                             entry: S = … = S^(q−1) = 0 and λ⁻ = λ⁺ + (S, …, S^(q−1))_x'π; both ends: the control is
                             continuous (regular) or H_u = 0 (linear)

The unknowns are λ(0), (x, λ) at the start of every later arc, the durations, π and the multipliers of the terminal conditions.
Where no costate fits, the extremal may be abnormal: H = λ'f without the cost, λ(0) of unit length. Its solution says so.
Assumptions: continuous dynamics (the time becomes a state where they mention it), no path constraints, one control where a state
bound is active, singular arcs of order one. Sources: Bryson and Ho, Applied Optimal Control (1975), §3.11 and §8.3; Bulirsch,
Montrone, Pesch, JOTA 70 (1991) 1; Maurer, SIAM J. Control Optim. 14 (1976) 345.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise

import casadi as ca
import numpy as np
from scipy.integrate import solve_ivp

from optctl.errors import require
from optctl.problem import Problem
from optctl.solvers.pontryagin import Abandoned, autonomous, check_flight, integrate_arc, minimiser, newton, on_a_clock
from optctl.solvers.solution import Certificate, Solution, Status
from optctl.trajectory import Trajectory

Mode = tuple[str, ...]
"""Per control "low", "high" or "free"; or ("state", name, "low" or "high") where a state runs along its bound."""


class Unsupported(Exception):
    """An arc for which there is no formula here."""


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
    """(x, λ, p) → H_u, dH_u/dt (all controls, at this arc's control)."""
    hamiltonian: ca.Function
    """(x, λ, p) → H."""
    tangency: ca.Function | None
    """(x, p) → S, …, S^(q−1); `None` where no state bound is active."""
    boundary_rate: ca.Function | None
    """(x, u, p) → S^(q)."""
    multiplier: ca.Function | None
    """(x, λ, p) → μ."""
    singular: bool

    @property
    def label(self) -> str:
        kind = "singular" if self.singular else None
        return (
            " ".join(self.mode[1:])
            if self.mode[0] == "state"
            else ", ".join(kind or m if m == "free" else m for m in self.mode)
        )


_BUILT: weakref.WeakKeyDictionary[Problem, dict[tuple[Mode, bool], Arc]] = weakref.WeakKeyDictionary()


def arc(problem: Problem, mode: Mode, normal: bool = True) -> Arc:
    """The functions of one kind of arc, built once; H without the cost where the extremal is not `normal`."""
    built = _BUILT.setdefault(problem, {})
    if (mode, normal) not in built:
        built[mode, normal] = _build(problem, mode, normal)
    return built[mode, normal]


def _build(problem: Problem, mode: Mode, normal: bool) -> Arc:
    n, x, u, p, t = problem.n_x, problem._x, problem._u, problem._p, problem._t
    assert problem.dynamics_function is not None  # not discrete
    lam = ca.SX.sym("costate", n)
    f, cost = problem.dynamics_function(x, u, p, 0.0), problem.stage_cost_function(x, u, p, 0.0)
    h = normal * cost + ca.dot(lam, f)
    h_u, h_x = ca.densify(ca.gradient(h, u)), ca.gradient(h, x)
    tangency = rate = mu = None
    singular = False
    if mode[0] == "state":
        best, chain, top = _on_the_bound(problem, mode, f)
        mu_of = -h_u[0] / ca.jacobian(top, u)[0]
        h_x = h_x + mu_of * ca.gradient(top, x)
        mu = ca.substitute(mu_of, u, best)
        tangency, rate = ca.Function("tangency", [x, p], [chain]), ca.Function("boundary_rate", [x, u, p], [top])
    else:
        best, singular = _control(problem, mode, h, f, h_x, h_u, lam)
    total = lambda e: ca.jtimes(e, x, f) - ca.jtimes(e, lam, h_x)
    put = lambda e: ca.substitute(e, u, best)
    y = ca.SX.sym("y", 2 * n + 1)
    out = ca.substitute(ca.substitute(put(ca.vertcat(f, -h_x, cost)), x, y[:n]), lam, y[n : 2 * n])
    return Arc(
        mode=mode,
        flow=ca.Function("flow", [y, p, t], [ca.densify(out)]),
        jacobian=ca.Function("flow_jacobian", [y, p, t], [ca.densify(ca.jacobian(out, y[: 2 * n])[: 2 * n, :])]),
        control=ca.Function("control", [x, lam, p], [ca.densify(best)]),
        slopes=ca.Function("slopes", [x, lam, p], [put(h_u), ca.densify(put(total(h_u)))]),
        hamiltonian=ca.Function("hamiltonian", [x, lam, p], [put(h)]),
        tangency=tangency,
        boundary_rate=rate,
        multiplier=None if mu is None else ca.Function("multiplier", [x, lam, p], [mu]),
        singular=singular,
    )


def _control(problem, mode, h, f, h_x, h_u, lam) -> tuple[ca.SX, bool]:
    """u on an arc where every control is at a bound or free, and whether the free one is singular."""
    x, u = problem._x, problem._u
    fixed = {"low": problem.control_low, "high": problem.control_high}
    best = ca.vertcat(*[u[i] if m == "free" else float(fixed[m][i]) for i, m in enumerate(mode)])
    free = [i for i, m in enumerate(mode) if m == "free"]
    if not free:
        return best, False
    at = lambda e: ca.substitute(e, u, best)
    v = ca.vertcat(*[u[i] for i in free])
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
        return ca.substitute(best, v, value), True
    low, high = problem.control_low[free], problem.control_high[free]
    if _vanishes(ca.jacobian(curvature, v)):  # quadratic: off the bounds, which are checked afterwards
        low, high = np.full(len(free), -np.inf), np.full(len(free), np.inf)
    value = minimiser(at(h), v, low, high)
    return ca.substitute(best, v, value), False


def _vanishes(expression: ca.SX) -> bool:
    """Zero at random points: cancellations that no simplification of the symbols sees."""
    symbols = ca.symvar(expression)
    if not symbols:
        return bool(np.allclose(np.asarray(ca.DM(expression)), 0.0))
    values = ca.Function("values", [ca.vertcat(*symbols)], [expression])
    points = np.random.default_rng(0).uniform(0.5, 1.5, (5, len(symbols)))
    return all(np.abs(np.asarray(values(point))).max(initial=0.0) < 1e-11 for point in points)


def _on_the_bound(problem: Problem, mode: Mode, f: ca.SX) -> tuple[ca.SX, ca.SX, ca.SX]:
    """(u, (S, …, S^(q−1)), S^(q)) for a state that runs along its bound."""
    x, u = problem._x, problem._u
    if problem.n_u != 1:
        raise Unsupported("a state bound with several controls")
    i = list(problem.state).index(mode[1])
    bound = problem.state_high[i] if mode[2] == "high" else problem.state_low[i]
    sign = 1.0 if mode[2] == "high" else -1.0
    chain = [sign * (x[i] - float(bound))]
    while True:
        top = ca.jtimes(chain[-1], x, f)
        slope = ca.jacobian(top, u)
        if not _vanishes(slope):
            break
        chain.append(ca.substitute(top, u, ca.SX(0)))
        if len(chain) > problem.n_x:
            raise Unsupported("a state bound that no control reaches")
    if not _vanishes(ca.jacobian(slope, u)):
        raise Unsupported("a state bound whose control is not linear")
    return -ca.substitute(top, u, ca.SX(0)) / slope, ca.vertcat(*chain), top


# --- structure ----------------------------------------------------------------------------------------------------------


def structures(problem: Problem, plan: Trajectory) -> Iterator[list[tuple[Mode, int]]]:
    """Candidate structures of a direct solution, (mode, number of intervals) each: sharp switches first, then averaged ones."""
    seen = []
    for window, shortest, touch in ((1, 2, 1e-6), (1, 4, 1e-3), (5, 7, 1e-3), (9, 13, 1e-3)):
        found = _structure(problem, plan, window, shortest, touch)
        names = [mode for mode, _ in found]
        if names not in seen:
            seen.append(names)
            yield found


def _structure(problem: Problem, plan: Trajectory, window: int, shortest: int, touch: float) -> list[tuple[Mode, int]]:
    low, high = problem.control_low, problem.control_high
    u = plan.controls
    if window > 1:
        padded = np.pad(u, ((window // 2, window // 2), (0, 0)), mode="edge")
        u = np.stack([np.convolve(column, np.ones(window) / window, "valid") for column in padded.T], axis=1)
    width = np.where(np.isfinite(high - low), high - low, 1.0)
    labels = np.where(u <= low + 0.01 * width, "low", np.where(u >= high - 0.01 * width, "high", "free"))
    labels = np.stack([_absorb(column, shortest) for column in labels.T], axis=1)
    modes: list[Mode] = [tuple(str(m) for m in row) for row in labels]
    for i, name in enumerate(problem.state):
        for side, bound in (("low", problem.state_low[i]), ("high", problem.state_high[i])):
            if np.isfinite(bound):
                touches = np.abs(plan.states[:, i] - bound) < touch * np.ptp(plan.states[:, i])
                for k in np.flatnonzero(touches[:-1] & touches[1:]):
                    modes[k] = ("state", name, side)
    return [(mode, len(list(run))) for mode, run in groupby(modes)]


def _absorb(labels: np.ndarray, shortest: int) -> np.ndarray:
    """Free runs shorter than `shortest` are a switch inside an interval: half goes to either neighbour."""
    labels = labels.copy()
    edges = np.concatenate([[0], np.flatnonzero(labels[1:] != labels[:-1]) + 1, [len(labels)]])
    for a, b in pairwise(edges):
        if labels[a] == "free" and b - a < shortest and b - a < len(labels):
            before = labels[a - 1] if a else labels[b]
            after = labels[b] if b < len(labels) else before
            labels[a : (a + b + 1) // 2], labels[(a + b + 1) // 2 : b] = before, after
    return labels


# --- the boundary value problem -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Conditions:
    """Everything that has to vanish besides the arcs' own equations, as functions of the unknowns z and the arcs' ends."""

    arcs: list[Arc]
    value: ca.Function
    """(z, ends (2n, m), x0, p) → r, ∂r/∂z, ∂r/∂vec(ends)."""
    starts: list[slice]
    durations: slice
    size: int
    normal: bool


def _conditions(problem: Problem, modes: list[Mode], normal: bool) -> _Conditions:
    n, m = problem.n_x, len(modes)
    arcs = [arc(problem, mode, normal) for mode in modes]
    p, x0, ends = problem._p, ca.SX.sym("x0", n), ca.SX.sym("ends", 2 * n, m)
    jumps = [a.tangency.numel_out(0) if a.tangency is not None else 0 for a in arcs]
    n_end = 0 if problem.terminal_constraint_function is None else problem.terminal_constraint_function.numel_out(0)
    sizes = [n] + [2 * n] * (m - 1) + [m, sum(jumps), n_end]
    z = ca.SX.sym("z", sum(sizes))
    parts = ca.vertsplit(z, np.concatenate([[0], np.cumsum(sizes)]).tolist())
    starts, durations, pi, nu = parts[:m], parts[m], parts[m + 1], parts[m + 2]
    r, used = [] if normal else [ca.sumsqr(starts[0]) - 1], 0
    for k in range(m):
        before, after = arcs[k - 1] if k else None, arcs[k]
        x = x0 if k == 0 else starts[k][:n]
        lam = starts[0] if k == 0 else starts[k][n:]
        if after.tangency is not None and before is None:
            raise Unsupported("a start on a state bound")
        if before is None:
            continue
        x_end, lam_end = ends[:n, k - 1], ends[n:, k - 1]
        jump = ca.SX.zeros(n)
        if after.tangency is not None:
            chain = after.tangency(x_end, p)
            s = ca.SX.sym("s", n)
            slope = ca.Function("slope", [s, p], [ca.jacobian(after.tangency(s, p), s)])
            jump = slope(x_end, p).T @ pi[used : used + jumps[k]]
            used += jumps[k]
            r.append(chain)
        r += [x_end - x, lam_end - lam - jump]
        r.append(_junction(problem, before, after, x_end, lam_end, x, lam))
    last_x, last_lam, final = ends[:n, -1], ends[n:, -1], ca.sum1(durations)
    lagrangian, s, t = ca.SX(0), ca.SX.sym("s", n), ca.SX.sym("t")
    if problem.horizon == "finite":
        lagrangian += normal * problem.terminal_cost_function(s, p, t)
    if problem.terminal_constraint_function is not None:
        e = problem.terminal_constraint_function(s, p, t)
        lagrangian += ca.dot(nu, e)
        r.append(ca.substitute(ca.substitute(e, s, last_x), t, final))
    at_end = lambda e: ca.substitute(ca.substitute(e, s, last_x), t, final)
    r.append(last_lam - at_end(ca.gradient(lagrangian, s)))
    if problem.final_time is None:
        r.append(final - problem.duration)
    else:
        r.append(arcs[-1].hamiltonian(last_x, last_lam, p) + at_end(ca.gradient(lagrangian, t)))
    residual = ca.vertcat(*r)
    outputs = [residual, ca.jacobian(residual, z), ca.jacobian(residual, ca.vec(ends))]
    edges = np.cumsum([0, *sizes])
    return _Conditions(
        arcs,
        ca.Function("conditions", [z, ends, x0, p], [ca.densify(o) for o in outputs]),
        [slice(int(edges[k]), int(edges[k + 1])) for k in range(m)],
        slice(int(edges[m]), int(edges[m + 1])),
        int(edges[-1]),
        normal,
    )


def _junction(problem: Problem, before: Arc, after: Arc, x_end, lam_end, x, lam) -> ca.SX:
    """What makes the switch time stationary."""
    p = problem._p
    if after.boundary_rate is not None or before.boundary_rate is not None:
        edge, other, x_, lam_ = (
            (after, before, x_end, lam_end) if after.boundary_rate is not None else (before, after, x, lam)
        )
        if other.mode == ("free",) and not other.singular:
            return edge.boundary_rate(x_, other.control(x_, lam_, p), p)  # type: ignore[misc]
        return other.slopes(x_, lam_, p)[0]
    rows = []
    for i, (old, new) in enumerate(zip(before.mode, after.mode, strict=True)):
        if old == new:
            continue
        if new == "free" and after.singular:
            value, rate = before.slopes(x_end, lam_end, p)
            rows += [value[i], rate[i]]
        elif new == "free":
            rows.append(before.slopes(x_end, lam_end, p)[0][i])
        elif not (old == "free" and before.singular):
            rows.append(after.slopes(x, lam, p)[0][i])
    return ca.vertcat(*rows)


def solve_switching(
    problem: Problem,
    x0: np.ndarray,
    *,
    params: np.ndarray | None = None,
    guess: Trajectory | Solution | None = None,
    tolerance: float = 1e-10,
    max_iterations: int = 40,
    time_limit: float = 20.0,
) -> Solution:
    """Polish a direct solution (`guess`; default: multiple shooting, then collocation, from several guesses) to the
    extremal with its switching structure; `Solution.arcs` names the arcs with their durations [s]."""
    require(not problem.discrete, "problem", "have continuous dynamics", "is discrete")
    require(problem.path_constraints is None, "problem", "have no path constraints for shooting over arcs", "has them")
    started = time.perf_counter()
    p = problem.param_values if params is None else np.asarray(params, dtype=float)
    x0 = np.asarray(x0, dtype=float)
    if guess is None:
        from optctl.solvers.multistart import solve_many

        best: Solution | None = None
        for method in ("multiple_shooting", "collocation"):
            left = time_limit - (time.perf_counter() - started)
            if best is not None and (best.ok or left < 0):
                break
            direct = solve_many(
                problem, x0[None], method=method, params=p, tolerance=1e-9, processes=1, time_limit=max(left / 2, 1.0)
            )[0]
            polished = solve_switching(
                problem, x0, params=params, guess=direct, tolerance=tolerance, max_iterations=max_iterations,
                time_limit=time_limit / 2,
            )  # fmt: skip
            best = polished if best is None or polished.ok else best
        assert best is not None
        return best.replace(wall_time=time.perf_counter() - started)
    plan = guess.trajectory if isinstance(guess, Solution) else guess
    require(plan.costates is not None, "guess", "hold costates", "holds none")
    if not autonomous(problem):
        options = {"tolerance": tolerance, "max_iterations": max_iterations, "time_limit": time_limit}
        return on_a_clock(solve_switching, problem, x0, plan, params=p, **options)
    best = None
    found = list(structures(problem, plan)) if np.isfinite(plan.states).all() else []
    for arcs, abnormal in _attempts(problem, plan, found):
        if len(arcs) > 40 or time.perf_counter() - started > time_limit:
            continue
        try:
            solution = _shoot(problem, x0, p, plan, arcs, abnormal, tolerance, max_iterations, started, time_limit)
        except Unsupported as reason:
            solution = _failed(problem, plan, started, f"{reason} has no formula here")
        if best is None or (solution.ok and not best.ok):
            best = solution
        if best.ok:
            break
    return best or _failed(problem, plan, started, "no switching structure was recognised")


def _attempts(problem: Problem, plan: Trajectory, found: list) -> Iterator[tuple[list[tuple[Mode, int]], float | None]]:
    """Every structure as a normal extremal; then, where the end is constrained, as an abnormal one with the direct costates, scaled
    to |λ(0)| = 1 by ± the second entry, as guess."""
    yield from ((arcs, None) for arcs in found)
    assert plan.costates is not None
    length = float(np.linalg.norm(plan.costates[0]))
    if problem.terminal_constraint_function is not None and length > 0:
        yield from ((arcs, sign / length) for arcs in found for sign in (1.0, -1.0))


def _failed(problem: Problem, plan: Trajectory, started: float, message: str) -> Solution:
    return Solution(
        problem=problem.name, solver="switching", trajectory=plan, status=Status.SHOOTING_FAILED,
        certificate=Certificate(), wall_time=time.perf_counter() - started, message=message,
    )  # fmt: skip


def _shoot(problem, x0, p, plan, found, abnormal, tolerance, max_iterations, started, time_limit) -> Solution:
    n, modes = problem.n_x, [mode for mode, _ in found]
    c = _conditions(problem, modes, abnormal is None)
    costates = plan.costates * (abnormal or 1.0)
    counts = np.array([count for _, count in found])
    at = np.concatenate([[0], np.cumsum(counts)[:-1]])
    z = np.zeros(c.size)
    for k, part in enumerate(c.starts):
        z[part] = costates[0] if k == 0 else np.concatenate([plan.states[at[k]], costates[at[k]]])
    z[c.durations] = np.diff(plan.times[np.append(at, counts.sum())])
    deadline = started + time_limit

    def residual(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        durations = z[c.durations]
        ends, by_z = np.zeros((len(modes), 2 * n)), np.zeros((len(modes) * 2 * n, c.size))
        if not (durations > 0).all():
            return np.full(1, np.nan), by_z
        for k, part in enumerate(c.starts):
            y0 = np.concatenate([x0, z[part]]) if k == 0 else z[part]
            y, s = integrate_arc(c.arcs[k], np.append(y0, 0.0), p, 0.0, durations[k], deadline)
            if not np.isfinite(y).all():
                return np.full(1, np.nan), by_z
            ends[k], rows = y[:-1], slice(2 * n * k, 2 * n * (k + 1))
            by_z[rows, part] = s[:, n:] if k == 0 else s
            by_z[rows, c.durations.start + k] = np.asarray(c.arcs[k].flow(y, p, 0.0)).ravel()[:-1]
        r, r_z, r_ends = (np.asarray(v) for v in c.value(z, ends.T, x0, p))
        return r.ravel(), r_z + r_ends @ by_z

    z, worst, iterations = newton(residual, z, tolerance, max_iterations, deadline)
    if not worst <= max(tolerance, 1e-9) * (1 + np.abs(z).max()):
        return _failed(problem, plan, started, "Newton's method stalled")
    try:
        return _solution(problem, c, x0, p, z, worst, iterations, started, time.perf_counter() + 5.0)
    except Abandoned:
        return _failed(problem, plan, started, "an arc could not be integrated")


def _solution(problem, c: _Conditions, x0, p, z, worst, iterations, started, deadline) -> Solution:
    """Sample the arcs on the problem's uniform grid and check what Newton's method does not: bounds and the minimum principle."""
    n, durations = problem.n_x, z[c.durations]
    switches = np.concatenate([[0.0], np.cumsum(durations)])
    times = np.linspace(0.0, switches[-1], problem.steps + 1)
    middle = (times[:-1] + times[1:]) / 2
    y, u = np.full((len(times), 2 * n + 1), np.nan), np.full((len(middle), problem.n_u), np.nan)
    cost, mismatch, excess, hamiltonian, allowed = 0.0, 0.0, 0.0, [], 0.0
    for k, part in enumerate(c.starts):
        a, start = c.arcs[k], np.append(np.concatenate([x0, z[part]]) if k == 0 else z[part], cost)

        def rate(t: float, v: np.ndarray, a: Arc = a) -> np.ndarray:
            check_flight(v, deadline)
            return np.asarray(a.flow(v, p, t)).ravel()

        run = solve_ivp(rate, (0.0, durations[k]), start, method="DOP853", rtol=1e-12, atol=1e-13, dense_output=True)
        again = solve_ivp(rate, (0.0, durations[k]), start, method="LSODA", rtol=1e-12, atol=1e-13)
        if not (run.success and again.success):
            raise Abandoned
        mismatch = max(mismatch, float(np.abs(run.y[:n, -1] - again.y[:n, -1]).max()))
        inside = _within(times, switches, k)
        if inside.any():
            y[inside] = run.sol(times[inside] - switches[k]).T
        inside = _within(middle, switches, k)
        if inside.any():
            at = run.sol(middle[inside] - switches[k])
            u[inside] = np.asarray(a.control(at[:n], at[n : 2 * n], p)).T
        sample = run.sol(np.linspace(0, durations[k], 25))
        hamiltonian.append(np.asarray(a.hamiltonian(sample[:n], sample[n : 2 * n], p)).ravel())
        excess = max(excess, _excess(problem, a, sample[:n], sample[n : 2 * n], p, c.normal))
        allowed = max(allowed, _crossing(problem, a, sample[:n], sample[n : 2 * n], p))
        cost = float(run.y[-1, -1])
    end = float(problem.terminal_cost_function(y[-1, :n], p, switches[-1])) if problem.horizon == "finite" else 0.0
    trajectory = Trajectory(
        times=times, states=y[:, :n], controls=u, costs=np.diff(y[:, -1]), terminal_cost=np.asarray(end), costates=y[:, n : 2 * n]
    )  # fmt: skip
    flat = np.concatenate(hamiltonian)
    lawful = excess <= 1e-6 * (1 + np.abs(flat).max()) and allowed <= 1e-6
    message = (
        ("" if c.normal else "an abnormal extremal: its costates hold for H without the cost")
        if lawful
        else "the arcs violate the minimum principle or a bound"
    )
    return Solution(
        problem=problem.name, solver="switching", trajectory=trajectory,
        status=Status.CONVERGED if lawful else Status.SHOOTING_FAILED,
        certificate=Certificate(
            defect=worst, resimulation=mismatch, stationarity=excess, costate_defect=worst, transversality=worst,
            hamiltonian_drift=float(np.ptp(flat)), constraint_violation=max(allowed, 0.0) if allowed > 1e-9 else 0.0,
        ),
        wall_time=time.perf_counter() - started, iterations=iterations, message=message,
        arcs=tuple((a.label, float(d)) for a, d in zip(c.arcs, durations, strict=True) if d > 1e-9 * switches[-1]),
    )  # fmt: skip


def _within(times: np.ndarray, switches: np.ndarray, k: int) -> np.ndarray:
    """Which times belong to arc k; the first and the last arc take what rounding leaves over."""
    last = len(switches) - 2
    return ((times >= switches[k]) | (k == 0)) & ((times < switches[k + 1]) | (k == last))


def _excess(problem: Problem, a: Arc, x: np.ndarray, lam: np.ndarray, p: np.ndarray, normal: bool) -> float:
    """max H(u*) − min H over the box (a grid of controls, bounds included); on a state bound: the negative part of μ."""
    if a.multiplier is not None:
        return float(np.max(-np.asarray(a.multiplier(x, lam, p)), initial=0.0))
    low, high = problem.action_low, problem.action_high
    axes = [np.linspace(lo, hi, 21 if problem.n_u == 1 else 5) for lo, hi in zip(low, high, strict=True)]
    h = np.asarray(a.hamiltonian(x, lam, p)).ravel()
    worst = 0.0
    f, cost = problem.dynamics_function, problem.stage_cost_function
    assert f is not None  # not discrete
    for u in np.stack([g.ravel() for g in np.meshgrid(*axes, indexing="ij")], axis=-1):
        other = normal * np.asarray(cost(x, u, p, 0.0)).ravel() + (lam * np.asarray(f(x, u, p, 0.0))).sum(axis=0)
        worst = max(worst, float(np.max(h - other)))
    return worst


def _crossing(problem: Problem, a: Arc, x: np.ndarray, lam: np.ndarray, p: np.ndarray) -> float:
    """Largest violation of control and state bounds on samples of an arc."""
    u = np.asarray(a.control(x, lam, p))
    gaps = [problem.control_low[:, None] - u, u - problem.control_high[:, None]]
    gaps += [problem.state_low[:, None] - x, x - problem.state_high[:, None]]
    return float(max(np.max(g, initial=0.0) for g in gaps))
