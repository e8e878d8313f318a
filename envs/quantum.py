"""Quantum control: qubits, gates, three-level systems, chains and a cavity; ħ = 1, exact propagators. Open systems: `open_quantum`.

Kets and gates are real-stacked (`optctl.problem.quantum` says how). The cost is one minus the fidelity at the end, plus `energy`
times the mean square of the controls relative to their bounds; `energy=0` gives the bare fidelity.
All controls are constant over an interval, and the integrator "exponential" is exact for that.
"""

from __future__ import annotations

import math

import casadi as ca
import numpy as np

from optctl.errors import require
from optctl.problem import Fixed, Problem
from optctl.problem.quantum import (
    GATES,
    SIGMA_X,
    SIGMA_Y,
    SIGMA_Z,
    average_gate_fidelity,
    destroy,
    embed,
    gate_fidelity,
    ground_state,
    ket,
    overlap,
    schroedinger,
    stack,
    stack_gate,
    state_fidelity,
)
from optctl.problem.transforms import discretised, quantised, slew_limited, with_actuator_lag


def _amplitudes(labels) -> dict[str, str]:
    """State names of complex amplitudes: re_… then im_…."""
    return {f"{part}_{label}": "1" for part in ("re", "im") for label in labels}


def _columns(rows: int, columns: int) -> list[str]:
    """Labels of vec U: row and column."""
    return [f"{i}{j}" for j in range(columns) for i in range(rows)]


def held_pulses(*, duration: float, steps: int, energy: float, running=lambda x: 0, **fields) -> Problem:
    """A problem of `steps` held pulses; its stage cost is `running`(x) and energy/T · Σ (u_k / largest |u_k|)²."""
    require(isinstance(steps, int) and steps >= 1, "steps", "be a positive integer", f"is {steps!r}")
    require(0 < duration < math.inf, "duration", "be positive", f"is {duration!r}")
    require(0 <= energy < math.inf, "energy", "not be negative", f"is {energy!r}")
    scale = ca.DM([max(abs(low), abs(high)) for low, high in fields["control_bounds"].values()])
    return Problem(
        **fields,
        stage_cost=lambda x, u, p: running(x) + energy / duration * ca.sumsqr(u / scale),
        dt=duration / steps,
        steps=steps,
        integrator="exponential",
    )


def _time_optimal(problem: Problem, target: np.ndarray, final_time: tuple[float, float]) -> Problem:
    """The least time to `target` (up to a phase): no overlap with any ket orthogonal to it, at a free final time."""
    others = np.linalg.svd(target.conj()[None])[2][1:].conj()
    return problem.replace(
        stage_cost=lambda x, u, p: 1,
        terminal_cost=None,
        terminal_constraints=lambda x, p: ca.vertcat(*[part for ket_ in others for part in overlap(x, ket_)]),
        final_time=final_time,
    )


def _gate(name: str, dimension: int) -> np.ndarray:
    known = [gate for gate, matrix in GATES.items() if len(matrix) == dimension]
    require(name in known, "target", f"be one of {', '.join(known)}", f"is {name!r}")
    return GATES[name]


# --- two levels ---------------------------------------------------------------------------------------------------------


def qubit_transfer(
    *, duration: float = 2.5, steps: int = 50, energy: float = 1e-3, time_optimal: bool = False
) -> Problem:
    """H = −½ σ_z − ½ h σ_x, |h| ≤ 4: from the ground state at h = −2 to that at h = +2.

    Above T = 2 arccos(7/24)/√17 = 0.618 the best pulse has a part with h = 0; the state is reached exactly from T = 2.4161 on.
    `time_optimal`: the time is free and its own cost, the target a terminal constraint.
    """
    start, target = (ground_state(-0.5 * SIGMA_Z - 0.5 * h * SIGMA_X) for h in (-2.0, 2.0))
    bounds = {"field": (-4.0, 4.0)}
    problem = held_pulses(
        name="qubit-transfer",
        description="Turn a qubit from one ground state to another with a bounded field.",
        source="Bukov, Day, Sels, Weinberg, Polkovnikov, Mehta, Reinforcement learning in different phases of quantum control, "
        "Phys. Rev. X 8 (2018) 031086; Hegerfeldt, Phys. Rev. Lett. 111 (2013) 260501 (the optimum).",
        state=_amplitudes("01"),
        control={"field": "1"},
        dynamics=lambda x, u, p: schroedinger(x, [(-0.5, SIGMA_Z), (-0.5 * u[0], SIGMA_X)]),
        terminal_cost=lambda x, p: 1 - state_fidelity(x, target),
        control_bounds=bounds,
        initial_state=Fixed(stack(start)),
        duration=duration,
        steps=steps,
        energy=energy,
    )
    return _time_optimal(problem, target, (0.5 * duration, 2.0 * duration)) if time_optimal else problem


def qubit_bang_bang(*, duration: float = 1.0, steps: int = 20) -> Problem:
    """`qubit_transfer` whose field knows the two values ±4 only: +4 where the control is positive or zero."""
    return quantised(qubit_transfer(duration=duration, steps=steps, energy=0.0), 2).replace(
        name="qubit-bang-bang",
        description="The qubit transfer with a field of two values only, a sequence of binary choices.",
    )


def qubit_transfer_slew(*, slew: float = 20.0, duration: float = 2.5, steps: int = 50) -> Problem:
    """`qubit_transfer` whose field begins at zero and changes by at most `slew` a second."""
    return slew_limited(qubit_transfer(duration=duration, steps=steps), slew).replace(
        name="qubit-transfer-slew",
        description="The qubit transfer by a field that begins at zero and changes at a limited rate.",
    )


def landau_zener(*, span: float = 10.0, duration: float = 4.0, steps: int = 80, energy: float = 1e-3) -> Problem:
    """H = ½ (ε σ_z + Δ σ_x), |ε| ≤ span: from the ground state at ε = −span to that at ε = +span, past the avoided crossing.

    A linear sweep ε = v t from −∞ to ∞ leaves the ground state with probability exp(−πΔ²/2v).
    """
    gap = 1.0
    start, target = (ground_state(0.5 * (eps * SIGMA_Z + gap * SIGMA_X)) for eps in (-span, span))
    bounds = {"detuning": (-span, span)}
    return held_pulses(
        name="landau-zener",
        description="Sweep a qubit through an avoided crossing and stay in the ground state.",
        source="Landau, Phys. Z. Sowjetunion 2 (1932) 46; Zener, Proc. R. Soc. A 137 (1932) 696; cost: optctl.",
        state=_amplitudes("01"),
        control={"detuning": "rad/s"},
        params={"gap": gap},
        param_ranges={"gap": (0.8, 1.2)},
        dynamics=lambda x, u, p: schroedinger(x, [(0.5 * u[0], SIGMA_Z), (0.5 * p.gap, SIGMA_X)]),
        terminal_cost=lambda x, p: 1 - state_fidelity(x, target),
        control_bounds=bounds,
        initial_state=Fixed(stack(start)),
        duration=duration,
        steps=steps,
        energy=energy,
    )


def qubit_gate(
    *, target: str = "hadamard", rabi: float = 2 * np.pi, duration: float = 1.0, steps: int = 40, energy: float = 1e-3
) -> Problem:
    """H = ½ δ σ_z + ½ a (Ω_x σ_x + Ω_y σ_y): a gate in spite of detuning δ and amplitude error a − 1."""
    gate = _gate(target, 2)
    bounds = {"rabi_x": (-rabi, rabi), "rabi_y": (-rabi, rabi)}
    return held_pulses(
        name="qubit-gate",
        description=f"The gate `{target}` on a resonantly driven qubit whose frequency and drive strength are uncertain.",
        source="Nielsen and Chuang (2010), §7; Green, Sastrawan, Uys, Biercuk, New J. Phys. 15 (2013) 095004 (errors).",
        state=_amplitudes(_columns(2, 2)),
        control={"rabi_x": "rad/us", "rabi_y": "rad/us"},
        params={"detuning": 0.0, "amplitude": 1.0},
        param_ranges={"detuning": (-0.1 * rabi, 0.1 * rabi), "amplitude": (0.9, 1.1)},
        dynamics=lambda x, u, p: schroedinger(
            x,
            [(0.5 * p.detuning, SIGMA_Z), (0.5 * p.amplitude * u[0], SIGMA_X), (0.5 * p.amplitude * u[1], SIGMA_Y)],
            columns=2,
        ),
        terminal_cost=lambda x, p: 1 - gate_fidelity(x, gate),
        control_bounds=bounds,
        initial_state=Fixed(stack_gate(np.eye(2))),
        duration=duration,
        steps=steps,
        energy=energy,
    )


def qubit_gate_filtered(
    *, bandwidth: float = 4.0, target: str = "hadamard", duration: float = 1.0, steps: int = 40
) -> Problem:
    """`qubit_gate` whose pulses pass a first-order low-pass of 3 dB bandwidth [MHz]: a⁺ = u + (a − u) exp(−2π · bandwidth · dt).

    State: the gate and the filtered amplitudes a, which act over the interval; the control u is what is sent.
    """
    require(bandwidth > 0, "bandwidth", "be positive", f"is {bandwidth!r}")
    gate = discretised(qubit_gate(target=target, duration=duration, steps=steps))
    return with_actuator_lag(gate, 1 / (2 * np.pi * bandwidth)).replace(
        name="qubit-gate-filtered",
        description=f"The gate `{target}` with pulses that pass a low-pass filter before they reach the qubit.",
    )


# --- three levels and more ----------------------------------------------------------------------------------------------


def transition(levels: int, i: int, j: int) -> np.ndarray:
    """|i⟩⟨j| + |j⟩⟨i|."""
    return np.outer(ket(levels, i), ket(levels, j)) + np.outer(ket(levels, j), ket(levels, i))


def lambda_system(
    *,
    rabi: float = 1.0,
    duration: float = 10.0,
    steps: int = 50,
    loss: float = 0.05,
    energy: float = 1e-3,
    shared_power: bool = False,
    time_optimal: bool = False,
) -> Problem:
    """H = ½ Ω_p (|1⟩⟨2| + h.c.) + ½ Ω_s (|2⟩⟨3| + h.c.) + Δ |2⟩⟨2| + δ |3⟩⟨3|: |1⟩ to |3⟩, the lossy |2⟩ avoided.

    Cost also ∫ loss |ψ_2|² dt, which makes Stokes before pump best (STIRAP). `shared_power`: Ω_p² + Ω_s² ≤ rabi² instead of a bound
    on each. `time_optimal`: without loss in the least time, √3 π / rabi with shared power, √2 π / rabi with separate bounds.
    """
    bounds = {"pump": (-rabi, rabi), "stokes": (-rabi, rabi)}
    pump, stokes = transition(3, 0, 1), transition(3, 1, 2)
    problem = held_pulses(
        name="lambda-system",
        description="Population transfer in a Λ system past its lossy middle level.",
        source="Bergmann, Theuer, Shore, Rev. Mod. Phys. 70 (1998) 1003; Boscain, Charlot, Gauthier, Guérin, Jauslin, "
        "J. Math. Phys. 43 (2002) 2107 (least times).",
        state=_amplitudes("123"),
        control={"pump": "rad/s", "stokes": "rad/s"},
        params={"detuning": 0.0, "two_photon": 0.0},
        param_ranges={"detuning": (-0.2 * rabi, 0.2 * rabi), "two_photon": (-0.02 * rabi, 0.02 * rabi)},
        dynamics=lambda x, u, p: schroedinger(
            x,
            [
                (0.5 * u[0], pump),
                (0.5 * u[1], stokes),
                (p.detuning, np.diag([0, 1, 0])),
                (p.two_photon, np.diag([0, 0, 1])),
            ],
        ),
        running=lambda x: loss * (x[1] ** 2 + x[4] ** 2),
        terminal_cost=lambda x, p: 1 - state_fidelity(x, ket(3, 2)),
        path_constraints=(lambda x, u, p: ca.sumsqr(u) - rabi**2) if shared_power else None,
        control_bounds=bounds,
        initial_state=Fixed(stack(ket(3, 0))),
        duration=duration,
        steps=steps,
        energy=energy,
    )
    return _time_optimal(problem, ket(3, 2), (0.2 * duration, 2.0 * duration)) if time_optimal else problem


def transmon_gate(
    *, levels: int = 3, target: str = "x", duration: float = 10.0, steps: int = 40, energy: float = 1e-3
) -> Problem:
    """H = δ n + ½ α n (n − 1) + ½ a Ω_x (a + a†) + ½ a Ω_y i(a† − a) in the frame of the drive; a gate on the two lowest levels.

    State: the images of |0⟩ and |1⟩ on all `levels`. Cost: one minus the average gate fidelity, so what leaks to |2⟩ is lost.
    """
    gate = _gate(target, 2)
    lower = destroy(levels)
    number = lower.conj().T @ lower
    drive_x, drive_y = lower + lower.conj().T, 1j * (lower.conj().T - lower)
    bounds = {"drive_x": (-1.0, 1.0), "drive_y": (-1.0, 1.0), "detuning": (-1.0, 1.0)}
    return held_pulses(
        name="transmon-gate",
        description=f"The gate `{target}` on a transmon of {levels} levels without leaving its two lowest.",
        source="Motzoi, Gambetta, Rebentrost, Wilhelm, Phys. Rev. Lett. 103 (2009) 110501.",
        state=_amplitudes(_columns(levels, 2)),
        control={"drive_x": "rad/ns", "drive_y": "rad/ns", "detuning": "rad/ns"},
        params={"anharmonicity": -0.3 * 2 * np.pi, "amplitude": 1.0},
        param_ranges={"anharmonicity": (-0.33 * 2 * np.pi, -0.27 * 2 * np.pi), "amplitude": (0.95, 1.05)},
        dynamics=lambda x, u, p: schroedinger(
            x,
            [
                (u[2], number),
                (0.5 * p.anharmonicity, number @ (number - np.eye(levels))),
                (0.5 * p.amplitude * u[0], drive_x),
                (0.5 * p.amplitude * u[1], drive_y),
            ],
            columns=2,
        ),
        terminal_cost=lambda x, p: 1 - average_gate_fidelity(x, gate),
        control_bounds=bounds,
        initial_state=Fixed(stack_gate(np.eye(levels)[:, :2])),
        duration=duration,
        steps=steps,
        energy=energy,
    )


def kerr_cavity(
    *,
    levels: int = 6,
    drive: float = 1.0,
    duration: float = 6.0,
    steps: int = 80,
    energy: float = 1e-3,
    guard: float = 0.1,
) -> Problem:
    """H = Δ n − ½ K n (n − 1) + ε_x (a + a†) + ε_y i(a† − a): one photon from the vacuum, by a linear drive.

    Truncated to `levels` Fock states; cost also ∫ guard |ψ_last|² dt, so that the truncation is no help.
    """
    lower = destroy(levels)
    number = lower.conj().T @ lower
    bounds = {"drive_x": (-drive, drive), "drive_y": (-drive, drive)}
    return held_pulses(
        name="kerr-cavity",
        description=f"Bring one photon into a Kerr cavity of {levels} Fock states with a linear drive.",
        source="Walls and Milburn, Quantum Optics (2008), §5; task and cost: optctl.",
        state=_amplitudes(range(levels)),
        control={"drive_x": "rad/us", "drive_y": "rad/us"},
        params={"kerr": 2.0, "detuning": 0.0},
        param_ranges={"kerr": (1.8, 2.2), "detuning": (-0.1, 0.1)},
        dynamics=lambda x, u, p: schroedinger(
            x,
            [
                (p.detuning, number),
                (-0.5 * p.kerr, number @ (number - np.eye(levels))),
                (u[0], lower + lower.conj().T),
                (u[1], 1j * (lower.conj().T - lower)),
            ],
        ),
        running=lambda x: guard * (x[levels - 1] ** 2 + x[2 * levels - 1] ** 2),
        terminal_cost=lambda x, p: 1 - state_fidelity(x, ket(levels, 1)),
        control_bounds=bounds,
        initial_state=Fixed(stack(ket(levels, 0))),
        duration=duration,
        steps=steps,
        energy=energy,
    )


# --- several qubits -----------------------------------------------------------------------------------------------------


def _two_qubit_gate(
    name: str, hamiltonian, bounds, params, *, target: str, duration: float, steps: int, energy: float, **words
):
    gate = _gate(target, 4)
    return held_pulses(
        name=name,
        state=_amplitudes(_columns(4, 4)),
        control=dict.fromkeys(bounds, "rad/us"),
        params=params,
        param_ranges={key: (0.9 * value, 1.1 * value) for key, value in params.items()},
        dynamics=lambda x, u, p: schroedinger(x, hamiltonian(u, p), columns=4),
        terminal_cost=lambda x, p: 1 - gate_fidelity(x, gate),
        control_bounds=bounds,
        initial_state=Fixed(stack_gate(np.eye(4))),
        duration=duration,
        steps=steps,
        energy=energy,
        **words,
    )


def ising_gate(*, target: str = "cnot", duration: float = 0.75, steps: int = 30, energy: float = 1e-3) -> Problem:
    """H = ½ π J σ_z⊗σ_z + ½ Σ (Ω_x σ_x + Ω_y σ_y) of each qubit: a gate from Ising coupling and local drives.

    With drives of any strength CNOT needs T = 1/(2J); before that the fidelity is cos²(¼π(1 − 2JT)).
    """
    one, two = 0, 1
    local = [embed(sigma, site, 2) for site in (one, two) for sigma in (SIGMA_X, SIGMA_Y)]
    coupling = embed(SIGMA_Z, one, 2) @ embed(SIGMA_Z, two, 2)
    return _two_qubit_gate(
        "ising-gate",
        lambda u, p: [(0.5 * np.pi * p.coupling, coupling), *((0.5 * u[k], local[k]) for k in range(4))],
        {name: (-10 * np.pi, 10 * np.pi) for name in ("x1", "y1", "x2", "y2")},
        {"coupling": 1.0},
        target=target,
        duration=duration,
        steps=steps,
        energy=energy,
        description=f"The gate `{target}` on two spins with Ising coupling and a local drive of each.",
        source="Khaneja, Brockett, Glaser, Phys. Rev. A 63 (2001) 032308.",
    )


def exchange_gate(*, target: str = "cnot", duration: float = 1.0, steps: int = 40, energy: float = 1e-3) -> Problem:
    """H = ¼ J (σ₁·σ₂) + ¼ Δ (σ_z1 − σ_z2) + ½ Ω_1 σ_x1 + ½ Ω_2 σ_x2: exchange J ≥ 0 is a control, the gradient Δ is not.

    Without gradient, J T = π/2 alone gives √SWAP (up to a phase).
    """
    pair = lambda sigma: embed(sigma, 0, 2) @ embed(sigma, 1, 2)
    exchange = pair(SIGMA_X) + pair(SIGMA_Y) + pair(SIGMA_Z)
    gradient = embed(SIGMA_Z, 0, 2) - embed(SIGMA_Z, 1, 2)
    return _two_qubit_gate(
        "exchange-gate",
        lambda u, p: [
            (0.25 * u[0], exchange),
            (0.25 * p.gradient, gradient),
            (0.5 * u[1], embed(SIGMA_X, 0, 2)),
            (0.5 * u[2], embed(SIGMA_X, 1, 2)),
        ],
        {"exchange": (0.0, 4 * np.pi), "x1": (-4 * np.pi, 4 * np.pi), "x2": (-4 * np.pi, 4 * np.pi)},
        {"gradient": 2 * np.pi},
        target=target,
        duration=duration,
        steps=steps,
        energy=energy,
        description=f"The gate `{target}` on two electron spins with controlled exchange in a field gradient.",
        source="Loss and DiVincenzo, Phys. Rev. A 57 (1998) 120; Burkard, Ladd, Pan, Nichol, Petta, Rev. Mod. Phys. 95 (2023) 025003.",
    )


def spin_chain(*, spins: int = 5, duration: float = 4.0, steps: int = 40, energy: float = 1e-3) -> Problem:
    """H = ½ Σ J_i (σ_x σ_x + σ_y σ_y)_{i,i+1}, |J_i| ≤ 1: one excitation from the first spin to the last.

    State: the amplitudes of the excitation on each of the `spins` (their number is conserved), H_{i,i+1} = J_i. Constant J_i ∝ √(i(n − i))
    transfer it perfectly in T = π / 2 · max √(i(n − i)) when the largest is 1.
    """
    require(isinstance(spins, int) and spins >= 2, "spins", "be an integer of at least 2", f"is {spins!r}")
    bonds = [transition(spins, i, i + 1) for i in range(spins - 1)]
    bounds = {f"coupling_{i + 1}": (-1.0, 1.0) for i in range(spins - 1)}
    return held_pulses(
        name="spin-chain",
        description=f"Carry an excitation from one end of a chain of {spins} spins to the other by its couplings.",
        source="Christandl, Datta, Ekert, Landahl, Phys. Rev. Lett. 92 (2004) 187902 (perfect transfer).",
        state=_amplitudes(range(1, spins + 1)),
        control=dict.fromkeys(bounds, "rad/s"),
        params={"disorder": 0.0},
        param_ranges={"disorder": (-0.2, 0.2)},
        dynamics=lambda x, u, p: schroedinger(
            x, [*((u[i], bonds[i]) for i in range(spins - 1)), (p.disorder, np.diag(np.arange(spins) % 2))]
        ),
        terminal_cost=lambda x, p: 1 - state_fidelity(x, ket(spins, spins - 1)),
        control_bounds=bounds,
        initial_state=Fixed(stack(ket(spins, 0))),
        duration=duration,
        steps=steps,
        energy=energy,
    )
