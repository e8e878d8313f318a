"""Generated modules: found again, never half-written, safe when two processes want the same one at once."""

import ast
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import warp as wp
from tiny import counter

from optctl.codegen import cache
from optctl.codegen.cache import cache_dir, init_warp, load_module, module_name, write_atomically
from optctl.codegen.warp_source import Target
from optctl.simulation.rollout_source import EnvironmentRollout
from optctl.solvers.batched.source import DdpSource

ROOT = Path(__file__).parents[2]

DOUBLE = """
import warp as wp

@wp.kernel
def double(x: wp.array(dtype=float)):
    i = wp.tid()
    x[i] = 2.0 * x[i]
"""


def doubled(folder, start):
    """What each of several processes does with one cache; an error is its exit code."""
    os.environ["OPTCTL_CACHE_DIR"] = str(folder)
    wp.config.kernel_cache_dir = str(folder / "kernels")
    wp.config.use_precompiled_headers = False  # each would make its own, for a single kernel
    start.wait()
    x = wp.array(np.arange(8.0), dtype=float, device="cpu")
    wp.launch(load_module(DOUBLE).double, 8, [x], device="cpu")
    assert x.numpy().sum() == 56.0


def test_processes_that_race_for_an_empty_cache_agree_and_leave_it_whole(tmp_path, fork):
    init_warp()  # the processes begin with a Warp that has started, and with the module still to come
    start = multiprocessing.get_context("fork").Barrier(2)
    racers = [fork(doubled, tmp_path, start) for _ in range(2)]
    for racer in racers:
        racer.join(300)
    assert [racer.exitcode for racer in racers] == [0, 0]
    modules = list(tmp_path.glob("optctl_*.py"))
    assert len(modules) == 1 and not list(tmp_path.glob("*.part"))
    assert module_name(modules[0].read_text()) == modules[0].stem
    objects = list(tmp_path.rglob("*.o"))
    times = [o.stat().st_mtime_ns for o in objects]
    late = fork(doubled, tmp_path, multiprocessing.get_context("fork").Barrier(1))
    late.join(300)
    assert objects and late.exitcode == 0
    compiled_nothing = list(tmp_path.rglob("*.o")) == objects and [o.stat().st_mtime_ns for o in objects] == times
    assert compiled_nothing


def test_a_truncated_module_is_written_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("OPTCTL_CACHE_DIR", str(tmp_path))
    source = "value = 42\n"
    path = tmp_path / f"{module_name(source)}.py"
    path.write_text("value = ")
    try:
        assert load_module(source).value == 42
    finally:
        sys.modules.pop(module_name(source), None)
    assert path.read_text() == source


def test_a_module_that_fails_to_import_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("OPTCTL_CACHE_DIR", str(tmp_path))
    source = "raise ZeroDivisionError\n"
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            load_module(source)
    assert module_name(source) not in sys.modules


def test_the_name_depends_on_source_generator_and_warp(monkeypatch):
    name = module_name("a")
    assert name == module_name("a") != module_name("b")
    monkeypatch.setattr(cache, "GENERATOR_VERSION", -1)
    changed = module_name("a")
    monkeypatch.setattr(cache.wp, "__version__", "0")
    assert len({name, changed, module_name("a")}) == 3


def test_a_failed_write_leaves_the_old_file_and_no_debris(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_written_is_replaced_with_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OPTCTL_CACHE_DIR", str(tmp_path / "file" / "below"))
    with pytest.warns(UserWarning, match="cannot be written .*Set OPTCTL_CACHE_DIR"):
        folder = cache_dir()
    assert folder.is_dir() and folder == cache_dir()
    folder.rmdir()


def test_default_folders(monkeypatch, tmp_path):
    monkeypatch.delenv("OPTCTL_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "optctl"


def test_starting_warp_prints_nothing_and_importing_the_package_does_not_start_it():
    code = "import optctl.simulation, sys; assert 'warp' not in sys.modules and 'torch' not in sys.modules\n"
    code += "from optctl.simulation import make_vec; make_vec('cartpole', 2).reset()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "" and done.stderr == ""


@pytest.mark.parametrize(
    "name", [r"a\Users", 'x"""; raise SystemExit; """', "two\nlines", "'\"\\", "$mu <stage> {0} é"]
)
def test_no_name_of_a_problem_breaks_or_enters_what_is_generated(name):
    problem = counter(name=name)
    environment = EnvironmentRollout(problem, Target("float32", "cpu"), shared_params=True, randomize=False)
    for source in (environment.source(), environment.step_source(), DdpSource(problem, "cpu").source()):
        first, *rest = ast.parse(source).body
        assert name in ast.literal_eval(first.value)
        assert not any(isinstance(statement, ast.Raise) for statement in rest)
