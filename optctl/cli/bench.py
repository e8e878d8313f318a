"""`optctl bench`."""

from __future__ import annotations

from optctl.bench import BENCHES
from optctl.cli.arguments import known, parse
from optctl.cli.progress import say


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        lines = [f"  {name:10} {(bench.__doc__ or '').strip().splitlines()[0]}" for name, bench in BENCHES.items()]
        say("usage: optctl bench NAME [OPTIONS]\n\n" + "\n".join(lines))
        return 0 if arguments else 2
    known(arguments[0], BENCHES, "benchmark")
    return parse(f"bench {arguments[0]}", BENCHES[arguments[0]], arguments[1:])
