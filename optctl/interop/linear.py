"""Linear systems: state-space models of scipy.signal and python-control ↔ linear–quadratic problems.

    ẋ = A x + B u  (or x⁺ = A x + B u),  y = C x,  cost ∫ x'Q x + u'R u dt  (or its sum)

A continuous system is stepped by the exact exponential integrator, so a gap to the Riccati optimum contains no discretisation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import casadi as ca
import numpy as np

from optctl.errors import require
from optctl.optional import library
from optctl.problem import Problem, Uniform, check_problem


def from_state_space(
    system: Any, Q: Any = None, R: Any = None, *, dt: float | None = None, steps: int = 200, **fields: Any
) -> Problem:
    """A linear–quadratic `Problem` from anything with matrices A, B, C, D: a `StateSpace` of scipy.signal or of python-control.

    `Q` (n_x, n_x) and `R` (n_u, n_u) default to identities; they must be symmetric, positive semidefinite and definite. The
    observation is y = C x unless C is the identity; D must be zero, for what is observed is the state. A continuous system needs
    the control interval `dt` [s]; a discrete one has its own, or 1 where it says none. Names come from the labels of
    python-control. `fields` are any others of `Problem`: `initial_state` (default uniform in [−1, 1]), `control_bounds`, ….
    """
    a, b, c, d = (_matrix(system, name) for name in "ABCD")
    n_x, n_u = len(a), b.shape[1]
    require(not d.any(), "system", "have D = 0: what is observed is the state", f"has D = {d.tolist()}")
    q = _weight("Q", Q, n_x, definite=False)
    r = _weight("R", R, n_u, definite=True)
    interval, continuous = _interval(system, dt)
    states, controls = _labels(system, "state_labels", "x", n_x), _labels(system, "input_labels", "u", n_u)
    if not np.array_equal(c, np.eye(n_x)):
        fields.setdefault("observation", lambda x, p: ca.DM(c) @ x)
        fields.setdefault("observation_names", _labels(system, "output_labels", "y", len(c)))

    def motion(x: Any, u: Any, p: Any) -> Any:
        return ca.DM(a) @ x + ca.DM(b) @ u

    if continuous:
        fields.setdefault("integrator", "exponential")
    given: dict[str, Any] = {
        "name": getattr(system, "name", None) or "linear-system",
        "description": f"A linear system of {n_x} states and {n_u} controls with quadratic cost.",
        "initial_state": Uniform([-1.0] * n_x, [1.0] * n_x),
        "horizon": "infinite",
        "dynamics" if continuous else "transition": motion,
        "stage_cost": lambda x, u, p: x.T @ ca.DM(q) @ x + u.T @ ca.DM(r) @ u,
    }
    return Problem(state=states, control=controls, dt=interval, steps=steps, **(given | fields))


def matrices(problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(A, B, C, D) of a linear problem at its nominal parameters: its motion, and its observation where that is linear too."""
    check_problem(problem)
    x, u, p, t = problem.x, problem.u, problem.p, problem.t
    motion = problem.step_function if problem.dynamics_function is None else problem.dynamics_function
    rate = motion(x, u, p, t)
    rate = rate[0] if isinstance(rate, tuple) else rate
    observed = problem.observation_function(x, p, t) if problem.observation is not None else x
    for name, value in (("dynamics", rate), ("observation", observed)):
        jacobian = ca.jacobian(value, ca.vertcat(x, u))
        linear = not ca.depends_on(ca.vec(jacobian), ca.vertcat(x, u, t)) and not ca.depends_on(value, t)
        rest = ca.Function("rest", [x, u, p], [value], {"allow_free": True})
        origin = np.array(rest(0, 0, problem.param_values)).ravel() if linear else np.ones(1)
        require(not origin.any(), "problem", f"have linear and time-invariant {name}", f"`{problem.name}` has not")
    found = ca.Function("m", [p], [ca.jacobian(rate, x), ca.jacobian(rate, u), ca.jacobian(observed, x)])
    a, b, c = (np.array(m) for m in found(problem.param_values))
    return a, b, c, np.zeros((len(c), problem.n_u))


def to_scipy(problem: Problem) -> Any:
    """`scipy.signal.StateSpace` of a linear problem; discrete with its dt where the problem has a `transition`."""
    signal = library("scipy.signal", "scipy", "test")
    return signal.StateSpace(*matrices(problem), **({"dt": problem.dt} if problem.discrete else {}))


def to_control(problem: Problem) -> Any:
    """python-control's `StateSpace` of a linear problem, with its names."""
    control = library("control", "python-control", "control")
    outputs = list(problem.state) if problem.observation is None else list(problem.y_names)
    return control.StateSpace(
        *matrices(problem),
        problem.dt if problem.discrete else 0,
        states=list(problem.state),
        inputs=list(problem.control),
        outputs=outputs,
        name=problem.name,
    )


# --- reading ------------------------------------------------------------------------------------------------------------


def _matrix(system: Any, name: str) -> np.ndarray:
    require(hasattr(system, name), "system", "have matrices A, B, C, D, as a StateSpace has", f"is {system!r}")
    return np.atleast_2d(np.asarray(getattr(system, name), dtype=float))


def _weight(name: str, value: Any, size: int, definite: bool) -> np.ndarray:
    if value is None:
        return np.eye(size)
    weight = np.atleast_2d(np.asarray(value, dtype=float))
    require(weight.shape == (size, size), name, f"have shape ({size}, {size})", f"has shape {weight.shape}")
    require(np.allclose(weight, weight.T), name, "be symmetric", "is not")
    lowest = float(np.linalg.eigvalsh(weight).min())
    ok = lowest > 0 if definite else lowest >= -1e-12 * np.abs(weight).max()
    kind = "positive definite" if definite else "positive semidefinite"
    require(ok, name, f"be {kind}", f"has the eigenvalue {lowest:.3g}")
    return weight


def _interval(system: Any, dt: float | None) -> tuple[float, bool]:
    """The control interval, and whether the system is continuous: dt is None or 0 there, and True where it is not said."""
    own = getattr(system, "dt", None)
    if own is None or (own is not True and own == 0):
        require(dt is not None, "dt", "be given for a continuous system: the control interval [s]", "is None")
        return float(dt), True  # type: ignore[arg-type]
    interval = 1.0 if own is True else float(own)
    require(dt is None or dt == interval, "dt", f"be absent or {interval}, the discrete system's own", f"is {dt}")
    return interval, False


def _labels(system: Any, attribute: str, letter: str, size: int) -> Mapping[str, str] | Sequence[str]:
    labels = getattr(system, attribute, None) or [f"{letter}{i + 1}" for i in range(size)]
    names = [re.sub(r"[\[\]]", "", label) for label in labels]
    if len(set(names)) < size:  # x[0] beside x0
        names = [label.replace("[", "_").replace("]", "") for label in labels]
    require(len(set(names)) == size, "system", f"have different {attribute}", f"has {', '.join(labels)}")
    return dict.fromkeys(names, "1") if letter != "y" else names
