"""A picture of a state: pendulums as rods, carts on a track, every other system as labelled gauges. numpy and Pillow only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from PIL import Image, ImageDraw

from optctl.problem import Problem

_SIZE, _SCALE = 400, 2  # drawn at twice the size and reduced: smooth edges
_INK, _PALE, _ROD, _CART, _FORCE = (40, 44, 52), (225, 228, 232), (204, 102, 51), (70, 110, 160), (60, 150, 90)


def draw(problem: Problem, state: np.ndarray, control: np.ndarray | None = None) -> np.ndarray:
    """A picture (400, 400, 3), uint8, of one state (n_x,) and, where given, of the control (n_u,) that led to it."""
    image = Image.new("RGB", (_SIZE * _SCALE, _SIZE * _SCALE), "white")
    pen = ImageDraw.Draw(image)
    names = list(problem.state)
    value = {name: float(v) if math.isfinite(v) else 0.0 for name, v in zip(names, state, strict=True)}
    effort = _effort(problem, control)
    if names[:2] == ["theta", "omega"]:
        _pendulum(pen, value["theta"], effort)
    elif {"position", "angle"} <= value.keys():
        _cart_pole(pen, value["position"], value["angle"], effort)
    else:
        _gauges(pen, problem, value, effort)
    return np.asarray(image.resize((_SIZE, _SIZE), Image.Resampling.LANCZOS))


def _effort(problem: Problem, control: np.ndarray | None) -> float:
    """The first control as a fraction of its range."""
    if control is None or not np.isfinite(control).all():
        return 0.0
    return float(problem.to_action(np.asarray(control, dtype=float))[0])


def _line(pen: Any, points: list[tuple[float, float]], colour: tuple[int, int, int], width: float) -> None:
    pen.line([(x * _SCALE, y * _SCALE) for x, y in points], fill=colour, width=round(width * _SCALE), joint="curve")


def _disc(pen: Any, x: float, y: float, radius: float, colour: tuple[int, int, int]) -> None:
    pen.ellipse([(c * _SCALE) for c in (x - radius, y - radius, x + radius, y + radius)], fill=colour)


def _pendulum(pen: Any, theta: float, effort: float) -> None:
    """θ = 0 upright, positive counterclockwise; the arc shows the torque."""
    x, y, length = 200.0, 200.0, 140.0
    _disc(pen, x, y, length + 12, _PALE)
    _disc(pen, x, y, length + 8, (255, 255, 255))
    tip = (x - length * math.sin(theta), y - length * math.cos(theta))
    _line(pen, [(x, y), tip], _ROD, 14)
    _disc(pen, *tip, 18, _ROD)
    _disc(pen, x, y, 7, _INK)
    if abs(effort) > 0.02:
        start, sweep = -math.pi / 2, -effort * math.pi * 0.75
        arc = [
            (x + 48 * math.cos(start + sweep * k / 24), y + 48 * math.sin(start + sweep * k / 24)) for k in range(25)
        ]
        _line(pen, arc, _FORCE, 5)


def _cart_pole(pen: Any, position: float, angle: float, effort: float) -> None:
    """Angle 0 hangs down, π stands up; 70 pixels to the metre."""
    x, y, length = 200.0 + 70.0 * max(-2.6, min(2.6, position)), 220.0, 110.0
    _line(pen, [(10, y), (390, y)], _PALE, 6)
    pen.rounded_rectangle([c * _SCALE for c in (x - 32, y - 18, x + 32, y + 18)], radius=6 * _SCALE, fill=_CART)
    tip = (x + length * math.sin(angle), y + length * math.cos(angle))
    _line(pen, [(x, y), tip], _ROD, 9)
    _disc(pen, *tip, 14, _ROD)
    _disc(pen, x, y, 6, _INK)
    if abs(effort) > 0.02:
        _line(pen, [(x, y + 30), (x + 80 * effort, y + 30)], _FORCE, 6)


def _gauges(pen: Any, problem: Problem, value: dict[str, float], effort: float) -> None:
    """One horizontal bar for each state, its length the arctangent of the value in units of the initial spread."""
    initial, units = problem.initial_state, cast(Mapping[str, str], problem.state)
    scale = np.maximum(np.abs(initial.location) + np.abs(initial.spread), 1e-3)
    shown = list(value.items())[:12]
    height = 340.0 / (len(shown) + 1)
    for k, (name, amount) in enumerate(shown):
        y = 30 + height * k
        _bar(pen, y, height, name, units[name], amount, 2 / math.pi * math.atan(amount / scale[k]), _CART)
    _bar(pen, 30 + height * len(shown), height, next(iter(problem.control)), "", effort, effort, _FORCE)


def _bar(
    pen: Any,
    y: float,
    height: float,
    name: str,
    unit: str,
    amount: float,
    fraction: float,
    colour: tuple[int, int, int],
) -> None:
    _line(pen, [(130, y), (380, y)], _PALE, min(14.0, 0.5 * height))
    _line(pen, [(255, y), (255 + 125 * fraction, y)], colour, min(14.0, 0.5 * height))
    pen.text((14 * _SCALE, (y - 6) * _SCALE), f"{name[:10]} {amount:.3g} {unit}", fill=_INK, font_size=11 * _SCALE)
