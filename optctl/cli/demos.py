"""`optctl demos`."""

from __future__ import annotations

import time
from pathlib import Path

from optctl.cli.arguments import parse
from optctl.cli.progress import Spinner, say
from optctl.hybrid.dataset import generate


def demos(
    problem: str,
    num: int = 10_000,
    out: Path = Path("demonstrations"),
    randomize: bool = False,
    seed: int = 0,
    chunk: int = 1000,
) -> int:
    """Certified optimal trajectories from random starts, with costates, values and gains, in one safetensors file.

    An interrupted run continues when the command is given again.

    Args:
        problem: A problem of the catalogue (see `optctl list`).
        num: Random starts.
        out: Folder for demonstrations.safetensors and demonstrations.json.
        randomize: Draw the parameters of each plant from the problem's ranges.
        seed: Seed of starts and plants.
        chunk: Starts that are solved and saved together.
    """
    began = time.perf_counter()
    with Spinner(f"solving {problem} from {num} starts") as spinner:
        tell = lambda done, of: spinner.tell(f"{problem}: {done:,} of {of:,} starts")
        found = generate(problem, num, out, seed=seed, randomize=randomize, chunk=chunk, progress=tell)
    mean = found.values[:, 0].mean() if len(found) else float("nan")
    say(f"{len(found):,} of {num:,} starts certified in {time.perf_counter() - began:.1f} s; mean cost {mean:.6g}")
    say(f"written: {out / 'demonstrations.safetensors'}")
    return 0 if len(found) else 3


def main(arguments: list[str]) -> int:
    return parse("demos", demos, arguments)
