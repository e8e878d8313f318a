"""The pictures of a report, each a matplotlib `Figure` built without pyplot, so that no global state is left behind.

Colours are Okabe and Ito's colour-blind-safe palette (2008), in the order of the ranking; every controller also has its own dash
pattern, so that the pictures survive a black-and-white printer. The reference is always black. Legends stand outside the axes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from optctl.comparison.result import Comparison, Result, units
from optctl.comparison.statistics import performance_profile
from optctl.comparison.wording import percent
from optctl.comparison.wording import seconds as duration
from optctl.errors import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F6A93", "#8C8C8C")
DASHES = (
    "solid",
    (0, (5, 1.5)),
    (0, (1.5, 1.2)),
    (0, (6, 1.5, 1.5, 1.5)),
    (0, (3, 1)),
    (0, (8, 2)),
    (0, (1, 2)),
    (0, (4, 3)),
)
INK, FAINT = "#1c1f24", "#b9bec6"
STYLE: dict[str, Any] = {
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": "#6b717a",
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#e8eaed",
    "grid.linewidth": 0.8,
    "xtick.color": "#6b717a",
    "ytick.color": "#6b717a",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
}
MAX_ROWS, MAX_PANELS, SHOWN_PATHS = 6, 6, 16
POOR = 1.0
"""A controller whose gap is above 100 % is drawn faint, and the axes are not made for it."""


def png(draw: Callable[..., Figure], *arguments: Any, **options: Any) -> bytes:
    """Draw under the style of optctl, headless, and return the PNG; what was set in matplotlib before stays set."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        figure = draw(*arguments, **options)
        buffer = io.BytesIO()
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": "optctl"})
    return buffer.getvalue()


def figure_of(rows: int, columns: int, width: float, height: float, **options: Any) -> tuple[Figure, np.ndarray]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def looks(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Line style per controller name, the same in every picture: black for the reference, then the palette by rank."""
    styles: dict[str, dict[str, Any]] = {}
    reference = comparison.reference.name if comparison.reference is not None else None
    others = 0
    for result in comparison.results:
        if result.name == reference:
            styles[result.name] = {"color": INK, "linestyle": "solid"}
        else:
            styles[result.name] = {"color": PALETTE[others % len(PALETTE)], "linestyle": DASHES[others % len(DASHES)]}
            others += 1
    return styles


def _label(name: str, unit: str) -> str:
    return f"{name} [{unit}]" if unit and unit != "1" else name


def legend(figure: Figure, entries: Mapping[str, Any]) -> None:
    if entries:
        figure.legend(
            list(entries.values()),
            list(entries),
            loc="outside upper left",
            ncols=min(len(entries), 6),
            handlelength=2.6,
        )


def _paths(comparison: Comparison) -> list[tuple[str, Any, dict[str, Any]]]:
    """(name, start → Trajectory or None, style), the reference last so that it lies on top where it hides nothing."""
    styles = looks(comparison)
    members: list[tuple[str, Any, dict[str, Any]]] = [
        (r.name, r.trajectory, styles[r.name]) for r in comparison.results if r.trajectories is not None
    ]
    reference = comparison.reference
    if reference is not None and reference.trajectories is not None and reference.name not in styles:
        members.insert(0, (reference.name, reference.trajectories.__getitem__, {"color": INK, "linestyle": "solid"}))
    return members


# --- trajectories over time ---------------------------------------------------------------------------------------------


def trajectories(comparison: Comparison) -> Figure:
    """States and controls over time from an easy, a middling and a hard start."""
    problem, starts = comparison.problem, comparison.shown_starts(3)
    rows = [("x", i, _label(*pair)) for i, pair in enumerate(units(problem.state).items())][:MAX_ROWS]
    rows += [("u", i, _label(*pair)) for i, pair in enumerate(units(problem.control).items())][: max(MAX_ROWS // 2, 1)]
    figure, axes = figure_of(
        len(rows), len(starts), 3.5 * len(starts) + 0.6, 1.55 * len(rows) + 1.0, sharex=True, sharey="row"
    )
    handles: dict[str, Any] = {}
    titles = ["an easy start", "a typical start", "a hard start"] if len(starts) == 3 else ["one start"] * len(starts)
    drawn = [m for m in _paths(comparison) if not _hopeless(comparison, m[0])]
    poor = _poor(comparison, drawn)
    for column, start in enumerate(starts):
        axes[0, column].set_title(f"{titles[column]}: best known cost {comparison.best[start]:.4g}")
        axes[-1, column].set_xlabel("time [s]")
        for name, at, style in drawn:
            path, weight = at(start), _weight(style, name in poor)
            for row, (kind, i, _) in enumerate(rows):
                held = "default" if kind == "x" else "steps-post"
                values = path.states[:, i] if kind == "x" else np.append(path.controls[:, i], path.controls[-1, i])
                (line,) = axes[row, column].plot(path.times, values, drawstyle=held, **style | weight)
                handles.setdefault(name, line)
        for row, (kind, i, _) in enumerate(rows):
            low, high = problem.state_low, problem.state_high
            if kind == "u":
                low, high = problem.control_low, problem.control_high
            for bound in (low[i], high[i]):
                if np.isfinite(bound):
                    axes[row, column].axhline(bound, color=FAINT, linewidth=1.0, linestyle=(0, (1, 1.5)), zorder=1)
    for row, (kind, i, label) in enumerate(rows):
        axes[row, 0].set_ylabel(label)
        good = [m[1](s) for m in drawn for s in starts if m[0] not in poor]
        _limit(axes[row, 0].set_ylim, [(path.states if kind == "x" else path.controls)[:, i] for path in good])
    figure.align_ylabels(axes[:, 0])
    legend(figure, handles)
    return figure


def _weight(style: Mapping[str, Any], poor: bool) -> dict[str, Any]:
    """The reference broad and behind, as a path to follow; what is far from it thin and faint; the rest plain."""
    if style["color"] == INK:
        return {"linewidth": 4.0, "alpha": 0.28, "zorder": 2.5}
    return {"linewidth": 1.0, "alpha": 0.45, "zorder": 2} if poor else {"linewidth": 1.6, "zorder": 3}


def _hopeless(comparison: Comparison, name: str) -> bool:
    """Failed everywhere: there is nothing to draw."""
    return any(r.name == name and r.failed == r.costs.size for r in comparison.results)


def _poor(comparison: Comparison, members: Sequence[tuple[str, Any, Any]]) -> set[str]:
    """Those whose gap is above 100 %, unless all are."""
    poor = {r.name for r in comparison.results if not r.gap_of_rest < POOR}
    return poor if any(m[0] not in poor for m in members) else set()


def _limit(set_limits: Callable[[float, float], Any], series: Sequence[np.ndarray]) -> None:
    """What the good controllers need, and a margin: one that runs away must not flatten the others."""
    finite = [s for s in series if np.isfinite(s).all()]
    if finite:
        low, high = min(float(s.min()) for s in finite), max(float(s.max()) for s in finite)
        margin = 0.12 * (high - low) or 1.0
        set_limits(low - margin, high + margin)


# --- phase portrait -----------------------------------------------------------------------------------------------------


def phase_portrait(comparison: Comparison, states: Sequence[str] | None = None) -> Figure:
    """Paths in the plane of two states (one state: against the control): the best paths in grey under each controller's."""
    problem = comparison.problem
    names = list(problem.state)
    chosen = list(states) if states is not None else names[:2]
    for name in chosen:
        require(name in names, "phase", f"name states among {', '.join(names)}", f"names `{name}`")
    require(len(chosen) == min(2, len(names)), "phase", f"name {min(2, len(names))} states", f"names {len(chosen)}")
    index = [names.index(name) for name in chosen]

    def coordinates(path: Any) -> tuple[np.ndarray, np.ndarray]:
        if len(index) == 2:
            return path.states[:, index[0]], path.states[:, index[1]]
        return path.states[:-1, 0], path.controls[:, 0]

    members = [m for m in _paths(comparison) if not _hopeless(comparison, m[0])][:MAX_PANELS]
    figure, axes = _panels(len(members))
    starts = comparison.shown_starts(SHOWN_PATHS)
    best = comparison.reference.trajectories if comparison.reference is not None else None
    under = None if best is None else best.__getitem__
    if under is None and members:
        under = members[0][1]
    spread: list[tuple[np.ndarray, np.ndarray]] = []
    poor = _poor(comparison, members)
    for axis, (name, at, style) in zip(axes.flat, members, strict=False):
        if under is not None:
            for start in starts:
                axis.plot(*coordinates(under(start)), color=FAINT, linewidth=2.6, alpha=0.7, zorder=1)
        for start in starts:
            x, y = coordinates(at(start))
            axis.plot(x, y, color=style["color"], linewidth=1.1, alpha=0.85, zorder=2)
            axis.plot(
                x[0],
                y[0],
                marker="o",
                markersize=4.5,
                color=style["color"],
                markeredgecolor="white",
                markeredgewidth=0.6,
                zorder=3,
            )
            if name not in poor:
                spread.append((x, y))
        axis.set_title(next((_gap_title(r) for r in comparison.results if r.name == name), name))
    second = (
        (chosen[1], units(problem.state)[chosen[1]]) if len(chosen) == 2 else next(iter(units(problem.control).items()))
    )
    _outer_labels(axes, len(members), _label(chosen[0], units(problem.state)[chosen[0]]), _label(*second))
    _limit(axes.flat[0].set_xlim, [x for x, _ in spread])
    _limit(axes.flat[0].set_ylim, [y for _, y in spread])
    return figure


def _gap_title(result: Result) -> str:
    if result.failed:
        return f"{result.name}, {result.failed} failed"
    return (
        result.name if np.isnan(result.gap.mean.estimate) else f"{result.name}, gap {percent(result.gap.mean.estimate)}"
    )


def _panels(count: int) -> tuple[Figure, np.ndarray]:
    """A grid of equal panels with shared axes; the last row may be short."""
    count = max(count, 1)
    columns = 2 if count == 4 else min(3, count)
    rows = -(-count // columns)
    width, height = (6.5, 4.0) if columns == 1 else (11.0, 3.1 * rows + 0.4)
    figure, axes = figure_of(rows, columns, width, height, sharex=True, sharey=True)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, axes


def _outer_labels(axes: np.ndarray, count: int, x: str, y: str) -> None:
    columns = axes.shape[1]
    for axis in axes.flat[max(count - columns, 0) : max(count, 1)]:  # the lowest visible panel of each column
        axis.set_xlabel(x)
        axis.tick_params(labelbottom=True)
    for axis in axes[:, 0]:
        axis.set_ylabel(y)


# --- gaps ---------------------------------------------------------------------------------------------------------------


def gap_summary(comparison: Comparison) -> Figure:
    """Left: the gap of every controller with its interval and one dot per seed. Right: the time it took."""
    from matplotlib.ticker import FuncFormatter

    results, styles = comparison.results, looks(comparison)
    figure, axes = figure_of(1, 2, 9.6, 0.42 * len(results) + 1.5, sharey=True, width_ratios=(3, 2))
    left, right = axes[0]
    known = np.isfinite(comparison.best)
    scale = abs(comparison.best[known].mean()) if known.any() else np.nan
    finite = []
    for row, result in enumerate(results):
        gap, color = result.gap.mean, styles[result.name]["color"]
        value = gap.estimate if np.isfinite(gap.estimate) else result.gap_of_rest
        anchor = max([v for v in (value, gap.high) if np.isfinite(v)], default=0.0)
        if np.isfinite(value):
            if np.isfinite([gap.low, gap.high]).all():
                left.plot([gap.low, gap.high], [row, row], color=color, linewidth=3.5, alpha=0.35, zorder=2)
                finite += [gap.low, gap.high]
            if result.runs > 1 and known.any():
                dots = (result.costs[:, known] - comparison.best[known]).mean(axis=1) / scale
                dots = dots[np.isfinite(dots)]
                left.plot(dots, np.full(len(dots), row), "|", color=color, markersize=9, zorder=3)
                finite += dots.tolist()
                anchor = max([anchor, *dots.tolist()])
            fill = "white" if result.violated else color  # hollow: not admissible everywhere
            marker = "o" if not result.failed else "X"
            left.plot(value, row, marker, color=color, markerfacecolor=fill, markersize=7, zorder=4)
            finite.append(value)
        note = f" {result.failed} of {result.costs.size} failed" if result.failed else f" {percent(value)}"
        note += f", {result.violated} of {result.costs.size} break constraints" if result.violated else ""
        left.annotate(note, (anchor, row), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8.5)
        right.barh(row, max(result.wall_time, 1e-3), height=0.55, color=color, alpha=0.85, left=0)
        right.annotate(
            duration(result.wall_time),
            (max(result.wall_time, 1e-3), row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    left.set_yticks(range(len(results)), [r.name for r in results])
    left.set_ylim(len(results) - 0.4, -0.6)
    _percent_axis(left, finite, ticks=5)
    _span(left, finite, right=0.3)
    left.set_xlabel(f"gap to the {comparison.yardstick}, 95 % interval")
    right.set_xscale("log")
    right.margins(x=0.2)
    right.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,g} s" if v >= 1 else f"{1000 * v:g} ms"))
    right.set_xlabel("time per run, solving or training included")
    for axis in (left, right):
        axis.grid(axis="y", visible=False)
        axis.tick_params(axis="y", length=0)
        axis.spines["left"].set_visible(False)
    return figure


def gap_distribution(comparison: Comparison) -> Figure:
    """Which fraction of the episodes stays within a gap: an empirical distribution per controller, failures never reached."""
    figure, axes = figure_of(1, 1, 9.6, 3.7)
    axis, styles = axes[0, 0], looks(comparison)
    known = np.isfinite(comparison.best)
    handles: dict[str, Any] = {}
    gaps = {r.name: start_gaps(comparison, r) for r in comparison.results} if known.any() else {}
    finite = np.concatenate([g[np.isfinite(g)] for g in gaps.values()]) if gaps else np.zeros(0)
    _percent_axis(axis, finite.tolist(), ticks=9)
    _span(axis, finite.tolist(), right=0.02)
    for name, values in gaps.items():
        inside = np.sort(values[np.isfinite(values)])
        if inside.size:
            x = np.concatenate([[axis.get_xlim()[0]], inside, [axis.get_xlim()[1]]])
            y = performance_profile(values, x)
            weight = _weight(styles[name], poor=False)
            (handles[name],) = axis.plot(x, 100 * y, drawstyle="steps-post", **styles[name] | weight)
    axis.set_ylim(0, 102)
    axis.set_ylabel("episodes within the gap [%]")
    axis.set_xlabel("gap of an episode: (cost − best known cost of its start) / mean best known cost")
    legend(figure, handles)
    return figure


def start_gaps(comparison: Comparison, result: Result) -> np.ndarray:
    """(R · S,) gap of every episode, in units of the mean best cost, so that their mean is the gap of the table."""
    known = np.isfinite(comparison.best)
    best = comparison.best[known]
    scale = abs(best.mean()) or np.nan
    return ((result.costs[:, known] - best) / scale).ravel()


def paired_costs(comparison: Comparison) -> Figure:
    """Cost of a controller against the best known cost of the same start; on the diagonal it is the best."""
    results = [r for r in comparison.results if np.isfinite(r.costs).any()]
    own = [r for r in results if np.any(_mean_by_start(r) - comparison.best > 1e-4 * np.abs(comparison.best))]
    shown = (own or results)[:MAX_PANELS]
    figure, axes = _panels(len(shown))
    known = np.isfinite(comparison.best)
    best, styles = comparison.best, looks(comparison)
    costs = [_mean_by_start(r) for r in shown]
    seen = np.concatenate([best[known], *(c[known & np.isfinite(c)] for c in costs)])
    if seen.size and seen.min() > 0 and seen.max() > 20 * seen.min():
        axes[0, 0].set_xscale("log"), axes[0, 0].set_yscale("log")
    for axis, result, cost in zip(axes.flat, shown, costs, strict=False):
        there, lost = known & np.isfinite(cost), known & ~np.isfinite(cost)
        if known.any():
            ends = np.array([best[known].min(), best[known].max()])
            axis.plot(ends, ends, color=INK, linewidth=1.0, zorder=1)
        axis.scatter(
            best[there], cost[there], s=14, color=styles[result.name]["color"], alpha=0.6, linewidth=0, zorder=2
        )
        if lost.any():
            top = np.full(int(lost.sum()), 0.97)
            axis.plot(best[lost], top, "x", color=INK, markersize=4, transform=axis.get_xaxis_transform(), zorder=3)
        axis.set_title(result.name + (f" (× {int(lost.sum())} failed)" if lost.any() else ""))
    _outer_labels(axes, len(shown), "best known cost of the start", "cost of the controller")
    return figure


def _mean_by_start(result: Result) -> np.ndarray:
    return result.costs.mean(axis=0)


def _span(axis: Axes, values: Sequence[float], right: float) -> None:
    """Limits around zero and the values, as seen on the screen: a little room on the left, a fraction `right` on the right."""
    transform = axis.xaxis.get_transform()
    seen = transform.transform(np.array([*values, 0.0]))
    width = float(np.ptp(seen)) or 1e-2
    ends = np.array([seen.min() - 0.04 * width, seen.max() + right * width])
    axis.set_xlim(*transform.inverted().transform(ends))


def _percent_axis(axis: Axes, values: Sequence[float], ticks: int) -> None:
    """Linear where the gaps are alike; symmetric logarithm, linear below 0.1 %, where they span decades."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    size = np.abs([v for v in values if np.isfinite(v)])
    largest = float(size.max(initial=0.0))
    if largest > 0.5:
        axis.set_xscale("symlog", linthresh=1e-3, linscale=1.0)
        powers = [10.0**k for k in range(-3, int(np.ceil(np.log10(largest))) + 1)]
        negative = [-v for v in powers if v <= -min([*values, 0.0])][-1:]
        powers = powers[:: max(1, -(-len(powers) // ticks))]
        axis.xaxis.set_major_locator(FixedLocator([*reversed(negative), 0.0, *powers]))
        axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:,.6g} %".replace("-", "−")))
    axis.axvline(0.0, color=INK, linewidth=1.0, zorder=1)
