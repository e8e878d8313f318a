"""`optctl bench updates`: updates per second of the off-policy agents, called from Python and, on a GPU, replayed as one graph."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from optctl.agents import AGENTS
from optctl.bench.record import check_counts, finish, markdown_table
from optctl.codegen.launch import one_thread
from optctl.envs import make
from optctl.errors import require
from optctl.simulation import make_vec
from optctl.training.loops import LOOPS


def updates(
    agents: tuple[str, ...] = ("sac", "td3"),
    batch_size: int = 256,
    per_call: int = 8,
    seconds: float = 3.0,
    device: str = "cpu",
    out: Path | None = None,
) -> int:
    """Updates per second of the off-policy agents on pendulum-v1, sampling from the replay buffer included.

    Args:
        agents: Their names.
        batch_size: Transitions of an update.
        per_call: Updates of a call, and of a graph.
        seconds: Time for each measurement.
        device: cpu, cuda or cuda:N.
        out: Folder for updates.json.
    """
    off_policy = [name for name, entry in AGENTS.items() if entry.loop == "off_policy"]
    require(set(agents) <= set(off_policy), "agents", f"be among {', '.join(off_policy)}", f"is {', '.join(agents)}")
    check_counts(out, batch_size=batch_size, per_call=per_call)
    figures: list[dict[str, Any]] = []
    for name in agents:
        calls = {"calls from Python": _call(name, batch_size, per_call, device)}
        if device != "cpu":
            calls["one graph"] = _graph(name, batch_size, per_call, device)
        for how, call in calls.items():
            with one_thread():  # as in training
                rate = per_call * _rate(call, seconds, device)
            figures.append({"agent": name, "how": how, "updates_per_second": rate})
            print(f"{name}, {how}: {rate:,.0f} updates/s", flush=True)
    table = markdown_table(
        f"Updates of the off-policy agents on pendulum-v1, batches of {batch_size}, {per_call} updates a call",
        ("agent", "how", "updates/s"),
        [(f["agent"], f["how"], f"{f['updates_per_second']:,.0f}") for f in figures],
    )
    return finish("updates", "optctl bench updates", table, {"rows": figures}, out, device)


def _loop(name: str, device: str) -> Any:
    """The agent in its loop, with experience of ten steps of 128 environments."""
    agent_class, config_class = AGENTS[name].load()
    env = make_vec(make("pendulum-v1"), 128, device=device)
    agent = agent_class(env.obs_dim, env.action_dim, config_class(), device=device, dtype=env.dtype)
    loop = LOOPS[AGENTS[name].loop](env, agent)
    steps = iter(loop)
    for _ in range(10):
        next(steps)
    return loop


def _update(loop: Any, batch_size: int, per_call: int) -> Callable[[], object]:
    return lambda: loop.agent.update(loop.replay.sample(batch_size, per_call, loop.generator))


def _call(name: str, batch_size: int, per_call: int, device: str) -> Callable[[], object]:
    return _update(_loop(name, device), batch_size, per_call)


def _graph(name: str, batch_size: int, per_call: int, device: str) -> Callable[[], object]:
    loop = _loop(name, device)
    update = _update(loop, batch_size, per_call)
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        update()  # what torch prepares at a first call must not happen in the capture
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    for generator in (loop.generator, loop.agent.generator):
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        update()
    return graph.replay


def _rate(call: Callable[[], object], seconds: float, device: str) -> float:
    """Calls per second, over about `seconds`."""
    wait = torch.cuda.synchronize if device != "cpu" else lambda: None
    for _ in range(3):
        call()
    wait()
    began, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < seconds:
        for _ in range(5):
            call()
        wait()
        count += 5
    return count / spent
