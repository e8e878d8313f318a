"""`optctl bench fuzz`: random problems solved by the public calls, every certificate examined by a second opinion.

A problem is a kind and a number (`random_problems`); how it is solved follows from them too. So `--only stiff --seed 17 --num 1`
repeats one.

What counts as a violation: a certified or proved solution with which `judge` disagrees, a feasible solution of an infeasible
problem, a minimum of a cost that falls without limit, a batch whose `certified` is not what its members say, a bound in `compare`
that is not proved, any exception but `ArgumentError` (which says what to change), and a solve above the limit of time.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import traceback
import warnings
import zlib
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import optctl
from optctl.bench.judge import Finding, Judge
from optctl.bench.processes import Allowance
from optctl.bench.random_problems import KINDS, Draw, draw
from optctl.bench.record import check_counts, earlier, finish, markdown_table
from optctl.errors import ArgumentError, require

WAYS = {"single": 0.5, "batch": 0.29, "kernels": 0.03, "compare": 0.05, "method": 0.13}
"""Share of the problems that is solved from one start, from 2 to 6, from 10 (compiled kernels), through `compare`, by a named method."""
METHODS = ("ddp", "multiple_shooting", "collocation", "pontryagin", "switching")
PATIENCE = 15.0
"""Seconds that a named method is given for each start; what goes on for more than `limit` in all is said to hang."""
HELD = ("ddp", "multiple_shooting", "lqr", "grape")
"""Solvers whose controls are held over every interval."""
EXAMINED = 2
"""Members of a batch that are examined."""
CERTIFIED = ("proved optimum", "certified extremal")


@dataclass
class Outcome:
    """What became of one problem; plain data, it travels between processes."""

    name: str
    way: str
    verdicts: list[str] = field(default_factory=list)
    violations: list[tuple[str, str]] = field(default_factory=list)
    """(check, sentence) of each."""
    remarks: list[tuple[str, str]] = field(default_factory=list)
    """What is no fault: a scheme too coarse for its cost."""
    refused: str = ""
    """The sentence of an `ArgumentError`."""
    solving: float = 0.0
    judging: float = 0.0
    """CPU-seconds."""


# --- one problem --------------------------------------------------------------------------------------------------------


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def _way(kind: str, number: int) -> tuple[str, np.random.Generator]:
    rng = np.random.default_rng([zlib.crc32(kind.encode()), number, 1])
    return str(rng.choice(list(WAYS), p=list(WAYS.values()))), rng


def attempt(kind: str, number: int) -> Outcome:
    """Solve the problem in its way and examine what comes back."""
    way, rng = _way(kind, number)
    outcome = Outcome(f"{kind}-{number}", way)
    began = _cpu()
    try:
        case = draw(kind, number)
        claims = _solved(case, way, rng, outcome)
    except ArgumentError as error:
        outcome.refused = str(error)
        claims = []
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        outcome.violations.append(("crash", f"{type(error).__name__} at {where}: {str(error).strip()[:200]}"))
        claims = []
    outcome.solving = _cpu() - began
    if claims:
        judge = Judge(case.problem)
        for solution in claims:
            for finding in _examined(case, judge, solution):
                kept = outcome.remarks if finding.check == "coarse" else outcome.violations
                kept.append((finding.check, f"{_of(solution)}: {finding.text}"))
    outcome.judging = _cpu() - began - outcome.solving
    return outcome


def _of(solution: Any) -> str:
    note = "" if solution.minimum is None else (" (minimum)" if solution.minimum else " (no minimum)")
    return f"{solution.verdict.value}{note} by {solution.solver}, J = {solution.value:.8g}"


def _solved(case: Draw, way: str, rng: np.random.Generator, outcome: Outcome) -> list[Any]:
    """The solutions to examine."""
    problem, starts = case.problem, case.starts
    batch: Any
    if way == "compare":
        num = int(rng.integers(2, 5))
        comparison = optctl.compare(problem, ["optimal", "zero"], starts=starts[:num], repetitions=20)
        outcome.way = f"compare {num}"
        return _compared(comparison, outcome)
    if way == "single":
        batch = [optctl.solve(problem, starts[0])]
    else:
        method, num = (
            "auto",
            {"kernels": len(starts), "batch": int(rng.integers(2, 7))}.get(way, int(rng.integers(1, 4))),
        )
        if way == "method":
            method = str(rng.choice(METHODS))
        outcome.way = f"{method} {num}"
        limit: dict[str, Any] = {} if method in ("auto", "ddp") else {"time_limit": PATIENCE}
        batch = optctl.solve(problem, starts[:num], method=method, **limit)
        _same_claims(batch, outcome)
    outcome.verdicts = [s.verdict.value for s in batch]
    chosen = range(len(batch)) if len(batch) <= EXAMINED else sorted(rng.choice(len(batch), EXAMINED, replace=False))
    return [batch[int(i)] for i in chosen]


def _same_claims(batch: Any, outcome: Outcome) -> None:
    members = np.array([s.verdict.value in CERTIFIED for s in batch])
    if (members != batch.certified).any():
        i = int(np.flatnonzero(members != batch.certified)[0])
        claim = f"`certified` is {batch.certified[i]}, but the member is {batch[i].verdict.value}"
        outcome.violations.append(("claims", f"{claim}, J = {batch.values[i]:.8g}"))


def _compared(comparison: Any, outcome: Outcome) -> list[Any]:
    """The trajectories behind a bound; a bound that is undercut is noted."""
    reference = comparison.reference
    if reference is None:
        return []
    outcome.verdicts = [verdict for verdict, count in reference.verdicts.items() for _ in range(count)]
    if reference.kind != "bound":
        return []
    if any("below a bound" in note for note in comparison.notes):
        outcome.violations.append(("optimum", "a controller undercuts what compare calls a bound"))
    verdict = SimpleNamespace(value=CERTIFIED[0])
    pairs = [(j, t) for j, t in zip(reference.costs, reference.trajectories, strict=True) if np.isfinite(j)][:EXAMINED]
    return [
        SimpleNamespace(value=float(j), trajectory=t, verdict=verdict, minimum=None, solver=HELD[0]) for j, t in pairs
    ]


def _examined(case: Draw, judge: Judge, solution: Any) -> list[Finding]:
    claim = solution.verdict.value
    if claim == "not converged":
        return []
    if not case.feasible:
        return [Finding("infeasible", np.inf, "no controls keep the constraints of this problem")]
    if claim not in CERTIFIED:
        return []
    if not case.bounded:
        return [Finding("falling", np.inf, "the cost of this problem falls without limit")]
    t = solution.trajectory
    return judge.examine(
        t.states,
        t.controls,
        t.times,
        solution.value,
        proved=claim == CERTIFIED[0],
        saddle=solution.minimum is False,
        held=solution.solver in HELD,
        rng=np.random.default_rng(case.number),
    )


# --- many, in processes of their own ------------------------------------------------------------------------------------


def _work(connection: Connection, core: int | None) -> None:
    """Attempt what is asked for, one problem after the other, on one core and silently."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    while (task := connection.recv()) is not None:
        connection.send(attempt(*task))


class _Worker:
    """A process that can be stopped when a problem takes too long."""

    def __init__(self, core: int | None) -> None:
        self.core = core
        self.task: tuple[str, int] | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_work, args=(other, self.core))
        self.process.start()
        other.close()

    def give(self, task: tuple[str, int], limit: float) -> None:
        self.task, self.allowance = task, Allowance(self.process.pid, limit)
        self.connection.send(task)

    def restart(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()
        self._start()

    def end(self) -> None:
        self.process.kill()
        self.process.join()


def _tasks(kinds: list[str], num: int, seed: int) -> list[tuple[str, int]]:
    return [(kinds[i % len(kinds)], seed + i // len(kinds)) for i in range(num)]


def fuzz(
    num: int = 2000,
    seed: int = 0,
    processes: int | None = None,
    only: str = "",
    limit: float = 60.0,
    out: Path | None = None,
    resume: bool = False,
) -> int:
    """Random problems: every certificate beside an independent check of dynamics, cost, constraints and optimality.

    Args:
        num: Problems in all, shared evenly among the kinds.
        seed: The first number of each kind.
        processes: Worker processes, each on one core (default: one a core).
        only: Take these kinds alone, separated by commas.
        limit: CPU-seconds for one problem; above it the solve counts as hanging.
        out: Folder for fuzz.json.
        resume: Go on from the outcomes in OUT/fuzz.json.
    """
    kinds = [name.strip() for name in only.split(",")] if only else list(KINDS)
    unknown = [name for name in kinds if name not in KINDS]
    require(not unknown, "only", f"be among {', '.join(KINDS)}", f"is {only!r}")
    require(seed >= 0, "seed", "not be negative", f"is {seed}")
    require(limit > 0, "limit", "be positive", f"is {limit}")
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [None] * (os.cpu_count() or 1)
    processes = processes or len(allowed)
    check_counts(out, num=num, processes=processes)
    tasks = _tasks(kinds, num, seed)
    outcomes = [_outcome(record) for record in earlier(out, "fuzz", resume).get("outcomes", [])]
    known = {outcome.name for outcome in outcomes}
    waiting = [task for task in reversed(tasks) if "{}-{}".format(*task) not in known]
    workers = [_Worker(allowed[i % len(allowed)]) for i in range(min(processes, len(waiting)))]

    def done(outcome: Outcome) -> None:
        outcomes.append(outcome)
        for check, sentence in outcome.violations:
            print(f"{outcome.name} [{outcome.way}] {check}: {sentence}", flush=True)
        if len(outcomes) % 50 == 0:
            print(
                f"{len(outcomes)} of {num} done, {sum(o.solving + o.judging for o in outcomes):.0f} CPU-s", flush=True
            )

    try:
        while waiting or any(w.task for w in workers):
            for worker in workers:
                if worker.task is None and waiting:
                    worker.give(waiting.pop(), limit)
            wait([w.connection for w in workers if w.task], timeout=1.0)
            for worker in workers:
                if worker.task is None:
                    continue
                name, way = "{}-{}".format(*worker.task), _way(*worker.task)[0]
                try:
                    if worker.connection.poll():
                        done(worker.connection.recv())
                        worker.task = None
                    elif worker.allowance.spent:
                        done(
                            Outcome(name, way, violations=[("hang", f"more than {limit:g} CPU-seconds")], solving=limit)
                        )
                        worker.task = None
                        worker.restart()
                except (EOFError, ConnectionError):
                    done(
                        Outcome(
                            name, way, violations=[("crash", f"the process died (exit code {worker.process.exitcode})")]
                        )
                    )
                    worker.task = None
                    worker.restart()
    except KeyboardInterrupt:
        rest = [w.task for w in workers if w.task] + waiting
        print(f"interrupted with {len(rest)} to go: continue with --resume")
    finally:
        for worker in workers:
            worker.end()
    return _report(outcomes, kinds, f"--num {num} --seed {seed}" + (f" --only {only}" if only else ""), out)


def _outcome(record: dict[str, Any]) -> Outcome:
    """An outcome as a run before has written it."""
    pairs = {field: [tuple(pair) for pair in record[field]] for field in ("violations", "remarks")}
    return Outcome(**(record | pairs))  # type: ignore[arg-type]


def _report(outcomes: list[Outcome], kinds: list[str], options: str, out: Path | None) -> int:
    verdicts = (*CERTIFIED, "best found", "not converged")
    rows, bad = [], [o for o in outcomes if o.violations]
    for kind in [*kinds, "in all"]:
        mine = [o for o in outcomes if kind in ("in all", o.name.rsplit("-", 1)[0])]
        counts = [sum(o.verdicts.count(v) for o in mine) for v in verdicts]
        checks = sorted({check for o in mine for check, _ in o.violations})
        names = [f"{sum(any(c == check for c, _ in o.violations) for o in mine)} {check}" for check in checks]
        seconds = f"{sum(o.solving for o in mine):.0f}", f"{sum(o.judging for o in mine):.0f}"
        coarse = sum(bool(o.remarks) for o in mine)
        rows.append(
            [
                kind,
                len(mine),
                *counts,
                sum(bool(o.refused) for o in mine),
                sum(bool(o.violations) for o in mine),
                ", ".join(names),
                coarse,
                *seconds,
            ]
        )
    header = (
        "kind",
        "problems",
        "proved",
        "certified",
        "best found",
        "not converged",
        "refused",
        "violations",
        "of which",
        "coarse",
        "CPU-s solving",
        "judging",
    )
    title = f"Random problems: {len(bad)} of {len(outcomes)} with violations"
    if bad:
        print("\nviolations:")
        for o in sorted(bad, key=lambda o: (o.violations[0][0], o.name)):
            print(f"  {o.name} [{o.way}] {o.violations[0][0]}: {o.violations[0][1]}")
    refusals = sorted({o.refused for o in outcomes if o.refused})
    if refusals:
        print("\nrefused:\n" + "\n".join(f"  {sentence}" for sentence in refusals))
    figures = {"outcomes": [vars(o) for o in outcomes]}
    finish("fuzz", f"optctl bench fuzz {options}", markdown_table(title, header, rows), figures, out)
    return 1 if bad else 0
