"""Oscillators: known optima, responses, periods, modes, thresholds, conserved and contracted quantities."""

import casadi as ca
import numpy as np
import pytest

import optctl
from optctl.errors import ArgumentError
from optctl.problem.controller import FeedbackController, ZeroController, rollout
from optctl.solvers import Verdict, lqr, lqr_controller, solve


def jacobian(problem, x, u=0.0, t=0.0):
    """∂ẋ/∂x at a point."""
    state, control, p = problem.x, problem.u, problem.p
    f = problem.dynamics_function(state, control, p, t)
    control_values = np.broadcast_to(u, problem.n_u)
    return np.array(
        ca.Function("J", [state, control, p], [ca.jacobian(f, state)])(x, control_values, problem.param_values)
    )


def rate(problem, x, u=0.0, t=0.0):
    control = np.broadcast_to(u, problem.n_u)
    return np.array(problem.dynamics_function(x, control, problem.param_values, t)).ravel()


def free(problem, start, steps):
    """States (T + 1, n_x) without control."""
    return rollout(problem, ZeroController(problem), start, steps=steps).states[0]


def frequencies(matrix):
    return np.sort(np.abs(np.linalg.eigvals(matrix).imag))[::2]


# --- known optima -------------------------------------------------------------------------------------------------------


def test_least_energy_to_stop_duffings_oscillator():
    problem = optctl.make("duffing", goal="minimum-energy", dt=0.04, steps=50)
    solution = solve(problem, [0.5, -0.5], method="collocation", degree=4)
    assert solution.verdict is Verdict.EXTREMAL
    assert solution.value == pytest.approx(0.187444856136, rel=1e-9)
    assert solution.trajectory.costates[0] == pytest.approx([0.26871908, -0.49143208], abs=2e-7)


def test_van_der_pol_with_free_and_bounded_force():
    benchmark = optctl.make("van-der-pol", force=None, steps=50).replace(horizon="finite")
    solution = solve(benchmark, [1.0, 0.0], method="collocation", degree=4)
    assert solution.value == pytest.approx(2.866952422563, rel=1e-9)
    assert solution.trajectory.costates[0] == pytest.approx([4.87418722, 0.82339739], abs=2e-7)
    bounded = optctl.make("van-der-pol", force=(-0.3, 1.0), dt=0.0125, steps=400).replace(horizon="finite")
    found = solve(bounded, [1.0, 0.0], method="collocation", num_starts=2)
    assert found.value == pytest.approx(2.867261045220, rel=1e-6)


def test_least_time_to_stop_a_harmonic_oscillator():
    """From (1, 0); from other starts the same problem is solved in tests/solvers/test_optima.py."""
    problem = optctl.make("harmonic-oscillator", goal="minimum-time", damping=0.0, dt=0.02, steps=100)
    solution = solve(problem, [1.0, 0.0])
    assert solution.verdict is Verdict.EXTREMAL
    assert solution.final_time == pytest.approx(1.823476581937, rel=1e-4)


def test_least_energy_to_stop_a_harmonic_oscillator():
    # After n whole periods the controllability Gramian is (T/2) I (undamped, unit mass and stiffness): J = |x₀|²/T.
    problem = optctl.make(
        "harmonic-oscillator", goal="minimum-energy", damping=0.0, max_force=None, dt=4 * np.pi / 400, steps=400
    )
    solution = solve(problem, [1.0, -2.0])
    assert solution.verdict is Verdict.PROVED
    assert solution.value == pytest.approx(5.0 / (4 * np.pi), rel=1e-4)


@pytest.mark.parametrize("name", ["van-der-pol", "fitzhugh-nagumo", "lorenz", "duffing", "parametric-oscillator"])
def test_ddp_certifies_a_start(name):
    problem = optctl.make(name)
    solution = solve(
        problem.replace(steps=min(problem.steps, 150)), problem.initial_state.midpoints([2] * problem.n_x)[0]
    )
    assert solution.verdict is Verdict.EXTREMAL
    assert solution.basins >= 1


# --- one oscillator -----------------------------------------------------------------------------------------------------


def test_damped_oscillation():
    # ω = √(k/m − (c/2m)²), decrement c/2m
    problem = optctl.make("harmonic-oscillator").replace(params={"mass": 2.0, "stiffness": 3.0, "damping": 0.4})
    assert np.linalg.eigvals(jacobian(problem, [0, 0])) == pytest.approx(
        [-0.1 + 1j * np.sqrt(1.49), -0.1 - 1j * np.sqrt(1.49)]
    )


def test_resonance_curve():
    problem = optctl.make("driven-oscillator").replace(substeps=2)
    w, zeta, drive, omega = problem.param_values
    path = free(problem, [0.0, 0.0], 2000)[1700:]
    expected = drive / np.hypot(w**2 - omega**2, 2 * zeta * w * omega)
    steady = np.hypot(path[:, 0], path[:, 1] / omega)
    assert steady == pytest.approx(np.full(len(steady), expected), rel=1e-3)
    observed = np.array(problem.observation_function([0.3, 0.4], problem.param_values, 2.0)).ravel()
    assert observed == pytest.approx([0.3, 0.4, np.cos(1.8), np.sin(1.8)])


def test_parametric_cooling_in_closed_form():
    # Soft (1 − h) from the turning point to the centre, stiff (1 + h) outwards: amplitude × √((1 − h)/(1 + h)).
    problem = optctl.make("parametric-oscillator")
    step, h = problem.interval_function, 0.3
    x = np.array([1.0, 0.0])
    for u in (-h, h):
        quarter = np.pi / 2 / np.sqrt(1 + u)
        for _ in range(4):
            x = np.array(step(x, u, problem.param_values, 0.0, quarter / 4)[0]).ravel()
    assert x == pytest.approx([-np.sqrt(0.7 / 1.3), 0.0], abs=1e-12)
    assert np.trace(jacobian(problem, [1.0, 2.0], 0.2)) == 0  # any modulation preserves area


def test_parametric_feedback_cools_and_its_negative_heats():
    problem = optctl.make("parametric-oscillator")

    def energy(sign):
        law = FeedbackController(lambda x, t: sign * 0.3 * np.sign(x[:, :1] * x[:, 1:]))
        return (rollout(problem, law, [1.0, 0.0]).states[0] ** 2).sum(axis=1)

    assert energy(1)[-1] < 0.05 * energy(0)[-1] < 0.01 * energy(-1)[-1]
    assert energy(0) == pytest.approx(np.ones(301), abs=1e-12)


def test_duffing_keeps_its_energy_without_damping():
    problem = optctl.make("duffing", stiffness=-1.0, cubic=2.0).replace(substeps=10)
    q, v = free(problem, [1.0, 0.5], 300).T
    energy = v**2 / 2 - q**2 / 2 + q**4 / 2
    assert np.ptp(energy) < 1e-7


def test_double_well():
    problem = optctl.make("duffing-chaos")
    undriven = problem.replace(params=problem.params | {"drive": 0.0})
    for q in (-1.0, 0.0, 1.0):
        assert rate(undriven, [q, 0.0]) == pytest.approx([0.0, 0.0], abs=1e-15)
    assert np.linalg.eigvals(jacobian(undriven, [0.0, 0.0])).max() > 0.5  # the saddle
    assert np.linalg.eigvals(jacobian(undriven, [1.0, 0.0])).real.max() < 0
    assert np.trace(jacobian(problem, [0.7, -0.3], 0.2, 1.1)) == pytest.approx(-0.3)  # volumes shrink by the damping
    # chaos: a start apart by 1e-8 is elsewhere after some forty periods of the drive
    a, b = free(problem, [0.1, 0.0], 4000), free(problem, [0.1 + 1e-8, 0.0], 4000)
    assert np.abs(a - b)[-1000:].max() > 0.5
    assert np.abs(a).max() < 3


def test_van_der_pol_cycle():
    problem = optctl.make("van-der-pol", mu=0.2, dt=0.02)
    q, _ = free(problem, [2.0, 0.0], 6000)[2000:].T
    assert np.abs(q).max() == pytest.approx(2.0, rel=2e-3)
    crossings = np.flatnonzero((q[:-1] < 0) & (q[1:] >= 0))
    times = 0.02 * (crossings - q[crossings] / (q[crossings + 1] - q[crossings]))
    assert np.diff(times) == pytest.approx(np.full(len(times) - 1, 2 * np.pi * (1 + 0.04 / 16)), rel=1e-4)
    # large μ: period 3.0 − 2 ln 2 per μ, plus 7.014 μ^(−1/3) (Dorodnicyn 1947)
    stiff = optctl.make("van-der-pol", mu=20.0, dt=0.01)
    q, _ = free(stiff, [2.0, 0.0], 12000)[4000:].T
    period = 0.01 * np.diff(np.flatnonzero((q[:-1] < 0) & (q[1:] >= 0))).mean()
    assert period == pytest.approx(20 * (3 - 2 * np.log(2)) + 7.014 * 20 ** (-1 / 3), rel=0.03)


def test_fitzhugh_nagumo_rest_and_its_hopf_points():
    for current in (0.0, 0.5, 1.0):
        problem = optctl.make("fitzhugh-nagumo", current=current)
        v = np.roots([1 / 3, 0, 1 / 0.8 - 1, 0.7 / 0.8 - current])
        v = v[np.abs(v.imag) < 1e-12].real.item()
        rest = [v, (v + 0.7) / 0.8]
        assert rate(problem, rest) == pytest.approx([0, 0], abs=1e-12)
        assert float(problem.stage_cost_function(rest, 0, problem.param_values, 0)) == pytest.approx(0, abs=1e-20)
        # the trace 1 − V² − b/τ changes sign at V = ±√(1 − 0.8/12.5)
        spiking = abs(v) < np.sqrt(1 - 0.8 / 12.5)
        assert (np.linalg.eigvals(jacobian(problem, rest)).real.max() > 0) == spiking == (current > 0)


def test_fitzhugh_nagumo_spikes_and_can_be_silenced():
    problem = optctl.make("fitzhugh-nagumo")
    spikes = free(problem, [-1.0, -0.5], 500)[:, 0]
    assert (np.diff(np.sign(spikes)) > 0).sum() >= 2
    silent = rollout(problem, lqr_controller(problem), [-1.0, -0.5]).states[0, -1]
    assert rate(problem, silent) == pytest.approx([0, 0], abs=1e-5)


# --- several ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 3, 6])
def test_chain_modes_and_energy(n):
    problem = optctl.make("oscillator-chain", n=n)
    k = np.arange(1, n + 1)
    assert frequencies(jacobian(problem, np.zeros(2 * n))) == pytest.approx(2 * np.sin(k * np.pi / (2 * n + 2)))
    problem = problem.replace(substeps=4)
    path = free(problem, problem.initial_state.sample(np.random.default_rng(n), 1), 200)
    q, v = np.pad(path[:, :n], ((0, 0), (1, 1))), path[:, n:]
    r = np.diff(q, axis=1)
    energy = (v**2).sum(axis=1) / 2 + (r**2 / 2 + r**4 / 4).sum(axis=1)
    assert np.ptp(energy) / energy[0] < 1e-6


@pytest.mark.parametrize("n", [3, 4, 7])
def test_ring_modes(n):
    problem = optctl.make("oscillator-ring", n=n)
    j = np.arange(n)
    expected = np.sort(np.sqrt(1 + 4 * 0.5 * np.sin(np.pi * j / n) ** 2))
    assert frequencies(jacobian(problem, np.zeros(2 * n))) == pytest.approx(expected, abs=1e-12)


def test_ring_controls_push_their_own_oscillator_and_one_is_not_enough():
    problem = optctl.make("oscillator-ring")
    for i in range(4):
        assert rate(problem, np.zeros(8), np.eye(4)[i]) == pytest.approx(np.eye(8)[4 + i])
    gain = lqr(problem).K  # a ring is the same everywhere: so is its gain, shifted by one
    assert np.roll(gain[0, :4], 1) == pytest.approx(gain[1, :4], abs=1e-10)
    with pytest.raises(ArgumentError, match="stabilisable"):
        lqr(optctl.make("oscillator-ring", actuated=(0,)))


def order_parameter(theta):
    return np.abs(np.exp(1j * theta).mean(axis=-1))


@pytest.mark.parametrize(("coupling", "expected"), [(2.0, np.sqrt(0.5)), (4.0, np.sqrt(0.75))])
def test_kuramoto_order_above_the_threshold(coupling, expected):
    # K_c = 2 Δ = 1, r = √(1 − K_c/K) for Lorentzian frequencies and n → ∞
    problem = optctl.make("kuramoto", n=400, coupling=coupling).replace(dt=0.05, integrator="rk4")
    start = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 400))
    r = order_parameter(free(problem, start, 400))
    assert r[200:].mean() == pytest.approx(expected, abs=0.02)


def test_kuramoto_below_the_threshold_loses_its_order():
    problem = optctl.make("kuramoto", n=400, coupling=0.5).replace(dt=0.05)
    r = order_parameter(free(problem, np.zeros((1, 400)), 400))
    assert r[0] == 1 and r[200:].mean() < 0.1


def test_two_kuramoto_oscillators_lock_where_adler_says():
    # δ' = 2Δω − K sin δ locks at sin δ = 2Δω/K, for K above 2Δω only; ω = ±Δ tan(π/4) = ±Δ
    locked = optctl.make("kuramoto", n=2, coupling=1.25, spread=0.5)
    theta = free(locked, [0.0, 0.0], 600)[-1]
    assert np.sin(theta[1] - theta[0]) == pytest.approx(0.8, abs=1e-8)
    drifting = free(optctl.make("kuramoto", n=2, coupling=0.9, spread=0.5), [0.0, 0.0], 2000)
    slip = (drifting[-1] - drifting[0]) @ [-1, 1] / 200  # mean √((2Δω)² − K²)
    assert slip == pytest.approx(np.sqrt(1 - 0.81), rel=0.03)


def test_kuramoto_mean_phase_and_network():
    # The pulls cancel in pairs; on a full network of weights one, mean field and matrix are the same.
    rng = np.random.default_rng(0)
    full = optctl.make("kuramoto", network=np.ones((6, 6)))
    problem, x, u = optctl.make("kuramoto"), rng.uniform(-3, 3, 6), rng.standard_normal(6)
    assert rate(problem, x, u).sum() == pytest.approx(u.sum())
    assert rate(full, x, u) == pytest.approx(rate(problem, x, u))
    two = np.array([[0, 2.0], [2.0, 0]])
    pair = optctl.make("kuramoto", n=2, coupling=1.0, spread=0.0, network=two)
    assert rate(pair, [0.3, 1.0]) == pytest.approx([np.sin(0.7), -np.sin(0.7)])
    aligned = float(problem.stage_cost_function(np.full(6, 0.4), np.zeros(6), problem.param_values, 0))
    assert aligned == pytest.approx(0, abs=1e-12)


# --- chaos --------------------------------------------------------------------------------------------------------------


def test_lorenz_fixed_points_and_contraction():
    problem = optctl.make("lorenz")
    c = np.sqrt(8 / 3 * 27)
    for point in ([0, 0, 0], [c, c, 27], [-c, -c, 27]):
        assert rate(problem, point) == pytest.approx([0, 0, 0], abs=1e-12)
    assert float(problem.stage_cost_function([c, c, 27], 0, problem.param_values, 0)) == pytest.approx(0, abs=1e-20)
    assert np.trace(jacobian(problem, [3.0, -7.0, 20.0], 4.0)) == pytest.approx(-(10 + 1 + 8 / 3))

    def growth(rho):
        roll = np.sqrt(8 / 3 * (rho - 1))
        changed = problem.replace(params=problem.params | {"rho": rho})
        return np.linalg.eigvals(jacobian(changed, [roll, roll, rho - 1])).real.max()

    critical = 10 * (10 + 8 / 3 + 3) / (10 - 8 / 3 - 1)  # 24.74: subcritical Hopf bifurcation
    assert growth(critical - 0.1) < 0 < growth(critical + 0.1)
    assert growth(critical) == pytest.approx(0, abs=1e-9)


def test_lorenz_is_chaotic_until_it_is_held():
    problem = optctl.make("lorenz", dt=0.01)
    start = np.array([1.0, 1.0, 25.0])
    a, b = free(problem, start, 3000), free(problem, start + 1e-9 * np.eye(3)[0], 3000)
    apart = np.linalg.norm(a - b, axis=1)
    # largest Lyapunov exponent 0.906 (Sparrow 1982): 1e-9 grows to order one in some 20 to 25 time units
    exponent = np.polyfit(0.01 * np.arange(500, 1800), np.log(apart[500:1800]), 1)[0]
    assert exponent == pytest.approx(0.906, abs=0.3)
    held = rollout(problem, lqr_controller(problem), start, steps=3000).states[0, -1]
    assert held == pytest.approx([np.sqrt(72), np.sqrt(72), 27], abs=1e-6)


# --- arguments ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("duffing", {"goal": "win"}, "`goal` must be one of regulate, minimum-energy, minimum-time, but is 'win'"),
        (
            "duffing",
            {"goal": "minimum-time"},
            "`goal` must be another one where the force is not bounded, but is 'minimum-time'",
        ),
        ("van-der-pol", {"goal": "minimum-time", "force": None}, "must be another one where the force is not bounded"),
        ("parametric-oscillator", {"depth": 1.0}, "`depth` must lie between 0 and 1, but is 1.0"),
        ("oscillator-chain", {"n": 0}, "`n` must be an integer of at least 1, but is 0"),
        ("oscillator-chain", {"actuated": (4,)}, "`actuated` must hold different numbers from 0 to 3"),
        ("oscillator-chain", {"actuated": ()}, "`actuated` must hold different numbers from 0 to 3"),
        ("oscillator-ring", {"n": 2}, "`n` must be an integer of at least 3, but is 2"),
        ("kuramoto", {"n": 1}, "`n` must be an integer of at least 2, but is 1"),
        ("kuramoto", {"network": np.ones((2, 3))}, r"`network` must have shape \(6, 6\), but has shape \(2, 3\)"),
        ("kuramoto", {"n": 2, "network": [[0, 1], [0, 0]]}, "`network` must be symmetric"),
    ],
)
def test_bad_options(name, options, message):
    with pytest.raises(ArgumentError, match=message):
        optctl.make(name, **options)
