"""`Problem`: an optimal control problem written down once, in symbols; everything else in optctl is generated from it.

    minimise  ∫ l(x, u, p, t) dt + φ(x(T), p)   subject to   ẋ = f(x, u, p, t)       (or x⁺ = F(x, u, p, t), Σ l)
              u_low ≤ u ≤ u_high,  x_low ≤ x ≤ x_high,  c(x, u, p, t) ≤ 0,  e(x(T), p) = 0

Controls are held constant over each of `steps` intervals of length `dt`. The same symbolic one-step map, cost included, is what
the batched environment steps, what the solvers optimise and what `rollout` charges: so a gap to the optimum means something.
Conventions: docs/conventions.md.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import casadi as ca
import numpy as np

from optctl.errors import ProblemError, require
from optctl.exponential import Ranges
from optctl.held import Held, hold
from optctl.integrators import INTEGRATORS, integrate
from optctl.shared import once

Bounds = Mapping[str, tuple[float, float]]
Expression = Any
"""Whatever `casadi.vertcat` accepts: an SX, a number, or a sequence of them."""


# --- initial distributions ---------------------------------------------------------------------------------------------


class _Initial:
    """x0 = location + spread * z, with z uniform on [0, 1) or standard normal: the plain data that kernels read."""

    kind: Literal["uniform", "normal"]

    @property
    def location(self) -> np.ndarray:
        raise NotImplementedError

    @property
    def spread(self) -> np.ndarray:
        raise NotImplementedError

    def sample(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """`num` initial states, shape (num, n_x)."""
        shape = (num, len(self.location))
        z = rng.random(shape) if self.kind == "uniform" else rng.standard_normal(shape)
        return self.location + self.spread * z

    def midpoints(self, counts: Sequence[int]) -> np.ndarray:
        """The midpoint rule over a uniform distribution: a grid of cell centres, shape (∏ counts, n_x)."""
        require(self.kind == "uniform", "initial_state", "be uniform for a midpoint grid", f"is {self.kind}")
        require(len(counts) == len(self.location), "counts", f"have {len(self.location)} entries", f"has {len(counts)}")
        axes = [a + s * (np.arange(n) + 0.5) / n for a, s, n in zip(self.location, self.spread, counts, strict=True)]
        return np.stack([grid.ravel() for grid in np.meshgrid(*axes, indexing="ij")], axis=-1)


def _vector(value: Any, argument: str) -> np.ndarray:
    try:
        array = np.atleast_1d(np.asarray(value, dtype=np.float64))
    except (TypeError, ValueError):
        raise ProblemError(f"Argument `{argument}` must be a vector of numbers, but is {value!r}.") from None
    require(array.ndim == 1, argument, "be a vector", f"has shape {array.shape}")
    require(bool(np.isfinite(array).all()), argument, "be finite", f"is {array.tolist()}")
    return array


@dataclass(frozen=True)
class Uniform(_Initial):
    """Independent uniform entries between `low` and `high`."""

    low: Any
    high: Any
    kind = "uniform"

    def __post_init__(self) -> None:
        low, high = _vector(self.low, "low"), _vector(self.high, "high")
        require(low.shape == high.shape, "high", f"have shape {low.shape} like `low`", f"has shape {high.shape}")
        require(bool((low <= high).all()), "low", "not exceed `high`", f"is {low.tolist()} with high {high.tolist()}")

    @property
    def location(self) -> np.ndarray:
        return _vector(self.low, "low")

    @property
    def spread(self) -> np.ndarray:
        return _vector(self.high, "high") - self.location


@dataclass(frozen=True)
class Normal(_Initial):
    """Independent normal entries with `mean` and standard deviation `std`."""

    mean: Any
    std: Any
    kind = "normal"

    def __post_init__(self) -> None:
        mean, std = _vector(self.mean, "mean"), _vector(self.std, "std")
        require(mean.shape == std.shape, "std", f"have shape {mean.shape} like `mean`", f"has shape {std.shape}")
        require(bool((std >= 0).all()), "std", "not be negative", f"is {std.tolist()}")

    @property
    def location(self) -> np.ndarray:
        return _vector(self.mean, "mean")

    @property
    def spread(self) -> np.ndarray:
        return _vector(self.std, "std")


@dataclass(frozen=True)
class Fixed(_Initial):
    """Always the same initial state."""

    value: Any
    kind = "uniform"

    def __post_init__(self) -> None:
        _vector(self.value, "value")

    @property
    def location(self) -> np.ndarray:
        return _vector(self.value, "value")

    @property
    def spread(self) -> np.ndarray:
        return np.zeros_like(self.location)


_EARLY = 1e-3
"""Of an interval: so much too soon are data read at the nodes t = k · dt, which single precision may put before them."""


def check_problem(problem: Any) -> None:
    """Raise unless it is a `Problem`; names are for `optctl.make`."""
    hint = f"; `optctl.make({problem!r})` makes one" if isinstance(problem, str) else ""
    require(isinstance(problem, Problem), "problem", "be a Problem", f"is {problem!r}{hint}")


# --- parameters by name -------------------------------------------------------------------------------------------------


class Parameters:
    """The parameter vector with its entries as attributes: `p.mass`."""

    def __init__(self, names: Sequence[str], vector: Any) -> None:
        self.__dict__.update({name: vector[i] for i, name in enumerate(names)})

    def __getattr__(self, name: str) -> Any:
        known = ", ".join(self.__dict__) or "none"
        raise ProblemError(f"Parameter `{name}` is used but not declared; declared parameters: {known}.")


class _Stated:
    """A function of a problem by its CasADi function: what its copy in another process has in place of the user's Python."""

    def __init__(self, function: ca.Function, params: Sequence[str]) -> None:
        self.function, self.params = function, tuple(params)

    def __call__(self, *arguments: Any) -> Any:
        *point, p, t = arguments if len(arguments) == self.function.n_in() else (*arguments, 0.0)
        return self.function(*point, ca.vertcat(*(getattr(p, name) for name in self.params)), t)


# --- the problem --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """An optimal control problem in symbols. Exactly one of `dynamics` and `transition` is given.

    Functions are called as `f(x, u, p)` or `f(x, u, p, t)`, those of the end and the observation as `f(x, p)` or `f(x, p, t)`.

    A problem cannot be changed, so `copy` and `deepcopy` return it itself. It can be pickled whatever its functions are (lambdas,
    closures): what travels is their expressions, so the copy has the same `fingerprint` and steps to the same bits.
    """

    name: str
    state: Mapping[str, str] | Sequence[str]
    """State names with their units, in order."""
    control: Mapping[str, str] | Sequence[str]
    """Control names with their units, in order."""
    stage_cost: Callable[..., Expression]
    """l(x, u, p, t): cost rate for `dynamics`, cost per step for `transition`."""
    dt: float
    """Control interval [s]."""
    steps: int
    """Number of control intervals."""
    initial_state: _Initial
    horizon: Literal["finite", "infinite"] = "finite"
    """finite: the end is the end (`terminated`, terminal cost paid); infinite: `steps` is only a time limit (`truncated`)."""
    params: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Nominal parameter values."""
    data: Mapping[str, Sequence[float] | Held] = dataclasses.field(default_factory=dict)
    """Values that hold over each interval, one for each of the `steps`; read as `p.<name>` like parameters."""
    dynamics: Callable[..., Expression] | None = None
    """ẋ = f(x, u, p, t)."""
    transition: Callable[..., Expression] | None = None
    """x⁺ = F(x, u, p, t)."""
    terminal_cost: Callable[..., Expression] | None = None
    """φ(x, p): paid at the end of a finite horizon."""
    diffusion: Callable[..., Expression] | None = None
    """G(x, u, p, t), shape (n_x, n_w): dx = f dt + G dW (for `transition`: x⁺ = F + G w)."""
    control_bounds: Bounds = dataclasses.field(default_factory=dict)
    state_bounds: Bounds = dataclasses.field(default_factory=dict)
    control_scale: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """For an unbounded control: the control that action = 1 stands for (default 1)."""
    path_constraints: Callable[..., Expression] | None = None
    """c(x, u, p, t) ≤ 0 at the start of every interval; components without controls at the end of the last one, too."""
    terminal_constraints: Callable[..., Expression] | None = None
    """e(x, p) = 0 at the end."""
    final_time: tuple[float, float] | None = None
    """Free final time between these bounds [s], for solvers; environments refuse it. `None`: fixed, steps · dt."""
    param_ranges: Bounds = dataclasses.field(default_factory=dict)
    """Ranges for randomised plants, uniform."""
    observation: Callable[..., Expression] | None = None
    """y(x, p, t); default: the state, and the elapsed fraction of a finite horizon."""
    observation_names: Sequence[str] = ()
    observation_noise: float | Sequence[float] = 0.0
    """Standard deviation of Gaussian noise on each observation."""
    integrator: str = "rk4"
    substeps: int = 1
    description: str = ""
    source: str = ""

    # --- check ----------------------------------------------------------------------------------------------------------

    def __post_init__(self) -> None:
        require(bool(self.name) and isinstance(self.name, str), "name", "be a non-empty string", f"is {self.name!r}")
        for field in ("state", "control"):
            value = getattr(self, field)
            if not isinstance(value, Mapping):
                require(
                    isinstance(value, Sequence) and not isinstance(value, str),
                    field, "map names to units", f"is {value!r}",
                )  # fmt: skip
                twice = [name for name in value if list(value).count(name) > 1]
                require(not twice, field, "name each entry once", f"names `{(twice or [None])[0]}` twice")
                object.__setattr__(self, field, dict.fromkeys(value, ""))
        require(self.n_x > 0, "state", "name at least one state", "is empty")
        require(self.n_u > 0, "control", "name at least one control", "is empty")
        require(
            (self.dynamics is None) != (self.transition is None),
            "dynamics", "be given, or `transition`, and not both",
            "neither was given" if self.dynamics is None else "both were given",
        )  # fmt: skip
        for field in ("dt",):
            value = getattr(self, field)
            require(_is_number(value) and 0 < value < np.inf, field, "be a positive number", f"is {value!r}")
        for field in ("steps", "substeps"):
            value = getattr(self, field)
            require(
                isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value > 0,
                field, "be a positive integer", f"is {value!r}",
            )  # fmt: skip
        require(self.horizon in ("finite", "infinite"), "horizon", "be 'finite' or 'infinite'", f"is {self.horizon!r}")
        require(
            self.integrator in INTEGRATORS,
            "integrator",
            f"be one of {', '.join(INTEGRATORS)}",
            f"is {self.integrator!r}",
        )
        for name, value in self.params.items():
            require(
                _is_number(value) and np.isfinite(value), "params", f"be finite numbers (`{name}`)", f"is {value!r}"
            )
        self._check_data()
        for field, names in (
            ("control_bounds", self.control), ("state_bounds", self.state), ("param_ranges", self.params),
        ):  # fmt: skip
            self._check_bounds(field, tuple(names))
        for name, value in self.control_scale.items():
            require(
                name in self.control, "control_scale", f"name controls ({', '.join(self.control)})", f"names `{name}`"
            )
            require(
                _is_number(value) and 0 < value < np.inf,
                "control_scale", f"be positive for `{name}`", f"is {value!r}",
            )  # fmt: skip
        if self.final_time is not None:
            low, high = self.final_time
            require(not self.discrete, "final_time", "be absent when `transition` is given", f"is {self.final_time}")
            require(
                self.horizon == "finite",
                "final_time",
                "be absent when the horizon is infinite",
                f"is {self.final_time}",
            )
            require(
                0 < low <= high < np.inf, "final_time", "be (low, high) with 0 < low <= high", f"is {self.final_time}"
            )
        require(
            isinstance(self.initial_state, _Initial),
            "initial_state", "be Uniform, Normal or Fixed", f"is {self.initial_state!r}",
        )  # fmt: skip
        size = len(self.initial_state.location)
        require(size == self.n_x, "initial_state", f"have {self.n_x} entries, one per state", f"has {size}")
        require(
            self.terminal_cost is None or self.horizon == "finite",
            "terminal_cost", "be absent when the horizon is infinite", "was given",
        )  # fmt: skip
        require(
            self.terminal_constraints is None or self.horizon == "finite",
            "terminal_constraints", "be absent when the horizon is infinite", "was given",
        )  # fmt: skip
        self._check_functions()

    def _check_data(self) -> None:
        require(isinstance(self.data, Mapping), "data", "map names to sequences of numbers", f"is {self.data!r}")
        object.__setattr__(self, "data", {name: Held.of(name, values, self.dt) for name, values in self.data.items()})
        rounding = 1 + 1e-9
        for name, held in self._held.items():
            require(name not in self.params, "data", "be named otherwise than `params`", f"names `{name}`")
            require(
                held.duration * rounding >= self.duration,
                "data", f"go on for {self.duration:g} s (`{name}`)", f"end at {held.duration:g} s",
            )  # fmt: skip
            require(
                self.dt <= held.interval * rounding,
                "data", f"hold for at least `dt` = {self.dt:g} s (`{name}`)", f"hold for {held.interval:g} s",
            )  # fmt: skip

    @property
    def _held(self) -> Mapping[str, Held]:
        return self.data  # type: ignore[return-value]  # made so above

    def _check_bounds(self, field: str, names: tuple[str, ...]) -> None:
        bounds = getattr(self, field)
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
                field, f"give (low, high) for `{name}`", f"gives {pair!r}",
            )  # fmt: skip
            low, high = pair
            require(
                bool(low < high) or (field == "param_ranges" and low == high),
                field, f"have low < high for `{name}`", f"has low {low} and high {high}",
            )  # fmt: skip

    def _check_functions(self) -> None:
        """Build every function once: shapes, undeclared parameters and foreign symbols are found here, not in a kernel."""
        n = {"dynamics": self.n_x, "transition": self.n_x, "stage_cost": 1, "terminal_cost": 1}
        for field, rows in n.items():
            if getattr(self, field) is not None:
                rate = self._evaluate(field, *self._symbols(field))
                require(
                    rate.shape == (rows, 1),
                    field, f"return shape ({rows}, 1)" + (", one entry per state" if rows > 1 or rows == self.n_x else ""),
                    f"returns shape {rate.shape}",
                )  # fmt: skip
        if self.diffusion is not None:
            rows = self._evaluate("diffusion", *self._symbols("diffusion")).shape[0]
            require(rows == self.n_x, "diffusion", f"return {self.n_x} rows, one per state", f"returns {rows}")
        for field in _FUNCTIONS:
            function = self._point_function(field, field)
            require(
                function is None or not re.search(r"= -?nan;", function.str(True)),  # its instructions
                field, "hold no constant NaN", "holds one: `math` functions, float() and arrays of floats turn symbols into NaN",
            )  # fmt: skip
        try:
            _ = [getattr(self, name) for name in _TRAVELLING]
        except ProblemError:
            raise
        except (RuntimeError, ValueError) as error:
            raise ProblemError(f"Problem `{self.name}` cannot be built: {str(error).splitlines()[-1]}") from error
        noise = np.asarray(self.observation_noise, dtype=float)
        require(
            noise.shape in ((), (self.n_y,)) and bool((noise >= 0).all()),
            "observation_noise", f"be one number or {self.n_y}, none negative", f"is {self.observation_noise!r}",
        )  # fmt: skip
        if self.observation_names:
            require(
                len(self.observation_names) == self.n_y,
                "observation_names", f"have {self.n_y} entries", f"has {len(self.observation_names)}",
            )  # fmt: skip

    def __copy__(self) -> Problem:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Problem:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for field in _FUNCTIONS:
            function = self._point_function(field, field)
            if function is not None and not isinstance(given[field], _Stated):
                given[field] = _Stated(function, tuple(self.params))
        return _restored, (type(self), given | {name: getattr(self, name) for name in _TRAVELLING})

    def replace(self, **changes: Any) -> Problem:
        """A copy with some fields changed: `problem.replace(dt=0.01, steps=1000)`."""
        return dataclasses.replace(self, **changes)

    # --- sizes, names and numbers ---------------------------------------------------------------------------------------

    @property
    def n_x(self) -> int:
        return len(self.state)

    @property
    def n_u(self) -> int:
        return len(self.control)

    @property
    def n_p(self) -> int:
        return len(self.params)

    @once
    def n_w(self) -> int:
        """Number of independent noises."""
        return 0 if self.diffusion_function is None else self.diffusion_function.size2_out(0)

    @once
    def n_y(self) -> int:
        return self.observation_function.size1_out(0)

    @property
    def discrete(self) -> bool:
        return self.transition is not None

    @property
    def constrained(self) -> bool:
        """Whether there are path or terminal constraints or state bounds."""
        bounded = np.isfinite(self.state_low).any() or np.isfinite(self.state_high).any()
        return bool(bounded) or self.path_constraints is not None or self.terminal_constraints is not None

    @property
    def duration(self) -> float:
        """steps · dt [s]."""
        return self.steps * self.dt

    @once
    def y_names(self) -> tuple[str, ...]:
        """One name per observation."""
        if self.observation_names:
            return tuple(self.observation_names)
        if self.observation is None:
            return (*self.state, "elapsed")[: self.n_y]
        return tuple(f"y{i}" for i in range(self.n_y))

    @once
    def noise_std(self) -> np.ndarray:
        """Observation noise, shape (n_y,)."""
        return np.broadcast_to(np.asarray(self.observation_noise, dtype=float), (self.n_y,)).copy()

    def _limits(self, names: Mapping[str, str] | Sequence[str], bounds: Bounds, side: int) -> np.ndarray:
        return np.array([bounds.get(name, (-np.inf, np.inf))[side] for name in names], dtype=float)

    @once
    def control_low(self) -> np.ndarray:
        return self._limits(self.control, self.control_bounds, 0)

    @once
    def control_high(self) -> np.ndarray:
        return self._limits(self.control, self.control_bounds, 1)

    @once
    def state_low(self) -> np.ndarray:
        return self._limits(self.state, self.state_bounds, 0)

    @once
    def state_high(self) -> np.ndarray:
        return self._limits(self.state, self.state_bounds, 1)

    @once
    def _control_scale(self) -> np.ndarray:
        return np.array([self.control_scale.get(name, 1.0) for name in self.control], dtype=float)

    @once
    def action_low(self) -> np.ndarray:
        """The control of action −1: the lower bound, or −control_scale where there is none, from the upper bound on where it lies below."""
        far = np.where(self.control_high > -self._control_scale, 0.0, self.control_high) - self._control_scale
        return np.where(np.isfinite(self.control_low), self.control_low, far)

    @once
    def action_high(self) -> np.ndarray:
        """The control of action +1: the upper bound, or control_scale where there is none, from the lower bound on where it lies above."""
        far = np.where(self.control_low < self._control_scale, 0.0, self.control_low) + self._control_scale
        return np.where(np.isfinite(self.control_high), self.control_high, far)

    @once
    def resting_control(self) -> np.ndarray:
        """Zero, or the nearest control within the bounds, (n_u,)."""
        return np.clip(np.zeros(self.n_u), self.control_low, self.control_high)

    def to_control(self, action: Any) -> Any:
        """Action in [−1, 1] → control in units. The one place where actions are scaled on the host."""
        return self.action_low + (np.clip(action, -1.0, 1.0) + 1.0) * (0.5 * (self.action_high - self.action_low))

    def to_action(self, control: Any) -> Any:
        """Control in units → action in [−1, 1]."""
        return np.clip(2.0 * (control - self.action_low) / (self.action_high - self.action_low) - 1.0, -1.0, 1.0)

    @once
    def param_values(self) -> np.ndarray:
        return np.array(list(self.params.values()), dtype=float)

    @once
    def param_low(self) -> np.ndarray:
        return np.array([self.param_ranges.get(k, (v, v))[0] for k, v in self.params.items()], dtype=float)

    @once
    def param_high(self) -> np.ndarray:
        return np.array([self.param_ranges.get(k, (v, v))[1] for k, v in self.params.items()], dtype=float)

    # --- symbols and functions ------------------------------------------------------------------------------------------

    @once
    def _x(self) -> ca.SX:
        return ca.SX.sym("x", self.n_x)

    @once
    def _u(self) -> ca.SX:
        return ca.SX.sym("u", self.n_u)

    @once
    def _p(self) -> ca.SX:
        return ca.SX.sym("p", self.n_p)

    @once
    def _t(self) -> ca.SX:
        return ca.SX.sym("t")

    def _symbols(self, field: str) -> tuple[ca.SX, ...]:
        at_a_point = field in ("terminal_cost", "terminal_constraints", "observation")
        return (self._x, self._p, self._t) if at_a_point else (self._x, self._u, self._p, self._t)

    def _evaluate(self, field: str, *arguments: ca.SX) -> ca.SX:
        """Call the user's function with named parameters and as many arguments as it takes; a column (or matrix) of SX."""
        function = getattr(self, field)
        *point, p, t = arguments
        named = Parameters(tuple(self.params), p)
        between = field in ("dynamics", "stage_cost") and not self.discrete
        named.__dict__.update({name: held.at(t, 1e-9 if between else _EARLY) for name, held in self._held.items()})
        values = (*point, named, t)
        try:
            taken = _positional_arguments(function)
        except (TypeError, ValueError):
            taken = len(values)
        require(
            taken in (len(values) - 1, len(values)),
            field, f"take {len(values) - 1} arguments, or one more for the time", f"takes {taken}",
        )  # fmt: skip
        try:
            result = function(*values[:taken])
            if isinstance(result, (list, tuple)):
                result = ca.vertcat(*(ca.horzcat(*row) if isinstance(row, (list, tuple)) else row for row in result))
            elif isinstance(result, np.ndarray):
                result = ca.vertcat(*result) if result.ndim == 1 else ca.SX(result)
            result = ca.SX(result)
        except ProblemError as error:
            raise ProblemError(f"Argument `{field}` of problem `{self.name}`: {error}") from error
        except Exception as error:
            raise ProblemError(
                f"Argument `{field}` of problem `{self.name}` must return a CasADi expression built from its arguments, "
                f"but calling it failed: {type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error) else ''}"
            ) from error
        known = {symbol.__hash__() for argument in arguments for symbol in ca.vertsplit(argument)}
        foreign = [symbol.name() for symbol in ca.symvar(result) if symbol.__hash__() not in known]
        require(not foreign, field, "use only its own arguments", f"uses the foreign symbol {', '.join(foreign)}")
        return result

    def _point_function(self, name: str, field: str) -> ca.Function | None:
        if getattr(self, field) is None:
            return None
        symbols = self._symbols(field)
        names = ["x", "p", "t"] if len(symbols) == 3 else ["x", "u", "p", "t"]
        return ca.Function(name, list(symbols), [self._evaluate(field, *symbols)], names, [name])

    @once
    def dynamics_function(self) -> ca.Function | None:
        """(x, u, p, t) → ẋ; `None` for a discrete problem."""
        return self._point_function("xdot", "dynamics")

    @once
    def rate_function(self) -> ca.Function:
        """(x, u, p, t) → (ẋ, l) of a continuous problem."""
        symbols = self._x, self._u, self._p, self._t
        rates = [self._evaluate("dynamics", *symbols), self._evaluate("stage_cost", *symbols)]
        return ca.Function("rates", list(symbols), rates, ["x", "u", "p", "t"], ["xdot", "stage_cost"])

    @once
    def stage_cost_function(self) -> ca.Function:
        """(x, u, p, t) → l."""
        function = self._point_function("stage_cost", "stage_cost")
        assert function is not None
        return function

    @once
    def diffusion_function(self) -> ca.Function | None:
        """(x, u, p, t) → G, shape (n_x, n_w)."""
        return self._point_function("diffusion", "diffusion")

    @once
    def path_constraint_function(self) -> ca.Function | None:
        """(x, u, p, t) → c, to be ≤ 0."""
        return self._point_function("path_constraints", "path_constraints")

    @once
    def last_constraint_function(self) -> ca.Function | None:
        """(x, p, t) → the components of c that mention no control, to be ≤ 0 at the last state too; `None` where there are none."""
        if self.path_constraint_function is None:
            return None
        c = ca.vec(ca.densify(self.path_constraint_function(self._x, self._u, self._p, self._t)))
        free = [row for row in ca.vertsplit(c) if not ca.depends_on(row, self._u)]
        return (
            ca.Function("last", [self._x, self._p, self._t], [ca.vertcat(*free)], ["x", "p", "t"], ["last"])
            if free
            else None
        )

    @once
    def terminal_constraint_function(self) -> ca.Function | None:
        """(x, p, t) → e, to be 0."""
        return self._point_function("terminal_constraints", "terminal_constraints")

    @once
    def terminal_cost_function(self) -> ca.Function:
        """(x, p, t) → φ; zero where there is none."""
        symbols = [self._x, self._p, self._t]
        cost = ca.SX(0) if self.terminal_cost is None else self._evaluate("terminal_cost", *symbols)
        return ca.Function("terminal_cost", symbols, [cost], ["x", "p", "t"], ["terminal_cost"])

    @once
    def observation_function(self) -> ca.Function:
        """(x, p, t) → y."""
        symbols = [self._x, self._p, self._t]
        if self.observation is not None:
            y = self._evaluate("observation", *symbols)
        elif self.horizon == "finite":
            y = ca.vertcat(self._x, self._t / self.duration)
        else:
            y = self._x
        return ca.Function("observation", symbols, [y], ["x", "p", "t"], ["y"])

    @once
    def interval_function(self) -> ca.Function:
        """(x, u, p, t, h) → (x(t + h), cost over the interval): `step_function` for an interval of any length h."""
        h = ca.SX.sym("h")
        return self._step("interval", [self._x, self._u, self._p, self._t, h], h)

    @once
    def step_function(self) -> ca.Function:
        """(x, u, p, t) → (x_next, cost): one control interval `dt`."""
        return self._step("step", [self._x, self._u, self._p, self._t], float(self.dt))

    def refined_step_function(self, integrator: str, substeps: int) -> ca.Function:
        """`step_function` by another scheme, to see what the discretisation costs."""
        return self.replace(integrator=integrator, substeps=substeps).step_function

    def _step(self, name: str, inputs: list[ca.SX], h: float | ca.SX) -> ca.Function:
        x, u, p, t = inputs[:4]
        if self.discrete:
            after, cost = self._evaluate("transition", x, u, p, t), self._evaluate("stage_cost", x, u, p, t)
        else:
            held = hold(self.rate_function)

            def rate(x_: ca.SX, t_: ca.SX) -> tuple[ca.SX, ca.SX]:
                return held(x_, u, p, t_, t + 0.5 * h)  # type: ignore[return-value]

            after, cost = integrate(self.integrator, rate, x, t, h, self.substeps, self._ranges(u, p))
        names = ["x", "u", "p", "t", "h"][: len(inputs)]
        return ca.Function(name, inputs, [after, cost], names, ["x_next", "cost"])

    def _ranges(self, u: ca.SX, p: ca.SX) -> Ranges:
        """What the controls, the parameters and an interval may be."""
        nominal = self.param_values
        join = lambda a, b: np.concatenate([a, b])
        return Ranges(
            symbols=ca.vertcat(u, p),
            low=join(self.control_low, np.minimum(self.param_low, nominal)),
            high=join(self.control_high, np.maximum(self.param_high, nominal)),
            scale=join(np.maximum(np.abs(self.action_low), np.abs(self.action_high)), np.abs(nominal)),
            longest=max(self.dt, self.final_time[1] / self.steps if self.final_time else 0.0),
        )

    @once
    def fingerprint(self) -> str:
        """A hash of what a policy depends on: step, cost, observation, action scale and horizon. Checkpoints carry it."""
        parts = [f.serialize() for f in (self.step_function, self.observation_function, self.terminal_cost_function)]
        parts += [repr((self.action_low.tolist(), self.action_high.tolist(), self.dt, self.steps, self.horizon))]
        return _digest(parts)

    @once
    def task_fingerprint(self) -> str:
        """A hash of what a set of optima depends on: beyond `fingerprint` bounds, constraints, starts and parameters."""
        drawn, constraints = self.initial_state, (self.path_constraint_function, self.terminal_constraint_function)
        parts = [self.fingerprint, *("" if f is None else f.serialize() for f in constraints)]
        sides = (self.control_low, self.control_high, self.state_low, self.state_high, self.param_low, self.param_high)
        numbers = [a.tolist() for a in (*sides, self.param_values, drawn.location, drawn.spread)]
        return _digest([*parts, repr((numbers, drawn.kind, self.final_time))])

    def __repr__(self) -> str:
        return (
            f"Problem({self.name!r}, n_x={self.n_x}, n_u={self.n_u}, {self.horizon} horizon, "
            f"{self.steps} steps of {self.dt} s)"
        )


_FUNCTIONS = (
    "dynamics", "transition", "stage_cost", "terminal_cost", "diffusion", "path_constraints", "terminal_constraints", "observation",
)  # fmt: skip
_TRAVELLING = (
    "step_function", "observation_function", "terminal_cost_function", "path_constraint_function", "last_constraint_function",
    "terminal_constraint_function",
)  # fmt: skip
"""Built with the problem, and pickled with it: built again from expressions, they could differ by a rounding."""


def _restored(kind: type[Problem], contents: dict[str, Any]) -> Problem:
    problem = object.__new__(kind)
    problem.__dict__.update(contents)
    return problem


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _positional_arguments(function: Callable[..., Any]) -> int:
    parameters = inspect.signature(function).parameters.values()
    if any(q.kind is q.VAR_POSITIONAL for q in parameters):
        raise ValueError("takes any number")
    return sum(q.kind in (q.POSITIONAL_ONLY, q.POSITIONAL_OR_KEYWORD) and q.default is q.empty for q in parameters)
