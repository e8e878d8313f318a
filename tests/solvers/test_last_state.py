"""Path constraints that mention no control hold at the last state too, for every method and whoever counts violations."""

import casadi as ca
import numpy as np
import pytest

from optctl.comparison.charge import violations
from optctl.problem import Fixed, Problem
from optctl.problem.trajectory import Trajectory
from optctl.simulation.environment_source import violation_function
from optctl.solvers import Verdict, solve
from optctl.solvers.certificates import violation

WALL = Problem(
    name="wall", state=["x"], control=["u"], dynamics=lambda x, u, p: u, stage_cost=lambda x, u, p: 0.01 * u[0] ** 2, dt=0.1, steps=10,
    terminal_cost=lambda x, p: -x[0], control_bounds={"u": (-1, 1)}, path_constraints=lambda x, u, p: x[0] - 0.5,
    initial_state=Fixed([0.0]),
)  # fmt: skip
MIXED = WALL.replace(
    path_constraints=lambda x, u, p, t: ca.vertcat(u[0] - 0.8, x[0] - 0.5, x[0] + u[0] - 1.2, x[0] - 0.45 - 0.02 * t)
)
ENDLESS = WALL.replace(horizon="infinite", terminal_cost=None, stage_cost=lambda x, u, p: 0.01 * u[0] ** 2 - x[0])


def test_the_components_are_those_that_mention_no_control():
    assert MIXED.last_constraint_function(0.6, [], 1.0).full().ravel() == pytest.approx([0.1, 0.13])
    assert WALL.replace(path_constraints=lambda x, u, p: x[0] + u[0]).last_constraint_function is None
    assert WALL.replace(path_constraints=lambda x, u, p: ca.floor(u[0]) + x[0]).last_constraint_function is None
    assert WALL.replace(path_constraints=None).last_constraint_function is None


@pytest.mark.parametrize(
    ("method", "problem", "value", "end"),
    # with u = ½ all along: .0025 − .5; with u = .47 all along: .01 · .47² − .47
    [
        ("multiple_shooting", WALL, -0.4975, 0.5),
        ("multiple_shooting", MIXED, -0.467791, 0.47),
        ("ddp", MIXED, -0.467791, 0.47),
    ],
)
def test_the_last_state_keeps_the_path_constraints(method, problem, value, end):
    found = solve(problem, [0.0], method=method)
    assert found.verdict is Verdict.PROVED
    assert found.value == pytest.approx(value, abs=1e-8)
    assert found.trajectory.states[-1, 0] == pytest.approx(end, abs=1e-8)


def test_the_end_of_an_infinite_horizon_too():
    assert solve(ENDLESS, [0.0], method="multiple_shooting").trajectory.states[-1, 0] <= 0.5 + 1e-8


def test_violations_count_the_last_state():
    states, controls = np.linspace(0, 0.6, 11)[:, None], np.full((10, 1), 0.6)
    states[9] = 0.5  # only the last one is outside
    times = np.arange(11) * 0.1
    assert violation(WALL, states, controls, WALL.param_values, times) == pytest.approx(0.1)
    batch = Trajectory(times, states[None], controls[None], np.zeros((1, 10)), np.zeros(1))
    assert violations(WALL, batch, WALL.param_values[None])["path constraints"] == pytest.approx([0.1])


def test_the_cost_of_a_step_counts_where_it_ends():
    step = violation_function(MIXED)
    assert float(step(0.3, 0.9, [], 0.0, 0.4)) == pytest.approx(0.1)  # the control, at the start
    assert float(step(0.3, 0.5, [], 0.9, 0.6)) == pytest.approx(0.13)  # the state, at t + dt = 1


def test_collocation_s_costate_at_the_end_holds_the_path_constraint():
    # u = ½ throughout: H_u = 0.02 u + λ = 0, so λ = −0.01 up to the end, where φ_x = −1 and μ makes up the rest
    found = solve(WALL, [0.0], method="collocation")
    assert found.verdict is Verdict.PROVED
    assert found.trajectory.costates.ravel() == pytest.approx(-0.01, abs=1e-7)
