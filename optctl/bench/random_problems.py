"""Random small problems of the kinds on which optimal control software goes wrong, each named by a kind and a number.

`draw("stiff", 17)` is the same problem on every machine. A kind is a function of a random generator that returns the fields of a
`Problem`; `KINDS` lists them. Sizes: one to four states, one to three controls, 5 to 40 intervals.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import casadi as ca
import numpy as np

from optctl.problem import Problem, Uniform

Fields = dict[str, Any]
Generator = np.random.Generator


@dataclass(frozen=True)
class Draw:
    """A problem, states to start from (10, n_x), and what is known of it by construction."""

    kind: str
    number: int
    problem: Problem
    starts: np.ndarray
    feasible: bool = True
    """False: no controls keep the constraints."""
    bounded: bool = True
    """False: the cost falls without limit."""

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.number}"


STARTS = 10


# --- parts --------------------------------------------------------------------------------------------------------------


def _sizes(rng: Generator, most_states: int = 4, most_controls: int = 3) -> tuple[int, int, int, float]:
    """n_x, n_u, steps, dt: fewer states and controls are likelier, as with users."""
    n_x = int(rng.choice(np.arange(1, 5), p=[0.3, 0.4, 0.2, 0.1]).clip(max=most_states))
    n_u = int(rng.choice(np.arange(1, 4), p=[0.65, 0.25, 0.1]).clip(max=most_controls))
    return n_x, n_u, int(rng.integers(5, 41)), float(np.round(rng.uniform(0.02, 0.15), 3))


def _column(*entries: Any) -> ca.SX:
    return ca.vertcat(*entries)


def _matrices(rng: Generator, n_x: int, n_u: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(size=(n_x, n_x)) / n_x**0.5, rng.normal(size=(n_x, n_u))


def _quadratic(rng: Generator, n_x: int, n_u: int, control_weight: float = 1.0) -> Callable[..., Any]:
    """(x − r)'Q(x − r) + w u'Ru with Q ≥ 0 of random rank, R > 0."""
    q = rng.normal(size=(int(rng.integers(1, n_x + 1)), n_x))
    r = rng.normal(size=(n_u, n_u)) / 2
    r = control_weight * (r.T @ r + np.eye(n_u) * 10.0 ** rng.uniform(-2, 0))
    goal = rng.normal(size=n_x) * (rng.random() < 0.3)
    return lambda x, u, p: ca.sumsqr(ca.mtimes(q, x - goal)) + ca.dot(u, ca.mtimes(r, u))


def _box(rng: Generator, n_u: int, likely: float = 0.7) -> dict[str, tuple[float, float]]:
    """Bounds on some controls: two-sided, now and then one-sided or beside zero."""
    bounds = {}
    for i in range(n_u):
        if rng.random() < likely:
            high = float(10.0 ** rng.uniform(-0.7, 1.0))
            low = float(rng.choice([-high, 0.0, -high / 3, high / 4]))
            bounds[f"u{i}"] = (low, float("inf") if rng.random() < 0.1 else high)
    return bounds


def _fields(rng: Generator, n_x: int, n_u: int, steps: int, dt: float, **rest: Any) -> Fields:
    center, spread = rng.normal(size=n_x), 10.0 ** rng.uniform(-1, 0)
    fields: Fields = dict(
        state=[f"x{i}" for i in range(n_x)], control=[f"u{i}" for i in range(n_u)], steps=steps, dt=dt,
        initial_state=Uniform(center - spread, center + spread),
    )  # fmt: skip
    return fields | rest


def _end(rng: Generator, n_x: int, weight: float = 1.0) -> Callable[..., Any]:
    s = rng.normal(size=(n_x, n_x)) * weight
    return lambda x, p: ca.sumsqr(ca.mtimes(s, x))


def _smooth_plant(rng: Generator, n_x: int, n_u: int) -> Callable[..., Any]:
    """A linear part, sines of it, a product with the controls, sometimes a cubic spring."""
    a, b = _matrices(rng, n_x, n_u)
    w, c, d = rng.normal(size=(n_x, n_x)), rng.normal(size=n_x), 0.3 * rng.normal(size=(n_x, n_u))
    cubic = 0.2 * (rng.random() < 0.3)
    return lambda x, u, p: (
        ca.mtimes(a - 0.3 * np.eye(n_x), x) + c * ca.sin(ca.mtimes(w, x)) + ca.mtimes(b, u)
        + ca.mtimes(d, u) * ca.tanh(x) - cubic * x**3
    )  # fmt: skip


# --- kinds --------------------------------------------------------------------------------------------------------------


def linear(rng: Generator) -> Fields:
    """ẋ = Ax + Bu with a convex quadratic cost: what is solved may be called proved."""
    n_x, n_u, steps, dt = _sizes(rng)
    a, b = _matrices(rng, n_x, n_u)
    scheme = str(rng.choice(["rk4", "rk4", "exponential", "euler", "midpoint"]))
    rest = {"terminal_cost": _end(rng, n_x)} if rng.random() < 0.5 else {}
    return _fields(rng, n_x, n_u, steps, dt, dynamics=lambda x, u, p: ca.mtimes(a, x) + ca.mtimes(b, u), integrator=scheme,
                   stage_cost=_quadratic(rng, n_x, n_u), control_bounds=_box(rng, n_u, 0.5), **rest)  # fmt: skip


def discrete(rng: Generator) -> Fields:
    """x⁺ = F(x, u), linear or not."""
    n_x, n_u, steps, _ = _sizes(rng)
    a, b = _matrices(rng, n_x, n_u)
    bend = 0.3 * (rng.random() < 0.5)
    return _fields(rng, n_x, n_u, steps, 1.0, stage_cost=_quadratic(rng, n_x, n_u), control_bounds=_box(rng, n_u),
                   transition=lambda x, u, p: ca.mtimes(a, x) + ca.mtimes(b, u) + bend * ca.sin(x))  # fmt: skip


def bilinear(rng: Generator) -> Fields:
    """ẋ = (A + Σ uᵢBᵢ) x, also skew-symmetric as in quantum control."""
    n_x, n_u, steps, dt = _sizes(rng)
    n_x = max(n_x, 2)
    parts = rng.normal(size=(n_u + 1, n_x, n_x))
    if rng.random() < 0.5:
        parts = parts - parts.swapaxes(1, 2)
    goal = rng.normal(size=n_x)
    rate = lambda x, u, p: ca.mtimes(parts[0], x) + sum(u[i] * ca.mtimes(parts[i + 1], x) for i in range(n_u))
    weight = float(rng.choice([0.0, 0.01, 0.3]))
    return _fields(rng, n_x, n_u, steps, dt, dynamics=rate, integrator=str(rng.choice(["exponential", "rk4"])),
                   stage_cost=lambda x, u, p: weight * ca.sumsqr(u), terminal_cost=lambda x, p: ca.sumsqr(x - goal),
                   control_bounds={f"u{i}": (-3.0, 3.0) for i in range(n_u)} if weight == 0 else _box(rng, n_u))  # fmt: skip


def smooth(rng: Generator) -> Fields:
    """Nonlinear and smooth, controls bounded or not."""
    n_x, n_u, steps, dt = _sizes(rng)
    rest = {"terminal_cost": _end(rng, n_x)} if rng.random() < 0.5 else {}
    return _fields(rng, n_x, n_u, steps, dt, dynamics=_smooth_plant(rng, n_x, n_u), stage_cost=_quadratic(rng, n_x, n_u),
                   control_bounds=_box(rng, n_u), integrator=str(rng.choice(["rk4", "rk4", "euler", "midpoint"])), **rest)  # fmt: skip


def unstable(rng: Generator) -> Fields:
    """Growth by a factor of up to e²⁰ over the horizon."""
    n_x, n_u, steps, dt = _sizes(rng)
    a, b = _matrices(rng, n_x, n_u)
    a = a + np.eye(n_x) * rng.uniform(2.0, 20.0) / (steps * dt)
    bend = float(rng.choice([0.0, 0.5]))
    scheme = "exponential" if bend == 0 and rng.random() < 0.5 else "rk4"
    return _fields(rng, n_x, n_u, steps, dt, dynamics=lambda x, u, p: ca.mtimes(a, x) + bend * ca.sin(x) + ca.mtimes(b, u),
                   stage_cost=_quadratic(rng, n_x, n_u), control_bounds=_box(rng, n_u, 0.3), integrator=scheme, substeps=2)  # fmt: skip


def stiff(rng: Generator) -> Fields:
    """Damped modes with ‖hA‖ up to 10⁴ beside slow ones, exactly or by an explicit scheme that cannot do it."""
    n_x, n_u, steps, dt = _sizes(rng)
    fast = -(10.0 ** rng.uniform(0.5, 4.0)) / dt
    rates = np.diag(-rng.uniform(0.1, 2.0, n_x))
    rates[0, 0] = fast
    if n_x > 1 and rng.random() < 0.3:  # a fast damped oscillation
        rates[:2, :2] = fast * np.array([[0.5, -0.8], [0.8, 0.5]])
    turn = np.linalg.qr(rng.normal(size=(n_x, n_x)))[0] if rng.random() < 0.5 else np.eye(n_x)
    a, b = turn @ rates @ turn.T, rng.normal(size=(n_x, n_u))
    b[0] *= 1.0 if rng.random() < 0.5 else abs(fast)
    bend = float(rng.choice([0.0, 0.0, 0.5]))
    scheme = str(rng.choice(["exponential", "exponential", "rk4"])) if bend == 0 else "rk4"
    return _fields(rng, n_x, n_u, steps, dt, dynamics=lambda x, u, p: ca.mtimes(a, x) + bend * ca.sin(x) + ca.mtimes(b, u),
                   stage_cost=_quadratic(rng, n_x, n_u), control_bounds=_box(rng, n_u, 0.5), integrator=scheme)  # fmt: skip


def redundant(rng: Generator) -> Fields:
    """Several actuators that do the same, paid for by what they do together: the cost is flat in between."""
    n_x, _, steps, dt = _sizes(rng)
    n_u = int(rng.integers(2, 4))
    share, into = rng.normal(size=(1, n_u)), rng.normal(size=n_x)
    bend = float(rng.choice([0.0, 1.0]))
    a, _ = _matrices(rng, n_x, 1)
    together = lambda u: ca.mtimes(share, u)
    return _fields(rng, n_x, n_u, steps, dt, control_bounds=_box(rng, n_u, 0.3),
                   dynamics=lambda x, u, p: ca.mtimes(a, x) - bend * ca.sin(x) + into * together(u),
                   stage_cost=lambda x, u, p: ca.sumsqr(x) + together(u) ** 2)  # fmt: skip


def without_control_cost(rng: Generator) -> Fields:
    """Bounded controls that cost nothing: bang-bang and singular."""
    n_x, n_u, steps, dt = _sizes(rng)
    a, b = _matrices(rng, n_x, n_u)
    bend = float(rng.choice([0.0, 1.0]))
    q = rng.normal(size=(n_x, n_x))
    return _fields(rng, n_x, n_u, steps, dt, control_bounds={f"u{i}": (-1.0, 1.0) for i in range(n_u)},
                   dynamics=lambda x, u, p: ca.mtimes(a, x) + bend * ca.sin(x) + ca.mtimes(b, u),
                   stage_cost=lambda x, u, p: ca.sumsqr(ca.mtimes(q, x)))  # fmt: skip


def over_actuated(rng: Generator) -> Fields:
    """More controls than states, a small cost on each."""
    _, _, steps, dt = _sizes(rng)
    n_x, n_u = int(rng.integers(1, 3)), 3
    a, b = _matrices(rng, n_x, n_u)
    weight = 10.0 ** rng.uniform(-12, 0)
    return _fields(rng, n_x, n_u, steps, dt, control_bounds=_box(rng, n_u, 0.5),
                   dynamics=lambda x, u, p: ca.mtimes(a, x) + 0.5 * ca.sin(x) + ca.mtimes(b, u),
                   stage_cost=lambda x, u, p: ca.sumsqr(x) + weight * ca.sumsqr(u))  # fmt: skip


def state_bounds(rng: Generator) -> Fields:
    """Linear or smooth, with bounds on states near where they start."""
    fields = (linear if rng.random() < 0.5 else smooth)(rng)
    low, high = fields["initial_state"].low, fields["initial_state"].high
    room = 10.0 ** rng.uniform(-1, 0.5)
    named = [name for name in fields["state"] if rng.random() < 0.6] or fields["state"][:1]
    sides = {n: (float(low[i] - room), float(high[i] + room)) for i, n in enumerate(fields["state"]) if n in named}
    return fields | {"state_bounds": sides}


def path_constraints(rng: Generator) -> Fields:
    """Obstacles for states, limits on power, half-spaces of states and controls."""
    fields = (linear if rng.random() < 0.4 else smooth)(rng)
    n_x, n_u = len(fields["state"]), len(fields["control"])
    initial = fields["initial_state"]
    far = initial.high + 1.5 * (initial.high - initial.low)
    g, k = rng.normal(size=n_x), rng.normal(size=n_u)
    limit = float(np.abs(g) @ np.maximum(np.abs(initial.low), np.abs(initial.high)) + 10.0 ** rng.uniform(-1, 0))
    radius = float(0.5 * np.linalg.norm(initial.high - initial.low))
    options: list[Callable[..., Any]] = [
        lambda x, u, p: ca.dot(g, x) - limit,
        lambda x, u, p: radius**2 - ca.sumsqr(x - far),
        lambda x, u, p: ca.sumsqr(u) - 1.0 - ca.sumsqr(x),
        lambda x, u, p: ca.vertcat(ca.dot(k, u) - 1.0, ca.dot(g, x) - limit),
        lambda x, u, p, t: ca.dot(g, x) - limit - t,
    ]
    return fields | {"path_constraints": options[int(rng.integers(len(options)))]}


def terminal(rng: Generator) -> Fields:
    """A state, or a combination of states, to be reached at the end."""
    fields = (linear if rng.random() < 0.4 else smooth)(rng)
    n_x = len(fields["state"])
    rows = int(rng.integers(1, n_x + 1))
    e, goal = rng.normal(size=(rows, n_x)), 0.5 * rng.normal(size=rows)
    fields.pop("terminal_cost", None)
    return fields | {"terminal_constraints": lambda x, p: ca.mtimes(e, x) - goal}


def unbounded(rng: Generator) -> Fields:
    """Nonlinear, no bounds, cheap to expensive controls."""
    n_x, n_u, steps, dt = _sizes(rng)
    return _fields(rng, n_x, n_u, steps, dt, dynamics=_smooth_plant(rng, n_x, n_u),
                   stage_cost=_quadratic(rng, n_x, n_u, 10.0 ** rng.uniform(-5, 2)))  # fmt: skip


def infeasible(rng: Generator) -> Fields:
    """No controls keep the constraints: an end out of reach, bounds that contradict, a start that must leave its box."""
    n_x, n_u, steps, dt = _sizes(rng)
    fields = _fields(
        rng, n_x, n_u, steps, dt, stage_cost=_quadratic(rng, n_x, n_u),
        control_bounds={f"u{i}": (-1.0, 1.0) for i in range(n_u)},
        dynamics=lambda x, u, p: -0.1 * x + 0.5 * ca.tanh(ca.sum1(u)),
    )  # fmt: skip
    reach = float(np.abs(fields["initial_state"].high).max() + np.abs(fields["initial_state"].low).max() + steps * dt)
    choice = int(rng.integers(3))
    if choice == 0:
        fields["terminal_constraints"] = lambda x, p: x[0] - 3.0 * reach
    elif choice == 1:
        fields["path_constraints"] = lambda x, u, p: 2.0 - u[0]
    else:
        fields["path_constraints"] = lambda x, u, p: ca.vertcat(x[0] - 0.1 - ca.sumsqr(u), ca.sumsqr(u) - x[0] + 0.2)
    return fields


def kinks(rng: Generator) -> Fields:
    """fabs, fmin, fmax and if_else in dynamics or cost."""
    n_x, n_u, steps, dt = _sizes(rng)
    a, b = _matrices(rng, n_x, n_u)
    bends: list[Callable[..., Any]] = [
        ca.fabs, lambda x: ca.fmin(x, 0.3), lambda x: ca.fmax(x, -0.2), lambda x: ca.if_else(x > 0.1, 2 * x, x)
    ]  # fmt: skip
    bend, price = (bends[int(rng.integers(len(bends)))] for _ in range(2))
    weight = float(rng.choice([0.0, 0.3]))
    return _fields(rng, n_x, n_u, steps, dt, control_bounds=_box(rng, n_u, 0.8),
                   dynamics=lambda x, u, p: ca.mtimes(a, x) + weight * bend(x) + ca.mtimes(b, u),
                   stage_cost=lambda x, u, p: ca.sumsqr(x) + 0.1 * ca.sumsqr(u) + ca.fabs(price(x[0])) + 0.1 * ca.fabs(u[0]))  # fmt: skip


def domains(rng: Generator) -> Fields:
    """Logarithms, roots and reciprocals of a control or a state, which end at zero."""
    _, _, steps, dt = _sizes(rng)
    choice, gain = int(rng.integers(4)), 10.0 ** rng.uniform(-1, 0)
    utility: list[Callable[..., Any]] = [
        lambda u: -ca.log(u), lambda u: -ca.sqrt(u), lambda u: 1 / u + u, lambda u: u * ca.log(u)
    ]  # fmt: skip
    high = float(rng.choice([np.inf, 5.0]))
    bounds = {} if rng.random() < 0.4 else {"u0": (0.0, high)}
    rate = float(rng.uniform(0.0, 0.3))
    fields = dict(
        state=["x0"], control=["u0"], steps=steps, dt=dt, initial_state=Uniform([2.0], [5.0]), control_bounds=bounds,
        dynamics=lambda x, u, p: rate * x - u, stage_cost=lambda x, u, p: gain * utility[choice](u[0]),
    )  # fmt: skip
    if rng.random() < 0.5:
        return fields | {"terminal_cost": lambda x, p: (x[0] - 0.5) ** 2}
    return fields | {"terminal_constraints": lambda x, p: x[0] - 0.5}


def concave(rng: Generator) -> Fields:
    """Costs that reward extremes, within bounds: stationary points inside are maxima."""
    n_x, n_u, steps, dt = _sizes(rng)
    a, b = _matrices(rng, n_x, n_u)
    weight, price = 10.0 ** rng.uniform(-1, 1), float(rng.choice([0.0, 0.5]))
    origin = {"initial_state": Uniform(np.zeros(n_x), np.zeros(n_x))} if rng.random() < 0.4 else {}
    return _fields(rng, n_x, n_u, steps, dt, control_bounds={f"u{i}": (-1.0, 1.0) for i in range(n_u)},
                   dynamics=lambda x, u, p: ca.mtimes(a, x) + ca.mtimes(b, u),
                   stage_cost=lambda x, u, p: price * ca.sumsqr(x) - weight * ca.sumsqr(u)) | origin  # fmt: skip


def free_time(rng: Generator) -> Fields:
    """The final time is free: least time, or a balance of time and effort."""
    _, _, steps, _ = _sizes(rng)
    weight = float(rng.choice([0.0, 0.2, 1.0]))
    spring = float(rng.choice([0.0, 1.0, -0.5]))
    fields = dict(
        state=["x0", "x1"], control=["u0"], steps=max(steps, 15), dt=0.1, initial_state=Uniform([0.5, -0.5], [1.5, 0.5]),
        control_bounds={"u0": (-1.0, 1.0)}, final_time=(0.1, 12.0),
        dynamics=lambda x, u, p: ca.vertcat(x[1], u[0] - spring * x[0]), terminal_constraints=lambda x, p: x,
        stage_cost=lambda x, u, p: 1.0 + weight * u[0] ** 2,
    )  # fmt: skip
    return fields


def falling(rng: Generator) -> Fields:
    """The cost falls without limit: a control that gains more than it costs, without a bound."""
    n_x, n_u, steps, dt = _sizes(rng)
    a, b = _matrices(rng, n_x, n_u)
    rewards: list[Callable[..., Any]] = [lambda x, u, p: u[0], lambda x, u, p: ca.sumsqr(x) - ca.sumsqr(u) * 50.0]
    return _fields(rng, n_x, n_u, steps, dt, dynamics=lambda x, u, p: ca.mtimes(a, x) + ca.mtimes(b, u),
                   stage_cost=rewards[int(rng.integers(2))])  # fmt: skip


def idle(rng: Generator) -> Fields:
    """A control that enters only the path constraints, or nothing."""
    fields = smooth(rng)
    n_u = len(fields["control"])
    plant, price = fields["dynamics"], fields["stage_cost"]
    fields["control"] = [*fields["control"], "idle"]
    fields["dynamics"] = lambda x, u, p: plant(x, u[:n_u], p)
    fields["stage_cost"] = lambda x, u, p: price(x, u[:n_u], p)
    fields["control_bounds"] = dict(fields["control_bounds"]) | {"idle": (0.0, 1.0)}
    if rng.random() < 0.7:
        fields["path_constraints"] = lambda x, u, p: ca.sumsqr(u[:n_u]) - 2.0 - u[n_u]
    return fields


def beside_large(rng: Generator) -> Fields:
    """A constant, large state beside the others: a pressure in pascal, a temperature in kelvin."""
    fields = (smooth if rng.random() < 0.5 else stiff)(rng)
    n_x, plant, price, end = len(fields["state"]), fields["dynamics"], fields["stage_cost"], fields.get("terminal_cost")
    size = 10.0 ** rng.uniform(2, 6)
    initial = fields["initial_state"]
    fields["state"] = [*fields["state"], "large"]
    fields["initial_state"] = Uniform([*initial.low, size], [*initial.high, size])
    fields["dynamics"] = lambda x, u, p: ca.vertcat(plant(x[:n_x], u, p), 0)
    fields["stage_cost"] = lambda x, u, p: price(x[:n_x], u, p)
    if end is not None:
        fields["terminal_cost"] = lambda x, p: end(x[:n_x], p)
    return fields


def clocked(rng: Generator) -> Fields:
    """Dynamics and cost that depend on the time: a disturbance, a discount, a moving goal."""
    fields = smooth(rng)
    plant, price, n_x = fields["dynamics"], fields["stage_cost"], len(fields["state"])
    push, pace, rate = rng.normal(size=n_x), rng.uniform(1, 10), rng.uniform(0, 2)
    fields["dynamics"] = lambda x, u, p, t: plant(x, u, p) + push * ca.sin(pace * t)
    fields["stage_cost"] = lambda x, u, p, t: ca.exp(-rate * t) * price(x - push * t, u, p)
    return fields


def scaled(rng: Generator) -> Fields:
    """Another kind in other units: states, controls, cost and time by powers of ten from −9 to 9."""
    inside = [linear, smooth, bilinear, state_bounds, terminal, path_constraints, without_control_cost, unbounded]
    fields = inside[int(rng.integers(len(inside)))](rng)
    power = lambda size, likely: 10.0 ** (np.round(rng.uniform(-9, 9, size)) * (rng.random() < likely))
    n_x, n_u = len(fields["state"]), len(fields["control"])
    s = power(n_x if rng.random() < 0.5 else 1, 0.5) * np.ones(n_x)
    r = power(n_u if rng.random() < 0.5 else 1, 0.5) * np.ones(n_u)
    c, tau = float(power(1, 0.4)[0]), float(power(1, 0.4)[0])
    return rescaled(fields, s, r, c, tau)


def rescaled(fields: Fields, s: np.ndarray, r: np.ndarray, c: float, tau: float) -> Fields:
    """The same problem in units in which a state is s, a control r, the cost c and the time tau times as large a number."""
    out = dict(fields)

    def at(function: Callable[..., Any], factor: Any) -> Callable[..., Any]:
        timed = function.__code__.co_argcount == 4
        return lambda x, u, p, t: factor * (function(x / s, u / r, p, t / tau) if timed else function(x / s, u / r, p))

    def at_end(function: Callable[..., Any], factor: float) -> Callable[..., Any]:
        return lambda x, p: factor * function(x / s, p)

    if "dynamics" in fields:
        out["dynamics"], out["stage_cost"] = at(fields["dynamics"], s / tau), at(fields["stage_cost"], c / tau)
        out["dt"] = fields["dt"] * tau
    else:
        out["transition"], out["stage_cost"] = at(fields["transition"], s), at(fields["stage_cost"], c)
    if "terminal_cost" in fields:
        out["terminal_cost"] = at_end(fields["terminal_cost"], c)
    if "terminal_constraints" in fields:
        out["terminal_constraints"] = at_end(fields["terminal_constraints"], float(s[0]))
    if "path_constraints" in fields:
        out["path_constraints"] = at(fields["path_constraints"], float(s[0]))
    for field, factors, names in (("control_bounds", r, fields["control"]), ("state_bounds", s, fields["state"])):
        if field in fields:
            factor = dict(zip(names, factors, strict=True))
            out[field] = {n: (a * float(factor[n]), b * float(factor[n])) for n, (a, b) in fields[field].items()}
    initial = fields["initial_state"]
    out["initial_state"] = Uniform(np.asarray(initial.low) * s, np.asarray(initial.high) * s)
    return out


KINDS: dict[str, Callable[[Generator], Fields]] = {
    "linear": linear, "discrete": discrete, "bilinear": bilinear, "smooth": smooth, "unstable": unstable, "stiff": stiff,
    "scaled": scaled, "redundant": redundant, "without-control-cost": without_control_cost, "over-actuated": over_actuated,
    "state-bounds": state_bounds, "path-constraints": path_constraints, "terminal": terminal, "unbounded": unbounded,
    "infeasible": infeasible, "kinks": kinks, "domains": domains, "concave": concave, "free-time": free_time,
    "falling": falling, "idle": idle, "beside-large": beside_large, "clocked": clocked,
}  # fmt: skip


def draw(kind: str, number: int) -> Draw:
    """The problem of this kind and number."""
    rng = np.random.default_rng([zlib.crc32(kind.encode()), number])
    fields = KINDS[kind](rng)
    problem = Problem(name=f"{kind}-{number}", **fields)
    starts = problem.initial_state.sample(rng, STARTS)
    return Draw(kind, number, problem, starts, feasible=kind != "infeasible", bounded=kind != "falling")
