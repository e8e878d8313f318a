"""What every benchmark shares: arguments are checked before the work, a table and a JSON file come after it, peers run elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from optctl.comparison.machine import machine
from optctl.errors import require
from optctl.files import check_writable, write_atomically

ON_GPU = "-cuda"
"""Ends the name of a record that was measured on a GPU."""


def ask_peer(python: Path | None, *arguments: object) -> list[dict[str, Any]]:
    """JSON lines of a peer; an empty list, and a word why, where it is not installed."""
    command = [str(python or sys.executable), str(Path(__file__).with_name("peers.py")), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        print(f"peer not measured: {reason}")
    return lines


def markdown_table(title: str, header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [f"### {title}", "", "| " + " | ".join(header) + " |"]
    lines.append("|" + "---|" * len(list(header)))
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def place(about: Mapping[str, str]) -> str:
    """Where a figure was measured, in words."""
    parts = [f"{about['processor']}, {about['cores']} cores", about.get("gpu", ""), f"torch {about.get('torch', '-')}"]
    return ", ".join(filter(None, parts))


def check_counts(out: Path | None, **counts: int) -> None:
    """Bad arguments end the command before the work, not after it."""
    for name, count in counts.items():
        require(count >= 1, name, "be at least 1", f"is {count}")
    if out is not None:
        check_writable(out)


def earlier(out: Path | None, name: str, resume: bool) -> dict[str, Any]:
    """The figures of the run in OUT/NAME.json that is to be continued; empty where none is."""
    require(not resume or out is not None, "resume", "come with `out`, the folder of the run", "`out` was not given")
    path = None if out is None else out / f"{name}.json"
    return json.loads(path.read_text())["figures"] if resume and path is not None and path.exists() else {}


def finish(name: str, command: str, table: str, figures: dict[str, Any], out: Path | None, device: str = "cpu") -> int:
    """Print the table and write OUT/NAME.json, or OUT/NAME-cuda.json of what was measured on a GPU."""
    about = machine()
    if device != "cpu":
        import torch

        about["gpu"] = torch.cuda.get_device_name(device)
        name, command = f"{name}{ON_GPU}", f"{command} --device cuda"
    print(f"\n{table}\n{place(about)}")
    if out is not None:
        record = {"name": name, "command": command, "machine": about, "table": table, "figures": figures}
        write_atomically(out / f"{name}.json", json.dumps(record, indent=1).encode())
    return 0
