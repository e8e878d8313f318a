"""Direct collocation for continuous dynamics: polynomials that satisfy ẋ = f at chosen points of every interval.

    x(t_k + τ h) = x_k + h Σ_j ∫₀^τ L_j ds f_kj,   x_{k+1} = x_k + h Σ_j b_j f_kj,   J = Σ_k h Σ_j b_j l_kj + φ(x_N)

A method is its points c and weights: `trapezoid` (order 2), `hermite_simpson` (Lobatto IIIA with three stages, order 4) and
`radau` of degree s (order 2s − 1). Unlike in multiple shooting, the control varies inside an interval: the continuous problem
is solved, and its optimum lies below that of any zero-order hold. Costates come from the multipliers of the continuity
conditions. Sources: Betts (2010), §4; Kelly, SIAM Review 59 (2017); Hairer and Wanner II, §IV.5; Garg et al., Automatica 46 (2010).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import casadi as ca
import numpy as np

from optctl.errors import require
from optctl.problem import Bounds, Problem
from optctl.problem.held import hold
from optctl.problem.structure import autonomous
from optctl.problem.trajectory import Trajectory
from optctl.shared import in_turn, kept
from optctl.solvers.certificates import accumulated, cost_scale, integrated, ruled_out
from optctl.solvers.methods.hamiltonian import hamiltonian
from optctl.solvers.methods.multiple_shooting import Guess, control_bounds, start_bounds
from optctl.solvers.methods.nonlinear_program import NonlinearProgram
from optctl.solvers.solution import Certificate, Solution, Status, drift_allowed

_COST = 1e-4
"""Relative error of the cost up to which a grid is fine enough."""
_IDLE = 0.7
"""Finer grids end where what is worst is not better by this factor than before."""
_WIGGLE = 2.0
"""A control oscillates where it varies, over all points, by more than so many times what its means over the intervals do."""


@dataclass(frozen=True)
class Scheme:
    """A collocation method as data: points c in [0, 1], matrix a, weights b."""

    c: np.ndarray
    a: np.ndarray
    b: np.ndarray
    order: int

    @property
    def shares_start(self) -> bool:
        """The first point is the start of the interval (Lobatto): its control is the end control of the interval before."""
        return bool(self.c[0] == 0)


def _scheme(points: np.ndarray, order: int) -> Scheme:
    """a_ij = ∫₀^{c_i} L_j, b_j = ∫₀¹ L_j for the Lagrange polynomials L of the points."""
    a, b = np.empty((len(points), len(points))), np.empty(len(points))
    for j in range(len(points)):
        others = np.delete(points, j)
        integral = np.polyint(np.poly(others) / np.prod(points[j] - others))
        a[:, j], b[j] = np.polyval(integral, points), np.polyval(integral, 1.0)
    return Scheme(points, a, b, order)


def scheme(name: str, degree: int = 3) -> Scheme:
    """`trapezoid`, `hermite_simpson`, or `radau` with `degree` points."""
    if name == "trapezoid":
        return _scheme(np.array([0.0, 1.0]), 2)
    if name == "hermite_simpson":
        return _scheme(np.array([0.0, 0.5, 1.0]), 4)
    require(name == "radau", "scheme", "be one of trapezoid, hermite_simpson, radau", f"is {name!r}")
    require(1 <= degree <= 9, "degree", "be between 1 and 9", f"is {degree!r}")
    return _scheme(np.array(ca.collocation_points(degree, "radau")), 2 * degree - 1)


class Collocation:
    """The program of one problem and scheme; unknowns: node states, stage states, controls, T. The intervals' shares of the whole
    time (their widths) are parameters, so that one program serves every grid of as many intervals. With `held`, the control is
    constant on every interval."""

    def __init__(self, problem: Problem, method: Scheme, intervals: int, held: bool = False) -> None:
        self.problem, self.method, self.intervals, self.held = problem, method, intervals, held
        n_x, n_u, s, n = problem.n_x, problem.n_u, len(method.c), intervals
        self.free_time = problem.final_time is not None
        # control columns: shared interval ends for Lobatto points, all points for Radau
        per = s - 1 if method.shares_start else s
        self.columns = n if held else n * per + (1 if method.shares_start else 0)
        self.index = np.array([[k if held else k * per + j for j in range(s)] for k in range(n)])
        self.inner = s - 2 if method.shares_start else s - 1  # stage states besides the nodes
        self.sizes = (n_x * (n + 1), n_x * n * self.inner, n_u * self.columns, int(self.free_time))
        w, p, x0 = ca.MX.sym("w", sum(self.sizes)), ca.MX.sym("p", problem.n_p), ca.MX.sym("x0", n_x)
        widths = ca.MX.sym("widths", 1, n)
        nodes, stages, controls, final = self._split(w)
        nodes, controls = ca.reshape(nodes, n_x, n + 1), ca.reshape(controls, n_u, self.columns)
        stages = ca.reshape(stages, n_x * self.inner, n)
        final = final if self.free_time else problem.duration
        h = final * widths
        assert problem.dynamics_function is not None  # not discrete
        point = hold(problem.rate_function)
        x, y = ca.SX.sym("x", n_x), ca.SX.sym("y", n_x)
        inner, u = ca.SX.sym("inner", n_x * self.inner), ca.SX.sym("u", n_u * s)
        q, t, hs = problem.p, problem.t, ca.SX.sym("h")
        between = list(ca.horzsplit(ca.reshape(inner, n_x, self.inner))) if self.inner else []
        xs = [x, *between, y] if method.shares_start else [*between, y]
        us = ca.horzsplit(ca.reshape(u, n_u, s))
        f, costs = zip(
            *(point(xs[j], us[j], q, t + float(method.c[j]) * hs, t + 0.5 * hs) for j in range(s)), strict=True
        )
        rows = [i for i in range(s) if not (method.shares_start and i == 0)]
        defects = [xs[i] - x - hs * sum((float(method.a[i, j]) * f[j] for j in range(s)), ca.SX(0)) for i in rows]
        cost = hs * sum((float(method.b[j]) * costs[j] for j in range(s)), ca.SX(0))
        # the last row is continuity x_{k+1} = x_k + h Σ b f: its multiplier is the costate
        interval = ca.Function("interval", [x, y, inner, u, q, t, hs], [ca.vertcat(*defects), cost])
        multiplier = ca.SX.sym("lam", n_x * len(rows))
        slope = ca.gradient(cost + ca.dot(multiplier, ca.vertcat(*defects)), x)
        start = ca.Function("start", [x, y, inner, u, q, t, hs, multiplier], [ca.densify(slope)]).map(n)
        gathered = ca.reshape(controls[:, self.index.ravel().tolist()], n_u * s, n)
        starts = ca.horzcat(0, ca.cumsum(h, 1)[:-1]) if n > 1 else ca.MX(1, 1)
        self.rows = len(rows)
        ends = [nodes[:, :-1], nodes[:, 1:], stages, gathered, ca.repmat(p, 1, n), starts, h]
        g, costs_all = interval.map(n)(*ends)
        objective = ca.sum2(costs_all)
        if problem.horizon == "finite":
            objective += problem.terminal_cost_function(nodes[:, -1], p, final)
        y_all = ca.MX.sym("y", n_x * len(rows), n)
        self.interval_values = ca.Function("interval_values", [w, p, widths, y_all], [costs_all, start(*ends, y_all)])
        constraints, self.n_path, self.n_end = [ca.vec(g)], 0, 0
        if problem.path_constraint_function is not None:
            constraints.append(self._path(nodes, stages, gathered, p, starts, h))
            self.n_path = constraints[-1].numel()
        if problem.terminal_constraint_function is not None:
            constraints.append(problem.terminal_constraint_function(nodes[:, -1], p, final))
            self.n_end = constraints[-1].numel()
        self.n_defect = g.numel()
        self.program = NonlinearProgram(w, ca.vertcat(x0, p, widths.T), objective, ca.vertcat(*constraints))

    def _path(self, nodes: ca.MX, stages: ca.MX, controls: ca.MX, p: ca.MX, starts: ca.MX, h: ca.MX) -> ca.MX:
        """The path constraints at every point and at t = 0, where the polynomial of the first interval has the control; held controls
        meet them at both ends of their intervals."""
        problem, n, c = self.problem, self.intervals, self.method.c
        assert problem.path_constraint_function is not None
        path, n_x, n_u = hold(problem.path_constraint_function), problem.n_x, problem.n_u
        at, middles = ca.repmat(starts, len(c), 1) + ca.DM(c) @ h, starts + 0.5 * h
        held = [controls[j * n_u : (j + 1) * n_u, :] for j in range(len(c))]
        inside = [ca.reshape(stages, n_x, n * self.inner)[:, j :: self.inner] for j in range(self.inner)]
        begun = [nodes[:, :-1]] if self.method.shares_start else []
        states = [*begun, *inside, nodes[:, 1:]]
        along = lambda j: path.map(n)(states[j], held[j], ca.repmat(p, 1, n), at[j, :], middles)
        if self.held:
            x, u, t = problem.x, problem.u, problem.t
            values = problem.path_constraint_function(x, u, problem.p, t)
            moves = ca.which_depends(values, ca.vertcat(x, t), 1, True)  # the others hold or not as a whole
            self.path_rows = rows = [i for i, moving in enumerate(moves) if moving]
            first = path.map(n)(nodes[:, :-1], held[0], ca.repmat(p, 1, n), starts, middles)
            return ca.vertcat(ca.vec(first), *(ca.vec(along(j)[rows, :]) for j in range(len(begun), len(c))))
        self.path_rows = list(range(path.size1_out(0)))
        zero = sum((float(v) * held[j][:, 0] for j, v in enumerate(_lagrange(c, 0.0))), ca.MX(n_u, 1))
        # a point that two intervals share belongs to the one that it ends
        return ca.vertcat(
            path(nodes[:, 0], zero, p, 0.0, middles[0]), *(ca.vec(along(j)) for j in range(len(begun), len(c)))
        )

    def _split(self, w):
        ends = np.cumsum(self.sizes)
        return w[: int(ends[0])], w[int(ends[0]) : int(ends[1])], w[int(ends[1]) : int(ends[2])], w[int(ends[2]) :]

    def times(self, h: np.ndarray) -> np.ndarray:
        """Times of the control columns, for intervals of lengths h."""
        starts = np.cumsum(h) - h
        if self.held:
            return starts + h / 2
        columns = np.empty(self.columns)
        columns[self.index] = starts[:, None] + h[:, None] * self.method.c
        return columns

    def pack(self, guess: Guess, final: float, widths: np.ndarray) -> np.ndarray:
        """Interpolate a guess to every point."""
        old, h = guess.grid(final), final * widths
        starts = np.cumsum(h) - h
        state = lambda t: np.stack([np.interp(t, old, column) for column in guess.states.T], axis=-1)
        middle = (old[:-1] + old[1:]) / 2
        control = lambda t: np.stack([np.interp(t, middle, column) for column in guess.controls.T], axis=-1)
        first = 1 if self.method.shares_start else 0
        inner = starts[:, None] + h[:, None] * self.method.c[first : first + self.inner]
        parts = [state(np.append(starts, final)).ravel(), state(inner.ravel()).ravel(), control(self.times(h)).ravel()]
        return np.concatenate([*parts, [final] if self.free_time else []])

    def bounds(self, x0: np.ndarray, scale: float, free_start: Bounds) -> tuple[np.ndarray, np.ndarray]:
        q, sides = self.problem, []
        starts, limits = start_bounds(q, x0, free_start), control_bounds(q, scale)
        for first, u_side, x_side, i in zip(starts, limits, (q.state_low, q.state_high), (0, 1), strict=True):
            parts = [first, np.tile(x_side, self.intervals * (1 + self.inner)), np.tile(u_side, self.columns)]
            sides.append(np.concatenate([*parts, [q.final_time[i]] if q.final_time else []]))
        return sides[0], sides[1]


@kept
def transcription(problem: Problem, scheme_name: str, degree: int, intervals: int, held: bool) -> Collocation:
    """The problem's program, built once."""
    return Collocation(problem, scheme(scheme_name, degree), intervals, held)


@in_turn
def solve_collocation(
    problem: Problem,
    x0: np.ndarray,
    *,
    params: np.ndarray | None = None,
    guess: Guess | Trajectory | None = None,
    scheme_name: str = "radau",
    degree: int = 3,
    intervals: int | None = None,
    tolerance: float = 1e-10,
    max_iterations: int = 500,
    time_limit: float = 60.0,
    scale: float = 1.0,
    free_start: Bounds | None = None,
    resimulation: float | None = None,
    max_intervals: int = 3200,
    damped: bool = False,
    held: bool = False,
) -> Solution:
    """One local solve, or with `resimulation` several on ever finer grids: intervals are split whose independently integrated defect,
    relative to max(1, max |x_i|), is larger, or where the Hamiltonian of an autonomous problem is not that of the others; each grid
    starts from the solution on the one before. Where the control oscillates inside the intervals to live on their errors, as it
    does on singular arcs, it is held constant on every interval from then on, or with `held` from the beginning. Refining ends
    where it is of no use, or the time is up. `free_start` and `damped` as in multiple shooting.

    The trajectory lists node states and costates; `controls` are the controls at the middle of each interval (interpolated), `costs`
    the interval costs. An unbounded control that enters as an angle is continued from point to point."""
    require(not problem.discrete, "problem", "have continuous dynamics", "is discrete")
    require(resimulation is None or resimulation > 0, "resimulation", "be positive", f"is {resimulation!r}")
    started = time.perf_counter()
    p = problem.param_values if params is None else params
    n = problem.steps if intervals is None else intervals
    require(isinstance(n, (int, np.integer)) and n > 0, "intervals", "be a positive integer", f"is {n!r}")
    method, widths = scheme(scheme_name, degree), np.full(n, 1 / n)
    if isinstance(guess, Trajectory):
        guess = Guess.of(guess)
    if guess is None:
        guess = Guess(np.tile(x0, (n + 1, 1)), np.tile(problem.resting_control, (n, 1)))
    final, iterations = problem.duration, 0
    if problem.final_time is not None:
        final = float(np.mean(problem.final_time)) if guess.final_time is None else guess.final_time
    best, name = None, f"collocation ({scheme_name})"
    while True:
        begun = time.perf_counter()
        c = transcription(problem, scheme_name, degree, len(widths), held)
        low = np.concatenate([np.zeros(c.n_defect), np.full(c.n_path, -np.inf), np.zeros(c.n_end)])
        result = c.program.solve(
            c.pack(guess, final, widths),
            np.concatenate([x0, p, widths]),
            c.bounds(np.asarray(x0), scale, free_start or {}),
            (low, np.zeros(len(low))),
            tolerance=tolerance,
            max_iterations=max_iterations,
            time_limit=max(time_limit - (begun - started), 0.0),
            damped=damped,
        )
        iterations += result.iterations
        found, errors = _solution(c, result, widths, p, 0.0, name)
        now = time.perf_counter()
        found = found.replace(iterations=iterations, wall_time=now - started)
        if resimulation is None or (best is None and not found.ok):
            return found
        worse = best is not None and not found.ok  # the finer grid is not done
        if worse:
            assert best is not None
            found, errors = best[0].replace(iterations=iterations, wall_time=now - started), best[1]
        elif errors.worst(resimulation) <= 1:
            return found
        idle = best is not None and best[2] == held and errors.worst(resimulation) > _IDLE * best[1].worst(resimulation)
        wiggles = errors.wiggles and not held and (idle or errors.cost > _COST)
        finer = widths if wiggles else _refined(widths, errors, resimulation, method.order, max_intervals)
        left = time_limit - (now - started) - (now - begun) * len(finer) / len(widths)
        if worse or left < 0 or (not wiggles and (idle or len(widths) >= max_intervals)):
            message = f"{errors.said(resimulation)} with {len(found.trajectory.controls)} intervals"
            return found.replace(status=Status.ACCEPTABLE, message=message)
        best = found, errors, held
        held, widths = held or wiggles, finer
        guess, final = Guess.of(found.trajectory), found.final_time


@dataclass(frozen=True)
class _Errors:
    """What a grid gets wrong."""

    defects: np.ndarray
    """Of each interval integrated again, in states and cost, relative (n,)."""
    drift: np.ndarray
    """|H − median H| at each interval's end, relative to half the drift that is allowed (n,)."""
    cost: float
    """What the defects change in the cost, relative."""
    wiggles: bool
    """The control oscillates inside the intervals."""

    def worst(self, wanted: float) -> float:
        """Up to 1 where all is well."""
        return float(max(np.max(self.defects) / wanted, np.max(self.drift), self.cost / _COST))

    def said(self, wanted: float) -> str:
        if np.max(self.drift) > 1:
            return f"the Hamiltonian drifts by {np.max(self.drift):.1g} times what is allowed"
        return f"re-simulated defect {np.max(self.defects):.1e}"


def _refined(widths: np.ndarray, errors: _Errors, wanted: float, order: int, most: int) -> np.ndarray:
    """Split every interval whose defect, which falls as h^(order + 1), or drift, which falls as h, is larger than wanted; the worst
    first, up to `most`."""
    ratio = np.nan_to_num(errors.defects, nan=np.inf) / wanted
    pieces = np.maximum(np.ceil((2 * ratio) ** (1 / (order + 1))), np.ceil(2 * errors.drift))
    ratio = np.maximum(ratio, errors.drift)
    extra = np.where(ratio <= 1, 0, np.clip(pieces, 2, 4) - 1).astype(int)
    worst = np.argsort(-ratio, kind="stable")
    extra[worst[np.cumsum(extra[worst]) > most - len(widths)]] = 0
    if not extra.any():
        extra[worst[0]] = 1
    return np.repeat(widths / (1 + extra), 1 + extra)


def _solution(
    c: Collocation, result, widths: np.ndarray, p: np.ndarray, wall_time: float, name: str
) -> tuple[Solution, _Errors]:
    """The solution, and what the grid gets wrong."""
    problem, n = c.problem, c.intervals
    motion = problem.dynamics_function
    assert motion is not None  # not discrete
    both = hold(problem.rate_function)
    nodes, stages, controls, final = c._split(result.w)
    nodes, controls = nodes.reshape(n + 1, problem.n_x), _continued(problem, controls.reshape(c.columns, problem.n_u))
    stages = stages.reshape(n, c.inner, problem.n_x)
    final = float(final[0]) if c.free_time else problem.duration
    h, method = final * widths, c.method
    times = np.append(0.0, np.cumsum(h))
    # λ_k = ∂/∂x_k of what follows: the interval's cost and its conditions, times their multipliers
    y = result.multipliers[: c.n_defect].reshape(n, c.rows * problem.n_x)
    costs, slopes = (np.asarray(v) for v in c.interval_values(result.w, p, widths, y.T))
    costates = np.concatenate([slopes.T, np.zeros((1, problem.n_x))])
    interior_end = result.bound_multipliers[problem.n_x * n : problem.n_x * (n + 1)]
    u = controls[c.index]  # (n, s, n_u)
    costates[-1] = _end_costate(c, nodes[-1], u[-1, -1], p, final, result, interior_end)
    at = lambda fraction: np.einsum("kju,j->ku", u, _lagrange(method.c, fraction))
    middle = np.clip(at(0.5), u.min(axis=1), u.max(axis=1))  # polynomials overshoot, controls have bounds
    end = float(problem.terminal_cost_function(nodes[-1], p, final)) if problem.horizon == "finite" else 0.0
    trajectory = Trajectory(
        times=times,
        states=nodes,
        controls=middle,
        costs=costs.ravel(),
        terminal_cost=np.asarray(end),
        costates=costates,
    )

    def rate(fraction: float, flat: np.ndarray) -> np.ndarray:
        arguments = flat.reshape(n, -1)[:, :-1].T, at(fraction).T, p, (times[:-1] + fraction * h)[None]
        f, cost = (np.asarray(v) for v in both(*arguments, (times[:-1] + 0.5 * h)[None]))
        return (h[:, None] * np.concatenate([f, np.broadcast_to(cost, (1, n))]).T).ravel()

    begin = np.column_stack([nodes[:-1], np.zeros(n)])
    again = integrated(rate, begin.ravel()).reshape(n, -1)
    gaps, misses = again[:, :-1] - nodes[1:], again[:, -1] - costs.ravel()
    unit = float(cost_scale(problem, Trajectory.stack([trajectory]), p[None])[0])
    change = float(abs(misses.sum() + np.sum(costates[1:] * gaps))) / unit
    sizes = np.maximum(1.0, np.abs(nodes).max(axis=0))
    defects = np.maximum((np.abs(gaps) / sizes).max(axis=1), np.abs(misses) / (1.0 + abs(result.cost)))
    h_ends, terms, _ = (
        np.asarray(v) for v in hamiltonian(problem)(nodes[1:].T, u[:, -1].T, costates[1:].T, p, times[None, 1:])
    )
    if method.shares_start and n > 1:  # the control at the very end is that of no interval after it
        h_ends[0, -1] = h_ends[0, -2]
    steady, size = autonomous(problem), float(terms.max())
    drift = np.abs(h_ends - np.median(h_ends)).ravel() / (drift_allowed(size, unit) / 2) if steady else np.zeros(n)
    variation = lambda v: np.abs(np.diff(v, axis=0)).sum(axis=0)
    inside, between = variation(u.reshape(-1, problem.n_u)), variation(np.einsum("kju,j->ku", u, method.b))
    errors = _Errors(defects, drift, change, bool((inside > _WIGGLE * between + np.ptp(u, axis=(0, 1))).any()))
    defect = float(np.abs(result.g[: c.n_defect]).max())
    worst = [0.0]
    for values, lo, hi in (
        (np.concatenate([nodes[1:], stages.reshape(-1, problem.n_x)]), problem.state_low, problem.state_high),
        (controls, problem.control_low, problem.control_high),
    ):
        worst += [float(np.max(lo - values, initial=0.0)), float(np.max(values - hi, initial=0.0))]
    if problem.path_constraint_function is not None:
        begun = u[:, 0] if c.held else np.concatenate([at(0.0)[:1], u[:-1, -1]])
        starts = problem.path_constraint_function(nodes[:-1].T, begun.T, p, times[None, :-1])
        worst.append(float(np.max(np.asarray(starts), initial=0.0)))
    rest = result.g[c.n_defect :]
    worst += [float(np.max(rest[: c.n_path], initial=0.0)), float(np.max(np.abs(rest[c.n_path :]), initial=0.0))]
    status = result.status
    if not status.ok and defect < 1e-9 and max(worst) < 1e-8 and result.gradient < 1e-6 * (1 + abs(result.cost)):
        status = Status.CONVERGED
    status, message = ruled_out(problem, nodes, controls) or (status, "" if status.ok else result.message)
    if not status.certifiable:
        trajectory = replace(trajectory, costates=np.full_like(costates, np.nan))  # not the gradient of anything
    certificate = Certificate(
        defect=defect,
        resimulation=float(np.max(np.abs(gaps))),
        accumulated=float(accumulated(gaps[None], nodes[None])[0]),
        cost_defect=change,
        cost_scale=unit,
        stationarity=result.gradient,
        constraint_violation=float(np.max(worst)),
        hamiltonian_drift=float(np.ptp(h_ends)) if steady else None,
        hamiltonian_size=size if steady else None,
    )
    return Solution(
        problem=problem.name,
        solver=name,
        trajectory=trajectory,
        status=status,
        certificate=certificate,
        wall_time=wall_time,
        iterations=result.iterations,
        message=message,
    ), errors


_TURNS = (2 * np.pi, 360.0)


@kept
def _periods(problem: Problem) -> list[float]:
    """Per control the turn, in radians or degrees, after which everything is the same; 0 for others and where it is bounded. By numbers."""
    rng, n_u, num = np.random.default_rng(0), problem.n_u, 16
    x = (problem.initial_state.sample(rng, num) + 0.1 * rng.standard_normal((num, problem.n_x))).T
    u, t = rng.standard_normal((n_u, num)), rng.uniform(0, problem.duration, (1, num))
    functions = (problem.dynamics_function, problem.stage_cost_function, problem.path_constraint_function)
    values = lambda v: [np.asarray(f(x, v, problem.param_values, t)) for f in functions if f is not None]
    same = lambda v: all(np.allclose(a, b, rtol=1e-9, atol=1e-9) for a, b in zip(values(u), values(v), strict=True))
    moved = lambda i, shift: u + shift * np.eye(n_u)[:, i : i + 1]
    bounded = np.isfinite(problem.control_low) | np.isfinite(problem.control_high)
    free = [not bounded[i] and not same(moved(i, 1.0)) for i in range(n_u)]
    return [next((turn for turn in _TURNS if same(moved(i, turn))), 0.0) if free[i] else 0.0 for i in range(n_u)]


def _continued(problem: Problem, controls: np.ndarray) -> np.ndarray:
    """Controls (M, n_u) in order: angles whole turns away, where they neither jump nor lie more than half a turn off on average."""
    controls = controls.copy()
    for i, turn in enumerate(_periods(problem)):
        if turn:
            angle = np.unwrap(controls[:, i], period=turn)
            controls[:, i] = angle - turn * np.round(angle.mean() / turn)
    return controls


def _lagrange(points: np.ndarray, at: float) -> np.ndarray:
    """Values of the Lagrange polynomials of the points."""
    return np.array(
        [np.prod((at - np.delete(points, j)) / (points[j] - np.delete(points, j))) for j in range(len(points))]
    )


def _end_costate(
    c: Collocation, x: np.ndarray, u: np.ndarray, p: np.ndarray, final: float, result, bound: np.ndarray
) -> np.ndarray:
    """λ(T) = φ_x + e_x'ν + c_x'μ + the multipliers of state bounds, with the path constraints' μ at the end."""
    problem = c.problem
    xs = problem.x
    value = np.array(bound, dtype=float)
    if problem.horizon == "finite":
        gradient = ca.Function(
            "g",
            [xs, problem.p, problem.t],
            [ca.gradient(problem.terminal_cost_function(xs, problem.p, problem.t), xs)],
        )
        value = value + np.asarray(gradient(x, p, final)).ravel()
    if problem.terminal_constraint_function is not None:
        e = problem.terminal_constraint_function(xs, problem.p, problem.t)
        jacobian = np.asarray(ca.Function("j", [xs, problem.p, problem.t], [ca.jacobian(e, xs)])(x, p, final))
        value = value + jacobian.T @ result.multipliers[-c.n_end :]
    if problem.path_constraint_function is not None:
        rows, us, last = c.path_rows, problem.u, c.n_defect + c.n_path
        path = problem.path_constraint_function(xs, us, problem.p, problem.t)
        slope = ca.Function("c", [xs, us, problem.p, problem.t], [ca.densify(ca.jacobian(path, xs))])
        value = value + np.asarray(slope(x, u, p, final))[rows].T @ result.multipliers[last - len(rows) : last]
    return value
