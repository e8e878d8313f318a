"""The command line: what it prints, and one sentence and an exit status for every wrong input."""

import json
import subprocess
import sys

import pytest

from optctl.cli import main
from optctl.training.run import load_agent


@pytest.fixture
def run(capsys):
    def call(*arguments):
        try:
            status = main(list(arguments))
        except SystemExit as stop:  # the parser's own way out
            status = stop.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def test_usage_names_every_command(run):
    status, out, _ = run("--help")
    assert status == 0
    for command in ("list", "solve", "demos", "animate", "train", "evaluate", "compare", "demo", "bench"):
        assert f"  {command} " in out
    assert run()[0] == 2


def test_version(run):
    assert run("--version") == (0, "optctl 0.1.0\n", "")
    done = subprocess.run([sys.executable, "-m", "optctl.cli", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "optctl 0.1.0\n")


def test_list_shows_the_catalogue(run):
    status, out, _ = run("list")
    assert status == 0
    for name in ("lqr-scalar", "pendulum-v1", "cartpole", "sac"):
        assert name in out


def test_solve_prints_cost_and_verdict_and_saves(run, tmp_path):
    import numpy as np

    status, out, _ = run("solve", "double-integrator", "--x0", "1", "0", "--out", str(tmp_path))
    assert status == 0
    assert "proved optimum" in out and "1 of 1 converged" in out
    saved = np.load(tmp_path / "solutions.npz")
    assert saved["0/states"].shape == (101, 2) and saved["0/costates"].shape == (101, 2)


def test_animate_writes_a_film(run, tmp_path):
    film = tmp_path / "film.gif"
    status, out, _ = run("animate", "double-integrator", "--controller", "lqr", "--seconds", "0.2", "--out", str(film))
    assert status == 0 and "mean cost" in out and film.exists()
    status, _, err = run("animate", "double-integrator", "--controller", "lqt")
    assert status == 2 and "did you mean `lqr`?" in err


def test_the_bar_counts_every_step_of_a_rollout(run):
    short = ["--train.iterations", "2", "--train.num-envs", "8", "--train.evaluation-starts", "4"]
    status, out, err = run("train", "ppo", "double-integrator", *short)
    assert status == 0 and "after 512 steps" in out and "512 steps, cost" in err  # 2 iterations x 32 steps x 8


def test_train_evaluate_and_resume(run, tmp_path):
    short = ["--train.iterations", "40", "--train.num-envs", "8", "--train.evaluation-starts", "4"]
    status, out, _ = run("train", "sac", "double-integrator", "--out", str(tmp_path), *short)
    assert status == 0 and "mean cost" in out and "checkpoint.safetensors" in out
    status, out, _ = run("evaluate", str(tmp_path), "--num-starts", "8")
    assert status == 0 and "sac" in out
    longer = ["60" if option == "40" else option for option in short]
    again = ["train", "sac", "double-integrator", "--out", str(tmp_path), "--resume"]
    assert run(*again, *longer)[0] == 0
    assert load_agent(tmp_path).run.loop.iteration == 60
    status, _, err = run(*again, "--seed", "5")
    assert status == 2 and "`seed` must be 0, as in the run that is resumed" in err


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["--seed", "3"], []),
        (["--train.iterations", "40"], ["--seed", "3"]),
        (["--agent.hidden", "8", "8"], []),
        (["--out", "sac"], ["--agent.hidden", "8", "8", "--seed=3"]),
    ],
)
def test_train_finds_its_two_words_among_the_options(before, after):
    from optctl.cli.train import split

    words = ("sac", "double-integrator")
    assert split([*before, *words, *after]) == (words, before + after)


def test_train_takes_options_before_its_words(run):
    short = ["--train.iterations", "10", "--train.num-envs", "8", "--train.evaluation-starts", "4"]
    status, out, _ = run("train", "--seed", "1", *short, "sac", "double-integrator")
    assert status == 0 and "sac on double-integrator: mean cost" in out
    status, _, err = run("train", "--seed", "1", "sca", "pendulum")
    assert status == 2 and "There is no agent `sca`: did you mean `sac`?" in err


def test_train_shows_the_settings_of_the_pair(run):
    status, out, _ = run("train", "sac", "double-integrator", "--help")
    assert status == 0 and "--agent.gamma" in out and "--warm.num-starts" in out and "1000)" in out
    assert run("train")[0] == 2 and run("train", "--help")[0] == 0


def test_compare_writes_a_report(run, tmp_path):
    folder = tmp_path / "report"
    controllers = ("--controllers", "optimal", "lqr", "zero")
    status, _, _ = run("compare", "double-integrator", *controllers, "--num-starts", "10", "--out", str(folder))
    assert status == 0
    assert (folder / "report.html").stat().st_size > 10_000
    assert "lqr" in json.dumps(json.loads((folder / "results.json").read_text()))


WRONG = {
    "command": (["fly"], "There is no command `fly`"),
    "near command": (["slove"], "There is no command `slove`: did you mean `solve`?"),
    "problem": (["solve", "pendulm"], "did you mean `pendulum`?"),
    "agent": (["train", "sca", "pendulum"], "There is no agent `sca`: did you mean `sac`?"),
    "training problem": (["train", "sac", "pendulumm"], "There is no problem `pendulumm`: did you mean `pendulum`?"),
    "controller": (["compare", "pendulum", "--controllers", "lqrr"], "There is no controller `lqrr`: did you mean `lqr`?"),
    "x0": (["solve", "pendulum", "--x0", "1", "2", "3"], "`x0` must have shape (2,) or (B, 2), but has shape (3,)"),
    "x0 nan": (["solve", "pendulum", "--x0", "nan", "0"], "`x0` must be finite"),
    "num_starts": (["solve", "pendulum", "--num-starts", "0"], "`num_starts` must be at least 1, but is 0"),
    "seeds": (["compare", "pendulum", "--seeds", "0"], "`seeds` must be at least 1, but is 0"),
    "method": (["solve", "pendulum", "--method", "magic"], "`method` must be"),
    "bench": (["bench", "everythin"], "There is no benchmark `everythin`"),
    "envs": (["train", "sac", "pendulum", "--train.num-envs", "0"], "`num_envs` must be a positive integer, but is 0"),
    "gamma": (["train", "sac", "pendulum", "--agent.gamma", "2"], "`gamma` must be in (0, 1], but is 2"),
    "device": (["train", "sac", "pendulum", "--device", "tpu"], "device"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_sentence_and_status_two(run, case):
    arguments, sentence = WRONG[case]
    status, _, err = run(*arguments)
    assert status == 2, err
    assert sentence in " ".join(err.replace("│", " ").split())  # the parser draws a box around it
    assert "Traceback" not in err


def test_unknown_option_and_wrong_type(run):
    status, _, err = run("solve", "pendulum", "--methd", "auto")
    assert status == 2 and "--methd" in err
    assert run("solve", "pendulum", "--num-starts", "many")[0] == 2


def test_checkpoint_problems_are_one_sentence_and_status_one(run, tmp_path):
    status, _, err = run("evaluate", str(tmp_path / "none"))
    assert status == 1 and "does not exist" in err and "Traceback" not in err
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(b"not a checkpoint")
    status, _, err = run("evaluate", str(foreign))
    assert status == 1 and "not a checkpoint" in err


def test_output_that_cannot_be_written_is_said_before_the_work(run):
    for command in (["solve", "pendulum"], ["train", "sac", "pendulum"], ["compare", "pendulum"]):
        status, _, err = run(*command, "--out", "/proc/optctl")
        assert status == 1 and "cannot be written" in err
