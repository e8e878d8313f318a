"""Words on the command line into the arguments of a function."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from pathlib import Path

from optctl.errors import ArgumentError
from optctl.files import check_writable


def parse(command: str, function: Callable[..., int], arguments: list[str]) -> int:
    """Call `function` with the arguments that its signature and docstring describe."""
    import tyro

    return tyro.cli(function, prog=f"optctl {command}", args=arguments, config=(tyro.conf.PositionalRequiredArgs,))


def known(value: str, names: Iterable[str], what: str) -> None:
    """`value` must be one of `names`, else a sentence that suggests the nearest."""
    names = list(names)
    if value not in names:
        close = difflib.get_close_matches(value, names, n=1)
        hint = f"did you mean `{close[0]}`?" if close else f"choose from {', '.join(names)}."
        raise ArgumentError(f"There is no {what} `{value}`: {hint}")


def output_folder(path: Path) -> Path:
    """The folder, which can be written to: fail before the work, not after it."""
    check_writable(path)
    return path
