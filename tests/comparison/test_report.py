"""The report folder: complete, alone, honest numbers, and never half-written."""

from __future__ import annotations

import base64
import errno
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

import optctl
from optctl.comparison import report
from optctl.comparison.compare import compare
from optctl.comparison.result import Reference
from optctl.errors import ArgumentError, FileError
from optctl.problem.controller import FeedbackController
from optctl.problem.equations import equations, pretty

CURVES = [
    {
        "name": "agent",
        "steps": [0, 100, 200],
        "seconds": [[0.0, 1.0, 2.0], [0.0, 1.2, 2.2]],
        "cost": [[9, 5, 3], [8, 6, 4]],
    },
    {
        "name": "ragged",
        "steps": [[0, 100], [0, 100, 300]],
        "seconds": [[0, 1], [0, 1, 3]],
        "return": [[-9, -5], [-8, -6, np.nan]],
    },
]


@pytest.fixture(scope="module")
def comparison():
    problem = optctl.make("double-integrator")
    gain = np.array([[1.0, 3**0.5]])
    good = FeedbackController(lambda x, t: -x @ gain.T, "good <&> cheap")
    seeds = [FeedbackController(lambda x, t, s=s: -s * x @ gain.T, "agent") for s in (0.7, 0.9)]
    broken = FeedbackController(lambda x, t: np.full((len(x), 1), np.nan), "broken")
    return compare(problem, [good, seeds, "zero", broken], num_starts=12, reference=None)


@pytest.fixture(scope="module")
def folder(comparison, tmp_path_factory):
    return comparison.save(
        tmp_path_factory.mktemp("reports") / "deep" / "out", curves=CURVES, command="optctl compare x --seed 0"
    )


# --- what is in it ------------------------------------------------------------------------------------------------------


def test_the_folder_holds_the_page_the_pictures_and_the_numbers(folder):
    assert sorted(p.name for p in folder.iterdir()) == [
        "distribution.png", "gaps.png", "learning.png", "paired.png", "phase.png", "report.html", "results.json",
        "trajectories.png",
    ]  # fmt: skip
    assert [p.name for p in folder.parent.iterdir()] == ["out"]  # no temporary sibling is left


def test_the_page_opens_alone_and_holds_every_picture(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    sources = re.findall(r'src="([^"]*)"', page)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    inlined = {base64.b64decode(source.split(",", 1)[1]) for source in sources}
    assert inlined == {picture.read_bytes() for picture in folder.glob("*.png")}
    rest = re.sub(r'src="data:[^"]*"', "", page)
    for forbidden in ("http", "href", "src=", "@import", "url(", "<script", "<link"):
        assert forbidden not in rest


def test_the_page_says_every_headline_the_problem_and_how_to_reproduce(folder, comparison):
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert re.search(
        r"<b>good &lt;&amp;&gt; cheap</b>: 0\.\d+ % \[.*\] above the best known solution, 0 of 12 failed", page
    )
    assert "failed everywhere (12 of 12 episodes)" in page
    assert "good <&>" not in page
    for text in ("cost rate = position² + velocity² + force²", "position [m], velocity [m/s]", "100 steps of 0.1 s = 10 s, infinite",
                 "uniform from (-1, -1) to (1, 1)", "optctl compare x --seed 0", "optctl.make(&#x27;double-integrator&#x27;)",
                 comparison.problem.source, "casadi", "processor"):  # fmt: skip
        assert text in page, text
    assert "prefers-color-scheme: dark" in page and "@media print" in page


def test_results_hold_every_number_as_strict_json(folder, comparison):
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    saved = json.loads((folder / "results.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert saved["format"] == "optctl-report" and saved["seed"] == 0
    assert np.array_equal(saved["starts"], comparison.starts)
    by_name = {entry["name"]: entry for entry in saved["controllers"]}
    assert np.array_equal(by_name["agent"]["costs"], comparison["agent"].costs)
    assert by_name["broken"]["costs"] == [["inf"] * 12] and by_name["broken"]["failed"] == 12
    assert saved["machine"]["numpy"] == np.__version__
    assert saved["curves"][1]["return"][1] == [-8, -6, "nan"]


def test_costs_can_be_reproduced_from_the_saved_starts(folder, comparison):
    saved = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    again = compare(comparison.problem, ["zero"], starts=saved["starts"], params=saved["params"], reference=None)
    assert np.array_equal(again["zero"].costs, comparison["zero"].costs)


def test_the_page_says_how_the_reference_was_searched_and_checked(comparison):
    reference = Reference(
        name="optimal", costs=np.ones(12), search="It ended <there>.", checks=("A second opinion: none better.",)
    )
    searched = compare(comparison.problem, ["zero"], num_starts=12, reference=reference)
    page = report.page(searched, {})
    assert "It ended &lt;there&gt;." in page and "A second opinion: none better." in page and "normalised gap" in page
    assert searched.to_dict()["reference"]["checks"] == ["A second opinion: none better."]


# --- equations ----------------------------------------------------------------------------------------------------------


def test_equations_are_readable():
    assert equations(optctl.make("pendulum")) == [
        "theta' = omega",
        "omega' = gravity/length·sin(theta) + torque/(mass·length²)",
        "cost rate = 1 - cos(theta) + 0.1·omega² + 0.001·torque²",
    ]
    assert equations(optctl.make("dean"))[0] == "x1⁺ = 1.01·x1 + 0.01·x2 + u1"


def test_equations_of_constraints_noise_and_the_end():
    problem = optctl.make("double-integrator").replace(
        horizon="finite", terminal_cost=lambda x, p: x[0] ** 2, terminal_constraints=lambda x, p: x[1],
        path_constraints=lambda x, u, p: x[0] - 1, diffusion=lambda x, u, p: [0, 0.1],
    )  # fmt: skip
    said = equations(problem)
    assert said[3:] == [
        "cost at the end = position²", "0 ≥ position - 1", "0 (at the end) = velocity",
        "noise: 1 independent, added to the state after every step",
    ]  # fmt: skip


def test_what_cannot_be_made_pretty_is_printed_as_it_is():
    import casadi as ca

    odd = ca.SX.sym("two words")
    assert pretty(odd + 1) == str(odd + 1)
    x = ca.SX.sym("x")
    assert pretty(ca.if_else(x > 0, x, -x)) != ""
    assert len(pretty(sum((ca.sin(k * x) for k in range(1, 200)), ca.SX(0)))) <= 600


# --- writing ------------------------------------------------------------------------------------------------------------

FILES = {"results.json": json.dumps({"format": report.FORMAT}).encode(), "report.html": b"new", "a.png": b"a"}


def test_an_earlier_report_or_an_empty_folder_is_replaced_whole(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    report.write_folder(target, FILES | {"old.png": b"old"})
    report.write_folder(target, FILES)
    assert sorted(p.name for p in target.iterdir()) == ["a.png", "report.html", "results.json"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("content", [{"thesis.tex": b"years"}, {"results.json": b"{}"}, {"results.json": b"not json"}])
def test_a_foreign_folder_is_refused_and_left_alone(tmp_path, content, comparison):
    target = tmp_path / "out"
    target.mkdir()
    for name, data in content.items():
        (target / name).write_bytes(data)
    with pytest.raises(ArgumentError, match="must be new, empty or an earlier report"):
        comparison.save(target)
    assert {p.name: p.read_bytes() for p in target.iterdir()} == content


def test_a_link_stays_and_its_folder_is_filled(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    report.write_folder(tmp_path / "out", FILES)
    assert (tmp_path / "out").is_symlink() and (tmp_path / "disk" / "a.png").read_bytes() == b"a"


def test_a_file_or_a_link_to_something_else_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "link"):
        with pytest.raises(ArgumentError, match="must be new, empty or an earlier report"):
            report.write_folder(tmp_path / name, FILES)


def test_a_file_in_the_path_is_one_clear_sentence(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileError, match=r"Folder .*file/out cannot be written: ") as error:
        report.write_folder(tmp_path / "file" / "out", FILES)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("earlier", [True, False])
def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch, earlier):
    target = tmp_path / "deep" / "out"
    if earlier:
        report.write_folder(target, FILES | {"report.html": b"old"})
    before = sorted(tmp_path.rglob("*"))
    write, written = Path.write_bytes, []

    def full(path: Path, data: bytes) -> int:
        if len(written) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        written.append(path)
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FileError, match=r"Folder .*out cannot be written: the disk is full\.$"):
        report.write_folder(target, FILES)
    assert len(written) == 2
    assert sorted(tmp_path.rglob("*")) == before
    assert not earlier or (target / "report.html").read_bytes() == b"old"


def test_a_read_only_folder_is_one_clear_sentence(tmp_path, monkeypatch):
    if os.geteuid() == 0:  # root may write anywhere: stand in for the file system

        def refuse(*args: object, **options: object) -> str:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        monkeypatch.setattr(report.tempfile, "mkdtemp", refuse)
    else:
        tmp_path.chmod(0o555)
    with pytest.raises(FileError, match=r"cannot be written: .*read-only"):
        report.write_folder(tmp_path / "deep" / "out" if os.geteuid() == 0 else tmp_path / "out", FILES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_interrupted_while_moving_the_earlier_report_comes_back(tmp_path, monkeypatch, error):
    target = tmp_path / "out"
    report.write_folder(target, FILES | {"report.html": b"old"})
    replace = os.replace

    def fail_on_the_new_one(source: object, destination: object) -> None:
        if Path(str(source)).name == "new":
            raise error
        replace(source, destination)  # type: ignore[arg-type]

    monkeypatch.setattr(report.os, "replace", fail_on_the_new_one)
    with pytest.raises(FileError if isinstance(error, OSError) else KeyboardInterrupt):
        report.write_folder(target, FILES)
    assert (target / "report.html").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_wrong_phase_or_curve_writes_nothing(tmp_path, comparison):
    with pytest.raises(ArgumentError, match="`phase` must name states among position, velocity, but names `speed`"):
        comparison.save(tmp_path / "out", phase=["position", "speed"])
    with pytest.raises(ArgumentError, match="`agent` lacks `seconds`"):
        comparison.save(tmp_path / "out", curves=[{"name": "agent", "steps": [1], "cost": [1]}])
    assert list(tmp_path.iterdir()) == []


def test_an_expression_that_shares_itself_over_and_over_is_cut_short_at_once():
    import casadi as ca

    y = ca.SX.sym("x")
    for _ in range(200):
        y = ca.sin(y) * y  # written out, it would have 2^200 terms
    text = pretty(y)
    assert len(text) == 600 and text.endswith("…")
