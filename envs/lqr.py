"""Linear systems with quadratic cost: the family whose optimum is known exactly.

The continuous ones are stepped by the exact exponential integrator, so a discrete Riccati equation of the same step gives the
optimum of exactly this problem. State x, control u, cost ∫ x'Qx + u'Ru dt (or its sum). Known answers: docs/families/linear.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import casadi as ca
import numpy as np

from optctl.errors import require
from optctl.problem import Normal, Problem, Uniform


def scalar(*, dt: float = 0.05, steps: int = 200) -> Problem:
    """x' = x + u, ∫₀^∞ x² + u² dt: unstable; V = (1 + √2) x²."""
    return Problem(
        name="lqr-scalar",
        description="An unstable scalar system x' = x + u with cost ∫ x² + u² dt.",
        source="Closed form: p² − 2p − 1 = 0 gives p = 1 + √2 (Anderson and Moore, Optimal Control, 1990, §3).",
        state={"x": "1"},
        control={"u": "1"},
        dynamics=lambda x, u, p: x + u,
        stage_cost=lambda x, u, p: x**2 + u**2,
        control_scale={"u": 4.0},
        initial_state=Uniform([-1.0], [1.0]),
        dt=dt,
        steps=steps,
        horizon="infinite",
        integrator="exponential",
    )


def double_integrator(*, dt: float = 0.1, steps: int = 100) -> Problem:
    """x'' = u, ∫₀^∞ |x|² + u² dt: V = x'Px with P = [[√3, 1], [1, √3]], u = −x₁ − √3 x₂."""
    return Problem(
        name="double-integrator",
        description="A unit mass pushed by a force, cost ∫ q² + v² + u² dt.",
        source="Closed form of the algebraic Riccati equation (Anderson and Moore, Optimal Control, 1990, §3).",
        state={"position": "m", "velocity": "m/s"},
        control={"force": "N"},
        dynamics=lambda x, u, p: ca.vertcat(x[1], u[0]),
        stage_cost=lambda x, u, p: ca.sumsqr(x) + u[0] ** 2,
        control_scale={"force": 3.0},
        initial_state=Uniform([-1.0, -1.0], [1.0, 1.0]),
        dt=dt,
        steps=steps,
        horizon="infinite",
        integrator="exponential",
    )


DEAN_A = np.array([[1.01, 0.01, 0.0], [0.01, 1.01, 0.01], [0.0, 0.01, 1.01]])


def dean(*, steps: int = 200, noise: float = 0.0) -> Problem:
    """x⁺ = A x + u (+ w), Σ 10⁻³ |x|² + |u|²: three slightly unstable, weakly coupled states (Dean et al. 2020)."""
    require(noise >= 0, "noise", "not be negative", f"is {noise!r}")
    return Problem(
        name="dean",
        description="Dean's data-centre cooling example: a marginally unstable Laplacian system with cheap states.",
        source="Dean, Mania, Matni, Recht, Tu, On the sample complexity of the LQR, Found. Comput. Math. 20 (2020), §6.",
        state={"x1": "1", "x2": "1", "x3": "1"},
        control={"u1": "1", "u2": "1", "u3": "1"},
        transition=lambda x, u, p: ca.DM(DEAN_A) @ x + u,
        stage_cost=lambda x, u, p: 1e-3 * ca.sumsqr(x) + ca.sumsqr(u),
        diffusion=(lambda x, u, p: noise * ca.DM.eye(3)) if noise else None,
        control_scale={"u1": 0.5, "u2": 0.5, "u3": 0.5},
        initial_state=Uniform([-1.0] * 3, [1.0] * 3),
        dt=1.0,
        steps=steps,
        horizon="infinite",
    )


def mass_spring(*, masses: int = 2, stiffness: float = 1.0, dt: float = 0.1, steps: int = 300) -> Problem:
    """`masses` unit masses in a row between two walls, springs between neighbours, a force on the first.

    q_i'' = k (q_{i−1} − 2 q_i + q_{i+1}) + δ_{i1} u; cost ∫ |q|² + |v|² + u² dt; state (q₁…q_n, v₁…v_n).
    """
    require(isinstance(masses, int) and masses >= 1, "masses", "be a positive integer", f"is {masses!r}")
    laplacian = 2 * np.eye(masses) - np.eye(masses, k=1) - np.eye(masses, k=-1)

    def dynamics(x, u, p):
        q, v = x[:masses], x[masses:]
        force = -p.stiffness * (ca.DM(laplacian) @ q)
        force[0] += u[0]
        return ca.vertcat(v, force)

    return Problem(
        name="mass-spring",
        description=f"A chain of {masses} unit masses between two walls, pushed at its first mass.",
        source="Two-mass gains recomputed by two methods; the chain is the standard example of Boyd and Vandenberghe.",
        state={f"q{i + 1}": "m" for i in range(masses)} | {f"v{i + 1}": "m/s" for i in range(masses)},
        control={"force": "N"},
        params={"stiffness": stiffness},
        param_ranges={"stiffness": (0.5 * stiffness, 1.5 * stiffness)},
        dynamics=dynamics,
        stage_cost=lambda x, u, p: ca.sumsqr(x) + u[0] ** 2,
        control_scale={"force": 4.0},
        initial_state=Uniform([-1.0] * (2 * masses), [1.0] * (2 * masses)),
        dt=dt,
        steps=steps,
        horizon="infinite",
        integrator="exponential",
    )


def discrete_scalar(*, steps: int = 100) -> Problem:
    """x⁺ = x + u, Σ₀^∞ x² + u²: V = φ x² with the golden ratio φ = (1 + √5)/2, u = −(φ − 1) x."""
    return Problem(
        name="discrete-scalar",
        description="A scalar integrator in discrete time with cost Σ x² + u²; its value is the golden ratio.",
        source="Closed form: p = 1 + p/(1 + p) gives p² = p + 1 (Bertsekas, Dynamic Programming I, 2017, §3.1).",
        state={"x": "1"},
        control={"u": "1"},
        transition=lambda x, u, p: x + u,
        stage_cost=lambda x, u, p: x**2 + u**2,
        initial_state=Uniform([-1.0], [1.0]),
        dt=1.0,
        steps=steps,
        horizon="infinite",
    )


def discrete_integrator(*, steps: int = 100) -> Problem:
    """x⁺ = [[1, 1], [0, 1]] x + [0, 1]' u, Σ₀^∞ x₁² + u²: K = (0.4805338, 1.2496211); the velocity is free of charge."""
    return Problem(
        name="discrete-integrator",
        description="A double integrator in discrete time of which only the position and the control cost.",
        source="Textbook double integrator; gain and value recomputed by value iteration and by a Schur method.",
        state={"position": "m", "velocity": "m/s"},
        control={"force": "N"},
        transition=lambda x, u, p: ca.vertcat(x[0] + x[1], x[1] + u[0]),
        stage_cost=lambda x, u, p: x[0] ** 2 + u[0] ** 2,
        control_scale={"force": 3.0},
        initial_state=Uniform([-1.0, -1.0], [1.0, 1.0]),
        dt=1.0,
        steps=steps,
        horizon="infinite",
    )


def _second_order(name: str, description: str, stiffness: float, force: float, dt: float, steps: int) -> Problem:
    """x'' = −s x + u, ∫₀^∞ |x|² + u² dt, with a stiffness s of either sign.

    P₁₂ = √(s² + 1) − s, P₂₂ = √(2 P₁₂ + 1), P₁₁ = P₂₂ (s + P₁₂); u = −P₁₂ x − P₂₂ x'.
    """
    return Problem(
        name=name,
        description=description,
        source="Closed form of the algebraic Riccati equation (Anderson and Moore, Optimal Control, 1990, §3).",
        state={"position": "m", "velocity": "m/s"},
        control={"force": "N"},
        params={"stiffness": stiffness},
        param_ranges={"stiffness": (stiffness - 0.5, stiffness + 0.5)},
        dynamics=lambda x, u, p: ca.vertcat(x[1], u[0] - p.stiffness * x[0]),
        stage_cost=lambda x, u, p: ca.sumsqr(x) + u[0] ** 2,
        control_scale={"force": force},
        initial_state=Uniform([-1.0, -1.0], [1.0, 1.0]),
        dt=dt,
        steps=steps,
        horizon="infinite",
        integrator="exponential",
    )


def marginal(*, dt: float = 0.1, steps: int = 150) -> Problem:
    """x'' = −x + u, ∫₀^∞ |x|² + u² dt: K = (√2 − 1, √(2√2 − 1))."""
    description = "An undamped mass on a spring, which neither grows nor decays by itself."
    return _second_order("lqr-marginal", description, 1.0, 2.0, dt, steps)


def unstable(*, dt: float = 0.1, steps: int = 60) -> Problem:
    """x'' = x + u, ∫₀^∞ |x|² + u² dt: K = (1 + √2)(1, 1)."""
    description = "A mass on a repelling spring: an inverted pendulum about its upright position, or a levitated ball."
    return _second_order("lqr-unstable", description, -1.0, 6.0, dt, steps)


def lqg(
    *, weight: float = 1.0, process_noise: float = 0.1, sensor_noise: float = 0.1, dt: float = 0.05, steps: int = 200
) -> Problem:
    """Doyle's two states: one noisy position is seen, and the noise drives both; cost ∫ q (x₁ + x₂)² + u² dt.

    dx = [[1, 1], [0, 1]] x dt + [0, 1]' u dt + w [1, 1]' dW, y = x₁ + sensor noise of intensity v², that is, of standard deviation
    v/√dt in every sample. In continuous time K = (2 + √(4 + q)) (1, 1) and the Kalman gain is (2 + √(4 + (w/v)²)) (1, 1)'.
    """
    for name, value in (("weight", weight), ("process_noise", process_noise), ("sensor_noise", sensor_noise)):
        require(value > 0, name, "be positive", f"is {value!r}")
    return Problem(
        name="lqg",
        description="Doyle's counterexample: an LQG regulator with one noisy sensor whose margins can be arbitrarily small.",
        source="Doyle, Guaranteed margins for LQG regulators, IEEE Trans. Autom. Control 23 (1978) 756.",
        state={"x1": "1", "x2": "1"},
        control={"u": "1"},
        dynamics=lambda x, u, p: ca.vertcat(x[0] + x[1], x[1] + u[0]),
        diffusion=lambda x, u, p: process_noise * ca.DM.ones(2, 1),
        observation=lambda x, p: x[0],
        observation_names=("x1",),
        observation_noise=sensor_noise / dt**0.5,
        stage_cost=lambda x, u, p: weight * (x[0] + x[1]) ** 2 + u[0] ** 2,
        control_scale={"u": 12.0},
        initial_state=Normal([0.0, 0.0], [0.1, 0.1]),
        dt=dt,
        steps=steps,
        horizon="infinite",
        integrator="exponential",
    )


def beam(
    *, modes: int = 4, force_at: float = 0.15, sensors_at: Sequence[float] = (), dt: float = 0.005, steps: int = 400
) -> Problem:
    """A pinned–pinned Euler–Bernoulli beam in its first `modes` bending modes, pushed at a point and seen at points.

    EI ∂⁴w/∂z⁴ + ρA ∂²w/∂t² = δ(z − z_a) u, w = Σ φ_i(z) q_i(t), φ_i = √(2/(ρA L)) sin(iπz/L), ω_i = (iπ/L)² √(EI/ρA):
    q_i'' + 2ζω_i q_i' + ω_i² q_i = φ_i(z_a) u. State (ω₁q₁ … ω_n q_n, q₁' … q_n'), so that |x|²/2 is the energy; cost
    ∫ |x|² + 0.01 u² dt. `force_at` and `sensors_at` are fractions of the length; each sensor gives displacement and velocity
    (default: `modes` equal spacings, which determine the state).
    """
    require(isinstance(modes, int) and modes >= 1, "modes", "be a positive integer", f"is {modes!r}")
    require(
        isinstance(sensors_at, Sequence), "sensors_at", "be a sequence of fractions of the length", f"is {sensors_at!r}"
    )
    places = tuple(sensors_at) or tuple((i + 1) / (modes + 1) for i in range(modes))
    for name, values in (("force_at", (force_at,)), ("sensors_at", places)):
        require(all(0 < z < 1 for z in values), name, "lie between 0 and 1", f"is {values}")
    number = np.arange(1, modes + 1)

    def frequencies(p):
        return ca.DM(number**2) * (np.pi / p.length) ** 2 * ca.sqrt(p.rigidity / p.density)

    def shapes(z, p):
        return ca.sqrt(2 / (p.density * p.length)) * ca.DM(np.sin(np.outer(z, number) * np.pi))

    def dynamics(x, u, p):
        omega, strain, rate = frequencies(p), x[:modes], x[modes:]
        push = shapes([force_at], p).T * u[0]
        return ca.vertcat(omega * rate, push - omega * strain - 2 * p.damping * omega * rate)

    def observation(x, p):
        shape = shapes(places, p)
        return ca.vertcat(shape @ (x[:modes] / frequencies(p)), shape @ x[modes:])

    return Problem(
        name="flexible-beam",
        description=f"A lightly damped beam between two hinges, {modes} bending modes, calmed by one point force.",
        source="Meirovitch, Fundamentals of Vibrations (2001), §8.5, for the pinned beam; cost: twice the energy.",
        state={f"strain{i}": "√J" for i in number} | {f"rate{i}": "√J" for i in number},
        control={"force": "N"},
        params={"length": 1.0, "rigidity": 1.0, "density": 1.0, "damping": 0.005},
        param_ranges={"rigidity": (0.7, 1.4), "damping": (0.002, 0.02)},
        dynamics=dynamics,
        stage_cost=lambda x, u, p: ca.sumsqr(x) + 0.01 * u[0] ** 2,
        control_scale={"force": 30.0},
        initial_state=Uniform([-1.0] * (2 * modes), [1.0] * (2 * modes)),
        observation=observation,
        observation_names=tuple(f"{what} at {z:.3g} L" for what in ("displacement", "velocity") for z in places),
        dt=dt,
        steps=steps,
        horizon="infinite",
        integrator="exponential",
    )
