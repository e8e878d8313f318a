"""Receding-horizon control: at every step each environment solves its own window again, all of them in one launch.

    min Σ_{j<H} l(x_{k+j}, u_{k+j}) + φ(x_{k+H}),   x_k given,   u_low ≤ u ≤ u_high;   the first control is applied
    φ(x) = λ'(x − x*) + ½ (x − x*)'P (x − x*)   with x*, λ, P of the episode's first plan at the end of the window

The first plan of an episode is solved over the whole horizon, basins included; its costates and value Hessians make φ the
cost-to-go beyond the window to second order (of P the positive semidefinite part). After that a step costs a few projected
Newton iterations from the last plan, shifted by one and with its gap to where the plant really is.

With `real_time` those iterations are made ahead, from the state that the plan predicts, while the plant is under way; when its
state x arrives, all that is left is u = u₀ − K (x − x̂), with the gain K of the plan. One iteration per interval is the real-time
iteration of Diehl, Bock, Schlöder (SIAM J. Control Optim. 43 (2005)), split into preparation and feedback; its feedback is the
first-order one, with the bounds that are active in the plan and a clip.
"""

from __future__ import annotations

from typing import Any

import casadi as ca
import numpy as np

from optctl.errors import require
from optctl.problem import Problem
from optctl.problem.controller import check_states
from optctl.problem.structure import unconstrained
from optctl.solvers.batch import Batched
from optctl.solvers.batched.choice import bundle
from optctl.solvers.batched.ddp import kernel, solve_ddp
from optctl.solvers.methods.ddp import expansion
from optctl.solvers.methods.sweeps import control_box
from optctl.solvers.select import solve_many


def window(problem: Problem, horizon: int) -> Problem:
    """The problem over `horizon` intervals, with φ in place of the rest; x*, λ and P are parameters, after the problem's own."""
    n = problem.n_x
    names = [f"mpc_{kind}{i}" for kind, size in (("state", n), ("costate", n), ("hessian", n * n)) for i in range(size)]

    def tail(x: ca.SX, p: Any) -> ca.SX:
        values = ca.vertcat(*(getattr(p, name) for name in names))
        z, costate, hessian = x - values[:n], values[n : 2 * n], ca.reshape(values[2 * n :], n, n)
        return ca.dot(costate, z) + z.T @ hessian @ z / 2

    params = {**problem.params, **dict.fromkeys(names, 0.0)}
    return problem.replace(
        steps=horizon,
        horizon="finite",
        params=params,
        terminal_cost=tail,
        observation=lambda x, p: x,
        observation_names=None,
        observation_noise=0.0,
    )


class MpcController:
    """Model-predictive control of B plants at once, with the parameters of each."""

    def __init__(
        self,
        problem: Problem,
        *,
        horizon: int = 50,
        iterations: int = 2,
        real_time: bool = False,
        device: str = "cpu",
        seed: int = 0,
        name: str = "mpc",
    ) -> None:
        """`horizon` [intervals], `iterations` of projected Newton per replanning pass; `real_time`: the pass of an interval is
        made before its state is known (with `iterations=1`: the real-time iteration)."""
        require(
            unconstrained(problem),
            "problem",
            "have bounds on controls only and a fixed final time",
            "has other constraints",
        )
        for argument, value in (("horizon", horizon), ("iterations", iterations)):
            require(isinstance(value, int) and value >= 1, argument, "be a positive integer", f"is {value!r}")
        self.problem, self.iterations, self.device, self.seed, self.name = problem, iterations, device, seed, name
        self.real_time = real_time
        self._plant = Batched(problem.step_function)
        self.horizon = min(horizon, problem.steps)
        self.window = window(problem, self.horizon)
        self._ready = False

    def reset(self, states: np.ndarray, params: np.ndarray) -> None:
        states = check_states(self.problem, states, "states")
        found = solve_many(self.problem, states, params=params, seed=self.seed)
        path = found.trajectory
        assert found.hessians is not None and found.gains is not None and path.costates is not None
        slopes = path.costates.copy()
        missing = np.isnan(slopes).any(axis=(1, 2))
        if missing.any():  # V_x of the plan serves as well: a tail needs a model of what follows, not an extremal
            p = np.broadcast_to(params, (len(states), self.problem.n_p))[missing]
            low, high = control_box(self.problem)
            slopes[missing] = expansion(
                self.problem, path.states[missing], path.controls[missing], p, low, high, bundle
            )[0]
        weights, axes = np.linalg.eigh(np.nan_to_num(found.hessians))
        hessians = (axes * np.maximum(weights, 0.0)[..., None, :]) @ np.swapaxes(axes, -1, -2)
        flat = hessians.reshape(*hessians.shape[:2], -1)
        self._tails = np.nan_to_num(np.concatenate([path.states, slopes, flat], axis=-1))
        self._plan, self._params = path.controls, np.broadcast_to(params, (len(states), self.problem.n_p))
        self._states, self._controls = path.states[:, : self.horizon + 1], path.controls[:, : self.horizon]
        self._gain, self._step, self._ready = found.gains[:, 0], 0, True
        kernel(self.window, self.device)  # compiled now, so that no step waits for it

    def __call__(self, states: np.ndarray, time: float) -> np.ndarray:
        require(self._ready, "states", "follow a reset", "`reset` was not called")
        step = round(time / self.problem.dt)
        if not self.real_time:
            self.replan(states, step)
            return np.clip(self._controls[:, 0], self.problem.control_low, self.problem.control_high)
        controls = self.feedback(states, step)
        self.prepare(states, controls, step)
        return controls

    def feedback(self, states: np.ndarray, step: int) -> np.ndarray:
        """u = u₀ − K (x − x̂) by the plan that was prepared for interval `step`."""
        if self._step != step:
            self.replan(states, step)
        deviation = states - self._states[:, 0]
        wanted = self._controls[:, 0] - np.einsum("bij,bj->bi", self._gain, deviation)
        return np.clip(wanted, self.problem.control_low, self.problem.control_high)

    def prepare(self, states: np.ndarray, controls: np.ndarray, step: int) -> None:
        """The plan of interval `step` + 1, from where `controls` are expected to lead."""
        if step + 1 < self.problem.steps:
            expected, _ = self._plant(states, controls, self._params, np.full((len(states), 1), step * self.problem.dt))
            self.replan(expected, step + 1)

    def replan(self, states: np.ndarray, step: int) -> None:
        """One pass for every plant from `states` (B, n_x) at interval `step`; the window ends with the horizon at the latest."""
        step = min(step, self.problem.steps - 1)
        end = min(step + self.horizon, self.problem.steps)
        x, u = self._shifted(step, end)
        x[:, 0] = states
        tail = self._tails[:, end]
        found = solve_ddp(
            self.window,
            x,
            u,
            np.concatenate([self._params, tail], axis=1),
            barrier=0.0,
            polish=self.iterations,
            start_times=step * self.problem.dt,
            device=self.device,
        )
        good = (np.isfinite(found.states).all(axis=(1, 2)) & np.isfinite(found.controls).all(axis=(1, 2)))[
            :, None, None
        ]
        self._states, self._controls = np.where(good, found.states, x), np.where(good, found.controls, u)
        self._gain, self._step = np.where(good & np.isfinite(found.gains[:, 0]), found.gains[:, 0], 0.0), step

    def _shifted(self, step: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """The last plan from interval `step` on, continued by the first plan of the episode up to `end`."""
        by, n = max(0, step - self._step), self.problem.n_x
        known = max(0, self._controls.shape[1] - by)
        old = self._states[:, by : by + known + 1] if known else self._tails[:, step : step + 1, :n]
        x = np.concatenate([old, self._tails[:, step + known + 1 : end + 1, :n]], axis=1)
        u = np.concatenate([self._controls[:, by:], self._plan[:, step + known : end]], axis=1)
        return x[:, : end - step + 1].copy(), u[:, : end - step]
