"""Process noise is Itô's, added after the deterministic step: strong order ½ for multiplicative, 1 for additive noise.

Exact solutions on the same Brownian paths, with coarse increments that are sums of the fine ones:
dx = μx dt + σx dW has x(T) = x(0) exp((μ − σ²/2) T + σ W(T)); dx = −x dt + σ dW has x(T) = e^{−T} x(0) + σ ∫ e^{−(T − s)} dW.
"""

import casadi as ca
import numpy as np
import pytest
import torch

import optctl
from optctl.problem.controller import FeedbackController, ZeroController, rollout
from optctl.simulation import compile_problem

PATHS, FINE, DURATION = 4000, 256, 1.0
LEVELS = (8, 16, 32, 64)


def problem(steps, drift, diffusion, **changes):
    return optctl.Problem(
        name="noise", state=["x"], control=["u"], dynamics=lambda x, u, p: drift * x, diffusion=diffusion,
        stage_cost=lambda x, u, p: x**2, initial_state=optctl.Fixed([1.0]), dt=DURATION / steps, steps=steps, **changes,
    )  # fmt: skip


def geometric(steps, **changes):
    return problem(steps, 0.5, lambda x, u, p: 0.8 * x, **changes)


def ornstein_uhlenbeck(steps, **changes):
    return problem(steps, -1.0, lambda x, u, p: 0.8, **changes)


def paths(rng):
    """Brownian increments (PATHS, FINE) and, on the same paths, ∫ e^{−(h − s)} dW over each fine interval h."""
    h = DURATION / FINE
    covariance = [[h, 1 - np.exp(-h)], [1 - np.exp(-h), (1 - np.exp(-2 * h)) / 2]]
    increments, filtered = np.moveaxis(rng.multivariate_normal([0, 0], covariance, (PATHS, FINE)), -1, 0)
    return increments, filtered


def exact_geometric(increments, filtered):
    return np.exp((0.5 - 0.8**2 / 2) * DURATION + 0.8 * increments.sum(axis=1))


def exact_ornstein_uhlenbeck(increments, filtered):
    x = np.ones(PATHS)
    for k in range(FINE):
        x = np.exp(-DURATION / FINE) * x + 0.8 * filtered[:, k]
    return x


def at_the_end(make, increments, steps, **changes):
    """x(T) of the compiled step in float64, given the Brownian increments."""
    compiled = compile_problem(make(steps, **changes), dtype="float64")
    noise = increments.reshape(PATHS, steps, -1).sum(axis=-1) / np.sqrt(DURATION / steps)
    x, u = torch.ones(PATHS, 1, dtype=torch.float64), torch.zeros(PATHS, 1, dtype=torch.float64)
    for k in range(steps):
        x, _ = compiled.step(x, u, w=torch.tensor(noise[:, k : k + 1]))
    return x[:, 0].numpy()


@pytest.mark.parametrize(
    ("make", "exact", "order"),
    [(geometric, exact_geometric, 0.5), (ornstein_uhlenbeck, exact_ornstein_uhlenbeck, 1.0)],
    ids=["multiplicative", "additive"],
)
def test_strong_order(make, exact, order):
    increments, filtered = paths(np.random.default_rng(0))
    truth = exact(increments, filtered)
    errors = [np.abs(at_the_end(make, increments, n) - truth).mean() for n in LEVELS]
    slope = -np.polyfit(np.log(LEVELS), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.1)


def test_better_integrators_and_substeps_refine_the_drift_and_not_the_noise():
    increments, filtered = paths(np.random.default_rng(0))
    truth = exact_geometric(increments, filtered)
    errors = [
        np.abs(at_the_end(geometric, increments, 16, substeps=n, integrator=scheme) - truth).mean()
        for n, scheme in ((1, "rk4"), (4, "rk4"), (1, "exponential"))
    ]
    assert errors == pytest.approx([errors[0]] * 3, rel=1e-3)


def test_the_mean_is_that_of_ito_and_not_of_stratonovich():
    # E x(1) = e^{μ} = 1.649 (Itô); e^{μ + σ²/2} = 2.270 (Stratonovich). Var = e^{2μ}(e^{σ²} − 1) gives the standard error.
    make = geometric(50, integrator="exponential")
    count = 20000
    error = np.sqrt(np.exp(1.0) * (np.exp(0.64) - 1) / count)
    ends = rollout(make, ZeroController(make), np.ones((count, 1)), seed=1).states[:, -1, 0]
    assert ends.mean() == pytest.approx(np.exp(0.5), abs=4 * error)
    env = optctl.make_vec(make.replace(horizon="infinite"), count, dtype="float64", max_episode_steps=51)
    env.reset(seed=1)
    for _ in range(50):
        env.step(torch.zeros(count, 1, dtype=torch.float64))
    assert float(env.state.mean()) == pytest.approx(np.exp(0.5), abs=4 * error)


def test_additive_noise_leaves_a_stationary_variance_too_large_by_the_step():
    # x⁺ = e^{−h} x + σ √h w: variance σ²h/(1 − e^{−2h}) = σ²/2 (1 + h + …), not the exact σ²/2. Documented, hence tested.
    make = ornstein_uhlenbeck(10, integrator="exponential")
    count, steps, expected = 20000, 40, 0.64 * 0.1 / (1 - np.exp(-0.2))
    ends = rollout(make, ZeroController(make), np.ones((count, 1)), seed=2, steps=steps).states[:, -1, 0]
    env = optctl.make_vec(make.replace(horizon="infinite"), count, dtype="float64", max_episode_steps=steps + 1)
    env.reset(seed=2)
    for _ in range(steps):
        env.step(torch.zeros(count, 1, dtype=torch.float64))
    tolerance = 4 * expected * np.sqrt(2 / count)
    for variance in (ends.var(), float(env.state.var())):
        assert variance == pytest.approx(expected, abs=tolerance)
        assert abs(variance - 0.32) > tolerance


def test_the_kick_is_that_of_the_point_before_the_step_in_kernels_and_in_rollout():
    # three noises, a rectangular G of state, control, parameter and time: against the formula written out
    make = optctl.Problem(
        name="rectangular", state=["a", "b"], control=["u"], params={"s": 0.3}, dynamics=lambda x, u, p: [x[1], -x[0] + u[0]],
        diffusion=lambda x, u, p, t: ca.vertcat(ca.horzcat(p.s * x[0], 0, 0.1), ca.horzcat(0, u[0], t)),
        stage_cost=lambda x, u, p: ca.sumsqr(x), initial_state=optctl.Fixed([1.0, 0.0]), dt=0.04, steps=10,
        integrator="exponential",
    )  # fmt: skip
    rng = np.random.default_rng(3)
    x, u = rng.standard_normal((5, 2)), rng.standard_normal((5, 1))

    def after(x, w, t):
        rotation = np.array([[np.cos(0.04), np.sin(0.04)], [-np.sin(0.04), np.cos(0.04)]])
        push = np.array([1 - np.cos(0.04), np.sin(0.04)])
        kick = np.stack([0.3 * x[:, 0] * w[:, 0] + 0.1 * w[:, 2], u[:, 0] * w[:, 1] + t * w[:, 2]], axis=1)
        return x @ rotation.T + u * push + 0.2 * kick

    w = rng.standard_normal((5, 3))
    compiled, _ = compile_problem(make, dtype="float64").step(*map(torch.tensor, (x, u)), None, 0.7, torch.tensor(w))
    np.testing.assert_allclose(compiled.numpy(), after(x, w, 0.7), atol=1e-13)
    path = rollout(make, FeedbackController(lambda states, t: u), x, seed=9, steps=3).states
    draws = np.random.default_rng(9).standard_normal((3, 5, 3))
    for k in range(3):
        np.testing.assert_allclose(path[:, k + 1], after(path[:, k], draws[k], 0.04 * k), atol=1e-13)
