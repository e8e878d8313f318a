"""One pole, or two in a row, hinged on a cart that is pushed along a track; θ = 0 hangs down, θ = π stands up."""

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


def double_pole_dynamics(x, u, p):
    """ẋ for x = (position, θ₁, θ₂, v, θ₁', θ₂'): two point masses on massless rods in a row, both angles from hanging, no friction.

    With m = m₁ + m₂ and M the cart, Lagrange's equations are

        (M + m) v' + m l₁ cos θ₁ θ₁'' + m₂ l₂ cos θ₂ θ₂'' = u + m l₁ sin θ₁ θ₁'² + m₂ l₂ sin θ₂ θ₂'²
        cos θ₁ v' + l₁ θ₁'' + (m₂/m) l₂ cos(θ₁ − θ₂) θ₂'' = −(m₂/m) l₂ sin(θ₁ − θ₂) θ₂'² − g sin θ₁
        cos θ₂ v' + l₁ cos(θ₁ − θ₂) θ₁'' + l₂ θ₂'' = l₁ sin(θ₁ − θ₂) θ₁'² − g sin θ₂

    and v' is eliminated, so that a 2 × 2 system is left.
    """
    q1, q2, w1, w2 = x[1], x[2], x[4], x[5]
    m, m2, l1, l2, g = p.mass1 + p.mass2, p.mass2, p.length1, p.length2, p.gravity
    s1, c1, s2, c2, s12, c12 = ca.sin(q1), ca.cos(q1), ca.sin(q2), ca.cos(q2), ca.sin(q1 - q2), ca.cos(q1 - q2)
    total, ratio = p.cart_mass + m, p.mass2 / m
    push = (u[0] + m * l1 * s1 * w1**2 + m2 * l2 * s2 * w2**2) / total
    b1, b2 = m * l1 * c1 / total, m2 * l2 * c2 / total  # v' = push − b1 θ₁'' − b2 θ₂''
    a11, a12 = l1 - c1 * b1, ratio * l2 * c12 - c1 * b2
    a21, a22 = l1 * c12 - c2 * b1, l2 - c2 * b2
    r1 = -ratio * l2 * s12 * w2**2 - g * s1 - c1 * push
    r2 = l1 * s12 * w1**2 - g * s2 - c2 * push
    determinant = a11 * a22 - a12 * a21
    a1, a2 = (a22 * r1 - a12 * r2) / determinant, (a11 * r2 - a21 * r1) / determinant
    return ca.vertcat(x[3], w1, w2, push - b1 * a1 - b2 * a2, a1, a2)


def double_pole(*, force: float = 20.0, dt: float = 0.03, steps: int = 120) -> Problem:
    """Catch two poles in a row that are about to fall, |u| ≤ `force` N.

    Cost ∫ (1 + cos θ₁) + (1 + cos θ₂) + 0.1 x² + 0.01 (v² + θ₁'² + θ₂'²) + 0.001 u² dt. From hanging (x0 = 0) it is the swing-up.
    """
    upright = np.array([0.0, np.pi, np.pi, 0.0, 0.0, 0.0])
    spread = np.array([0.5, 0.15, 0.15, 0.2, 0.2, 0.2])
    return Problem(
        name="cart-double-pole",
        description="Catch two poles in a row on a cart before they fall, and stop at the middle of the track.",
        source="Lagrange's equations (derived again by computer algebra in the tests); parameters and cost: optctl.",
        state={
            "position": "m",
            "angle1": "rad",
            "angle2": "rad",
            "velocity": "m/s",
            "rate1": "rad/s",
            "rate2": "rad/s",
        },
        control={"force": "N"},
        params={"cart_mass": 1.0, "mass1": 0.3, "mass2": 0.2, "length1": 0.5, "length2": 0.5, "gravity": 9.81},
        param_ranges={"cart_mass": (0.9, 1.1), "mass1": (0.27, 0.33), "mass2": (0.18, 0.22)},
        dynamics=double_pole_dynamics,
        stage_cost=lambda x, u, p: (
            (1 + ca.cos(x[1])) + (1 + ca.cos(x[2])) + 0.1 * x[0] ** 2 + 0.01 * ca.sumsqr(x[3:]) + 0.001 * u[0] ** 2
        ),
        control_bounds={"force": (-force, force)},
        initial_state=Uniform(upright - spread, upright + spread),
        observation=lambda x, p: [
            x[0],
            ca.cos(x[1]),
            ca.sin(x[1]),
            ca.cos(x[2]),
            ca.sin(x[2]),
            x[3],
            x[4],
            x[5],
        ],
        observation_names=(
            "position",
            "cos angle1",
            "sin angle1",
            "cos angle2",
            "sin angle2",
            "velocity",
            "rate1",
            "rate2",
        ),
        dt=dt,
        steps=steps,
        substeps=2,
        horizon="infinite",
    )
