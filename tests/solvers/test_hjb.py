"""The grid's law against Riccati, against DDP, and on Gymnasium's pendulum; its sweep against one in numpy and scipy."""

import casadi as ca
import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator

from optctl import compare, envs, rollout
from optctl.codegen.warp_source import Target
from optctl.errors import ArgumentError
from optctl.problem import Problem, Uniform
from optctl.problem.controller import Controller
from optctl.solvers import CONTROLLERS, lqr, solve_many
from optctl.solvers.batched.hjb import source
from optctl.solvers.feedback.hjb import HjbController


def scalar(**changes):
    problem = Problem(
        name="scalar", state=["x"], control=["u"], dynamics=lambda x, u, p: x + u, stage_cost=lambda x, u, p: x[0] ** 2 + u[0] ** 2,
        control_bounds={"u": (-6.0, 6.0)}, dt=0.05, steps=60, initial_state=Uniform([-1.0], [1.0]), integrator="exponential",
    )  # fmt: skip
    return problem.replace(**changes)


@pytest.mark.parametrize("hold", [1, 4])
def test_linear_quadratic_value_and_law(hold):
    problem, x0 = scalar(), np.array([[-1.0], [0.3], [0.9]])
    law = HjbController(problem, nodes=801, levels=241, hold=hold, box=[[-2.0], [2.0]])
    exact = np.squeeze(lqr(problem).P[0]) * x0[:, 0] ** 2  # bounds inactive: V = P x²
    cost = rollout(problem, law, x0).total_cost
    np.testing.assert_allclose(law.value(x0), exact, rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(cost, exact, rtol=5e-3)
    assert (cost >= exact * (1 - 1e-9)).all()  # no law is better than the optimum


def test_the_terminal_cost_is_where_it_begins():
    problem = scalar(stage_cost=lambda x, u, p: 1e-3 * u[0] ** 2, terminal_cost=lambda x, p: (x[0] - 0.5) ** 2, steps=7)
    end = rollout(problem, HjbController(problem, hold=3), [[-0.5], [0.1]]).states[:, -1, 0]
    np.testing.assert_allclose(end, 0.5, atol=0.02)


def test_every_interval_is_paid_once():
    law = HjbController(scalar(stage_cost=lambda x, u, p: 1.0, steps=11), nodes=5, levels=3, hold=4)
    for step in range(11):
        assert law.value([[0.2]], step)[0] == pytest.approx((11 - step) * 0.05)


@pytest.mark.parametrize("name", ["pendulum", "pendulum-v1"])
def test_it_stays_above_the_optimum_and_close_to_it(name):
    problem = envs.make(name)
    x0 = problem.initial_state.sample(np.random.default_rng(5), 10)
    law = HjbController(problem, nodes=(401, 321), levels=11)
    assert isinstance(law, Controller)
    cost, best = rollout(problem, law, x0).total_cost, solve_many(problem, x0).values
    assert (cost >= best * (1 - 1e-3)).all()  # pendulum-v1 has kinks: its reference is the best found
    assert cost.mean() < 1.025 * best.mean()


def edge():
    """Two states and controls, and a step that is no number where x > 1.5."""
    return Problem(
        name="two", state=["x", "y"], control=["u", "v"], dynamics=lambda x, u, p: u,
        stage_cost=lambda x, u, p: ca.sumsqr(x) + 0.1 * ca.sumsqr(u) + 1e-9 * ca.sqrt(1.5 - x[0]),
        control_bounds={"u": (-1, 1), "v": (-1, 1)}, dt=0.1, steps=20, initial_state=Uniform([-1, -1], [1, 1]),
    )  # fmt: skip


def car():
    """Three states, of which the last is an angle, and a terminal cost."""
    return Problem(
        name="car", state=["x", "y", "heading"], control=["turn"], dynamics=lambda x, u, p: ca.vertcat(ca.cos(x[2]), ca.sin(x[2]), u),
        stage_cost=lambda x, u, p: x[0] ** 2 + x[1] ** 2 + 0.1 * u[0] ** 2, terminal_cost=lambda x, p: x[0] ** 4 + ca.cos(x[2]),
        control_bounds={"turn": (-2, 2)}, dt=0.1, steps=25, initial_state=Uniform([-1, -1, -3], [1, 1, 3]),
    )  # fmt: skip


def lost():
    """A step to no number at a finite cost."""
    return edge().replace(
        stage_cost=lambda x, u, p: x[0] ** 2 + u[1],
        dynamics=lambda x, u, p: u + ca.vertcat(0, 1e-9 * ca.sqrt(1.5 - x[0])),
    )


def circle():
    """Steps back from 0 that only rounding can see: 2π less nothing is 2π."""
    return Problem(
        name="circle", state=["angle"], control=["u"], dynamics=lambda x, u, p: u, stage_cost=lambda x, u, p: 2 + ca.cos(x[0]),
        control_bounds={"u": (-2e-18, -1e-18)}, dt=0.1, steps=6, initial_state=Uniform([-3], [3]),
    )  # fmt: skip


def test_two_states_two_controls_and_a_step_that_is_no_number():
    problem = edge()
    law = HjbController(problem, nodes=41, levels=5, box=[[-1.2, -1.2], [2.0, 1.2]])
    cost = rollout(problem, law, [[1.0, -1.0], [0.5, 0.2]]).total_cost
    assert (cost < 1.02 * solve_many(problem, [[1.0, -1.0], [0.5, 0.2]]).values + 0.01).all()
    assert np.isfinite(law.values).all()


def swept(law):
    """V of the same grid, by scipy's interpolation of a table with the first layer repeated where an axis is wrapped."""
    problem, num = law.problem, int(np.prod(law.counts))
    axes = [a + h * np.arange(k) for a, h, k in zip(law.low, law.spacing, law.counts, strict=True)]
    closed = [np.append(a, a[-1] + h) if w else a for a, h, w in zip(axes, law.spacing, law.wrapped, strict=True)]
    ends = np.array([[a[0], a[-1]] for a in closed]).T
    nodes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(num, -1)
    value, tables = np.zeros(num), []
    if problem.horizon == "finite":
        value = np.array([float(problem.terminal_cost_function(x, law.params[0], problem.duration)) for x in nodes])
    for u in law.controls:
        x, cost = nodes.T, np.zeros(num)
        for _ in range(len(law.held)):
            x, more = (np.asarray(a) for a in problem.step_function(x, np.tile(u, (num, 1)).T, law.params[0], 0.0))
            cost = cost + more.ravel()
        good = np.isfinite(x).all(axis=0) & np.isfinite(cost)
        x = np.where(good[:, None], x.T, nodes)
        x = np.where(law.wrapped, x % ends[1], np.clip(x, *ends))
        tables.append((x, np.where(good, cost, 1e9)))
    values = [value]
    for _ in range((problem.steps - 1) // len(law.held)):
        table = np.pad(values[-1].reshape(law.counts), [(0, int(w)) for w in law.wrapped], mode="wrap")
        at = RegularGridInterpolator(closed, table)
        values.append(np.min([cost + at(x) for x, cost in tables], axis=0))
    return np.stack(values)


@pytest.mark.parametrize(
    ("problem", "options"),
    [
        (scalar, {"nodes": 21, "levels": 5, "hold": 7}),
        (lambda: envs.make("pendulum-v1").replace(steps=30), {"nodes": (37, 29), "levels": 5}),
        (edge, {"nodes": (19, 17), "levels": 3, "box": [[-1.21, -1.2], [2.0, 1.2]]}),
        (lost, {"nodes": (19, 17), "levels": 3, "hold": 1, "box": [[-1.21, -1.2], [2.0, 1.2]]}),
        (circle, {"nodes": 9, "levels": 3, "hold": 1}),
        (car, {"nodes": (9, 7, 11), "levels": 5, "hold": 3}),
    ],
)
def test_the_sweep_is_that_of_numpy(problem, options):
    law = HjbController(problem(), **options)
    assert law.values.shape[1] % 8  # the last nodes do not fill a vector
    np.testing.assert_allclose(law.values, swept(law), rtol=1e-12, atol=1e-12)


def test_an_end_that_is_no_number_is_as_dear_as_such_a_step():
    problem = scalar(terminal_cost=lambda x, p: 1e-9 * ca.sqrt(1.0 - x[0]))
    law = HjbController(problem, nodes=41, box=[[-2.0], [2.0]])
    assert law.values[0].max() == 1e9 and np.isfinite(law.values).all()


def test_the_bits_do_not_depend_on_the_number_of_threads():
    problem, options = envs.make("pendulum", steps=9), {"nodes": (401, 257), "levels": 15}
    one = HjbController(problem, **options).values
    torch.set_num_threads(2)
    assert np.array_equal(one, HjbController(problem, **options).values)


@pytest.mark.parametrize("kernel", ["place", "stage"])
def test_the_source_for_gpus_compiles_without_one(compile_for_gpus, kernel):
    compile_for_gpus(source(kernel, 3, Target("float64", "cuda")))


def test_it_is_a_named_controller():
    assert CONTROLLERS["hjb"](scalar()).name == "hjb"


@pytest.mark.parametrize(
    ("problem", "options", "words"),
    [
        (lambda: envs.make("cartpole"), {}, "three states"),
        (lambda: scalar(state_bounds={"x": (-1, 1)}), {}, "constraints"),
        (lambda: scalar(final_time=(1.0, 2.0)), {}, "final time"),
        (lambda: scalar(dynamics=lambda x, u, p, t: x * t + u, integrator="rk4"), {}, "time"),
        (lambda: scalar(control_bounds={}), {}, "bounds"),
        (scalar, {"levels": 2}, "levels"),
        (scalar, {"hold": 0}, "hold"),
        (scalar, {"nodes": 2}, "nodes"),
        (scalar, {"box": [[1.0]]}, "box"),
        (scalar, {"box": [[1.0], [0.0]]}, "low < high"),
        (scalar, {"device": "tpu"}, "device"),
    ],
)
def test_what_it_cannot_do_is_refused(problem, options, words):
    with pytest.raises(ArgumentError, match=words):
        HjbController(problem(), **options)


def test_the_law_is_for_its_own_plant():
    problem = scalar().replace(params={"pole": 0.5}, dynamics=lambda x, u, p: p.pole * x + u)
    law = HjbController(problem, nodes=31)
    with pytest.raises(ArgumentError, match="`params` must be the plant that the grid was solved for"):
        compare(problem, {"hjb": law}, num_starts=2, params=[-2.0], reference=None)
    named = compare(problem, ["hjb"], num_starts=20, params=[-0.5])["hjb"]
    assert 0 <= named.gap.mean.estimate < 0.05
