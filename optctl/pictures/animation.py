"""Films of a trajectory: GIF by Pillow, MP4 by imageio-ffmpeg (`pip install "optctl[video]"`), drawn by `render.draw`."""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from optctl.errors import ArgumentError, require
from optctl.files import check_writable, write_atomically
from optctl.pictures.render import draw
from optctl.problem import Problem, check_problem
from optctl.problem.controller import check_params
from optctl.problem.trajectory import Trajectory

FORMATS = (".gif", ".mp4")
_MOST = 16
_SHORTEST, _LONGEST = 2.0, 15.0  # seconds of film, where the trajectory's own duration would not do


def animate(
    problem: Problem,
    trajectory: Trajectory,
    path: str | Path,
    *,
    params: object = None,
    fps: int = 25,
    seconds: float | None = None,
) -> Path:
    """Write a film of `trajectory` to `path`, which ends in .gif or .mp4; up to 16 episodes of a batch run side by side.

    `params` (1, n_p) or (B, n_p) are the plants' parameters, the nominal ones by default. The film lasts `seconds`, by default the
    trajectory's duration where that lies between 2 and 15 s. A frame shows the state that the trajectory reached last, at most
    `fps` of them a second. A GIF plays for ever.
    """
    check_problem(problem)
    trajectory = getattr(trajectory, "trajectory", trajectory)  # a solution is one
    path = Path(path)
    require(path.suffix.lower() in FORMATS, "path", f"end in {' or '.join(FORMATS)}", f"is {str(path)!r}")
    require(isinstance(fps, int) and 1 <= fps <= 60, "fps", "be an integer from 1 to 60", f"is {fps!r}")
    require(seconds is None or 0 < seconds < math.inf, "seconds", "be positive and finite", f"is {seconds!r}")
    members = [trajectory] if not trajectory.batch_shape else [trajectory[i] for i in range(len(trajectory.states))]
    require(1 <= len(members) <= _MOST, "trajectory", f"hold at most {_MOST} episodes", f"holds {len(members)}")
    width = members[0].states.shape[-1]
    require(width == problem.n_x, "trajectory", f"have {problem.n_x} states", f"has {width}")
    plants = np.broadcast_to(check_params(problem, params, len(members)), (len(members), problem.n_p))
    if seconds is None:
        seconds = min(max(float(np.ptp(members[0].times)), _SHORTEST), _LONGEST)
    frames = _frames(problem, members, plants, num=max(2, round(fps * seconds)))
    check_writable(path.parent)
    write_atomically(path, _gif(frames, fps) if path.suffix.lower() == ".gif" else _mp4(frames, fps))
    return path


def _frames(problem: Problem, members: list[Trajectory], plants: np.ndarray, num: int) -> Iterator[np.ndarray]:
    """Pictures (height, width, 3), uint8, at `num` equal intervals of time from start to end."""
    columns = math.ceil(math.sqrt(len(members)))
    rows = math.ceil(len(members) / columns)
    for fraction in np.linspace(0.0, 1.0, num):
        tiles = []
        for member, plant in zip(members, plants, strict=True):
            times = member.times if member.times.ndim == 1 else member.times[0]
            now = times[0] + fraction * (times[-1] - times[0])
            k = int(np.searchsorted(times, now * (1 + 1e-12), side="right")) - 1
            tiles.append(draw(problem, member.states[: k + 1], member.controls[: k + 1], plant))
        tiles += [np.full_like(tiles[0], 255)] * (rows * columns - len(tiles))
        yield np.vstack([np.hstack(tiles[r * columns : (r + 1) * columns]) for r in range(rows)])


def _gif(frames: Iterator[np.ndarray], fps: int) -> bytes:
    """One palette for all frames, of white and what a sample of them shows: colours do not flicker."""
    images = [Image.fromarray(frame) for frame in frames]
    sample = Image.fromarray(np.vstack([np.asarray(image) for image in images[:: max(1, len(images) // 8)]]))
    colours = np.reshape(sample.quantize(127, dither=Image.Dither.NONE).getpalette() or [], (-1, 3))
    colours = colours[colours.min(axis=1) < 248]  # Pillow takes the nearest only roughly: nothing beside white itself
    palette = Image.new("P", (1, 1))
    palette.putpalette([255, 255, 255, *colours.ravel().tolist()])
    first, *others = (image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images)
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=round(1000 / fps), loop=0, optimize=False)
    return buffer.getvalue()


def _mp4(frames: Iterator[np.ndarray], fps: int) -> bytes:
    try:
        from imageio_ffmpeg import write_frames
    except ImportError:
        raise ArgumentError(
            'Writing .mp4 needs imageio-ffmpeg: `pip install "optctl[video]"`, or choose a path that ends in .gif.'
        ) from None
    first = next(frames)
    height, width, _ = first.shape
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        writer = write_frames(str(film), (width, height), fps=fps, macro_block_size=2)
        writer.send(None)
        writer.send(np.ascontiguousarray(first))
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
        writer.close()
        return film.read_bytes()
