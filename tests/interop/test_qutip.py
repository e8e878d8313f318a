"""Quantum problems against QuTiP's own solvers, both ways."""

import casadi as ca
import numpy as np
import pytest
import qutip

import optctl
from optctl.errors import ArgumentError
from optctl.interop import from_qutip, to_qutip
from optctl.interop.qutip import generators, to_qobj
from optctl.problem.controller import PlanController, rollout

SX, SY, SZ = qutip.sigmax(), qutip.sigmay(), qutip.sigmaz()
UP, DOWN = qutip.basis(2, 0), qutip.basis(2, 1)


def path(problem, controls):
    """States (T + 1, n_x) under the controls (T, n_u)."""
    start = problem.initial_state.location[None]
    plan = rollout(problem, _plan(problem, controls), start, steps=len(controls))
    return plan.states[0]


def _plan(problem, controls):
    steps, n_x = len(controls), problem.n_x
    trajectory = optctl.Trajectory(
        times=np.arange(steps + 1) * problem.dt, states=np.tile(problem.initial_state.location, (1, steps + 1, 1)),
        controls=np.asarray(controls)[None], costs=np.zeros((1, steps)), terminal_cost=np.zeros(1),
    )  # fmt: skip
    assert trajectory.states.shape == (1, steps + 1, n_x)
    return PlanController(trajectory, problem.dt)


def wave(problem, steps):
    t = np.arange(steps)[:, None] * problem.dt
    return 0.7 * problem.action_high * np.sin(2.0 * t + np.arange(problem.n_u))


TIGHT = {"atol": 1e-12, "rtol": 1e-10, "nsteps": 100_000}


def evolve(problem, controls):
    """QuTiP's states at the ends of the intervals."""
    evolution = to_qutip(problem, controls)
    times = np.arange(len(controls) + 1) * problem.dt
    start = to_qobj(problem, problem.initial_state.location)[0]
    options = TIGHT | {"max_step": problem.dt / 2}
    if evolution.issuper:
        return qutip.mesolve(evolution, start, times, options=options).states
    return qutip.sesolve(evolution, start, times, options=options).states


@pytest.mark.parametrize(
    "name", ["qubit-transfer", "lambda-system", "qubit-gate", "transmon-gate", "damped-qubit", "qubit-reset"]
)
def test_catalogue_problems_exported_to_qutip_move_alike(name):
    problem = optctl.make(name)
    controls = wave(problem, 12)
    mine, theirs = to_qobj(problem, path(problem, controls)), evolve(problem, controls)
    assert max((a - b).norm("max") for a, b in zip(mine, theirs, strict=True)) < 1e-6
    assert (mine[0] - mine[-1]).norm("max") > 0.05  # it has moved


def test_a_transfer_of_kets_imported_from_qutip():
    h0, h1 = 0.5 * SZ + 0.2 * SY, 0.5 * SX
    problem = from_qutip(
        h0, {"field": h1}, initial=UP, target=DOWN, dt=0.1, steps=30, control_bounds={"field": (-3, 3)}
    )
    assert problem.n_x == 4 and list(problem.control) == ["field"]
    controls = wave(problem, 30)
    states = path(problem, controls)
    times = np.arange(31) * 0.1
    pulse = qutip.coefficient(np.append(controls[:, 0], 0.0), tlist=times, order=0)
    theirs = qutip.sesolve([h0, [h1, pulse]], UP, times, options=TIGHT | {"max_step": 0.05}).states
    assert np.abs(states[-1, :2] + 1j * states[-1, 2:] - theirs[-1].full().ravel()).max() < 1e-6
    cost = float(problem.terminal_cost_function(states[-1], [], 3.0))
    assert cost == pytest.approx(1 - abs(DOWN.overlap(theirs[-1])) ** 2, abs=1e-6)


def test_an_open_system_imported_from_qutip():
    decay = [np.sqrt(0.3) * qutip.destroy(2), np.sqrt(0.1) * SZ]
    problem = from_qutip(0.4 * SZ, [SX], initial=UP, target=DOWN, c_ops=decay, dt=0.1, steps=20)
    controls = wave(problem, 20)
    times = np.arange(21) * 0.1
    pulse = qutip.coefficient(np.append(controls[:, 0], 0.0), tlist=times, order=0)
    theirs = qutip.mesolve([0.4 * SZ, [SX, pulse]], UP, times, decay, options=TIGHT | {"max_step": 0.05}).states
    mine = to_qobj(problem, path(problem, controls))
    assert max((a - b).norm("max") for a, b in zip(mine, theirs, strict=True)) < 1e-6


def test_a_gate_imported_from_qutip_has_an_optimum_at_zero_infidelity():
    # A resonant qubit with one control: exp(−iπσ_x/2) takes the pulse area π/2.
    problem = from_qutip(0 * SZ, [SX], initial=qutip.qeye(2), target=SX, dt=0.1, steps=10, energy=0.0)
    states = path(problem, np.full((10, 1), np.pi / 2))
    assert float(problem.terminal_cost_function(states[-1], [], 1.0)) == pytest.approx(0.0, abs=1e-12)
    assert float(problem.terminal_cost_function(states[5], [], 0.5)) == pytest.approx(0.5, abs=1e-12)  # cos² of π/4


def test_a_qobjevo_gives_its_constant_part_as_the_drift_and_the_others_as_controls():
    evolution = qutip.QobjEvo([SZ, [SX, lambda t: np.sin(t)], [SY, np.ones(3)]], tlist=[0, 1, 2])
    problem = from_qutip(evolution, initial=UP, target=DOWN, dt=0.1, steps=5)
    found = generators(problem)
    assert problem.n_u == 2 and (found[0] - SZ).norm() < 1e-12
    assert min((found[1] - SX).norm(), (found[2] - SX).norm()) < 1e-12
    assert (found[1] + found[2] - SX - SY).norm() < 1e-12


def test_tensor_products_are_flattened():
    two = qutip.tensor(SZ, SZ)
    problem = from_qutip(
        two,
        [qutip.tensor(SX, qutip.qeye(2))],
        initial=qutip.tensor(UP, UP),
        target=qutip.tensor(DOWN, UP),
        dt=0.1,
        steps=5,
    )
    assert problem.n_x == 8 and (generators(problem)[0].full() == two.full()).all()


TRANSFER = {"initial": UP, "target": DOWN, "dt": 0.1, "steps": 5}


@pytest.mark.parametrize(
    ("arguments", "changes", "sentence"),
    [
        ((qutip.destroy(2), [SX]), {}, "`drift` must be Hermitian, but differs from its adjoint by 1"),
        ((SZ, [qutip.destroy(2)]), {}, r"`controls\['u1'\]` must be Hermitian"),
        ((SZ, [qutip.num(3)]), {}, r"`controls` must have shape \(2, 2\) like the drift, but `u1` has \(3, 3\)"),
        ((SZ, [SX]), {"initial": 2 * UP}, "`initial` must have norm 1, but has norm 2"),
        ((SZ, [SX]), {"target": qutip.basis(3, 0)}, "`target` must have dimension 2 like the drift, but has 3"),
        ((SZ, [SX]), {"initial": SZ / 2}, "`initial` must have trace 1, but has trace 0"),
        ((SZ, [SX]), {"initial": 0.5 + SZ}, "`initial` must have no negative eigenvalue, but has the eigenvalue -0.5"),
        ((SZ, [SX]), {"c_ops": [SX], "target": SX}, "`target` must be a ket or a pure density matrix where"),
        ((SZ, [SX]), {"target": qutip.maximally_mixed_dm(2)}, "`target` must be a pure state, but has the purity 0.5"),
        ((SZ, []), {}, "`controls` must name at least one"),
        ((SZ,), {}, "`controls` must be given, for `drift` has no time-dependent term"),
        ((qutip.QobjEvo(lambda t: t * SX),), {}, "`drift` must be a sum of operators with coefficients"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported(arguments, changes, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        from_qutip(*arguments, **(TRANSFER | changes))


def test_without_bounds_no_pulse_makes_the_motion_other_than_unitary():
    problem = from_qutip(SZ, {"c": SX}, **(TRANSFER | {"dt": 0.5}))
    for u in (0.3, 20.0):
        step = (-0.5j * (SZ + u * SX)).expm() * UP
        after = to_qobj(problem, np.array(problem.step_function(problem.initial_state.location, u, [], 0.0)[0]).T)[0]
        assert (after - step).norm() < 1e-12
    assert float(ca.norm_2(problem.step_function(problem.initial_state.location, 1e5, [], 0.0)[0])) == pytest.approx(
        1, abs=1e-9
    )


def test_infinite_bounds_are_no_bounds():
    free = from_qutip(SZ, {"c": SX}, **TRANSFER, control_bounds={"c": (-np.inf, np.inf)})
    assert free.task_fingerprint == from_qutip(SZ, {"c": SX}, **TRANSFER).task_fingerprint


def test_larger_systems_without_bounds_are_no_number_rather_than_wrong_far_outside_of_their_scale():
    many = [qutip.tensor(*(SX if i == k else qutip.qeye(2) for i in range(4))) for k in range(4)]
    zero, one = (qutip.basis([2] * 4, [k] * 4) for k in (0, 1))
    problem = from_qutip(many[0] @ many[1], many, initial=zero, target=one, dt=0.25, steps=2)
    at = lambda u: np.array(problem.step_function(problem.initial_state.location, [u] * 4, [], 0.0)[0])
    assert np.linalg.norm(at(4.0)) == pytest.approx(1.0, abs=1e-11) and np.isnan(at(400.0)).all()


def test_a_pure_density_matrix_is_a_target():
    pure = {"initial": qutip.fock_dm(2, 0), "target": qutip.fock_dm(2, 1), "dt": 0.25, "steps": 4}
    mixed, ket = from_qutip(SZ, [SX], **pure), from_qutip(SZ, [SX], **(pure | {"target": DOWN}))
    assert mixed.n_x == 3 and from_qutip(SZ, [SX], **(pure | {"initial": UP})).n_x == 4
    r = np.array([0.3, -0.2, 0.5])
    assert float(mixed.terminal_cost_function(r, [], 1.0)) == pytest.approx(
        float(ket.terminal_cost_function(r, [], 1.0))
    )


def test_what_cannot_be_exported():
    with pytest.raises(ArgumentError, match=r"`problem` must be bilinear.*`pendulum` is not"):
        to_qutip(optctl.make("pendulum"), np.zeros((3, 1)))
    with pytest.raises(ArgumentError, match="`problem` must have `dynamics`, but has a `transition`"):
        to_qutip(optctl.make("dean"), np.zeros((3, 3)))
    with pytest.raises(ArgumentError, match=r"real-stacked ket, a gate or a Bloch vector.*`double-integrator` has not"):
        to_qutip(optctl.make("double-integrator"), np.zeros((3, 1)))
    with pytest.raises(ArgumentError, match=r"`controls` must have shape \(T, 1\), but has shape \(3, 2\)"):
        to_qutip(optctl.make("qubit-transfer"), np.zeros((3, 2)))
    with pytest.raises(ArgumentError, match=r"`states` must have shape \(K, 4\)"):
        to_qobj(optctl.make("qubit-transfer"), np.zeros((3, 2)))
