"""Flight in a vertical plane: a quadrotor that hovers, or flips once over; a rocket that lands on its engine; a lander that falls straight.

x points right, z up, the tilt θ turns counterclockwise from upright (a positive tilt thrusts to the left).
"""

from __future__ import annotations

import casadi as ca
import numpy as np

from optctl.problem import Problem, Uniform

# --- planar quadrotor --------------------------------------------------------------------------------------------------

_BODY = {"x": "m", "z": "m", "tilt": "rad", "vx": "m/s", "vz": "m/s", "rate": "rad/s"}
_QUADROTOR = {"mass": 0.486, "arm": 0.25, "inertia": 0.00383, "gravity": 9.81}
_ROTOR = 5.0  # N: the two together lift twice the weight


def quadrotor_dynamics(x, u, p):
    """ẋ for x = (x, z, θ, vx, vz, ω) and the thrusts u = (left, right):

    m vx' = −(u₁ + u₂) sin θ,   m vz' = (u₁ + u₂) cos θ − m g,   I ω' = l (u₂ − u₁).
    """
    lift = (u[0] + u[1]) / p.mass
    return ca.vertcat(
        x[3], x[4], x[5], -lift * ca.sin(x[2]), lift * ca.cos(x[2]) - p.gravity, p.arm * (u[1] - u[0]) / p.inertia
    )


def _effort(u, p):
    """(u₁ − mg/2)² + (u₂ − mg/2)², in units of the hovering thrust."""
    hover = 0.5 * p.mass * p.gravity
    return ca.sumsqr(u / hover - 1)


def quadrotor(*, dt: float = 0.03, steps: int = 120) -> Problem:
    """Fly to the origin and hover there.

    Cost ∫ x² + z² + 0.5 (1 − cos θ) + 0.1 (vx² + vz²) + 0.01 ω² + 0.1 |u/u_hover − 1|² dt.
    """
    return Problem(
        name="quadrotor",
        description="Fly a planar quadrotor to a point and hover there.",
        source="Dynamics: Tedrake, Underactuated Robotics (2023), §3.3, parameters of its planar quadrotor; cost: optctl.",
        state=_BODY,
        control={"left": "N", "right": "N"},
        params=_QUADROTOR,
        param_ranges={"mass": (0.44, 0.53), "inertia": (0.0034, 0.0042)},
        dynamics=quadrotor_dynamics,
        stage_cost=lambda x, u, p: (
            x[0] ** 2
            + x[1] ** 2
            + 0.5 * (1 - ca.cos(x[2]))
            + 0.1 * (x[3] ** 2 + x[4] ** 2)
            + 0.01 * x[5] ** 2
            + 0.1 * _effort(u, p)
        ),
        control_bounds={"left": (0.0, _ROTOR), "right": (0.0, _ROTOR)},
        initial_state=Uniform([-1.0, -1.0, -0.5, -1.0, -1.0, -1.0], [1.0, 1.0, 0.5, 1.0, 1.0, 1.0]),
        observation=lambda x, p: [x[0], x[1], ca.cos(x[2]), ca.sin(x[2]), x[3], x[4], x[5]],
        observation_names=("x", "z", "cos tilt", "sin tilt", "vx", "vz", "rate"),
        dt=dt,
        steps=steps,
        horizon="infinite",
    )


def quadrotor_flip(*, dt: float = 0.02, steps: int = 60) -> Problem:
    """From hover to hover with one whole turn, θ from 0 to 2π, in steps · dt seconds.

    Cost ∫ 0.1 (x² + z²) + 0.1 |u/u_hover − 1|² dt + 50 (x² + z² + (θ − 2π)²) + 5 (vx² + vz²) + ω² at the end.
    """
    return quadrotor().replace(
        name="quadrotor-flip",
        description="Flip a planar quadrotor once over and stop where it began, in a given time.",
        stage_cost=lambda x, u, p: 0.1 * (x[0] ** 2 + x[1] ** 2) + 0.1 * _effort(u, p),
        terminal_cost=lambda x, p: (
            50 * (x[0] ** 2 + x[1] ** 2 + (x[2] - 2 * np.pi) ** 2) + 5 * (x[3] ** 2 + x[4] ** 2) + x[5] ** 2
        ),
        initial_state=Uniform([-0.1, -0.1, -0.1, -0.1, -0.1, -0.1], [0.1, 0.1, 0.1, 0.1, 0.1, 0.1]),
        observation=lambda x, p, t: [*ca.vertsplit(x), t / (steps * dt)],
        observation_names=(*_BODY, "elapsed"),
        dt=dt,
        steps=steps,
        horizon="finite",
    )


# --- rockets -----------------------------------------------------------------------------------------------------------


def rocket_dynamics(x, u, p):
    """ẋ for x = (x, z, θ, vx, vz, ω, m) and u = (thrust T, gimbal angle δ at the lower end, l below the centre of mass):

    m vx' = −T sin(θ + δ),   m vz' = T cos(θ + δ) − m g,   m r² ω' = −T l sin δ,   m' = −T/c

    with the radius of gyration r and the exhaust velocity c. A positive δ turns the thrust counterclockwise.
    """
    thrust, direction = u[0], x[2] + u[1]
    return ca.vertcat(
        x[3],
        x[4],
        x[5],
        -thrust * ca.sin(direction) / x[6],
        thrust * ca.cos(direction) / x[6] - p.gravity,
        -thrust * p.arm * ca.sin(u[1]) / (x[6] * p.gyration**2),
        -thrust / p.exhaust,
    )


def rocket(*, dt: float = 0.1, steps: int = 80) -> Problem:
    """Land upright and at rest at the origin after steps · dt seconds, with little thrust and little gimballing.

    Cost ∫ (T/T_max)² + (δ/δ_max)² dt/10 + (θ² + ω²) dt/2 + (x² + z²)/10 + (vx² + vz²) + 50 θ² + 10 ω² at the end.
    """
    force, gimbal = 200.0, 0.2
    return Problem(
        name="rocket",
        description="Land a planar rocket upright on its gimballed engine, burning its own mass.",
        source=(
            "Rigid body with gimballed thrust and mass flow as in Szmuk and Açıkmeşe, AIAA SciTech 2018-0617, in the plane; "
            "parameters and cost: optctl."
        ),
        state=_BODY | {"mass": "kg"},
        control={"thrust": "N", "gimbal": "rad"},
        params={"arm": 1.0, "gyration": 0.8, "exhaust": 2000.0, "gravity": 9.81},
        param_ranges={"arm": (0.9, 1.1), "gyration": (0.72, 0.88)},
        dynamics=rocket_dynamics,
        stage_cost=lambda x, u, p: (u[0] / force) ** 2 + 0.1 * (u[1] / gimbal) ** 2 + 0.5 * (x[2] ** 2 + x[5] ** 2),
        terminal_cost=lambda x, p: (
            0.1 * (x[0] ** 2 + x[1] ** 2) + (x[3] ** 2 + x[4] ** 2) + 50 * x[2] ** 2 + 10 * x[5] ** 2
        ),
        control_bounds={"thrust": (20.0, force), "gimbal": (-gimbal, gimbal)},
        initial_state=Uniform([-20.0, 50.0, -0.3, -5.0, -15.0, -0.1, 9.5], [20.0, 70.0, 0.3, 5.0, -5.0, 0.1, 10.5]),
        observation=lambda x, p, t: [
            x[0] / 10,
            x[1] / 10,
            x[2],
            x[3] / 5,
            x[4] / 5,
            x[5],
            x[6] / 10,
            t / (steps * dt),
        ],
        observation_names=("x/10", "z/10", "tilt", "vx/5", "vz/5", "rate", "mass/10", "elapsed"),
        dt=dt,
        steps=steps,
        horizon="finite",
    )


def lander(*, fuel: bool = False, dt: float = 0.1, steps: int = 80) -> Problem:
    """Straight descent: h' = v, v' = u/m − g, m' = −u/c; the thrust 0 ≤ u ≤ 45 N lifts three times the weight on the moon.

    Default: a soft landing at a given time with little effort, cost ∫ (u/u_max)² dt + 10 h² + 10 v² at the end. `fuel=True`: the
    least fuel, with hard end conditions h = v = 0 and a free final time; its optimum is a free fall, then full thrust (Meditch 1964).
    """
    force = 45.0
    problem = Problem(
        name="lander",
        description="Land softly on the moon: straight descent on an engine that burns its own mass.",
        source="Meditch, On the problem of optimal thrust programming for a lunar soft landing, IEEE TAC 9 (1964) 477.",
        state={"height": "m", "velocity": "m/s", "mass": "kg"},
        control={"thrust": "N"},
        params={"exhaust": 200.0, "gravity": 1.62},
        param_ranges={"exhaust": (180.0, 220.0)},
        dynamics=lambda x, u, p: ca.vertcat(x[1], u[0] / x[2] - p.gravity, -u[0] / p.exhaust),
        stage_cost=lambda x, u, p: (u[0] / force) ** 2,
        terminal_cost=lambda x, p: 10 * x[0] ** 2 + 10 * x[1] ** 2,
        control_bounds={"thrust": (0.0, force)},
        initial_state=Uniform([15.0, -3.0, 9.0], [25.0, 0.0, 10.0]),
        observation=lambda x, p, t: [x[0] / 10, x[1] / 5, x[2] / 10, t / (steps * dt)],
        observation_names=("height/10", "velocity/5", "mass/10", "elapsed"),
        dt=dt,
        steps=steps,
        horizon="finite",
    )
    if not fuel:
        return problem
    return problem.replace(
        name="lander-fuel",
        description="Land softly on the moon with the least fuel, at whatever time.",
        stage_cost=lambda x, u, p: u[0] / p.exhaust,
        terminal_cost=None,
        terminal_constraints=lambda x, p: x[:2],
        final_time=(0.2 * steps * dt, 5.0 * steps * dt),
    )
