"""Batched DDP on generated kernels: known optima, independent certificates, independence of the members."""

import casadi as ca
import numpy as np
import optima
import pytest
import torch

from optctl import envs
from optctl.codegen.program import TranslationError
from optctl.errors import ArgumentError
from optctl.problem import Fixed, Problem, Uniform
from optctl.solvers import solve, solve_many
from optctl.solvers.batched.ddp import kernel, solve_ddp
from optctl.solvers.guesses.homotopy import homotopy
from optctl.solvers.methods.lqr import lqr
from optctl.solvers.methods.multiple_shooting import Guess, solve_multiple_shooting
from optctl.solvers.methods.sweeps import sweeps


def hold(problem, starts):
    """The state held and no control: a guess with a gap in every interval."""
    states = np.repeat(starts[:, None], problem.steps + 1, axis=1)
    return states, np.zeros((len(starts), problem.steps, problem.n_u))


@pytest.fixture(scope="module")
def pendulums():
    problem = envs.make("pendulum", steps=60)
    starts = problem.initial_state.sample(np.random.default_rng(5), 21)
    return problem, *hold(problem, starts)


def solved(problem, states, controls, params=None, **options):
    return solve_ddp(problem, states, controls, problem.param_values[None] if params is None else params, **options)


def test_linear_quadratic_problems_end_at_the_riccati_solution():
    problem = envs.make("double-integrator", steps=400)  # long enough for the infinite horizon
    starts = problem.initial_state.sample(np.random.default_rng(0), 5)
    found, gain = solved(problem, *hold(problem, starts)), lqr(problem)
    assert found.converged.all()
    np.testing.assert_allclose(found.value, np.einsum("bi,ij,bj->b", starts, gain.P, starts), rtol=1e-9)
    np.testing.assert_allclose(found.costates[:, 0], 2 * starts @ gain.P, rtol=1e-8)
    np.testing.assert_allclose(found.hessians[:, 0], np.broadcast_to(2 * gain.P, (5, 2, 2)), rtol=1e-8)
    np.testing.assert_allclose(found.gains[:, 0], np.broadcast_to(gain.K, (5, 1, 2)), rtol=1e-8)


def test_van_der_pol_with_and_without_bounds():
    for bounds, optimum in ((None, 2.866952422563), ((-0.3, 1.0), 2.867261045220)):
        errors = []
        for steps in (200, 400):  # the control is held over the interval: O(h²) above the continuous optimum
            problem = optima.van_der_pol(steps, bounds)
            found = solved(problem, *hold(problem, np.array([[0.0, 1.0]])))
            assert found.converged.all()
            errors.append(found.value[0] - optimum)
        assert 3.8 < errors[0] / errors[1] < 4.2
        assert 0 < errors[1] < 1e-3


def test_solutions_are_stationary_by_casadi_and_have_no_gaps(pendulums):
    problem, states, controls = pendulums
    found = solved(problem, states, controls)
    assert found.converged.sum() >= 19
    p = np.broadcast_to(problem.param_values, (len(states), problem.n_p))
    rolled, costs, _ = sweeps(problem).rollout(states[:, 0], found.controls, p)
    np.testing.assert_allclose(rolled, found.states, atol=1e-8)
    np.testing.assert_allclose(costs.reshape(found.costs.shape), found.costs, atol=1e-9)
    costates, h_u = sweeps(problem).adjoint(found.states, found.controls, p)
    projected = found.controls - np.clip(found.controls - h_u, problem.control_low, problem.control_high)
    ok = found.converged
    assert np.abs(projected[ok]).max() < 1e-8
    np.testing.assert_allclose(found.costates[ok], costates[ok], atol=1e-7)


def test_ipopt_agrees_from_the_same_infeasible_guess(pendulums):
    problem, states, controls = pendulums
    found = solved(problem, states, controls)
    compared = 0
    for i in range(6):
        other = solve_multiple_shooting(problem, states[i, 0], guess=Guess(states[i], controls[i]))
        same = other.ok and found.converged[i] and abs(other.value - found.value[i]) < 1e-3 * other.value
        if same:
            compared += 1
            assert found.value[i] == pytest.approx(other.value, rel=1e-8)
            np.testing.assert_allclose(found.costates[i], other.trajectory.costates, atol=1e-5)
    assert compared >= 3


def test_a_member_has_the_same_bits_alone_in_any_batch_and_on_any_number_of_threads(pendulums):
    problem, states, controls = pendulums
    whole = solved(problem, states, controls)
    alone = solved(problem, states[4:5], controls[4:5])
    turned = solved(problem, states[::-1], controls[::-1])
    torch.set_num_threads(2)
    threaded = solved(problem, states, controls)
    for name, array in whole.__dict__.items():
        assert np.array_equal(array[4], alone.__dict__[name][0]), name
        assert np.array_equal(array, turned.__dict__[name][::-1]), name
        assert np.array_equal(array, threaded.__dict__[name]), name


def test_a_nan_or_hopeless_member_leaves_the_others_alone(pendulums):
    problem, states, controls = pendulums
    whole = solved(problem, states, controls)
    broken, pushed = states.copy(), controls.copy()
    broken[2, 7], broken[9, 0] = np.nan, 1e200
    pushed[5, 3] = np.nan
    found = solved(problem, broken, pushed)
    bad = [2, 5, 9]
    assert not found.converged[bad].any()
    assert np.isinf(found.gradient[bad]).all()
    others = np.setdiff1d(np.arange(len(states)), bad)
    for name, array in whole.__dict__.items():
        assert np.array_equal(array[others], found.__dict__[name][others]), name


def test_every_plant_gets_its_own_optimum(pendulums):
    problem, states, controls = pendulums
    params = np.random.default_rng(2).uniform(problem.param_low, problem.param_high, (len(states), problem.n_p))
    found = solved(problem, states, controls, params)
    p = found.converged
    assert p.sum() >= 18
    _, h_u = sweeps(problem).adjoint(found.states, found.controls, params)
    projected = found.controls - np.clip(found.controls - h_u, problem.control_low, problem.control_high)
    assert np.abs(projected[p]).max() < 1e-8


def test_bounds_may_differ_by_member(pendulums):
    problem, states, controls = pendulums
    high = np.linspace(1.0, 4.0, len(states))[:, None]
    found = solved(problem, states, controls, low=-high, high=high)
    assert (np.abs(found.controls).max(axis=1) <= high).all()
    used = np.abs(found.controls).max(axis=1)[:, 0] / high[:, 0]
    assert used[:5].min() == 1.0  # a weak motor is used fully


def test_what_is_not_consistent_does_not_pass_for_a_solution(pendulums):
    problem, states, controls = pendulums
    found = solved(problem, states, controls, max_iterations=0, polish=0)
    assert np.isinf(found.gradient).all()
    assert not found.converged.any()


def test_sine_and_cosine_are_accurate_far_out():
    problem = Problem(
        name="waves", state=["x"], control=["u"], transition=lambda x, u, p: x,
        stage_cost=lambda x, u, p: ca.sin(x[0]) + 1e6 * ca.cos(x[0]), initial_state=Fixed([0.0]), dt=1.0, steps=1,
    )  # fmt: skip
    x = np.concatenate(
        [np.random.default_rng(0).uniform(-1e5, 1e5, 4000), np.pi / 2 * np.arange(-50, 50), [0.0, 1e-300]]
    )
    states = np.repeat(x[:, None, None], 2, axis=1)
    found = solved(problem, states, np.zeros((len(x), 1, 1)), max_iterations=0, polish=0)
    np.testing.assert_allclose(found.costs[:, 0], np.sin(x) + 1e6 * np.cos(x), rtol=0, atol=3e-10)


def test_many_goes_by_kernels_and_a_single_start_ends_in_the_same_optimum():
    problem = envs.make("pendulum")
    starts = problem.initial_state.sample(np.random.default_rng(3), 40)
    batch = solve_many(problem, starts)
    assert batch.ok.all()
    assert np.max(batch.residuals["stationarity"]) < 1e-8
    again = solve(problem, starts[0], guess=batch.trajectory[0])
    assert again.value == pytest.approx(batch.values[0], rel=1e-9)


def test_more_authority_first_finds_basins_that_a_plain_guess_does_not():
    problem = envs.make("pendulum")
    starts = problem.initial_state.sample(np.random.default_rng(6), 8)
    best = np.full(8, np.inf)
    for members, found in homotopy(problem, starts, problem.param_values[None], 4, 0, solve_ddp):
        best[members] = np.minimum(best[members], np.where(found.converged, found.value, np.inf))
    plain = solved(problem, *hold(problem, starts))
    assert plain.converged.all()
    assert (best <= plain.value * (1 + 1e-9)).sum() >= 6
    assert best[3] == pytest.approx(solve_many(problem, starts).values[3], rel=1e-8)  # by dynamic programming: 3.4169
    assert best[3] < 0.2 * plain.value[3]


def test_what_homotopy_widens_for_one_start_does_not_depend_on_its_neighbours():
    problem = envs.make("pendulum")
    same, far, near = [2.0, 0.5], [np.pi, 0.0], [1.0, 0.2]

    def values_of_the_second(first):
        pairs = homotopy(problem, np.array([first, same]), problem.param_values[None], 6, 0, solve_ddp)
        return [found.value[members == 1] for members, found in pairs if 1 in members]

    beside_far, beside_near = values_of_the_second(far), values_of_the_second(near)
    assert len(beside_far) == 6
    assert np.array_equal(beside_far, beside_near)


def test_an_operation_without_translation_is_solved_all_the_same():
    problem = Problem(
        name="chatty", state=["x"], control=["u"], transition=lambda x, u, p: x + 0.1 * u.printme(0),
        stage_cost=lambda x, u, p: x[0] ** 2 + u[0] ** 2, initial_state=Uniform([-1.0], [1.0]), dt=1.0, steps=2,
    )  # fmt: skip
    with pytest.raises(TranslationError, match="printme"):
        kernel(problem)
    assert solve_many(problem, np.linspace(-1, 1, 40)[:, None]).ok.all()


def test_a_batch_larger_than_a_launch_goes_in_parts(pendulums, monkeypatch):
    problem, states, controls = pendulums
    params = np.random.default_rng(2).uniform(problem.param_low, problem.param_high, (len(states), problem.n_p))
    whole = solved(problem, states, controls, params)
    monkeypatch.setattr("optctl.solvers.batched.ddp._LARGEST_ARRAY", 4 * 61 * 5)
    parts = solved(problem, states, controls, params)
    for name, array in whole.__dict__.items():
        assert np.array_equal(array, parts.__dict__[name]), name


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("controls", {"controls": np.zeros((2, 60))}),
        ("states", {"states": np.zeros((2, 60, 2))}),
        ("params", {"params": np.zeros((3, 3))}),
        ("low", {"low": np.zeros((2, 2))}),
        ("high", {"high": np.zeros((4, 1))}),
        ("start_times", {"start_times": np.zeros(3)}),
    ],
)
def test_wrong_shapes_are_named(pendulums, name, changes):
    problem = pendulums[0]
    arguments = {"states": np.zeros((2, 61, 2)), "controls": np.zeros((2, 60, 1)), "params": np.zeros((1, 3))} | changes
    with pytest.raises(ArgumentError, match=f"`{name}` must have shape"):
        solve_ddp(problem, **arguments)


def test_the_source_for_gpus_compiles_without_one(compile_for_gpus):
    from optctl.solvers.batched.source import DdpSource

    bounded = envs.make("pendulum").replace(state_bounds={"omega": (-8.0, 8.0)})
    compile_for_gpus(DdpSource(bounded, "cuda").source())
