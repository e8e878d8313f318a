"""Problem → batched Warp kernels: `compile_problem` (differentiable functions) and `make_vec` (environments)."""

from optctl.simulation.compiled import CompiledFunction, CompiledProblem, Linearization, compile_problem
from optctl.simulation.program import TranslationError
from optctl.simulation.vector_env import VectorEnv, make_vec

__all__ = [
    "CompiledFunction", "CompiledProblem", "Linearization", "TranslationError", "VectorEnv", "compile_problem", "make_vec",
]  # fmt: skip
