"""A problem's equations as readable text, from its CasADi functions: `omega' = gravity / length * sin(theta) + …`."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

import casadi as ca

from optctl.problem.statement import Problem

LONGEST, MOST = 600, 12
_TEMPORARY = re.compile(r"@(\d+)")
_DEFINITION = re.compile(r"(?:@(\d+)=)?(.*)", re.DOTALL)


def equations(problem: Problem) -> list[str]:
    """Dynamics, cost, end cost and constraints, one line each; what is too long to read is cut with an ellipsis."""
    x, u, p = (ca.vertcat(*map(ca.SX.sym, names)) for names in (problem.state, problem.control, problem.params or [""]))
    p, t = (p if problem.n_p else ca.SX(0, 1)), ca.SX.sym("t")
    lines: list[str] = []
    if problem.dynamics_function is None:
        lines += _lines([f"{name}⁺" for name in problem.state], problem.step_function(x, u, p, t)[0])
    else:
        lines += _lines([f"{name}'" for name in problem.state], problem.dynamics_function(x, u, p, t))
    per = "per step" if problem.discrete else "rate"
    lines += _lines([f"cost {per}"], problem.stage_cost_function(x, u, p, t))
    if problem.terminal_cost is not None:
        lines += _lines(["cost at the end"], problem.terminal_cost_function(x, p, t))
    if problem.path_constraint_function is not None:
        lines += _lines(["0 ≥"], problem.path_constraint_function(x, u, p, t), sign="")
    if problem.terminal_constraint_function is not None:
        lines += _lines(["0 (at the end)"], problem.terminal_constraint_function(x, p, t))
    if problem.diffusion_function is not None:
        lines.append(f"noise: {problem.n_w} independent, added to the state after every step")
    return lines


def _lines(names: Sequence[str], value: ca.SX, sign: str = " =") -> list[str]:
    entries = [value[i] for i in range(value.size1())]
    names = list(names) if len(names) == len(entries) else list(names) * len(entries)
    lines = [f"{name}{sign} {pretty(entry)}" for name, entry in zip(names, entries, strict=True)]
    return lines if len(lines) <= MOST else [*lines[: MOST - 1], f"… ({len(lines) - MOST + 1} more)"]


def pretty(expression: ca.SX) -> str:
    """A scalar expression with no more brackets than it needs. CasADi's shared subexpressions are put back in their places."""
    *shared, last = str(expression).split(", ") if str(expression).startswith("@") else [str(expression)]
    if _expanded_length([*shared, last]) > 10 * LONGEST:
        return str(expression)[: LONGEST - 1] + "…"
    try:
        known: dict[str, ast.expr] = {}
        for definition in shared:
            name, _, body = definition.partition("=")
            known[_plain(name)] = _Readable(known).visit(ast.parse(_plain(body), mode="eval").body)
        tree = _Readable(known).visit(ast.parse(_plain(last), mode="eval").body)
        text = (
            re.sub(r"\b(\d+)\.0\b", r"\1", ast.unparse(tree))
            .replace(" ** 2", "²")
            .replace(" * ", "·")
            .replace(" / ", "/")
        )
    except (SyntaxError, ValueError, KeyError):  # conditionals, and names that are no identifiers
        text = str(expression)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _expanded_length(definitions: Sequence[str]) -> int:
    """Characters of the last of the definitions `@1=…` with the others put into their places."""
    sizes: dict[str, int] = {}
    length = 0
    for definition in definitions:
        name, body = _DEFINITION.match(definition).groups()  # type: ignore[union-attr]
        length = len(body) + sum(sizes[found] for found in _TEMPORARY.findall(body))
        sizes[name] = length
    return length


def _plain(text: str) -> str:
    return _TEMPORARY.sub(r"_shared_\1", text)


class _Readable(ast.NodeTransformer):
    """sq(a) → a², (−a) + b → b − a, and shared subexpressions by name."""

    def __init__(self, known: dict[str, ast.expr]) -> None:
        self.known = known

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.known[node.id] if node.id.startswith("_shared_") else node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "sq":
            return ast.BinOp(node.args[0], ast.Pow(), ast.Constant(2))
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        left = node.left
        if isinstance(node.op, ast.Add) and isinstance(left, ast.UnaryOp) and isinstance(left.op, ast.USub):
            return ast.BinOp(node.right, ast.Sub(), left.operand)
        return node
