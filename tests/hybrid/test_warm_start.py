"""The parts of the warm start, one at a time."""

import dataclasses

import numpy as np
import pytest
import torch

import optctl
from optctl.agents.off_policy.sac import SAC, SACConfig
from optctl.errors import ArgumentError
from optctl.hybrid.dataset import generate
from optctl.hybrid.warm_start import WarmStart, WarmStartConfig, demonstrate
from optctl.hybrid.warm_start.clone import Targets, Teacher, clone
from optctl.hybrid.warm_start.critic import collect, fit_critic
from optctl.learning.data.mixed import MixedReplay
from optctl.learning.data.replay import Replay, Transition

CONFIG = WarmStartConfig(num_starts=12, clone_updates=2000, critic_updates=600, critic_batch=128)


@pytest.fixture(scope="module")
def pendulum():
    problem = optctl.make("pendulum", steps=120)
    return problem, demonstrate(problem, CONFIG, gamma=0.98, seed=0)


def agent(data, gamma=0.98, **options):
    sac = SAC(data.obs.shape[1], data.action.shape[1], SACConfig(gamma=gamma, **options), seed=0)
    targets = Targets(data, sac.device, sac.dtype)
    sac.normalizer.update(targets.obs)
    sac.normalizer.freeze()
    return sac, targets


def rows(num, value):
    full = lambda *shape: torch.full((num, *shape), float(value))
    return Transition(full(2), full(1), full(), full(2), torch.zeros(num))


def test_the_share_of_demonstrations_falls_linearly_to_nothing():
    online = Replay(100, 2, 1)
    online.add(rows(100, 0.0))
    replay = MixedReplay(online, share=0.5, calls=4)
    replay.demonstrate(rows(30, 1.0))
    generator = torch.Generator().manual_seed(0)
    shown = [replay.sample(40, 2, generator).reward.sum(dim=1).tolist() for _ in range(6)]
    assert shown == [[20, 20], [15, 15], [10, 10], [5, 5], [0, 0], [0, 0]]
    again = MixedReplay(Replay(100, 2, 1), share=0.5, calls=4)
    again.load_state_dict(replay.state_dict())
    assert (again.done, len(again)) == (6, 100)
    assert torch.equal(again.demonstrations.sample(9, 1, generator).reward, torch.ones(1, 9))


def test_the_costate_loss_is_that_of_differences_of_the_critic(pendulum):
    """Through the observation (cos θ, sin θ, ω): ∂Q/∂x by central differences in float64, Huber by hand."""
    problem, data = pendulum
    sac = SAC(problem.n_y, 1, SACConfig(), dtype=torch.float64, seed=1)
    targets = Targets(data, sac.device, sac.dtype, reward_scale=0.3)
    sac.normalizer.update(targets.obs)
    index = torch.arange(0, len(data), 37)
    scale, x, t = 0.3, data.state[index], data.time[index]

    def q(states):
        obs = np.asarray(problem.observation_function(states.T, problem.param_values, t[None])).T
        with torch.no_grad():
            return sac.critic(sac.normalizer(torch.as_tensor(obs)), targets.action[index]).numpy()

    slopes = np.stack([(q(x + h) - q(x - h)) / 2e-6 for h in 1e-6 * np.eye(2)], axis=-1)
    error = (data.state.std(axis=0) + 1e-6) * (slopes + scale * data.discounted_gradient[index])
    huber = np.where(np.abs(error) < 1, 0.5 * error**2, np.abs(error) - 0.5).mean()
    mean = np.square(q(x) + scale * data.discounted_value[index]).mean()
    for weights, expected in (((1.0, 0.0), mean), ((0.0, 1.0), huber), ((2.0, 0.5), 2 * mean + 0.5 * huber)):
        assert sac_loss(targets, sac, index, *weights) == pytest.approx(expected, rel=1e-5)


def sac_loss(targets, sac, index, *weights):
    return targets.critic_loss(sac, index, *weights).item()


def test_the_costate_loss_is_over_the_gradients_that_are_given(pendulum):
    _, data = pendulum
    gradient = data.discounted_gradient.copy()
    gradient[::2] = np.nan
    sac, targets = agent(dataclasses.replace(data, discounted_gradient=gradient))
    index = torch.arange(0, 40)
    weights = {"value_weight": 0.0, "costate_weight": 1.0}
    loss = targets.critic_loss(sac, index, **weights)
    torch.testing.assert_close(loss, targets.critic_loss(sac, index[1::2], **weights))
    assert torch.autograd.grad(loss, sac.critic.mlp.flat)[0].isfinite().all()
    assert targets.critic_loss(sac, index[::2], **weights) == 0


def test_cloning_fits_the_actions_with_the_spread_asked_for(pendulum):
    _, data = pendulum
    sac, targets = agent(data)
    before = sac.critic.mlp.values.clone()
    clone(sac, targets, CONFIG, torch.Generator().manual_seed(0))
    error = (sac.act(targets.obs) - targets.action).square().mean().item()
    assert error < 0.05 * targets.action.var().item()
    with torch.no_grad():
        _, log_std = sac.actor(sac.normalizer(targets.obs))
    assert log_std.exp().median().item() == pytest.approx(CONFIG.initial_std, rel=0.1)
    assert torch.equal(sac.critic.mlp.values, before)


def test_the_fitted_critic_knows_the_demonstrated_cost_to_go_and_the_actor_has_not_moved(pendulum):
    _, data = pendulum
    sac, targets = agent(data, initial_temperature=1e-6, temperature_lr=1e-12, critic_lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    clone(sac, targets, CONFIG, generator)
    replay = MixedReplay(Replay(1000, 3, 1), 0.5, 10)
    replay.demonstrate(targets.transition)
    replay.add(Transition(*(field[:500] for field in targets.transition)))
    actor, index = sac.actor.mlp.values.clone(), torch.arange(len(data))
    loss = lambda: sac_loss(targets, sac, index, 1.0, 0.0) / (targets.reward_scale * targets.value).var().item()
    first = loss()
    fit_critic(sac, replay, targets, CONFIG, generator)
    assert loss() < min(0.1, 0.2 * first)
    assert torch.equal(sac.actor.mlp.values, actor)
    assert sac.hooks.critic_penalty is None


def test_the_teacher_stays_when_the_actor_goes(pendulum):
    _, data = pendulum
    sac, targets = agent(data)
    teacher = Teacher(sac)
    said = teacher(targets.obs[:9]).clone()
    with torch.no_grad():
        sac.actor.mlp.values.add_(0.1)
    assert torch.equal(teacher(targets.obs[:9]), said)


def test_reviews_keep_the_best_and_take_back_who_falls_behind(pendulum):
    problem, data = pendulum
    sac, _ = agent(data)
    warm = WarmStart(problem, sac, Replay(10, 3, 1), dataclasses.replace(CONFIG, review_tolerance=0.1))
    values = sac.actor.mlp.values

    def reviewed(value, cost):
        with torch.no_grad():
            values.fill_(value)
        warm.review(cost)
        return values[0, 0].item() if values.dim() > 1 else values[0].item(), warm.kept.actor.mlp.values.unique().item()

    assert reviewed(1.0, 10.0) == (1.0, 1.0)
    assert reviewed(2.0, 8.0) == (2.0, 2.0)  # better: kept
    assert reviewed(3.0, 8.7) == (3.0, 2.0)  # worse, within the tolerance: goes on
    assert reviewed(4.0, 8.9) == (2.0, 2.0)  # fell behind: taken back
    assert reviewed(5.0, float("nan")) == (2.0, 2.0)
    assert reviewed(6.0, float("inf")) == (2.0, 2.0)
    assert warm.kept_cost == 8.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_starts": 0}, "`num_starts` must be at least 1, but is 0"),
        ({"value_weight": float("nan")}, "`value_weight` must be at least 0"),
        ({"clone_lr": 0.0}, "`clone_lr` must be positive"),
        ({"demonstration_share": 1.5}, r"`demonstration_share` must be in \[0, 1\], but is 1.5"),
    ],
)
def test_bad_settings(options, words):
    with pytest.raises(ArgumentError, match=words):
        WarmStartConfig(**options)


def test_a_data_set_serves_as_demonstrations_as_newly_solved_ones_do(tmp_path):
    problem = optctl.make("double-integrator")
    made = generate(problem, 5, tmp_path, seed=0)
    config = dataclasses.replace(CONFIG, num_starts=3, dataset=str(tmp_path), perturbed=0.0)
    shown = demonstrate(problem, config)
    assert len(shown) <= 3 * problem.steps
    np.testing.assert_array_equal(shown.state[:30], made.trajectory.states[0, :30])
    np.testing.assert_allclose(shown.costate[0], made.trajectory.costates[0, 0])
    with pytest.raises(
        ArgumentError, match="`dataset` must be one of `mass-spring`, but is one of `double-integrator`"
    ):
        demonstrate(optctl.make("mass-spring"), config)


def test_collected_rewards_are_scaled():
    plain, scaled = Replay(100, 3, 1), Replay(100, 3, 1)
    for replay, scale in ((plain, 1.0), (scaled, 0.25)):
        env = optctl.make_vec("pendulum-v1", 4)
        collect(env, SAC(3, 1, seed=0), replay, steps=5, seed=0, reward_scale=scale)
    torch.testing.assert_close(scaled.rows[:20, 4], 0.25 * plain.rows[:20, 4])
    assert plain.rows[:20, 4].abs().min() > 0
