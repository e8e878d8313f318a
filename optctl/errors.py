"""The error types of optctl and the one sentence form of a bad argument."""

from __future__ import annotations


class ArgumentError(ValueError):
    """A bad argument: names it, says what it must be and what it was."""


class ProblemError(ArgumentError):
    """A `Problem` whose statement is inconsistent."""


class FileError(Exception):
    """A file or folder cannot be read or written; the message is one sentence for the user."""


def require(ok: object, argument: str, must: str, was: object) -> None:
    """Raise "Argument `x0` must have shape (B, 4), but has shape (4,)." unless `ok`.

    `must` continues "must …" and `was` continues "but …".
    """
    if not ok:
        raise ArgumentError(f"Argument `{argument}` must {must}, but {was}.")
