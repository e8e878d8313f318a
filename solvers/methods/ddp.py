"""Differential dynamic programming for thousands of starts at once: min Σ l(x, u) + φ(x_N), x⁺ = F(x, u), u_low ≤ u ≤ u_high.

Two phases. Interior: a primal-dual barrier whose weight b falls geometrically finds the active bounds without zigzag. Clamped:
Newton steps on the free controls end exactly on the bounds, and with a projected gradient at rounding level. Every iterate is a
rollout of the problem's own step, so the defect is zero throughout. Equations and sources: sweeps.py. Here the host drives the
sweeps that it is given; `batched/ddp.py` does the whole solve in one kernel, and `batched/choice.py` chooses between them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np

from optctl.problem import Problem
from optctl.solvers.methods.sweeps import CONVEX, EXACT, NO_BOUND, UNDAMPED, Sweeps, sweeps

Bundle = Callable[[Problem, int], Sweeps]
"""(problem, intervals) → its sweeps: `sweeps.sweeps`, or tiles for larger systems."""

GAUSS_NEWTON_DAMPING = 1e-6
"""μ where the exact model broke down: Q_uu of the convex one may be singular."""
STATIONARY = 1e-6
"""Projected gradient in units of 1 + |J| up to which a trajectory is an extremal, though no step improves it any more."""


@dataclass
class DdpResult:
    """Batched solution: everything numpy, batch first."""

    states: np.ndarray
    controls: np.ndarray
    costs: np.ndarray
    terminal_cost: np.ndarray
    gradient: np.ndarray
    """Projected gradient |u − clip(u − H_u)|, largest over time, (B,)."""
    converged: np.ndarray
    iterations: np.ndarray
    gains: np.ndarray
    """K (B, N, n_u, n_x), `expansion`."""
    costates: np.ndarray
    """V_x (B, N+1, n_x): the gradient of the optimal cost where the trajectory is an extremal (`gradients`)."""
    hessians: np.ndarray
    """P = V_xx (B, N+1, n_x, n_x)."""

    @property
    def value(self) -> np.ndarray:
        return _total(self.costs, self.terminal_cost)

    def take(self, index: np.ndarray) -> Self:
        return type(self)(**{name: value[index] for name, value in self.__dict__.items()})


def _total(costs: np.ndarray, end: np.ndarray) -> np.ndarray:
    total = costs.sum(axis=1) + end
    return np.where(np.isfinite(total), total, np.inf)


@dataclass(frozen=True)
class Engine:
    """Who sweeps, for whatever solves many starts; the caller's choice (`batched.choice`)."""

    kernels: bool
    """Whether solving every guess costs less than choosing among them."""
    solve: Callable[..., DdpResult]
    """Called as `solve_ddp`."""
    bundle: Bundle
    kernel: Callable[[Problem], Callable[..., DdpResult] | None]
    """problem → `batched.ddp.solve_ddp`, `None` where it has no kernel."""


@dataclass
class _Batch:
    """The iterates of one solve."""

    f: Sweeps
    x: np.ndarray
    u: np.ndarray
    c: np.ndarray
    e: np.ndarray
    p: np.ndarray
    low: np.ndarray
    high: np.ndarray
    logs: np.ndarray

    @property
    def value(self) -> np.ndarray:
        return _total(self.c, self.e)

    def forward(self, i, k, gain, alpha, margin):
        new = self.f.forward(
            self.x[i], self.u[i], k, gain, alpha[:, None], self.p[i], self.low, self.high, np.full((1, 1), margin)
        )
        return new.states, new.controls, new.costs.reshape(len(i), -1), new.terminal_cost[:, 0], new.logs[:, 0]

    def search(self, i, k, gain, slope, weight, margin):
        """Backtracking on cost − weight · logs for the members i: (accepted, α, |change| at rounding level)."""
        start = self.value[i] - weight * self.logs[i] if margin else self.value[i]
        alpha, open_ = np.ones(len(i)), np.isfinite(k.sum(axis=(1, 2)) + gain.sum(axis=(1, 2)))
        accepted, still = np.zeros(len(i), dtype=bool), np.zeros(len(i), dtype=bool)
        for _ in range(5):
            j = np.flatnonzero(open_)
            if not len(j):
                break
            x, u, c, e, logs = self.forward(i[j], k[j], gain[j], alpha[j], margin)
            merit = _total(c, e) - (weight[j] * logs if margin else 0.0)
            expected = -(alpha[j] * slope[j, 0] + alpha[j] ** 2 * slope[j, 1])
            rounding = np.abs(merit - start[j]) <= 1e-13 * (1 + np.abs(start[j]))
            ok = np.isfinite(merit) & ((merit <= start[j] - 1e-4 * np.maximum(expected, 0)) | rounding)
            a = i[j[ok]]
            self.x[a], self.u[a], self.c[a], self.e[a], self.logs[a] = x[ok], u[ok], c[ok], e[ok], logs[ok]
            accepted[j[ok]], still[j[ok]], open_[j[ok]] = True, rounding[ok], False
            alpha[j[~ok]] *= 0.3
        return accepted, alpha, still


class _Damping:
    """μ of each member: up by growing factors after a failed search, down to 0 after successes (Tassa et al., §II-F)."""

    def __init__(self, num: int) -> None:
        self.mu, self.factor = np.zeros(num), np.ones(num)

    def update(self, i: np.ndarray, accepted: np.ndarray) -> None:
        up, down = i[~accepted], i[accepted]
        self.factor[up] = np.maximum(2.0, 2.0 * self.factor[up])
        self.mu[up] = np.maximum(1e-4, self.mu[up] * self.factor[up])
        self.factor[down] = np.minimum(0.5, 0.5 * self.factor[down])
        self.mu[down] *= self.factor[down]
        self.mu[self.mu < 1e-6] = 0.0


def rollout_controls(
    problem: Problem, x0: np.ndarray, controls: np.ndarray, p: np.ndarray, bundle: Bundle = sweeps
) -> tuple[np.ndarray, ...]:
    """States (B, N+1, n_x), stage costs (B, N), terminal cost (B,) of open-loop controls (B, N, n_u); p (1 or B, n_p)."""
    p = np.broadcast_to(p, (len(x0), problem.n_p))
    path = bundle(problem, controls.shape[1]).rollout(x0, controls, p)
    return path.states, path.costs.reshape(len(path.states), -1), path.terminal_cost[:, 0]


def follow_reference(
    problem: Problem, states: np.ndarray, controls: np.ndarray, p: np.ndarray, bundle: Bundle = sweeps
) -> DdpResult:
    """One pass of `solve_ddp(…, follow=True)` and no iteration: what tracking the reference costs."""
    return solve_ddp(problem, states, controls, p, follow=True, max_iterations=0, polish=0, bundle=bundle)


def solve_ddp(
    problem: Problem,
    states: np.ndarray,
    controls: np.ndarray,
    params: np.ndarray,
    *,
    follow: bool = False,
    tolerance: float = 1e-10,
    max_iterations: int = 150,
    barrier: float = 1e-2,
    polish: int = 20,
    low: np.ndarray | None = None,
    high: np.ndarray | None = None,
    bundle: Bundle = sweeps,
) -> DdpResult:
    """Iterate from reference trajectories `states` (B, N+1, n_x) and `controls` (B, N, n_u).

    With `follow`, the first pass tracks the reference by LQR feedback from `states[:, 0]`; otherwise only `states[:, 0]`
    counts and the controls are applied open loop. `barrier` is the first barrier weight relative to (1 + |J|)/N: small for a
    good guess. Converged: projected gradient at most tolerance · (1 + |J|). `bundle` gives the sweeps.
    """
    num, steps, _ = controls.shape
    n_x, n_u = problem.n_x, problem.n_u
    low = np.broadcast_to(problem.control_low if low is None else low, (1, n_u)).clip(-NO_BOUND, NO_BOUND)
    high = np.broadcast_to(problem.control_high if high is None else high, (1, n_u)).clip(-NO_BOUND, NO_BOUND)
    p = np.broadcast_to(params, (num, problem.n_p)).copy()
    f = bundle(problem, steps)
    zero = np.zeros((num, steps, n_u))
    batch = _Batch(
        f,
        states.copy(),
        np.clip(controls, low, high),
        np.zeros((num, steps)),
        np.zeros(num),
        p,
        low,
        high,
        np.zeros(num),
    )
    if follow:
        _track(batch, 0.0)
    else:
        feedback = np.zeros((num, steps, n_x * n_u))
        batch.x, batch.u, batch.c, batch.e, batch.logs = batch.forward(
            np.arange(num), zero, feedback, np.zeros(num), 0.0
        )

    iterations = np.zeros(num, dtype=int)
    if max_iterations and (high - low < 0.1 * NO_BOUND).any():
        iterations += _interior(batch, barrier, max_iterations)
    gradient, converged = _clamped(batch, tolerance, polish if iterations.any() else max_iterations, iterations)
    costates, hessians, gains = expansion(problem, batch.x, batch.u, p, low, high, bundle)
    return DdpResult(
        states=batch.x,
        controls=batch.u,
        costs=batch.c,
        terminal_cost=batch.e,
        gradient=gradient,
        converged=converged,
        iterations=iterations,
        costates=costates,
        gains=gains,
        hessians=hessians,
    )


def expansion(
    problem: Problem,
    states: np.ndarray,
    controls: np.ndarray,
    params: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    bundle: Bundle = sweeps,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """V_x (B, N+1, n_x), V_xx (B, N+1, n_x, n_x) and K (B, N, n_u, n_x) along trajectories: the exact second-order sweep, undamped.

    V_x is the derivative of the cost under the feedback, V_x = Q_x − K'Q_u with K = 0 at active bounds: what is left of Q_u, and
    rounding, decays through the closed loop, where the open-loop adjoint amplifies them along an unstable plant. Where V_xx or K do
    not stay finite they are those of the convex Gauss–Newton model; where V_x does not, it is the adjoint. `params`: (B, n_p).
    """
    (num, steps, n_u), n_x = controls.shape, problem.n_x
    f = bundle(problem, steps)
    exact = f.clamped(states, controls, params, UNDAMPED, low, high, EXACT)
    slopes, hessians, gains = exact.costates, exact.hessians, exact.gains
    finite = lambda array: np.isfinite(array).all(axis=(1, 2))
    broken, lost = ~(finite(hessians) & finite(gains)), ~finite(slopes)
    if broken.any():
        x, u, p = states[broken], controls[broken], params[broken]
        model = f.clamped(x, u, p, np.full((1, 1), GAUSS_NEWTON_DAMPING), low, high, CONVEX)
        hessians[broken], gains[broken] = model.hessians, model.gains
    if lost.any():
        slopes[lost] = f.adjoint(states[lost], controls[lost], params[lost]).costates
    return (
        slopes,
        hessians.reshape(num, steps + 1, n_x, n_x),
        np.swapaxes(gains.reshape(num, steps, n_x, n_u), -1, -2),
    )


def gradients(slopes: np.ndarray, stationarity: np.ndarray, tolerance: np.ndarray) -> np.ndarray:
    """The slopes V_x (B, N+1, n_x) that are gradients of the optimal cost; NaN for the others.

    What follows an instant of an extremal is an extremal from there (principle of optimality), and V_x is then the derivative of
    its cost, whatever led there. So λ_k is given where all intervals from k on are stationary: projected gradients `stationarity`
    (B, N) of at most `tolerance` (B,), which is NaN for none at all. At a kink that holds the controls (a clamped speed, the wrap of
    an angle) Q_u ≠ 0, and V_x depends on the side that K belongs to: it differs by (K₁ − K₂)'Q_u, and no λ before it is given.
    """
    open_ = ~(stationarity <= tolerance[:, None])
    before = np.logical_or.accumulate(open_[:, ::-1], axis=1)[:, ::-1]
    missing = np.concatenate([before, np.zeros((len(before), 1), dtype=bool)], axis=1)
    missing |= ~np.isfinite(slopes).all(axis=2) | np.isnan(tolerance)[:, None]
    return np.where(missing[..., None], np.nan, slopes)


def _interior(batch: _Batch, barrier: float, max_iterations: int) -> np.ndarray:
    """The barrier phase; leaves strictly interior controls. Returns iterations used."""
    f, low, high = batch.f, batch.low, batch.high
    num, steps, _ = batch.u.shape
    width = np.minimum(high - low, 1e3)
    unit = (1 + np.abs(np.where(np.isfinite(batch.value), batch.value, 1.0))) / steps
    b, floor = barrier * unit, 1e-8 * unit
    margin = min(0.02, 2 * barrier)
    batch.u = np.clip(batch.u, low + margin * width, high - margin * width)
    z_low, z_high = b[:, None, None] / (batch.u - low), b[:, None, None] / (high - batch.u)
    # stay near the reference by feedback: an open-loop rollout of the shifted controls would leave an unstable one
    _track(batch, 0.1)
    damping, iterations, active, idle = _Damping(num), np.zeros(num, dtype=int), np.isfinite(batch.value), np.zeros(num)
    for _ in range(max_iterations):
        i = np.flatnonzero(active)
        if not len(i):
            break
        inputs = lambda j, theta: (
            batch.x[j],
            batch.u[j],
            batch.p[j],
            damping.mu[j, None],
            low,
            high,
            theta,
            z_low[j],
            z_high[j],
            b[j, None],
        )
        k, gain, slope, residual = f.interior(*inputs(i, EXACT))
        indefinite = np.flatnonzero(~(residual[:, 2] > 0) | (damping.mu[i] > 0))
        if len(indefinite):
            replaced = f.interior(*inputs(i[indefinite], CONVEX))
            for array, new in zip((k, gain, slope, residual), replaced, strict=True):
                array[indefinite] = new
        # barrier subproblem solved well enough: shrink b (Wächter and Biegler 2006, eq. 7)
        easy = (residual[:, 0] * width.max() <= 10 * b[i]) & (residual[:, 1] <= 10 * b[i])
        finished = easy & (b[i] <= floor[i])
        active[i[finished]] = False
        shrink = easy & ~finished
        b[i[shrink]] = np.maximum(
            floor[i[shrink]], np.minimum(0.2 * b[i[shrink]], unit[i[shrink]] * (b[i[shrink]] / unit[i[shrink]]) ** 1.5)
        )
        go = ~easy
        i, k, gain, slope = i[go], k[go], gain[go], slope[go]
        iterations[i] += 1
        before = batch.u[i].copy()
        merit = batch.value[i] - b[i] * batch.logs[i]
        accepted, _, _ = batch.search(i, k, gain, slope, b[i], 0.005)
        slow = merit - (batch.value[i] - b[i] * batch.logs[i]) <= 1e-6 * (1 + np.abs(merit))
        idle[i] = np.where(slow, idle[i] + 1, 0)
        damping.update(i, accepted)
        a = i[accepted]
        du, s_low, s_high = batch.u[a] - before[accepted], before[accepted] - low, high - before[accepted]
        for z, s, sign, after in ((z_low, s_low, 1.0, batch.u[a] - low), (z_high, s_high, -1.0, high - batch.u[a])):
            dz = (b[a, None, None] - sign * z[a] * du) / s - z[a]
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = np.where(dz < 0, -0.995 * z[a] / dz, 1.0)
            new = z[a] + np.minimum(1.0, ratio.min(axis=(1, 2)))[:, None, None] * dz
            z[a] = np.clip(new, b[a, None, None] / (1e3 * after), 1e3 * b[a, None, None] / after)
        stuck = (damping.mu[i] > 1e6) | (idle[i] >= 3)
        # a stuck subproblem is left early with a smaller barrier; at the floor it ends
        leave = i[stuck]
        active[leave[b[leave] <= floor[leave]]] = False
        b[leave] = np.maximum(floor[leave], 1e-3 * b[leave])
        damping.mu[leave], damping.factor[leave], idle[leave] = 0.0, 1.0, 0
    return iterations


def _track(batch: _Batch, margin: float) -> None:
    """Replace the controls and states by a rollout that tracks them with LQR feedback: a consistent trajectory near the guess."""
    num = len(batch.u)
    x = np.where(np.isfinite(batch.x), batch.x, 0.0)
    spread = np.maximum(np.ptp(x, axis=1), 1e-3)
    width = np.minimum(batch.high - batch.low, 1e3)
    gain = batch.f.tracking(x, batch.u, batch.p, 1 / spread**2, np.broadcast_to(0.1 / width**2, (num, width.shape[1])))[
        0
    ]
    everyone = np.arange(num)
    batch.x, batch.u, batch.c, batch.e, batch.logs = batch.forward(
        everyone, np.zeros_like(batch.u), gain, np.zeros(num), margin
    )


def _clamped(
    batch: _Batch, tolerance: float, max_iterations: int, iterations: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Newton on the free controls: (projected gradient, converged)."""
    num = len(batch.u)
    damping, gradient = _Damping(num), np.full(num, np.inf)
    active, converged, idle = np.isfinite(batch.value), np.zeros(num, dtype=bool), np.zeros(num)
    for iteration in range(max_iterations + 1):
        i = np.flatnonzero(active)
        if not len(i):
            break
        exact = np.where(
            damping.mu[i, None] > 0, CONVEX, EXACT
        )  # after a failed search the convex model, which always descends
        back = batch.f.clamped(batch.x[i], batch.u[i], batch.p[i], damping.mu[i, None], batch.low, batch.high, exact)
        gradient[i] = np.where(np.isfinite(back.gradient[:, 0]), back.gradient[:, 0], np.inf)
        done = gradient[i] <= tolerance * (1 + np.abs(batch.value[i]))
        converged[i[done]], active[i[done]] = True, False
        go = ~done
        i, k, gain, slope = i[go], back.feed[go], back.gains[go], back.change[go]
        if iteration == max_iterations:
            break
        accepted, _, still = batch.search(i, k, gain, slope, np.zeros(len(i)), 0.0)
        iterations[i] += 1
        idle[i] = np.where(still | ~accepted, idle[i] + 1, 0)
        damping.update(i, accepted)
        active[i[(damping.mu[i] > 1e3) | (idle[i] >= 3)]] = False
    return gradient, converged
