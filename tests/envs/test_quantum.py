"""The quantum family: equal to QuTiP under the same pulses, its closed forms, its known optima, and its float32 environments."""

import numpy as np
import pytest
import torch
from selection import made

import optctl
from optctl.envs import CATALOGUE, open_quantum, quantum
from optctl.problem.controller import FeedbackController, ZeroController, rollout
from optctl.problem.quantum import (
    GATES,
    SIGMA_X,
    SIGMA_Z,
    average_gate_fidelity,
    destroy,
    embed,
    from_bloch,
    gate_fidelity,
    ground_state,
    ket,
    leakage,
    propagator,
    stack,
    state_fidelity,
    steady_state,
    unstack,
    unstack_gate,
)

NAMES = [
    name for name, function in CATALOGUE.items() if function.__module__ in (quantum.__name__, open_quantum.__name__)
]
OPEN = ("damped-qubit", "spin-saturation", "qubit-reset")
KINDS = ("qubit-transfer", "damped-qubit", "qubit-gate")  # a ket, a density matrix, a gate


def plan(controls):
    """Replays controls (T, n_u), one row a call."""
    rows = iter(controls)
    return FeedbackController(lambda x, t: np.tile(next(rows), (len(x), 1)), "plan")


def run(problem, controls, params=None):
    """States (T + 1, n_x) under a pulse (T, n_u), by the problem's own step."""
    start = problem.initial_state.location
    return rollout(problem, plan(controls), start, params=params, steps=len(controls)).states[0]


def pulse(problem, steps, seed=0):
    return problem.to_control(np.random.default_rng(seed).uniform(-1, 1, (steps, problem.n_u)))


def parts(problem, states, controls):
    """(states of the quantum system alone, controls that act on it): a slewed or filtered pulse is part of the state."""
    if problem.name.endswith(("-slew", "-filtered")):
        n = problem.n_x - problem.n_u
        return states[:, :n], states[1:, n:]
    return states, controls


# --- QuTiP --------------------------------------------------------------------------------------------------------------


def reference(name, p):
    """(u → H, collapse operators, initial state, what to compare with the rollout's states) of each problem, by QuTiP alone."""
    import qutip as qt

    sx, sy, sz, a = qt.sigmax(), qt.sigmay(), qt.sigmaz(), qt.destroy
    one, zero = qt.qeye(2), qt.basis(2, 0)
    pair = lambda s: qt.tensor(s, s)
    kets = lambda x: unstack(x)
    gate = lambda columns: lambda x: unstack_gate(x, columns)
    if name in ("qubit-transfer", "qubit-bang-bang", "qubit-transfer-slew"):
        field = (lambda h: 4.0 if h >= 0 else -4.0) if name == "qubit-bang-bang" else (lambda h: h)
        start = (-0.5 * sz + sx).groundstate()[1]
        return lambda u: -0.5 * sz - 0.5 * field(u[0]) * sx, None, start, kets
    if name == "landau-zener":
        return lambda u: 0.5 * (u[0] * sz + p["gap"] * sx), None, (-10 * sz + sx).groundstate()[1], kets
    if name in ("qubit-gate", "qubit-gate-filtered"):
        return (
            lambda u: 0.5 * p["detuning"] * sz + 0.5 * p["amplitude"] * (u[0] * sx + u[1] * sy), None, one, gate(2)
        )  # fmt: skip
    if name == "lambda-system":
        b = [qt.basis(3, k) for k in range(3)]
        flip = lambda i, j: b[i] * b[j].dag() + b[j] * b[i].dag()
        drift = p["detuning"] * b[1].proj() + p["two_photon"] * b[2].proj()
        return lambda u: drift + 0.5 * u[0] * flip(0, 1) + 0.5 * u[1] * flip(1, 2), None, b[0], kets
    if name == "transmon-gate":
        c = a(3)
        drift = 0.5 * p["anharmonicity"] * c.dag() ** 2 * c**2
        h = lambda u: (
            u[2] * c.dag() * c + drift
            + 0.5 * p["amplitude"] * (u[0] * (c + c.dag()) + u[1] * 1j * (c.dag() - c))
        )  # fmt: skip
        return h, None, qt.qeye(3), gate(2)
    if name == "kerr-cavity":
        c = a(6)
        drift = p["detuning"] * c.dag() * c - 0.5 * p["kerr"] * c.dag() ** 2 * c**2
        return lambda u: drift + u[0] * (c + c.dag()) + u[1] * 1j * (c.dag() - c), None, qt.basis(6, 0), kets
    if name == "ising-gate":
        local = [qt.tensor(sx, one), qt.tensor(sy, one), qt.tensor(one, sx), qt.tensor(one, sy)]
        drift = 0.5 * np.pi * p["coupling"] * pair(sz)
        return lambda u: drift + 0.5 * sum(v * s for v, s in zip(u, local, strict=True)), None, pair(one), gate(4)
    if name == "exchange-gate":
        drift = 0.25 * p["gradient"] * (qt.tensor(sz, one) - qt.tensor(one, sz))
        h = lambda u: (
            drift + 0.25 * u[0] * (pair(sx) + pair(sy) + pair(sz))
            + 0.5 * u[1] * qt.tensor(sx, one) + 0.5 * u[2] * qt.tensor(one, sx)
        )  # fmt: skip
        return h, None, pair(one), gate(4)
    if name == "spin-chain":  # all 2⁵ states
        n = 5
        at = lambda s, i: qt.tensor([s if j == i else one for j in range(n)])
        bond = [0.5 * (at(sx, i) * at(sx, i + 1) + at(sy, i) * at(sy, i + 1)) for i in range(n - 1)]
        up = [qt.tensor([qt.basis(2, int(j == i)) for j in range(n)]) for i in range(n)]
        drift = p["disorder"] * sum(up[0] * 0 * up[0].dag() + at(qt.basis(2, 1).proj(), i) for i in range(1, n, 2))
        embedded = np.stack([k.full()[:, 0] for k in up], axis=1)
        return (
            lambda u: drift + sum(v * b for v, b in zip(u, bond, strict=True)), None, up[0],
            lambda x: embedded @ unstack(x),
        )  # fmt: skip
    if name == "damped-qubit":
        jumps = [np.sqrt(p["decay"]) * a(2), np.sqrt(p["dephasing"] / 2) * sz]
        return lambda u: 0.5 * (u[0] * sz + u[1] * sx + u[2] * sy), jumps, zero.proj(), from_bloch
    if name == "spin-saturation":
        jumps = [np.sqrt(1 / p["t1"]) * a(2), np.sqrt((1 / p["t2"] - 0.5 / p["t1"]) / 2) * sz]
        return lambda u: 0.5 * (u[0] * sx + p["offset"] * sz), jumps, zero.proj(), from_bloch
    assert name == "qubit-reset"  # a qubit and a mode of two levels: four states, of which |e1⟩ stays empty
    sigma, mode = qt.tensor(a(2), one), qt.tensor(one, a(2))
    h = lambda u: u[0] * (sigma.dag() * mode + sigma * mode.dag()) + u[1] * sigma.dag() * sigma
    levels = [0, 2, 1]  # |g0⟩, |e0⟩, |g1⟩ in the product basis
    return (
        h, [np.sqrt(p["loss"]) * mode], qt.tensor(qt.basis(2, 1), zero).proj(),
        lambda r: np.pad(from_bloch(r), (0, 1))[np.ix_(np.argsort([*levels, 3]), np.argsort([*levels, 3]))],
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_equals_qutip(name):
    import qutip as qt

    problem = made(name)
    rng = np.random.default_rng(1)
    p = rng.uniform(problem.param_low, problem.param_high)
    controls = pulse(problem, 12)
    states, acting = parts(problem, run(problem, controls, p), controls)
    hamiltonian, jumps, rho, view = reference(name, dict(zip(problem.params, p, strict=True)))
    options = {"atol": 1e-11, "rtol": 1e-10, "nsteps": 100_000, "progress_bar": ""}
    for k, u in enumerate(acting):
        if jumps is None:
            rho = qt.sesolve(hamiltonian(u), rho, [0, problem.dt], options=options).states[-1]
        else:
            rho = qt.mesolve(hamiltonian(u), rho, [0, problem.dt], jumps, options=options).states[-1]
        found = view(states[k + 1])
        expected = rho.full()[:, 0] if rho.isket else rho.full()[:, : found.shape[-1]]
        if k == 0 and rho.isket:  # a ket's first phase is free: groundstate() chose another
            phase = np.vdot(expected, found)
            phase /= abs(phase)
        assert found == pytest.approx(phase * expected if rho.isket else expected, abs=1e-6)


# --- invariants and float32 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_norm_or_trace_and_positivity(name):
    problem = made(name)
    controls = pulse(problem, problem.steps)
    states, _ = parts(problem, run(problem, controls), controls)
    if name in OPEN:
        rho = from_bloch(states)
        assert np.trace(rho, axis1=1, axis2=2) == pytest.approx(1, abs=1e-12)
        assert np.linalg.eigvalsh(rho).min() > -1e-12
    else:
        columns = round(float(np.sum(states[0] ** 2)))
        assert np.sum(states**2, axis=1) == pytest.approx(columns, abs=1e-12)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in KINDS else pytest.mark.prove) for name in NAMES]
)
def test_environment_follows_the_rollout_in_float32(name):
    problem = made(name)
    controls = pulse(problem, problem.steps - 1)
    env = optctl.make_vec(problem, 3)
    env.reset(seed=0)
    total = 0.0
    for u in controls:
        action = torch.tensor(problem.to_action(u), dtype=torch.float32).expand(3, -1).contiguous()
        _, reward, *_ = env.step(action)
        total += reward.double().numpy()
    exact = rollout(problem, plan(controls), problem.initial_state.location, steps=len(controls))
    assert env.state.numpy() == pytest.approx(np.tile(exact.states[0, -1], (3, 1)), abs=3e-5)
    assert -total == pytest.approx(np.full(3, exact.costs.sum()), abs=1e-5)


def test_norm_after_many_steps_in_float32():
    from optctl.bench.quantum import norm_drift

    assert norm_drift(20_000, num_envs=8) < 1e-8 * 20_000 + 1e-6


def test_every_environment_learns_with_its_own_parameters():
    problem = optctl.make("qubit-gate")
    env = optctl.make_vec(problem, 64, randomize=True, dtype="float64")
    env.reset(seed=3)
    p = env.params.numpy().copy()
    controls = pulse(problem, 5)
    for u in controls:
        obs = env.step(torch.tensor(problem.to_action(u)).expand(64, -1).contiguous())[0]
    assert np.ptp(p[:, 0]) > 0.5 and np.ptp(p[:, 1]) > 0.1
    start = np.tile(problem.initial_state.location, (64, 1))
    expected = rollout(problem, plan(controls), start, params=p, steps=5).states[:, -1]
    assert obs.numpy()[:, :8] == pytest.approx(expected, abs=1e-12)


# --- closed forms -------------------------------------------------------------------------------------------------------


def test_rabi_oscillation():
    # P(t) = Ω²/(Ω² + Δ²) sin²(½ √(Ω² + Δ²) t), the drive a gate problem's, constant.
    problem = optctl.make("qubit-gate")
    omega, delta = 3.0, 0.6
    states = run(problem, np.tile([omega, 0.0], (40, 1)), [delta, 1.0])
    t, total = problem.dt * np.arange(41), np.hypot(omega, delta)
    excited = np.abs(unstack_gate(states, 2)[:, 1, 0]) ** 2
    assert excited == pytest.approx((omega / total) ** 2 * np.sin(0.5 * total * t) ** 2, abs=1e-12)


@pytest.mark.parametrize("rate", [4.0, 10.0])
def test_landau_zener_formula(rate):
    # ε = v t from −∞ to ∞ leaves the ground state with probability exp(−πΔ²/2v).
    span, dt = 100.0, 0.005
    steps = round(2 * span / rate / dt)
    problem = quantum.landau_zener(span=span).replace(dt=dt, steps=steps)
    sweep = -span + rate * dt * (np.arange(steps) + 0.5)
    end = run(problem, sweep[:, None])[-1]
    excited = 1 - state_fidelity(end, ground_state(0.5 * (span * SIGMA_Z + SIGMA_X)))
    assert excited == pytest.approx(np.exp(-np.pi / (2 * rate)), abs=1e-5)


def test_steady_state_of_the_driven_damped_qubit():
    decay, omega = 0.8, 1.3
    expected = omega**2 / (decay**2 + 2 * omega**2)
    r = steady_state(0.5 * omega * SIGMA_X, [(decay, destroy(2))])
    assert from_bloch(r)[1, 1].real == pytest.approx(expected, abs=1e-12)
    problem = open_quantum.damped_qubit(duration=60.0, steps=600)
    states = run(problem, np.tile([0.0, omega, 0.0], (600, 1)), [decay, 0.0])
    assert from_bloch(states[-1])[1, 1].real == pytest.approx(expected, abs=1e-9)


def test_relaxation_times_of_the_spin():
    # z − 1 decays with T1, x and y with T2: read off the free decay of an arbitrary state.
    problem = optctl.make("spin-saturation")
    start = np.array([0.3, -0.4, -0.5])
    after = rollout(problem, ZeroController(problem), start, steps=10).states[0, -1]
    t, t1, t2 = 10 * problem.dt, problem.params["t1"], problem.params["t2"]
    assert after[:2] == pytest.approx(start[:2] * np.exp(-t / t2), abs=1e-12)
    assert 1 - after[2] == pytest.approx((1 - start[2]) * np.exp(-t / t1), abs=1e-12)


def test_reset_through_a_critically_damped_mode():
    # g = κ/4 on resonance: the excitation's amplitude is (1 + κt/4) exp(−κt/4).
    problem = optctl.make("qubit-reset")
    states = run(problem, np.tile([0.25, 0.0], (problem.steps, 1)))
    t = problem.dt * np.arange(problem.steps + 1)
    excited = from_bloch(states)[:, 1, 1].real
    assert excited == pytest.approx(((1 + t / 4) * np.exp(-t / 4)) ** 2, abs=1e-12)


def test_perfect_transfer_along_a_chain():
    for spins in (3, 6):
        weights = np.sqrt(np.arange(1, spins) * np.arange(spins - 1, 0, -1))
        problem = quantum.spin_chain(spins=spins, duration=0.5 * np.pi * weights.max(), steps=30)
        end = run(problem, np.tile(weights / weights.max(), (30, 1)))[-1]
        assert state_fidelity(end, ket(spins, spins - 1)) == pytest.approx(1, abs=1e-12)


def test_a_linear_cavity_is_coherent():
    # Without Kerr effect a drive ε_x makes the coherent state α = −i ε_x t; truncation at 20 photons is far above |α|² = 1.
    problem = quantum.kerr_cavity(levels=20, duration=1.0, steps=20)
    end = unstack(run(problem, np.tile([1.0, 0.0], (20, 1)), [0.0, 0.0])[-1])
    n = np.arange(20)
    factorial = np.array([float(np.prod(np.arange(1, k + 1))) for k in n])
    assert end == pytest.approx(np.exp(-0.5) * (-1j) ** n / np.sqrt(factorial), abs=1e-9)


def test_exchange_alone_makes_the_root_of_swap():
    problem = quantum.exchange_gate(target="sqrt_swap", duration=0.5, steps=20)
    end = run(problem, np.tile([np.pi, 0.0, 0.0], (20, 1)), [0.0])[-1]
    assert gate_fidelity(end, GATES["sqrt_swap"]) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("fraction", [0.3, 0.7, 1.0])
def test_ising_coupling_with_instantaneous_local_rotations(fraction):
    # CNOT needs T = 1/(2J); before, F = cos²(¼π(1 − 2JT)). Rotations: Z/2 of both around the coupling, target in the X basis.
    duration = 0.5 * fraction
    problem = quantum.ising_gate(duration=duration, steps=10)
    free = unstack_gate(run(problem, np.zeros((10, 4)))[-1], 4)
    turn = embed(GATES["hadamard"], 1, 2)
    local = np.kron(propagator(-0.25 * np.pi * SIGMA_Z, 1.0), propagator(-0.25 * np.pi * SIGMA_Z, 1.0))
    made = turn @ local @ free @ turn
    fidelity = np.abs(np.trace(GATES["cnot"].conj().T @ made)) ** 2 / 16
    assert fidelity == pytest.approx(np.cos(0.25 * np.pi * (1 - fraction)) ** 2, abs=1e-12)


def flat_top_blackman(t, duration, rise):
    """1 in the middle, with Blackman ramps (exact at the corners: 0 and 1) at both ends."""
    ramp = lambda s: 0.42 - 0.5 * np.cos(np.pi * s) + 0.08 * np.cos(2 * np.pi * s)
    s = np.minimum(np.minimum(t, duration - t) / rise, 1.0)
    return ramp(np.clip(s, 0, 1))


def test_the_starting_error_of_the_krotov_tutorial():
    # H = −½ σ_z + ε(t) σ_x, T = 5, 500 points: |0⟩ → |1⟩ fails with probability 0.951459434722.
    grid = np.linspace(0, 5, 500)
    middle = 0.5 * (grid[1:] + grid[:-1])
    field = 0.2 * flat_top_blackman(middle, 5.0, 0.3)
    problem = quantum.qubit_transfer(duration=5.0, steps=499)
    states = rollout(problem, plan(-2 * field[:, None]), stack(ket(2, 0))).states[0]
    assert 1 - state_fidelity(states[-1], ket(2, 1)) == pytest.approx(0.951459434722, abs=1e-9)


def gaussian(duration, steps):
    """Ω (steps,) at the middle of each interval and dΩ/dt, truncated at ± T/2 with the offset removed, area π, σ = T/4."""
    t = (np.arange(steps) + 0.5) * duration / steps - 0.5 * duration
    sigma = duration / 4
    edge = np.exp(-0.5 * (0.5 * duration / sigma) ** 2)
    bare = np.exp(-0.5 * (t / sigma) ** 2)
    area = (bare - edge).sum() * duration / steps
    return np.pi * (bare - edge) / area, -np.pi * t / sigma**2 * bare / area


def test_drag_removes_leakage_and_phase_error():
    # 10 ns, −300 MHz: average gate error 1.21e-2 of the plain Gaussian, 8.4e-6 of first-order DRAG with detuning (Motzoi 2009).
    steps, alpha = 2000, -0.3 * 2 * np.pi
    problem = quantum.transmon_gate(duration=10.0, steps=steps)
    omega, slope = gaussian(10.0, steps)
    plain = np.stack([omega, 0 * omega, 0 * omega], axis=1)
    drag = np.stack(
        [omega + (2 - 4) * omega**3 / (8 * alpha**2), -slope / alpha, (2 - 4) * omega**2 / (4 * alpha)], axis=1
    )
    errors = [1 - average_gate_fidelity(run(problem, u)[-1], GATES["x"]) for u in (plain, drag)]
    assert leakage(run(problem, drag)[-1], 2) < 0.03 * leakage(run(problem, plain)[-1], 2)
    assert errors[0] == pytest.approx(1.21e-2, rel=5e-3)
    assert errors[1] == pytest.approx(8.4e-6, rel=1e-2)


def test_the_filter_passes_its_bandwidth():
    # A square pulse of 1 through a first-order low-pass: 1 − exp(−2π B t), and −3 dB (to the sampling) at frequency B.
    problem = quantum.qubit_gate_filtered(bandwidth=2.0, steps=400)
    square = run(problem, np.tile([1.0, 0.0], (400, 1)))[1:, 8]
    t = problem.dt * np.arange(1, 401)
    assert square == pytest.approx(1 - np.exp(-2 * np.pi * 2.0 * t), abs=1e-12)
    wave = run(problem, np.stack([np.sin(2 * np.pi * 2.0 * t), 0 * t], axis=1))[200:, 8]
    assert np.ptp(wave) / 2 == pytest.approx(np.sqrt(0.5), abs=0.02)


# --- optima -------------------------------------------------------------------------------------------------------------


def best(problem, **options):
    solution = optctl.solve(problem, problem.initial_state.location, **options)
    assert solution.ok
    return solution


@pytest.mark.parametrize(
    "duration, steps, fidelity, error", [(0.5, 10, 0.331299546052, 1e-11), (1.0, 100, 0.577029386692, 1e-7)]
)
def test_best_fidelity_of_the_qubit_transfer(duration, steps, fidelity, error):
    # Continuous optimum; on the grid of T = 1 the switches fall inside an interval, which costs O(dt²).
    solution = best(quantum.qubit_transfer(duration=duration, steps=steps, energy=0.0))
    assert 1 - solution.value == pytest.approx(fidelity, abs=error)


def test_least_time_of_the_qubit_transfer():
    solution = best(quantum.qubit_transfer(time_optimal=True))
    exact = 2 * np.arccos(7 / 24) / np.sqrt(17) + 2 * np.arcsin(7 / (4 * np.sqrt(5)))
    assert solution.final_time == pytest.approx(exact, abs=1e-4)  # 50 intervals


@pytest.mark.parametrize("shared_power, least", [(True, np.sqrt(3) * np.pi), (False, np.sqrt(2) * np.pi)])
def test_least_time_through_a_lambda_system(shared_power, least):
    solution = best(quantum.lambda_system(steps=30, shared_power=shared_power, time_optimal=True), num_starts=6)
    assert (
        -1e-8 < solution.final_time - least < 1e-3
    )  # 30 intervals: O(dt²) on the circle, exact at the corner of the square


@pytest.mark.parametrize("duration, fidelity", [(0.5, 0.3312995461), (1.0, 0.5763866712)])
def test_best_sequence_of_binary_choices(duration, fidelity):
    # All 2ⁿ sequences of ±4, dt = 0.05, n = 10 or 20, by the environment's own step.
    problem = quantum.qubit_bang_bang(duration=duration, steps=round(duration / 0.05))
    maps = [
        np.stack([np.array(problem.step_function(e, [h], [], 0)[0]).ravel() for e in np.eye(4)]) for h in (1.0, -1.0)
    ]
    states = problem.initial_state.location[None]
    for _ in range(problem.steps):
        states = np.concatenate([states @ m for m in maps])
    losses = np.array(problem.terminal_cost_function(states.T, [], duration))
    assert 1 - losses.min() == pytest.approx(fidelity, abs=1e-10)


@pytest.mark.parametrize("name, infidelity", [("landau-zener", 1e-6), ("qubit-gate", 1e-6), ("spin-saturation", 1e-5)])
def test_cheap_problems_are_solved(name, infidelity):
    solution = best(optctl.make(name), num_starts=6)  # u = 0 is a saddle: some starts must be elsewhere
    assert solution.trajectory.terminal_cost < infidelity
