"""Operators, real-stacked states, generators, fidelities and propagation, against QuTiP, scipy and sampling; every refusal."""

import casadi as ca
import numpy as np
import pytest
import torch
from scipy.linalg import expm

import optctl
from optctl.errors import ArgumentError, ProblemError
from optctl.problem.controller import FeedbackController, rollout
from optctl.problem.integrators import integrate
from optctl.problem.quantum import (
    GATES,
    SIGMA_X,
    SIGMA_Y,
    SIGMA_Z,
    average_gate_fidelity,
    check_density,
    check_ket,
    check_unitary,
    density_fidelity,
    destroy,
    dissipator_bloch,
    embed,
    ensemble,
    from_bloch,
    gate_fidelity,
    gell_mann,
    ground_state,
    hamiltonian_bloch,
    ket,
    leakage,
    lindblad,
    overlap,
    propagator,
    purity,
    schroedinger,
    stack,
    stack_gate,
    state_fidelity,
    steady_state,
    tensor,
    to_bloch,
    unstack,
    unstack_gate,
)
from optctl.simulation.propagation import propagate, propagate_pulses

rng = np.random.default_rng(0)


def random_hermitian(n, *batch):
    a = rng.standard_normal((*batch, n, n)) + 1j * rng.standard_normal((*batch, n, n))
    return 0.5 * (a + a.swapaxes(-1, -2).conj())


def random_ket(n):
    psi = rng.standard_normal(n) + 1j * rng.standard_normal(n)
    return psi / np.linalg.norm(psi)


def random_unitary(n):
    return expm(-1j * random_hermitian(n))


def random_density(n):
    a = rng.standard_normal((n, n)) + 1j * rng.standard_normal((n, n))
    rho = a @ a.conj().T
    return rho / np.trace(rho)


# --- operators and coordinates ------------------------------------------------------------------------------------------


def test_gates_are_qutips():
    import qutip.core.gates as gates

    names = {"hadamard": "hadamard_transform", "s": "s_gate", "t": "t_gate", "cnot": "cnot", "cz": "cz_gate",
             "swap": "swap", "iswap": "iswap", "sqrt_swap": "sqrtswap"}  # fmt: skip
    for name, function in names.items():
        assert GATES[name] == pytest.approx(getattr(gates, function)().full(), abs=1e-12), name
    for matrix in GATES.values():
        check_unitary(matrix)


def test_operators():
    a = destroy(5)
    commutator = a @ a.conj().T - a.conj().T @ a
    assert np.diag(commutator) == pytest.approx([1, 1, 1, 1, -4])  # [a, a†] = 1 but for the truncation
    assert embed(SIGMA_X, 1, 3) == pytest.approx(tensor(np.eye(2), SIGMA_X, np.eye(2)))
    assert ground_state(SIGMA_Z) == pytest.approx([0, 1])
    h = random_hermitian(4)
    energies = np.linalg.eigvalsh(h)
    assert h @ ground_state(h) == pytest.approx(energies[0] * ground_state(h))


def test_stacking_and_back():
    psi, gate = random_ket(3), random_unitary(4)[:, :2]
    assert stack(psi) == pytest.approx(np.concatenate([psi.real, psi.imag]))
    assert unstack(stack(psi)) == pytest.approx(psi)
    assert unstack_gate(stack_gate(gate), 2) == pytest.approx(gate)
    assert unstack(stack_gate(gate))[:4] == pytest.approx(gate[:, 0])  # columns one below the other
    assert stack_gate(np.stack([gate, 2 * gate])).shape == (2, 16)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_bloch_vectors(n):
    basis = gell_mann(n)
    products = np.einsum("jab,kba->jk", basis, basis)
    assert products == pytest.approx(2 * np.eye(n * n - 1), abs=1e-14)
    rho = random_density(n)
    assert from_bloch(to_bloch(rho)) == pytest.approx(rho, abs=1e-14)
    assert purity(to_bloch(rho)) == pytest.approx(np.trace(rho @ rho).real)
    assert np.linalg.norm(to_bloch(random_ket(n))) == pytest.approx(np.sqrt(2 * (1 - 1 / n)))
    if n == 2:
        assert gell_mann(2) == pytest.approx(np.stack([SIGMA_X, SIGMA_Y, SIGMA_Z]))


# --- generators ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [1, 3])
def test_schroedinger_and_the_exponential_integrator_agree_with_expm(columns):
    n, h0, h1 = 3, random_hermitian(3), random_hermitian(3)
    start = random_unitary(3)[:, :columns]
    x, t = ca.SX.sym("x", 2 * n * columns), ca.SX.sym("t")
    rate = lambda z, s: (schroedinger(z, [(1.0, h0), (0.7, h1)], columns), ca.SX(0))
    after, _ = integrate("exponential", rate, x, t, 0.2, 1)
    found = np.array(ca.Function("f", [x], [after])(stack_gate(start))).ravel()
    assert unstack_gate(found, columns) == pytest.approx(expm(-0.2j * (h0 + 0.7 * h1)) @ start, abs=1e-14)


@pytest.mark.parametrize("n", [2, 3])
def test_lindblad_agrees_with_qutips_superoperator(n):
    import qutip as qt

    h, jumps, rates = random_hermitian(n), [random_hermitian(n) @ random_unitary(n) for _ in range(2)], [0.3, 0.8]
    rho = random_density(n)
    r, t = ca.SX.sym("r", n * n - 1), ca.SX.sym("t")
    rate = lambda z, s: (lindblad(z, [(1.0, h)], list(zip(rates, jumps, strict=True))), ca.SX(0))
    after, _ = integrate("exponential", rate, r, t, 0.3, 4)
    found = from_bloch(np.array(ca.Function("f", [r], [after])(to_bloch(rho))).ravel())
    collapse = [np.sqrt(g) * qt.Qobj(jump) for g, jump in zip(rates, jumps, strict=True)]
    super_propagator = expm(0.3 * qt.liouvillian(qt.Qobj(h), collapse).full())
    expected = (super_propagator @ rho.T.ravel()).reshape(n, n).T
    assert found == pytest.approx(expected, abs=1e-12)
    assert np.trace(found) == pytest.approx(1) and np.linalg.eigvalsh(found).min() > -1e-12
    stationary = from_bloch(steady_state(h, list(zip(rates, jumps, strict=True))))
    assert stationary == pytest.approx(qt.steadystate(qt.Qobj(h), collapse).full(), abs=1e-9)


# --- fidelities ---------------------------------------------------------------------------------------------------------


def test_fidelities_are_the_same_for_symbols_and_numbers():
    gate, psi = random_unitary(3)[:, :2], random_ket(3)
    cases = [
        (state_fidelity, stack(psi), random_ket(3)), (gate_fidelity, stack_gate(random_unitary(3)), random_unitary(3)),
        (average_gate_fidelity, stack_gate(gate), GATES["hadamard"]), (leakage, stack_gate(gate), 2),
        (density_fidelity, to_bloch(random_density(3)), random_ket(3)),
    ]  # fmt: skip
    for function, x, target in cases:
        symbol = ca.SX.sym("x", len(x))
        symbolic = ca.Function("f", [symbol], [function(symbol, target)])
        batch = np.stack([x, 0.5 * x])
        numbers = function(batch, target)
        assert numbers == pytest.approx([float(symbolic(row)) for row in batch])
        assert 0 < numbers[0] < 1


def test_fidelities_of_states():
    psi, phi, rho = random_ket(4), random_ket(4), random_density(3)
    assert state_fidelity(stack(psi), phi) == pytest.approx(np.abs(np.vdot(phi, psi)) ** 2)
    assert overlap(stack(psi), phi) == pytest.approx([np.vdot(phi, psi).real, np.vdot(phi, psi).imag])
    target = random_ket(3)
    assert density_fidelity(to_bloch(rho), target) == pytest.approx((target.conj() @ rho @ target).real)


def test_average_gate_fidelity_is_the_average():
    # Over 200,000 random kets of the subspace, also where the gate leaks; and the closed form of whole unitaries.
    target, full = random_unitary(2), random_unitary(4)
    image = full[:, :2]
    kets = rng.standard_normal((200_000, 2)) + 1j * rng.standard_normal((200_000, 2))
    kets /= np.linalg.norm(kets, axis=1, keepdims=True)
    sampled = np.abs(np.einsum("bi,ij,bj->b", (kets @ target.T).conj(), image[:2], kets)) ** 2
    assert average_gate_fidelity(stack_gate(image), target) == pytest.approx(sampled.mean(), abs=2e-3)
    assert leakage(stack_gate(image), 2) == pytest.approx(np.sum(np.abs(image[2:]) ** 2) / 2)
    made, wanted = random_unitary(3), random_unitary(3)
    x = stack_gate(made)
    assert average_gate_fidelity(x, wanted) == pytest.approx((3 * gate_fidelity(x, wanted) + 1) / 4)
    assert gate_fidelity(stack_gate(np.exp(0.7j) * wanted), wanted) == pytest.approx(1)


# --- propagation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("dtype, tolerance", [("float32", 3e-7), ("float64", 1e-12)])
@pytest.mark.parametrize("times", [np.linspace(0, 2, 21), np.array([0.3, 0.3, 1.0, 0.7, 5.0]), np.array([1.0])])
def test_propagation_agrees_with_expm(n, dtype, tolerance, times):
    h, psi = random_hermitian(n, 7), np.stack([random_ket(n) for _ in range(7)])
    found = propagate(h, psi, times, dtype=dtype)
    assert found.dtype == (torch.complex64 if dtype == "float32" else torch.complex128)
    expected = np.stack([[expm(-1j * (t - times[0]) * m) @ v for t in times] for m, v in zip(h, psi, strict=True)])
    assert found.numpy() == pytest.approx(expected, abs=tolerance)
    alone = propagate(h[3], psi[3], times, dtype=dtype)
    assert alone[0].numpy() == pytest.approx(expected[3], abs=tolerance)


def test_two_level_systems_are_the_same_in_any_batch_and_stay_normalised():
    h = np.concatenate([random_hermitian(2, 200), np.zeros((1, 2, 2)), 3.0 * np.eye(2)[None]])
    times = np.linspace(0, 1, 20_000)
    many, one = propagate(h, [1, 0], times), propagate(h[5:6], [1, 0], times)
    assert torch.equal(many[5], one[0])
    assert many[:, -1].abs().square().sum(-1).numpy() == pytest.approx(np.ones(202), abs=1e-6)
    assert many[-2, -1].numpy() == pytest.approx([1, 0]) and many[-1, -1, 0].item() == pytest.approx(np.exp(-3j))
    assert propagator(h, 1.0)[:, :, 0] == pytest.approx(many[:, -1].numpy(), abs=1e-6)


@pytest.mark.parametrize("columns", [None, 2])
def test_pulses_agree_with_expm(columns):
    n, h0, h = 3, random_hermitian(3), random_hermitian(3, 2)
    pulses = rng.standard_normal((4, 5, 2))
    start = random_ket(n) if columns is None else random_unitary(n)[:, :columns]
    found = propagate_pulses(h0, h, pulses, start, 0.9, dtype="float64").numpy()
    for b in range(4):
        state = start
        for k in range(5):
            state = expm(-0.9j * (h0 + np.tensordot(pulses[b, k], h, 1))) @ state
            assert found[b, k + 1] == pytest.approx(state, abs=1e-12)
    single = propagate_pulses(h0, h, pulses, start, 0.9).numpy()
    assert single.dtype == np.complex64 and single == pytest.approx(found, abs=2e-6)


def test_pulses_agree_with_the_symbolic_problem_and_have_its_gradient():
    problem = optctl.make("ising-gate", steps=4)  # long steps: the problem takes substeps
    coupling, local = (
        embed(SIGMA_Z, 0, 2) @ embed(SIGMA_Z, 1, 2),
        [(SIGMA_X, 0), (SIGMA_Y, 0), (SIGMA_X, 1), (SIGMA_Y, 1)],
    )
    h = np.stack([0.5 * embed(sigma, site, 2) for sigma, site in local])
    pulses = torch.tensor(10 * rng.standard_normal((3, 4, 4)), requires_grad=True)
    gates = propagate_pulses(0.5 * np.pi * coupling, h, pulses, np.eye(4), problem.dt, dtype="float64")
    fidelity = torch.einsum("ij,bij->b", torch.as_tensor(GATES["cnot"]), gates[:, -1]).abs().square() / 16
    fidelity.sum().backward()
    controls = ca.SX.sym("u", 4, 4)
    x = ca.SX(problem.initial_state.location)
    for k in range(4):
        x = problem.step_function(x, controls[:, k], problem.param_values, 0.0)[0]
    loss = problem.terminal_cost_function(x, problem.param_values, 0.0)
    symbolic = ca.Function("f", [controls], [x, loss, ca.gradient(loss, controls)])
    for b in range(3):
        end, cost, gradient = (np.array(v) for v in symbolic(pulses[b].detach().numpy().T))
        assert stack_gate(gates[b, -1].detach().numpy()) == pytest.approx(end.ravel(), abs=1e-12)
        assert 1 - fidelity[b].item() == pytest.approx(float(cost[0, 0]), abs=1e-12)
        assert pulses.grad[b].numpy() == pytest.approx(-gradient.T, abs=1e-12)


# --- ensembles ----------------------------------------------------------------------------------------------------------


def test_an_ensemble_is_the_mean_of_its_members():
    problem = optctl.make("qubit-gate", steps=8)
    params = np.array([[-0.5, 1.0], [0.0, 0.9], [0.3, 1.1]])
    together = ensemble(problem, params)
    controller = FeedbackController(lambda x, t: np.tile([np.cos(5 * t), np.sin(3 * t)], (len(x), 1)), "plan")
    single = rollout(problem, controller, np.tile(problem.initial_state.location, (3, 1)), params=params)
    joint = rollout(together, controller, together.initial_state.location)
    assert joint.total_cost[0] == pytest.approx(single.total_cost.mean())
    assert joint.states[0, -1] == pytest.approx(single.states[:, -1].ravel())


def test_an_ensemble_gives_a_robust_pulse():
    problem = optctl.make("qubit-gate", target="x", duration=2.0, steps=20)
    x0 = problem.initial_state.location
    params = np.array([[0.0, 0.9], [0.0, 1.0], [0.0, 1.1]])
    nominal = optctl.solve(problem, x0, num_starts=6)
    together = ensemble(problem, params)
    robust = optctl.solve(together, together.initial_state.location, num_starts=6)

    def worst(solution):
        rows = iter(solution.trajectory.controls)
        plan = FeedbackController(lambda x, t: np.tile(next(rows), (len(x), 1)), "plan")
        return rollout(problem, plan, np.tile(x0, (3, 1)), params=params).terminal_cost.max()

    assert worst(robust) < 0.1 * worst(nominal)


# --- one clear sentence each --------------------------------------------------------------------------------------------


def test_bad_operators_and_states():
    with pytest.raises(ArgumentError, match="`hamiltonian` must be Hermitian, but differs from its adjoint by 1"):
        ground_state([[0, 1], [0, 0]])
    with pytest.raises(ArgumentError, match=r"`hamiltonian` must be a square matrix, but has shape \(2, 3\)"):
        ground_state(np.ones((2, 3)))
    with pytest.raises(ArgumentError, match="`hamiltonian` must be finite"):
        ground_state([[np.nan, 0], [0, 1]])
    with pytest.raises(ArgumentError, match=r"`rho` must have no negative eigenvalue, but has the eigenvalue -0.5"):
        to_bloch(np.diag([1.5, -0.5]))
    with pytest.raises(ArgumentError, match="`rho` must have trace 1, but has trace 2"):
        check_density(np.eye(2))
    with pytest.raises(ArgumentError, match=r"`state` must have norm 1, but has norm 1.41421"):
        check_ket([1, 1])
    with pytest.raises(ArgumentError, match=r"`state` must be a vector of at least 2 entries, but has shape \(1, 2\)"):
        check_ket([[1, 1]])
    with pytest.raises(ArgumentError, match="`gate` must be unitary"):
        check_unitary([[1, 1], [0, 1]])
    with pytest.raises(ArgumentError, match="`r` must have n² − 1 entries"):
        from_bloch(np.zeros(4))
    with pytest.raises(ArgumentError, match="`levels` must be an integer of at least 2, but is 1"):
        destroy(1)
    with pytest.raises(ArgumentError, match="`k` must be a level 0 … 1, but is 2"):
        ket(2, 2)
    with pytest.raises(ArgumentError, match="`site` must be a site 0 … 1, but is 2"):
        embed(SIGMA_X, 2, 2)
    with pytest.raises(ArgumentError, match="`columns` must divide 4, but is 3"):
        unstack_gate(np.zeros(8), 3)
    with pytest.raises(ArgumentError, match="`dissipators` must have dimension 2, but have 3"):
        steady_state(SIGMA_X, [(1.0, destroy(3))])
    with pytest.raises(ArgumentError, match="`dissipators` must leave one steady state, but leave several"):
        steady_state(SIGMA_Z, [(1.0, SIGMA_Z)])


def test_bad_dimensions():
    x, r = ca.SX.sym("x", 4), ca.SX.sym("r", 3)
    with pytest.raises(ArgumentError, match="`operator` must have dimension 2 like the state, but has dimension 3"):
        schroedinger(x, [(1.0, np.eye(3))])
    with pytest.raises(ArgumentError, match="`operator` must have dimension 2 like the state, but has dimension 3"):
        lindblad(r, [(1.0, np.eye(3))], [])
    with pytest.raises(ArgumentError, match="`operator` must have dimension 2 like the state, but has dimension 3"):
        lindblad(r, [(1.0, SIGMA_X)], [(1.0, destroy(3))])
    with pytest.raises(ArgumentError, match="`rate` must not be negative, but is -1"):
        lindblad(r, [(1.0, SIGMA_X)], [(-1.0, destroy(2))])
    with pytest.raises(ArgumentError, match="`jump` must be a square matrix"):
        dissipator_bloch(np.ones(3))
    with pytest.raises(ArgumentError, match="`target` must fit a state of 4 real entries, but fits 6"):
        state_fidelity(np.zeros(4), ket(3, 0))
    with pytest.raises(ArgumentError, match="`target` must fit a state of 8 real entries, but has dimension 4"):
        average_gate_fidelity(np.zeros(8), GATES["cnot"])
    with pytest.raises(ArgumentError, match="`hamiltonian` must be Hermitian"):
        hamiltonian_bloch(destroy(2))


def test_a_problem_names_the_bad_hamiltonian():
    with pytest.raises(ProblemError, match=r"`dynamics` of problem `qubit-transfer` .*`hamiltonian` must be Hermitian"):
        optctl.make("qubit-transfer").replace(dynamics=lambda x, u, p: schroedinger(x, [(u[0], destroy(2))]))


def test_bad_options_of_the_problems():
    with pytest.raises(ArgumentError, match=r"`target` must be one of identity, x, .*, but is 'cnot'"):
        optctl.make("qubit-gate", target="cnot")
    with pytest.raises(ArgumentError, match="`spins` must be an integer of at least 2, but is 1"):
        optctl.make("spin-chain", spins=1)
    with pytest.raises(ArgumentError, match="`bandwidth` must be positive, but is 0"):
        optctl.make("qubit-gate-filtered", bandwidth=0)


def test_bad_arguments_of_propagate():
    with pytest.raises(ArgumentError, match="`hamiltonian` must be Hermitian, but differs from its adjoint by 1"):
        propagate(destroy(2), [1, 0], [0, 1])
    with pytest.raises(ArgumentError, match="`hamiltonian` must be Hermitian, but differs from its adjoint by nan"):
        propagate(np.full((2, 2), np.nan), [1, 0], [0, 1])
    with pytest.raises(ArgumentError, match=r"`hamiltonian` must have shape \(B, n, n\), but has shape \(2,\)"):
        propagate([1, 0], [1, 0], [0, 1])
    with pytest.raises(ArgumentError, match=r"`initial` must have shape \(2,\) or \(5, 2\), but has shape \(3,\)"):
        propagate(random_hermitian(2, 5), [1, 0, 0], [0, 1])
    with pytest.raises(ArgumentError, match="`times` must be a vector of finite numbers"):
        propagate(SIGMA_X, [1, 0], 1.0)


def test_bad_arguments_of_propagate_pulses():
    good = dict(h_drift=SIGMA_Z, h_controls=SIGMA_X[None], amplitudes=np.zeros((5, 3, 1)), initial=[1, 0], dt=0.1)
    for change, sentence in (
        ({"h_drift": destroy(2)}, "`h_drift` must be Hermitian"),
        ({"h_controls": destroy(2)[None]}, "`h_controls` must be Hermitian"),
        ({"h_controls": np.eye(3)[None]}, r"`h_controls` must have shape \(K, 2, 2\), but has shape \(1, 3, 3\)"),
        ({"amplitudes": np.zeros((5, 3, 2))}, r"`amplitudes` must have shape \(B, T, 1\), but has shape \(5, 3, 2\)"),
        ({"initial": [1, 0, 0]}, r"`initial` must have shape \(2,\) or \(2, m\), but has shape \(3,\)"),
        ({"dt": 0.0}, "`dt` must be positive, but is 0.0"),
    ):
        with pytest.raises(ArgumentError, match=sentence):
            propagate_pulses(**good | change)


def test_bad_ensembles():
    problem = optctl.make("qubit-gate")
    with pytest.raises(ArgumentError, match=r"`params` must have shape \(M, 2\), but has shape \(3,\)"):
        ensemble(problem, np.zeros(3))
    with pytest.raises(ArgumentError, match="`problem` must have one initial state and no noise"):
        ensemble(optctl.make("pendulum"), np.ones((2, 3)))
