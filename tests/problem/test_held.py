"""Data that hold over an interval: every stage of every scheme reads the value of its own interval."""

import pickle

import casadi as ca
import numpy as np
import pytest

import optctl
import optctl.solvers
from optctl.codegen.program import build_program
from optctl.errors import ArgumentError
from optctl.problem import Fixed, Problem, Uniform
from optctl.problem.structure import kinked

STEPS, DT = 10, 0.1
DEMAND = [0.0, 1.0] * 5


def store(**changes) -> Problem:
    """x' = u − d(t), ∫ x² + 0.1 u² dt."""
    fields = {
        "name": "store", "state": ["x"], "control": ["u"], "data": {"d": DEMAND}, "dynamics": lambda x, u, p: u - p.d,
        "stage_cost": lambda x, u, p: x[0] ** 2 + 0.1 * u[0] ** 2, "dt": DT, "steps": STEPS, "initial_state": Fixed([0.0]),
    }  # fmt: skip
    return Problem(**(fields | changes))


def least_squares() -> float:
    """The optimum by linear least squares: x is piecewise linear, with slopes u_k − d_k, and
    ∫ x² = h (x_k² + x_k x_{k+1} + x_{k+1}²)/3 = |L' (x_k, x_{k+1})|² over an interval."""
    sums = DT * np.tril(np.ones((STEPS + 1, STEPS)), -1)  # x = sums (u − d)
    factor = np.linalg.cholesky(DT / 3 * np.array([[1, 0.5], [0.5, 1]])).T
    rows = np.concatenate([factor @ sums[k : k + 2] for k in range(STEPS)] + [np.sqrt(0.1 * DT) * np.eye(STEPS)])
    right = np.concatenate([factor @ (sums @ DEMAND)[k : k + 2] for k in range(STEPS)] + [np.zeros(STEPS)])
    return float(np.linalg.lstsq(rows, right, rcond=None)[1][0])


@pytest.mark.parametrize("integrator", ["rk4", "exponential"])
@pytest.mark.parametrize("method", [None, "multiple_shooting"])
def test_the_optimum_under_held_data_is_that_of_least_squares(integrator, method):
    assert least_squares() == pytest.approx(0.0152830, abs=5e-8)
    options = {} if method is None else {"method": method}
    found = optctl.solve(store(integrator=integrator), [0.0], **options)
    assert found.value == pytest.approx(least_squares(), rel=1e-9)
    assert found.verdict is optctl.solvers.Verdict.PROVED and found.certificate.resimulation < 1e-12


def test_collocation_re_integrates_its_plan_with_the_same_data():
    found = optctl.solve(store(), [0.0], method="collocation", seed=0)
    assert (
        found.certificate.resimulation < 1e-9 and found.value < least_squares()
    )  # its controls may vary within an interval


@pytest.mark.parametrize("integrator", ["euler", "midpoint", "rk4", "exponential"])
def test_every_scheme_steps_with_the_value_of_its_own_interval(integrator):
    values = np.random.default_rng(0).normal(size=300)
    problem = store(integrator=integrator, data={"d": values}, steps=300, substeps=2)
    after, _ = problem.step_function(
        np.zeros((1, 300)), np.zeros((1, 300)), np.zeros((0, 1)), DT * np.arange(300)[None]
    )
    assert np.array(after).ravel() == pytest.approx(-DT * values, abs=1e-14)


def test_kernels_can_be_generated_and_another_process_reads_the_same():
    assert build_program(store().step_function).depends_on("t")
    again = pickle.loads(pickle.dumps(store()))
    assert [float(again.step_function(0, 0, [], k * DT)[0]) for k in (0, 1)] == pytest.approx([0, -DT])


def test_what_wraps_a_problem_still_reads_its_interval():
    from optctl.problem.transforms import with_actuator_lag

    lagging = with_actuator_lag(store(), 0.2)
    assert np.array(lagging.step_function([0, 0], 0, [], 0.1)[0]).ravel().tolist() == pytest.approx([-0.1, 0])
    assert np.array(lagging.step_function([0, 0], 0, [], 0.2)[0]).ravel().tolist() == pytest.approx([0, 0])


def test_constraints_and_transitions_read_at_the_nodes():
    limited = store(path_constraints=lambda x, u, p: u[0] - p.d, steps=STEPS)
    stepped = store(dynamics=None, transition=lambda x, u, p: x + u - p.d)
    for k in range(STEPS):
        assert float(limited.path_constraint_function(0, 2.0, [], k * DT)) == 2.0 - DEMAND[k]
        assert float(stepped.step_function(0, 0, [], k * DT)[0]) == -DEMAND[k]


def test_a_jump_in_time_alone_is_no_kink_and_one_in_the_state_is():
    assert not kinked(store().step_function)
    assert kinked(store(stage_cost=lambda x, u, p: ca.fabs(x[0] - p.d)).step_function)


def test_a_shorter_interval_reads_the_same_data_and_a_longer_one_is_refused():
    fine = store().replace(dt=DT / 2, steps=2 * STEPS)
    steps = [float(fine.step_function(0, 0, [], t)[0]) for t in (0.05, 0.1, 0.15, 0.2)]
    assert steps == pytest.approx([0, -0.05, -0.05, 0])
    with pytest.raises(ArgumentError, match=r"`data` must hold for at least `dt` = 0.2 s \(`d`\), but hold for 0.1 s"):
        store().replace(dt=0.2, steps=5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data": {"d": [0.0, 1.0]}}, r"`data` must go on for 1 s \(`d`\), but end at 0.2 s"),
        ({"data": {"d": [0.0, np.nan] * 5}}, "`data` must be sequences of finite numbers, one for each interval"),
        ({"data": {"d": "weather"}}, "`data` must be sequences of finite numbers.*but is 'weather'"),
        ({"data": [1.0]}, "`data` must map names to sequences of numbers"),
        ({"params": {"d": 1.0}}, "`data` must be named otherwise than `params`, but names `d`"),
    ],
)
def test_bad_data_is_named(changes, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        store(**changes)


def test_data_are_part_of_the_fingerprint():
    assert store().fingerprint == store().fingerprint != store(data={"d": [1.0, 0.0] * 5}).fingerprint
    assert store(initial_state=Uniform([0], [1])).fingerprint == store().fingerprint
