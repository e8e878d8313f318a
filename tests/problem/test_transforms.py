"""Each transform against what it must equal: shifted controls, an analytic response, n single steps, a rounded control, a known optimum."""

import casadi as ca
import numpy as np
import pytest
import torch

import optctl
from optctl.errors import ArgumentError
from optctl.problem import Fixed, Normal, Problem, Uniform
from optctl.problem.controller import PlanController, rollout
from optctl.problem.structure import missing_derivative
from optctl.problem.trajectory import Trajectory
from optctl.problem.transforms import (
    action_repeat,
    delayed,
    discretised,
    goal_conditioned,
    minimum_time,
    quantised,
    slew_limited,
    sparse,
    tracking,
    with_actuator_lag,
)


def rich(**changes) -> Problem:
    """Everything that a transform must carry along: time, parameters, noise, terminal cost, constraints, a noisy observation."""
    fields = {
        "name": "rich",
        "state": {"q": "m", "v": "m/s"},
        "control": {"force": "N", "brake": "N"},
        "params": {"mass": 2.0, "drag": 0.3},
        "param_ranges": {"mass": (1.0, 3.0)},
        "dynamics": lambda x, u, p, t: [x[1], (u[0] - u[1] * x[1] - p.drag * x[1] ** 3 + ca.sin(t)) / p.mass],
        "stage_cost": lambda x, u, p, t: x[0] ** 2 + (1 + 0.1 * t) * u[0] ** 2 + 0.5 * u[1] ** 2,
        "terminal_cost": lambda x, p, t: p.mass * x[1] ** 2 + t,
        "diffusion": lambda x, u, p, t: [0, 0.1 + 0.01 * u[0] ** 2],
        "path_constraints": lambda x, u, p, t: u[0] * x[1] - 5 - t,
        "terminal_constraints": lambda x, p: x[0] - 1,
        "control_bounds": {"force": (-2.0, 3.0), "brake": (0.5, 1.5)},
        "initial_state": Uniform([-1, -1], [1, 1]),
        "observation": lambda x, p, t: [x[0] * p.mass, x[1] + t],
        "observation_noise": [0.1, 0.2],
        "dt": 0.1,
        "steps": 12,
    }
    return Problem(**(fields | changes))


def discrete(**changes) -> Problem:
    fields = {
        "dynamics": None,
        "transition": lambda x, u, p, t: [x[0] + 0.1 * x[1], x[1] + 0.1 * (u[0] - u[1] * x[1] + ca.sin(t)) / p.mass],
    }
    return rich(**(fields | changes))


def controls_of(problem: Problem, seed: int = 0, num: int = 3) -> np.ndarray:
    return problem.to_control(np.random.default_rng(seed).uniform(-1, 1, (num, problem.steps, problem.n_u)))


def run(problem: Problem, controls: np.ndarray, start: np.ndarray, **options) -> Trajectory:
    """The trajectory of given controls (B, T, n_u) from the problem's own part of a start, added states at their beginning."""
    added = problem.initial_state.location[start.shape[1] :]
    states = np.concatenate([start, np.broadcast_to(added, (len(start), len(added)))], axis=1)
    num, steps = controls.shape[:2]
    plan = Trajectory(
        times=np.arange(steps + 1) * problem.dt,
        states=np.repeat(states[:, None], steps + 1, axis=1),
        controls=controls,
        costs=np.zeros((num, steps)),
        terminal_cost=np.zeros(num),
    )
    return rollout(problem, PlanController(plan, problem.dt), states, steps=steps, **options)


START = np.random.default_rng(5).uniform(-1, 1, (3, 2))
PLANTS = [rich, discrete]


def late(controls: np.ndarray, rest: np.ndarray, d: int) -> np.ndarray:
    first = np.broadcast_to(rest, (len(controls), d, controls.shape[2]))
    return np.concatenate([first, controls[:, : controls.shape[1] - d]], axis=1)


# --- delay --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("steps", [1, 3])
def test_a_delayed_run_is_the_undelayed_run_with_shifted_controls(plant, steps):
    problem = plant()
    controls = controls_of(problem)
    slow = run(delayed(problem, steps), controls, START, seed=7)
    shifted = run(problem, late(controls, np.array([0.0, 0.5]), steps), START, seed=7)
    assert slow.states[..., :2] == pytest.approx(shifted.states, abs=1e-13)
    assert slow.costs == pytest.approx(shifted.costs, abs=1e-13)
    assert slow.terminal_cost == pytest.approx(shifted.terminal_cost, abs=1e-13)
    newest, oldest = slow.states[:, -1, 2:4], slow.states[:, -1, -2:]
    assert np.array_equal(newest, controls[:, -1]) and np.array_equal(oldest, controls[:, -steps])


def test_two_delays_add_up():
    problem = rich()
    controls = controls_of(problem)
    once, twice = run(delayed(problem, 3), controls, START), run(delayed(delayed(problem, 1), 2), controls, START)
    assert twice.states[..., :2] == pytest.approx(once.states[..., :2], abs=1e-13)
    assert len(twice.states[0, 0]) == 2 + 3 * 2


def test_the_optimum_of_a_delayed_linear_problem_is_a_free_run_and_then_the_undelayed_optimum():
    """Without noise the state at the end of the delay is known at the start: J_d(x) = cost of d idle steps + J_{N−d}(x_d)."""
    problem, d, x0 = optctl.make("double-integrator", steps=40), 3, np.array([1.0, 1.0])
    idle = run(problem, np.zeros((1, d, 1)), x0[None])
    rest = optctl.solve(problem.replace(steps=40 - d), idle.states[0, -1])
    best = optctl.solve(delayed(problem, d), np.append(x0, np.zeros(d)))
    assert best.value == pytest.approx(idle.costs.sum() + rest.value, rel=1e-9)
    assert best.trajectory.controls[: 40 - d] == pytest.approx(rest.trajectory.controls, abs=1e-6)
    assert best.value > optctl.solve(problem, x0).value * 1.05


def test_the_environment_of_a_delayed_problem_steps_it():
    problem = delayed(optctl.make("pendulum"), 2)
    env = optctl.make_vec(problem, 3, dtype="float64")
    env.reset(seed=0)
    start = env.state.numpy().copy()
    assert (start[:, 2:] == 0).all()
    controls = controls_of(problem)[:, :6]
    path = run(problem, controls, start[:, :2])
    for k in range(6):
        obs, reward, *_ = env.step(torch.as_tensor(problem.to_action(controls[:, k])))
        assert reward.numpy() == pytest.approx(-path.costs[:, k], abs=1e-12)
    assert env.state.numpy() == pytest.approx(path.states[:, -1], abs=1e-12)
    assert obs.numpy()[:, -2:] == pytest.approx(controls[:, [5, 4], 0], abs=1e-12)


# --- actuator lag -------------------------------------------------------------------------------------------------------


def integrator(**changes) -> Problem:
    """q' = u, so that q shows the control that arrives."""
    fields = {
        "name": "integrator", "state": ["q"], "control": ["u"], "dynamics": lambda x, u, p: u, "horizon": "infinite",
        "stage_cost": lambda x, u, p: x[0] ** 2 + u[0] ** 2, "initial_state": Fixed([0.0]), "dt": 0.1, "steps": 30,
    }  # fmt: skip
    return Problem(**(fields | changes))


def test_lag_gives_the_analytic_response():
    """τ a' = 1 − a, q' = a from zero: a = 1 − exp(−t/τ), q = t − τ a."""
    tau = 0.4
    path = run(with_actuator_lag(integrator(substeps=8), tau), np.ones((1, 30, 1)), np.zeros((1, 1)))
    a = 1 - np.exp(-path.times / tau)
    assert path.states[0, :, 1] == pytest.approx(a, abs=1e-7)
    assert path.states[0, :, 0] == pytest.approx(path.times - tau * a, abs=1e-7)
    sampled = with_actuator_lag(discretised(integrator()), tau)
    path = run(sampled, np.ones((1, 30, 1)), np.zeros((1, 1)))
    assert path.states[0, :, 1] == pytest.approx(a, abs=1e-13)


def test_lag_of_each_control_charges_the_command():
    problem = with_actuator_lag(rich(), {"brake": 0.3, "force": 0.6})
    x, u = np.array([0.2, -0.4, 1.0, 0.7]), np.array([-1.0, 1.2])
    rate = np.array(problem.dynamics_function(x, u, problem.param_values, 0.5)).ravel()
    plant = rich()
    assert rate[:2] == pytest.approx(np.array(plant.dynamics_function(x[:2], x[2:], [2.0, 0.3], 0.5)).ravel())
    assert rate[2:] == pytest.approx((u - x[2:]) / [0.6, 0.3])
    cost = plant.stage_cost_function(x[:2], u, [2.0, 0.3], 0.5)
    assert float(problem.stage_cost_function(x, u, problem.param_values, 0.5)) == pytest.approx(float(cost))
    assert problem.initial_state.location[2:].tolist() == [0.0, 0.5]


@pytest.mark.parametrize("tau", [1e-3, 0.3])
def test_lag_costs_more_the_longer_it_is(tau):
    problem, x0 = integrator(), np.array([1.0])
    plain, lagged = optctl.solve(problem, x0), optctl.solve(with_actuator_lag(discretised(problem), tau), [1.0, 0.0])
    assert lagged.value == pytest.approx(plain.value, rel=1e-8) if tau < 0.01 else lagged.value > 1.05 * plain.value


# --- slew limits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plant", PLANTS)
def test_a_slew_limited_control_keeps_its_rate_and_its_bounds(plant):
    problem, rates = plant(), {"force": 4.0, "brake": 20.0}
    limited = slew_limited(problem, rates)
    signs = np.sign(np.random.default_rng(1).standard_normal((3, 12, 2))) * list(rates.values())
    path = run(limited, signs, START)
    a = path.states[..., 2:]
    change = np.abs(np.diff(a, axis=1)) / (problem.dt * np.array(list(rates.values())))
    assert (change <= 1 + 1e-12).all() and change[..., 0].max() > 0.99
    assert (a >= problem.control_low - 1e-12).all() and (a <= problem.control_high + 1e-12).all()
    assert a[..., 1].max() == pytest.approx(1.5, abs=1e-3) and a[..., 1].min() == pytest.approx(0.5, abs=1e-3)
    same = run(problem, a[:, 1:], START)
    assert path.states[..., :2] == pytest.approx(same.states, abs=1e-12)
    assert path.costs == pytest.approx(same.costs, abs=1e-12)


def test_the_rate_of_an_unbounded_control_is_its_rate():
    limited = slew_limited(integrator(), 3.0, weight=0.5)
    rates = np.random.default_rng(2).uniform(-3, 3, (1, 30, 1))
    path = run(limited, rates, np.zeros((1, 1)))
    assert np.diff(path.states[0, :, 1]) == pytest.approx(0.1 * rates[0, :, 0], abs=1e-13)
    plain = run(integrator(), path.states[:, 1:, 1:], np.zeros((1, 1)))
    assert path.costs == pytest.approx(plain.costs + 0.05 * rates[..., 0] ** 2, abs=1e-13)


def test_slew_limits_raise_the_optimum_and_fade_out():
    problem = integrator(control_bounds={"u": (-1.0, 1.0)})
    free = optctl.solve(problem, [2.0])
    tight, loose = (optctl.solve(slew_limited(problem, rate), [2.0, 0.0]) for rate in (2.0, 200.0))
    assert free.ok and tight.ok and loose.ok
    assert loose.value == pytest.approx(free.value, rel=2e-3)
    # free: −1 at once; at 2 units a second half a second late on average for the ramp: q is 1/4 higher from then on
    assert tight.value > free.value + 0.3


# --- action repeat ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plant", [lambda: rich(substeps=2), lambda: discrete(diffusion=None)])
@pytest.mark.parametrize("repeats", [2, 4])
def test_a_repeated_action_is_so_many_single_steps(plant, repeats):
    problem = plant()
    coarse = action_repeat(problem, repeats)
    controls = controls_of(coarse)
    long, short = run(coarse, controls, START), run(problem, np.repeat(controls, repeats, axis=1), START)
    assert coarse.duration == pytest.approx(problem.duration)
    assert long.states == pytest.approx(short.states[:, ::repeats], abs=1e-13)
    assert long.costs == pytest.approx(short.costs.reshape(3, -1, repeats).sum(axis=2), abs=1e-13)
    assert long.terminal_cost == pytest.approx(short.terminal_cost, abs=1e-13)


# --- quantised controls -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plant", PLANTS)
def test_a_quantised_control_is_the_nearest_level(plant):
    problem = plant()
    rounded = quantised(problem, {"force": 2, "brake": 5})
    controls = controls_of(problem)
    force = np.where(controls[..., 0] >= 0.5, 3.0, -2.0)
    brake = 0.5 + 0.25 * np.round((controls[..., 1] - 0.5) / 0.25)
    path, same = run(rounded, controls, START, seed=3), run(problem, np.stack([force, brake], axis=-1), START, seed=3)
    assert path.states == pytest.approx(same.states, abs=1e-13)
    assert path.costs == pytest.approx(same.costs, abs=1e-13)


def test_a_quantised_environment_takes_the_levels_of_an_unbounded_control():
    problem = integrator(control_scale={"u": 4.0})
    env = optctl.make_vec(quantised(problem, 3), 5, dtype="float64")
    env.reset(seed=0)
    env.step(torch.tensor([[-1.0], [-0.4], [0.2], [0.6], [1.0]], dtype=torch.float64))
    assert env.state[:, 0].tolist() == pytest.approx([-0.4, 0.0, 0.0, 0.4, 0.4])


# --- tracking and goals -------------------------------------------------------------------------------------------------


def wave(p, t):
    return p.size * ca.cos(t)


@pytest.mark.parametrize("plant", PLANTS)
def test_tracking_charges_the_deviation_and_shows_what_comes(plant):
    problem = plant()
    follow = tracking(problem, {"v": wave}, preview=2, params={"size": 1.5}, param_ranges={"size": (1.0, 2.0)})
    x, u, p, t = np.array([0.3, -0.2]), np.array([1.0, 0.8]), np.array([2.0, 0.3, 1.5]), 0.4
    moved = x - [0, 1.5 * np.cos(t)]
    assert float(follow.stage_cost_function(x, u, p, t)) == pytest.approx(
        float(problem.stage_cost_function(moved, u, p[:2], t))
    )
    assert float(follow.terminal_cost_function(x, p, t)) == pytest.approx(
        float(problem.terminal_cost_function(moved, p[:2], t))
    )
    seen = np.array(follow.observation_function(x, p, t)).ravel()
    assert seen == pytest.approx([0.6, 0.2, *(1.5 * np.cos([0.4, 0.5, 0.6]))])
    assert follow.y_names[2:] == ("v wanted", "v wanted +1", "v wanted +2")
    assert follow.noise_std.tolist() == [0.1, 0.2, 0, 0, 0]
    controls = controls_of(problem)
    assert np.array_equal(run(follow, controls, START).states, run(problem, controls, START).states)


def test_goals_are_parameters_and_are_observed():
    problem = goal_conditioned(optctl.make("double-integrator"), {"position": (-2.0, 4.0)})
    assert problem.params == {"goal_position": 1.0} and problem.param_ranges == {"goal_position": (-2.0, 4.0)}
    env = optctl.make_vec(problem, 256, randomize=True)
    obs, _ = env.reset(seed=0)
    goals = obs[:, 2].clone()
    assert goals.min() < -1.8 and goals.max() > 3.8 and torch.equal(goals, env.params[:, 0])
    env.reset()
    assert not torch.equal(env.params[:, 0], goals)
    # to go to g from x is to go to 0 from x − g
    plain = optctl.solve(optctl.make("double-integrator"), [-1.5, 0.2])
    assert optctl.solve(problem, [1.5, 0.2], params=[3.0]).value == pytest.approx(plain.value, rel=1e-8)


# --- sparse cost and minimum time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("plant", [integrator, lambda: discretised(integrator())])
def test_a_sparse_cost_is_the_time_outside(plant):
    """q' = −1 from q = 1.5 comes to |q| ≤ 0.5, where q² ≤ 0.25, after one second; the command costs nothing."""
    problem = sparse(plant(), 0.25)
    path = run(problem, -np.ones((1, 18, 1)), np.array([[1.55]]))
    assert path.costs[0, :10] == pytest.approx(0.1) and (path.costs[0, 11:] == 0).all()
    assert path.costs.sum() == pytest.approx(1.05, abs=0.06)


def test_a_smoothed_sparse_cost_tends_to_the_step():
    x, costs = np.array([0.4]), []
    for smoothing in (0.1, 0.01, 0.001):
        problem = sparse(integrator(), 0.17, smoothing=smoothing)
        costs.append(float(problem.stage_cost_function(x, [5.0], [], 0)))
    assert costs[0] == pytest.approx(0.5 * (1 + np.tanh(-0.1))) and costs[0] > costs[1] > costs[2] and costs[2] < 1e-8


def test_minimum_time_of_the_double_integrator():
    """From rest at 1 with |u| ≤ 1: T = 2, and the force changes its sign at 1 (Pontryagin et al. 1962)."""
    plant = optctl.make("double-integrator").replace(control_bounds={"force": (-1.0, 1.0)}, integrator="rk4")
    problem = minimum_time(plant, {"position": 0.0, "velocity": 0.0})
    best = optctl.solve(problem, [1.0, 0.0])
    assert best.ok and best.final_time == pytest.approx(2.0, abs=1e-6)
    assert best.trajectory.controls[:, 0] == pytest.approx(np.repeat([-1.0, 1.0], 50), abs=1e-4)


@pytest.mark.parametrize("start, least", [([2.0, 0.0], np.pi), ([0.0, 1.0], 1.994827366286)])
def test_minimum_time_of_the_oscillator(start, least):
    """x'' = −x + u, |u| ≤ 1: (2, 0) takes π with u = −1... +1 in half turns about ∓1; intervals of equal length add a little."""
    plant = integrator(
        state=["q", "v"], dynamics=lambda x, u, p: [x[1], u[0] - x[0]], stage_cost=lambda x, u, p: ca.sumsqr(x),
        initial_state=Fixed([0.0, 0.0]), control_bounds={"u": (-1.0, 1.0)}, steps=60,
    )  # fmt: skip
    best = optctl.solve(minimum_time(plant, {"q": 0.0, "v": 0.0}), start)
    assert best.ok and 0 <= best.final_time - least + 1e-6 < 2e-3


# --- composition and what is carried along ------------------------------------------------------------------------------

TRANSFORMS = {
    "delayed": lambda q: delayed(q, 2),
    "lag": lambda q: with_actuator_lag(q, 0.5),
    "slew": lambda q: slew_limited(q, 5.0),
    "repeat": lambda q: action_repeat(q.replace(diffusion=None) if q.discrete else q, 3),
    "quantised": lambda q: quantised(q, 3),
    "tracking": lambda q: tracking(q, {"v": lambda p, t: 0 * t}),
    "goal": lambda q: goal_conditioned(q, {"v": (0.0, 0.0)}),
    "sparse": lambda q: sparse(q, 0.5),
    "minimum-time": lambda q: minimum_time(q, {"q": 1.0}) if not q.discrete else q,
}


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_everything_is_carried_along(name, plant):
    problem = plant()
    new = TRANSFORMS[name](problem)
    x = np.concatenate([[0.3, -0.2], new.initial_state.location[2:]])
    u = np.clip(np.zeros(new.n_u), new.control_low, new.control_high)
    plain = np.array([0.5, 0.5] if name == "quantised" else [0.0, 0.5])  # what the plant gets
    if name == "slew":
        plain = run(new, u[None, None], x[None, :2]).states[0, 1, 2:]
    p = new.param_values
    assert p[:2].tolist() == [2.0, 0.3] and new.param_ranges["mass"] == (1.0, 3.0)
    here, there = (x, u, p, 0.6), (x[:2], plain, p[:2], 0.6)
    assert np.array(new.path_constraint_function(*here)) == pytest.approx(
        np.array(problem.path_constraint_function(*there))
    )
    end = np.array(new.terminal_constraint_function(x, p, 1.2)).ravel()
    assert end == pytest.approx(np.array(problem.terminal_constraint_function(x[:2], p[:2], 1.2)).ravel())
    seen = np.array(new.observation_function(x, p, 0.6)).ravel()
    assert seen[:2] == pytest.approx(np.array(problem.observation_function(x[:2], p[:2], 0.6)).ravel())
    assert len(seen) == len(new.y_names) and new.noise_std[:2].tolist() == [0.1, 0.2] and (new.noise_std[2:] == 0).all()
    if name not in ("sparse", "minimum-time"):
        cost = float(problem.terminal_cost_function(x[:2], p[:2], 1.2))
        assert float(new.terminal_cost_function(x, p, 1.2)) == pytest.approx(cost)
    if not (name == "repeat" and problem.discrete):
        scale = np.sqrt(problem.dt) if new.discrete and not problem.discrete else 1.0
        noise = np.array(new.diffusion_function(*here)).ravel()
        assert noise[:2] == pytest.approx(scale * np.array(problem.diffusion_function(*there)).ravel())
        assert (noise[2:] == 0).all()


def test_transforms_compose_in_the_environment_and_in_the_optimum():
    problem = optctl.make("double-integrator", steps=40)
    for transform in ("goal", "lag", "delayed"):
        problem = {
            "goal": lambda q: goal_conditioned(q, {"position": (0.5, 0.5)}),
            "lag": lambda q: with_actuator_lag(q.replace(substeps=2), 0.2),
            "delayed": lambda q: delayed(q, 2),
        }[transform](problem)
    assert problem.name == "double-integrator-goal-lag-delayed"
    assert list(problem.state) == ["position", "velocity", "force_applied", "force_1_ago", "force_2_ago"]
    best = optctl.solve(problem, np.zeros(5))
    assert best.verdict.value == "proved optimum"
    env = optctl.make_vec(problem, 1, dtype="float64")
    env.reset(seed=0, options={"state": np.zeros((1, 5))})
    total = 0.0
    for u in best.trajectory.controls:
        total -= float(env.step(torch.as_tensor(problem.to_action(u))[None])[1])
    assert total == pytest.approx(best.value, rel=1e-9)


@pytest.mark.parametrize("initial", [Normal([0.0, 1.0], [0.5, 0.5]), Fixed([0.2, 0.3]), Uniform([0, 0], [1, 1])])
def test_initial_distributions_are_extended(initial):
    problem = delayed(rich(initial_state=initial), 1)
    assert type(problem.initial_state) is type(initial)
    a, b = initial.sample(np.random.default_rng(0), 4), problem.initial_state.sample(np.random.default_rng(0), 4)
    assert b.shape == (4, 4) and (b[:, 2:] == [0.0, 0.5]).all() and a.shape == (4, 2)


# --- bad input ----------------------------------------------------------------------------------------------------------

BAD = {
    "no problem": (lambda: delayed("pendulum", 1), "`problem` must be a Problem"),
    "no delay": (lambda: delayed(rich(), 0), "`steps` must be a positive integer, but is 0"),
    "half a step": (lambda: delayed(rich(), 1.5), "`steps` must be a positive integer, but is 1.5"),
    "free time": (
        lambda: delayed(rich(final_time=(0.5, 2.0)), 1),
        "`problem` must have a fixed final time, but its final time is free",
    ),
    "lag zero": (lambda: with_actuator_lag(rich(), 0.0), "`time_constant` must be positive, but is 0.0"),
    "lag of a stranger": (
        lambda: with_actuator_lag(rich(), {"force": 1.0, "motor": 1.0}),
        r"`time_constant` must name every control \(force, brake\), but names force, motor",
    ),
    "lag faster than the step": (
        lambda: with_actuator_lag(rich(substeps=2), 0.01),
        r"must be at least dt / substeps = 0.05 s \(raise `substeps`\), but is 0.01",
    ),
    "lag of a symplectic scheme": (
        lambda: with_actuator_lag(rich(integrator="symplectic_euler"), 1.0),
        "must have another integrator than symplectic_euler",
    ),
    "lag of a bilinear propagator": (
        lambda: with_actuator_lag(integrator(dynamics=lambda x, u, p: u[0] * x, integrator="exponential"), 1.0),
        "The exponential integrator needs dynamics that are affine in the state",
    ),
    "lag of three numbers": (lambda: with_actuator_lag(rich(), [1, 2, 3]), "`time_constant` must be positive"),
    "rate of nothing": (lambda: slew_limited(rich(), {}), "must name every control .* but names none"),
    "negative weight": (lambda: slew_limited(rich(), 1.0, weight=-1), "`weight` must be a number, not negative, but is -1"),
    "repeats do not divide": (lambda: action_repeat(rich(), 5), r"divide the number of steps \(12\), but is 5"),
    "repeated noise": (lambda: action_repeat(discrete(), 2), "be free of noise, or continuous in time, but has 1 noises"),
    "one level": (lambda: quantised(rich(), 1), "`levels` must be integers from 2, but is 1"),
    "half a level": (lambda: quantised(rich(), 2.5), "`levels` must be integers from 2, but is 2.5"),
    "quantised first": (
        lambda: delayed(quantised(rich(), 3), 1),
        "`problem` must be transformed before it is quantised, but its control is rounded",
    ),
    "no reference": (lambda: tracking(rich(), {}), "`reference` must map state names to targets, but is {}"),
    "reference of a stranger": (lambda: tracking(rich(), {"z": wave}), r"name states \(q, v\), but names `z`"),
    "preview negative": (lambda: tracking(rich(), {"v": lambda p, t: t}, preview=-1), "`preview` must be an integer"),
    "parameter twice": (
        lambda: tracking(rich(), {"v": lambda p, t: t}, params={"mass": 1.0}),
        "`params` must have new names, but `mass` is a parameter already",
    ),
    "goal crossed": (lambda: goal_conditioned(rich(), {"v": (1, 0)}), r"give \(low, high\) for `v`, but gives \(1, 0\)"),
    "tolerance zero": (lambda: sparse(rich(), 0), "`tolerance` must be positive, but is 0"),
    "smoothing negative": (lambda: sparse(rich(), 1.0, smoothing=-1), "`smoothing` must be not negative, but is -1"),
    "minimum time in steps": (lambda: minimum_time(discrete(), {"q": 0}), "must be continuous in time, but is given by"),
    "nowhere to go": (lambda: minimum_time(rich(), {}), "`target` must map state names to targets, but is {}"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    build, message = BAD[case]
    with pytest.raises(ArgumentError, match=message):
        build()


@pytest.mark.parametrize(
    "problem, why",
    [
        (quantised(rich(terminal_constraints=None, path_constraints=None), 3), "its control is rounded"),
        (sparse(integrator(), 0.1), "its cost is flat"),
    ],
)
def test_solvers_say_that_there_is_no_derivative(problem, why):
    with pytest.raises(ArgumentError, match=f"`problem` must have derivatives to be solved, but {why}"):
        optctl.solve(problem, problem.initial_state.sample(np.random.default_rng(0), 1))


def test_a_control_without_effect_is_idle_and_not_rounded():
    dynamics = lambda x, u, p: u[0]
    plant = integrator(control=["u", "idle"], dynamics=dynamics, control_bounds={"u": (-1, 1), "idle": (2, 5)})
    assert missing_derivative(plant) is None
    x0 = [2.0]
    alone = optctl.solve(integrator(control_bounds={"u": (-1, 1)}), x0, method="multiple_shooting")
    for found in (
        optctl.solve(plant, x0, method="multiple_shooting"),
        optctl.solve(plant, [x0, x0], method="multiple_shooting")[1],
    ):
        assert found.value == pytest.approx(alone.value, rel=1e-9)
        assert found.verdict is alone.verdict
        assert (found.trajectory.controls[:, 1] == 2).all()


def test_a_control_of_path_constraints_only_is_a_slack():
    # w_1 + w_2 = 1, both between 0 and 1, w_2 without effect: as w_1 alone
    share = lambda x, u, p: ca.vertcat(u[0] + u[1] - 1, 1 - u[0] - u[1])
    bounds = {"w1": (0, 1), "w2": (0, 1)}
    plant = integrator(
        control=["w1", "w2"], dynamics=lambda x, u, p: u[0], control_bounds=bounds, path_constraints=share
    )
    found = optctl.solve(plant, [-2.0], method="multiple_shooting")
    alone = optctl.solve(integrator(control_bounds={"u": (0, 1)}), [-2.0], method="multiple_shooting")
    assert found.value == pytest.approx(alone.value, rel=1e-7)
    assert found.trajectory.controls.sum(axis=1) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"dynamics": lambda x, u, p: ca.sign(u), "stage_cost": lambda x, u, p: ca.sumsqr(x)},
        {
            "control": ["u", "mode"],
            "dynamics": lambda x, u, p: u[0],
            "path_constraints": lambda x, u, p: ca.floor(u[1]) - 1,
        },
    ],
    ids=["in the dynamics", "in a path constraint"],
)
def test_a_control_with_an_effect_but_no_derivative_is_rounded(changes):
    assert missing_derivative(integrator(**changes)).startswith("its control is rounded")
