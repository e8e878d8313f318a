"""What every solver of the table keeps, whatever its method; a new line in `SOLVERS` brings it under these tests."""

import numpy as np
import pytest

import optctl
from optctl.errors import ArgumentError
from optctl.solvers import SOLVERS, Solution, Verdict, solve, solve_many

pytestmark = pytest.mark.parametrize("method", SOLVERS)
START = [1.0, 0.5]


def problem(method):
    """A small problem that the method can solve: a bilinear one for pulses, a linear-quadratic one for the others."""
    if method == "grape":
        return optctl.make("qubit-transfer")
    horizon = {"horizon": "finite"} if method in ("pontryagin", "switching", "collocation") else {}
    return optctl.make("double-integrator").replace(steps=20, **horizon)


def start(p):
    return np.array(START) if p.n_x == 2 else p.initial_state.sample(np.random.default_rng(0), 1)[0]


def test_a_start_gives_a_certified_solution_whose_trajectory_costs_what_it_says(method):
    p = problem(method)
    found = solve(p, start(p), method=method)
    assert isinstance(found, Solution) and found.verdict in (Verdict.PROVED, Verdict.EXTREMAL), found
    assert found.trajectory.states.shape == (p.steps + 1, p.n_x) or method == "collocation"
    np.testing.assert_allclose(found.trajectory.states[0], start(p), atol=1e-9)
    charged = found.trajectory.costs.sum() + float(found.trajectory.terminal_cost)
    assert found.value == pytest.approx(charged, rel=1e-9)


def test_the_same_call_gives_the_same_bits(method):
    p = problem(method)
    first, second = (solve(p, start(p), method=method, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.trajectory.controls, second.trajectory.controls)
    assert first.value == second.value


def test_a_batch_holds_a_solution_for_every_start_in_order(method):
    p = problem(method)
    starts = np.stack([start(p), 0.5 * start(p)]) if method != "grape" else np.stack([start(p)] * 2)
    batch = solve_many(p, starts, method=method)
    assert len(batch) == 2
    np.testing.assert_allclose(batch.trajectory.states[:, 0], starts, atol=1e-9)
    assert [s.value for s in batch] == pytest.approx(batch.values.tolist())


def test_bad_input_is_refused_by_name(method):
    p = problem(method)
    with pytest.raises(ArgumentError, match="`x0`"):
        solve(p, np.zeros(7), method=method)
    with pytest.raises(ArgumentError, match="`no_such_option`"):
        solve(p, start(p), method=method, no_such_option=1)
