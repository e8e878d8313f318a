"""Fused rollouts: where stepping would have led, to the bit; random actions that are random; networks that equal torch's."""

import itertools
from itertools import pairwise

import numpy as np
import pytest
import tiny
import torch
from scipy import stats
from torch import nn

from optctl.codegen.warp_source import Target
from optctl.envs import make
from optctl.errors import ArgumentError
from optctl.simulation import make_vec

BUFFERS = ("state", "obs", "episode_steps", "params")
PROBLEMS = {
    "pendulum": (make("pendulum-v1"), {"max_episode_steps": 5}),
    "driven": (tiny.driven(observation_noise=0.1), {"randomize": True}),
    "counter": (tiny.counter(), {}),
}


def network(env, *hidden, activation=nn.Tanh, squash=True):
    torch.manual_seed(0)
    widths = (env.obs_dim, *hidden, env.action_dim)
    layers = [layer for n, m in pairwise(widths) for layer in (nn.Linear(n, m), activation())]
    return nn.Sequential(*layers[:-1], *([nn.Tanh()] if squash else [])).to(env.dtype)


POLICIES = {
    "given": lambda env, steps: (torch.rand(steps, env.num_envs, env.action_dim, dtype=env.dtype) * 2.4 - 1.2).transpose(0, 1),
    "random": lambda env, steps: "random",
    "linear": lambda env, steps: nn.Linear(env.obs_dim, env.action_dim, bias=False).to(env.dtype),
    "tanh": lambda env, steps: network(env, 64, 64),
    "relu": lambda env, steps: network(env, 5, activation=nn.ReLU, squash=False),
}  # fmt: skip


def kinds():
    """Every policy with noise, parameters and two controls; the other problems, and float64, with those that differ in kind."""
    often = {("driven", name, "float32") for name in POLICIES} | {
        ("driven", name, "float64") for name in ("given", "tanh")
    }
    often |= {("pendulum", "random", "float32"), ("pendulum", "tanh", "float64"), ("counter", "given", "float32")}
    for case in itertools.product(PROBLEMS, POLICIES, ["float32", "float64"]):
        yield pytest.param(*case, marks=() if case in often else pytest.mark.prove)


@pytest.mark.parametrize(("problem", "policy", "dtype"), kinds())
def test_a_rollout_leaves_the_environment_where_its_steps_do(problem, policy, dtype):
    """Restarts in between, a tile and a bit; then on by steps of both, so that clocks and random streams agree, too."""
    (problem, options), num, steps = PROBLEMS[problem], 300, 12
    fused, stepped = (make_vec(problem, num, dtype=dtype, **options) for _ in range(2))
    fused.reset(seed=1), stepped.reset(seed=1)
    chosen = POLICIES[policy](fused, steps)
    (
        fused.reset(options={"mask": torch.arange(num) % 7 == 3}),
        stepped.reset(options={"mask": torch.arange(num) % 7 == 3}),
    )
    states, rewards, actions = fused.rollout(chosen, steps, save_every=3, record_actions=True)
    assert (
        states.shape == (num, 4, problem.n_x) and rewards.shape == (num, 4) and actions.shape == (num, 12, problem.n_u)
    )
    paid = []
    for k in range(steps):
        if isinstance(chosen, nn.Module):
            torch.testing.assert_close(actions[:, k], chosen(stepped.obs).detach(), rtol=1e-5, atol=1e-6)
        _, reward, terminated, truncated, _ = stepped.step(actions[:, k].contiguous())
        paid.append(reward.clone())
        going_on = ~(terminated | truncated)
        if k % 3 == 2:
            assert torch.equal(states[going_on, k // 3], stepped.state[going_on])
            torch.testing.assert_close(rewards[:, k // 3], paid[k - 2] + paid[k - 1] + paid[k])
    for name in BUFFERS:
        assert torch.equal(getattr(fused, name), getattr(stepped, name)), name
    for _ in range(6):
        more = actions[:, 0].contiguous()
        assert torch.equal(fused.step(more)[0], stepped.step(more)[0])


def test_the_saved_state_of_an_ended_episode_is_its_last():
    """From 1 with u = 1 three steps to 4: costs 1 + 4 + 9, and 10 · 4 at the end."""
    env = make_vec(tiny.counter(), 1, dtype="float64")
    env.reset(seed=0, options={"state": [[1.0]]})
    states, rewards, actions = env.rollout(torch.full((1, 3, 1), 0.5, dtype=torch.float64))
    assert states.tolist() == [[[4.0]]] and rewards.tolist() == [[-54.0]] and actions is None
    assert 1 <= env.state.item() <= 2 and env.episode_steps.tolist() == [0]


def test_random_actions_are_uniform_independent_and_of_each_environment_alone():
    env = make_vec(tiny.driven(diffusion=None, steps=50), 4000)
    env.reset(seed=0)
    whole = env.rollout("random", 100, record_actions=True).actions
    a = whole.double().numpy()
    assert a.min() >= -1 and a.max() < 1
    assert stats.kstest(a.ravel(), "uniform", (-1.0, 2.0)).pvalue > 1e-3
    assert len(np.unique(a[:, 0, 0])) > 3990
    flat = a.transpose(1, 2, 0).reshape(200, 4000)  # steps and controls against environments
    correlation = np.corrcoef(flat) - np.eye(200)
    assert np.abs(correlation).max() < 0.09  # 5.6 standard errors of 4,000 pairs
    assert abs(np.corrcoef(flat[:, :-1].ravel(), flat[:, 1:].ravel())[0, 1]) < 0.005  # neighbours
    few = make_vec(tiny.driven(diffusion=None, steps=50), 3)
    few.reset(seed=0)
    parts = [few.rollout("random", n, record_actions=True).actions for n in (30, 50, 20)]
    assert torch.equal(torch.cat(parts, 1), whole[:3])
    few.reset(seed=1)
    assert not (few.rollout("random", 100, record_actions=True).actions == whole[:3]).any(2).any()


def test_threads_do_not_change_bits():
    env = make_vec("cartpole", 20_001)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            env.reset(seed=0)
            results.append(env.rollout("random", 10).states.clone())
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


@pytest.mark.parametrize("policy", ["given", "random", "tanh"])
def test_the_kernel_of_a_gpu_computes_the_same(policy, monkeypatch):
    """Its source, one environment to a tile, compiled for the CPU: the scaffold is the same, the arithmetic that of CUDA's names."""
    problem, num, steps = tiny.driven(observation_noise=0.1), 5, 12
    env = make_vec(problem, num, randomize=True, dtype="float64")
    env.reset(seed=1)
    begun = env.state_dict()
    chosen = POLICIES[policy](env, steps)
    states, rewards, _ = env.rollout(chosen, steps, save_every=4)
    other = make_vec(problem, num, randomize=True, dtype="float64")
    other.load_state_dict(begun)
    written_for, gpu = [], Target("float64", "cuda")
    monkeypatch.setattr("optctl.simulation.rollout.target", lambda *_: written_for.append(gpu) or gpu)
    again = other.rollout(chosen, steps, save_every=4)
    assert written_for == [gpu]
    torch.testing.assert_close(again.states, states, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(again.rewards, rewards, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(other.obs, env.obs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.rollout("greedy", 3), "`policy` must be 'random', a tensor of actions or a network, but is 'greedy'"),
        (lambda e: e.rollout(print, 3), "`policy` must be 'random', a tensor of actions or a network, but is builtin"),
        (lambda e: e.rollout("random"), "`steps` must be a positive integer below 2³¹, but is None"),
        (lambda e: e.rollout("random", 0), "`steps` must be a positive integer below 2³¹, but is 0"),
        (lambda e: e.rollout("random", 4, save_every=3), "`save_every` must be a positive divisor of 4, but is 3"),
        (lambda e: e.rollout(torch.zeros(2, 1)), r"`policy` must have shape \(2, T, 1\), if actions, but has shape \(2, 1\)"),
        (lambda e: e.rollout(torch.zeros(2, 4, 1), 3), "`steps` must be 4, as many as there are actions, but is 3"),
        (lambda e: e.rollout(torch.zeros(2, 4, 1).double()), "`policy` must have dtype torch.float32"),
        (lambda e: e.rollout(torch.zeros(2, 4, 1, device="meta")), "`policy` must be on cpu, but is on meta"),
        (lambda e: e.rollout(nn.Linear(3, 1), 3), "`policy` must take 2 observations and give 1 actions, but takes 3 and gives 1"),
        (lambda e: e.rollout(nn.Sequential(nn.Linear(2, 4), nn.GELU(), nn.Linear(4, 1)), 3), "has the layers Linear, GELU, Linear"),
        (lambda e: e.rollout(nn.Sequential(nn.Linear(2, 1), nn.ReLU()), 3), "but has the layers Linear, ReLU"),
        (lambda e: e.rollout(nn.GRU(2, 1), 3), "but has the layers GRU"),
    ],
)  # fmt: skip
def test_wrong_arguments_get_one_clear_sentence(call, message):
    with pytest.raises(ArgumentError, match=message):
        call(make_vec(tiny.counter(), 2))
