"""The contract of the vectorised environment, on problems computed by hand and on Gymnasium's own pendulum."""

import subprocess
import sys

import numpy as np
import pytest
import tiny
import torch
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from scipy import stats

from optctl import Uniform
from optctl.envs import make
from optctl.errors import ArgumentError
from optctl.simulation import make_vec


def actions(env, steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((steps, env.num_envs, env.action_dim), generator=generator, dtype=env.dtype) * 2 - 1


def poison(env):
    """What a kernel fails to write shows as inf."""
    for buffer in (env.obs, env._final_obs, env._reward):
        buffer.fill_(torch.inf)


def run(env, acts, seed=3):
    """Every result of a run, stacked: (steps, num_envs, n_y + 3 + n_y)."""
    env.reset(seed=seed)
    rows = []
    for a in acts:
        poison(env)
        obs, reward, terminated, truncated, info = env.step(a.contiguous())
        flags = torch.stack([reward, terminated.to(env.dtype), truncated.to(env.dtype)], dim=1)
        rows.append(torch.cat([obs, flags, info["final_obs"]], dim=1))
    return torch.stack(rows)


def same_bits(a, b):
    return torch.equal(a.contiguous().view(torch.int32), b.contiguous().view(torch.int32))


# --- rewards, ends, final observations ---------------------------------------------------------------------------------


def test_a_finite_horizon_terminates_and_pays_the_terminal_cost():
    """From x = 1 with u = 1: costs 1, 4, 9, then 10 · 4 at the end; observations are (x, elapsed fraction)."""
    env = make_vec(tiny.counter(), 2, dtype="float64")
    obs, _ = env.reset(seed=0, options={"state": [[1.0], [5.0]]})
    assert obs.tolist() == [[1.0, 0.0], [5.0, 0.0]]
    action = torch.tensor([[0.5], [0.0]], dtype=torch.float64)  # u = 1 and u = 0
    for x, reward in ((2.0, [-1.0, -25.0]), (3.0, [-4.0, -25.0])):
        poison(env)
        obs, r, terminated, truncated, info = env.step(action)
        np.testing.assert_allclose(obs, [[x, (x - 1) / 3], [5.0, (x - 1) / 3]], rtol=1e-15)
        assert r.tolist() == reward and not terminated.any() and not truncated.any()
        assert torch.equal(info["final_obs"], obs)
    poison(env)
    obs, r, terminated, truncated, info = env.step(action)
    assert info["final_obs"].tolist() == [[4.0, 1.0], [5.0, 1.0]]
    assert r.tolist() == [-9.0 - 40.0, -25.0 - 50.0]
    assert terminated.tolist() == [True, True] and not truncated.any()
    assert (obs[:, 1] == 0).all() and (obs[:, 0] >= 1).all() and (obs[:, 0] <= 2).all()
    assert obs[0, 0] != obs[1, 0]
    assert env.time.tolist() == [0.0, 0.0]
    assert not env.step(action)[2].any()


def test_the_step_limit_of_an_infinite_horizon_truncates():
    env = make_vec(tiny.counter("infinite"), 1)
    env.reset(seed=0, options={"state": [[2.0]]})
    ends = [env.step(torch.zeros(1, 1)) for _ in range(2)]
    assert not any(e[2].any() or e[3].any() for e in ends)
    _, reward, terminated, truncated, info = env.step(torch.zeros(1, 1))
    assert truncated.tolist() == [True] and terminated.tolist() == [False]
    assert reward.tolist() == [-4.0] and info["final_obs"].tolist() == [[2.0]]


def test_another_step_limit():
    env = make_vec(tiny.counter("infinite"), 1, max_episode_steps=1)
    env.reset(seed=0)
    assert all(env.step(torch.zeros(1, 1))[3].item() for _ in range(4))
    with pytest.raises(ArgumentError, match="`max_episode_steps` must be 3 or absent, for the horizon is finite"):
        make_vec(tiny.counter(), 1, max_episode_steps=4)


def test_actions_are_clipped_and_scaled_to_the_bounds():
    """Bounds (−1, 3): action 0 is the middle, 1."""
    env = make_vec(tiny.counter("infinite", control_bounds={"u": (-1.0, 3.0)}), 5, dtype="float64")
    env.reset(options={"state": [[0.0]]})
    action = torch.tensor([[-9.0], [-1.0], [0.0], [0.5], [torch.inf]], dtype=torch.float64)
    assert env.step(action)[0][:, 0].tolist() == [-1.0, -1.0, 1.0, 2.0, 3.0]


def test_staggered_episodes_end_each_at_its_own_time():
    """Environment i restarts at step i by mask, so that it ends three steps later, and every three steps from then on."""
    env = make_vec(tiny.counter(), 3)
    env.reset(seed=0)
    history = []
    for k in range(12):
        if k in (1, 2):
            env.reset(options={"mask": torch.arange(3) == k})
        history.append(env.step(torch.zeros(3, 1))[2].tolist())
    for i in range(3):
        assert [k for k in range(12) if history[k][i]] == [i + 2, i + 5, i + 8] + ([11] if i == 0 else [])


# --- cost of broken constraints ------------------------------------------------------------------------------------------


def test_the_cost_signal_is_the_largest_violation_of_the_step():
    """Bounds −1 ≤ x ≤ 2 at the end of a step and x + u ≤ 3 at its start, from x = 1 with u = 0, 1, 2, −2, 2.5 (clipped to 2)."""
    problem = tiny.counter(
        "infinite", state_bounds={"x": (-1.0, 2.0)}, path_constraints=lambda x, u, p: [x[0] + u[0] - 3.0]
    )
    env = make_vec(problem, 5, dtype="float64")
    _, info = env.reset(options={"state": [[1.0]]})
    assert info["cost"].tolist() == [0.0] * 5
    action = torch.tensor([[0.0], [0.5], [1.0], [-1.0], [1.25]], dtype=torch.float64)
    assert env.step(action)[4]["cost"].tolist() == [0.0, 0.0, 1.0, 0.0, 1.0]
    assert env.step(action)[4]["cost"].tolist() == [
        0.0,
        1.0,
        3.0,
        2.0,
        3.0,
    ]  # ends at 1, 3, 5, −3, 5; starts at 1, 2, 3, −1, 3
    _, info = env.reset(options={"mask": torch.arange(5) == 2})
    assert info["cost"].tolist() == [0.0, 1.0, 0.0, 2.0, 3.0]
    assert "cost" not in make_vec(tiny.counter(), 1).reset()[1]


def test_the_cost_of_a_broken_state_is_not_zero():
    env = make_vec(tiny.counter("infinite", state_bounds={"x": (-1.0, 2.0)}), 2)
    env.reset(seed=0, options={"state": [[1.0]]})
    cost = env.step(torch.tensor([[torch.nan], [0.0]]))[4]["cost"]
    assert cost[0].isnan() and cost[1] == 0


# --- the same bits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "problem", [tiny.driven(observation_noise=0.1), make("pendulum-v1").replace(steps=6)], ids=["driven", "pendulum"]
)
def test_an_environment_does_not_depend_on_the_batch_nor_on_its_neighbours(problem):
    big = make_vec(problem, 4096, randomize=True)
    acts = actions(big, 20)
    whole = run(big, acts)
    for n in (1, 2, 17):
        assert same_bits(run(make_vec(problem, n, randomize=True), acts[:, :n]), whole[:, :n])
    acts[2:4, 5] = torch.nan
    broken = run(big, acts)
    others = torch.arange(4096) != 5
    assert same_bits(broken[:, others], whole[:, others])
    assert broken[2, 5, :1].isnan().all() and broken[3, 5].isnan().any()
    after = 7 if problem.steps == 6 else 6  # its next episode is sound again
    assert broken[after:, 5].isfinite().all()


def test_threads_do_not_change_bits():
    env = make_vec("pendulum-v1", 100_000)
    acts = actions(env, 4)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = run(make_vec("pendulum-v1", 100_000), acts)
        torch.set_num_threads(3)
        assert same_bits(run(make_vec("pendulum-v1", 100_000), acts), alone)
    finally:
        torch.set_num_threads(threads)


DIGEST = """
import hashlib, sys, torch
sys.path.insert(0, "tests/helpers")
import tiny
from optctl.simulation import make_vec
env = make_vec(tiny.driven(observation_noise=0.1), 64)
env.reset(seed=11)
digest = hashlib.sha256()
for k in range(12):
    obs, reward, *_ = env.step(torch.full((64, 2), 0.1 * (k - 6)))
    digest.update(obs.numpy().tobytes() + reward.numpy().tobytes())
print(digest.hexdigest())
"""


def test_the_same_seed_gives_the_same_bits_in_another_process(capsys):
    there = subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True).stdout
    exec(DIGEST, {})
    assert capsys.readouterr().out == there and len(there.strip()) == 64


def test_seeds():
    env = make_vec(tiny.counter(), 4)
    first = env.reset(seed=1)[0].clone()
    second = env.reset()[0].clone()
    assert torch.equal(env.reset(seed=1)[0], first) and torch.equal(env.reset()[0], second)
    assert not (first[:, 0] == second[:, 0]).any()
    assert not (env.reset(seed=2)[0][:, 0] == first[:, 0]).any()
    unseeded = [make_vec(tiny.counter(), 4).reset()[0][0, 0].item() for _ in range(2)]
    assert unseeded[0] != unseeded[1]
    assert make_vec(tiny.counter(), 1).step(torch.zeros(1, 1))[0].isfinite().all()  # resets itself


def test_a_saved_run_continues_bit_for_bit():
    problem = tiny.driven(observation_noise=0.1)
    env = make_vec(problem, 8, randomize=True)
    acts = actions(env, 30)
    reference = run(env, acts)
    run(env, acts[:13])
    saved = env.state_dict()
    for a in acts[13:]:
        env.step(a)  # the copies are not disturbed
    other = make_vec(problem, 8, randomize=True)
    other.reset(seed=99)
    other.load_state_dict(saved)
    assert torch.equal(other.obs, saved["obs"])
    for k in range(13, 30):
        obs, reward, *_ = other.step(acts[k])
        assert same_bits(obs, reference[k, :, : env.obs_dim]) and same_bits(reward, reference[k, :, env.obs_dim])
    with pytest.raises(ArgumentError, match="`saved` must come from `state_dict`, but differs in the entries clock"):
        other.load_state_dict({k: v for k, v in saved.items() if k != "clock"})
    with pytest.raises(ArgumentError, match=r"must have shape \(4, 2\) and dtype torch.float32, but has \(8, 2\)"):
        make_vec(problem, 4).load_state_dict(saved | {"params": torch.ones(1, 2)})


# --- random numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_initial_states_have_the_stated_distribution(dtype):
    uniform = make_vec(tiny.counter(initial_state=Uniform([-3.0], [5.0])), 20_000, dtype=dtype).reset(seed=0)[0][:, 0]
    assert stats.kstest(uniform.numpy(), "uniform", (-3.0, 8.0)).pvalue > 1e-3
    assert len(uniform.unique()) > 19_900
    normal = make_vec(tiny.driven(), 20_000, dtype=dtype)
    normal.reset(seed=0)
    q, v = normal.state.double().numpy().T
    assert stats.kstest(q, "norm", (0.5, 0.3)).pvalue > 1e-3 and stats.kstest(v, "norm", (0.0, 0.2)).pvalue > 1e-3
    assert abs(np.corrcoef(q, v)[0, 1]) < 0.03


def test_process_noise_is_white_and_enters_through_the_diffusion():
    env = make_vec(tiny.still(), 5000, dtype="float64")
    env.reset(seed=0)
    before, kicks = env.state.clone(), []
    for _ in range(3):
        env.step(torch.zeros(5000, 1, dtype=torch.float64))
        kicks.append((env.state - before).numpy())
        before = env.state.clone()
    w = np.stack(kicks)[:, :, 0]
    np.testing.assert_allclose(np.stack(kicks)[:, :, 1], 2 * w, atol=1e-12)
    assert stats.kstest(w.ravel(), "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(w) - np.eye(3)).max() < 0.06  # 4 standard errors of 5,000 pairs
    assert abs(np.corrcoef(w[0, :-1], w[0, 1:])[0, 1]) < 0.06  # neighbouring environments


def test_process_noise_of_a_continuous_problem_grows_with_the_square_root_of_the_interval():
    still = dict(dynamics=lambda x, u, p: 0 * x, transition=None, dt=0.25)
    env = make_vec(tiny.still(**still), 20_000, dtype="float64")
    env.reset(seed=0)
    env.step(torch.zeros(20_000, 1, dtype=torch.float64))
    assert env.state.std(0).tolist() == pytest.approx([0.5, 1.0], rel=0.03)  # √0.25 · (1, 2)


def test_observation_noise_has_the_stated_deviation_and_leaves_the_state_alone():
    env = make_vec(tiny.driven(diffusion=None, observation_noise=[0.5, 0.0]), 20_000, dtype="float64")
    clean = make_vec(tiny.driven(diffusion=None), 20_000, dtype="float64")
    zero = torch.zeros(20_000, 2, dtype=torch.float64)
    first, _ = env.reset(seed=0)
    noise = [first - clean.reset(seed=0)[0]]
    noise.append(env.step(zero)[0] - clean.step(zero)[0])
    assert torch.equal(env.state, clean.state)
    for difference in noise:
        assert stats.kstest(difference[:, 0].numpy(), "norm", (0, 0.5)).pvalue > 1e-3
        assert (difference[:, 1] == 0).all()
    assert abs(np.corrcoef(noise[0][:, 0], noise[1][:, 0])[0, 1]) < 0.03


# --- resets, parameters ------------------------------------------------------------------------------------------------


def test_a_masked_reset_leaves_the_others_alone():
    env = make_vec(tiny.driven(observation_noise=0.1), 6)
    env.reset(seed=0)
    for a in actions(env, 2):
        env.step(a)
    state, obs = env.state.clone(), env.obs.clone()
    mask = torch.tensor([True, False, False, True, False, False])
    poison(env)
    after, _ = env.reset(options={"mask": mask, "state": torch.full((6, 2), 7.0)})
    assert torch.equal(env.state[~mask], state[~mask]) and torch.equal(after[~mask], obs[~mask])
    assert (env.state[mask] == 7).all() and env.episode_steps.tolist() == [0, 2, 2, 0, 2, 2]
    env.reset(options={"mask": mask.numpy()})
    assert not (env.state[mask] == 7).any() and (env.state[0] != env.state[3]).all()


def test_parameters_shared_given_per_environment_and_on_reset():
    one, k = torch.full((3, 1), 0.5), torch.tensor([[1.0], [2.0], [3.0]])
    env = make_vec(tiny.counter(), 3, params=[[4.0]])
    env.reset(options={"state": [[0.0]]})
    assert env.params.tolist() == [[4.0]] and env.step(one)[0][:, 0].tolist() == [4.0] * 3
    env.reset(options={"state": [[0.0]], "params": k})
    assert env.step(one)[0][:, 0].tolist() == [1.0, 2.0, 3.0]
    env.reset(options={"state": [[0.0]], "params": [[9.0]], "mask": torch.tensor([False, True, False])})
    assert env.params[:, 0].tolist() == [1.0, 9.0, 3.0]
    each = make_vec(tiny.counter(), 3, params=k)
    each.reset(options={"state": [[0.0]]})
    assert each.step(one)[0][:, 0].tolist() == [1.0, 2.0, 3.0]


def test_parameters_are_drawn_anew_at_each_reset():
    env = make_vec(tiny.counter(), 5000, randomize=True)
    env.reset(seed=0)
    drawn = [env.params[:, 0].clone()]
    for _ in range(3):
        assert torch.equal(env.params[:, 0], drawn[0])
        env.step(torch.zeros(5000, 1))
    drawn.append(env.params[:, 0].clone())
    for _ in range(3):
        env.step(torch.zeros(5000, 1))
    drawn.append(env.params[:, 0].clone())
    for d in drawn:
        assert stats.kstest(d.numpy(), "uniform", (0.5, 1.0)).pvalue > 1e-3
    assert np.abs(np.corrcoef(drawn) - np.eye(3)).max() < 0.06
    env.reset(options={"params": [[1.25]]})
    assert (env.params == 1.25).all()


# --- Gymnasium's pendulum ----------------------------------------------------------------------------------------------


def test_pendulum_v1_equals_gymnasium_for_200_steps_from_50_starts():
    """Float64 to 1e-9 all the way. Control is twice the action; PendulumEnv clips it itself."""
    n, steps = 50, 200
    env = make_vec("pendulum-v1", n, dtype="float64")
    env.reset(seed=0)
    start = env.state.numpy().copy()
    acts = actions(env, steps).numpy()
    observations, rewards = np.empty((steps, n, 3)), np.empty((steps, n))
    for k in range(steps):
        obs, reward, _, truncated, info = env.step(torch.from_numpy(acts[k]))
        observations[k], rewards[k] = info["final_obs"], reward
        assert truncated.all() == truncated.any() == (k == steps - 1)
    gym = PendulumEnv()
    worst_obs = worst_reward = 0.0
    for i in range(n):
        gym.reset(seed=0)
        gym.state = start[i]
        for k in range(steps):
            obs, reward, *_ = gym.step(2.0 * acts[k, i])
            worst_reward = max(worst_reward, abs(reward - rewards[k, i]))
            worst_obs = max(worst_obs, np.abs(obs - observations[k, i]).max())
    assert worst_reward < 1e-9
    assert worst_obs < 1e-6  # Gymnasium returns its observations in float32


def test_pendulum_v1_in_float32_is_gymnasium_step_by_step_to_rounding():
    """One step from 500 states: 2⁻²³ relative to the largest quantities, angle 3.2, speed 8, cost 16."""
    n = 500
    env = make_vec("pendulum-v1", n)
    rng = np.random.default_rng(0)
    state = rng.uniform([-np.pi, -8.0], [np.pi, 8.0], (n, 2)).astype(np.float32)
    env.reset(options={"state": state})
    action = actions(env, 1)[0]
    obs, reward, *_ = env.step(action)
    gym = PendulumEnv()
    gym.reset(seed=0)
    for i in range(n):
        gym.state = state[i].astype(float)
        expected, r, *_ = gym.step(2.0 * action[i].numpy())
        np.testing.assert_allclose(obs[i], expected, atol=2e-6)
        assert abs(reward[i].item() - r) < 5e-6


# --- wrong arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.step(np.zeros((2, 1))), "`action` must be a torch tensor, but is ndarray"),
        (lambda e: e.step(torch.zeros(2)), r"Argument `action` must have shape \(2, 1\), but has shape \(2,\)\."),
        (lambda e: e.step(torch.zeros(3, 1)), r"but has shape \(3, 1\)"),
        (lambda e: e.step(torch.zeros(2, 1).double()), "`action` must have dtype torch.float32, but has torch.float64"),
        (lambda e: e.step(torch.zeros(2, 1, device="meta")), "`action` must be on cpu, but is on meta"),
        (lambda e: e.reset(seed=-1), "`seed` must be a non-negative integer, but is -1"),
        (lambda e: e.reset(seed=1, options={"mask": [True, False]}), "`seed` must be absent where a mask is given"),
        (lambda e: e.reset(options={"mask": [0, 1]}), "must be boolean with shape"),
        (lambda e: e.reset(options={"mask": [True]}), r"with shape \(2,\), but is torch.bool with shape \(1,\)"),
        (lambda e: e.reset(options={"state": [[1.0, 2.0]]}), r"`state` must have shape \(1, 1\) or \(2, 1\), but has shape \(1, 2\)"),
        (lambda e: e.reset(options={"params": [[np.nan]]}), "`params` must be finite"),
        (lambda e: e.reset(options={"start": 1}), "must have keys among state, params, mask, but has start"),
        (lambda e: make_vec(e.problem, 0), "`num_envs` must be a positive integer below"),
        (lambda e: make_vec(e.problem, 2.5), "`num_envs` must be a positive integer below"),
        (lambda e: make_vec(e.problem, 2, params=[[np.inf]]), "`params` must be finite"),
        (lambda e: make_vec(e.problem, 2, params=[1.0]), r"`params` must have shape \(1, 1\) or \(2, 1\)"),
        (lambda e: make_vec(e.problem, 2, device="tpu"), "`device` must be"),
        (lambda e: make_vec("pendulumm", 2), "did you mean `pendulum`"),
    ],
)  # fmt: skip
def test_wrong_arguments_get_one_clear_sentence(call, message):
    with pytest.raises(ArgumentError, match=message):
        call(make_vec(tiny.counter(), 2))


def test_an_action_that_is_not_contiguous_or_needs_a_gradient_is_taken_as_it_is():
    problem = tiny.driven(diffusion=None)
    a, b = make_vec(problem, 3), make_vec(problem, 3)
    a.reset(seed=0), b.reset(seed=0)
    action = torch.rand(2, 3).T
    assert torch.equal(a.step(action)[0], b.step(action.contiguous().requires_grad_())[0])


def test_an_untranslatable_problem_says_so():
    with pytest.raises(ArgumentError, match=r"`step` cannot be compiled: its output `x_next` needs .* `printme`"):
        make_vec(tiny.counter(transition=lambda x, u, p: x[0].printme(u[0])), 2)
