"""What flies in a vertical plane: x right, z up, the tilt counterclockwise from upright."""

from __future__ import annotations

import math

import numpy as np

from optctl.pictures.canvas import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    RED,
    WHITE,
    Canvas,
    Point,
    Scene,
    trail,
)


def quadrotor(canvas: Canvas, scene: Scene) -> None:
    """Two rotors on a beam, an arrow for the thrust of each, the way so far; the cross is the origin."""
    arm = scene.parameter.get("arm", 0.25)
    canvas.look(max(6 * arm, 1.15 * float(np.abs(scene.path[:, :2]).max()) + 1.5 * arm))
    _cross(canvas)
    trail(canvas, scene.path[:, :2])
    x, z, tilt = (scene.value[name] for name in ("x", "z", "tilt"))
    along, up = (math.cos(tilt), math.sin(tilt)), (-math.sin(tilt), math.cos(tilt))
    ends = [(x + s * arm * along[0], z + s * arm * along[1]) for s in (-1, 1)]
    lift = 0.5 * (1 + scene.effort[:2])  # thrusts between nothing and all
    for (ex, ez), part in zip(ends, lift, strict=False):
        length = 4 * arm * float(part)
        canvas.arrow((ex, ez), (ex + length * up[0], ez + length * up[1]), GREEN, 4)
    canvas.line(ends, BLUE, 8)
    for ex, ez in ends:
        blade = 0.6 * arm
        canvas.line(
            [(ex - blade * along[0], ez - blade * along[1]), (ex + blade * along[0], ez + blade * along[1])], INK, 4
        )
    canvas.disc((x, z), 9, ORANGE)


def rocket(canvas: Canvas, scene: Scene) -> None:
    """A slender body over the ground; the flame is as long as the thrust is strong and leaves against it."""
    high = 1.1 * float(max(scene.path[:, 1].max(), np.abs(scene.path[:, 0]).max(), 5.0))
    canvas.look(0.6 * high, (0.0, 0.5 * high))
    _ground(canvas, high)
    trail(canvas, scene.path[:, :2], length=200)
    x, z, tilt = (scene.value[name] for name in ("x", "z", "tilt"))
    thrust, gimbal = scene.effort[0], scene.effort[1] if len(scene.effort) > 1 else 0.0
    _body(canvas, (x, z), tilt, 0.5 * (1 + thrust) if len(scene.controls) else 0.0, 0.5 * gimbal)


def lander(canvas: Canvas, scene: Scene) -> None:
    """A body over the ground with its flame; on the right the mass that is left and the speed."""
    high = 1.1 * float(max(scene.path[:, 0].max(), 5.0))
    canvas.look(0.6 * high, (0.0, 0.5 * high))
    _ground(canvas, high)
    _body(canvas, (0.0, scene.value["height"]), 0.0, 0.5 * (1 + scene.effort[0]) if len(scene.controls) else 0.0, 0.0)
    most = float(max(scene.path[:, 2].max(), 1e-9))
    left, bottom, top = 0.45 * high, 0.3 * high, 0.9 * high
    canvas.line([(left, bottom), (left, top)], PALE, 12)
    canvas.line([(left, bottom), (left, bottom + (top - bottom) * max(scene.value["mass"], 0.0) / most)], BLUE, 12)
    canvas.text((left, bottom - 0.05 * high), "mass", GREY, 11, "mm")
    canvas.text((-0.55 * high, 1.0 * high), f"{scene.value['velocity']:.1f} m/s", INK, 13)


def _cross(canvas: Canvas) -> None:
    far = 10 / canvas.scale
    canvas.line([(-far, 0), (far, 0)], GREY, 2)
    canvas.line([(0, -far), (0, far)], GREY, 2)


def _ground(canvas: Canvas, width: float) -> None:
    canvas.line([(-width, 0), (width, 0)], GREY, 4)
    canvas.line([(-0.08 * width, 0), (0.08 * width, 0)], GREEN, 6)


def _body(canvas: Canvas, at: Point, tilt: float, thrust: float, gimbal: float) -> None:
    """A rocket of fixed size in pixels, its lower end at `at`."""
    unit = 1 / canvas.scale

    def place(across: float, along: float, turn: float = 0.0, start: Point = at) -> Point:
        c, s = math.cos(tilt + turn), math.sin(tilt + turn)
        return start[0] + unit * (across * c - along * s), start[1] + unit * (across * s + along * c)

    if thrust > 0:
        flame = [place(-6, 0), place(0, -45 * thrust, gimbal), place(6, 0)]
        canvas.polygon(flame, ORANGE)
    canvas.polygon([place(-15, -4), place(-7, 16), place(7, 16), place(15, -4)], RED)
    canvas.polygon([place(-8, 0), place(-8, 44), place(0, 62), place(8, 44), place(8, 0)], BLUE)
    canvas.disc(place(0, 40), 4, WHITE)
