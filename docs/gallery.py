"""Write docs/gallery.md and a picture of every problem: `make gallery`. With names, only their pictures are drawn anew.

A picture shows the best trajectory that `optctl.solve` finds from one random start, three times: after a tenth and a half of its
movement, and at its end (where a control of a few levels has no derivatives: a trajectory under random control).
"""

from __future__ import annotations

import io
import sys
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

import optctl
from optctl.envs import CATALOGUE
from optctl.errors import ArgumentError
from optctl.files import write_atomically
from optctl.pictures.render import draw
from optctl.problem.controller import RandomController

HERE = Path(__file__).parent
PICTURES = HERE / "pictures"
SIDE, MOMENTS, SEED = 240, (0.1, 0.5, 1.0), 1
TITLES = {
    "lqr": ("Linear systems", "linear"),
    "oscillators": ("Oscillators", "oscillators"),
    "thermodynamics": ("Stochastic thermodynamics", "thermodynamics"),
    "pendulum": ("Pendulums", "pendulum"),
    "cartpole": ("Carts with poles", "pendulum"),
    "double_pendulum": ("Two links", "pendulum"),
    "flight": ("Flight", "flight"),
    "variants": ("Delayed, goal-conditioned, constrained, timed, tracking", "pendulum"),
    "quantum": ("Quantum control", "quantum"),
    "open_quantum": ("Open quantum systems", "quantum"),
}


def picture(name: str) -> bytes:
    """Three moments of the best known trajectory, side by side, as a PNG."""
    problem = optctl.make(name)
    start = problem.initial_state.sample(np.random.default_rng(SEED), 1)[0]
    try:
        best = optctl.solve(problem, x0=start).trajectory
    except ArgumentError:  # a control of a few levels has no derivatives
        best = optctl.rollout(problem, RandomController(problem, SEED), start)[0]
    pace = np.linalg.norm(np.diff(best.states, axis=0) / (np.ptp(best.states, axis=0) + 1e-9), axis=1)
    moments = [int(np.searchsorted(pace.cumsum() / (pace.sum() + 1e-9), 0.999 * moment)) + 1 for moment in MOMENTS[:-1]]
    moments.append(len(best.controls))
    frames = [Image.fromarray(draw(problem, best.states[: k + 1], best.controls[:k])) for k in moments]
    strip = Image.new("RGB", (SIDE * len(frames), SIDE), "white")
    for i, frame in enumerate(frames):
        strip.paste(frame.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (i * SIDE, 0))
    buffer = io.BytesIO()
    strip.quantize(64, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def page() -> str:
    """The gallery as Markdown."""
    about = "each drawn on the best trajectory that `optctl.solve` finds from one random start: "
    about += "after a tenth and a half of its movement, and at its end"
    lines = [
        "# Gallery",
        "",
        f"{len(CATALOGUE)} problems, {about}.",
        "`optctl animate NAME` makes a film. Written by `make gallery`.",
    ]
    for module, names in groupby(CATALOGUE, key=lambda name: CATALOGUE[name].__module__.rpartition(".")[2]):
        title, family = TITLES[module]
        lines += [
            "",
            f"## {title}",
            "",
            f"`envs/{module}.py`; equations and known facts: [{family}](families/{family}.md).",
            "",
        ]
        lines += ["| problem | |", "|---|---|"]
        for name in names:
            p = optctl.make(name)
            size = ", ".join(f"{n} {what}{'s' if n > 1 else ''}" for n, what in ((p.n_x, "state"), (p.n_u, "control")))
            about = f"{size}, {p.steps} steps of {p.dt:g}, {p.horizon} horizon"
            lines.append(f"| `{name}`<br>{p.description}<br>{about} | ![{name}](pictures/{name}.png) |")
    return "\n".join(lines) + "\n"


def main(names: list[str]) -> None:
    PICTURES.mkdir(exist_ok=True)
    for name in track(names or list(CATALOGUE), description="drawing"):
        write_atomically(PICTURES / f"{name}.png", picture(name))
    write_atomically(HERE / "gallery.md", page().encode())


if __name__ == "__main__":
    main(sys.argv[1:])
