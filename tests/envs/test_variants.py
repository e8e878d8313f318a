"""The variants that stand in the catalogue: what each adds to its problem, in the environment and in the optimum."""

import numpy as np
import pytest
import torch

import optctl
from optctl.envs import cartpole, variants
from optctl.problem.controller import RandomController, rollout


def test_pendulum_delayed_costs_more_than_the_pendulum():
    late, plain = optctl.make("pendulum-delayed", delay=4), optctl.make("pendulum")
    start = [2.5, 0.5]
    best, free = optctl.solve(late, [*start, 0, 0, 0, 0], num_starts=2), optctl.solve(plain, start)
    assert best.ok and free.ok and best.value > free.value


def test_pendulum_goal_holds_any_angle():
    """In between it rests where the wanted angle and the torque that carries the weight, u = −m g l sin θ, cost least together."""
    problem = optctl.make("pendulum-goal").replace(steps=200)
    goals = np.array([-2.5, 0.7, 2.9])
    params = np.hstack([np.tile([1.0, 1.0, 9.81], (3, 1)), goals[:, None]])
    best = optctl.solve(problem, np.array([[3.0, 0.0], [-1.0, 1.0], [0.0, 0.0]]), params=params)
    middle = best.trajectory.states[:, 100]
    assert best.ok.all() and np.abs(middle[:, 1]).max() < 1e-2
    grid = np.linspace(-np.pi, np.pi, 100001)
    costs = 1 - np.cos(grid - goals[:, None]) + 0.001 * (9.81 * np.sin(grid)) ** 2
    resting = grid[np.argmin(costs, axis=1)]
    assert np.cos(middle[:, 0] - resting).min() > np.cos(0.01)
    assert np.abs(resting - goals).max() < 0.1
    assert best.trajectory.controls[:, 100, 0] == pytest.approx(-9.81 * np.sin(resting), abs=0.1)


def test_pendulum_goal_draws_a_goal_for_each_episode():
    env = optctl.make_vec("pendulum-goal", 512, randomize=True)
    obs, _ = env.reset(seed=0)
    goals = torch.atan2(obs[:, 4], obs[:, 3])
    assert goals == pytest.approx(env.params[:, 3], abs=1e-5)
    assert goals.std().item() == pytest.approx(np.pi / np.sqrt(3), rel=0.1)


def test_rail_binds_the_optimum_and_is_counted_in_rollouts():
    problem, start = optctl.make("cartpole-rail").replace(steps=60), [0.15, 0.3, 0.2, 0.0]
    free = optctl.solve(cartpole.swing_up(steps=60), start, method="multiple_shooting", num_starts=2)
    best = optctl.solve(problem, start, num_starts=2)
    assert problem.constrained and best.ok and best.certificate.constraint_violation < 1e-6
    assert np.abs(best.trajectory.states[:, 0]).max() < 0.4 + 1e-6 < np.abs(free.trajectory.states[:, 0]).max()
    assert best.value > free.value - 1e-9
    wild = rollout(problem, RandomController(problem), np.array([start]))
    assert np.abs(wild.states[..., 0]).max() > 0.4  # the track has no buffers: leaving it is a violation, not a wall


def test_minimum_time_variant_tends_to_the_least_time():
    """From rest at 1 the origin takes 2 s; the edge of the goal set comes earlier, the closer the smaller the set."""
    times = [
        optctl.solve(variants.double_integrator_minimum_time(tolerance=tolerance), [1.0, 0.0]).value
        for tolerance in (0.03, 0.01, 0.001)
    ]
    assert times[0] < times[1] < times[2] < 2.1 and times[2] == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("size, frequency", [(1.0, 1.0), (0.7, 2.0)])
def test_tracking_variant_follows_with_the_cost_of_the_frequency_response(size, frequency):
    """Steady state: min over X of |X − R|² (1 + ω²) + |ω² X|² gives X = R (1 + ω²)/(1 + ω² + ω⁴), mean cost ½ a² ω⁴ X/R."""
    problem = optctl.make("double-integrator-tracking", preview=2).replace(steps=314)
    start = np.array([0.0, 0.0])
    best = optctl.solve(problem, start, params=[size, frequency, 0.3])
    ratio = (1 + frequency**2) / (1 + frequency**2 + frequency**4)
    period = round(2 * np.pi / frequency / problem.dt)
    middle = slice(120, 120 + period)
    t = best.trajectory.times[middle]
    assert best.verdict.value == "proved optimum"
    mean = 0.5 * size**2 * frequency**4 * ratio
    assert best.trajectory.costs[middle].mean() / problem.dt == pytest.approx(mean, rel=0.02)
    wanted = ratio * size * np.sin(frequency * t + 0.3)
    assert best.trajectory.states[middle, 0] == pytest.approx(wanted, abs=0.01)


def test_tracking_environment_sees_what_comes():
    env = optctl.make_vec("double-integrator-tracking", 2, dtype="float64", params=[[1.0, 1.0, 0.0], [2.0, 0.5, 1.0]])
    obs, _ = env.reset(seed=0)
    first = obs.clone()
    obs, *_ = env.step(torch.zeros((2, 1), dtype=torch.float64))
    assert obs[:, 2:22] == pytest.approx(first[:, 4:24], abs=1e-12)  # r and r' of 0…9 steps ahead were those of 1…10
    assert first[1, 2:4].tolist() == pytest.approx([2 * np.sin(1.0), np.cos(1.0)])
