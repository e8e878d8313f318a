"""`optctl solve`."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import optctl
from optctl.cli.arguments import output_folder, parse
from optctl.cli.progress import Spinner, say
from optctl.envs import make
from optctl.errors import require
from optctl.files import write_atomically
from optctl.problem.controller import check_states


def solve(
    problem: str,
    x0: tuple[float, ...] = (),
    method: str = "auto",
    num_starts: int = 1,
    seed: int = 0,
    out: Path | None = None,
) -> int:
    """Solve a problem from --x0 or from random starts; print cost, verdict and certificate.

    Args:
        problem: A problem of the catalogue (see `optctl list`).
        x0: Initial state; without it, starts are drawn from the problem's initial distribution.
        method: A solver's name, or auto.
        num_starts: Random starts to solve, when there is no --x0.
        seed: Seed of the starts and of the multi-start.
        out: Folder for solutions.npz, the trajectories with their costates.
    """
    p = make(problem)
    require(num_starts >= 1, "num_starts", "be at least 1", f"is {num_starts}")
    require(seed >= 0, "seed", "not be negative", f"is {seed}")
    starts = check_states(p, x0) if x0 else p.initial_state.sample(np.random.default_rng(seed), num_starts)
    path = None if out is None else output_folder(out) / "solutions.npz"
    began = time.perf_counter()
    with Spinner(f"solving {p.name} from {len(starts)} start{'s' if len(starts) > 1 else ''}"):
        if len(starts) == 1:
            solutions: Any = [optctl.solve(p, starts[0], method=method, seed=seed)]
        else:
            solutions = optctl.solve_many(p, starts, method=method, seed=seed)
    for start, solution in zip(starts, solutions, strict=True):
        say(f"x0 = {np.array2string(start, precision=4)}\n{solution}")
    converged = sum(s.ok for s in solutions)
    mean = np.mean([s.value for s in solutions])
    say(f"{converged} of {len(solutions)} converged in {time.perf_counter() - began:.2f} s; mean cost {mean:.6g}")
    if path is not None:
        _save_solutions(solutions, path)
    return 0 if converged == len(solutions) else 3


def _save_solutions(solutions: Sequence[Any], path: Path) -> None:
    fields = ("times", "states", "controls", "costs", "costates")
    arrays = {f"{i}/{f}": getattr(s.trajectory, f) for i, s in enumerate(solutions) for f in fields}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{k: v for k, v in arrays.items() if v is not None})
    write_atomically(path, buffer.getvalue())
    say(f"written: {path}")


def main(arguments: list[str]) -> int:
    return parse("solve", solve, arguments)
