"""Controls that neither the step nor the path constraints mention: they are left out of the solve, and rest.

Q_uu is singular along such a control, so every solver would leave it wherever its guess, or the middle of its bounds, had put it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import casadi as ca
import numpy as np

from optctl.problem import Problem
from optctl.problem.trajectory import Trajectory
from optctl.solvers.solution import Solution
from optctl.solvers.solution_batch import SolutionBatch


@dataclass(frozen=True)
class Awake:
    """A problem without its idle controls, and the way back."""

    problem: Problem
    kept: np.ndarray
    """Numbers of the controls that remain, in order."""
    rest: np.ndarray
    """All controls at rest, (n_u,)."""

    def guess(self, guess: Any) -> Any:
        """A trajectory without the idle controls; one whose controls do not fit is left for the solver to refuse."""
        if guess is None or np.shape(guess.controls)[-1:] != self.rest.shape:
            return guess
        return replace(guess, controls=np.asarray(guess.controls)[..., self.kept])

    def restored(self, problem: Problem, found: SolutionBatch) -> SolutionBatch:
        """Solutions of `problem`, its idle controls at rest."""
        return SolutionBatch(
            problem,
            found.solver,
            self._path(found.trajectory),
            found.statuses,
            found.residuals,
            found.params,
            found.wall_time,
            gains=self._gains(found.gains),
            hessians=found.hessians,
            iterations=found.iterations,
            basins=found.basins,
            proved=found.proved,
            inside=(found, self._restored),
        )

    def _restored(self, found: Solution) -> Solution:
        return found.replace(trajectory=self._path(found.trajectory), gains=self._gains(found.gains))

    def _path(self, path: Trajectory) -> Trajectory:
        controls = np.tile(self.rest, (*path.controls.shape[:-1], 1))
        controls[..., self.kept] = path.controls
        return replace(path, controls=controls)

    def _gains(self, gains: np.ndarray | None) -> np.ndarray | None:
        if gains is None:
            return None
        whole = np.zeros((*gains.shape[:-2], len(self.rest), gains.shape[-1]))
        whole[..., self.kept, :] = gains
        return whole


_AWAKE: weakref.WeakKeyDictionary[Problem, Awake | None] = weakref.WeakKeyDictionary()


def awake(problem: Problem) -> Awake | None:
    """The problem without its idle controls; `None` where none is idle, or all are."""
    if problem not in _AWAKE:
        x, u, p, t = problem.x, problem.u, problem.p, problem.t
        path = problem.path_constraint_function
        mentioning = ca.vertcat(
            *problem.step_function(x, u, p, t), *([] if path is None else [ca.vec(path(x, u, p, t))])
        )
        kept = np.flatnonzero([ca.depends_on(mentioning, control) for control in ca.vertsplit(u)])
        some = 0 < len(kept) < problem.n_u
        _AWAKE[problem] = Awake(_without(problem, kept), kept, problem.resting_control) if some else None
    return _AWAKE[problem]


def _without(problem: Problem, kept: np.ndarray) -> Problem:
    names, symbols = tuple(problem.control), tuple(problem.params)  # not `problem`: what holds it keeps it for ever
    chosen, rest = [names[i] for i in kept], problem.resting_control

    def of(function: ca.Function | None) -> Callable[..., Any] | None:
        if function is None:
            return None

        def call(x: Any, u: Any, q: Any, t: Any) -> Any:
            whole = ca.SX(rest)
            whole[kept.tolist()] = u
            return function(x, whole, ca.vertcat(*(getattr(q, name) for name in symbols)), t)

        return call

    step = of(problem.step_function) if problem.discrete else None
    return problem.replace(
        control={name: problem.control[name] for name in chosen},  # type: ignore[call-overload]
        control_bounds={name: pair for name, pair in problem.control_bounds.items() if name in chosen},
        control_scale={name: scale for name, scale in problem.control_scale.items() if name in chosen},
        dynamics=of(problem.dynamics_function),
        stage_cost=of(problem.stage_cost_function),
        diffusion=None,
        transition=None if step is None else lambda x, u, q, t: step(x, u, q, t)[0],
        path_constraints=of(problem.path_constraint_function),
    )
