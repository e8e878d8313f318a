"""`solve` and `solve_many`: the best certified local optimum from many guesses.

Which method, for `method="auto"`: bilinear problems go to GRAPE when there is one start, or more than 16 states; others with
bounds on controls only and a fixed final time to batched DDP; constrained ones with a fixed final time to its augmented Lagrangian
form from 32 starts on; everything else (and whatever names an option of multiple shooting) to multiple shooting.
Where DDP's guesses come from: `guess`; else coarse dynamic programming (up to four states), with homotopy in the bounds for
eight or more starts of more than two states; else multi-start multiple shooting for a few seeds. Then, in rounds, each start tries
what its solved neighbours do, shifted in time where the problem allows (Bellman's principle), and the better one is kept.
Everything is a function of (problem, starts, seed) while no time limit strikes: neither the number of cores nor of processes
changes a result.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from optctl.errors import ArgumentError, require
from optctl.problem import Problem, check_problem
from optctl.problem.controller import check_params, check_states
from optctl.problem.structure import missing_derivative, smooth, unconstrained
from optctl.problem.trajectory import Trajectory
from optctl.shared import in_turn
from optctl.solvers.batched.choice import UNROLLED
from optctl.solvers.batched.unconstrained import solve_many_unconstrained
from optctl.solvers.guesses.parallel import Method, Progress, solve_each, solve_list
from optctl.solvers.idle import awake
from optctl.solvers.methods import pontryagin, switching
from optctl.solvers.methods.bilinear import bilinear
from optctl.solvers.methods.collocation import solve_collocation
from optctl.solvers.methods.lqr import solve_lqr
from optctl.solvers.methods.multiple_shooting import Guess, solve_multiple_shooting
from optctl.solvers.methods.phases import Link, PhasedSolution, stacked
from optctl.solvers.solution import UNTRUE, Solution, Verdict
from optctl.solvers.solution_batch import SolutionBatch, collect
from optctl.solvers.units import natural

_SOME, _TRUER = 4, 64
"""Members that multiple shooting tries first, and at most, where differential dynamic programming lives on the error of the integrator."""


def _truer(
    found: SolutionBatch,
    guess: Trajectory | None,
    num_starts: int | None,
    seed: int,
    tolerance: float,
    processes: int | None,
) -> SolutionBatch:
    """What lives on the error of its integrator, from multiple shooting, which prefers what is true to the plant: where that certifies it.
    Where it helps none of the first few, the step is too coarse for all."""
    true = found.certificates().get("accumulated", np.zeros(len(found)))
    hopeless = np.isnan(true) & (not smooth(found.problem))  # a kink that no integrator passes
    lost = np.flatnonzero([s.certifiable for s in found.statuses] & ~(true <= UNTRUE) & ~hopeless)
    if not len(lost):
        return found
    began, p = time.perf_counter(), found.params
    sure: dict[int, Solution] = {}
    batched = guess is not None and guess.batch_shape
    for part in (lost[:_SOME], lost[_SOME:_TRUER]):
        if not len(part) or (part[0] != lost[0] and not sure):
            break
        other = solve_list(
            found.problem,
            found.trajectory.states[part, 0],
            p if len(p) == 1 else p[part],
            solve_multiple_shooting,
            guess=guess[part] if batched else guess,  # type: ignore[index]
            num_starts=num_starts,
            seed=seed,
            tolerance=tolerance,
            processes=processes,
            progress=None,
            options={},
        )
        sure |= {
            i: s for i, s in zip(part.tolist(), other, strict=True) if s.verdict in (Verdict.PROVED, Verdict.EXTREMAL)
        }
    if not sure:
        return found
    members = [sure.get(i, found[i]) for i in range(len(found))]
    return collect(found.problem, members, p, found.wall_time + time.perf_counter() - began)


def _polished(
    problem: Problem,
    x0: np.ndarray,
    p: np.ndarray,
    num_starts: int | None,
    seed: int,
    tolerance: float,
    processes: int | None,
    progress: Progress | None,
) -> SolutionBatch | None:
    """Direct solutions of all starts, polished together by batched indirect shooting; what that loses, one by one. `None` for a problem
    that it does not take."""
    from optctl.solvers.batched import shooting  # loads warp

    try:
        shooting.check_suitable(problem)
    except ArgumentError:
        return None
    started = time.perf_counter()
    direct = solve_many(problem, x0, params=p, num_starts=num_starts, seed=seed, processes=processes, progress=progress)
    found = shooting.solve_pontryagin(problem, direct.trajectory, params=p, tolerance=min(tolerance, 1e-10))
    lost = np.flatnonzero(~found.ok)
    if not len(lost):
        found.wall_time = time.perf_counter() - started
        return found
    rest = solve_list(
        problem,
        x0[lost],
        p if len(p) == 1 else p[lost],
        solve_pontryagin,
        guess=None,
        num_starts=num_starts,
        seed=seed,
        tolerance=tolerance,
        processes=processes,
        progress=None,
        options={},
    )
    members = list(found)
    for i, solution in zip(lost, rest, strict=True):
        members[i] = solution
    return collect(problem, members, p, time.perf_counter() - started)


def _check_options(method: str, taken: tuple[str, ...], options: dict[str, Any]) -> None:
    """Raise for the first option that the method does not take."""
    own = [name for name in taken if name not in ("problem", "x0")]
    common = [name for name in inspect.signature(solve_many).parameters if name not in ("problem", "starts", "options")]
    for name in options:
        known = ", ".join(dict.fromkeys([*common, *own]))
        require(name in own, name, f"be an option of `{method}` ({known})", "is none")


def _check_guess(problem: Problem, guess: Any) -> None:
    """Raise for a guess of differential dynamic programming that does not fit the grid."""
    shape, fits = None if guess is None else np.shape(guess.controls), (problem.steps, problem.n_u)
    require(shape is None or shape[-2:] == fits, "guess", f"have controls of shape {fits}", f"has {shape}")


def pulses(problem: Problem, num: int) -> bool:
    """Where GRAPE comes first: bilinear, and a single start or more states than sweeps are unrolled for."""
    return (num == 1 or problem.n_x > UNROLLED) and bilinear(problem) is not None


# --- what users call --------------------------------------------------------------------------------------------------


@in_turn
@np.errstate(all="ignore")  # numbers that end are NaN, and are judged as such
def solve_many(
    problem: Problem,
    starts: np.ndarray,
    *,
    method: str = "auto",
    params: np.ndarray | None = None,
    guess: Trajectory | None = None,
    num_starts: int | None = None,
    seed: int = 0,
    tolerance: float | None = None,
    rounds: int | None = None,
    processes: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> SolutionBatch:
    """The best solution found from every start. The same call gives the same bits. Want of convergence is a status, not an exception.

    Args:
        problem: What to solve.
        starts: Initial states (B, n_x), in the units of the states.
        method: "auto", or a name in `SOLVERS`. "auto" takes DDP where only controls are bounded, its constrained form for 32 starts and
            more, multiple shooting otherwise, GRAPE for a single bilinear problem.
        params: Parameters (1, n_p) or (B, n_p); default: the nominal ones.
        guess: A trajectory or a solution to begin from, one for all or one for each start; default: guesses of the solver's own.
        num_starts: Guesses for each start; default: as many as its stopping rule asks for.
        seed: Seed of the random guesses, not negative.
        tolerance: Of the projected gradient relative to 1 + |J|, or of IPOPT's residuals; default 1e-10.
        rounds: Rounds in which starts try each other's solutions; default: until none improves, ten at most.
        processes: Processes that share starts solved one by one; default: one a core.
        progress: Called with (starts done, starts in all).
        options: Further arguments of the method's own function.

    Returns:
        A `SolutionBatch`: trajectories, values (B,), verdicts, and `batch[i]`, a `Solution`.

    Raises:
        ArgumentError: An argument is not what it must be; the sentence names it.
    """
    check_problem(problem)
    obstacle = missing_derivative(problem)
    require(obstacle is None, "problem", "have derivatives to be solved", obstacle)
    require(
        isinstance(seed, (int, np.integer)) and seed >= 0, "seed", "be an integer that is not negative", f"is {seed!r}"
    )
    guess = getattr(guess, "trajectory", guess)  # solutions are guesses too
    x0 = check_states(problem, starts, "starts")
    require(guess is None or hasattr(guess, "controls"), "guess", "be a trajectory or a solution", f"is {guess!r}")
    lead = () if guess is None else np.shape(guess.controls)[:-2]
    require(
        lead in ((), (1,), (len(x0),)), "guess", f"be one, or one for each of {len(x0)} starts", f"has {lead} of them"
    )
    require(len(x0) > 0, "starts", "hold at least one start", "is empty")
    p = check_params(problem, params, len(x0))
    require(method == "auto" or method in SOLVERS, "method", f"be one of auto, {', '.join(SOLVERS)}", f"is {method!r}")
    require(tolerance is None or tolerance > 0, "tolerance", "be positive", f"is {tolerance!r}")
    whole = num_starts is None or (isinstance(num_starts, (int, np.integer)) and num_starts > 0)
    require(whole, "num_starts", "be a positive integer", f"is {num_starts!r}")
    shared: dict[str, Any] = {"num_starts": num_starts, "seed": seed, "processes": processes, "progress": progress}
    asked = shared | {"method": method, "params": p, "tolerance": tolerance, "rounds": rounds} | options
    if (busy := awake(problem)) is not None:
        return busy.restored(problem, solve_many(busy.problem, x0, guess=busy.guess(guess), **asked))
    if (units := natural(problem)) is not None:
        inside = solve_many(units.problem, x0 / units.state, guess=units.guess(guess), **asked)
        return units.restored(problem, inside)
    if method == "auto" and guess is None and not options and pulses(problem, len(x0)):
        method = "grape"
    shooting = inspect.signature(SOLVERS["multiple_shooting"]).parameters
    to_shoot = method == "auto" and options and all(name in shooting for name in options)
    shared |= {"guess": guess, "tolerance": tolerance or 1e-10}
    if method in ("auto", "ddp") and unconstrained(problem) and not to_shoot:
        _check_options("ddp", (), options)
        _check_guess(problem, guess)
        found = solve_many_unconstrained(problem, x0, p, rounds=rounds, **shared)
        if method == "ddp":
            return found
        return _truer(found, guess, num_starts, seed, tolerance or 1e-10, processes)
    require(
        method != "ddp" or problem.final_time is None, "method", "suit the problem", "`ddp` takes no free final time"
    )
    if method == "ddp" or (method == "auto" and problem.final_time is None and len(x0) >= 32 and not to_shoot):
        from optctl.solvers.batched.constrained import solve_many_constrained  # loads warp

        _check_options("ddp", (), options)
        _check_guess(problem, guess)
        limited = solve_many_constrained(problem, x0, p, rounds=rounds, **shared)
        if limited is not None:
            return limited
    if method == "pontryagin" and guess is None and not options and len(x0) >= 8:
        extremals = _polished(problem, x0, p, num_starts, seed, tolerance or 1e-10, processes, progress)
        if extremals is not None:
            return extremals
    name = "multiple_shooting" if method in ("auto", "ddp") else method
    _check_options(name, tuple(inspect.signature(SOLVERS[name]).parameters), options)
    return solve_each(problem, x0, p, SOLVERS[name], options=options, **shared)


@in_turn
def solve(
    problem: Problem,
    x0: np.ndarray,
    *,
    method: str = "auto",
    params: np.ndarray | None = None,
    guess: Trajectory | None = None,
    num_starts: int | None = None,
    seed: int = 0,
    tolerance: float | None = None,
    **options: Any,
) -> Solution | SolutionBatch:
    """The best solution found from one start, or a batch of them. Want of convergence is a status, not an exception.

    Args:
        problem: What to solve.
        x0: The initial state (n_x,), or B of them (B, n_x), in the units of the states.
        method: "auto", or a name in `SOLVERS`: "ddp", "lqr", "multiple_shooting", "collocation", "pontryagin", "switching", "grape".
        params: Parameters (1, n_p) or (B, n_p); default: the nominal ones.
        guess: A trajectory or a solution to begin from; default: guesses of the solver's own.
        num_starts: Guesses for each start; default: as many as its stopping rule asks for.
        seed: Seed of the random guesses, not negative.
        tolerance: Of the projected gradient relative to 1 + |J|, or of IPOPT's residuals; default 1e-10.
        options: Further arguments of the method's own function, such as `time_limit` [s] of multiple shooting.

    Returns:
        A `Solution` for x0 (n_x,), a `SolutionBatch` for x0 (B, n_x). `verdict` says what is claimed: docs/verdicts.md.

    Raises:
        ArgumentError: An argument is not what it must be; the sentence names it.
    """
    check_problem(problem)
    states = check_states(problem, x0)
    batch = solve_many(
        problem,
        states,
        method=method,
        params=params,
        guess=guess,
        num_starts=num_starts,
        seed=seed,
        tolerance=tolerance,
        **options,
    )
    return batch if np.ndim(x0) > 1 else batch[0]


# --- methods that need a guess or a kernel ----------------------------------------------------------------------------


def solve_ddp_start(problem: Problem, x0: np.ndarray, **options: Any) -> Solution:
    """`solve` by batched DDP for one start."""
    return solve_many(problem, x0, method="ddp", **options)[0]


@in_turn
def solve_grape(
    problem: Problem,
    x0: np.ndarray,
    *,
    params: np.ndarray | None = None,
    guess: Trajectory | None = None,
    num_starts: int | None = None,
    seed: int = 0,
    tolerance: float = 1e-10,
    max_iterations: int = 200,
    device: str = "cpu",
) -> Solution:
    """The best of `num_starts` random pulses (default 64) by L-BFGS with exact gradients, finished by Newton's method.

    For bilinear problems with quadratic costs, bounds on controls only and the integrator "exponential". Costates and certificate come
    from the problem's own step function. Raises ArgumentError where the problem is something else.
    """
    from optctl.solvers.batched import bilinear as kernel  # loads warp

    return kernel.solve_grape(
        problem,
        x0,
        params=params,
        guess=guess,
        num_starts=num_starts,
        seed=seed,
        tolerance=tolerance,
        max_iterations=max_iterations,
        device=device,
    )


@in_turn
def solve_pontryagin(
    problem: Problem,
    x0: np.ndarray,
    *,
    params: np.ndarray | None = None,
    guess: Trajectory | Guess | None = None,
    segments: int | None = None,
    tolerance: float = 1e-10,
    max_iterations: int = 40,
    time_limit: float = 60.0,
) -> Solution:
    """Newton on the boundary conditions. `guess`: a trajectory with costates (default: from collocation). `segments=1` is single
    shooting; default: one per second or five, whichever is more."""
    pontryagin.check_suitable(problem)
    started = time.perf_counter()
    path = guess if isinstance(guess, Trajectory) and guess.costates is not None else None
    if path is None:
        options: dict[str, Any] = {"guess": guess, "resimulation": None, "time_limit": time_limit / 2}
        start = np.asarray(x0, dtype=float)[None]
        direct = solve_many(problem, start, method="collocation", params=params, tolerance=1e-8, processes=1, **options)
        path = direct[0].trajectory
    left = time_limit - (time.perf_counter() - started)
    extremal = pontryagin.shoot(
        problem,
        x0,
        path,
        params=params,
        segments=segments,
        tolerance=tolerance,
        max_iterations=max_iterations,
        time_limit=left,
    )
    return extremal.replace(wall_time=time.perf_counter() - started)


_STAGES = ("multiple_shooting", "finer", "collocation", "finer")
"""Direct solutions from which a structure is read in turn."""
_FINER = 4
"""Intervals of the finer ones for each step of the problem."""


@in_turn
def solve_switching(
    problem: Problem,
    x0: np.ndarray,
    *,
    params: np.ndarray | None = None,
    guess: Trajectory | Solution | None = None,
    tolerance: float = 1e-10,
    max_iterations: int = 40,
    time_limit: float = 60.0,
) -> Solution:
    """Polish a direct solution (`guess`; default: multiple shooting, then collocation, each again on a finer grid) to the extremal with its
    switching structure; `Solution.arcs` names the arcs with their durations [s]."""
    switching.check_suitable(problem)
    started = time.perf_counter()
    common: dict[str, Any] = {"params": params, "tolerance": tolerance, "max_iterations": max_iterations}
    if guess is not None:
        return switching.polish(problem, x0, guess, time_limit=time_limit, **common)
    p = problem.param_values if params is None else np.asarray(params, dtype=float)
    best: Solution | None = None
    direct: Solution | None = None
    for i, stage in enumerate(_STAGES):
        begun = time.perf_counter()
        share = (started + time_limit - begun) * (1.0 if i == len(_STAGES) - 1 else 0.5)
        if best is not None and (best.ok or share < 0):
            break
        if stage == "finer" and not (direct is not None and direct.ok):
            continue
        direct = _direct(problem, np.asarray(x0, dtype=float), p, stage, direct, share / 2)
        left = begun + share - time.perf_counter()
        polished = switching.polish(problem, x0, direct, time_limit=left, **common)
        best = polished if best is None or polished.ok else best
    assert best is not None
    return best.replace(wall_time=time.perf_counter() - started)


def _direct(
    problem: Problem, x0: np.ndarray, p: np.ndarray, stage: str, before: Solution | None, time_limit: float
) -> Solution:
    """A direct solution from several guesses, or the one before on a finer grid with held controls, whose jumps lie where switches are."""
    if stage == "finer":
        assert before is not None
        return solve_collocation(
            problem,
            x0,
            params=p,
            guess=before.trajectory,
            intervals=_FINER * problem.steps,
            tolerance=1e-9,
            held=True,
            time_limit=time_limit,
        )
    common: dict[str, Any] = {"params": p, "tolerance": 1e-9, "processes": 1, "time_limit": time_limit}
    return solve_many(problem, x0[None], method=stage, **common)[0]


@in_turn
def solve_phases(
    phases: Sequence[Problem],
    x0: np.ndarray,
    *,
    links: Sequence[Link | None] | None = None,
    method: str = "collocation",
    **options: Any,
) -> PhasedSolution:
    """The best solution found of all phases together, from x0 (n_x of the first phase,).

    Args:
        phases: Problems with `dynamics` and a finite horizon, in order. Free durations are their `final_time`; the guess of where a
            later phase begins is the middle of its `initial_state`. Parameters with the same name are the same.
        x0: Where the first phase begins.
        links: For every two neighbours x_i(T_i) ↦ x_{i+1}(0); `None`: the same states go on.
        method: "collocation" or "multiple_shooting".
        options: Of `solve`.
    """
    stack, first = stacked(phases, x0, links)
    start, free = stack.start(first)
    found = solve(stack.problem(start), start, method=method, free_start=free, **options)
    assert isinstance(found, Solution)
    return stack.apart(found)


SOLVERS: dict[str, Method] = {
    "ddp": solve_ddp_start,
    "lqr": solve_lqr,
    "multiple_shooting": solve_multiple_shooting,
    "collocation": solve_collocation,
    "pontryagin": solve_pontryagin,
    "switching": solve_switching,
    "grape": solve_grape,
}
"""Name → function(problem, x0, *, params, …) → Solution."""
