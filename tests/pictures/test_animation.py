"""Films: as many frames as asked, the same last picture as `draw`, nothing written when something is wrong."""

import sys

import numpy as np
import pytest
from PIL import Image

import optctl
from optctl.errors import ArgumentError, FileError
from optctl.pictures.render import draw
from optctl.problem.controller import RandomController


@pytest.fixture(scope="module")
def swing():
    problem = optctl.make("pendulum")
    starts = np.array([[3.0, 0.0], [1.0, 0.5], [-2.0, 1.0]])
    return problem, optctl.rollout(problem, RandomController(problem), starts, steps=20)


def test_a_gif_has_the_frames_asked_for_and_ends_with_the_end(swing, tmp_path):
    problem, trajectory = swing
    one = trajectory[0]
    path = optctl.animate(problem, one, tmp_path / "film.gif", fps=5, seconds=2.0)
    film = Image.open(path)
    assert film.n_frames == 10 and film.info["duration"] == 200
    film.seek(film.n_frames - 1)
    last = np.asarray(film.convert("RGB")).astype(int)
    assert np.abs(last - draw(problem, one.states, one.controls)).mean() < 2.0
    film.seek(0)
    first = np.asarray(film.convert("RGB")).astype(int)
    assert np.abs(first - draw(problem, one.states[:1], one.controls[:1])).mean() < 2.0


def test_a_batch_is_shown_side_by_side(swing, tmp_path):
    problem, trajectory = swing
    film = Image.open(optctl.animate(problem, trajectory, tmp_path / "film.gif", fps=2, seconds=1.0))
    assert film.size == (800, 800)


def test_an_mp4_plays(swing, tmp_path):
    import imageio_ffmpeg

    problem, trajectory = swing
    path = optctl.animate(problem, trajectory[0], tmp_path / "film.mp4", fps=10, seconds=1.0)
    about = next(imageio_ffmpeg.read_frames(str(path)))
    assert about["size"] == (400, 400) and about["duration"] == pytest.approx(1.0, abs=0.11)


def test_a_film_lasts_as_long_as_the_trajectory_within_limits(swing, tmp_path):
    problem, trajectory = swing  # one second, shown in two
    assert Image.open(optctl.animate(problem, trajectory[0], tmp_path / "film.gif", fps=4)).n_frames == 8


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"path": "film.avi"}, "`path` must end in .gif or .mp4, but is"),
        ({"fps": 0}, "`fps` must be an integer from 1 to 60, but is 0"),
        ({"seconds": -1.0}, "`seconds` must be positive and finite, but is -1.0"),
        ({"problem": optctl.make("cartpole")}, "`trajectory` must have 4 states, but has 2"),
        ({"params": [1.0]}, "`params` must have shape"),
    ],
)
def test_wrong_arguments(swing, tmp_path, change, sentence):
    problem, trajectory = swing
    given = {"problem": problem, "trajectory": trajectory[0], "path": "film.gif", **change}
    with pytest.raises(ArgumentError, match=sentence):
        optctl.animate(**{**given, "path": tmp_path / given["path"]})
    assert not list(tmp_path.iterdir())


def test_what_is_missing_is_named(swing, tmp_path, monkeypatch):
    problem, trajectory = swing
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ArgumentError, match=r"optctl\[video\]"):
        optctl.animate(problem, trajectory[0], tmp_path / "film.mp4")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot be written"):
        optctl.animate(problem, trajectory[0], tmp_path / "file" / "film.gif", seconds=0.1)
