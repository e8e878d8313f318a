"""`optctl bench equal`: a start gets the same verdict, value and costates whether it is solved alone or in a batch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from optctl.bench.record import check_counts, earlier, finish, markdown_table
from optctl.envs import CATALOGUE, make
from optctl.errors import require
from optctl.problem import Problem
from optctl.solvers import solve, solve_many

VALUE = 1e-6
"""Relative difference of two values that are the same optimum."""
COSTATES = 1e-4
"""Difference of costates, beside the largest of their component, that the tolerance of two solvers explains."""


@dataclass(frozen=True)
class Difference:
    """One start for which the two answers differ."""

    start: int
    x0: np.ndarray
    about: str
    """verdict, minimum, value or costates: the first of them that differs."""
    alone: str
    batch: str


def _answer(s: Any) -> str:
    minimum = {True: ", a minimum", False: ", no minimum", None: ""}[s.minimum]
    return f"J = {s.value:.9g}, {s.verdict.value}{minimum}, by {s.solver}, {s.status.name}" + (
        f" [{s.message}]" if s.message else ""
    )


def _resting_cost(problem: Problem, x0: np.ndarray) -> float:
    """The cost of the controls nearest to zero: what an optimum that costs next to nothing is small beside."""
    control, x, total = np.clip(np.zeros(problem.n_u), problem.control_low, problem.control_high), x0, 0.0
    for k in range(problem.steps):
        x, cost = problem.step_function(x, control, problem.param_values, k * problem.dt)
        total += abs(float(cost))
    end = (
        float(problem.terminal_cost_function(x, problem.param_values, problem.duration))
        if problem.horizon == "finite"
        else 0.0
    )
    return total + abs(end) if np.isfinite(total + end) else 0.0


def differences(problem: Problem, starts: np.ndarray, seed: int = 0) -> list[Difference]:
    """Every start whose two answers differ."""
    batch = solve_many(problem, starts, seed=seed)
    found = []
    for i, x0 in enumerate(starts):
        alone: Any = solve(problem, x0, seed=seed)
        other = batch[i]
        size = max(abs(alone.value), abs(other.value), VALUE * _resting_cost(problem, x0))
        about = ""
        if alone.verdict is not other.verdict:
            about = "verdict"
        elif alone.verdict.value == "not converged":
            continue
        elif not abs(alone.value - other.value) <= VALUE * size:
            about = "value"
        elif alone.minimum is not other.minimum:
            about = "minimum"
        else:
            pair = [s.trajectory.costates for s in (alone, other)]
            if (pair[0] is None) != (pair[1] is None):
                about = "costates"
            elif pair[0] is not None and pair[1] is not None and pair[0].shape == pair[1].shape:
                size = np.abs(pair[0]).max(axis=0) + VALUE * np.abs(pair[0]).max()
                about = "" if (np.abs(pair[0] - pair[1]) <= COSTATES * size).all() else "costates"
        if about:
            found.append(Difference(i, x0, about, _answer(alone), _answer(other)))
    return found


def equal(starts: int = 64, problems: str = "", seed: int = 0, out: Path | None = None, resume: bool = False) -> int:
    """Every problem of the catalogue, its starts solved alone and in one batch: verdict, value and costates must agree.

    Args:
        starts: Random starts of each problem.
        problems: Names of the catalogue, separated by commas (default: all).
        seed: Seed of the starts and of the solvers.
        out: Folder for equal.json.
        resume: Leave out the problems that OUT/equal.json already has.
    """
    check_counts(out, starts=starts)
    names = [name.strip() for name in problems.split(",")] if problems else list(CATALOGUE)
    unknown = [name for name in names if name not in CATALOGUE]
    require(not unknown, "problems", "name problems of the catalogue", f"names {', '.join(unknown)}")
    before = earlier(out, "equal", resume)
    body: list[list[Any]] = before.get("problems", [])
    figures: list[dict[str, Any]] = before.get("differences", [])
    known = {row[0] for row in body}
    try:
        for name in (name for name in names if name not in known):
            problem = make(name)
            x0 = problem.initial_state.sample(np.random.default_rng(seed), starts)
            began = time.perf_counter()
            try:
                found = differences(problem, x0, seed)
            except Exception as error:
                found = [Difference(-1, x0[0], "exception", f"{type(error).__name__}: {str(error)[:200]}", "")]
            seconds = time.perf_counter() - began
            counts = {
                about: sum(d.about == about for d in found)
                for about in ("exception", "verdict", "value", "minimum", "costates")
            }
            body.append([name, starts, *counts.values(), f"{seconds:.0f} s"])
            print(f"{name}: {len(found)} of {starts} differ ({seconds:.0f} s)", flush=True)
            for d in found:
                state = np.array2string(d.x0, precision=6, max_line_width=200)
                print(f"  start {d.start} {state}: {d.about}\n    alone: {d.alone}\n    batch: {d.batch}", flush=True)
                figures.append({"problem": name} | vars(d) | {"x0": d.x0.tolist()})
    except KeyboardInterrupt:
        print("interrupted")
    total = len(figures)
    header = (
        "problem",
        "starts",
        "exceptions",
        "verdicts differ",
        "values differ",
        "minima differ",
        "costates differ",
        "time",
    )
    table = markdown_table(
        f"Alone and in a batch: {total} of {sum(row[1] for row in body)} starts differ", header, body
    )
    finish("equal", f"optctl bench equal --starts {starts}", table, {"problems": body, "differences": figures}, out)
    return 1 if total else 0
