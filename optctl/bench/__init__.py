"""`optctl bench NAME`: the commands behind every performance figure. Each prints the machine, the figures and, where a peer is
installed, the ratio to it in the same run; `--out FOLDER` also writes FOLDER/NAME.json, from which docs/results.md is made.

A peer that lives in another environment is found through `--peer-python PATH`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from optctl.bench.cases import cases
from optctl.bench.envs import envs
from optctl.bench.equality import equal
from optctl.bench.fuzz import fuzz
from optctl.bench.grape import bench_grape
from optctl.bench.hjb import hjb
from optctl.bench.optima import optima
from optctl.bench.quantum import quantum
from optctl.bench.shooting import shooting
from optctl.bench.solvers import solvers
from optctl.bench.thermodynamics import thermodynamics
from optctl.bench.threads import threads
from optctl.comparison.machine import machine
from optctl.comparison.statistics import iqm
from optctl.errors import require
from optctl.files import check_writable, write_atomically

PENDULUM_TARGET = -150.0
MIDPOINTS = (80, 25)
"""The grid of starts of Pendulum-v1 on which returns are compared."""


# --- shared -------------------------------------------------------------------------------------------------------------


def _peer(python: Path | None, *arguments: object) -> list[dict[str, Any]]:
    """JSON lines of a peer; an empty list, and a word why, where it is not installed."""
    command = [str(python or sys.executable), str(Path(__file__).with_name("peers.py")), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        print(f"peer not measured: {reason}")
    return lines


def _table(title: str, header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [f"### {title}", "", "| " + " | ".join(header) + " |"]
    lines.append("|" + "---|" * len(list(header)))
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _check(out: Path | None, **counts: int) -> None:
    """Bad arguments end the command before the work, not after it."""
    for name, count in counts.items():
        require(count >= 1, name, "be at least 1", f"is {count}")
    if out is not None:
        check_writable(out)


def _finish(name: str, command: str, table: str, figures: dict[str, Any], out: Path | None) -> int:
    about = machine()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        about["gpu"] = sys.modules["torch"].cuda.get_device_name()
    print(f"\n{table}\n{about['processor']}, {about['cores']} cores, torch {about.get('torch', '-')}")
    if out is not None:
        record = {"name": name, "command": command, "machine": about, "table": table, "figures": figures}
        write_atomically(out / f"{name}.json", json.dumps(record, indent=1).encode())
    return 0


def _first_below(curve: list[dict[str, float]], cost: float) -> float:
    """Seconds of training at the first evaluation with at most this cost; infinity if there is none."""
    return next((point["seconds"] for point in curve if point["cost"] <= cost), float("inf"))


def _train(
    name: str,
    problem: Any,
    seed: int,
    starts: np.ndarray,
    every: int,
    iterations: int | None = None,
    **warm_changes: Any,
) -> Any:
    """One run of `sac` or `sac-warm` with its tuned settings, evaluated on the given starts every so many iterations."""
    from optctl.training.run import TrainingRun
    from optctl.training.settings import settings

    agent, warm, _ = name.partition("-warm")
    s = settings(agent, problem, warm_start=bool(warm))
    run = TrainingRun(
        agent, problem, warm_start=replace(s.warm, **warm_changes) if warm else False, agent_config=s.agent, loop_config=s.loop,
        config=replace(s.train, evaluate_every=every, iterations=iterations or s.train.iterations), seed=seed,
    )  # fmt: skip
    run.starts = starts
    for _ in run.iterate():
        pass
    return run


def _reference_cost(problem: Any, starts: np.ndarray) -> float:
    """Mean cost of the best-found optimum over the starts."""
    from optctl.solvers import solve_many

    return float(solve_many(problem, starts).values.mean())


# --- benchmarks ---------------------------------------------------------------------------------------------------------


def sac(
    seeds: int = 10,
    peer_seeds: int = 1,
    peer_steps: int = 10_000,
    peer_python: Path | None = None,
    out: Path | None = None,
) -> int:
    """SAC from scratch on pendulum-v1: seconds until the mean return on the midpoint starts is −150; beside SB3.

    Args:
        seeds: Runs, with seeds 0, 1, …
        peer_seeds: Runs of Stable-Baselines3's SAC; 0 leaves it out.
        peer_steps: Steps of each.
        peer_python: Interpreter that has stable-baselines3 (default: this one).
        out: Folder for sac.json.
    """
    from optctl.envs import make

    _check(out, seeds=seeds)
    problem = make("pendulum-v1")
    starts = problem.initial_state.midpoints(MIDPOINTS)
    peers = [line for k in range(peer_seeds) for line in _peer(peer_python, "sac", k, peer_steps)]
    peer_times = [
        min((p["seconds"] for p in peers if p["seed"] == k and p["return"] >= PENDULUM_TARGET), default=float("inf"))
        for k in range(peer_seeds)
    ]
    runs = []
    for seed in range(seeds):
        run = _train("sac", problem, seed, starts, every=25)
        best = -min(point["cost"] for point in run.curve)
        runs.append({"seed": seed, "seconds_to_target": _first_below(run.curve, -PENDULUM_TARGET), "final": -run.curve[-1]["cost"],
                     "best": best, "seconds": run.seconds, "curve": run.curve})  # fmt: skip
        r = runs[-1]
        reached, final = r["seconds_to_target"], r["final"]
        print(f"seed {seed}: {PENDULUM_TARGET:g} after {reached:.1f} s; final {final:.1f} at {r['seconds']:.1f} s")
    times = np.array([r["seconds_to_target"] for r in runs])
    finals = np.array([r["final"] for r in runs])
    rows = [["optctl SAC", seeds, f"{np.median(times):.1f} s", f"{times.max():.1f} s", f"{finals.min():.1f}", f"{finals.mean():.1f}",
             f"{np.mean([r['seconds'] for r in runs]):.1f} s"]]  # fmt: skip
    if peer_times and peers:
        last = [max((p for p in peers if p["seed"] == k), key=lambda p: p["steps"]) for k in range(peer_seeds)]
        rows.append([f"Stable-Baselines3 SAC, {peer_steps:,} steps", peer_seeds,
                     f"{np.median(peer_times):.1f} s", f"{max(peer_times):.1f} s",
                     f"{min(p['return'] for p in last):.1f}", f"{np.mean([p['return'] for p in last]):.1f}",
                     f"{np.mean([p['seconds'] for p in last]):.1f} s"])  # fmt: skip
        print(f"slowest of ours ÷ median of the peer: {times.max() / np.median(peer_times):.2f}")
    table = _table(
        "SAC from scratch on pendulum-v1 (mean return on the 80 × 25 midpoint starts)",
        ("agent", "seeds", "median time to −150", "slowest", "worst final", "mean final", "time of the whole run"),
        rows,
    )
    return _finish("sac", "optctl bench sac", table, {"runs": runs, "peers": peers}, out)


def warm(
    seeds: int = 10, every: int = 2, scratch_seeds: int = 2, scratch_iterations: int = 2000, out: Path | None = None
) -> int:
    """Warm-started SAC on pendulum-v1: time, the largest fall below its teacher at fine resolution, the final gap.

    Beside it SAC from scratch: when, if at all, it gets as near to the reference as the worst of the warm starts.

    Args:
        seeds: Runs, with seeds 0, 1, …
        every: Iterations between two points of the curve.
        scratch_seeds: Runs from scratch; 0 leaves them out.
        scratch_iterations: Iterations of each.
        out: Folder for warm.json.
    """
    from optctl.envs import make
    from optctl.training.settings import settings

    _check(out, seeds=seeds, every=every)
    problem = make("pendulum-v1")
    starts = problem.initial_state.midpoints(MIDPOINTS)
    best = _reference_cost(problem, starts)
    runs, scratch = [], []
    for seed in range(seeds):
        run = _train("sac-warm", problem, seed, starts, every)
        costs, teacher = np.array([point["cost"] for point in run.curve]), run.curve[0]["cost"]
        runs.append({"seed": seed, "timings": run.timings, "seconds": run.seconds, "teacher": -teacher, "final": -costs[-1],
                     "worst_fall": max(point["learner"] for point in run.curve) / teacher - 1,
                     "gap": costs[-1] / best - 1, "curve": run.curve})  # fmt: skip
        r = runs[-1]
        print(f"seed {seed}: teacher {-teacher:.2f}, final {r['final']:.2f} (gap {r['gap']:.2%}), worst fall "
              f"{r['worst_fall']:.2%}, {r['seconds']:.1f} s in all")  # fmt: skip
    column = lambda key: np.array([r[key] for r in runs])
    worst = -column("final").min()
    for seed in range(scratch_seeds):
        run = _train("sac", problem, seed, starts, 100, iterations=scratch_iterations)
        scratch.append({"seed": seed, "seconds": run.seconds, "seconds_to_warm": _first_below(run.curve, worst),
                        "final": -run.curve[-1]["cost"], "curve": run.curve})  # fmt: skip
        r = scratch[-1]
        reached = f"after {r['seconds_to_warm']:.1f} s" if r["seconds_to_warm"] < np.inf else "never"
        print(f"from scratch, seed {seed}: {-worst:.1f} {reached}; final {r['final']:.2f} after {r['seconds']:.1f} s")
    parts = {part: np.mean([r["timings"].get(part, 0.0) for r in runs]) for part in ("solve", "clone", "critic")}
    rows = [["from optimal trajectories", seeds, *(f"{v:.1f} s" for v in parts.values()), f"{column('seconds').mean():.1f} s",
             f"{column('teacher').mean():.2f}", f"{column('worst_fall').max():.2%}", f"{column('final').mean():.2f}",
             f"{column('gap').mean():.2%}", f"{column('gap').max():.2%}"]]  # fmt: skip
    usual = settings("sac", problem).train.iterations
    for iterations in sorted({usual, scratch_iterations}) if scratch else []:
        ends = [point for r in scratch for point in r["curve"] if point["iteration"] == iterations]
        if ends:
            costs = np.array([point["cost"] for point in ends])
            rows.append([f"from scratch, {iterations} iterations", len(ends), "", "", "",
                         f"{np.mean([point['seconds'] for point in ends]):.1f} s", "", "", f"{-costs.mean():.2f}",
                         f"{costs.mean() / best - 1:.2%}", f"{costs.max() / best - 1:.2%}"])  # fmt: skip
    table = _table(
        f"SAC on pendulum-v1, warm and cold (reference {-best:.2f})",
        ("start", "seeds", "solve", "clone", "fit critic", "everything", "teacher", "worst fall below it", "mean final",
         "mean gap", "largest gap"),
        rows,
    )  # fmt: skip
    return _finish("warm", "optctl bench warm", table, {"runs": runs, "scratch": scratch, "reference": best}, out)


ABLATIONS: dict[str, dict[str, Any]] = {
    "everything": {},
    "no cloning": {"clone": False},
    "no fit of the critic": {"fit_critic": False},
    "no cost-to-go in the fit": {"value_weight": 0.0},
    "no costate in the fit": {"costate_weight": 0.0},
    "no cloning while fine-tuning": {"cloning_weight": 0.0},
    "no demonstrations in the batches": {"demonstration_share": 0.0},
    "no teacher": {"teacher": False},
    "no perturbed states": {"perturbed": 0.0},
    "no reviews": {"review_every": 0},
    "a quarter of the trajectories": {"num_starts": 48},
}
"""The parts of the warm start, each left out in turn."""


def ablation(seeds: int = 3, out: Path | None = None) -> int:
    """The warm start on pendulum-v1 with each of its parts left out: teacher, worst fall below it, final return.

    Args:
        seeds: Runs of each variant, with seeds 0, 1, …
        out: Folder for ablation.json.
    """
    from optctl.envs import make

    _check(out, seeds=seeds)
    problem = make("pendulum-v1")
    starts = problem.initial_state.midpoints(MIDPOINTS)
    rows, figures = [], []
    for name, changes in ABLATIONS.items():
        runs = [_train("sac-warm", problem, seed, starts, 10, **changes) for seed in range(seeds)]
        costs = [np.array([point["cost"] for point in run.curve]) for run in runs]
        teacher, final = np.mean([c[0] for c in costs]), np.mean([c[-1] for c in costs])
        fall = max(max(point["learner"] for point in run.curve) / run.curve[0]["cost"] - 1 for run in runs)
        seconds = np.mean([run.seconds for run in runs])
        rows.append([name, f"{-teacher:.2f}", f"{fall:.2%}", f"{-final:.2f}", f"{seconds:.1f} s"])
        figures.append({"variant": name, "changes": changes, "curves": [c.tolist() for c in costs], "seconds": seconds})
        print(*rows[-1], sep="  ")
    table = _table(
        f"The warm start on pendulum-v1 without its parts ({seeds} seeds)",
        ("variant", "teacher", "worst fall below it", "mean final", "time"),
        rows,
    )
    return _finish("ablation", "optctl bench ablation", table, {"rows": figures}, out)


def lqr(seeds: int = 10, out: Path | None = None) -> int:
    """SAC from scratch on the double integrator: gap to the Riccati optimum, interquartile mean over seeds.

    Args:
        seeds: Runs, with seeds 0, 1, …
        out: Folder for lqr.json.
    """
    from optctl.envs import make

    _check(out, seeds=seeds)
    problem = make("double-integrator")
    starts = problem.initial_state.sample(np.random.default_rng(2024), 500)
    best = _reference_cost(problem, starts)
    gaps, seconds = [], []
    for seed in range(seeds):
        run = _train("sac", problem, seed, starts, every=10**9)
        gaps.append(run.curve[-1]["cost"] / best - 1)
        seconds.append(run.seconds)
        print(f"seed {seed}: gap {gaps[-1]:.3%} in {seconds[-1]:.1f} s")
    rows = [[seeds, f"{iqm(np.array(gaps)):.2%}", f"{max(gaps):.2%}", f"{np.mean(seconds):.1f} s", f"{best:.6f}"]]
    table = _table(
        "SAC from scratch on the double integrator",
        ("seeds", "gap (IQM)", "largest gap", "time of a run", "optimum (bound)"),
        rows,
    )
    return _finish("lqr", "optctl bench lqr", table, {"gaps": gaps, "seconds": seconds, "optimum": best}, out)


def everything(peer_python: Path | None = None, out: Path = Path("out/bench"), docs: Path | None = None) -> int:
    """All of them, one after the other; with --docs also the page of results.

    Args:
        peer_python: Interpreter that has the peers.
        out: Folder for the JSON files.
        docs: Where to write the page, such as docs/results.md.
    """
    for name, bench in BENCHES.items():
        if name not in ("all", "page"):
            print(f"\n## {name}", flush=True)
            bench(out=out, **({"peer_python": peer_python} if "peer_python" in signature(bench).parameters else {}))
    if docs is not None:
        page(out=out, docs=docs)
    return 0


def page(out: Path = Path("out/bench"), docs: Path = Path("docs/results.md")) -> int:
    """Write the page of results from the JSON files of earlier runs.

    Args:
        out: Folder with the JSON files.
        docs: The page.
    """
    require(any(out.glob("*.json")), "out", "hold the JSON files of earlier runs", f"{out} holds none")
    records = [json.loads(path.read_text()) for name in BENCHES if (path := out / f"{name}.json").exists()]
    parts = [
        "# Results\n",
        "Made by `optctl bench page` from runs; each table names its command. Times are wall-clock.\n",
    ]
    if not any("gpu" in record["machine"] for record in records):
        parts.append(
            "On CUDA: not measured. The same commands measure it there with `--device cuda` where they have that option.\n"
        )
    for record in records:
        about = record["machine"]
        places = [f"{about['processor']}, {about['cores']} cores", *([about["gpu"]] if "gpu" in about else [])]
        parts.append(record["table"])
        parts.append(f"`{record['command']}`, {', '.join(places)}, torch {about.get('torch', '-')}.\n")
    write_atomically(docs, "\n".join(parts).encode())
    print(f"written: {docs}")
    return 0


BENCHES: dict[str, Callable[..., int]] = {
    "envs": envs,
    "solvers": solvers,
    "lqr": lqr,
    "sac": sac,
    "warm": warm,
    "ablation": ablation,
    "optima": optima,
    "grape": bench_grape,
    "hjb": hjb,
    "thermodynamics": thermodynamics,
    "quantum": quantum,
    "shooting": shooting,
    "cases": cases,
    "fuzz": fuzz,
    "equal": equal,
    "threads": threads,
    "all": everything,
    "page": page,
}
