from itertools import islice

import torch
from torch_pendulum import TorchPendulum

from optctl.agents.on_policy.ppo import PPO
from optctl.training.loops.on_policy import OnPolicyConfig, OnPolicyLoop


def make(**options):
    env = TorchPendulum(8)
    return OnPolicyLoop(env, PPO(env.obs_dim, env.action_dim), OnPolicyConfig(horizon=25), seed=0, **options)


def test_episodes_begin_one_after_the_other_and_each_end_is_marked():
    loop = make()
    done = torch.cat([loop.rollouts.done.clone() for _ in islice(loop, 16)])  # two episodes of 200 steps
    ends = [(done[:, i].nonzero()[:, 0] + 1).tolist() for i in range(8)]
    # environment i is begun anew at step 25 i, and ends by itself 200 steps later; nothing else ends
    assert ends == [[200, 400], *([25 * i, 25 * i + 200] for i in range(1, 8))]
    assert sorted(loop.env.clock.tolist()) == [0, 25, 50, 75, 100, 125, 150, 175]


def test_a_step_that_is_cut_keeps_its_last_observation():
    loop = make()
    list(islice(loop, 1))  # environment 1 is begun anew after the last step of this rollout
    rollouts = loop.rollouts
    assert rollouts.done[24].tolist() == [0, 1, 0, 0, 0, 0, 0, 0] and not rollouts.terminated.any()
    assert not torch.equal(rollouts.next_obs[24, 1], loop.obs[1])
    assert torch.equal(rollouts.next_obs[24, 0], loop.obs[0])
    assert torch.equal(rollouts.next_obs[:24], rollouts.obs[1:])


def test_rewards_are_scaled():
    plain, scaled = make(), make(reward_scale=0.25)
    list(islice(plain, 1)), list(islice(scaled, 1))
    torch.testing.assert_close(scaled.rollouts.reward, 0.25 * plain.rollouts.reward)
