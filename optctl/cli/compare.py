"""`optctl compare`, and what `optctl demo` does too."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import optctl
from optctl.cli.arguments import known, output_folder, parse
from optctl.cli.progress import Spinner, TrainingBar, say
from optctl.comparison.controllers import CONTROLLERS, TRAINED, train_named
from optctl.envs import make
from optctl.errors import require

USUAL = ("optimal", "lqr", "zero", "sac", "sac-warm")


def main(arguments: list[str]) -> int:
    def compare(
        problem: str,
        controllers: tuple[str, ...] = USUAL,
        seeds: int = 3,
        num_starts: int = 100,
        seed: int = 0,
        device: str = "cpu",
        out: Path | None = None,
    ) -> int:
        """Compare controllers on the same starts and report each with its gap to the optimum.

        Args:
            problem: A problem of the catalogue (see `optctl list`).
            controllers: optimal, lqr, lqg, mpc, hjb, zero, random, an agent's name (trained from scratch), AGENT-warm (from
                optimal trajectories), or the path of a checkpoint.
            seeds: Training seeds for each agent.
            num_starts: Random starts.
            seed: Seed of the starts; training uses seed, seed + 1, …
            device: cpu, cuda or cuda:N.
            out: Folder for report.html, pictures and results.json.
        """
        command = " ".join(["optctl", "compare", *arguments])
        return compared(
            problem, controllers, seeds=seeds, num_starts=num_starts, seed=seed, device=device, out=out, command=command
        )

    return parse("compare", compare, arguments)


def compared(
    name: str,
    controllers: Sequence[str],
    *,
    command: str,
    seeds: int,
    num_starts: int = 100,
    seed: int = 0,
    device: str = "cpu",
    out: Path | None = None,
) -> int:
    """Train what has to be trained, compare, print the table and write the report, which names `command`."""
    problem = make(name)
    require(seeds >= 1, "seeds", "be at least 1", f"is {seeds}")
    require(num_starts >= 1, "num_starts", "be at least 1", f"is {num_starts}")
    require(seed >= 0, "seed", "not be negative", f"is {seed}")
    starts = problem.initial_state.sample(np.random.default_rng(seed), num_starts)
    for controller in controllers:
        if not Path(controller).exists():
            known(controller, CONTROLLERS, "controller")
    folder = None if out is None else output_folder(out)
    began = time.perf_counter()
    entries: dict[str, Any] = {}
    curves: list[dict[str, Any]] = []
    for controller in controllers:
        if controller in TRAINED:
            policies = []
            for k in range(seeds):
                with TrainingBar(f"{controller} on {name}, seed {seed + k}") as bar:
                    policy = train_named(
                        controller, problem, seed=seed + k, device=device, starts=starts, progress=bar.update
                    )
                if not policy.run.finished:
                    raise KeyboardInterrupt
                policies.append(policy)
            entries[controller] = policies
            curves.append(_curve(controller, policies))
        elif controller in CONTROLLERS:
            entries[controller] = controller
        else:
            policy = optctl.load_agent(controller, device=device)
            entries[f"{policy.name} ({Path(controller).name})"] = policy
    with Spinner("comparing") as spinner:
        comparison = optctl.compare(problem, entries, starts=starts, seed=seed, progress=spinner.tell)
    say(str(comparison))
    if folder is not None:
        comparison.save(folder, curves=curves, command=command)
        say(f"report: {folder / 'report.html'}")
    say(f"{time.perf_counter() - began:.1f} s in all")
    return 0


def _curve(name: str, policies: list[Any]) -> dict[str, Any]:
    """Learning curves of one method, a row per seed."""
    runs = [policy.run.curve for policy in policies]
    return {"name": name} | {
        key: [[point[key] for point in run] for run in runs] for key in ("steps", "seconds", "cost")
    }
