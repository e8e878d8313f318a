"""`rollout` charges what the problem says, to everyone alike."""

import numpy as np
import pytest

import optctl
from optctl.errors import ArgumentError
from optctl.problem.controller import FeedbackController, PlanController, RandomController, ZeroController, rollout
from optctl.problem.trajectory import Trajectory


def test_cost_of_a_stable_gain_is_the_lyapunov_value():
    # x⁺ = A x + u with u = −A x/2: x halves its image each step; V = Σ x'(Q + K'K)x solves the Lyapunov equation.
    from scipy.linalg import solve_discrete_lyapunov

    from optctl.envs.lqr import DEAN_A

    closed = DEAN_A / 2
    value = solve_discrete_lyapunov(closed.T, 1e-3 * np.eye(3) + closed.T @ closed)
    starts = np.array([[1.0, 0, 0], [0.3, -0.2, 1.0]])
    result = rollout(optctl.make("dean"), FeedbackController(lambda x, t: -x @ closed.T), starts)
    assert result.total_cost == pytest.approx(np.einsum("bi,ij,bj->b", starts, value, starts), rel=1e-12)


def test_controls_are_clipped_to_the_bounds():
    result = rollout(optctl.make("pendulum"), FeedbackController(lambda x, t: np.full((len(x), 1), 9.0)), [[0.1, 0.0]])
    assert (result.controls == 2.0).all()


def test_one_state_is_a_batch_of_one_and_members_do_not_mix():
    problem = optctl.make("cartpole")
    law = FeedbackController(lambda x, t: -x[:, :1])
    starts = problem.initial_state.sample(np.random.default_rng(0), 5)
    together = rollout(problem, law, starts)
    alone = rollout(problem, law, starts[3])
    assert alone.states.shape == (1, 201, 4)
    assert np.array_equal(together.states[3], alone.states[0])


def test_parameters_per_member():
    problem = optctl.make("pendulum")
    params = np.array([[1.0, 1.0, 9.81], [1.0, 2.0, 9.81]])
    both = rollout(problem, ZeroController(problem), [[1.0, 0.0]] * 2, params=params, steps=5)
    second = rollout(problem, ZeroController(problem), [1.0, 0.0], params=params[1], steps=5)
    assert np.array_equal(both.states[1], second.states[0])
    assert not np.array_equal(both.states[0], both.states[1])


def test_process_noise_has_the_stated_size_and_is_the_same_for_everyone():
    problem = optctl.make("dean", noise=0.5)
    starts = np.zeros((4000, 3))
    quiet, loud = ZeroController(problem), FeedbackController(lambda x, t: 0 * x, "other")
    a = rollout(problem, quiet, starts, steps=1, seed=1)
    b = rollout(problem, loud, starts, steps=1, seed=1)
    assert np.array_equal(a.states, b.states)
    assert a.states[:, 1].std() == pytest.approx(0.5, rel=0.03)
    assert (rollout(problem, quiet, starts[:2], steps=1).states == 0).all()


def test_noise_scales_with_the_root_of_the_interval():
    problem = optctl.make("double-integrator").replace(diffusion=lambda x, u, p: [0, 2.0])
    result = rollout(problem, ZeroController(problem), np.zeros((4000, 2)), steps=1, seed=0)
    assert result.states[:, 1, 1].std() == pytest.approx(2.0 * np.sqrt(0.1), rel=0.04)
    assert (result.states[:, 1, 0] == 0).all()


def test_terminal_cost_is_paid_at_a_finite_end_only():
    finite = optctl.make("double-integrator").replace(horizon="finite", terminal_cost=lambda x, p: 7.0 + 0 * x[0])
    assert rollout(finite, ZeroController(finite), [0.0, 0.0]).total_cost == pytest.approx([7.0])
    endless = optctl.make("double-integrator")
    assert rollout(endless, ZeroController(endless), [0.0, 0.0]).total_cost == pytest.approx([0.0])


def test_a_plan_with_feedback_returns_to_its_path():
    problem = optctl.make("double-integrator")
    law = FeedbackController(lambda x, t: -x @ np.array([[1.0, 1.7]]).T)
    plan = rollout(problem, law, [1.0, 0.0])
    gains = np.broadcast_to(np.array([[1.0, 1.7]]), (1, problem.steps, 1, 2))
    followed = rollout(problem, PlanController(plan, problem.dt, gains), [1.2, 0.1])
    assert followed.states[0, -1] == pytest.approx([0, 0], abs=0.02)
    exact = rollout(problem, PlanController(plan, problem.dt), [1.0, 0.0])
    assert np.array_equal(exact.states, plan.states)


def test_random_control_repeats_and_stays_inside():
    problem = optctl.make("pendulum")
    a, b = (rollout(problem, RandomController(problem, seed=4), [[0.0, 0.0]] * 3, steps=20) for _ in range(2))
    assert np.array_equal(a.controls, b.controls)
    assert np.abs(a.controls).max() <= 2.0 and a.controls.std() > 0.5


@pytest.mark.parametrize(
    ("x0", "sentence"),
    [
        (np.zeros(4), r"`x0` must have shape \(2,\) or \(B, 2\), but has shape \(4,\)"),
        (np.zeros((3, 1)), r"but has shape \(3, 1\)"),
        ([np.nan, 0.0], "`x0` must be finite, but holds NaN"),
        ("start", "`x0` must have shape"),
    ],
)
def test_bad_starts(x0, sentence):
    problem = optctl.make("pendulum")
    with pytest.raises(ArgumentError, match=sentence):
        rollout(problem, ZeroController(problem), x0)


def test_a_controller_may_write_into_what_it_is_given():
    problem = optctl.make("double-integrator", steps=5)
    starts = np.ones((3, 2))

    def law(states, time):
        states -= 7.0
        return -states[:, :1] - 7.0

    run = rollout(problem, FeedbackController(law), starts)
    assert (starts == 1).all()
    plain = rollout(problem, FeedbackController(lambda x, t: -x[:, :1]), starts)
    np.testing.assert_allclose(run.states, plain.states, atol=1e-12)


def test_bad_params_and_controllers():
    problem = optctl.make("pendulum")
    with pytest.raises(ArgumentError, match=r"`params` must have shape \(1, 3\) or \(1, 3\), but has shape \(2,\)"):
        rollout(problem, ZeroController(problem), [0.0, 0.0], params=[1.0, 2.0])
    with pytest.raises(
        ArgumentError, match=r"`controller` must return shape \(1, 1\), but `bad` returned shape \(1,\)"
    ):
        rollout(problem, FeedbackController(lambda x, t: x[:, 0], "bad"), [0.0, 0.0])


def test_trajectory_checks_its_shapes():
    parts = {
        "times": np.arange(4.0), "states": np.zeros((2, 4, 3)), "controls": np.zeros((2, 3, 1)),
        "costs": np.ones((2, 3)), "terminal_cost": np.array([1.0, 2.0]),
    }  # fmt: skip
    trajectory = Trajectory(**parts)
    assert trajectory.total_cost.tolist() == [4.0, 5.0]
    assert Trajectory.stack([trajectory[0], trajectory[1]]).total_cost.tolist() == [4.0, 5.0]
    for field, value in (
        ("times", np.arange(3.0)), ("controls", np.zeros((2, 4, 1))), ("costs", np.zeros((2, 4))),
        ("terminal_cost", np.zeros(3)), ("costates", np.zeros((2, 3, 3))),
    ):  # fmt: skip
        with pytest.raises(ArgumentError, match=f"`{field}` must have shape"):
            Trajectory(**(parts | {field: value}))
