"""Classical optimal control on a `Problem`: `solve`, `solve_many`, and the methods behind them."""

from __future__ import annotations

from collections.abc import Callable

from optctl.solvers.feedback.lqg import LqgController, h_infinity_norm
from optctl.solvers.feedback.neighbouring import CONTROLLERS, Feedback, OptimalController, tvlqr
from optctl.solvers.methods.bilinear import solve_grape
from optctl.solvers.methods.collocation import solve_collocation
from optctl.solvers.methods.lqr import linear_quadratic, lqr, lqr_controller, solve_lqr
from optctl.solvers.methods.multiple_shooting import Guess, solve_multiple_shooting
from optctl.solvers.methods.phases import Phase, PhasedSolution, solve_phases
from optctl.solvers.methods.pontryagin import solve_pontryagin
from optctl.solvers.methods.switching import solve_switching
from optctl.solvers.select import solve, solve_ddp_start, solve_many
from optctl.solvers.solution import Certificate, Solution, Status, Verdict
from optctl.solvers.solution_batch import SolutionBatch

SOLVERS: dict[str, Callable[..., Solution]] = {
    "ddp": solve_ddp_start,
    "lqr": solve_lqr,
    "multiple_shooting": solve_multiple_shooting,
    "collocation": solve_collocation,
    "pontryagin": solve_pontryagin,
    "switching": solve_switching,
    "grape": solve_grape,
}
"""Name → function(problem, x0, *, params, …) → Solution."""

__all__ = [
    "CONTROLLERS",
    "SOLVERS",
    "Certificate",
    "Feedback",
    "Guess",
    "LqgController",
    "OptimalController",
    "Phase",
    "PhasedSolution",
    "Solution",
    "SolutionBatch",
    "Status",
    "Verdict",
    "h_infinity_norm",
    "linear_quadratic",
    "lqr",
    "lqr_controller",
    "solve",
    "solve_collocation",
    "solve_grape",
    "solve_lqr",
    "solve_many",
    "solve_multiple_shooting",
    "solve_phases",
    "solve_pontryagin",
    "solve_switching",
    "tvlqr",
]
