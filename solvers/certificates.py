"""Whether a solution is what it claims: one set of checks and one judge for single solutions, batches, comparisons and demonstrations.

A solver minimises the problem's own discrete step. Three things can make such a minimum worthless, and are measured here for whole
batches, independently of the solver that found it:

* **The step is not the plant.** Every interval is integrated again by DOP853 with the control held. The mismatches d_k add up over
  the horizon, and are judged beside the range of each state by itself: Σ_k |d_ki| / range_i (`accumulated`).
* **The cost is not the plant's.** To first order the mismatches change the optimal cost by Σ λ_{k+1}'d_k, and the quadrature by
  Σ (l − l_k): their sum beside the cost is `cost_defect`.
* **The cost ran away.** Residuals are compared with 1 + |J|. Where a control is unbounded, |J| counts only as far as the cost of
  doing nothing, so that a runaway cost does not excuse its own gradient (`cost_scale`).

`judge` turns residuals into a `Verdict`; docs/verdicts.md says what each promises.
"""

from __future__ import annotations

from collections.abc import Callable

import casadi as ca
import numpy as np
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from optctl.problem import Problem
from optctl.problem.held import hold
from optctl.problem.trajectory import Trajectory
from optctl.shared import kept
from optctl.solvers.batch import Batched
from optctl.solvers.solution import Status

_COLUMNS = 40_000
"""Intervals that are integrated together."""
_CALLS = 2000
"""Evaluations of the dynamics for one interval, at most, in units of its substeps; DOP853 takes 12 a step."""
_RELATIVE, _ABSOLUTE = 1e-9, 1e-10
"""Tolerances of the integration, beside the size of each state."""
_SMALLEST = 1e-9
"""A state's range counts as at least this fraction of the largest state."""
_OFFSET = 1e-6
"""… and as at least this fraction of its own size: rounding of a state that hardly moves."""


@kept
def _rates(problem: Problem) -> tuple[Batched, Batched | None]:
    """(x, u, p, t, s) → [ẋ, l], and (u, p, s) → [A, b] where ẋ = A x + b; s is the middle of the interval, where data are read."""
    x, u, p, t, middle = problem.x, problem.u, problem.p, problem.t, ca.SX.sym("middle")
    f, cost = hold(problem.rate_function)(x, u, p, t, middle)
    a = ca.jacobian(f, x)
    affine = not (ca.depends_on(ca.vec(a), x) or ca.depends_on(f, t))
    parts = [ca.densify(a), ca.densify(ca.substitute(f, x, ca.SX.zeros(problem.n_x)))]
    return (
        Batched(ca.Function("rates", [x, u, p, t, middle], [ca.densify(ca.vertcat(f, cost))])),
        Batched(ca.Function("affine", [u, p, middle], parts), sequences=(0,)) if affine else None,
    )


def mismatches(problem: Problem, trajectory: Trajectory, params: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x(t_{k+1}) − x_{k+1} (B, N, n_x) and ∫l − l_k (B, N) when every interval is integrated again from the trajectory's own nodes.

    `trajectory` has a batch axis, `params` is (1 or B, n_p). Continuous: DOP853 with the control held; intervals of affine dynamics that
    are too stiff for it by the matrix exponential (their costs are taken as they are). Discrete: the problem's transition. NaN where
    the numbers end or the accuracy cannot be had.
    """
    x, u = trajectory.states, trajectory.controls
    num, steps, n_x = len(x), u.shape[1], problem.n_x
    times = np.broadcast_to(trajectory.times, (num, steps + 1))
    p = np.broadcast_to(params, (num, problem.n_p))
    if problem.discrete:
        flat = lambda a: a.reshape(num * steps, -1).T
        after, cost = problem.step_function(
            flat(x[:, :-1]), flat(u), np.repeat(p, steps, axis=0).T, flat(times[:, :-1])
        )
        gaps = np.asarray(after).T.reshape(num, steps, n_x) - x[:, 1:]
        return gaps, np.asarray(cost).reshape(num, steps) - trajectory.costs
    gaps, costs = np.full((num, steps, n_x), np.nan), np.full((num, steps), np.nan)
    sound = np.flatnonzero(
        np.isfinite(x).all(axis=(1, 2)) & np.isfinite(u).all(axis=(1, 2)) & np.isfinite(times).all(axis=1)
    )
    pending = list(np.array_split(sound, -(-len(sound) * steps // _COLUMNS))) if len(sound) else []
    while pending:
        part = pending.pop()
        found = _again(problem, x[part], u[part], p[part], times[part])
        if found is not None:
            gaps[part] = found[..., :n_x] - x[part, 1:]
            costs[part] = found[..., n_x] - trajectory.costs[part]
        elif len(part) > 1:  # one member spoils it for its neighbours
            pending += np.array_split(part, 2)
        else:
            states = _propagated(problem, x[part], u[part], p[part], times[part])
            if states is not None:
                gaps[part], costs[part] = states - x[part, 1:], 0.0
    return gaps, costs


def _again(problem: Problem, x: np.ndarray, u: np.ndarray, p: np.ndarray, times: np.ndarray) -> np.ndarray | None:
    """(x(t_{k+1}), ∫l) of every interval (B, N, n_x + 1) by DOP853; `None` where it fails for one."""
    num, steps, _ = u.shape
    n, n_x, h = num * steps, problem.n_x, np.diff(times).reshape(-1, 1)
    size = np.maximum(state_ranges(x), np.abs(x).max(axis=1))  # (B, n_x)
    unit = np.repeat(np.column_stack([np.where(size > 0, size, 1.0), np.ones(num)]), steps, axis=0)
    held, parameters, begin = u.reshape(n, -1), np.repeat(p, steps, axis=0), times[:, :-1].reshape(n, 1)
    rate = _rates(problem)[0]

    class Hopeless(Exception):
        pass

    calls, most = 0, max(_CALLS, 30 * problem.substeps)

    def scaled(s: float, flat: np.ndarray) -> np.ndarray:  # all intervals at once, s = fraction of the interval
        nonlocal calls
        calls += 1
        y = flat.reshape(n, n_x + 1) * unit
        value = h * rate(y[:, :n_x], held, parameters, begin + s * h, begin + 0.5 * h)[0] / unit
        if calls > most or not np.isfinite(value).all():
            raise Hopeless
        return value.ravel()

    start = np.column_stack([x[:, :-1].reshape(n, n_x), np.zeros(n)]) / unit
    try:
        with np.errstate(all="ignore"):
            run = solve_ivp(scaled, (0.0, 1.0), start.ravel(), method="DOP853", rtol=_RELATIVE, atol=_ABSOLUTE)
    except Hopeless:
        return None
    return (run.y[:, -1].reshape(n, n_x + 1) * unit).reshape(num, steps, n_x + 1) if run.success else None


def _propagated(problem: Problem, x: np.ndarray, u: np.ndarray, p: np.ndarray, times: np.ndarray) -> np.ndarray | None:
    """x(t_{k+1}) (1, N, n_x) by exp(h [[A, b], [0, 0]]) for affine dynamics; `None` for others."""
    affine, n_x, steps = _rates(problem)[1], problem.n_x, u.shape[1]
    if affine is None:
        return None
    middle = 0.5 * (times[0, :-1] + times[0, 1:])[:, None]
    a, b = affine(u.reshape(steps, -1), np.repeat(p, steps, axis=0), middle)
    block = np.zeros((steps, n_x + 1, n_x + 1))
    block[:, :n_x, :n_x], block[:, :n_x, n_x] = np.swapaxes(a, 1, 2), b
    with np.errstate(all="ignore"):
        after = (
            expm(block * np.diff(times).reshape(steps, 1, 1))
            @ np.append(x[0, :-1], np.ones((steps, 1)), axis=1)[..., None]
        )
    return after[None, :, :n_x, 0] if np.isfinite(after).all() else None


def state_ranges(states: np.ndarray) -> np.ndarray:
    """How far each state moves along its trajectory, (B, n_x) for (B, N+1, n_x): what its errors are measured by."""
    size = np.abs(states).max(axis=1)
    return np.maximum(np.ptp(states, axis=1), np.maximum(_OFFSET * size, _SMALLEST * size.max(axis=1, keepdims=True)))


def accumulated(gaps: np.ndarray, states: np.ndarray) -> np.ndarray:
    """max_i Σ_k |d_ki| / range_i (B,): by how much the mismatches of all intervals may displace a state, beside its range."""
    total, size = np.abs(gaps).sum(axis=1), state_ranges(states)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total == 0, 0.0, total / size).max(axis=1)


def cost_scale(problem: Problem, trajectory: Trajectory, params: np.ndarray) -> np.ndarray:
    """What residuals are compared with, (B,): 1 + |J|, where a control is unbounded no more than 1 + |J| of doing nothing."""
    size = np.abs(trajectory.total_cost)
    if np.isfinite(problem.control_low).all() and np.isfinite(problem.control_high).all():
        return 1.0 + size
    num, steps = len(trajectory.states), trajectory.controls.shape[1]
    p, rest = np.broadcast_to(params, (num, problem.n_p)), problem.resting_control[:, None]
    x, total = trajectory.states[:, 0].T, np.zeros(num)
    times = np.broadcast_to(trajectory.times, (num, steps + 1)).T
    with np.errstate(all="ignore"):
        for k in range(steps):
            h = times[k + 1] - times[k]
            inputs = (x, rest, p.T, times[None, k])
            x, cost = (
                problem.step_function(*inputs) if problem.discrete else problem.interval_function(*inputs, h[None])
            )
            x, total = np.asarray(x), total + np.asarray(cost).ravel()
        if problem.horizon == "finite":
            total = total + np.asarray(problem.terminal_cost_function(x, p.T, times[None, -1])).ravel()
    total = np.where(np.isfinite(total), np.abs(total), np.inf)
    return 1.0 + np.minimum(size, np.maximum(total, 1.0))


def checked(problem: Problem, trajectory: Trajectory, params: np.ndarray) -> dict[str, np.ndarray]:
    """`resimulation`, `accumulated`, `cost_defect` and `cost_scale` of every member, (B,) each."""
    gaps, costs = mismatches(problem, trajectory, params)
    scale = cost_scale(problem, trajectory, params)
    change = costs.sum(axis=1)
    if trajectory.costates is not None:
        along = np.einsum("bki,bki->b", np.nan_to_num(trajectory.costates[:, 1:], posinf=0.0, neginf=0.0), gaps)
        change = change + along
    return {
        "resimulation": np.abs(gaps).max(axis=(1, 2)),
        "accumulated": accumulated(gaps, trajectory.states),
        "cost_defect": np.abs(change) / scale,
        "cost_scale": scale,
    }


def checked_one(problem: Problem, trajectory: Trajectory, params: np.ndarray) -> dict[str, float]:
    """`checked` for one trajectory: entries of its certificate."""
    found = checked(problem, Trajectory.stack([trajectory]), np.atleast_2d(params))
    return {name: float(values[0]) for name, values in found.items()}


# --- residuals of single trajectories -----------------------------------------------------------------------------------


def violation(problem: Problem, states: np.ndarray, controls: np.ndarray, p: np.ndarray, times: np.ndarray) -> float:
    """Largest violation of bounds, path and terminal constraints along one trajectory."""
    worst = [
        0.0,
        float(np.max(problem.control_low - controls, initial=0.0)),
        float(np.max(controls - problem.control_high, initial=0.0)),
        float(np.max(problem.state_low - states[1:], initial=0.0)),
        float(np.max(states[1:] - problem.state_high, initial=0.0)),
    ]
    if problem.path_constraint_function is not None:
        c = problem.path_constraint_function(states[:-1].T, controls.T, p, times[None, :-1])
        worst.append(float(np.max(np.asarray(c), initial=0.0)))
    if problem.last_constraint_function is not None:
        worst.append(float(np.max(np.asarray(problem.last_constraint_function(states[-1], p, times[-1])))))
    if problem.terminal_constraint_function is not None:
        e = problem.terminal_constraint_function(states[-1], p, times[-1])
        worst.append(float(np.max(np.abs(np.asarray(e)), initial=0.0)))
    return float(np.max(worst))


def complementarity(w: np.ndarray, multiplier: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """|multiplier · slack| of low ≤ w ≤ high, entry by entry: a negative multiplier pushes towards `low`, as in ∇L + z = 0."""
    slack = np.where(multiplier < 0, w - low, high - w)
    return np.where(np.isfinite(slack), np.abs(multiplier * np.where(np.isfinite(slack), slack, 0.0)), 0.0)


def resimulation(problem: Problem, trajectory: Trajectory, p: np.ndarray) -> float:
    """Largest state mismatch of one trajectory when every interval is integrated again: `certificates.mismatches`."""
    return float(np.abs(mismatches(problem, Trajectory.stack([trajectory]), np.atleast_2d(p))[0]).max())


def integrated(rate: Callable[[float, np.ndarray], np.ndarray], y0: np.ndarray) -> np.ndarray:
    """y(1) of ẏ = rate(s, y) by DOP853, to 1e-11; NaN where the numbers end or that accuracy cannot be had in 2000 calls."""

    class Hopeless(Exception):
        pass

    calls = 0

    def guarded(s: float, y: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        value = rate(s, y)
        if calls > 2000 or not np.isfinite(value).all():
            raise Hopeless
        return value

    try:
        return solve_ivp(guarded, (0.0, 1.0), y0, method="DOP853", rtol=1e-11, atol=1e-12).y[:, -1]
    except Hopeless:
        return np.full_like(y0, np.nan)


def ruled_out(problem: Problem, states: np.ndarray, controls: np.ndarray) -> tuple[Status, str] | None:
    """What no convergence makes good: a start outside the state bounds, or an unbounded control that ran away."""
    outside = np.maximum(problem.state_low - states[0], states[0] - problem.state_high)
    if (outside > 1e-9 * (1 + np.abs(states[0]))).any():
        name = list(problem.state)[int(np.argmax(outside))]
        return Status.INFEASIBLE, f"the start is outside the bounds of `{name}`"
    if runs_away(problem, controls):
        return Status.UNBOUNDED, ""
    return None


def runs_away(problem: Problem, controls: np.ndarray) -> bool:
    """Some control is beyond 1e8 times its scale."""
    scale = np.maximum(np.abs(problem.action_low), np.abs(problem.action_high))
    return bool(np.max(np.abs(controls) / scale, initial=0.0) > 1e8)


def gradient_functions(problem: Problem) -> tuple[ca.Function, ca.Function]:
    """(x, u, p, t, h, λ⁺) → (x⁺, l, H_x, H_u) of one interval, and (x, p, t) → φ_x."""
    x, u, p, t = problem.x, problem.u, problem.p, problem.t
    h, costate = ca.SX.sym("h"), ca.SX.sym("costate", problem.n_x)
    after, cost = problem.interval_function(x, u, p, t, h)
    hamiltonian = cost + ca.dot(costate, after)
    inner = ca.Function(
        "h_gradients", [x, u, p, t, h, costate], [after, cost, ca.gradient(hamiltonian, x), ca.gradient(hamiltonian, u)]
    )
    end = problem.terminal_cost_function(x, p, t)
    return inner, ca.Function("terminal_gradient", [x, p, t], [ca.densify(ca.gradient(end, x))])
