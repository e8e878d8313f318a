"""`optctl bench optima`: every problem with a known optimum by every solver that applies, in one table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import casadi as ca
import numpy as np

from optctl.bench import known_optima as known
from optctl.bench.record import check_counts, finish, markdown_table
from optctl.envs import make
from optctl.problem import Fixed, Problem
from optctl.solvers import lqr, solve
from optctl.solvers.methods.multiple_shooting import Guess
from optctl.solvers.methods.pontryagin import extremals

SMOOTH, CONSTRAINED = 1e-6, 1e-4
"""Relative errors that the two classes of problem allow."""


Solvers = dict[str, tuple[str, int, dict[str, Any]]]
"""Label → (method, intervals, options)."""


@dataclass(frozen=True)
class Row:
    """One problem: its optimum, and per solver the number of intervals and options."""

    statement: str
    make: Callable[[int], Problem]
    value: float
    allowed: float
    solvers: Solvers
    costate: tuple[float, ...] | None = None
    """λ(0)."""
    hamiltonian: float | None = None
    must_fail: tuple[str, ...] = field(default=())
    """Labels of methods that have to report failure."""


def _held(steps: int = 2000) -> Solvers:
    """Multiple shooting holds the control over each interval: its optimum lies O(h²) above that of the continuous problem."""
    return {"multiple shooting": ("multiple_shooting", steps, {})}


def _kelly_guess() -> Guess:
    """Kelly's own: the straight line and no force. Other guesses lead to a cheaper basin, J = 57.945."""
    return Guess(np.linspace([0.0, 0.0, 0.0, 0.0], [1.0, np.pi, 0.0, 0.0], 101), np.zeros((100, 1)))


_INDIRECT: Solvers = {
    "Pontryagin, multiple": ("pontryagin", 100, {}),
    "Pontryagin, single": ("pontryagin", 100, {"segments": 1}),
    "Pontryagin, arcs": ("switching", 100, {}),
}
_DDP: Solvers = {"DDP": ("ddp", 2000, {})}
_MULTIPLE: Solvers = {"Pontryagin, multiple": ("pontryagin", 100, {})}
_ARCS: Solvers = {"Pontryagin, arcs": ("switching", 100, {})}


def _direct(intervals: int = 50, degree: int = 4, **options: Any) -> Solvers:
    return {"Radau": ("collocation", intervals, {"degree": degree, **options})}


def _lobatto(intervals: int = 400) -> Solvers:
    return {"Hermite–Simpson": ("collocation", intervals, {"scheme_name": "hermite_simpson"})}


_TANH = 0.7615941559557649
_SILVER = 1 + 2**0.5
_LAST = 2 / 3**0.5 * np.arctan(0.6 / 3**0.5)
"""Time to fish a stock of ½ down to 0.2."""
ROWS: tuple[Row, ...] = (
    Row("x' = x + u, ∫₀^∞ x² + u²", known.scalar_infinite, _SILVER, SMOOTH,
        _held(4000) | {"DDP": ("ddp", 4000, {})} | _direct() | _lobatto() | _INDIRECT, costate=(2 * _SILVER,)),
    Row("x' = u, ∫₀¹ x² + u²", known.scalar_finite, _TANH, SMOOTH,
        {"Riccati, held control": ("lqr", 2000, {})} | _held() | _DDP | _direct() | _lobatto() | _INDIRECT,
        costate=(2 * _TANH,)),
    Row("x'' = u, ½∫u², (0,0) → (1,0)", known.minimum_energy, 6.0, SMOOTH,
        _held() | _direct() | _lobatto() | _INDIRECT, costate=(-12.0, -6.0), hamiltonian=-18.0),
    Row("Duffing, ½∫₀²u²", known.duffing, 0.187444856136, SMOOTH, _held() | _direct() | _lobatto() | _INDIRECT,
        costate=(0.26871908, -0.49143208), hamiltonian=-1.818938167e-4),
    Row("Van der Pol", known.van_der_pol, 2.866952422563, SMOOTH,
        _held() | _DDP | _direct() | _lobatto() | _INDIRECT, costate=(0.82339739, 4.87418722),
        hamiltonian=0.007106790305),
    Row("Van der Pol, −.3 ≤ u ≤ 1", lambda n: known.van_der_pol(n, (-0.3, 1.0)), 2.867261045220, CONSTRAINED,
        _held(500) | {"DDP": ("ddp", 500, {})} | _direct(200) | _lobatto() | {"Pontryagin, multiple": ("pontryagin", 50, {})}
        | _ARCS),
    Row("hyper-sensitive, T = 50", known.hyper_sensitive, 1.330806904943, SMOOTH,
        _direct(400, 5) | {"Pontryagin, multiple": ("pontryagin", 400, {}),
                           "Pontryagin, single": ("pontryagin", 400, {"segments": 1, "time_limit": 5.0})},
        must_fail=("Pontryagin, single",)),
    Row("cart-pole, Kelly (2017)", known.kelly_cartpole, 58.80766746, SMOOTH, _direct(100, 5, guess=_kelly_guess())),
    Row("x'' = u, |u| ≤ 1, least time", lambda n: known.minimum_time(steps=n), 2.0, CONSTRAINED,
        _held(100) | _direct() | _ARCS),
    *(Row(f"oscillator, least time from {x0}", partial(known.minimum_time, x0, True), T, CONSTRAINED,
          _held(100) | _direct() | _ARCS)
      for x0, T in (((1.0, 0.0), 1.823476581937), ((2.0, 0.0), np.pi), ((0.0, 1.0), 1.994827366286))),
    Row("brachistochrone", known.brachistochrone, 1.801295483014, SMOOTH,
        _held(1000) | _direct() | _lobatto(200) | {"Pontryagin, multiple": ("pontryagin", 40, {})} | _ARCS),
    Row("Bryson–Denham, x ≤ 1/9", known.bryson_denham, 4.0, CONSTRAINED, _held(480) | _direct(48) | _lobatto() | _ARCS,
        costate=(18.0, 6.0)),
    Row("Bryson–Denham, x ≤ 1/5 (touched)", lambda n: known.bryson_denham(n, 0.2), 2.24, CONSTRAINED,
        _held(480) | _direct(48) | _ARCS, costate=(4.8, 3.2)),
    Row("x'' = u, |u| ≤ 1, ∫₀⁵ x² + x'² (singular)", known.singular_arc, 0.753983860576, CONSTRAINED,
        _held(200) | {"DDP": ("ddp", 200, {})} | _direct(100, 2) | _ARCS),
    *(Row(f"qubit, 1 − F at T = {T}", partial(known.bukov, T), 1 - F, CONSTRAINED,
          _held(100) | {"DDP": ("ddp", 100, {})} | _direct(50, 3) | _ARCS)
      for T, F in ((0.5, 0.331299546052), (1.0, 0.577029386692))),
    Row("qubit, least time", known.bukov_time, 2.416121543394, CONSTRAINED, _held(100) | _direct(50, 3) | _ARCS),
    Row("Λ system, least time", known.lambda_angle, 3**0.5 * np.pi, CONSTRAINED,
        {"multiple shooting": ("multiple_shooting", 100, {})} | {"Pontryagin, multiple": ("pontryagin", 100, {})} | _ARCS),
    Row("Λ system, both fields in a disc", known.lambda_time, 3**0.5 * np.pi, CONSTRAINED, _held(100) | _direct() | _ARCS),
    Row("Λ system, separate bounds", known.lambda_box, 2**0.5 * np.pi, CONSTRAINED, _held(100) | _ARCS),
    Row("Zermelo, ship in a current", known.zermelo, 2 * 3**0.5 + 2, SMOOTH, _held(2000) | _direct(100) | _MULTIPLE | _ARCS),
    Row("Dubins, to (4, 4, 90°)", lambda n: known.dubins(steps=n), 3 * 2**0.5 + np.pi / 2, CONSTRAINED, _held(100) | _direct() | _ARCS),
    Row("Dubins, turn round", partial(known.dubins, (0.0, 0.0, np.pi)), 7 * np.pi / 3, CONSTRAINED,
        _held(400) | _direct(100) | _ARCS),
    Row("two masses and a spring, least time", known.two_masses, 4.217866510451, CONSTRAINED, _held(80) | _direct() | _ARCS),
    Row("tangent steering", known.tangent_steering, 0.554570878, SMOOTH, _held(1000) | _direct() | _MULTIPLE | _ARCS),
    Row("least time with a speed limit", known.speed_limit, 2.5, CONSTRAINED, _held(80) | _direct() | _ARCS),
    Row("least time with a power limit", known.power_limit, 2.961323572023, CONSTRAINED, _direct() | _ARCS),
    Row("soft landing on the moon", known.moon_landing, 68**0.5, CONSTRAINED, _held(60) | _direct() | _ARCS),
    Row("Goddard's rocket", known.goddard, -1.0128369, CONSTRAINED, _held(100) | _direct(100, 3) | _ARCS),
    Row("orbit raising", known.orbit_raising, -1.5252777, SMOOTH, _held(1000) | _direct(100) | _MULTIPLE | _ARCS),
    Row("hang glider", known.hang_glider, -1248.031, CONSTRAINED, _held(200) | _direct(100, 3)),
    Row("stirred tank, two basins", known.stirred_tank, 0.133095731, SMOOTH, _held(2000) | _direct() | _MULTIPLE | _ARCS),
    Row("catalyst mixing", known.catalyst_mixing, -0.0480556859, CONSTRAINED,
        _held(100) | {"DDP": ("ddp", 100, {})} | _direct(100, 3) | _ARCS),
    Row("antiangiogenesis", known.antiangiogenesis, 7571.67, CONSTRAINED, _held(60) | _direct() | _ARCS),
    Row("fishery", known.fishery, -0.25 * (10 - np.log(4) - _LAST) - _LAST, CONSTRAINED, _held(100) | _direct() | _ARCS),
    Row("round the disc", known.round_the_disc, (2 * 3**0.5 + np.pi / 3) ** 2 / 2, CONSTRAINED,
        _held(240) | _direct(60, 3) | _ARCS),
    Row("container crane", known.container_crane, 0.0375194596, CONSTRAINED, _held(90) | _direct(90, 3) | _ARCS),
    Row("hanging chain", known.hanging_chain, 5.068480110993, SMOOTH, _held(1000) | _direct(100, 3) | _MULTIPLE | _ARCS),
    Row("Λ system, least energy", known.lambda_energy, 3 * np.pi**2, SMOOTH, _held(1000) | _direct(60, 3) | _MULTIPLE | _ARCS),
    Row("savings, Σ discounted ln", known.savings, 11.287945256118, SMOOTH,
        {"DDP": ("ddp", 20, {}), "multiple shooting": ("multiple_shooting", 20, {})}),
)  # fmt: skip
"""Optima with their sources: docs of `optctl.bench.known_optima`."""


# --- linear-quadratic rows: gains and values by Riccati equations -------------------------------------------------------------


def _discrete(a: np.ndarray, b: np.ndarray, q: np.ndarray, r: np.ndarray, noise: bool = False) -> Problem:
    n, m = b.shape
    return Problem(
        name="discrete", state=[f"x{i}" for i in range(n)], control=[f"u{i}" for i in range(m)], dt=1.0, steps=50,
        transition=lambda x, u, p: ca.DM(a) @ x + ca.DM(b) @ u,
        stage_cost=lambda x, u, p: x.T @ ca.DM(q) @ x + u.T @ ca.DM(r) @ u,
        diffusion=(lambda x, u, p: ca.SX.eye(n)) if noise else None, initial_state=Fixed(np.ones(n)), horizon="infinite",
    )  # fmt: skip


def _gains() -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """(statement, quantity, computed, known)."""
    one = np.eye(1)
    gain = lqr(make("double-integrator"), discretised=False)
    yield "x'' = u, Q = I, R = 1, ∞", "P", gain.P, np.array([[3**0.5, 1.0], [1.0, 3**0.5]])
    yield "x'' = u, Q = I, R = 1, ∞", "K", gain.K, np.array([[1.0, 3**0.5]])
    yield "x' = x + u, ∞", "P", lqr(make("lqr-scalar"), discretised=False).P, np.array([[_SILVER]])
    yield "a = b = q = r = 1, discrete", "P", lqr(_discrete(one, one, one, one)).P, np.array([[(1 + 5**0.5) / 2]])
    gain = lqr(_discrete(np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[0.0], [1.0]]), np.diag([1.0, 0.0]), one))
    yield (
        "discrete double integrator",
        "P",
        gain.P,
        np.array([[2.60048518044, 2.081018996625], [2.081018996625, 3.330640064312]]),
    )
    yield "discrete double integrator", "K", gain.K, np.array([[0.480533816184, 1.249621067688]])
    chain = np.array([[1.01, 0.01, 0.0], [0.01, 1.01, 0.01], [0.0, 0.01, 1.01]])
    cost = lqr(_discrete(chain, np.eye(3), 1e-3 * np.eye(3), np.eye(3), True)).average_cost
    yield "Dean et al., average cost", "tr P", np.array([cost]), np.array([0.13728716597812])
    gain = lqr(make("mass-spring"), discretised=False)
    yield "two masses, wall to wall", "tr P", np.array([np.trace(gain.P)]), np.array([15.609824415862])
    yield (
        "two masses, wall to wall",
        "K",
        gain.K,
        np.array([[0.837480425902, -0.933303465031, 1.635530755383, 0.36217241205]]),
    )


# --- the table ----------------------------------------------------------------------------------------------------------


def entry(row: Row, label: str) -> dict[str, Any]:
    """Solve one row by one solver: value, errors, verdict, seconds, and whether it is as it has to be."""
    method, intervals, options = row.solvers[label]
    problem = row.make(intervals)
    began = time.perf_counter()
    solution = solve(problem, problem.initial_state.location, method=method, **options)
    seconds = time.perf_counter() - began
    error = (solution.value - row.value) / abs(row.value)  # type: ignore[union-attr]
    figures: dict[str, Any] = {
        "statement": row.statement, "solver": label, "value": solution.value, "optimum": row.value, "error": error,  # type: ignore[union-attr]
        "allowed": row.allowed, "verdict": solution.verdict.value, "seconds": seconds,  # type: ignore[union-attr]
        "costate_error": None, "hamiltonian_error": None,
        "ok": abs(error) <= row.allowed and solution.ok if label not in row.must_fail else not solution.ok,
    }  # fmt: skip
    costate = solution.trajectory.costates[0] if row.costate or row.hamiltonian is not None else None  # type: ignore[index]
    if row.costate is not None and costate is not None:
        figures["costate_error"] = float(np.abs(costate - row.costate).max() / np.abs(row.costate).max())
    if row.hamiltonian is not None and costate is not None:
        x0, p = problem.initial_state.location, problem.param_values
        figures["hamiltonian_error"] = float(extremals(problem).hamiltonian(x0, costate, p, 0.0)) - row.hamiltonian
    return figures


def optima(only: str = "", out: Path | None = None) -> int:
    """Known optima by every solver that applies: value, error, costate, Hamiltonian, verdict, seconds.

    Args:
        only: Take the rows whose statement holds this text.
        out: Folder for optima.json.
    """
    check_counts(out)
    figures = []
    for row in ROWS:
        if only in row.statement:
            for label in row.solvers:
                figures.append(entry(row, label))
                print(".", end="", flush=True)
    gains = [(s, q, float(np.abs(a - b).max() / np.abs(b).max())) for s, q, a, b in _gains() if only in s]
    show = lambda value: "" if value is None else f"{value:+.0e}"
    body = [
        (f["statement"], f["solver"], f"{f['value']:.10g}", f"{f['optimum']:.10g}", show(f["error"]), show(f["costate_error"]),
         show(f["hamiltonian_error"]), f["verdict"] + (", as it must" if f["ok"] and abs(f["error"]) > f["allowed"] else ""),
         f"{f['seconds']:.2g}", "" if f["ok"] else "MISSED")
        for f in figures
    ]  # fmt: skip
    body += [
        (s, f"Riccati ({q})", "", "", show(e), "", "", "", "", "" if e < SMOOTH else "MISSED") for s, q, e in gains
    ]
    missed = sum(not f["ok"] for f in figures) + sum(e >= SMOOTH for _, _, e in gains)
    header = ("problem", "solver", "J", "optimum", "relative error", "of λ(0)", "of H", "verdict", "seconds", "")
    table = markdown_table(f"Known optima: {len(body) - missed} of {len(body)} as they have to be", header, body)
    finish("optima", "optctl bench optima", table, {"rows": figures, "gains": gains}, out)
    return 1 if missed else 0
