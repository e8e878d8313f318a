"""The TorchRL environment against TorchRL's own checks and against `VectorEnv`."""

import pytest
import torch
from torchrl.envs.utils import check_env_specs

import optctl
from optctl.errors import ArgumentError
from optctl.interop.torchrl import TorchRLEnv


@pytest.mark.parametrize(
    ("name", "dtype"), [("pendulum-v1", "float32"), ("qubit-transfer", "float32"), ("pendulum-v1", "float64")]
)
def test_torchrls_own_checks(name, dtype):
    env = TorchRLEnv(name, 3, dtype=dtype)
    check_env_specs(env)
    assert env.batch_size == (3,) and env.action_spec.shape == (3, 1)
    assert env.observation_spec["observation"].dtype is getattr(torch, dtype)


def test_a_rollout_is_that_of_the_batched_environment_across_ends():
    problem = optctl.make("oscillator-ring", steps=5)
    env, mine = TorchRLEnv(problem, 4), optctl.make_vec(problem, 4)
    env.set_seed(11)
    data = env.rollout(
        12, lambda td: td.set("action", 0.3 * td["observation"][:, :4].tanh()), break_when_any_done=False
    )
    obs, _ = mine.reset(seed=11)
    for k in range(12):
        assert torch.equal(data["observation"][:, k], obs)
        obs, reward, _, truncated, info = mine.step(0.3 * obs[:, :4].tanh())
        assert torch.equal(data["next", "observation"][:, k], info["final_obs"])
        assert torch.equal(data["next", "reward"][:, k, 0], reward)
        assert torch.equal(data["next", "truncated"][:, k, 0], truncated) and bool(truncated.all()) == (k in (4, 9))
        assert not data["next", "terminated"][:, k].any() and torch.equal(data["next", "done"][:, k, 0], truncated)


def test_the_cost_of_broken_constraints_is_an_entry():
    """Carts at 0.3 m, at 5 and 0 m/s, on a rail of ±0.4 m; the faster one is beyond it after a step of 0.05 s."""
    env, start = TorchRLEnv("cartpole-rail", 2), torch.tensor([[0.3, 0.0, 5.0, 0.0], [0.3, 0.0, 0.0, 0.0]])
    check_env_specs(env)
    root = env.reset()
    assert root["cost"].tolist() == [[0.0], [0.0]]
    env._env.reset(options={"state": start})
    after = env.step(root.set("action", torch.zeros(2, 1)))["next"]
    assert torch.allclose(after["cost"], torch.tensor([[0.15], [0.0]]), atol=0.02)
    assert after["cost"][0, 0].item() == pytest.approx(env._env.state[0, 0].item() - 0.4, abs=1e-6)
    again = env.reset(after.clone().set("_reset", torch.tensor([[False], [True]])))
    assert torch.equal(again["cost"], after["cost"])
    assert not env.reset(after.clone().set("_reset", torch.tensor([[True], [False]])))["cost"].any()


def test_a_masked_reset_leaves_the_others_alone():
    env = TorchRLEnv("pendulum-v1", 3)
    env.set_seed(0)
    first = env.reset()["observation"]
    after = env.rand_step(env.reset())["next"]
    chosen = after.clone().set("_reset", torch.tensor([[False], [True], [False]]))
    again = env.reset(chosen)["observation"]
    assert torch.equal(again[[0, 2]], after["observation"][[0, 2]]) and not torch.equal(
        again[1], after["observation"][1]
    )
    assert not torch.equal(again[1], first[1])  # a fresh draw
    env.set_seed(0)
    assert torch.equal(env.reset()["observation"], first)


def test_a_reset_begins_where_it_is_told_to():
    env, start = TorchRLEnv("pendulum-v1", 3), torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    env.reset(state=start, seed=1)
    assert torch.equal(env._env.state, start)
    after = env.rand_step(env.reset(state=start))["next"]
    moved = env._env.state.clone()
    chosen = after.clone().set("_reset", torch.tensor([[False], [True], [False]]))
    env.reset(chosen, state=start)
    assert torch.equal(env._env.state[1], start[1]) and torch.equal(env._env.state[0], moved[0])
    with pytest.raises(ArgumentError, match="`reset` must be given seed, state and params only, but is given start"):
        env.reset(start=start)


def test_a_collector_of_torchrl_gathers_data():
    from torchrl.collectors import Collector

    env = TorchRLEnv("pendulum-v1", 4)
    batch = next(iter(Collector(env, None, frames_per_batch=40, total_frames=40)))
    assert batch.shape == (4, 10) and batch["next", "reward"].isfinite().all()
