"""Thousands of Riccati equations at once: the same as one by one, closed forms, and members that have no solution."""

import casadi as ca
import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov

from optctl import envs, rollout
from optctl.errors import ArgumentError
from optctl.problem import Fixed, Problem
from optctl.solvers import lqr, lqr_controller, solve
from optctl.solvers.batched import riccati


def plants(problem, num, seed=0):
    return np.random.default_rng(seed).uniform(problem.param_low, problem.param_high, (num, problem.n_p))


def same(batch, alone, i, rel=1e-9):
    for name in ("K", "k", "P", "v", "w"):
        expected = getattr(alone, name)
        np.testing.assert_allclose(
            getattr(batch, name)[i], expected, rtol=rel, atol=rel * (1 + np.abs(alone.P).max()), err_msg=name
        )


def growing(rates, **rest):
    """x₁' = a x₁ + b u, x₂' = −x₂ + u: without b nothing holds x₁ where a > 0."""
    return Problem(
        name="growing", state=["x1", "x2"], control=["u"], params=rates, dt=0.1, steps=20,
        dynamics=lambda x, u, p: ca.vertcat(p.a * x[0] + p.b * u[0], u[0] - x[1]),
        stage_cost=lambda x, u, p: ca.sumsqr(x) + ca.sumsqr(u), initial_state=Fixed([1.0, 0.0]), horizon="infinite",
        integrator="exponential", **rest,
    )  # fmt: skip


@pytest.mark.parametrize("discretised", [True, False])
@pytest.mark.parametrize("horizon", ["infinite", "finite"])
@pytest.mark.parametrize("name", ["mass-spring", "lqr-unstable", "flexible-beam"])
def test_every_plant_has_what_lqr_gives_it_alone(name, horizon, discretised):
    problem = envs.make(name, steps=40)
    p = plants(problem, 5)
    batch = riccati.lqr(problem, p, horizon=horizon, discretised=discretised)
    assert batch.ok.all()
    for i in range(len(p)):
        same(batch, lqr(problem, horizon=horizon, discretised=discretised, params=p[i]), i)


def test_closed_forms_of_a_family():
    # x'' = −s x + u: P12 = √(s² + 1) − s, P22 = √(2 P12 + 1), P11 = P22 (s + P12)
    s = np.linspace(-1.5, 1.5, 200)
    P = riccati.lqr(envs.make("lqr-marginal"), s[:, None], discretised=False).P
    p12 = np.sqrt(s**2 + 1) - s
    p22 = np.sqrt(2 * p12 + 1)
    np.testing.assert_allclose(P[:, 0, 1], p12, rtol=1e-12)
    np.testing.assert_allclose(P[:, 1, 1], p22, rtol=1e-12)
    np.testing.assert_allclose(P[:, 0, 0], p22 * (s + p12), rtol=1e-11)


def test_a_plant_without_a_gain_says_so_and_leaves_its_neighbours_alone():
    problem = growing({"a": 1.0, "b": 1.0})
    good = np.array([[1.0, 1.0], [2.0, 0.5], [-1.0, 1.0]])
    lost = np.array([[1.0, 1.0], [1.0, 0.0], [2.0, 0.5], [np.e, 0.0], [-1.0, 1.0]])
    for discretised in (True, False):
        alone, mixed = (riccati.lqr(problem, p, discretised=discretised) for p in (good, lost))
        assert mixed.ok.tolist() == [True, False, True, False, True]
        assert "stabilisable" in mixed.messages[1]
        assert np.isnan(mixed.K[[1, 3]]).all()
        for name in ("K", "P"):
            assert np.array_equal(getattr(mixed, name)[[0, 2, 4]], getattr(alone, name)), name
    costs = rollout(problem, lqr_controller(problem, params=lost), np.ones((5, 2)), params=lost).total_cost
    assert np.isfinite(costs).tolist() == [True, False, True, False, True]


def test_a_singular_control_cost_is_solved_where_one_by_one_can():
    # x⁺ = x + u, Σ x²: deadbeat, P = 1, K = 1 although R = 0
    problem = envs.make("discrete-scalar").replace(stage_cost=lambda x, u, p: x**2, params={"a": 1.0})
    batch = riccati.lqr(problem, np.ones((2, 1)))
    assert batch.ok.all()
    np.testing.assert_allclose(batch.K, 1.0, rtol=1e-9)


def test_affine_terms_and_time_in_the_matrices():
    # min Σ (x − sin t)² + u²: a moving target, whose optimum quadratic programming confirms
    problem = Problem(
        name="target", state=["x"], control=["u"], params={"gain": 1.0}, dt=0.2, steps=12,
        transition=lambda x, u, p, t: (1 + 0.1 * t) * x + p.gain * u + 0.3,
        stage_cost=lambda x, u, p, t: (x - ca.sin(t)) ** 2 + u**2 + 0.5 * x * u,
        terminal_cost=lambda x, p: 3 * (x - 1) ** 2, initial_state=Fixed([1.0]),
    )  # fmt: skip
    p, x0 = np.array([[1.0], [0.4], [2.0]]), np.array([[1.0], [-2.0], [0.5]])
    batch = riccati.lqr(problem, p)
    cost = rollout(problem, lqr_controller(problem, params=p), x0, params=p).total_cost
    np.testing.assert_allclose(batch.value(x0), cost, rtol=1e-12)
    for i in range(3):
        same(batch, lqr(problem, params=p[i]), i)
        other = solve(problem, x0[i], params=p[i], method="multiple_shooting")
        assert cost[i] == pytest.approx(other.value, rel=1e-9)
        exact = solve(problem, x0[i], params=p[i], method="lqr")
        assert exact.value == pytest.approx(other.value, rel=1e-9)
        assert max(exact.certificate.stationarity, exact.certificate.costate_defect) < 1e-10
        np.testing.assert_allclose(exact.trajectory.costates, other.trajectory.costates, atol=1e-6)


def test_values_are_costs_and_average_costs_those_of_the_stationary_noise():
    problem = envs.make("dean", noise=1.0).replace(params={"unused": 0.0})
    batch = riccati.lqr(problem, np.zeros((2, 1)))
    A, B = envs.lqr.DEAN_A, np.eye(3)
    K = batch.K[1]
    stationary = solve_discrete_lyapunov(A - B @ K, np.eye(3))  # covariance under the noise
    expected = np.trace((1e-3 * np.eye(3) + K.T @ K) @ stationary)
    np.testing.assert_allclose(batch.average_cost, expected, rtol=1e-10)


def test_a_nonlinear_family_is_linearised_plant_by_plant():
    problem = envs.make("cartpole")
    p = plants(problem, 4)
    batch = riccati.lqr(problem, p, horizon="infinite")
    for i in range(4):
        same(batch, lqr(problem, horizon="infinite", params=p[i]), i, 1e-7)


def test_compare_takes_one_plant_per_episode():
    from optctl import compare

    problem = envs.make("lqr-unstable")
    p = plants(problem, 6)
    starts = problem.initial_state.sample(np.random.default_rng(1), 6)
    report = compare(problem, ["lqr"], starts=starts, params=p, repetitions=20)
    alone = [
        rollout(problem, lqr_controller(problem, params=p[i]), starts[i], params=p[i]).total_cost for i in range(6)
    ]
    np.testing.assert_allclose(report.results[0].costs[0], np.ravel(alone), rtol=1e-12)


def test_bad_arguments():
    problem = envs.make("mass-spring")
    with pytest.raises(ArgumentError, match="`horizon` must be 'finite' or 'infinite', but is 'long'"):
        riccati.lqr(problem, np.ones((2, 1)), horizon="long")
    with pytest.raises(ArgumentError, match="`params` must have shape"):
        riccati.lqr(problem, np.ones((2, 3)))
    with pytest.raises(ArgumentError, match="`states` must be 2, one for each plant, but are 3"):
        lqr_controller(problem, params=np.ones((2, 1)))(np.zeros((3, 4)), 0.0)
    timed = problem.replace(stage_cost=lambda x, u, p, t: (1 + t) * ca.sumsqr(x) + u**2)
    with pytest.raises(ArgumentError, match="`problem` must be free of time"):
        riccati.lqr(timed, np.ones((2, 1)))


def test_many_states_take_the_narrow_kernel():
    problem = envs.make("mass-spring", masses=25, steps=2)  # 50 states, and 1 for affine terms
    p = plants(problem, 2)
    batch = riccati.lqr(problem, p, horizon="finite")
    same(batch, lqr(problem, horizon="finite", params=p[1]), 1)
    with pytest.raises(
        ArgumentError, match="`problem` must have fewer than 256 states for batched recursions, but has 256"
    ):
        matrices = [torch.zeros(1, 1, 257, k, dtype=torch.float64) for k in (257, 1, 257, 1)]
        riccati.finite(
            [*matrices, torch.ones(1, 1, 1, 1, dtype=torch.float64)], torch.zeros(1, 257, 257, dtype=torch.float64), 1
        )
