"""optctl: one symbolic problem definition, its batched environment, its exact optimum, and the gap between.

Public names, and the packages and modules below (`optctl.solvers`), are resolved on first use, so that `import optctl` loads neither
casadi, torch, warp nor matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Problem": "optctl.problem",
    "Uniform": "optctl.problem",
    "Normal": "optctl.problem",
    "Fixed": "optctl.problem",
    "Trajectory": "optctl.problem.trajectory",
    "Controller": "optctl.problem.controller",
    "FeedbackController": "optctl.problem.controller",
    "rollout": "optctl.problem.controller",
    "make_vec": "optctl.simulation",
    "compile_problem": "optctl.simulation",
    "animate": "optctl.pictures.animation",
    "solve": "optctl.solvers",
    "solve_many": "optctl.solvers",
    "train": "optctl.training.run",
    "load_agent": "optctl.training.run",
    "compare": "optctl.comparison.compare",
    "make": "optctl.envs",
}

__all__ = [*_HOME, "__version__"]

if TYPE_CHECKING:
    from optctl.comparison.compare import compare
    from optctl.envs import make
    from optctl.pictures.animation import animate
    from optctl.problem import Fixed, Normal, Problem, Uniform
    from optctl.problem.controller import Controller, FeedbackController, rollout
    from optctl.problem.trajectory import Trajectory
    from optctl.simulation import compile_problem, make_vec
    from optctl.solvers import solve, solve_many
    from optctl.training.run import load_agent, train


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        if name.startswith("_") or name not in _modules():
            raise AttributeError(f"module 'optctl' has no attribute {name!r}")
        return import_module(f"optctl.{name}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def _modules() -> list[str]:
    return [module.name for module in iter_modules(__path__)]


def __dir__() -> list[str]:
    return sorted({*__all__, *_modules()})
