"""`from_function`: a right-hand side written in plain Python with numpy becomes a `Problem`.

The function is traced: it is called once with arrays of symbols that behave like one-dimensional numpy arrays, and what it returns
is the expression. Then it is called with numbers, and the expression must agree: a branch on a value, a conversion to float or an
array of floats that swallows a symbol is found there and not in a wrong result.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from types import SimpleNamespace
from typing import Any

import casadi as ca
import numpy as np

from optctl.errors import ProblemError, require
from optctl.problem import Problem
from optctl.shared import TURN

_WITHOUT_CONTROL = ("terminal_cost", "terminal_constraints", "observation")
_WITH_CONTROL = ("stage_cost", "diffusion", "path_constraints")


def from_function(
    rhs: Callable[..., Any],
    states: Mapping[str, str] | Sequence[str],
    controls: Mapping[str, str] | Sequence[str],
    *,
    stage_cost: Callable[..., Any],
    params: Mapping[str, float] | None = None,
    discrete: bool = False,
    **fields: Any,
) -> Problem:
    """A `Problem` with ẋ = `rhs(x, u)`, `rhs(x, u, p)` or `rhs(x, u, p, t)` (x⁺ where `discrete`), written for numpy arrays.

    x (n_x,) and u (n_u,) are one-dimensional, `p` gives parameters by name; it returns a list or array of n_x entries. numpy's
    elementwise functions, `where`, `clip`, sums, matrix products, indexing and unpacking work; `if` on a state does not (`where`
    does), nor `math` (numpy does). `stage_cost` and the other functions among `fields` are written likewise, those of the
    end and the observation without u. Raises `ProblemError` where the traced expression and the function disagree.
    """
    given = {"dynamics" if not discrete else "transition": rhs, "stage_cost": stage_cost}
    given |= {name: fields.pop(name) for name in (*_WITHOUT_CONTROL, *_WITH_CONTROL) if fields.get(name) is not None}
    for name, function in given.items():
        _taken(function, name)
    traced = {name: _traced(function, name) for name, function in given.items()}
    fields.setdefault("name", getattr(rhs, "__name__", "problem").replace("<lambda>", "problem"))
    stated: dict[str, Any] = {**traced, **fields}
    problem = Problem(state=states, control=controls, params=dict(params or {}), **stated)
    for name, function in given.items():
        _compare(problem, name, function)
    return problem


def _traced(function: Callable[..., Any], field: str) -> Callable[..., Any]:
    """The same function of CasADi columns."""

    def evaluate(*arguments: Any) -> Any:
        *vectors, p, t = arguments
        values = [_Symbols.column(v) for v in vectors]
        try:
            with (
                TURN,
                warnings.catch_warnings(),
            ):  # filters are the process's; CasADi announces a change of numpy functions
                warnings.simplefilter("ignore", FutureWarning)
                return _expression(function(*[*values, p, t][: _taken(function, field)]))
        except ProblemError:
            raise
        except Exception as error:
            reason = (str(error).strip().splitlines() or [""])[-1].strip()
            raise ProblemError(
                "it must be made of numpy operations on its arguments, without `if` on their values, `math` or float(), but "
                f"tracing it failed: {type(error).__name__}: {reason}."
            ) from error

    if field in _WITHOUT_CONTROL:
        return lambda x, p, t: evaluate(x, p, t)
    return lambda x, u, p, t: evaluate(x, u, p, t)


def _taken(function: Callable[..., Any], field: str) -> int:
    """How many arguments it takes: the vectors, then the parameters, then the time."""
    vectors = 1 if field in _WITHOUT_CONTROL else 2
    kinds = [q for q in signature(function).parameters.values() if q.default is q.empty]
    taken = vectors + 2 if any(q.kind is q.VAR_POSITIONAL for q in kinds) else len(kinds)
    require(
        vectors <= taken <= vectors + 2,
        field,
        f"take {vectors} to {vectors + 2} arguments: {'x' if vectors == 1 else 'x, u'}, then perhaps p, then perhaps t",
        f"takes {taken}",
    )
    return taken


def _expression(result: Any) -> ca.SX:
    if isinstance(result, ca.SX):
        return result
    rows = np.asarray(result, dtype=object)
    if rows.ndim == 2:
        return ca.vertcat(*(ca.horzcat(*(ca.SX(entry) for entry in row)) for row in rows))
    return ca.vertcat(*(ca.SX(entry) for entry in rows.ravel()))


def _compare(problem: Problem, field: str, function: Callable[..., Any]) -> None:
    """Expression and function agree at some states, controls and times."""
    rng = np.random.default_rng(0)
    states = problem.initial_state.sample(rng, 8)
    actions = problem.to_control(rng.uniform(-1, 1, (8, problem.n_u)))
    params = SimpleNamespace(**problem.params)
    symbols = problem.symbols(field)
    formula = ca.Function("formula", list(symbols), [problem.evaluate(field, *symbols)])
    for x, u, t in zip(states, actions, np.linspace(0, problem.duration, 8), strict=True):
        vectors = [x] if field in _WITHOUT_CONTROL else [x, u]
        expected = np.asarray(function(*[*vectors, params, t][: _taken(function, field)]), dtype=float)
        found = np.array(formula(*vectors, problem.param_values, t)).reshape(
            -1 if expected.ndim < 2 else expected.shape
        )
        require(
            expected.size == found.size
            and np.allclose(found, expected.reshape(found.shape), rtol=1e-9, atol=1e-9, equal_nan=True),
            field,
            "give the same with symbols as with numbers (`math`, float() and arrays of floats lose symbols)",
            f"gives {found.tolist()} instead of {expected.tolist()} at x = {x.tolist()}",
        )


class _Symbols(np.ndarray):
    """An object array of CasADi scalars on which numpy's functions work; one entry is an array without axes."""

    @staticmethod
    def column(vector: ca.SX) -> _Symbols:
        entries = np.empty(vector.numel(), dtype=object)
        for i in range(vector.numel()):
            entries[i] = vector[i]
        return entries.view(_Symbols)

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        return found if isinstance(found, np.ndarray) else _wrap(found)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [np.asarray(_wrap(v) if isinstance(v, (_Symbols, ca.SX)) else v) for v in inputs]
        if method != "__call__" or ufunc.signature is not None:  # sums and matrix products: + and * of the entries
            return _wrap(getattr(ufunc, method)(*plain, **options))
        operation = _UFUNCS.get(ufunc.__name__, ufunc)
        return _wrap(np.frompyfunc(lambda *entries: _scalar(operation(*entries)), ufunc.nin, 1)(*plain))

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        if function is np.where and len(arguments) == 3:
            plain = [np.asarray(v, dtype=object) for v in arguments]
            return _wrap(np.frompyfunc(lambda c, a, b: _scalar(ca.if_else(c, a, b)), 3, 1)(*plain))
        if function is np.linalg.norm and len(arguments) == 1:
            return np.sqrt(np.sum(np.square(arguments[0])))
        return super().__array_function__(function, types, arguments, options)


_UFUNCS: dict[str, Callable[..., Any]] = {
    "clip": lambda value, low, high: ca.fmin(ca.fmax(value, low), high),
    "bitwise_and": ca.logic_and,
    "bitwise_or": ca.logic_or,
    "invert": ca.logic_not,
}


def _scalar(value: Any) -> Any:
    return ca.SX(value) if not isinstance(value, (int, float, bool)) else value


def _wrap(value: Any) -> Any:
    array = np.empty((), dtype=object)
    if isinstance(value, np.ndarray):
        return value.view(_Symbols) if value.dtype == object else value
    array[()] = value
    return array.view(_Symbols)
