"""A problem is checked when it is stated: every mistake has one sentence that names it."""

import math
import subprocess
import sys

import casadi as ca
import numpy as np
import pytest

import optctl
from optctl.errors import ArgumentError
from optctl.problem import Fixed, Normal, Problem, Uniform


def tiny(**changes) -> Problem:
    fields = {
        "name": "tiny",
        "state": {"q": "m", "v": "m/s"},
        "control": {"force": "N"},
        "params": {"mass": 2.0},
        "dynamics": lambda x, u, p: [x[1], u[0] / p.mass],
        "stage_cost": lambda x, u, p: x[0] ** 2 + u[0] ** 2,
        "initial_state": Uniform([-1, -1], [1, 1]),
        "dt": 0.1,
        "steps": 10,
    }
    return Problem(**(fields | changes))


BAD = {
    "dt zero": ({"dt": 0}, "`dt` must be a positive number, but is 0"),
    "dt negative": ({"dt": -0.1}, "`dt` must be a positive number, but is -0.1"),
    "dt nan": ({"dt": float("nan")}, "`dt` must be a positive number, but is nan"),
    "steps fractional": ({"steps": 2.5}, "`steps` must be a positive integer, but is 2.5"),
    "substeps zero": ({"substeps": 0}, "`substeps` must be a positive integer, but is 0"),
    "nan parameter": ({"params": {"mass": float("nan")}}, "`params` must be finite numbers (`mass`), but is nan"),
    "bounds crossed": ({"control_bounds": {"force": (1, -1)}}, "low < high for `force`, but has low 1 and high -1"),
    "bounds equal": ({"state_bounds": {"q": (1, 1)}}, "low < high for `q`"),
    "bounds nan": ({"control_bounds": {"force": (float("nan"), 1)}}, "low < high for `force`"),
    "bounds of a stranger": ({"control_bounds": {"torque": (-1, 1)}}, "must name one of force, but names `torque`"),
    "bounds not a pair": ({"control_bounds": {"force": 1.0}}, "must give (low, high) for `force`, but gives 1.0"),
    "bounds not a mapping": ({"control_bounds": (-1, 1)}, "must map names to (low, high)"),
    "horizon": ({"horizon": "long"}, "must be 'finite' or 'infinite', but is 'long'"),
    "integrator": ({"integrator": "rk45"}, "`integrator` must be one of euler, "),
    "no dynamics": ({"dynamics": None}, "must be given, or `transition`, and not both, but neither was given"),
    "two dynamics": ({"transition": lambda x, u, p: x}, "but both were given"),
    "short dynamics": ({"dynamics": lambda x, u, p: x[1]}, "shape (2, 1), one entry per state, but returns shape (1, 1)"),
    "vector cost": ({"stage_cost": lambda x, u, p: x}, "`stage_cost` must return shape (1, 1), but returns shape (2, 1)"),
    "undeclared parameter": ({"dynamics": lambda x, u, p: x * p.length}, "`length` is used but not declared; declared parameters: mass"),
    "foreign symbol": ({"stage_cost": lambda x, u, p: ca.SX.sym("z")}, "foreign symbol z"),
    "too few arguments": ({"stage_cost": lambda x, u: x[0]}, "`stage_cost` must take 3 arguments, or one more for the time, but takes 2"),
    "constant nan": ({"dynamics": lambda x, u, p: [x[1], math.sin(x[0])]}, "`dynamics` must hold no constant NaN"),
    "nan behind a minimum": ({"stage_cost": lambda x, u, p: ca.fmin(x[0], math.cos(x[1]))}, "`stage_cost` must hold no constant NaN"),
    "nan of an observation": ({"observation": lambda x, p: [x[0], float("nan")]}, "`observation` must hold no constant NaN"),
    "callable raises": ({"dynamics": lambda x, u, p: x[5]}, "`dynamics` of problem `tiny` must return a CasADi expression"),
    "diffusion rows": ({"diffusion": lambda x, u, p: ca.DM.eye(3)}, "`diffusion` must return 2 rows, one per state, but returns 3"),
    "initial size": ({"initial_state": Fixed([0.0])}, "`initial_state` must have 2 entries, one per state, but has 1"),
    "initial type": ({"initial_state": [0.0, 0.0]}, "must be Uniform, Normal or Fixed"),
    "terminal cost at infinity": ({"terminal_cost": lambda x, p: x[0], "horizon": "infinite"}, "be absent when the horizon is infinite"),
    "no states": ({"state": {}}, "`state` must name at least one state, but is empty"),
    "observation noise": ({"observation_noise": [0.1]}, "must be one number or 3, none negative"),
    "control scale": ({"control_scale": {"force": 0}}, "must be positive for `force`, but is 0"),
    "final time of a transition": (
        {"dynamics": None, "transition": lambda x, u, p: x, "final_time": (1.0, 2.0)},
        "`final_time` must be absent when `transition` is given",
    ),
    "final time at infinity": (
        {"horizon": "infinite", "final_time": (1.0, 2.0)}, "`final_time` must be absent when the horizon is infinite",
    ),
    "terminal constraints at infinity": (
        {"horizon": "infinite", "terminal_constraints": lambda x, p: x}, "`terminal_constraints` must be absent",
    ),
    "final time": ({"final_time": (2.0, 1.0)}, "must be (low, high) with 0 < low <= high"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_statement_gets_one_clear_sentence(case):
    changes, sentence = BAD[case]
    with pytest.raises(ArgumentError) as caught:
        tiny(**changes)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Uniform([0.0], [-1.0]), "`low` must not exceed `high`"),
        (lambda: Uniform([0.0], [1.0, 2.0]), "`high` must have shape (1,) like `low`"),
        (lambda: Normal([0.0], [-1.0]), "`std` must not be negative"),
        (lambda: Fixed([float("nan")]), "`value` must be finite"),
        (lambda: Fixed("here"), "`value` must be a vector of numbers"),
    ],
)
def test_bad_initial_distributions(make, sentence):
    with pytest.raises(ArgumentError) as caught:
        make()
    assert sentence in str(caught.value)


def test_unknown_catalogue_names_suggest_the_nearest():
    with pytest.raises(ArgumentError, match="did you mean `pendulum`"):
        optctl.make("pendulm")
    with pytest.raises(ArgumentError, match="the problems are lqr-scalar, "):
        optctl.make("zzz")


def test_sizes_names_and_bounds():
    problem = tiny(control_bounds={"force": (-2.0, 4.0)}, state_bounds={"v": (-3.0, 3.0)})
    assert (problem.n_x, problem.n_u, problem.n_p, problem.n_w, problem.n_y) == (2, 1, 1, 0, 3)
    assert problem.y_names == ("q", "v", "elapsed")
    assert problem.state_low.tolist() == [-np.inf, -3.0]
    assert problem.to_control(np.array([[-1.0], [0.0], [1.0], [7.0]])).ravel().tolist() == [-2.0, 1.0, 4.0, 4.0]
    assert problem.to_action(np.array([[1.0], [4.0]])).ravel().tolist() == [0.0, 1.0]
    free = tiny(control_scale={"force": 5.0})
    assert (free.control_low[0], free.action_low[0], free.action_high[0]) == (-np.inf, -5.0, 5.0)


def test_step_and_cost_by_hand():
    # x'' = u/m with m = 2, u = 4, from (q, v) = (1, 0): q = 1 + t², v = 2 t; ∫₀^0.1 (1 + t²)² + 16 dt.
    after, cost = tiny().step_function([1.0, 0.0], [4.0], [2.0], 0.0)
    assert np.array(after).ravel() == pytest.approx([1.01, 0.2], abs=1e-14)
    assert float(cost) == pytest.approx(0.1 + 2 * 0.1**3 / 3 + 0.1**5 / 5 + 1.6, abs=1e-6)  # O(h⁵)


def test_time_reaches_the_functions():
    problem = tiny(
        dynamics=lambda x, u, p, t: [x[1], t], stage_cost=lambda x, u, p, t: t, terminal_cost=lambda x, p, t: t,
    )  # fmt: skip
    after, cost = problem.step_function([0, 0], [0], [2.0], 3.0)
    assert np.array(after).ravel() == pytest.approx([3 * 0.005 + 0.1**3 / 6, 0.305], abs=1e-12)  # v = 3t + t²/2
    assert float(cost) == pytest.approx(0.305)
    assert float(problem.terminal_cost_function([0, 0], [2.0], 1.0)) == 1.0


def test_interval_function_is_the_step_for_its_own_dt():
    problem = optctl.make("cartpole")
    point = (np.array([0.1, 2.0, -0.3, 0.4]), [3.0], problem.param_values, 0.0)
    for a, b in zip(problem.step_function(*point), problem.interval_function(*point, problem.dt), strict=True):
        assert np.array(a) == pytest.approx(np.array(b), abs=1e-14)


def test_names_alone_are_enough_for_state_and_control():
    problem = tiny(state=["q", "v"], control=["force"])
    assert problem.state == {"q": "", "v": ""}


def test_midpoints_cover_the_distribution():
    grid = optctl.make("pendulum-v1").initial_state.midpoints((80, 25))
    assert grid.shape == (2000, 2)
    assert grid[0] == pytest.approx([-np.pi + np.pi / 80, -0.96])
    assert np.abs(grid.mean(axis=0)).max() < 1e-12


def test_sampling_is_reproducible_and_inside():
    start = Uniform([-1.0, 2.0], [1.0, 3.0])
    a, b = (start.sample(np.random.default_rng(3), 1000) for _ in range(2))
    assert np.array_equal(a, b)
    assert (a >= [-1, 2]).all() and (a < [1, 3]).all()
    z = Normal([1.0], [2.0]).sample(np.random.default_rng(0), 20_000)
    assert z.mean() == pytest.approx(1.0, abs=0.05) and z.std() == pytest.approx(2.0, abs=0.05)


def test_importing_optctl_is_light():
    code = (
        "import sys, optctl; bad = {'torch', 'warp', 'casadi', 'matplotlib', 'scipy'} & set(sys.modules); assert not bad, bad;"
        "import optctl.envs; bad = {'torch', 'warp', 'matplotlib'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_matrix_may_be_a_list_of_rows():
    rows = optctl.make("double-integrator").replace(diffusion=lambda x, u, p: [[0.0, 0.1], [0.2, x[0]]])
    assert rows.n_w == 2
    assert np.array_equal(
        np.asarray(rows.diffusion_function([3.0, 0.0], [0.0], rows.param_values, 0.0)), [[0, 0.1], [0.2, 3]]
    )
