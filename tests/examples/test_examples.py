"""Every example runs; the committed notebooks hold the outputs of a run."""

import runpy
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from shortened import SHORT, shortened

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
FEWER = {
    "02_swing_up": {
        ", 100)\n": ", 4)\n",
        '"sac", swing_up, ': '"sac", swing_up, budget_seconds=0.5, ',
        "warm_start=True": "warm_start=SHORT",
        "steps=150": "steps=60",
    },
    "04_quantum_pulses": {
        "times = [0.3, 0.5, 0.618, 0.8, 1.0, 1.4, 1.8, 2.2, 2.4]": "times = [0.3, 0.5, 0.618, 0.8, 1.0, 1.4, 1.8]",
        "steps=100: ": "steps=20: ",
        "duration=2.5, steps=100": "duration=2.5, steps=30",
        "max_iterations=2000": "max_iterations=50",
        "max_iterations=150": "max_iterations=20",
        "-0.25, 0.25, 21": "-0.25, 0.25, 5",
        "-0.5, 0.5, 101": "-0.5, 0.5, 11",
        "restarts=1000": "restarts=10",
        "restarts=32": "restarts=2",
        "max_iterations=400": "max_iterations=20",
        "max_iterations=300": "max_iterations=20",
        "accuracy=1e-3": "accuracy=0.1",
        "2.0, 3.0, infidelity=1e-8": "2.0, 3.0, infidelity=1e-4",
        "budget_seconds=6, warm_start=warm": "budget_seconds=0.5, warm_start=warm and SHORT",
    },
}
"""What a notebook does thousands of times, and how often it does so here, where only the calls are tested."""


SCRIPT = EXAMPLES / "01_state_your_own_problem.py"


def test_a_problem_of_one_s_own_takes_at_most_twenty_lines_and_steps():
    """The same program runs, shortened, as README's."""
    source = SCRIPT.read_text()
    statement = source[source.index("harvest = optctl.Problem(") : source.index("if __name__")]
    assert len(statement.strip().splitlines()) <= 20
    harvest = runpy.run_path(str(SCRIPT))["harvest"]
    after, cost = harvest.step_function([1.0, 1.0], [0.0], harvest.param_values, 0.0)
    assert np.ravel(after) == pytest.approx([1.0, 1.0]) and cost == 0  # the equilibrium


@pytest.mark.prove
def test_the_program_gives_a_report(tmp_path, monkeypatch, capsys):
    out = tmp_path / "report"
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--seconds", "3", "--out", str(out)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    said = capsys.readouterr().out
    assert "certified extremal" in said and "sac-warm" in said
    assert (out / "report.html").exists()


def cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_holds_its_outputs_and_compiles(path):
    assert all(cell.execution_count for cell in cells(path))
    compile("\n".join(cell.source for cell in cells(path)), path.name, "exec")


@pytest.mark.parametrize("name", FEWER)
def test_the_notebook_runs_with_less_of_everything(name):
    """In this process: a kernel of its own would first import everything again."""
    path = EXAMPLES / f"{name}.ipynb"
    source = shortened("\n".join(cell.source for cell in cells(path)), FEWER[name])
    with plt.rc_context():
        exec(compile(source, path.name, "exec"), {"__name__": "__main__", "SHORT": SHORT})
    plt.close("all")


@pytest.mark.prove
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs_in_a_kernel_as_it_stands(path):
    NotebookClient(nbformat.read(path, as_version=4), timeout=600, kernel_name="python3").execute()
