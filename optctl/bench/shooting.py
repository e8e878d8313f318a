"""`optctl bench shooting`: direct solutions polished into continuous-time extremals, all at once and one after the other."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from optctl.bench.record import check_counts, finish, markdown_table
from optctl.envs import make
from optctl.problem import Problem
from optctl.solvers import lqr, solve_many
from optctl.solvers import solve_pontryagin as solve_alone
from optctl.solvers.batched import riccati
from optctl.solvers.batched.flow import kernel
from optctl.solvers.batched.shooting import solve_pontryagin


def against_loop(problem: Problem, num: int, num_alone: int, device: str = "cpu") -> dict[str, Any]:
    """Converged extremals per second of both from the same guesses, compilation not counted, and how far they differ."""
    starts = problem.initial_state.sample(np.random.default_rng(7), num)
    guesses = solve_many(problem, starts).trajectory
    found: Any
    began = time.perf_counter()
    kernel(problem, device)
    compiled = time.perf_counter() - began
    solve_pontryagin(problem, guesses[:1], device=device)
    began = time.perf_counter()
    found = solve_pontryagin(problem, guesses, device=device)
    seconds = time.perf_counter() - began
    alone = [solve_alone(problem, starts[i], guess=guesses[i], time_limit=300.0) for i in range(min(num_alone, num))]
    both = [i for i, s in enumerate(alone) if s.ok and found.ok[i]]
    rate = found.ok.sum() / seconds
    rate_alone = max(sum(s.ok for s in alone), 1e-9) / sum(s.wall_time for s in alone)
    gap = lambda i: abs(found.values[i] - alone[i].value) / (1 + abs(alone[i].value))
    path: Any = found.trajectory.costates
    other: Any = lambda i: alone[i].trajectory.costates
    costates = lambda i: np.abs(path[i] - other(i)).max() / (1 + np.abs(other(i)).max())
    return {
        "problem": problem.name,
        "device": device,
        "starts": num,
        "converged": int(found.ok.sum()),
        "seconds": seconds,
        "compile_seconds": compiled,
        "iterations": float(np.mean(found.iterations)),
        "rate": float(rate),
        "residual": float(found.residuals["defect"][found.ok].max(initial=0.0)),
        "drift": float(found.residuals["hamiltonian_drift"][found.ok].max(initial=0.0)),
        "alone_starts": len(alone),
        "alone_converged": sum(s.ok for s in alone),
        "alone_rate": float(rate_alone),
        "ratio": float(rate / rate_alone),
        "compared": len(both),
        "largest_cost_difference": max(map(gap, both), default=0.0),
        "largest_costate_difference": float(max(map(costates, both), default=0.0)),
    }


def shooting(
    num_starts: int = 1000, alone: int = 10, plants: int = 2000, device: str = "cpu", out: Path | None = None
) -> int:
    """Batched indirect shooting beside a loop over single solves, and batched Riccati equations beside `lqr` in a loop.

    Args:
        num_starts: Random starts, solved by batched DDP and polished at once.
        alone: The first of them, polished one after the other from the same guesses.
        plants: Linear plants with parameters drawn from their ranges.
        device: cpu, cuda or cuda:N.
        out: Folder for shooting.json.
    """
    check_counts(out, num_starts=num_starts, alone=alone, plants=plants)
    problems = [make("van-der-pol"), make("pendulum"), make("cartpole")]
    rows = [against_loop(problem, num_starts, alone, device) for problem in problems]
    table = markdown_table(
        f"Extremals of the continuous problem from the same direct solutions, {torch.get_num_threads()} threads",
        (
            "problem",
            "device",
            "batch converged",
            "extremals/s",
            "iterations",
            "largest residual",
            "drift of H",
            "loop converged",
            "extremals/s",
            "ratio",
            "largest relative difference of J, of λ",
        ),
        [
            (
                r["problem"],
                r["device"],
                f"{r['converged']:,} of {r['starts']:,}",
                f"{r['rate']:,.0f}",
                f"{r['iterations']:.1f}",
                f"{r['residual']:.0e}",
                f"{r['drift']:.0e}",
                f"{r['alone_converged']} of {r['alone_starts']}",
                f"{r['alone_rate']:.2f}",
                f"{r['ratio']:,.0f}×",
                f"{r['largest_cost_difference']:.0e}, {r['largest_costate_difference']:.0e}",
            )
            for r in rows
        ],
    )
    equations = [
        _riccati(make(name), horizon, plants, device)
        for name in ("mass-spring", "flexible-beam")
        for horizon in ("infinite", "finite")
    ]
    table += "\n" + markdown_table(
        f"Riccati equations of {plants:,} plants",
        ("problem", "states", "horizon", "batch", "one by one (`lqr`)", "ratio", "largest relative difference of P"),
        [
            (
                r["problem"],
                r["states"],
                r["horizon"],
                f"{1e6 * r['seconds']:.0f} µs a plant",
                f"{1e6 * r['alone']:.0f} µs",
                f"{r['ratio']:.0f}×",
                f"{r['difference']:.0e}",
            )
            for r in equations
        ],
    )
    return finish("shooting", "optctl bench shooting", table, {"shooting": rows, "riccati": equations}, out, device)


def _riccati(problem: Problem, horizon: str, num: int, device: str) -> dict[str, Any]:
    """Seconds a plant, from its parameters to gain and value."""
    p = np.random.default_rng(0).uniform(problem.param_low, problem.param_high, (num, problem.n_p))
    riccati.lqr(problem, p[:2], horizon=horizon, device=device)
    lqr(problem, horizon=horizon, params=p[0])
    began = time.perf_counter()
    found = riccati.lqr(problem, p, horizon=horizon, device=device)
    seconds = (time.perf_counter() - began) / num
    some = min(num, 20)
    began = time.perf_counter()
    single = [lqr(problem, horizon=horizon, params=p[i]).P for i in range(some)]
    alone = (time.perf_counter() - began) / some
    difference = max(float(np.abs(found.P[i] - P).max() / np.abs(P).max()) for i, P in enumerate(single))
    return {
        "problem": problem.name,
        "states": problem.n_x,
        "horizon": horizon,
        "seconds": seconds,
        "alone": alone,
        "ratio": alone / seconds,
        "difference": difference,
    }
