"""The API reference: one page for each package or module that users import from, and docstrings turned into reStructuredText.

A page shows the names of `__all__`. Where there is none, it shows the public classes, functions, or both, that are defined there.
What has been shown on an earlier page is linked.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

FACES = {
    "optctl": "",
    "optctl.problem": "",
    "optctl.problem.transforms": "functions",
    "optctl.problem.controller": "classes",
    "optctl.problem.quantum": "functions",
    "optctl.envs": "functions",
    "optctl.solvers": "",
    "optctl.solvers.feedback": "classes",
    "optctl.solvers.batched.grape": "classes and functions",
    "optctl.solvers.batched.riccati": "classes and functions",
    "optctl.solvers.batched.shooting": "classes and functions",
    "optctl.simulation": "",
    "optctl.agents": "classes",
    "optctl.learning": "classes and functions",
    "optctl.training": "",
    "optctl.hybrid": "classes",
    "optctl.hybrid.dataset": "functions",
    "optctl.comparison": "classes",
    "optctl.interop": "",
}
"""Package or module → what its page shows where it has no `__all__`."""


# --- pages --------------------------------------------------------------------------------------------------------------


def write_pages(folder: Path) -> None:
    """One file of reStructuredText for each of `FACES`."""
    folder.mkdir(exist_ok=True)
    for old in set(folder.glob("*.rst")) - {folder / f"{face}.rst" for face in FACES}:
        old.unlink()
    shown: dict[int, str] = {}
    for face, kinds in FACES.items():
        _write(folder / f"{face}.rst", _page(face, kinds, shown))


def _page(face: str, kinds: str, shown: dict[int, str]) -> str:
    """The page of one face; `shown` maps what earlier pages have shown to its name, and grows."""
    entries, elsewhere = [], []
    for name, value in _members(face, kinds):
        if id(value) in shown:
            elsewhere.append(shown[id(value)])
            continue
        if isinstance(value, type) or inspect.isfunction(value):
            shown[id(value)] = name
            entries.append((name, value))
    lines = [f"{face}\n{'=' * len(face)}\n", f".. automodule:: {face}\n   :no-members:\n"]
    if elsewhere:
        lines.append("Elsewhere: " + ", ".join(f":py:obj:`{name}`" for name in elsewhere) + ".\n")
    lines += [
        ".. autosummary::\n   :nosignatures:\n",
        *(f"   {name.removeprefix(f'{face}.')}" for name, _ in entries),
        "",
    ]
    for name, value in entries:
        lines.append(f".. auto{'class' if isinstance(value, type) else 'function'}:: {name}")
        if isinstance(value, type):
            lines.append("   :members:\n   :member-order: bysource")
        if dataclasses.is_dataclass(value):
            lines.append("   :undoc-members:")
        lines.append("")
    return "\n".join(lines)


def _members(face: str, kinds: str) -> list[tuple[str, Any]]:
    """(full name, value) of what the page of `face` shows."""
    home = import_module(face)
    if hasattr(home, "__all__"):
        names = [name for name in home.__all__ if not name.startswith("_") and getattr(home, name) is not None]
        # read once more: the first reading may load a module of the same name
        return [(f"{face}.{name}", getattr(home, name)) for name in names]
    paths = getattr(home, "__path__", [])
    modules = [home, *(import_module(found.name) for found in walk_packages(paths, f"{face}."))]
    return [
        (f"{module.__name__}.{name}", value)
        for module in modules
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", None) == module.__name__
        and (("classes" in kinds and inspect.isclass(value)) or ("functions" in kinds and inspect.isfunction(value)))
    ]


def _write(path: Path, text: str) -> None:
    """Only what is new, so that Sphinx reads again only what has changed."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


# --- docstrings ---------------------------------------------------------------------------------------------------------

BEFORE, AFTER = " \n'\"([{<-/:", " \n'\")]}>-/:.,;!?\\"
"""What may stand before and after backquotes; empty text may, too."""
EMPHASIS = re.compile(r"(?<![\w*])(\*\*?)[^\s*](?:[^*]*[^\s*])?\1(?![\w*])")


def markup(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """A docstring as it is read in the source → reStructuredText.

    Indented blocks are shown as they stand. Lines `name: text` become the list of arguments. Bars, stars and underscores
    outside backquotes are themselves, but for `*emphasis*` and bullets.
    """
    names = _parameters(value)
    result: list[str] = []
    for block in _blocks(lines):
        if block[0] in ("Args:", "Parameters"):
            block = [line.removeprefix("    ") for line in block[1:] if set(line) != {"-"}]
        if block[0].startswith("    "):
            result += ["::", ""] if not (result and result[-2].endswith("::")) else []
            result += block
        elif _is_argument(block[0], names):
            for line in block:
                result.append(f":param {_plain(line)}" if _is_argument(line, names) else f"    {_plain(line.strip())}")
        else:
            result += _plain("\n".join(block)).split("\n")
        result.append("")
    lines[:] = result


def signature(app: Any, what: str, name: str, value: Any, *_: Any) -> tuple[str, str] | None:
    """A dataclass has none: its fields are listed below it, with their types and defaults."""
    return ("", "") if what == "class" and dataclasses.is_dataclass(value) else None


def _blocks(lines: list[str]) -> list[list[str]]:
    """The paragraphs."""
    blocks: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
    return [block for block in blocks if block]


def _parameters(value: Any) -> set[str]:
    try:
        return set(inspect.signature(value).parameters)
    except (TypeError, ValueError):
        return set()


def _is_argument(line: str, names: set[str]) -> bool:
    """Whether a line begins with names of arguments and a colon."""
    head, colon, _ = line.partition(": ")
    return bool(colon) and set(head.replace("*", "").split(", ")) <= names


def _plain(text: str) -> str:
    """Characters with a meaning in reStructuredText are escaped outside of backquotes, which may touch letters."""
    parts = text.split("`")
    for i, part in enumerate(parts):
        if i % 2:
            continue
        emphasised = {k for found in EMPHASIS.finditer(part) for k in range(*found.span())}
        plain = "".join(f"\\{s}" if k not in emphasised and _special(part, k) else s for k, s in enumerate(part))
        after, before = i and part[:1] not in AFTER, i < len(parts) - 1 and part[-1:] not in BEFORE
        parts[i] = ("\\ " if after else "") + plain + ("\\ " if before else "")
    return "`".join(parts)


def _special(text: str, at: int) -> bool:
    """Whether the character there would be markup: a bar, a trailing underscore, a star that is no bullet."""
    sign, before, after = text[at], text[:at], text[at + 1 : at + 2]
    if sign == "*":
        return not (after == " " and before.rpartition("\n")[2].strip() == "")
    return sign == "|" or (sign == "_" and before[-1:].isalnum() and not after.isalnum())
