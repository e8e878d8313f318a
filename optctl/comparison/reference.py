"""The reference of a comparison, improved by whatever is at hand.

A solver's best local optimum may be undercut: by a learnt policy, by a controller that found another basin. So before anything is
measured against it, `polished` tries to improve it on every start that is not proved optimal. Guesses are
    the rollouts of HJB's law on a grid, or where no grid is affordable the trajectories that differ most (a second opinion),
    the rollouts of the controllers that are compared,
    and, in rounds, the trajectories of neighbouring starts that have just become better, until none improves.
A solver polishes each guess, and what is better by more than `BEATEN` is kept. Where a controller still undercuts it, the controller's own
trajectory becomes the reference there, as best found. So no admissible controller undercuts the reference that is reported.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from optctl.comparison.charge import from_solutions
from optctl.comparison.result import BEATEN, Reference, contradiction, undercuts
from optctl.comparison.statistics import failures_as_worst
from optctl.comparison.wording import percent
from optctl.errors import ArgumentError
from optctl.problem import Problem
from optctl.problem.controller import rollout
from optctl.problem.structure import unconstrained
from optctl.problem.trajectory import Trajectory
from optctl.solvers.feedback.hjb import HjbController
from optctl.solvers.guesses.dynamic_programming import reachable_box
from optctl.solvers.guesses.targets import Neighbours, distinct, moved
from optctl.solvers.select import pulses, solve_many
from optctl.solvers.solution import UNTRUE, Verdict

_NEAR = 0.25
"""A rollout that costs up to this fraction more than the reference may lie in a better basin: it is a guess."""
_TRIES = 3
"""Rollouts polished from each start, the cheapest first."""
_NEIGHBOURS = 2
"""Improved trajectories that every start tries in a round."""
_OTHERS = 4
"""Trajectories that differ most, tried from every start where no grid is affordable."""
_MANY = 8
"""Starts from which this pays: fewer are solved one by one."""
_ROUNDS = 10
"""Rounds of neighbours at most."""
_GRID_WORK = 3e8
"""Node values that HJB's sweep may look up: about a third of a second on one core."""
_ROLLOUT_WORK = 4e5
"""Controls that HJB's rollouts may try: about a second on one core. Neighbours spread what they find."""
_HOLD = 2
"""Intervals a stage of HJB's grid."""
_LEVELS = {1: 15, 2: 5}
"""Levels of each control on HJB's grid, by the number of controls."""
_AXIS = (21, 1001)
"""Fewest nodes an axis that are worth a grid, and the most."""


def polished(
    problem: Problem,
    starts: np.ndarray,
    params: np.ndarray,
    plan: Reference,
    rivals: Sequence[Reference],
    *,
    tolerance: float,
) -> tuple[Reference, list[str]]:
    """`plan` where nothing better was found, else what is better, and notes that say from whose guess. `rivals`: the rollouts of
    every controller, one per start each. Afterwards no admissible rival undercuts it by more than `BEATEN`."""
    began = time.perf_counter()
    search = _Search(problem, starts, params, plan, tolerance)
    if len(search.open):
        if not search.ask_hjb():
            search.ask_others()
        search.ask_rivals(rivals)
    search.yield_to(rivals)
    spent = plan.wall_time + time.perf_counter() - began
    ended = " ".join(said for said in (plan.search, search.ended) if said)
    return replace(search.plan, wall_time=spent, search=ended, checks=(*plan.checks, *search.checks)), search.notes()


class _Search:
    """The best reference so far, whose guess it came from, and what was tried."""

    def __init__(
        self, problem: Problem, starts: np.ndarray, params: np.ndarray, plan: Reference, tolerance: float
    ) -> None:
        self.problem, self.starts, self.params, self.tolerance = problem, starts, params, tolerance
        self.plan, self.before = plan, plan.admissible(tolerance)
        self.open = np.flatnonzero(~np.asarray(plan.proved) & (problem.final_time is None and self._fits(plan)))
        """Starts that guesses may improve: rollouts have the problem's own final time."""
        self.by = np.full(len(starts), "", dtype=object)
        self.disproved = np.zeros(len(starts), dtype=bool)
        self.checks: list[str] = []
        self.rounds, self.stopped = 0, False
        """Rounds of neighbours, and whether the last one still improved something."""

    def _fits(self, given: Reference) -> bool:
        """Whether all of its trajectories have the problem's intervals, as guesses must."""
        shape = (self.problem.steps, self.problem.n_u)
        return bool(given.trajectories) and all(path.controls.shape == shape for path in given.trajectories or ())

    @property
    def costs(self) -> np.ndarray:
        return self.plan.admissible(self.tolerance)

    def offer(self, rows: np.ndarray, found: Reference, by: Sequence[str]) -> np.ndarray:
        """Adopt what is better of solutions or rollouts from the starts `rows`; returns the starts it improved."""
        better = np.flatnonzero(undercuts(found.admissible(self.tolerance), self.costs[rows]))
        rows, plan = rows[better], self.plan
        if not len(rows):
            return rows
        costs, proved = plan.costs.copy(), np.array(plan.proved)
        paths, claims = list(plan.trajectories or ()), list(plan.claims)  # empty where the plan is costs alone
        kinds = {kind: plan.violations.get(kind, np.zeros(len(costs))).copy() for kind in found.violations}
        assert found.trajectories is not None
        for j, i in zip(better.tolist(), rows.tolist(), strict=True):
            costs[i], proved[i], self.by[i] = found.costs[j], False, by[j]
            if claims:
                claims[i] = found.claims[j] if found.claims else "best found"
            if paths:
                paths[i] = found.trajectories[j]
            for kind, values in kinds.items():
                values[i] = found.violations[kind][j]
        self.plan = replace(
            plan,
            costs=costs,
            proved=proved,
            trajectories=tuple(paths) or None,
            claims=tuple(claims),
            violations=plan.violations | kinds,
            defect=max(plan.defect, found.defect),
        )
        return rows

    def polish(self, rows: np.ndarray, states: np.ndarray, controls: np.ndarray, by: Sequence[str]) -> np.ndarray:
        """Solve from one guess for each of the starts `rows`; returns those it improved."""
        if not len(rows):
            return rows
        problem, num = self.problem, len(rows)
        guess = Trajectory(
            np.arange(problem.steps + 1) * problem.dt, states, controls, np.zeros((num, problem.steps)), np.zeros(num)
        )
        p = np.broadcast_to(self.params, (len(self.starts), problem.n_p))[rows]
        grape = pulses(problem, len(self.starts))
        for method in ("grape",) if grape else ("ddp", "auto") if unconstrained(problem) else ("auto",):
            solved = solve_many(problem, self.starts[rows], params=p, guess=guess, method=method)
            better = np.flatnonzero(undercuts(failures_as_worst(solved.values), self.costs[rows]))
            if not len(better):
                return better
            # what "ddp" improves, "auto" judges: certificates of all the others would cost as much as their solution
            rows, p, guess, by = rows[better], p[better], solved.trajectory[better], [by[j] for j in better.tolist()]
        true = lambda s: (
            not (s.certificate.accumulated or 0.0) > UNTRUE
        )  # a cost that is the integrator's error is none
        members = [(n, solved[j]) for n, j in enumerate(better) if solved.verdicts[j] is not Verdict.NOT_CONVERGED]
        kept = [n for n, solution in members if true(solution)]
        if not kept:
            return rows[:0]
        found = from_solutions(problem, [solved[better[n]] for n in kept], p[kept])
        return self.offer(rows[kept], found, [by[n] for n in kept])

    # --- guesses ----------------------------------------------------------------------------------------------------------

    def ask_hjb(self) -> bool:
        """The second opinion: where the grid's law leads, polished. False where no grid is affordable."""
        law = _grid_law(self.problem, self.starts, self.params)
        if law is None:
            return False
        per_start = self.problem.steps * (len(law.controls) + 3 * self.problem.n_u)
        num = min(len(self.open), max(1, int(_ROLLOUT_WORK / per_start)))
        rows = self.open[np.linspace(0, len(self.open) - 1, num).astype(int)]
        with np.errstate(all="ignore"):
            paths = rollout(self.problem, law, self.starts[rows], params=self.params)
        costs, before = failures_as_worst(paths.total_cost), self.costs[rows]
        some = np.isfinite(costs)
        fresh = self.polish(rows[some], paths.states[some], paths.controls[some], ["HJB"] * int(some.sum()))
        improved = np.union1d(fresh, self.spread(fresh))
        both = some & np.isfinite(before) & (before != 0)
        dearer = float((costs - before)[both].mean() / abs(before[both].mean())) if both.any() else float("nan")
        said = f"Second opinion: HJB on a {' × '.join(str(n) for n in law.counts)} grid, rollouts from {num} starts"
        said += (
            f" (mean cost {percent(abs(dearer))} {'above' if dearer >= 0 else 'below'} the solver's)"
            if both.any()
            else ""
        )
        self.checks.append(f"{said}, polished: {self._gain(improved)}.")
        return True

    def ask_others(self) -> None:
        """In place of a grid: every start tries the trajectories that differ most, for another way is no neighbour's. Where starts are
        solved together; one by one it would cost as much as the solver's own guesses."""
        solved = np.flatnonzero(np.isfinite(self.costs))
        paths = self.plan.trajectories
        if len(self.starts) < _MANY or not unconstrained(self.problem) or not len(solved) or not paths:
            return
        states = np.stack([paths[i].states for i in solved])
        chosen = solved[distinct(states, self.costs[solved], _OTHERS)]
        fresh = np.zeros(0, dtype=int)
        for i in chosen:
            rows = self.open[self.open != i]
            controls = np.repeat(paths[i].controls[None], len(rows), axis=0)
            fresh = np.union1d(
                fresh, self.polish(rows, moved(paths[i].states, self.starts[rows]), controls, ["others"] * len(rows))
            )
        improved = np.union1d(fresh, self.spread(fresh)).astype(int)
        said = f"Second opinion: the {len(chosen)} trajectories that differ most, tried from every start"
        self.checks.append(f"{said}: {self._gain(improved)}.")

    def ask_rivals(self, rivals: Sequence[Reference]) -> None:
        """The cheapest rollouts of the controllers, polished, then neighbours until nothing improves."""
        fresh, tried = np.zeros(0, dtype=int), 0
        rivals = [rival for rival in rivals if self._fits(rival)]
        if rivals:
            costs = np.stack([r.admissible(self.tolerance) for r in rivals])
            order = np.argsort(costs, axis=0, kind="stable")
            for chosen in order[:_TRIES]:
                at = costs[chosen, np.arange(len(chosen))]
                near = np.isfinite(at) & (~np.isfinite(self.costs) | (at <= self.costs + _NEAR * np.abs(self.costs)))
                rows = self.open[near[self.open]]
                if not len(rows):
                    break
                paths = [rivals[chosen[i]].trajectories[i] for i in rows]  # type: ignore[index]
                states, controls = (
                    np.array([getattr(path, name) for path in paths]) for name in ("states", "controls")
                )
                fresh = np.union1d(fresh, self.polish(rows, states, controls, [rivals[chosen[i]].name for i in rows]))
                tried += len(rows)
        if tried:
            names = ", ".join(dict.fromkeys(r.name for r in rivals))
            said = f"{tried} rollouts of {names} that cost up to {100 * _NEAR:.0f} % more than the reference"
            self.checks.append(f"{said}, polished: {self._gain(fresh)}.")
        self.spread(fresh)

    def spread(self, fresh: np.ndarray) -> np.ndarray:
        """In rounds, every start tries its nearest among the trajectories that have just become better. Returns the starts improved."""
        improved: set[int] = set()
        for _ in range(_ROUNDS if len(self.starts) > 1 else 0):
            if not len(fresh):
                break
            paths = self.plan.trajectories
            assert paths is not None
            near = Neighbours(
                self.problem, np.stack([paths[i].states for i in fresh]), np.stack([paths[i].controls for i in fresh])
            )
            states, controls = near.references(self.starts[self.open], _NEIGHBOURS)
            found: set[int] = set()
            self.rounds += 1
            for n in range(states.shape[1]):
                other = [
                    not np.array_equal(u, paths[i].controls) for i, u in zip(self.open, controls[:, n], strict=True)
                ]
                rows = self.open[other]
                found |= set(
                    self.polish(rows, states[other, n], controls[other, n], ["neighbours"] * len(rows)).tolist()
                )
            fresh = np.array(sorted(found), dtype=int)
            improved |= found
        self.stopped |= len(fresh) > 0 and len(self.starts) > 1
        return np.array(sorted(improved), dtype=int)

    def yield_to(self, rivals: Sequence[Reference]) -> None:
        """Where a controller still undercuts, its own trajectory becomes the reference."""
        proved = np.array(self.plan.proved)
        for rival in rivals:
            rows = self.offer(np.arange(len(self.starts)), rival, [f"{rival.name} itself"] * len(self.starts))
            self.disproved[rows] |= proved[rows]

    # --- words ------------------------------------------------------------------------------------------------------------

    @property
    def ended(self) -> str:
        if not len(self.open):
            return ""
        rounds = f"{self.rounds} round{'s' if self.rounds != 1 else ''} of neighbours"
        if self.stopped:
            return f"The search was stopped after {rounds} that still improved some."
        return f"The search ended after {rounds}, when no guess lowered a cost by more than {BEATEN:g} of it."

    def _gain(self, rows: np.ndarray) -> str:
        if not len(rows):
            return "no start improved"
        before = self.before[rows]
        known = np.isfinite(before) & (before != 0)
        most = np.max((before - self.costs[rows])[known] / np.abs(before[known]), initial=0.0)
        return f"{len(rows)} start{'s' if len(rows) > 1 else ''} improved" + (
            f" by up to {percent(float(most))}" if known.any() else ""
        )

    def notes(self) -> list[str]:
        """How many starts were improved, by how much, and by whose guess."""
        rows = np.flatnonzero(self.by != "")
        said = [contradiction(int(self.disproved.sum()))] if self.disproved.any() else []
        if len(rows):
            names = list(self.by[rows])
            whose = ", ".join(f"{names.count(name)} by {name}" for name in dict.fromkeys(names))
            said.append(f"The reference was improved before it was used: {self._gain(rows)} ({whose}).")
        return said


def _grid_law(problem: Problem, starts: np.ndarray, params: np.ndarray) -> Any:
    """HJB's law on the finest grid within the work allowed; `None` where it does not apply or is too dear."""
    if len(params) > 1 or problem.n_x > 3 or problem.n_u not in _LEVELS or problem.constrained:
        return None
    levels = _LEVELS[problem.n_u]
    lookups = levels**problem.n_u * -(-problem.steps // _HOLD) * 2**problem.n_x
    nodes = min(int((_GRID_WORK / lookups) ** (1 / problem.n_x)), _AXIS[1])
    if nodes < _AXIS[0]:
        return None
    try:
        box = reachable_box(problem, params[0], starts)
        return HjbController(problem, nodes=nodes, levels=levels, hold=_HOLD, box=box, params=params[0])
    except ArgumentError:  # unbounded controls, time-dependent, or no kernel
        return None
