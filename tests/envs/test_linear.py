"""Linear family: closed forms, textbook numbers, beam theory and the separation principle."""

import casadi as ca
import numpy as np
import pytest
import torch
from scipy.linalg import expm, solve_continuous_are, solve_discrete_are

import optctl
from optctl.errors import ArgumentError
from optctl.problem.controller import FeedbackController, ZeroController, rollout
from optctl.solvers import linear_quadratic, lqr


def matrices(problem):
    """A, B of the differential equation."""
    x, u, p = problem.x, problem.u, problem.p
    f = problem.dynamics_function(x, u, p, 0)
    both = ca.Function("AB", [p], [ca.jacobian(f, ca.vertcat(x, u))])(problem.param_values)
    return np.split(np.array(both), [problem.n_x], axis=1)


def test_golden_ratio():
    gain = lqr(optctl.make("discrete-scalar"))
    phi = (1 + np.sqrt(5)) / 2
    assert gain.P.item() == pytest.approx(phi, rel=1e-12)
    assert gain.K.item() == pytest.approx(phi - 1, rel=1e-12)


def test_discrete_integrator():
    # recomputed by value iteration and by a Schur method elsewhere
    gain = lqr(optctl.make("discrete-integrator"))
    assert gain.K.ravel() == pytest.approx([0.480533816184, 1.249621067688], rel=1e-10)
    assert gain.P.ravel() == pytest.approx([2.60048518044, 2.081018996625, 2.081018996625, 3.330640064312], rel=1e-10)


@pytest.mark.parametrize(
    ("name", "P", "K"),
    [
        # P12 = sqrt(s² + 1) − s, P22 = sqrt(2 P12 + 1), P11 = P22 (s + P12), for s = 1 and −1
        ("lqr-marginal", [1.91229032, 0.41421356, 1.35219345], [np.sqrt(2) - 1, np.sqrt(2 * np.sqrt(2) - 1)]),
        ("lqr-unstable", [2 + np.sqrt(2), 1 + np.sqrt(2), 1 + np.sqrt(2)], [1 + np.sqrt(2), 1 + np.sqrt(2)]),
    ],
)
def test_second_order_systems(name, P, K):
    problem = optctl.make(name)
    gain = lqr(problem, discretised=False)
    assert gain.P[[0, 0, 1], [0, 1, 1]] == pytest.approx(P, abs=1e-8)
    assert gain.K.ravel() == pytest.approx(K, rel=1e-10)
    independent = solve_continuous_are(*matrices(problem), np.eye(2), np.eye(1))
    np.testing.assert_allclose(gain.P, independent, rtol=1e-10)
    # held controls can only cost more, and as the interval shrinks they cost the same
    held = [lqr(problem.replace(dt=dt)).P - gain.P for dt in (0.1, 0.01)]
    assert np.linalg.eigvalsh(held[0]).min() > -1e-12
    assert np.linalg.norm(held[0]) / np.linalg.norm(held[1]) == pytest.approx(100, rel=0.1)


def test_marginal_stays_and_unstable_leaves():
    start, times = [1.0, 0.0], 0.1 * np.arange(101)
    marginal, unstable = optctl.make("lqr-marginal"), optctl.make("lqr-unstable")
    stays = rollout(marginal, ZeroController(marginal), start, steps=100).states[0]
    leaves = rollout(unstable, ZeroController(unstable), start, steps=100).states[0]
    assert stays[:, 0] == pytest.approx(np.cos(times), abs=1e-12)
    assert leaves[:, 0] == pytest.approx(np.cosh(times), rel=1e-12)


# --- the beam -----------------------------------------------------------------------------------------------------------


def test_beam_frequencies_grow_with_the_square_of_the_number():
    problem = optctl.make("flexible-beam", modes=6)
    values = np.linalg.eigvals(matrices(problem)[0])
    values = values[values.imag > 0][np.argsort(values[values.imag > 0].imag)]
    n = np.arange(1, 7)
    assert np.abs(values) == pytest.approx(np.pi**2 * n**2, rel=1e-10)  # L = EI = ρA = 1
    assert -values.real / np.abs(values) == pytest.approx(0.005, rel=1e-8)


def test_beam_sags_under_a_load_as_in_the_tables():
    # load F in the middle: F L³/(48 EI) there, 11 F L³/(768 EI) at a quarter; modes 2, 4, … are not excited
    problem = optctl.make("flexible-beam", modes=15, force_at=0.5, sensors_at=(0.5, 0.25), dt=1e-4)
    p = np.array([2.0, 3.0, 0.7, 0.01])  # length, rigidity, density, damping
    A, B = matrices(problem.replace(params=dict(zip(problem.params, p, strict=True))))
    rest = -np.linalg.solve(A, B).ravel() * 5.0
    seen = np.array(problem.observation_function(rest, p, 0)).ravel()
    assert seen[:2] == pytest.approx(5.0 * 8 / 3 * np.array([1 / 48, 11 / 768]), rel=1e-4)
    assert seen[2:] == pytest.approx(0, abs=1e-12)


def test_beam_keeps_its_energy_without_damping_and_is_exact_at_the_ends_of_its_ranges():
    problem = optctl.make("flexible-beam").replace(
        params={"length": 1.0, "rigidity": 1.4, "density": 1.0, "damping": 0.0}
    )
    start = problem.initial_state.sample(np.random.default_rng(0), 1)
    energy = (rollout(problem, ZeroController(problem), start, steps=1000).states ** 2).sum(axis=-1) / 2
    assert np.ptp(energy) < 1e-10
    A, B = matrices(problem)
    exact = expm(np.block([[A, B], [np.zeros((1, 9))]]) * problem.dt)
    after = np.array(problem.step_function(start[0], 3.0, problem.param_values, 0)[0]).ravel()
    assert after == pytest.approx(exact[:8, :8] @ start[0] + exact[:8, 8] * 3.0, abs=1e-12)


def test_beam_sensors_determine_the_state_and_the_first_mode_has_no_node():
    problem = optctl.make("flexible-beam")
    x = problem.x
    C = np.array(ca.Function("C", [x], [ca.jacobian(problem.observation_function(x, problem.param_values, 0), x)])(0))
    assert np.linalg.matrix_rank(C) == 8
    in_the_middle = optctl.make("flexible-beam", force_at=0.5)
    assert np.abs(matrices(in_the_middle)[1][[5, 7]]).max() < 1e-12  # even modes: no force reaches them there


def test_force_calms_the_beam():
    problem = optctl.make("flexible-beam")
    start = problem.initial_state.sample(np.random.default_rng(1), 8)
    K = lqr(problem).K
    free = rollout(problem, ZeroController(problem), start).total_cost
    held = rollout(problem, FeedbackController(lambda x, t: -x @ K.T), start).total_cost
    assert (held < 0.5 * free).all()


# --- LQG ----------------------------------------------------------------------------------------------------------------


def test_doyles_gains_and_his_missing_margin():
    problem = optctl.make("lqg", weight=100.0, process_noise=1.0, sensor_noise=0.1)
    f = 2 + np.sqrt(4 + 100.0)
    assert lqr(problem, discretised=False).K.ravel() == pytest.approx([f, f], rel=1e-10)
    A, B = matrices(problem)
    C, G = np.array([[1.0, 0.0]]), np.array(problem.diffusion_function(0, 0, 0, 0))
    S = solve_continuous_are(A.T, C.T, G @ G.T, np.array([[0.01]]))
    L = S @ C.T / 0.01
    assert L.ravel() == pytest.approx([f, f], rel=1e-8)

    def slowest(m):  # the regulator was designed for m = 1; the real actuator is m times as strong
        K = np.array([[f, f]])
        return np.linalg.eigvals(np.block([[A, -m * B @ K], [L @ C, A - B @ K - L @ C]])).real.max()

    assert slowest(1.0) < 0 < slowest(1.01)  # 1/(f·f) = 0.7 % is all there is


def test_separation_principle():
    # Average cost of the Kalman filter with the linear-quadratic gain, by simulation of the noisy environment, against
    # tr(P W) + tr(K' S K Σ): Σ the filter's covariance, S = R + B'PB, W that of the process noise of one step.
    problem = optctl.make("lqg")
    m, gain = linear_quadratic(problem, discretised=True), lqr(problem)
    C, W, V = np.array([[1.0, 0.0]]), problem.dt * 0.01 * np.ones((2, 2)), np.array([[0.01 / problem.dt]])
    ahead = solve_discrete_are(m.A.T, C.T, W, V)
    M = ahead @ C.T / (C @ ahead @ C.T + V)
    filtered = (np.eye(2) - M @ C) @ ahead
    S = m.R + m.B.T @ gain.P @ m.B
    expected = np.trace(gain.P @ W) + np.trace(gain.K.T @ S @ gain.K @ filtered)

    num, steps, settled = 1000, 400, 150
    env = optctl.make_vec(problem, num, dtype="float64", max_episode_steps=steps + 1)
    y, _ = env.reset(seed=0)
    estimate, cost = np.zeros((num, 2)), np.zeros(num)
    for k in range(steps):
        estimate = estimate + (y.numpy() - estimate @ C.T) @ M.T
        u = -estimate @ gain.K.T
        assert np.abs(u).max() < problem.action_high
        y, reward, *_ = env.step(torch.tensor(u / problem.action_high))
        estimate = estimate @ m.A.T + u @ m.B.T
        cost -= reward.numpy() if k >= settled else 0.0
    average = cost / (steps - settled)
    assert average.mean() == pytest.approx(expected, abs=4 * average.std() / np.sqrt(num))
    assert gain.average_cost == pytest.approx(np.trace(gain.P @ W), rel=1e-10)
    assert expected > 3 * gain.average_cost  # not seeing the state is most of the cost


# --- arguments ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("flexible-beam", {"modes": 0}, "`modes` must be a positive integer, but is 0"),
        ("flexible-beam", {"force_at": 1.0}, "`force_at` must lie between 0 and 1"),
        ("flexible-beam", {"sensors_at": (0.5, -0.1)}, "`sensors_at` must lie between 0 and 1"),
        (
            "flexible-beam",
            {"sensors_at": 0.5},
            "`sensors_at` must be a sequence of fractions of the length, but is 0.5",
        ),
        ("dean", {"noise": -1.0}, "`noise` must not be negative, but is -1.0"),
        ("lqg", {"weight": -1.0}, "`weight` must be positive, but is -1.0"),
        ("lqg", {"sensor_noise": 0.0}, "`sensor_noise` must be positive, but is 0.0"),
        ("lqg", {"process_noise": -1.0}, "`process_noise` must be positive, but is -1.0"),
    ],
)
def test_bad_options(name, options, message):
    with pytest.raises(ArgumentError, match=message):
        optctl.make(name, **options)
