"""Cases of collocation, arcs on a coarse grid, and limits of time."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import casadi as ca
import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import minimize_scalar

from optctl import Fixed
from optctl.bench import known_optima
from optctl.bench.cases.rows import Cases, Row, honest, optimum, problem, solve, true
from optctl.bench.known_optima import singular_arc

CASES = Cases()


@CASES.case("singular arc by collocation", "closed form: 0.753983861")
def singular_collocation() -> Iterator[Row]:
    for steps in (20, 50):
        p = singular_arc(steps)
        yield honest(f"{steps} intervals", solve(p, [0.0, 1.0], method="collocation"), 0.753983861, 1e-4)


def spin_saturation(fast: float, slow: float, bound: float) -> float:
    """Least time from (0, 1) to (0, 0) of ẏ = −Γy − uz, ż = γ(1 − z) + uy, |u| ≤ bound: full control down to the line
    z = −γ/(2(Γ − γ)), along it, full control to y = 0, no control up to z = 0 (Lapert et al., Phys. Rev. Lett. 104, 2010)."""
    line = -slow / (2 * (fast - slow))
    free = lambda t, x, u: [-fast * x[0] - u * x[1], slow * (1 - x[1]) + u * x[0]]

    def until(x: Any, u: float, entry: int, level: float) -> tuple[float, np.ndarray]:
        event = lambda t, x, u: x[entry] - level
        event.terminal = True  # type: ignore[attr-defined]
        done = solve_ivp(free, (0.0, 20.0), x, args=(u,), events=event, rtol=1e-11, atol=1e-13)
        return float(done.t[-1]), done.y[:, -1]

    def total(along: float) -> float:
        first, x = until([0.0, 1.0], -bound, 1, line)  # the sign of y is free
        y = x[0]
        rate = lambda t, y: -fast * y + slow * (1 - line) * line / y  # u = −γ(1 − z)/y holds z
        if along > 0:
            y = solve_ivp(rate, (0.0, along), [y], rtol=1e-11, atol=1e-13).y[0, -1]
        back, x = until([y, line], -bound, 0, 0.0)
        rest = math.log((1 - x[1]) / 1.0) / slow  # z from below zero to zero along y = 0
        return first + along + back + rest if rest >= 0 else math.inf

    _, x = until([0.0, 1.0], -bound, 1, line)
    most = (x[0] ** 2 - (slow * (1 - line) / bound) ** 2) / (2 * slow * (1 - line) * -line)  # no longer than without Γ
    return min(
        minimize_scalar(total, bounds=(0.0, share * most), method="bounded", options={"xatol": 1e-10}).fun
        for share in (0.1, 0.3, 1.0)
    )


@CASES.case(
    "spin driven through its relaxation, in least time", "four arcs integrated exactly, their lengths chosen best"
)
def relaxing_spin() -> Iterator[Row]:
    for fast, slow, bound, steps in (
        (3.0, 0.5, 6.0, 40),
        (3.0, 0.5, 30.0, 20),
        (1.0, 0.1, 10.0, 20),
        (10.0, 0.5, 30.0, 15),
    ):
        right = spin_saturation(fast, slow, bound)
        rate = lambda x, u, q, a=fast, b=slow: [-a * x[0] - u[0] * x[1], b * (1 - x[1]) + u[0] * x[0]]
        p = problem("spin", 2, 1, dynamics=rate, dt=0.05, steps=steps, stage_cost=lambda x, u, q: 1.0,
                    control_bounds={"u0": (-bound, bound)}, initial_state=Fixed([0.0, 1.0]),
                    terminal_constraints=lambda x, q: x, final_time=(0.02, 10.0))  # fmt: skip
        for method in ("auto", "collocation"):
            options = {"time_limit": 15.0} if method == "collocation" else {}
            yield honest(
                f"{method}, |u| ≤ {bound:g}, {steps} intervals",
                solve(p, [0.0, 1.0], method=method, **options),
                right,
                5e-3,
            )


@CASES.case("unbounded angle by collocation", "tangent law: neighbouring angles are near")
def unbounded_angle() -> Iterator[Row]:
    p = problem("zermelo", 2, 1, dynamics=lambda x, u, q: [ca.cos(u[0]) - x[1], ca.sin(u[0])], stage_cost=lambda x, u, q: 1.0, dt=0.05,
                steps=60, initial_state=Fixed([3.658657561961599, -1.863703305156274]), final_time=(1.0, 20.0),
                terminal_constraints=lambda x, q: x)  # fmt: skip
    s = solve(p, p.initial_state.location, method="collocation")
    yield optimum("time", s, 5.464101615, 1e-4)
    jump = np.degrees(np.abs(np.diff(s.trajectory.controls[:, 0])).max())
    yield true("largest jump between neighbours", "below 45°", jump < 45, f"{jump:.3g}°", s.verdict.value)


@CASES.case("limit of time", "what is asked for")
def time_limit() -> Iterator[Row]:
    p = singular_arc(100)
    for method in ("collocation", "multiple_shooting"):
        began = time.perf_counter()
        s = solve(p, [0.0, 1.0], method=method, time_limit=5.0)
        seconds = time.perf_counter() - began
        yield true(f"{method}, 5 s", "back within 8 s", seconds < 8, f"{seconds:.2g} s", s.verdict.value)


@CASES.case("bang and singular arcs on a coarse grid", "closed form and published optima")
def coarse_switching() -> Iterator[Row]:
    rows = [(known_optima.singular_arc(50), 0.753983860576), (known_optima.catalyst_mixing(50), -1 + 0.9519443141),
            (known_optima.fishery(50), -(0.8 + (10 - math.log(4)) / 4 - 0.8))]  # fmt: skip
    for p, right in rows[:2]:
        s = solve(p, p.initial_state.location, method="switching")
        yield optimum(p.name, s, right, 1e-5)
