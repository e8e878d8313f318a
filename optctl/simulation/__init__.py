"""Problem → batched Warp kernels: `compile_problem` (differentiable functions) and `make_vec` (environments).

Names are resolved on first use: registering the Gymnasium ids must not load torch and warp.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "CompiledFunction": "compiled",
    "CompiledProblem": "compiled",
    "CapturedSteps": "graph",
    "GymEnv": "gym_adapter",
    "GymVectorEnv": "gym_adapter",
    "Linearization": "compiled",
    "Rollout": "rollout",
    "TranslationError": "program",
    "VectorEnv": "vector_env",
    "compile_problem": "compiled",
    "make_vec": "vector_env",
}

__all__ = [*_HOME]

if TYPE_CHECKING:
    from optctl.simulation.compiled import CompiledFunction, CompiledProblem, Linearization, compile_problem  # noqa: F401
    from optctl.simulation.graph import CapturedSteps  # noqa: F401
    from optctl.simulation.gym_adapter import GymEnv, GymVectorEnv  # noqa: F401
    from optctl.simulation.program import TranslationError  # noqa: F401
    from optctl.simulation.rollout import Rollout  # noqa: F401
    from optctl.simulation.vector_env import VectorEnv, make_vec  # noqa: F401


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'optctl.simulation' has no attribute {name!r}")
    value = getattr(import_module(f"optctl.simulation.{_HOME[name]}"), name)
    globals()[name] = value
    return value
