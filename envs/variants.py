"""Variants of the catalogue by `optctl.problem.transforms`: late, on a rail, against the clock, tracking, with goals."""

from __future__ import annotations

import casadi as ca
import numpy as np

from optctl.envs import cartpole, lqr, pendulum
from optctl.problem import Problem, Uniform
from optctl.problem.transforms import delayed, goal_conditioned, sparse, tracking


def pendulum_delayed(*, delay: int = 2) -> Problem:
    """The pendulum's swing-up with a torque that arrives `delay` steps late."""
    return delayed(pendulum.swing_up(), delay).replace(
        description=f"Swing a pendulum up with a torque that arrives {delay} steps late."
    )


def pendulum_goal(*, torque: float = 12.0) -> Problem:
    """Turn a strong pendulum to any wanted angle g and hold it there, cost ∫ (1 − cos(θ − g)) + 0.1 ω² + 0.001 u² dt.

    The goal is the parameter `goal_theta`; `make_vec("pendulum-goal", n, randomize=True)` draws one for each episode.
    """
    strong = pendulum.swing_up(steps=100).replace(control_bounds={"torque": (-torque, torque)})
    return goal_conditioned(strong, {"theta": (-np.pi, np.pi)}).replace(
        observation=lambda x, p: [
            ca.cos(x[0]),
            ca.sin(x[0]),
            x[1],
            ca.cos(p.goal_theta),
            ca.sin(p.goal_theta),
        ],
        observation_names=("cos theta", "sin theta", "omega", "cos goal", "sin goal"),
        description="Turn a pendulum with a strong motor to a wanted angle, another one in each episode, and hold it there.",
    )


def cartpole_rail(*, rail: float = 0.4) -> Problem:
    """The cart-pole's swing-up on a track of half-length `rail` [m]: a state bound for solvers, a cost signal for safe learning."""
    return cartpole.swing_up(steps=120).replace(
        name="cartpole-rail",
        description=f"Swing the pole of a cart up without leaving a track of ±{rail} m.",
        state_bounds={"position": (-rail, rail)},
        initial_state=Uniform([-0.5 * rail, -np.pi, -0.2, -0.5], [0.5 * rail, np.pi, 0.2, 0.5]),
    )


def double_integrator_minimum_time(*, force: float = 1.0, tolerance: float = 0.01) -> Problem:
    """Bring a mass to rest at the origin as fast as |u| ≤ `force` allows: cost 1 per second outside q² + v² ≤ `tolerance`.

    The edge of the goal set is smooth over a fifth of the tolerance. From rest at q the least time to the origin itself is 2 √(|q|/force).
    """
    bounded = lqr.double_integrator(dt=0.05, steps=100).replace(control_bounds={"force": (-force, force)})
    return sparse(bounded, tolerance, smoothing=0.2 * tolerance).replace(
        name="double-integrator-minimum-time",
        description="Bring a unit mass to rest at the origin in the least time, with a bounded force and a sparse cost.",
        source="Pontryagin et al., The Mathematical Theory of Optimal Processes (1962), §5: bang-bang with one switch.",
        integrator="rk4",
    )


def double_integrator_tracking(*, preview: int = 10) -> Problem:
    """A mass follows r(t) = a sin(ωt + φ), cost ∫ (q − r)² + (v − r')² + u² dt; `preview` steps of r and r' are seen ahead."""
    wave = {
        "position": lambda p, t: p.amplitude * ca.sin(p.frequency * t + p.phase),
        "velocity": lambda p, t: p.amplitude * p.frequency * ca.cos(p.frequency * t + p.phase),
    }
    return tracking(
        lqr.double_integrator(),
        wave,
        preview=preview,
        params={"amplitude": 1.0, "frequency": 1.0, "phase": 0.0},
        param_ranges={"amplitude": (0.5, 1.5), "frequency": (0.5, 2.0), "phase": (-np.pi, np.pi)},
    ).replace(description="A unit mass follows a sine that it sees coming, another one in each episode.")
