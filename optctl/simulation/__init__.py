"""Problem → batched Warp kernels: `compile_problem` (differentiable functions) and `make_vec` (environments).

Names are resolved on first use: registering the Gymnasium ids must not load torch and warp.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "CapturedSteps": "optctl.simulation.graph",
    "CompiledFunction": "optctl.codegen.function",
    "CompiledProblem": "optctl.simulation.compiled",
    "Linearization": "optctl.simulation.compiled",
    "Rollout": "optctl.simulation.rollout",
    "TranslationError": "optctl.codegen.program",
    "VectorEnv": "optctl.simulation.vector_env",
    "compile_problem": "optctl.simulation.compiled",
    "make_vec": "optctl.simulation.vector_env",
}

__all__ = [*_HOME]

if TYPE_CHECKING:
    from optctl.codegen.program import TranslationError  # noqa: F401
    from optctl.simulation.compiled import CompiledFunction, CompiledProblem, Linearization, compile_problem  # noqa: F401
    from optctl.simulation.graph import CapturedSteps  # noqa: F401
    from optctl.simulation.rollout import Rollout  # noqa: F401
    from optctl.simulation.vector_env import VectorEnv, make_vec  # noqa: F401


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'optctl.simulation' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value
