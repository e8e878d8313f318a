"""Output feedback: the Kalman filter and its known cost; the H∞ norm against closed forms and a sweep over frequencies."""

import casadi as ca
import numpy as np
import pytest
from scipy.linalg import solve_discrete_are

from optctl import compare, envs, rollout
from optctl.errors import ArgumentError
from optctl.problem import Normal, Problem
from optctl.solvers import linear_quadratic, lqr, lqr_controller
from optctl.solvers.feedback.lqg import LqgController, h_infinity_norm


def finite(**changes):
    """Noisy double integrator over 40 steps, seen in its position."""
    return Problem(
        **{
            "name": "tracking-station", "state": ["q", "v"], "control": ["u"], "dt": 0.1, "steps": 40,
            "dynamics": lambda x, u, p: ca.vertcat(x[1], u[0]), "stage_cost": lambda x, u, p: ca.sumsqr(x) + 0.2 * u**2,
            "terminal_cost": lambda x, p: 2 * x[0] ** 2, "diffusion": lambda x, u, p: [0.0, 0.4],
            "observation": lambda x, p: x[0] + 0.3, "observation_noise": 0.2, "initial_state": Normal([1.0, -0.5], [0.5, 0.3]),
            "integrator": "exponential",
        } | changes
    )  # fmt: skip


def test_the_optimum_of_a_finite_horizon_is_what_the_trace_formula_says():
    # J* = x̄'P₀x̄ + tr(P₀Σ₀) + Σ tr(P_{k+1} W) + Σ tr(K'SKΣ_{k|k}); Åström (1970), theorem 8.6.1
    problem = finite()
    gain, controller = lqr(problem), LqgController(problem)
    m, C, V = linear_quadratic(problem, discretised=True), np.array([[1.0, 0.0]]), 0.04
    W = 0.1 * np.diag([0.0, 0.16])
    mean, cov = np.array([1.0, -0.5]), np.diag([0.25, 0.09])
    expected = mean @ gain.P[0] @ mean + np.trace(gain.P[0] @ cov)
    for k in range(problem.steps):
        M = cov @ C.T / (C @ cov @ C.T + V)
        cov = cov - M @ C @ cov
        S = m.R + m.B.T @ gain.P[k + 1] @ m.B
        expected += np.trace(gain.P[k + 1] @ W) + np.trace(gain.K[k].T @ S @ gain.K[k] @ cov)
        cov = m.A @ cov @ m.A.T + W
    assert controller.expected_cost() == pytest.approx(expected, rel=1e-10)
    starts = problem.initial_state.sample(np.random.default_rng(0), 20_000)
    costs = rollout(problem, controller, starts, seed=1).total_cost
    assert costs.mean() == pytest.approx(expected, abs=4 * costs.std() / np.sqrt(len(costs)))
    assert costs.std() / np.sqrt(len(costs)) < 0.01 * expected


def test_doyles_regulator_costs_what_separation_predicts():
    problem = envs.make("lqg", steps=300)
    controller, gain = LqgController(problem), lqr(problem)
    m, C = linear_quadratic(problem, discretised=True), np.array([[1.0, 0.0]])
    W, V = problem.dt * 0.01 * np.ones((2, 2)), np.array([[0.01 / problem.dt]])
    ahead = solve_discrete_are(m.A.T, C.T, W, V)
    filtered = ahead - ahead @ C.T @ np.linalg.solve(C @ ahead @ C.T + V, C @ ahead)
    S = m.R + m.B.T @ gain.P @ m.B
    assert controller.average_cost == pytest.approx(
        np.trace(gain.P @ W) + np.trace(gain.K.T @ S @ gain.K @ filtered), rel=1e-9
    )
    # once the filter is stationary, each further step costs the average
    assert controller.expected_cost(600) - controller.expected_cost(599) == pytest.approx(
        controller.average_cost, rel=1e-6
    )
    starts = problem.initial_state.sample(np.random.default_rng(0), 4000)
    costs = rollout(problem, controller, starts, seed=3).total_cost
    assert costs.mean() == pytest.approx(controller.expected_cost(), abs=4 * costs.std() / np.sqrt(len(costs)))


def test_compare_gives_the_regulator_observations_and_the_others_states():
    problem = envs.make("lqg")
    report = compare(problem, ["lqr", "lqg"], num_starts=200, seeds=(0, 1), repetitions=50)
    costs = {r.name: r.costs[0] for r in report.results}
    expected = LqgController(problem).expected_cost()
    error = costs["lqg"].std() / np.sqrt(200)
    assert costs["lqg"].mean() == pytest.approx(expected, abs=4 * error)
    assert costs["lqr"].mean() < 0.5 * expected  # to see the state is worth more than half


def test_an_observing_controller_sees_noise_of_the_stated_size_and_nobody_else_does():
    problem = finite(steps=3)
    seen = []

    class Watching:
        name, observes = "watching", True

        def reset(self, states, params):
            seen.append(states)

        def __call__(self, states, time):
            seen.append(states)
            return np.zeros((len(states), 1))

    starts = np.zeros((4000, 2))
    noisy = rollout(problem, Watching(), starts, seed=5)
    assert np.array_equal(seen[0], seen[1])  # the first observation is one
    errors = np.stack(seen[1:], axis=1)[..., 0] - noisy.states[:, :-1, 0] - 0.3
    assert errors.std() == pytest.approx(0.2, rel=0.03)
    pushes = np.diff(noisy.states[..., 1], axis=1)
    assert np.abs(np.corrcoef(np.concatenate([errors, pushes], axis=1).T) - np.eye(6)).max() < 0.06
    Blind = type("Blind", (Watching,), {"observes": False})
    assert np.array_equal(
        rollout(problem, Blind(), starts, seed=5).states, noisy.states
    )  # the process noise is the same
    seen.clear()
    rollout(problem, Watching(), starts[:2])
    assert (seen[0] == 0.3).all()  # no seed, no noise


@pytest.mark.parametrize("name", ["flexible-beam", "dean"])
def test_sensors_without_noise_that_determine_the_state_lose_nothing(name):
    problem = envs.make(name)
    starts = problem.initial_state.sample(np.random.default_rng(0), 5)
    blind, seeing = (rollout(problem, c, starts).total_cost for c in (LqgController(problem), lqr_controller(problem)))
    np.testing.assert_allclose(blind, seeing, rtol=1e-9)


def test_noise_of_the_sensors_alone():
    problem = finite(diffusion=None)
    a, b = (compare(problem, ["lqg"], num_starts=50, seeds=s, reference=None, repetitions=20) for s in ((0,), (1,)))
    assert not np.array_equal(a.results[0].costs, b.results[0].costs)
    assert b.noise_seeds == (1,)
    assert any("noisy sensors" in note and "lqg" in note for note in b.notes)
    with pytest.raises(ArgumentError, match="`seeds` must hold at least one seed"):
        compare(problem, ["lqg"], num_starts=2, seeds=(), reference=None)


def test_every_plant_has_its_own_filter_and_gain():
    problem = envs.make("lqr-unstable", steps=30).replace(observation_noise=0.1, diffusion=lambda x, u, p: [0.0, 0.2])
    plants = np.array([[-1.0], [-0.6], [-1.0], [-0.8], [-0.6]])
    starts = problem.initial_state.sample(np.random.default_rng(0), 5)
    fleet = LqgController(problem, params=plants)
    assert len(fleet.regulators) == 3
    mixed = rollout(problem, fleet, starts, params=plants, seed=2)
    for i, p in enumerate(plants):
        alone = rollout(problem, LqgController(problem, params=p), starts, params=p, seed=2)
        np.testing.assert_allclose(mixed.states[i], alone.states[i], atol=1e-12)
    each = [LqgController(problem, params=p).average_cost for p in plants]
    assert fleet.average_cost == pytest.approx(np.mean(each), rel=1e-12)
    assert np.ptp(each) > 0.05 * np.mean(each)
    told = compare(problem, ["lqg"], starts=starts, params=plants, reference=None)["lqg"]
    assert not told.failed


def test_the_filter_is_for_its_plants_and_constant_noise():
    problem = envs.make("lqr-unstable").replace(diffusion=lambda x, u, p: [0.0, x[0]])
    with pytest.raises(ArgumentError, match="`diffusion` must be constant for a Kalman filter, but depends on state"):
        LqgController(problem)
    plain = envs.make("lqr-unstable")
    with pytest.raises(ArgumentError, match="`params` must be the plants that the filters were made for"):
        LqgController(plain).reset(np.zeros((1, 2)), np.array([[-0.7]]))
    with pytest.raises(
        ArgumentError, match="`observation_noise` must be positive for a stationary filter, but is zero"
    ):
        _ = LqgController(plain).average_cost
    with pytest.raises(ArgumentError, match="`problem` must have an infinite horizon, but has a finite one"):
        _ = LqgController(finite()).average_cost


# --- H∞ -----------------------------------------------------------------------------------------------------------------


def test_a_mode_that_no_sensor_shows_is_named():
    hidden = Problem(
        name="hidden", state=["x", "v"], control=["u"], transition=lambda x, u, p: [x[0] + 0.1 * x[1], x[1] + 0.1 * u[0]],
        stage_cost=lambda x, u, p: ca.sumsqr(x) + u[0] ** 2, horizon="infinite", dt=0.1, steps=10, observation=lambda x, p: x[1],
        initial_state=Normal([0, 0], [1, 1]), observation_noise=0.1, diffusion=lambda x, u, p: ca.DM([0.1, 0.1]),
    )  # fmt: skip
    with pytest.raises(
        ArgumentError, match=r"`problem` must be detectable, but the mode with eigenvalue 1.* no observation shows it"
    ):
        _ = LqgController(hidden).average_cost


def test_h_infinity_norm_of_a_resonance():
    # 1/(s² + 2ζs + 1): 1/(2ζ√(1 − ζ²)) at ω = √(1 − 2ζ²)
    for zeta in (0.001, 0.1, 0.5):
        A, B, C = [[0.0, 1.0], [-1.0, -2 * zeta]], [[0.0], [1.0]], [[1.0, 0.0]]
        norm, omega = h_infinity_norm(A, B, C)
        assert norm == pytest.approx(1 / (2 * zeta * np.sqrt(1 - zeta**2)), rel=1e-9)
        assert omega == pytest.approx(np.sqrt(1 - 2 * zeta**2), rel=1e-4)
    assert h_infinity_norm([[1.0]], [[1.0]], [[1.0]])[0] == np.inf
    assert h_infinity_norm([[-1.0]], [[1.0]], [[0.0]], [[0.5]])[0] == pytest.approx(0.5)


@pytest.mark.parametrize("discrete", [False, True])
def test_h_infinity_norm_against_a_sweep_over_frequencies(discrete):
    rng = np.random.default_rng(4)
    for _ in range(5):
        A = rng.standard_normal((5, 5))
        A = (
            0.9 * A / np.abs(np.linalg.eigvals(A)).max()
            if discrete
            else A - (np.linalg.eigvals(A).real.max() + 0.05) * np.eye(5)
        )
        B, C, D = rng.standard_normal((5, 2)), rng.standard_normal((3, 5)), rng.standard_normal((3, 2))
        norm, omega = h_infinity_norm(A, B, C, D, discrete=discrete)
        w = np.linspace(0, np.pi, 4001) if discrete else np.tan(np.linspace(0, 1.57, 4001))
        point = np.exp(1j * w) if discrete else 1j * w
        sizes = np.linalg.norm(C @ np.linalg.solve(point[:, None, None] * np.eye(5) - A, B) + D, 2, axis=(1, 2))
        assert sizes.max() <= norm * (1 + 1e-9)
        assert sizes.max() == pytest.approx(norm, rel=1e-3)
        at = np.exp(1j * omega) if discrete else 1j * omega
        assert np.linalg.norm(C @ np.linalg.solve(at * np.eye(5) - A, B) + D, 2) == pytest.approx(norm, rel=1e-8)


def test_matrices_that_do_not_fit():
    with pytest.raises(ArgumentError, match="`A, B, C, D` must fit together, but have shapes"):
        h_infinity_norm(np.eye(2), np.ones((3, 1)), np.ones((1, 2)))
