"""What the fields of a `Problem` must be: each error names the field, what it must be and what it was."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from optctl.errors import ProblemError, require
from optctl.problem.distributions import InitialState
from optctl.problem.held import Held
from optctl.problem.integrators import INTEGRATORS

if TYPE_CHECKING:
    from optctl.problem.statement import Problem

FUNCTIONS = (
    "dynamics",
    "transition",
    "stage_cost",
    "terminal_cost",
    "diffusion",
    "path_constraints",
    "terminal_constraints",
    "observation",
)
TRAVELLING = (
    "step_function",
    "observation_function",
    "terminal_cost_function",
    "path_constraint_function",
    "last_constraint_function",
    "terminal_constraint_function",
)
"""Built with the problem, and pickled with it: built again from expressions, they could differ by a rounding."""


def check_fields(problem: Problem) -> None:
    """Raise `ArgumentError` for the first field that a problem cannot have; functions are built by `check_functions`."""
    require(
        bool(problem.name) and isinstance(problem.name, str), "name", "be a non-empty string", f"is {problem.name!r}"
    )
    for field in ("state", "control"):
        value = getattr(problem, field)
        if not isinstance(value, Mapping):
            require(
                isinstance(value, Sequence) and not isinstance(value, str), field, "map names to units", f"is {value!r}"
            )
            twice = [name for name in value if list(value).count(name) > 1]
            require(not twice, field, "name each entry once", f"names `{(twice or [None])[0]}` twice")
            object.__setattr__(problem, field, dict.fromkeys(value, ""))
    require(problem.n_x > 0, "state", "name at least one state", "is empty")
    require(problem.n_u > 0, "control", "name at least one control", "is empty")
    require(
        (problem.dynamics is None) != (problem.transition is None),
        "dynamics",
        "be given, or `transition`, and not both",
        "neither was given" if problem.dynamics is None else "both were given",
    )
    dt = problem.dt
    require(_is_number(dt) and 0 < dt < np.inf, "dt", "be a positive number", f"is {dt!r}")
    for field in ("steps", "substeps"):
        value = getattr(problem, field)
        require(
            isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value > 0,
            field,
            "be a positive integer",
            f"is {value!r}",
        )
    require(
        problem.horizon in ("finite", "infinite"), "horizon", "be 'finite' or 'infinite'", f"is {problem.horizon!r}"
    )
    require(
        problem.integrator in INTEGRATORS,
        "integrator",
        f"be one of {', '.join(INTEGRATORS)}",
        f"is {problem.integrator!r}",
    )
    for name, value in problem.params.items():
        require(_is_number(value) and np.isfinite(value), "params", f"be finite numbers (`{name}`)", f"is {value!r}")
    _check_data(problem)
    for field, names in (
        ("control_bounds", problem.control),
        ("state_bounds", problem.state),
        ("param_ranges", problem.params),
    ):
        _check_bounds(problem, field, tuple(names))
    for name, value in problem.control_scale.items():
        require(
            name in problem.control, "control_scale", f"name controls ({', '.join(problem.control)})", f"names `{name}`"
        )
        require(_is_number(value) and 0 < value < np.inf, "control_scale", f"be positive for `{name}`", f"is {value!r}")
    if problem.final_time is not None:
        low, high = problem.final_time
        require(not problem.discrete, "final_time", "be absent when `transition` is given", f"is {problem.final_time}")
        require(
            problem.horizon == "finite",
            "final_time",
            "be absent when the horizon is infinite",
            f"is {problem.final_time}",
        )
        require(
            0 < low <= high < np.inf, "final_time", "be (low, high) with 0 < low <= high", f"is {problem.final_time}"
        )
    require(
        isinstance(problem.initial_state, InitialState),
        "initial_state",
        "be Uniform, Normal or Fixed",
        f"is {problem.initial_state!r}",
    )
    size = len(problem.initial_state.location)
    require(size == problem.n_x, "initial_state", f"have {problem.n_x} entries, one per state", f"has {size}")
    require(
        problem.terminal_cost is None or problem.horizon == "finite",
        "terminal_cost",
        "be absent when the horizon is infinite",
        "was given",
    )
    require(
        problem.terminal_constraints is None or problem.horizon == "finite",
        "terminal_constraints",
        "be absent when the horizon is infinite",
        "was given",
    )


def _check_data(problem: Problem) -> None:
    require(isinstance(problem.data, Mapping), "data", "map names to sequences of numbers", f"is {problem.data!r}")
    object.__setattr__(
        problem, "data", {name: Held.of(name, values, problem.dt) for name, values in problem.data.items()}
    )
    rounding = 1 + 1e-9
    for name, held in problem.held.items():
        require(name not in problem.params, "data", "be named otherwise than `params`", f"names `{name}`")
        require(
            held.duration * rounding >= problem.duration,
            "data",
            f"go on for {problem.duration:g} s (`{name}`)",
            f"end at {held.duration:g} s",
        )
        require(
            problem.dt <= held.interval * rounding,
            "data",
            f"hold for at least `dt` = {problem.dt:g} s (`{name}`)",
            f"hold for {held.interval:g} s",
        )


def _check_bounds(problem: Problem, field: str, names: tuple[str, ...]) -> None:
    bounds = getattr(problem, field)
    require(
        isinstance(bounds, Mapping),
        field,
        "map names to (low, high), such as {'torque': (-2, 2)}",
        f"is {bounds!r}",
    )
    for name, pair in bounds.items():
        require(name in names, field, f"name one of {', '.join(names) or 'none'}", f"names `{name}`")
        require(
            isinstance(pair, Sequence | np.ndarray) and len(pair) == 2 and all(_is_number(v) for v in pair),
            field,
            f"give (low, high) for `{name}`",
            f"gives {pair!r}",
        )
        low, high = pair
        require(
            bool(low < high) or (field == "param_ranges" and low == high),
            field,
            f"have low < high for `{name}`",
            f"has low {low} and high {high}",
        )


def check_functions(problem: Problem) -> None:
    """Build every function once: shapes, undeclared parameters and foreign symbols are found here, not in a kernel."""
    n = {"dynamics": problem.n_x, "transition": problem.n_x, "stage_cost": 1, "terminal_cost": 1}
    for field, rows in n.items():
        if getattr(problem, field) is not None:
            rate = problem.evaluate(field, *problem.symbols(field))
            require(
                rate.shape == (rows, 1),
                field,
                f"return shape ({rows}, 1)" + (", one entry per state" if rows > 1 or rows == problem.n_x else ""),
                f"returns shape {rate.shape}",
            )
    if problem.diffusion is not None:
        rows = problem.evaluate("diffusion", *problem.symbols("diffusion")).shape[0]
        require(rows == problem.n_x, "diffusion", f"return {problem.n_x} rows, one per state", f"returns {rows}")
    for field in FUNCTIONS:
        function = problem.point_function(field, field)
        require(
            function is None or not re.search(r"= -?nan;", function.str(True)),  # its instructions
            field,
            "hold no constant NaN",
            "holds one: `math` functions, float() and arrays of floats turn symbols into NaN",
        )
    try:
        _ = [getattr(problem, name) for name in TRAVELLING]
    except ProblemError:
        raise
    except (RuntimeError, ValueError) as error:
        raise ProblemError(f"Problem `{problem.name}` cannot be built: {str(error).splitlines()[-1]}") from error
    noise = np.asarray(problem.observation_noise, dtype=float)
    require(
        noise.shape in ((), (problem.n_y,)) and bool((noise >= 0).all()),
        "observation_noise",
        f"be one number or {problem.n_y}, none negative",
        f"is {problem.observation_noise!r}",
    )
    if problem.observation_names:
        require(
            len(problem.observation_names) == problem.n_y,
            "observation_names",
            f"have {problem.n_y} entries",
            f"has {len(problem.observation_names)}",
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
