"""Environments on a GPU: the CPU's trajectories to rounding, and captured graphs that equal eager steps to the bit."""

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from optctl.simulation import CapturedSteps, compile_problem, make_vec
from optctl.simulation.propagation import propagate

pytestmark = pytest.mark.gpu
NUM, STEPS = 1000, 12


def network(env):
    """Made on the CPU, so that its weights do not depend on the device."""
    torch.manual_seed(0)
    layers = [
        nn.Linear(env.obs_dim, 64),
        nn.Tanh(),
        nn.Linear(64, 64),
        nn.Tanh(),
        nn.Linear(64, env.action_dim),
        nn.Tanh(),
    ]
    return nn.Sequential(*layers).to(dtype=env.dtype).to(env.device)


def actions(env, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(env.num_envs, STEPS, env.action_dim, dtype=env.dtype, generator=generator) * 2.4 - 1.2).to(
        env.device
    )


POLICIES = {"given": actions, "random": lambda env: "random", "tanh": network}


@pytest.mark.parametrize("policy", POLICIES)
def test_rollouts(agrees, policy):
    def rollout(device):
        env = make_vec(tiny.driven(observation_noise=0.1), NUM, device=device, randomize=True, dtype="float64")
        env.reset(seed=1)
        return env.rollout(POLICIES[policy](env), STEPS, save_every=4)[:2]

    agrees(rollout, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-10)])
@pytest.mark.parametrize("problem", ["pendulum-v1", "cartpole", "qubit-transfer"])
def test_steps(agrees, problem, dtype, tolerance):
    def run(device):
        env = make_vec(problem, NUM, device=device, dtype=dtype)
        env.reset(seed=2)
        given = actions(env)
        rewards = [env.step(given[:, k].contiguous())[1].clone() for k in range(STEPS)]
        return [torch.stack(rewards), env.obs]

    agrees(run, rtol=tolerance, atol=tolerance)


def test_gradients_of_compiled_functions(agrees):
    def gradients(device):
        compiled = compile_problem("cartpole", device=device, dtype="float64")
        generator = torch.Generator().manual_seed(0)
        state = torch.randn(NUM, 4, dtype=torch.float64, generator=generator).to(device).requires_grad_()
        control = torch.randn(NUM, 1, dtype=torch.float64, generator=generator).to(device).requires_grad_()
        after, cost = compiled.step(state, control)
        return [after, *torch.autograd.grad(cost.sum() + after.square().sum(), (state, control))]

    agrees(gradients, rtol=1e-9, atol=1e-9)


def test_propagation(agrees):
    rng = np.random.default_rng(0)
    for n in (2, 3):
        h = rng.standard_normal((100, n, n)) + 1j * rng.standard_normal((100, n, n))
        h, start, times = h + h.conj().swapaxes(1, 2), np.eye(n)[0], np.linspace(0, 1, 50)
        agrees(
            lambda device, h=h, start=start, t=times: [propagate(h, start, t, device=device, dtype="float64")], 0, 1e-12
        )


def test_a_captured_graph_equals_eager_steps(device):
    if device != "cuda":
        pytest.skip("graphs are for CUDA")
    eager, captured = (
        make_vec(tiny.driven(observation_noise=0.1), 1024, device=device, randomize=True) for _ in range(2)
    )
    action = torch.rand(1024, 2, device=device)
    eager.reset(seed=0), captured.reset(seed=0)
    captured.step(action), eager.step(action)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        obs, reward, *_ = captured.step(action)
    for _ in range(10):
        graph.replay()
        expected, r, *_ = eager.step(action)
        assert torch.equal(obs, expected) and torch.equal(reward, r)


@torch.no_grad()
def test_captured_steps_equal_steps_through_restarts_resets_and_new_weights(device):
    captured, stepped = (
        make_vec(tiny.driven(observation_noise=0.1), 100, device=device, randomize=True) for _ in range(2)
    )
    captured.reset(seed=1), stepped.reset(seed=1)
    policy = network(captured)
    run = CapturedSteps(captured, policy, 4)
    for call in range(4):
        if call == 2:
            captured.reset(seed=2), stepped.reset(seed=2)
            policy[0].weight.mul_(0.5)
        total = torch.zeros_like(run.rewards)
        for _ in range(4):
            total += stepped.step(policy(stepped.obs))[1]
        assert torch.equal(run(), total)
        assert torch.equal(captured.obs, stepped.obs) and torch.equal(captured.episode_steps, stepped.episode_steps)
