"""Batched DDP under constraints: closed forms, IPOPT, multipliers, and members that cannot be helped."""

import casadi as ca
import numpy as np
import optima
import pytest

from optctl.problem import Problem, Uniform
from optctl.solvers import Status, Verdict, solve, solve_many
from optctl.solvers.batched.constrained import solve_constrained
from optctl.solvers.methods.multiple_shooting import Guess, solve_multiple_shooting


def to_rest(force=3.0, speed=0.8):
    return Problem(
        name="to-rest", state=["q", "v"], control=["f"], dynamics=lambda x, u, p: [x[1], u[0]],
        stage_cost=lambda x, u, p: u[0] ** 2, terminal_constraints=lambda x, p: x, state_bounds={"v": (-speed, speed)},
        control_bounds={"f": (-force, force)}, initial_state=Uniform([-1.0, -0.5], [1.0, 0.5]), dt=0.05, steps=40,
    )  # fmt: skip


def round_a_disc():
    """A point mass goes from the left to the right of a disc of radius ½ about the origin."""
    return Problem(
        name="round-a-disc", state=["x", "y", "vx", "vy"], control=["fx", "fy"],
        dynamics=lambda x, u, p: ca.vertcat(x[2:], u), stage_cost=lambda x, u, p: ca.sumsqr(u) + 0.1 * ca.sumsqr(x[2:]),
        path_constraints=lambda x, u, p: 0.25 - x[0] ** 2 - x[1] ** 2,
        terminal_constraints=lambda x, p: x - ca.DM([1, 0, 0, 0]), control_bounds={"fx": (-4, 4), "fy": (-4, 4)},
        initial_state=Uniform([-1.2, -0.6, 0.0, 0.0], [-0.8, 0.6, 0.0, 0.0]), dt=0.05, steps=60,
    )  # fmt: skip


def lines(problem, starts, goal):
    fraction = np.linspace(0, 1, problem.steps + 1)[None, :, None]
    return starts[:, None] + fraction * (np.asarray(goal) - starts[:, None]), np.zeros(
        (len(starts), problem.steps, problem.n_u)
    )


@pytest.fixture(scope="module")
def discs():
    problem = round_a_disc()
    starts = problem.initial_state.sample(np.random.default_rng(1), 11)
    guess = lines(problem, starts, [1.0, 0.0, 0.0, 0.0])
    return problem, *guess, solve_constrained(problem, *guess, problem.param_values[None])


def test_the_least_energy_is_that_of_linear_algebra():
    problem = to_rest(force=1e3, speed=1e3)  # nothing binds but the end
    starts = problem.initial_state.sample(np.random.default_rng(0), 5)
    found = solve_constrained(problem, *lines(problem, starts, [0.0, 0.0]), problem.param_values[None])
    assert found.converged.all()
    h, n = problem.dt, problem.steps
    reach = np.stack([h * h * (n - np.arange(n) - 0.5), np.full(n, h)])  # what a unit of each control adds to q_N, v_N
    for x0, value in zip(starts, found.value, strict=True):
        u = np.linalg.pinv(reach) @ -np.array([x0[0] + n * h * x0[1], x0[1]])
        assert value == pytest.approx(h * u @ u, rel=1e-7)


def test_state_bounds_control_bounds_and_an_end_agree_with_ipopt():
    problem = to_rest()
    starts = problem.initial_state.sample(np.random.default_rng(0), 8)
    found = solve_constrained(problem, *lines(problem, starts, [0.0, 0.0]), problem.param_values[None])
    assert found.converged.all()
    assert found.violation.max() <= 1e-9
    assert (np.abs(found.states[:, 1:, 1]).max(axis=1) > 0.8 - 1e-8).any()  # somewhere the speed is at its bound
    for i in range(4):
        other = solve(problem, starts[i], method="multiple_shooting")
        assert found.value[i] == pytest.approx(other.value, rel=1e-6)
        np.testing.assert_allclose(found.costates[i], other.trajectory.costates, atol=1e-5)


def test_state_bounds_count_from_the_second_state_on():
    problem, start = to_rest(), np.array([[0.0, 0.9]])  # the bound is 0.8, and one interval of braking takes 0.15
    found = solve_constrained(problem, *lines(problem, start, [0.0, 0.0]), problem.param_values[None])
    assert found.converged[0]
    assert found.violation[0] <= 1e-9
    assert found.states[0, 1, 1] < 0.8 + 1e-8


def test_bryson_and_denham():
    problem = optima.bryson_denham(48)
    x0 = problem.initial_state.location[None]
    found = solve_constrained(problem, *lines(problem, x0, [0.0, -1.0]), problem.param_values[None])
    assert found.converged[0]
    assert found.value[0] == pytest.approx(solve(problem, x0[0], method="multiple_shooting").value, rel=1e-7)
    assert 4.0 < found.value[0] < 4.05  # controls held over the intervals: a little above J = 4


def test_kellys_cart_pole_reaches_its_end_state_in_either_basin():
    problem = optima.kelly_cartpole(50)
    states, controls = lines(problem, np.zeros((1, 4)), [1.0, np.pi, 0.0, 0.0])
    kelly = solve_multiple_shooting(problem, np.zeros(4), guess=Guess(states[0], controls[0]))
    found = solve_constrained(
        problem, np.stack([states[0], kelly.trajectory.states]), np.stack([controls[0], kelly.trajectory.controls]),
        problem.param_values[None], barrier=1e-3,
    )  # fmt: skip
    assert found.converged.all()
    assert found.value[1] == pytest.approx(kelly.value, rel=1e-8)  # J = 58.808 with continuous controls
    again = solve_multiple_shooting(problem, np.zeros(4), guess=Guess(found.states[0], found.controls[0]))
    assert found.value[0] == pytest.approx(again.value, rel=1e-8)
    assert 57.945 < found.value[0] < 58.5  # the cheaper basin, J = 57.945 with continuous controls


def test_round_an_obstacle_from_the_guesses_that_ipopt_gets(discs):
    problem, states, controls, found = discs
    assert found.converged.all()
    radius = np.hypot(found.states[:, :, 0], found.states[:, :, 1])[:, :-1]
    assert radius.min() > 0.5 - 1e-8
    same = 0
    for i in range(5):
        other = solve_multiple_shooting(problem, states[i, 0], guess=Guess(states[i], controls[i]))
        if other.ok and np.abs(other.trajectory.states - found.states[i]).max() < 1e-2:
            same += 1
            assert found.value[i] == pytest.approx(other.value, rel=1e-6)
    assert same >= 3


def test_costates_are_the_gradient_of_the_optimal_cost(discs):
    problem, _, _, found = discs
    for j in range(4):
        push = 1e-4 * np.eye(4)[j]
        ends = []
        for sign in (1, -1):
            moved = found.states[:3].copy()
            moved[:, 0] += sign * push
            ends.append(solve_constrained(problem, moved, found.controls[:3], problem.param_values[None], barrier=1e-5))
        assert all(end.converged.all() for end in ends)
        slope = (ends[0].value - ends[1].value) / 2e-4
        np.testing.assert_allclose(slope, found.costates[:3, 0, j], rtol=1e-4, atol=1e-5)


def test_members_have_the_same_bits_alone_and_beside_hopeless_ones(discs):
    problem, states, controls, found = discs
    alone = solve_constrained(problem, states[3:4], controls[3:4], problem.param_values[None])
    broken = states.copy()
    broken[7, 0] = [0.0, 0.0, 0.0, 0.0]  # in the middle of the disc
    broken[8, 5] = np.nan
    beside = solve_constrained(problem, broken, controls, problem.param_values[None])
    assert not beside.converged[[7, 8]].any()
    assert beside.violation[7] > 0.2
    others = np.setdiff1d(np.arange(len(states)), [7, 8])
    for name, array in found.__dict__.items():
        assert np.array_equal(array[3], alone.__dict__[name][0]), name
        assert np.array_equal(array[others], beside.__dict__[name][others]), name


def test_many_starts_are_proved_or_said_to_be_infeasible():
    problem = to_rest(force=0.9)
    starts = problem.initial_state.sample(np.random.default_rng(0), 40)
    starts[0] = [5.0, 0.0]  # too far for the speed and the time
    starts[1] = [0.0, 2.0]  # outside the bounds
    batch = solve_many(problem, starts)
    assert batch.solver == "ddp"
    assert [batch[i].status for i in (0, 1)] == [Status.INFEASIBLE] * 2
    assert [batch[i].verdict for i in (0, 1)] == [Verdict.NOT_CONVERGED] * 2
    for i in (5, 6):
        other = solve(problem, starts[i], method="multiple_shooting")
        assert batch[i].verdict is other.verdict
        if other.ok:
            assert batch.values[i] == pytest.approx(other.value, rel=1e-6)
    assert batch.ok.sum() >= 20
    ok = batch.ok
    for name, array in batch.residuals.items():
        assert array[ok].max() < 1e-6, name


def test_a_curved_plant_inside_bounds_by_coarse_dynamic_programming():
    problem = optima.van_der_pol(40, (-1.0, 1.0)).replace(
        state_bounds={"x1": (-0.05, 1.2)}, initial_state=Uniform([0.0, 0.6], [0.4, 1.1])
    )
    starts = problem.initial_state.sample(np.random.default_rng(0), 32)
    batch = solve_many(problem, starts)
    assert batch.ok.all()
    assert (batch.trajectory.states[:, 1:, 1] < -0.05 + 1e-7).any()  # the bound is reached by some
    for i in (0, 16):
        other = solve(problem, starts[i], method="multiple_shooting")
        assert batch.values[i] == pytest.approx(other.value, rel=1e-6)
        assert batch[i].verdict is Verdict.EXTREMAL
    assert solve(problem, starts[0], method="ddp").value == pytest.approx(batch.values[0], rel=1e-9)


def slalom():
    """A point mass past two discs to rest at (4, 0): four ways round."""
    return Problem(
        name="slalom", state=["x", "y", "vx", "vy"], control=["ax", "ay"], dynamics=lambda x, u, p: [x[2], x[3], u[0], u[1]],
        stage_cost=lambda x, u, p: ca.sumsqr(u), control_bounds={"ax": (-6, 6), "ay": (-6, 6)}, dt=0.1, steps=30,
        path_constraints=lambda x, u, p: [
            0.36 - ((x[0] - 1.2) ** 2 + (x[1] - 0.3) ** 2), 0.36 - ((x[0] - 2.7) ** 2 + (x[1] + 0.3) ** 2)
        ],
        terminal_constraints=lambda x, p: [x[0] - 4, x[1], x[2], x[3]],
        initial_state=Uniform([-0.2, -0.6, 0, 0], [0.2, 0.6, 0, 0]),
    )  # fmt: skip


def test_a_firm_start_keeps_the_side_of_the_obstacle_and_is_no_worse_than_its_guess():
    problem = slalom()
    starts = problem.initial_state.sample(np.random.default_rng(3), 6)
    guess = solve_many(problem, starts, method="multiple_shooting", num_starts=2)
    firm = solve_constrained(
        problem, guess.trajectory.states, guess.trajectory.controls, problem.param_values[None], stiffness=100.0
    )
    assert firm.converged.all()
    np.testing.assert_allclose(firm.value, guess.values, rtol=1e-6)
    again = solve_many(problem, np.repeat(starts, 3, axis=0), guess=guess.trajectory[np.repeat(np.arange(6), 3)])
    assert (again.values <= np.repeat(guess.values, 3) * (1 + 1e-7)).all()


@pytest.mark.parametrize(
    ("num", "compared", "method"), [(4, 1, "ddp"), pytest.param(40, 12, "auto", marks=pytest.mark.prove)]
)  # so few would not be solved as a batch if no method were named
def test_every_start_of_a_batch_finds_the_best_way_round(num, compared, method):
    problem = slalom()
    starts = problem.initial_state.sample(np.random.default_rng(3), num)
    batch = solve_many(problem, starts, method=method)
    assert batch.certified.all() and batch.solver == "ddp"
    best = solve_many(problem, starts[:compared], method="multiple_shooting", num_starts=12).values
    assert (batch.values[:compared] <= best * (1 + 1e-6)).all()
