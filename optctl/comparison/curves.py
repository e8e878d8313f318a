"""Learning curves: what a run has reached, against wall-clock and against steps, with the optimum as a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from optctl.comparison.plots import DASHES, INK, PALETTE, figure_of, legend, looks
from optctl.comparison.result import Comparison
from optctl.comparison.statistics import failures_as_worst, iqm
from optctl.errors import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning_curves(comparison: Comparison | None, curves: Sequence[Mapping[str, Any]]) -> Figure:
    """Mean cost against wall-clock and against steps; line: interquartile mean of the seeds, band: lowest to highest seed.

    Each curve: `name`, `steps` (N,) or (R, N), `seconds` (N,) or (R, N), and `cost` or `return` (N,) or (R, N), one row per seed;
    rows may differ in length. Drawn where every seed has a value.
    """
    figure, axes = figure_of(1, 2, 9.6, 3.8, sharey=True)
    known = {} if comparison is None else looks(comparison)
    free = [(c, d) for c, d in zip(PALETTE, DASHES, strict=True) if c not in {s["color"] for s in known.values()}]
    handles: dict[str, Any] = {}
    lows, highs = [], []
    for number, curve in enumerate(map(check_curve, curves)):
        color, dash = free[number % len(free)] if free else (PALETTE[number % len(PALETTE)], "solid")
        style = known.get(curve["name"], {"color": color, "linestyle": dash})
        for axis, key in zip(axes[0], ("seconds", "steps"), strict=True):
            first, last = max(x[0] for x in curve[key]), min(x[-1] for x in curve[key])
            grid = np.unique(np.concatenate(curve[key]))
            grid = grid[(grid >= first) & (grid <= last)]  # where every seed has a value
            rows = np.array([np.interp(grid, x, y) for x, y in zip(curve[key], curve["cost"], strict=True)])
            (handles[curve["name"]],) = axis.plot(grid, iqm(rows, axis=0), **style)
            if len(rows) > 1:
                axis.fill_between(
                    grid, rows.min(axis=0), rows.max(axis=0), color=style["color"], alpha=0.15, linewidth=0
                )
        finite = np.concatenate(curve["cost"])
        finite = finite[np.isfinite(finite)]
        lows.append(finite.min(initial=np.inf))
        highs.append(finite.max(initial=-np.inf))
    optimum = np.nan
    if comparison is not None and np.isfinite(comparison.best).any():
        optimum = float(np.nanmean(comparison.best))
        for axis in axes[0]:
            handles[comparison.yardstick] = axis.axhline(optimum, color=INK, linewidth=1.2, linestyle=(0, (1, 1)))
        lows.append(optimum)
        highs.append(optimum)
    low, high = min(lows, default=0.0), max(highs, default=1.0)
    if np.isfinite([low, high, optimum]).all() and high - optimum > 0.05 * abs(optimum) > 0:
        _stretch_near(axes[0], optimum, low, high)
    elif np.isfinite([low, high]).all() and high > low:
        axes[0, 0].set_ylim(low - 0.06 * (high - low), high + 0.04 * (high - low))
    axes[0, 0].set_ylabel("mean cost (minus the return)")
    axes[0, 0].set_xlabel("wall-clock time [s]")
    axes[0, 1].set_xlabel("environment steps")
    axes[0, 1].xaxis.set_major_formatter(_thousands())
    legend(figure, handles)
    return figure


def _stretch_near(axes: Any, optimum: float, low: float, high: float) -> None:
    """A cost axis that resolves what is near the optimum: logarithmic in the gap beyond one percent, with the gaps as ticks."""
    from matplotlib.ticker import FixedLocator, FuncFormatter

    unit, base = 0.01 * abs(optimum), min(low, optimum) - 0.005 * abs(optimum)
    forward = lambda y: np.log1p(np.maximum(y - base, 0.0) / unit)
    backward = lambda z: base + unit * np.expm1(z)
    gaps = np.array([0.0, 0.01, 0.02, 0.05, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0])
    ticks = [v for v in optimum + gaps * abs(optimum) if v <= high]
    for axis in axes:
        axis.set_yscale("function", functions=(forward, backward))
        axis.set_ylim(base, backward(1.03 * forward(high)))
        axis.yaxis.set_major_locator(FixedLocator(ticks))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.4g}  ({(v - optimum) / abs(optimum):.0%})"))


def _thousands() -> Any:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda v, _: f"{v / 1e6:g} M" if v >= 1e6 else f"{v / 1e3:g} k" if v >= 1e3 else f"{v:g}")


def check_curve(curve: Mapping[str, Any]) -> dict[str, Any]:
    """A curve with `steps`, `seconds` and `cost` as lists of one array per seed, failures as +∞."""
    require(isinstance(curve, Mapping) and "name" in curve, "curves", "hold mappings with a name", f"holds {curve!r}")
    name = str(curve["name"])
    key = "cost" if "cost" in curve else "return"
    for field in ("steps", "seconds", key):
        require(
            field in curve, "curves", "give `steps`, `seconds`, and `cost` or `return`", f"`{name}` lacks `{field}`"
        )
    values = _rows(curve[key])
    checked: dict[str, Any] = {"name": name, "cost": [failures_as_worst(v if key == "cost" else -v) for v in values]}
    for field in ("steps", "seconds"):
        rows = _rows(curve[field])
        rows = rows * len(values) if len(rows) == 1 else rows
        fits = [len(x) for x in rows] == [len(v) for v in values] and all(len(x) > 0 for x in rows)
        require(
            fits and all((np.diff(x) >= 0).all() for x in rows),
            "curves",
            f"give rising `{field}` of `{name}`, as many as its costs",
            f"has {[len(x) for x in rows]} values",
        )
        checked[field] = rows
    return checked


def _rows(values: Any) -> list[np.ndarray]:
    """(N,) or (R, N), or R sequences of different lengths → R vectors."""
    nested = any(np.ndim(v) > 0 for v in values)
    return [np.asarray(v, dtype=np.float64) for v in (values if nested else [values])]
