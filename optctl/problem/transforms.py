"""Problem → Problem: delay, actuator lag, slew limits, action repeat, quantised controls, tracking, goals, sparse cost, minimum time.

Each is symbolic, so the environment and the optimum change together. Added states follow the problem's own and are observed; added
parameters follow its own. Transforms compose: `delayed(tracking(problem, …), 2)`. `quantised` comes last, for nothing differentiates
through a rounded control.

    from optctl.problem.transforms import delayed
    late = delayed(optctl.make("pendulum"), steps=2)
    env, best = optctl.make_vec(late, 4096), optctl.solve(late, x0)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import casadi as ca
import numpy as np

from optctl.errors import require
from optctl.problem.distributions import Fixed, InitialState, Normal, Uniform
from optctl.problem.statement import Problem, check_problem
from optctl.problem.structure import rounded

# --- what the transforms share -----------------------------------------------------------------------------------------


def _vector(problem: Problem, p: Any) -> ca.SX:
    """The parameters of `problem` as the vector that its compiled functions take."""
    return ca.SX(ca.vertcat(*[getattr(p, name) for name in problem.params]))


def _check(problem: Problem) -> None:
    check_problem(problem)
    require(not rounded(problem), "problem", "be transformed before it is quantised", "its control is rounded")


def _units(names: Any) -> dict[str, str]:
    return dict(names)


def _whole(value: Any, argument: str) -> None:
    ok = isinstance(value, int | np.integer) and not isinstance(value, bool) and value > 0
    require(ok, argument, "be a positive integer", f"is {value!r}")


def _by_control(problem: Problem, value: Any, argument: str) -> np.ndarray:
    """One positive number for every control, or a mapping that names each of them; (n_u,)."""
    if isinstance(value, Mapping):
        require(
            set(value) == set(problem.control),
            argument,
            f"name every control ({', '.join(problem.control)})",
            f"names {', '.join(map(str, value)) or 'none'}",
        )
        value = [value[name] for name in problem.control]
    try:
        numbers = np.broadcast_to(np.asarray(value, dtype=float), (problem.n_u,))
    except (TypeError, ValueError):
        numbers = np.array([np.nan])
    require(bool(np.isfinite(numbers).all() and (numbers > 0).all()), argument, "be positive", f"is {value!r}")
    return numbers


def _unused(name: str, taken: Any) -> str:
    """`name`, or the first of name_2, name_3, … that is not taken."""
    number, candidate = 2, name
    while candidate in taken:
        number, candidate = number + 1, f"{name}_{number}"
    return candidate


def _extended(initial: InitialState, value: np.ndarray) -> InitialState:
    """The same distribution, followed by states that always begin with `value`."""
    zero, join = np.zeros_like(value), lambda a, b: np.concatenate([np.atleast_1d(np.asarray(a, dtype=float)), b])
    if isinstance(initial, Uniform):
        return Uniform(join(initial.low, value), join(initial.high, value))
    if isinstance(initial, Normal):
        return Normal(join(initial.mean, value), join(initial.std, zero))
    require(isinstance(initial, Fixed), "initial_state", "be Uniform, Normal or Fixed", f"is {initial!r}")
    return Fixed(join(initial.location, value))


def _observed(problem: Problem, extra: Callable[..., Any], names: list[str]) -> dict[str, Any]:
    """The fields of an observation (y, extra(x, p, t)); what is added has no noise."""
    n, observe = problem.n_x, problem.observation_function
    noise = (*problem.noise_std, *np.zeros(len(names))) if problem.noise_std.any() else 0.0
    return {
        "observation": lambda x, p, t: ca.vertcat(observe(x[:n], _vector(problem, p), t), extra(x, p, t)),
        "observation_names": (*problem.y_names, *names),
        "observation_noise": noise,
    }


def _augmented(problem: Problem, added: dict[str, str], value: np.ndarray) -> dict[str, Any]:
    """The fields that change with states `added` (names with units, starting from `value`) behind the problem's own."""
    n = problem.n_x
    fields: dict[str, Any] = {
        "state": _units(problem.state) | added,
        "initial_state": _extended(problem.initial_state, value),
    }
    fields |= _observed(problem, lambda x, p, t: x[n:], list(added))
    if problem.terminal_cost is not None:
        end = problem.terminal_cost_function
        fields["terminal_cost"] = lambda x, p, t: end(x[:n], _vector(problem, p), t)
    if problem.terminal_constraint_function is not None:
        constraint = problem.terminal_constraint_function
        fields["terminal_constraints"] = lambda x, p, t: constraint(x[:n], _vector(problem, p), t)
    return fields


def _noise(problem: Problem, control: Callable[[Any, Any], Any], added: int) -> dict[str, Any]:
    """Diffusion and path constraints under the control that the plant sees, control(x, u)."""
    n, fields = problem.n_x, {}
    diffusion, path = problem.diffusion_function, problem.path_constraint_function
    if diffusion is not None:
        fields["diffusion"] = lambda x, u, p, t: ca.vertcat(
            diffusion(x[:n], control(x, u), _vector(problem, p), t), ca.SX.zeros(added, problem.n_w)
        )
    if path is not None:
        fields["path_constraints"] = lambda x, u, p, t: path(x[:n], control(x, u), _vector(problem, p), t)
    return fields


# --- how the control reaches the plant ---------------------------------------------------------------------------------


def discretised(problem: Problem) -> Problem:
    """The problem as its own step: x⁺ = F(x, u), cost per step, with F the map of its integrator. `dt` no longer changes F."""
    _check(problem)
    require(problem.final_time is None, "problem", "have a fixed final time", "its final time is free")
    if problem.discrete:
        return problem
    step, diffusion, fields = problem.step_function, problem.diffusion_function, {}
    if diffusion is not None:
        fields["diffusion"] = lambda x, u, p, t: np.sqrt(problem.dt) * diffusion(x, u, _vector(problem, p), t)
    return problem.replace(
        dynamics=None,
        transition=lambda x, u, p, t: step(x, u, _vector(problem, p), t)[0],
        stage_cost=lambda x, u, p, t: step(x, u, _vector(problem, p), t)[1],
        **fields,
    )


def delayed(problem: Problem, steps: int) -> Problem:
    """The plant gets the control of `steps` intervals ago: x⁺ = F(x, u_{k−d}), and the cost charges what it gets.

    The state is (x, u_{k−1}, …, u_{k−d}), which makes it Markov again; before the start the control was zero, or the nearest
    admissible one. Source: Katsikopoulos and Engelbrecht, Markov decision processes with delays, IEEE TAC 48 (2003) 568.
    """
    _whole(steps, "steps")
    plant = discretised(problem)
    n, queue = plant.n_x, plant.n_u * steps
    units, names = _units(plant.control), dict[str, str]()
    for j in range(1, steps + 1):
        names |= {_unused(f"{name}_{j}_ago", plant.state): unit for name, unit in units.items()}
    transition, cost = plant.step_function, plant.stage_cost_function

    def arriving(x, u):
        return x[n + queue - plant.n_u :]

    def shift(x, u, p, t):
        after = transition(x[:n], arriving(x, u), _vector(plant, p), t)[0]
        return ca.vertcat(after, u, x[n : n + queue - plant.n_u])

    return plant.replace(
        name=f"{problem.name}-delayed",
        transition=shift,
        stage_cost=lambda x, u, p, t: cost(x[:n], arriving(x, u), _vector(plant, p), t),
        **_augmented(plant, names, np.tile(plant.resting_control, steps)),
        **_noise(plant, arriving, queue),
    )


def with_actuator_lag(problem: Problem, time_constant: float | Mapping[str, float]) -> Problem:
    """The plant gets a, which follows the command u as τ a' = u − a; one τ [s] for all controls, or one for each by name.

    The state is (x, a), a(0) = 0 or the nearest admissible control. The cost charges the command u (were it a, nothing would limit
    an unbounded command), path constraints hold for a. In discrete time a⁺ = u + (a − u) exp(−dt/τ) and x⁺ = F(x, a⁺).
    """
    _check(problem)
    tau = _by_control(problem, time_constant, "time_constant")
    n, names = problem.n_x, [_unused(f"{name}_applied", problem.state) for name in problem.control]
    added = dict(zip(names, _units(problem.control).values(), strict=True))
    fields = _augmented(problem, added, problem.resting_control)
    if problem.discrete:
        keep, step = ca.DM(np.exp(-problem.dt / tau)), problem.step_function

        def applied(x, u):
            return u + (x[n:] - u) * keep

        def transition(x, u, p, t):
            return ca.vertcat(step(x[:n], applied(x, u), _vector(problem, p), t)[0], applied(x, u))

        fields |= {"transition": transition, **_noise(problem, applied, problem.n_u)}
    else:
        h = problem.dt / problem.substeps
        require(
            problem.integrator != "symplectic_euler",
            "problem",
            "have another integrator than symplectic_euler",
            "its state is no longer (positions, velocities)",
        )
        require(
            bool((tau >= h).all()),
            "time_constant",
            f"be at least dt / substeps = {h:g} s (raise `substeps`)",
            f"is {tau.min():g}",
        )
        rate = problem.dynamics_function
        assert rate is not None  # not discrete
        fields["dynamics"] = lambda x, u, p, t: ca.vertcat(
            rate(x[:n], x[n:], _vector(problem, p), t), (u - x[n:]) / ca.DM(tau)
        )
        fields |= _noise(problem, lambda x, u: x[n:], problem.n_u)
    cost = problem.stage_cost_function
    fields["stage_cost"] = lambda x, u, p, t: cost(x[:n], u, _vector(problem, p), t)
    return problem.replace(name=f"{problem.name}-lag", **fields)


_CORNER = 0.02


def _below(a: Any, bound: float, corner: float) -> Any:
    """min(a, bound) with its corner rounded off, never above it."""
    return a if np.isinf(bound) else 0.5 * (a + bound - ca.sqrt((a - bound) ** 2 + corner**2))


def slew_limited(problem: Problem, rates: float | Mapping[str, float], *, weight: float = 0.0) -> Problem:
    """The new control is the rate r of the old one, |r| ≤ `rates` [unit/s]: a_k = a_{k−1} + dt r_k, and x⁺ = F(x, a_k).

    The state is (x, a_{k−1}). Where the old control has bounds, r runs over what they leave of the interval: with
    low' = max(low, a − dt·rate) and high' = min(high, a + dt·rate), a_k = low' + (high' − low') (r/rate + 1)/2. That is a + dt r away
    from the bounds, reaches everything admissible and nothing else, and needs no constraint on the state. The corners of max and min
    are rounded inwards, (A + B − √((A − B)² + ε²))/2 with ε = 0.02 min(dt·rate, high − low), so that solvers have derivatives.
    The cost charges a_k, and `weight` · Σ r² dt besides.
    """
    plant = discretised(problem)
    limit = _by_control(plant, rates, "rates")
    n, dt, low, high = plant.n_x, plant.dt, plant.control_low, plant.control_high
    ok = not isinstance(weight, bool) and isinstance(weight, int | float) and 0 <= weight < np.inf
    require(ok, "weight", "be a number, not negative", f"is {weight!r}")
    units = _units(plant.control)
    added = {_unused(name, plant.state): unit for name, unit in units.items()}
    names = [_unused(f"{name}_rate", _units(plant.state) | added) for name in units]
    step = plant.step_function

    def applied(x, u):
        values = []
        for j in range(plant.n_u):
            a, change = x[n + j], dt * limit[j]
            corner = _CORNER * min(change, high[j] - low[j])
            most = _below(a + change, high[j], corner)
            least = -_below(change - a, -low[j], corner)
            values.append(0.5 * (least + most) + 0.5 * (most - least) * u[j] / limit[j])
        return ca.vertcat(*values)

    return plant.replace(
        name=f"{problem.name}-slew",
        control={name: f"{unit}/s" for name, unit in zip(names, units.values(), strict=True)},
        control_bounds={name: (-r, r) for name, r in zip(names, limit.tolist(), strict=True)},
        control_scale={},
        transition=lambda x, u, p, t: ca.vertcat(step(x[:n], applied(x, u), _vector(plant, p), t)[0], applied(x, u)),
        stage_cost=lambda x, u, p, t: step(x[:n], applied(x, u), _vector(plant, p), t)[1] + weight * dt * ca.sumsqr(u),
        **_augmented(plant, added, plant.resting_control),
        **_noise(plant, applied, plant.n_u),
    )


def action_repeat(problem: Problem, repeats: int) -> Problem:
    """Each control is held over `repeats` intervals: dt becomes repeats · dt, with as many substeps, so states and costs are those of
    single steps. Constraints hold at the start of the longer intervals; process noise is added once in each."""
    _check(problem)
    _whole(repeats, "repeats")
    require(problem.steps % repeats == 0, "repeats", f"divide the number of steps ({problem.steps})", f"is {repeats}")
    fields: dict[str, Any] = {"dt": problem.dt * repeats, "steps": problem.steps // repeats}
    if not problem.discrete:
        return problem.replace(name=f"{problem.name}-repeat", substeps=problem.substeps * repeats, **fields)
    require(problem.n_w == 0, "problem", "be free of noise, or continuous in time", f"has {problem.n_w} noises")
    step, dt = problem.step_function, problem.dt

    def repeated(x, u, p, t):
        cost = ca.SX(0)
        for k in range(repeats):
            x, part = step(x, u, _vector(problem, p), t + k * dt)
            cost += part
        return x, cost

    return problem.replace(
        name=f"{problem.name}-repeat",
        transition=lambda x, u, p, t: repeated(x, u, p, t)[0],
        stage_cost=lambda x, u, p, t: repeated(x, u, p, t)[1],
        **fields,
    )


def quantised(problem: Problem, levels: int | Mapping[str, int]) -> Problem:
    """The control is rounded to the nearest of `levels` equal levels between its action limits (2: bang-bang).

    For environments, plans and policies: the rounding has no derivative, so `solve` refuses it. The optimum of the unrounded problem
    is a lower bound.
    """
    _check(problem)
    number = _by_control(problem, levels, "levels")
    require(bool((number >= 2).all() and (number % 1 == 0).all()), "levels", "be integers from 2", f"is {levels!r}")
    low, span = problem.action_low, problem.action_high - problem.action_low

    def rounded(u):
        level = ca.floor((u - ca.DM(low)) / ca.DM(span) * ca.DM(number - 1) + 0.5)
        return ca.DM(low) + ca.DM(span) * ca.fmin(ca.fmax(level / ca.DM(number - 1), 0), 1)

    step, rate, cost = problem.step_function, problem.dynamics_function, problem.stage_cost_function
    fields: dict[str, Any] = _noise(problem, lambda x, u: rounded(u), 0)
    fields["stage_cost"] = lambda x, u, p, t: cost(x, rounded(u), _vector(problem, p), t)
    if rate is None:
        fields["transition"] = lambda x, u, p, t: step(x, rounded(u), _vector(problem, p), t)[0]
    else:
        fields["dynamics"] = lambda x, u, p, t: rate(x, rounded(u), _vector(problem, p), t)
    return problem.replace(name=f"{problem.name}-quantised", **fields)


# --- what the problem wants --------------------------------------------------------------------------------------------


def _new_params(
    problem: Problem, params: Mapping[str, float], ranges: Mapping[str, tuple[float, float]]
) -> dict[str, Any]:
    twice = [name for name in params if name in problem.params]
    require(not twice, "params", "have new names", f"`{(twice or [''])[0]}` is a parameter already")
    return {"params": {**problem.params, **params}, "param_ranges": {**problem.param_ranges, **ranges}}


def _reference(problem: Problem, reference: Mapping[str, Callable[..., Any]], argument: str) -> list[int]:
    require(
        isinstance(reference, Mapping) and bool(reference), argument, "map state names to targets", f"is {reference!r}"
    )
    unknown = [name for name in reference if name not in problem.state]
    require(not unknown, argument, f"name states ({', '.join(problem.state)})", f"names `{(unknown or [''])[0]}`")
    return [list(problem.state).index(name) for name in reference]


def tracking(
    problem: Problem,
    reference: Mapping[str, Callable[..., Any]],
    *,
    preview: int = 0,
    params: Mapping[str, float] | None = None,
    param_ranges: Mapping[str, tuple[float, float]] | None = None,
) -> Problem:
    """Follow r(t): stage and terminal cost are those of the deviation, l(x − r(t), u) and φ(x − r(T)).

    `reference` maps state names to functions r(p, t), CasADi expressions; states without one keep the reference 0. The observation
    gains r(t), r(t + dt), …, r(t + preview · dt). New `params` with their `param_ranges` make a family of references, one for each
    episode where the environment is randomised.
    """
    _check(problem)
    index = _reference(problem, reference, "reference")
    whole = isinstance(preview, int | np.integer) and not isinstance(preview, bool) and preview >= 0
    require(whole, "preview", "be an integer, not negative", f"is {preview!r}")
    fields = _new_params(problem, params or {}, param_ranges or {})

    def at(p, t):
        return ca.vertcat(*[ca.SX(function(p, t)) for function in reference.values()])

    def deviation(x, p, t):
        target = ca.SX.zeros(problem.n_x)
        target[index] = at(p, t)
        return x - target

    ahead = lambda x, p, t: ca.vertcat(*[at(p, t + j * problem.dt) for j in range(preview + 1)])
    names = [f"{name} wanted" + (f" +{j}" if j else "") for j in range(preview + 1) for name in reference]
    cost, end = problem.stage_cost_function, problem.terminal_cost_function
    if problem.terminal_cost is not None:
        fields["terminal_cost"] = lambda x, p, t: end(deviation(x, p, t), _vector(problem, p), t)
    return problem.replace(
        name=f"{problem.name}-tracking",
        stage_cost=lambda x, u, p, t: cost(deviation(x, p, t), u, _vector(problem, p), t),
        **fields,
        **_observed(problem, ahead, names),
    )


def goal_conditioned(problem: Problem, goals: Mapping[str, tuple[float, float]]) -> Problem:
    """The cost of x − g, with a goal g for each state named in `goals` (low, high); the others keep the goal 0.

    Goals are parameters `goal_<state>`, nominally in the middle, drawn for each episode by `make_vec(…, randomize=True)`, and are
    observed. `solve(…, params=…)` takes them like any parameter.
    """
    _check(problem)
    _reference(problem, goals, "goals")  # type: ignore[arg-type]
    params, ranges = {}, {}
    for name, pair in goals.items():
        ok = isinstance(pair, tuple | list) and len(pair) == 2 and pair[0] <= pair[1]
        require(ok, "goals", f"give (low, high) for `{name}`", f"gives {pair!r}")
        params[f"goal_{name}"], ranges[f"goal_{name}"] = 0.5 * (pair[0] + pair[1]), (pair[0], pair[1])
    reference = {name: lambda p, t, key=f"goal_{name}": getattr(p, key) for name in goals}
    return tracking(problem, reference, params=params, param_ranges=ranges).replace(name=f"{problem.name}-goal")


def sparse(problem: Problem, tolerance: float, *, smoothing: float = 0.0) -> Problem:
    """Cost 1 per second outside the goal set, 0 inside: where the problem's own cost per second, at rest, is at most `tolerance`.

    What is minimised is the time spent outside (for a goal set that can be held, the time to reach it). With `smoothing` > 0, in units
    of that cost, the step becomes (1 + tanh((l − tolerance)/smoothing))/2 and can be differentiated; `minimum_time` states the problem
    with a hard end. A terminal cost is dropped.
    """
    _check(problem)
    for argument, value, least in (("tolerance", tolerance, "positive"), ("smoothing", smoothing, "not negative")):
        number = isinstance(value, int | float | np.floating) and not isinstance(value, bool) and np.isfinite(value)
        require(
            number and (value > 0 or (value == 0 and least != "positive")), argument, f"be {least}", f"is {value!r}"
        )
    cost, rest = problem.stage_cost_function, ca.DM(problem.resting_control)
    unit = problem.dt if problem.discrete else 1.0

    def outside(x, u, p, t):
        excess = cost(x, rest, _vector(problem, p), t) / unit - tolerance
        return unit * (0.5 * (1 + ca.tanh(excess / smoothing)) if smoothing else ca.if_else(excess > 0, 1.0, 0.0))

    return problem.replace(name=f"{problem.name}-sparse", stage_cost=outside, terminal_cost=None)


def minimum_time(
    problem: Problem, target: Mapping[str, float], *, final_time: tuple[float, float] | None = None
) -> Problem:
    """Reach `target` (state names with values) in the least time T: cost ∫ 1 dt, x_i(T) = target_i, T free in `final_time`.

    `final_time` (low, high) is (dt, steps · dt) by default. For solvers; environments need a fixed time: `sparse`.
    """
    _check(problem)
    require(not problem.discrete, "problem", "be continuous in time", "is given by its transition")
    index = _reference(problem, target, "target")  # type: ignore[arg-type]
    values = ca.DM([float(value) for value in target.values()])
    return problem.replace(
        name=f"{problem.name}-minimum-time",
        stage_cost=lambda x, u, p: ca.SX(1),
        terminal_cost=None,
        terminal_constraints=lambda x, p: x[index] - values,
        horizon="finite",
        final_time=(problem.dt, problem.duration) if final_time is None else final_time,
    )
