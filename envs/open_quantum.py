"""Open quantum systems under control: decay, relaxation and loss beside the drive; ħ = 1, exact propagators.

Density matrices are Bloch vectors (`optctl.problem.quantum` says how); the cost is that of `optctl.envs.quantum`.
"""

from __future__ import annotations

import casadi as ca
import numpy as np

from optctl.envs.quantum import held_pulses, transition
from optctl.problem import Fixed, Problem
from optctl.problem.quantum import SIGMA_X, SIGMA_Y, SIGMA_Z, density_fidelity, destroy, ket, lindblad, to_bloch

BLOCH = {"bloch_x": "1", "bloch_y": "1", "bloch_z": "1"}


def damped_qubit(*, rabi: float = 2.0, duration: float = 3.0, steps: int = 60, energy: float = 1e-3) -> Problem:
    """H = ½ (Δ σ_z + Ω_x σ_x + Ω_y σ_y), decay |1⟩ → |0⟩ at rate γ, dephasing at rate γ_φ: from |0⟩ to |1⟩ in spite of both.

    On resonance a constant Ω ends in ρ_11 = Ω² / (γ² + 2Ω²) where γ_φ = 0. Dissipators: √γ |0⟩⟨1| and √(γ_φ/2) σ_z.
    """
    bounds = {"detuning": (-rabi, rabi), "rabi_x": (-rabi, rabi), "rabi_y": (-rabi, rabi)}
    return held_pulses(
        name="damped-qubit",
        description="Excite a qubit that decays and dephases while it is driven.",
        source="Breuer and Petruccione, The Theory of Open Quantum Systems (2002), §3.4.5.",
        state=BLOCH,
        control=dict.fromkeys(bounds, "rad/us"),
        params={"decay": 0.1, "dephasing": 0.05},
        param_ranges={"decay": (0.05, 0.2), "dephasing": (0.0, 0.1)},
        dynamics=lambda r, u, p: lindblad(
            r,
            [(0.5 * u[0], SIGMA_Z), (0.5 * u[1], SIGMA_X), (0.5 * u[2], SIGMA_Y)],
            [(p.decay, destroy(2)), (0.5 * p.dephasing, SIGMA_Z)],
        ),
        terminal_cost=lambda r, p: 1 - density_fidelity(r, ket(2, 1)),
        control_bounds=bounds,
        initial_state=Fixed(to_bloch(ket(2, 0))),
        duration=duration,
        steps=steps,
        energy=energy,
    )


def spin_saturation(*, rabi: float = 8.0, duration: float = 1.0, steps: int = 50, energy: float = 1e-3) -> Problem:
    """Bloch's equations ẋ = −x/T₂ − δ y, ẏ = −y/T₂ + δ x − ω z, ż = (1 − z)/T₁ + ω y: from equilibrium (0, 0, 1) to the centre.

    The best saturation is not one bang (inversion recovery): it follows singular arcs in between. Dissipators: decay to |0⟩ at
    1/T₁ and pure dephasing at 1/T₂ − 1/(2T₁).
    """
    bounds = {"rabi": (-rabi, rabi)}
    return held_pulses(
        name="spin-saturation",
        description="Bring the magnetisation of a relaxing spin to zero, as is wanted for contrast in magnetic resonance.",
        source="Lapert, Zhang, Braun, Glaser, Sugny, Phys. Rev. Lett. 104 (2010) 083001.",
        state=BLOCH,
        control={"rabi": "rad/s"},
        params={"t1": 2.0, "t2": 0.3, "offset": 0.0},
        param_ranges={"t1": (1.6, 2.4), "t2": (0.24, 0.36), "offset": (-0.5, 0.5)},
        dynamics=lambda r, u, p: lindblad(
            r,
            [(0.5 * u[0], SIGMA_X), (0.5 * p.offset, SIGMA_Z)],
            [(1 / p.t1, destroy(2)), (0.5 * (1 / p.t2 - 0.5 / p.t1), SIGMA_Z)],
        ),
        terminal_cost=lambda r, p: ca.sumsqr(r),
        control_bounds=bounds,
        initial_state=Fixed(to_bloch(ket(2, 0))),
        duration=duration,
        steps=steps,
        energy=energy,
    )


def qubit_reset(*, coupling: float = 1.0, duration: float = 6.0, steps: int = 60, energy: float = 1e-3) -> Problem:
    """H = Δ |e0⟩⟨e0| + g (|e0⟩⟨g1| + h.c.), loss √κ |g0⟩⟨g1|: empty an excited qubit into a lossy mode by tuning g and Δ.

    Levels |g0⟩, |e0⟩, |g1⟩ hold the one excitation there is. Constant g = κ/4 on resonance is critically damped.
    """
    bounds = {"coupling": (-coupling, coupling), "detuning": (-coupling, coupling)}
    exchange, excited = transition(3, 1, 2), np.diag([0, 1, 0])
    loss = np.outer(ket(3, 0), ket(3, 2))
    return held_pulses(
        name="qubit-reset",
        description="Reset an excited qubit through its tunable coupling to a lossy mode.",
        source="Basilewitsch, Cosco, Lo Gullo, Möttönen, Ala-Nissila, Koch, Maniscalco, New J. Phys. 21 (2019) 093054.",
        state={f"r{k + 1}": "1" for k in range(8)},
        control=dict.fromkeys(bounds, "rad/us"),
        params={"loss": 1.0},
        param_ranges={"loss": (0.8, 1.2)},
        dynamics=lambda r, u, p: lindblad(r, [(u[0], exchange), (u[1], excited)], [(p.loss, loss)]),
        terminal_cost=lambda r, p: 1 - density_fidelity(r, ket(3, 0)),
        control_bounds=bounds,
        initial_state=Fixed(to_bloch(ket(3, 1))),
        duration=duration,
        steps=steps,
        energy=energy,
    )
