"""Cases of what comes from other libraries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import casadi as ca
import numpy as np

from optctl import Uniform
from optctl.bench.cases.rows import Cases, Row, near, optimum, problem, refused, solve, true
from optctl.errors import ArgumentError
from optctl.interop import from_qutip, from_state_space, from_sympy
from optctl.solvers import LqgController

CASES = Cases()


def _flip(**fields: Any) -> Any:
    import qutip

    given: dict[str, Any] = dict(initial=qutip.basis(2, 0), target=qutip.basis(2, 1)) | fields
    return from_qutip(qutip.sigmaz(), {"c": qutip.sigmax()}, **given)


def _kets(skip: int, num: int = 12) -> np.ndarray:
    z = np.random.default_rng(0).standard_normal((skip + num, 4))[skip:]
    return z / np.linalg.norm(z, axis=1, keepdims=True)


@CASES.case("unbounded pulses on a qubit", "1 − F + energy is at least 0; propagators are unitary")
def unbounded_pulses() -> Iterator[Row]:
    for skip in (0, 48):
        p = _flip(dt=2.5, steps=2)
        batch = solve(p, _kets(skip))
        size = np.linalg.norm(batch.trajectory.states, axis=-1)
        wrong = batch.certified & ((batch.values < -1e-9) | (np.abs(size - 1).max(axis=-1) > 1e-6))
        yield true(f"twelve kets after {skip}", "costs of at least 0", (batch.values >= -1e-9).all(), f"least {batch.values.min():.3g}",
                   f"{int(wrong.sum())} certified")  # fmt: skip
        yield true(
            f"twelve kets after {skip}: norms",
            "1",
            np.abs(size - 1).max() < 1e-6,
            f"off by {np.abs(size - 1).max():.2g}",
        )
    p = _flip(dt=0.25, steps=2)
    start = p.initial_state.location
    pulse = solve(p, start, method="grape")
    found = solve(p, start, method="ddp")
    yield optimum("differential dynamic programming", found, 0.0158082, 1e-3)
    yield near("GRAPE", 0.0158082, pulse.value, 1e-3, verdict=pulse.verdict.value)
    q = _flip(dt=0.5, steps=2)
    after = np.array(q.step_function(q.initial_state.location, 20.0, [], 0.0)[0]).ravel()
    yield near("norm after a strong pulse", 1.0, np.linalg.norm(after), 1e-9)


@CASES.case("infinite bound on a pulse", "as without a bound")
def infinite_bound() -> Iterator[Row]:
    p = _flip(dt=0.6, steps=8, control_bounds={"c": (-np.inf, np.inf)})
    s = solve(p, p.initial_state.location)
    yield true("cost", "between 0 and 0.05", -1e-9 <= s.value <= 0.05, f"{s.value:.6g}", s.verdict.value)


@CASES.case("density matrix of a pure state as target", "the same as its ket")
def pure_target() -> Iterator[Row]:
    import qutip

    rows = [_flip(dt=0.6, steps=8, initial=qutip.fock_dm(2, 0), target=target, control_bounds={"c": (-2.0, 2.0)})
            for target in (qutip.basis(2, 1), qutip.fock_dm(2, 1))]  # fmt: skip
    costs = [solve(p, p.initial_state.location).value for p in rows]
    yield near("cost", costs[0], costs[1], 1e-6, 1e-9)


@CASES.case("coordinates of mechanics in sympy", "two coordinates and their velocities are four states")
def mechanics() -> Iterator[Row]:
    from sympy.physics.mechanics import dynamicsymbols

    (q1, q2, force), (v1, v2) = dynamicsymbols("q1 q2 F"), dynamicsymbols("q1 q2", 1)
    fields: dict[str, Any] = dict(dt=0.05, steps=60, horizon="infinite", name="two")
    p = from_sympy([v1, v2, -q1 + force, -q2 + q1], [q1, q2, v1, v2], [force], stage_cost=q1**2 + force**2,
                   initial_state=Uniform([-1] * 4, [1] * 4), **fields)  # fmt: skip
    yield true("names", "four", p.n_x == 4, ", ".join(p.state))
    rates = np.array(p.dynamics_function([1, 2, 3, 4], 5, [], 0)).ravel()
    yield true("rates at (1, 2, 3, 4), F = 5", "3, 4, 4, −1", np.allclose(rates, [3, 4, 4, -1]), rates)
    p = from_sympy([-v1], [v1], [force], stage_cost=v1**2 + force**2, initial_state=Uniform([-1], [1]), **fields)
    yield true("name of one velocity", "holds q1", "q1" in next(iter(p.state)), next(iter(p.state)))


@CASES.case("labels that differ in brackets only", "two states")
def labels() -> Iterator[Row]:
    import control

    system = control.ss([[0, 1], [0, 0]], [[0], [1]], np.eye(2), np.zeros((2, 1)), states=["x[0]", "x0"])
    p = from_state_space(system, dt=0.1, steps=10)
    yield true("names", "two", p.n_x == 2, ", ".join(p.state))


@CASES.case("functions of sympy", "sympy's own values")
def functions() -> Iterator[Row]:
    import sympy as sp

    x, u = sp.symbols("x u")
    piecewise = lambda condition, inside: sp.Piecewise((inside, condition), (sp.Integer(0), True))
    expressions = {
        "sin x / x with its limit": sp.Piecewise((0, sp.Eq(x, 0)), (sp.sin(x) / x, True)),
        "Mod": sp.Mod(x, 1), "Ne": piecewise(sp.Ne(x, 0), x), "Xor": piecewise(sp.Xor(x > 0, x > 2), x),
        "ITE": piecewise(sp.ITE(x > 0, x < 2, x > -1), x), "acot": sp.acot(x), "asec": sp.asec(1 + x**2), "acsc": sp.acsc(1 + x**2),
        "sinc": sp.sinc(x), "re of a real": sp.re(x),
    }  # fmt: skip
    for name, expression in expressions.items():
        try:
            p = from_sympy([u - expression], [x], [u], stage_cost=x**2 + u**2, name="f", dt=0.05, steps=60, horizon="infinite",
                           initial_state=Uniform([0.1], [1.0]))  # fmt: skip
        except ArgumentError as error:
            yield true(name, "accepted", False, str(error)[:120])
            continue
        worst = 0.0
        for value in (-1.3, 0.0, 0.7, 1.25, 2.5):
            if value != 0.0 or name not in ("acot", "asec", "acsc"):
                right = complex(expression.subs(x, value)).real
                worst = max(worst, abs(float(p.dynamics_function(value, 0.0, [], 0.0)) + right))
        yield true(name, "sympy's values", worst < 1e-9, f"off by {worst:.1g}")


@CASES.case("filter of what is never measured", "the velocity alone does not tell the place")
def undetectable() -> Iterator[Row]:
    p = problem("cart", 2, 1, transition=lambda x, u, q: [x[0] + 0.1 * x[1], 0.9 * x[1] + u[0]], dt=0.1, steps=20,
                horizon="infinite", stage_cost=lambda x, u, q: x[0] ** 2 + x[1] ** 2 + u[0] ** 2, initial_state=Uniform([-1, -1], [1, 1]),
                diffusion=lambda x, u, q: ca.vertcat(0.1, 0.1), observation=lambda x, q: x[1], observation_noise=0.1)  # fmt: skip
    yield refused("average cost", lambda: LqgController(p).average_cost, "detectable")
