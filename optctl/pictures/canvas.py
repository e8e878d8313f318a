"""What pictures are drawn with and from: `Canvas`, `Scene`, colours. numpy and Pillow only."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
from PIL import Image, ImageDraw

from optctl.problem import Problem

Colour = tuple[int, int, int]
Point = tuple[float, float]

SIZE, _FINE = 400, 2  # drawn at twice the size and reduced: smooth edges
INK, PALE, GREY, WHITE = (40, 44, 52), (225, 228, 232), (150, 156, 166), (255, 255, 255)
BLUE, ORANGE, GREEN, RED = (70, 110, 160), (204, 102, 51), (60, 150, 90), (190, 60, 70)
CYCLE = (BLUE, ORANGE, GREEN, RED, (130, 90, 160), (100, 130, 40), (40, 150, 160), (150, 110, 80))


@dataclass(frozen=True)
class Scene:
    """What there is to draw: the states so far (K, n_x), the controls between them (at most K − 1, n_u), the parameters (n_p,)."""

    problem: Problem
    path: np.ndarray
    controls: np.ndarray
    params: np.ndarray

    @cached_property
    def value(self) -> dict[str, float]:
        """The present state by name."""
        return dict(zip(self.problem.state, self.path[-1].tolist(), strict=True))

    @cached_property
    def parameter(self) -> dict[str, float]:
        return dict(zip(self.problem.params, self.params.tolist(), strict=True))

    @cached_property
    def effort(self) -> np.ndarray:
        """The last control as an action in [−1, 1], shape (n_u,); zero where there is none."""
        if not len(self.controls):
            return np.zeros(self.problem.n_u)
        return np.nan_to_num(self.problem.to_action(self.controls[-1]))

    def named(self, pattern: str) -> list[float]:
        """The present values of the states whose whole names match, in order."""
        return [v for name, v in self.value.items() if re.fullmatch(pattern, name)]


class Canvas:
    """Pillow with smooth edges, y upwards, in units of its own: the square of half width `half` about `centre`."""

    def __init__(self, half: float = 1.0, centre: Point = (0.0, 0.0)) -> None:
        self.image = Image.new("RGB", (SIZE * _FINE, SIZE * _FINE), "white")
        self.pen = ImageDraw.Draw(self.image)
        self.look(half, centre)

    def look(self, half: float, centre: Point = (0.0, 0.0)) -> None:
        """From here on, coordinates lie within `half` of `centre`."""
        self.scale, self.centre = 0.5 * SIZE / half, centre

    def pixels(self) -> np.ndarray:
        return np.asarray(self.image.resize((SIZE, SIZE), Image.Resampling.LANCZOS))

    def _pixel(self, point: Sequence[float]) -> Point:
        far = 10.0 * SIZE  # Pillow's integers overflow where a state has diverged
        x = 0.5 * SIZE + (point[0] - self.centre[0]) * self.scale
        y = 0.5 * SIZE - (point[1] - self.centre[1]) * self.scale
        return max(-far, min(far, x)) * _FINE, max(-far, min(far, y)) * _FINE

    def line(self, points: Iterable[Sequence[float]], colour: Colour = INK, width: float = 2.0) -> None:
        """A line through the points; widths and radii of `disc` are in pixels."""
        pixels = [self._pixel(point) for point in points]
        self.pen.line(pixels, fill=colour, width=max(1, round(width * _FINE)), joint="curve")

    def polygon(self, points: Iterable[Sequence[float]], colour: Colour) -> None:
        self.pen.polygon([self._pixel(point) for point in points], fill=colour)

    def disc(self, centre: Sequence[float], radius: float, colour: Colour, ring: float = 0.0) -> None:
        """A disc, or with `ring` a circle that thick; radius in pixels."""
        (x, y), r = self._pixel(centre), radius * _FINE
        box = (x - r, y - r, x + r, y + r)
        if ring:
            self.pen.ellipse(box, outline=colour, width=round(ring * _FINE))
        else:
            self.pen.ellipse(box, fill=colour)

    def box(self, centre: Point, width: float, height: float, colour: Colour) -> None:
        """A rounded rectangle, sizes in pixels."""
        x, y = self._pixel(centre)
        w, h = 0.5 * width * _FINE, 0.5 * height * _FINE
        self.pen.rounded_rectangle((x - w, y - h, x + w, y + h), radius=5 * _FINE, fill=colour)

    def arrow(self, start: Point, end: Point, colour: Colour = GREEN, width: float = 5.0) -> None:
        (x, y), (x1, y1) = self._pixel(start), self._pixel(end)
        length = math.hypot(x1 - x, y1 - y)
        if length < 4 * _FINE:
            return
        ex, ey, head = (x1 - x) / length, (y1 - y) / length, min(2.4 * width * _FINE, length)
        bx, by = x1 - head * ex, y1 - head * ey
        self.pen.line([(x, y), (bx, by)], fill=colour, width=round(width * _FINE))
        wing = 0.6 * head
        self.pen.polygon([(x1, y1), (bx - wing * ey, by + wing * ex), (bx + wing * ey, by - wing * ex)], fill=colour)

    def turn(self, centre: Point, radius: float, effort: float) -> None:
        """A torque: an arc with a head, counterclockwise where positive; radius in units."""
        if abs(effort) < 0.03:
            return
        angles = [0.5 * math.pi + 1.5 * math.pi * effort * k / 32 for k in range(33)]
        points = [(centre[0] + radius * math.cos(a), centre[1] + radius * math.sin(a)) for a in angles]
        self.line(points, GREEN, 4)
        self.arrow(points[-4], points[-1], GREEN, 4)

    def spring(self, start: Point, end: Point, turns: int = 6) -> None:
        """A zigzag from start to end."""
        (x, y), (x1, y1) = start, end
        length = math.hypot(x1 - x, y1 - y) or 1e-9
        nx, ny = -(y1 - y) / length * 7 / self.scale, (x1 - x) / length * 7 / self.scale
        points = [start]
        for k in range(2 * turns):
            f, side = (k + 1.0) / (2 * turns + 1), 1 if k % 2 else -1
            points.append((x + f * (x1 - x) + side * nx, y + f * (y1 - y) + side * ny))
        self.line([*points, end], GREY, 1.6)

    def text(self, at: Point, text: str, colour: Colour = INK, size: int = 11, anchor: str = "lm") -> None:
        self.pen.text(self._pixel(at), text, fill=colour, font_size=size * _FINE, anchor=anchor)


def fade(colour: Colour, amount: float) -> Colour:
    """Towards white: amount 1 is the colour itself."""
    return cast(Colour, tuple(round(255 + amount * (c - 255)) for c in colour))


def trail(canvas: Canvas, points: np.ndarray, colour: Colour = ORANGE, length: int = 60) -> None:
    """The last points of a path, fading with age."""
    recent = points[-length:]
    for k, (a, b) in enumerate(itertools.pairwise(recent)):
        canvas.line([a, b], fade(colour, 0.15 + 0.75 * (k + 1) / len(recent)), 2)
