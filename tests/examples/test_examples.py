"""Every example runs as it stands; the committed notebook holds the outputs of a run."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_a_problem_of_one_s_own_takes_at_most_forty_lines_and_gives_a_report(tmp_path):
    source = (EXAMPLES / "01_state_your_own_problem.py").read_text()
    statement = source[source.index("harvest = optctl.Problem(") : source.index("if __name__")]
    assert len(statement.strip().splitlines()) <= 20
    out = tmp_path / "report"
    command = [sys.executable, str(EXAMPLES / "01_state_your_own_problem.py"), "--seconds", "3", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "certified extremal" in done.stdout and "sac-warm" in done.stdout
    assert (out / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda p: p.name)
def test_the_notebook_runs_and_holds_its_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
