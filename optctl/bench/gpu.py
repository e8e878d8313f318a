"""`optctl bench gpu`: everything that a CUDA device has to show, in under ten minutes: the tests for GPUs, then the benchmarks.

Each part is a process with a time limit, and a part that fails stops no other. The tests run first and side by side, because their time
goes into compilation; the benchmarks follow one after the other, most valuable first. What has no time left is not begun.
"""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from optctl.bench.record import ON_GPU
from optctl.codegen.launch import resolve_device
from optctl.errors import require
from optctl.files import check_writable, write_atomically

_RESULT = re.compile(r"^(\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b", re.MULTILINE)
_BEGUN = re.compile(r"^(\S+::.+?) *\Z", re.MULTILINE)


@dataclass(frozen=True)
class Part:
    """A command and the seconds that it may take."""

    name: str
    command: Sequence[str]
    limit: float
    tests: bool = False


@dataclass
class Outcome:
    """How a part ended, and for tests the names of those that passed, failed, were skipped."""

    name: str
    status: str
    """"done", "failed", "out of time", or "not begun"."""
    seconds: float = 0.0
    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    reason: str = ""
    """The last line of what it printed, where it did not end well."""


def run_part(part: Part, left: Callable[[], float], logs: Path, environment: dict[str, str]) -> Outcome:
    """Run the command with its output in LOGS/NAME.log; after its limit, or when no time is left, it is ended with its children."""
    limit = min(part.limit, left())
    if limit <= 0:
        return Outcome(part.name, "not begun")
    log, began = logs / f"{part.name}.log", time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(
            part.command, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            status = "failed" if process.wait(limit) else "done"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            status = "out of time"
    text = log.read_text(errors="replace")
    found = Outcome(part.name, status, time.monotonic() - began)
    if part.tests:
        found.passed, found.failed, found.skipped = tests_of(text, ended=status != "out of time")
    if status != "done":
        found.reason = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no output")
    return found


def tests_of(text: str, ended: bool = True) -> tuple[list[str], list[str], list[str]]:
    """Passed, failed and skipped tests of what `pytest -v` printed; a test in which the time ran out has failed."""
    results = _RESULT.findall(text)
    named = lambda *words: list(dict.fromkeys(name for name, word in results if word in words))
    begun = None if ended else _BEGUN.search(text)
    return named("PASSED", "XPASS"), named("FAILED", "ERROR") + ([begun[1]] if begun else []), named("SKIPPED", "XFAIL")


def run_parts(
    tests: Iterable[Part],
    benches: Iterable[Part],
    seconds: float,
    logs: Path,
    *,
    jobs: int = 1,
    environment: dict[str, str],
) -> list[Outcome]:
    """The tests, `jobs` at a time, then the benchmarks, in at most `seconds` altogether."""
    end = time.monotonic() + seconds
    left = lambda: end - time.monotonic()

    def run(part: Part) -> Outcome:
        outcome = run_part(part, left, logs, environment)
        counts = f": {len(outcome.passed)} passed, {len(outcome.failed)} failed" if part.tests else ""
        print(f"{part.name} {outcome.status} after {outcome.seconds:.0f} s{counts}", flush=True)
        return outcome

    with ThreadPoolExecutor(jobs) as pool:
        found = list(pool.map(run, tests))
    return found + [run(part) for part in benches]


# --- what there is to run -----------------------------------------------------------------------------------------------


def testing(folder: Path, limit: float) -> list[Part]:
    """A part for each file; what the project's settings of pytest ask for beyond that need not be installed."""
    files = sorted(folder.glob("test_*.py"))
    require(bool(files), "tests", "be the folder of the tests for GPUs, in a checkout of the project", f"is {folder}")
    options = ["-v", "-o", "addopts=--import-mode=importlib", "-p", "no:cacheprovider", "-m", "gpu", "--tb=short"]
    command = [sys.executable, "-m", "pytest", *options]
    return [Part(file.stem, [*command, str(file)], limit, tests=True) for file in files]


_BENCHES: dict[str, tuple[float, str, str]] = {
    "envs": (
        150,
        "--problems pendulum-v1 cartpole qubit-transfer --num-envs 65536 1048576 --seconds 1",
        "--problems pendulum-v1 --num-envs 64 --seconds 0.1",
    ),
    "solvers": (
        150,
        "--num-starts 16384 --ipopt-starts 5",
        "--num-starts 4 --ipopt-starts 1 --mpc-environments 2 --mpc-horizon 10 --swing-up-starts 0",
    ),
    "updates": (60, "--seconds 3", "--seconds 0.1"),
    "grape": (60, "--restarts 2000 --peer-restarts 3", "--gates cnot --restarts 2 --peer-restarts 1 --ensemble 2"),
    "hjb": (60, "", "--nodes 21 17 --levels 5"),
    "shooting": (90, "--alone 1", "--num-starts 2 --alone 1 --plants 2"),
    "thermodynamics": (30, "--paths 10000000", "--paths 100"),
    "quantum": (45, "--drift-steps 20000", "--members 10 --repeats 2 --drift-steps 100"),
}
"""Most valuable first: seconds, options, and those of a rehearsal."""


def measuring(device: str, rehearsal: bool, out: Path) -> list[Part]:
    command = [sys.executable, "-m", "optctl.cli", "bench"]
    return [
        Part(
            name, [*command, name, "--device", device, "--out", str(out), *(few if rehearsal else many).split()], limit
        )
        for name, (limit, many, few) in _BENCHES.items()
    ]


# --- summary ------------------------------------------------------------------------------------------------------------


def _fastest(line: str) -> Callable[[dict[str, Any]], float]:
    """Of the batch sizes of Pendulum-v1."""
    return lambda f: max(row["rates"]["rates"][line] for row in f["rows"] if row["problem"] == "pendulum-v1")


GOALS: list[tuple[str, str, float, Callable[[dict[str, Any]], float]]] = [
    ("fused pendulum [steps/s]", "envs", 1e10, _fastest("rollout")),
    ("step + 2×64 policy in one graph [steps/s]", "envs", 1e9, _fastest("graph")),
    ("fused pendulum + 2×64 policy [steps/s]", "envs", 1e9, _fastest("rollout_network")),
    (
        "certified pendulums [solves/s]",
        "solvers",
        1e5,
        lambda f: next(row["rate"] for row in f["against_ipopt"] if row["problem"] == "pendulum"),
    ),
    (
        "SAC in one graph [updates/s]",
        "updates",
        5e3,
        lambda f: next(
            row["updates_per_second"] for row in f["rows"] if (row["agent"], row["how"]) == ("sac", "one graph")
        ),
    ),
]
"""Title, benchmark, goal, and the figure in the benchmark's record."""


def headlines(outcomes: Iterable[Outcome], out: Path, ending: str) -> list[dict[str, Any]]:
    """The figures beside the goals; `None` for what was not measured in this run."""
    done = {outcome.name for outcome in outcomes if outcome.status == "done"}
    rows: list[dict[str, Any]] = []
    for title, bench, goal, figure in GOALS:
        value = None
        if bench in done:
            try:
                value = figure(json.loads((out / f"{bench}{ending}.json").read_text())["figures"])
            except (OSError, LookupError, StopIteration, ValueError) as error:
                print(f"{title}: no figure in the record ({error!r})")
        rows.append({"title": title, "goal": goal, "value": value})
    return rows


def summary(where: str, outcomes: list[Outcome], figures: list[dict[str, Any]]) -> str:
    """One page."""
    total = lambda name: sum(len(getattr(outcome, name)) for outcome in outcomes)
    lines = [
        f"## {where}",
        "",
        f"tests: {total('passed')} passed, {total('failed')} failed, {total('skipped')} skipped",
    ]
    lines += [f"  FAILED {name}" for outcome in outcomes for name in outcome.failed]
    lines += ["", f"{'':45}{'measured':>12}{'goal':>12}"]
    for row in figures:
        value = "-" if row["value"] is None else f"{row['value']:.3g}"
        reached = "" if row["value"] is None else "  reached" if row["value"] >= row["goal"] else "  not reached"
        lines.append(f"{row['title']:45}{value:>12}{row['goal']:>12.0e}{reached}")
    lines += ["", *(f"{o.name:20}{o.status:12}{o.seconds:6.0f} s  {o.reason[:90]}".rstrip() for o in outcomes)]
    return "\n".join(lines)


def gpu(
    device: str = "cuda",
    seconds: float = 570.0,
    jobs: int = 0,
    tests: Path = Path("tests/gpu"),
    out: Path = Path("out/gpu"),
) -> int:
    """Tests and benchmarks for GPUs, one after the other in under ten minutes, and a page of what they gave.

    Its exit status is 1 where a part failed. `optctl bench page --out OUT` takes the figures into the page of results.

    Args:
        device: cuda, or cpu for a rehearsal with tiny sizes.
        seconds: Time for everything.
        jobs: Files of tests at a time; 0: one for every two cores.
        tests: Folder of the tests.
        out: Folder for the records, the logs and summary.json.
    """
    require(device in ("cuda", "cpu"), "device", "be cuda, or cpu for a rehearsal", f"is {device!r}")
    require(jobs >= 0, "jobs", "be at least 0", f"is {jobs}")
    resolve_device(device)
    check_writable(out)
    logs = out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    jobs = jobs or max(1, (os.cpu_count() or 1) // 2)
    rehearsal = device == "cpu"
    environment = os.environ | {"PYTHONUNBUFFERED": "1"} | ({"OPTCTL_GPU_REHEARSAL": "1"} if rehearsal else {})
    outcomes = run_parts(
        testing(tests, 0.4 * seconds),
        measuring(device, rehearsal, out),
        seconds,
        logs,
        jobs=jobs,
        environment=environment,
    )
    figures = headlines(outcomes, out, "" if rehearsal else ON_GPU)
    where = "Rehearsal on a CPU" if rehearsal else _about()
    print("\n" + summary(where, outcomes, figures))
    record = {"where": where, "parts": [asdict(outcome) for outcome in outcomes], "headlines": figures}
    write_atomically(out / "summary.json", json.dumps(record, indent=1).encode())
    return int(any(outcome.failed or outcome.status in ("failed", "out of time") for outcome in outcomes))


def _about() -> str:
    import torch
    import warp

    name, version = torch.cuda.get_device_name(), torch.version.cuda
    return f"{name}, CUDA {version}, torch {torch.__version__}, warp {warp.__version__}, Python {platform.python_version()}"
