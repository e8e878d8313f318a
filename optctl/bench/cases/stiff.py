"""Cases of stiff plants and steps that are too coarse."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import casadi as ca
import numpy as np
import torch
from scipy.integrate import solve_ivp

import optctl
from optctl import Fixed, Problem, Uniform
from optctl.bench.cases.rows import CLAIMS, Cases, Row, decay, honest, near, optimum, problem, solve, true
from optctl.hybrid import dataset as demos
from optctl.interop import from_state_space
from optctl.solvers import lqr

CASES = Cases()


@CASES.case("stiff decay, exponential step", "closed form")
def stiff_decay() -> Iterator[Row]:
    p = decay(50.0)
    yield near("x after one step from 1", math.exp(-10), p.step_function(1.0, 0.0, [], 0.0)[0], 1e-9)
    yield near("feedback gain of the held plant", 0.0, lqr(p).K.ravel()[0], absolute=1e-3)
    for solution, x0 in zip(solve(p, [[1.0], [0.5]]), (1.0, 0.5), strict=True):
        yield optimum(f"cost from {x0}", solution, x0**2 / 100, 1e-2)
    comparison = optctl.compare(p, ["optimal", "zero"], num_starts=4)
    costs = comparison["zero"].costs[0] / comparison.starts[:, 0] ** 2
    yield near("cost of no control, over x0²", 0.01, costs.max(), 1e-3)
    yield true("optimum not above no control", "at most 0.01", (comparison["optimal"].costs <= comparison["zero"].costs * 1.001).all(),
               comparison["optimal"].costs.max())  # fmt: skip
    faster = decay(1000.0)
    yield near(
        "twenty times stiffer: x after one step", 0.0, faster.step_function(1.0, 0.0, [], 0.0)[0], absolute=1e-12
    )
    yield optimum("twenty times stiffer: cost from 1", solve(faster, [1.0]), 1 / 2000, 1e-2)


@CASES.case("stiff decay, classical Runge-Kutta", "∫ e^{−100 t} dt = 0.01")
def stiff_decay_explicit() -> Iterator[Row]:
    p = decay(50.0, integrator="rk4")
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


@CASES.case("reaction that the step cannot follow", "published (Luus): 0.1331; held controls: 0.13317")
def fast_reaction() -> Iterator[Row]:
    p = _tank()
    yield optimum("one start", solve(p, [0.09, 0.09]), TANK)
    for i, solution in enumerate(solve(p, [[0.09, 0.09], [0.09, 0.09]])):
        yield honest(f"member {i} of a batch", solution, TANK)
    batch = solve(p, [[0.09, 0.09], [0.1, 0.1]])
    members = [s.verdict.value in CLAIMS for s in batch]
    yield true("`certified` of a batch", str(members), batch.certified.tolist() == members, batch.certified.tolist())


@CASES.case(
    "reaction that the step cannot follow, as demonstrations",
    "every stored one, integrated again, must be a trajectory",
)
def fast_reaction_stored() -> Iterator[Row]:
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


@CASES.case("reaction beside a large constant state", "a state that nothing touches changes nothing: 0.13317")
def beside_large() -> Iterator[Row]:
    p = _tank()
    rate: Any = p.dynamics
    large = problem("tank-pressure", 3, 1, dynamics=lambda x, u, q: [*rate(x, u, q), 0], stage_cost=p.stage_cost, dt=p.dt,
                    steps=p.steps, initial_state=Fixed([0.09, 0.09, 100.0]))  # fmt: skip
    yield optimum("one start", solve(large, [0.09, 0.09, 100.0]), TANK)
    for i, solution in enumerate(solve(large, [[0.09, 0.09, 100.0]] * 2)):
        yield honest(f"member {i} of a batch", solution, TANK)


@CASES.case("valve with a root of infinite slope", "an interval that cannot be integrated again certifies nothing")
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


@CASES.case("stiff linear plant of four states", "python-control: lqr of the continuous plant")
def stiff_plant() -> Iterator[Row]:
    import control

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


@CASES.case("oscillator too stiff for the step", "solving never raises for want of convergence")
def lost_batch() -> Iterator[Row]:
    p = problem("stiff-oscillator", 2, 1, dynamics=lambda x, u, q: [x[1], 50 * (1 - x[0] ** 2) * x[1] - x[0] + u[0]], dt=0.05, steps=60,
                stage_cost=lambda x, u, q: x[0] ** 2 + 0.1 * u[0] ** 2, initial_state=Fixed([1.0, 0.0]),
                control_bounds={"u0": (-5.0, 5.0)})  # fmt: skip
    batch = solve(p, [[1.0, 0.0]] * 4)
    yield true("four equal starts", "an answer", len(batch) == 4, f"{len(batch)} members", batch[0].verdict.value)
