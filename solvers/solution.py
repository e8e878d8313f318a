"""What a solver returns: a trajectory, why it stopped, and the residuals by which anyone can judge it.

A `Certificate` collects residuals of the first-order necessary conditions for minimising J (Bryson and Ho, Applied Optimal
Control, 1975, §2.3 and §3.10). For the discretised problem x⁺ = F(x, u), with H_k = l(x_k, u_k) + λ_{k+1}'F(x_k, u_k):

    defect          max |F(x_k, u_k) − x_{k+1}|                    stationarity    max |u − clip(u − ∂H/∂u)|
    costate_defect  max |∂H_k/∂x − λ_k|                            transversality  |λ_N − φ_x(x_N)| up to e_x'ν
    complementarity max |multiplier · slack| of the inequalities

and the second-order condition (§6.3): the pivots Q_uu = H_uu + F_u'P⁺F_u of the exact Riccati sweep, over the controls that are not
held at a bound, are positive definite: H_uu does not fail (Legendre and Clebsch) and P stays bounded (no conjugate point). These
pivots are those of the reduced Hessian of the whole problem, so where one is negative the extremal is no minimum.

Every residual is in the units in which the problem was solved (its own, or natural ones: `units.py`); `None` says that it does not
apply or was not computed. How they become a verdict: `judge`; what is checked independently of the solver: `certificates.py`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import casadi as ca
import numpy as np
from scipy.integrate import solve_ivp

from optctl.problem import Problem
from optctl.problem.trajectory import Trajectory
from optctl.shared import kept
from optctl.solvers.batch import Batched
from optctl.solvers.certificates import checked, mismatches


class Status(enum.Enum):
    """Why a solver stopped; the sentence carries the remedy."""

    CONVERGED = "Converged to the requested tolerance."
    ACCEPTABLE = (
        "Stopped at an acceptable point short of the requested tolerance: try a better guess, or scale the problem."
    )
    STALLED = (
        "No descent at a point that is not stationary (a kink in the cost or dynamics?): try other starts or smooth it."
    )
    MAX_ITERATIONS = "Ran out of iterations: raise `max_iterations`, or start from a better guess."
    TIME_LIMIT = "Ran out of time: raise `time_limit`, shorten the horizon, or try another method."
    INFEASIBLE = (
        "No feasible trajectory was found: check the bounds, the terminal set and the horizon, or try more starts "
        "(`num_starts`)."
    )
    DIVERGED = (
        "The iterates diverged or became NaN: check the scaling and the guess, or try multiple shooting or collocation."
    )
    UNBOUNDED = "The cost falls without limit as the controls grow: bound every control, or give it a cost that outweighs what it gains."
    SHOOTING_FAILED = (
        "The boundary conditions of the costate equation were not met: use more segments, a direct solution as guess, or "
        "collocation."
    )

    @property
    def ok(self) -> bool:
        return self is Status.CONVERGED

    @property
    def certifiable(self) -> bool:
        """Whether the residuals decide; with any other status nothing is certified."""
        return self in (Status.CONVERGED, Status.ACCEPTABLE)


_HOPELESS = (Status.INFEASIBLE, Status.DIVERGED, Status.UNBOUNDED)


FIRST_ORDER = ("defect", "stationarity", "costate_defect", "transversality", "constraint_violation")
"""The residuals of a `Certificate` that define an extremal."""
_FEASIBLE = 1e-6
"""Defects and constraint violations up to this count as none."""
_ACCEPTABLE = 1e-6
"""Residuals beside the cost up to which a point short of the requested tolerance is certified all the same."""
UNTRUE = 1e-2
"""Fraction of a state's range by which the integrator may displace it over the horizon in a certified solution."""
_COST_DEFECT = 1e-3
"""Relative error of a cost up to which it is certified."""
DRIFT = 1e-2
"""Largest drift of the Hamiltonian beside its terms in a certified solution: a switch inside an interval of a sound grid makes less."""
FLAT = 1e-10
"""A relative curvature up to this is rounding."""
_COUPLED = 1e-7
"""A flat direction of the controls that moves the slope of the costates by more than this, relatively, leaves the curvature open."""
_LARGEST = 24
"""States and controls up to which second derivatives are cheap."""
_CHUNK = 256
"""Members whose second-order conditions are checked at a time."""


class Verdict(enum.Enum):
    """How much a solution claims, in one phrase; docs/verdicts.md says what is promised, by which residuals and to which tolerance."""

    PROVED = "proved optimum"
    """Certified, and the problem is convex: no admissible control of the discretised problem costs less."""
    EXTREMAL = "certified extremal"
    """Feasible, stationary, true to the plant, and no second-order condition is violated; another basin may be cheaper."""
    BEST_FOUND = "best found"
    """An admissible trajectory, and the cheapest that was found; something that a certificate asks for is missing."""
    NOT_CONVERGED = "not converged"
    """No claim: not admissible, not finite, or the solver was stopped."""


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Residuals of feasibility and optimality, each the largest absolute value over the trajectory."""

    defect: float | None = None
    """Mismatch of the solver's own discrete dynamics."""
    resimulation: float | None = None
    """Mismatch after integrating every interval again by DOP853 (continuous dynamics) or the problem's step (discrete)."""
    accumulated: float | None = None
    """The mismatches of all intervals together, state by state beside the range of that state: the largest."""
    cost_defect: float | None = None
    """What they change in the cost to first order, relative to `cost_scale`."""
    cost_scale: float | None = None
    """What residuals are compared with: 1 + |J|, and where a control is unbounded no more than 1 + |J| of doing nothing."""
    stationarity: float | None = None
    """Projected gradient of the Hamiltonian with respect to the controls."""
    costate_defect: float | None = None
    """Mismatch of the costate recursion, or of the costate equation."""
    hamiltonian_drift: float | None = None
    """max H − min H for autonomous continuous dynamics."""
    hamiltonian_size: float | None = None
    """What it is compared with: the largest |l| + Σ|λ_i f_i|."""
    transversality: float | None = None
    """Violation of the end condition on the costate (and of H(T) = 0 when the final time is free)."""
    constraint_violation: float | None = None
    """Largest violation of bounds, path and terminal constraints."""
    complementarity: float | None = None
    """Largest |multiplier · slack| of the inequality constraints."""
    curvature: float | None = None
    """Least eigenvalue of the pivots Q_uu over the free controls, relative to their typical size: positive at a strict local
    minimum, negative where a variation lowers the cost (a saddle or a maximum)."""

    def worst(self) -> float:
        """The largest of the residuals that define a first-order extremal of the problem that was solved."""
        known = [v for name in FIRST_ORDER if (v := getattr(self, name)) is not None]
        return float(np.max(known)) if known else float("nan")

    def arrays(self) -> dict[str, np.ndarray]:
        """What is known, as arrays of one entry: the form that `judge` takes."""
        return {f.name: np.array([v], dtype=float) for f in fields(self) if (v := getattr(self, f.name)) is not None}

    def __str__(self) -> str:
        parts = [(f.name.replace("_", " "), getattr(self, f.name)) for f in fields(self)]
        return ", ".join(f"{name} {value:.1e}" for name, value in parts if value is not None)


def drift_allowed(size: np.ndarray | float, scale: np.ndarray | float) -> np.ndarray | float:
    """How far H may drift beside its terms and `cost_scale`."""
    return np.maximum(DRIFT * size, _ACCEPTABLE * scale)


def judge(
    statuses: Sequence[Status],
    residuals: dict[str, np.ndarray],
    values: np.ndarray,
    proved: bool | np.ndarray,
    tolerance: float = 1e-4,
) -> list[Verdict]:
    """The verdicts of solutions with these residuals, (B,) each by its name in `Certificate`, and costs `values` (B,).

    Certified: converged (or short of the requested tolerance by less than `_ACCEPTABLE`), first-order residuals within
    tolerance · cost_scale, feasible, true to the plant (`accumulated`, `cost_defect`), H constant where it must be, and no
    second-order condition violated. Proved: certified, and the problem convex. Best found: feasible and finite. A residual that is
    missing is not looked at; one that is NaN passes no test.
    """
    num = len(statuses)
    known = lambda names: [residuals[name] for name in names if name in residuals]
    worst = lambda *names: np.max([np.zeros(num), *known(names)], axis=0)  # NaN stays NaN, and is below nothing
    scale = residuals.get("cost_scale", 1.0 + np.abs(values))
    short = np.array([status is Status.ACCEPTABLE for status in statuses])
    allowed = np.where(short, min(tolerance, _ACCEPTABLE), tolerance) * scale
    with np.errstate(invalid="ignore"):
        feasible = np.isfinite(values) & (worst("defect", "constraint_violation") <= _FEASIBLE)
        true = (worst("accumulated") <= UNTRUE) & (worst("cost_defect") <= _COST_DEFECT)
        if "hamiltonian_size" in residuals:
            true &= residuals["hamiltonian_drift"] <= drift_allowed(residuals["hamiltonian_size"], scale)
        saddle = residuals.get("curvature", np.zeros(num)) < -FLAT
        sure = np.array([status.certifiable for status in statuses]) & feasible & true & ~saddle
        sure &= worst(*FIRST_ORDER) <= allowed
    hopeless = np.array([status in _HOPELESS for status in statuses])
    stopped = np.array([status.certifiable or status is Status.STALLED for status in statuses])
    usable = feasible & ~hopeless & stopped & ("stationarity" in residuals)
    optimal = np.broadcast_to(np.asarray(proved, dtype=bool), (num,))
    return [
        Verdict.PROVED if s and o else Verdict.EXTREMAL if s else Verdict.BEST_FOUND if u else Verdict.NOT_CONVERGED
        for s, o, u in zip(sure & ~hopeless, optimal, usable, strict=True)
    ]


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """One solved start."""

    problem: str
    """Name of the problem."""
    solver: str
    trajectory: Trajectory
    status: Status
    certificate: Certificate
    wall_time: float
    """[s]; in a batch, this start's share."""
    iterations: int = 0
    gains: np.ndarray | None = None
    """K (T, n_u, n_x) of u = u* − K (x − x*), where the solver has them."""
    proved: bool = False
    """The optimum is global by convexity."""
    basins: int | None = None
    """How many distinct local optima a multi-start saw."""
    search: str = ""
    """How many guesses a multi-start tried, what it met, and by which rule it stopped."""
    arcs: tuple[tuple[str, float], ...] | None = None
    """(kind, duration [s]) of each arc, where the solver has a switching structure."""
    message: str = ""
    tolerance: float = 1e-4
    """Residuals up to tolerance · (1 + |J|) count as certified."""

    @property
    def value(self) -> float:
        """Total cost J."""
        return float(self.trajectory.total_cost)

    @property
    def final_time(self) -> float:
        return float(self.trajectory.times[-1] - self.trajectory.times[0])

    @property
    def ok(self) -> bool:
        return self.status.ok

    @property
    def minimum(self) -> bool | None:
        """Whether the second-order conditions hold strictly (a local minimum), are violated (none), or leave it open (`None`)."""
        c, verdict = self.certificate.curvature, self.verdict
        if verdict is Verdict.PROVED:
            return True
        if c is None or not abs(c) > FLAT or not self._stationary:
            return None
        return bool(c > 0)

    @property
    def _stationary(self) -> bool:
        """The first-order conditions hold, whatever the second-order ones say."""
        certificate = replace(self.certificate, curvature=None)
        return (
            judge([self.status], certificate.arrays(), np.array([self.value]), False, self.tolerance)[0]
            is Verdict.EXTREMAL
        )

    @property
    def verdict(self) -> Verdict:
        """proved optimum ⊃ certified extremal ⊃ best found (feasible) ⊃ not converged: `judge`."""
        value = np.array([self.value])
        return judge([self.status], self.certificate.arrays(), value, self.proved, self.tolerance)[0]

    @property
    def shortcoming(self) -> str:
        """Why it is not certified, in one sentence; empty where it is, or where the status says it."""
        c, scale = self.certificate, self.certificate.cost_scale or 1.0 + abs(self.value)
        if self.verdict in (Verdict.PROVED, Verdict.EXTREMAL) or not self.status.certifiable:
            return ""
        remedy = "a smaller `dt`, more `substeps`, or `collocation`"
        if c.accumulated is not None and not np.isfinite(c.accumulated):
            return "its intervals could not be integrated again to check them (infinite slopes, numbers that end, or a very stiff plant)"
        if c.accumulated is not None and c.accumulated > UNTRUE:
            return f"the integrator's errors add up to {c.accumulated:.2g} of the range of a state: {remedy}"
        if c.cost_defect is not None and not c.cost_defect <= _COST_DEFECT:
            return f"the integrator's errors change the cost by {c.cost_defect:.2g} of its size: {remedy}"
        if c.hamiltonian_size is not None and not (c.hamiltonian_drift or 0.0) <= drift_allowed(
            c.hamiltonian_size, scale
        ):
            found = f"{c.hamiltonian_drift:.2g} beside terms of {c.hamiltonian_size:.2g}"
            return f"the Hamiltonian, which must be constant, drifts by {found}: more intervals, or `switching`"
        if max(c.defect or 0.0, c.constraint_violation or 0.0) > _FEASIBLE:
            return f"constraints are violated by {c.constraint_violation or 0.0:.2g}, the dynamics by {c.defect or 0.0:.2g}"
        if self._stationary:
            return "stationary, but not a minimum: some variation lowers the cost"
        return f"residuals of {c.worst():.2g} beside costs of {scale:.2g}"

    def replace(self, **changes: object) -> Solution:
        return replace(self, **changes)  # type: ignore[arg-type]

    def __str__(self) -> str:
        claim, notes = self.verdict.value, [note for note in (self.message, self.shortcoming) if note]
        if self.verdict is Verdict.EXTREMAL and self.minimum:
            claim += ", a strict local minimum"
        lines = [
            f"{self.problem} by {self.solver}: J = {self.value:.10g}, {claim} ({self.wall_time:.3g} s)",
            f"  {self.status.value}" + (f" [{'; '.join(notes)}]" if notes else ""),
            f"  {self.certificate}",
        ]
        if self.basins is not None:
            seen = self.search or f"{self.basins} basin{'s' if self.basins != 1 else ''} seen"
            lines.insert(1, f"  {seen}; T = {self.final_time:.6g} s")
        return "\n".join(lines)

    __repr__ = __str__


class SolutionBatch(Sequence):
    """Many solved starts: one batched trajectory and arrays; `batch[i]` is a `Solution` with its full certificate."""

    def __init__(
        self,
        problem: Problem,
        solver: str,
        trajectory: Trajectory,
        statuses: list[Status],
        residuals: dict[str, np.ndarray],
        params: np.ndarray,
        wall_time: float,
        *,
        gains: np.ndarray | None = None,
        hessians: np.ndarray | None = None,
        iterations: np.ndarray | None = None,
        basins: np.ndarray | None = None,
        proved: bool = False,
        members: list[Solution] | None = None,
        inside: tuple[SolutionBatch, Callable[[Solution], Solution]] | None = None,
    ) -> None:
        """`members`: solutions that were found one by one. `inside`: the batch in natural units, where it is judged, and the way back."""
        self.members, self.inside = members, inside
        self._residuals: dict[str, np.ndarray] | None = None
        self._verdicts: list[Verdict] | None = None
        self.problem, self.solver, self.trajectory, self.statuses = problem, solver, trajectory, statuses
        self.residuals, self.params, self.wall_time = residuals, params, wall_time
        self.gains, self.hessians, self.iterations, self.basins, self.proved = (
            gains,
            hessians,
            iterations,
            basins,
            proved,
        )

    @property
    def values(self) -> np.ndarray:
        """Total costs J (B,)."""
        return self.trajectory.total_cost

    @property
    def ok(self) -> np.ndarray:
        """Converged, (B,)."""
        return np.array([status.ok for status in self.statuses])

    @property
    def verdicts(self) -> list[Verdict]:
        """How much each member claims: the same as `batch[i].verdict`."""
        if self._verdicts is None:
            if self.inside is not None:
                self._verdicts = self.inside[0].verdicts
            elif self.members is not None:
                self._verdicts = [member.verdict for member in self.members]
            else:
                self._verdicts = judge(self.statuses, self.certificates(), self.values, self.proved)
        return self._verdicts

    @property
    def certified(self) -> np.ndarray:
        """Certified extremals and proved optima, (B,)."""
        return np.array([verdict in (Verdict.PROVED, Verdict.EXTREMAL) for verdict in self.verdicts])

    def certificates(self) -> dict[str, np.ndarray]:
        """Every residual of every member by its name in `Certificate`, (B,) each: the solver's own and those found independently."""
        if self.inside is not None:
            return self.inside[0].certificates()
        if self._residuals is None and self.members is not None:
            own = [member.certificate for member in self.members]
            known = [f.name for f in fields(Certificate) if any(getattr(c, f.name) is not None for c in own)]
            self._residuals = {name: np.array([getattr(c, name) for c in own], dtype=float) for name in known}
        if self._residuals is None:
            path, num = self.trajectory, len(self)
            times, p = (
                np.broadcast_to(path.times, path.states.shape[:2]),
                np.broadcast_to(self.params, (num, self.problem.n_p)),
            )
            found: dict[str, np.ndarray] = {} if "resimulation" in self.residuals else checked(self.problem, path, p)
            found["constraint_violation"] = np.array(
                [violation(self.problem, *a) for a in zip(path.states, path.controls, p, times, strict=True)]
            )
            if not self.proved:
                rows: list[dict[str, float]] = []
                for start in range(0, num, _CHUNK):
                    part = slice(start, start + _CHUNK)
                    rows += second_order_residuals(self.problem, path[part], p[part])
                for name in ("complementarity", "curvature"):
                    if any(name in row for row in rows):
                        found[name] = np.array([row.get(name, np.nan) for row in rows])
            self._residuals = found | self.residuals
        return self._residuals

    def __len__(self) -> int:
        return len(self.statuses)

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        i = range(len(self))[i]
        if self.inside is not None:
            return self.inside[1](self.inside[0][i])
        if self.members is not None:
            return self.members[i]
        values = {name: float(array[i]) for name, array in self.certificates().items()}
        for name in ("complementarity", "curvature"):
            if not np.isfinite(values.get(name, 0.0)):
                del values[name]
        return Solution(
            problem=self.problem.name,
            solver=self.solver,
            trajectory=self.trajectory[i],
            status=self.statuses[i],
            certificate=Certificate(**values),
            wall_time=self.wall_time / len(self),
            proved=self.proved and self.statuses[i].certifiable,
            iterations=0 if self.iterations is None else int(self.iterations[i]),
            gains=None if self.gains is None else self.gains[i],
            basins=None if self.basins is None else int(self.basins[i]),
        )

    def __repr__(self) -> str:
        counts = {s.name.lower(): self.statuses.count(s) for s in Status if s in self.statuses}
        found = ", ".join(f"{n} {name}" for name, n in counts.items())
        return (
            f"{len(self)} starts of {self.problem.name} by {self.solver}: {found}; mean J = {self.values.mean():.8g} "
            f"({self.wall_time:.3g} s)"
        )


# --- residuals ----------------------------------------------------------------------------------------------------------


def violation(problem: Problem, states: np.ndarray, controls: np.ndarray, p: np.ndarray, times: np.ndarray) -> float:
    """Largest violation of bounds, path and terminal constraints along one trajectory."""
    worst = [
        0.0,
        float(np.max(problem.control_low - controls, initial=0.0)), float(np.max(controls - problem.control_high, initial=0.0)),
        float(np.max(problem.state_low - states[1:], initial=0.0)), float(np.max(states[1:] - problem.state_high, initial=0.0)),
    ]  # fmt: skip
    if problem.path_constraint_function is not None:
        c = problem.path_constraint_function(states[:-1].T, controls.T, p, times[None, :-1])
        worst.append(float(np.max(np.asarray(c), initial=0.0)))
    if problem.last_constraint_function is not None:
        worst.append(float(np.max(np.asarray(problem.last_constraint_function(states[-1], p, times[-1])))))
    if problem.terminal_constraint_function is not None:
        e = problem.terminal_constraint_function(states[-1], p, times[-1])
        worst.append(float(np.max(np.abs(np.asarray(e)), initial=0.0)))
    return float(np.max(worst))


def complementarity(w: np.ndarray, multiplier: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """|multiplier · slack| of low ≤ w ≤ high, entry by entry: a negative multiplier pushes towards `low`, as in ∇L + z = 0."""
    slack = np.where(multiplier < 0, w - low, high - w)
    return np.where(np.isfinite(slack), np.abs(multiplier * np.where(np.isfinite(slack), slack, 0.0)), 0.0)


def second_order_applies(problem: Problem) -> bool:
    """Fixed time, neither state bounds nor path constraints, at most 24 states and controls."""
    bounded = np.isfinite([problem.state_low, problem.state_high]).any() or problem.path_constraints is not None
    return problem.final_time is None and not bounded and problem.n_x + problem.n_u <= _LARGEST


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
        flat(x[:, :-1]), flat(u), np.repeat(p, steps, axis=0), flat(times[:, :-1]), flat(np.diff(times)), flat(costates[:, 1:])
    )  # fmt: skip
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


def resimulation(problem: Problem, trajectory: Trajectory, p: np.ndarray) -> float:
    """Largest state mismatch of one trajectory when every interval is integrated again: `certificates.mismatches`."""
    return float(np.abs(mismatches(problem, Trajectory.stack([trajectory]), np.atleast_2d(p))[0]).max())


def integrated(rate: Callable[[float, np.ndarray], np.ndarray], y0: np.ndarray) -> np.ndarray:
    """y(1) of ẏ = rate(s, y) by DOP853, to 1e-11; NaN where the numbers end or that accuracy cannot be had in 2000 calls."""

    class Hopeless(Exception):
        pass

    calls = 0

    def guarded(s: float, y: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        value = rate(s, y)
        if calls > 2000 or not np.isfinite(value).all():
            raise Hopeless
        return value

    try:
        return solve_ivp(guarded, (0.0, 1.0), y0, method="DOP853", rtol=1e-11, atol=1e-12).y[:, -1]
    except Hopeless:
        return np.full_like(y0, np.nan)


def ruled_out(problem: Problem, states: np.ndarray, controls: np.ndarray) -> tuple[Status, str] | None:
    """What no convergence makes good: a start outside the state bounds, or an unbounded control that ran away."""
    outside = np.maximum(problem.state_low - states[0], states[0] - problem.state_high)
    if (outside > 1e-9 * (1 + np.abs(states[0]))).any():
        name = list(problem.state)[int(np.argmax(outside))]
        return Status.INFEASIBLE, f"the start is outside the bounds of `{name}`"
    if runs_away(problem, controls):
        return Status.UNBOUNDED, ""
    return None


def runs_away(problem: Problem, controls: np.ndarray) -> bool:
    """Some control is beyond 1e8 times its scale."""
    scale = np.maximum(np.abs(problem.action_low), np.abs(problem.action_high))
    return bool(np.max(np.abs(controls) / scale, initial=0.0) > 1e8)


def gradient_functions(problem: Problem) -> tuple[ca.Function, ca.Function]:
    """(x, u, p, t, h, λ⁺) → (x⁺, l, H_x, H_u) of one interval, and (x, p, t) → φ_x."""
    x, u, p, t = problem.x, problem.u, problem.p, problem.t
    h, costate = ca.SX.sym("h"), ca.SX.sym("costate", problem.n_x)
    after, cost = problem.interval_function(x, u, p, t, h)
    hamiltonian = cost + ca.dot(costate, after)
    inner = ca.Function(
        "h_gradients", [x, u, p, t, h, costate],
        [after, cost, ca.gradient(hamiltonian, x), ca.gradient(hamiltonian, u)],
    )  # fmt: skip
    end = problem.terminal_cost_function(x, p, t)
    return inner, ca.Function("terminal_gradient", [x, p, t], [ca.densify(ca.gradient(end, x))])
