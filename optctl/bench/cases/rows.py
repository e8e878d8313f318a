"""What the cases of `optctl bench cases` are made of: rows, what is asked of a row, and short ways to state and solve."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import optctl
from optctl import Problem, Uniform
from optctl.errors import ArgumentError

CLAIMS = ("proved optimum", "certified extremal")


@dataclass(frozen=True)
class Row:
    """One thing that a case shows. `ok` is `None` where it could not be tried."""

    what: str
    right: str
    found: str
    ok: bool | None
    verdict: str = ""


Case = Callable[[], Iterator[Row]]


class Cases(dict[str, tuple[str, Case]]):
    """Name → (how the right answers are known, the case)."""

    def case(self, name: str, known: str) -> Callable[[Case], Case]:
        """Enter the function below."""

        def entered(function: Case) -> Case:
            self[name] = known, function
            return function

        return entered


def near(what: str, right: float, found: Any, relative: float = 1e-4, absolute: float = 0.0, verdict: str = "") -> Row:
    """A number that must be the right one."""
    value = float(found)
    return Row(what, f"{right:.9g}", f"{value:.9g}", abs(value - right) <= relative * abs(right) + absolute, verdict)


def true(what: str, right: str, ok: Any, found: Any, verdict: str = "") -> Row:
    return Row(what, right, str(found), bool(ok), verdict)


def optimum(what: str, solution: Any, right: float, relative: float = 1e-3) -> Row:
    """A solution that must have the right value and claim something."""
    row = near(what, right, solution.value, relative, verdict=solution.verdict.value)
    return Row(row.what, row.right, row.found, bool(row.ok) and row.verdict in CLAIMS, row.verdict)


def honest(what: str, solution: Any, right: float, relative: float = 1e-2) -> Row:
    """A solution that must have the right value if it claims anything."""
    row = near(what, right, solution.value, relative, verdict=solution.verdict.value)
    return Row(row.what, row.right + " or no claim", row.found, bool(row.ok) or row.verdict not in CLAIMS, row.verdict)


def refused(what: str, call: Callable[[], Any], holds: str = "", right: str = "a sentence that says why") -> Row:
    """A call that must raise ArgumentError, with a text that holds something."""
    try:
        value = call()
    except ArgumentError as error:
        return true(what, right, holds in str(error), str(error)[:160])
    return true(what, right, False, f"accepted: {str(value)[:60]}")


def tried(what: str, right: str, call: Callable[[], tuple[bool, Any]]) -> Row:
    """(ok, found) of a call; what it raises is a wrong row, and the case goes on."""
    try:
        ok, found = call()
    except ModuleNotFoundError:
        raise
    except Exception as error:
        return Row(what, right, f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:120]}", False)
    return true(what, right, ok, found)


def solve(stated: Problem, x0: Any, **options: Any) -> Any:
    """`optctl.solve`: a solution or a batch, as `x0` asks."""
    return optctl.solve(stated, x0, **options)


def problem(name: str, state: int, control: int, **fields: Any) -> Problem:
    """A `Problem` with x0, x1, … and u0, u1, …."""
    names: dict[str, Any] = {"state": [f"x{i}" for i in range(state)], "control": [f"u{i}" for i in range(control)]}
    return Problem(name=name, **(names | fields))


def decay(rate: float, **changes: Any) -> Problem:
    """ẋ = −rate x + u, held for 0.2."""
    fields: dict[str, Any] = dict(
        horizon="infinite", stage_cost=lambda x, u, p: x[0] ** 2 + u[0] ** 2, dt=0.2, steps=10, integrator="exponential",
        initial_state=Uniform([-1.0], [1.0]), dynamics=lambda x, u, p: -rate * x + u,
    )  # fmt: skip
    return problem("decay", 1, 1, **(fields | changes))
