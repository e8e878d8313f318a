"""`optctl demo`."""

from __future__ import annotations

from pathlib import Path

from optctl.cli.arguments import parse
from optctl.cli.compare import USUAL, compared


def main(arguments: list[str]) -> int:
    def demo(problem: str = "pendulum-v1", out: Path = Path("out/demo"), seeds: int = 3) -> int:
        """The main job: one swing-up, its optimum, SAC from scratch and from optimal trajectories, each with its gap.

        Args:
            problem: A problem of the catalogue (see `optctl list`).
            out: Folder for the report.
            seeds: Training seeds for each agent.
        """
        return compared(problem, USUAL, seeds=seeds, out=out, command=" ".join(["optctl", "demo", *arguments]))

    return parse("demo", demo, arguments)
