"""A training run repeats, resumes bit for bit after a kill, and refuses what is not its own."""

import os
import shutil
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

import optctl
from optctl.errors import ArgumentError
from optctl.hybrid.warm_start import WarmStartConfig
from optctl.training.checkpoint import CheckpointError
from optctl.training.config import TrainConfig
from optctl.training.run import TrainingRun, load_agent, train

SHORT = TrainConfig(num_envs=16, iterations=30, evaluate_every=10, evaluation_starts=8, checkpoint_seconds=0.05)
WARM = WarmStartConfig(num_starts=6, clone_updates=50, critic_updates=20, rollout_steps=5, share_iterations=15)


def parameters(run) -> torch.Tensor:
    agent = run.agent
    return torch.cat([agent.actor.mlp.values.flatten(), agent.critic.mlp.values.flatten(), agent.log_temperature])


def finished(**options) -> TrainingRun:
    run = TrainingRun("sac", optctl.make("double-integrator"), **{"config": SHORT} | options)
    for _ in run.iterate():
        pass
    return run


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A finished run's folder and its policy, for tests that leave both as they are."""
    folder = tmp_path_factory.mktemp("saved")
    return folder, train("sac", "double-integrator", config=SHORT, out=folder)


def test_the_same_seed_gives_the_same_bits():
    first, second, other = finished(seed=3), finished(seed=3), finished(seed=4)
    assert torch.equal(parameters(first), parameters(second))
    assert not torch.equal(parameters(first), parameters(other))
    assert [p["cost"] for p in first.curve] == [p["cost"] for p in second.curve]


def test_the_curve_counts_steps_and_starts_at_zero():
    run = finished()
    assert [p["iteration"] for p in run.curve] == [0, 10, 20, 30]
    assert [p["steps"] for p in run.curve] == [0, 160, 320, 480]
    assert all(np.isfinite(p["cost"]) for p in run.curve)


@pytest.mark.parametrize("warm", [False, WARM])
def test_a_run_saved_half_way_and_resumed_equals_the_uninterrupted_one(tmp_path, warm):
    whole = finished(warm_start=warm)
    half = TrainingRun("sac", optctl.make("double-integrator"), config=SHORT, warm_start=warm)
    for _ in half.iterate():
        if half.loop.iteration == 17:
            break
    half.save(tmp_path / "half")
    del half
    resumed = TrainingRun.load(tmp_path / "half")
    for _ in resumed.iterate():
        pass
    assert torch.equal(parameters(whole), parameters(resumed))
    assert [p["cost"] for p in whole.curve] == [p["cost"] for p in resumed.curve]


def command(out, iterations):
    """What is killed and interrupted."""
    config = replace(SHORT, iterations=iterations, evaluate_every=20, checkpoint_seconds=0.02)
    return train("sac", "double-integrator", config=config, seed=1, out=out, resume=True)


def test_killed_at_an_arbitrary_moment_and_resumed_it_ends_with_the_same_bits(tmp_path, fork):
    whole = command(tmp_path / "whole", 60)
    file = tmp_path / "checkpoint.safetensors"
    for delay in (0.02, 0.1):  # two kills, each at another moment of the work or of a save
        process = fork(command, tmp_path, 60)
        before = file.stat().st_mtime_ns if file.exists() else 0
        while process.is_alive() and (not file.exists() or file.stat().st_mtime_ns == before):
            time.sleep(0.01)
        time.sleep(delay)
        process.kill()
        process.join()
        assert load_agent(tmp_path).run.loop.iteration > 0  # readable after every kill
    command(tmp_path, 60)
    resumed = load_agent(tmp_path)
    assert resumed.run.loop.iteration == 60
    assert torch.equal(parameters(whole.run), parameters(resumed.run))


def test_ctrl_c_saves_and_leaves_a_run_that_can_go_on(tmp_path, fork):
    process = fork(command, tmp_path, 100_000)
    while not (tmp_path / "checkpoint.safetensors").exists():
        time.sleep(0.02)
        assert process.is_alive()
    os.kill(process.pid, signal.SIGINT)
    process.join(timeout=60)
    assert process.exitcode == 0
    run = load_agent(tmp_path).run
    assert 0 < run.loop.iteration < 100_000 and not run.finished


def test_a_policy_is_the_same_after_loading(saved):
    folder, policy = saved
    loaded = load_agent(folder / "checkpoint.safetensors")
    states = np.random.default_rng(0).normal(size=(7, 2))
    for p in (policy, loaded):
        p.reset(states, p.problem.param_values[None])
    assert np.array_equal(policy(states, 0.0), loaded(states, 0.0))
    assert loaded.name == "sac" and loaded.wall_time == pytest.approx(policy.wall_time)


def test_a_budget_in_seconds_ends_the_run():
    policy = train(
        "sac", "double-integrator", config=TrainConfig(iterations=10**9, evaluation_starts=4), budget_seconds=0.3
    )
    assert policy.run.seconds >= 0.3 and policy.run.loop.iteration < 10**6


def test_a_warm_start_never_ends_below_its_clone():
    # Without reviews, a learning rate this high throws the clone away; with them, the change is taken back.
    from optctl.agents.off_policy.sac import SACConfig

    wild = SACConfig(actor_lr=0.1, average_rate=1.0)
    warm = replace(WARM, clone_updates=400, teacher=False, cloning_weight=0.0)
    curves = [finished(warm_start=replace(warm, review_every=n), agent_config=wild).curve for n in (5, 0)]
    assert curves[0][-1]["cost"] <= 1.02 * curves[0][0]["cost"]
    assert max(point["cost"] for point in curves[1]) > 1.1 * curves[1][0]["cost"]


def test_a_problem_with_profits_can_be_demonstrated():
    problem = optctl.make("double-integrator")
    profit = problem.replace(stage_cost=lambda x, u, p: x[0] ** 2 + x[1] ** 2 + u[0] ** 2 - 10.0)
    run = TrainingRun("sac", profit, config=SHORT, warm_start=WARM)
    run.prepare()
    assert len(run.loop.replay.demonstrations) > 100 and np.isfinite(run.curve[0]["cost"])


def test_a_run_is_not_overwritten_and_can_be_extended(saved, tmp_path):
    shutil.copytree(saved[0], tmp_path, dirs_exist_ok=True)
    with pytest.raises(ArgumentError, match="`out` must hold no other run, or come with `resume`"):
        train("sac", "double-integrator", config=SHORT, out=tmp_path)
    with pytest.raises(ArgumentError, match="`resume` must come with `out`"):
        train("sac", "double-integrator", config=SHORT, resume=True)
    longer = train("sac", "double-integrator", config=replace(SHORT, iterations=35), out=tmp_path, resume=True)
    assert longer.run.loop.iteration == 35


def test_a_resumed_run_refuses_by_name_what_it_was_not_begun_with(tmp_path):
    config = replace(SHORT, iterations=20)
    train("sac", "double-integrator", config=config, seed=3, out=tmp_path)
    own = TrainingRun.load(tmp_path)
    refused = {
        "seed": {"seed": 99},
        "agent_config.gamma": {"agent_config": replace(own.agent_config, gamma=0.5)},
        "loop_config.batch_size": {"loop_config": replace(own.loop_config, batch_size=7)},
        "config.evaluate_every": {"config": replace(config, evaluate_every=3)},
        "config.num_envs": {"config": replace(config, num_envs=8)},
        "warm_start": {"warm_start": True},
    }
    for name, asked in refused.items():
        with pytest.raises(ArgumentError, match=rf"^Argument `{name}` must be .*, as in the run that is resumed"):
            train("sac", "double-integrator", out=tmp_path, resume=True, **asked)
    same = {"seed": 3, "agent_config": own.agent_config, "loop_config": own.loop_config, "warm_start": False}
    longer = train("sac", "double-integrator", config=replace(config, iterations=22), out=tmp_path, resume=True, **same)
    assert longer.run.loop.iteration == 22 and longer.run.seed == 3 and longer.run.config.num_envs == 16
    again = train("sac", "double-integrator", budget_seconds=1e-3, out=tmp_path, resume=True)
    assert again.run.config == replace(own.config, iterations=22, budget_seconds=1e-3)


def test_a_policy_is_refused_on_another_problem(saved):
    policy = saved[1]
    with pytest.raises(
        ArgumentError, match="belong to the problem `mass-spring`, but `sac` was trained on `double-integrator`"
    ):
        optctl.compare(optctl.make("mass-spring"), [policy], num_starts=2)


def test_each_part_of_the_warm_start_can_be_switched_off():
    brief = replace(WARM, num_starts=3, clone_updates=10, critic_updates=5)
    for off in (
        {"clone": False}, {"fit_critic": False}, {"value_weight": 0.0}, {"costate_weight": 0.0},
        {"teacher": False}, {"demonstration_share": 0.0}, {"perturbed": 0.0}, {"cloning_weight": 0.0},
    ):  # fmt: skip
        run = finished(config=replace(SHORT, iterations=5, evaluate_every=5), warm_start=replace(brief, **off))
        assert np.isfinite(run.curve[-1]["cost"]), off


def test_a_checkpoint_of_another_problem_is_refused(saved):
    with pytest.raises(ArgumentError, match="be the problem `double-integrator` that the checkpoint was trained on"):
        load_agent(saved[0], optctl.make("mass-spring"))


def test_a_user_s_problem_must_be_given_to_load(tmp_path):
    own = optctl.make("double-integrator").replace(name="mine")
    train("sac", own, config=replace(SHORT, iterations=1), out=tmp_path)
    with pytest.raises(ArgumentError, match=r"`problem` must be given, .* but is None for `mine`"):
        load_agent(tmp_path)
    assert load_agent(tmp_path, own).problem is own


def test_missing_and_damaged_checkpoints(saved, tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_agent(tmp_path / "nothing")
    path = tmp_path / "checkpoint.safetensors"
    data = bytearray((saved[0] / path.name).read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        load_agent(path)


def test_an_output_folder_that_cannot_be_written_fails_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingRun, "iterate", lambda run: pytest.fail("the work began"))
    (tmp_path / "file").write_text("")
    with pytest.raises(optctl.errors.FileError, match="cannot be written"):
        train("sac", "double-integrator", out=tmp_path / "file" / "below")


BAD = {
    "agent": (lambda: train("sak", "double-integrator"), "`agent` must be one of sac, td3, ppo, but is 'sak'"),
    "problem": (lambda: train("sac", "nothing"), "checkpoint|catalogue"),
    "seed": (
        lambda: TrainingRun("sac", optctl.make("dean"), seed=-1),
        "`seed` must be a non-negative integer, but is -1",
    ),
    "num_envs": (lambda: TrainConfig(num_envs=0), "`num_envs` must be a positive integer, but is 0"),
    "budget": (lambda: TrainConfig(budget_seconds=-1.0), "`budget_seconds` must be positive or None, but is -1.0"),
    "share": (
        lambda: WarmStartConfig(demonstration_share=2.0),
        r"`demonstration_share` must be in \[0, 1\], but is 2.0",
    ),
    "starts": (lambda: WarmStartConfig(num_starts=0), "`num_starts` must be at least 1, but is 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(case):
    call, sentence = BAD[case]
    with pytest.raises(ArgumentError, match=sentence):
        call()
