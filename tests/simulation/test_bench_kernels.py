"""The benchmark measures what it says; its figures are read by `optctl bench`, not judged here."""

from pathlib import Path

import pytest
import torch
import warp as wp

from optctl.simulation import make_vec
from optctl.simulation.bench_kernels import measure


def test_rates_are_positive_and_consistent():
    rates = measure("pendulum-v1", 512, seconds=0.2)
    assert rates.problem == "pendulum-v1" and rates.num_envs == 512 and rates.operations > 20
    assert rates.step == pytest.approx(512 / rates.step_seconds)
    assert min(rates.bare, rates.step, rates.step_random, rates.addition_seconds) > 0


@pytest.mark.parametrize(("dtype", "calls"), [("float32", False), ("float64", True)])
def test_kernels_in_float32_call_no_libm(dtype, calls):
    """A loop that calls libm for each sine is not vectorised, and steps at a fifth of the rate. float64 does call it."""
    env = make_vec("pendulum-v1", 8, dtype=dtype)
    env.reset(seed=0)
    env.step(torch.zeros(8, 1, dtype=env.dtype))
    objects = list(Path(wp.config.kernel_cache_dir).rglob(f"*{env.kernels.__name__}*/*.o"))
    assert objects
    for file in objects:
        symbols = {name.lstrip(b"_") for name in file.read_bytes().split(b"\0")}
        assert bool(symbols & {b"sin", b"cos", b"sinf", b"cosf", b"sincos", b"sincosf"}) is calls
