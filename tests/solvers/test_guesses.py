"""Where guesses lie, which of them have numbers, and when a search for basins ends."""

import casadi as ca
import numpy as np
import optima
import pytest

from optctl.problem import Fixed, Problem
from optctl.solvers import SOLVERS, Guess, Status, Verdict, solve, solve_multiple_shooting
from optctl.solvers.guesses import parallel
from optctl.solvers.methods.equilibrium import finite, levels
from optctl.solvers.methods.nonlinear_program import NonlinearProgram


def scalar(cost, steps=10, **rest):
    return Problem(
        name="scalar", state=["x"], control=rest.pop("control", ["u"]), dynamics=rest.pop("dynamics", lambda x, u, p: u),
        stage_cost=cost, dt=0.1, steps=steps, initial_state=Fixed([1.0]), **rest,
    )  # fmt: skip


def cake(**bounds):
    return scalar(
        lambda x, u, p, t: -ca.exp(-0.01 * t) * ca.log(u[0]), 100, dynamics=lambda x, u, p: 0.05 * x[0] - u[0],
        terminal_constraints=lambda x, p: x, control_bounds=bounds,
    ).replace(initial_state=Fixed([100.0]))  # fmt: skip


# --- numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bounds", [{}, {"u": (0, np.inf)}, {"u": (0, 50)}, {"u": (-np.inf, 50)}])
def test_a_control_may_be_undefined_at_rest(bounds):
    # c(t) = 100 ρ / (1 − e^(−10 ρ)) e^((r − ρ)t) for x' = r x − c, r = .05, ρ = .01: J = −24.255378; controls held over .1 s: −24.255372
    found = solve(cake(**bounds), [100.0], num_starts=1)
    assert found.verdict is Verdict.EXTREMAL
    assert found.value == pytest.approx(-24.255372, abs=1e-6)


@pytest.mark.parametrize(
    "cost", [lambda x, u, p: x[0] ** 2 - ca.log(-u[0]), lambda x, u, p: ca.log(x[0]) ** 2 + u[0] * ca.log(u[0])]
)
def test_either_sign_is_tried(cost):
    assert solve(scalar(cost), [1.0], method="multiple_shooting", num_starts=1).verdict is Verdict.EXTREMAL


def test_levels_lie_inside_the_bounds_where_there_are_numbers():
    problem = scalar(
        lambda x, u, p: x[0] ** 2, control=["a", "b", "c"], dynamics=lambda x, u, p: ca.log(u[0] - 4) + ca.sqrt(-u[1]) + 1 / u[2],
        control_bounds={"a": (4, np.inf), "b": (-np.inf, 0), "c": (0, 1)},
    )  # fmt: skip
    found = levels(problem, np.ones(1), problem.param_values)
    assert len(found) > 100
    assert (found[:, 0] > 4).all() and (found[:, 1] < 0).all()
    assert (found[:, 2] > 0).all() and (found[:, 2] < 1).all()
    assert found[:, 0].max() / 4 > 10 and found[:, 1].max() > -0.1  # over decades


def test_the_action_of_a_one_sided_bound_beyond_the_scale_is_not_turned_round():
    problem = scalar(lambda x, u, p: u[0] ** 2, control_bounds={"u": (5, np.inf)})
    assert problem.action_low == 5 and problem.action_high == 6
    problem = problem.replace(control_bounds={"u": (-np.inf, -5)})
    assert problem.action_low == -6 and problem.action_high == -5


def test_an_infinite_gradient_is_no_number():
    problem = scalar(lambda x, u, p: ca.sqrt(u[0]))
    along = lambda u: finite(problem, np.ones((11, 1)), np.full((10, 1), u), problem.param_values)
    assert along(1.0) and not along(0.0) and not along(-1.0)


@pytest.mark.parametrize("guess", [None, Guess(np.ones((11, 1)), np.ones((10, 1)))])
def test_no_number_anywhere_is_said(guess):
    found = solve(scalar(lambda x, u, p: ca.log(-1 - u[0] ** 2)), [1.0], method="multiple_shooting", guess=guess)
    assert found.status is Status.DIVERGED
    assert found.message.startswith("costs, dynamics or gradients are not finite at any guess: give a `guess`")


@pytest.mark.parametrize("method", ["auto", "ddp"])
def test_nobody_has_neighbours_where_every_start_diverges(method):
    problem = scalar(lambda x, u, p: ca.sqrt(x[0] - 3) + u[0] ** 2, control_bounds={"u": (-1, 1)})
    found = solve(problem, [[1.0]] * 4, method=method, num_starts=1)
    assert found.statuses == [Status.DIVERGED] * 4


# --- basins ------------------------------------------------------------------------------------------------------------


def test_the_share_of_unseen_basins():
    # Boender and Rinnooy Kan (1987): w(w + 1) / (n(n − 1))
    assert parallel.unseen(5, 1) == pytest.approx(1 / 10)
    assert parallel.unseen(12, 3) == pytest.approx(12 / 132)
    assert parallel.unseen(4, 4) == parallel.unseen(1, 1) == parallel.unseen(0, 0) == 1


def _met(monkeypatch, values, **options):
    """A solve whose guesses end with these costs, in turn."""
    problem = optima.duffing(5)
    one = solve_multiple_shooting(problem, problem.initial_state.location)
    rest = iter(values)

    def function(problem, x0, *, guess, scale=1.0, **_):
        if guess is one.trajectory or scale != 1.0:  # polished, or on the way
            return one
        return one.replace(trajectory=_costing(one.trajectory, next(rest)))

    monkeypatch.setitem(SOLVERS, "multiple_shooting", function)
    monkeypatch.setattr(parallel, "target", lambda *_: None)
    return solve(problem, problem.initial_state.location, method="multiple_shooting", processes=1, **options)


def _costing(path, cost):
    return type(path)(path.times, path.states, path.controls, 0 * path.costs, np.asarray(cost), path.costates)


def test_a_search_goes_on_while_a_better_basin_is_to_be_expected(monkeypatch):
    found = _met(monkeypatch, [3.0, 3.0, 3.0, 2.0] + [3.0, 2.0] * 10)
    assert found.value == 2.0
    assert found.search == (
        "9 guesses, 2 basins seen, the best met 3 times; ended when at most 10% of further guesses were expected to find another"
    )


def test_a_search_says_how_much_is_open(monkeypatch):
    found = _met(monkeypatch, np.linspace(3.0, 2.0, 20))
    assert found.search == (
        "12 guesses, 12 basins seen, the best met 1 time; ended at the limit of 12 guesses, "
        "100% of further ones expected to find another"
    )
    assert found.search in str(found)


def test_a_search_of_a_given_number(monkeypatch):
    found = _met(monkeypatch, [3.0, 3.0, 3.0, 3.0], num_starts=3)
    assert found.search == (
        "3 guesses, 1 basin seen, the best met 3 times; ended with the guesses asked for, 33% of further ones expected to find another"
    )


def test_building_the_program_counts_towards_the_time_limit(monkeypatch):
    left = []
    solved = NonlinearProgram.solve
    record = lambda self, *a, time_limit, **k: left.append(time_limit) or solved(self, *a, time_limit=time_limit, **k)
    monkeypatch.setattr(NonlinearProgram, "solve", record)
    problem = optima.duffing(5)
    solve_multiple_shooting(problem, problem.initial_state.location, time_limit=60.0)
    assert left[0] < 60.0


def test_no_time_is_one_guess():
    problem = optima.duffing(5)
    found = solve(problem, problem.initial_state.location, method="multiple_shooting", time_limit=1e-9)
    assert found.status is Status.TIME_LIMIT
    assert found.search.startswith("1 guess, 0 basins seen; ended by the time limit")
