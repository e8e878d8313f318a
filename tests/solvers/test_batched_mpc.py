"""Batched model-predictive control: equal to the optimum where nothing disturbs, near it where something does."""

import numpy as np
import pytest

from optctl import compare, envs, rollout
from optctl.errors import ArgumentError
from optctl.problem import Problem, Uniform
from optctl.problem.controller import Controller, FeedbackController
from optctl.solvers import solve_many
from optctl.solvers.feedback import mpc
from optctl.solvers.feedback.mpc import MpcController
from optctl.solvers.feedback.safety import SafetyFilter
from optctl.solvers.methods.lqr import lqr


@pytest.fixture(scope="module")
def swing_ups():
    """(problem, starts, optimal costs)."""
    problem = envs.make("pendulum")
    starts = problem.initial_state.sample(np.random.default_rng(3), 6)
    return problem, starts, solve_many(problem, starts).values


def test_undisturbed_it_costs_the_optimum(swing_ups):
    problem, starts, best = swing_ups
    controller = MpcController(problem, horizon=15)
    assert isinstance(controller, Controller)
    run = rollout(problem, controller, starts)
    np.testing.assert_allclose(run.total_cost, best, rtol=1e-8)


@pytest.mark.parametrize("given", [True, False], ids=["costates", "no costates"])
def test_a_short_window_is_the_riccati_feedback(given, monkeypatch):
    def solved(*arguments, **options):
        found = solve_many(*arguments, **options)
        found.trajectory.costates[:] = found.trajectory.costates if given else np.nan
        return found

    monkeypatch.setattr(mpc, "solve_many", solved)
    problem = envs.make("double-integrator")
    gain, starts = lqr(problem), np.array([[1.0, -0.5], [-0.3, 0.8]])
    controller = MpcController(problem, horizon=3, iterations=1)
    controller.reset(starts, problem.param_values[None])
    elsewhere = starts + np.array([[0.4, 0.1], [-0.2, 0.3]])  # the plan was for another state
    np.testing.assert_allclose(controller(elsewhere, 0.0), -elsewhere @ gain.K.T, rtol=1e-6)


def test_after_a_push_the_rest_costs_little_more_than_its_own_optimum():
    problem = envs.make("pendulum")
    starts = problem.initial_state.sample(np.random.default_rng(4), 8)
    controller = MpcController(problem, horizon=50, iterations=3)
    controller.reset(starts, problem.param_values[None])
    x, step, spent = starts, problem.step_function, np.zeros(8)
    for k in range(60):
        if k == 20:
            x = x + np.array([0.1, -0.3])
        after, cost = step(x.T, controller(x, k * problem.dt).T, problem.param_values, 0.0)
        if k >= 20:
            spent += np.asarray(cost).ravel()
        else:
            pushed = np.asarray(after).T + np.array([0.1, -0.3])
        x = np.asarray(after).T
    rest = problem.replace(steps=problem.steps - 20)
    later = solve_many(problem.replace(steps=problem.steps - 60), x).values
    assert (spent + later).mean() < 1.1 * solve_many(rest, pushed).values.mean()


def test_a_finite_horizon_ends_where_it_ends():
    problem = envs.make("double-integrator", steps=12).replace(
        horizon="finite", terminal_cost=lambda x, p: 3 * x[0] ** 2
    )
    run = rollout(problem, MpcController(problem, horizon=5), np.array([[1.0, 0.0]]))
    assert run.total_cost[0] == pytest.approx(solve_many(problem, np.array([[1.0, 0.0]])).values[0], rel=1e-9)


def test_in_real_time_the_feedback_is_ready_before_the_state_and_exact_where_the_plant_is_linear():
    problem = envs.make("double-integrator")
    gain, starts = lqr(problem), np.array([[1.0, -0.5], [-0.3, 0.8]])
    controller = MpcController(problem, horizon=3, iterations=1, real_time=True)
    controller.reset(starts, problem.param_values[None])
    rng = np.random.default_rng(0)
    for k in range(3):
        somewhere = rng.standard_normal((2, 2))  # not where any plan leads
        np.testing.assert_allclose(controller(somewhere, k * problem.dt), -somewhere @ gain.K.T, rtol=1e-6)


def test_in_real_time_nothing_but_a_product_waits_for_the_state(swing_ups, monkeypatch):
    problem, starts, best = swing_ups
    controller = MpcController(problem, horizon=20, iterations=1, real_time=True)
    run = rollout(problem, controller, starts)
    np.testing.assert_allclose(run.total_cost, best, rtol=1e-8)  # undisturbed: the optimum
    starts = 0.02 * np.random.default_rng(3).standard_normal((6, 2))  # near upright, where the torque is free
    controller.reset(starts, problem.param_values[None])
    monkeypatch.setattr(controller, "replan", None)  # a launch would fail
    near = [controller.feedback(starts + shift, 0) for shift in (0.0, 0.01, 0.02)]
    assert np.abs(near).max() < 1.9
    assert np.abs(near[0] - near[1]).min() > 1e-2
    np.testing.assert_allclose(near[0] - 2 * near[1] + near[2], 0.0, atol=1e-12)  # affine in the state


def test_in_real_time_noise_costs_little_more_than_replanning():
    problem = envs.make("pendulum", steps=80)
    starts = problem.initial_state.sample(np.random.default_rng(4), 64)
    costs = []
    for options in ({"iterations": 1, "real_time": True}, {"iterations": 4}):
        controller, x, spent = MpcController(problem, horizon=30, **options), starts, 0.0
        controller.reset(starts, problem.param_values[None])
        rng = np.random.default_rng(0)
        for k in range(problem.steps):
            after, cost = problem.step_function(x.T, controller(x, k * problem.dt).T, problem.param_values, 0.0)
            x, spent = np.asarray(after).T + 0.02 * rng.standard_normal(x.shape), spent + np.asarray(cost).mean()
        costs.append(spent)
    assert costs[0] < 1.05 * costs[1]


def test_compare_knows_it_by_name():
    report = compare(envs.make("double-integrator", steps=30), ["mpc", "lqr"], num_starts=4)
    assert report["mpc"].failed == 0
    assert abs(report["mpc"].gap.mean.estimate) < 1e-8  # undisturbed and linear-quadratic: the optimum


# --- safety filter ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rail():
    return Problem(
        name="rail", state=["q", "v"], control=["f"], dynamics=lambda x, u, p: [x[1], u[0]],
        stage_cost=lambda x, u, p: (x[0] - 1) ** 2 + 0.01 * u[0] ** 2, state_bounds={"q": (-0.5, 0.5)},
        control_bounds={"f": (-1, 1)}, initial_state=Uniform([-0.3, -0.1], [0.3, 0.1]), dt=0.1, steps=60,
    )  # fmt: skip


def test_a_filter_keeps_a_reckless_controller_on_the_rail(rail):
    starts = rail.initial_state.sample(np.random.default_rng(0), 16)
    reckless = FeedbackController(lambda x, t: np.where(np.sin(2 * t) > 0, 9.0, -9.0) + 0 * x[:, :1], "reckless")
    kept = SafetyFilter(rail, reckless, horizon=20, terminal=lambda x, p: x[1])
    report = compare(rail, {"reckless": reckless, "kept": kept}, starts=starts, reference=None)
    free, run = (rollout(rail, c, starts) for c in (reckless, kept))
    worst = np.abs(run.states[:, 1:, 0]).max(axis=1)
    assert (np.abs(free.states[:, 1:, 0]).max(axis=1) > 0.6).all()
    assert worst.max() < 0.5 + 1e-6
    assert (worst > 0.4).all()  # it lets the mass go as far as it can still stop
    assert "kept" in str(report)


def test_a_filter_brakes_as_late_as_possible(rail):
    # full speed ahead from rest at 0: v²/2 = distance left when the brake must come, at the middle of 0 … ½
    always = FeedbackController(lambda x, t: np.ones((len(x), 1)), "always")
    kept = SafetyFilter(rail, always, horizon=30, terminal=lambda x, p: x[1])
    run = rollout(rail, kept, np.zeros((1, 2)))
    pushed = run.states[0, :-1, 0][run.controls[0, :, 0] > 0.99]
    assert 0.2 < pushed.max() < 0.26
    assert run.states[0, -1] == pytest.approx([0.5, 0.0], abs=0.1)  # between the nodes it may swing a little


def test_a_filter_leaves_a_calm_controller_alone(rail):
    starts = rail.initial_state.sample(np.random.default_rng(0), 8)
    calm = FeedbackController(lambda x, t: -x[:, :1] - x[:, 1:], "calm")
    kept = SafetyFilter(rail, calm, horizon=20, terminal=lambda x, p: x[1])
    np.testing.assert_allclose(rollout(rail, kept, starts).states, rollout(rail, calm, starts).states, atol=1e-4)
    assert kept.changed.sum() == 0


def test_a_filter_needs_something_to_keep(rail):
    calm = FeedbackController(lambda x, t: -x[:, :1])
    for problem, arguments, word in (
        (envs.make("pendulum"), {}, "state bounds or path constraints"),
        (rail, {"horizon": 0}, "horizon"),
        (rail, {"feasibility": 0.0}, "feasibility"),
    ):
        with pytest.raises(ArgumentError, match=word):
            SafetyFilter(problem, calm, **arguments)
    with pytest.raises(ArgumentError, match="reset"):
        SafetyFilter(rail, calm)(np.zeros((1, 2)), 0.0)


def test_bad_arguments_are_named():
    problem = envs.make("double-integrator")
    for arguments, word in (({"horizon": 0}, "horizon"), ({"iterations": 1.5}, "iterations")):
        with pytest.raises(ArgumentError, match=word):
            MpcController(problem, **arguments)
    with pytest.raises(ArgumentError, match="reset"):
        MpcController(problem)(np.zeros((1, 2)), 0.0)
    with pytest.raises(ArgumentError, match="bounds on controls"):
        MpcController(problem.replace(state_bounds={"position": (-1.0, 1.0)}))
