"""Two links in a vertical plane: the acrobot (a motor at the elbow only), the pendubot (at the shoulder only) and the two-link arm.

θ₁ is the angle of the first link from hanging, θ₂ that of the second from the first; both stand up at (π, 0). With l_c the distance of a
link's centre of mass from its joint and I its inertia about that centre,

    M(θ₂) θ'' + c(θ, θ') + g(θ) = τ
    M₁₁ = I₁ + I₂ + m₁ l_c1² + m₂ (l₁² + l_c2² + 2 l₁ l_c2 cos θ₂),   M₁₂ = I₂ + m₂ (l_c2² + l₁ l_c2 cos θ₂),   M₂₂ = I₂ + m₂ l_c2²
    c = m₂ l₁ l_c2 sin θ₂ (−2 θ₁'θ₂' − θ₂'², θ₁'²)
    g = (m₁ l_c1 + m₂ l₁) g sin θ₁ (1, 0) + m₂ l_c2 g sin(θ₁ + θ₂) (1, 1)

Source: Spong, The swing up control problem for the acrobot, IEEE Control Systems 15 (1995) 49, with its parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import casadi as ca

from optctl.problem import Problem, Uniform

PARAMS = {
    "mass1": 1.0,
    "mass2": 1.0,
    "length1": 1.0,
    "center1": 0.5,
    "center2": 1.0,
    "inertia1": 0.083,
    "inertia2": 0.33,
    "gravity": 9.81,
}


def two_link_dynamics(x, torques, p):
    """ẋ for x = (θ₁, θ₂, θ₁', θ₂') and the torques (τ₁, τ₂) at shoulder and elbow; the 2 × 2 mass matrix is inverted in closed form."""
    v1, v2 = x[2], x[3]
    coupling, reach = p.mass2 * p.length1 * p.center2, p.inertia2 + p.mass2 * p.center2**2
    m11 = p.inertia1 + p.mass1 * p.center1**2 + p.mass2 * p.length1**2 + reach + 2 * coupling * ca.cos(x[1])
    m12 = reach + coupling * ca.cos(x[1])
    weight2 = p.mass2 * p.center2 * p.gravity * ca.sin(x[0] + x[1])
    weight1 = (p.mass1 * p.center1 + p.mass2 * p.length1) * p.gravity * ca.sin(x[0]) + weight2
    twist = coupling * ca.sin(x[1])
    r1 = torques[0] + twist * (2 * v1 * v2 + v2**2) - weight1
    r2 = torques[1] - twist * v1**2 - weight2
    determinant = m11 * reach - m12**2
    return ca.vertcat(v1, v2, (reach * r1 - m12 * r2) / determinant, (m11 * r2 - m12 * r1) / determinant)


def _swing_up(name: str, description: str, torques: Callable, bound: float, dt: float, steps: int) -> Problem:
    return Problem(
        name=name,
        description=description,
        source="Dynamics and parameters: Spong, IEEE Control Systems 15 (1995) 49, table 1; cost: optctl.",
        state={"angle1": "rad", "angle2": "rad", "rate1": "rad/s", "rate2": "rad/s"},
        control={"torque": "N m"},
        params=PARAMS,
        param_ranges={"mass1": (0.9, 1.1), "mass2": (0.9, 1.1)},
        dynamics=lambda x, u, p: two_link_dynamics(x, torques(u), p),
        stage_cost=lambda x, u, p: (
            (1 + ca.cos(x[0])) + (1 + ca.cos(x[0] + x[1])) + 0.02 * (x[2] ** 2 + x[3] ** 2) + 0.001 * u[0] ** 2
        ),
        control_bounds={"torque": (-bound, bound)},
        initial_state=Uniform([-0.5] * 4, [0.5] * 4),
        observation=lambda x, p: [ca.cos(x[0]), ca.sin(x[0]), ca.cos(x[1]), ca.sin(x[1]), x[2], x[3]],
        observation_names=("cos angle1", "sin angle1", "cos angle2", "sin angle2", "rate1", "rate2"),
        dt=dt,
        steps=steps,
        substeps=2,
        horizon="infinite",
    )


def acrobot(*, torque: float = 10.0, dt: float = 0.04, steps: int = 125) -> Problem:
    """Swing both links up from hanging with a motor at the elbow, |τ₂| ≤ `torque` N m.

    Cost ∫ (1 + cos θ₁) + (1 + cos(θ₁ + θ₂)) + 0.02 (θ₁'² + θ₂'²) + 0.001 τ² dt.
    """
    return _swing_up(
        "acrobot", "Swing a double pendulum up with a motor at its elbow only.", lambda u: (0, u[0]), torque, dt, steps
    )


def pendubot(*, torque: float = 10.0, dt: float = 0.04, steps: int = 125) -> Problem:
    """Swing both links up from hanging with a motor at the shoulder, |τ₁| ≤ `torque` N m; cost as for the acrobot."""
    return _swing_up(
        "pendubot",
        "Swing a double pendulum up with a motor at its shoulder only.",
        lambda u: (u[0], 0),
        torque,
        dt,
        steps,
    )


def reacher(*, torque: float = 2.0, dt: float = 0.04, steps: int = 75) -> Problem:
    """Bring the tip of a two-link arm, driven at both joints in a level plane, to a goal and stop there.

    Tip z = l₁ (sin θ₁, −cos θ₁) + l₂ (sin(θ₁ + θ₂), −cos(θ₁ + θ₂)); cost ∫ 10 |z − goal|² + 0.1 (θ₁'² + θ₂'²) + 0.01 |τ|² dt.
    The goal is the parameters `goal_x`, `goal_y`; `make_vec("reacher", n, randomize=True)` draws one for each episode.
    """

    def miss(x, p):
        first, second = x[0], x[0] + x[1]
        return ca.vertcat(
            p.length1 * ca.sin(first) + p.length2 * ca.sin(second) - p.goal_x,
            -p.length1 * ca.cos(first) - p.length2 * ca.cos(second) - p.goal_y,
        )

    return Problem(
        name="reacher",
        description="Reach with a two-link arm in a level plane, to another goal in each episode.",
        source="Dynamics: Spong, IEEE Control Systems 15 (1995) 49, without gravity; thin rods; cost: optctl.",
        state={"angle1": "rad", "angle2": "rad", "rate1": "rad/s", "rate2": "rad/s"},
        control={"torque1": "N m", "torque2": "N m"},
        params={
            "mass1": 1.0,
            "mass2": 1.0,
            "length1": 0.5,
            "length2": 0.5,
            "center1": 0.25,
            "center2": 0.25,
            "inertia1": 0.25 / 12,
            "inertia2": 0.25 / 12,
            "gravity": 0.0,
            "goal_x": 0.5,
            "goal_y": 0.5,
        },
        param_ranges={"goal_x": (-0.6, 0.6), "goal_y": (-0.6, 0.6)},
        dynamics=two_link_dynamics,
        stage_cost=lambda x, u, p: 10 * ca.sumsqr(miss(x, p)) + 0.1 * ca.sumsqr(x[2:]) + 0.01 * ca.sumsqr(u),
        control_bounds={"torque1": (-torque, torque), "torque2": (-torque, torque)},
        initial_state=Uniform([-3.0, -2.0, -0.5, -0.5], [3.0, 2.0, 0.5, 0.5]),
        observation=lambda x, p: [
            ca.cos(x[0]),
            ca.sin(x[0]),
            ca.cos(x[1]),
            ca.sin(x[1]),
            x[2],
            x[3],
            miss(x, p),
            p.goal_x,
            p.goal_y,
        ],
        observation_names=(
            "cos angle1",
            "sin angle1",
            "cos angle2",
            "sin angle2",
            "rate1",
            "rate2",
            "miss x",
            "miss y",
            "goal x",
            "goal y",
        ),
        dt=dt,
        steps=steps,
        horizon="infinite",
    )
