"""Indirect shooting over arcs: the switching structure is read off a direct solution, then switch times, states and costates are
polished by Newton's method to the accuracy of the integrator.

Every control is, on each arc, at its lower or upper bound, or free; bounds on states and path constraints S(x, u) ≤ 0 are active or
not (`arcs.py`). With H = l + λ'f and S of order q:

    regular free control     u = argmin H,                      junction with a bound: H_u(u at the bound) = 0
    bang-bang junction       H_u = 0
    singular free control    u from d²H_u/dt² = 0,              entry: H_u = 0 and dH_u/dt = 0; exit: nothing more
    S active                 u = argmin H subject to S^(q) = 0, entry: S = … = S^(q−1) = 0 and λ⁻ = λ⁺ + (S, …, S^(q−1))_x'π;
                             both ends: the control is continuous, S^(q) = 0 on either side, or (H linear) H is
    S touched, q ≥ 2         at an instant S = S' = 0 and λ⁻ = λ⁺ + S_x'π; at the end S = 0

The unknowns are λ(0), (x, λ) at the start of every later arc, the durations, π and the multipliers of the terminal conditions.
Checked afterwards, with the costates that are the gradient of the optimal cost: all bounds, the minimum principle on a grid of
controls, ν ≥ 0, and that λ jumps only along S_x, by nonnegative multiples.
Where no costate fits, the extremal may be abnormal: H = λ'f without the cost, λ(0) of unit length. Its solution says so.
Assumptions: continuous dynamics (the time becomes a state where they mention it), singular arcs of order one and off the bounds.
Sources: Bryson and Ho, Applied Optimal Control (1975), §3.9 to §3.11 and §8.3; Bulirsch, Montrone, Pesch, JOTA 70 (1991) 1;
Maurer, SIAM J. Control Optim. 14 (1976) 345; Hartl, Sethi, Vickson, SIAM Review 37 (1995) 181.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import casadi as ca
import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import nnls

from optctl.errors import require
from optctl.problem import Problem
from optctl.problem.structure import autonomous
from optctl.problem.trajectory import Trajectory
from optctl.solvers.methods.arcs import Arc, Bound, Unsupported, arc, bounds, highest
from optctl.solvers.methods.pontryagin import Abandoned, check_flight, integrate_arc, newton, on_a_clock
from optctl.solvers.methods.structures import Structure, peaks, structures
from optctl.solvers.solution import Certificate, Solution, Status

_GRACE = 1.0
"""[s] to sample what Newton's method found when the time is up."""

# --- the boundary value problem -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Conditions:
    """Everything that has to vanish besides the arcs' own equations, as functions of the unknowns z and the arcs' ends."""

    arcs: list[Arc]
    touched: list[list[Bound]]
    """The bounds touched at the start of each arc, and at the end."""
    value: ca.Function
    """(z, ends (2n, m), x0, p) → r, ∂r/∂z, ∂r/∂vec(ends)."""
    end: ca.Function
    """(x, p, T) → φ_x, e_x' and a column for every clock, whose end a fixed time keeps as well."""
    starts: list[slice]
    durations: slice
    size: int
    normal: bool


def _conditions(problem: Problem, found: Structure, normal: bool) -> _Conditions:
    n, known = problem.n_x, bounds(problem)
    arcs: list[Arc] = []
    touched: list[list[Bound]] = [[]]
    for mode, count in found:
        if count:
            arcs.append(arc(problem, mode, normal))
            touched.append([])
        else:
            touched[-1] += [known[name] for name in mode[problem.n_u :]]
    m, x, p = len(arcs), problem.x, problem.p
    meetings = [_met(*v) for v in zip([None, *arcs], [*arcs, None], touched, strict=True)]
    jumps = [along.numel() for _, along in meetings]
    last = problem.terminal_constraint_function
    e = ca.SX(0, 1) if last is None else last(x, p, problem.t)
    sizes = [n] + [2 * n] * (m - 1) + [m, *jumps, e.numel()]
    edges = np.cumsum([0, *sizes])
    z, x0, ends = ca.SX.sym("z", sum(sizes)), ca.SX.sym("x0", n), ca.SX.sym("ends", 2 * n, m)
    parts = ca.vertsplit(z, edges.tolist())
    starts, durations, pi, nu = parts[:m], parts[m], parts[m + 1 : -1], parts[-1]
    r = [] if normal else [ca.sumsqr(starts[0]) - 1]
    for k, (conditions, along) in enumerate(meetings):
        x_end = ends[:n, k - 1] if k else x0
        r.append(ca.substitute(conditions, x, x_end))
        if 0 < k < m:
            lam_end, (x_, lam) = ends[n:, k - 1], ca.vertsplit(starts[k], n)
            r += [x_end - x_, lam_end - lam - ca.substitute(ca.jacobian(along, x).T @ pi[k], x, x_end)]
            r.append(_junction(problem, arcs[k - 1], arcs[k], x_end, lam_end, x_, lam))
    last_x, last_lam, final = ends[:n, -1], ends[n:, -1], ca.sum1(durations)
    lagrangian = ca.dot(nu, e)
    if problem.horizon == "finite":
        lagrangian += normal * problem.terminal_cost_function(x, p, problem.t)
    at_end = lambda e: ca.substitute(ca.substitute(e, x, last_x), problem.t, final)
    r += [at_end(e), last_lam - at_end(ca.gradient(lagrangian + ca.dot(pi[m], meetings[m][1]), x))]
    if problem.final_time is None:
        r.append(final - problem.duration)
    else:
        r.append(arcs[-1].hamiltonian(last_x, last_lam, p) + at_end(ca.gradient(lagrangian, problem.t)))
    residual = ca.vertcat(*r)
    outputs = [residual, ca.jacobian(residual, z), ca.jacobian(residual, ca.vec(ends))]
    drift = problem.dynamics_function(x, problem.u, p, 0.0)  # type: ignore[misc]
    timers = [i for i in range(n) if not ca.symvar(drift[i])] if problem.final_time is None else []
    phi_x = ca.gradient(ca.substitute(lagrangian, nu, ca.SX.zeros(e.numel())), x)
    slopes = [phi_x, ca.horzcat(ca.jacobian(e, x).T, ca.SX.eye(n)[:, timers])]
    return _Conditions(
        arcs,
        touched,
        ca.Function("conditions", [z, ends, x0, p], [ca.densify(o) for o in outputs]),
        ca.Function("end", [x, p, problem.t], [ca.densify(o) for o in slopes]),
        [slice(int(edges[k]), int(edges[k + 1])) for k in range(m)],
        slice(int(edges[m]), int(edges[m + 1])),
        int(edges[-1]),
        normal,
    )


def _met(before: Arc | None, after: Arc | None, touched: list[Bound]) -> tuple[ca.SX, ca.SX]:
    """What vanishes where one arc ends and the next begins, and along whose gradients λ jumps there."""
    if after is None:
        return _joined(b.chain[:1] for b in touched), _joined(b.chain[:1] for b in touched)
    entered = [b.chain for b in after.bounds if before is None or b not in before.bounds]
    if before is None:
        return _joined(entered), ca.SX(0, 1)
    return _joined([*entered, *(b.chain[:2] for b in touched)]), _joined([*entered, *(b.chain[:1] for b in touched)])


def _joined(columns: Iterable[ca.SX]) -> ca.SX:
    return ca.vertcat(ca.SX(0, 1), *columns)


def _junction(problem: Problem, before: Arc, after: Arc, x_end, lam_end, x, lam) -> ca.SX:
    """What makes the switch time stationary."""
    p, n_u = problem.p, problem.n_u
    if before.bounds != after.bounds:
        new = [b for b in after.bounds if b not in before.bounds]
        edge, other, x_, lam_ = (after, before, x_end, lam_end) if new else (before, after, x, lam)
        if other.singular:
            free = other.mode.index("free")
            return ca.SX(0, 1) if new else ca.vertcat(*[rows[free] for rows in other.slopes(x_, lam_, p)])
        if not edge.regular:
            return other.lagrangian(x_, lam_, edge.control(x_, lam_, p), p) - other.hamiltonian(x_, lam_, p)
        tops = highest(new or [b for b in before.bounds if b not in after.bounds])
        return ca.substitute(ca.substitute(tops, problem.x, x_), problem.u, other.control(x_, lam_, p))
    rows = []
    for i, (left, begun) in enumerate(zip(before.mode[:n_u], after.mode[:n_u], strict=True)):
        if left == begun:
            continue
        if begun == "free" and after.singular:
            value, rate = before.slopes(x_end, lam_end, p)
            rows += [value[i], rate[i]]
        elif begun == "free":
            rows.append(before.slopes(x_end, lam_end, p)[0][i])
        elif not (left == "free" and before.singular):
            rows.append(after.slopes(x, lam, p)[0][i])
    return ca.vertcat(*rows)


def check_suitable(problem: Problem) -> None:
    """Raise ArgumentError for a problem that `polish` does not take."""
    require(not problem.discrete, "problem", "have continuous dynamics", "is discrete")


def polish(
    problem: Problem,
    x0: np.ndarray,
    guess: Trajectory | Solution,
    *,
    params: np.ndarray | None = None,
    tolerance: float = 1e-10,
    max_iterations: int = 40,
    time_limit: float = 60.0,
) -> Solution:
    """The extremal whose switching structure a direct solution shows; options as in `optctl.solvers.solve_switching`."""
    check_suitable(problem)
    started = time.perf_counter()
    p = problem.param_values if params is None else np.asarray(params, dtype=float)
    x0 = np.asarray(x0, dtype=float)
    common = {"params": p, "tolerance": tolerance, "max_iterations": max_iterations}
    plan = guess.trajectory if isinstance(guess, Solution) else guess
    require(plan.costates is not None, "guess", "hold costates", "holds none")
    if not autonomous(problem):
        return on_a_clock(polish, problem, x0, plan, time_limit=time_limit, **common)
    best: Solution | None = None
    assert plan.costates is not None
    sound = np.isfinite(plan.states).all() and np.isfinite(plan.costates).all()
    found = list(structures(problem, plan, p)) if sound else []
    for arcs, abnormal in _attempts(problem, plan, found):
        left = started + time_limit - time.perf_counter()
        if len(arcs) > 40 or left < 0:
            continue
        try:  # a wrong structure must not use up the time of the others
            deadline = time.perf_counter() + left / 2
            solution = _shoot(problem, x0, p, plan, arcs, abnormal, tolerance, max_iterations, started, deadline)
        except Unsupported as reason:
            solution = _failed(problem, plan, started, f"{reason} has no formula here")
        if best is None or (solution.ok and not best.ok):
            best = solution
        if best.ok:
            break
    return best or _failed(problem, plan, started, "no switching structure was recognised")


def _attempts(problem: Problem, plan: Trajectory, found: list[Structure]) -> Iterator[tuple[Structure, float | None]]:
    """Every structure as a normal extremal; then, where the end is constrained, as an abnormal one with the direct costates, scaled
    to |λ(0)| = 1 by ± the second entry, as guess."""
    yield from ((arcs, None) for arcs in found)
    assert plan.costates is not None
    length = float(np.linalg.norm(plan.costates[0]))
    if problem.terminal_constraint_function is not None and length > 0:
        yield from ((arcs, sign / length) for arcs in found for sign in (1.0, -1.0))


def _failed(problem: Problem, plan: Trajectory, started: float, message: str) -> Solution:
    plan = dataclasses.replace(
        plan, costates=np.full_like(plan.states, np.nan)
    )  # those of the guess are not the gradient of anything
    return Solution(
        problem=problem.name,
        solver="switching",
        trajectory=plan,
        status=Status.SHOOTING_FAILED,
        certificate=Certificate(),
        wall_time=time.perf_counter() - started,
        message=message,
    )


def _shoot(problem, x0, p, plan, found, abnormal, tolerance, max_iterations, started, deadline) -> Solution:
    n, c = problem.n_x, _conditions(problem, found, abnormal is None)
    costates = plan.costates * (abnormal or 1.0)
    if any(b.order for b in c.arcs[0].bounds):  # then the multiplier of x(0) holds those of the bounds
        costates[0] = costates[1]
    counts = np.array([count for _, count in found if count])
    at = np.concatenate([[0], np.cumsum(counts)[:-1]])
    z = np.zeros(c.size)
    for k, part in enumerate(c.starts):
        z[part] = costates[0] if k == 0 else np.concatenate([plan.states[at[k]], costates[at[k]]])
    z[c.durations] = np.diff(plan.times[np.append(at, counts.sum())])

    def residual(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        durations = z[c.durations]
        ends, by_z = np.zeros((len(c.arcs), 2 * n)), np.zeros((len(c.arcs) * 2 * n, c.size))
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
        return _solution(problem, c, x0, p, z, worst, iterations, started, max(deadline, time.perf_counter() + _GRACE))
    except Abandoned:
        return _failed(problem, plan, started, "an arc could not be integrated")


def _solution(problem, c: _Conditions, x0, p, z, worst, iterations, started, deadline) -> Solution:
    """Sample the arcs on the problem's uniform grid and check what Newton's method does not: bounds and the minimum principle."""
    n, durations = problem.n_x, z[c.durations]
    switches = np.concatenate([[0.0], np.cumsum(durations)])
    times = np.linspace(0.0, switches[-1], problem.steps + 1)
    middle = (times[:-1] + times[1:]) / 2
    y, u = np.full((len(times), 2 * n + 1), np.nan), np.full((len(middle), problem.n_u), np.nan)
    cost, mismatch, excess, hamiltonian, allowed, ends = 0.0, 0.0, 0.0, [], 0.0, []
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
            y[inside, n : 2 * n] = np.asarray(a.costate(y[inside, :n].T, y[inside, n : 2 * n].T, p)).T
        inside = _within(middle, switches, k)
        if inside.any():
            at = run.sol(middle[inside] - switches[k])
            u[inside] = np.asarray(a.control(at[:n], at[n : 2 * n], p)).T
        x, lam = np.split(run.sol(np.linspace(0, durations[k], 101))[: 2 * n], 2)
        hamiltonian.append(np.asarray(a.hamiltonian(x, lam, p)).ravel())
        excess = _most(excess, _excess(problem, a, x, lam, p))
        allowed = _most(allowed, _crossing(problem, a, x, lam, p))
        ends.append((x[:, -1], *np.asarray(a.costate(x[:, [0, -1]], lam[:, [0, -1]], p)).T))
        cost = float(run.y[-1, -1])
    end = float(problem.terminal_cost_function(y[-1, :n], p, switches[-1])) if problem.horizon == "finite" else 0.0
    trajectory = Trajectory(
        times=times,
        states=y[:, :n],
        controls=u,
        costs=np.diff(y[:, -1]),
        terminal_cost=np.asarray(end),
        costates=y[:, n : 2 * n],
    )
    flat, excess = np.concatenate(hamiltonian), max(excess, _unexplained(problem, c, ends, p, switches[-1]))
    largest = max(np.abs(flat).max(), max(np.abs(v).max() for end in ends for v in end[1:]))
    lawful = excess <= 1e-6 * (1 + largest) and allowed <= 1e-6
    message = (
        ("" if c.normal else "an abnormal extremal: its costates hold for H without the cost")
        if lawful
        else "the arcs violate the minimum principle or a bound"
    )
    return Solution(
        problem=problem.name,
        solver="switching",
        trajectory=trajectory,
        status=Status.CONVERGED if lawful else Status.SHOOTING_FAILED,
        certificate=Certificate(
            defect=worst,
            resimulation=mismatch,
            stationarity=excess,
            costate_defect=worst,
            transversality=worst,
            hamiltonian_drift=float(np.ptp(flat)),
            hamiltonian_size=largest,
            constraint_violation=0.0 if allowed <= 1e-9 else allowed,
        ),
        wall_time=time.perf_counter() - started,
        iterations=iterations,
        message=message,
        arcs=tuple(_labels(c, durations)),
    )


def _labels(c: _Conditions, durations: np.ndarray) -> Iterator[tuple[str, float]]:
    """(kind, duration [s]) of every arc; a bound that is touched has none."""
    for k, touched in enumerate(c.touched):
        yield from ((b.name, 0.0) for b in touched)
        if k < len(c.arcs) and durations[k] > 1e-9 * durations.sum():
            yield c.arcs[k].label, float(durations[k])


def _within(times: np.ndarray, switches: np.ndarray, k: int) -> np.ndarray:
    """Which times belong to arc k; the first and the last arc take what rounding leaves over."""
    last = len(switches) - 2
    return ((times >= switches[k]) | (k == 0)) & ((times < switches[k + 1]) | (k == last))


def _excess(problem: Problem, a: Arc, x: np.ndarray, lam: np.ndarray, p: np.ndarray) -> float:
    """max L(u*) − min L over the admissible controls of a grid (over the box, or a turn about u* where there is none; bounds
    included), L = H + μ S^(q) for q > 0; and the negative part of ν."""
    chosen, h = np.asarray(a.control(x, lam, p)), np.asarray(a.hamiltonian(x, lam, p)).ravel()
    low, high = (
        np.minimum(problem.action_low, chosen.min(1) - np.pi),
        np.maximum(problem.action_high, chosen.max(1) + np.pi),
    )
    low, high = np.maximum(low, problem.control_low), np.minimum(high, problem.control_high)
    axes = [np.linspace(lo, hi, 21 if problem.n_u == 1 else 5) for lo, hi in zip(low, high, strict=True)]
    worst = float(np.max(-np.asarray(a.multiplier(x, lam, p)), initial=0.0))
    mixed = [b.value for b in bounds(problem).values() if b.order == 0]
    for u in np.stack([g.ravel() for g in np.meshgrid(*axes, indexing="ij")], axis=-1):
        gain = h - np.asarray(a.lagrangian(x, lam, u, p)).ravel()
        for value in mixed:
            gain = np.where(np.asarray(value(x, u, p)).ravel() <= 0, gain, 0.0)
        worst = _most(worst, float(np.max(gain)))
    return worst


def _most(a: float, b: float) -> float:
    """The larger; NaN is no small violation."""
    return float(np.maximum(a, b))


def _unexplained(problem: Problem, c: _Conditions, ends: list, p: np.ndarray, final: float) -> float:
    """Largest jump of the costate, or miss at the end, that is no nonnegative combination of the S_x of the bounds met there (at
    the end plus e_x'ν); `ends` are (x(end), λ(start), λ(end)) of the arcs."""
    x, worst = problem.x, 0.0
    for k, (point, _, before) in enumerate(ends):
        last = k == len(ends) - 1
        met = [*c.arcs[k].bounds, *(() if last else c.arcs[k + 1].bounds), *c.touched[k + 1]]
        normals = ca.Function(
            "normals", [x, problem.p], [ca.jacobian(_joined(b.chain[:1] for b in met if b.order), x).T]
        )
        phi_x, e_x = (np.asarray(v) for v in c.end(point, p, final))
        cone = np.hstack([np.asarray(normals(point, p)), *([e_x, -e_x] if last else [])])
        jump = before - (phi_x.ravel() if last else ends[k + 1][1])
        sound = np.isfinite(jump).all() and np.isfinite(cone).all()
        worst = _most(worst, float(nnls(cone, jump)[1]) if cone.size and sound else float(np.linalg.norm(jump)))
    return worst


def _crossing(problem: Problem, a: Arc, x: np.ndarray, lam: np.ndarray, p: np.ndarray) -> float:
    """Largest violation of the bounds on controls, states and path constraints on samples of an arc."""
    u = np.asarray(a.control(x, lam, p))
    low, high = problem.control_low[:, None], problem.control_high[:, None]
    gaps = [*(low - u)[np.isfinite(low[:, 0])], *(u - high)[np.isfinite(high[:, 0])]]
    gaps += [np.asarray(bound.value(x, u, p)).ravel() for bound in bounds(problem).values()]
    return float(np.max([peaks(g) for g in gaps], initial=0.0))
