"""Checks of a configuration's fields, and of saved parameters, that every agent makes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from optctl.errors import ArgumentError, require

Rule = tuple[str, Callable[[Any], bool]]
"""What a field must be, and whether a value is."""

POSITIVE: Rule = ("positive and finite", lambda v: 0 < v < math.inf)
SHARE: Rule = ("in (0, 1]", lambda v: 0 < v <= 1)
FRACTION: Rule = ("in [0, 1]", lambda v: 0 <= v <= 1)
COUNT: Rule = ("at least 1", lambda v: v >= 1)
NOT_NEGATIVE: Rule = ("at least 0 and finite", lambda v: 0 <= v < math.inf)
WIDTHS: Rule = ("a tuple of positive widths", lambda v: len(v) > 0 and all(w > 0 for w in v))
RANGE: Rule = ("two increasing numbers", lambda v: len(v) == 2 and v[0] < v[1])


def one_of(names: Any) -> Rule:
    """Among these names."""
    return f"one of {', '.join(names)}", lambda v: v in names


def check(config: Any, **rules: Rule) -> None:
    """Raise `ArgumentError` for the first field of `config` that breaks its rule."""
    for name, (what, holds) in rules.items():
        value = getattr(config, name)
        try:
            right = holds(value)
        except TypeError:
            right = False
        require(right, name, f"be {what}", f"is {value!r}")


def restore(name: str, parameters: Tensor, saved: Tensor) -> None:
    """Copy saved parameters; raise where they are those of another configuration."""
    if parameters.shape != saved.shape:
        raise ArgumentError(
            f"Argument `state` must hold {name} parameters of shape {tuple(parameters.shape)}, but holds "
            f"{tuple(saved.shape)}: it was saved with another configuration or environment."
        )
    parameters.copy_(saved)
