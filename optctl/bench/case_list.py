"""The inputs of `optctl bench cases`: each a generator of rows, with how its right answers are known."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import casadi as ca
import numpy as np

import optctl
from optctl import Fixed, Problem, Uniform
from optctl.errors import ArgumentError
from optctl.solvers import solve_many

CLAIMS = ("proved optimum", "certified extremal")


@dataclass(frozen=True)
class Row:
    """One thing that a case shows. `ok` is `None` where it could not be tried."""

    what: str
    right: str
    found: str
    ok: bool | None
    verdict: str = ""


CASES: dict[str, tuple[str, Callable[[], Iterator[Row]]]] = {}
"""Name → (how the right answers are known, the case)."""


def case(name: str, known: str) -> Callable[[Callable[[], Iterator[Row]]], Callable[[], Iterator[Row]]]:
    def entered(function: Callable[[], Iterator[Row]]) -> Callable[[], Iterator[Row]]:
        CASES[name] = known, function
        return function

    return entered


def near(what: str, right: float, found: Any, relative: float = 1e-4, absolute: float = 0.0, verdict: str = "") -> Row:
    """A number that must be the right one."""
    value = float(found)
    return Row(what, f"{right:.9g}", f"{value:.9g}", abs(value - right) <= relative * abs(right) + absolute, verdict)


def true(what: str, right: str, ok: Any, found: Any, verdict: str = "") -> Row:
    return Row(what, right, str(found), bool(ok), verdict)


def optimum(what: str, solution: Any, right: float, relative: float = 1e-3) -> Row:
    """A solution that must have the right value and claim something."""
    row = near(what, right, solution.value, relative, verdict=solution.verdict.value)
    return Row(row.what, row.right, row.found, bool(row.ok) and row.verdict in CLAIMS, row.verdict)


def honest(what: str, solution: Any, right: float, relative: float = 1e-2) -> Row:
    """A solution that must have the right value if it claims anything."""
    row = near(what, right, solution.value, relative, verdict=solution.verdict.value)
    return Row(row.what, row.right + " or no claim", row.found, bool(row.ok) or row.verdict not in CLAIMS, row.verdict)


def refused(what: str, call: Callable[[], Any], holds: str = "", right: str = "a sentence that says why") -> Row:
    """A call that must raise ArgumentError, with a text that holds something."""
    try:
        value = call()
    except ArgumentError as error:
        return true(what, right, holds in str(error), str(error)[:160])
    return true(what, right, False, f"accepted: {str(value)[:60]}")


def tried(what: str, right: str, call: Callable[[], tuple[bool, Any]]) -> Row:
    """(ok, found) of a call; what it raises is a wrong row, and the case goes on."""
    try:
        ok, found = call()
    except ModuleNotFoundError:
        raise
    except Exception as error:
        return Row(what, right, f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:120]}", False)
    return true(what, right, ok, found)


def solve(stated: Problem, x0: Any, **options: Any) -> Any:
    """`optctl.solve`: a solution or a batch, as `x0` asks."""
    return optctl.solve(stated, x0, **options)


def problem(name: str, state: int, control: int, **fields: Any) -> Problem:
    """A `Problem` with x0, x1, … and u0, u1, …."""
    names: dict[str, Any] = {"state": [f"x{i}" for i in range(state)], "control": [f"u{i}" for i in range(control)]}
    return Problem(name=name, **(names | fields))


# --- stiff and badly discretised plants ---------------------------------------------------------------------------------


def _decay(rate: float, **changes: Any) -> Problem:
    """ẋ = −rate x + u, held for 0.2."""
    fields: dict[str, Any] = dict(
        horizon="infinite", stage_cost=lambda x, u, p: x[0] ** 2 + u[0] ** 2, dt=0.2, steps=10, integrator="exponential",
        initial_state=Uniform([-1.0], [1.0]), dynamics=lambda x, u, p: -rate * x + u,
    )  # fmt: skip
    return problem("decay", 1, 1, **(fields | changes))


@case("stiff decay, exponential step", "closed form")
def stiff_decay() -> Iterator[Row]:
    from optctl.solvers import lqr

    p = _decay(50.0)
    yield near("x after one step from 1", math.exp(-10), p.step_function(1.0, 0.0, [], 0.0)[0], 1e-9)
    yield near("feedback gain of the held plant", 0.0, lqr(p).K.ravel()[0], absolute=1e-3)
    for solution, x0 in zip(solve(p, [[1.0], [0.5]]), (1.0, 0.5), strict=True):
        yield optimum(f"cost from {x0}", solution, x0**2 / 100, 1e-2)
    comparison = optctl.compare(p, ["optimal", "zero"], num_starts=4)
    costs = comparison["zero"].costs[0] / comparison.starts[:, 0] ** 2
    yield near("cost of no control, over x0²", 0.01, costs.max(), 1e-3)
    yield true("optimum not above no control", "at most 0.01", (comparison["optimal"].costs <= comparison["zero"].costs * 1.001).all(),
               comparison["optimal"].costs.max())  # fmt: skip
    faster = _decay(1000.0)
    yield near(
        "twenty times stiffer: x after one step", 0.0, faster.step_function(1.0, 0.0, [], 0.0)[0], absolute=1e-12
    )
    yield optimum("twenty times stiffer: cost from 1", solve(faster, [1.0]), 1 / 2000, 1e-2)


@case("stiff decay, classical Runge-Kutta", "∫ e^{−100 t} dt = 0.01")
def stiff_decay_explicit() -> Iterator[Row]:
    p = _decay(50.0, integrator="rk4")
    yield honest("one start", solve(p, [1.0]), 0.01)
    for i, solution in enumerate(solve(p, [[1.0], [0.5]])):
        yield honest(f"member {i} of a batch", solution, 0.01 / (4 if i else 1))
    text = str(optctl.compare(p, ["optimal", "zero"], num_starts=4))
    yield true("compare", "no bound of a plant that is not the user's", "a bound no controller can undercut" not in text,
               next((line.strip() for line in text.splitlines() if "bound" in line), "no bound"))  # fmt: skip


def _tank(**changes: Any) -> Problem:
    """Exothermic stirred tank, both deviations 0.09 at first; the published optimum is 0.1331."""

    def f(x, u, p):
        rate = (x[1] + 0.5) * ca.exp(25 * x[0] / (x[0] + 2))
        return [-(2 + u[0]) * (x[0] + 0.25) + rate, 0.5 - x[1] - rate]

    fields: dict[str, Any] = dict(
        dynamics=f, dt=0.01, steps=78, initial_state=Uniform([0.05, 0.05], [0.12, 0.12]),
        stage_cost=lambda x, u, p: x[0] ** 2 + x[1] ** 2 + 0.1 * u[0] ** 2,
    )  # fmt: skip
    return problem("tank", 2, 1, **(fields | changes))


TANK = 0.13317


@case("reaction that the step cannot follow", "published (Luus): 0.1331; held controls: 0.13317")
def fast_reaction() -> Iterator[Row]:
    p = _tank()
    yield optimum("one start", solve(p, [0.09, 0.09]), TANK)
    for i, solution in enumerate(solve(p, [[0.09, 0.09], [0.09, 0.09]])):
        yield honest(f"member {i} of a batch", solution, TANK)
    batch = solve(p, [[0.09, 0.09], [0.1, 0.1]])
    members = [s.verdict.value in CLAIMS for s in batch]
    yield true("`certified` of a batch", str(members), batch.certified.tolist() == members, batch.certified.tolist())


@case(
    "reaction that the step cannot follow, as demonstrations",
    "every stored one, integrated again, must be a trajectory",
)
def fast_reaction_stored() -> Iterator[Row]:
    from scipy.integrate import solve_ivp

    from optctl.hybrid import dataset as demos

    p = _tank()
    with tempfile.TemporaryDirectory() as folder:
        stored = demos.generate(p, 4, folder)
    worst = 0.0
    for x, u in zip(stored.trajectory.states, stored.trajectory.controls, strict=True):
        for k in range(len(u)):
            rate = lambda t, y, v=u[k]: np.array(p.dynamics_function(y, v, [], t)).ravel()  # type: ignore[misc]
            end = solve_ivp(rate, (0.0, p.dt), x[k], rtol=1e-9, atol=1e-12).y[:, -1]
            worst = max(worst, float(np.max(np.abs(end - x[k + 1]) / np.ptp(x, axis=0))))
    yield true(
        "largest mismatch of an interval",
        "at most 1 % of what a state moves",
        worst <= 1e-2,
        f"{worst:.2g} of {len(stored)}",
    )


@case("reaction beside a large constant state", "a state that nothing touches changes nothing: 0.13317")
def beside_large() -> Iterator[Row]:
    p = _tank()
    rate: Any = p.dynamics
    large = problem("tank-pressure", 3, 1, dynamics=lambda x, u, q: [*rate(x, u, q), 0], stage_cost=p.stage_cost, dt=p.dt,
                    steps=p.steps, initial_state=Fixed([0.09, 0.09, 100.0]))  # fmt: skip
    yield optimum("one start", solve(large, [0.09, 0.09, 100.0]), TANK)
    for i, solution in enumerate(solve(large, [[0.09, 0.09, 100.0]] * 2)):
        yield honest(f"member {i} of a batch", solution, TANK)


@case("valve with a root of infinite slope", "an interval that cannot be integrated again certifies nothing")
def valve() -> Iterator[Row]:
    p = problem("valve", 1, 1, dynamics=lambda x, u, q: u[0] - ca.sign(x[0]) * ca.sqrt(ca.fabs(x[0])), dt=0.1, steps=20,
                stage_cost=lambda x, u, q: x[0] ** 2 + u[0] ** 2, initial_state=Uniform([0.5], [1.0]))  # fmt: skip
    alone = solve(p, [0.5])
    yield true(
        "message for one start",
        'no "nan"',
        "nan" not in str(alone.message),
        alone.message or "none",
        alone.verdict.value,
    )
    batch = solve(p, [[0.5], [1.0]])
    claims = [s.verdict.value for s in batch]
    yield true(
        "one start and a batch",
        "the same verdict",
        claims[0] == alone.verdict.value,
        f"{claims[0]} in the batch",
        alone.verdict.value,
    )
    for i, s in enumerate(batch):
        unknown = s.certificate.resimulation is None or not np.isfinite(s.certificate.resimulation)
        yield true(f"member {i}: integrated again", "finite, or no claim", not (unknown and s.verdict.value in CLAIMS),
                   s.certificate.resimulation, s.verdict.value)  # fmt: skip


@case("stiff linear plant of four states", "python-control: lqr of the continuous plant")
def stiff_plant() -> Iterator[Row]:
    import control
    import torch

    from optctl.interop import from_state_space
    from optctl.solvers import lqr

    a = [
        [-7639.43726, 0.320058055, -23077.4129, 0],
        [6, 0, 0, 0],
        [0, 0, -10, 0],
        [5.06144301e-3, -5.82851621e-5, 0, 0],
    ]
    system = control.ss(a, [[9.54929659, 0], [0, 0], [0, 10], [0, 0]], np.eye(4), np.zeros((4, 2)))
    began = time.perf_counter()
    p = from_state_space(system, dt=0.01, steps=50)
    yield true("stating it", "in seconds", time.perf_counter() - began < 20, f"{time.perf_counter() - began:.2g} s")
    right = np.array(
        [[6.262413e-4, 1.588182e-3, -2.628618e-3, -1.586777e-3], [-2.752682e-3, -1.000908, 2.834703, 0.999999]]
    )
    gain = lqr(p, discretised=False).K
    yield true(
        "gain",
        "that of python-control to 1e-5",
        np.abs(gain - right).max() <= 1e-5 * np.abs(right).max(),
        f"off by {np.abs(gain - right).max():.1e}",
    )
    env: Any = optctl.make_vec(p, 4)
    env.reset(seed=0)
    observation = env.step(torch.zeros((4, 2)))[0]
    yield true(
        "a step of an environment",
        "finite",
        np.isfinite(np.asarray(observation)).all(),
        np.asarray(observation).ravel()[:2],
    )


@case("oscillator too stiff for the step", "solving never raises for want of convergence")
def lost_batch() -> Iterator[Row]:
    p = problem("stiff-oscillator", 2, 1, dynamics=lambda x, u, q: [x[1], 50 * (1 - x[0] ** 2) * x[1] - x[0] + u[0]], dt=0.05, steps=60,
                stage_cost=lambda x, u, q: x[0] ** 2 + 0.1 * u[0] ** 2, initial_state=Fixed([1.0, 0.0]),
                control_bounds={"u0": (-5.0, 5.0)})  # fmt: skip
    batch = solve(p, [[1.0, 0.0]] * 4)
    yield true("four equal starts", "an answer", len(batch) == 4, f"{len(batch)} members", batch[0].verdict.value)


# --- flat, concave, logarithmic costs -----------------------------------------------------------------------------------


@case("two actuators that do the same", "multiple shooting: 0.43946608; even in x0")
def redundant() -> Iterator[Row]:
    p = problem("thrusters", 1, 2, dynamics=lambda x, u, q: [0.3 * u[0] + 0.7 * u[1] - ca.sin(x[0])], dt=0.1, steps=30,
                stage_cost=lambda x, u, q: x[0] ** 2 + (0.3 * u[0] + 0.7 * u[1]) ** 2, initial_state=Uniform([-1.0], [1.0]))  # fmt: skip
    yield optimum("one start", solve(p, [1.0]), 0.43946608, 1e-6)
    for i, s in enumerate(solve(p, [[1.0], [-1.0]])):
        yield optimum(f"member {i} of a batch", s, 0.43946608, 1e-6)
    comparison = optctl.compare(p, ["optimal"], starts=[[1.0], [-1.0]])
    yield near("compare", 0.43946608, comparison["optimal"].mean_cost, 1e-6)


@case("concave Hamiltonian", "|u| = 1 throughout: −2")
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


@case("consumption with logarithmic utility", "closed form: c = 100 ρ/(1 − e^{−10 ρ}) e^{(r − ρ) t}")
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


@case("fishing by modes, one of them idle", "the same without the idle mode, whose share is what the others leave")
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


@case("control that enters nothing", "it may be anything: ∫ x² + u² with ẋ = u is tanh 1")
def idle_control() -> Iterator[Row]:
    p = problem("idle", 1, 2, dynamics=lambda x, u, q: u[0], stage_cost=lambda x, u, q: x[0] ** 2 + u[0] ** 2, dt=0.02, steps=50,
                initial_state=Fixed([1.0]), control_bounds={"u1": (0.0, 1.0)})  # fmt: skip
    yield optimum("cost", solve(p, [1.0]), math.tanh(1.0), 1e-3)


@case("ceiling that a path constraint states", "closed form: ∫ 0.01 u² − x(1) with x ≤ 0.5 is −0.4975")
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


@case("gate that is closed at the start", "multiple shooting: 0.008690 with x(0) = 0.5")
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


@case("several starts by indirect methods", "least time by the support function of the reachable set")
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


@case("plant in nanometres", "python-control: K = [1e-9, 2.2360680]")
def nanometres() -> Iterator[Row]:
    import control

    from optctl.interop import from_state_space
    from optctl.solvers import lqr

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


@case("oscillator with states of 1e-8", "the same in units of 1: 0.18745")
def tiny_states() -> Iterator[Row]:
    for s in (1.0, 1e-7, 1e-8):
        p = problem("duffing", 2, 1, dynamics=lambda x, u, q, s=s: [x[1], -x[0] - 0.15 * x[0] ** 3 / s**2 + u[0]], dt=0.04, steps=50,
                    stage_cost=lambda x, u, q, s=s: 0.5 * (u[0] / s) ** 2, initial_state=Fixed([0.5 * s, -0.5 * s]),
                    control_bounds={"u0": (-2 * s, 2 * s)}, terminal_constraints=lambda x, q: x)  # fmt: skip
        yield optimum(f"unit {s:g}", solve(p, [0.5 * s, -0.5 * s]), 0.187445, 1e-3)


# --- collocation --------------------------------------------------------------------------------------------------------


@case("singular arc by collocation", "closed form: 0.753983861")
def singular_collocation() -> Iterator[Row]:
    from optctl.bench.known_optima import singular_arc

    for steps in (20, 50):
        p = singular_arc(steps)
        yield honest(f"{steps} intervals", solve(p, [0.0, 1.0], method="collocation"), 0.753983861, 1e-4)


def spin_saturation(fast: float, slow: float, bound: float) -> float:
    """Least time from (0, 1) to (0, 0) of ẏ = −Γy − uz, ż = γ(1 − z) + uy, |u| ≤ bound: full control down to the line
    z = −γ/(2(Γ − γ)), along it, full control to y = 0, no control up to z = 0 (Lapert et al., Phys. Rev. Lett. 104, 2010)."""
    from scipy.integrate import solve_ivp
    from scipy.optimize import minimize_scalar

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


@case("spin driven through its relaxation, in least time", "four arcs integrated exactly, their lengths chosen best")
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


@case("unbounded angle by collocation", "tangent law: neighbouring angles are near")
def unbounded_angle() -> Iterator[Row]:
    p = problem("zermelo", 2, 1, dynamics=lambda x, u, q: [ca.cos(u[0]) - x[1], ca.sin(u[0])], stage_cost=lambda x, u, q: 1.0, dt=0.05,
                steps=60, initial_state=Fixed([3.658657561961599, -1.863703305156274]), final_time=(1.0, 20.0),
                terminal_constraints=lambda x, q: x)  # fmt: skip
    s = solve(p, p.initial_state.location, method="collocation")
    yield optimum("time", s, 5.464101615, 1e-4)
    jump = np.degrees(np.abs(np.diff(s.trajectory.controls[:, 0])).max())
    yield true("largest jump between neighbours", "below 45°", jump < 45, f"{jump:.3g}°", s.verdict.value)


@case("limit of time", "what is asked for")
def time_limit() -> Iterator[Row]:
    from optctl.bench.known_optima import singular_arc

    p = singular_arc(100)
    for method in ("collocation", "multiple_shooting"):
        began = time.perf_counter()
        s = solve(p, [0.0, 1.0], method=method, time_limit=5.0)
        seconds = time.perf_counter() - began
        yield true(f"{method}, 5 s", "back within 8 s", seconds < 8, f"{seconds:.2g} s", s.verdict.value)


@case("bang and singular arcs on a coarse grid", "closed form and published optima")
def coarse_switching() -> Iterator[Row]:
    from optctl.bench import known_optima

    rows = [(known_optima.singular_arc(50), 0.753983860576), (known_optima.catalyst_mixing(50), -1 + 0.9519443141),
            (known_optima.fishery(50), -(0.8 + (10 - math.log(4)) / 4 - 0.8))]  # fmt: skip
    for p, right in rows[:2]:
        s = solve(p, p.initial_state.location, method="switching")
        yield optimum(p.name, s, right, 1e-5)


# --- environments -------------------------------------------------------------------------------------------------------


def _module_level_rate(x, u, p):
    return u


def _module_level_cost(x, u, p):
    return x[0] ** 2 + u[0] ** 2


@case("copies of problems and environments", "a copy steps as the original does")
def copies() -> Iterator[Row]:
    from optctl.interop.gymnasium import GymEnv

    p = problem(
        "plain",
        1,
        1,
        dynamics=_module_level_rate,
        stage_cost=_module_level_cost,
        dt=0.1,
        steps=5,
        initial_state=Fixed([1.0]),
    )
    p.step_function  # what is cached must not stand in the way
    rest = _decay(1.0)

    def stepped(twin: Any, right: float, u: float) -> tuple[bool, float]:
        found = float(twin.step_function(1.0, u, [], 0.0)[0])
        return abs(found - right) < 1e-9, found

    def copied() -> tuple[bool, Any]:
        env: Any = GymEnv(p)
        env.reset(seed=0)
        twin: Any = copy.deepcopy(env)
        one, other = twin.step(np.array([0.3]))[0], env.step(np.array([0.3]))[0]
        return np.allclose(one, other), one

    def batch() -> tuple[bool, Any]:
        values = solve(p, [[1.0], [2.0]])
        twin = pickle.loads(pickle.dumps(values))
        return twin.values[0] == values.values[0], twin.values[0]

    yield tried(
        "a problem of plain functions, pickled", "1.05", lambda: stepped(pickle.loads(pickle.dumps(p)), 1.05, 0.5)
    )
    yield tried("an environment, copied", "the same step", copied)
    yield tried("a batch of solutions, pickled", "the same values", batch)
    import cloudpickle

    again = lambda thing: pickle.loads(cloudpickle.dumps(thing))
    yield tried("a problem of lambdas, by cloudpickle", "e^-0.2", lambda: stepped(again(rest), math.exp(-0.2), 0.0))
    yield tried("an environment, by cloudpickle", "begins", lambda: (True, again(GymEnv(rest)).reset(seed=0)[0]))


@case("environments in processes of their own", "two episodes begin")
def in_processes() -> Iterator[Row]:
    import gymnasium

    from optctl.interop.gymnasium import GymEnv

    p = _decay(1.0)

    def spawned() -> tuple[bool, Any]:
        env: Any = gymnasium.vector.AsyncVectorEnv([lambda: GymEnv(p)] * 2, context="spawn")
        shape = env.reset(seed=0)[0].shape
        env.close()
        return shape == (2, 1), shape

    yield tried("Gymnasium, spawned", "(2, 1)", spawned)
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import SubprocVecEnv

    def served() -> tuple[bool, Any]:
        env: Any = make_vec_env(lambda: GymEnv(p), n_envs=2, vec_env_cls=SubprocVecEnv)
        shape = env.reset().shape
        env.close()
        return shape == (2, 1), shape

    yield tried("Stable-Baselines3, its default", "(2, 1)", served)


@case("length of an episode", "Gymnasium's own Pendulum-v1 obeys max_episode_steps")
def episode_length() -> Iterator[Row]:
    import gymnasium

    import optctl.gym  # noqa: F401

    env = gymnasium.make("optctl/gymnasium-pendulum-v1", max_episode_steps=500)
    env.reset(seed=0)
    steps, ended = 0, False
    while not ended and steps < 600:
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        steps, ended = steps + 1, terminated or truncated
    yield near("steps of 500", 500, steps)
    spec = gymnasium.make("optctl/gymnasium-pendulum-v1").spec
    yield true(
        "the spec's length", "200", spec is not None and spec.max_episode_steps == 200, spec and spec.max_episode_steps
    )
    wrapped = gymnasium.wrappers.TimeAwareObservation(gymnasium.make("optctl/gymnasium-pendulum-v1"))
    yield true(
        "TimeAwareObservation",
        "an observation",
        np.isfinite(np.asarray(wrapped.reset(seed=0)[0])).all(),
        "an observation",
    )


@case("environment of an unbounded control", "a comparison says that actions cannot reach the reference's controls")
def clipped() -> Iterator[Row]:
    from optctl.interop import from_policy

    p = problem("far", 1, 1, dynamics=lambda x, u, q: u, stage_cost=lambda x, u, q: 100 * x[0] ** 2 + u[0] ** 2, dt=0.05, steps=40,
                initial_state=Fixed([1.0]))  # fmt: skip
    policy = from_policy(p, lambda y: -np.ones((len(y), 1)))
    word = next((note for note in optctl.compare(p, [policy], num_starts=2).notes if "control_scale" in note), "")
    yield true("note of the comparison", "names `control_scale`", word, word)


@case("free final time as an environment", "both kinds of environment do the same")
def free_time_environment() -> Iterator[Row]:
    from optctl.interop.gymnasium import GymEnv

    p = problem("free", 1, 1, dynamics=lambda x, u, q: u, stage_cost=lambda x, u, q: 1.0, dt=0.1, steps=10, final_time=(0.1, 5.0),
                initial_state=Fixed([1.0]), control_bounds={"u0": (-1.0, 1.0)})  # fmt: skip
    answers = []
    for make in (lambda: GymEnv(p), lambda: optctl.make_vec(p, 2)):
        try:
            make()
            answers.append("accepted")
        except ArgumentError:
            answers.append("refused")
    yield true("GymEnv and make_vec", "the same", answers[0] == answers[1], ", ".join(answers))


@case("constant that is not a number", "math.sin of a symbol is nan")
def constant_nan() -> Iterator[Row]:
    make = lambda: problem("nan", 1, 1, dynamics=lambda x, u, q: u[0] + math.sin(x[0]), stage_cost=lambda x, u, q: x[0] ** 2 + u[0] ** 2,
                           dt=0.1, steps=10, initial_state=Fixed([1.0]))  # fmt: skip
    yield refused("stating it", make, "dynamics")


@case("table in an environment", "a sentence that names what has a translation")
def table() -> Iterator[Row]:
    lookup = ca.interpolant("lookup", "linear", [[0.0, 1.0, 2.0]], [0.0, 1.0, 0.0])
    p = problem("table", 1, 1, dynamics=lambda x, u, q: u - lookup(x[0]), stage_cost=lambda x, u, q: x[0] ** 2 + u[0] ** 2, dt=0.1,
                steps=10, initial_state=Fixed([1.0]))  # fmt: skip
    yield refused("make_vec", lambda: optctl.make_vec(p, 2), "pw_lin")


@case("start given to a TorchRL environment", "it starts there, or says that it cannot")
def torchrl_state() -> Iterator[Row]:
    import torchrl  # noqa: F401

    from optctl.interop.torchrl import TorchRLEnv

    env = TorchRLEnv(_decay(1.0), 2)
    try:
        begun = env.reset(state=np.array([[0.5], [0.25]]))["observation"].cpu().numpy().ravel()
    except (ArgumentError, TypeError) as error:
        yield true("reset(state=…)", "[0.5, 0.25], or a sentence", True, str(error)[:80])
        return
    yield true("reset(state=…)", "[0.5, 0.25], or a sentence", np.allclose(begun, [0.5, 0.25]), begun)


@case("disturbance held over each interval", "least squares by hand: 0.0152830")
def held_data() -> Iterator[Row]:
    p = problem("held", 1, 1, dynamics=lambda x, u, q: u - q.d, data={"d": [float(k % 2) for k in range(10)]}, dt=0.1, steps=10,
                initial_state=Fixed([0.0]), stage_cost=lambda x, u, q: x[0] ** 2 + 0.1 * u[0] ** 2)  # fmt: skip
    yield optimum("cost", solve(p, [0.0]), 0.0152830, 1e-4)


# --- other libraries ----------------------------------------------------------------------------------------------------


def _flip(**fields: Any) -> Any:
    import qutip

    from optctl.interop import from_qutip

    given: dict[str, Any] = dict(initial=qutip.basis(2, 0), target=qutip.basis(2, 1)) | fields
    return from_qutip(qutip.sigmaz(), {"c": qutip.sigmax()}, **given)


def _kets(skip: int, num: int = 12) -> np.ndarray:
    z = np.random.default_rng(0).standard_normal((skip + num, 4))[skip:]
    return z / np.linalg.norm(z, axis=1, keepdims=True)


@case("unbounded pulses on a qubit", "1 − F + energy is at least 0; propagators are unitary")
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


@case("infinite bound on a pulse", "as without a bound")
def infinite_bound() -> Iterator[Row]:
    p = _flip(dt=0.6, steps=8, control_bounds={"c": (-np.inf, np.inf)})
    s = solve(p, p.initial_state.location)
    yield true("cost", "between 0 and 0.05", -1e-9 <= s.value <= 0.05, f"{s.value:.6g}", s.verdict.value)


@case("density matrix of a pure state as target", "the same as its ket")
def pure_target() -> Iterator[Row]:
    import qutip

    rows = [_flip(dt=0.6, steps=8, initial=qutip.fock_dm(2, 0), target=target, control_bounds={"c": (-2.0, 2.0)})
            for target in (qutip.basis(2, 1), qutip.fock_dm(2, 1))]  # fmt: skip
    costs = [solve(p, p.initial_state.location).value for p in rows]
    yield near("cost", costs[0], costs[1], 1e-6, 1e-9)


@case("coordinates of mechanics in sympy", "two coordinates and their velocities are four states")
def mechanics() -> Iterator[Row]:
    from sympy.physics.mechanics import dynamicsymbols

    from optctl.interop import from_sympy

    (q1, q2, force), (v1, v2) = dynamicsymbols("q1 q2 F"), dynamicsymbols("q1 q2", 1)
    fields: dict[str, Any] = dict(dt=0.05, steps=60, horizon="infinite", name="two")
    p = from_sympy([v1, v2, -q1 + force, -q2 + q1], [q1, q2, v1, v2], [force], stage_cost=q1**2 + force**2,
                   initial_state=Uniform([-1] * 4, [1] * 4), **fields)  # fmt: skip
    yield true("names", "four", p.n_x == 4, ", ".join(p.state))
    rates = np.array(p.dynamics_function([1, 2, 3, 4], 5, [], 0)).ravel()
    yield true("rates at (1, 2, 3, 4), F = 5", "3, 4, 4, −1", np.allclose(rates, [3, 4, 4, -1]), rates)
    p = from_sympy([-v1], [v1], [force], stage_cost=v1**2 + force**2, initial_state=Uniform([-1], [1]), **fields)
    yield true("name of one velocity", "holds q1", "q1" in next(iter(p.state)), next(iter(p.state)))


@case("labels that differ in brackets only", "two states")
def labels() -> Iterator[Row]:
    import control

    from optctl.interop import from_state_space

    system = control.ss([[0, 1], [0, 0]], [[0], [1]], np.eye(2), np.zeros((2, 1)), states=["x[0]", "x0"])
    p = from_state_space(system, dt=0.1, steps=10)
    yield true("names", "two", p.n_x == 2, ", ".join(p.state))


@case("functions of sympy", "sympy's own values")
def functions() -> Iterator[Row]:
    import sympy as sp

    from optctl.interop import from_sympy

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


@case("filter of what is never measured", "the velocity alone does not tell the place")
def undetectable() -> Iterator[Row]:
    from optctl.solvers import LqgController

    p = problem("cart", 2, 1, transition=lambda x, u, q: [x[0] + 0.1 * x[1], 0.9 * x[1] + u[0]], dt=0.1, steps=20,
                horizon="infinite", stage_cost=lambda x, u, q: x[0] ** 2 + x[1] ** 2 + u[0] ** 2, initial_state=Uniform([-1, -1], [1, 1]),
                diffusion=lambda x, u, q: ca.vertcat(0.1, 0.1), observation=lambda x, q: x[1], observation_noise=0.1)  # fmt: skip
    yield refused("average cost", lambda: LqgController(p).average_cost, "detectable")


# --- the ways in --------------------------------------------------------------------------------------------------------


@case("four threads that solve", "each gets the answers to its own starts")
def threads() -> Iterator[Row]:
    wrong, crashed = [], []

    def work(k: int) -> None:
        p = _decay(1.0 + k, integrator="rk4")
        starts = np.full((4, 1), 0.1 * (k + 1))
        for _ in range(20):
            try:
                batch = solve_many(p, starts, method="lqr", processes=1)
                if not np.allclose(batch.trajectory.states[:, 0], starts):
                    wrong.append(k)
            except Exception as error:
                crashed.append(type(error).__name__)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    yield true(
        "eighty batches", "all their own", not wrong and not crashed, f"{len(wrong)} of others, {len(crashed)} crashes"
    )


@case("run that is resumed with other settings", "what is asked for, or a sentence")
def resumed() -> Iterator[Row]:
    from dataclasses import replace

    from optctl.training.run import train
    from optctl.training.settings import settings

    p = _decay(1.0)
    config = replace(settings("sac", p).train, iterations=2)
    with tempfile.TemporaryDirectory() as folder:
        train("sac", p, config=config, seed=1, out=folder)
        try:
            policy = train(
                "sac", p, config=replace(config, iterations=3, evaluate_every=3), seed=99, out=folder, resume=True
            )
        except ArgumentError as error:
            yield true("another seed", "obeyed or refused", True, str(error)[:120])
            return
        found = policy.run.seed, policy.run.config.evaluate_every
        yield true("another seed", "obeyed or refused", found == (99, 3), f"seed {found[0]}, evaluate_every {found[1]}")


@case("names that are not identifiers", "an environment that steps")
def names() -> Iterator[Row]:
    for name in (r"a\Users", 'quotes """ within', "line\nbreak"):

        def begun(name: str = name) -> tuple[bool, Any]:
            try:
                observation = np.asarray(optctl.make_vec(_decay(1.0).replace(name=name), 2).reset(seed=0)[0])
            except ArgumentError as error:
                return True, str(error)[:80]
            return bool(np.isfinite(observation).all()), "runs"

        yield tried(repr(name), "runs, or is refused", begun)


@case("names that packages publish", "each can be had")
def published() -> Iterator[Row]:
    import importlib

    for package in ("optctl", "optctl.simulation", "optctl.solvers", "optctl.interop", "optctl.envs"):
        module = importlib.import_module(package)
        missing = []
        for name in getattr(module, "__all__", ()):
            try:
                getattr(module, name)
            except ImportError as error:
                if (error.name or "").startswith("optctl"):
                    missing.append(name)
            except AttributeError:
                missing.append(name)
        yield true(package, "all", not missing, ", ".join(missing) or "all")
    done = subprocess.run(
        [sys.executable, "-c", "import optctl; optctl.solvers; optctl.envs"], capture_output=True, text=True
    )
    yield true(
        "subpackages after `import optctl`",
        "there",
        done.returncode == 0,
        (done.stderr.strip().splitlines() or ["there"])[-1],
    )


@case("tolerance that is asked for", "converged means to this tolerance")
def tolerance() -> Iterator[Row]:
    p = optctl.make("pendulum")
    batch = solve_many(p, p.initial_state.sample(np.random.default_rng(0), 64), tolerance=1e-12)
    relative = batch.residuals["stationarity"] / (1 + np.abs(batch.values))
    above = batch.ok & (relative > 1e-12)
    yield true(
        "64 pendulums at 1e-12",
        "converged: below it",
        not above.any(),
        f"{int(above.sum())} above, up to {relative[batch.ok].max():.1e}",
    )


BEST_PENDULUMS = [
    3.502925, 9.408132, 5.705555, 3.530981, 3.622775, 5.934767, 8.144321, 3.307399, 7.947002, 3.322443, 9.490075, 3.393305,
    3.532316, 9.449086, 3.354631, 3.375772, 8.039561, 5.769934e-3, 9.418692e-3, 9.869890, 3.600602, 3.569945, 3.570061, 5.938317,
    8.353912, 5.931272, 8.117628, 3.397717, 2.271769e-2, 5.853852, 3.550079, 9.850758,
]  # fmt: skip
"""`solve_many(pendulum, starts, num_starts=8, seed=1)` for 32 starts of seed 0: 50 s on two cores."""


@case("optimum of a comparison", "the best of eight guesses by multiple shooting for each start, solved once")
def best_known() -> Iterator[Row]:
    p = optctl.make("pendulum")
    usual = solve(p, p.initial_state.sample(np.random.default_rng(0), len(BEST_PENDULUMS)))
    above = usual.values > np.array(BEST_PENDULUMS) * (1 + 1e-3) + 1e-6
    yield true(
        "32 pendulums",
        "none above eight guesses each",
        not above.any(),
        f"{int(above.sum())} above, {usual.values.mean():.6g} to {np.mean(BEST_PENDULUMS):.6g}",
    )
