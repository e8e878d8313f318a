"""Costates against finite differences of optimal costs, and what is marked as not given."""

import casadi as ca
import numpy as np
import pytest

from optctl.problem import Problem, Uniform
from optctl.problem.trajectory import Trajectory
from optctl.solvers import solve_many
from optctl.solvers.methods import ddp
from optctl.solvers.solution import Status

DT, STEPS = 0.1, 20


def runner(steps=STEPS):
    """Runs to q = 2 with a speed clamped at 1: the optimum reaches the clamp exactly and costs more on either side of it."""
    return Problem(
        name="runner", state=["q", "v"], control=["u"], dt=DT, steps=steps, horizon="infinite", initial_state=Uniform([-1, 0], [0, 0.5]),
        transition=lambda x, u, p: ca.vertcat(x[0] + DT * x[1], ca.fmin(x[1] + DT * u[0], 1.0)),
        stage_cost=lambda x, u, p: 10 * (x[0] - 2) ** 2 + 0.01 * u[0] ** 2, control_bounds={"u": (-20.0, 20.0)},
    )  # fmt: skip


def slopes(problem, path, h):
    """∂J*/∂x₀ (B, n_x) by central differences of new solves in the same basin."""
    columns = []
    for j in range(problem.n_x):
        costs = []
        for side in (h, -h):
            states = path.states.copy()
            states[:, 0, j] += side
            guess = Trajectory(path.times, states, path.controls, path.costs, path.terminal_cost)
            costs.append(solve_many(problem, states[:, 0], guess=guess).values)
        columns.append((costs[0] - costs[1]) / (2 * h))
    return np.stack(columns, axis=1)


def rested(problem, starts):
    """At rest, as a guess."""
    num = len(starts)
    states = np.repeat(np.asarray(starts, dtype=float)[:, None], problem.steps + 1, axis=1)
    controls = np.zeros((num, problem.steps, problem.n_u))
    return Trajectory(np.arange(problem.steps + 1) * problem.dt, states, controls, controls[..., 0], np.zeros(num))


def test_where_a_kink_holds_the_controls_costates_are_given_from_there_on_and_are_gradients():
    problem, starts = runner(), np.array([[0.0, 0.0], [-0.3, 0.2]])
    found = solve_many(problem, starts, guess=rested(problem, starts))
    assert found.statuses == [Status.STALLED] * 2
    path = found.trajectory
    given = np.isfinite(path.costates).all(axis=2)
    first = given.argmax(axis=1)
    assert (first > 0).all() and (first <= STEPS // 2).all()
    for i, k in enumerate(first):
        assert given[i, k:].all() and np.isnan(path.costates[i, :k]).all()
        rest = runner(STEPS - k)
        tail = Trajectory(
            path.times[: STEPS - k + 1], path.states[i : i + 1, k:], path.controls[i : i + 1, k:], path.costs[i : i + 1, k:],
            path.terminal_cost[i : i + 1],
        )  # fmt: skip
        np.testing.assert_allclose(slopes(rest, tail, 1e-3)[0], path.costates[i, k], rtol=1e-3)
    assert np.isfinite(found.gains).all() and np.isfinite(found.hessians).all()
    assert found[0].minimum is None and found[0].certificate.curvature is None  # nothing to decide them by


def test_of_an_extremal_that_no_kink_holds_every_costate_is_given():
    problem, starts = runner(), np.array([[1.9, -0.5]])
    found = solve_many(problem, starts, guess=rested(problem, starts))
    assert found.ok.all()
    crossing = found.trajectory
    np.testing.assert_allclose(slopes(problem, crossing, 1e-5), crossing.costates[:, 0], rtol=1e-5)


@pytest.mark.parametrize("start", [0.0, 0.3])
def test_a_state_on_a_kink_has_no_gradient(start):
    """J* of |x| has slopes ±1 on either side of 0: the derivative 0 that |x| is given there is none of it."""
    problem = Problem(
        name="fold", state=["x"], control=["u"], steps=5, dt=1.0, initial_state=Uniform([-1.0], [1.0]), horizon="infinite",
        transition=lambda x, u, p: x[0] + u[0], stage_cost=lambda x, u, p: ca.fabs(x[0] - start) + 10 * u[0] ** 2,
    )  # fmt: skip
    found = solve_many(problem, [[start]], guess=rested(problem, [[start]]))
    assert found.ok.all() and np.isnan(found.trajectory.costates[0, :-1]).all()


def test_slopes_of_a_point_that_is_not_stationary_do_not_grow_along_an_unstable_plant():
    """The Newton model of a linear-quadratic problem is exact anywhere: V_x = 2 P x₀, where the adjoint grows by 3⁴⁰."""
    problem = Problem(
        name="tripled", state=["x"], control=["u"], steps=40, dt=1.0, initial_state=Uniform([-1.0], [1.0]),
        transition=lambda x, u, p: 3 * x[0] + u[0], stage_cost=lambda x, u, p: x[0] ** 2 + u[0] ** 2,
        terminal_cost=lambda x, p: x[0] ** 2,
    )  # fmt: skip
    value, x = 1.0, np.empty((1, 41, 1))
    for _ in range(40):
        value = 1 + 9 * value / (1 + value)
    x[:, 0] = 0.7
    controls = np.random.default_rng(0).normal(0, 1e-3, (1, 40, 1))
    for k in range(40):
        controls[:, k] -= 3 * value / (1 + value) * x[:, k]
        x[:, k + 1] = 3 * x[:, k] + controls[:, k]
    found = ddp.solve_ddp(problem, x, controls, problem.param_values[None], max_iterations=0, polish=0)
    assert not found.converged[0]
    assert found.costates[0, 0, 0] == pytest.approx(2 * value * 0.7, rel=1e-9)


def test_a_costate_needs_every_later_interval_stationary():
    stationarity = np.array([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, np.nan, 0.0], [0.0] * 4, [5.0] * 4, [0.0] * 4])
    slopes = np.ones((5, 5, 2))
    slopes[2, 1, 0] = np.inf
    tolerance = np.array([0.5, 0.5, 0.5, np.inf, np.nan])
    given = np.isfinite(ddp.gradients(slopes, stationarity, tolerance))
    assert np.array_equal(given[..., 0], given[..., 1])
    wanted = [[0, 0, 1, 1, 1], [0, 0, 0, 1, 1], [1, 0, 1, 1, 1], [1] * 5, [0] * 5]
    assert np.array_equal(given[..., 0], np.array(wanted, dtype=bool))
