"""Ctrl-C that is not lost: CasADi's wrappers swallow an interrupt now and then, and the solve would go on."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def heeded() -> Iterator[Callable[[], None]]:
    """Gives a function that raises KeyboardInterrupt where one has come within the block and was swallowed. Handlers other than
    Python's own keep what they do."""
    came: list[int] = []
    own = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )

    def note(number: int, frame: Any) -> None:
        came.append(number)
        signal.default_int_handler(number, frame)

    def check() -> None:
        if came:
            raise KeyboardInterrupt

    if own:
        signal.signal(signal.SIGINT, note)
    try:
        yield check
        check()
    finally:
        if own:
            signal.signal(signal.SIGINT, signal.default_int_handler)
