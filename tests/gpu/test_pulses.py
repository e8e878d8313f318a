"""GRAPE on a GPU: the CPU's pulses."""

import numpy as np
import pytest

from optctl.bench.grape import task
from optctl.solvers.batched.bilinear import optimise
from optctl.solvers.batched.grape import grape

pytestmark = pytest.mark.gpu


def test_a_few_iterations_of_pulses(agrees):
    u = np.random.default_rng(3).uniform(-1, 1, (100, 50, 4))

    def solved(device):
        found = optimise(task("cnot").system, u, max_iterations=5, device=device)
        return [found.cost, found.pulses]

    agrees(solved, rtol=1e-9, atol=1e-7)


def test_pulses_reach_the_gate(repeats):
    (infidelity,) = repeats(lambda device: [grape(task("cnot", 20), restarts=8, device=device).infidelity])
    assert np.median(infidelity) <= 1e-9
