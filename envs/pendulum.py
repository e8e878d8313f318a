"""The torque-limited pendulum, θ = 0 upright: the swing-up with a smooth cost, and Gymnasium's Pendulum-v1 to the letter."""

from __future__ import annotations

import casadi as ca
import numpy as np

from optctl.problem import Problem, Uniform


def swing_up(*, dt: float = 0.05, steps: int = 200) -> Problem:
    """θ'' = (g/l) sin θ + u/(m l²), |u| ≤ 2 N m (too weak to lift), cost ∫ (1 − cos θ) + 0.1 ω² + 0.001 u² dt."""

    def dynamics(x, u, p):
        return ca.vertcat(x[1], p.gravity / p.length * ca.sin(x[0]) + u[0] / (p.mass * p.length**2))

    return Problem(
        name="pendulum",
        description="Swing a pendulum up and hold it, with a motor too weak to lift it at once; smooth cost.",
        source="Doya, Reinforcement learning in continuous time and space, Neural Comput. 12 (2000), §5.1.",
        state={"theta": "rad", "omega": "rad/s"},
        control={"torque": "N m"},
        params={"mass": 1.0, "length": 1.0, "gravity": 9.81},
        param_ranges={"mass": (0.8, 1.2), "length": (0.8, 1.2)},
        dynamics=dynamics,
        stage_cost=lambda x, u, p: (1 - ca.cos(x[0])) + 0.1 * x[1] ** 2 + 0.001 * u[0] ** 2,
        control_bounds={"torque": (-2.0, 2.0)},
        initial_state=Uniform([-np.pi, -1.0], [np.pi, 1.0]),
        observation=lambda x, p: [ca.cos(x[0]), ca.sin(x[0]), x[1]],
        observation_names=("cos theta", "sin theta", "omega"),
        dt=dt,
        steps=steps,
        horizon="infinite",
    )


def gymnasium_v1() -> Problem:
    """Gymnasium's Pendulum-v1: semi-implicit Euler, speed clipped at 8 rad/s, cost of the state before the step.

    ω⁺ = clip(ω + (3g/2l sin θ + 3/(m l²) u) dt, ±8), θ⁺ = θ + ω⁺ dt; cost wrap(θ)² + 0.1 ω² + 0.001 u², 200 steps.
    """
    dt = 0.05

    def transition(x, u, p):
        acceleration = 3 * p.gravity / (2 * p.length) * ca.sin(x[0]) + 3.0 / (p.mass * p.length**2) * u[0]
        omega = ca.fmin(ca.fmax(x[1] + acceleration * dt, -8.0), 8.0)
        return ca.vertcat(x[0] + omega * dt, omega)

    def cost(x, u, p):
        turns = ca.floor((x[0] + np.pi) / (2 * np.pi))
        return (x[0] - 2 * np.pi * turns) ** 2 + 0.1 * x[1] ** 2 + 0.001 * u[0] ** 2

    return Problem(
        name="pendulum-v1",
        description="Gymnasium's Pendulum-v1, equal to it step by step; its reward is minus this cost.",
        source="gymnasium/envs/classic_control/pendulum.py, version 1.4 (Farama Foundation, MIT).",
        state={"theta": "rad", "omega": "rad/s"},
        control={"torque": "N m"},
        params={"mass": 1.0, "length": 1.0, "gravity": 10.0},
        param_ranges={"mass": (0.8, 1.2), "length": (0.8, 1.2)},
        transition=transition,
        stage_cost=cost,
        control_bounds={"torque": (-2.0, 2.0)},
        initial_state=Uniform([-np.pi, -1.0], [np.pi, 1.0]),
        observation=lambda x, p: [ca.cos(x[0]), ca.sin(x[0]), x[1]],
        observation_names=("cos theta", "sin theta", "omega"),
        dt=dt,
        steps=200,
        horizon="infinite",
    )
