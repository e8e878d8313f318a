"""The benchmark measures what it says; its figures are read by `optctl bench`, not judged here."""

import pytest
import torch

from optctl.simulation.bench_kernels import measure


def test_rates_are_positive_and_consistent():
    rates = measure("pendulum-v1", 512, seconds=0.2)
    assert rates.problem == "pendulum-v1" and rates.num_envs == 512 and rates.operations > 20
    assert rates.step == pytest.approx(512 / rates.step_seconds)
    assert min(rates.bare, rates.step, rates.step_random, rates.addition_seconds) > 0
    assert rates.step <= rates.bare * 1.5


def test_a_large_batch_of_pendulums_is_vectorised():
    """A call of libm for each sine costs 5 ns and more, three of them 15 ns, so 60 M steps/s on one thread; vectors give 300."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert measure("pendulum-v1", 16_384, seconds=1.0).step > 8e7
    finally:
        torch.set_num_threads(threads)
