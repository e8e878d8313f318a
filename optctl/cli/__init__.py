"""The command line: `optctl list | solve | demos | animate | train | evaluate | compare | demo | bench`, one module each.

Options come from the signatures and dataclasses by tyro. A wrong input is one sentence on stderr and exit status 2; a failure of the
machine (a full disk, a read-only folder) is one sentence and 1; Ctrl-C saves what there is and exits with 130.
"""

from __future__ import annotations

import signal
import sys
import threading
from importlib import import_module
from typing import Any

from optctl import __version__
from optctl.cli.arguments import known
from optctl.errors import ArgumentError, FileError

COMMANDS = {
    "list": "the problems, agents and solvers",
    "solve": "solve a problem: cost, verdict, certificate",
    "demos": "optimal trajectories by the thousand, in one file",
    "animate": "a film of a controller at work",
    "train": "train an agent on a problem",
    "evaluate": "a trained policy's cost and gap",
    "compare": "controllers on the same starts, with gaps and a report",
    "demo": "the main job on a swing-up, with a report",
    "bench": "reproduce the performance figures",
}
"""What each command is about. Its module, `optctl.cli.NAME`, is loaded when it is asked for."""


def _usage() -> str:
    lines = [f"  {name:10} {about}" for name, about in COMMANDS.items()]
    return "\n".join(
        [
            "usage: optctl COMMAND [OPTIONS]",
            "",
            "One definition of a control problem; its batched environment, its optimum, and every policy's gap.",
            "",
            *lines,
            "",
            "`optctl COMMAND --help` shows a command's options.",
        ]
    )


def _end_as_by_keyboard(number: int, frame: Any) -> None:
    """A batch system that ends a job is answered as Ctrl-C is: what was done is saved."""
    handler = signal.getsignal(signal.SIGINT)
    (handler if callable(handler) else signal.default_int_handler)(signal.SIGINT, frame)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        print(f"optctl {__version__}")
        return 0
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _end_as_by_keyboard)
        known(arguments[0], COMMANDS, "command")
        return import_module(f"optctl.cli.{arguments[0]}").main(arguments[1:])
    except ArgumentError as error:
        print(f"optctl: {error}", file=sys.stderr)
        return 2
    except FileError as error:
        print(f"optctl: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("optctl: interrupted", file=sys.stderr)
        return 130
