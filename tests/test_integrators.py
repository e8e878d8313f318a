"""The schemes have the orders they claim, and the exact one is exact."""

import casadi as ca
import numpy as np
import pytest
from scipy.linalg import expm

import optctl
from optctl.integrators import INTEGRATORS, integrate

A = np.array([[0.0, 1.0], [-4.0, -0.3]])
X0 = np.array([1.0, 0.5])


def linear_rate(x, t):
    return ca.DM(A) @ x, ca.sumsqr(x)


def advance(name, duration, steps):
    x, t = ca.SX.sym("x", 2), ca.SX.sym("t")
    h = duration / steps
    after, cost = integrate(name, linear_rate, x, t, h, 1)
    step = ca.Function("step", [x, t], [after, cost])
    state, total = X0, 0.0
    for k in range(steps):
        state, part = step(state, k * h)
        total += float(part)
    return np.array(state).ravel(), total


def exact(duration):
    # ∫ x'x dt along x = exp(At) x0, by Van Loan's block exponential: independent of the schemes.
    block = np.block([[-A.T, np.eye(2)], [np.zeros((2, 2)), A]])
    e = expm(block * duration)
    return expm(A * duration) @ X0, X0 @ e[2:, 2:].T @ e[:2, 2:] @ X0


@pytest.mark.parametrize("name", [n for n, s in INTEGRATORS.items() if np.isfinite(s.order)])
def test_measured_order_of_state_and_cost(name):
    state, cost = exact(1.0)
    steps = np.array([40, 80, 160])
    results = [advance(name, 1.0, int(n)) for n in steps]
    errors = np.array([[np.linalg.norm(x - state), abs(c - cost)] for x, c in results])
    slopes = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    order = INTEGRATORS[name].order
    assert slopes == pytest.approx([order, order], abs=0.2)


def test_exponential_is_exact_for_linear_systems_and_their_cost():
    x, cost = advance("exponential", 0.4, 1)
    state, expected = exact(0.4)
    assert x == pytest.approx(state, abs=1e-15)
    assert cost == pytest.approx(expected, rel=1e-10)  # quadrature of order ten in h ‖A‖ = 1.6
    assert advance("exponential", 0.1, 1)[1] == pytest.approx(exact(0.1)[1], rel=1e-14)


def test_exponential_keeps_the_norm_of_a_bilinear_system():
    # ẋ = (J + u K) x with J, K antisymmetric: a rotation, so |x| stays 1 to rounding over 10^4 steps.
    j, k = np.zeros((3, 3)), np.zeros((3, 3))
    j[0, 1], j[1, 0] = 1.0, -1.0
    k[1, 2], k[2, 1] = 1.0, -1.0
    x, u, t = ca.SX.sym("x", 3), ca.SX.sym("u"), ca.SX.sym("t")
    after, _ = integrate("exponential", lambda z, s: ((ca.DM(j) + u * ca.DM(k)) @ z, ca.SX(0)), x, t, 0.3, 1)
    step = ca.Function("step", [x, u], [after])
    state = np.array([1.0, 0, 0])
    for n in range(10_000):
        state = step(state, np.sin(n))
    assert float(ca.norm_2(state)) == pytest.approx(1.0, abs=1e-12)
    one = np.array(step([1.0, 0, 0], 0.7)).ravel()
    assert one == pytest.approx(expm(0.3 * (j + 0.7 * k))[:, 0], abs=1e-15)


def test_exponential_with_a_constant_force():
    # x'' = 1 from rest: x = t²/2, v = t; A is nilpotent and singular, so only the affine term carries the motion.
    x, t = ca.SX.sym("x", 2), ca.SX.sym("t")
    after, _ = integrate("exponential", lambda z, s: (ca.vertcat(z[1], 1.0), ca.SX(0)), x, t, 0.8, 1)
    assert np.array(ca.Function("f", [x], [after])([0, 0])).ravel() == pytest.approx([0.32, 0.8], abs=1e-15)


def test_symplectic_euler_keeps_its_invariant():
    # x'' = −x with step h keeps q² + v² − h q v (with this order of updates, −h q v) to rounding; explicit Euler grows.
    h, x, t = 0.1, ca.SX.sym("x", 2), ca.SX.sym("t")
    after, _ = integrate("symplectic_euler", lambda z, s: (ca.vertcat(z[1], -z[0]), ca.SX(0)), x, t, h, 1)
    step = ca.Function("step", [x], [after])
    state = np.array([1.0, 0.0])
    invariant = lambda z: float(z[0] ** 2 + z[1] ** 2 - h * z[0] * z[1])
    start = invariant(state)
    for _ in range(1000):
        state = np.array(step(state)).ravel()
    assert invariant(state) == pytest.approx(start, abs=1e-12)


def test_rk4_energy_law():
    # On x'' = −x, RK4 multiplies the energy by 1 − h⁶/72 + h⁸/576 per step.
    h, x, t = 0.5, ca.SX.sym("x", 2), ca.SX.sym("t")
    after, _ = integrate("rk4", lambda z, s: (ca.vertcat(z[1], -z[0]), ca.SX(0)), x, t, h, 1)
    state = np.array(ca.Function("f", [x], [after])([1.0, 0.0])).ravel()
    assert state @ state == pytest.approx(1 - h**6 / 72 + h**8 / 576, abs=1e-15)


def test_substeps_refine_the_step():
    coarse = optctl.make("pendulum").step_function
    fine = optctl.make("pendulum").replace(substeps=8).step_function
    reference = optctl.make("pendulum").replace(substeps=64).step_function
    point = ([2.0, 1.0], [1.5], [1.0, 1.0, 9.81], 0.0)
    errors = [float(ca.norm_2(f(*point)[0] - reference(*point)[0])) for f in (coarse, fine)]
    assert errors[1] < errors[0] / 1000  # order four: 8⁴ = 4096


def test_exponential_with_substeps_is_the_same_map():
    problem = optctl.make("mass-spring")
    point = (np.array([0.3, -1.0, 0.2, 0.7]), [0.5], problem.param_values, 0.0)
    for one, three in zip(
        problem.step_function(*point), problem.replace(substeps=3).step_function(*point), strict=True
    ):
        assert np.array(one) == pytest.approx(np.array(three), abs=1e-13)


def test_the_wrong_system_is_refused():
    with pytest.raises(optctl.problem.ProblemError, match="affine in the state"):
        optctl.make("pendulum").replace(integrator="exponential")
    with pytest.raises(optctl.problem.ProblemError, match="even size, but the state has 1"):
        optctl.make("lqr-scalar").replace(integrator="symplectic_euler")
