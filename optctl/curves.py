"""Learning curves: what a run has reached, against wall-clock and against steps, with the optimum as a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from optctl.comparison import Comparison
from optctl.errors import require
from optctl.plots import DASHES, INK, PALETTE, figure_of, legend, looks
from optctl.statistics import iqm

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning_curves(comparison: Comparison | None, curves: Sequence[Mapping[str, Any]]) -> Figure:
    """Mean cost against wall-clock and against steps; line: interquartile mean of the seeds, band: lowest to highest seed.

    Each curve: `name`, `steps` (N,) or (R, N), `seconds` (N,) or (R, N), and `cost` or `return` (N,) or (R, N), one row per seed.
    """
    figure, axes = figure_of(1, 2, 9.6, 3.8, sharey=True)
    known = {} if comparison is None else looks(comparison)
    free = [(c, d) for c, d in zip(PALETTE, DASHES, strict=True) if c not in {s["color"] for s in known.values()}]
    handles: dict[str, Any] = {}
    lows, highs = [], []
    for number, curve in enumerate(map(check_curve, curves)):
        color, dash = free[number % len(free)] if free else (PALETTE[number % len(PALETTE)], "solid")
        style = known.get(curve["name"], {"color": color, "linestyle": dash})
        cost = curve["cost"]
        for axis, x in zip(axes[0], (curve["seconds"], curve["steps"]), strict=True):
            grid = np.unique(x)
            grid = grid[(grid >= x[:, 0].max()) & (grid <= x[:, -1].min())]
            rows = np.array([np.interp(grid, xs, np.nan_to_num(ys, nan=np.inf)) for xs, ys in zip(x, cost, strict=True)])
            (handles[curve["name"]],) = axis.plot(grid, iqm(rows, axis=0), **style)
            if len(rows) > 1:
                axis.fill_between(grid, rows.min(axis=0), rows.max(axis=0), color=style["color"], alpha=0.15, linewidth=0)
        finite = cost[np.isfinite(cost)]
        lows.append(finite.min(initial=np.inf)), highs.append(finite.max(initial=-np.inf))
    optimum = np.nan
    if comparison is not None and np.isfinite(comparison.best).any():
        optimum = float(np.nanmean(comparison.best))
        for axis in axes[0]:
            handles[comparison.yardstick] = axis.axhline(optimum, color=INK, linewidth=1.2, linestyle=(0, (1, 1)))
        lows.append(optimum)
    low, high = min(lows, default=0.0), max(highs, default=1.0)
    if low > 0 and high > 10 * low:
        axes[0, 0].set_yscale("log")
    elif np.isfinite([low, high]).all() and high > low:
        axes[0, 0].set_ylim(low - 0.06 * (high - low), high + 0.04 * (high - low))
    axes[0, 0].set_ylabel("mean cost (minus the return)")
    axes[0, 0].set_xlabel("wall-clock time [s]")
    axes[0, 1].set_xlabel("environment steps")
    axes[0, 1].xaxis.set_major_formatter(_thousands())
    legend(figure, handles)
    return figure


def _thousands() -> Any:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda v, _: f"{v / 1e6:g} M" if v >= 1e6 else f"{v / 1e3:g} k" if v >= 1e3 else f"{v:g}")


def check_curve(curve: Mapping[str, Any]) -> dict[str, Any]:
    """A curve with `steps`, `seconds` and `cost` as (R, N) arrays."""
    require(isinstance(curve, Mapping) and "name" in curve, "curves", "hold mappings with a name", f"holds {curve!r}")
    name = str(curve["name"])
    key = "cost" if "cost" in curve else "return"
    for field in ("steps", "seconds", key):
        require(field in curve, "curves", "give `steps`, `seconds`, and `cost` or `return`", f"`{name}` lacks `{field}`")
    values = np.atleast_2d(np.asarray(curve[key], dtype=np.float64))
    checked: dict[str, Any] = {"name": name, "cost": values if key == "cost" else -values}
    for field in ("steps", "seconds"):
        x = np.atleast_2d(np.asarray(curve[field], dtype=np.float64))
        require(
            x.shape[1] == values.shape[1] and len(x) in (1, len(values)) and bool((np.diff(x) >= 0).all()),
            "curves", f"give `{field}` of `{name}` rising, shape ({values.shape[1]},) or {values.shape}",
            f"has shape {np.shape(curve[field])}",
        )  # fmt: skip
        checked[field] = np.broadcast_to(x, values.shape)
    return checked
