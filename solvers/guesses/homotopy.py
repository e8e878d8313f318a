"""Basins by homotopy, for many starts at once: every start from many guesses, with more control authority first and less later.

The guesses are those of multi-start multiple shooting (`parallel.guesses_for`): the flight under the middle control, straight lines to
the goal and its copies a turn away, rest, and random controls; but for the first they are not consistent. Some have factors with them:
by those the bounds on controls are widened about their middle, and each solution is the guess for the narrower bounds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from optctl.problem import Problem
from optctl.solvers.guesses.parallel import guesses_for
from optctl.solvers.guesses.targets import middle
from optctl.solvers.methods.ddp import DdpResult
from optctl.solvers.methods.equilibrium import target


def homotopy(
    problem: Problem, x0: np.ndarray, p: np.ndarray, guesses: int, seed: int, solve: Callable[..., DdpResult]
) -> Iterator[tuple[np.ndarray, DdpResult]]:
    """For each of `guesses` guesses what it led to from every start x0 (B, n_x) with parameters p (1 or B, n_p), as (starts, results):
    starts whose guess widens the bounds by the same factors go together. `solve`: called as `batched.ddp.solve_ddp`."""
    goal = target(problem, p.mean(axis=0))
    p = np.broadcast_to(p, (len(x0), problem.n_p))
    streams = [
        itertools.islice(guesses_for(problem, x, q, goal, np.random.default_rng([seed, i])), guesses)
        for i, (x, q) in enumerate(zip(x0, p, strict=True))
    ]
    low, high, centre = problem.control_low, problem.control_high, middle(problem)
    for batch in zip(*streams, strict=True):
        for widen in dict.fromkeys(widen for _, widen in batch):
            members = [i for i, (_, own) in enumerate(batch) if own == widen]
            states, controls = (
                np.stack([getattr(batch[i][0], name) for i in members]) for name in ("states", "controls")
            )
            for scale in widen:
                wide = {"low": centre + scale * (low - centre), "high": centre + scale * (high - centre)}
                easy = solve(problem, states, controls, p[members], tolerance=1e-3, max_iterations=60, polish=0, **wide)
                good = (np.isfinite(easy.states).all(axis=(1, 2)) & np.isfinite(easy.controls).all(axis=(1, 2)))[
                    :, None, None
                ]
                states, controls = np.where(good, easy.states, states), np.where(good, easy.controls, controls)
            yield np.array(members), solve(problem, states, controls, p[members], barrier=1e-3 if widen else 1e-2)
