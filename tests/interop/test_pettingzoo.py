"""The multi-agent view against PettingZoo's own checks and against the single environment."""

import gymnasium
import numpy as np
import pytest
from pettingzoo.test import parallel_api_test, parallel_seed_test

import optctl
from optctl.errors import ArgumentError
from optctl.interop.gymnasium import GymEnv
from optctl.interop.pettingzoo import ParallelEnv, local_agents


def chain():
    return optctl.make("oscillator-chain", n=4, actuated=None, steps=20)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "problem", [chain(), optctl.make("mass-spring", steps=20), optctl.make("spin-chain", spins=3, steps=10)], ids=str
)
def test_pettingzoos_own_checks(problem):
    parallel_api_test(ParallelEnv(problem), num_cycles=50)
    parallel_seed_test(lambda: ParallelEnv(problem), num_cycles=5)


def test_each_mass_sees_itself_and_its_neighbours():
    assert local_agents(chain()) == {
        "force1": (["q1", "q2", "v1"], ["force1"]),
        "force2": (["q1", "q2", "q3", "v2"], ["force2"]),
        "force3": (["q2", "q3", "q4", "v3"], ["force3"]),
        "force4": (["q3", "q4", "v4"], ["force4"]),
    }
    own_place = optctl.make(
        "double-integrator"
    )  # the force on a free mass depends on nothing, but it moves the position
    assert local_agents(own_place) == {"force": (["position", "velocity"], ["force"])}


def test_who_sees_what_is_as_the_family_pages_say():
    sees = lambda name, **options: {a: seen for a, (seen, _) in local_agents(optctl.make(name, **options)).items()}
    assert sees("dean") == {"u1": ["x1", "x2"], "u2": ["x1", "x2", "x3"], "u3": ["x2", "x3"]}
    assert sees("oscillator-ring")["force1"] == ["q1", "q2", "q4", "v1"]
    assert len(sees("kuramoto")["u1"]) == 6
    sparse = np.roll(np.eye(6), 1, axis=0) + np.roll(np.eye(6), -1, axis=0)
    assert sees("kuramoto", network=sparse)["u1"] == ["theta1", "theta2", "theta6"]
    assert len(sees("reacher")["torque2"]) == 4 and len(sees("quadrotor")["left"]) == 6
    chain = sees("spin-chain")  # five sites: two numbers each
    assert [len(seen) for seen in chain.values()] == [6, 8, 8, 6]


def test_the_team_moves_as_the_single_environment_does_and_shares_its_reward():
    problem = chain()
    team, single = ParallelEnv(problem), GymEnv(problem)
    obs, _ = team.reset(seed=3)
    alone, _ = single.reset(seed=3)
    rng = np.random.default_rng(0)
    for k in range(problem.steps):
        assert obs["force2"].tolist() == alone[[0, 1, 2, 5]].tolist() and team.state().tolist() == alone[:8].tolist()
        action = rng.uniform(-1, 1, 4).astype(np.float32)
        obs, rewards, terminated, truncated, infos = team.step({f"force{i + 1}": action[i : i + 1] for i in range(4)})
        alone, reward, *ends, _ = single.step(action)
        assert rewards == dict.fromkeys(team.possible_agents, reward) and set(infos) == set(rewards)
        assert [terminated["force1"], truncated["force1"]] == ends == [False, k == problem.steps - 1]
    assert (
        team.agents == [] and obs["force4"].tolist() == alone[[2, 3, 7]].tolist()
    )  # the last state, not the next first
    with pytest.raises(gymnasium.error.ResetNeeded):
        team.step({})


def test_a_finite_horizon_is_seen_to_pass_and_teams_can_be_named():
    problem = optctl.make("spin-chain", spins=3, steps=10)
    env = ParallelEnv(problem, {"all": (list(problem.state)[:2], list(problem.control))}, render_mode="rgb_array")
    obs, _ = env.reset(options={"state": np.eye(6)[0]})
    assert obs["all"].tolist() == [1.0, 0.0, 0.0] and env.observation_space("all").contains(obs["all"])
    obs, *_ = env.step({"all": np.zeros(2)})
    assert obs["all"][-1] == pytest.approx(0.1) and env.render().shape == (400, 400, 3)


def test_every_agent_is_told_the_cost_of_broken_constraints():
    env = ParallelEnv(chain().replace(state_bounds={"q1": (-1.0, 1.0)}))
    _, infos = env.reset(seed=0, options={"state": [0.9, 0, 0, 0, 2.0, 0, 0, 0]})
    assert infos["force4"] == {"cost": 0.0}
    *_, infos = env.step({agent: np.zeros(1) for agent in env.agents})
    assert infos["force1"] == infos["force4"] == {"cost": pytest.approx(env.state()[0] - 1.0, abs=1e-6)}
    assert infos["force1"]["cost"] > 0.01


@pytest.mark.parametrize(
    ("agents", "sentence"),
    [
        ({}, "`agents` must name at least one agent, but is empty"),
        ({"a": (["z"], ["force"])}, "`agents` must name states of mass-spring, but a has z"),
        ({"a": (["q1"], ["push"])}, "`agents` must name controls of mass-spring, but a has push"),
        ({"a": (["q1"], ["force"]), "b": (["q2"], ["force"])}, "`agents` must share out the controls force, each once"),
        ({"a": (["q1"], [])}, "`agents` must share out the controls force, each once"),
    ],
)
def test_teams_that_do_not_fit(agents, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        ParallelEnv("mass-spring", agents)


def test_actions_that_do_not_fit():
    env = ParallelEnv("mass-spring")
    env.reset(seed=0)
    with pytest.raises(ArgumentError, match="`actions` must hold an action for every agent, but has none for force"):
        env.step({})
    with pytest.raises(ArgumentError, match=r"`actions\['force'\]` must have shape \(1,\), but has shape \(2,\)"):
        env.step({"force": np.zeros(2)})
