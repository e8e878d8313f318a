import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Networks of 64 units are faster on one thread, and far faster where another process wants the second core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
