"""Classical optimal control on a `Problem`: `solve`, `solve_many`, and the methods behind them."""

from __future__ import annotations

from collections.abc import Callable

from optctl.solvers.lqr import lqr, lqr_controller, linear_quadratic, solve_lqr
from optctl.solvers.multiple_shooting import Guess, solve_multiple_shooting
from optctl.solvers.multistart import solve, solve_many
from optctl.solvers.solution import Certificate, Solution, SolutionBatch, Status, Verdict

SOLVERS: dict[str, Callable] = {
    "ddp": solve,
    "lqr": solve_lqr,
    "multiple_shooting": solve_multiple_shooting,
}
"""Name → function(problem, x0, *, params, guess, tolerance, …) → Solution."""
