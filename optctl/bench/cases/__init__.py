"""The inputs of `optctl bench cases` by theme: each a generator of rows, with how its right answers are known."""

from optctl.bench.cases import calls, collocation, costs, environments, libraries, stiff
from optctl.bench.cases.rows import Cases, Row

CASES = Cases(stiff.CASES | costs.CASES | collocation.CASES | environments.CASES | libraries.CASES | calls.CASES)

__all__ = ["CASES", "Row"]
