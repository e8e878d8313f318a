"""Plain Python right-hand sides against the numbers they give by themselves and against the catalogue."""

import math

import numpy as np
import pytest

import optctl
from optctl.errors import ArgumentError
from optctl.interop import from_function
from optctl.problem.functions import Parameters

M = np.array([[0.0, 1.0], [-1.0, -0.1]])


def filled(make):
    def function(x, u):
        out = make(x)
        out[0], out[1] = x[1], np.sin(u[0])
        return out

    return function


def build(rhs, **changes):
    given = {
        "stage_cost": lambda x, u: x @ x + u @ u, "params": {"g": 9.81}, "dt": 0.1, "steps": 10,
        "initial_state": optctl.Uniform([-1, -1], [1, 1]),
    }  # fmt: skip
    return from_function(rhs, {"angle": "rad", "rate": "rad/s"}, ["u"], **(given | changes))


FUNCTIONS = {
    "list": lambda x, u: [x[1], -np.sin(x[0]) + u[0]],
    "array": lambda x, u, p: np.array([x[1], -p.g * np.sin(x[0]) + u[0]]),
    "unpacking and time": lambda x, u, p, t: (lambda angle, rate: [rate, np.cos(t) - p.g * np.sin(angle)])(*x),
    "matrix": lambda x, u: M @ x + np.array([[0.0], [1.0]]) @ u,
    "dot": lambda x, u: np.dot(M, x) + np.array([0.0, 1.0]) * u,
    "einsum": lambda x, u: np.einsum("ij,j->i", M, x) + u,
    "outer": lambda x, u: np.outer(x, x) @ x + u,
    "where": lambda x, u: np.where((x > 0) & ~(x > 0.5) | (x < -0.7), x, 0.1 * x),
    "logical": lambda x, u: [np.where(np.logical_and(x[0] > 0, x[1] < 0.5), 1.0, 2.0), u[0]],
    "clip": lambda x, u: np.clip(x, -0.5, 0.5) + np.maximum(x, 0.0) * np.minimum(x, u),
    "joined": lambda x, u: np.concatenate([x[1:], -x[:1] + u]),
    "stacked": lambda x, u: np.hstack([x[1], np.stack([u[0]])]),
    "reversed": lambda x, u: np.roll(x, 1) - x[::-1] + np.cumsum(x),
    "reduced": lambda x, u: [x.sum() * np.prod(x) - x.mean(), np.linalg.norm(x) + np.diff(x)[0]],
    "two arguments": lambda x, u: [np.arctan2(x[0], x[1]) + np.hypot(x[0], x[1]), x[0] % 0.3 + np.mod(x[1], 0.4)],
    "one argument": lambda x, u: [np.tanh(x[0]) + np.abs(x[1]) + abs(x[0]) + np.sign(u[0]), np.exp(-x[0]) + np.sqrt(x[1] ** 2)],
    "in place": filled(np.zeros_like),
    "column": lambda x, u: np.array([[x[1]], [u[0]]]),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numpy_functions_are_traced(name):
    """`from_function` compares at states of its own; these are others, and p is given as numbers."""
    problem = build(FUNCTIONS[name])
    taken = FUNCTIONS[name].__code__.co_argcount
    for x in np.random.default_rng(7).uniform(-1, 1, (20, 2)):
        u = np.array([0.37])
        expected = FUNCTIONS[name](*[x, u, Parameters(("g",), [9.81]), 0.2][:taken])
        found = np.array(problem.dynamics_function(x, u, [9.81], 0.2)).ravel()
        assert found == pytest.approx(np.ravel(expected), abs=1e-12)


def test_costs_observations_and_ends_are_traced_too():
    problem = build(
        FUNCTIONS["matrix"], stage_cost=lambda x, u, p: p.g * np.sum(x**2) + u @ u, terminal_cost=lambda x: x @ x,
        observation=lambda x, p, t: np.concatenate([np.cos(x), [t]]), path_constraints=lambda x, u: x - 2.0,
        diffusion=lambda x, u: np.array([[0.0], [0.1]]),
    )  # fmt: skip
    assert float(problem.stage_cost_function([1.0, 2.0], [3.0], [2.0], 0)) == 19.0
    assert float(problem.terminal_cost_function([1.0, 2.0], [2.0], 0)) == 5.0
    assert np.array(problem.observation_function([0.0, np.pi], [2.0], 0.5)).ravel().tolist() == [1.0, -1.0, 0.5]
    assert np.array(problem.path_constraint_function([1.0, 3.0], [0.0], [2.0], 0)).ravel().tolist() == [-1.0, 1.0]
    assert problem.n_w == 1


def test_a_traced_problem_runs_in_the_batched_environment_and_is_solved():
    def swing(x, u, p):
        theta, omega = x
        return np.array([omega, p.gravity / p.length * np.sin(theta) + u[0] / (p.mass * p.length**2)])

    theirs = optctl.make("pendulum")
    mine = from_function(
        swing, theirs.state, theirs.control, params=theirs.params, control_bounds=theirs.control_bounds, dt=0.05, steps=200,
        stage_cost=lambda x, u: (1 - np.cos(x[0])) + 0.1 * x[1] ** 2 + 0.001 * u[0] ** 2, horizon="infinite",
        initial_state=theirs.initial_state, observation=lambda x: [np.cos(x[0]), np.sin(x[0]), x[1]],
    )  # fmt: skip
    assert mine.name == "swing"
    point = ([0.3, -0.8], [1.1], theirs.param_values, 0)
    for a, b in zip(mine.step_function(*point), theirs.step_function(*point), strict=True):
        assert np.array(a) == pytest.approx(np.array(b), abs=1e-14)
    env = optctl.make_vec(mine, 3)
    assert env.reset(seed=0)[0].tolist() == optctl.make_vec(theirs, 3).reset(seed=0)[0].tolist()


def test_discrete_functions():
    problem = build(lambda x, u: x + u, discrete=True)
    assert problem.discrete and np.array(problem.step_function([1.0, 2.0], [0.5], [1.0], 0)[0]).ravel().tolist() == [
        1.5,
        2.5,
    ]


@pytest.mark.parametrize(
    ("rhs", "sentence"),
    [
        (lambda x, u: x[0], r"`dynamics` must return shape \(2, 1\), one entry per state, but returns shape \(1, 1\)"),
        (lambda x, u: [x[1], u[0], 0.0], r"`dynamics` must return shape \(2, 1\), one entry per state, but returns shape \(3, 1\)"),
        (lambda x, u: [x[1] if x[0] > 0 else 0.0, u[0]], "without `if` on their values.*but tracing it failed.*truth value"),
        (lambda x, u: [math.sin(x[1]), u[0]], "`dynamics` must hold no constant NaN, but holds one: `math` functions, float"),
        (lambda x, u: [float(x[1]), u[0]], "`dynamics` must hold no constant NaN, but holds one: `math` functions, float"),
        (filled(lambda x: np.zeros(2)), "`dynamics` must hold no constant NaN, but holds one: `math` functions, float"),
        (lambda x: x, "`dynamics` must take 2 to 4 arguments: x, u, then perhaps p, then perhaps t, but takes 1"),
        (lambda x, u, p: [p.length, u[0]], "Parameter `length` is used but not declared"),
    ],
)  # fmt: skip
def test_what_cannot_be_traced(rhs, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        build(rhs)


def test_a_cost_of_the_wrong_shape():
    with pytest.raises(ArgumentError, match=r"`stage_cost` must return shape \(1, 1\), but returns shape \(2, 1\)"):
        build(FUNCTIONS["list"], stage_cost=lambda x, u: x**2)
