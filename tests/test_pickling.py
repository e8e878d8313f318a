"""Problems, environments and results in other processes: pickled, copied and spawned."""

import copy
import pickle

import casadi as ca
import gymnasium
import numpy as np
import pytest
import torch

import optctl
from optctl import Normal, Problem
from optctl.interop import GymEnv, GymVectorEnv
from optctl.problem.transforms import delayed
from optctl.simulation import make_vec

NAME = "pendulum"


def everything() -> Problem:
    """Every field that holds a function, each a lambda, one of which closes over a CasADi function and a symbolic table."""
    x = ca.SX.sym("x", 2)
    drag = ca.Function("drag", [x], [ca.fabs(x[1]) * x[1]])
    return Problem(
        name="everything", state=["q", "v"], control=["u"], params={"k": 2.0, "m": 1.5}, dt=0.1, steps=6, substeps=2,
        initial_state=Normal([1.0, 0.0], [0.1, 0.0]), control_bounds={"u": (-1, 2)}, state_bounds={"v": (-3, 3)},
        dynamics=lambda x, u, p: [x[1], (u[0] - p.k * x[0] - drag(x)) / p.m],
        stage_cost=lambda x, u, p, t: (1 + t) * ca.sumsqr(x) + u[0] ** 2,
        terminal_cost=lambda x, p: p.k * x[0] ** 2, terminal_constraints=lambda x, p: x[1], diffusion=lambda x, u, p: [0.0, 0.1],
        path_constraints=lambda x, u, p: [x[0] - 2, u[0] * x[1] - 4], observation=lambda x, p, t: [ca.sin(x[0]), t],
        observation_noise=[0.1, 0.0], param_ranges={"k": (1.0, 3.0)},
    )  # fmt: skip


@pytest.mark.parametrize(
    "make", [everything, lambda: delayed(optctl.make(NAME), 2), lambda: optctl.make("discrete-integrator")]
)
def test_a_copy_of_a_problem_is_the_same_problem(make):
    problem = make()
    twin = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(problem))))
    assert twin.task_fingerprint == problem.task_fingerprint
    names = (
        "dynamics",
        "diffusion",
        "stage_cost",
        "interval",
        "path_constraint",
        "terminal_constraint",
        "terminal_cost",
    )
    for name in names:
        ours, theirs = (getattr(p, f"{name}_function") for p in (problem, twin))
        assert (ours is None) == (theirs is None) and (ours is None or ours.serialize() == theirs.serialize())
    assert twin.replace(dt=0.2).fingerprint == problem.replace(dt=0.2).fingerprint
    assert copy.deepcopy(problem) is problem and copy.copy(problem) is problem


def test_a_copied_problem_is_solved_to_the_same_bits():
    problem = everything().replace(path_constraints=None, state_bounds={})
    first, second = (optctl.solve(p, [1.0, 0.0]) for p in (problem, pickle.loads(pickle.dumps(problem))))
    assert first.ok and first.value == second.value
    np.testing.assert_array_equal(first.trajectory.controls, second.trajectory.controls)


def test_solutions_and_comparisons_can_be_pickled():
    problem = everything().replace(
        path_constraints=None, state_bounds={}, diffusion=None, observation=None, observation_noise=0.0
    )
    batch = optctl.solve(problem, [[1.0, 0.0], [0.5, 0.0]])
    twin = pickle.loads(pickle.dumps(copy.deepcopy(batch)))
    np.testing.assert_array_equal(twin.values, batch.values)
    assert twin.problem.fingerprint == problem.fingerprint and str(twin) == str(batch)
    assert pickle.loads(pickle.dumps(batch[1])).certificate == batch[1].certificate
    report = optctl.compare(problem, {"optimal": batch, "zero": "zero"}, num_starts=2, starts=[[1.0, 0.0], [0.5, 0.0]])
    assert repr(pickle.loads(pickle.dumps(report)).to_dict()) == repr(report.to_dict())  # NaN is not equal to itself


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copied_environments_go_on_alike_and_apart(twin_of):
    problem = optctl.make(NAME)
    env = make_vec(problem, 3, randomize=False, max_episode_steps=4)
    env.reset(seed=1)
    env.step(torch.full((3, 1), 0.5))
    twin = twin_of(env)
    action = torch.tensor([[0.1], [-0.2], [0.9]])
    for _ in range(5):  # over the end of an episode: the random streams are the same
        ours = [value.clone() for value in env.step(action)[:4]]
        assert all(torch.equal(a, b) for a, b in zip(ours, twin.step(action)[:4], strict=True))
    before = env.state.clone()
    twin.step(action)
    assert torch.equal(env.state, before)


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copied_gymnasium_environments_go_on_alike(twin_of):
    env = GymEnv(optctl.make(NAME))
    env.reset(seed=3)
    env.step(np.array([0.5]))
    twin = twin_of(env)
    (obs, reward, *_), (other, as_much, *_) = env.step(np.array([0.3])), twin.step(np.array([0.3]))
    np.testing.assert_array_equal(obs, other)
    assert reward == as_much
    many = GymVectorEnv(optctl.make(NAME), 2)
    many.reset(seed=1)
    np.testing.assert_array_equal(twin_of(many).step(np.ones((2, 1)))[0], many.step(np.ones((2, 1)))[0])


def test_stable_baselines_steps_environments_in_processes_of_their_own():
    from stable_baselines3.common import vec_env

    problem = optctl.make(NAME)
    envs = vec_env.SubprocVecEnv([lambda: GymEnv(problem)])
    try:
        envs.seed(4)
        began = envs.reset()
        here = GymEnv(problem)
        np.testing.assert_array_equal(began[0], here.reset(seed=4)[0])
        np.testing.assert_array_equal(envs.step(np.array([[0.5]]))[0][0], here.step(np.array([0.5]))[0])
    finally:
        envs.close()


def test_gymnasium_steps_environments_in_spawned_processes():
    problem = optctl.make(NAME)
    envs = gymnasium.vector.AsyncVectorEnv([lambda: GymEnv(problem)], context="spawn")
    try:
        here = GymEnv(problem)
        np.testing.assert_array_equal(envs.reset(seed=4)[0][0], here.reset(seed=4)[0])
        np.testing.assert_array_equal(envs.step(np.array([[0.5]]))[0][0], here.step(np.array([0.5]))[0])
    finally:
        envs.close()
