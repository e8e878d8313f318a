"""Problems without a solution: every method says so within seconds, and none claims one."""

import contextlib
import os
import signal
import threading
import time

import casadi as ca
import numpy as np
import optima
import pytest

from optctl.errors import ArgumentError
from optctl.problem import Fixed, Problem
from optctl.solvers import Guess, Status, Verdict, solve
from optctl.solvers.certificates import runs_away
from optctl.solvers.interrupts import heeded

DIRECT, INDIRECT = ("multiple_shooting", "collocation"), ("pontryagin", "switching")


def scalar(cost, **rest):
    return Problem(
        name="scalar", state=["x"], control=["u"], dynamics=rest.pop("dynamics", lambda x, u, p: u), stage_cost=cost,
        dt=0.1, steps=20, initial_state=Fixed([1.0]), **rest,
    )  # fmt: skip


UNREACHABLE = optima.minimum_energy(10).replace(control_bounds={"u": (-0.1, 0.1)})
OUTSIDE = optima.minimum_energy(20).replace(state_bounds={"x0": (0.5, 2.0)})
CONTRADICTION = optima.minimum_energy(20).replace(path_constraints=lambda x, u, p: ca.vertcat(u[0] + 1, 1 - u[0]))
NO_NUMBER = optima.minimum_energy(20).replace(dynamics=lambda x, u, p: ca.vertcat(x[1], ca.log(x[0] - 5) + u[0]))
UNBOUNDED = scalar(lambda x, u, p: -(x[0] ** 2)).replace(steps=8)
DOWNHILL = scalar(lambda x, u, p: -x[0])


@pytest.mark.parametrize(
    ("problem", "methods", "statuses"),
    [
        (UNREACHABLE, DIRECT, {Status.INFEASIBLE}),
        (UNREACHABLE, INDIRECT, {Status.SHOOTING_FAILED}),
        (OUTSIDE, DIRECT, {Status.INFEASIBLE}),
        (CONTRADICTION, DIRECT, {Status.INFEASIBLE}),
        (NO_NUMBER, DIRECT, {Status.DIVERGED}),
        (NO_NUMBER, INDIRECT, {Status.SHOOTING_FAILED}),
        (UNBOUNDED, ("auto", "ddp", *DIRECT), {Status.UNBOUNDED}),
        (DOWNHILL, ("auto", "ddp", *DIRECT), {Status.UNBOUNDED}),
    ],
    ids=["unreachable", "unreachable, indirect", "start outside", "contradiction", "NaN", "NaN, indirect", "unbounded", "downhill"],
)  # fmt: skip
def test_the_status_says_why(problem, methods, statuses):
    for method in methods:
        began = time.process_time()
        solution = solve(problem, problem.initial_state.location, method=method, num_starts=2)
        assert solution.status in statuses, (method, solution)
        assert solution.verdict is Verdict.NOT_CONVERGED, (method, solution)
        assert time.process_time() - began < 60  # not a measurement: a guard against hanging


def test_the_start_outside_the_bounds_is_named():
    assert "outside the bounds of `x0`" in str(solve(OUTSIDE, [0.0, 0.0], method="multiple_shooting"))


def test_indirect_shooting_refuses_a_free_linear_control():
    with pytest.raises(ArgumentError, match="finite"):
        solve(UNBOUNDED, [1.0], method="pontryagin")


def test_large_controls_with_a_large_scale_are_no_flight():
    problem, large = scalar(lambda x, u, p: x[0] ** 2), np.full((20, 1), 1e10)
    assert runs_away(problem, large)
    assert not runs_away(problem.replace(control_scale={"u": 1e9}), large)
    assert not runs_away(problem.replace(control_bounds={"u": (0.0, 2e10)}), large)


@pytest.mark.parametrize("method", ["auto", "ddp", "lqr", *DIRECT, *INDIRECT])
def test_an_unknown_option_names_itself(method):
    with pytest.raises(ArgumentError, match="`tolerence` must be an option of `"):
        solve(optima.scalar_finite(), [1.0], method=method, tolerence=1e-3)


def test_an_option_of_multiple_shooting_chooses_it():
    solution = solve(optima.scalar_finite(), [1.0], max_iterations=50)
    assert solution.solver == "multiple_shooting"
    assert solution.value == pytest.approx(solve(optima.scalar_finite(), [1.0], method="ddp").value, rel=1e-9)


@pytest.mark.parametrize("method", DIRECT)
def test_the_time_limit_holds_for_all_guesses_together(method):
    # infeasible: without a limit twelve guesses are tried, most of them for hundreds of iterations
    began = time.monotonic()
    solution = solve(UNREACHABLE.replace(steps=400, dt=0.0025), [0.0, 0.0], method=method, time_limit=0.3)
    assert not solution.ok
    assert solution.status in (Status.TIME_LIMIT, Status.INFEASIBLE)
    assert time.monotonic() - began < 20  # not a measurement: a guard against hanging


@pytest.fixture
def interruptible():
    """A run in the background may have been told to ignore interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_ends_the_whole_solve(interruptible):
    # the signal arrives in the middle of an infeasible multi-start: CasADi alone would go on with the next guess
    timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        for _ in range(1000):
            solve(UNREACHABLE, [0.0, 0.0], method="multiple_shooting", num_starts=1000)
    timer.join()


def test_a_guess_of_the_wrong_shape_is_named():
    with pytest.raises(ArgumentError, match=r"guess\.controls"):
        solve(optima.minimum_energy(20), [0, 0], guess=Guess(np.zeros((21, 2)), np.zeros((20, 2))))


def test_an_interrupt_that_something_swallows_is_raised_all_the_same(interruptible):
    def swallow():
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)

    with pytest.raises(KeyboardInterrupt), heeded() as check:
        swallow()
        check()
        pytest.fail("went on")
    with pytest.raises(KeyboardInterrupt), heeded():
        swallow()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    came = []
    before = signal.signal(signal.SIGINT, lambda *_: came.append(1))  # who has a handler of their own keeps it
    with heeded() as check:
        os.kill(os.getpid(), signal.SIGINT)
        check()
    signal.signal(signal.SIGINT, before)
    assert came == [1]
