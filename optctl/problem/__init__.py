"""The one definition: states, controls, dynamics, costs, constraints and starts in symbols, and what follows from it alone.

`statement` holds `Problem`, `distributions` its starts, `controller` rolls a controller out, `transforms` make problems out of
problems (delays, filters, goals), `quantum` states quantum systems in real numbers.
"""

from optctl.problem.distributions import Fixed, InitialState, Normal, Uniform
from optctl.problem.statement import Bounds, Problem, check_problem

__all__ = ["Bounds", "Fixed", "InitialState", "Normal", "Problem", "Uniform", "check_problem"]
