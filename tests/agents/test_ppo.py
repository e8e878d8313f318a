import pytest
import torch

from optctl.agents.on_policy.ppo import PPO, PPOConfig
from optctl.errors import ArgumentError
from optctl.learning.data.rollouts import Rollouts


def rollouts(agent, reward, horizon=8, num=64, ended=0.0, seed=0):
    """Steps of the present policy at random observations, with `reward(action)`."""
    g = torch.Generator().manual_seed(seed)
    r = Rollouts(horizon, num, 3, 1)
    for k in range(horizon):
        obs = torch.randn(num, 3, generator=g)
        action = agent.act(obs, explore=True)
        flag = torch.full((num,), ended)
        r.put(k, obs, action, reward(action[:, 0]), torch.randn(num, 3, generator=g), flag, flag)
    return r


def test_the_policy_finds_the_best_action():
    # reward -(a - 0.5)^2 and every step ends the episode
    agent = PPO(3, 1, PPOConfig())
    for seed in range(60):
        agent.update(rollouts(agent, lambda a: -((a - 0.5) ** 2), ended=1.0, seed=seed))
    assert (agent.act(torch.randn(100, 3)) - 0.5).abs().mean() < 0.05
    assert agent.log_std.exp().item() < 0.6


def test_the_critic_learns_the_value_of_a_constant_reward_in_units_of_the_rewards():
    # reward 7 for ever, γ 0.5: V = 14; where every step ends: V = 7
    for ended, value in ((0.0, 14.0), (1.0, 7.0)):
        agent = PPO(3, 1, PPOConfig(gamma=0.5, lr=3e-3, target_kl=0.0))
        for seed in range(60):
            agent.update(rollouts(agent, lambda a: 7.0 + 0 * a, ended=ended, seed=seed))
        assert agent.value(torch.randn(100, 3)).mean().item() == pytest.approx(value, rel=0.05)


def test_new_units_of_the_returns_leave_predictions_as_they_are():
    agent, obs = PPO(3, 1, dtype=torch.float64), torch.randn(20, 3, dtype=torch.float64)
    before = agent.value(obs)
    agent._rescale(torch.tensor([100.0, 140.0, 90.0], dtype=torch.float64))
    assert agent.value_std > 10
    torch.testing.assert_close(agent.value(obs), before, atol=1e-9, rtol=1e-9)


def test_new_moments_of_the_observations_leave_policy_and_value_as_they_are():
    drawn = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    agent, obs = PPO(3, 1, dtype=torch.float64), drawn * torch.tensor([1.0, 2.0, 0.2]) + torch.tensor([0.0, 3.0, -1.0])
    for batch in (obs, 2 * obs + 1):
        before = agent.act(obs), agent.value(obs)
        agent._observe(batch)
        torch.testing.assert_close((agent.act(obs), agent.value(obs)), before, atol=1e-9, rtol=1e-9)
    assert agent.normalizer.mean[1] > 2


def test_the_step_size_follows_the_divergence():
    agent = PPO(3, 1, PPOConfig(lr=1e-3, target_kl=0.01))
    nothing = (torch.zeros_like(agent.actor.values), torch.zeros(1, 1), torch.zeros_like(agent.critic.values))
    for divergence, factor in ((0.03, 1 / 1.5), (0.01, 1.0), (0.004, 1.5)):
        before = agent.lr.item()
        agent._step(nothing, torch.tensor(divergence))
        assert agent.lr.item() == pytest.approx(before * factor)
    for _ in range(50):
        agent._step(nothing, torch.tensor(1.0))
    assert agent.lr.item() == pytest.approx(1e-5)


def test_gradients_are_scaled_down_to_the_largest_norm_allowed():
    agent = PPO(3, 1, PPOConfig(max_grad_norm=1.0, target_kl=0.0))
    seen = {}
    agent.actor_optimizer.step = lambda gradient: seen.update(actor=gradient.norm())
    agent.critic_optimizer.step = lambda gradient: seen.update(critic=gradient.norm())
    agent._step(
        (torch.ones_like(agent.actor.values), torch.zeros(1, 1), 1e-3 * torch.ones_like(agent.critic.values)),
        torch.tensor(0.0),
    )
    assert seen["actor"].item() == pytest.approx(1.0, rel=1e-4)
    assert seen["critic"].item() == pytest.approx(1e-3 * agent.critic.values.numel() ** 0.5, rel=1e-4)


def test_exploration_is_not_clipped_and_the_policy_is():
    agent, obs = PPO(3, 1, PPOConfig(initial_std=3.0)), torch.randn(500, 3)
    assert agent.act(obs, explore=True).abs().max() > 1
    with torch.no_grad():
        agent.actor.values.fill_(1.0)
    assert agent.act(obs).abs().max() == 1


def test_a_wrong_setting_names_itself():
    for name, value in (("clip", 0.0), ("lam", 1.5), ("epochs", 0), ("initial_std", 0.0), ("target_kl", -1.0)):
        with pytest.raises(ArgumentError, match=f"Argument `{name}` must be"):
            PPOConfig(**{name: value})
