"""The text of kernels, a file each: `*.cpp` in C++, `*.warp` in Warp's Python. Words in capitals and `<blocks>` are filled in by the
modules that load them."""

from __future__ import annotations

from importlib.resources import files


def text(name: str) -> str:
    """The contents of a file of this folder."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8")
