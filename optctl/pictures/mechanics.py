"""Pendulums as rods, carts on a track, masses on springs, phases on a circle, a particle in a trap."""

from __future__ import annotations

import itertools
import math

import numpy as np

from optctl.pictures.canvas import (
    BLUE,
    CYCLE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    SIZE,
    Canvas,
    Scene,
    fade,
    trail,
)
from optctl.pictures.planes import plane, reach


def pendulum(canvas: Canvas, scene: Scene) -> None:
    """θ = 0 upright, positive counterclockwise; the arc is the torque. A goal angle is a ring."""
    canvas.look(1.4)
    canvas.disc((0, 0), 152, PALE, ring=2)
    if "goal_theta" in scene.parameter:
        goal = scene.parameter["goal_theta"]
        canvas.disc((-math.sin(goal), math.cos(goal)), 20, GREEN, ring=2)
    trail(canvas, np.column_stack([-np.sin(scene.path[:, 0]), np.cos(scene.path[:, 0])]), length=15)
    tip = (-math.sin(scene.value["theta"]), math.cos(scene.value["theta"]))
    canvas.line([(0, 0), tip], ORANGE, 12)
    canvas.disc(tip, 17, ORANGE)
    canvas.disc((0, 0), 7, INK)
    canvas.turn((0, 0), 0.34, scene.effort[0])


def cart(canvas: Canvas, scene: Scene) -> None:
    """A cart with one pole or several in a row; angles from hanging, each measured from the vertical."""
    angles = scene.named(r"angle\d*")
    lengths = [scene.parameter.get(f"length{i or ''}", 0.5) for i in range(len(angles) + 1)]
    lengths = lengths[1:] if len(angles) > 1 else lengths[:1]
    half = max(1.6, 1.25 * sum(lengths))
    far = np.abs(scene.path[:, 0]).max() + 0.3
    canvas.look(max(half, min(far, 3 * half)))
    low, high = (bound["position"] for bound in (_state_low(scene), _state_high(scene)))
    ends = [max(low, -1e3), min(high, 1e3)]
    canvas.line([(end, 0) for end in ends], PALE, 6)
    for end in ends:
        canvas.line([(end, -0.2), (end, 0.2)], GREY, 4)
    x, y = scene.value["position"], 0.0
    canvas.box((x, y), 64, 36, BLUE)
    for angle, length in zip(angles, lengths, strict=True):
        tip = (x + length * math.sin(angle), y - length * math.cos(angle))
        canvas.line([(x, y), tip], ORANGE, 8)
        canvas.disc((x, y), 6, INK)
        canvas.disc(tip, 12, ORANGE)
        x, y = tip
    x = scene.value["position"]
    canvas.arrow((x, -30 / canvas.scale), (x + 80 * scene.effort[0] / canvas.scale, -30 / canvas.scale))


def _state_low(scene: Scene) -> dict[str, float]:
    return dict(zip(scene.problem.state, scene.problem.state_low.tolist(), strict=True))


def _state_high(scene: Scene) -> dict[str, float]:
    return dict(zip(scene.problem.state, scene.problem.state_high.tolist(), strict=True))


def two_links(canvas: Canvas, scene: Scene) -> None:
    """θ₁ from hanging, θ₂ from the first link; arcs are the torques at shoulder and elbow."""
    first = scene.parameter.get("length1", 1.0)
    second = scene.parameter.get("length2", 2 * scene.parameter.get("center2", 0.5 * first))
    canvas.look(1.1 * (first + second))
    shoulder, path = (0.0, 0.0), scene.path
    total = path[:, 0] + path[:, 1]
    elbows = np.column_stack([first * np.sin(path[:, 0]), -first * np.cos(path[:, 0])])
    hands = elbows + np.column_stack([second * np.sin(total), -second * np.cos(total)])
    canvas.line([(-0.3, 0), (0.3, 0)], GREY, 3)
    if "goal_x" in scene.parameter:
        canvas.disc((scene.parameter["goal_x"], scene.parameter["goal_y"]), 13, GREEN, ring=2)
    trail(canvas, hands, length=25)
    elbow, hand = tuple(elbows[-1]), tuple(hands[-1])
    canvas.line([shoulder, elbow], BLUE, 12)
    canvas.line([elbow, hand], ORANGE, 10)
    canvas.disc(shoulder, 8, INK)
    canvas.disc(elbow, 7, INK)
    canvas.disc(hand, 9, ORANGE)
    joints = {"acrobot": [elbow], "pendubot": [shoulder]}.get(scene.problem.name, [shoulder, elbow])
    for joint, effort in zip(joints, scene.effort, strict=False):
        canvas.turn(joint, 0.2 * (first + second), effort)


def block(canvas: Canvas, scene: Scene) -> None:
    """One mass on a line, below it the plane of position and velocity with the path so far."""
    names = list(scene.problem.state)[:2]
    half = 1.4 * max(1e-3, float(np.abs(reach(scene)[0])), float(np.abs(scene.path[:, 0]).max()))
    canvas.look(half, (0.0, -0.55 * half))
    canvas.line([(-half, 0), (half, 0)], PALE, 5)
    canvas.line([(0, -0.06 * half), (0, 0.06 * half)], GREY, 2)
    x = scene.value[names[0]]
    if "stiffness" in scene.parameter:
        canvas.spring((-half, 22 / canvas.scale), (x - 20 / canvas.scale, 22 / canvas.scale))
        canvas.line([(-half, 0), (-half, 44 / canvas.scale)], GREY, 6)
    canvas.box((x, 22 / canvas.scale), 40, 40, BLUE)
    tip = x + 70 * scene.effort[0] / canvas.scale
    canvas.arrow((x, 56 / canvas.scale), (tip, 56 / canvas.scale))
    plane(canvas, scene, (0, 1), (0.06, 0.33, 0.94, 0.98))


def chain(canvas: Canvas, scene: Scene) -> None:
    """Masses q₁ … q_n in a row between two walls, springs between them, displaced along the row; arrows are forces."""
    shift = scene.named(r"q\d+")
    n = len(shift)
    canvas.look(0.53 * (n + 1), (0.5 * (n + 1), 0.0))
    most = max(1.0, float(np.abs(scene.path[:, :n]).max()))
    places = [0.0, *(i + 1 + 0.42 * q / most for i, q in enumerate(shift)), n + 1.0]
    size = min(60.0, 0.42 * SIZE / (n + 1))
    margin = 0.5 * size / canvas.scale
    for wall in (0.0, n + 1.0):
        canvas.line([(wall, -1.6 * margin), (wall, 1.6 * margin)], GREY, 10)
    for i, (a, b) in enumerate(itertools.pairwise(places)):
        canvas.spring((a + margin * (i > 0), 0.0), (b - margin * (i < n), 0.0), turns=max(3, 14 // (n + 1)))
    for i in range(n):
        canvas.line([(i + 1, -1.9 * margin), (i + 1, -1.6 * margin)], GREY, 2)
        canvas.box((places[i + 1], 0.0), size, size, CYCLE[i % len(CYCLE)])
    for i, effort in enumerate(scene.effort[:n]):
        y = 1.6 * margin
        canvas.arrow((places[i + 1], y), (places[i + 1] + 0.45 * effort, y))


def ring(canvas: Canvas, scene: Scene) -> None:
    """Oscillators q₁ … q_n around a circle, displaced outwards where positive, springs between neighbours; arrows are forces."""
    canvas.look(1.6)
    shift, n = scene.named(r"q\d+"), len(scene.named(r"q\d+"))
    most = max(1.0, float(np.abs(scene.path[:, :n]).max()))
    way = [(math.sin(2 * math.pi * i / n), math.cos(2 * math.pi * i / n)) for i in range(n)]
    canvas.disc((0, 0), canvas.scale, PALE, ring=2)
    places = [((1 + 0.35 * q / most) * x, (1 + 0.35 * q / most) * y) for (x, y), q in zip(way, shift, strict=True)]
    for a, b in zip(places, [*places[1:], places[0]], strict=True):
        canvas.spring(a, b, turns=max(3, 24 // n))
    for i, ((x, y), place) in enumerate(zip(way, places, strict=True)):
        effort = 0.35 * float(scene.effort[i]) if i < len(scene.effort) else 0.0
        canvas.arrow(place, (place[0] + effort * x * 1.6, place[1] + effort * y * 1.6))
        canvas.disc(place, 14, CYCLE[i % len(CYCLE)])


def phases(canvas: Canvas, scene: Scene) -> None:
    """Phases as points on the unit circle; the arrow is their mean, whose length is the order parameter r."""
    canvas.look(1.35)
    canvas.disc((0, 0), canvas.scale, PALE, ring=3)
    angles = np.array(scene.named(r"theta\d+"))
    for i, angle in enumerate(angles):
        canvas.disc((math.cos(angle), math.sin(angle)), 11, CYCLE[i % len(CYCLE)])
    mean = (float(np.cos(angles).mean()), float(np.sin(angles).mean()))
    canvas.arrow((0, 0), mean, INK, 4)
    canvas.text((-1.25, -1.25), f"r = {math.hypot(*mean):.2f}", INK, 13)


def trap(canvas: Canvas, scene: Scene) -> None:
    """A Brownian particle, or the width of its distribution, in a harmonic trap; below, position and trap against each other."""
    name, other = list(scene.problem.state)[:2]
    most = reach(scene)
    centre = scene.value[other] if other == "centre" else 0.0
    stiffness = scene.value[other] if other == "stiffness" else scene.parameter.get("stiffness", 1.0)
    spread = name == "variance"
    half = 1.5 * max(1e-3, float(np.sqrt(most[0]) * 2 if spread else max(most[0], most[1] * (other == "centre"))))
    canvas.look(half, (0.0, -0.35 * half))
    xs = np.linspace(-half, half, 81)
    floor = -0.25 * half
    well = floor + half * np.minimum(0.5 * max(stiffness, 0.0) * ((xs - centre) / half) ** 2, 2.0)
    canvas.line(np.column_stack([xs, well]), GREY, 3)
    if spread:
        width = math.sqrt(max(scene.value[name], 1e-12))
        bell = floor + 0.35 * half * np.exp(-0.5 * (xs / width) ** 2)
        canvas.polygon([*np.column_stack([xs, bell]), (half, floor), (-half, floor)], fade(ORANGE, 0.6))
    else:
        x = scene.value[name]
        canvas.disc(
            (x, floor + half * min(0.5 * stiffness * ((x - centre) / half) ** 2, 2.0) + 9 / canvas.scale), 9, ORANGE
        )
    plane(canvas, scene, (0, 1), (0.08, 0.64, 0.92, 0.98))
