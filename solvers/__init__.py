"""Classical optimal control on a `Problem`: `solve`, `solve_many`, and the methods behind them."""

from optctl.solvers.feedback.lqg import LqgController, h_infinity_norm
from optctl.solvers.feedback.lqr import lqr_controller
from optctl.solvers.feedback.neighbouring import CONTROLLERS, Feedback, OptimalController, tvlqr
from optctl.solvers.methods.collocation import solve_collocation
from optctl.solvers.methods.lqr import linear_quadratic, lqr, solve_lqr
from optctl.solvers.methods.multiple_shooting import Guess, solve_multiple_shooting
from optctl.solvers.methods.phases import Phase, PhasedSolution
from optctl.solvers.select import (
    SOLVERS,
    solve,
    solve_grape,
    solve_many,
    solve_phases,
    solve_pontryagin,
    solve_switching,
)
from optctl.solvers.solution import Certificate, Solution, Status, Verdict
from optctl.solvers.solution_batch import SolutionBatch

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
