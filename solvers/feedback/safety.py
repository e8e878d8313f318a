"""Predictive safety filter: any controller, kept within state bounds and path constraints by the least change of its controls.

    u₀ = argmin |u₀ − u_L|² + w Σ_{j>0} |u_j|²   over plans   x_{j+1} = F(x_j, u_j),   x_0 given,   bounds on u,
         c(x_j, u_j) ≤ 0,   x_low ≤ x_{j+1} ≤ x_high  (j < H),   e(x_H) = 0

u_L is what the controller proposes, controls are measured in halves of their ranges and w is small. Where no plan is found the
last one is followed: if e(x) = 0 describes states from which the constraints can be kept for ever (a cart at rest, say), then so
are they, from the first plan on. Without e the filter only looks H intervals ahead. Every plant has its own plan; all are solved
in one batch, under the constraints of `constrained.py`.

Source: Wabersich and Zeilinger, A predictive safety filter for learning-based control of constrained nonlinear dynamical
systems, Automatica 129 (2021) 109597.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import casadi as ca
import numpy as np

from optctl.errors import require
from optctl.problem import Problem
from optctl.problem.controller import Controller, check_states, sensors
from optctl.problem.structure import path_constrained
from optctl.solvers.batched.constrained import solve_constrained

_LATER = 1e-4
"""w: later controls weigh little against the first one."""


def _window(problem: Problem, horizon: int, terminal: Callable[..., Any] | None) -> Problem:
    """The plan's problem; u_L and the time of its first interval are parameters, after the problem's own."""
    names = [f"proposed{i}" for i in range(problem.n_u)]
    scale = 0.5 * (problem.action_high - problem.action_low)
    own = lambda p: ca.vertcat(*(getattr(p, name) for name in problem.params))

    def change(x, u, p, t):
        proposed = ca.vertcat(*(getattr(p, name) for name in names))
        first = t < p.filter_time + 0.5 * problem.dt
        return ca.if_else(first, ca.sumsqr((u - proposed) / scale), _LATER * ca.sumsqr(u / scale))

    return problem.replace(
        name=f"{problem.name}-filter",
        dynamics=None,
        diffusion=None,
        steps=horizon,
        horizon="finite",
        stage_cost=change,
        transition=lambda x, u, p, t: problem.step_function(x, u, own(p), t)[0],
        terminal_cost=None,
        terminal_constraints=terminal,
        params={**problem.params, **dict.fromkeys(names, 0.0), "filter_time": 0.0},
        observation=lambda x, p: x,
        observation_names=(),
        observation_noise=0.0,
    )


class SafetyFilter:
    """`controller`, with every control replaced by the nearest one after which the constraints can still be kept."""

    def __init__(
        self,
        problem: Problem,
        controller: Controller,
        *,
        horizon: int = 20,
        terminal: Callable[..., Any] | None = None,
        feasibility: float = 1e-7,
        name: str | None = None,
    ) -> None:
        """`horizon` H [intervals]; `terminal`: e(x, p), zero where the constraints can be kept for ever; `feasibility`: largest
        violation of a plan, in the constraints' units."""
        require(problem.final_time is None, "problem", "have a fixed final time", "its final time is free")
        require(path_constrained(problem), "problem", "have state bounds or path constraints", "has none to be kept")
        require(isinstance(horizon, int) and horizon >= 1, "horizon", "be a positive integer", f"is {horizon!r}")
        require(feasibility > 0, "feasibility", "be positive", f"is {feasibility!r}")
        self.problem, self.controller, self.horizon, self.feasibility = problem, controller, horizon, feasibility
        self.name = f"{controller.name}, filtered" if name is None else name
        self.window = _window(problem, horizon, terminal)
        self.changed = np.zeros(0, dtype=int)
        """Intervals at which each plant got another control than proposed, by more than a thousandth of half the range."""
        self.unplanned = np.zeros(0, dtype=int)
        """Intervals at which no plan was found and the last one was followed."""
        self._states: np.ndarray | None = None

    def reset(self, states: np.ndarray, params: np.ndarray) -> None:
        states, q = check_states(self.problem, states, "states"), self.problem
        self._observe = sensors(q, self.controller, params)  # of a controller that observes, without noise
        self.controller.reset(self._observe(states, 0.0), params)
        self._params = np.broadcast_to(params, (len(states), q.n_p))
        self._controls = np.tile(q.resting_control, (len(states), self.horizon, 1))
        self._states = np.repeat(states[:, None], self.horizon + 1, axis=1)
        self._planned = np.zeros(len(states), dtype=bool)
        self.changed, self.unplanned = np.zeros(len(states), dtype=int), np.zeros(len(states), dtype=int)

    def __call__(self, states: np.ndarray, time: float) -> np.ndarray:
        require(self._states is not None, "states", "follow a reset", "`reset` was not called")
        assert self._states is not None
        q = self.problem
        proposed = np.clip(self.controller(self._observe(states, time), time), q.control_low, q.control_high)
        x, u = self._states.copy(), self._controls
        x[:, 0] = states
        when = np.full((len(states), 1), time)
        found = solve_constrained(
            self.window,
            x,
            u,
            np.concatenate([self._params, proposed, when], axis=1),
            start_times=time,
            barrier=1e-3,
            feasibility=self.feasibility,
            tolerance=1e-8,
            rounds=15,
        )
        good = np.isfinite(found.value) & (found.violation <= self.feasibility)
        plan = np.where(good[:, None, None], found.controls, u)
        path = np.where(good[:, None, None], found.states, x)
        chosen = np.where((good | self._planned)[:, None], plan[:, 0], proposed)
        self._planned |= good
        self.unplanned += ~good
        far = np.abs(chosen - proposed) > 1e-3 * 0.5 * (q.action_high - q.action_low)
        self.changed += far.any(axis=1)
        self._controls = np.concatenate([plan[:, 1:], plan[:, -1:]], axis=1)
        self._states = np.concatenate([path[:, 1:], path[:, -1:]], axis=1)
        return chosen
