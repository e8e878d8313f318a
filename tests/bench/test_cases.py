"""How `optctl bench cases` reports: rows of a case that fails, hangs, dies or lacks a library."""

import os

import pytest

from optctl.bench.cases import CASES, Row
from optctl.bench.cases.rows import honest, near, optimum
from optctl.bench.cases.run import cases, run


class Claimed:
    def __init__(self, value, claim):
        self.value, self.verdict = value, type("Verdict", (), {"value": claim})


def good():
    yield Row("first", "1", "1", True)


def failing():
    yield Row("first", "1", "1", True)
    raise ValueError("no")


def hanging():
    yield Row("first", "1", "1", True)
    while True:
        pass


def dying():
    yield Row("first", "1", "1", True)
    os._exit(3)


def lacking():
    import a_library_that_nobody_has  # noqa: F401

    yield Row("first", "1", "1", True)


@pytest.mark.parametrize(
    ("case", "verdicts"), [(good, [True]), (failing, [True, False]), (hanging, [True, False]), (dying, [True, False]), (lacking, [None])]
)  # fmt: skip
def test_what_becomes_of_a_case(monkeypatch, case, verdicts):
    monkeypatch.setitem(CASES, "tried", ("by hand", case))
    assert [row.ok for row, _ in run("tried", 0.2)] == verdicts


def test_wrong_rows_end_with_an_error(monkeypatch, capsys):
    monkeypatch.setitem(CASES, "tried", ("by hand", failing))
    assert cases(only="tried") == 1
    assert "1 right, 1 wrong" in capsys.readouterr().out
    monkeypatch.setitem(CASES, "tried", ("by hand", good))
    assert cases(only="tried") == 0


def test_what_a_row_asks_of_a_solution():
    assert near("", 2.0, 2.0001).ok and not near("", 2.0, 2.1).ok
    assert optimum("", Claimed(2.0, "proved optimum"), 2.0).ok
    assert not optimum("", Claimed(2.0, "best found"), 2.0).ok
    assert not honest("", Claimed(1.5, "certified extremal"), 2.0).ok
    assert honest("", Claimed(1.5, "best found"), 2.0).ok
