"""Natural units for problems that come in others: controls of 10⁸ V/m, costs of 10⁻¹² J.

Solvers stop where gradients are small in absolute terms, so what they see should be of order one. v = u / c and J / κ are solved
instead where half the range of a control lies outside [10⁻³, 10⁴], or typical costs below 10⁻⁵; c and κ are powers of two, so nothing
is rounded. Costates, Hessians and gains come back in the problem's units, stationarity as ∂J/∂v; what is certified is decided inside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import casadi as ca
import numpy as np

from optctl.problem import Problem
from optctl.shared import kept
from optctl.solvers.solution import FIRST_ORDER, Solution, SolutionBatch, Status, Verdict
from optctl.trajectory import Trajectory

_SMALL, _LARGE, _CHEAP = 1e-3, 1e4, 1e-5


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
        sure = [
            not status.ok or bool(c) for status, c in zip(batch.statuses, batch.certified, strict=True)
        ]  # decided in these units
        statuses = [status if c else Status.ACCEPTABLE for status, c in zip(batch.statuses, sure, strict=True)]
        return SolutionBatch(
            problem, batch.solver, _scaled(batch.trajectory, self.control, self.cost), statuses,
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
        sure = not found.ok or found.verdict in (Verdict.PROVED, Verdict.EXTREMAL)
        return found.replace(
            problem=name, trajectory=_scaled(found.trajectory, self.control, self.cost),
            certificate=replace(found.certificate, **residuals),
            gains=None if found.gains is None else found.gains * self.control[:, None],
            status=found.status if sure else Status.ACCEPTABLE,
        )  # fmt: skip

    def _factor(self, residual: str) -> float:
        """Of a residual. The stationarity stays that by the natural control, ∂J/∂v."""
        return 1.0 if residual in ("defect", "constraint_violation", "cost_defect") else self.cost


@kept
def natural(problem: Problem) -> Units | None:
    """The units in which to solve `problem`; `None` where its own will do."""
    low, high = problem.control_low, problem.control_high
    scale = np.array([problem.control_scale.get(name, 1.0) for name in problem.control])
    reach = np.maximum(*(np.where(np.isfinite(side), np.abs(side), scale) for side in (low, high)))
    size = np.where(np.isfinite(low) & np.isfinite(high), 0.5 * (high - low), reach)
    odd = (size < _SMALL) | (size > _LARGE)
    control = np.where(odd, _power_of_two(np.where(odd, size, 1.0)), 1.0)
    typical = _typical_cost(problem)
    cost = float(_power_of_two(np.array(typical))) if 0 < typical < _CHEAP else 1.0
    return None if cost == 1 and not odd.any() else Units(_stated(problem, control, cost), control, cost)


def _typical_cost(problem: Problem) -> float:
    """The largest |cost-to-go| along a few rollouts with random controls, the terminal cost on the way included."""
    rng, p, most = np.random.default_rng(0), problem.param_values, 0.0
    x, total = problem.initial_state.sample(rng, 16).T, np.zeros(16)
    for k in range(problem.steps):
        u = problem.to_control(rng.uniform(-1, 1, (16, problem.n_u))).T
        x, cost = (np.asarray(v) for v in problem.step_function(x, u, p, k * problem.dt))
        total = total + cost.ravel()
        end = (
            np.zeros(1)
            if problem.horizon == "infinite"
            else np.asarray(problem.terminal_cost_function(x, p, (k + 1) * problem.dt))
        )
        sizes = np.abs(total + end.ravel())
        most = float(np.max(sizes[np.isfinite(sizes)], initial=most))
        if most >= _CHEAP:
            break
    return most


def _power_of_two(values: np.ndarray) -> np.ndarray:
    return 2.0 ** np.round(np.log2(values))


def _stated(problem: Problem, control: np.ndarray, cost: float) -> Problem:
    names, step = tuple(problem.params), problem.step_function  # not `problem`: what holds it keeps it for ever
    vector = lambda q: ca.vertcat(*(getattr(q, name) for name in names))

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
    whole = (lambda x, u, q, t: step(x, control * u, vector(q), t)[0]) if problem.discrete else None
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
