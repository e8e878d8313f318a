"""Every test runs on one torch thread: the networks are small, and results must not depend on the machine's load."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread():
    """Undo what a test that needs more threads has set."""
    yield
    torch.set_num_threads(1)
