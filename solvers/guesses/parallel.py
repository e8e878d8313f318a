"""One start after the other by a single-start method: many guesses each, spread over processes.

A forked worker inherits the problem with everything built for it; only index numbers and solutions travel. Each start has its own
random stream, so the result does not depend on the number of processes. The work is done in this process where forking is not
possible, where a worker dies, and outside the main thread (a fork there copies locks that other threads hold); in a process that is
itself a worker of `multiprocessing` it is unless `processes` is given.
"""

from __future__ import annotations

import inspect
import itertools
import multiprocessing
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np

from optctl.errors import require
from optctl.problem import Problem
from optctl.problem.structure import convex
from optctl.problem.trajectory import Trajectory
from optctl.solvers.batch import cores
from optctl.solvers.guesses.targets import equivalent_targets, flight, lines, middle, random_controls
from optctl.solvers.interrupts import heeded
from optctl.solvers.methods.equilibrium import finite, inside, levels, target
from optctl.solvers.methods.multiple_shooting import Guess
from optctl.solvers.second_order import with_curvature
from optctl.solvers.solution import UNTRUE, Solution, Status, Verdict
from optctl.solvers.solution_batch import SolutionBatch, collect

Method = Callable[..., Solution]
"""A solver of one start, called as `method(problem, x0, params=…, …)` with the options that its signature names."""
Progress = Callable[[int, int], None]
"""Called with (starts done, starts in all)."""


def guesses_for(problem: Problem, x0: np.ndarray, p: np.ndarray, goal: np.ndarray | None, rng: np.random.Generator):
    """Structured and random guesses in turn, without end: (guess, factors by which the control bounds are widened on the way).

    Where costs, dynamics or gradients of a guess are not finite (log u at 0), the nearest guess of which they are takes its place.
    """
    found: list[np.ndarray] = []
    for n, (guess, widen) in enumerate(_plans(problem, x0, p, goal, rng)):
        if sound(problem, guess, p):
            yield guess, widen
            continue
        if not found:
            found = list(levels(problem, x0, p)) or [middle(problem)]
        level = found[n // 2 % len(found)]
        held, steady = (
            np.tile(x0, (len(guess.states), 1)),
            level * (1 + 0.01 * rng.standard_normal(guess.controls.shape)),
        )
        led = flight(problem, x0, p, guess.final_time, level)
        nearest = (
            (guess.states, inside(problem, guess.controls)),
            (guess.states, steady),
            (led, steady),
            (held, inside(problem, guess.controls)),
            (held, steady),
        )
        others = (Guess(states, controls, guess.final_time) for states, controls in nearest)
        yield next((other for other in others if sound(problem, other, p)), guess), widen


def sound(problem: Problem, guess: Guess, p: np.ndarray) -> bool:
    """Whether everything that a solver evaluates at its first iterate is finite."""
    return finite(problem, guess.states, guess.controls, p, guess.final_time)


def _plans(problem: Problem, x0: np.ndarray, p: np.ndarray, goal: np.ndarray | None, rng: np.random.Generator):
    """The guesses as they are, finite or not.

    More authority first, less later, is the homotopy that finds swing-ups: it converges where the true bounds do not, and
    in better basins. No guess is exactly at rest: by symmetry that is often a saddle (a qubit in an eigenstate), where every
    method stops at once.
    """
    steps = problem.steps
    times = [None] * 4 if problem.final_time is None else np.geomspace(*problem.final_time, 5)[[2, 1, 3, 4]]
    low, high = problem.control_low, problem.control_high
    bounded = bool(np.isfinite(low).any() or np.isfinite(high).any())
    spread = 0.01 * (problem.action_high - problem.action_low)
    paths = [] if goal is None else list(lines(x0, equivalent_targets(problem, goal, x0), steps)[:4])
    order, flying = [*paths, np.tile(x0, (steps + 1, 1)), flight(problem, x0, p, times[0])], len(paths) + 1
    still = np.allclose(order[flying], x0)
    plans: list[tuple[int, tuple[float, ...]]] = ([] if still else [(flying, ())]) + [(0, (10.0, 3.0))]
    plans += [(i, ()) for i in range(flying)] + [(0, (4.0,))] + [(i, (10.0, 3.0)) for i in range(1, flying)]
    plans = [(i, widen) for i, widen in plans if bounded or not widen]
    for n in itertools.count():
        time = times[n // 2 % 4]
        if n % 2 == 0 and n // 2 < len(plans):
            i, widen = plans[n // 2]
            level = middle(problem) if i == flying else 0.0
            rest = np.clip(level + spread * rng.standard_normal((steps, problem.n_u)), low, high)
            yield Guess(order[i], rest, time), widen
        else:
            wander = 0.1 * np.cumsum(rng.standard_normal((steps + 1, problem.n_x)), axis=0) / steps**0.5
            path = order[n % len(order)] + wander
            path[0] = x0
            yield (
                Guess(path, random_controls(problem, rng, 2)[1], time),
                ((10.0, 3.0) if bounded and n % 4 == 1 else ()),
            )


_UNSEEN = 0.1
"""Expected share of guesses that would lead to basins not seen yet, down to which the search goes on."""
_MOST = 12
"""Guesses after which it ends anyway."""
_UNDEFINED = (
    "costs, dynamics or gradients are not finite at any guess: give a `guess` at which they are, or bounds on states and "
    "controls (and `control_scale`) within which they are defined"
)


def unseen(solved: int, basins: int) -> float:
    """The share of guesses expected to lead to basins not seen yet, after n guesses that ended in w basins: w(w + 1) / (n(n − 1)).

    The posterior mean for independent guesses and no prior knowledge of number and size of the basins. Source: Boender and Rinnooy
    Kan, Bayesian stopping rules for multistart global optimization methods, Math. Program. 37 (1987) 59.
    """
    return min(1.0, basins * (basins + 1) / (solved * (solved - 1))) if solved > 1 else 1.0


def solve_one(
    problem: Problem,
    x0: np.ndarray,
    p: np.ndarray,
    method: Method,
    *,
    guess: Guess | Trajectory | None,
    num_starts: int | None,
    seed: list[int],
    tolerance: float,
    convex: bool,
    goal: np.ndarray | None,
    alone: bool,
    check: Callable[[], None],
    options: dict[str, Any],
) -> Solution:
    """The best of several guesses by one method, all of them within the `time_limit` of the options (default 60 s). Without
    `num_starts` it ends when the share of guesses expected to lead to unseen basins has fallen to a tenth (`unseen`), or after 12.
    Collocation then refines its grid. `check` is called between guesses. A method that cannot widen bounds is called once."""
    taken = inspect.signature(method).parameters
    if "scale" not in taken:
        common = {"guess": guess, "tolerance": tolerance, "num_starts": num_starts, "seed": seed[0]}
        return method(problem, x0, params=p, **{k: v for k, v in common.items() if k in taken}, **options)
    started = time.perf_counter()
    best: Solution | None = None
    finish: dict[str, Any] = {}
    if "resimulation" in taken:  # many guesses on the first grid, the best of them on finer ones
        finish = {"resimulation": options.get("resimulation")}
        if alone and "resimulation" not in options:
            finish = {"resimulation": _FINE, "max_intervals": 4 * (options.get("intervals") or problem.steps)}
        options = options | {"resimulation": None}
    if guess is not None:
        best = method(problem, x0, params=p, guess=guess, tolerance=tolerance, **options)
        given = Guess.of(guess) if isinstance(guess, Trajectory) else guess
        if best.status is Status.DIVERGED and not sound(problem, given, p):
            return best.replace(message=_UNDEFINED)
        return _refined(method, problem, x0, p, best, tolerance, options, finish)
    seconds = options.get("time_limit", 60.0)
    deadline, enough_time = started + seconds, started + seconds * (_GUESSING if finish.get("resimulation") else 1.0)
    rest = lambda share=1.0: {"time_limit": share * max(0.0, deadline - time.perf_counter())}
    most = num_starts or (1 if convex else _MOST)
    values: list[float] = []
    basins = iterations = tried = 0
    late, anywhere = False, False
    met = lambda value: sum(abs(value - v) <= 1e-4 * (1 + abs(v)) for v in values)
    stream = guesses_for(problem, x0, p, goal, np.random.default_rng(seed))
    for start, widen in itertools.islice(stream, most):
        check()
        late = tried > 0 and time.perf_counter() > enough_time
        settled = best is not None and best.ok and unseen(len(values), basins) <= _UNSEEN
        if late or (settled and not num_starts):
            break
        tried += 1
        if not sound(problem, start, p) and best is not None:
            continue
        anywhere = anywhere or sound(problem, start, p)
        # a guess that takes much longer than the best one did leads nowhere better
        patient = options.get("max_iterations", 500)
        patient = min(patient, max(60, 4 * best.iterations)) if best is not None and best.ok else patient
        for scale in widen:
            if time.perf_counter() > deadline:
                break
            quick = {"tolerance": 1e-3, "damped": True, "scale": scale, "max_iterations": min(100, patient)}
            easy = method(problem, x0, params=p, guess=start, **options | quick | rest(0.25))
            iterations += easy.iterations
            if np.isfinite(easy.trajectory.states).all():
                start = Guess.of(easy.trajectory)
        patience = rest(0.5) | {"max_iterations": patient, "damped": not convex}
        found = method(problem, x0, params=p, guess=start, tolerance=tolerance, **options | patience)
        iterations += found.iterations
        if found.ok:
            basins += not met(found.value)
            values.append(found.value)
        if best is None or _rank(found) > _rank(best):
            best = found
    assert best is not None
    if best.status is Status.DIVERGED and not anywhere:
        best = best.replace(message=_UNDEFINED)
    if best.ok and not convex and time.perf_counter() < deadline:
        exact = method(problem, x0, params=p, guess=best.trajectory, tolerance=tolerance, **options | rest())
        best = exact if exact.ok and abs(exact.value - best.value) <= 1e-3 * (1 + abs(best.value)) else best
    best = _refined(method, problem, x0, p, best, tolerance, options | rest(), finish)
    return best.replace(
        wall_time=time.perf_counter() - started,
        basins=max(1, basins),
        iterations=iterations,
        proved=convex and best.ok,
        search="" if convex else _searched(tried, len(values), basins, met(best.value), num_starts is not None, late),
    )


def _searched(tried: int, solved: int, basins: int, met: int, asked: bool, late: bool) -> str:
    """What a search met, and by which rule it ended."""
    share, count = unseen(solved, basins), lambda n, one, many: f"{n} {one if n == 1 else many}"
    done = f"{count(tried, 'guess', 'guesses')}, {count(basins, 'basin', 'basins')} seen"
    if met:
        done += f", the best met {count(met, 'time', 'times')}"
    if share <= _UNSEEN and not (late or asked):
        return f"{done}; ended when at most {_UNSEEN:.0%} of further guesses were expected to find another"
    why = "by the time limit" if late else "with the guesses asked for" if asked else f"at the limit of {_MOST} guesses"
    return f"{done}; ended {why}, {share:.0%} of further ones expected to find another"


_FINE = 1e-6
"""Defect of an interval, integrated again, up to which collocation refines unasked."""


_GUESSING = 0.5
"""Share of the time limit that guesses may take where a grid is to be refined afterwards."""


def _refined(function, problem, x0, p, best: Solution, tolerance, options, finish) -> Solution:
    """The solution on a finer grid where `finish` asks for one; with a limit of its own, as fine as it gets."""
    c, wanted = best.certificate, finish.get("resimulation")
    defect = None if c.resimulation is None else max(c.resimulation, c.cost_defect or 0.0)
    if not best.ok or wanted is None:
        return best
    if defect is not None and defect <= wanted and best.verdict is Verdict.EXTREMAL:
        return best
    fine = function(problem, x0, params=p, guess=best.trajectory, tolerance=tolerance, **options | finish)
    if "max_intervals" in finish and fine.status is Status.ACCEPTABLE and fine.message.startswith("re-simulated"):
        return fine.replace(status=Status.CONVERGED)  # nobody asked for more
    return fine if fine.status.certifiable or "max_intervals" not in finish else best


def _rank(found: Solution) -> tuple[bool, bool, bool, float]:
    """Converged before feasible before true to the dynamics before cheap: a grid too coarse can be exploited."""
    error = found.certificate.accumulated
    true = error is not None and bool(error <= UNTRUE)
    value = found.value if np.isfinite(found.value) else np.inf
    return found.ok, found.verdict is not Verdict.NOT_CONVERGED, true, -value


_inherited: Callable[[int], Solution]
"""In a worker: what it is there for."""


def _begin(work: Callable[[int], Solution]) -> None:
    global _inherited
    _inherited = work


def _run(i: int) -> Solution:
    return _inherited(i)


def _workers(total: int, processes: int | None) -> int:
    """Processes that share so many starts; 1: this one does them."""
    here = multiprocessing.current_process()
    allowed = "fork" in multiprocessing.get_all_start_methods() and not here.daemon
    if not allowed or threading.current_thread() is not threading.main_thread():
        return 1
    return min(total, processes or (1 if multiprocessing.parent_process() else cores()))


def solve_list(
    problem: Problem,
    x0: np.ndarray,
    p: np.ndarray,
    method: Method,
    *,
    guess: Any,
    num_starts: int | None,
    seed: int,
    tolerance: float,
    processes: int | None,
    progress: Any,
    options: dict[str, Any],
) -> list[Solution]:
    """`solve_one` for every start, in order."""
    require(processes is None or processes > 0, "processes", "be a positive integer", f"is {processes!r}")
    is_convex = problem.final_time is None and convex(problem, p)
    goal = None if is_convex or guess is not None else target(problem, p[0])
    require(
        len(x0) == 1 or not options.get("resimulation"),
        "resimulation",
        "be absent for several starts, whose grids would differ",
        f"is {options.get('resimulation')!r}",
    )
    total, report = len(x0), progress or (lambda done, of: None)
    taken = inspect.signature(method).parameters
    discrete = (
        "scale" in taken and "resimulation" not in taken
    )  # its multipliers are costates of the problem's own step

    def work(i: int) -> Solution:
        own = guess[i % len(guess.states)] if isinstance(guess, Trajectory) and guess.batch_shape else guess
        with heeded() as check:
            found = solve_one(
                problem,
                x0[i],
                p[i % len(p)],
                method,
                seed=[seed, i],
                guess=own,
                num_starts=num_starts,
                tolerance=tolerance,
                convex=is_convex,
                goal=goal,
                alone=total == 1,
                check=check,
                options=options,
            )
        return with_curvature(problem, found, p[i % len(p)]) if discrete else found

    different = list(range(total)) if guess is not None else _first_of_equals(x0, p)
    chosen = sorted(set(different))
    solutions: list[Solution] = []
    workers = _workers(len(chosen), processes)
    if workers > 1:
        context = multiprocessing.get_context("fork")  # hands `work` over without pickling it
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", DeprecationWarning
                )  # threads of other libraries: workers use none of them
                with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(work,)) as pool:
                    for solution in pool.map(_run, chosen):
                        solutions.append(solution)
                        report(len(solutions), total)
        except (BrokenProcessPool, OSError):
            pass
    for i in chosen[len(solutions) :]:
        solutions.append(work(i))
        report(len(solutions), total)
    of = dict(zip(chosen, solutions, strict=True))
    return [of[i] for i in different]


def _first_of_equals(x0: np.ndarray, p: np.ndarray) -> list[int]:
    """For every start the first one with the same state and parameters: equal starts are solved once."""
    rows = np.hstack([x0, np.broadcast_to(p, (len(x0), p.shape[1]))])
    seen: dict[bytes, int] = {}
    return [seen.setdefault(row.tobytes(), i) for i, row in enumerate(rows)]


def solve_each(problem: Problem, x0: np.ndarray, p: np.ndarray, method: Method, **arguments: Any) -> SolutionBatch:
    """`solve_list` as a batch."""
    started = time.perf_counter()
    solutions = solve_list(problem, x0, p, method, **arguments)
    return collect(problem, solutions, p, time.perf_counter() - started)
