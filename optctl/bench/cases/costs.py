"""Cases of flat, concave and logarithmic costs, constraints, and units."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import casadi as ca
import numpy as np

import optctl
from optctl import Fixed, Problem, Uniform
from optctl.bench.cases.rows import CLAIMS, Cases, Row, honest, near, optimum, problem, solve, true
from optctl.interop import from_state_space
from optctl.solvers import lqr

CASES = Cases()


# --- flat, concave, logarithmic costs -----------------------------------------------------------------------------------


@CASES.case("two actuators that do the same", "multiple shooting: 0.43946608; even in x0")
def redundant() -> Iterator[Row]:
    p = problem("thrusters", 1, 2, dynamics=lambda x, u, q: [0.3 * u[0] + 0.7 * u[1] - ca.sin(x[0])], dt=0.1, steps=30,
                stage_cost=lambda x, u, q: x[0] ** 2 + (0.3 * u[0] + 0.7 * u[1]) ** 2, initial_state=Uniform([-1.0], [1.0]))  # fmt: skip
    yield optimum("one start", solve(p, [1.0]), 0.43946608, 1e-6)
    for i, s in enumerate(solve(p, [[1.0], [-1.0]])):
        yield optimum(f"member {i} of a batch", s, 0.43946608, 1e-6)
    comparison = optctl.compare(p, ["optimal"], starts=[[1.0], [-1.0]])
    yield near("compare", 0.43946608, comparison["optimal"].mean_cost, 1e-6)


@CASES.case("concave Hamiltonian", "|u| = 1 throughout: −2")
def concave() -> Iterator[Row]:
    p = problem("concave", 1, 1, dynamics=lambda x, u, q: u, stage_cost=lambda x, u, q: -(u[0] ** 2), dt=0.05, steps=40,
                initial_state=Fixed([0.0]), control_bounds={"u0": (-1.0, 1.0)})  # fmt: skip
    yield optimum("auto", solve(p, [0.0]), -2.0, 1e-6)
    yield honest("pontryagin", solve(p, [0.0], method="pontryagin"), -2.0)
    batch = solve(p, np.zeros((10, 1)), method="pontryagin")
    wrong = batch.certified & (np.abs(batch.values + 2.0) > 0.02)
    yield true(
        "pontryagin, ten starts", "none certified but −2", not wrong.any(), f"{int(wrong.sum())} certified elsewhere"
    )


@CASES.case("consumption with logarithmic utility", "closed form: c = 100 ρ/(1 − e^{−10 ρ}) e^{(r − ρ) t}")
def cake() -> Iterator[Row]:
    def stated(**changes: Any) -> Problem:
        return problem("cake", 1, 1, dynamics=lambda x, u, q: 0.05 * x[0] - u[0], dt=0.1, steps=100, initial_state=Fixed([100.0]),
                       stage_cost=lambda x, u, q, t: -ca.exp(-0.01 * t) * ca.log(u[0]),
                       terminal_constraints=lambda x, q: x[0], **changes)  # fmt: skip

    right = -24.255378
    yield optimum("no bounds", solve(stated(), [100.0]), right, 1e-6)
    for high in (np.inf, 50.0):
        yield optimum(f"bounds 0 and {high:g}", solve(stated(control_bounds={"u0": (0.0, high)}), [100.0]), right, 1e-6)
    s = solve(stated(control_bounds={"u0": (0.0, 50.0)}), [100.0], method="pontryagin")
    row = honest("pontryagin with a bound at zero", s, right, 1e-5)
    told = s.verdict.value in CLAIMS or bool(s.message)
    yield true(row.what, f"{row.right}, with a message", row.ok and told, f"{row.found} [{s.message}]", row.verdict)


# --- constraints --------------------------------------------------------------------------------------------------------


@CASES.case(
    "fishing by modes, one of them idle", "the same without the idle mode, whose share is what the others leave"
)
def idle_mode() -> Iterator[Row]:
    c, d = [0.2, 0.4, 0.01, 0.0, 0.1], [0.1, 0.2, 0.1, 0.0, 0.2]
    caught = lambda u, of: sum(a * u[i] for i, a in enumerate(of))
    together = lambda u: sum(u[i] for i in range(5))
    few = problem("four-modes", 2, 4, dt=0.12, steps=100, initial_state=Fixed([0.5, 0.7]),
                  dynamics=lambda x, u, q: [x[0] - x[0] * x[1] - sum(a * u[i] for i, a in enumerate((0.2, 0.4, 0.01, 0.1))),
                                            -x[1] + x[0] * x[1] - sum(a * u[i] for i, a in enumerate((0.1, 0.2, 0.1, 0.2)))],
                  stage_cost=lambda x, u, q: (x[0] - 1) ** 2 + (x[1] - 1) ** 2,
                  path_constraints=lambda x, u, q: u[0] + u[1] + u[2] + u[3] - 1,
                  control_bounds={f"u{i}": (0.0, 1.0) for i in range(4)})  # fmt: skip
    p = problem("fishing", 2, 5, dt=0.12, steps=100, initial_state=Fixed([0.5, 0.7]),
                dynamics=lambda x, u, q: [x[0] - x[0] * x[1] - caught(u, c), -x[1] + x[0] * x[1] - caught(u, d)],
                stage_cost=lambda x, u, q: (x[0] - 1) ** 2 + (x[1] - 1) ** 2,
                path_constraints=lambda x, u, q: ca.vertcat(together(u) - 1, 1 - together(u)),
                control_bounds={f"u{i}": (0.0, 1.0) for i in range(5)})  # fmt: skip
    yield optimum("cost", solve(p, [0.5, 0.7]), solve(few, [0.5, 0.7]).value, 1e-6)


@CASES.case("control that enters nothing", "it may be anything: ∫ x² + u² with ẋ = u is tanh 1")
def idle_control() -> Iterator[Row]:
    p = problem("idle", 1, 2, dynamics=lambda x, u, q: u[0], stage_cost=lambda x, u, q: x[0] ** 2 + u[0] ** 2, dt=0.02, steps=50,
                initial_state=Fixed([1.0]), control_bounds={"u1": (0.0, 1.0)})  # fmt: skip
    yield optimum("cost", solve(p, [1.0]), math.tanh(1.0), 1e-3)


@CASES.case("ceiling that a path constraint states", "closed form: ∫ 0.01 u² − x(1) with x ≤ 0.5 is −0.4975")
def ceiling() -> Iterator[Row]:
    p = problem("ceiling", 1, 1, dynamics=lambda x, u, q: u, stage_cost=lambda x, u, q: 0.01 * u[0] ** 2, dt=0.1, steps=10,
                terminal_cost=lambda x, q: -x[0], control_bounds={"u0": (-1.0, 1.0)}, path_constraints=lambda x, u, q: x[0] - 0.5,
                initial_state=Fixed([0.0]))  # fmt: skip
    for method in ("auto", "multiple_shooting", "ddp", "collocation", "switching"):
        yield optimum(method, solve(p, [0.0], method=method), -0.4975, 1e-4)
    bounds = p.replace(path_constraints=None, state_bounds={"x0": (-np.inf, 0.5)})
    yield optimum("as a bound", solve(bounds, [0.0]), -0.4975, 1e-4)
    comparison = optctl.compare(p, ["optimal"], num_starts=2)
    yield near("compare", -0.4975, comparison["optimal"].mean_cost, 1e-4)


@CASES.case("gate that is closed at the start", "multiple shooting: 0.008690 with x(0) = 0.5")
def closed_gate() -> Iterator[Row]:
    p = problem("gate", 1, 1, dynamics=lambda x, u, q: u[0], stage_cost=lambda x, u, q: x[0] ** 2 + 1e-3 * u[0] ** 2, dt=0.05,
                steps=20, initial_state=Fixed([0.5]), path_constraints=lambda x, u, q, t: 0.5 - 50 * t - x[0])  # fmt: skip
    for method in ("multiple_shooting", "collocation"):
        s = solve(p, [0.5], method=method, free_start={"x0": (-2.0, 2.0)})
        kept = s.trajectory.states[0, 0] >= 0.5 - 1e-3
        yield true(f"{method}: x(0)", "at least 0.5, or no claim", kept or s.verdict.value not in CLAIMS,
                   f"{s.trajectory.states[0, 0]:.4g}, J = {s.value:.6g}", s.verdict.value)  # fmt: skip
        if method == "multiple_shooting":
            yield optimum(f"{method}: cost", s, 0.008690, 1e-3)


@CASES.case("several starts by indirect methods", "least time by the support function of the reachable set")
def several_indirect() -> Iterator[Row]:
    p = problem("oscillator", 2, 1, dynamics=lambda x, u, q: [x[1], -x[0] + u[0]], stage_cost=lambda x, u, q: 1.0, dt=0.1, steps=60,
                initial_state=Fixed([1.0, 1.0]), control_bounds={"u0": (-1.0, 1.0)}, terminal_constraints=lambda x, q: x,
                final_time=(0.1, 20.0))  # fmt: skip
    starts, right = [[1.0, 1.0], [3.0, 0.0], [0.0, 1.0]], [2.498091545, 4.837716812, 1.994827366]
    for i, s in enumerate(solve(p, starts, method="switching")):
        yield optimum(f"switching from {tuple(starts[i])}", s, right[i], 1e-6)
    q = problem("smooth", 1, 1, dynamics=lambda x, u, p: u, stage_cost=lambda x, u, p: x[0] ** 2 + u[0] ** 2, dt=0.05, steps=20,
                initial_state=Fixed([1.0]))  # fmt: skip
    for i, s in enumerate(solve(q, [[1.0], [2.0], [-1.0]], method="pontryagin")):
        yield optimum(f"pontryagin, member {i}", s, (1, 4, 1)[i] * math.tanh(1.0), 1e-6)


# --- units --------------------------------------------------------------------------------------------------------------


@CASES.case("plant in nanometres", "python-control: K = [1e-9, 2.2360680]")
def nanometres() -> Iterator[Row]:
    import control

    system = control.ss([[0, 1e9], [0, 0]], [[0], [0.5]], np.eye(2), np.zeros((2, 1)))
    p = from_state_space(system, Q=np.diag([1e-18, 1.0]), R=[[1.0]], dt=1e-3, integrator="rk4", substeps=1)
    for discretised, relative in ((False, 1e-6), (True, 1e-2)):
        gain = lqr(p, discretised=discretised).K.ravel()
        worst = np.abs(gain / [1e-9, 5**0.5] - 1).max()
        yield true(
            "gain, " + ("of the held plant" if discretised else "continuous"),
            "[1e-9, 2.2360680]",
            worst <= relative,
            gain,
        )


@CASES.case("oscillator with states of 1e-8", "the same in units of 1: 0.18745")
def tiny_states() -> Iterator[Row]:
    for s in (1.0, 1e-7, 1e-8):
        p = problem("duffing", 2, 1, dynamics=lambda x, u, q, s=s: [x[1], -x[0] - 0.15 * x[0] ** 3 / s**2 + u[0]], dt=0.04, steps=50,
                    stage_cost=lambda x, u, q, s=s: 0.5 * (u[0] / s) ** 2, initial_state=Fixed([0.5 * s, -0.5 * s]),
                    control_bounds={"u0": (-2 * s, 2 * s)}, terminal_constraints=lambda x, q: x)  # fmt: skip
        yield optimum(f"unit {s:g}", solve(p, [0.5 * s, -0.5 * s]), 0.187445, 1e-3)
