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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import casadi as ca
import numpy as np

from optctl.errors import ProblemError, require
from optctl.problem.check import FUNCTIONS, TRAVELLING, check_fields, check_functions
from optctl.problem.distributions import InitialState
from optctl.problem.exponential import Ranges
from optctl.problem.functions import Parameters, Stated, positional_arguments
from optctl.problem.held import Held, hold
from optctl.problem.integrators import integrate
from optctl.shared import once

Bounds = Mapping[str, tuple[float, float]]
Expression = Any
"""Whatever `casadi.vertcat` accepts: an SX, a number, or a sequence of them."""


_EARLY = 1e-3
"""Of an interval: so much too soon are data read at the nodes t = k · dt, which single precision may put before them."""


def check_problem(problem: Any) -> None:
    """Raise unless it is a `Problem`; names are for `optctl.make`."""
    hint = f"; `optctl.make({problem!r})` makes one" if isinstance(problem, str) else ""
    require(isinstance(problem, Problem), "problem", "be a Problem", f"is {problem!r}{hint}")


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
    initial_state: InitialState
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

    def __post_init__(self) -> None:
        check_fields(self)
        check_functions(self)

    @property
    def held(self) -> Mapping[str, Held]:
        """`data` as the check has made it: every name's values and how long each holds."""
        return self.data  # type: ignore[return-value]

    def __copy__(self) -> Problem:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Problem:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for field in FUNCTIONS:
            function = self.point_function(field, field)
            if function is not None and not isinstance(given[field], Stated):
                given[field] = Stated(function, tuple(self.params))
        return _restored, (type(self), given | {name: getattr(self, name) for name in TRAVELLING})

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
    def x(self) -> ca.SX:
        """The states as symbols, (n_x,)."""
        return ca.SX.sym("x", self.n_x)

    @once
    def u(self) -> ca.SX:
        """The controls as symbols, (n_u,)."""
        return ca.SX.sym("u", self.n_u)

    @once
    def p(self) -> ca.SX:
        """The parameters as symbols, (n_p,)."""
        return ca.SX.sym("p", self.n_p)

    @once
    def t(self) -> ca.SX:
        """The time as a symbol."""
        return ca.SX.sym("t")

    def symbols(self, field: str) -> tuple[ca.SX, ...]:
        at_a_point = field in ("terminal_cost", "terminal_constraints", "observation")
        return (self.x, self.p, self.t) if at_a_point else (self.x, self.u, self.p, self.t)

    def evaluate(self, field: str, *arguments: ca.SX) -> ca.SX:
        """Call the user's function with named parameters and as many arguments as it takes; a column (or matrix) of SX."""
        function = getattr(self, field)
        *point, p, t = arguments
        named = Parameters(tuple(self.params), p)
        between = field in ("dynamics", "stage_cost") and not self.discrete
        named.__dict__.update({name: held.at(t, 1e-9 if between else _EARLY) for name, held in self.held.items()})
        values = (*point, named, t)
        try:
            taken = positional_arguments(function)
        except (TypeError, ValueError):
            taken = len(values)
        require(
            taken in (len(values) - 1, len(values)),
            field,
            f"take {len(values) - 1} arguments, or one more for the time",
            f"takes {taken}",
        )
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

    def point_function(self, name: str, field: str) -> ca.Function | None:
        if getattr(self, field) is None:
            return None
        symbols = self.symbols(field)
        names = ["x", "p", "t"] if len(symbols) == 3 else ["x", "u", "p", "t"]
        return ca.Function(name, list(symbols), [self.evaluate(field, *symbols)], names, [name])

    @once
    def dynamics_function(self) -> ca.Function | None:
        """(x, u, p, t) → ẋ; `None` for a discrete problem."""
        return self.point_function("xdot", "dynamics")

    @once
    def rate_function(self) -> ca.Function:
        """(x, u, p, t) → (ẋ, l) of a continuous problem."""
        symbols = self.x, self.u, self.p, self.t
        rates = [self.evaluate("dynamics", *symbols), self.evaluate("stage_cost", *symbols)]
        return ca.Function("rates", list(symbols), rates, ["x", "u", "p", "t"], ["xdot", "stage_cost"])

    @once
    def stage_cost_function(self) -> ca.Function:
        """(x, u, p, t) → l."""
        function = self.point_function("stage_cost", "stage_cost")
        assert function is not None
        return function

    @once
    def diffusion_function(self) -> ca.Function | None:
        """(x, u, p, t) → G, shape (n_x, n_w)."""
        return self.point_function("diffusion", "diffusion")

    @once
    def path_constraint_function(self) -> ca.Function | None:
        """(x, u, p, t) → c, to be ≤ 0."""
        return self.point_function("path_constraints", "path_constraints")

    @once
    def last_constraint_function(self) -> ca.Function | None:
        """(x, p, t) → the components of c that mention no control, to be ≤ 0 at the last state too; `None` where there are none."""
        if self.path_constraint_function is None:
            return None
        c = ca.vec(ca.densify(self.path_constraint_function(self.x, self.u, self.p, self.t)))
        free = [row for row in ca.vertsplit(c) if not ca.depends_on(row, self.u)]
        return (
            ca.Function("last", [self.x, self.p, self.t], [ca.vertcat(*free)], ["x", "p", "t"], ["last"])
            if free
            else None
        )

    @once
    def terminal_constraint_function(self) -> ca.Function | None:
        """(x, p, t) → e, to be 0."""
        return self.point_function("terminal_constraints", "terminal_constraints")

    @once
    def terminal_cost_function(self) -> ca.Function:
        """(x, p, t) → φ; zero where there is none."""
        symbols = [self.x, self.p, self.t]
        cost = ca.SX(0) if self.terminal_cost is None else self.evaluate("terminal_cost", *symbols)
        return ca.Function("terminal_cost", symbols, [cost], ["x", "p", "t"], ["terminal_cost"])

    @once
    def observation_function(self) -> ca.Function:
        """(x, p, t) → y."""
        symbols = [self.x, self.p, self.t]
        if self.observation is not None:
            y = self.evaluate("observation", *symbols)
        elif self.horizon == "finite":
            y = ca.vertcat(self.x, self.t / self.duration)
        else:
            y = self.x
        return ca.Function("observation", symbols, [y], ["x", "p", "t"], ["y"])

    @once
    def interval_function(self) -> ca.Function:
        """(x, u, p, t, h) → (x(t + h), cost over the interval): `step_function` for an interval of any length h."""
        h = ca.SX.sym("h")
        return self._step("interval", [self.x, self.u, self.p, self.t, h], h)

    @once
    def step_function(self) -> ca.Function:
        """(x, u, p, t) → (x_next, cost): one control interval `dt`."""
        return self._step("step", [self.x, self.u, self.p, self.t], float(self.dt))

    def _step(self, name: str, inputs: list[ca.SX], h: float | ca.SX) -> ca.Function:
        x, u, p, t = inputs[:4]
        if self.discrete:
            after, cost = self.evaluate("transition", x, u, p, t), self.evaluate("stage_cost", x, u, p, t)
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


def _restored(kind: type[Problem], contents: dict[str, Any]) -> Problem:
    problem = object.__new__(kind)
    problem.__dict__.update(contents)
    return problem


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
