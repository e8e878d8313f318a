"""The functions of a problem as users write them: parameters by name, and what a copy in another process has in their place."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import casadi as ca

from optctl.errors import ProblemError


class Parameters:
    """The parameter vector with its entries as attributes: `p.mass`."""

    def __init__(self, names: Sequence[str], vector: Any) -> None:
        self.__dict__.update({name: vector[i] for i, name in enumerate(names)})

    def __getattr__(self, name: str) -> Any:
        known = ", ".join(self.__dict__) or "none"
        raise ProblemError(f"Parameter `{name}` is used but not declared; declared parameters: {known}.")


class Stated:
    """A function of a problem by its CasADi function: what its copy in another process has in place of the user's Python."""

    def __init__(self, function: ca.Function, params: Sequence[str]) -> None:
        self.function, self.params = function, tuple(params)

    def __call__(self, *arguments: Any) -> Any:
        *point, p, t = arguments if len(arguments) == self.function.n_in() else (*arguments, 0.0)
        return self.function(*point, ca.vertcat(*(getattr(p, name) for name in self.params)), t)


def positional_arguments(function: Callable[..., Any]) -> int:
    """How many arguments a function must be given; ValueError where it takes any number."""
    parameters = inspect.signature(function).parameters.values()
    if any(q.kind is q.VAR_POSITIONAL for q in parameters):
        raise ValueError("takes any number")
    return sum(q.kind in (q.POSITIONAL_ONLY, q.POSITIONAL_OR_KEYWORD) and q.default is q.empty for q in parameters)
