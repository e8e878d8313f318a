"""What a solution claims, and how it prints."""

import numpy as np
import pytest

from optctl import envs
from optctl.problem import Fixed, Problem
from optctl.problem.trajectory import Trajectory
from optctl.solvers import Certificate, Guess, Solution, SolutionBatch, Status, Verdict, solve_many
from optctl.solvers.second_order import second_order


def _solution(status=Status.CONVERGED, **residuals):
    trajectory = Trajectory(
        times=np.arange(3),
        states=np.zeros((3, 1)),
        controls=np.zeros((2, 1)),
        costs=np.array([1.0, 2.0]),
        terminal_cost=np.asarray(0.5),
    )
    certificate = Certificate(**{"defect": 0.0, "stationarity": 0.0} | residuals)
    return Solution(
        problem="p", solver="s", trajectory=trajectory, status=status, certificate=certificate, wall_time=0.1
    )


def test_resimulation_gives_up_where_the_dynamics_leave_the_numbers():
    import casadi as ca

    from optctl.solvers.certificates import resimulation

    problem = envs.make("double-integrator").replace(
        integrator="rk4", dynamics=lambda x, u, p: ca.vertcat(x[1], ca.log(x[0]) + u[0])
    )
    nowhere = Trajectory(np.arange(3.0), -np.ones((3, 2)), np.zeros((2, 1)), np.zeros(2), np.zeros(()))
    assert np.isnan(resimulation(problem, nowhere, problem.param_values))


def test_value_is_the_total_cost():
    assert _solution().value == 3.5


@pytest.mark.parametrize(
    ("solution", "verdict"),
    [
        (_solution(), Verdict.EXTREMAL),
        (_solution().replace(proved=True), Verdict.PROVED),
        (_solution(stationarity=1.0), Verdict.BEST_FOUND),
        (_solution(Status.STALLED, stationarity=1.0), Verdict.BEST_FOUND),
        (_solution(defect=1.0), Verdict.NOT_CONVERGED),
        (_solution(constraint_violation=1.0), Verdict.NOT_CONVERGED),
        (_solution(defect=float("nan")), Verdict.NOT_CONVERGED),
        (_solution(Status.MAX_ITERATIONS), Verdict.NOT_CONVERGED),
        (_solution(Status.INFEASIBLE), Verdict.NOT_CONVERGED),
    ],
)
def test_verdict(solution, verdict):
    assert solution.verdict is verdict


def test_every_status_carries_a_remedy_and_prints():
    for status in Status:
        assert status.value.endswith(".")
        assert status.value in str(_solution(status))


# --- second order ------------------------------------------------------------------------------------------------------


def _oscillation(duration, fixed_end, steps=200, **changes):
    """½∫ u² − x² with x' = u from 0: u ≡ 0 is an extremal, a minimum before the first conjugate point (π/2; π for a fixed end)."""
    return Problem(
        **{
            "name": "oscillation", "state": ["x"], "control": ["u"], "dynamics": lambda x, u, p: u, "dt": duration / steps,
            "steps": steps, "stage_cost": lambda x, u, p: 0.5 * (u**2 - x**2), "initial_state": Fixed([0.0]),
            "terminal_constraints": (lambda x, p: x) if fixed_end else None,
        } | changes
    )  # fmt: skip


def _rest(problem):
    n, zeros = problem.steps, np.zeros
    times, states = np.arange(n + 1) * problem.dt, zeros((1, n + 1, 1))
    return Trajectory(times, states, zeros((1, n, 1)), zeros((1, n)), zeros(1), states)


@pytest.mark.parametrize(("fixed_end", "conjugate"), [(False, np.pi / 2), (True, np.pi)])
def test_an_extremal_is_a_minimum_up_to_its_conjugate_point(fixed_end, conjugate):
    for factor, sign in ((0.9, 1), (0.99, 1), (1.01, -1), (1.5, -1)):
        problem = _oscillation(factor * conjugate, fixed_end)
        _, curvature = second_order(problem, _rest(problem), problem.param_values[None])
        assert np.sign(curvature[0]) == sign, factor


def test_legendre_fails_where_the_control_is_rewarded():
    # two controls, one of them rewarded: Q_uu is indefinite at every stage
    problem = _oscillation(
        0.5,
        False,
        control=["u", "w"],
        dynamics=lambda x, u, p: u[0],
        stage_cost=lambda x, u, p: u[0] ** 2 - 3 * u[1] ** 2,
    )
    path = _rest(problem)
    path = Trajectory(path.times, path.states, np.zeros((1, 200, 2)), path.costs, path.terminal_cost, path.costates)
    curvature = second_order(problem, path, problem.param_values[None])[1]
    assert curvature[0] == pytest.approx(-1.0, rel=1e-6)


def test_a_control_held_at_its_bound_does_not_count_and_its_multiplier_is_complementary():
    # −½u² rewards the control, which ends at its bounds: there nothing is free, and H_u · slack = 0
    problem = _oscillation(0.5, False, stage_cost=lambda x, u, p: -0.5 * u**2 + u, control_bounds={"u": (-1.0, 1.0)})
    path = _rest(problem)
    for held, products in ((-1.0, 0.0), (-0.9, 0.19)):  # H_u = 1 − u per unit of time: 1.9 · 0.1
        u = np.full((1, 200, 1), held)
        at = Trajectory(path.times, path.states, u, path.costs, path.terminal_cost, path.costates)
        complementary, curvature = second_order(problem, at, problem.param_values[None])
        assert complementary[0] == pytest.approx(products * problem.dt, abs=1e-12)
        assert curvature[0] == pytest.approx(1.0 if held == -1.0 else -1.0)


def test_a_saddle_is_not_certified_and_says_why():
    problem = _oscillation(2.0, False, 50, stage_cost=lambda x, u, p: 0.5 * (u**2 - x**2) + 0.1 * x**4)
    start = np.zeros((1, 1))
    rest = SolutionBatch(
        problem, "hand", _rest(problem), [Status.CONVERGED], {"defect": np.zeros(1), "stationarity": np.zeros(1)},
        problem.param_values[None], 0.0,
    )[0]  # fmt: skip
    assert rest.verdict is Verdict.BEST_FOUND
    assert rest.minimum is False
    assert "not a minimum" in rest.shortcoming and rest.shortcoming in str(rest)
    found = solve_many(problem, start + 0.3)[0]
    assert found.minimum is True
    assert "certified extremal, a strict local minimum" in str(found)
    assert found.certificate.curvature > 1e-3
    assert found.value < rest.value


def test_what_is_not_admissible_is_not_certified_however_large_the_cost():
    problem = _oscillation(0.5, False, control_bounds={"u": (-1.0, 1.0)})
    t = _rest(problem)
    rows = lambda a: np.repeat(a, 5, axis=0)
    path = Trajectory(
        t.times, rows(t.states), rows(t.controls), rows(t.costs) + 50.0, rows(t.terminal_cost), rows(t.costates)
    )
    statuses = [Status.CONVERGED] * 4 + [Status.STALLED]
    residuals = {
        "stationarity": np.array([0.0, 1e-1, 1e2, 0.0, 0.0]), "defect": np.array([1e-3, 0.0, 0.0, 0.0, 0.0]),
        "hamiltonian_drift": np.full(5, 1e9), "resimulation": np.zeros(5),
    }  # fmt: skip
    batch = SolutionBatch(problem, "hand", path, statuses, residuals, problem.param_values[None], 0.0)
    assert batch.values[0] > 9000
    assert batch.certified.tolist() == [False, True, False, True, False]
    assert [s.verdict is Verdict.EXTREMAL for s in batch] == batch.certified.tolist()


def test_second_order_conditions_do_not_depend_on_the_neighbours():
    problem = envs.make("pendulum", steps=40)
    batch = solve_many(problem, problem.initial_state.sample(np.random.default_rng(0), 5), rounds=0)
    whole = second_order(problem, batch.trajectory, batch.params)
    for i in (0, 4):
        alone = second_order(problem, batch.trajectory[i : i + 1], batch.params)
        assert np.array_equal([a[i] for a in whole], [a[0] for a in alone])
    states = batch.trajectory.states.copy()
    states[2, 5] = np.nan
    t = batch.trajectory
    broken = second_order(
        problem, Trajectory(t.times, states, t.controls, t.costs, t.terminal_cost, t.costates), batch.params
    )
    assert np.isnan(broken[1][2])
    assert np.array_equal(np.delete(broken[1], 2), np.delete(whole[1], 2))


def test_ipopt_certifies_its_multipliers_and_second_order_conditions():
    # ½∫ u² − x² over 2 s from rest: IPOPT stays where everything vanishes, beyond the conjugate point at π/2
    problem = _oscillation(2.0, False, 50, stage_cost=lambda x, u, p: 0.5 * (u**2 - x**2) + 0.1 * x**4)
    guess = Guess(np.zeros((51, 1)), np.zeros((50, 1)))
    rest = solve_many(problem, np.zeros((1, 1)), method="multiple_shooting", guess=guess, processes=1)[0]
    assert rest.verdict is Verdict.BEST_FOUND
    assert rest.minimum is False
    fixed = _oscillation(
        2.0, True, 50, control_bounds={"u": (-0.2, 0.2)}, stage_cost=lambda x, u, p: 0.5 * (u**2 - x**2) + 0 * x
    )
    start = solve_many(fixed, np.full((1, 1), 0.15), method="multiple_shooting", processes=1)[0]
    assert start.minimum is True  # 2 < π
    assert start.certificate.complementarity < 1e-9
    floor = fixed.replace(state_bounds={"x": (-1.0, 0.05)}, stage_cost=lambda x, u, p: 0.5 * u**2 - x**3 / 3 - x)
    pressed = solve_many(floor, np.zeros((1, 1)), method="multiple_shooting", processes=1)[0]
    assert pressed.trajectory.states[:, 0].max() == pytest.approx(0.05, abs=1e-9)  # on its bound
    assert pressed.certificate.complementarity < 1e-9
    assert pressed.minimum is None  # left open under state bounds
