"""Captured steps are the steps."""

import pytest
import tiny
import torch
from torch import nn

from optctl.errors import ArgumentError
from optctl.simulation import CapturedSteps, make_vec


def policy_of(env):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(env.obs_dim, 64), nn.Tanh(), nn.Linear(64, env.action_dim)).to(env.device, env.dtype)


def test_captured_steps_equal_steps_bit_for_bit_through_restarts_resets_and_new_weights():
    captured, stepped = (make_vec(tiny.driven(observation_noise=0.1), 100, randomize=True) for _ in range(2))
    captured.reset(seed=1), stepped.reset(seed=1)
    policy = policy_of(captured)
    run = CapturedSteps(captured, policy, 4)
    for call in range(4):
        if call == 2:
            captured.reset(seed=2), stepped.reset(seed=2)
            with torch.no_grad():
                policy[0].weight.mul_(0.5)
        total = torch.zeros_like(run.rewards)
        with torch.no_grad():
            for _ in range(4):
                total += stepped.step(policy(stepped.obs))[1]
        assert torch.equal(run(), total)
        assert torch.equal(captured.obs, stepped.obs) and torch.equal(captured.episode_steps, stepped.episode_steps)


def test_a_wrong_number_of_steps():
    env = make_vec(tiny.counter(), 2)
    with pytest.raises(ArgumentError, match="`steps` must be a positive integer, but is 0"):
        CapturedSteps(env, policy_of(env), 0)
