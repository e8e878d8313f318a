"""Threads and processes of one program: each gets the answer that it would get alone."""

import multiprocessing
import threading
import time

import numpy as np
import pytest
import torch

from optctl.bench.threads import in_threads, light, serial, slider
from optctl.codegen.launch import one_thread
from optctl.shared import TURN, kept, once
from optctl.solvers import solve_many

STARTS = np.array([[1.0, 0.0], [0.5, 0.5], [-1.0, 0.2]])


def test_threads_that_solve_at_once_get_the_serial_answers():
    tasks = light()
    count = in_threads(tasks, serial(tasks, 4), workers=4, seconds=0)
    assert count.wrong == [] and count.right == 4 * len(tasks)


@pytest.mark.parametrize(("method", "steps"), [("switching", 10), ("pontryagin", 5)])
def test_methods_that_solve_within_take_batches_in_order_in_any_number_of_processes(method, steps):
    problem = slider(steps=steps)
    alone, shared = (solve_many(problem, STARTS, method=method, processes=n) for n in (1, 3))
    assert alone.ok.all()
    np.testing.assert_array_equal(alone.trajectory.states[:, 0], STARTS)
    np.testing.assert_array_equal(shared.trajectory.states, alone.trajectory.states)


def _in_a_thread(function, *arguments, **options):
    found = []
    thread = threading.Thread(target=lambda: found.append(function(*arguments, **options)))
    thread.start()
    thread.join()
    return found[0]


def test_a_thread_does_the_work_of_its_processes_itself():
    problem = slider(steps=5)
    asked = {"method": "multiple_shooting", "num_starts": 1}
    found = _in_a_thread(solve_many, problem, STARTS, processes=2, **asked)
    np.testing.assert_array_equal(found.values, solve_many(problem, STARTS, processes=1, **asked).values)
    assert multiprocessing.active_children() == []


def _values(end):
    end.send(solve_many(slider(), STARTS, method="multiple_shooting", num_starts=1, processes=2).values)


def test_a_daemonic_process_which_may_have_no_children_solves_batches():
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=_values, args=(there,), daemon=True)
    process.start()
    process.join()
    assert process.exitcode == 0
    expected = solve_many(slider(), STARTS, method="multiple_shooting", num_starts=1, processes=1)
    np.testing.assert_array_equal(here.recv(), expected.values)


def test_a_child_forked_beside_a_thread_that_solves_is_not_locked_out():
    begun, end = threading.Event(), threading.Event()

    def solve():
        with TURN:
            begun.set()
            end.wait(0.3)  # the fork waits for it

    thread = threading.Thread(target=solve)
    thread.start()
    begun.wait()
    child = multiprocessing.get_context("fork").Process(target=lambda: exit(0 if TURN.acquire(timeout=5) else 1))
    child.start()
    end.set()
    thread.join()
    child.join(60)
    assert child.exitcode == 0


class _Owner:
    def __init__(self):
        self.built = []

    @once
    def value(self):
        time.sleep(0.01)
        self.built.append("value")
        return object()

    @kept
    def table(self, size):
        time.sleep(0.01)
        self.built.append(size)
        return [0.0] * size


def test_what_is_kept_is_built_once_for_all_threads_and_dies_with_its_owner():
    owner, seen, gate = _Owner(), [], threading.Barrier(4)

    def ask():
        gate.wait()
        seen.append((id(owner.value), id(owner.table(2)), id(owner.table(3))))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seen)) == 1 and sorted(map(str, owner.built)) == ["2", "3", "value"]
    assert _Owner().table(2) is not owner.table(2)


def test_the_last_to_leave_gives_torch_its_threads_back():
    torch.set_num_threads(2)
    first, second = one_thread(), one_thread()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch.get_num_threads() == 1
    second.__exit__(None, None, None)
    assert torch.get_num_threads() == 2
