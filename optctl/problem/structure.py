"""What kind of problem it is: which quantities it mentions, which of its functions have kinks, whether it is convex.

Every question is answered from the symbols, or by numbers where symbols do not tell. Solvers choose their methods by these answers.
"""

from __future__ import annotations

import casadi as ca
import numpy as np

from optctl.problem.held import dependence
from optctl.problem.statement import Problem
from optctl.shared import kept

# --- constraints --------------------------------------------------------------------------------------------------------


def state_bounded(problem: Problem) -> bool:
    """Whether some state has a bound."""
    return bool(np.isfinite([problem.state_low, problem.state_high]).any())


def path_constrained(problem: Problem) -> bool:
    """Whether states are limited on the way: by bounds on them or by path constraints."""
    return state_bounded(problem) or problem.path_constraints is not None


def unconstrained(problem: Problem) -> bool:
    """Whether only controls are bounded and the final time is fixed."""
    return problem.final_time is None and not problem.constrained


# --- time ---------------------------------------------------------------------------------------------------------------


def time_invariant(problem: Problem) -> bool:
    """Whether neither the step nor its cost mentions the time."""
    f = problem.step_function
    symbols = f.sx_in()
    return not any(ca.depends_on(output, symbols[3]) for output in f(*symbols))


def autonomous(problem: Problem) -> bool:
    """Whether neither dynamics nor stage cost nor path constraints mention the time; for continuous problems."""
    x, u, p, t = problem.x, problem.u, problem.p, problem.t
    functions = (problem.dynamics_function, problem.stage_cost_function, problem.path_constraint_function)
    return not any(ca.depends_on(function(x, u, p, t), t) for function in functions if function is not None)


# --- symmetry -----------------------------------------------------------------------------------------------------------


@kept
def periods(problem: Problem) -> np.ndarray:
    """Per state 2π where shifting it by a turn changes neither cost nor dynamics, else 0, shape (n_x,). Checked by numbers."""
    rng = np.random.default_rng(0)
    x = problem.initial_state.sample(rng, 16) + 0.1 * rng.standard_normal((16, problem.n_x))
    u = problem.to_control(rng.uniform(-1, 1, (16, problem.n_u)))
    found = np.zeros(problem.n_x)
    for i in range(problem.n_x):
        shift = 2 * np.pi * np.eye(problem.n_x)[i]
        found[i] = 2 * np.pi if _invariant(problem, x, u, shift) else 0.0
    return found


def _invariant(problem: Problem, x: np.ndarray, u: np.ndarray, shift: np.ndarray) -> bool:
    if np.isfinite(problem.state_low[shift > 0]).any() or np.isfinite(problem.state_high[shift > 0]).any():
        return False
    p = problem.param_values

    def near(a: object, b: object) -> bool:  # beside their size: a small cost is no constant one
        a, b = np.asarray(a), np.asarray(b)
        return np.allclose(a, b, rtol=1e-9, atol=1e-9 * float(np.max(np.abs(a[np.isfinite(a)]), initial=0.0)))

    (a, c), (b, d) = problem.step_function(x.T, u.T, p, 0.0), problem.step_function((x + shift).T, u.T, p, 0.0)
    same = near(c, d) and near(np.asarray(a) + shift[:, None], b)
    for function in (problem.terminal_cost_function, problem.terminal_constraint_function):
        same = same and (function is None or near(function(x.T, p, 0.0), function((x + shift).T, p, 0.0)))
    c = problem.path_constraint_function
    return bool(same and (c is None or near(c(x.T, u.T, p, 0.0), c((x + shift).T, u.T, p, 0.0))))


# --- derivatives --------------------------------------------------------------------------------------------------------

_KINKS = (
    "FMIN",
    "FMAX",
    "FABS",
    "FLOOR",
    "CEIL",
    "SIGN",
    "COPYSIGN",
    "FMOD",
    "REMAINDER",
    "LT",
    "LE",
    "EQ",
    "NE",
    "IF_ELSE_ZERO",
)


def kinked(function: ca.Function) -> bool:
    """Whether it holds an operation with a kink or a jump, which no derivative shows; one of parameters `p` and the time `t` alone does
    not count."""
    kinks = {getattr(ca, f"OP_{name}") for name in _KINKS}
    moving = {i for i in range(function.n_in()) if function.name_in(i) not in ("p", "t")}
    for operation, depends in dependence(function, moving):
        if operation in kinks and (depends[0] if operation == ca.OP_IF_ELSE_ZERO else any(depends)):
            return True
    return False


def smooth(problem: Problem) -> bool:
    """Whether one step has neither kink nor jump. Then a start that stalls is the solver's failure, not the problem's."""
    return not kinked(problem.step_function)


def rounded(problem: Problem) -> bool:
    """Whether the step, or else the path constraints, mention some control, and all their derivatives by it are identically zero.

    A control that nothing mentions is not rounded: it is idle.
    """
    x, u, p, t = problem.x, problem.u, problem.p, problem.t
    path = problem.path_constraint_function
    after, cost = problem.step_function(x, u, p, t)
    groups = [ca.vertcat(after, cost), *([] if path is None else [ca.vec(path(x, u, p, t))])]
    for control in ca.vertsplit(u):
        mentioning = next((group for group in groups if ca.depends_on(group, control)), None)
        if mentioning is not None and not ca.sparsify(ca.jacobian(mentioning, control)).nnz():
            return True
    return False


def _flat(problem: Problem) -> bool:
    """Whether the derivative of the whole cost is identically zero while neither end conditions nor the time are left to choose."""
    x, u, p, t = problem.x, problem.u, problem.p, problem.t
    costs = problem.step_function(x, u, p, t)[1] + problem.terminal_cost_function(x, p, t)
    free = problem.terminal_constraints is not None or problem.final_time is not None
    return not free and ca.sparsify(ca.jacobian(costs, ca.vertcat(x, u))).nnz() == 0


def missing_derivative(problem: Problem) -> str | None:
    """Why no solver that follows derivatives can solve the problem, or `None`."""
    if rounded(problem):
        return "its control is rounded, and a step's derivative by it is zero (solve the problem without rounding)"
    return "its cost is flat (give `sparse` a `smoothing`, or use `minimum_time`)" if _flat(problem) else None


# --- linear-quadratic problems ------------------------------------------------------------------------------------------


def _pieces(problem: Problem, discretised: bool) -> tuple[ca.SX, ca.SX, ca.SX]:
    x, u, p, t = problem.x, problem.u, problem.p, problem.t
    if discretised:
        motion, cost = problem.step_function(x, u, p, t)
    else:
        assert problem.dynamics_function is not None  # not discrete
        motion, cost = problem.dynamics_function(x, u, p, t), problem.stage_cost_function(x, u, p, t)
    end = ca.SX(0) if problem.horizon == "infinite" else problem.terminal_cost_function(x, p, t)
    return motion, cost, end


@kept
def expansion(problem: Problem, discretised: bool) -> tuple[ca.Function, bool]:
    """(x, u, p, t) → the derivatives that make the matrices, and whether they are free of x and u; built once."""
    x, u, p, t = problem.x, problem.u, problem.p, problem.t
    motion, cost, end = _pieces(problem, discretised)
    z = ca.vertcat(x, u)
    jacobian, (hessian, gradient) = ca.jacobian(motion, z), ca.hessian(cost, z)
    end_hessian, end_gradient = ca.hessian(end, x)
    fixed = ca.vertcat(ca.vec(jacobian), ca.vec(hessian), ca.vec(end_hessian))
    outputs = [motion, jacobian, cost, gradient, hessian, end, end_gradient, end_hessian]
    linear = not ca.depends_on(ca.simplify(fixed), z) if fixed.numel() else True
    linear = linear and not kinked(ca.Function("pieces", [x, u, p, t], [motion, cost, end], list("xupt"), list("mce")))
    return ca.Function("expansion", [x, u, p, t], [ca.densify(o) for o in outputs]), linear


def convex(problem: Problem, params: np.ndarray) -> bool:
    """Whether the step is linear, the costs convex and quadratic, the end constraints affine and the path constraints convex and
    quadratic, for all of `params` (B, n_p): then a stationary point is the optimum."""
    function, linear = expansion(problem, True)
    if not linear or problem.final_time is not None:
        return False
    x, u, p, t = problem.x, problem.u, problem.p, problem.t
    z = ca.vertcat(x, u)
    shapes = []
    end = problem.terminal_constraint_function
    if any(f is not None and kinked(f) for f in (end, problem.path_constraint_function)):
        return False
    if end is not None and ca.depends_on(ca.vec(ca.simplify(ca.jacobian(end(x, p, t), x))), x):
        return False
    if problem.path_constraint_function is not None:
        for row in ca.vertsplit(problem.path_constraint_function(x, u, p, t)):
            hessian = ca.hessian(row, z)[0]
            if ca.depends_on(ca.vec(ca.simplify(hessian)), z):
                return False
            shapes.append(hessian)
    paths = ca.Function("paths", [p, t], [ca.densify(h) for h in shapes])
    zero_x, zero_u = np.zeros(problem.n_x), np.zeros(problem.n_u)
    stages = [0] if time_invariant(problem) and problem.path_constraint_function is None else range(problem.steps)
    for values in np.atleast_2d(params):
        matrices = [np.asarray(function(zero_x, zero_u, values, k * problem.dt)[4]) for k in stages]
        matrices.append(np.asarray(function(zero_x, zero_u, values, problem.duration)[7]))
        for k in stages if shapes else []:
            out = paths(values, k * problem.dt)
            matrices += [np.asarray(m) for m in (out if isinstance(out, (tuple, list)) else [out])]
        if any(not np.isfinite(m).all() or np.linalg.eigvalsh(m)[0] < -1e-12 * np.abs(m).max() for m in matrices):
            return False
    return True
