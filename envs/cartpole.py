"""The cart-pole: a pole hinged on a cart that is pushed along a track; θ = 0 hangs down, θ = π stands up."""

from __future__ import annotations

import casadi as ca
import numpy as np

from optctl.problem import Problem, Uniform


def cart_pole_dynamics(x, u, p):
    """ẋ for x = (position, angle, velocity, angular velocity); point mass on a massless pole, no friction (Kelly 2017, §6)."""
    q2, v1, v2 = x[1], x[2], x[3]
    s, c = ca.sin(q2), ca.cos(q2)
    m1, m2, length, g = p.cart_mass, p.pole_mass, p.length, p.gravity
    inertia = m1 + m2 * s**2
    a1 = (length * m2 * s * v2**2 + u[0] + m2 * g * c * s) / inertia
    a2 = -(length * m2 * c * s * v2**2 + u[0] * c + (m1 + m2) * g * s) / (length * inertia)
    return ca.vertcat(v1, v2, a1, a2)


def swing_up(*, dt: float = 0.05, steps: int = 200) -> Problem:
    """Swing the pole up and stop the cart at the origin, cost ∫ (1 + cos θ) + 0.1 x² + 0.01 (v² + ω²) + 0.001 u² dt."""
    return Problem(
        name="cartpole",
        description="Swing the pole of a cart up from hanging and stop at the middle of the track.",
        source="Dynamics: Kelly, An introduction to trajectory optimization, SIAM Review 59 (2017), §6; cost: optctl.",
        state={"position": "m", "angle": "rad", "velocity": "m/s", "rate": "rad/s"},
        control={"force": "N"},
        params={"cart_mass": 1.0, "pole_mass": 0.3, "length": 0.5, "gravity": 9.81},
        param_ranges={"cart_mass": (0.8, 1.2), "pole_mass": (0.24, 0.36), "length": (0.4, 0.6)},
        dynamics=cart_pole_dynamics,
        stage_cost=lambda x, u, p: (
            1 + ca.cos(x[1]) + 0.1 * x[0] ** 2 + 0.01 * (x[2] ** 2 + x[3] ** 2) + 0.001 * u[0] ** 2
        ),
        control_bounds={"force": (-10.0, 10.0)},
        initial_state=Uniform([-0.5, -np.pi, -0.2, -0.5], [0.5, np.pi, 0.2, 0.5]),
        observation=lambda x, p: [x[0], ca.cos(x[1]), ca.sin(x[1]), x[2], x[3]],
        observation_names=("position", "cos angle", "sin angle", "velocity", "rate"),
        dt=dt,
        steps=steps,
        horizon="infinite",
    )
