import pytest
import torch

from optctl.learning.networks import ACTIVATIONS, MLP, Actor, Critic


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def test_mlp_by_hand():
    # x = 2: z = (2, -1), h = (2, 0), y = 2 * 2 + 0.5.   x = -1: z = (-1, 2), h = (0, 2), y = 3 * 2 + 0.5
    mlp = MLP((1, 2, 1), generator=generator())
    mlp.values.copy_(torch.tensor([[1.0, -1, 0, 1, 2, 3, 0.5]]))
    x = torch.tensor([[2.0, -1.0]])
    assert mlp(x).tolist() == [[[4.5, 6.5]]]
    assert mlp.forward(x)[0].tolist() == [[[4.5, 6.5]]]


def test_first_weights_fill_the_interval_of_their_fan_in():
    mlp = MLP((100, 50, 1), generator=generator(), last_scale=0.01)
    assert 0.099 < mlp.weights[0].abs().max() <= 0.1
    assert mlp.weights[1].abs().max() <= 0.01 / 50**0.5


def test_members_differ_and_do_not_mix():
    mlp = MLP((3, 8, 2), members=2, generator=generator(), dtype=torch.float64)
    x = randn(3, 5)
    before = mlp.forward(x)[0].clone()
    assert not torch.allclose(before[0], before[1])
    mlp.values[1] = 0
    after = mlp.forward(x)[0]
    assert torch.equal(after[0], before[0]) and (after[1] == 0).all()


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_hand_written_gradients_equal_autograd(activation, layer_norm):
    options = {"activation": activation, "layer_norm": layer_norm, "dtype": torch.float64}
    mlp = MLP((3, 8, 7, 2), members=2, generator=generator(), **options)
    x, grad = randn(2, 3, 11).requires_grad_(), randn(2, 2, 11, seed=2)
    expected_flat, expected_x = torch.autograd.grad(mlp(x), (mlp.flat, x), grad)
    y, tape = mlp.forward(x.detach())
    torch.testing.assert_close(y, mlp(x).detach())
    torch.testing.assert_close(mlp.backward(tape, grad), expected_flat)
    torch.testing.assert_close(mlp.input_gradient(tape, grad), expected_x)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_a_short_gradient_belongs_to_the_first_columns(layer_norm):
    mlp = MLP((3, 8, 8, 2), generator=generator(), layer_norm=layer_norm, dtype=torch.float64)
    _, tape = mlp.forward(randn(3, 10))
    grad = randn(1, 2, 10)
    grad[..., 4:] = 0
    torch.testing.assert_close(mlp.backward(tape, grad[..., :4].contiguous()).clone(), mlp.backward(tape, grad))


def test_layer_norm_standardises_the_hidden_layer():
    mlp = MLP((3, 64, 1), generator=generator(), layer_norm=True, dtype=torch.float64)
    hidden = mlp.forward(100 * randn(3, 5))[1].hidden[0]
    torch.testing.assert_close(hidden.mean(1), torch.zeros(1, 5, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(hidden.var(1, correction=0), torch.ones(1, 5, dtype=torch.float64), atol=1e-5, rtol=0)


@pytest.mark.parametrize("stretch", [1.0, 1.5])
def test_actor_gradient_equals_autograd_also_where_log_std_or_action_is_clamped(stretch):
    actor = Actor(3, 2, log_std_range=(-0.1, 0.1), stretch=stretch, generator=generator(), dtype=torch.float64)
    obs, noise, weight = randn(40, 3), randn(40, 2, seed=2), randn(40, 2, seed=3)
    mean, log_std = actor(obs)
    assert 0 < (log_std.abs() == 0.1).double().mean() < 1
    raw = mean + log_std.exp() * noise
    normal = torch.distributions.Normal(mean, log_std.exp())
    expected_log_prob = (normal.log_prob(raw) - torch.log(1 - raw.tanh() ** 2)).sum(-1)
    stretched = stretch * raw.tanh()  # the gradient passes the clamp unchanged
    (expected,) = torch.autograd.grad((weight * stretched).sum() + 0.7 * expected_log_prob.sum(), actor.mlp.flat)
    action, log_prob, tape = actor.forward(obs, noise)
    torch.testing.assert_close(action, stretched.detach().clamp(-1, 1))
    assert (action.abs() == 1).any() == (stretch > 1)
    torch.testing.assert_close(log_prob, expected_log_prob.detach())
    torch.testing.assert_close(actor.backward(tape, weight, torch.tensor([0.7], dtype=torch.float64)), expected)


def test_actor_mean_action_is_its_sample_without_noise():
    actor = Actor(3, 2, stretch=1.5, generator=generator(), dtype=torch.float64)
    obs = 5 * randn(4, 3)
    torch.testing.assert_close(actor.mean_action(obs), actor.forward(obs, torch.zeros(4, 2, dtype=torch.float64))[0])


def test_critic_action_gradient_equals_autograd():
    critic = Critic(3, 2, generator=generator(), dtype=torch.float64)
    obs, action, grad = randn(6, 3), randn(6, 2, seed=2).requires_grad_(), randn(2, 6, seed=3)
    (expected,) = torch.autograd.grad(critic(obs, action), action, grad)
    q, tape = critic.forward(obs, action.detach())
    assert q.shape == (2, 6)
    torch.testing.assert_close(critic.action_gradient(tape, grad), expected)


def test_losses_on_the_observation_gradient_reach_the_parameters():
    critic = Critic(2, 1, hidden=(5,), activation="tanh", generator=generator(), dtype=torch.float64)
    obs, action = randn(4, 2).requires_grad_(), randn(4, 1, seed=2)

    def costate_loss(flat):
        q = critic.mlp(torch.cat((obs.mT, action.mT)), flat)
        (costate,) = torch.autograd.grad(q.sum(), obs, create_graph=True)
        return (costate**2).sum()

    assert torch.autograd.gradcheck(costate_loss, critic.mlp.flat)


def test_writing_values_changes_the_network():
    a, b = (Critic(2, 1, generator=generator(seed), dtype=torch.float64) for seed in (0, 1))
    obs, action = randn(3, 2), randn(3, 1, seed=2)
    b.mlp.values.copy_(a.mlp.values)
    assert torch.equal(a(obs, action), b(obs, action))
