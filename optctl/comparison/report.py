"""`Report`: a comparison that can be printed, handed on as data, and saved as a folder: `report.html` that opens alone, its pictures as
PNGs, and `results.json` with every number.

The folder appears whole or not at all: everything is rendered first, written into a sibling folder, and moved into place.
"""

from __future__ import annotations

import base64
import datetime
import html
import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from optctl.comparison import plots
from optctl.comparison.curves import learning_curves
from optctl.comparison.machine import machine
from optctl.comparison.result import Comparison, units
from optctl.comparison.wording import as_dict, headline, remarks, summary, table, text
from optctl.envs import CATALOGUE
from optctl.errors import ArgumentError
from optctl.files import file_error
from optctl.problem import Problem
from optctl.problem.equations import equations

FORMAT = "optctl-report"
"""Written into results.json: only a folder that says so is ever replaced."""


class Report(Comparison):
    """What `compare` returns: the results, sorted best first. `print` it, `to_dict()` it, or `save(folder)` it."""

    def __str__(self) -> str:
        return text(self)

    def to_dict(self) -> dict[str, Any]:
        """Every number, as plain Python data; the same for the same seed except for times and machine."""
        return as_dict(self)

    def save(self, folder: str | Path, **options: Any) -> Path:
        """Write the report folder: see `optctl.comparison.report.save`."""
        return save(self, folder, **options)


# --- the folder ---------------------------------------------------------------------------------------------------------


def save(
    comparison: Comparison,
    folder: str | Path,
    *,
    curves: Sequence[Mapping[str, Any]] = (),
    phase: Sequence[str] | None = None,
    command: str | None = None,
) -> Path:
    """Write the report of `comparison` into `folder`, which must not exist, be empty, or hold an earlier report.

    `curves`: learning curves, each a mapping with `name`, `steps` and `seconds` (N,) or (R, N), and `cost` or `return` (N,) or
    (R, N), one row per seed, evaluated on the same starts. `phase`: the two states of the phase portrait. `command`: what to
    type to get this report again.

    Raises `ArgumentError` for a foreign folder and `FileError` where the disk is full or read-only; nothing is left behind.
    """
    target = Path(folder)
    _check_target(target)  # before minutes of drawing
    pictures = draw(comparison, curves, phase)
    data = {"format": FORMAT, "written": _now(), "command": command} | as_dict(comparison)
    data["curves"] = [dict(curve) for curve in curves]
    files = {f"{name}.png": content for name, (content, _) in pictures.items()}
    files["results.json"] = json.dumps(plain(data), indent=1, ensure_ascii=False, allow_nan=False).encode()
    files["report.html"] = page(comparison, pictures, command=command, written=data["written"]).encode()
    write_folder(target, files)
    return target


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def plain(value: Any) -> Any:
    """Data for strict JSON: a number that is not finite becomes "inf", "-inf" or "nan"."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value


def _check_target(target: Path) -> None:
    try:
        if not os.path.lexists(target):
            return
        if target.is_dir() and (not any(target.iterdir()) or _is_report(target)):
            return
    except OSError as error:
        raise file_error(target, error, "Folder") from error
    raise ArgumentError(
        f"Argument `folder` must be new, empty or an earlier report, but is `{target}`, which holds something else: "
        "choose another name."
    )


def _is_report(folder: Path) -> bool:
    try:
        return json.loads((folder / "results.json").read_text(encoding="utf-8"))["format"] == FORMAT
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False


def write_folder(target: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` into `target`, whole or not at all; an earlier report stays as it was until the new one is complete."""
    _check_target(target)
    target = target.resolve() if target.is_symlink() else target  # a link is kept, and the folder behind it filled
    parents = [p for p in (*reversed(target.parent.parents), target.parent) if not p.exists()]
    work: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        fresh = work / "new"  # not `work` itself: mkdtemp makes it private to its owner
        fresh.mkdir()
        for name, content in files.items():
            (fresh / name).write_bytes(content)
        if target.exists():
            os.replace(target, work / "old")
        os.replace(fresh, target)
        shutil.rmtree(work, ignore_errors=True)
    except BaseException as error:  # Ctrl-C too: leave what was there as it was
        if work is not None:
            if (work / "old").exists() and not target.exists():
                os.replace(work / "old", target)
            shutil.rmtree(work, ignore_errors=True)
        for parent in reversed(parents):
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        if isinstance(error, OSError):
            raise file_error(target, error, "Folder") from error
        raise


# --- pictures -----------------------------------------------------------------------------------------------------------

Pictures = dict[str, tuple[bytes, str]]
"""Name → (PNG, caption in HTML)."""


def draw(comparison: Comparison, curves: Sequence[Mapping[str, Any]], phase: Sequence[str] | None) -> Pictures:
    """Every picture with a caption that says what to look at."""
    several = any(r.runs > 1 for r in comparison.results)
    plan = comparison.reference is not None and comparison.reference.trajectories is not None
    under = "the reference" if plan else "the best controller"
    broad = (
        " The broad grey line is the reference: look for where a controller leaves it, there it loses." if plan else ""
    )
    seeds = " Small ticks are single training seeds: far apart, they say that one run proves little." if several else ""
    pictures: Pictures = {
        "gaps": (
            plots.png(plots.gap_summary, comparison),
            "<b>Gap and price.</b> Left, how much more each controller costs than the best known solution from the same starts, "
            f"with its 95 % interval; the black line is the {comparison.yardstick}.{seeds} A cross marks a "
            "controller that failed somewhere: its gap is over the rest. Right, what it took, on a logarithmic scale.",
        ),
        "distribution": (
            plots.png(plots.gap_distribution, comparison),
            "<b>Where the gap comes from.</b> The fraction of episodes within a gap: higher and further left is better. A curve "
            "that rises early and then lies flat is good from most starts and poor from a few; one that never reaches 100 % "
            "failed from the others.",
        ),
        "trajectories": (
            plots.png(plots.trajectories, comparison),
            "<b>Over time</b>, from an easy, a typical and a hard start by their best known cost. Dotted grey lines are bounds, "
            f"controls are held over each step, what costs more than twice the best is faint.{broad}",
        ),
        "phase": (
            plots.png(plots.phase_portrait, comparison, phase),
            f"<b>Phase portrait.</b> The paths of {under} in grey, those of each controller in colour from the same starts "
            "(dots). A path that leaves the grey one early has chosen another way, not just a slower one.",
        ),
        "paired": (
            plots.png(plots.paired_costs, comparison),
            "<b>Start by start.</b> Each dot is one start; on the black line the controller is as good as the best known "
            "solution. Crosses at the top are failures. Controllers that lie on the line everywhere are left out.",
        ),
    }
    if curves:
        pictures["learning"] = (
            plots.png(learning_curves, comparison, curves),
            "<b>Learning.</b> Mean cost during training against wall-clock time and against environment steps: interquartile "
            f"mean over the seeds, and a band from the best to the worst; the dotted line is the mean cost of the {comparison.yardstick}. "
            "A curve that starts late in time spent that time on solving.",
        )
    return pictures


# --- the page -----------------------------------------------------------------------------------------------------------


def page(comparison: Comparison, pictures: Pictures, *, command: str | None = None, written: str = "") -> str:
    """One HTML document with everything inlined."""
    e = html.escape
    problem, styles = comparison.problem, plots.looks(comparison)
    lines = []
    for result in comparison.results:
        said = headline(comparison, result)[len(result.name) + 2 :]
        mark = styles[result.name]["color"]
        mark = "var(--ink)" if mark == plots.INK else mark
        lines.append(f'<li style="--mark:{mark}"><b>{e(result.name)}</b>: {e(said)}</li>')
    heads, rows = table(comparison)
    notes = "".join(f'<p class="note">{e(note)}</p>' for note in remarks(comparison))
    figures = "".join(
        f'<figure><div class="frame"><img alt="{e(name)}" src="data:image/png;base64,{base64.b64encode(content).decode()}">'
        f"</div><figcaption>{caption}</figcaption></figure>"
        for name, (content, caption) in pictures.items()
    )
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{e(problem.name)}: controllers compared</title>
<style>
{style}</style>
</head>
<body>
<header>
<p class="kicker">optctl comparison</p>
<h1>{e(problem.name)}</h1>
<p class="lead">{e(problem.description)}</p>
<p class="soft">{e(summary(comparison))}</p>
</header>
<ul class="headlines">{"".join(lines)}</ul>
{notes}
<h2>Results</h2>
<div class="scroll"><table>
<thead><tr>{"".join(f"<th>{e(h)}</th>" for h in heads)}</tr></thead>
<tbody>{"".join("<tr>" + "".join(f"<td>{e(cell)}</td>" for cell in row) + "</tr>" for row in rows)}</tbody>
</table></div>
<p class="soft">Gap = (mean cost − mean best known cost) / |mean best known cost| over the same starts; normalised gap = the same
excess / (mean cost of doing nothing − mean best known cost): 0 % is the best known, 100 % doing nothing. A gap to a best cost
that is nearly zero says nothing: there it is a dash. The interval is a
bootstrap over starts{" and seeds" if any(r.runs > 1 for r in comparison.results) else ""}. Failed: the cost is NaN or infinite,
and counts as infinite. Violated: a bound or constraint is broken by more than {comparison.tolerance:g}. Time: solving or
training, and rolling out, per run.</p>
{figures}
<h2>The problem</h2>
{_problem_section(problem)}
<h2>How to reproduce</h2>
{_reproduce_section(comparison, command, written)}
</body>
</html>
"""


def _facts(pairs: Sequence[tuple[str, str]]) -> str:
    rows = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in pairs if v)
    return f'<table class="facts"><tbody>{rows}</tbody></table>'


def _problem_section(problem: Problem) -> str:
    def named(units: Mapping[str, str], low: np.ndarray, high: np.ndarray) -> str:
        parts = []
        for (name, unit), a, b in zip(units.items(), low, high, strict=True):
            unit = f" [{unit}]" if unit and unit != "1" else ""
            parts.append(f"{name}{unit}" + (f" from {a:g} to {b:g}" if np.isfinite([a, b]).any() else ""))
        return ", ".join(parts)

    initial, kind = problem.initial_state, type(problem.initial_state).__name__
    a, b = initial.location, initial.spread
    ends = {"Uniform": ("from", a, "to", a + b), "Normal": ("mean", a, "deviation", b)}.get(kind, ("at", a, "", None))
    told = [f"{v:g}" for v in ends[1]], [] if ends[3] is None else [f"{v:g}" for v in ends[3]]
    start = f"{kind.lower()} {ends[0]} ({', '.join(told[0])})" + (
        f" {ends[2]} ({', '.join(told[1])})" if told[1] else ""
    )
    scheme = "given as a transition" if problem.discrete else f"{problem.integrator}, {problem.substeps} × per interval"
    facts = [
        ("states", named(units(problem.state), problem.state_low, problem.state_high)),
        ("controls", named(units(problem.control), problem.control_low, problem.control_high)),
        ("parameters", ", ".join(f"{k} = {v:g}" for k, v in problem.params.items())),
        ("starts", start),
        ("horizon", f"{problem.steps} steps of {problem.dt:g} s = {problem.duration:g} s, {problem.horizon}"),
        (
            "final time",
            ""
            if problem.final_time is None
            else f"free, from {problem.final_time[0]:g} to {problem.final_time[1]:g} s",
        ),
        ("integrator", scheme),
        ("source", problem.source),
    ]
    return f"<pre>{html.escape(chr(10).join(equations(problem)))}</pre>{_facts(facts)}"


def _reproduce_section(comparison: Comparison, command: str | None, written: str) -> str:
    name = comparison.problem.name
    stated = f"optctl.make({name!r})" if name in CATALOGUE else f"...  # {name}, as stated above"
    names = ", ".join(repr(r.name) for r in comparison.results)
    seeds = f", seeds={comparison.noise_seeds}" if comparison.noise_seeds else ""
    script = (
        "import json, optctl\n"
        f"problem = {stated}\n"
        'saved = json.load(open("results.json"))\n'
        f"comparison = optctl.compare(problem, [{names}],\n"
        f'    starts=saved["starts"], params=saved["params"], seed={comparison.seed}{seeds})\n'
        "print(comparison)\n"
    )
    first = ""
    if command:
        first = f"<pre>{html.escape(command)}</pre><p>or in Python, trained controllers as objects in place of their names:</p>"
    facts = [("seed", str(comparison.seed)), ("written", written), *machine().items()]
    return f"{first}<pre>{html.escape(script)}</pre>{_facts(facts)}"
