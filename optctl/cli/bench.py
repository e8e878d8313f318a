"""`optctl bench`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name

from optctl.bench import BENCHES
from optctl.bench.pages import run_all, write_page
from optctl.cli.arguments import known, parse
from optctl.cli.progress import say


def everything(peer_python: Path | None = None, out: Path = Path("out/bench"), docs: Path | None = None) -> int:
    """All of them, one after the other; with --docs also the page of results.

    Args:
        peer_python: Interpreter that has the peers.
        out: Folder for the JSON files.
        docs: Where to write the page, such as docs/results.md.
    """
    return run_all(BENCHES, out=out, docs=docs, peer_python=peer_python)


def page(out: Path = Path("out/bench"), docs: Path = Path("docs/results.md")) -> int:
    """Write the page of results from the JSON files of earlier runs; what has none stays as the page has it.

    Args:
        out: Folder with the JSON files.
        docs: The page.
    """
    return write_page(BENCHES, out=out, docs=docs)


ALL: dict[str, Callable[..., int] | str] = {**BENCHES, "gpu": "optctl.bench.gpu:gpu", "all": everything, "page": page}


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        lines = [f"  {name:14} {(_bench(name).__doc__ or '').strip().splitlines()[0]}" for name in ALL]
        say("usage: optctl bench NAME [OPTIONS]\n\n" + "\n".join(lines))
        return 0 if arguments else 2
    known(arguments[0], ALL, "benchmark")
    return parse(f"bench {arguments[0]}", _bench(arguments[0]), arguments[1:])


def _bench(name: str) -> Callable[..., int]:
    bench = ALL[name]
    return resolve_name(bench) if isinstance(bench, str) else bench
