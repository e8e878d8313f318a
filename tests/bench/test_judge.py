"""The second opinion of `optctl bench fuzz`: it agrees with what is right and catches what is made false on purpose."""

import numpy as np
import pytest

from optctl.bench.judge import Judge
from optctl.bench.random_problems import KINDS, draw
from optctl.problem import Fixed, Problem


def plant(name="plant", **fields):
    defaults = dict(
        state=["x"], control=["u"], dynamics=lambda x, u, p: u, stage_cost=lambda x, u, p: x[0] ** 2 + u[0] ** 2, dt=0.1,
        steps=10, initial_state=Fixed([1.0]), integrator="exponential",
    )  # fmt: skip
    return Problem(name=name, **(defaults | fields))


def regulated(problem):
    """The optimum of ∫ x² + u², x' = u, held controls: a backward recursion on x⁺ = x + hu, cost h (x² + hxu + h²u²/3 + u²)."""
    h, p, gains = problem.dt, 0.0, []
    for _ in range(problem.steps):
        a, b, c = h + p, h**2 / 2 + h * p, h**3 / 3 + h + h**2 * p  # cost-to-go = a x² + 2 b x u + c u²
        gains.append(b / c)
        p = a - b**2 / c
    x, u = [1.0], []
    for gain in reversed(gains):
        u.append(-gain * x[-1])
        x.append(x[-1] + h * u[-1])
    times = np.arange(problem.steps + 1) * h
    return np.array(x)[:, None], np.array(u)[:, None], times, p


def checks(found):
    return {finding.check for finding in found}


def test_what_is_right_is_left_alone():
    problem = plant()
    x, u, t, value = regulated(problem)
    assert Judge(problem).examine(x, u, t, value, proved=True) == []


@pytest.mark.parametrize(
    ("change", "caught"),
    [
        (lambda x, u, t, j: (x, u, t, 1.01 * j), "cost"),
        (lambda x, u, t, j: (x + 1e-3 * np.sin(t)[:, None], u, t, j), "dynamics"),
        (lambda x, u, t, j: (x, u * np.nan, t, j), "numbers"),
        (lambda x, u, t, j: (x, 3.0 + u, t, j), "feasibility"),
    ],
)
def test_false_numbers_are_caught(change, caught):
    problem = plant(control_bounds={"u": (-2.0, 2.0)})
    assert caught in checks(Judge(problem).examine(*change(*regulated(problem)), proved=False))


@pytest.mark.parametrize("unit", [1.0, 1e-9, 1e9])
def test_controls_that_are_not_stationary_are_caught_in_any_unit(unit):
    problem = plant(
        dynamics=lambda x, u, p: u / unit, stage_cost=lambda x, u, p: unit * (x[0] ** 2 + (u[0] / unit) ** 2)
    )
    x, u, t, value = regulated(problem)
    judge = Judge(problem)
    assert judge.examine(x, unit * u, t, unit * value, proved=True) == []
    wrong = 1.05 * unit * u
    states, cost = judge.rolled(x[0], wrong, t)
    assert checks(judge.examine(states, wrong, t, cost, proved=False)) == {"gradient"}


def test_a_violation_small_in_its_unit_is_caught():
    """A hundredth of a bound of 1e-8 is no rounding."""
    problem = plant(
        dynamics=lambda x, u, p: u, control_bounds={"u": (-1e-8, 1e-8)}, initial_state=Fixed([1e-8]),
        stage_cost=lambda x, u, p: 1e16 * (x[0] ** 2 + u[0] ** 2), terminal_constraints=lambda x, p: x[0],
    )  # fmt: skip
    u, t = np.full((10, 1), -0.99e-8), np.arange(11) * 0.1
    judge = Judge(problem)
    x, cost = judge.rolled([1e-8], u, t)
    assert "feasibility" in checks(judge.examine(x, u, t, cost, proved=False))


def test_a_step_that_the_dynamics_do_not_make_is_caught_beside_a_large_state():
    """rk4 with h = 0.2 on x' = −50 x + u grows 291-fold; the constant 1e6 beside it moves nothing."""
    import casadi as ca

    problem = plant(
        state=["x", "large"], dynamics=lambda x, u, p: ca.vertcat(-50 * x[0] + u[0], 0), integrator="rk4", dt=0.2,
        initial_state=Fixed([1.0, 1e6]), steps=3,
    )  # fmt: skip
    u, t = np.zeros((3, 1)), np.arange(4) * 0.2
    judge = Judge(problem)
    x, cost = judge.rolled([1.0, 1e6], u, t)
    assert {"integration", "coarse"} <= checks(judge.examine(x, u, t, cost, proved=False))


def test_the_exponential_step_of_a_stiff_plant_is_exact():
    """x' = −50 x: e^{−10} after 0.2, ∫ x² = (1 − e^{−20})/100."""
    problem = plant(dynamics=lambda x, u, p: -50 * x + u, dt=0.2)
    after, cost = Judge(problem).step(1.0, 0.0, 0.0, 0.2)
    assert float(after) == pytest.approx(np.exp(-10), rel=1e-9)
    assert float(cost) == pytest.approx((1 - np.exp(-20)) / 100, rel=1e-7)


def test_a_maximum_is_caught_unless_it_says_so():
    problem = plant(
        stage_cost=lambda x, u, p: -(u[0] ** 2), control_bounds={"u": (-1.0, 1.0)}, initial_state=Fixed([0.0])
    )
    rest = np.zeros((11, 1)), np.full((10, 1), 1e-9), np.arange(11) * 0.1
    judge = Judge(problem)
    x, cost = judge.rolled([0.0], rest[1], rest[2])
    assert checks(judge.examine(x, *rest[1:], cost, proved=False)) & {"gradient", "descent"}


def test_a_local_optimum_is_not_proved():
    """J = Σ 0.1 ((u² − 1)² + 0.2 u): u = −1.02 is better than u = 0.97, and both are minima."""
    problem = plant(stage_cost=lambda x, u, p: (u[0] ** 2 - 1) ** 2 + 0.2 * u[0])
    t = np.arange(11) * 0.1
    worse = max(root.real for root in np.roots([4.0, 0.0, -4.0, 0.2]))
    u = np.full((10, 1), worse)
    judge = Judge(problem)
    x, cost = judge.rolled([1.0], u, t)
    assert judge.examine(x, u, t, cost, proved=False) == []
    assert checks(judge.examine(x, u, t, cost, proved=True)) == {"optimum"}


@pytest.mark.parametrize("kind", KINDS)
def test_problems_follow_from_kind_and_number(kind):
    first, again = draw(kind, 5), draw(kind, 5)
    assert first.problem.task_fingerprint == again.problem.task_fingerprint
    np.testing.assert_array_equal(first.starts, again.starts)
