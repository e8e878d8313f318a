"""`optctl bench threads`: several threads, and several processes, ask different things of the same problems at once.

Every answer must have the bits of the one that a single thread gets. Each round begins with copies of the problems for which nothing is
built, which all threads of the round share: so they meet while solvers are built as well as while they work.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import pickle
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import casadi as ca
import numpy as np
import torch

from optctl.bench.record import check_counts, finish, markdown_table
from optctl.problem import Problem, Uniform
from optctl.simulation import make_vec
from optctl.solvers import solve_many


def slider(**changes: Any) -> Problem:
    """A mass on a rail under a bounded force: linear and quadratic."""
    return Problem(
        name="slider",
        state=["x", "v"],
        control=["f"],
        dynamics=lambda x, u, p: [x[1], u[0]],
        dt=0.1,
        steps=10,
        stage_cost=lambda x, u, p: x[0] ** 2 + 0.1 * x[1] ** 2 + 0.1 * u[0] ** 2,
        control_bounds={"f": (-1, 1)},
        initial_state=Uniform([-1, -1], [1, 1]),
    ).replace(**changes)


def pendulum(**changes: Any) -> Problem:
    """A damped pendulum over a second: nonlinear, so that solvers iterate."""
    return Problem(
        name="pendulum",
        state=["q", "w"],
        control=["f"],
        dynamics=lambda x, u, p: [x[1], -ca.sin(x[0]) - 0.1 * x[1] + u[0]],
        stage_cost=lambda x, u, p: 1 - ca.cos(x[0]) + 0.1 * x[1] ** 2 + 0.1 * u[0] ** 2,
        control_bounds={"f": (-0.5, 0.5)},
        initial_state=Uniform([-2, -1], [2, 1]),
        dt=0.1,
        steps=10,
    ).replace(**changes)


@dataclass(frozen=True)
class Task:
    """What is asked of `problem` from `num` starts of one's own, and what is returned of the answer."""

    name: str
    problem: Problem
    ask: Callable[[Problem, np.ndarray], Sequence[np.ndarray]]
    num: int = 1

    def answer(self, problem: Problem, worker: int) -> str:
        """The hash of all numbers of the answer."""
        starts = problem.initial_state.sample(np.random.default_rng(worker), self.num)
        numbers = [np.ascontiguousarray(a).tobytes() for a in self.ask(problem, starts)]
        return hashlib.sha256(b"".join(numbers)).hexdigest()[:16]


@dataclass(frozen=True)
class Solve:
    """`solve_many` in this process alone, by one method."""

    method: str
    guesses: int | None = None

    def __call__(self, problem: Problem, starts: np.ndarray) -> Sequence[np.ndarray]:
        found = solve_many(problem, starts, method=self.method, num_starts=self.guesses, processes=1)
        path = found.trajectory
        return path.states, path.controls, path.costs, found.values, np.array([str(s.verdict) for s in found])


def steps(problem: Problem, starts: np.ndarray) -> Sequence[np.ndarray]:
    """Thirty steps of environments that begin at the starts."""
    env = make_vec(problem, len(starts))
    env.reset(seed=0, options={"state": torch.as_tensor(starts)})
    actions = torch.linspace(-1, 1, 30)[:, None, None].expand(30, len(starts), problem.n_u).contiguous()
    return [np.concatenate([a.numpy().ravel() for a in env.step(action)[:2]]) for action in actions]


def light() -> list[Task]:
    """Tasks of a few milliseconds that compile nothing."""
    return [
        Task("linear-quadratic", slider(control_bounds={}), Solve("lqr"), num=3),
        Task("multiple shooting", pendulum(), Solve("multiple_shooting", 1), num=2),
        Task("collocation", slider(), Solve("collocation", 1)),
    ]


def tasks() -> list[Task]:
    """Every kind of solver, and environments."""
    to_rest = {"terminal_constraints": lambda x, p: x, "final_time": (0.5, 5.0)}
    return [
        *light(),
        Task("automatic, one start", pendulum(), Solve("auto")),
        Task("kernels, eight starts", pendulum(), Solve("auto"), num=8),
        Task("constrained", pendulum(state_bounds={"w": (-1.5, 1.5)}), Solve("auto", 2), num=2),
        Task("Pontryagin", slider(), Solve("pontryagin"), num=3),
        Task("switching", slider(), Solve("switching"), num=3),
        Task("free time", slider(stage_cost=lambda x, u, p: 1.0, **to_rest), Solve("multiple_shooting", 2)),
        Task("environments", pendulum(), steps, num=64),
    ]


@dataclass
class Count:
    """Of the answers of all workers."""

    right: int = 0
    wrong: list[str] = field(default_factory=list)
    """The task, and the error where there was one."""

    def ask(self, task: Task, problem: Problem, worker: int, expected: str) -> None:
        try:
            ok, why = task.answer(problem, worker) == expected, "other bits"
        except Exception:
            ok, why = False, traceback.format_exc()
        if ok:
            self.right += 1
        else:
            self.wrong.append(f"{task.name}, worker {worker}: {why}")


def fresh(problem: Problem) -> Problem:
    """A copy for which nothing is built."""
    return pickle.loads(pickle.dumps(problem))


def in_threads(chosen: Sequence[Task], expected: dict[tuple[str, int], str], workers: int, seconds: float) -> Count:
    """Rounds, at least one, until the time is up: each thread does all tasks, from another one on."""
    counts, end = [Count() for _ in range(workers)], time.monotonic() + seconds
    while True:
        problems = [fresh(task.problem) for task in chosen]
        gate = threading.Barrier(workers)

        def work(worker: int, problems: list[Problem] = problems, gate: threading.Barrier = gate) -> None:
            gate.wait()
            for k in range(len(chosen)):
                i = (k + worker // 2) % len(chosen)  # two threads at the same task, the others at another
                counts[worker].ask(chosen[i], problems[i], worker, expected[chosen[i].name, worker])

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if time.monotonic() >= end:
            return Count(sum(c.right for c in counts), [line for c in counts for line in c.wrong])


def one_process(chosen: Sequence[Task], expected: Sequence[str], worker: int, seconds: float) -> Count:
    """What a process of `in_processes` does: rounds over all tasks, at least one."""
    count, end = Count(), time.monotonic() + seconds
    while True:
        for task, answer in zip(chosen, expected, strict=True):
            count.ask(task, task.problem, worker, answer)
        if time.monotonic() >= end:
            return count


def in_processes(chosen: Sequence[Task], expected: dict[tuple[str, int], str], workers: int, seconds: float) -> Count:
    """The same in spawned processes, to which the problems are pickled; each does all tasks in turn."""
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        sent = [
            pool.submit(one_process, chosen, [expected[task.name, worker] for task in chosen], worker, seconds)
            for worker in range(workers)
        ]
        counts = [future.result() for future in sent]
    return Count(sum(c.right for c in counts), [line for c in counts for line in c.wrong])


def serial(chosen: Sequence[Task], workers: int) -> dict[tuple[str, int], str]:
    """Task and worker → the answer that a single thread gets."""
    return {(task.name, worker): task.answer(task.problem, worker) for task in chosen for worker in range(workers)}


def threads(workers: int = 4, seconds: float = 60.0, out: Path | None = None) -> int:
    """Threads and processes that solve at once: every answer must have the bits of the serial one.

    Args:
        workers: Threads, and then processes.
        seconds: So long each; a round that has begun is finished.
        out: Folder for threads.json.
    """
    check_counts(out, workers=workers)
    chosen = tasks()
    expected = serial(chosen, workers)
    found = {
        "threads": in_threads(chosen, expected, workers, seconds),
        "processes": in_processes(chosen, expected, workers, seconds),
    }
    for count in found.values():
        print(*count.wrong, sep="\n", end="\n" if count.wrong else "")
    rows = [
        [kind, workers, count.right + len(count.wrong), count.right, len(count.wrong)] for kind, count in found.items()
    ]
    title = f"{len(chosen)} tasks at once: answers with the bits of the serial ones"
    table = markdown_table(title, ("kind", "workers", "answers", "equal", "not equal"), rows)
    figures = {kind: {"equal": count.right, "wrong": count.wrong} for kind, count in found.items()}
    finish("threads", "optctl bench threads", table, figures, out)
    return int(any(count.wrong for count in found.values()))
