"""What every agent of the catalogue keeps, whatever it learns by; a new line in `AGENTS` brings it under these tests."""

import dataclasses
import math
from itertools import islice

import pytest
import torch
from torch_pendulum import TorchPendulum

import optctl
from optctl.agents import AGENTS
from optctl.errors import ArgumentError
from optctl.training.config import TrainConfig
from optctl.training.loops import LOOPS
from optctl.training.run import TrainingRun
from optctl.training.settings import presets, settings

pytestmark = pytest.mark.parametrize("name", AGENTS)
SHORT = TrainConfig(num_envs=8, iterations=8, evaluate_every=4, evaluation_starts=4)


def made(name, seed=0, num_envs=8):
    """The agent and its loop on a small pendulum, with the defaults."""
    agent_class, config_class = AGENTS[name].load()
    env = TorchPendulum(num_envs)
    agent = agent_class(env.obs_dim, env.action_dim, config_class(), seed=seed)
    return LOOPS[AGENTS[name].loop](env, agent, seed=seed)


def leaves(state, name=""):
    for key, value in state.items():
        path = f"{name}/{key}"
        if isinstance(value, dict):
            yield from leaves(value, path)
        else:
            yield path, torch.as_tensor(value).clone()


def same(a, b):
    a, b = dict(leaves(a)), dict(leaves(b))
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_actions_have_their_shape_and_lie_in_the_box_unless_it_explores(name):
    agent, obs = made(name).agent, torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    action = agent.act(obs)
    assert action.shape == (50, 1) and action.abs().max() <= 1
    assert torch.equal(agent.act(obs), action)
    assert not torch.equal(agent.act(obs, explore=True), action)
    if AGENTS[name].loop in ("off_policy", "on_policy"):  # others may keep a perturbation for a whole episode
        assert not torch.equal(agent.act(obs, explore=True), agent.act(obs, explore=True))


def test_learning_is_finite_and_moves_the_policy(name):
    loop, obs = made(name), torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    before = loop.agent.act(obs)
    metrics = list(islice(loop, 14))[-1]
    assert all(torch.isfinite(torch.as_tensor(value)).all() for value in metrics.values())
    assert not torch.equal(loop.agent.act(obs), before)
    assert loop.steps * 8 == metrics["env_steps"] and loop.iteration == metrics["iteration"] == 14


def test_the_same_seed_gives_the_same_bits_and_another_one_others(name):
    first, second, other = made(name, 3), made(name, 3), made(name, 4)
    for loop in (first, second, other):
        torch.manual_seed(id(loop) % 1000)  # the agent's randomness is its own
        list(islice(loop, 12))
    assert same(first.agent.state_dict(), second.agent.state_dict())
    assert not same(first.agent.state_dict(), other.agent.state_dict())


def test_a_loop_saved_and_loaded_goes_on_with_the_same_bits(name):
    whole, half = made(name), made(name)
    list(islice(whole, 15))
    list(islice(half, 11))
    state = half.state_dict()
    again = made(name, seed=99)
    again.load_state_dict(state)
    list(islice(again, 4))
    assert same(whole.state_dict(), again.state_dict())


def test_state_of_another_configuration_is_refused(name):
    _, config_class = AGENTS[name].load()
    other = AGENTS[name].load()[0](4, 1, config_class())
    with pytest.raises(ArgumentError, match=r"actor parameters of shape .* saved with another configuration"):
        made(name).agent.load_state_dict(other.state_dict())
    if "hidden" in config_class.__dataclass_fields__:
        small = AGENTS[name].load()[0](3, 1, config_class(hidden=(8, 8)))
        with pytest.raises(ArgumentError, match=r"actor parameters of shape .* saved with another configuration"):
            made(name).agent.load_state_dict(small.state_dict())


def test_settings_are_frozen_documented_by_their_defaults_and_checked(name):
    _, config_class = AGENTS[name].load()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config_class(), dataclasses.fields(config_class)[0].name, 0.5)
    for field in dataclasses.fields(config_class):
        if isinstance(field.default, float):
            with pytest.raises(ArgumentError, match=f"Argument `{field.name}` must be .*, but is nan"):
                config_class(**{field.name: math.nan})
    if "gamma" in config_class.__dataclass_fields__:
        with pytest.raises(ArgumentError, match=r"Argument `gamma` must be in \(0, 1\], but is 1.5"):
            config_class(gamma=1.5)
    if "hidden" in config_class.__dataclass_fields__:
        with pytest.raises(ArgumentError, match="Argument `hidden` must be a tuple of positive widths"):
            config_class(hidden=())


def test_presets_name_problems_of_the_catalogue_and_the_run_that_shows_them(name):
    for start, every in presets(name).items():
        assert start in ("cold", "warm")
        for problem, changes in every.get("problems", {}).items():
            assert changes["run"].startswith("optctl ")
            settings(name, optctl.make(problem), warm_start=start == "warm")


@pytest.mark.parametrize("warm", [False, True])
def test_a_run_saved_half_way_and_resumed_equals_the_uninterrupted_one(name, warm, tmp_path):
    from optctl.hybrid.warm_start import WarmStartConfig

    problem = optctl.make("double-integrator")
    start = (
        WarmStartConfig(num_starts=4, clone_updates=20, critic_updates=4, rollout_steps=3, review_every=3)
        if warm
        else False
    )

    def run():
        return TrainingRun(name, problem, config=SHORT, warm_start=start)

    if warm and not AGENTS[name].cloneable:
        with pytest.raises(ArgumentError, match=f"`warm_start` must be off for `{name}`"):
            run()
        return
    whole, half = run(), run()
    for _ in whole.iterate():
        pass
    for _ in half.iterate():
        if half.loop.iteration == 5:
            break
    half.save(tmp_path / "half")
    resumed = TrainingRun.load(tmp_path / "half")
    for _ in resumed.iterate():
        pass
    assert same(whole.loop.state_dict(), resumed.loop.state_dict())
    assert [p["cost"] for p in whole.curve] == [p["cost"] for p in resumed.curve]
