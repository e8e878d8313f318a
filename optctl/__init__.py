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
    "Trajectory": "optctl.trajectory",
    "Controller": "optctl.controller",
    "FeedbackController": "optctl.controller",
    "rollout": "optctl.controller",
    "make_vec": "optctl.simulation",
    "compile_problem": "optctl.simulation",
    "animate": "optctl.simulation.animation",
    "solve": "optctl.solvers",
    "train": "optctl.training",
    "load_agent": "optctl.training",
    "compare": "optctl.evaluation",
    "make": "optctl.envs",
}

__all__ = [*_HOME, "__version__"]

if TYPE_CHECKING:
    from optctl.controller import Controller, FeedbackController, rollout
    from optctl.envs import make
    from optctl.evaluation import compare
    from optctl.problem import Fixed, Normal, Problem, Uniform
    from optctl.simulation import compile_problem, make_vec
    from optctl.simulation.animation import animate
    from optctl.solvers import solve
    from optctl.training import load_agent, train
    from optctl.trajectory import Trajectory


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
