"""Cases of problems as environments."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Iterator
from typing import Any

import casadi as ca
import gymnasium
import numpy as np

import optctl
import optctl.gym
from optctl import Fixed
from optctl.bench.cases.rows import Cases, Row, decay, near, optimum, problem, refused, solve, tried, true
from optctl.errors import ArgumentError
from optctl.interop import GymEnv, from_policy
from optctl.interop.torchrl import TorchRLEnv

CASES = Cases()


def _module_level_rate(x, u, p):
    return u


def _module_level_cost(x, u, p):
    return x[0] ** 2 + u[0] ** 2


@CASES.case("copies of problems and environments", "a copy steps as the original does")
def copies() -> Iterator[Row]:
    p = problem(
        "plain",
        1,
        1,
        dynamics=_module_level_rate,
        stage_cost=_module_level_cost,
        dt=0.1,
        steps=5,
        initial_state=Fixed([1.0]),
    )
    p.step_function  # what is cached must not stand in the way
    rest = decay(1.0)

    def stepped(twin: Any, right: float, u: float) -> tuple[bool, float]:
        found = float(twin.step_function(1.0, u, [], 0.0)[0])
        return abs(found - right) < 1e-9, found

    def copied() -> tuple[bool, Any]:
        env: Any = GymEnv(p)
        env.reset(seed=0)
        twin: Any = copy.deepcopy(env)
        one, other = twin.step(np.array([0.3]))[0], env.step(np.array([0.3]))[0]
        return np.allclose(one, other), one

    def batch() -> tuple[bool, Any]:
        values = solve(p, [[1.0], [2.0]])
        twin = pickle.loads(pickle.dumps(values))
        return twin.values[0] == values.values[0], twin.values[0]

    yield tried(
        "a problem of plain functions, pickled", "1.05", lambda: stepped(pickle.loads(pickle.dumps(p)), 1.05, 0.5)
    )
    yield tried("an environment, copied", "the same step", copied)
    yield tried("a batch of solutions, pickled", "the same values", batch)
    import cloudpickle

    again = lambda thing: pickle.loads(cloudpickle.dumps(thing))
    yield tried("a problem of lambdas, by cloudpickle", "e^-0.2", lambda: stepped(again(rest), math.exp(-0.2), 0.0))
    yield tried("an environment, by cloudpickle", "begins", lambda: (True, again(GymEnv(rest)).reset(seed=0)[0]))


@CASES.case("environments in processes of their own", "two episodes begin")
def in_processes() -> Iterator[Row]:
    p = decay(1.0)

    def spawned() -> tuple[bool, Any]:
        env: Any = gymnasium.vector.AsyncVectorEnv([lambda: GymEnv(p)] * 2, context="spawn")
        shape = env.reset(seed=0)[0].shape
        env.close()
        return shape == (2, 1), shape

    yield tried("Gymnasium, spawned", "(2, 1)", spawned)
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import SubprocVecEnv

    def served() -> tuple[bool, Any]:
        env: Any = make_vec_env(lambda: GymEnv(p), n_envs=2, vec_env_cls=SubprocVecEnv)
        shape = env.reset().shape
        env.close()
        return shape == (2, 1), shape

    yield tried("Stable-Baselines3, its default", "(2, 1)", served)


@CASES.case("length of an episode", "Gymnasium's own Pendulum-v1 obeys max_episode_steps")
def episode_length() -> Iterator[Row]:
    env = gymnasium.make("optctl/gymnasium-pendulum-v1", max_episode_steps=500)
    env.reset(seed=0)
    steps, ended = 0, False
    while not ended and steps < 600:
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        steps, ended = steps + 1, terminated or truncated
    yield near("steps of 500", 500, steps)
    spec = gymnasium.make("optctl/gymnasium-pendulum-v1").spec
    yield true(
        "the spec's length", "200", spec is not None and spec.max_episode_steps == 200, spec and spec.max_episode_steps
    )
    wrapped = gymnasium.wrappers.TimeAwareObservation(gymnasium.make("optctl/gymnasium-pendulum-v1"))
    yield true(
        "TimeAwareObservation",
        "an observation",
        np.isfinite(np.asarray(wrapped.reset(seed=0)[0])).all(),
        "an observation",
    )


@CASES.case(
    "environment of an unbounded control", "a comparison says that actions cannot reach the reference's controls"
)
def clipped() -> Iterator[Row]:
    p = problem("far", 1, 1, dynamics=lambda x, u, q: u, stage_cost=lambda x, u, q: 100 * x[0] ** 2 + u[0] ** 2, dt=0.05, steps=40,
                initial_state=Fixed([1.0]))  # fmt: skip
    policy = from_policy(p, lambda y: -np.ones((len(y), 1)))
    word = next((note for note in optctl.compare(p, [policy], num_starts=2).notes if "control_scale" in note), "")
    yield true("note of the comparison", "names `control_scale`", word, word)


@CASES.case("free final time as an environment", "both kinds of environment do the same")
def free_time_environment() -> Iterator[Row]:
    p = problem("free", 1, 1, dynamics=lambda x, u, q: u, stage_cost=lambda x, u, q: 1.0, dt=0.1, steps=10, final_time=(0.1, 5.0),
                initial_state=Fixed([1.0]), control_bounds={"u0": (-1.0, 1.0)})  # fmt: skip
    answers = []
    for make in (lambda: GymEnv(p), lambda: optctl.make_vec(p, 2)):
        try:
            make()
            answers.append("accepted")
        except ArgumentError:
            answers.append("refused")
    yield true("GymEnv and make_vec", "the same", answers[0] == answers[1], ", ".join(answers))


@CASES.case("constant that is not a number", "math.sin of a symbol is nan")
def constant_nan() -> Iterator[Row]:
    make = lambda: problem("nan", 1, 1, dynamics=lambda x, u, q: u[0] + math.sin(x[0]), stage_cost=lambda x, u, q: x[0] ** 2 + u[0] ** 2,
                           dt=0.1, steps=10, initial_state=Fixed([1.0]))  # fmt: skip
    yield refused("stating it", make, "dynamics")


@CASES.case("table in an environment", "a sentence that names what has a translation")
def table() -> Iterator[Row]:
    lookup = ca.interpolant("lookup", "linear", [[0.0, 1.0, 2.0]], [0.0, 1.0, 0.0])
    p = problem("table", 1, 1, dynamics=lambda x, u, q: u - lookup(x[0]), stage_cost=lambda x, u, q: x[0] ** 2 + u[0] ** 2, dt=0.1,
                steps=10, initial_state=Fixed([1.0]))  # fmt: skip
    yield refused("make_vec", lambda: optctl.make_vec(p, 2), "pw_lin")


@CASES.case("start given to a TorchRL environment", "it starts there, or says that it cannot")
def torchrl_state() -> Iterator[Row]:
    import torchrl  # noqa: F401

    env = TorchRLEnv(decay(1.0), 2)
    try:
        begun = env.reset(state=np.array([[0.5], [0.25]]))["observation"].cpu().numpy().ravel()
    except (ArgumentError, TypeError) as error:
        yield true("reset(state=…)", "[0.5, 0.25], or a sentence", True, str(error)[:80])
        return
    yield true("reset(state=…)", "[0.5, 0.25], or a sentence", np.allclose(begun, [0.5, 0.25]), begun)


@CASES.case("disturbance held over each interval", "least squares by hand: 0.0152830")
def held_data() -> Iterator[Row]:
    p = problem("held", 1, 1, dynamics=lambda x, u, q: u - q.d, data={"d": [float(k % 2) for k in range(10)]}, dt=0.1, steps=10,
                initial_state=Fixed([0.0]), stage_cost=lambda x, u, q: x[0] ** 2 + 0.1 * u[0] ** 2)  # fmt: skip
    yield optimum("cost", solve(p, [0.0]), 0.0152830, 1e-4)
