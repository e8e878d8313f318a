"""`optctl train`.

Its options are the settings for the agent and the problem named, with their values as defaults; where a run is resumed, the values
that it has.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import arg

from optctl.agents import AGENTS
from optctl.cli.arguments import known, output_folder, parse
from optctl.cli.progress import TrainingBar, say
from optctl.envs import CATALOGUE, make
from optctl.training.run import CHECKPOINT, TrainingRun
from optctl.training.run import train as run_training
from optctl.training.settings import Settings, settings


def main(arguments: list[str]) -> int:
    pair, options = split(arguments)
    if pair is None:
        say(
            f"usage: optctl train AGENT PROBLEM [OPTIONS]\n\nAgents: {', '.join(AGENTS)}. Problems: {', '.join(CATALOGUE)}.\n"
            "`optctl train AGENT PROBLEM --help` shows the options with the settings for that pair."
        )
        return 0 if {"-h", "--help"} & set(arguments) else 2
    agent, problem = pair
    known(agent, AGENTS, "agent")
    known(problem, CATALOGUE, "problem")
    warm, stored = beginning(options)
    defaults, run = settings(agent, make(problem), warm_start=warm), None
    if stored is not None:  # what is not said is as it was
        run = TrainingRun.load(stored, make(problem))
        defaults = replace(
            defaults,
            agent=run.agent_config if run.name == agent else defaults.agent,
            loop=run.loop_config,
            train=run.config,
            warm=run.warm_config or defaults.warm,
        )

    def train(
        settings: Annotated[Settings, arg(name="")] = defaults,
        warm_start: bool = run is not None and run.warm_config is not None,
        dataset: Annotated[Path | None, arg(name="from")] = None,
        seed: int = 0 if run is None else run.seed,
        device: str = "cpu",
        out: Path | None = None,
        resume: bool = False,
    ) -> int:
        """Train an agent on a problem; Ctrl-C saves, --resume continues.

        Args:
            settings: The settings of the pair.
            warm_start: Begin from optimal trajectories (options warm.*).
            dataset: Begin from those in this file or folder, made by `optctl demos`.
            seed: Seed of everything random.
            device: cpu, cuda or cuda:N.
            out: Folder for the checkpoint.
            resume: Continue the run found in --out.
        """
        folder = None if out is None else output_folder(out)
        start = settings.warm if warm_start else False
        if dataset is not None:
            start = replace(settings.warm, dataset=str(dataset))
        with TrainingBar(f"{agent} on {problem}") as bar:
            policy = run_training(
                agent,
                make(problem),
                warm_start=start,
                agent_config=settings.agent,
                loop_config=settings.loop,
                config=settings.train,
                seed=seed,
                device=device,
                out=folder,
                resume=resume,
                progress=bar.update,
            )
        last = policy.run.curve[-1]
        say(
            f"{policy.name} on {problem}: mean cost {last['cost']:.6g} over {len(policy.run.starts)} starts, "
            f"after {last['steps']:,} steps and {policy.run.seconds:.1f} s"
        )
        if folder is not None:
            say(f"written: {folder / CHECKPOINT}")
        return 0 if policy.run.finished else 130

    return parse(f"train {agent} {problem}", train, options)


def split(arguments: list[str]) -> tuple[tuple[str, str] | None, list[str]]:
    """The two words AGENT PROBLEM, wherever they stand among the options, and the options.

    Of several pairs of words (values of options are words too) the first counts in which most is known.
    """
    words = [i for i, pair in enumerate(pairwise(arguments)) if not any(word.startswith("-") for word in pair)]
    if not words:
        return None, arguments
    i = max(words, key=lambda i: (arguments[i] in AGENTS) + (arguments[i + 1] in CATALOGUE))
    return (arguments[i], arguments[i + 1]), arguments[:i] + arguments[i + 2 :]


def beginning(options: list[str]) -> tuple[bool, Path | None]:
    """Whether to begin from optimal trajectories, and the folder of the run to continue, `None` where one begins."""

    def stated(
        warm_start: bool = False,
        dataset: Annotated[Path | None, arg(name="from")] = None,
        out: Path | None = None,
        resume: bool = False,
    ) -> tuple[bool, Path | None]:
        return warm_start or dataset is not None, out if resume and out is not None and (
            out / CHECKPOINT
        ).exists() else None

    asked = [option for option in options if option not in ("-h", "--help")]
    return tyro.cli(stated, prog="optctl train", args=asked, return_unknown_args=True)[0]
