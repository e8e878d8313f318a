"""`optctl list`."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from optctl.agents import AGENTS
from optctl.cli.arguments import parse
from optctl.cli.progress import say
from optctl.envs import CATALOGUE, make
from optctl.solvers import SOLVERS


def catalogue(compile: bool = False) -> int:
    """The catalogue of problems, the agents and the solvers.

    Args:
        compile: Also compile every environment twice, with an empty cache and from it, and print how long each took.
    """
    table = Table("problem", "states", "controls", "horizon", "about", title="Problems", title_justify="left")
    for name in CATALOGUE:
        p = make(name)
        table.add_row(name, str(p.n_x), str(p.n_u), f"{p.horizon}, {p.duration:g} s", p.description)
    Console().print(table)
    if compile:
        from optctl.bench.compile_times import compile_times  # loads torch and warp

        say("Seconds to an environment that runs, with an empty cache and from the cache:")
        for name, cold, cached in compile_times(list(CATALOGUE)):
            say(f"{name:32} {cold:6.2f} {cached:6.2f}")
    say(f"Agents:  {', '.join(AGENTS)}\nSolvers: {', '.join(SOLVERS)}")
    return 0


def main(arguments: list[str]) -> int:
    return parse("list", catalogue, arguments)
