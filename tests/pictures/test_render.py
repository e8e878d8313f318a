"""Pictures show the state: where the tip, the arrow, the bar or the body is."""

import numpy as np
import pytest

import optctl
from optctl.envs import CATALOGUE
from optctl.errors import ArgumentError
from optctl.pictures import planes
from optctl.pictures.canvas import BLUE, ORANGE, SIZE
from optctl.pictures.render import draw, picture
from optctl.problem.quantum import GATES, from_bloch, stack, stack_gate, to_bloch


def middle_of(image, colour):
    """Mean place (right, up) of the pixels of a colour, or of the paler one of what lies behind, in pixels from the middle."""
    pale = 255 + 0.6 * (np.array(colour) - 255)
    near = lambda c: np.abs(image - c).sum(axis=2) < 12
    rows, columns = np.nonzero(near(colour) | near(pale))
    return columns.mean() - SIZE / 2, SIZE / 2 - rows.mean()


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_problem_is_drawn_and_a_diverged_state_too(name):
    problem = optctl.make(name)
    path = problem.initial_state.sample(np.random.default_rng(0), 3)
    shown = draw(problem, path, np.zeros((2, problem.n_u)))
    assert shown.shape == (400, 400, 3) and shown.dtype == np.uint8
    assert len(np.unique(shown @ np.array([1, 2**8, 2**16]))) > 10  # colours
    assert draw(problem, np.full(problem.n_x, np.nan)).shape == shown.shape
    assert draw(problem, np.full(problem.n_x, 1e30)).shape == shown.shape


def test_what_has_a_picture_of_its_own():
    plain = {name for name in CATALOGUE if picture(optctl.make(name)) is planes.traces}
    assert plain == {"lqr-scalar", "dean", "discrete-scalar", "lqg", "flexible-beam"}


@pytest.mark.parametrize(
    ("ket", "side"),
    [([1, 0], (0, 1)), ([0, 1], (0, -1)), ([1, 1], (1, None)), ([1, -1], (-1, None)), ([1, 1j], (1, None))],
)
def test_a_qubit_points_where_its_bloch_vector_does(ket, side):
    state = np.array(ket, dtype=complex) / np.linalg.norm(ket)
    right, up = middle_of(draw(optctl.make("qubit-transfer"), stack(state)), ORANGE)
    if side[1] is None:
        assert np.sign(right) == side[0] and abs(right) > 10
    else:
        assert abs(right) < 3 and np.sign(up - 20) == side[1]
    density = to_bloch(state)
    same = draw(optctl.make("damped-qubit"), density)
    assert np.abs(middle_of(same, ORANGE)[0] - right) < 2


def test_a_gate_and_its_phases():
    problem = optctl.make("qubit-gate")
    identity = draw(problem, stack_gate(np.eye(2)))
    flipped = draw(problem, stack_gate(GATES["x"]))
    turned = draw(problem, stack_gate(1j * np.eye(2)))
    assert (identity != flipped).any() and (identity != turned).any()
    dark = lambda image: np.abs(image.astype(int) - 255).sum(axis=2) > 150
    assert dark(identity)[100, 110] and not dark(identity)[100, 290]
    assert dark(flipped)[100, 290] and not dark(flipped)[100, 110]


def test_a_density_matrix_shows_its_populations():
    problem = optctl.make("qubit-reset")
    rho = np.diag([0.0, 1.0, 0.0]).astype(complex)
    assert np.allclose(from_bloch(to_bloch(rho)), rho)
    assert (draw(problem, to_bloch(rho)) != draw(problem, to_bloch(np.diag([1.0, 0.0, 0.0])))).any()


def test_a_quadrotor_is_where_it_is():
    right, up = middle_of(draw(optctl.make("quadrotor"), [1.0, -0.5, 0.0, 0, 0, 0]), BLUE)
    assert right > 50 and up < -20
    level = draw(optctl.make("quadrotor"), [0.0, 0.0, 0.0, 0, 0, 0])
    tilted = draw(optctl.make("quadrotor"), [0.0, 0.0, 0.5, 0, 0, 0])
    rows, columns = np.nonzero(np.abs(tilted.astype(int) - BLUE).sum(axis=2) < 12)
    assert np.polyfit(columns, -rows, 1)[0] > 0.3  # counterclockwise: the right end is up
    assert (level != tilted).any()


def test_states_of_the_wrong_size():
    with pytest.raises(ArgumentError, match=r"`states` must have shape \(2,\) or \(K, 2\), but has shape \(3,\)"):
        draw(optctl.make("pendulum"), [0.0, 0.0, 0.0])
