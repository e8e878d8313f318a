"""`optctl evaluate`."""

from __future__ import annotations

from pathlib import Path

import optctl
from optctl.cli.arguments import parse
from optctl.cli.progress import Spinner, say
from optctl.errors import require


def evaluate(
    checkpoint: Path, num_starts: int = 256, seed: int = 0, reference: bool = True, device: str = "cpu"
) -> int:
    """Evaluate a trained policy, with its gap to the optimum.

    Args:
        checkpoint: A checkpoint, or the folder that holds one.
        num_starts: Random starts.
        seed: Seed of the starts.
        reference: Solve every start for the gap; --no-reference gives the cost alone.
        device: cpu, cuda or cuda:N.
    """
    require(seed >= 0, "seed", "not be negative", f"is {seed}")
    policy = optctl.load_agent(checkpoint, device=device)
    with Spinner(f"evaluating {policy.name} on {policy.problem.name}") as spinner:
        comparison = optctl.compare(
            policy.problem,
            [policy],
            num_starts=num_starts,
            seed=seed,
            reference="optimal" if reference else None,
            progress=spinner.tell,
        )
    say(str(comparison))
    return 0


def main(arguments: list[str]) -> int:
    return parse("evaluate", evaluate, arguments)
