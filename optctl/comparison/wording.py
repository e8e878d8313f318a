"""A comparison in words: the table, a headline per controller, and plain data for JSON."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from optctl.comparison.machine import machine
from optctl.comparison.result import Comparison, Result, units
from optctl.comparison.statistics import Interval


def percent(value: float) -> str:
    """A fraction as a percentage that is short and never "-0.0 %"."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(100 * value)
    if size < 5e-5:
        return "0 %"
    if size >= 1e6:
        return f"{'−' if value < 0 else ''}{size:.1e} %"
    return f"{'−' if value < 0 else ''}{size:,.{_digits(size)}f} %"


def seconds(value: float) -> str:
    """A duration [s], short."""
    if value < 1:
        return f"{1000 * value:.0f} ms" if value >= 0.001 else "< 1 ms"
    return f"{value:.1f} s" if value < 100 else f"{value:,.0f} s"


def number(value: float) -> str:
    """A cost with five digits."""
    if not math.isfinite(value):
        return percent(value)
    return f"{value:.5g}".replace("-", "−")


def interval(gap: Interval) -> str:
    """ "[0.9, 1.6]" in percent, both ends to the same digit; nothing where it is a point, rounding noise or undefined."""
    if math.isnan(gap.low) or gap.high == gap.low or max(abs(gap.low), abs(gap.high)) < 5e-7:
        return ""
    size = max((abs(100 * v) for v in gap[1:] if math.isfinite(v)), default=0.0)
    if size >= 1e6:
        return f"[{100 * gap.low:.1e}, {100 * gap.high:.1e}]"
    digits = _digits(size)
    low, high = (f"{100 * v + 0.0:,.{digits}f}" if math.isfinite(v) else percent(v) for v in gap[1:])
    return f"[{low}, {high}]".replace("-", "−")


def _digits(size: float) -> int:
    return 0 if size >= 100 else 1 if size >= 1 else 2 if size >= 0.01 else 4


def headline(comparison: Comparison, result: Result) -> str:
    """One sentence: gap, interval, failures, violations, time; and whether the reference was beaten."""
    gap = result.gap.mean
    episodes = result.costs.size
    if result.failed == episodes:
        said = f"failed everywhere ({episodes} of {episodes} episodes)"
    else:
        value = result.gap_of_rest if result.failed else gap.estimate
        yardstick = f"the {comparison.yardstick}"
        if math.isnan(value):
            said = f"mean cost {number(result.mean_cost)}, gap undefined"
        elif not comparison.relative(result):
            share = result.normalised.mean
            said = f"{percent(share.estimate)} {interval(share)} of the way from {yardstick} to doing nothing".replace(
                "  ", " "
            )
        elif percent(value) == "0 %":
            said = f"at {yardstick}"
        else:
            size, side = percent(abs(value)), "above" if value > 0 else "below"
            signed = gap if value > 0 else Interval(-gap.estimate, -gap.high, -gap.low)
            bracket = "" if result.failed else interval(signed)
            said = f"{size} {bracket} {side} {yardstick}".replace("  ", " ")
        said += (
            f" where it did not fail; {result.failed} of {episodes} failed"
            if result.failed
            else f", 0 of {episodes} failed"
        )
    if result.violated:
        kind, worst = result.worst_violation
        said += f", {result.violated} of {episodes} break constraints ({kind} by up to {number(worst)})"
    said += f", {seconds(result.wall_time)}" + (f" per run ({result.runs} runs)" if result.runs > 1 else "")
    against, reference = result.against_reference, comparison.reference
    if against is not None and reference is not None and against.better > 0 and result.name != reference.name:
        solved = int(np.isfinite(reference.costs).sum()) - against.unpaired
        count = round(against.better * solved)
        broken = " (not admissible: constraints broken)" if result.violated else ""
        said += f"; cheaper than the {reference.kind} from {count} of {solved} starts{broken}"
    return f"{result.name}: {said}."


def table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Column heads, and one row of strings per controller, best first."""
    several = any(r.runs > 1 for r in comparison.results)
    heads = ["controller", "mean cost", "gap", "95 % interval [%]", "normalised gap"]
    heads += ["IQM gap", "seeds"] if several else []
    heads += ["failed", "violated", "time"]
    rows = []
    for r in comparison.results:
        gap = percent(r.gap.mean.estimate)
        if r.failed and r.failed < r.costs.size:
            gap = f"∞ ({percent(r.gap_of_rest)} on the rest)"
        elif r.violated == r.costs.size:
            gap = "inadmissible"
        elif r.violated:
            gap += " (not admissible)"
        bracket = interval(r.gap.mean) if not r.failed else ""
        if not comparison.relative(r):
            gap, bracket = (
                gap.replace(percent(r.gap_of_rest if r.failed else r.gap.mean.estimate), percent(math.nan)),
                "",
            )
        share = r.normalised.mean
        row = [r.name, number(r.mean_cost), gap, bracket, f"{percent(share.estimate)} {interval(share)}".rstrip()]
        row += [percent(r.gap.iqm.estimate) if r.runs > 1 else "", str(r.runs)] if several else []
        rows.append([*row, f"{r.failed}/{r.costs.size}", f"{r.violated}/{r.costs.size}", seconds(r.wall_time)])
    return heads, rows


def summary(comparison: Comparison) -> str:
    """What was measured against what, in one or two sentences."""
    problem, reference = comparison.problem, comparison.reference
    start = "start" if len(comparison.starts) == 1 else "starts"
    said = f"{len(comparison.starts)} {start}, {problem.steps} steps of {problem.dt:g} s"
    mean = np.nanmean(comparison.best) if np.isfinite(comparison.best).any() else math.nan
    said += f", best known mean cost {number(float(mean))}. "
    if reference is None:
        return said + "No reference: gaps are to the best of the controllers themselves."
    proved = int(np.sum(np.asarray(reference.proved) & np.isfinite(reference.costs)))
    if reference.kind == "bound":
        return said + f'The reference "{reference.name}" is proved optimal: a bound no controller can undercut.'
    found = ", ".join(f"{count} {verdict}" for verdict, count in reference.verdicts.items())
    extra = f" ({found})" if found else f" ({proved} of {len(reference.costs)} are proved optimal)" if proved else ""
    return said + f'The reference "{reference.name}" is the best local optimum found{extra}, not a proved bound.'


def remarks(comparison: Comparison) -> list[str]:
    """When the search for the reference ended, what it was checked against, and every note."""
    reference = comparison.reference
    searched = [] if reference is None else [said for said in (reference.search, *reference.checks) if said]
    return [*searched, *comparison.notes]


def text(comparison: Comparison) -> str:
    """The table as plain text, for terminals, logs and pipes."""
    heads, rows = table(comparison)
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]

    def line(row: list[str]) -> str:
        return "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))

    parts = [f"{comparison.problem.name}: {summary(comparison)}", "", line(heads).rstrip()]
    parts += ["  ".join("─" * w for w in widths), *(line(row).rstrip() for row in rows)]
    if said := remarks(comparison):
        parts += ["", *said]
    return "\n".join(parts)


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """See `Report.to_dict`. Numbers stay numbers; what is not finite is written by `report` as "inf" or "nan"."""
    problem, reference = comparison.problem, comparison.reference
    return {
        "problem": {
            "name": problem.name,
            "description": problem.description,
            "source": problem.source,
            "states": units(problem.state),
            "controls": units(problem.control),
            "params": dict(problem.params),
            "dt": problem.dt,
            "steps": problem.steps,
            "horizon": problem.horizon,
            "integrator": problem.integrator,
            "substeps": problem.substeps,
        },
        "seed": comparison.seed,
        "noise_seeds": list(comparison.noise_seeds),
        "tolerance": comparison.tolerance,
        "starts": comparison.starts.tolist(),
        "params": comparison.params.tolist(),
        "yardstick": comparison.yardstick,
        "best": {"costs": comparison.best.tolist(), "by": comparison.best_by},
        "resting_costs": comparison.resting.tolist(),
        "reference": None
        if reference is None
        else {
            "name": reference.name,
            "kind": reference.kind,
            "costs": reference.costs.tolist(),
            "proved": np.asarray(reference.proved).tolist(),
            "wall_time_s": reference.wall_time,
            "largest_defect": reference.defect,
            "verdicts": reference.verdicts,
            "search": reference.search,
            "checks": list(reference.checks),
        },
        "controllers": [_result_dict(comparison, r) for r in comparison.results],
        "notes": comparison.notes,
        "machine": machine(),
    }


def _result_dict(comparison: Comparison, r: Result) -> dict[str, Any]:
    against = r.against_reference
    return {
        "name": r.name,
        "headline": headline(comparison, r),
        "mean_cost": r.mean_cost,
        "iqm_cost": r.iqm_cost,
        "gap": r.gap.mean._asdict(),
        "gap_iqm": r.gap.iqm._asdict(),
        "gap_says_something": comparison.relative(r),
        "normalised_gap": r.normalised.mean._asdict(),
        "normalised_gap_iqm": r.normalised.iqm._asdict(),
        "gap_of_episodes_that_did_not_fail": r.gap_of_rest,
        "gap_to_reference": r.gap_to_reference._asdict(),
        "difference_to_reference": None
        if against is None
        else against.mean._asdict()
        | {
            "fraction_better": against.better,
            "fraction_worse": against.worse,
            "unpaired": against.unpaired,
        },
        "runs": r.runs,
        "failed": r.failed,
        "violated": r.violated,
        "largest_violation": {kind: float(value.max()) for kind, value in r.violations.items()},
        "violated_fraction": {
            kind: float((value > comparison.tolerance).mean()) for kind, value in r.violations.items()
        },
        "wall_time_s": r.wall_time,
        "prepare_time_s": r.prepare_time.tolist(),
        "run_time_s": r.run_time.tolist(),
        "costs": r.costs.tolist(),
    }
