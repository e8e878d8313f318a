"""The pictures: sane sizes, the right curves in them, units on the axes, and no trace in matplotlib's global state."""

from __future__ import annotations

import functools
import struct

import matplotlib
import numpy as np
import pytest

import optctl
from optctl.comparison import plots
from optctl.comparison.compare import compare
from optctl.comparison.curves import check_curve, learning_curves
from optctl.comparison.result import Reference
from optctl.errors import ArgumentError
from optctl.problem.controller import FeedbackController

PICTURES = (plots.trajectories, plots.phase_portrait, plots.gap_summary, plots.gap_distribution, plots.paired_costs)


@functools.cache
def case(name: str):
    problem = optctl.make(name)
    push = FeedbackController(lambda x, t: np.full((len(x), problem.n_u), 0.2), "push")
    broken = FeedbackController(lambda x, t: np.full((len(x), problem.n_u), np.nan), "broken")
    late = FeedbackController(
        lambda x, t: np.where((x[:, :1] > 0) & (t > 1), np.nan, np.zeros((len(x), problem.n_u))), "late"
    )
    starts = problem.initial_state.sample(np.random.default_rng(0), 8)
    path = optctl.rollout(problem, push, starts)
    reference = Reference(name="optimal", costs=path.total_cost, trajectories=tuple(path[i] for i in range(8)))
    return compare(
        problem,
        {"optimal": reference, "zero": "zero", "late": late, "broken": broken},
        starts=starts,
        reference=reference,
    )


@pytest.fixture(scope="module")
def pendulum():
    return case("pendulum")


def texts(figure) -> str:
    return " | ".join(t.get_text() for t in figure.findobj(matplotlib.text.Text))


@pytest.mark.parametrize("draw", PICTURES)
@pytest.mark.parametrize("name", ["pendulum", "lqr-scalar", "dean"])
def test_every_picture_is_a_png_of_sane_size(draw, name):
    data = plots.png(draw, case(name))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert 900 <= width <= 2000 and 300 <= height <= 2400
    assert 5_000 < len(data) < 1_500_000


@pytest.mark.parametrize("draw", PICTURES)
def test_one_start_and_only_failures_can_be_drawn(draw):
    problem = optctl.make("double-integrator")
    broken = FeedbackController(lambda x, t: np.full((len(x), 1), np.nan), "broken")
    assert plots.png(draw, compare(problem, [broken], starts=[1.0, 0.0], reference=None))
    assert plots.png(draw, compare(problem, ["zero"], starts=[1.0, 0.0], reference=None))
    assert plots.png(draw, compare(problem, ["zero"], starts=[1.0, 0.0], reference=[9.0]))


def test_no_global_state_is_left_behind(pendulum):
    with matplotlib.rc_context({"font.size": 33.0, "axes.grid": False}):
        before, backend = dict(matplotlib.rcParams), matplotlib.get_backend()
        for draw in PICTURES:
            plots.png(draw, pendulum)
        assert dict(matplotlib.rcParams) == before and matplotlib.get_backend() == backend
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []


def test_axes_carry_names_and_units(pendulum):
    assert all(
        label in texts(plots.trajectories(pendulum))
        for label in ("theta [rad]", "omega [rad/s]", "torque [N m]", "time [s]")
    )
    assert "omega [rad/s]" in texts(plots.phase_portrait(pendulum))
    assert "theta [rad]" in texts(plots.phase_portrait(pendulum, ["omega", "theta"]))


def test_one_state_is_drawn_against_the_control():
    figure = plots.phase_portrait(case("lqr-scalar"))
    labels = {axis.get_ylabel() for axis in figure.axes} | {axis.get_xlabel() for axis in figure.axes}
    assert {"x", "u"} <= labels


def test_trajectories_draw_the_numbers_and_hold_the_controls(pendulum):
    figure = plots.trajectories(pendulum)
    start = pendulum.shown_starts(3)[0]
    path = pendulum["optimal"].trajectory(start)
    first = next(line for line in figure.axes[0].get_lines() if line.get_color() == plots.INK)
    assert np.array_equal(first.get_ydata(), path.states[:, 0]) and np.array_equal(first.get_xdata(), path.times)
    torque = next(line for line in figure.axes[6].get_lines() if line.get_color() == plots.INK)
    assert torque.get_drawstyle() == "steps-post" and np.array_equal(torque.get_ydata()[:-1], path.controls[:, 0])


def test_what_failed_everywhere_has_no_line_and_bounds_have_one(pendulum):
    figure = plots.trajectories(pendulum)
    assert "broken" not in texts(figure)
    heights = {float(line.get_ydata()[0]) for line in figure.axes[6].get_lines() if len(line.get_ydata()) == 2}
    assert heights == {-2.0, 2.0}


def test_the_distribution_never_reaches_all_for_one_that_fails(pendulum):
    figure = plots.gap_distribution(pendulum)
    lines = {line.get_color(): line for line in figure.axes[0].get_lines()}
    color = plots.looks(pendulum)["late"]["color"]
    share = 100 * np.isfinite(pendulum["late"].costs).mean()
    assert 0 < share < 100 and lines[color].get_ydata()[-1] == pytest.approx(share)


def test_shown_starts_go_from_easy_to_hard(pendulum):
    shown = pendulum.best[pendulum.shown_starts(3)]
    assert (np.diff(shown) > 0).all() and len(set(pendulum.shown_starts(24))) == 8


def test_learning_curves_show_seeds_steps_seconds_and_the_optimum(pendulum):
    curves = [
        {"name": "sac", "steps": [0, 10, 20], "seconds": [[0, 1, 2], [0, 2, 4]], "return": [[-9, -6, -3], [-7, -4, -1]]}
    ]
    figure = learning_curves(pendulum, curves)
    seconds, steps = figure.axes
    line = steps.get_lines()[0]
    assert line.get_xdata().tolist() == [0, 10, 20] and line.get_ydata().tolist() == [
        8,
        5,
        2,
    ]  # mean of two seeds, as cost
    # After 2 s the first seed is at 3 and the second, half as fast, at 4: nothing is drawn beyond.
    assert seconds.get_lines()[0].get_xdata()[-1] == 2 and seconds.get_lines()[0].get_ydata()[-1] == 3.5
    assert all(np.isclose(axis.get_lines()[-1].get_ydata(), np.nanmean(pendulum.best)).all() for axis in figure.axes)
    assert plots.png(learning_curves, None, curves)


@pytest.mark.parametrize(
    ("curve", "message"),
    [
        ({"steps": [1]}, "hold mappings with a name"),
        ({"name": "a", "steps": [1], "seconds": [1]}, "`a` lacks `return`"),
        ({"name": "a", "steps": [1], "seconds": [1], "cost": [1, 2]}, "rising `steps` of `a`"),
        ({"name": "a", "steps": [1, 2], "seconds": [2, 1], "cost": [1, 2]}, "rising `seconds` of `a`"),
    ],
)
def test_a_wrong_curve_is_one_clear_sentence(curve, message):
    with pytest.raises(ArgumentError) as error:
        check_curve(curve)
    assert message in str(error.value)


def test_a_failed_evaluation_is_worst_in_a_curve():
    checked = check_curve({"name": "a", "steps": [0, 1], "seconds": [0, 1], "return": [-1.0, np.nan]})
    assert checked["cost"][0].tolist() == [1.0, np.inf]
