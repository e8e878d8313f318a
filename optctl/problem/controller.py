"""`Controller`: (state, time) → control, batched; and `rollout`, which charges every controller the same way.

`rollout` uses the problem's own CasADi one-step map in float64: every cost that optctl reports comes from it, whatever
produced the control, and it shares no code with the generated kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np

from optctl.errors import require
from optctl.problem.statement import Problem, check_problem
from optctl.problem.trajectory import Trajectory


@runtime_checkable
class Controller(Protocol):
    """What comparison needs of an LQR gain, a plan, an MPC or a trained policy.

    A controller with the attribute `observes = True`, as every trained policy has it, is given the problem's noisy observations
    y (B, n_y) wherever it says states. One with the attribute `clips = True` can apply nothing beyond the actions −1 … 1.
    """

    name: str

    def reset(self, states: np.ndarray, params: np.ndarray, /) -> None:
        """Begin B episodes from states (B, n_x) with parameters (1 or B, n_p)."""
        ...

    def __call__(self, states: np.ndarray, time: float, /) -> np.ndarray:
        """Controls (B, n_u) in physical units for states (B, n_x) at `time` [s]."""
        ...


class FeedbackController:
    """A memoryless control law u = law(states, time), shapes (B, n_x) → (B, n_u)."""

    def __init__(self, law: Callable[[np.ndarray, float], np.ndarray], name: str = "feedback") -> None:
        self.law, self.name = law, name

    def reset(self, states: np.ndarray, params: np.ndarray) -> None:
        pass

    def __call__(self, states: np.ndarray, time: float) -> np.ndarray:
        return self.law(states, time)


class ZeroController(FeedbackController):
    """No control (or the nearest admissible one): the floor of every comparison."""

    def __init__(self, problem: Problem) -> None:
        control = problem.resting_control
        super().__init__(lambda states, time: np.broadcast_to(control, (len(states), problem.n_u)), "zero")


class RandomController:
    """Uniformly random admissible controls, the same for the same seed."""

    name = "random"

    def __init__(self, problem: Problem, seed: int = 0) -> None:
        self.problem, self.seed = problem, seed
        self.rng = np.random.default_rng(seed)

    def reset(self, states: np.ndarray, params: np.ndarray) -> None:
        self.rng = np.random.default_rng(self.seed)

    def __call__(self, states: np.ndarray, time: float) -> np.ndarray:
        return self.problem.to_control(self.rng.uniform(-1, 1, (len(states), self.problem.n_u)))


class PlanController:
    """Replays given controls (B, T, n_u), optionally with time-varying feedback u = u* − K (x − x*)."""

    def __init__(self, trajectory: Trajectory, dt: float, gains: np.ndarray | None = None, name: str = "plan") -> None:
        self.trajectory, self.dt, self.gains, self.name = trajectory, dt, gains, name

    def reset(self, states: np.ndarray, params: np.ndarray) -> None:
        start = self.trajectory.states[..., 0, :]
        require(
            start.shape == states.shape,
            "states",
            f"have shape {start.shape} like the plan's starts",
            f"has shape {states.shape}",
        )

    def __call__(self, states: np.ndarray, time: float) -> np.ndarray:
        k = min(round(time / self.dt), self.trajectory.controls.shape[-2] - 1)
        control = self.trajectory.controls[..., k, :]
        if self.gains is not None:
            deviation = states - self.trajectory.states[..., k, :]
            control = control - np.einsum("...ij,...j->...i", self.gains[..., k, :, :], deviation)
        return control


def check_states(problem: Problem, x0: Any, argument: str = "x0") -> np.ndarray:
    """Initial states as float64 (B, n_x); one state (n_x,) is a batch of one."""
    try:
        states = np.asarray(x0, dtype=np.float64)
    except (TypeError, ValueError):
        states = np.empty(0)
    shape = states.shape
    states = states[None] if states.ndim == 1 else states
    require(
        states.ndim == 2 and states.shape[1] == problem.n_x,
        argument,
        f"have shape ({problem.n_x},) or (B, {problem.n_x})",
        f"has shape {shape}",
    )
    require(bool(np.isfinite(states).all()), argument, "be finite", "holds NaN or infinity")
    return states


def check_params(problem: Problem, params: Any, num: int) -> np.ndarray:
    """Parameters as float64 (1, n_p) or (num, n_p); `None` gives the nominal ones."""
    if params is None:
        return problem.param_values[None]
    try:
        values = np.asarray(params, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(())
    values = values[None] if values.ndim == 1 else values
    require(
        values.ndim == 2 and values.shape[0] in (1, num) and values.shape[1] == problem.n_p,
        "params",
        f"have shape (1, {problem.n_p}) or ({num}, {problem.n_p})",
        f"has shape {np.shape(params)}",
    )
    require(bool(np.isfinite(values).all()), "params", "be finite", "holds NaN or infinity")
    return values


def sensors(
    problem: Problem, controller: Controller, params: np.ndarray, seed: int | None = None
) -> Callable[[np.ndarray, float], np.ndarray]:
    """What the controller is given of states (B, n_x) at a time; without a seed there is no noise. Sensor noise has a stream of its
    own: who does not see it meets the same process noise."""
    if not getattr(controller, "observes", False):
        return lambda states, time: states
    noisy, std = seed is not None and problem.noise_std.any(), problem.noise_std
    rng = np.random.default_rng([seed or 0, 1])

    def observe(states: np.ndarray, time: float) -> np.ndarray:
        y = np.asarray(problem.observation_function(states.T, params.T, time)).T
        return y + std * rng.standard_normal(y.shape) if noisy else y

    return observe


def rollout(
    problem: Problem,
    controller: Controller,
    x0: Any,
    *,
    params: Any = None,
    steps: int | None = None,
    seed: int | None = None,
) -> Trajectory:
    """Run `controller` from every start for `steps` (default: the problem's) intervals; controls are clipped to the bounds.

    With a `seed`, process noise is drawn once per (start, step), the same for every controller, and so is the noise of the
    observations for controllers that are given these; without, there is none.
    """
    check_problem(problem)
    states = check_states(problem, x0)
    num, steps = len(states), problem.steps if steps is None else steps
    require(isinstance(steps, int | np.integer) and steps >= 1, "steps", "be a positive integer", f"is {steps!r}")
    p = check_params(problem, params, num)
    step = problem.step_function
    noisy = seed is not None and problem.n_w > 0
    rng = np.random.default_rng(seed)
    scale = 1.0 if problem.discrete else np.sqrt(problem.dt)
    xs, us, costs = [states], [], []
    observe = sensors(problem, controller, p, seed)
    for k in range(steps):
        t = k * problem.dt
        seen = observe(states.copy(), t)  # a controller's own, should it write there
        if k == 0:
            controller.reset(seen, p)
        raw = np.asarray(controller(seen, t), dtype=np.float64)
        require(
            raw.shape == (num, problem.n_u),
            "controller",
            f"return shape ({num}, {problem.n_u})",
            f"`{controller.name}` returned shape {raw.shape}",
        )
        u = np.clip(raw, problem.control_low, problem.control_high)
        after, cost = step(states.T, u.T, p.T, t)
        after = np.asarray(after).T
        if noisy:
            w = rng.standard_normal((num, problem.n_w))
            g = np.asarray(problem.diffusion_function(states.T, u.T, p.T, t))  # type: ignore[misc]
            g = g.reshape(problem.n_x, -1, problem.n_w) if g.shape[1] != problem.n_w else g[:, None, :]
            after = after + scale * np.einsum("xbw,bw->bx", np.broadcast_to(g, (problem.n_x, num, problem.n_w)), w)
        states = after
        xs.append(states)
        us.append(u)
        costs.append(np.broadcast_to(np.asarray(cost).ravel(), (num,)))
    end = np.zeros(num)
    if problem.horizon == "finite":
        end = np.broadcast_to(
            np.asarray(problem.terminal_cost_function(states.T, p.T, steps * problem.dt)).ravel(), (num,)
        )
    return Trajectory(
        times=np.arange(steps + 1) * problem.dt,
        states=np.stack(xs, axis=1),
        controls=np.stack(us, axis=1),
        costs=np.stack(costs, axis=1),
        terminal_cost=end,
    )
