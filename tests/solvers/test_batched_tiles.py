"""DDP in tiles: the sweeps of the reference, Riccati optima, IPOPT's optima, independence of the members."""

import numpy as np
import pytest

from optctl import envs
from optctl.envs import oscillators
from optctl.errors import ArgumentError
from optctl.solvers import solve_many
from optctl.solvers.batched import tiles
from optctl.solvers.batched.choice import UNROLLED, bundle, solve_by_kernel, solve_on_host
from optctl.solvers.methods.lqr import lqr
from optctl.solvers.methods.multiple_shooting import Guess, solve_multiple_shooting
from optctl.solvers.methods.sweeps import sweeps


def hold(problem, starts):
    """The state held and no control."""
    states = np.repeat(starts[:, None], problem.steps + 1, axis=1)
    return states, np.zeros((len(starts), problem.steps, problem.n_u))


def bounds(problem, scale=1.0):
    return [scale * b[None].clip(-1e20, 1e20) for b in (problem.control_low, problem.control_high)]


SMALL = {
    "cartpole": lambda: envs.make("cartpole", steps=20),
    "pendulum": lambda: envs.make("pendulum", steps=20),
    "chain, three forces": lambda: oscillators.chain(n=3, steps=20, actuated=None),
}


@pytest.fixture(
    scope="module", params=[pytest.param("cartpole", marks=pytest.mark.prove), "pendulum", "chain, three forces"]
)
def trajectory(request):
    """Of a small system, random: (problem, x, u, p), with some controls on a tenth of their bounds."""
    problem, rng = SMALL[request.param](), np.random.default_rng(1)
    low, high = bounds(problem, 0.1)
    u = np.clip(rng.normal(0, 0.6, (4, problem.steps, problem.n_u)) * high, low, high)
    p = np.broadcast_to(problem.param_values, (4, problem.n_p)).copy()
    x, _, _ = sweeps(problem).rollout(problem.initial_state.sample(rng, 4), u, p)
    return problem, x, u, p


def agree(tiled, reference):
    for a, b in zip(tiled, reference, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10 * (1 + np.abs(b).max()))


@pytest.mark.parametrize("theta", [0.0, 0.3, 1.0])
def test_clamped_sweeps_agree(trajectory, theta):
    problem, x, u, p = trajectory
    mu = np.array([[0.0], [0.0], [1e-3], [10.0]])
    arguments = (x, u, p, mu, *bounds(problem, 0.1), np.full((1, 1), theta))
    reference, tiled = sweeps(problem).clamped(*arguments), tiles.sweeps(problem).clamped(*arguments)
    feedback = np.abs(reference[3].reshape(*x[:, 1:].shape, problem.n_u)).max(axis=2)
    assert (feedback == 0).any()  # of a control at a bound
    agree(tiled, reference)


@pytest.mark.parametrize("theta", [0.0, 1.0])
def test_interior_sweeps_agree(trajectory, theta):
    problem, x, u, p = trajectory
    low, high = bounds(problem)
    z = np.random.default_rng(2).uniform(0.1, 1.0, (2, *u.shape))
    weight = np.array([[1e-1], [1e-2], [1e-3], [1e-6]])
    arguments = (x, 0.9 * u, p, np.zeros((4, 1)), low, high, np.full((1, 1), theta), *z, weight)
    agree(tiles.sweeps(problem).interior(*arguments), sweeps(problem).interior(*arguments))


def test_tracking_and_trials_agree(trajectory):
    problem, x, u, p = trajectory
    rng = np.random.default_rng(3)
    q, r = rng.uniform(0.1, 1.0, (4, problem.n_x)), rng.uniform(0.1, 1.0, (4, problem.n_u))
    tiled, reference = tiles.sweeps(problem), sweeps(problem)
    agree(tiled.tracking(x, u, p, q, r), reference.tracking(x, u, p, q, r))
    agree(tiled.adjoint(x, u, p), reference.adjoint(x, u, p))
    k, gains = reference.clamped(x, u, p, np.zeros((1, 1)), *bounds(problem), np.zeros((1, 1)))[2:4]
    one = np.ones((1, 1))
    forward = (x, u, k, gains, 0.5 * one, p, *bounds(problem), 0.005 * one)
    agree(tiled.forward(*forward)[:4], reference.forward(*forward)[:4])
    agree(tiled.rollout(x[:, 0], u, p), reference.rollout(x[:, 0], u, p))


def test_functions_too_long_to_compile_are_interpreted(trajectory, monkeypatch):
    problem, x, u, p = trajectory
    monkeypatch.setattr(tiles, "_LONGEST", 0)
    arguments = (x, u, p, np.zeros((1, 1)), *bounds(problem, 0.1), np.full((1, 1), 0.6))
    agree(tiles.sweeps(problem.replace()).clamped(*arguments), sweeps(problem).clamped(*arguments))


def linear(n, steps):
    """Stage by stage, and, where the dynamics are affine, in one launch a sweep; three controls each."""
    which = (0, n // 2, n - 1)
    return [
        oscillators.chain(n=n, cubic=0.0, steps=steps, actuated=which).replace(control_bounds={}),
        oscillators.ring(n=n, steps=steps, actuated=which),
    ]


@pytest.mark.parametrize(
    "problem",
    [*linear(3, 30), *(pytest.param(problem, marks=pytest.mark.prove) for problem in linear(11, 80))],
    ids=lambda problem: f"{problem.name}-{problem.n_x}",
)
def test_linear_quadratic_problems_end_at_the_riccati_solution(problem, monkeypatch):
    if problem.n_x <= UNROLLED:  # what is quick to compile takes the way of the large
        monkeypatch.setattr("optctl.solvers.batched.choice.UNROLLED", 0)
    assert (tiles._Tiles(problem, 1, tiles.resolve_device("cpu")).exact is None) == (problem.name == "oscillator-ring")
    starts = problem.initial_state.sample(np.random.default_rng(0), 5)
    found, gain = (
        solve_on_host(problem, *hold(problem, starts), problem.param_values[None]),
        lqr(problem, horizon="finite"),
    )
    assert found.converged.all()
    np.testing.assert_allclose(found.value, np.einsum("bi,ij,bj->b", starts, gain.P[0], starts), rtol=1e-8)
    np.testing.assert_allclose(found.costates[:, 0], 2 * starts @ gain.P[0], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(
        found.hessians[:, 0], np.broadcast_to(2 * gain.P[0], found.hessians[:, 0].shape), rtol=1e-8, atol=1e-8
    )
    np.testing.assert_allclose(
        found.gains[:, 0], np.broadcast_to(gain.K[0], found.gains[:, 0].shape), rtol=1e-8, atol=1e-8
    )


@pytest.fixture(scope="module")
def chains():
    problem = oscillators.chain(n=9, steps=60)
    starts = problem.initial_state.sample(np.random.default_rng(5), 13)
    states, controls = hold(problem, starts)
    return problem, states, controls, solve_by_kernel(problem, states, controls, problem.param_values[None])


def test_a_chain_of_eighteen_states_is_solved_from_every_start(chains):
    problem, states, _, found = chains
    assert found.converged.all()
    assert (found.gradient <= 1e-10 * (1 + np.abs(found.value))).all()
    p = np.broadcast_to(problem.param_values, (13, problem.n_p))
    _, h_u = bundle(problem).adjoint(found.states, found.controls, p)
    projected = found.controls - np.clip(found.controls - h_u, *bounds(problem))
    assert (np.abs(projected).max(axis=(1, 2)) <= 2e-10 * (1 + np.abs(found.value))).all()
    assert (np.abs(found.controls) == 2.0).any()
    for i in (0, 7):
        other = solve_multiple_shooting(problem, states[i, 0], guess=Guess(found.states[i], 0 * found.controls[i]))
        assert other.ok
        assert found.value[i] == pytest.approx(other.value, rel=1e-6)


def test_a_member_has_the_same_bits_alone_and_in_any_batch(chains):
    problem, states, controls, _ = chains
    few = [3, 8, 12]
    together = solve_on_host(
        problem, states[few], controls[few], problem.param_values[None], max_iterations=3, polish=2
    )
    turned = solve_on_host(
        problem, states[few[::-1]], controls[few[::-1]], problem.param_values[None], max_iterations=3, polish=2
    )
    alone = solve_on_host(problem, states[8:9], controls[8:9], problem.param_values[None], max_iterations=3, polish=2)
    for name, array in together.__dict__.items():
        assert np.array_equal(array, turned.__dict__[name][::-1]), name
        assert np.array_equal(array[1], alone.__dict__[name][0]), name


def test_a_nan_leaves_the_others_alone_and_a_large_batch_goes_in_parts(chains, monkeypatch):
    problem, states, controls, _ = chains
    options = dict(max_iterations=2, polish=1)
    whole = solve_on_host(problem, states[:4], controls[:4], problem.param_values[None], **options)
    broken = states[:4].copy()
    broken[1, 0, 3] = np.nan
    monkeypatch.setattr(tiles, "_LARGEST", 2 * problem.steps * 19**2)
    found = solve_on_host(problem, broken, controls[:4], problem.param_values[None], **options)
    assert not found.converged[1]
    assert np.isinf(found.gradient[1])
    for name, array in whole.__dict__.items():
        assert np.array_equal(array[[0, 2, 3]], found.__dict__[name][[0, 2, 3]]), name


def test_many_starts_of_a_larger_system(chains):
    problem, states, _, found = chains
    batch = solve_many(problem, states[:2, 0], guess=None, num_starts=1)
    assert batch.ok.all()
    assert (batch.values <= found.value[:2] * (1 + 1e-6)).all()


def test_what_does_not_fit_a_block_is_named():
    with pytest.raises(ArgumentError, match="at most 64 states and controls"):
        tiles.sweeps(oscillators.chain(n=50))


def test_the_source_for_gpus_compiles_without_one(compile_for_gpus):
    compile_for_gpus(tiles.source(3, 1))
