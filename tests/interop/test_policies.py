"""Policies trained elsewhere, charged by `rollout` and `compare`."""

import numpy as np
import pytest

import optctl
from optctl.errors import ArgumentError
from optctl.interop import from_policy
from optctl.problem.controller import FeedbackController, rollout
from optctl.solvers import lqr


def test_a_policy_of_observations_is_the_controller_that_it_stands_for():
    """a = −0.5 θ-dot-like feedback on the observation (cos θ, sin θ, ω): u = 2 clip(−0.3 sin θ − 0.2 ω)."""
    problem = optctl.make("pendulum")
    starts = problem.initial_state.sample(np.random.default_rng(0), 5)
    law = lambda x, t: 2 * np.clip(-0.3 * np.sin(x[:, :1]) - 0.2 * x[:, 1:], -1, 1)
    ours = rollout(problem, FeedbackController(law), starts, steps=40)
    theirs = rollout(problem, from_policy(problem, lambda y: -0.3 * y[:, 1:2] - 0.2 * y[:, 2:]), starts, steps=40)
    assert np.abs(ours.states - theirs.states).max() < 1e-4  # observations are in float32
    assert np.abs(ours.controls).max() == 2.0 and np.ptp(theirs.controls) > 1


def test_each_plant_is_observed_with_its_own_parameters():
    """`pendulum-goal` observes its goal: the policy returns it, action = cos(goal)."""
    problem = optctl.make("pendulum-goal")
    policy = from_policy(problem, lambda y: y[:, 3:4])
    goals = np.array([0.0, np.pi / 2, np.pi])
    params = np.tile(problem.param_values, (3, 1))
    params[:, list(problem.params).index("goal_theta")] = goals
    controls = rollout(problem, policy, np.zeros((3, 2)), params=params, steps=1).controls
    assert controls[:, 0, 0] == pytest.approx(12 * np.cos(goals), abs=1e-6)


def test_a_policy_sees_what_the_environment_would_show_it():
    """y = x + v with σ = 0.3: the policy a = y charges the noise that `compare` draws, and `rollout` without a seed none."""
    problem = optctl.make("double-integrator").replace(observation_noise=0.3)
    starts, seen = np.zeros((2000, 2)), []
    policy = from_policy(problem, lambda y: [seen.append(y), 0 * y[:, :1]][1])
    rollout(problem, policy, starts, steps=2, seed=4)
    assert np.std(seen, axis=(0, 1)) == pytest.approx(0.3, rel=0.05)
    rollout(problem, policy, starts, steps=1)
    assert not seen[-1].any()
    told = optctl.compare(problem, {"watching": policy}, num_starts=3, seeds=(1, 2), reference=None)
    assert told.noise_seeds == (1, 2) and any("watching" in note for note in told.notes)


def test_compare_measures_its_gap_to_the_proved_optimum():
    """The Riccati gain as someone else's policy, u = 3 a: no gap, but for observations in float32; half of it: a gap."""
    problem = optctl.make("double-integrator")
    gain = lqr(problem).K
    policies = [from_policy(problem, lambda y, part=part: -part * y @ gain.T / 3, f"{part:g} K") for part in (1.0, 0.5)]
    comparison = optctl.compare(problem, ["optimal", *policies], num_starts=20)
    gaps = [comparison[policy.name].gap.mean.estimate for policy in policies]
    assert abs(gaps[0]) < 1e-6 < 0.05 < gaps[1]


def test_what_is_no_policy():
    with pytest.raises(ArgumentError, match="`act` must be a function of observations, but is 3"):
        from_policy("pendulum", 3)
