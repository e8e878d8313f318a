import pytest
import torch

from optctl.agents.off_policy.td3 import TD3, TD3Config
from optctl.errors import ArgumentError
from optctl.learning.data.replay import Transition
from optctl.learning.hooks import Hooks


def batch(num_batches=1, size=32, seed=0, **replace):
    g = torch.Generator().manual_seed(seed)
    randn = lambda *shape: torch.randn(num_batches, size, *shape, generator=g)
    fields = Transition(randn(3), randn(1).tanh(), randn(), randn(3), torch.zeros(num_batches, size))
    return fields._replace(**replace)


def agent(seed=0, hooks=None, **config):
    return TD3(3, 1, TD3Config(**config), seed=seed, hooks=hooks)


def test_critic_learns_the_value_of_a_constant_reward():
    # reward 1 for ever: Q = 1 / (1 - 0.5) = 2; where every transition ends: Q = 1
    for ended, value in ((0.0, 2.0), (1.0, 1.0)):
        td3 = agent(gamma=0.5, polyak=0.1, critic_lr=3e-3)
        data = batch(1, 256, reward=torch.ones(1, 256), terminated=torch.full((1, 256), ended))
        for _ in range(600):
            metrics = td3.update(data, update_actor=False)
        assert metrics["q"].mean().item() == pytest.approx(value, rel=0.02)


def test_actor_climbs_the_critic():
    # reward -(a - 0.5)^2 and every transition ends: the best action is 0.5 everywhere
    td3 = agent(actor_lr=3e-3, critic_lr=3e-3, average_rate=0.05)
    action = torch.rand(1, 512, 1, generator=torch.Generator().manual_seed(1)) * 2 - 1
    data = batch(1, 512)._replace(action=action, reward=-((action[..., 0] - 0.5) ** 2), terminated=torch.ones(1, 512))
    for _ in range(800):
        td3.update(data)
    assert (td3.act(data.obs[0]) - 0.5).abs().mean() < 0.08


def test_actor_and_targets_wait_for_their_delay():
    td3 = agent(actor_delay=3)
    before = {name: network.values.clone() for name, network in td3.networks.items()}
    td3.update(batch(2))
    moved = {name for name, network in td3.networks.items() if not torch.equal(network.values, before[name])}
    assert moved == {"critic"}
    td3.update(batch(1))
    assert all(not torch.equal(network.values, before[name]) for name, network in td3.networks.items())


def test_the_first_environment_explores_least_and_the_last_one_most():
    td3 = agent(least_noise=0.0, most_noise=0.3)
    obs = torch.zeros(3, 3)
    drawn = torch.stack([td3.act(obs, explore=True) for _ in range(2000)])[..., 0]
    assert drawn[:, 0].std() < 1e-6
    assert drawn[:, 1].std().item() == pytest.approx(0.15, rel=0.1)
    assert drawn[:, 2].std().item() == pytest.approx(0.3, rel=0.1)


def test_the_target_takes_the_least_critic_at_a_smoothed_action():
    # Q_e(s, a) = e |a|-free: the members are constants 2 and 1, so the target is r + γ · 1
    td3 = agent(hidden=(4,), gamma=0.5)
    td3.target_critic.mlp.values.zero_()
    td3.target_critic.mlp.biases[-1][0], td3.target_critic.mlp.biases[-1][1] = 2.0, 1.0
    metrics = td3.update(batch(1, reward=torch.ones(1, 32)))
    torch.testing.assert_close(metrics["q_target"], torch.full((32,), 1.5))


def test_the_gradient_of_the_actor_is_that_of_autograd():
    td3, obs = agent(actor_delay=1, stretch=1.0), batch().obs[0]
    action, tape = td3.actor.forward(obs)
    grad = torch.randn(action.shape, generator=torch.Generator().manual_seed(2))
    by_hand = td3.actor.backward(tape, grad).clone()
    by_autograd = torch.autograd.grad((td3.actor.policy(obs) * grad).sum(), td3.actor.mlp.flat)[0]
    torch.testing.assert_close(by_hand, by_autograd)


def test_a_teacher_and_penalties_are_heeded():
    teacher = lambda obs: torch.full((obs.shape[0], 1), 0.9)
    td3, obs = agent(hooks=Hooks(teacher=teacher), hidden=(4,)), batch().obs[0]
    td3.critic.mlp.values.zero_()
    td3.critic.mlp.weights[0][:, 0, 3] = td3.critic.mlp.weights[1][:, 0, 0] = 1.0  # Q = max(action, 0)
    assert (td3.act(obs) == 0.9).all()
    pulled = agent(hooks=Hooks(actor_penalty=lambda td3, obs, batch: 1e3 * td3.actor.policy(obs).square().mean()))
    for _ in range(400):
        pulled.update(batch(1))
    assert pulled.act(obs).abs().mean() < 0.05


def test_a_wrong_setting_names_itself():
    for name, value in (("smoothing", -1.0), ("least_noise", -0.1), ("stretch", 3.0), ("actor_delay", 0)):
        with pytest.raises(ArgumentError, match=f"Argument `{name}` must be"):
            TD3Config(**{name: value})
