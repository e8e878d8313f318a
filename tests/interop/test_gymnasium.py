"""The Gymnasium adapters against Gymnasium's own checks and conventions."""

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
import tiny
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from selection import cases

from optctl import Uniform
from optctl.codegen.warp_source import Target
from optctl.envs import CATALOGUE, make
from optctl.errors import ArgumentError
from optctl.gym import gym_id
from optctl.interop.gymnasium import GymEnv, GymVectorEnv
from optctl.simulation.rollout_source import EnvironmentRollout
from optctl.simulation.vector_env import VectorEnv, make_vec


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_problem_is_translated(name):
    """Source alone: to compile that of all takes long."""
    problem = make(name)
    generated = EnvironmentRollout(problem, Target("float32", "cpu"), shared_params=True, randomize=False)
    for source in (generated.source(), generated.step_source()):
        compile(source, name, "exec")


@pytest.mark.parametrize("name", cases())
def test_every_problem_passes_the_environment_checker_and_steps_as_casadi_does(name):
    """Rewards, states without process noise and observations without theirs, to the rounding of float32."""
    env = gymnasium.make(gym_id(name), render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*A Box observation space m(in|ax)imum value is .*infinity.*")
        check_env(env.unwrapped)
    env, problem, rng = env.unwrapped, make(name), np.random.default_rng(0)
    assert env.problem.name == problem.name
    p, info = problem.param_values, env.reset(seed=0)[1]
    for k in range(3):
        x, action = info["state"].astype(float), rng.uniform(-0.3, 0.3, problem.n_u).astype(np.float32)
        obs, reward, *_, info = env.step(action)
        after, cost = problem.step_function(x, problem.to_control(action.astype(float)), p, k * problem.dt)
        size = 1.0 + np.abs(x).max()
        assert reward == pytest.approx(-float(cost), rel=1e-5, abs=1e-5)
        if problem.diffusion is None:
            np.testing.assert_allclose(info["state"], np.ravel(after), rtol=1e-5, atol=1e-5 * size)
        if not problem.noise_std.any():
            seen = np.ravel(problem.observation_function(info["state"].astype(float), p, (k + 1) * problem.dt))
            np.testing.assert_allclose(obs, seen, rtol=1e-5, atol=1e-5 * size)


def test_importing_the_register_adds_the_ids_without_loading_torch_or_warp():
    """`pendulum-v1` has an id of its own, because Gymnasium would take it for a newer version of `pendulum`."""
    code = (
        "import sys, gymnasium; from optctl.gym import register; register()\n"
        "assert 'torch' not in sys.modules and 'warp' not in sys.modules\n"
        "print(*(k for k in gymnasium.registry if k.startswith('optctl/')))"
    )
    ids = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"optctl/gymnasium-pendulum-v1", "optctl/pendulum-v0", "optctl/cartpole-v0"} <= set(ids)
    assert len(ids) == len(CATALOGUE)


@pytest.mark.parametrize(
    ("name_id", "name"), [("optctl/pendulum", "pendulum"), ("optctl/gymnasium-pendulum", "pendulum-v1")]
)
@pytest.mark.filterwarnings("ignore:.*latest versioned environment")
def test_an_id_without_a_version_is_the_problem_of_that_name(name_id, name):
    assert gymnasium.make(name_id).unwrapped.problem.name == name


def test_an_unknown_version_names_the_one_there_is():
    with pytest.raises(gymnasium.error.VersionNotFound, match=r"versioned environments: .*v0"):
        gymnasium.make("optctl/pendulum-v1")


def test_an_id_can_name_the_module_that_registers_it():
    assert gymnasium.make("optctl.gym:optctl/cartpole-v0").unwrapped.problem.name == "cartpole"


def length(env) -> tuple[int, bool, bool]:
    env.reset(seed=0)
    for n in range(1, 1000):
        *_, terminated, truncated, _ = env.step(np.zeros(1, dtype=np.float32))
        if terminated or truncated:
            return n, terminated, truncated
    return 1000, False, False


@pytest.mark.parametrize(
    ("asked", "steps"), [({}, 200), ({"max_episode_steps": 300}, 300), ({"max_episode_steps": 7}, 7)]
)
def test_gymnasiums_limit_lengthens_and_shortens_episodes_of_an_infinite_horizon(asked, steps):
    env = gymnasium.make("optctl/gymnasium-pendulum-v1", **asked)
    assert env.spec.max_episode_steps == steps and length(env) == (steps, False, True)
    assert gymnasium.spec("optctl/gymnasium-pendulum-v1").max_episode_steps == 200
    again = gymnasium.make(env.spec)
    assert again.spec.max_episode_steps == steps


@pytest.mark.parametrize(("asked", "end"), [({}, (50, True, False)), ({"max_episode_steps": 7}, (7, False, True))])
def test_a_finite_horizon_ends_by_itself_or_is_truncated_earlier(asked, end):
    env = gymnasium.make("optctl/moved-trap-v0", **asked)
    assert env.spec.max_episode_steps == end[0] and length(env) == end


@pytest.mark.parametrize("name", ["gymnasium-pendulum-v1", "moved-trap-v0"])
def test_the_time_left_can_be_observed(name):
    env = gymnasium.wrappers.TimeAwareObservation(gymnasium.make(f"optctl/{name}"), normalize_time=True)
    env.reset(seed=0)
    steps = env.spec.max_episode_steps
    assert env.step(env.action_space.sample())[0][-1] == pytest.approx(1 / steps)


def test_vectors_take_the_limit_too():
    for mode in ("sync", "vector_entry_point"):
        envs = gymnasium.make_vec("optctl/gymnasium-pendulum-v1", 2, vectorization_mode=mode)
        assert envs.spec.max_episode_steps == 200


@pytest.mark.parametrize(
    "make_one", [GymEnv, lambda problem: GymVectorEnv(problem, 2), lambda problem: make_vec(problem, 2)]
)
def test_a_free_final_time_is_refused_everywhere_in_the_same_words(make_one):
    free = tiny.driven(final_time=(0.1, 1.0))
    with pytest.raises(
        ArgumentError, match="`problem` must have a fixed final time to be stepped, but its final time is free"
    ):
        make_one(free)


def test_a_single_environment_ends_and_asks_for_a_reset():
    env = GymEnv(tiny.counter())
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(1, np.float32))
    obs, info = env.reset(seed=1, options={"state": [2.0]})
    assert obs.tolist() == [2.0, 0.0] and obs.dtype == np.float32 and info["state"].tolist() == [2.0]
    for k in range(3):
        obs, reward, terminated, truncated, info = env.step(np.array([0.5], np.float32))
        assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)
        assert terminated == (k == 2) and not truncated
    assert obs.tolist() == [5.0, 1.0] and reward == -16.0 - 50.0  # x = 2, 3, 4 | 5
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(1, np.float32))
    assert env.reset(options={"params": [3.0], "state": [0.0]})[0][0] == 0.0
    assert env.step(np.array([0.5]))[0][0] == 3.0


@pytest.mark.parametrize("hidden", [False, True])
def test_info_holds_the_state_of_the_end_not_of_the_next_episode(hidden):
    problem = tiny.counter()
    if hidden:
        problem = problem.replace(observation=lambda x, p, t: [2 * x[0], t], observation_noise=[0.5, 0.0])
    env = GymEnv(problem, render_mode="rgb_array")
    env.reset(seed=0, options={"state": [2.0], "params": [3.0]})
    for _ in range(3):
        obs, *_, info = env.step(np.array([0.5], np.float32))
    assert info["state"].tolist() == [11.0] and info["time"] == 3 * problem.dt  # 2 + 3 · 3
    if hidden:  # and the noise is that of the batched environment
        envs = VectorEnv(problem, 1)
        envs.reset(seed=0, options={"state": [[2.0]], "params": [[3.0]]})
        for _ in range(3):
            *_, last = envs.step(torch.tensor([[0.5]]))
        assert obs.tolist() == last["final_obs"][0].tolist() and obs[0] != 22.0


def test_pendulum_v1_runs_like_gymnasiums_own_through_make():
    mine, theirs = gymnasium.make("optctl/gymnasium-pendulum-v1"), gymnasium.make("Pendulum-v1")
    mine.reset(seed=0, options={"state": [3.0, 0.5]})
    theirs.reset(seed=0)
    theirs.unwrapped.state = np.array([3.0, 0.5])
    rng = np.random.default_rng(0)
    for k in range(200):
        action = rng.uniform(-1, 1, 1).astype(np.float32)
        (obs, reward, *ends, _), (o, r, *their_ends, _) = mine.step(action), theirs.step(2 * action)
        if k < 20:  # float32 against float64: the difference grows along the trajectory
            np.testing.assert_allclose(obs, o, atol=1e-4)
            assert abs(reward - r) < 1e-3
        assert ends == their_ends


def test_a_vector_environment_follows_gymnasiums_same_step_convention():
    envs = gymnasium.make_vec("optctl/gymnasium-pendulum-v1", num_envs=3)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP and envs.num_envs == 3
    obs, infos = envs.reset(seed=0)
    assert obs.shape == (3, 3) and obs.dtype == np.float32 and envs.observation_space.contains(obs) and infos == {}
    envs = GymVectorEnv(tiny.counter(), 3)
    envs.reset(seed=0, options={"state": [[1.0], [2.0], [3.0]]})
    envs.step(np.zeros((3, 1)))
    obs, infos = envs.reset(options={"reset_mask": np.array([False, True, False])})
    assert obs[[0, 2], 1].tolist() == pytest.approx([1 / 3] * 2) and obs[1, 1] == 0
    envs.step(np.zeros((3, 1), np.float32))
    obs, reward, terminated, _, infos = envs.step(np.zeros((3, 1), np.float32))
    assert terminated.tolist() == [True, False, True] == infos["_final_obs"].tolist()
    assert infos["final_obs"][0].tolist() == [1.0, 1.0] and infos["final_obs"][1] is None
    assert infos["final_obs"][2].tolist() == [3.0, 1.0] and obs[[0, 2], 1].tolist() == [0.0, 0.0]
    assert reward[[0, 2]].tolist() == [-11.0, -39.0]


@pytest.mark.parametrize("copy", [True, False])
def test_vector_results_are_copies_unless_asked_otherwise(copy):
    envs = GymVectorEnv(railed(), 2, copy=copy)
    envs.reset(seed=0)
    *results, infos = envs.step(np.ones((2, 1), np.float32))
    results = [*results[:3], infos["cost"]]  # truncated is never set on a finite horizon
    before = [result.copy() for result in results]
    envs.step(-np.ones((2, 1), np.float32)), envs.step(-np.ones((2, 1), np.float32))
    assert [np.array_equal(*pair) for pair in zip(results, before, strict=True)] == [copy] * 4


def railed():
    """x⁺ = x + 2 a from 1, to be kept in −1 ≤ x ≤ 2, for three steps."""
    return tiny.counter(state_bounds={"x": (-1.0, 2.0)}, initial_state=Uniform([1.0], [1.0]))


def test_info_holds_the_cost_of_broken_constraints():
    """Actions 1, 1, −1: x = 3, 5, 3, so 1, 3 and 1 beyond the bound."""
    env = gymnasium.make("optctl/cartpole-rail-v0")
    assert env.reset(seed=0, options={"state": [0.3, 0.0, 5.0, 0.0]})[1]["cost"] == 0.0
    *_, info = env.step(np.zeros(1, np.float32))
    assert type(info["cost"]) is float and info["cost"] == pytest.approx(info["state"][0] - 0.4, abs=1e-6)
    env = GymEnv(railed())
    env.reset(seed=0)
    assert [env.step(np.array([a], np.float32))[4]["cost"] for a in (1.0, 1.0, -1.0)] == [1.0, 3.0, 1.0]
    assert "cost" not in GymEnv("cartpole").reset()[1]


def test_vector_infos_hold_costs_and_masks_also_of_episodes_that_end():
    envs = GymVectorEnv(railed(), 3)
    _, infos = envs.reset(seed=0)
    assert infos["cost"].tolist() == [0.0] * 3 and infos["_cost"].tolist() == [True] * 3
    envs.step(np.zeros((3, 1), np.float32))
    envs.reset(options={"reset_mask": np.array([False, True, False])})
    for ended, action, cost in (
        ([], [1.0, 1.0, 0.0], [1.0, 1.0, 0.0]),  # x = 3, 3, 1
        ([0, 2], [1.0, 1.0, 0.75], [3.0, 3.0, 0.5]),  # x = 5, 5, 2.5
    ):
        *_, infos = envs.step(np.array(action, np.float32)[:, None])
        assert infos["cost"].tolist() == cost and infos["_cost"].all() and ("final_info" in infos) == bool(ended)
    mask = [True, False, True]
    assert (
        infos["_final_info"].tolist() == infos["final_info"]["_cost"].tolist() == mask == infos["_final_obs"].tolist()
    )
    assert infos["final_info"]["cost"].tolist() == [3.0, 0.0, 0.5]


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("steps", [1, 3])
def test_it_steps_as_gymnasiums_own_vector_of_single_environments_does(mode, copy, steps):
    """In every mode, with episodes that end at different times; under SAME_STEP the last info of an episode is in "final_info"."""
    problem = railed().replace(steps=steps)
    mine = GymVectorEnv(problem, 3, autoreset_mode=mode, copy=copy)
    theirs = gymnasium.vector.SyncVectorEnv([lambda: GymEnv(problem)] * 3, autoreset_mode=mode)
    assert mine.metadata["autoreset_mode"] is theirs.metadata["autoreset_mode"] is mode
    mine.reset(seed=0), theirs.reset(seed=0)
    rng, over = np.random.default_rng(0), np.zeros(3, dtype=bool)
    for k in range(14):
        mask = over | (np.arange(3) == 1) if k == 2 else over
        if k == 2 or (mode is AutoresetMode.DISABLED and over.any()):
            first, second = (envs.reset(options={"reset_mask": mask})[0] for envs in (mine, theirs))
            assert np.array_equal(first, second)
        actions = rng.integers(-2, 3, (3, 1)).astype(np.float32) / 2
        (*results, infos), (*expected, their_infos) = mine.step(actions), theirs.step(actions)
        assert all(np.array_equal(*pair) for pair in zip(results, expected, strict=True))
        over = np.logical_or(results[2], results[3])
        costs = np.where(over & (mode is AutoresetMode.SAME_STEP), infos["cost"], their_infos["cost"])
        assert infos["cost"].tolist() == costs.tolist() and set(infos) <= set(their_infos)
        if "final_obs" in their_infos:
            last, its = infos["final_obs"], their_infos["final_obs"]
            assert [None if a is None else a.tolist() for a in last] == [None if a is None else a.tolist() for a in its]
            assert infos["final_info"]["cost"].tolist() == their_infos["final_info"]["cost"].tolist()


def test_a_disabled_autoreset_asks_for_a_reset():
    envs = GymVectorEnv(tiny.counter(), 2, autoreset_mode="Disabled")
    envs.reset(seed=0)
    for _ in range(3):
        *_, terminated, _, infos = envs.step(np.zeros((2, 1)))
    assert terminated.all() and infos == {}
    envs.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(gymnasium.error.ResetNeeded, match="Call `reset` with a `reset_mask`"):
        envs.step(np.zeros((2, 1)))


def test_gymnasiums_vector_wrappers_work_on_top():
    envs = gymnasium.wrappers.vector.RecordEpisodeStatistics(GymVectorEnv(tiny.counter("infinite"), 2))
    envs.reset(seed=0, options={"state": [[1.0], [2.0]]})
    for _ in range(3):
        *_, infos = envs.step(np.zeros((2, 1), np.float32))
    assert infos["episode"]["r"].tolist() == [-3.0, -12.0] and infos["episode"]["l"].tolist() == [3, 3]


def test_gymnasiums_normalisation_of_observations_takes_the_other_modes():
    envs = gymnasium.make_vec(
        "optctl/pendulum-v0", num_envs=64, autoreset_mode=AutoresetMode.NEXT_STEP, max_episode_steps=7
    )
    envs = gymnasium.wrappers.vector.NormalizeObservation(envs)
    envs.reset(seed=0)
    envs.action_space.seed(0)
    seen = np.concatenate([envs.step(envs.action_space.sample())[0] for _ in range(100)][50:])
    assert np.abs(seen.mean(axis=0)).max() < 0.1 and np.abs(seen.std(axis=0) - 1).max() < 0.1


def test_pictures():
    env = gymnasium.make("optctl/cartpole-v0", render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    env.step(np.ones(1, np.float32))
    assert first.shape == (400, 400, 3) and first.dtype == np.uint8 and (first != env.render()).any()
    envs = GymVectorEnv("pendulum-v1", 2, render_mode="rgb_array")
    envs.reset(seed=0)
    assert [p.shape for p in envs.render()] == [(400, 400, 3)] * 2
    assert GymEnv("cartpole").render() is None and GymVectorEnv("cartpole", 1).render() is None


def test_actions_are_clipped_and_a_nan_lasts_until_the_episode_ends():
    env, envs = GymEnv(tiny.counter()), GymVectorEnv(tiny.counter(), 2)
    env.reset(seed=0, options={"state": [0.0]})
    assert env.step(np.array([7.0]))[0][0] == 2.0
    obs, reward, *_ = env.step(np.array([np.nan]))
    assert (
        np.isnan(obs[0]) and reward == -4.0 and np.isnan(env.step(np.zeros(1))[1])
    )  # the cost is that of the start, 2²
    assert np.isfinite(env.reset()[0]).all()
    envs.reset(seed=0, options={"state": [[0.0]]})
    assert envs.step(np.array([[-7.0], [np.nan]]))[0][:, 0].tolist() == [-2.0, pytest.approx(np.nan, nan_ok=True)]
    envs.step(np.zeros((2, 1)))
    assert np.isfinite(envs.step(np.zeros((2, 1)))[0]).all()  # the first observations of the next episodes


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"state": [0.0, 0.0, 0.0]}, r"`options\['state'\]` must have shape \(4,\), but has shape \(3,\)"),
        ({"state": 0.0}, r"`options\['state'\]` must have shape \(4,\), but has shape \(\)"),
        ({"params": [1.0]}, r"`options\['params'\]` must have shape \(4,\), but has shape \(1,\)"),
        ({"params": [1.0, 0.3, np.nan, 9.81]}, "`params` must be finite, but has entries that are not"),
        ({"start": [0.0]}, "`options` must have keys among state, params, but has start"),
    ],
)
def test_wrong_options_of_a_reset(options, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        GymEnv("cartpole").reset(options=options)


def test_a_wrong_mask_of_a_reset():
    with pytest.raises(
        ArgumentError, match=r"`options\['reset_mask'\]` must be boolean with shape \(2,\), but is int64 with"
    ):
        GymVectorEnv("cartpole", 2).reset(options={"reset_mask": [0, 1]})


def test_unknown_ids_and_names():
    with pytest.raises(gymnasium.error.NameNotFound, match="Did you mean: `cartpole`"):
        gymnasium.make("optctl/cartpol-v0")
    with pytest.raises(ArgumentError, match=r"`name` must be a problem of the catalogue, .* did you mean `cartpole`"):
        GymEnv("cartpol")


@pytest.mark.parametrize("make_one", [GymEnv, GymVectorEnv])
def test_wrong_arguments(make_one):
    with pytest.raises(ArgumentError, match="`render_mode` must be None or 'rgb_array', but is 'human'"):
        make_one("cartpole", render_mode="human")
    with pytest.raises(
        ArgumentError, match=r"`autoreset_mode` must be an AutoresetMode \(.*SameStep.*\), but is 'never'"
    ):
        GymVectorEnv("cartpole", autoreset_mode="never")
    env = make_one("cartpole")
    env.reset(seed=0)
    with pytest.raises(ArgumentError, match="`action` must have shape"):
        env.step(np.zeros((5,)))
    with pytest.raises(ArgumentError, match="`seed` must be an integer"):
        GymVectorEnv("cartpole", 2).reset(seed=[1, 2])


def test_a_stable_baselines3_agent_trains_on_the_adapter():
    from stable_baselines3 import SAC

    agent = SAC(
        "MlpPolicy",
        gymnasium.make("optctl/gymnasium-pendulum-v1"),
        learning_starts=50,
        policy_kwargs={"net_arch": [16]},
        seed=0,
    )
    agent.learn(260)
    assert agent.num_timesteps == 260 and len(agent.ep_info_buffer) == 1
