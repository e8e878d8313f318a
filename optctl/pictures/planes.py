"""States against each other or against time, and the controls as bars: for what has no picture of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np

from optctl.pictures.canvas import CYCLE, GREEN, GREY, INK, ORANGE, PALE, Canvas, Point, Scene, fade


def reach(scene: Scene) -> np.ndarray:
    """How far each state goes from 0, at least as far as the starts do, shape (n_x,)."""
    initial = scene.problem.initial_state
    return np.maximum(np.abs(scene.path).max(axis=0), np.abs(initial.location) + np.abs(initial.spread)) + 1e-9


def extent(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """The smallest box (low, high) of shapes (n_x,) that holds the path and where the starts are drawn from."""
    initial = scene.problem.initial_state
    first = initial.location - (initial.spread if initial.kind == "normal" else 0.0)
    last = initial.location + initial.spread
    return np.minimum(scene.path.min(axis=0), first), np.maximum(scene.path.max(axis=0), last)


def plane(canvas: Canvas, scene: Scene, axes: tuple[int, int], frame: tuple[float, float, float, float]) -> None:
    """Two states against each other with the path so far; `frame` is left, top, right, bottom as fractions of the picture."""
    names, units = list(scene.problem.state), list(cast(Mapping[str, str], scene.problem.state).values())
    canvas.look(0.5, (0.5, -0.5))
    left, top, right, bottom = frame
    low, high = extent(scene)
    span = np.maximum(high - low, 1e-9)

    def at(point: np.ndarray) -> Point:
        x, y = (0.04 + 0.92 * (point[k] - low[k]) / span[k] for k in axes)
        return left + (right - left) * x, -bottom + (bottom - top) * y

    zero = at(np.clip(0.0, low, high))
    canvas.line([(left, zero[1]), (right, zero[1])], PALE, 1.5)
    canvas.line([(zero[0], -top), (zero[0], -bottom)], PALE, 1.5)
    canvas.line([at(x) for x in scene.path], fade(ORANGE, 0.55), 1.6) if len(scene.path) > 1 else None
    canvas.disc(at(scene.path[-1]), 5, ORANGE)
    canvas.text((right, zero[1] - 0.025), label(names[axes[0]], units[axes[0]]), GREY, 10, "rm")
    canvas.text((zero[0] + 0.015, -top), label(names[axes[1]], units[axes[1]]), GREY, 10, "lm")


def label(name: str, unit: str) -> str:
    return name if unit in ("", "1") else f"{name} [{unit}]"


def butterfly(canvas: Canvas, scene: Scene) -> None:
    """The first state against the third."""
    plane(canvas, scene, (0, 2), (0.08, 0.05, 0.92, 0.86))
    effort_bars(canvas, scene)


def phase_plane(canvas: Canvas, scene: Scene) -> None:
    """The first two states against each other, and the control as a bar below."""
    plane(canvas, scene, (0, 1), (0.08, 0.05, 0.92, 0.86))
    effort_bars(canvas, scene)


def effort_bars(canvas: Canvas, scene: Scene) -> None:
    """The controls as fractions of their ranges, at the foot of the picture (the last tenth of it)."""
    canvas.look(0.5, (0.5, -0.5))
    n = min(scene.problem.n_u, 8)
    for k, name in enumerate(list(scene.problem.control)[:n]):
        y = -0.90 - 0.085 * (k + 0.5) / n
        width = min(8.0, 30.0 / n)
        canvas.line([(0.3, y), (0.9, y)], PALE, width)
        canvas.line([(0.6, y), (0.6 + 0.3 * float(scene.effort[k]), y)], GREEN, width)
        if n <= 3:
            canvas.text((0.04, y), name[:14], GREY, 10)


def traces(canvas: Canvas, scene: Scene) -> None:
    """Every state against time, at most twelve, and the controls below: what there is for a problem without a picture."""
    units = cast(Mapping[str, str], scene.problem.state)
    shown = list(scene.problem.state)[:12]
    canvas.look(0.5, (0.5, -0.5))
    height = 0.86 / len(shown)
    steps = max(len(scene.path) - 1, 20)
    most = reach(scene)
    for k, name in enumerate(shown):
        middle = -0.02 - height * (k + 0.5)
        canvas.line([(0.28, middle), (0.97, middle)], PALE, 1.5)
        heights = middle + 0.42 * height * scene.path[:, k] / most[k]
        points = [(0.28 + 0.66 * i / steps, y) for i, y in enumerate(heights)]
        colour = CYCLE[k % len(CYCLE)]
        if len(points) > 1:
            canvas.line(points, colour, 2)
        canvas.disc(points[-1], 4, colour)
        size = 11 if len(shown) <= 8 else 9
        canvas.text((0.02, middle + 0.022), label(name[:12], units[name]), colour, size)
        canvas.text((0.02, middle - 0.022), f"{scene.value[name]:.3g}", INK, size)
    effort_bars(canvas, scene)
