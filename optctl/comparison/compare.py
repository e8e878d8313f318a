"""`compare`: controllers × starts × seeds on the same starts, each with its gap to the best known solution.

    gap = (mean cost − mean best) / |mean best|,   normalised = (mean cost − mean best) / (mean cost of doing nothing − mean best),
    best(start) = min over the reference and every admissible controller

Every controller is charged by `optctl.rollout`: float64, the problem's own CasADi step, the same starts, parameters and noise.
The reference is charged by the same step along its own nodes, not replayed: open loop on an unstable plant, rounding errors
alone grow by e^{λT} (10 s of balancing a pendulum: 10¹³). Its defects say whether it is a trajectory of the problem at all.
It is a *bound* where the solver proved it optimal and a *reference* where it is the best local optimum found. A reference that is
solved here is polished first (`optctl.comparison.reference`), so that no controller undercuts it; a controller that undercuts a given one
is said to, and becomes the best known. An episode whose cost is NaN or infinite failed: it costs +∞.
"""

from __future__ import annotations

import difflib
import operator
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from optctl.comparison.charge import from_solutions, rolled, violations
from optctl.comparison.controllers import CONTROLLERS, Built
from optctl.comparison.reference import polished
from optctl.comparison.report import Report
from optctl.comparison.result import Reference, Result
from optctl.comparison.statistics import failures_as_worst
from optctl.envs import resolve_problem
from optctl.errors import ArgumentError, require
from optctl.problem import Problem
from optctl.problem.controller import Controller, ZeroController, check_params, check_states, rollout


def compare(
    problem: Problem | str,
    controllers: Sequence[Any] | Mapping[str, Any],
    *,
    starts: object = None,
    num_starts: int = 256,
    seed: int = 0,
    seeds: Sequence[int] = (0,),
    params: object = None,
    reference: object = "optimal",
    tolerance: float = 1e-6,
    repetitions: int = 2000,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Evaluate `controllers` on the same starts and measure their gaps to the best known solutions.

    Args:
        problem: The problem, or its name in the catalogue.
        controllers: Entries, or name → entry. An entry is a `Controller`; a list of them, the same method trained with several seeds; a
            list of `Solution`s or a `Reference`; or a name in `CONTROLLERS`. A controller may carry `wall_time` [s], what solving or
            training took before.
        starts: Initial states (S, n_x); default: `num_starts` from the problem's initial distribution with `seed`.
        num_starts: How many starts to draw, at least 1.
        seed: Seed of the starts, the bootstrap and the controllers that are built here.
        seeds: Draws of process and sensor noise, shared by all controllers; the cost of a start is the mean over them. Unused without
            noise.
        params: Parameters (1, n_p) or (S, n_p); default: the nominal ones.
        reference: "optimal" (solved, then polished with what the controllers and HJB's grid offer), a `Reference`, a list of
            `Solution`s, costs (S,), or `None`.
        tolerance: Constraint violations up to this, in the constraint's units, are forgiven.
        repetitions: Bootstrap samples.
        progress: Called with a line before each piece of work.

    Raises:
        ArgumentError: An argument is not what it must be; the sentence names it.
    """
    tell = progress or (lambda line: None)
    problem = resolve_problem(problem)
    for name, count in (("num_starts", num_starts), ("repetitions", repetitions)):
        require(isinstance(count, int) and count > 0, name, "be a positive integer", f"is {count!r}")
    require(tolerance >= 0, "tolerance", "not be negative", f"is {tolerance!r}")
    require(
        isinstance(seed, (int, np.integer)) and seed >= 0, "seed", "be an integer that is not negative", f"is {seed!r}"
    )
    if starts is None:
        starts = problem.initial_state.sample(np.random.default_rng(seed), num_starts)
    x0 = check_states(problem, starts, "starts")
    p = check_params(problem, params, len(x0))
    try:
        draws = tuple(operator.index(s) for s in seeds)
    except TypeError:
        draws = (-1,)
    require(min(draws, default=0) >= 0, "seeds", "be integers that are not negative", f"is {seeds!r}")
    noise = draws if problem.n_w > 0 else ()
    require(problem.n_w == 0 or len(noise) > 0, "seeds", "hold at least one seed", "is empty")
    notes = [f"Costs are means over {_draws(noise)} of the process noise, the same for all."] if noise else []
    entries = _named(controllers)

    solved: dict[str, Built] = {}

    def build(name: str) -> Built:
        if name not in solved:
            tell(f"preparing {name}")
            solved[name] = CONTROLLERS[name](problem, x0, p, seed)
        return solved[name]

    plan: Reference | None = None
    if isinstance(reference, str):
        _check_name(reference, "reference")
        if noise:
            notes.append("With process noise a plan made without it is no reference: gaps are to the best controller.")
        else:
            built = build(reference)
            require(
                isinstance(built, Reference), "reference", "name solved trajectories", f"is the controller {reference}"
            )
            plan = built  # type: ignore[assignment]
    elif reference is not None:
        plan = _as_reference(problem, reference, p, len(x0))

    found: dict[str, Result] = {}
    plans: dict[str, Reference] = {}
    rivals: list[Reference] = []
    observers: list[str] = []
    clipped: list[str] = []
    for name, entry in entries.items():
        built = build(entry) if isinstance(entry, str) else entry
        if _is_solved(built):
            require(
                not noise,
                "controllers",
                "hold feedback controllers when the problem has process noise",
                f"`{name}` is a plan",
            )
            plans[name] = _as_reference(problem, built, p, len(x0))
        else:
            runs: list[Any] = list(built) if isinstance(built, Sequence) else [built]
            tell(f"evaluating {name} from {len(x0)} starts" + (f", {len(runs)} seeds" if len(runs) > 1 else ""))
            clipped += [name] if any(getattr(c, "clips", False) for c in runs) else []
            blurred = problem.noise_std.any() and any(getattr(c, "observes", False) for c in runs)
            require(not blurred or len(draws) > 0, "seeds", "hold at least one seed", "is empty")
            observers += [name] if blurred else []
            found[name], paths = _evaluate(problem, name, runs, x0, p, draws if blurred else noise, tolerance)
            rivals += paths
    at_rest, nothing = _evaluate(problem, "zero", [ZeroController(problem)], x0, p, noise, tolerance)
    if plan is not None and isinstance(reference, str):
        tell("polishing the reference")
        rivals += [other for other in plans.values() if other is not plan and other.trajectories is not None]
        if not any(np.array_equal(result.costs, at_rest.costs) for result in found.values()):
            rivals += nothing
        better, told = polished(problem, x0, p, plan, rivals, tolerance=tolerance)
        plans = {name: better if other is plan else other for name, other in plans.items()}
        plan, notes = better, notes + told
    found |= {name: _planned(name, other, tolerance) for name, other in plans.items()}
    if clipped and plan is not None:
        notes += _beyond_actions(problem, plan, clipped)
    if observers:
        notes.append(f"Through noisy sensors, the mean over {_draws(draws)}: {', '.join(observers)}.")
    return Report.assess(
        problem=problem,
        starts=x0,
        params=p,
        seed=seed,
        noise_seeds=draws if observers else noise,
        reference=plan,
        results=[found[name] for name in entries],
        resting=at_rest.costs[0],
        notes=notes,
        tolerance=tolerance,
        repetitions=repetitions,
    )


def _beyond_actions(problem: Problem, plan: Reference, names: Sequence[str]) -> list[str]:
    """A note on each control of the reference that leaves the range of the actions, −1 … 1, of controllers that have no others."""
    low, high = problem.action_low, problem.action_high
    notes = []
    for j, control in enumerate(problem.control):
        values = np.concatenate([np.ravel(t.controls[..., j]) for t in plan.trajectories or ()] or [low[:0]])
        values = values[np.isfinite(values)]
        least, most = values.min(initial=low[j]), values.max(initial=high[j])
        room = _ROUNDING * (high[j] - low[j])
        if least < low[j] - room or most > high[j] + room:
            sides = [
                -least if problem.control_low[j] == -np.inf else 0.0,
                most if problem.control_high[j] == np.inf else 0.0,
            ]
            notes.append(
                f"The reference's `{control}` covers {least:.4g} … {most:.4g}, actions only {low[j]:.4g} … {high[j]:.4g}: "
                f'part of the gap of {", ".join(names)} is that difference. `control_scale={{"{control}": {max(sides):.2g}}}` gives '
                "actions the range."
            )
    return notes


_ROUNDING = 1e-6
"""Of the range of an action: what a reference exceeds it by no policy would notice."""


def _draws(seeds: Sequence[int]) -> str:
    return f"{len(seeds)} draw{'s' if len(seeds) != 1 else ''}"


def _named(controllers: Sequence[Any] | Mapping[str, Any]) -> dict[str, Any]:
    """Entries by name, checked before anything long begins."""
    require(
        isinstance(controllers, (Mapping, Sequence)) and not isinstance(controllers, str) and len(controllers) > 0,
        "controllers",
        "be a non-empty list, or map names to controllers",
        f"is {controllers!r}",
    )
    pairs = controllers.items() if isinstance(controllers, Mapping) else [(None, entry) for entry in controllers]
    entries: dict[str, Any] = {}
    for given, entry in pairs:
        members = list(entry) if isinstance(entry, (list, tuple)) else [entry]
        if isinstance(entry, str):
            _check_name(entry, "controllers")
        elif not _is_solved(entry):
            wrong = next((m for m in members if not isinstance(m, Controller)), None if members else entry)
            require(
                bool(members) and wrong is None,
                "controllers",
                f"hold controllers, lists of them, or names among {', '.join(CONTROLLERS)}",
                f"holds {wrong!r}",
            )
        base = str(given or (entry if isinstance(entry, str) else getattr(members[0], "name", "optimal")))
        name, copies = base, 1
        while name in entries:
            copies += 1
            name = f"{base} ({copies})"
        entries[name] = entry
    return entries


def _check_name(name: str, argument: str) -> None:
    if name not in CONTROLLERS:
        close = difflib.get_close_matches(name, CONTROLLERS, n=1)
        hint = f" Did you mean `{close[0]}`?" if close else ""
        known = ", ".join(CONTROLLERS)
        raise ArgumentError(
            f"Argument `{argument}` must use controllers or names among {known}, but is {name!r}.{hint}"
        )


def _is_solved(entry: object) -> bool:
    """A `Reference`, or solutions."""
    if isinstance(entry, Sequence) and not isinstance(entry, str) and len(entry) > 0:
        return hasattr(entry[0], "trajectory") and not isinstance(entry[0], Controller)
    return isinstance(entry, Reference)


def _as_reference(problem: Problem, value: Any, params: np.ndarray, num: int) -> Reference:
    if isinstance(value, Reference):
        plan = value
    elif _is_solved(value):
        require(len(value) == num, "reference", f"hold one solution per start ({num})", f"holds {len(value)}")
        plan = from_solutions(problem, value, params)
    else:
        try:
            plan = Reference(name="reference", costs=np.asarray(value, dtype=np.float64))
        except (TypeError, ValueError):
            raise ArgumentError(
                f"Argument `reference` must be 'optimal', a Reference, solutions, costs or None, but is {value!r}."
            ) from None
    shape = plan.costs.shape
    require(shape == (num,), "reference", f"hold one cost per start, shape ({num},)", f"has shape {shape}")
    return plan


def _evaluate(
    problem: Problem,
    name: str,
    runs: list[Controller],
    x0: np.ndarray,
    p: np.ndarray,
    noise: tuple[int, ...],
    tol: float,
) -> tuple[Result, list[Reference]]:
    """What a method costs from every start, and its rollouts."""
    costs, broken, seconds, trajectories, paths = [], [], [], [], []
    for controller in runs:
        trained_on = getattr(controller, "problem", problem)
        require(
            getattr(trained_on, "fingerprint", problem.fingerprint) == problem.fingerprint,
            "controllers",
            f"belong to the problem `{problem.name}`",
            f"`{name}` was trained on `{getattr(trained_on, 'name', '?')}`",
        )
        began = time.perf_counter()
        with np.errstate(all="ignore"):  # a diverging controller is a result, not a warning
            draws = [rollout(problem, controller, x0, params=p, seed=s) for s in noise or (None,)]
            costs.append(np.mean([failures_as_worst(d.total_cost) for d in draws], axis=0))
        seconds.append(time.perf_counter() - began)
        each = [violations(problem, d, p) for d in draws]
        paths += [rolled(name, d, v) for d, v in zip(draws, each, strict=True)]
        broken.append({kind: np.max([v[kind] for v in each], axis=0) for kind in each[0]})
        trajectories.append(draws[0])
    result = Result.of(
        name=name,
        costs=np.array(costs),
        trajectories=trajectories,
        tolerance=tol,
        violations={kind: np.array([v[kind] for v in broken]) for kind in broken[0]},
        prepare_time=np.array([float(getattr(c, "wall_time", 0.0) or 0.0) for c in runs]),
        run_time=np.array(seconds),
    )
    return result, paths


def _planned(name: str, plan: Reference, tolerance: float) -> Result:
    return Result.of(
        name=name,
        costs=failures_as_worst(plan.costs)[None],
        trajectories=[plan.trajectories],
        violations={kind: value[None] for kind, value in plan.violations.items()},
        tolerance=tolerance,
        prepare_time=np.array([plan.wall_time]),
        run_time=np.zeros(1),
    )
