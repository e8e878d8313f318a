"""`optctl bench gpu`: parts that fail or hang stop no other, and the page says what was reached. The parts are fakes."""

import functools
import json
import os
import sys
from pkgutil import resolve_name

import pytest

from optctl.bench import BENCHES, gpu
from optctl.bench.gpu import Outcome, Part, headlines, run_parts, summary
from optctl.cli import main

THREE_TESTS = """
tests/a.py::test_one PASSED                    [ 33%]
tests/a.py::test_two[x-1] FAILED               [ 66%]
tests/a.py::test_three SKIPPED (no graphs)     [100%]
FAILED tests/a.py::test_two[x-1] - assert 1 == 2
"""
HANG = "import time; time.sleep(60)"


def fake(name, code, limit=30.0, **options):
    return Part(name, [sys.executable, "-c", code], limit, **options)


def run(folder, tests, benches, seconds=60.0, **options):
    return run_parts(tests, benches, seconds, folder, environment=dict(os.environ), **options)


def test_what_fails_or_hangs_stops_nothing(tmp_path):
    slow = f"print('tests/b.py::test_slow ', end='', flush=True); {HANG}"
    tests = [
        fake("fails", f"print({THREE_TESTS!r}); raise SystemExit(1)", tests=True),
        fake("hangs", slow, 3.0, tests=True),
    ]
    benches = [fake("broken", "raise ValueError('no')"), fake("fine", "print('a table')")]
    found = run(tmp_path, tests, benches, jobs=2)
    assert [o.status for o in found] == ["failed", "out of time", "failed", "done"]
    assert found[0].passed == ["tests/a.py::test_one"] and found[0].failed == ["tests/a.py::test_two[x-1]"]
    assert found[0].skipped == ["tests/a.py::test_three"]
    assert found[1].failed == ["tests/b.py::test_slow"] and found[1].seconds < 30
    assert found[2].reason == "ValueError: no"
    assert (tmp_path / "fine.log").read_text() == "a table\n"


def test_what_has_no_time_left_is_not_begun(tmp_path):
    found = run(tmp_path, [], [fake("long", HANG), fake("late", "")], seconds=0.5)
    assert [o.status for o in found] == ["out of time", "not begun"]


def test_headlines_are_those_of_this_run_alone(tmp_path):
    rates = lambda speed: {"rates": {"rollout": speed, "graph": 2e9, "rollout_network": 3.0}}
    rows = [("pendulum-v1", 1.0), ("pendulum-v1", 2e10), ("cartpole", 9e99)]
    figures = {"rows": [{"problem": name, "rates": rates(speed)} for name, speed in rows]}
    (tmp_path / "envs-cuda.json").write_text(json.dumps({"figures": figures}))
    (tmp_path / "solvers-cuda.json").write_text("{}")  # of an earlier run
    done = [Outcome("envs", "done"), Outcome("solvers", "out of time"), Outcome("updates", "done")]
    found = headlines(done, tmp_path, "-cuda")
    assert [row["value"] for row in found] == [2e10, 2e9, 3.0, None, None]
    page = summary("G", done, found)
    assert page.count("  reached") == 2 and page.count("not reached") == 1


@pytest.mark.parametrize(("code", "status"), [("pass", 0), ("raise SystemExit(1)", 1)])
def test_the_command_ends_with_a_page_and_a_status(tmp_path, monkeypatch, capsys, code, status):
    monkeypatch.setattr(gpu, "testing", lambda folder, limit: [fake("tests", "print('a::b PASSED')", tests=True)])
    monkeypatch.setattr(gpu, "measuring", lambda device, rehearsal, out: [fake("grape", code)])
    assert main(["bench", "gpu", "--device", "cpu", "--out", str(tmp_path)]) == status
    written = json.loads((tmp_path / "summary.json").read_text())
    assert [part["status"] for part in written["parts"]] == ["done", "failed" if status else "done"]
    assert "tests: 1 passed, 0 failed, 0 skipped" in capsys.readouterr().out


@pytest.mark.parametrize("rehearsal", [False, True])
def test_the_benchmarks_take_the_options_that_they_are_given(tmp_path, monkeypatch, rehearsal):
    for part in gpu.measuring("cuda", rehearsal, tmp_path):
        place, taken = BENCHES[part.name], {}
        note = functools.wraps(resolve_name(place))(lambda taken=taken, **options: taken.update(options) or 0)
        monkeypatch.setattr(place.replace(":", "."), note)
        assert main(["bench", *part.command[4:]]) == 0
        assert taken["device"] == "cuda" and taken["out"] == tmp_path


def test_a_folder_without_tests_is_refused(tmp_path, capsys):
    assert main(["bench", "gpu", "--device", "cpu", "--tests", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "`tests` must be the folder of the tests for GPUs" in capsys.readouterr().err


def test_updates_are_counted_for_off_policy_agents_alone(tmp_path, capsys):
    assert (
        main(["bench", "updates", "--agents", "sac", "--seconds", "0.05", "--batch-size", "8", "--out", str(tmp_path)])
        == 0
    )
    (row,) = json.loads((tmp_path / "updates.json").read_text())["figures"]["rows"]
    assert (row["agent"], row["how"]) == ("sac", "calls from Python") and row["updates_per_second"] > 0
    assert main(["bench", "updates", "--agents", "ppo"]) == 2
    assert "`agents` must be among sac, td3, but is ppo" in capsys.readouterr().err
