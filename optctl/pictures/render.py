"""Pictures of a state and of the way to it: pendulums as rods, carts on a track, masses on springs, a qubit on its Bloch sphere.

`PICTURES` says by the problem's name and those of its states how it is drawn, so that a problem of one's own that names its states
alike, or a catalogue problem with states added, is drawn alike; every other problem is drawn as the traces of its states.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from optctl.errors import require
from optctl.pictures import flight, mechanics, planes, quantum
from optctl.pictures.canvas import Canvas, Scene
from optctl.problem import Problem

PICTURES: dict[str, Callable[[Canvas, Scene], None]] = {
    r".*: theta omega\b": mechanics.pendulum,
    r".*: position angle": mechanics.cart,
    r".*: angle1 angle2 rate1 rate2\b": mechanics.two_links,
    r".*: position velocity$": mechanics.block,
    r"oscillator-ring.*: q1 ": mechanics.ring,
    r".*: q1 (q\d+ )*v1\b": mechanics.chain,
    r".*: theta1 theta2\b": mechanics.phases,
    r".*: (position|variance) (centre|stiffness)$": mechanics.trap,
    r".*: x z tilt vx vz rate mass$": flight.rocket,
    r".*: x z tilt vx vz rate\b": flight.quadrotor,
    r".*: height velocity mass$": flight.lander,
    r".*: re_0 re_1 im_0 im_1\b": quantum.bloch,
    r".*: bloch_x bloch_y bloch_z\b": quantum.bloch,
    r".*: re_\d re_\d .*im_\d": quantum.populations,
    r".*: re_\d\d .*im_\d\d\b": quantum.gate,
    r".*: r1 r2 r3 r4 r5 r6 r7 r8$": quantum.density,
    r".*: voltage recovery$": planes.phase_plane,
    r".*: x y z$": planes.butterfly,
}
"""How a problem is drawn: the first regular expression that matches the beginning of "name: state names"."""


def draw(problem: Problem, states: Any, controls: Any = None, params: Any = None) -> np.ndarray:
    """A picture (400, 400, 3), uint8, of the last of `states` (n_x,) or (K, n_x); the others are its past, at intervals of dt.

    `controls` (n_u,) or (K − 1, n_u) led from state to state; `params` (n_p,) are those of the plant if not the nominal ones.
    """
    path = np.atleast_2d(np.asarray(states, dtype=np.float64))
    given = np.zeros((0, problem.n_u)) if controls is None else np.asarray(controls, dtype=np.float64)
    given = given.reshape(-1, problem.n_u)
    require(
        path.ndim == 2 and path.shape[1] == problem.n_x,
        "states",
        f"have shape ({problem.n_x},) or (K, {problem.n_x})",
        f"has shape {np.shape(states)}",
    )
    values = problem.param_values if params is None else np.asarray(params, dtype=np.float64)
    scene = Scene(problem, np.nan_to_num(path, nan=0.0, posinf=1e6, neginf=-1e6), given, values)
    canvas = Canvas()
    picture(problem)(canvas, scene)
    return canvas.pixels()


def picture(problem: Problem) -> Callable[[Canvas, Scene], None]:
    """How this problem is drawn."""
    names = f"{problem.name}: {' '.join(problem.state)}"
    return next((drawing for pattern, drawing in PICTURES.items() if re.match(pattern, names)), planes.traces)
