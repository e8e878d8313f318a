"""Linear systems with quadratic cost: the family whose optimum is known exactly.

The continuous ones are stepped by the exact exponential integrator, so a discrete Riccati equation of the same step gives the
optimum of exactly this problem. State x, control u, cost ∫ x'Qx + u'Ru dt (or its sum).
"""

from __future__ import annotations

import casadi as ca
import numpy as np

from optctl.errors import require
from optctl.problem import Problem, Uniform


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
