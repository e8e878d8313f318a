"""Bilinear problems with quadratic costs, quantum control above all: their numbers, guesses and certificates.

    ẋ = A(u) x,  A(u) = A₀ + Σ_k u_k A_k,  J = c₀ + ½ x(T)'Q x(T) + ∫ ½ x'R x + ½ u'M u + m'u dt,  u_low ≤ u ≤ u_high

with u held over each of S slots. Affine terms (an open system's drive, a linear fidelity) are entries of a matrix for (x, 1). The
method is GRAPE for thousands of guesses, then Newton's (batched/bilinear.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import casadi as ca
import numpy as np

from optctl.problem import Problem
from optctl.problem.controller import check_params, check_states
from optctl.problem.structure import unconstrained
from optctl.problem.trajectory import Trajectory
from optctl.solvers.certificates import checked_one, gradient_functions, violation
from optctl.solvers.solution import Certificate, Solution, Status


@dataclass(frozen=True, kw_only=True, eq=False)
class Bilinear:
    """The numbers of a bilinear problem; E systems share the pulse and their mean cost counts."""

    generators: np.ndarray
    """A₀, A_1, … (E, K+1, n, n)."""
    start: np.ndarray
    """x(0) (n,), or one for each member (B, n)."""
    final: np.ndarray
    """Q (n, n)."""
    running: np.ndarray
    """R (n, n)."""
    effort: np.ndarray
    """M, then m as the last row (K+1, K)."""
    constant: float
    duration: float
    slots: int
    low: np.ndarray
    """(K,)."""
    high: np.ndarray
    scale: np.ndarray
    """How large a control without bounds typically is, (K,)."""

    @cached_property
    def norms(self) -> np.ndarray:
        """√(‖A‖₁ ‖A‖_∞) ≥ ‖A‖₂ of every generator, (E, K+1)."""
        size = np.abs(self.generators)
        return np.sqrt(size.sum(axis=-1).max(axis=-1) * size.sum(axis=-2).max(axis=-1))

    @cached_property
    def span(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest control (K,), ± `scale` where one of them is infinite."""
        bounded = np.isfinite(self.low) & np.isfinite(self.high)
        return np.where(bounded, self.low, -self.scale), np.where(bounded, self.high, self.scale)

    @property
    def half(self) -> np.ndarray:
        """Half of the span: the unit of a control, (K,)."""
        return 0.5 * (self.span[1] - self.span[0])

    @property
    def unbounded(self) -> Bilinear:
        """The same without bounds, in the same units."""
        infinite = np.full_like(self.low, np.inf)
        return replace(self, low=-infinite, high=infinite, scale=self.half)

    def replace(self, **changes: Any) -> Bilinear:
        return replace(self, **changes)


def bilinear(problem: Problem, params: np.ndarray | None = None, x0: np.ndarray | None = None) -> Bilinear | None:
    """The numbers of `problem` at each of `params` (E, n_p), from x0 (n_x,) or (B, n_x); `None` where it is something else.

    Taken are problems that the exact propagator steps, whose controls multiply states and enter linearly, with costs quadratic in states
    and controls and bounds on controls only. Several parameters must leave the costs alone.
    """
    if (
        problem.discrete
        or problem.integrator != "exponential"
        or problem.horizon != "finite"
        or not unconstrained(problem)
    ):
        return None
    x, u, p, t, n, k = problem.x, problem.u, problem.p, problem.t, problem.n_x, problem.n_u
    assert problem.dynamics_function is not None  # not discrete
    rate, cost = problem.dynamics_function(x, u, p, t), problem.stage_cost_function(x, u, p, t)
    end = problem.terminal_cost_function(x, p, problem.duration)
    z, zero = ca.vertcat(x, u), lambda e: ca.substitute(e, ca.vertcat(x, u), ca.SX.zeros(n + k))
    affine = ca.blockcat([[ca.jacobian(rate, x), ca.substitute(rate, x, ca.SX.zeros(n))], [ca.SX(1, n), ca.SX(1, 1)]])
    by_controls = ca.jacobian(ca.vec(affine), u)
    (stage, stage_slope), (last, last_slope) = ca.hessian(cost, z), ca.hessian(end, x)
    if (
        ca.depends_on(ca.vec(affine), ca.vertcat(x, t))
        or any(ca.depends_on(ca.vec(m), ca.vertcat(z, t)) for m in (by_controls, stage, last))
        or ca.depends_on(cost, t)
        or ca.jacobian(ca.vec(affine[:n, :n]), u).nnz() == 0  # linear
        or stage[:n, n:].nnz()
    ):
        return None
    pieces = ca.Function(
        "pieces",
        [p],
        [ca.densify(zero(e)) for e in (affine, by_controls, stage, stage_slope, cost, last, last_slope, end)],
    )
    rows = check_params(problem, params, 1 if params is None else len(np.atleast_2d(params)))
    values = [np.stack(a) for a in zip(*([np.asarray(a) for a in pieces(row)] for row in rows), strict=True)]
    drift, driven, *costs = values
    if any((a != a[0]).any() for a in costs):
        return None
    stage_h, stage_g, stage_c, last_h, last_g, last_c = (a[0] for a in costs)
    generators = np.concatenate([drift[:, None], driven.reshape(-1, n + 1, n + 1, k).transpose(0, 3, 2, 1)], axis=1)
    bordered = lambda h, g: np.block([[h, g], [g.T, np.zeros((1, 1))]])
    final, running = bordered(last_h, last_g), bordered(stage_h[:n, :n], stage_g[:n])
    somewhere = [np.linspace(-0.9, 0.4, size) for size in (n, k)]
    said = [float(f) for f in ca.Function("said", [x, u, p], [ca.sum1(rate), cost, end])(*somewhere, rows[0])]
    q, w = np.append(somewhere[0], 1.0), somewhere[1]
    held = np.tensordot(np.append(1.0, w), generators[0], axes=1) @ q
    parts = [
        held.sum(),
        0.5 * q @ running @ q + (0.5 * stage_h[n:, n:] @ w + stage_g[n:, 0]) @ w + stage_c.item(),
        0.5 * q @ final @ q + last_c.item(),
    ]
    if not np.allclose(said, parts, rtol=1e-9, atol=1e-9):  # rounded or kinked, which no derivative shows
        return None
    start = check_states(problem, problem.initial_state.location if x0 is None else x0)
    start = np.concatenate([start, np.ones((len(start), 1))], axis=1)
    if not (generators[..., n].any() or final[n].any() or running[n].any()):  # nothing affine
        generators, final, running, start = generators[..., :n, :n], final[:n, :n], running[:n, :n], start[:, :n]
    return Bilinear(
        generators=generators,
        start=start[0] if len(start) == 1 else start,
        final=final,
        running=running,
        effort=np.concatenate([stage_h[n:, n:], stage_g[n:].T]),
        constant=float(last_c.item() + problem.duration * stage_c.item()),
        duration=problem.duration,
        slots=problem.steps,
        low=problem.control_low,
        high=problem.control_high,
        scale=np.maximum(np.abs(problem.action_low), np.abs(problem.action_high)),
    )


def random_pulses(system: Bilinear, num: int, seed: int = 0) -> np.ndarray:
    """(num, S, K): uniform over 3 to 100 % of the way to the bounds and held over 1, 2, 4, … or all slots: a size and a pace for each
    member. Member i depends on (seed, i) alone."""
    low, high = system.span
    pulses = np.empty((num, system.slots, len(low)))
    for i in range(num):
        rng = np.random.default_rng([seed, i])
        size, pieces = (
            0.03 ** rng.uniform(),
            min(system.slots, 2 ** int(rng.integers(0, 2 + system.slots.bit_length()))),
        )
        held = rng.uniform(-1, 1, (pieces, len(low)))[np.arange(system.slots) * pieces // system.slots]
        pulses[i] = 0.5 * (low + high) + 0.5 * (high - low) * size * held
    return pulses


def certified(problem: Problem, x0: np.ndarray, controls: np.ndarray, p: np.ndarray) -> Solution:
    """The rollout of `controls` (S, K), its costates and its certificate, all by the problem's own step function."""
    inner, end_gradient = gradient_functions(problem)
    u = np.clip(controls, problem.control_low, problem.control_high)
    states, costs, t = [x0], [], np.arange(problem.steps + 1) * problem.dt
    for k in range(problem.steps):
        after, cost = problem.step_function(states[-1], u[k], p, t[k])
        states.append(np.asarray(after).ravel())
        costs.append(float(cost))
    x = np.array(states)
    costates, slopes = [np.asarray(end_gradient(x[-1], p, t[-1])).ravel()], []
    for k in reversed(range(problem.steps)):
        _, _, h_x, h_u = inner(x[k], u[k], p, t[k], problem.dt, costates[-1])
        costates.append(np.asarray(h_x).ravel())
        slopes.append(np.asarray(h_u).ravel())
    slope = np.array(slopes[::-1])
    end = float(problem.terminal_cost_function(x[-1], p, t[-1]))
    trajectory = Trajectory(
        times=t,
        states=x,
        controls=u,
        costs=np.array(costs),
        terminal_cost=np.asarray(end),
        costates=np.array(costates[::-1]),
    )
    residual = float(np.abs(u - np.clip(u - slope, problem.control_low, problem.control_high)).max())
    value = float(trajectory.total_cost)
    status = Status.CONVERGED if residual <= 1e-6 * (1 + abs(value)) else Status.STALLED
    status = status if np.isfinite(value) else Status.DIVERGED
    return Solution(
        problem=problem.name,
        solver="grape",
        trajectory=trajectory,
        status=status,
        wall_time=0.0,
        certificate=Certificate(
            defect=0.0,
            stationarity=residual,
            costate_defect=0.0,
            transversality=0.0,
            constraint_violation=violation(problem, x, u, p, t),
            **checked_one(problem, trajectory, p),
        ),
    )
