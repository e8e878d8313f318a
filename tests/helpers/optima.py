"""The statements of `optctl bench optima`, for the tests of the solvers."""

from optctl.bench.known_optima import *  # noqa: F403
