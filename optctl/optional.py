"""Libraries that not everybody has: `library` imports one, or says how to get it."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def library(name: str, package: str, extra: str) -> ModuleType:
    """The module `name` of an optional `package`, or one sentence that says how to get it."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise  # it is there, and something of its own is missing
        raise ModuleNotFoundError(
            f"This needs {package}, which is not installed: pip install 'optctl[{extra}]'.", name=error.name
        ) from None
