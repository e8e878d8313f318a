"""Problems small enough to be computed by hand."""

import casadi as ca

from optctl import Fixed, Normal, Problem, Uniform


def counter(horizon="finite", steps=3, **changes):
    """x⁺ = x + k u, cost x² a step and, on a finite horizon, 10 x at the end; |u| ≤ 2, so that action a is u = 2 a."""
    return Problem(
        name="counter", state=["x"], control=["u"], params={"k": 1.0}, param_ranges={"k": (0.5, 1.5)},
        transition=lambda x, u, p: x + p.k * u, stage_cost=lambda x, u, p: x[0] ** 2,
        terminal_cost=(lambda x, p: 10 * x[0]) if horizon == "finite" else None,
        control_bounds={"u": (-2.0, 2.0)}, initial_state=Uniform([1.0], [2.0]), dt=0.5, steps=steps, horizon=horizon,
    ).replace(**changes)  # fmt: skip


def driven(**changes):
    """A continuous problem with everything: time, parameters, two noises, terminal cost, noisy observation."""
    return Problem(
        name="driven", state=["q", "v"], control=["f", "g"], params={"k": 2.0, "c": 0.3},
        dynamics=lambda x, u, p, t: [x[1], -p.k * ca.sin(x[0]) - p.c * x[1] + u[0] * ca.cos(t) + u[1] * x[0]],
        stage_cost=lambda x, u, p, t: x[0] ** 2 + ca.exp(-t) * x[1] ** 2 + 0.1 * u[0] ** 2 * u[1],
        terminal_cost=lambda x, p: p.k * x[0] ** 2 + x[1],
        diffusion=lambda x, u, p: ca.vertcat(ca.horzcat(0.1, 0), ca.horzcat(0.2 * x[0], 0.3)),
        observation=lambda x, p, t: [x[0] + p.c * t, x[0] * x[1]],
        control_bounds={"f": (-1.0, 3.0), "g": (-0.5, 0.5)},
        initial_state=Normal([0.5, 0.0], [0.3, 0.2]), dt=0.1, steps=5,
    ).replace(**changes)  # fmt: skip


def still(**changes):
    """x⁺ = x + G w with G = [1, 2]ᵀ: nothing but noise."""
    return Problem(
        name="still", state=["a", "b"], control=["u"], transition=lambda x, u, p: x, stage_cost=lambda x, u, p: 0 * x[0],
        diffusion=lambda x, u, p: ca.vertcat(1.0, 2.0), initial_state=Fixed([0.0, 0.0]), dt=1.0, steps=4,
        horizon="infinite",
    ).replace(**changes)  # fmt: skip
