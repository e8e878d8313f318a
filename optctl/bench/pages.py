"""The page of results, docs/results.md: a section for each benchmark, made from the JSON file of its last run.

`<!-- bench NAME -->` stands before each section, `<!-- bench NAME-cuda -->` before that of a run on a GPU, NAME-cuda.json. What was
not measured again, and what is written by hand, stays as it stands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from optctl.bench.record import ON_GPU, place
from optctl.errors import require
from optctl.files import write_atomically

_MARK = re.compile(r"^(<!-- (?:bench [\w-]+|by hand) -->)\n", re.MULTILINE)
_HEAD = "# Results\n\nMade by `optctl bench page` from runs; each table names its command. Times are wall-clock.\n"
_NO_CUDA = (
    "On CUDA: not measured. The same commands measure it there with `--device cuda` where they have that option.\n"
)


def run_all(benches: Mapping[str, str], *, out: Path, docs: Path | None, peer_python: Path | None) -> int:
    """Every benchmark, one after the other; with `docs` also the page."""
    for name, function in benches.items():
        print(f"\n## {name}", flush=True)
        bench = resolve_name(function)
        bench(out=out, **({"peer_python": peer_python} if "peer_python" in signature(bench).parameters else {}))
    return 0 if docs is None else write_page(benches, out=out, docs=docs)


def write_page(benches: Mapping[str, str], *, out: Path, docs: Path) -> int:
    """The page of the JSON files in `out`, and of what `docs` already holds of the other benchmarks."""
    require(any(out.glob("*.json")), "out", "hold the JSON files of earlier runs", f"{out} holds none")
    names = [f"{name}{end}" for name in benches for end in ("", ON_GPU)]
    records = [json.loads(path.read_text()) for name in names if (path := out / f"{name}.json").exists()]
    old = docs.read_text() if docs.exists() else ""
    _, *parts = _MARK.split(old)  # mark, text, mark, text, …
    kept = list(zip(parts[::2], parts[1::2], strict=True))
    made = {_mark(record["name"]): _section(record) for record in records}
    sections: list[tuple[str, str]] = []
    for mark in map(_mark, names):
        sections += [(mark, made[mark])] if mark in made else [part for part in kept if part[0] == mark]
    sections += [part for part in kept if part[0] not in map(_mark, names)]
    measured = any(mark.endswith(f"{ON_GPU} -->") for mark, _ in sections)
    head = _HEAD if measured else f"{_HEAD}\n{_NO_CUDA}"
    text = "\n".join([head, *(f"{mark}\n\n{section.strip()}\n" for mark, section in sections)])
    write_atomically(docs, text.encode())
    print(f"written: {docs}")
    return 0


def _mark(name: str) -> str:
    return f"<!-- bench {name} -->"


def _section(record: Mapping[str, Any]) -> str:
    """The table, its titles with the GPU if it was measured on one, and where the figures come from."""
    about, table = record["machine"], record["table"]
    if "gpu" in about:
        table = re.sub(r"^(### .*)$", lambda title: f"{title[1]}, on {about['gpu']}", table, flags=re.MULTILINE)
    return f"{table}\n`{record['command']}`, {place(about)}."
