"""`CONTROLLERS`: what a name stands for in `compare(problem, [name, …])` and on the command line."""

from __future__ import annotations

import time
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from optctl.agents import AGENTS
from optctl.comparison.charge import from_solutions
from optctl.comparison.result import Reference
from optctl.errors import require
from optctl.problem import Problem
from optctl.problem.controller import Controller, RandomController, ZeroController
from optctl.solvers import LqgController, lqr_controller, solve_many
from optctl.solvers.feedback.hjb import HjbController

Built = Controller | Sequence[Controller] | Reference
Builder = Callable[[Problem, np.ndarray, np.ndarray, int], Built]
"""(problem, starts (S, n_x), params (1 or S, n_p), seed) → a controller, one per training seed, or solved trajectories."""


# --- classical ----------------------------------------------------------------------------------------------------------


def _optimal(problem: Problem, starts: np.ndarray, params: np.ndarray, seed: int) -> Reference:
    began = time.perf_counter()
    solutions = solve_many(problem, starts, params=params, seed=seed)
    return from_solutions(problem, solutions, params, wall_time=time.perf_counter() - began)


def _timed(build: Callable[[], Any]) -> Controller:
    """The controller with what building it took, `wall_time` [s]."""
    began = time.perf_counter()
    controller = build()
    controller.wall_time = time.perf_counter() - began
    return controller


def _lqr(problem: Problem, starts: np.ndarray, params: np.ndarray, seed: int) -> Controller:
    return _timed(lambda: lqr_controller(problem, params=params))


def _lqg(problem: Problem, starts: np.ndarray, params: np.ndarray, seed: int) -> Controller:
    return _timed(lambda: LqgController(problem, params=params))


def _hjb(problem: Problem, starts: np.ndarray, params: np.ndarray, seed: int) -> Controller:
    require(len(params) == 1, "params", "be one row for the controller `hjb`", f"has {len(params)}")
    return _timed(lambda: HjbController(problem, params=params[0]))


def _mpc(problem: Problem, starts: np.ndarray, params: np.ndarray, seed: int) -> Controller:
    from optctl.solvers.feedback.mpc import MpcController  # loads torch and warp

    return MpcController(problem, seed=seed)


CLASSICAL: dict[str, Builder] = {
    "optimal": _optimal,
    "lqr": _lqr,
    "lqg": _lqg,
    "mpc": _mpc,
    "hjb": _hjb,
    "zero": lambda problem, starts, params, seed: ZeroController(problem),
    "random": lambda problem, starts, params, seed: RandomController(problem, seed),
}


# --- learnt -------------------------------------------------------------------------------------------------------------


_WARM = "-warm"


class _Trained(Mapping[str, Builder]):
    """Every agent, trained for the comparison: AGENT from scratch and, where it can be cloned, AGENT-warm from optimal trajectories."""

    def __getitem__(self, name: str) -> Builder:
        if name not in list(self):
            raise KeyError(name)
        return lambda problem, starts, params, seed: train_named(name, problem, seed=seed, starts=starts)

    def __iter__(self) -> Iterator[str]:
        return (agent + suffix for agent, entry in AGENTS.items() for suffix in ("", _WARM)[: 1 + entry.cloneable])

    def __len__(self) -> int:
        return len(list(iter(self)))


def train_named(name: str, problem: Problem, **options: Any) -> Any:
    """`train` by a name in `TRAINED`, with the settings of `optctl.training.settings`."""
    from optctl.training.run import train  # loads torch

    return train(name.removesuffix(_WARM), problem, warm_start=name.endswith(_WARM), **options)


TRAINED: Mapping[str, Builder] = _Trained()


# --- all ----------------------------------------------------------------------------------------------------------------


class _Controllers(ChainMap[str, Builder]):
    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for names in self.maps for name in names))


CONTROLLERS = _Controllers(CLASSICAL, TRAINED)  # type: ignore[arg-type]
"""What a name stands for. `CONTROLLERS[name] = builder` adds one; an agent of `optctl.agents.AGENTS` is there by itself."""
