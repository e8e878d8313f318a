"""A qubit on its Bloch sphere; populations of several levels; the elements of a gate or of a density matrix.

Phases are colours around the circle: 0 red, π/2 green, π cyan, 3π/2 violet.
"""

from __future__ import annotations

import cmath
import colorsys
import itertools
import math

import numpy as np

from optctl.pictures.canvas import CYCLE, GREY, INK, ORANGE, PALE, Canvas, Colour, Point, Scene, fade
from optctl.pictures.planes import effort_bars
from optctl.problem.quantum import from_bloch, unstack, unstack_gate

_TURN, _LIFT = math.radians(-60), math.radians(18)


def _seen(r: np.ndarray) -> np.ndarray:
    """Points (…, 3) of space as (…, 3): right, up, towards the eye."""
    x, y, z = r[..., 0], r[..., 1], r[..., 2]
    right = x * math.cos(_TURN) - y * math.sin(_TURN)
    away = x * math.sin(_TURN) + y * math.cos(_TURN)
    return np.stack(
        [right, z * math.cos(_LIFT) + away * math.sin(_LIFT), z * math.sin(_LIFT) - away * math.cos(_LIFT)], -1
    )


def bloch(canvas: Canvas, scene: Scene) -> None:
    """⟨σ⟩ of the state and its way so far; what lies behind is pale. |0⟩ is up."""
    if "bloch_x" in scene.value:
        vectors = scene.path[:, :3]
    else:
        psi = unstack(scene.path[:, :4])
        coherence = 2 * psi[:, 0].conj() * psi[:, 1]
        vectors = np.stack([coherence.real, coherence.imag, np.abs(psi[:, 0]) ** 2 - np.abs(psi[:, 1]) ** 2], -1)
    canvas.look(1.45, (0.0, -0.12))
    canvas.disc((0, 0), canvas.scale, GREY, ring=1.5)
    around = np.linspace(0, 2 * math.pi, 97)
    zero = np.zeros_like(around)
    for circle in (
        np.stack([np.cos(around), np.sin(around), zero], -1),
        np.stack([np.cos(around), zero, np.sin(around)], -1),
    ):
        _curve(canvas, _seen(circle), GREY, 1.2)
    for axis, label in zip(np.eye(3), ("x", "y", "|0>"), strict=True):
        ends = _seen(np.stack([-axis, axis]))
        canvas.line(ends[:, :2], PALE, 1.5)
        at = 1.13 * ends[1]
        canvas.text((at[0], at[1]), label, GREY, 12, "mm")
    down = 1.13 * _seen(np.array([0.0, 0.0, -1.0]))
    canvas.text((down[0], down[1]), "|1>", GREY, 12, "mm")
    _curve(canvas, _seen(vectors), ORANGE, 2.5)
    tip = _seen(vectors[-1])
    canvas.arrow((0.0, 0.0), (tip[0], tip[1]), ORANGE if tip[2] >= 0 else fade(ORANGE, 0.6), 5)
    effort_bars(canvas, scene)


def _curve(canvas: Canvas, points: np.ndarray, colour: Colour, width: float) -> None:
    """A curve whose parts behind the middle plane are paler."""
    for a, b in itertools.pairwise(points):
        canvas.line([a[:2], b[:2]], colour if a[2] + b[2] >= 0 else fade(colour, 0.35), width)


def populations(canvas: Canvas, scene: Scene) -> None:
    """|ψ_k|² as bars with the phase as colour; below, how they came about."""
    psi = unstack(_amplitudes(scene))
    levels = psi.shape[1]
    names = [name.removeprefix("re_") for name in list(scene.problem.state)[:levels]]
    canvas.look(0.5, (0.5, -0.5))
    slot, bottom, height = 0.9 / levels, -0.50, 0.42
    canvas.line([(0.05, bottom), (0.95, bottom)], PALE, 2)
    for k, value in enumerate(psi[-1]):
        left, top = 0.05 + slot * (k + 0.18), bottom + height * min(abs(value) ** 2, 1.1)
        right = left + 0.64 * slot
        canvas.polygon([(left, bottom), (left, top), (right, top), (right, bottom)], _phase_colour(value))
        canvas.text((0.5 * (left + right), bottom - 0.03), f"|{names[k]}>", INK, 12, "mm")
    _histories(canvas, scene, np.abs(psi) ** 2)
    effort_bars(canvas, scene)


def _amplitudes(scene: Scene) -> np.ndarray:
    """The columns re_… and im_… of the path."""
    keep = [k for k, name in enumerate(scene.problem.state) if name.startswith(("re_", "im_"))]
    return scene.path[:, keep]


def _histories(canvas: Canvas, scene: Scene, shares: np.ndarray) -> None:
    """Numbers in [0, 1] against time, over the whole horizon."""
    steps = max(scene.problem.steps, len(shares) - 1)
    canvas.line([(0.05, -0.86), (0.95, -0.86)], PALE, 1.5)
    for k, share in enumerate(shares.T):
        points: list[Point] = [(0.05 + 0.9 * i / steps, -0.86 + 0.26 * float(y)) for i, y in enumerate(share)]
        if len(points) > 1:
            canvas.line(points, CYCLE[k % len(CYCLE)], 2)
        canvas.disc(points[-1], 3, CYCLE[k % len(CYCLE)])


def gate(canvas: Canvas, scene: Scene) -> None:
    """The elements of U: area for |U_ij|, colour for the phase; columns are the images of the basis kets."""
    stacked = _amplitudes(scene)[-1]
    columns = len({name.rpartition("_")[2][1:] for name in scene.problem.state if name.startswith("re_")})
    _matrix(canvas, unstack_gate(stacked, columns))
    effort_bars(canvas, scene)


def density(canvas: Canvas, scene: Scene) -> None:
    """The elements of ρ: area for |ρ_ij|, colour for the phase; below, the populations so far."""
    rho = from_bloch(scene.path)
    _matrix(canvas, rho[-1], bottom=-0.52)
    _histories(canvas, scene, np.einsum("kii->ki", rho).real)
    effort_bars(canvas, scene)


def _matrix(canvas: Canvas, matrix: np.ndarray, bottom: float = -0.88) -> None:
    canvas.look(0.5, (0.5, -0.5))
    rows, columns = matrix.shape
    cell = min((-0.04 - bottom) / rows, 0.92 / columns)
    left, top = 0.5 - 0.5 * cell * columns, -0.04
    for i in range(rows):
        for j in range(columns):
            centre = (left + cell * (j + 0.5), top - cell * (i + 0.5))
            radius = 0.45 * cell * canvas.scale
            canvas.disc(centre, radius, PALE, ring=1)
            canvas.disc(centre, max(radius * math.sqrt(min(abs(matrix[i, j]), 1.2)), 0.5), _phase_colour(matrix[i, j]))


def _phase_colour(value: complex) -> Colour:
    r, g, b = colorsys.hls_to_rgb(cmath.phase(complex(value)) / (2 * math.pi) % 1.0, 0.52, 0.55)
    return round(255 * r), round(255 * g), round(255 * b)
