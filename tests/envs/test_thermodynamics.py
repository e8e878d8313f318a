"""Brownian traps: optima of Schmiedl and Seifert, Jarzynski's equality, Sekimoto's balance, and what a demon gains."""

import numpy as np
import pytest

import optctl
from optctl.bench.thermodynamics import (
    linear_protocol,
    moved_work,
    optimal_protocol,
    simulated_work,
    stiffened_work,
    thermodynamics,
)
from optctl.envs.thermodynamics import energetics, moved_potential, stiffened_potential
from optctl.errors import ArgumentError
from optctl.problem.controller import FeedbackController, PlanController, rollout
from optctl.solvers import solve

PATHS = 50_000


def mean_and_error(values):
    return values.mean(), values.std() / np.sqrt(len(values))


def replayed(problem, protocol, starts, seed):
    """Paths under a protocol, from given starts."""
    law = FeedbackController(lambda x, t: np.broadcast_to(protocol[round(t / problem.dt)], (len(x), 1)))
    return rollout(problem, law, starts, seed=seed)


# --- optima -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("distance", "duration", "steps"), [(2.0, 1.0, 50), (1.0, 5.0, 50), (5.0, 0.2, 20)])
def test_moved_trap_has_the_optimum_of_held_protocols(distance, duration, steps):
    # With d_k = λ_k − ⟨x_k⟩ and a = e^{−dt}: W = ½(1 − a²) Σ d_k² + ½ d_N², least for equal d_k and d_N = (1 + a) d_k, hence
    # W = λ²/(2 + 2N tanh(dt/2)), first and last jump both d = λ/(1 + a + N(1 − a)). For N → ∞: λ²/(2 + t_f), jumps λ/(2 + t_f).
    problem = optctl.make("moved-trap", distance=distance, duration=duration, steps=steps)
    solution = solve(problem, [0.0, 0.0])
    assert solution.status.ok
    dt = duration / steps
    assert solution.value == pytest.approx(distance**2 / (2 + 2 * steps * np.tanh(dt / 2)), rel=1e-10)
    assert solution.value == pytest.approx(distance**2 / (2 + duration), rel=dt**2)
    protocol = solution.trajectory.controls[:, 0]
    jump = distance / (1 + np.exp(-dt) + steps * (1 - np.exp(-dt)))
    assert [protocol[0], distance - protocol[-1]] == pytest.approx([jump, jump], rel=1e-6)
    assert np.diff(protocol) == pytest.approx(np.full(steps - 1, np.diff(protocol).mean()), rel=1e-4)


def test_stiffened_trap_converges_to_the_optimum_of_schmiedl_and_seifert():
    # In the limit by their closed form; held protocols cost more, by O(dt²).
    limit = stiffened_work(1.0, 4.0, 1.0)["optimal"]
    assert limit == pytest.approx(0.890571785, abs=1e-9)
    excess = []
    for steps in (20, 40):
        problem = optctl.make("stiffened-trap-variance", steps=steps)
        solution = solve(problem, problem.initial_state.location)
        assert solution.status.ok
        excess.append(solution.value - limit)
    assert excess[1] > 0
    assert np.log2(excess[0] / excess[1]) == pytest.approx(2, abs=0.05)
    root = np.sqrt(solution.trajectory.states[:, 0])  # √⟨x²⟩ is linear in time
    assert root == pytest.approx(np.linspace(root[0], root[-1], 41), abs=2e-4)


def test_slow_protocols_cost_the_free_energy():
    problem = optctl.make("stiffened-trap-variance", duration=200.0, steps=50)
    assert solve(problem, problem.initial_state.location).value == pytest.approx(np.log(4) / 2, rel=0.03)
    softened = optctl.make("stiffened-trap-variance", initial=4.0, final=1.0, duration=200.0, steps=50)
    assert solve(softened, softened.initial_state.location).value == pytest.approx(-np.log(4) / 2, rel=0.03)


# --- paths --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["optimal", "linear"])
@pytest.mark.parametrize("name", ["moved-trap", "stiffened-trap"])
def test_mean_work_and_jarzynski(name, protocol):
    # The same with a million paths: `optctl bench thermodynamics`.
    problem = optctl.make(name)
    if name == "moved-trap":
        theory, free_energy, ramp, solved = moved_work(2.0, 1.0), 0.0, linear_protocol(0, 2, 50), problem
    else:
        theory, free_energy, ramp = stiffened_work(1.0, 4.0, 1.0), np.log(4) / 2, linear_protocol(1, 4, 50)
        solved = optctl.make("stiffened-trap-variance")
    work = simulated_work(problem, optimal_protocol(solved) if protocol == "optimal" else ramp, PATHS, seed=1)
    mean, error = mean_and_error(work)
    assert mean == pytest.approx(theory[protocol], abs=3 * error)
    assert mean - 3 * error > free_energy  # the second law, resolved
    weight, weight_error = mean_and_error(np.exp(-work))
    assert weight == pytest.approx(np.exp(-free_energy), abs=4 * weight_error)
    if name == "moved-trap":  # Gaussian work: Jarzynski's equality makes its variance twice the dissipated work
        assert work.var() == pytest.approx(2 * theory[protocol], rel=4 * np.sqrt(2 / PATHS))


def test_jarzynski_holds_for_three_crude_steps_and_another_temperature():
    problem = optctl.make("moved-trap", distance=1.5, steps=3, temperature=2.0)
    work = simulated_work(problem, np.array([2.0, -0.5, 1.0]), PATHS, dtype="float64", seed=3)
    weight, error = mean_and_error(np.exp(-work / 2.0))
    assert weight == pytest.approx(1.0, abs=4 * error)


def test_a_particle_in_a_resting_trap_stays_in_equilibrium():
    problem = optctl.make("stiffened-trap", initial=3.0, steps=7)
    starts = problem.initial_state.sample(np.random.default_rng(0), 20_000)
    path = replayed(problem, np.full(7, 3.0), starts, seed=1)
    assert path.states[:, [0, -1], 0].var(axis=0) == pytest.approx(np.full(2, 1 / 3), rel=4 * np.sqrt(2 / 20_000))
    correlation = (path.states[:, 0, 0] * path.states[:, -1, 0]).mean()
    assert correlation == pytest.approx(np.exp(-3.0) / 3, abs=4 / 3 / np.sqrt(20_000))
    assert np.abs(path.costs).max() == 0  # a trap at rest does no work


@pytest.mark.parametrize(
    ("name", "potential", "protocol"),
    [
        ("moved-trap", moved_potential, linear_protocol(0, 2, 50)),
        ("stiffened-trap", stiffened_potential, linear_protocol(1, 4, 50)),
    ],
)
def test_first_law_along_every_path(name, potential, protocol):
    problem = optctl.make(name)
    starts = problem.initial_state.sample(np.random.default_rng(0), 500)
    path = replayed(problem, protocol, starts, seed=2)
    balance = energetics(path, potential)
    np.testing.assert_allclose(balance.energy - balance.energy[:, :1], balance.work + balance.heat, atol=1e-12)
    np.testing.assert_allclose(balance.work[:, -1], path.costs.sum(axis=1), atol=1e-12)
    # the last jump to the prescribed value is the terminal cost
    x, held = path.states[:, -1, 0], path.states[:, -1, 1]
    target = problem.params["distance" if name == "moved-trap" else "final"]
    np.testing.assert_allclose(path.terminal_cost, potential(x, target) - potential(x, held), atol=1e-12)


def test_heat_of_relaxation():
    # A trap that jumps by 2 and waits: the mean energy ½·4 + ½ relaxes to ½, so heat −2 (1 − e^{−2t}) is absorbed, no work done.
    problem = optctl.make("moved-trap")
    starts = problem.initial_state.sample(np.random.default_rng(4), 5_000)
    balance = energetics(replayed(problem, np.full(50, 2.0), starts, seed=5), moved_potential)
    mean, error = mean_and_error(balance.heat[:, -1])
    assert mean == pytest.approx(-2 * (1 - np.exp(-2.0)), abs=4 * error)
    assert np.abs(np.diff(balance.work[:, 1:])).max() == 0


def test_a_demon_extracts_work_and_open_loop_cannot():
    # Who measures x(0) once and then follows the best plan from there pays (λ_f − x₀)²/(t_f + 2) − x₀²/2, on average
    # (λ_f² + 1)/(t_f + 2) − ½: at t_f = 5 and λ_f = 0.1 that is −0.356, where no open-loop protocol goes below +0.0014.
    problem = optctl.make("moved-trap", distance=0.1, duration=5.0, feedback=True)
    assert problem.y_names == ("position", "centre", "elapsed")
    assert optctl.make("moved-trap").y_names == ("centre", "elapsed")
    wide = problem.replace(control_bounds={"next_centre": (-10.0, 10.0)})
    starts = wide.initial_state.sample(np.random.default_rng(0), 100)
    plans = solve(wide, starts)
    x0 = starts[:, 0]
    assert plans.values == pytest.approx((0.1 - x0) ** 2 / 7 - x0**2 / 2, abs=0.01)
    noisy = rollout(wide, PlanController(plans.trajectory, wide.dt), starts, seed=0).total_cost
    mean, error = mean_and_error(noisy)
    assert mean + 4 * error < 0
    assert mean == pytest.approx(plans.values.mean(), abs=4 * error)


# --- arguments and the bench --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("moved-trap", {"duration": 0.0}, "`duration` must be positive, but is 0.0"),
        ("moved-trap", {"temperature": -1.0}, "`temperature` must be positive, but is -1.0"),
        ("stiffened-trap", {"final": 0.0}, "`final` must be positive, but is 0.0"),
        ("stiffened-trap-variance", {"initial": -2.0}, "`initial` must be positive, but is -2.0"),
    ],
)
def test_bad_options(name, options, message):
    with pytest.raises(ArgumentError, match=message):
        optctl.make(name, **options)


def test_bench_prints_four_rows(tmp_path, capsys):
    assert thermodynamics(paths=2000, steps=10, out=tmp_path) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("| moved", "| stiffened"))]
    assert len(rows) == 4
    assert (tmp_path / "thermodynamics.json").exists()
    with pytest.raises(ArgumentError, match="`paths` must be at least 1, but is 0"):
        thermodynamics(paths=0)
