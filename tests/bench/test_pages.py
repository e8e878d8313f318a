"""`optctl bench page` and `optctl bench all`: the page of results, of which what was not measured again stays."""

import json
from inspect import signature
from pathlib import Path
from pkgutil import resolve_name

import pytest

from optctl.bench import BENCHES
from optctl.bench.record import finish
from optctl.cli import main

PAGE = """# Results

Made by hand.

<!-- bench envs -->

### Steps, old

`optctl bench envs`, an old machine.

<!-- bench lqr -->

### Gap, old

`optctl bench lqr`, an old machine.

<!-- by hand -->

### The test suite

Minutes.
"""


def record(folder, name, title, **machine):
    about = {"processor": "P", "cores": 2, "torch": "1"} | machine
    written = {
        "name": name,
        "command": f"optctl bench {name}",
        "machine": about,
        "table": f"### {title}\n",
        "figures": {},
    }
    (folder / f"{name}.json").write_text(json.dumps(written))


@pytest.fixture
def page(tmp_path):
    """Write the page of the JSON files in tmp_path over an old one."""

    def write(old):
        docs = tmp_path / "results.md"
        if old:
            docs.write_text(old)
        assert main(["bench", "page", "--out", str(tmp_path), "--docs", str(docs)]) == 0
        return docs.read_text()

    return write


def test_a_section_that_was_not_measured_again_stays(tmp_path, page):
    record(tmp_path, "lqr", "Gap, new")
    record(tmp_path, "sac", "Return, new")
    text = page(PAGE)
    assert "### Steps, old\n\n`optctl bench envs`, an old machine." in text  # no JSON: as it stood
    assert "Gap, old" not in text and "### Gap, new\n\n`optctl bench lqr`, P, 2 cores, torch 1." in text
    titles = ["Steps, old", "Gap, new", "Return, new", "The test suite"]
    assert titles == sorted(titles, key=text.index)  # in the order of BENCHES, what is written by hand last
    assert text.endswith("### The test suite\n\nMinutes.\n")
    assert page(text) == text  # again: nothing changes


def test_a_page_can_begin_from_nothing(tmp_path, page):
    record(tmp_path, "envs", "Steps")
    text = page("")
    assert (
        text.startswith("# Results\n")
        and "<!-- bench envs -->\n\n### Steps\n" in text
        and "On CUDA: not measured" in text
    )


def test_a_run_on_a_gpu_has_a_section_of_its_own_beside_that_of_the_cpu(tmp_path, page):
    for name, about in (("envs", {}), ("envs-cuda", {"gpu": "G"}), ("lqr", {})):
        record(tmp_path, name, "Title", **about)
    text = page("")
    assert "<!-- bench envs-cuda -->\n\n### Title, on G\n\n`optctl bench envs-cuda`, P, 2 cores, G, torch 1." in text
    marks = ["<!-- bench envs -->", "<!-- bench envs-cuda -->", "<!-- bench lqr -->"]
    assert marks == sorted(marks, key=text.index) and "On CUDA: not measured" not in text
    (tmp_path / "envs-cuda.json").unlink()
    record(tmp_path, "envs", "Title, new")
    assert page(text) == text.replace("### Title\n", "### Title, new\n", 1)  # the section of the GPU stays


def test_a_record_from_a_gpu_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "G")
    finish("envs", "optctl bench envs", "### T\n", {}, tmp_path, "cuda")
    finish("envs", "optctl bench envs", "### T\n", {}, tmp_path)
    ours, theirs = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("envs-cuda", "envs"))
    assert (ours["name"], ours["command"]) == ("envs-cuda", "optctl bench envs --device cuda")
    assert ours["machine"]["gpu"] == "G" and theirs["name"] == "envs" and "gpu" not in theirs["machine"]
    assert "cores, G, torch" in capsys.readouterr().out


def test_the_page_of_the_project_stays_when_nothing_was_measured(tmp_path, page):
    """Every section of docs/results.md is marked, and in the order of the benchmarks."""
    text = (Path(__file__).parents[2] / "docs/results.md").read_text()
    record(tmp_path, "hjb", "HJB, new")
    made = page(text)
    assert made.count("\n### ") == text.count("\n### ")
    kept = [part for part in text.split("<!-- ") if not part.startswith("bench hjb")]
    assert all(part.strip() in made for part in kept)


def test_a_page_without_figures_is_refused(tmp_path, capsys):
    assert main(["bench", "page", "--out", str(tmp_path), "--docs", str(tmp_path / "results.md")]) == 2
    assert "`out` must hold the JSON files of earlier runs" in capsys.readouterr().err


@pytest.mark.parametrize("name", BENCHES)
def test_every_benchmark_is_there_and_can_leave_its_figures(name):
    bench = resolve_name(BENCHES[name])
    assert bench.__doc__ and "out" in signature(bench).parameters


def test_all_runs_every_benchmark_and_writes_the_page(tmp_path, monkeypatch):
    asked = []

    def bench(name):
        def run(out: Path | None = None, **options: object) -> int:
            asked.append((name, options))
            record(out, name, name.upper())
            return 0

        return run

    monkeypatch.setattr("optctl.bench.pages.resolve_name", bench)
    docs = tmp_path / "results.md"
    assert main(["bench", "all", "--out", str(tmp_path), "--docs", str(docs)]) == 0
    assert [name for name, _ in asked] == list(BENCHES.values())
    assert docs.exists()
