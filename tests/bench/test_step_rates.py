"""The benchmark measures what it says; its figures are read by `optctl bench`, not judged here."""

import json
from pathlib import Path

import pytest
import torch
import warp as wp

from optctl.bench import compile_times
from optctl.bench.envs import envs
from optctl.bench.step_rates import LINES, Limits, measure, measure_limits
from optctl.cli import main
from optctl.errors import ArgumentError
from optctl.simulation import make_vec


def test_rates_are_positive_and_consistent():
    rates = measure("pendulum-v1", 512, seconds=0.02)
    assert rates.problem == "pendulum-v1" and rates.num_envs == 512
    assert rates.rates["step"] == pytest.approx(512 / rates.step_seconds)
    assert set(rates.rates) == set(rates.bytes) == set(rates.operations) == set(LINES)
    assert min(*rates.rates.values(), rates.addition_seconds) > 0
    # The bare kernel of 2 states and 1 control reads 3 and writes 3 numbers of 4 bytes; a fused rollout moves none.
    limits = Limits(bytes=1e9, operations=1e8) | Limits(bytes=1e8, operations=1e12)
    assert rates.limit("bare", limits) == (pytest.approx(1e9 / 24), "memory")
    assert rates.limit("rollout", limits) == (1e12 / rates.operations["rollout"], "arithmetic")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_limits_are_those_of_a_processor(dtype):
    """Between 0.1 GB/s and 100 TB/s, between 0.1 and 10⁷ Gop/s: what a loop optimised away would not give."""
    limits = measure_limits(dtype=dtype)
    assert 1e8 < limits.bytes < 1e14 and 1e8 < limits.operations < 1e16


@pytest.mark.parametrize(("dtype", "calls"), [("float32", False), ("float64", True)])
def test_kernels_in_float32_call_no_libm(dtype, calls):
    """A loop that calls libm for each sine is not vectorised, and steps at a fifth of the rate. float64 does call it."""
    env = make_vec("pendulum-v1", 8, dtype=dtype)
    env.reset(seed=0)
    env.step(torch.zeros(8, 1, dtype=env.dtype))
    objects = list(Path(wp.config.kernel_cache_dir).glob(f"wp_{env.tile_kernels.__name__}_*/*.o"))
    assert objects
    for file in objects:
        symbols = {name.lstrip(b"_") for name in file.read_bytes().split(b"\0")}
        assert bool(symbols & {b"sin", b"cos", b"sinf", b"cosf", b"sincos", b"sincosf"}) is calls


def test_the_bench_of_environments_writes_figures_and_plot(tmp_path, capsys):
    assert envs(problems=("pendulum-v1", "double-integrator"), num_envs=(64,), seconds=0.02, out=tmp_path) == 0
    record = json.loads((tmp_path / "envs.json").read_text())
    first, second = record["figures"]["rows"]
    assert first["problem"] == "pendulum-v1" and not second["peers"]
    assert any(peer["peer"].startswith("gymnasium") and peer["steps_per_second"] > 0 for peer in first["peers"])
    table = capsys.readouterr().out
    assert all(table.count(label) >= 2 for label in LINES.values())
    assert table.count("| 1.00 |") >= 2 and "### A call, in µs" in table  # the public step beside itself
    assert (tmp_path / "envs.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ArgumentError, match=r"`num_envs\[1\]` must be at least 1, but is 0"):
        envs(num_envs=(64, 0))


def test_compile_times_are_those_of_two_processes_with_one_cache(monkeypatch, capsys):
    folders = []

    def child(names, folder):
        """What a process would do, in this one."""
        folders.append(folder)
        compile_times._measure(names)
        return [tuple(json.loads(line)) for line in capsys.readouterr().out.splitlines()]

    monkeypatch.setattr(compile_times, "_child", child)
    ((name, cold, cached),) = compile_times.compile_times(["double-integrator"])
    assert name == "double-integrator" and cold > 0 and cached > 0
    assert len(folders) == 2 and len(set(folders)) == 1


def test_the_list_prints_compile_times_on_request(monkeypatch, capsys):
    monkeypatch.setattr("optctl.bench.compile_times.compile_times", lambda names: ((n, 1.25, 0.5) for n in names))
    assert main(["list", "--compile"]) == 0
    assert "pendulum-v1                        1.25   0.50" in capsys.readouterr().out
