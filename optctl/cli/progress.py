"""What a command shows while it works, and the lines that it prints."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


def say(text: str = "") -> None:
    print(text, flush=True)


class Spinner:
    """A line that shows what is going on; quiet where there is no terminal."""

    def __init__(self, text: str) -> None:
        self.status = Console(stderr=True).status(text)

    def __enter__(self) -> Spinner:
        self.status.__enter__()
        return self

    def tell(self, text: str) -> None:
        self.status.update(text)

    def __exit__(self, *details: Any) -> None:
        self.status.__exit__(*details)


class TrainingBar:
    """Progress of one training run, with the cost of the last evaluation."""

    def __init__(self, title: str) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        self.progress = Progress(*columns, console=Console(stderr=True))
        self.task = self.progress.add_task(title, total=None, note="preparing")

    def __enter__(self) -> TrainingBar:
        self.progress.start()
        return self

    def update(self, run: Any) -> None:
        iteration = run.loop.iteration
        if iteration == 0:
            self.progress.update(self.task, note=run.stage)
        elif iteration % 10 == 0 or run.finished:
            note = f"{run.loop.steps * run.config.num_envs:,} steps, cost {run.curve[-1]['cost']:.5g}"
            self.progress.update(self.task, total=run.config.iterations, completed=iteration, note=note)

    def __exit__(self, *details: Any) -> None:
        self.progress.stop()
