"""How fast a problem is stepped: the bare kernel, the public step, through the Gymnasium adapter, with a network in torch (call by
call, and captured), and fused.

Beside each rate stands its limit on this machine, the smaller of two: memory bandwidth over the bytes that a step must move (what
stays in registers or in the tile of a rollout moves nothing), and the peak of arithmetic over the operations of a step, both as
`limits` measures them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from optctl.bench.limits import WEIGHTS, memory_bandwidth, peak_operations
from optctl.codegen.cache import load_module
from optctl.codegen.launch import RecordedLaunch, num_threads
from optctl.envs import resolve_problem
from optctl.interop.gymnasium import GymVectorEnv
from optctl.problem import Problem
from optctl.simulation.graph import CapturedSteps
from optctl.simulation.rollout_source import ActionSource, EnvironmentRollout
from optctl.simulation.vector_env import VectorEnv

HIDDEN = 64
LINES = {
    "bare": "bare kernel",
    "step": "public step",
    "gymnasium": "through the Gymnasium adapter",
    "step_network": "step with a 2×64 network in torch",
    "graph": "captured steps with the 2×64 network",
    "rollout": "fused rollout, random actions",
    "rollout_network": "fused rollout with the 2×64 network",
}


@dataclass(frozen=True)
class Limits:
    """What the machine does per second."""

    bytes: float
    operations: float

    def __or__(self, other: Limits) -> Limits:
        """The better of two measurements: whatever disturbs one makes it smaller."""
        return Limits(max(self.bytes, other.bytes), max(self.operations, other.operations))


@dataclass(frozen=True)
class Rates:
    """Environment steps per second (best of the interleaved rounds) of every entry of `LINES`, and what each step needs.

    The Gymnasium adapter is measured over whole episodes (of programs so long that these take seconds: over a step), so that the
    final observations, an array of objects, are in its rate.
    """

    problem: str
    num_envs: int
    device: str
    dtype: str
    threads: int
    rates: dict[str, float]
    bytes: dict[str, int]
    """Moved by a step of one environment."""
    operations: dict[str, int]
    """Done by it."""
    step_seconds: float
    addition_seconds: float
    """A torch addition of (num_envs,): what any call costs."""

    def limit(self, line: str, limits: Limits) -> tuple[float, str]:
        """Steps per second that the machine allows, and by what: "memory" or "arithmetic"."""
        memory = limits.bytes / self.bytes[line] if self.bytes[line] else float("inf")
        arithmetic = limits.operations / self.operations[line]
        return (memory, "memory") if memory < arithmetic else (arithmetic, "arithmetic")


def measure_limits(device: str = "cpu", dtype: str = "float32") -> Limits:
    """Memory bandwidth and peak of arithmetic."""
    return Limits(memory_bandwidth(device), peak_operations(device, dtype))


def measure(
    problem: Problem | str, num_envs: int = 65_536, *, device: str = "cpu", dtype: str = "float32", seconds: float = 3.0
) -> Rates:
    """Measure in interleaved rounds over about `seconds`, so that a disturbed machine disturbs every figure alike."""
    problem = resolve_problem(problem)
    env = VectorEnv(problem, num_envs, device=device, dtype=dtype)
    env.reset(seed=0)
    action = torch.rand((num_envs, env.action_dim), dtype=env.dtype, device=env.device) * 2 - 1
    scratch = [action, env.state.clone(), env.params.clone(), torch.empty(num_envs, dtype=env.dtype, device=env.device)]
    source = EnvironmentRollout(problem, env.target, shared_params=True, randomize=False)
    kernel = load_module(source.bare_source()).bare
    bare = RecordedLaunch([kernel], num_envs, [*scratch, num_envs], env.device, env.operations, [source.width])
    vector = scratch[-1]
    network = nn.Sequential(
        nn.Linear(env.obs_dim, HIDDEN),
        nn.Tanh(),
        nn.Linear(HIDDEN, HIDDEN),
        nn.Tanh(),
        nn.Linear(HIDDEN, env.action_dim),
    ).to(device=env.device, dtype=env.dtype)
    adapter, array = GymVectorEnv(problem, num_envs, device=device, dtype=dtype), action.cpu().numpy()
    adapter.reset(seed=0)
    moved, work = _costs(env, source)
    fused = max(1, min(1000, int(4e7 / (num_envs * max(work["step"], 50) / 100))))
    episode = problem.steps if problem.steps * num_envs * work["step"] < 2e9 else 1
    with_network = max(1, min(200, int(1e6 / num_envs)))
    captured = CapturedSteps(
        VectorEnv(problem, num_envs, device=device, dtype=dtype), network, max(1, min(20, 200_000 // num_envs))
    )
    captured.env.reset(seed=0)

    def through_gymnasium() -> None:
        for _ in range(episode):
            _ = adapter.step(array)  # kept until the next, as a user's loop does

    calls: dict[str, tuple[Callable[[], object], int]] = {
        "bare": (bare, 1),
        "step": (lambda: env.step(action), 1),
        "step_network": (lambda: env.step(network(env.obs)), 1),
        "gymnasium": (through_gymnasium, episode),
        "graph": (captured, captured.steps),
        "rollout": (lambda: env.rollout("random", fused), fused),
        "rollout_network": (lambda: env.rollout(network, with_network), with_network),
        "addition": (lambda: vector + vector, 1),
    }
    best = dict.fromkeys(calls, float("inf"))
    with torch.no_grad():
        for call, _ in calls.values():  # compiles
            call()
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            for name, (call, steps) in calls.items():
                repeats = max(1, 20_000 // num_envs) if steps == 1 else 1
                best[name] = min(best[name], _time(call, repeats, env.device) / steps)
    return Rates(
        problem=problem.name,
        num_envs=num_envs,
        device=str(env.device),
        dtype=dtype,
        threads=num_threads() if env.device.type == "cpu" else 0,
        bytes=moved,
        operations=work,
        rates={name: num_envs / best[name] for name in LINES},
        step_seconds=best["step"],
        addition_seconds=best["addition"],
    )


def _costs(env: VectorEnv, source: EnvironmentRollout) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes moved and operations done by a step of one environment, for every line."""
    problem, size = env.problem, env.state.element_size()
    weights = WEIGHTS[env.target.dtype]
    bare, observe = source.dynamics.work(weights), source.observation.work(weights)
    network = ActionSource("network", (problem.n_y, HIDDEN, HIDDEN, problem.n_u))
    think = sum(2 * n * m for n, m in pairwise(network.widths)) + 2 * HIDDEN * weights["tanh"]
    bare_bytes = size * (2 * problem.n_x + problem.n_u + 1)
    step_bytes = bare_bytes + size * problem.n_y + 2 * 4 + 1  # the observation; the clock, read and written; the flag
    results = size * (problem.n_y + 1) + 2  # observation, reward and two flags, copied
    thought_bytes = size * 2 * (problem.n_y + 2 * HIDDEN + problem.n_u)
    moved = {
        "bare": bare_bytes,
        "step": step_bytes,
        "gymnasium": step_bytes + 2 * results,
        "step_network": step_bytes + thought_bytes,
        "graph": step_bytes + thought_bytes,
        "rollout": 0,
        "rollout_network": 0,
    }
    step = bare + observe
    work = {
        "bare": bare,
        "step": step,
        "gymnasium": step,
        "step_network": bare + observe + think,
        "graph": bare + observe + think,
        "rollout": bare + 20 * problem.n_u,
        "rollout_network": bare + observe + think,
    }
    return moved, work


def _time(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    call()  # the threads of what ran before have gone to sleep by then
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / repeats
