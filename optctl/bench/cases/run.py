"""`optctl bench cases`: small inputs from practice whose right answers are known, and what comes out.

Each case is a few lines of public calls. It runs in a process of its own, so that one that hangs or dies costs its
own rows only. A row is right where the value is the known one, or, where a case asks for honesty alone, where nothing wrong is
certified.
"""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from optctl.bench.cases import CASES, Row
from optctl.bench.processes import Allowance
from optctl.bench.record import check_counts, finish, markdown_table
from optctl.errors import require

SLOW = 20.0
"""Seconds after which a row is called slow."""
HOPELESS = 180.0
"""CPU-seconds after which a case is stopped."""


def rows(case: Callable[[], Iterator[Row]]) -> Iterator[tuple[Row, float]]:
    """The rows of a case and the seconds that each took; an exception is a row too."""
    steps = case()
    while True:
        began = time.perf_counter()
        try:
            row = next(steps)
        except StopIteration:
            return
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("optctl"):
                yield Row("", "", f"needs {error.name}", None), time.perf_counter() - began
                return
            last = traceback.extract_tb(error.__traceback__)[-1]
            sentence = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}: {str(error).strip()[:160]}"
            yield Row("no exception", "", sentence, False), time.perf_counter() - began
            return
        yield row, time.perf_counter() - began


def _work(connection: Connection, name: str) -> None:
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    warnings.simplefilter("ignore")
    with np.errstate(all="ignore"):
        for pair in rows(CASES[name][1]):
            connection.send(pair)
    connection.send(None)


def run(name: str, limit: float) -> Iterator[tuple[Row, float]]:
    """The rows of a case, made in another process."""
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("fork" if "fork" in methods else "spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, name))
    process.start()
    theirs.close()
    allowance = Allowance(process.pid, limit)
    try:
        while True:
            if not ours.poll(min(1.0, limit)):
                if allowance.spent:
                    yield Row("an answer", "", f"none after {limit:g} CPU-seconds", False), limit
                    return
                continue
            try:
                pair = ours.recv()
            except EOFError:
                process.join()
                yield Row("an answer", "", f"the process died (exit code {process.exitcode})", False), 0.0
                return
            if pair is None:
                return
            yield pair
    finally:
        process.kill()
        process.join()


def cases(only: str = "", limit: float = HOPELESS, out: Path | None = None) -> int:
    """Inputs from practice with known answers: value, verdict, seconds, right or wrong.

    Args:
        only: Take the cases whose name holds this text.
        limit: CPU-seconds after which a case is stopped.
        out: Folder for cases.json.
    """
    check_counts(out)
    require(limit > 0, "limit", "be positive", f"is {limit}")
    chosen = [name for name in CASES if only in name]
    require(bool(chosen), "only", "be part of the name of a case", f"is {only!r}")
    body, figures = [], []
    try:
        for name in chosen:
            known = CASES[name][0]
            for row, seconds in run(name, limit):
                judged = {True: "right", False: "WRONG", None: f"skipped: {row.found}"}[row.ok]
                found = "" if row.ok is None else row.found
                slow = " (slow)" if seconds > SLOW else ""
                body.append((name, row.what, row.right, known, found, row.verdict, f"{seconds:.2g}{slow}", judged))
                figures.append({"case": name, "known": known, "seconds": seconds, **vars(row)})
                print(
                    f"{judged:6} {name}: {row.what}: {row.right} / {row.found} {row.verdict} ({seconds:.2g} s)",
                    flush=True,
                )
    except KeyboardInterrupt:
        print("interrupted")
    right, wrong = sum(f["ok"] is True for f in figures), sum(f["ok"] is False for f in figures)
    title = f"Inputs from practice: {right} right, {wrong} wrong, {len(figures) - right - wrong} skipped"
    header = ("case", "what", "right", "how it is known", "found", "verdict", "seconds", "")
    finish("cases", "optctl bench cases", markdown_table(title, header, body), {"rows": figures}, out)
    return 1 if wrong else 0
