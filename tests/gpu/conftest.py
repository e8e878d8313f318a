"""What the tests for GPUs share: the device, and the comparison with a CPU.

`OPTCTL_GPU_REHEARSAL=1` puts a CPU in the GPU's place, so that the tests themselves can be tried without one.
"""

import os

import numpy as np
import pytest
import torch
import warp as wp


@pytest.fixture(scope="session")
def device():
    """Where these tests run: "cuda", or "cpu" in a rehearsal."""
    if os.environ.get("OPTCTL_GPU_REHEARSAL"):
        return "cpu"
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return "cuda"


def _numbers(results):
    return [r.detach().cpu().numpy() if isinstance(r, torch.Tensor) else np.asarray(r) for r in results]


@pytest.fixture
def repeats(device):
    """`repeats(call)`: call(device) gives the same bits twice; these, as arrays."""

    def checked(call):
        once, again = _numbers(call(device)), _numbers(call(device))
        for a, b in zip(once, again, strict=True):
            np.testing.assert_array_equal(a, b)
        return once

    return checked


@pytest.fixture
def agrees(device, repeats):
    """`agrees(call, rtol, atol)`: call(device) gives the same bits twice, and the numbers of call("cpu") to a tolerance.

    Not compared where Warp has been installed without its compiler for CPUs.
    """

    def checked(call, rtol, atol=0.0):
        found = repeats(call)
        if not wp.is_cpu_available():
            pytest.skip("the same bits twice, but compared with nothing: this Warp has no compiler for CPUs")
        for a, b in zip(found, _numbers(call("cpu")), strict=True):
            np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)

    return checked
