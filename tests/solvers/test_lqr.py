"""Riccati equations against closed forms and independently recomputed gains."""

import casadi as ca
import numpy as np
import optima
import pytest

from optctl import envs, rollout
from optctl.errors import ArgumentError
from optctl.problem import Fixed, Problem, Uniform
from optctl.solvers import Verdict, linear_quadratic, lqr, lqr_controller, solve
from optctl.solvers.methods.lqr import unreached


def _discrete(A, B, Q, R, **rest):
    n, m = np.shape(B)
    return Problem(
        name="lq", state=[f"x{i}" for i in range(n)], control=[f"u{i}" for i in range(m)], dt=1.0, steps=30,
        transition=lambda x, u, p: ca.DM(A) @ x + ca.DM(B) @ u,
        stage_cost=lambda x, u, p: x.T @ ca.DM(Q) @ x + u.T @ ca.DM(R) @ u,
        initial_state=Fixed([1.0] * n), horizon="infinite", **rest,
    )  # fmt: skip


def test_scalar_continuous():
    assert pytest.approx(1 + np.sqrt(2)) == lqr(envs.make("lqr-scalar"), discretised=False).P


def test_double_integrator_continuous():
    gain = lqr(envs.make("double-integrator"), discretised=False)
    np.testing.assert_allclose(gain.P, [[np.sqrt(3), 1], [1, np.sqrt(3)]], atol=1e-10)
    np.testing.assert_allclose(gain.K, [[1, np.sqrt(3)]], atol=1e-10)


def test_two_masses():
    gain = lqr(envs.make("mass-spring"), discretised=False)
    np.testing.assert_allclose(gain.K[0], [0.837480425902, -0.933303465031, 1.635530755383, 0.36217241205], atol=1e-10)
    assert np.trace(gain.P) == pytest.approx(15.609824415862)


def test_golden_ratio_and_discrete_double_integrator():
    assert pytest.approx((1 + np.sqrt(5)) / 2) == lqr(_discrete([[1.0]], [[1.0]], [[1.0]], [[1.0]])).P
    gain = lqr(_discrete([[1.0, 1.0], [0.0, 1.0]], [[0.0], [1.0]], np.diag([1.0, 0.0]), [[1.0]]))
    np.testing.assert_allclose(gain.P, [[2.60048518044, 2.081018996625], [2.081018996625, 3.330640064312]], atol=1e-9)
    np.testing.assert_allclose(gain.K, [[0.480533816184, 1.249621067688]], atol=1e-9)


def test_average_cost_under_noise():
    assert lqr(envs.make("dean", noise=1.0)).average_cost == pytest.approx(0.13728716597812, rel=1e-9)


def test_finite_horizon_both_kinds_of_time():
    problem = optima.scalar_finite(50)
    continuous = lqr(problem, discretised=False)
    times = np.arange(51) / 50
    np.testing.assert_allclose(continuous.P[:, 0, 0], np.tanh(1 - times), atol=1e-12)  # −p' = 1 − p², p(1) = 0
    solution = solve(problem, [1.0], method="lqr")
    assert solution.value == pytest.approx(float(lqr(problem).P[0, 0, 0]), rel=1e-12)
    assert solution.verdict is Verdict.PROVED


@pytest.mark.parametrize("name", ["lqr-scalar", "double-integrator", "dean", "mass-spring"])
def test_ddp_and_riccati_agree_and_prove_the_optimum(name):
    problem = envs.make(name)
    starts = problem.initial_state.sample(np.random.default_rng(3), 4)
    batch = solve(problem, starts)
    for i, x0 in enumerate(starts):
        exact = solve(problem, x0, method="lqr")
        assert batch[i].verdict is Verdict.PROVED
        assert batch.values[i] == pytest.approx(exact.value, rel=1e-10)
        np.testing.assert_allclose(batch.trajectory.costates[i], exact.trajectory.costates, atol=1e-7)


def test_controller_attains_the_infinite_horizon_value():
    problem = envs.make("double-integrator", steps=400)
    x0 = np.array([[1.0, -0.5]])
    cost = rollout(problem, lqr_controller(problem), x0).total_cost
    assert cost[0] == pytest.approx(float(x0[0] @ lqr(problem).P @ x0[0]), rel=1e-9)


def test_linearised_controller_holds_the_pendulum_up_a_turn_away():
    problem = envs.make("pendulum")
    end = rollout(problem, lqr_controller(problem), [2 * np.pi + 0.1, 0.0]).states[0, -1]
    np.testing.assert_allclose(end, [2 * np.pi, 0], atol=1e-6)


def test_a_nonlinear_problem_is_not_linear_quadratic():
    assert linear_quadratic(envs.make("pendulum")) is None
    assert linear_quadratic(envs.make("mass-spring")) is not None


def test_bad_problems_are_refused_by_name():
    with pytest.raises(ArgumentError, match="stabilisable"):
        lqr(_discrete([[2.0, 0.0], [0.0, 0.5]], [[0.0], [1.0]], np.eye(2), [[1.0]]))
    singular = envs.make("double-integrator").replace(stage_cost=lambda x, u, p: ca.sumsqr(x))
    with pytest.raises(ArgumentError, match="positive definite"):
        lqr(singular, discretised=False)
    with pytest.raises(ArgumentError, match="equilibrium"):
        lqr(envs.make("pendulum"), linearize_at=[1.0, 0.0])
    with pytest.raises(ArgumentError, match="linear-quadratic"):
        solve(envs.make("pendulum"), [1.0, 0.0], method="lqr")


@pytest.mark.parametrize("unit", [1.0, 1e-9, 1e9])
def test_the_unit_of_a_state_does_not_decide_whether_a_plant_is_stabilisable(unit):
    # Position in `unit` m, velocity in m/s, mass 2 kg: K = (1, √5) in m, for P₁₁ = √5, P₁₂ = 2, P₂₂ = 2√5.
    for discretised in (False, True):
        problem = Problem(
            name="mass", state=["x", "v"], control=["f"], dynamics=lambda x, u, p: [x[1] / unit, u[0] / 2], horizon="infinite",
            stage_cost=lambda x, u, p: (unit * x[0]) ** 2 + x[1] ** 2 + u[0] ** 2, dt=1e-3, steps=10,
            initial_state=Uniform([-1, -1], [1, 1]),
        )  # fmt: skip
        gain = lqr(problem, discretised=discretised)
        assert gain.K[0] / [unit, 1] == pytest.approx([1, np.sqrt(5)], rel=2e-3 if discretised else 1e-8)


@pytest.mark.parametrize("unit", [1.0, 1e-10, 1e10])
def test_a_mode_out_of_reach_is_found_in_any_units(unit):
    # In coordinates that mix them, a growing mode (0.3) that the control does not reach, beside one that it does.
    mix, scale = np.array([[1.0, 2.0, 0.5], [0.3, -1.0, 1.0], [2.0, 0.1, -0.7]]), np.diag([unit, 1.0, 1 / unit])
    change = scale @ mix
    A = change @ np.array([[0.5, 1, 1], [0, -1, 2], [0, 0, 0.3]]) @ np.linalg.inv(change)
    B = change @ np.array([[1.0], [1.0], [0.0]])
    assert unreached(A, B, discrete=False) == pytest.approx(0.3)
    assert unreached(A, B + change @ np.array([[0.0], [0.0], [1e-3]]), discrete=False) is None
