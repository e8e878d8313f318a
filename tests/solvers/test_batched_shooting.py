"""Batched indirect shooting: known extremals, the single solver, an independent integrator, independence of the members."""

import casadi as ca
import numpy as np
import optima
import pytest
import torch
from scipy.integrate import solve_ivp

from optctl import envs
from optctl.errors import ArgumentError
from optctl.problem import Problem, Uniform
from optctl.problem.trajectory import Trajectory
from optctl.solvers import Status, lqr, solve, solve_many
from optctl.solvers.batched import riccati
from optctl.solvers.batched.flow import integrate, kernel, source
from optctl.solvers.batched.shooting import solve_pontryagin
from optctl.solvers.methods.pontryagin import extremals


@pytest.fixture(scope="module")
def pendulums():
    problem = envs.make("pendulum", steps=60)
    starts = problem.initial_state.sample(np.random.default_rng(5), 21)
    return problem, solve_many(problem, starts, rounds=0).trajectory


def polished(problem, starts, method="auto", **options):
    return solve_pontryagin(problem, solve_many(problem, np.atleast_2d(starts), method=method).trajectory, **options)


@pytest.mark.parametrize(
    ("problem", "J", "costate"),
    [
        (optima.minimum_energy(), 6.0, (-12.0, -6.0)),
        (optima.scalar_finite(), 0.7615941559557649, (2 * 0.7615941559557649,)),
        (optima.duffing(), 0.187444856136, (0.26871908, -0.49143208)),
        (optima.van_der_pol(), 2.866952422563, (0.82339739, 4.87418722)),
        (optima.van_der_pol(50, (-0.3, 1.0)), 2.867261045220, None),
    ],
    ids=["energy", "scalar", "duffing", "van der Pol", "bounded"],
)
def test_known_extremals(problem, J, costate):
    method = "multiple_shooting" if problem.terminal_constraints else "auto"
    found = polished(problem, problem.initial_state.location, method)
    assert found.statuses == [Status.CONVERGED]
    assert found.values[0] == pytest.approx(J, rel=2e-11)
    if costate is not None:
        np.testing.assert_allclose(found.trajectory.costates[0, 0], costate, atol=1e-8)
    certificate = found[0].certificate
    assert certificate.worst() < 1e-9
    assert certificate.resimulation < 1e-9
    assert certificate.hamiltonian_drift < 1e-9
    assert certificate.complementarity == 0.0


def test_agrees_with_the_single_solver_start_by_start():
    problem = optima.van_der_pol(50, (-0.3, 1.0))
    starts = np.random.default_rng(0).uniform(-1, 1, (6, 2))
    guesses = solve_many(problem, starts).trajectory
    found = solve_pontryagin(problem, guesses)
    assert found.ok.all()
    for i in (5,):
        alone = solve(problem, starts[i], method="pontryagin", guess=guesses[i])
        assert found.values[i] == pytest.approx(alone.value, rel=1e-10)
        np.testing.assert_allclose(found.trajectory.states[i], alone.trajectory.states, atol=1e-9)
        np.testing.assert_allclose(found.trajectory.costates[i], alone.trajectory.costates, atol=1e-9)
        np.testing.assert_allclose(found.trajectory.controls[i], alone.trajectory.controls, atol=1e-9)


def test_a_free_final_time():
    # min T + ½∫u² from rest at d to rest at 0: T + 6 d²/T³, so T⁴ = 18 d² and J = 4T/3
    problem = Problem(
        name="unhurried", state=["q", "v"], control=["u"], dynamics=lambda x, u, p: ca.vertcat(x[1], u[0]), dt=0.05, steps=40,
        stage_cost=lambda x, u, p: 1 + 0.5 * u**2, initial_state=Uniform([-2.0, 0.0], [2.0, 0.0]), final_time=(0.2, 8.0),
        terminal_constraints=lambda x, p: x,
    )  # fmt: skip
    distances = np.array([0.5, 1.0, 2.0])
    found = polished(problem, np.stack([distances, 0 * distances], axis=1), "multiple_shooting")
    assert found.ok.all()
    T = (18 * distances**2) ** 0.25
    np.testing.assert_allclose(found.trajectory.times[:, -1], T, rtol=1e-10)
    np.testing.assert_allclose(found.values, 4 * T / 3, rtol=1e-10)
    assert found.iterations.max() <= 5  # quadratic: the derivative with respect to T is right


def test_linear_quadratic_extremals_carry_the_riccati_solution():
    problem = envs.make("double-integrator", steps=30).replace(
        horizon="finite", terminal_cost=lambda x, p: 2 * x[0] ** 2
    )
    found = polished(problem, [[1.0, -0.5], [-0.3, 2.0]])
    gain = lqr(problem, discretised=False)
    np.testing.assert_allclose(found.hessians, np.broadcast_to(2 * gain.P, found.hessians.shape), atol=1e-9)
    expected = 2 * (gain.P @ found.trajectory.states[..., None])[..., 0]
    np.testing.assert_allclose(found.trajectory.costates, expected, atol=1e-9)
    middle = (gain.K[:-1] + gain.K[1:]) / 2
    np.testing.assert_allclose(found.gains, np.broadcast_to(middle, found.gains.shape), atol=1e-9)


def test_the_kernel_integrates_like_an_independent_method():
    problem, rng = envs.make("cartpole"), np.random.default_rng(3)
    y, p = 0.5 * rng.standard_normal((9, 8)), problem.param_values
    end, S, cost = integrate(problem, y, np.tile([0.1, 0.9], (9, 1)), p[None])
    flow = lambda t, z: np.asarray(extremals(problem).flow(z, p, t)).ravel()
    for i in (4,):
        other = solve_ivp(flow, (0.1, 0.9), np.append(y[i], 0.0), method="Radau", rtol=1e-11, atol=1e-12).y[:, -1]
        np.testing.assert_allclose(np.append(end[i], cost[i]), other, rtol=1e-7, atol=1e-8)
    ahead, back = (
        integrate(problem, y + s * 1e-5 * np.eye(8)[2], np.tile([0.1, 0.9], (9, 1)), p[None])[0] for s in (1, -1)
    )
    np.testing.assert_allclose(S[:, :, 2], (ahead - back) / 2e-5, rtol=1e-5, atol=1e-5)


def test_swing_ups_are_extremals_of_the_continuous_problem(pendulums):
    problem, guesses = pendulums
    found = solve_pontryagin(problem, guesses)
    assert found.ok.all()
    ok = np.flatnonzero(found.ok)
    assert found.residuals["hamiltonian_drift"][ok].max() < 1e-7
    assert found.residuals["stationarity"][ok].max() < 1e-12
    # the optimum of held controls lies above that of free ones, by O(dt²)
    above = guesses.total_cost[ok] - found.values[ok]
    assert (above > -1e-9).all()
    # λ(0) = ∂J*/∂x₀ by central differences of neighbouring extremals
    i, eps = ok[0], 1e-4
    moved = [
        Trajectory(guesses.times, np.concatenate([guesses.states[i, :1] + d, guesses.states[i, 1:]])[None],
                   guesses.controls[i : i + 1], guesses.costs[i : i + 1], guesses.terminal_cost[i : i + 1],
                   guesses.costates[i : i + 1])
        for d in (*(eps * np.eye(2)), *(-eps * np.eye(2)))
    ]  # fmt: skip
    values = np.array([solve_pontryagin(problem, guess).values[0] for guess in moved])
    np.testing.assert_allclose(found.trajectory.costates[i, 0], (values[:2] - values[2:]) / (2 * eps), rtol=1e-5)


def test_a_member_has_the_same_bits_alone_in_any_batch_and_on_any_number_of_threads(pendulums):
    problem, guesses = pendulums
    whole = solve_pontryagin(problem, guesses)
    alone = solve_pontryagin(problem, guesses[4:5])
    turned = solve_pontryagin(problem, guesses[::-1])
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if threads > 1 else 2)
    threaded = solve_pontryagin(problem, guesses)
    torch.set_num_threads(threads)
    for name in ("states", "controls", "costates", "costs"):
        array = getattr(whole.trajectory, name)
        assert np.array_equal(array[4], getattr(alone.trajectory, name)[0]), name
        assert np.array_equal(array, getattr(turned.trajectory, name)[::-1]), name
        assert np.array_equal(array, getattr(threaded.trajectory, name)), name
    assert np.array_equal(whole.hessians[4], alone.hessians[0])


def test_a_nan_or_hopeless_member_leaves_the_others_alone(pendulums):
    problem, guesses = pendulums
    whole = solve_pontryagin(problem, guesses)
    states, costates = guesses.states.copy(), guesses.costates.copy()
    states[2, 0], costates[9] = np.nan, 1e6
    broken = Trajectory(guesses.times, states, guesses.controls, guesses.costs, guesses.terminal_cost, costates)
    found = solve_pontryagin(problem, broken)
    assert [found.statuses[i] for i in (2, 9)] == [Status.SHOOTING_FAILED] * 2
    others = np.setdiff1d(np.arange(21), [2, 9])
    assert np.array_equal(found.trajectory.costates[others], whole.trajectory.costates[others])


def test_every_plant_gets_its_own_extremal():
    problem = envs.make("pendulum", steps=40)
    params = np.random.default_rng(2).uniform(problem.param_low, problem.param_high, (3, problem.n_p))
    starts = np.tile([0.5, 0.0], (3, 1))
    found = solve_pontryagin(problem, solve_many(problem, starts, params=params).trajectory, params=params)
    for i in (2,):
        alone = solve(problem, starts[i], params=params[i], method="pontryagin", guess=found.trajectory[i])
        assert found.values[i] == pytest.approx(alone.value, rel=1e-10)
    assert np.ptp(found.values) > 1e-3


@pytest.mark.parametrize("text", [lambda: source(envs.make("pendulum"), "cuda"), lambda: riccati.source(5, 2, "cuda")])
def test_the_sources_for_gpus_compile_without_one(compile_for_gpus, text):
    compile_for_gpus(text())


def test_bad_arguments(pendulums):
    problem, guesses = pendulums
    blind = Trajectory(guesses.times, guesses.states, guesses.controls, guesses.costs, guesses.terminal_cost)
    with pytest.raises(ArgumentError, match="`guess` must hold costates and states of shape"):
        solve_pontryagin(problem, blind)
    with pytest.raises(ArgumentError, match="`segments` must divide 60 steps, but is 7"):
        solve_pontryagin(problem, guesses, segments=7)
    with pytest.raises(ArgumentError, match="`problem` must have continuous dynamics, but is discrete"):
        solve_pontryagin(envs.make("dean"), guesses)
    with pytest.raises(ArgumentError, match="quadratic and convex in every control"):
        solve_pontryagin(optima.singular_arc(), guesses)
    with pytest.raises(ArgumentError, match="neither state bounds nor path constraints"):
        solve_pontryagin(optima.bryson_denham(), guesses)
    assert kernel(problem) is kernel(problem)


def test_solve_many_by_pontryagin_polishes_a_batch_and_hands_the_lost_to_the_single_solver(monkeypatch):
    problem = envs.make("van-der-pol")
    starts = problem.initial_state.sample(np.random.default_rng(1), 8)
    found = solve_many(problem, starts, method="pontryagin")
    assert found.certified.all() and found.members is None
    alone = solve_many(problem, starts[2:3], method="pontryagin")
    assert found.values[2] == pytest.approx(alone.values[0], rel=1e-9)

    def loses_one(*arguments, **options):
        batch = solve_pontryagin(*arguments, **options)
        batch.statuses[2] = Status.SHOOTING_FAILED
        return batch

    monkeypatch.setattr("optctl.solvers.batched.shooting.solve_pontryagin", loses_one)
    again = solve_many(problem, starts, method="pontryagin", processes=1)
    assert again.certified.all() and len(again.members) == 8
    np.testing.assert_allclose(again.values, found.values, rtol=1e-9)
