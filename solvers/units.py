"""Natural units for problems that come in others: controls of 10⁸ V/m, costs of 10⁻¹² J, states of 10⁻⁸ m.

Solvers stop where gradients and defects are small in absolute terms, so what they see should be of order one. z = x / s, v = u / c,
J / κ and constraints beside their own size are solved instead where a state, half the range of a control, or a constraint lies
outside [10⁻³, 10⁴], or typical costs below 10⁻⁵; all factors are powers of two, so nothing is rounded. Trajectories, costates,
Hessians and gains come back in the problem's units. The certificate stays in natural ones, in which it is judged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import casadi as ca
import numpy as np

from optctl.problem import Normal, Problem, Uniform
from optctl.problem.trajectory import Trajectory
from optctl.shared import kept
from optctl.solvers.solution import Solution
from optctl.solvers.solution_batch import SolutionBatch

_SMALL, _LARGE, _CHEAP = 1e-3, 1e4, 1e-5
_SAMPLES = 16
"""Random rollouts that show how large things are."""


@dataclass(frozen=True)
class Units:
    """s, c and κ, and the problem stated in them."""

    problem: Problem
    state: np.ndarray
    """s (n_x,)."""
    control: np.ndarray
    """c (n_u,)."""
    cost: float
    """κ."""

    def guess(self, guess: Any) -> Any:
        """A guess in these units."""
        if isinstance(guess, Trajectory):
            return _scaled(guess, 1 / self.state, 1 / self.control, 1 / self.cost)
        if guess is None:
            return None
        states, controls = np.asarray(guess.states) / self.state, np.asarray(guess.controls) / self.control
        return replace(guess, states=states, controls=controls)

    def gains(self, gains: np.ndarray | None) -> np.ndarray | None:
        """K (…, n_u, n_x) in the problem's units."""
        return None if gains is None else gains * self.control[:, None] / self.state

    def hessians(self, hessians: np.ndarray | None) -> np.ndarray | None:
        """P (…, n_x, n_x) in the problem's units."""
        return None if hessians is None else hessians * self.cost / (self.state[:, None] * self.state)

    def restored(self, problem: Problem, batch: SolutionBatch) -> SolutionBatch:
        """Solutions of `problem` from those in these units."""
        return SolutionBatch(
            problem,
            batch.solver,
            _scaled(batch.trajectory, self.state, self.control, self.cost),
            batch.statuses,
            batch.residuals,
            batch.params,
            batch.wall_time,
            gains=self.gains(batch.gains),
            hessians=self.hessians(batch.hessians),
            iterations=batch.iterations,
            basins=batch.basins,
            proved=batch.proved,
            inside=(batch, lambda found: self._restored(found, problem.name)),
        )

    def _restored(self, found: Solution, name: str) -> Solution:
        scale = found.certificate.cost_scale
        certificate = replace(found.certificate, cost_scale=1.0 + abs(found.value) if scale is None else scale)
        path = _scaled(found.trajectory, self.state, self.control, self.cost)
        return found.replace(problem=name, trajectory=path, certificate=certificate, gains=self.gains(found.gains))


@kept
def natural(problem: Problem) -> Units | None:
    """The units in which to solve `problem`; `None` where its own will do."""
    low, high = problem.control_low, problem.control_high
    scale = np.array([problem.control_scale.get(name, 1.0) for name in problem.control])
    reach = np.maximum(*(np.where(np.isfinite(side), np.abs(side), scale) for side in (low, high)))
    size = np.where(np.isfinite(low) & np.isfinite(high), 0.5 * (high - low), reach)
    states, costs, path, end = _typical(problem)
    control, state, path, end = (_unit(values, _SMALL, _LARGE) for values in (size, states, path, end))
    cost = float(_unit(np.array([costs]), _CHEAP, np.inf)[0])
    if cost == 1 and all((unit == 1).all() for unit in (control, state, path, end)):
        return None
    return Units(_stated(problem, state, control, cost, path, end), state, control, cost)


def _unit(sizes: np.ndarray, low: float, high: float) -> np.ndarray:
    """The power of two next to a size outside [low, high], 1 for others and for what is zero or infinite."""
    odd = ((sizes < low) | (sizes > high)) & (sizes > 0) & np.isfinite(sizes)
    return np.where(odd, _power_of_two(np.where(odd, sizes, 1.0)), 1.0)


def _typical(problem: Problem) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    """Sizes of each state, of the cost-to-go (terminal cost on the way included), of each path constraint and of each terminal one, along a
    few rollouts with random controls: medians over the rollouts, put together over the time by `_over_time`."""
    rng, p, cost = np.random.default_rng(0), problem.param_values, 0.0
    x, total = problem.initial_state.sample(rng, _SAMPLES).T, np.zeros(_SAMPLES)
    path, end = problem.path_constraint_function, problem.terminal_constraint_function
    states, paths, ends = [_middle(x)], [], []
    for k in range(problem.steps):
        u, t = problem.to_control(rng.uniform(-1, 1, (_SAMPLES, problem.n_u))).T, k * problem.dt
        paths.append(_middle(np.zeros((0, 1)) if path is None else np.asarray(path(x, u, p, t))))
        ends.append(_middle(np.zeros((0, 1)) if end is None else np.asarray(end(x, p, t))))
        x, stage = (np.asarray(v) for v in problem.step_function(x, u, p, t))
        total = total + stage.ravel()
        last = (
            np.zeros(1)
            if problem.horizon == "infinite"
            else np.asarray(problem.terminal_cost_function(x, p, t + problem.dt))
        )
        sizes = np.abs(total + last.ravel())
        cost = float(np.max(sizes[np.isfinite(sizes)], initial=cost))
        states.append(_middle(x))
    return _over_time(states), cost, _over_time(paths), _over_time(ends)


def _middle(values: np.ndarray) -> np.ndarray:
    """The median over the samples of |finite values| (rows, samples); 0 where there are none."""
    sizes = np.abs(np.where(np.isfinite(values), values, np.nan))
    return np.array([np.nanmedian(row) if np.isfinite(row).any() else 0.0 for row in sizes])


def _over_time(sizes: list[np.ndarray]) -> np.ndarray:
    """One size from those at the start and later. Unstable plants grow to any size under random controls, and weak ones hardly
    move: so only a start that is large is evidence of large units, what starts at zero has small ones only where everything else is
    small too, and what is of order one at either time is left alone."""
    first = sizes[0]
    later = np.quantile(sizes[1:], 0.25, axis=0) if len(sizes) > 1 else first
    ordinary = lambda size: (size >= _SMALL) & (size <= _LARGE)
    grown = later if (np.maximum(first, later) < _SMALL).all() else np.ones_like(later)  # from zero
    return np.where(first == 0, grown, np.where(ordinary(first) | ordinary(later), 1.0, first))


def _power_of_two(values: np.ndarray) -> np.ndarray:
    return 2.0 ** np.round(np.log2(values))


def _stated(
    problem: Problem, state: np.ndarray, control: np.ndarray, cost: float, path: np.ndarray, end: np.ndarray
) -> Problem:
    names, step = tuple(problem.params), problem.step_function  # not `problem`: what holds it keeps it for ever
    vector = lambda q: ca.vertcat(*(getattr(q, name) for name in names))

    def of(function: ca.Function | None, unit: Any = 1.0) -> Callable[..., Any] | None:
        if function is None:
            return None
        return lambda x, u, q, t: function(state * x, control * u, vector(q), t) / unit

    def at_end(function: ca.Function | None, unit: Any = 1.0) -> Callable[..., Any] | None:
        return None if function is None else lambda x, q, t: function(state * x, vector(q), t) / unit

    def limits(
        names: Any, lows: np.ndarray, highs: np.ndarray, units: np.ndarray, given: Any
    ) -> dict[str, tuple[float, float]]:
        rows = zip(names, lows, highs, units, strict=True)
        return {name: (float(low / unit), float(high / unit)) for name, low, high, unit in rows if name in given}

    scales = {
        name: problem.control_scale[name] / float(c)
        for name, c in zip(problem.control, control, strict=True)
        if name in problem.control_scale
    }
    start, whole = problem.initial_state, None
    location, spread = start.location / state, start.spread / state
    if problem.discrete:
        whole = lambda x, u, q, t: step(state * x, control * u, vector(q), t)[0] / state
    diffusion, observation = problem.diffusion_function, problem.observation_function
    return problem.replace(
        dynamics=of(problem.dynamics_function, state),
        transition=whole,
        stage_cost=of(problem.stage_cost_function, cost),
        terminal_cost=None if problem.terminal_cost is None else at_end(problem.terminal_cost_function, cost),
        path_constraints=of(problem.path_constraint_function, path),
        terminal_constraints=at_end(problem.terminal_constraint_function, end),
        diffusion=of(diffusion, np.tile(state[:, None], (1, problem.n_w)) if diffusion is not None else 1.0),
        observation=None if problem.observation is None else at_end(observation),
        control_bounds=limits(
            problem.control, problem.control_low, problem.control_high, control, problem.control_bounds
        ),
        state_bounds=limits(problem.state, problem.state_low, problem.state_high, state, problem.state_bounds),
        control_scale=scales,
        initial_state=Normal(location, spread) if start.kind == "normal" else Uniform(location, location + spread),
    )


def _scaled(path: Trajectory, state: np.ndarray, control: np.ndarray, cost: float) -> Trajectory:
    return Trajectory(
        path.times,
        path.states * state,
        path.controls * control,
        path.costs * cost,
        path.terminal_cost * cost,
        None if path.costates is None else path.costates * cost / state,
    )
