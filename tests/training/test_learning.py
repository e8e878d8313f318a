"""Learning against known optima: the Riccati solution of the double integrator, and the tabulated optimum of Pendulum-v1."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_are
from torch_pendulum import TorchDoubleIntegrator, TorchPendulum, midpoint_return

import optctl
from optctl.agents import AGENTS
from optctl.agents.off_policy.sac import SAC, SACConfig
from optctl.training.loops.off_policy import OffPolicyConfig, OffPolicyLoop
from optctl.training.run import TrainingRun
from optctl.training.settings import settings

PENDULUM = SACConfig()
DOUBLE_INTEGRATOR = SACConfig(target_entropy=0.0, polyak=0.1, decay_updates=8000, final_lr=0.02)


def train(env, config, updates, capacity, seed, reward_scale=1.0):
    agent = SAC(env.obs_dim, env.action_dim, config, seed=seed)
    settings = OffPolicyConfig(replay_capacity=capacity)
    loop = OffPolicyLoop(env, agent, settings, seed=seed, reward_scale=reward_scale)
    for _ in islice(loop, settings.warmup_steps + updates // settings.updates_per_step):
        pass
    return agent


def double_integrator_gap(policy, starts=1000):
    """Paired with the optimum x'Px of the undiscounted problem, from U(-1, 1)^2 over 100 steps: mean cost / mean optimum - 1.

    The optimal cost of the first 100 steps is x'Px to 1e-7, because the closed loop has a time constant of about one second.
    """
    env = TorchDoubleIntegrator(starts, dtype=torch.float64)
    a, b = np.array([[1, env.dt], [0, 1]]), np.array([[env.dt**2 / 2], [env.dt]])
    riccati = torch.tensor(solve_discrete_are(a, b, np.eye(2) * env.dt, np.eye(1) * env.dt))
    start = state = torch.rand(starts, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(12345)) * 2 - 1
    cost = torch.zeros(starts, dtype=torch.float64)
    for _ in range(100):
        state, reward = env.advance(state, policy(state.float()).double())
        cost -= reward
    optimum = torch.einsum("bi,ij,bj->b", start, riccati, start)
    return float(cost.mean() / optimum.mean() - 1)


def test_the_gap_of_the_optimal_gain_is_zero_and_of_a_wrong_one_positive():
    # K = (R + B'PB)^-1 B'PA = (0.91707, 1.63560) at dt = 0.1; the continuous problem has (1, sqrt 3)
    gain = torch.tensor([[0.91707456], [1.63559619]])
    policy = lambda gain: lambda obs: -obs @ gain / TorchDoubleIntegrator.scale
    assert abs(double_integrator_gap(policy(gain))) < 1e-6
    assert double_integrator_gap(policy(0.7 * gain)) > 0.02


def test_doing_nothing_on_the_pendulum_costs_what_the_formula_says():
    # hanging at rest with no torque: pi^2 per step, 200 steps
    env = TorchPendulum(1, dtype=torch.float64)
    state, total = torch.tensor([[torch.pi, 0.0]], dtype=torch.float64), 0.0
    for _ in range(200):
        state, reward = env.advance(state, torch.zeros(1, 1, dtype=torch.float64))
        total += reward.item()
    assert total == pytest.approx(-200 * np.pi**2, rel=1e-9)


def test_a_short_run_of_sac_already_comes_near_the_riccati_optimum():
    # seeds 0 and 1 end at 3 % and 8 %; a policy that does nothing costs several times the optimum
    config = replace(DOUBLE_INTEGRATOR, decay_updates=1000)
    agent = train(TorchDoubleIntegrator(256), config, 1000, 50_000, seed=0)
    assert -1e-6 < double_integrator_gap(agent.act, starts=200) < 0.15


@pytest.mark.prove
def test_sac_is_within_two_percent_of_the_riccati_optimum():
    gaps = [
        double_integrator_gap(train(TorchDoubleIntegrator(256), DOUBLE_INTEGRATOR, 8000, 50_000, seed).act)
        for seed in range(3)
    ]
    assert min(gaps) > -1e-6
    assert np.median(gaps) < 0.02, gaps


@pytest.mark.prove
@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_comes_near_the_riccati_optimum(name):
    problem = optctl.make("double-integrator")
    starts = problem.initial_state.sample(np.random.default_rng(2024), 200)
    optimum = optctl.solve_many(problem, starts).values.mean()
    s = settings(name, problem)
    gaps = []
    for seed in range(3):
        run = TrainingRun(name, problem, agent_config=s.agent, loop_config=s.loop, config=s.train, seed=seed)
        for _ in run.iterate():
            pass
        gaps.append(run.evaluate(starts) / optimum - 1)
    assert min(gaps) > -1e-6
    assert np.median(gaps) < 0.03, gaps


@pytest.mark.prove
@pytest.mark.parametrize("seed", range(3))
def test_sac_swings_the_pendulum_up(seed):
    # the optimum is -136.7 +- 0.3 by dynamic programming on the exact plant
    value = midpoint_return(train(TorchPendulum(128), PENDULUM, 2400, 100_000, seed, reward_scale=0.1).act)
    assert -150 < value < -136.4
