"""What a solver returns: a trajectory, why it stopped, and the residuals by which anyone can judge it.

A `Certificate` collects residuals of the first-order necessary conditions for minimising J (Bryson and Ho, Applied Optimal
Control, 1975, §2.3 and §3.10). For the discretised problem x⁺ = F(x, u), with H_k = l(x_k, u_k) + λ_{k+1}'F(x_k, u_k):

    defect          max |F(x_k, u_k) − x_{k+1}|                    stationarity    max |u − clip(u − ∂H/∂u)|
    costate_defect  max |∂H_k/∂x − λ_k|                            transversality  |λ_N − φ_x(x_N)| up to e_x'ν
    complementarity max |multiplier · slack| of the inequalities

and of the second-order condition (second_order.py).

Every residual is in the units in which the problem was solved (its own, or natural ones: `units.py`); `None` says that it does not
apply or was not computed. How they become a verdict: `judge`; what is checked independently of the solver: `certificates.py`.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from optctl.problem.trajectory import Trajectory


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
