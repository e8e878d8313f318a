"""How sure a comparison is: robust means, bootstrap intervals, profiles and paired differences of costs.

Conventions: costs, so lower is better; axes are (runs, tasks): a run is one training seed, a task is one start.
A failed episode (NaN or ±infinity) is +∞, the worst there is: it never wins, and it never vanishes in a mean. A mean or an
interquartile mean that still contains one is +∞; count the failures and average the rest apart (`mean_of_rest`).
Everything random takes a `seed` and is the same for the same seed.

Sources: Agarwal, Schwarzer, Castro, Courville, Bellemare, Deep reinforcement learning at the edge of the statistical
precipice, NeurIPS 2021 (rliable): interquartile mean §4.3, stratified bootstrap §4.1, profiles §4.2, probability of
improvement §4.3. Efron and Tibshirani, An introduction to the bootstrap (1993), §13.3 for the percentile interval. Owen, The
pigeonhole bootstrap, Ann. Appl. Stat. 1 (2007), for resampling rows and columns of crossed data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from optctl.errors import require


class Interval(NamedTuple):
    """An estimate with its percentile interval."""

    estimate: float
    low: float
    high: float


def failures_as_worst(costs: object) -> np.ndarray:
    """Costs as float64 with every NaN and ±∞ replaced by +∞."""
    values = np.asarray(costs, dtype=np.float64)
    return np.where(np.isfinite(values), values, np.inf)


def mean_of_rest(costs: object) -> float:
    """Mean over the episodes that did not fail; NaN where all failed."""
    values = failures_as_worst(costs)
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else float("nan")


def iqm(costs: object, axis: int | None = None) -> np.ndarray:
    """Interquartile mean: the mean after ⌊n/4⌋ of the lowest and of the highest values are cut (Agarwal et al. 2021, §4.3).

    With fewer than four values nothing is cut and it is the mean. Failures sort last and are cut like other extremes.
    """
    values = np.sort(failures_as_worst(costs), axis=axis)
    n = values.size if axis is None else values.shape[axis]
    require(n > 0, "costs", "hold at least one value", "is empty")
    cut = n // 4
    return np.take(values, np.arange(cut, n - cut), axis=axis).mean(axis=axis)


def percentile_interval(estimate: float, samples: np.ndarray, confidence: float = 0.95) -> Interval:
    """The central `confidence` part of bootstrap samples; +∞ among them stays +∞."""
    tail = 50 * (1 - confidence)
    # Linear interpolation between a number and infinity is NaN, so the quantile is always one of the samples.
    low, high = np.percentile(samples, [tail, 100 - tail], method="nearest")
    return Interval(float(estimate), float(low), float(high))


def stratified_bootstrap(
    costs: object,
    statistic: Callable[[np.ndarray], float] = lambda c: float(iqm(c)),
    *,
    repetitions: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of `statistic` of (runs, tasks) when runs are drawn again, with replacement, within every task apart.

    The tasks are fixed (strata), as in rliable (Agarwal et al. 2021, §4.1); with one run the interval is a point.
    """
    values = _runs_by_tasks(costs)
    runs, tasks = values.shape
    rng = np.random.default_rng(seed)
    columns = np.arange(tasks)
    samples = [statistic(values[rng.integers(runs, size=(runs, tasks)), columns]) for _ in range(repetitions)]
    return percentile_interval(statistic(values), np.array(samples), confidence)


class GapIntervals(NamedTuple):
    """Gaps of the mean: over all runs, and the interquartile mean over the runs."""

    mean: Interval
    iqm: Interval


def gap_intervals(
    costs: object,
    best: object,
    *,
    unit: object = None,
    repetitions: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> GapIntervals:
    """gap = (mean cost − mean best) / |mean unit|, paired by start, with a bootstrap over starts and over runs.

    `costs` (runs, starts), `best` (starts,), `unit` (starts,): what a gap is measured in, by default `best`. Starts are drawn again
    together with their best cost and unit, so what makes a start hard for everybody cancels; runs are drawn again apart from them,
    both with replacement (crossed data: Owen 2007, slightly conservative). The same `seed` draws the same starts for every
    controller. NaN where the mean unit is zero or infinite.
    """
    values, best = _runs_by_tasks(costs), np.asarray(best, dtype=np.float64)
    runs, starts = values.shape
    require(best.shape == (starts,), "best", f"have shape ({starts},)", f"has shape {best.shape}")
    require(bool(np.isfinite(best).all()), "best", "be finite", "holds NaN or infinity")
    units = best if unit is None else np.asarray(unit, dtype=np.float64)
    require(units.shape == (starts,), "unit", f"have shape ({starts},)", f"has shape {units.shape}")
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(starts, np.full(starts, 1 / starts), size=repetitions) / starts
    drawn = rng.integers(runs, size=(repetitions, runs))
    failed = ~np.isfinite(values)
    excess = np.where(failed, 0.0, values - best)  # 0 · ∞ would be NaN: failures are put back below
    scale = abs(units.mean())
    if scale == 0.0 or not np.isfinite(scale):
        undefined = Interval(np.nan, np.nan, np.nan)
        return GapIntervals(undefined, undefined)
    gap = np.where(failed.any(axis=1), np.inf, excess.mean(axis=1) / scale)  # (runs,)
    scales = np.abs(weights @ units)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        samples = np.where(weights @ failed.T > 0, np.inf, weights @ excess.T / scales)  # (repetitions, runs)
    samples = np.take_along_axis(samples, drawn, axis=1)
    return GapIntervals(
        percentile_interval(gap.mean(), samples.mean(axis=1), confidence),
        percentile_interval(float(iqm(gap)), iqm(samples, axis=1), confidence),
    )


def performance_profile(gaps: object, thresholds: object) -> np.ndarray:
    """Fraction of all episodes whose gap is at most τ, for each τ: the higher the curve the better (Dolan and Moré 2002)."""
    values, taus = failures_as_worst(gaps).ravel(), np.asarray(thresholds, dtype=np.float64)
    require(values.size > 0, "gaps", "hold at least one value", "is empty")
    return np.searchsorted(np.sort(values), taus, side="right") / values.size


def probability_of_improvement(costs: object, others: object) -> float:
    """P(cost of X < cost of Y), ties half, over all pairs of runs and averaged over the tasks (Agarwal et al. 2021, eq. 2).

    `costs` (runs, tasks) of X, `others` (runs', tasks) of Y. Two failures tie.
    """
    x, y = _runs_by_tasks(costs), _runs_by_tasks(others)
    require(x.shape[1] == y.shape[1], "others", f"have {x.shape[1]} tasks", f"has {y.shape[1]}")
    wins = (x[:, None] < y[None]).mean() + 0.5 * (x[:, None] == y[None]).mean()
    return float(wins)


class PairedDifferences(NamedTuple):
    """How `costs` differ from `others` on the same starts."""

    mean: Interval
    """Mean difference and its bootstrap interval over the starts; +∞ where X failed and Y did not."""
    better: float
    """Fraction of the starts where X costs less than Y by more than the tolerance."""
    worse: float
    unpaired: int
    """Starts left out because both failed: no difference exists."""


def paired_differences(
    costs: object, others: object, *, tolerance: float = 1e-9, repetitions: int = 2000, seed: int = 0
) -> PairedDifferences:
    """X − Y start by start, costs of shape (starts,). Tolerance relative to |Y|. Where only Y failed, X counts as better,
    and the difference (−∞) enters the mean as such."""
    x, y = failures_as_worst(costs).ravel(), failures_as_worst(others).ravel()
    require(x.shape == y.shape, "others", f"have {x.size} starts", f"has {y.size}")
    both = np.isinf(x) & np.isinf(y)
    x, y = x[~both], y[~both]
    if not x.size:
        return PairedDifferences(Interval(np.nan, np.nan, np.nan), 0.0, 0.0, int(both.sum()))
    difference = x - y
    margin = tolerance * np.where(np.isfinite(y), np.abs(y), 0.0)
    finite = np.where(np.isfinite(difference), difference, 0.0)
    weights = np.random.default_rng(seed).multinomial(x.size, np.full(x.size, 1 / x.size), size=repetitions)
    samples = weights @ finite / x.size
    for sign in (-np.inf, np.inf):  # a failure of X outweighs any failure of Y: worst last
        samples = np.where(weights @ (difference == sign) > 0, sign, samples)
    estimate = np.inf if (difference == np.inf).any() else float(difference.mean())
    return PairedDifferences(
        percentile_interval(estimate, samples),
        float((difference < -margin).mean()),
        float((difference > margin).mean()),
        int(both.sum()),
    )


def _runs_by_tasks(costs: object) -> np.ndarray:
    values = failures_as_worst(costs)
    values = values[None] if values.ndim == 1 else values
    require(
        values.ndim == 2 and values.size > 0,
        "costs",
        "have shape (runs, tasks) with at least one of each",
        f"has shape {values.shape}",
    )
    return values
