"""`optctl bench sac`, `warm`, `ablation` and `lqr`: what learning costs and attains, from scratch and from optimal trajectories."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from optctl.agents import AGENTS
from optctl.bench.record import ask_peer, check_counts, finish, markdown_table
from optctl.comparison.statistics import iqm
from optctl.envs import make
from optctl.errors import require
from optctl.solvers import solve_many
from optctl.training.run import TrainingRun
from optctl.training.settings import settings

PENDULUM_TARGET = -150.0
MIDPOINTS = (80, 25)
"""The grid of starts of Pendulum-v1 on which returns are compared."""


# --- runs ---------------------------------------------------------------------------------------------------------------


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
    agent, warm, _ = name.partition("-warm")
    s = settings(agent, problem, warm_start=bool(warm))
    run = TrainingRun(
        agent,
        problem,
        warm_start=replace(s.warm, **warm_changes) if warm else False,
        agent_config=s.agent,
        loop_config=s.loop,
        config=replace(s.train, evaluate_every=every, iterations=iterations or s.train.iterations),
        seed=seed,
    )
    run.starts = starts
    for _ in run.iterate():
        pass
    return run


def _reference_cost(problem: Any, starts: np.ndarray) -> float:
    """Mean cost of the best-found optimum over the starts."""
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
    check_counts(out, seeds=seeds)
    problem = make("pendulum-v1")
    starts = problem.initial_state.midpoints(MIDPOINTS)
    peers = [line for k in range(peer_seeds) for line in ask_peer(peer_python, "sac", k, peer_steps)]
    peer_times = [
        min((p["seconds"] for p in peers if p["seed"] == k and p["return"] >= PENDULUM_TARGET), default=float("inf"))
        for k in range(peer_seeds)
    ]
    runs = []
    for seed in range(seeds):
        run = _train("sac", problem, seed, starts, every=25)
        best = -min(point["cost"] for point in run.curve)
        runs.append(
            {
                "seed": seed,
                "seconds_to_target": _first_below(run.curve, -PENDULUM_TARGET),
                "final": -run.curve[-1]["cost"],
                "best": best,
                "seconds": run.seconds,
                "curve": run.curve,
            }
        )
        r = runs[-1]
        reached, final = r["seconds_to_target"], r["final"]
        print(f"seed {seed}: {PENDULUM_TARGET:g} after {reached:.1f} s; final {final:.1f} at {r['seconds']:.1f} s")
    times = np.array([r["seconds_to_target"] for r in runs])
    finals = np.array([r["final"] for r in runs])
    rows = [
        [
            "optctl SAC",
            seeds,
            f"{np.median(times):.1f} s",
            f"{times.max():.1f} s",
            f"{finals.min():.1f}",
            f"{finals.mean():.1f}",
            f"{np.mean([r['seconds'] for r in runs]):.1f} s",
        ]
    ]
    if peer_times and peers:
        last = [max((p for p in peers if p["seed"] == k), key=lambda p: p["steps"]) for k in range(peer_seeds)]
        rows.append(
            [
                f"Stable-Baselines3 SAC, {peer_steps:,} steps",
                peer_seeds,
                f"{np.median(peer_times):.1f} s",
                f"{max(peer_times):.1f} s",
                f"{min(p['return'] for p in last):.1f}",
                f"{np.mean([p['return'] for p in last]):.1f}",
                f"{np.mean([p['seconds'] for p in last]):.1f} s",
            ]
        )
        print(f"slowest of ours ÷ median of the peer: {times.max() / np.median(peer_times):.2f}")
    table = markdown_table(
        "SAC from scratch on pendulum-v1 (mean return on the 80 × 25 midpoint starts)",
        ("agent", "seeds", "median time to −150", "slowest", "worst final", "mean final", "time of the whole run"),
        rows,
    )
    return finish("sac", "optctl bench sac", table, {"runs": runs, "peers": peers}, out)


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
    check_counts(out, seeds=seeds, every=every)
    problem = make("pendulum-v1")
    starts = problem.initial_state.midpoints(MIDPOINTS)
    best = _reference_cost(problem, starts)
    runs, scratch = [], []
    for seed in range(seeds):
        run = _train("sac-warm", problem, seed, starts, every)
        costs, teacher = np.array([point["cost"] for point in run.curve]), run.curve[0]["cost"]
        runs.append(
            {
                "seed": seed,
                "timings": run.timings,
                "seconds": run.seconds,
                "teacher": -teacher,
                "final": -costs[-1],
                "worst_fall": max(point["learner"] for point in run.curve) / teacher - 1,
                "gap": costs[-1] / best - 1,
                "curve": run.curve,
            }
        )
        r = runs[-1]
        print(
            f"seed {seed}: teacher {-teacher:.2f}, final {r['final']:.2f} (gap {r['gap']:.2%}), worst fall "
            f"{r['worst_fall']:.2%}, {r['seconds']:.1f} s in all"
        )
    column = lambda key: np.array([r[key] for r in runs])
    worst = -column("final").min()
    for seed in range(scratch_seeds):
        run = _train("sac", problem, seed, starts, 100, iterations=scratch_iterations)
        scratch.append(
            {
                "seed": seed,
                "seconds": run.seconds,
                "seconds_to_warm": _first_below(run.curve, worst),
                "final": -run.curve[-1]["cost"],
                "curve": run.curve,
            }
        )
        r = scratch[-1]
        reached = f"after {r['seconds_to_warm']:.1f} s" if r["seconds_to_warm"] < np.inf else "never"
        print(f"from scratch, seed {seed}: {-worst:.1f} {reached}; final {r['final']:.2f} after {r['seconds']:.1f} s")
    parts = {part: np.mean([r["timings"].get(part, 0.0) for r in runs]) for part in ("solve", "clone", "critic")}
    rows = [
        [
            "from optimal trajectories",
            seeds,
            *(f"{v:.1f} s" for v in parts.values()),
            f"{column('seconds').mean():.1f} s",
            f"{column('teacher').mean():.2f}",
            f"{column('worst_fall').max():.2%}",
            f"{column('final').mean():.2f}",
            f"{column('gap').mean():.2%}",
            f"{column('gap').max():.2%}",
        ]
    ]
    usual = settings("sac", problem).train.iterations
    for iterations in sorted({usual, scratch_iterations}) if scratch else []:
        ends = [point for r in scratch for point in r["curve"] if point["iteration"] == iterations]
        if ends:
            costs = np.array([point["cost"] for point in ends])
            rows.append(
                [
                    f"from scratch, {iterations} iterations",
                    len(ends),
                    "",
                    "",
                    "",
                    f"{np.mean([point['seconds'] for point in ends]):.1f} s",
                    "",
                    "",
                    f"{-costs.mean():.2f}",
                    f"{costs.mean() / best - 1:.2%}",
                    f"{costs.max() / best - 1:.2%}",
                ]
            )
    table = markdown_table(
        f"SAC on pendulum-v1, warm and cold (reference {-best:.2f})",
        (
            "start",
            "seeds",
            "solve",
            "clone",
            "fit critic",
            "everything",
            "teacher",
            "worst fall below it",
            "mean final",
            "mean gap",
            "largest gap",
        ),
        rows,
    )
    return finish("warm", "optctl bench warm", table, {"runs": runs, "scratch": scratch, "reference": best}, out)


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
    check_counts(out, seeds=seeds)
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
    table = markdown_table(
        f"The warm start on pendulum-v1 without its parts ({seeds} seeds)",
        ("variant", "teacher", "worst fall below it", "mean final", "time"),
        rows,
    )
    return finish("ablation", "optctl bench ablation", table, {"rows": figures}, out)


def lqr(seeds: int = 10, agents: str = "", out: Path | None = None) -> int:
    """Agents from scratch on the double integrator: gap to the Riccati optimum, interquartile mean over seeds.

    Args:
        seeds: Runs of each agent, with seeds 0, 1, …
        agents: Their names, separated by commas (default: all).
        out: Folder for lqr.json.
    """
    check_counts(out, seeds=seeds)
    names = [name.strip() for name in agents.split(",")] if agents else list(AGENTS)
    require(all(name in AGENTS for name in names), "agents", f"be among {', '.join(AGENTS)}", f"is {agents!r}")
    problem = make("double-integrator")
    starts = problem.initial_state.sample(np.random.default_rng(2024), 500)
    best = _reference_cost(problem, starts)
    rows, figures = [], []
    for name in names:
        gaps, seconds = [], []
        for seed in range(seeds):
            run = _train(name, problem, seed, starts, every=10**9)
            gaps.append(run.curve[-1]["cost"] / best - 1)
            seconds.append(run.seconds)
            print(f"{name}, seed {seed}: gap {gaps[-1]:.3%} in {seconds[-1]:.1f} s", flush=True)
        steps = f"{run.curve[-1]['steps']:,}"
        rows.append([name, seeds, f"{iqm(np.array(gaps)):.2%}", f"{max(gaps):.2%}", steps, f"{np.mean(seconds):.1f} s"])
        figures.append({"agent": name, "gaps": gaps, "seconds": seconds})
    table = markdown_table(
        f"Agents from scratch on the double integrator (optimum {best:.6f}, a bound)",
        ("agent", "seeds", "gap (IQM)", "largest gap", "steps", "time of a run"),
        rows,
    )
    command = "optctl bench lqr" + (f" --agents {agents}" if agents else "")
    return finish("lqr", command, table, {"runs": figures, "optimum": best}, out)
