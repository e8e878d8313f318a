"""What a comparison holds: `Reference`, `Result` (one controller), `Comparison` (all of them).

Arrays are (runs, starts): runs are training seeds, one for a controller that is not trained. A failed episode costs +∞.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from optctl.comparison.statistics import (
    GapIntervals,
    Interval,
    PairedDifferences,
    gap_intervals,
    iqm,
    mean_of_rest,
    paired_differences,
    probability_of_improvement,
)
from optctl.errors import require
from optctl.problem import Problem
from optctl.problem.trajectory import Trajectory

BEATEN = 1e-6
"""A controller undercuts another where its cost is lower by more than this fraction: below it is rounding and truncation."""

NEGLIGIBLE = 1e-2
"""A best cost below this fraction of what is measured against it is no unit: a relative gap then says nothing."""

UNDEFINED = GapIntervals(Interval(np.nan, np.nan, np.nan), Interval(np.nan, np.nan, np.nan))


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """Costs to measure against, one per start, and where known the trajectories that attain them."""

    name: str
    costs: np.ndarray
    """(S,); +∞ or NaN where the solver found none."""
    proved: np.ndarray | bool = False
    """(S,): whether no controller can do better (a bound), or it is the best local optimum found (a reference)."""
    trajectories: tuple[Trajectory, ...] | None = None
    violations: dict[str, np.ndarray] = field(default_factory=dict)
    """Largest violation (S,) per kind of constraint."""
    wall_time: float = 0.0
    """Solving all of them took [s]."""
    claims: tuple[str, ...] = ()
    """How much is claimed of each start: the values of `solvers.Verdict`."""
    defect: float = 0.0
    """Largest relative defect |F(x, u) − x⁺| / (1 + |x⁺|) of the trajectories."""
    search: str = ""
    """When the search for better ones ended."""
    checks: tuple[str, ...] = ()
    """Second opinions: what else was tried to undercut it, and what came of it."""

    def __post_init__(self) -> None:
        costs = np.asarray(self.costs, dtype=np.float64)
        require(costs.ndim == 1 and costs.size > 0, "costs", "be a vector, one per start", f"has shape {costs.shape}")
        object.__setattr__(self, "costs", costs)
        object.__setattr__(self, "proved", np.broadcast_to(np.asarray(self.proved, dtype=bool), costs.shape))

    @property
    def kind(self) -> str:
        """ "bound" where every start that has a cost is proved optimal, else "reference"."""
        solved = np.isfinite(self.costs)
        return "bound" if solved.any() and bool(np.all(np.asarray(self.proved)[solved])) else "reference"

    @property
    def verdicts(self) -> dict[str, int]:
        """How much is claimed, and of how many starts."""
        return {claim: self.claims.count(claim) for claim in dict.fromkeys(self.claims)}

    def admissible(self, tolerance: float) -> np.ndarray:
        """The costs (S,), infinite where there is none or a constraint is broken by more than `tolerance`."""
        kept = np.isfinite(self.costs)
        for value in self.violations.values():
            kept &= value <= tolerance
        return np.where(kept, self.costs, np.inf)


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """One controller on all starts."""

    name: str
    costs: np.ndarray
    """(R, S); +∞ where the episode failed."""
    violations: dict[str, np.ndarray]
    """Largest violation (R, S) per kind of constraint."""
    admissible: np.ndarray
    """(R, S): finite cost and every constraint kept to the tolerance."""
    prepare_time: np.ndarray
    """(R,) solving or training [s]."""
    run_time: np.ndarray
    """(R,) rolling out [s]."""
    trajectories: Any
    """Of the run with the median mean cost: a batched Trajectory, a tuple with one per start, or `None`."""
    gap: GapIntervals = UNDEFINED
    """To the best known solution, relative to its cost."""
    normalised: GapIntervals = UNDEFINED
    """(mean cost − mean best) / (mean cost of the resting control − mean best): 0 at the best known, 1 for doing nothing."""
    gap_of_rest: float = float("nan")
    """The same mean gap over the episodes that did not fail."""
    gap_to_reference: Interval = UNDEFINED.mean
    against_reference: PairedDifferences | None = None
    """Mean cost over the runs minus the reference, start by start."""

    @classmethod
    def of(
        cls,
        *,
        name: str,
        costs: np.ndarray,
        violations: dict[str, np.ndarray],
        tolerance: float,
        trajectories: list[Any],
        prepare_time: np.ndarray,
        run_time: np.ndarray,
    ) -> Result:
        admissible = np.isfinite(costs)
        for value in violations.values():
            admissible &= value <= tolerance
        middle = np.argsort(costs.mean(axis=1), kind="stable")[(len(costs) - 1) // 2]
        return cls(
            name=name,
            costs=costs,
            violations=violations,
            admissible=admissible,
            prepare_time=prepare_time,
            run_time=run_time,
            trajectories=trajectories[middle],
        )

    @property
    def runs(self) -> int:
        return len(self.costs)

    @property
    def failed(self) -> int:
        return int((~np.isfinite(self.costs)).sum())

    @property
    def violated(self) -> int:
        """Episodes that ended with a finite cost and broke a constraint."""
        return int((np.isfinite(self.costs) & ~self.admissible).sum())

    @property
    def worst_violation(self) -> tuple[str, float]:
        """The kind of constraint that is broken most, and by how much; ("", 0) where none is."""
        largest = {kind: float(value.max()) for kind, value in self.violations.items()}
        kind = max(largest, key=largest.__getitem__, default="")
        return (kind, largest[kind]) if kind and largest[kind] > 0 else ("", 0.0)

    @property
    def mean_cost(self) -> float:
        return float(self.costs.mean())

    @property
    def iqm_cost(self) -> float:
        """Interquartile mean over the runs of their mean costs."""
        return float(iqm(self.costs.mean(axis=1)))

    @property
    def wall_time(self) -> float:
        """Mean over the runs of solving or training plus rolling out [s]."""
        return float((self.prepare_time + self.run_time).mean())

    def trajectory(self, start: int) -> Trajectory | None:
        """From one start, by the median run."""
        return None if self.trajectories is None else self.trajectories[start]

    def order(self) -> tuple[float, float, float]:
        """Failures last, then broken constraints, then cost."""
        rest = mean_of_rest(self.costs)
        rounded = np.inf if np.isnan(rest) else float(f"{rest:.6g}")  # equal up to rounding: the given order
        return (self.failed / self.costs.size, float(self.violated > 0), rounded)


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Results sorted best first, and what they are measured against."""

    problem: Problem
    starts: np.ndarray
    params: np.ndarray
    seed: int
    noise_seeds: tuple[int, ...]
    reference: Reference | None
    results: list[Result]
    best: np.ndarray
    """(S,) lowest admissible cost known from each start; NaN where there is none."""
    best_by: list[str]
    """Whose it is."""
    resting: np.ndarray
    """(S,) cost of doing nothing: of `ZeroController` from each start; +∞ where it failed."""
    tolerance: float
    notes: list[str]

    @classmethod
    def assess(
        cls, *, reference: Reference | None, results: list[Result], notes: list[str], repetitions: int, **rest: Any
    ) -> Self:
        """Best known per start, and every gap to it."""
        num, seed, notes = len(rest["starts"]), rest["seed"], list(notes)
        best, best_by = np.full(num, np.inf), np.full(num, "", dtype=object)
        if reference is not None:
            best = reference.admissible(rest["tolerance"])
            best_by[np.isfinite(best)] = reference.name
        for result in results:
            costs = np.where(result.admissible, result.costs, np.inf).min(axis=0)
            best_by[undercuts(costs, best)] = result.name  # rounding alone does not take the title
            best = np.minimum(best, costs)
        known = np.isfinite(best)
        if reference is None and len(results) == 1:
            known = np.zeros(num, dtype=bool)
            best = np.full(num, np.nan)
            notes.append("One controller and no reference: there is nothing to measure a gap to.")
        elif not known.all():
            notes.append(
                f"{int((~known).sum())} of {num} starts have no admissible solution: no gap is measured there."
            )
        assessed = [_with_gaps(r, best, rest["resting"], reference, repetitions, seed) for r in results]
        if reference is not None:
            solved = np.isfinite(reference.costs)
            if not solved.all():
                notes.append(f"The reference is missing for {int((~solved).sum())} of {num} starts.")
            beaten = solved & known & undercuts(best, reference.costs)
            if beaten.any() and reference.kind == "bound":
                notes.append(contradiction(int(beaten.sum())))
            elif beaten.any():
                by = ", ".join(dict.fromkeys(best_by[beaten]))
                notes.append(
                    f"The reference was undercut on {int(beaten.sum())} of {num} starts (by {by}): it was no global optimum there, "
                    "and the best known solution was updated."
                )
        return cls(
            reference=reference,
            results=sorted(assessed, key=Result.order),
            best=np.where(known, best, np.nan),
            best_by=list(best_by),
            notes=notes,
            **rest,
        )

    def __getitem__(self, name: str) -> Result:
        found = {result.name: result for result in self.results}
        require(name in found, "name", f"be one of {', '.join(found)}", f"is {name!r}")
        return found[name]

    @property
    def yardstick(self) -> str:
        """What the best known solutions are: "proved optimum", "reference" or "best known solution"."""
        reference = self.reference
        if reference is None:
            return "best known solution"
        solved = np.isfinite(self.best)
        same = np.abs(self.best - reference.costs)[solved] <= BEATEN * np.abs(self.best)[solved]
        if not (solved.any() and same.all()):
            return "best known solution"
        return "proved optimum" if reference.kind == "bound" else "reference"

    def relative(self, result: Result) -> bool:
        """Whether the relative gap of a result says something: the mean best cost is not negligible beside what doing nothing costs more
        and beside what the controller does."""
        known = np.isfinite(self.best)
        best = self.best[known]
        if not known.any() or not np.isfinite(self.resting[known]).all():
            return True
        large = abs(result.gap_of_rest if result.failed else result.gap.mean.estimate) * NEGLIGIBLE > 1
        return not (large and abs(best.mean()) < NEGLIGIBLE * (self.resting[known] - best).mean())

    def shown_starts(self, num: int = 3) -> list[int]:
        """Starts spread from easy to hard by the best known cost: what the pictures show."""
        order = np.argsort(self.best, kind="stable")[: max(int(np.isfinite(self.best).sum()), 1)]
        quantiles = np.linspace(0.1, 0.9, num) if num <= 3 else np.linspace(0.0, 1.0, num)
        return list(dict.fromkeys(int(order[round(q * (len(order) - 1))]) for q in quantiles))

    def probability_of_improvement(self, name: str, other: str) -> float:
        """P(a run of `name` costs less than a run of `other` from the same start), ties half."""
        return probability_of_improvement(self[name].costs, self[other].costs)


def undercuts(costs: np.ndarray, than: np.ndarray) -> np.ndarray:
    """Where a cost is lower by more than `BEATEN`, entry by entry; what is not finite undercuts nothing and is undercut by all else."""
    margin = BEATEN * np.where(np.isfinite(than), np.abs(than), 0.0)
    return np.isfinite(costs) & ~(costs >= than - margin)


def contradiction(num: int) -> str:
    return (
        f"{num} starts have costs below a bound that was called proved: the bound is wrong for them "
        "(check horizon, constraints and step), so read every gap with care."
    )


def _with_gaps(
    result: Result, best: np.ndarray, resting: np.ndarray, reference: Reference | None, repetitions: int, seed: int
) -> Result:
    known = np.isfinite(best)
    changes: dict[str, Any] = {}
    if known.any():
        costs = result.costs[:, known]
        changes["gap"] = gap_intervals(costs, best[known], repetitions=repetitions, seed=seed)
        unit = resting[known] - best[known]
        if unit.mean() > 0:  # else doing nothing is the best there is
            changes["normalised"] = gap_intervals(costs, best[known], unit=unit, repetitions=repetitions, seed=seed)
        kept = np.isfinite(costs)
        base = np.broadcast_to(best[known], costs.shape)[kept]
        if kept.any() and base.mean() != 0:
            changes["gap_of_rest"] = float((costs[kept] - base).mean() / abs(base.mean()))
    if reference is not None and (solved := np.isfinite(reference.costs)).any():
        costs, theirs = result.costs[:, solved], reference.costs[solved]
        changes["gap_to_reference"] = gap_intervals(costs, theirs, repetitions=repetitions, seed=seed).mean
        changes["against_reference"] = paired_differences(
            costs.mean(axis=0), theirs, tolerance=BEATEN, repetitions=repetitions, seed=seed
        )
    return replace(result, **changes)


def units(names: Any) -> dict[str, str]:
    """`problem.state` or `problem.control` as name → unit: a `Problem` has filled in the units that were not given."""
    return dict(names)
