"""What is checked independently of the solver, and that every way to ask gets the same verdict."""

import casadi as ca
import numpy as np
import pytest

import optctl
from optctl.problem import Fixed, Problem, Uniform
from optctl.problem.trajectory import Trajectory
from optctl.solvers import Verdict, solve, solve_many
from optctl.solvers.certificates import accumulated, checked, cost_scale, mismatches, state_ranges
from optctl.solvers.solution import judge


def _decay(rate, *, integrator="rk4", dt=0.2, steps=10, **changes):
    """ẋ = −rate x + u."""
    return Problem(
        **{
            "name": "decay", "state": ["x"], "control": ["u"], "dynamics": lambda x, u, p: -rate * x + u, "dt": dt, "steps": steps,
            "stage_cost": lambda x, u, p: x**2 + u**2, "initial_state": Uniform([-1], [1]), "integrator": integrator,
        } | changes
    )  # fmt: skip


def _path(states, dt, controls=None):
    states = np.asarray(states, dtype=float)
    steps = states.shape[1] - 1
    controls = np.zeros((len(states), steps, 1)) if controls is None else controls
    zero = np.zeros((len(states), steps))
    return Trajectory(np.arange(steps + 1) * dt, states, controls, zero, zero[:, 0], np.zeros_like(states))


# --- the checks --------------------------------------------------------------------------------------------------------


def test_mismatches_are_those_of_the_exact_flow():
    problem = _decay(1.0, dt=0.1, steps=2)
    gaps, costs = mismatches(problem, _path([[[1.0], [0.9], [0.8]]], 0.1), problem.param_values[None])
    assert gaps[0, :, 0] == pytest.approx([np.exp(-0.1) - 0.9, 0.9 * np.exp(-0.1) - 0.8], abs=1e-9)
    assert costs[0] == pytest.approx([(1 - np.exp(-0.2)) / 2, 0.81 * (1 - np.exp(-0.2)) / 2], abs=1e-9)  # ∫ x²


def test_a_plant_too_stiff_for_explicit_schemes_is_integrated_by_its_exponential():
    problem = _decay(1e6, integrator="exponential", steps=1)
    gaps, _ = mismatches(problem, _path([[[1.0], [2.0]]], 0.2, np.full((1, 1, 1), 1e6)), problem.param_values[None])
    assert gaps[0, 0, 0] == pytest.approx(1.0 - 2.0, abs=1e-9)  # x(0.2) = u/rate = 1


def test_a_member_without_numbers_does_not_spoil_its_neighbours():
    problem = _decay(1.0, dt=0.1, steps=1)
    states = np.array([[[1.0], [1.0]], [[np.nan], [1.0]], [[1.0], [1.0]]])
    gaps, _ = mismatches(problem, _path(states, 0.1), problem.param_values[None])
    assert np.isnan(gaps[1]).all() and gaps[[0, 2], 0, 0] == pytest.approx(np.exp(-0.1) - 1.0)


def test_errors_add_up_beside_the_range_of_their_own_state():
    # a state that moves by 0.1 about 300, and one that moves by 1e-3 about 0: errors of 1e-4 an interval in each
    states = np.stack([300 + np.linspace(0, 0.1, 11), np.linspace(0, 1e-3, 11)], axis=1)[None]
    assert state_ranges(states)[0] == pytest.approx([0.1, 1e-3])
    assert accumulated(np.full((1, 10, 2), 1e-4), states)[0] == pytest.approx(1.0)
    assert accumulated(np.full((1, 10, 2), [1e-4, 0.0]), states)[0] == pytest.approx(1e-2)


def test_errors_of_the_states_count_in_the_cost_by_their_costates():
    # nothing is paid along the way (u = 0): only λ₁ d₁ = 3 (e^−0.1 − 0.9) remains, beside costs of 1
    problem = _decay(1.0, dt=0.1, steps=1, stage_cost=lambda x, u, p: u**2)
    t = _path([[[1.0], [0.9]]], 0.1)
    path = Trajectory(t.times, t.states, t.controls, t.costs, t.terminal_cost, np.array([[[0.0], [3.0]]]))
    found = checked(problem, path, problem.param_values[None])
    assert found["cost_defect"][0] == pytest.approx(3 * (np.exp(-0.1) - 0.9), abs=1e-8)


def test_a_runaway_cost_is_no_scale_where_controls_are_unbounded():
    path = _path(np.zeros((1, 11, 1)), 0.2)
    runaway = Trajectory(path.times, path.states, path.controls, path.costs - 1e200, path.terminal_cost, path.costates)
    free, bounded = _decay(1.0), _decay(1.0, control_bounds={"u": (-1.0, 1.0)})
    p = free.param_values[None]
    assert cost_scale(free, runaway, p)[0] == 2.0
    assert cost_scale(bounded, runaway, p)[0] == pytest.approx(1e201)


@pytest.mark.parametrize("name", ["accumulated", "cost_defect", "stationarity", "constraint_violation"])
def test_what_is_not_a_number_is_not_certified(name):
    from optctl.solvers import Status

    residuals = {"stationarity": np.zeros(1), "accumulated": np.zeros(1)} | {name: np.array([np.nan])}
    assert judge([Status.CONVERGED], residuals, np.ones(1), True)[0] not in (Verdict.PROVED, Verdict.EXTREMAL)


# --- the same verdict however it is asked ------------------------------------------------------------------------------


def _stirred_tank(**changes):
    """Luus, Iterative Dynamic Programming (2000): J = 0.1331 from (0.09, 0.09); a coarse rk4 step invents 0.03."""

    def dynamics(x, u, p):
        rate = (x[1] + 0.5) * ca.exp(25 * x[0] / (x[0] + 2))
        return [-(2 + u[0]) * (x[0] + 0.25) + rate, 0.5 - x[1] - rate, *([0] if "state" in changes else [])]

    return Problem(
        **{
            "name": "stirred-tank", "state": ["T", "c"], "control": ["u"], "dynamics": dynamics, "dt": 0.01, "steps": 78,
            "stage_cost": lambda x, u, p: x[0] ** 2 + x[1] ** 2 + 0.1 * u[0] ** 2,
            "initial_state": Uniform([0.05, 0.05], [0.12, 0.12]),
        } | changes
    )  # fmt: skip


def test_a_batch_is_as_true_to_the_plant_as_a_single_solution():
    starts = np.array([[0.09, 0.09], [0.1, 0.1]])
    batch = solve(_stirred_tank(), starts)
    assert batch.values[0] == pytest.approx(0.13317, abs=1e-5)
    assert batch.certified.all()
    assert batch.certificates()["accumulated"].tolist() == [s.certificate.accumulated for s in batch]
    pressure = {"state": ["T", "c", "p"], "initial_state": Uniform([0.05, 0.05, 100], [0.12, 0.12, 100])}
    large = solve(_stirred_tank(**pressure), np.append(starts[0], 100.0))  # one large, harmless state
    assert large.value == pytest.approx(0.13317, abs=1e-5) and large.verdict is Verdict.EXTREMAL


def test_what_lives_on_the_error_of_its_step_is_best_found_however_it_is_asked():
    problem = _decay(50.0)  # rk4 is unstable beyond rate · dt = 2.8
    single, batch = solve(problem, [1.0]), solve(problem, [[1.0], [0.5]])
    assert [single.verdict, *batch.verdicts] == [Verdict.BEST_FOUND] * 3
    assert not batch.certified.any() and [s.verdict for s in batch] == batch.verdicts
    assert "integrator's errors" in single.shortcoming
    comparison = optctl.compare(problem, ["zero"], starts=[[1.0], [0.5]])
    assert comparison.reference.kind == "reference"  # no bound


def test_a_kink_of_infinite_slope_is_not_certified_and_says_that_it_could_not_be_checked():
    valve = _decay(0.0, dynamics=lambda x, u, p: u - ca.sign(x) * ca.sqrt(ca.fabs(x)), dt=0.1, steps=20)
    for found in (solve(valve, [1.0]), solve(valve, [[1.0], [0.5]])[0]):
        assert found.verdict is Verdict.BEST_FOUND
        assert "could not be integrated again" in found.shortcoming and "nan elsewhere" not in str(found)


@pytest.mark.parametrize("ratio", [(0.3, 0.7), (2.0, 1.0), (1.0, 0.5)])
def test_redundant_actuators_are_certified(ratio):
    # only a u₁ + b u₂ = w acts and is paid for: Q_uu is singular. J by multiple shooting in w alone
    a, b = ratio
    problem = Problem(
        name="redundant", state=["x"], control=["u", "v"], dynamics=lambda x, u, p: a * u[0] + b * u[1] - ca.sin(x[0]), dt=0.1, steps=30,
        stage_cost=lambda x, u, p: x[0] ** 2 + (a * u[0] + b * u[1]) ** 2, initial_state=Uniform([-1], [1]),
    )  # fmt: skip
    found = solve(problem, [1.0])
    assert found.value == pytest.approx(0.43946608, abs=1e-7) and found.verdict is Verdict.EXTREMAL
    assert solve(problem, [[1.0], [0.5]]).certified.all()


@pytest.mark.parametrize("size", [1e-8, 1e-4, 1.0, 1e9])
def test_states_of_any_size_are_solved_as_if_they_were_of_order_one(size):
    duffing = Problem(
        name="small", state=["x", "v"], control=["u"], dt=0.04, steps=50, initial_state=Fixed([0.5 * size, -0.5 * size]),
        dynamics=lambda x, u, p: [x[1], -x[0] - 0.15 * x[0] ** 3 / size**2 + u[0]],
        stage_cost=lambda x, u, p: 0.5 * (u[0] / size) ** 2, control_bounds={"u": (-2 * size, 2 * size)},
        terminal_constraints=lambda x, p: x,
    )  # fmt: skip
    found = solve(duffing, [0.5 * size, -0.5 * size])
    assert found.value == pytest.approx(0.18746110, abs=1e-7)
    assert found.verdict is Verdict.EXTREMAL
    assert np.abs(found.trajectory.states[-1]).max() < 1e-7 * size


def test_costates_and_gains_come_back_in_the_units_of_the_states():
    plain = _decay(1.0, terminal_cost=lambda x, p: x[0] ** 2, dynamics=lambda x, u, p: -ca.sin(x) + u)
    size = 1e-7  # y = size · x
    small = plain.replace(
        dynamics=lambda y, u, p: size * (-ca.sin(y / size) + u), stage_cost=lambda y, u, p: (y / size) ** 2 + u**2,
        terminal_cost=lambda y, p: (y[0] / size) ** 2, initial_state=Uniform([-size], [size]),
    )  # fmt: skip
    one, other = solve_many(plain, [[0.7]]), solve_many(small, [[0.7 * size]])
    assert other.values == pytest.approx(one.values, rel=1e-9)
    assert other.trajectory.costates * size == pytest.approx(one.trajectory.costates, rel=1e-6)
    assert other.gains * size == pytest.approx(one.gains, rel=1e-6)
    assert other.verdicts == one.verdicts == [Verdict.EXTREMAL]


def test_a_saddle_is_left():
    # ½∫ u² − x² + 0.2 x⁴ over 2 s: at rest everything vanishes, beyond the conjugate point at π/2
    problem = _decay(
        0.0, dynamics=lambda x, u, p: u, stage_cost=lambda x, u, p: 0.5 * (u**2 - x**2) + 0.1 * x**4, dt=0.04, steps=50
    )
    rest = _path(np.zeros((1, 51, 1)), 0.04)[0]
    found = solve(problem, [0.0], guess=rest)
    assert found.verdict is Verdict.EXTREMAL and found.minimum is True
    assert found.value < -0.1


def test_a_start_from_which_nothing_is_finite_keeps_its_own_name():
    # ẋ = x³ + u leaves the numbers from 10³ within the horizon, whatever |u| ≤ 1 does; from 0.1 it is held
    problem = _decay(0.0, dynamics=lambda x, u, p: x**3 + u, control_bounds={"u": (-1.0, 1.0)}, dt=0.1, steps=10)
    batch = solve_many(problem, [[0.1], [1e3], [0.2]], num_starts=1)
    assert batch.trajectory.states[:, 0, 0].tolist() == [0.1, 1e3, 0.2]
    assert [v is Verdict.NOT_CONVERGED for v in batch.verdicts] == [False, True, False]
    assert not np.isfinite(batch.values[1])
