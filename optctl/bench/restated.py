"""A problem's step, cost and constraints, stated again from the user's functions: nothing comes from the problem's own step.

The functions are called with symbols of this module and stepped by schemes written here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import casadi as ca
import numpy as np
from scipy.linalg import expm

from optctl.problem import Problem

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(5)

_TABLEAUS: dict[str, tuple[list[list[float]], list[float], list[float]]] = {
    "euler": ([[]], [1.0], [0.0]),
    "midpoint": ([[], [0.5]], [0.0, 1.0], [0.0, 0.5]),
    "rk4": ([[], [0.5], [0.0, 0.5], [0.0, 0.0, 1.0]], [1 / 6, 1 / 3, 1 / 3, 1 / 6], [0.0, 0.5, 0.5, 1.0]),
}
"""Explicit Runge–Kutta schemes (A, b, c)."""


def _call(function: Callable[..., Any], problem: Problem, *point: Any) -> ca.SX:
    """The user's function at (x, u, t) or (x, t), with or without the time."""
    p = SimpleNamespace(**problem.params)
    *point_, t = point
    required = [q for q in inspect.signature(function).parameters.values() if q.default is q.empty]
    value = function(*point_, p, t) if len(required) > len(point_) + 1 else function(*point_, p)
    if isinstance(value, (list, tuple)):
        value = ca.vertcat(*value)
    return ca.densify(ca.SX(value))


class Restated:
    """The functions of one problem, and what they make of a trajectory."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        n, m = problem.n_x, problem.n_u
        x, u, t, h = ca.SX.sym("x", n), ca.SX.sym("u", m), ca.SX.sym("t"), ca.SX.sym("h")
        self.symbols = x, u, t, h
        cost = _call(problem.stage_cost, problem, x, u, t)
        self.rate: ca.Function | None = None
        if problem.transition is not None:
            after, paid = _call(problem.transition, problem, x, u, t), cost
        else:
            assert problem.dynamics is not None
            f = _call(problem.dynamics, problem, x, u, t)
            self.rate = ca.Function("rate", [x, u, t], [f, cost, ca.jacobian(f, x)])
            after, paid = self._stepped(x, u, t, h)
        self.step = ca.Function("step", [x, u, t, h], [after, paid])
        z = ca.vertcat(x, u)
        costate = ca.SX.sym("costate", n)
        total = paid + ca.dot(costate, after)
        self.slopes = ca.Function("slopes", [x, u, t, h], [ca.jacobian(after, z)])
        self.adjoint = ca.Function("adjoint", [x, u, t, h, costate], [ca.gradient(total, x), ca.gradient(total, u)])
        ending = problem.terminal_cost if problem.horizon == "finite" else None
        phi = ca.SX(0) if ending is None else _call(ending, problem, x, t)
        self.end_cost = ca.Function("end_cost", [x, t], [phi, ca.densify(ca.gradient(phi, x))])
        e = ca.SX(0, 1) if problem.terminal_constraints is None else _call(problem.terminal_constraints, problem, x, t)
        self.ends = ca.Function("ends", [x, t], [e, ca.jacobian(e, x)])
        c = ca.SX(0, 1) if problem.path_constraints is None else _call(problem.path_constraints, problem, x, u, t)
        self.path = ca.Function("path", [x, u, t], [c, ca.jacobian(c, z)])
        alone = [i for i in range(c.shape[0]) if not ca.depends_on(c[i], u)]
        self.lasting = ca.Function(
            "lasting", [x, t], [c[alone] if alone else ca.SX(0, 1)]
        )  # without a control: also at the end
        self.alone = alone

    # --- schemes --------------------------------------------------------------------------------------------------------

    def _stepped(self, x: ca.SX, u: ca.SX, t: ca.SX, h: ca.SX) -> tuple[ca.SX, ca.SX]:
        problem, rate = self.problem, self.rate
        assert rate is not None
        if problem.integrator == "exponential":
            return self._exponential(x, u, t, h)
        paid, part = ca.SX(0), h / problem.substeps
        for k in range(problem.substeps):
            now = t + k * part
            if problem.integrator == "symplectic_euler":
                f, cost, _ = rate(x, u, now)
                half = x.shape[0] // 2
                middle = ca.vertcat(x[:half], x[half:] + part * f[half:])
                g, _, _ = rate(middle, u, now)
                x, paid = ca.vertcat(x[:half] + part * g[:half], middle[half:]), paid + part * cost
                continue
            stages, weights, times = _TABLEAUS[problem.integrator]
            slopes: list[ca.SX] = []
            costs: list[ca.SX] = []
            for row, c in zip(stages, times, strict=True):
                at = x + part * sum((a * s for a, s in zip(row, slopes, strict=True)), start=ca.SX.zeros(*x.shape))
                f, cost, _ = rate(at, u, now + c * part)
                slopes.append(f)
                costs.append(cost)
            x = x + part * sum((b * s for b, s in zip(weights, slopes, strict=True)), start=ca.SX.zeros(*x.shape))
            paid = paid + part * sum(b * s for b, s in zip(weights, costs, strict=True))
        return x, paid

    def _exponential(self, x: ca.SX, u: ca.SX, t: ca.SX, h: ca.SX) -> tuple[ca.SX, ca.SX]:
        """The exact propagator, and the cost by Gauss's rule on pieces that grow away from the start of the interval."""
        problem, rate = self.problem, self.rate
        assert rate is not None
        n = problem.n_x
        b, _, a = rate(ca.SX.zeros(n), u, t)
        free = not ca.depends_on(a, u)
        if free and problem.final_time is None:
            matrix, width = np.array(ca.DM(ca.evalf(a))), float(problem.dt)
            block = np.zeros((2 * n, 2 * n))
            block[:n, :n], block[:n, n:] = matrix, np.eye(n)
            depth = int(np.ceil(np.log2(max(1.0, float(np.linalg.norm(matrix * width, 2)))))) + 1
            edges = np.concatenate([[0.0], width * 0.5 ** np.arange(depth, -1, -1)])

            def at(time: float) -> ca.SX:
                whole = expm(block * time)
                return ca.mtimes(whole[:n, :n], x) + ca.mtimes(whole[:n, n:], b)

            paid = ca.SX(0)
            for left, right in pairwise(edges):
                for node, weight in zip(_NODES, _WEIGHTS, strict=True):
                    time = left + 0.5 * (node + 1) * (right - left)
                    paid += 0.5 * weight * (right - left) * rate(at(time), u, t + time)[1]
            return at(width), paid
        corners = np.array(np.meshgrid(*zip(problem.action_low, problem.action_high, strict=True))).reshape(
            problem.n_u, -1
        )
        sizes = [np.linalg.norm(np.array(rate(np.zeros(n), v, 0.0)[2]), 2) for v in corners.T]
        parts = int(np.clip(np.ceil(2 * problem.dt * max(sizes)), problem.substeps, 64))
        part, paid = h / parts, ca.SX(0)
        for k in range(parts):
            terms = [x, part * (ca.mtimes(a, x) + b)]
            while len(terms) < 20:
                terms.append(part / len(terms) * ca.mtimes(a, terms[-1]))
            value = lambda s, terms=terms: sum((term * s**i for i, term in enumerate(terms)), start=ca.SX.zeros(n))
            for node, weight in zip(_NODES, _WEIGHTS, strict=True):
                s = float(0.5 * (node + 1))
                paid += 0.5 * weight * part * rate(value(s), u, t + (k + s) * part)[1]
            x = value(1.0)
        return x, paid

    # --- along one trajectory -------------------------------------------------------------------------------------------

    def along(self, x: np.ndarray, u: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """What the problem's scheme makes of every node, the costs of the intervals, and the cost of the end."""
        after, costs = self.step(x[:-1].T, u.T, t[None, :-1], np.diff(t)[None])
        return np.array(after).T, np.array(costs).ravel(), float(self.end_cost(x[-1], t[-1])[0])

    def rolled(self, x0: np.ndarray, u: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, float]:
        """States and cost under the controls."""
        states, total = [np.asarray(x0, dtype=float)], 0.0
        for k, control in enumerate(u):
            after, cost = self.step(states[-1], control, t[k], t[k + 1] - t[k])
            states.append(np.array(after).ravel())
            total += float(cost)
        return np.array(states), total + float(self.end_cost(states[-1], t[-1])[0])
