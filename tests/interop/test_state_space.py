"""State-space models of scipy and python-control ↔ problems, against those libraries' own Riccati and simulation."""

import control
import numpy as np
import pytest
import scipy.linalg
import scipy.signal

import optctl
import optctl.solvers
from optctl.errors import ArgumentError
from optctl.interop import from_state_space, to_control, to_scipy
from optctl.interop.linear import matrices
from optctl.problem.controller import ZeroController, rollout

A, B, C = np.array([[0.0, 1.0], [-2.0, -0.3]]), np.array([[0.0], [1.5]]), np.array([[1.0, 0.0]])
Q, R = np.diag([3.0, 1.0]), np.array([[0.5]])


def test_the_optimum_of_a_continuous_import_is_that_of_the_riccati_equation():
    problem = from_state_space(scipy.signal.StateSpace(A, B, np.eye(2), np.zeros((2, 1))), Q, R, dt=0.01, steps=2000)
    assert problem.integrator == "exponential" and problem.horizon == "infinite"
    start = np.array([1.0, -0.5])
    value = start @ scipy.linalg.solve_continuous_are(A, B, Q, R) @ start
    # Controls held over dt = 0.01 cost more than the continuous optimum by O(dt²); the tail beyond 20 s is nothing.
    assert optctl.solve(problem, x0=start).trajectory.total_cost == pytest.approx(value, rel=1e-4)


def test_a_stiff_plant_is_sampled_exactly_and_without_substeps():
    # An aircraft pump: rates from 1e-6 to 7639 1/s, held over 10 ms; scipy samples it by an exponential of its own.
    a = [
        [-7639.43726, 0.320058055, -23077.4129, 0],
        [6, 0, 0, 0],
        [0, 0, -10, 0],
        [5.06144301e-3, -5.82851621e-5, 0, 0],
    ]
    system = scipy.signal.StateSpace(a, [[9.54929659, 0], [0, 0], [0, 10], [0, 0]], np.eye(4), np.zeros((4, 2)))
    problem = from_state_space(system, dt=0.01, steps=50)
    assert problem.substeps == 1 and problem.step_function.n_instructions() < 200
    gain, sampled = optctl.solvers.lqr(problem), system.to_discrete(0.01)
    assert (
        pytest.approx(sampled.A, abs=1e-10) == gain.matrices.A
        and pytest.approx(sampled.B, abs=1e-10) == gain.matrices.B
    )
    of_the_flow = optctl.solvers.lqr(problem, discretised=False)
    known = [[6.262413e-4, 1.588182e-3, -2.628618e-3, -1.586777e-3], [-2.752682e-3, -1.000908, 2.834703, 0.999999]]
    assert pytest.approx(np.array(known), rel=1e-5) == of_the_flow.K  # python-control's lqr


def test_a_mode_that_dies_within_one_interval_has_no_gain():
    # x' = −50 x + u, ∫ x² + u² dt: the exact sampled gain solves the scalar Riccati equation of a = e^(−10), b = (1 − a)/50, …
    problem = from_state_space(
        scipy.signal.StateSpace([[-50.0]], [[1.0]], [[1.0]], [[0.0]]), dt=0.2, steps=10, substeps=1
    )
    a, b = np.exp(-10), (1 - np.exp(-10)) / 50
    q = (1 - a**2) / 100  # ∫ e^(−100 t) dt
    n = (1 - a) ** 2 / 5000  # ∫ e^(−50 t) (1 − e^(−50 t))/50 dt
    r = 0.2 + (0.2 - 2 * (1 - a) / 50 + (1 - a**2) / 100) / 2500
    p = scipy.linalg.solve_discrete_are(
        np.array([[a]]), np.array([[b]]), np.array([[q]]), np.array([[r]]), s=np.array([[n]])
    ).item()
    assert optctl.solvers.lqr(problem).K.item() == pytest.approx((b * p * a + n) / (r + b * p * b), rel=1e-9)
    assert optctl.solve(problem, [[1.0], [0.5]]).values[0] == pytest.approx(p, rel=1e-6)


def test_a_discrete_import_has_the_discrete_riccati_cost():
    system = scipy.signal.StateSpace([[1.1, 0.2], [0.0, 0.9]], [[0.0], [1.0]], np.eye(2), np.zeros((2, 1)), dt=0.5)
    problem = from_state_space(system, Q, R, steps=200)
    assert problem.discrete and problem.dt == 0.5
    start = np.array([0.4, -0.8])
    value = start @ scipy.linalg.solve_discrete_are(system.A, system.B, Q, R) @ start
    assert optctl.solve(problem, x0=start).trajectory.total_cost == pytest.approx(value, rel=1e-9)


def test_the_free_motion_is_scipys():
    system = scipy.signal.StateSpace(A, B, C, [[0.0]])
    problem = from_state_space(system, dt=0.1, steps=50)
    start = [1.0, 0.0]
    times, y, _ = scipy.signal.lsim(system, np.zeros(51), np.arange(51) * 0.1, X0=start)
    path = rollout(problem, ZeroController(problem), start)
    observed = np.array(problem.observation_function(path.states[0].T, [], 0.0)).ravel()
    assert observed == pytest.approx(y, abs=1e-9) and path.times == pytest.approx(times)


def test_python_controls_names_and_time_bases_are_kept():
    system = control.ss(A, B, C, 0, inputs=["force"], outputs=["angle"], states=["angle", "rate"], name="arm")
    problem = from_state_space(system, Q, R, dt=0.05)
    assert problem.name == "arm" and list(problem.state) == ["angle", "rate"] and list(problem.control) == ["force"]
    assert problem.y_names == ("angle",) and not problem.discrete
    back = to_control(problem)
    assert back.state_labels == ["angle", "rate"] and back.input_labels == ["force"] and back.output_labels == ["angle"]
    assert back.isctime() and np.allclose(back.A, A) and np.allclose(back.B, B) and np.allclose(back.C, C)
    assert from_state_space(control.ss([[0.5]], [[1.0]], [[1.0]], [[0.0]], True)).dt == 1.0
    sampled = to_control(from_state_space(control.ss([[0.5]], [[1.0]], [[1.0]], [[0.0]], 0.2)))
    assert sampled.dt == 0.2 and sampled.A == 0.5


def test_mimo_labels_of_python_control_become_names():
    problem = from_state_space(control.rss(3, 2, 2, strictly_proper=True), dt=0.1)
    assert problem.n_x == 3 and problem.n_u == 2 and len(problem.y_names) == 2


def test_labels_that_differ_by_brackets_stay_apart():
    names = {"states": ["x[0]", "x0"], "inputs": ["a", "b"]}
    problem = from_state_space(control.ss(-np.eye(2), np.eye(2), np.eye(2), np.zeros((2, 2)), **names), dt=0.1)
    assert list(problem.state) == ["x_0", "x0"]
    names["states"] = ["x[0]", "x0", "x_0"]
    with pytest.raises(ArgumentError, match=r"`system` must have different state_labels, but has x\[0\], x0, x_0"):
        from_state_space(control.ss(-np.eye(3), np.eye(3)[:, :2], np.eye(3), np.zeros((3, 2)), **names), dt=0.1)


@pytest.mark.parametrize("name", ["mass-spring", "double-integrator", "dean", "oscillator-ring"])
def test_linear_problems_of_the_catalogue_make_the_round_trip(name):
    problem = optctl.make(name)
    system = to_scipy(problem)
    again = from_state_space(system, dt=None if problem.discrete else problem.dt)
    for mine, theirs in zip(matrices(again), matrices(problem), strict=True):
        assert np.array_equal(mine, theirs)
    assert (system.dt == problem.dt) if problem.discrete else system.dt is None
    x, u = np.arange(1.0, problem.n_x + 1), np.arange(1.0, problem.n_u + 1)
    one, two = (np.array(p.step_function(x, u, p.param_values, 0)[0]).ravel() for p in (problem, again))
    assert one == pytest.approx(two, abs=1e-10)


def system(**changes):
    return scipy.signal.StateSpace(*({"A": A, "B": B, "C": C, "D": [[0.0]]} | changes).values())


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"system": system()}, "`dt` must be given for a continuous system: the control interval .s., but is None"),
        ({"system": system(D=[[1.0]]), "dt": 0.1}, "`system` must have D = 0: what is observed is the state"),
        ({"system": "plant", "dt": 0.1}, "`system` must have matrices A, B, C, D, as a StateSpace has, but is 'plant'"),
        ({"system": system(), "Q": np.eye(3), "dt": 0.1}, r"`Q` must have shape \(2, 2\), but has shape \(3, 3\)"),
        ({"system": system(), "Q": [[1, 1], [0, 1]], "dt": 0.1}, "`Q` must be symmetric, but is not"),
        ({"system": system(), "Q": -np.eye(2), "dt": 0.1}, "`Q` must be positive semidefinite, but has the eigenvalue -1"),
        ({"system": system(), "R": [[0.0]], "dt": 0.1}, "`R` must be positive definite, but has the eigenvalue 0"),
        ({"system": system().to_discrete(0.2), "dt": 0.1}, "`dt` must be absent or 0.2, the discrete system's own, but is 0.1"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported(given, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        from_state_space(**given)


@pytest.mark.parametrize("name", ["pendulum", "driven-oscillator", "qubit-transfer"])
def test_what_is_not_linear_cannot_be_exported(name):
    with pytest.raises(ArgumentError, match="`problem` must have linear and time-invariant dynamics"):
        to_scipy(optctl.make(name))
    with pytest.raises(ArgumentError, match="linear and time-invariant observation"):
        to_scipy(optctl.make("mass-spring").replace(observation=lambda x, p: x[0] ** 2))
