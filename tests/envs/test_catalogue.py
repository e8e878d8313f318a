"""Every problem of the catalogue passes one battery; each family has its known facts."""

import casadi as ca
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from selection import made

import optctl
from optctl.envs import CATALOGUE
from optctl.problem.controller import FeedbackController, ZeroController, rollout
from optctl.problem.integrators import INTEGRATORS

CONTINUOUS = [name for name in CATALOGUE if not made(name).discrete]
SIGNED = {"moved-trap", "stiffened-trap", "stiffened-trap-variance"}
"""Problems whose cost is work, which a jump may also give back."""


def wave(problem):
    """A smooth control that stays inside the bounds and leaves nothing at rest."""
    amplitude = 0.5 * (problem.action_high - problem.action_low) / 2
    phase = np.arange(problem.n_u)
    return FeedbackController(
        lambda x, t: np.broadcast_to(amplitude * np.sin(1.3 * t + phase), (len(x), problem.n_u)), "wave"
    )


@pytest.mark.parametrize("name", CATALOGUE)
def test_named_described_and_sourced(name):
    problem = made(name)
    assert problem.name == name
    assert problem.description and problem.source
    assert all(isinstance(unit, str) and unit for unit in (*problem.state.values(), *problem.control.values()))


@pytest.mark.parametrize("name", CONTINUOUS)
def test_a_trajectory_agrees_with_dop853(name):
    problem = made(name).replace(substeps=16 if made(name).integrator == "rk4" else 1)
    start = problem.initial_state.sample(np.random.default_rng(0), 1)
    steps = 8
    path = rollout(problem, wave(problem), start, steps=steps)
    x, cost = start[0], 0.0
    for k in range(steps):
        u = path.controls[0, k]

        def rate(t, z, u=u):
            point = (z[:-1], u, problem.param_values, t)
            return np.append(
                np.array(problem.dynamics_function(*point)).ravel(), float(problem.stage_cost_function(*point))
            )

        t = k * problem.dt
        z = solve_ivp(rate, (t, t + problem.dt), np.append(x, 0.0), method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
        x, cost = z[:-1], cost + z[-1]
        assert np.abs(path.states[0, k + 1] - x).max() < 2e-6 * (1 + np.abs(x).max())
    assert path.costs[0].sum() == pytest.approx(cost, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_one_step_has_the_order_of_its_integrator(name):
    """The error of one step of length h falls as h^(order + 1), where it is neither coarse nor rounding."""
    problem = made(name)
    order, p = INTEGRATORS[problem.integrator].order, problem.param_values
    x = problem.initial_state.sample(np.random.default_rng(3), 1)[0]
    u = 0.4 * problem.action_high * np.cos(np.arange(problem.n_u))

    def rate(t, z):
        return np.array(problem.dynamics_function(z, u, p, t)).ravel()

    lengths, errors = problem.dt * 0.5 ** np.arange(6.0), []
    for h in lengths:
        exact = solve_ivp(rate, (0, h), x, method="DOP853", rtol=1e-13, atol=1e-13).y[:, -1]
        errors.append(np.abs(np.array(problem.interval_function(x, u, p, 0.0, h)[0]).ravel() - exact).max())
    if np.isinf(order) or errors[0] < 1e-10:
        assert errors[0] < 1e-10
        return
    usable = [k for k in range(5) if 1e-12 < errors[k + 1] < errors[k] < 1e-2]
    slopes = [np.log2(errors[k] / errors[k + 1]) for k in usable]
    assert slopes and slopes[-1] > order + 0.6  # order + 1, less what the coarse end of the range costs


@pytest.mark.parametrize("name", CATALOGUE)
def test_jacobian_of_the_step_agrees_with_finite_differences(name):
    problem = made(name)
    x, u, p = problem.x, problem.u, problem.p
    jacobian = ca.Function("J", [x, u, p], [ca.jacobian(problem.step_function(x, u, p, 0)[0], ca.vertcat(x, u))])
    point = problem.initial_state.sample(np.random.default_rng(1), 1)[0]
    control = 0.3 * problem.action_high
    exact = np.array(jacobian(point, control, problem.param_values))
    h = 1e-6
    for j in range(problem.n_x + problem.n_u):
        dx, du = np.split(h * np.eye(problem.n_x + problem.n_u)[j], [problem.n_x])
        ends = [
            np.array(problem.step_function(point + s * dx, control + s * du, problem.param_values, 0)[0])
            for s in (1, -1)
        ]
        assert exact[:, j] == pytest.approx((ends[0] - ends[1]).ravel() / (2 * h), abs=1e-7)


@pytest.mark.parametrize("name", CATALOGUE)
def test_costs_are_never_negative_and_finite(name):
    problem = made(name)
    starts = problem.initial_state.sample(np.random.default_rng(2), 20)
    costs = rollout(problem, wave(problem), starts, steps=20).costs
    assert np.isfinite(costs).all() and ((costs >= 0).all() or name in SIGNED)


def test_pendulum_keeps_its_energy_without_torque():
    problem = optctl.make("pendulum").replace(substeps=10)
    path = rollout(problem, ZeroController(problem), [2.0, 0.5])
    energy = 0.5 * path.states[..., 1] ** 2 + 9.81 * np.cos(path.states[..., 0])
    assert np.ptp(energy) < 1e-6


def test_cart_pole_keeps_its_energy_and_hangs_at_rest():
    problem = optctl.make("cartpole").replace(substeps=20)
    m1, m2, length, g = problem.param_values
    path = rollout(problem, ZeroController(problem), [0.0, 2.0, 0.3, 0.0]).states[0]
    q2, v1, v2 = path[:, 1], path[:, 2], path[:, 3]
    kinetic = 0.5 * (m1 + m2) * v1**2 + 0.5 * m2 * length**2 * v2**2 + m2 * length * v1 * v2 * np.cos(q2)
    energy = kinetic - m2 * g * length * np.cos(q2)
    assert np.ptp(energy) < 1e-6
    rest = np.array(problem.dynamics_function(np.zeros(4), [0.0], problem.param_values, 0)).ravel()
    assert np.abs(rest).max() == 0


@pytest.mark.parametrize("masses", [1, 2, 5])
def test_mass_spring_frequencies(masses):
    # ω_j = 2 √k sin(jπ / 2(n + 1)) for n equal masses between two walls.
    problem = optctl.make("mass-spring", masses=masses, stiffness=2.0)
    x, u, p = problem.x, problem.u, problem.p
    a = np.array(ca.Function("A", [p], [ca.jacobian(problem.dynamics_function(x, u, p, 0), x)])(problem.param_values))
    found = np.sort(np.abs(np.linalg.eigvals(a).imag))[::2]
    expected = 2 * np.sqrt(2.0) * np.sin(np.arange(1, masses + 1) * np.pi / (2 * (masses + 1)))
    assert found == pytest.approx(np.sort(expected), abs=1e-12)


def test_mass_spring_of_bad_length():
    with pytest.raises(optctl.errors.ArgumentError, match="`masses` must be a positive integer, but is 0"):
        optctl.make("mass-spring", masses=0)
