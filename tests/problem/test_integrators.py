"""The schemes have the orders they claim, and the exact one is exact."""

import casadi as ca
import numpy as np
import pytest
from scipy.linalg import expm

import optctl
from optctl.problem.exponential import Ranges
from optctl.problem.integrators import INTEGRATORS, integrate

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
    assert cost == pytest.approx(expected, rel=1e-14)


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


KNOWN = {"numbers": None, "in range": (0.5, 1.0), "unbounded": (-np.inf, np.inf)}


def step_of(rate, n, h, known):
    """(x, g) → (x(t + h), cost) by the exponential, with all rates multiplied by a gain g of that range, or by none."""
    x, t, g = ca.SX.sym("x", n), ca.SX.sym("t"), ca.SX.sym("g")
    ranges = None
    if known is not None:
        ranges = Ranges(g, *(np.array([v]) for v in (*known, 1.0)), longest=h)
    scaled = (lambda z, s: rate(z, 1.0)) if known is None else (lambda z, s: rate(z, g))
    out = integrate("exponential", scaled, x, t, h, 1, ranges)
    return ca.Function("step", [x, g], list(out))


@pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN)
@pytest.mark.parametrize("k", [0.01, 10.0, 1000.0, -20.0])
def test_a_decay_of_any_rate_is_exact_with_its_cost(k, known):
    # ẋ = −k x + 1: x = e^(−k) x0 + (1 − e^(−k))/k at h = 1; with x0 = 3 + 1/k the cost ∫ (x − 1/k)² dt = 9 (1 − e^(−2k))/(2k).
    step = step_of(lambda z, g: (-k * g * z + g, (z - 1 / k) ** 2), 1, 1.0, known)
    after, cost = (float(v) for v in step(3 + 1 / k, 1.0))
    assert after == pytest.approx(3 * np.exp(-k) + 1 / k, rel=1e-12)
    assert cost == pytest.approx(-9 * np.expm1(-2 * k) / (2 * k), rel=1e-10)


@pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN)
def test_many_turns_in_one_step_are_exact_with_their_cost(known):
    # ẋ = 40 J x from (1, 0): (cos 40, −sin 40), ∫ x₁² dt = ½ + sin 80 / 160.
    turn = ca.DM([[0, 40], [-40, 0]])
    step = step_of(lambda z, g: (g * turn @ z, z[0] ** 2), 2, 1.0, known)
    after, cost = step([1, 0], 1.0)
    assert np.array(after).ravel() == pytest.approx([np.cos(40), -np.sin(40)], abs=1e-13)
    assert float(cost) == pytest.approx(0.5 + np.sin(80) / 160, rel=1e-12)


def test_a_cost_that_is_not_quadratic_is_integrated_through_a_fast_decay():
    # ẋ = −1000 x from 1: ∫ x⁴ dt = (1 − e^(−4000))/4000, ∫ |x| dt = 1/1000.
    step = step_of(lambda z, g: (-1000 * z, z**4 + 1000 * ca.fabs(z)), 1, 1.0, None)
    assert float(step(1, 1)[1]) == pytest.approx(1 / 4000 + 1, rel=1e-8)


@pytest.mark.parametrize("k", [0.1, 300.0])
def test_the_length_of_a_step_may_be_a_symbol(k):
    problem = optctl.make("lqr-scalar").replace(dynamics=lambda x, u, p: u[0] - k * x[0], dt=1.0)
    fixed, free = problem.step_function(2.0, 0.5, [], 0.0), problem.interval_function(2.0, 0.5, [], 0.0, 1.0)
    assert [float(v) for v in free] == pytest.approx([float(v) for v in fixed], rel=1e-12)
    by_length = problem.interval_function.factory("d", ["x", "u", "p", "t", "h"], ["jac:x_next:h", "jac:cost:h"])
    end = float(free[0])  # d/dh of the state is ẋ at the end, of the cost l there
    slopes = [float(v) for v in by_length(2.0, 0.5, [], 0.0, 1.0)]
    assert slopes == pytest.approx([0.5 - k * end, end**2 + 0.25], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("u", [0.3, 7.0, 60.0])
def test_derivatives_by_an_unbounded_control_are_those_of_the_exponential(u):
    j, k = np.zeros((3, 3)), np.zeros((3, 3))
    j[0, 1], j[1, 0], k[1, 2], k[2, 1] = 1.0, -1.0, 1.0, -1.0
    x, v, t = ca.SX.sym("x", 3), ca.SX.sym("u"), ca.SX.sym("t")
    after, _ = integrate("exponential", lambda z, s: ((ca.DM(j) + v * ca.DM(k)) @ z, ca.SX(0)), x, t, 0.9, 1)
    slope, bend = ca.jacobian(after, v), ca.jacobian(ca.jacobian(after, v), v)
    f = ca.Function("f", [x, v], [after, slope, bend])
    start = np.array([0.6, -0.8, 0.0])
    zero, a, e = np.zeros((3, 3)), 0.9 * (j + u * k), 0.9 * k
    blocks = expm(
        np.block([[a, e, zero], [zero, a, e], [zero, zero, a]])
    )  # its last column: value, slope, half the bend
    expected = [blocks[6:, 6:] @ start, blocks[3:6, 6:] @ start, 2 * blocks[:3, 6:] @ start]
    for value, right in zip(f(start, u), expected, strict=True):
        assert np.array(value).ravel() == pytest.approx(right, abs=1e-11)


def test_no_control_makes_a_closed_system_grow():
    problem = optctl.make("qubit-transfer").replace(control_bounds={})
    start = problem.initial_state.location
    for u in (0.0, 1.0, 1e3, 1e6):
        assert float(ca.norm_2(problem.step_function(start, u, [], 0.0)[0])) == pytest.approx(1.0, abs=1e-10)


def test_far_outside_of_its_range_a_step_is_no_number():
    problem = optctl.make("qubit-transfer")  # |u| ≤ 4
    assert np.isfinite(np.array(problem.step_function(problem.initial_state.location, 5.0, [], 0.0)[0])).all()
    assert np.isnan(np.array(problem.step_function(problem.initial_state.location, 1e3, [], 0.0)[0])).all()


def test_a_constant_system_costs_one_product_however_stiff():
    # 2 products of 4 × 4 and one quadratic form: no substeps, no series.
    problem = optctl.make("mass-spring").replace(params={}, param_ranges={}, dynamics=lambda x, u, p: ca.vertcat(
        x[2], x[3], -1e6 * x[0] + u[0], x[0] - 1e3 * x[1]))  # fmt: skip
    assert problem.step_function.n_instructions() < 120


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
    with pytest.raises(optctl.errors.ProblemError, match="affine in the state"):
        optctl.make("pendulum").replace(integrator="exponential")
    with pytest.raises(optctl.errors.ProblemError, match="affine in the state"):
        optctl.make("lqr-scalar").replace(dynamics=lambda x, u, p: u[0] - ca.sign(x[0]))
    with pytest.raises(optctl.errors.ProblemError, match="even size, but the state has 1"):
        optctl.make("lqr-scalar").replace(integrator="symplectic_euler")
