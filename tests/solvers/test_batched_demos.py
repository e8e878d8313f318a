"""Demonstration sets: what is in the file, and that an interrupted run ends with the same bytes."""

import json

import numpy as np
import pytest
import torch

import optctl
from optctl import envs
from optctl.cli import main
from optctl.errors import ArgumentError, FileError
from optctl.hybrid import dataset as demos
from optctl.problem import Problem, Uniform
from optctl.solvers import tvlqr


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    problem = envs.make("pendulum", steps=60)
    folder = tmp_path_factory.mktemp("made")
    return problem, folder, demos.generate(problem, 12, folder, chunk=5, randomize=True, seed=3)


def test_the_trajectories_are_optimal_and_cost_what_they_say(made):
    problem, _, found = made
    assert len(found) == found.metadata["certified"] == 12
    path = found.trajectory
    np.testing.assert_allclose(found.values[:, 0], path.total_cost, rtol=1e-12)
    np.testing.assert_allclose(found.values[:, 7], path.costs[:, 7:].sum(axis=1), rtol=1e-12)
    after, cost = problem.step_function(path.states[:, 10].T, path.controls[:, 10].T, found.params.T, 0.0)
    np.testing.assert_allclose(np.asarray(after).T, path.states[:, 11], atol=1e-12)
    np.testing.assert_allclose(np.asarray(cost).ravel(), path.costs[:, 10], atol=1e-12)
    assert found.stationarity.max() < 1e-8
    assert np.ptp(found.params[:, 0]) > 0.05
    # λ is the gradient of the cost-to-go: along the trajectory, dV = −l dt = λ'dx − …, checked at the start by a new solve
    from optctl.solvers import solve

    push = np.array([1e-4, 0.0])
    i = int(np.argmin(np.abs(path.controls).max(axis=(1, 2))))
    moved = solve(problem, path.states[i, 0] + push, params=found.params[i], guess=path[i])
    assert (moved.value - found.values[i, 0]) / 1e-4 == pytest.approx(path.costates[i, 0, 0], rel=1e-2, abs=1e-2)


def test_killed_and_resumed_it_gives_the_same_bytes(made, tmp_path, monkeypatch):
    problem, folder, _ = made
    seen = []

    def killed(done, of):
        seen.append((done, of))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demos.generate(problem, 12, tmp_path, chunk=5, randomize=True, seed=3, progress=killed)
    assert seen == [(5, 12)]
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["part-00000.safetensors"]
    demos.generate(problem, 12, tmp_path, chunk=5, randomize=True, seed=3)
    for name in (demos.NAME, "demonstrations.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.setattr(demos, "_chunk", None)  # a finished run is only read
    assert len(demos.generate(problem, 12, tmp_path, chunk=5, randomize=True, seed=3)) == 12


def test_another_run_is_not_overwritten(made):
    problem, folder, _ = made
    with pytest.raises(ArgumentError, match="seed 3 instead of 4"):
        demos.generate(problem, 12, folder, chunk=5, randomize=True, seed=4)


@pytest.mark.parametrize(
    "changes",
    [
        {"state_bounds": {"velocity": (-0.5, 0.5)}}, {"initial_state": Uniform([0.1, 0.0], [0.2, 0.0])},
        {"horizon": "finite", "terminal_constraints": lambda x, p: x[0]}, {"path_constraints": lambda x, u, p: x[0] - 3},
        {"control_bounds": {"force": (-50.0, 50.0)}},
    ],
    ids=["state bounds", "starts", "end", "path", "control bounds"],
)  # fmt: skip
def test_a_set_of_another_task_is_not_continued(tmp_path, changes):
    problem = envs.make("double-integrator", steps=20)
    names = {"velocity": list(problem.state)[1], "force": next(iter(problem.control))}
    changes = {k: {names[n]: side for n, side in v.items()} if k.endswith("bounds") else v for k, v in changes.items()}
    demos.generate(problem, 2, tmp_path)
    with pytest.raises(ArgumentError, match="without another run"):
        demos.generate(problem.replace(**changes), 2, tmp_path)


def test_bad_arguments_and_files_are_named(tmp_path):
    problem = envs.make("double-integrator")
    for arguments, word in (
        ({"num": 0}, "num"),
        ({"chunk": 0}, "chunk"),
        ({"seed": -1}, "seed"),
        ({"randomize": True}, "randomize"),
    ):
        with pytest.raises(ArgumentError, match=word):
            demos.generate(problem, **({"num": 2, "out": tmp_path} | arguments))
    with pytest.raises(FileError, match="not a demonstration set"):
        demos.load(tmp_path)
    free = Problem(
        name="unhurried", state=["x"], control=["u"], dynamics=lambda x, u, p: u, stage_cost=lambda x, u, p: 1 + u[0] ** 2,
        final_time=(0.1, 2.0), initial_state=Uniform([-1.0], [1.0]), dt=0.1, steps=5,
    )  # fmt: skip
    with pytest.raises(ArgumentError, match="fixed final time"):
        demos.generate(free, 2, tmp_path / "unhurried")


def test_constrained_problems_have_demonstrations_too(tmp_path):
    railed = Problem(
        name="railed", state=["q", "v"], control=["u"], dynamics=lambda x, u, p: [x[1], u[0]],
        stage_cost=lambda x, u, p: (x[0] - 1) ** 2 + 0.1 * u[0] ** 2, state_bounds={"q": (-0.6, 0.6)},
        initial_state=Uniform([-0.5, -0.2], [0.5, 0.2]), dt=0.1, steps=20,
    )  # fmt: skip
    found = demos.generate(railed, 6, tmp_path)
    assert len(found) == 6
    assert 0.6 - 1e-6 < found.trajectory.states[:, 1:, 0].max() < 0.6 + 1e-8


def test_minari_gets_what_the_environment_would_have_given(tmp_path, monkeypatch):
    import minari

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    problem = envs.make("pendulum", steps=40)
    found = demos.generate(problem, 3, tmp_path / "set")
    with pytest.warns(UserWarning):  # Minari's: no author, no evaluation environment
        demos.to_minari(found, problem, "optctl/test/optimal-v0")
    dataset = minari.load_dataset("optctl/test/optimal-v0")
    assert (dataset.total_episodes, dataset.total_steps) == (3, 120)
    env = optctl.make_vec(problem, 3, dtype="float64")
    obs, _ = env.reset(seed=0, options={"state": found.trajectory.states[:, 0]})
    episodes = list(dataset.iterate_episodes())
    for k in range(40):
        np.testing.assert_allclose([e.observations[k] for e in episodes], obs.numpy(), atol=1e-6)
        actions = torch.as_tensor(np.stack([e.actions[k] for e in episodes]))
        obs, reward, terminated, truncated, info = env.step(actions)
        np.testing.assert_allclose([e.rewards[k] for e in episodes], reward.numpy(), atol=1e-6)
        assert [bool(e.terminations[k]) for e in episodes] == terminated.tolist()
        assert [bool(e.truncations[k]) for e in episodes] == truncated.tolist()
    np.testing.assert_allclose([e.observations[40] for e in episodes], info["final_obs"].numpy(), atol=1e-6)
    assert np.array_equal(episodes[1].infos["costate"], found.trajectory.costates[1])
    with pytest.raises(ArgumentError, match="another one"):
        demos.to_minari(found, "pendulum")


def test_the_command_writes_a_set_and_its_description(tmp_path, capsys):
    assert main(["demos", "double-integrator", "--num", "6", "--out", str(tmp_path)]) == 0
    assert "6 of 6 starts certified" in capsys.readouterr().out
    about = json.loads((tmp_path / "demonstrations.json").read_text())
    assert (about["problem"], about["certified"]) == ("double-integrator", 6)
    assert len(demos.load(tmp_path / demos.NAME)) == 6


@pytest.fixture(scope="module")
def gates(tmp_path_factory):
    """32 states: GRAPE instead of sweeps, the gains by LQR along the trajectory."""
    problem = envs.make("exchange-gate")
    return problem, demos.generate(problem, 2, tmp_path_factory.mktemp("gates"), randomize=True)


def test_gains_of_a_large_gate_are_those_of_its_own_plant(gates):
    problem, found = gates
    assert len(found) == 2 and np.ptp(found.params, axis=0).max() > 0
    assert found.gains.shape == (2, problem.steps, problem.n_u, problem.n_x) and (found.gains != 0).any()
    for i in range(2):
        np.testing.assert_allclose(found.gains[i], tvlqr(problem, found.trajectory[i], found.params[i]).K, rtol=1e-9)


def test_costates_of_a_large_gate_are_the_slope_of_its_cost(gates):
    problem, found = gates
    p = found.params[0]

    def cost(x):
        total = 0.0
        for k, u in enumerate(found.trajectory.controls[0]):
            x, c = problem.step_function(x, u, p, k * problem.dt)
            total += float(c)
        return total + float(problem.terminal_cost_function(x, p, problem.duration))

    start = found.trajectory.states[0, 0]
    direction = np.random.default_rng(0).standard_normal(problem.n_x)
    slope = (cost(start + 1e-5 * direction) - cost(start - 1e-5 * direction)) / 2e-5
    assert slope == pytest.approx(float(found.trajectory.costates[0, 0] @ direction), rel=1e-5, abs=1e-8)
