"""Natural units for problems that come in others: controls of 10⁸ V/m, costs of 10⁻¹² J.

Solvers stop where gradients are small in absolute terms, so what they see should be of order one. v = u / c and J / κ are solved
instead where half the range of a control lies outside [10⁻³, 10⁴], or typical costs below 10⁻⁵; c and κ are powers of two, so nothing
is rounded. Costates and Hessians are divided by κ, gains by c.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import casadi as ca
import numpy as np

from optctl.problem import Problem
from optctl.solvers.solution import FIRST_ORDER, Solution, SolutionBatch
from optctl.trajectory import Trajectory

_SMALL, _LARGE, _CHEAP = 1e-3, 1e4, 1e-5
_NATURAL: weakref.WeakKeyDictionary[Problem, Units | None] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Units:
    """c and κ, and the problem stated in them."""

    problem: Problem
    control: np.ndarray
    """c (n_u,)."""
    cost: float
    """κ."""

    def guess(self, guess: Any) -> Any:
        """A guess in these units."""
        if isinstance(guess, Trajectory):
            return _scaled(guess, 1 / self.control, 1 / self.cost)
        return None if guess is None else replace(guess, controls=np.asarray(guess.controls) / self.control)

    def restored(self, problem: Problem, batch: SolutionBatch) -> SolutionBatch:
        """Solutions of `problem` from those in these units."""
        members = None if batch.members is None else [self._restored(s, problem.name) for s in batch.members]
        gains = None if batch.gains is None else batch.gains * self.control[:, None]
        return SolutionBatch(
            problem, batch.solver, _scaled(batch.trajectory, self.control, self.cost), batch.statuses,
            {name: values * self._factor(name) for name, values in batch.residuals.items()}, batch.params, batch.wall_time,
            gains=gains, hessians=None if batch.hessians is None else batch.hessians * self.cost, iterations=batch.iterations,
            basins=batch.basins, proved=batch.proved, members=members,
        )  # fmt: skip

    def _restored(self, found: Solution, name: str) -> Solution:
        residuals = {
            key: value * self._factor(key)
            for key in (*FIRST_ORDER, "complementarity", "hamiltonian_drift")
            if (value := getattr(found.certificate, key)) is not None
        }
        return found.replace(
            problem=name, trajectory=_scaled(found.trajectory, self.control, self.cost),
            certificate=replace(found.certificate, **residuals), gains=None if found.gains is None else found.gains * self.control[:, None],
        )  # fmt: skip

    def _factor(self, residual: str) -> float:
        """Of a residual; that of the stationarity is the largest of all controls."""
        if residual in ("defect", "resimulation", "constraint_violation"):
            return 1.0
        return self.cost / float(self.control.min()) if residual == "stationarity" else self.cost


def natural(problem: Problem) -> Units | None:
    """The units in which to solve `problem`; `None` where its own will do."""
    if problem not in _NATURAL:
        _NATURAL[problem] = _find(problem)
    return _NATURAL[problem]


def _find(problem: Problem) -> Units | None:
    half = 0.5 * (problem.action_high - problem.action_low)
    control = np.where((half < _SMALL) | (half > _LARGE), _power_of_two(half), 1.0)
    rng = np.random.default_rng(0)
    x, u = problem.initial_state.sample(rng, 64).T, problem.to_control(rng.uniform(-1, 1, (64, problem.n_u))).T
    p, scale = problem.param_values, problem.steps * (1.0 if problem.discrete else problem.dt)
    costs = scale * np.abs(np.asarray(problem.stage_cost_function(x, u, p, 0.0)))
    if problem.horizon == "finite":
        costs = costs + np.abs(np.asarray(problem.terminal_cost_function(x, p, problem.steps * problem.dt)))
    typical = float(np.max(costs[np.isfinite(costs)], initial=0.0))
    cost = float(_power_of_two(np.array(typical))) if 0 < typical < _CHEAP else 1.0
    return None if cost == 1 and (control == 1).all() else Units(_stated(problem, control, cost), control, cost)


def _power_of_two(values: np.ndarray) -> np.ndarray:
    return 2.0 ** np.round(np.log2(values))


def _stated(problem: Problem, control: np.ndarray, cost: float) -> Problem:
    vector = lambda q: ca.vertcat(*(getattr(q, name) for name in problem.params))

    def of(function: ca.Function | None, unit: float = 1.0) -> Callable[..., Any] | None:
        if function is None:
            return None
        return lambda x, u, q, t: function(x, control * u, vector(q), t) / unit

    def at_end(function: ca.Function | None, unit: float = 1.0) -> Callable[..., Any] | None:
        return None if function is None else lambda x, q, t: function(x, vector(q), t) / unit

    limits = {
        name: (float(low / c), float(high / c))
        for name, low, high, c in zip(problem.control, problem.control_low, problem.control_high, control, strict=True)
        if name in problem.control_bounds
    }
    scales = {name: problem.control_scale[name] / float(c) for name, c in zip(problem.control, control, strict=True)
              if name in problem.control_scale}  # fmt: skip
    whole = (lambda x, u, q, t: problem.step_function(x, control * u, vector(q), t)[0]) if problem.discrete else None
    return problem.replace(
        dynamics=of(problem.dynamics_function), transition=whole, stage_cost=of(problem.stage_cost_function, cost),
        terminal_cost=None if problem.terminal_cost is None else at_end(problem.terminal_cost_function, cost),
        path_constraints=of(problem.path_constraint_function), terminal_constraints=at_end(problem.terminal_constraint_function),
        diffusion=of(problem.diffusion_function), control_bounds=limits, control_scale=scales,
    )  # fmt: skip


def _scaled(path: Trajectory, control: np.ndarray, cost: float) -> Trajectory:
    return Trajectory(
        path.times, path.states, path.controls * control, path.costs * cost, path.terminal_cost * cost,
        None if path.costates is None else path.costates * cost,
    )  # fmt: skip
