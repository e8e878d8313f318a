"""`from_sympy`: a right-hand side written in sympy becomes a `Problem`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import casadi as ca

from optctl.errors import require
from optctl.optional import library
from optctl.problem import Problem

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sin": ca.sin,
    "cos": ca.cos,
    "tan": ca.tan,
    "asin": ca.asin,
    "acos": ca.acos,
    "atan": ca.atan,
    "atan2": ca.atan2,
    "sinh": ca.sinh,
    "cosh": ca.cosh,
    "tanh": ca.tanh,
    "asinh": ca.asinh,
    "acosh": ca.acosh,
    "atanh": ca.atanh,
    "sec": lambda v: 1 / ca.cos(v),
    "csc": lambda v: 1 / ca.sin(v),
    "cot": lambda v: 1 / ca.tan(v),
    "asec": lambda v: ca.acos(1 / v),
    "acsc": lambda v: ca.asin(1 / v),
    "acot": lambda v: ca.atan(1 / v),
    "sech": lambda v: 1 / ca.cosh(v),
    "csch": lambda v: 1 / ca.sinh(v),
    "coth": lambda v: 1 / ca.tanh(v),
    "sinc": lambda v: _sinc(v),
    "Mod": lambda a, b: a - b * ca.floor(a / b),
    "frac": lambda v: v - ca.floor(v),
    "re": lambda v: v,
    "im": lambda v: 0.0 * v,
    "conjugate": lambda v: v,  # everything is real
    "exp": ca.exp,
    "log": ca.log,
    "Abs": ca.fabs,
    "sign": ca.sign,
    "floor": ca.floor,
    "ceiling": ca.ceil,
    "erf": ca.erf,
    "StrictGreaterThan": lambda a, b: a > b,
    "GreaterThan": lambda a, b: a >= b,
    "StrictLessThan": lambda a, b: a < b,
    "LessThan": lambda a, b: a <= b,
    "Equality": ca.eq,
    "Unequality": ca.ne,
    "ITE": ca.if_else,
    "Not": ca.logic_not,
    "And": lambda *parts: reduce(ca.logic_and, parts),
    "Or": lambda *parts: reduce(ca.logic_or, parts),
    "Xor": lambda *parts: reduce(ca.ne, parts),
    "Max": lambda *parts: reduce(ca.fmax, parts),
    "Min": lambda *parts: reduce(ca.fmin, parts),
    "Heaviside": lambda a, at_zero=0.5: ca.if_else(a > 0, 1, ca.if_else(a < 0, 0, at_zero)),
}


def from_sympy(
    rhs: Sequence[Any],
    states: Mapping[Any, str] | Sequence[Any],
    controls: Mapping[Any, str] | Sequence[Any],
    *,
    stage_cost: Any,
    terminal_cost: Any = None,
    params: Mapping[Any, float] | None = None,
    time: Any = None,
    discrete: bool = False,
    **fields: Any,
) -> Problem:
    """A `Problem` with ẋ = `rhs` (or x⁺ = `rhs`) in sympy expressions, one for each state.

    `states` and `controls`: sympy symbols, functions of time such as θ(t), their derivatives or elements of arrays and matrices, in
    order, or a mapping of them to units. θ(t) is named `theta`, its derivatives `theta_dot` and `theta_ddot`, x[0] is `x_0`. `params`:
    symbols with their values; `time`: the symbol of the time. The costs are sympy expressions too. `fields` are the others
    of `Problem`, as there: `name`, `dt`, `steps`, `initial_state`, ….
    """
    sympy = library("sympy", "sympy", "sympy")
    rows = list(sympy.flatten(rhs)) if isinstance(rhs, (list, tuple, sympy.MatrixBase)) else [rhs]
    x, u, p = list(states), list(controls), dict(params or {})
    require(len(rows) == len(x), "rhs", f"have {len(x)} entries, one for each state", f"has {len(rows)}")
    require(not {"transition", "dynamics"} & fields.keys(), "fields", "leave the motion to `rhs`", "state it again")

    stage, end = sympy.sympify(stage_cost), None if terminal_cost is None else sympy.sympify(terminal_cost)
    known = dict.fromkeys([*x, *u, *p, *([] if time is None else [time])], ca.SX.sym("symbol"))
    for expression in (*rows, stage):
        _casadi(
            sympy.sympify(expression), known, sympy
        )  # what has no translation is named here, before a Problem is made

    def point(xs: Any, us: Any, ps: Any, t: Any) -> dict[Any, Any]:
        values = {symbol: xs[i] for i, symbol in enumerate(x)} | {symbol: us[i] for i, symbol in enumerate(u)}
        values |= {symbol: getattr(ps, _name(symbol)) for symbol in p}
        return values | ({} if time is None else {time: t})

    def at_the_end(xs: Any, ps: Any, t: Any) -> Any:
        values = point(xs, [None] * len(u), ps, t)
        return _casadi(end, {k: v for k, v in values.items() if v is not None}, sympy)

    def motion(xs: Any, us: Any, ps: Any, t: Any) -> list[Any]:
        return [_casadi(sympy.sympify(row), point(xs, us, ps, t), sympy) for row in rows]

    stated: dict[str, Any] = {"transition" if discrete else "dynamics": motion, **fields}
    return Problem(
        state=_units(states, "states"),
        control=_units(controls, "controls"),
        params={name: p[symbol] for name, symbol in zip(_units(p, "params"), p, strict=True)},
        stage_cost=lambda xs, us, ps, t: _casadi(stage, point(xs, us, ps, t), sympy),
        terminal_cost=None if terminal_cost is None else at_the_end,
        **stated,
    )


def _units(symbols: Mapping[Any, str] | Sequence[Any], argument: str) -> dict[str, str]:
    """Names and units; different symbols must not share a name."""
    units = symbols if isinstance(symbols, Mapping) else dict.fromkeys(symbols, "1")
    named: dict[str, Any] = {}
    for symbol in units:
        other = named.setdefault(_name(symbol), symbol)
        require(
            other is symbol, argument, "have different names", f"has {other} and {symbol}, both named `{_name(symbol)}`"
        )
    return dict(zip(named, units.values(), strict=True))


def _name(symbol: Any) -> str:
    """θ(t) is named `theta`, its derivatives `theta_dot` and `theta_ddot`, x[0, 1] is `x_0_1`."""
    if symbol.__class__.__name__ == "Derivative":
        rates = [(str(variable), int(count)) for variable, count in symbol.variable_count]
        once = len(rates) == 1 and rates[0][1] <= 2
        return _name(symbol.expr) + ("_" + "d" * rates[0][1] + "ot" if once else "".join(f"_d{v}{n}" for v, n in rates))
    if symbol.args and symbol.func.__class__.__name__ == "UndefinedFunction":
        return str(symbol.func)
    text = str(symbol)
    return text if symbol.is_Symbol else re.sub(r"\W+", "_", text).strip("_")


def _casadi(expression: Any, values: dict[Any, Any], sympy: Any) -> Any:
    """A scalar sympy expression in CasADi, with the `values` of its symbols."""
    if expression in values:
        return values[expression]
    require(
        not expression.is_symbol and not isinstance(expression, (sympy.core.function.AppliedUndef, sympy.Derivative)),
        "rhs",
        f"use only its states, controls, params and time ({', '.join(map(str, values))})",
        f"uses {expression}",
    )
    if expression.is_number:
        value = complex(expression)
        require(value.imag == 0, "rhs", "be real", f"contains {expression}")
        return value.real
    if expression in (sympy.true, sympy.false):
        return float(bool(expression))
    if isinstance(expression, sympy.Piecewise):
        return _piecewise(expression, values, sympy)
    parts = [_casadi(part, values, sympy) for part in expression.args]
    name = expression.func.__name__
    if expression.is_Add:
        return sum(parts[1:], parts[0])
    if expression.is_Mul:
        product = parts[0]
        for part in parts[1:]:
            product = product * part
        return product
    if expression.is_Pow:
        return _power(expression, parts)
    require(
        name in _FUNCTIONS,
        "rhs",
        f"use functions that have a translation here ({', '.join(sorted(_FUNCTIONS))})",
        f"uses {name}",
    )
    return _FUNCTIONS[name](*parts)


def _sinc(v: Any) -> Any:
    """sin(v)/v, 1 at 0, with finite derivatives there."""
    other = ca.if_else(v == 0, 1, v)
    return ca.if_else(v == 0, 1, ca.sin(other) / other)


def _power(expression: Any, parts: list[Any]) -> Any:
    """Square roots and whole powers keep their own operations: pow of CasADi has no derivative where the base is not positive."""
    exponent = expression.exp
    if exponent.is_Rational and exponent.q == 2:
        return ca.sqrt(parts[0]) ** int(exponent.p)
    return parts[0] ** (int(exponent) if exponent.is_Integer else parts[1])


def _piecewise(expression: Any, values: dict[Any, Any], sympy: Any) -> Any:
    result: Any = float("nan")  # where no condition holds, as in sympy
    for value, condition in reversed(expression.args):
        chosen = _casadi(value, values, sympy)
        result = chosen if condition == sympy.true else ca.if_else(_casadi(condition, values, sympy), chosen, result)
    return result
