"""`optctl bench hjb`: dynamic programming on the exact plant of Pendulum-v1, on the midpoint starts."""

from __future__ import annotations

import time
from pathlib import Path

from optctl import rollout
from optctl.bench.learning import MIDPOINTS
from optctl.bench.record import check_counts, finish, markdown_table
from optctl.envs import make
from optctl.solvers.feedback.hjb import HjbController

TARGET = 137.0
"""Mean cost that the law has to reach over the 80 × 25 midpoint starts."""


def hjb(
    nodes: tuple[int, int] = (640, 513), levels: int = 15, hold: int = 2, device: str = "cpu", out: Path | None = None
) -> int:
    """Mean cost of the HJB law on Pendulum-v1's midpoint starts, and the seconds for its grid and for the rollouts.

    Args:
        nodes: Of the angle and of the speed.
        levels: Torques tried.
        hold: Intervals a stage.
        device: cpu, cuda or cuda:N.
        out: Folder for hjb.json.
    """
    check_counts(out)
    problem = make("pendulum-v1")
    starts = problem.initial_state.midpoints(MIDPOINTS)
    began = time.perf_counter()
    law = HjbController(problem, nodes=nodes, levels=levels, hold=hold, device=device)
    solved = time.perf_counter() - began
    cost = float(rollout(problem, law, starts).total_cost.mean())
    rolled = time.perf_counter() - began - solved
    figures = {
        "cost": cost,
        "grid_seconds": solved,
        "rollout_seconds": rolled,
        "nodes": list(nodes),
        "levels": levels,
        "hold": hold,
    }
    table = markdown_table(
        f"HJB on pendulum-v1, {nodes[0]} × {nodes[1]} nodes",
        ("mean return", f"reaches −{TARGET:g}", "grid", "2,000 rollouts"),
        [(f"{-cost:.3f}", "yes" if cost <= TARGET else "no", f"{solved:.1f} s", f"{rolled:.1f} s")],
    )
    return finish("hjb", "optctl bench hjb", table, figures, out, device)
