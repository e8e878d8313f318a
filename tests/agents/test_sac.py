import math

import pytest
import torch
from torch_pendulum import TorchPendulum

from optctl.agents.off_policy.sac import SAC, SACConfig
from optctl.learning.data.replay import Transition
from optctl.learning.hooks import Hooks


def batch(num_batches=1, size=32, obs_dim=3, action_dim=1, seed=0, **replace):
    g = torch.Generator().manual_seed(seed)
    randn = lambda *shape: torch.randn(num_batches, size, *shape, generator=g)
    fields = Transition(
        randn(obs_dim), randn(action_dim).tanh(), randn(), randn(obs_dim), torch.zeros(num_batches, size)
    )
    return fields._replace(**replace)


def agent(seed=0, obs_dim=3, action_dim=1, **config):
    hooks = {key: config.pop(key) for key in ("teacher", "actor_penalty", "critic_penalty") if key in config}
    return SAC(obs_dim, action_dim, SACConfig(**config), seed=seed, hooks=Hooks(**hooks))


def test_actions_lie_in_the_unit_box_and_only_exploration_is_random():
    sac, obs = agent(action_dim=2), torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    a, b = sac.act(obs, explore=True), sac.act(obs, explore=True)
    assert a.shape == (50, 2) and a.abs().max() <= 1 and not torch.equal(a, b)
    assert torch.equal(sac.act(obs), sac.act(obs, explore=False))


def test_randomness_is_the_agents_own():
    torch.manual_seed(0)
    first, second = agent(seed=3), None
    torch.manual_seed(1)
    second = agent(seed=3)
    for sac in (first, second):
        sac.update(batch(3))
    assert torch.equal(first.actor.mlp.values, second.actor.mlp.values)
    assert not torch.equal(first.actor.mlp.values, agent(seed=4).actor.mlp.values)


def test_critic_learns_the_value_of_a_constant_reward():
    # reward 1 for ever, no entropy bonus: Q = 1 / (1 - 0.5) = 2; where every transition ends: Q = 1
    quiet = {"gamma": 0.5, "initial_temperature": 1e-9, "temperature_lr": 1e-12, "polyak": 0.1, "critic_lr": 3e-3}
    for ended, value in ((0.0, 2.0), (1.0, 1.0)):
        sac = agent(**quiet)
        data = batch(1, 256, reward=torch.ones(1, 256), terminated=torch.full((1, 256), ended))
        for _ in range(500):
            metrics = sac.update(data, update_actor=False)
        assert metrics["q"].mean().item() == pytest.approx(value, rel=0.02)


def test_actor_climbs_the_critic():
    # reward -(a - 0.5)^2 and every transition ends: the best action is 0.5 everywhere
    sac = agent(initial_temperature=1e-3, temperature_lr=1e-12, actor_lr=3e-3, critic_lr=3e-3, average_rate=0.05)
    data = batch(1, 512)
    action = torch.rand(1, 512, 1, generator=torch.Generator().manual_seed(1)) * 2 - 1
    data = data._replace(action=action, reward=-((action[..., 0] - 0.5) ** 2), terminated=torch.ones(1, 512))
    for _ in range(600):
        sac.update(data)
    assert (sac.act(data.obs[0]) - 0.5).abs().mean() < 0.08


def test_temperature_holds_the_entropy_at_its_target():
    sac = agent(target_entropy=-0.3, temperature_lr=1e-2, actor_lr=3e-3)
    data = batch(1, 256)
    entropy = [-sac.update(data)["log_prob"].mean().item() for _ in range(600)]
    assert sum(entropy[400:]) / 200 == pytest.approx(-0.3, abs=0.05)  # one batch alone is off by 0.1 and more


def test_evaluation_uses_the_averaged_actor():
    sac = agent(average_rate=0.25)
    before, obs = sac.actor.mlp.values.clone(), batch(1).obs[0]
    sac.update(batch(1))
    torch.testing.assert_close(sac.average_actor.mlp.values, 0.75 * before + 0.25 * sac.actor.mlp.values)
    assert torch.equal(sac.act(obs), sac.average_actor.mean_action(obs))


def test_followers_can_be_set_after_the_parameters_were_overwritten():
    sac, donor = agent(seed=0), agent(seed=1)
    sac.actor.mlp.values.copy_(donor.actor.mlp.values)
    sac.critic.mlp.values.copy_(donor.critic.mlp.values)
    sac.reset_followers()
    obs = batch(1).obs[0]
    assert torch.equal(sac.act(obs), donor.act(obs))
    assert torch.equal(sac.target_critic.mlp.values, donor.critic.mlp.values)


def test_temperature_has_a_floor():
    sac = agent(initial_temperature=0.02, least_temperature=0.01, temperature_lr=0.5, target_entropy=-50.0)
    sac.update(batch(20))
    assert sac.log_temperature.exp().item() == pytest.approx(0.01)


def test_fitting_the_critic_leaves_the_policy_alone():
    sac = agent()
    before = sac.actor.mlp.values.clone(), sac.log_temperature.clone(), sac.critic.mlp.values.clone()
    sac.update(batch(4), update_actor=False)
    assert torch.equal(sac.actor.mlp.values, before[0]) and torch.equal(sac.log_temperature, before[1])
    assert not torch.equal(sac.critic.mlp.values, before[2])


def test_actor_waits_for_its_delay():
    sac = agent(actor_delay=3)
    before = sac.actor.mlp.values.clone()
    sac.update(batch(2))
    assert torch.equal(sac.actor.mlp.values, before)
    sac.update(batch(1))
    assert not torch.equal(sac.actor.mlp.values, before)


def test_one_burst_equals_its_updates_one_by_one():
    together, apart = agent(), agent()
    whole = batch(4)
    noise = together._noise(4, 64)
    for sac, parts in (
        (together, [(whole, noise)]),
        (apart, [(Transition(*(f[i] for f in whole)), noise[i : i + 1]) for i in range(4)]),
    ):
        for part, own_noise in parts:
            sac._noise = lambda *shape, own_noise=own_noise: own_noise
            sac.update(part)
    assert torch.equal(together.actor.mlp.values, apart.actor.mlp.values)
    assert torch.equal(together.target_critic.mlp.values, apart.target_critic.mlp.values)


def test_learning_rates_fall_linearly_to_their_end():
    sac = agent(critic_lr=1e-2, actor_lr=2e-2, decay_updates=10, final_lr=0.2)
    sac.update(batch(5))
    assert sac.critic_optimizer.lr.item() == pytest.approx(0.6e-2)
    sac.update(batch(15))
    assert (sac.critic_optimizer.lr.item(), sac.actor_optimizer.lr.item()) == pytest.approx((0.2e-2, 0.4e-2))


def test_penalties_add_their_gradient():
    def pull_to_zero(sac, obs, batch):
        return 1e6 * sac.critic.mlp.flat.square().sum()

    sac = agent(critic_penalty=pull_to_zero)
    before = sac.critic.mlp.values.clone()
    sac.update(batch(1))
    # the first Adam step is lr * sign(gradient), and the penalty's gradient has the sign of the parameter
    assert ((before - sac.critic.mlp.values) * before.sign()).min() > 0

    def clone_zero(sac, obs, batch):
        mean, _ = sac.actor(obs)
        return 1e3 * mean.square().mean()

    sac = agent(actor_penalty=clone_zero)
    for _ in range(300):
        sac.update(batch(1))
    assert sac.act(batch(1).obs[0]).abs().mean() < 0.02


def test_the_better_of_actor_and_teacher_acts():
    teacher = lambda obs: torch.full((obs.shape[0], 1), 0.9)
    sac = agent(teacher=teacher, hidden=(4,))
    obs = batch(1).obs[0]
    for network in (sac.critic.mlp, sac.target_critic.mlp):
        network.values.zero_()
        network.weights[0][:, 0, 3] = 1.0  # Q = max(action, 0)
        network.weights[1][:, 0, 0] = 1.0
    assert (sac.act(obs) == 0.9).all()
    for network in (sac.critic.mlp, sac.target_critic.mlp):
        network.weights[1][:, 0, 0] = -1.0
    expected = sac.actor.mean_action(obs)
    assert torch.equal(sac.act(obs), torch.where(expected > 0.9, 0.9, expected))


def test_the_target_never_falls_below_the_teachers_value():
    quiet = {"gamma": 0.5, "initial_temperature": 1e-9, "temperature_lr": 1e-12}
    sac = agent(teacher=lambda obs: torch.full((obs.shape[0], 1), 0.9), hidden=(4,), **quiet)
    sac.target_critic.mlp.values.zero_()
    sac.target_critic.mlp.weights[0][:, 0, 3] = 1.0
    sac.target_critic.mlp.weights[1][:, 0, 0] = 1.0
    metrics = sac.update(batch(1, reward=torch.ones(1, 32)), update_actor=False)
    seen = metrics["q_target"]
    assert (
        seen >= 1 + 0.5 * 0.9 - 1e-6
    ).all()  # the actor's own value is max(action, 0), which is below 0.9 for most samples


def test_a_restored_agent_continues_with_the_same_bits():
    original = agent(seed=1)
    original.observe(batch(1, 64)._replace(obs=batch(1, 64).obs[0]))
    original.update(batch(3))
    restored = agent(seed=2)
    copy = lambda state: {
        k: copy(v) if isinstance(v, dict) else v.clone() if hasattr(v, "clone") else v for k, v in state.items()
    }
    restored.load_state_dict(copy(original.state_dict()))
    for sac in (original, restored):
        sac.update(batch(5, seed=7))
    for name in ("actor", "critic", "target_critic"):
        assert torch.equal(getattr(original, name).mlp.values, getattr(restored, name).mlp.values)
    obs = batch(1).obs[0]
    assert torch.equal(original.act(obs, explore=True), restored.act(obs, explore=True))


def test_state_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"actor parameters of shape .* saved with another configuration"):
        agent().load_state_dict(agent(hidden=(8, 8)).state_dict())


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("hidden", (), "a tuple of positive widths"),
        ("hidden", (64, 0), "a tuple of positive widths"),
        ("activation", "gelu", "one of relu, silu, tanh"),
        ("gamma", "high", r"in \(0, 1\]"),
        ("gamma", 1.5, r"in \(0, 1\]"),
        ("gamma", math.nan, r"in \(0, 1\]"),
        ("average_rate", 0.0, r"in \(0, 1\]"),
        ("polyak", 0.0, r"in \(0, 1\]"),
        ("stretch", 0.9, r"in \[1, 2\]"),
        ("critic_lr", 0.0, "positive and finite"),
        ("members", 0, "at least 1"),
        ("actor_delay", 0, "at least 1"),
        ("final_lr", 2.0, r"in \[0, 1\]"),
        ("decay_updates", -1, "at least 0 and finite"),
        ("least_temperature", -1.0, "at least 0 and finite"),
        ("target_entropy", math.nan, "finite or None"),
        ("log_std_range", (2.0, -5.0), "two increasing numbers"),
    ],
)
def test_a_wrong_setting_names_itself(name, value, sentence):
    with pytest.raises(ValueError, match=f"Argument `{name}` must be {sentence}, but is"):
        SACConfig(**{name: value})


def test_float64_and_several_actions():
    sac = SAC(3, 2, SACConfig(), dtype=torch.float64)
    data = Transition(*(field.double() for field in batch(2, action_dim=2)))
    assert sac.update(data)["q"].dtype == torch.float64
    assert sac.act(TorchPendulum(4, dtype=torch.float64).reset(seed=0)[0]).shape == (4, 2)
