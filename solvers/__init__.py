"""Classical optimal control on a `Problem`: `solve`, `solve_many`, and the methods behind them."""

from __future__ import annotations

from collections.abc import Callable

from optctl.solvers.bilinear import solve_grape
from optctl.solvers.collocation import solve_collocation
from optctl.solvers.feedback import CONTROLLERS, Feedback, OptimalController, tvlqr
from optctl.solvers.lqg import LqgController, h_infinity_norm
from optctl.solvers.lqr import linear_quadratic, lqr, lqr_controller, solve_lqr
from optctl.solvers.multiple_shooting import Guess, solve_multiple_shooting
from optctl.solvers.multistart import solve, solve_ddp_start, solve_many
from optctl.solvers.phases import Phase, PhasedSolution, solve_phases
from optctl.solvers.pontryagin import solve_pontryagin
from optctl.solvers.solution import Certificate, Solution, SolutionBatch, Status, Verdict
from optctl.solvers.switching import solve_switching

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
