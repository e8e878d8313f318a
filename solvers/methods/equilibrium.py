"""Where a problem wants to be, and where it has numbers: targets, and controls at which costs and gradients are finite."""

from __future__ import annotations

import weakref

import casadi as ca
import numpy as np

from optctl.problem import Problem

_NUMBERS: weakref.WeakKeyDictionary[Problem, tuple[ca.Function, ca.Function]] = weakref.WeakKeyDictionary()

_INNER = 1e-2
"""How far inside its bounds a guess is put, as IPOPT does it: in units of their distance, or of the control's scale."""

_MAGNITUDES = (-3, 3)
"""Powers of ten, in units of the control's scale, among which levels are sought."""


def target(problem: Problem, p: np.ndarray) -> np.ndarray | None:
    """Where the problem wants to be: e(x) = 0, or else the cheapest equilibrium. `None` where neither is found."""
    x, u = ca.SX.sym("x", problem.n_x), ca.SX.sym("u", problem.n_u)
    free = ca.vertcat(x, u)
    final = problem.duration
    low = np.concatenate([problem.state_low, problem.control_low])
    high = np.concatenate([problem.state_high, problem.control_high])
    if problem.terminal_constraint_function is not None:
        start = problem.initial_state.location + 0.5 * problem.initial_state.spread
        nlp = {
            "x": free,
            "f": 1e-6 * ca.sumsqr(x - start) + ca.sumsqr(u),
            "g": problem.terminal_constraint_function(x, p, final),
        }
    else:
        after, cost = problem.step_function(x, u, p, 0.0)
        nlp = {"x": free, "f": cost + problem.terminal_cost_function(x, p, final), "g": after - x}
    solver = ca.nlpsol(
        "target",
        "ipopt",
        nlp,
        {
            "ipopt": {"print_level": 0, "sb": "yes", "max_iter": 200},
            "print_time": False,
            "error_on_fail": False,
            "show_eval_warnings": False,
        },
    )
    rng = np.random.default_rng(0)
    best, best_cost = None, np.inf
    control, step = problem.resting_control, _numbers(problem)[0]
    first = problem.initial_state.location
    if not np.isfinite(float(step(first, control, p, 0.0, problem.dt))):
        control = next(iter(levels(problem, first, p)), control)
    for guess in problem.initial_state.sample(rng, 4):
        start = np.concatenate([guess, control])
        out = solver(x0=start, lbx=low, ubx=high, lbg=0.0, ubg=0.0)
        if solver.stats()["success"] and float(out["f"]) < best_cost - 1e-9:
            best, best_cost = np.asarray(out["x"]).ravel()[: problem.n_x], float(out["f"])
    return best


def _numbers(problem: Problem) -> tuple[ca.Function, ca.Function]:
    """(x, u, p, t, h) of an interval and (x, p, t) of the end → one number, finite where all values and first derivatives are."""
    if problem not in _NUMBERS:
        x, u, p, t, h = problem.x, problem.u, problem.p, problem.t, ca.SX.sym("h")
        path, last = problem.path_constraint_function, problem.terminal_constraint_function
        after, cost = problem.interval_function(x, u, p, t, h)
        terms = ca.sum1(after) + cost + (0 if path is None else ca.sum1(ca.vec(path(x, u, p, t))))
        finish = problem.terminal_cost_function(x, p, t) if problem.horizon == "finite" else ca.SX(0)
        finish += 0 if last is None else ca.sum1(ca.vec(last(x, p, t)))
        whole = lambda value, z: ca.densify(value + ca.sum1(ca.gradient(value, z)))
        _NUMBERS[problem] = (
            ca.Function("numbers", [x, u, p, t, h], [whole(terms, ca.vertcat(x, u))]),
            ca.Function("end_numbers", [x, p, t], [whole(finish, x)]),
        )
    return _NUMBERS[problem]


def finite(
    problem: Problem, states: np.ndarray, controls: np.ndarray, p: np.ndarray, final_time: float | None = None
) -> bool:
    """Whether dynamics, costs, constraints and their gradients are finite along states (N+1, n_x) and controls (N, n_u)."""
    interval, end = _numbers(problem)
    steps = len(controls)
    final = problem.duration if final_time is None else final_time
    times = np.arange(steps)[None] * (final / steps)
    along = interval(states[:-1].T, controls.T, p, times, final / steps)
    return bool(np.isfinite(np.asarray(along)).all() and np.isfinite(float(end(states[-1], p, final))))


def inside(problem: Problem, controls: np.ndarray) -> np.ndarray:
    """The nearest controls strictly inside the bounds."""
    margin = _INNER * np.minimum(problem.action_high - problem.action_low, problem.control_high - problem.control_low)
    return np.clip(controls, problem.control_low + margin, problem.control_high - margin)


def levels(problem: Problem, x0: np.ndarray, p: np.ndarray, num: int = 128) -> np.ndarray:
    """Constant controls strictly inside the bounds from which a step from x0 is finite, with its gradients, (m, n_u).

    Tried are, from the bounds on or to both sides of zero, one control scale and then random multiples of it over six decades.
    """
    rng, low, high = np.random.default_rng(0), problem.control_low, problem.control_high
    scale = 0.5 * (problem.action_high - problem.action_low)
    size = 10 ** np.concatenate([np.zeros((2, problem.n_u)), rng.uniform(*_MAGNITUDES, (num, problem.n_u))])
    up = np.concatenate([np.array([[True], [False]]).repeat(problem.n_u, 1), rng.random((num, problem.n_u)) < 0.5])
    up = np.where(np.isfinite(low) == np.isfinite(high), up, np.isfinite(low))  # away from a single bound
    base = np.where(up, np.where(np.isfinite(low), low, 0.0), np.where(np.isfinite(high), high, 0.0))
    tried = inside(problem, base + np.where(up, 1.0, -1.0) * size * scale)
    x = np.tile(x0, (len(tried), 1)).T
    with np.errstate(all="ignore"):
        sound = np.isfinite(np.asarray(_numbers(problem)[0](x, tried.T, p, 0.0, problem.dt)).ravel())
    return tried[sound]
