"""Many solutions of one problem: one batched trajectory, and every member with its certificate and its verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields

import numpy as np

from optctl.problem import Problem
from optctl.problem.trajectory import Trajectory
from optctl.solvers.certificates import checked, violation
from optctl.solvers.second_order import second_order_residuals
from optctl.solvers.solution import FIRST_ORDER, Certificate, Solution, Status, Verdict, judge

_CHUNK = 256
"""Members whose second-order conditions are checked at a time."""


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


def collect(problem: Problem, solutions: list[Solution], p: np.ndarray, wall_time: float) -> SolutionBatch:
    """Single solutions → a batch that keeps their certificates."""
    gains = [s.gains for s in solutions]
    residuals = {
        name: np.array([getattr(s.certificate, name) for s in solutions], dtype=float)
        for name in (*FIRST_ORDER, "cost_defect")
    }
    residuals = {name: values for name, values in residuals.items() if not np.isnan(values).all()}
    return SolutionBatch(
        problem,
        solutions[0].solver,
        Trajectory.stack([s.trajectory for s in solutions]),
        [s.status for s in solutions],
        residuals,
        p,
        wall_time,
        gains=None if any(g is None for g in gains) else np.stack(gains),  # type: ignore[arg-type]
        iterations=np.array([s.iterations for s in solutions]),
        members=solutions,
    )
