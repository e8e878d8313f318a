"""How batches are cut over threads, and what happens to errors and forks there."""

import multiprocessing

import pytest
import torch

from optctl.codegen.launch import num_threads, ranges, run_parts


@pytest.mark.parametrize(
    ("size", "operations", "threads"),
    [(0, 1, 4), (1, 10**9, 4), (65_536, 50, 2), (99_999, 100, 3), (200_000, 60, 64)],
)
def test_ranges_cover_the_batch_once(size, operations, threads):
    parts = ranges(size, operations, threads)
    assert 1 <= len(parts) <= threads
    assert [s for s, _ in parts] == [sum(n for _, n in parts[:k]) for k in range(len(parts))]
    assert sum(n for _, n in parts) == size


def test_small_work_is_not_cut():
    assert len(ranges(4096, 50, 8)) == 1 and len(ranges(4096, 5000, 8)) == 8
    assert 1 <= num_threads() <= torch.get_num_threads()


def test_an_error_on_another_thread_is_raised_here():
    def fail():
        raise OSError("from the thread")

    with pytest.raises(OSError, match="from the thread"):
        run_parts([fail, lambda: None])


def _run_in_a_child(queue):
    done = []
    run_parts([lambda: done.append(1), lambda: done.append(2)])
    queue.put(sorted(done))


def test_a_forked_child_has_a_pool_of_its_own():
    """A child inherits the parent's pool object without its threads, and would wait for them for ever."""
    run_parts([lambda: None, lambda: None])
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_run_in_a_child, args=(queue,), daemon=True)
    child.start()
    assert queue.get(timeout=60) == [1, 2]
