"""`optctl animate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from optctl.cli.arguments import known, parse
from optctl.cli.progress import Spinner, say
from optctl.comparison.controllers import CONTROLLERS
from optctl.comparison.result import Reference
from optctl.envs import make
from optctl.errors import require
from optctl.pictures import animation as pictures
from optctl.problem.controller import check_states, rollout
from optctl.problem.trajectory import Trajectory
from optctl.training.run import load_agent


def animate(
    problem: str,
    controller: str = "optimal",
    out: Path | None = None,
    x0: tuple[float, ...] = (),
    num_starts: int = 1,
    seed: int = 0,
    seconds: float | None = None,
) -> int:
    """A film (GIF or MP4) of a controller at work.

    Args:
        problem: A problem of the catalogue (see `optctl list`).
        controller: optimal, lqr, lqg, mpc, hjb, zero, random, an agent's name, or the path of a checkpoint.
        out: The film, ending in .gif or .mp4; PROBLEM-CONTROLLER.gif without it.
        x0: Initial state; without it, starts are drawn from the problem's initial distribution.
        num_starts: Random starts, shown side by side, when there is no --x0.
        seed: Seed of the starts.
        seconds: Length of the film; the trajectory's own duration without it.
    """
    p = make(problem)
    require(1 <= num_starts <= 16, "num_starts", "be from 1 to 16", f"is {num_starts}")
    require(seed >= 0, "seed", "not be negative", f"is {seed}")
    starts = check_states(p, x0) if x0 else p.initial_state.sample(np.random.default_rng(seed), num_starts)
    is_file = Path(controller).exists()
    if not is_file:
        known(controller, CONTROLLERS, "controller")
    name = Path(controller).resolve().stem if is_file else controller
    path = out or Path(f"{p.name}-{name}.gif")
    with Spinner(f"{name} on {p.name}") as spinner:
        built: Any = (
            load_agent(controller) if is_file else CONTROLLERS[controller](p, starts, p.param_values[None], seed)
        )
        solved = isinstance(built, Reference)
        trajectory = Trajectory.stack(built.trajectories) if solved else rollout(p, built, starts)
        spinner.tell(f"drawing {path}")
        pictures.animate(p, trajectory, path, seconds=seconds)
    say(f"mean cost {trajectory.total_cost.mean():.6g}\nwritten: {path}")
    return 0


def main(arguments: list[str]) -> int:
    return parse("animate", animate, arguments)
