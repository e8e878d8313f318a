"""Learning on a GPU: updates as on the CPU, the same bits for the same seed, and a resumed run that equals an uninterrupted one."""

import pytest
import torch

from optctl.agents import AGENTS
from optctl.envs import make
from optctl.learning.data.replay import Transition
from optctl.learning.data.rollouts import Rollouts
from optctl.training.config import TrainConfig
from optctl.training.run import TrainingRun

pytestmark = pytest.mark.gpu
SHORT = TrainConfig(num_envs=16, iterations=14, evaluate_every=7, evaluation_starts=8)


def seeded(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape) + sum(shape)))


def created(name, device, **config):
    """The agent with the weights that it has on a CPU: the streams of random numbers of devices differ."""
    agent_class, config_class = AGENTS[name].load()
    one, other = (agent_class(3, 2, config_class(**config), device=place, seed=1) for place in (device, "cpu"))
    for network in networks(one):
        networks(one)[network].values.copy_(networks(other)[network].values)
    return one


def networks(agent):
    return getattr(agent, "networks", None) or {"actor": agent.actor, "critic": agent.critic}


def weights(agent):
    return [network.values for network in networks(agent).values()]


def batch(device, num=4, size=64):
    fields = [seeded(num, size, 3), seeded(num, size, 2).tanh(), seeded(num, size), 2 * seeded(num, size, 3)]
    return Transition(*(f.to(device) for f in fields), torch.zeros(num, size, device=device))


def rollouts(device, horizon=8, num_envs=32):
    r = Rollouts(horizon, num_envs, 3, 2, device=device)
    for k, name in enumerate(("obs", "action", "next_obs", "reward")):
        getattr(r, name).copy_(seeded(*getattr(r, name).shape) + k)
    return r


@pytest.mark.parametrize("name", ["sac", "td3"])
def test_an_off_policy_update(agrees, name, monkeypatch):
    def updated(device):
        agent = created(name, device)
        monkeypatch.setattr(agent, "_noise", lambda *shape: seeded(*shape, 2).to(device))
        agent.observe(Transition(*(field[0] for field in batch(device))))
        agent.update(batch(device))
        return weights(agent)

    agrees(updated, rtol=1e-3, atol=1e-4)


def test_an_on_policy_update(agrees):
    def updated(device):
        agent = created("ppo", device, minibatches=1, epochs=3)  # one minibatch: its order does not count
        agent.update(rollouts(device))
        return weights(agent)

    agrees(updated, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["sac", "td3"])
def test_updates_in_one_graph_equal_eager_updates(device, name):
    if device != "cuda":
        pytest.skip("graphs are for CUDA")
    eager, captured = created(name, device), created(name, device)
    data, stream, graph = batch(device), torch.cuda.Stream(), torch.cuda.CUDAGraph()
    eager.update(data)
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        captured.update(data)
    torch.cuda.current_stream().wait_stream(stream)
    graph.register_generator_state(captured.generator)
    with torch.cuda.graph(graph):
        captured.update(data)
    for _ in range(3):
        graph.replay()
        eager.update(data)
    for a, b in zip(weights(eager), weights(captured), strict=True):
        assert torch.equal(a, b)


def finished(run):
    for _ in run.iterate():
        pass
    return run


@pytest.mark.parametrize("name", ["sac", "td3", "ppo"])
def test_a_run_repeats_and_resumes_to_the_bit(device, name, tmp_path):
    start = lambda: TrainingRun(name, make("double-integrator"), config=SHORT, seed=3, device=device)
    whole, again, half = finished(start()), finished(start()), start()
    for _ in half.iterate():
        if half.loop.iteration == 5:
            break
    half.save(tmp_path / "half")
    resumed = finished(TrainingRun.load(tmp_path / "half", device=device))
    for run in (again, resumed):
        assert [p["cost"] for p in run.curve] == [p["cost"] for p in whole.curve]
        assert all(torch.equal(a, b) for a, b in zip(weights(run.agent), weights(whole.agent), strict=True))
        assert torch.equal(run.env.state, whole.env.state)
