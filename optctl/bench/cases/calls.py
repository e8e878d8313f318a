"""Cases of the ways in: threads, names, tolerances, resuming."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

import optctl
from optctl.bench.cases.rows import Cases, Row, decay, solve, tried, true
from optctl.errors import ArgumentError
from optctl.solvers import solve_many
from optctl.training.run import train
from optctl.training.settings import settings

CASES = Cases()


@CASES.case("four threads that solve", "each gets the answers to its own starts")
def threads() -> Iterator[Row]:
    wrong, crashed = [], []

    def work(k: int) -> None:
        p = decay(1.0 + k, integrator="rk4")
        starts = np.full((4, 1), 0.1 * (k + 1))
        for _ in range(20):
            try:
                batch = solve_many(p, starts, method="lqr", processes=1)
                if not np.allclose(batch.trajectory.states[:, 0], starts):
                    wrong.append(k)
            except Exception as error:
                crashed.append(type(error).__name__)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    yield true(
        "eighty batches", "all their own", not wrong and not crashed, f"{len(wrong)} of others, {len(crashed)} crashes"
    )


@CASES.case("run that is resumed with other settings", "what is asked for, or a sentence")
def resumed() -> Iterator[Row]:
    p = decay(1.0)
    config = replace(settings("sac", p).train, iterations=2)
    with tempfile.TemporaryDirectory() as folder:
        train("sac", p, config=config, seed=1, out=folder)
        try:
            policy = train(
                "sac", p, config=replace(config, iterations=3, evaluate_every=3), seed=99, out=folder, resume=True
            )
        except ArgumentError as error:
            yield true("another seed", "obeyed or refused", True, str(error)[:120])
            return
        found = policy.run.seed, policy.run.config.evaluate_every
        yield true("another seed", "obeyed or refused", found == (99, 3), f"seed {found[0]}, evaluate_every {found[1]}")


@CASES.case("names that are not identifiers", "an environment that steps")
def names() -> Iterator[Row]:
    for name in (r"a\Users", 'quotes """ within', "line\nbreak"):

        def begun(name: str = name) -> tuple[bool, Any]:
            try:
                observation = np.asarray(optctl.make_vec(decay(1.0).replace(name=name), 2).reset(seed=0)[0])
            except ArgumentError as error:
                return True, str(error)[:80]
            return bool(np.isfinite(observation).all()), "runs"

        yield tried(repr(name), "runs, or is refused", begun)


@CASES.case("names that packages publish", "each can be had")
def published() -> Iterator[Row]:
    for package in ("optctl", "optctl.simulation", "optctl.solvers", "optctl.interop", "optctl.envs"):
        module = importlib.import_module(package)
        missing = []
        for name in getattr(module, "__all__", ()):
            try:
                getattr(module, name)
            except ImportError as error:
                if (error.name or "").startswith("optctl"):
                    missing.append(name)
            except AttributeError:
                missing.append(name)
        yield true(package, "all", not missing, ", ".join(missing) or "all")
    done = subprocess.run(
        [sys.executable, "-c", "import optctl; optctl.solvers; optctl.envs"], capture_output=True, text=True
    )
    yield true(
        "subpackages after `import optctl`",
        "there",
        done.returncode == 0,
        (done.stderr.strip().splitlines() or ["there"])[-1],
    )


@CASES.case("tolerance that is asked for", "converged means to this tolerance")
def tolerance() -> Iterator[Row]:
    p = optctl.make("pendulum")
    batch = solve_many(p, p.initial_state.sample(np.random.default_rng(0), 64), tolerance=1e-12)
    relative = batch.residuals["stationarity"] / (1 + np.abs(batch.values))
    above = batch.ok & (relative > 1e-12)
    yield true(
        "64 pendulums at 1e-12",
        "converged: below it",
        not above.any(),
        f"{int(above.sum())} above, up to {relative[batch.ok].max():.1e}",
    )


BEST_PENDULUMS = [
    3.502925, 9.408132, 5.705555, 3.530981, 3.622775, 5.934767, 8.144321, 3.307399, 7.947002, 3.322443, 9.490075, 3.393305,
    3.532316, 9.449086, 3.354631, 3.375772, 8.039561, 5.769934e-3, 9.418692e-3, 9.869890, 3.600602, 3.569945, 3.570061, 5.938317,
    8.353912, 5.931272, 8.117628, 3.397717, 2.271769e-2, 5.853852, 3.550079, 9.850758,
]  # fmt: skip
"""`solve_many(pendulum, starts, num_starts=8, seed=1)` for 32 starts of seed 0: 50 s on two cores."""


@CASES.case("optimum of a comparison", "the best of eight guesses by multiple shooting for each start, solved once")
def best_known() -> Iterator[Row]:
    p = optctl.make("pendulum")
    usual = solve(p, p.initial_state.sample(np.random.default_rng(0), len(BEST_PENDULUMS)))
    above = usual.values > np.array(BEST_PENDULUMS) * (1 + 1e-3) + 1e-6
    yield true(
        "32 pendulums",
        "none above eight guesses each",
        not above.any(),
        f"{int(above.sum())} above, {usual.values.mean():.6g} to {np.mean(BEST_PENDULUMS):.6g}",
    )
