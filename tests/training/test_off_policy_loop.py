import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch_pendulum import TorchPendulum

from optctl.agents.off_policy.sac import SAC, SACConfig
from optctl.training.checkpoint import load, save
from optctl.training.loops.off_policy import OffPolicyConfig, OffPolicyLoop


def make(seed=0, capacity=60):
    env = TorchPendulum(8)
    agent = SAC(env.obs_dim, env.action_dim, SACConfig(hidden=(16, 16)), seed=seed)
    config = OffPolicyConfig(batch_size=16, updates_per_step=2, warmup_steps=5, replay_capacity=capacity)
    return OffPolicyLoop(env, agent, config, seed=seed)


def run(loop, iterations):
    return list(islice(loop, iterations))


def test_metrics_count_and_stay_tensors():
    metrics = run(make(), 7)
    assert [m["iteration"] for m in metrics] == list(range(1, 8))
    assert metrics[-1]["env_steps"] == 56
    assert "q" not in metrics[4] and isinstance(metrics[5]["q"], torch.Tensor)


def test_no_update_before_the_warm_up_is_over():
    loop = make()
    run(loop, 5)
    assert loop.agent.updates == 0 and len(loop.replay) == 40
    run(loop, 1)
    assert loop.agent.updates == 2


def test_replay_holds_final_observations_and_no_truncation():
    loop = make(capacity=10_000)
    loop.config = OffPolicyConfig(warmup_steps=10_000)
    run(loop, 201)  # every episode is truncated once, after 200 steps
    rows = loop.replay.rows[: len(loop.replay)].view(201, 8, -1)
    next_obs, obs = rows[:, :, 4 + 1 : 4 + 4], rows[:, :, :3]
    assert (rows[..., -1] == 0).all()
    assert torch.equal(next_obs[:-2], obs[1:-1])  # inside an episode the next observation is the following one
    assert not torch.equal(next_obs[-2], obs[-1])  # at its end it is the final one, not the first of the next episode
    theta, omega = torch.atan2(obs[-2, :, 1], obs[-2, :, 0]), obs[-2, :, 2]
    expected = (omega + (15 * theta.sin() + 3 * 2 * rows[-2, :, 3]) * 0.05).clamp(-8, 8)
    torch.testing.assert_close(next_obs[-2, :, 2], expected, atol=1e-4, rtol=1e-4)


CONTINUE = """
import sys, torch
sys.path[:0] = [sys.argv[1], f"{sys.argv[1]}/../helpers"]
torch.set_num_threads(1)
from test_off_policy_loop import load, make, run, save
for stop in map(int, sys.argv[3:]):
    loop = make(seed=99)
    loop.load_state_dict(load(f"{sys.argv[2]}/half-{stop}")[0])
    run(loop, 20 - stop)
    save(f"{sys.argv[2]}/end-{stop}", loop.state_dict())
"""
STOPS = (3, 11)
"""Within the warm-up, and after the ring has wrapped."""


@pytest.fixture(scope="module")
def continued(tmp_path_factory):
    """Runs that stopped half way and ended in one fresh process."""
    folder = tmp_path_factory.mktemp("runs")
    for stop in STOPS:
        first = make()
        run(first, stop)
        save(folder / f"half-{stop}", first.state_dict())
    command = [sys.executable, "-c", CONTINUE, str(Path(__file__).parent), str(folder), *map(str, STOPS)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
    return folder


@pytest.mark.parametrize("stop", STOPS)
def test_a_run_continued_in_a_fresh_process_equals_the_uninterrupted_one(continued, tmp_path, stop):
    whole = make()
    run(whole, 20)
    save(tmp_path / "whole", whole.state_dict())
    (a, _), (b, _) = load(continued / f"end-{stop}"), load(tmp_path / "whole")
    assert a.keys() == b.keys()

    def compare(x, y, name=""):
        for key in x:
            if isinstance(x[key], dict):
                compare(x[key], y[key], f"{name}/{key}")
            else:
                assert torch.equal(torch.as_tensor(x[key]), torch.as_tensor(y[key])), f"{name}/{key}"

    compare(a, b)


def test_leaving_and_entering_the_loop_again_changes_nothing():
    whole, parts = make(), make()
    run(whole, 9)
    run(parts, 4), run(parts, 5)
    assert torch.equal(whole.agent.actor.mlp.values, parts.agent.actor.mlp.values)


def test_warm_up_actions_fill_the_box():
    loop = make(capacity=10_000)
    loop.config = OffPolicyConfig(warmup_steps=1000)
    run(loop, 200)
    action = loop.replay.rows[: len(loop.replay), 3]
    assert action.min() < -0.98 and action.max() > 0.98 and action.mean().abs() < 0.06


@pytest.mark.parametrize(("name", "least"), [("batch_size", 1), ("updates_per_step", 1), ("warmup_steps", 0)])
def test_a_wrong_setting_names_itself(name, least):
    with pytest.raises(ValueError, match=f"Argument `{name}` must be at least {least}.*, but is -1"):
        OffPolicyConfig(**{name: -1})


def test_rewards_are_stored_scaled():
    plain, scaled = make(), make()
    scaled.reward_scale = 0.25
    run(plain, 3), run(scaled, 3)
    reward = 3 + 1  # after obs and action
    torch.testing.assert_close(scaled.replay.rows[:24, reward], 0.25 * plain.replay.rows[:24, reward])
