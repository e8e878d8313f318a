"""Two plants in plain torch with the `VectorEnv` contract, for testing `optctl.learning` without the simulation layer."""

from __future__ import annotations

import math

import torch


class TorchEnv:
    """SAME_STEP autoreset around `start(n)`, `advance(state, action) -> (state, reward)` and `observe(state)`."""

    obs_dim: int
    action_dim = 1
    max_episode_steps: int

    def __init__(self, num_envs, *, device="cpu", dtype=torch.float32):
        self.num_envs, self.device, self.dtype = num_envs, torch.device(device), dtype
        self.generator = torch.Generator(device)
        self.state = torch.zeros(num_envs, 2, device=device, dtype=dtype)
        self.clock = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self.never = torch.zeros(num_envs, dtype=torch.bool, device=device)

    def uniform(self, n):
        return torch.rand(n, 2, device=self.device, dtype=self.dtype, generator=self.generator) * 2 - 1

    def reset(self, seed=None, options=None):
        if seed is not None:
            self.generator.manual_seed(seed)
        mask = (options or {}).get("mask", torch.ones_like(self.never))
        self.state = torch.where(mask[:, None], self.start(self.num_envs), self.state)
        self.clock = torch.where(mask, 0, self.clock)
        return self.observe(self.state), {}

    def step(self, action):
        self.state, reward = self.advance(self.state, action)
        self.clock = self.clock + 1
        final_obs = self.observe(self.state)
        truncated = self.clock >= self.max_episode_steps
        self.state = torch.where(truncated[:, None], self.start(self.num_envs), self.state)
        self.clock = torch.where(truncated, 0, self.clock)
        return self.observe(self.state), reward, self.never, truncated, {"final_obs": final_obs}

    def state_dict(self):
        return {"state": self.state, "clock": self.clock, "generator": self.generator.get_state()}

    def load_state_dict(self, state):
        self.state, self.clock = state["state"].clone(), state["clock"].clone()
        self.generator.set_state(state["generator"])


class TorchPendulum(TorchEnv):
    """Gymnasium's Pendulum-v1: dt 0.05, g 10, |u| <= 2, |omega| <= 8, cost of the state before the step, 200 steps."""

    obs_dim, max_episode_steps = 3, 200

    def start(self, n):
        return self.uniform(n) * torch.tensor([math.pi, 1.0], device=self.device, dtype=self.dtype)

    def observe(self, state):
        theta, omega = state.unbind(-1)
        return torch.stack((theta.cos(), theta.sin(), omega), -1)

    def advance(self, state, action):
        theta, omega = state.unbind(-1)
        torque = 2 * action[:, 0].clamp(-1, 1)
        wrapped = torch.remainder(theta + math.pi, 2 * math.pi) - math.pi
        cost = wrapped**2 + 0.1 * omega**2 + 0.001 * torque**2
        omega = (omega + (15 * theta.sin() + 3 * torque) * 0.05).clamp(-8, 8)
        return torch.stack((theta + omega * 0.05, omega), -1), -cost


def midpoint_return(policy):
    """Mean undiscounted return over the 80 x 25 midpoint starts, in float64; `policy` maps float32 observations to actions."""
    env = TorchPendulum(2000, dtype=torch.float64)
    theta = (torch.arange(80, dtype=torch.float64) + 0.5) / 80 * 2 * math.pi - math.pi
    omega = (torch.arange(25, dtype=torch.float64) + 0.5) / 25 * 2 - 1
    state, total = torch.cartesian_prod(theta, omega), 0.0
    for _ in range(200):
        state, reward = env.advance(state, policy(env.observe(state).float()).double())
        total = total + reward
    return float(total.mean())


class TorchDoubleIntegrator(TorchEnv):
    """x'' = u, cost the integral of x'x + u^2, here by zero-order hold with dt 0.1 and the cost l(x, u) dt; 100 steps.

    A = [[1, dt], [0, 1]] and B = [dt^2 / 2, dt] are exact. u = scale * action.
    """

    obs_dim, max_episode_steps, dt, scale = 2, 100, 0.1, 4.0

    def start(self, n):
        return self.uniform(n)

    def observe(self, state):
        return state.clone()

    def advance(self, state, action):
        q, v = state.unbind(-1)
        u = self.scale * action[:, 0].clamp(-1, 1)
        cost = (q**2 + v**2 + u**2) * self.dt
        return torch.stack((q + self.dt * v + 0.5 * self.dt**2 * u, v + self.dt * u), -1), -cost
