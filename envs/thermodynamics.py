"""Stochastic thermodynamics: a Brownian particle in a harmonic trap that is moved or stiffened at the least mean work.

Overdamped motion γ ẋ = −∂V(x, λ)/∂x + √(2γT) ξ (k_B = 1), protocol λ: the trap's centre or its stiffness. Sekimoto's balance along
one path, dV = ∂V/∂λ dλ + ∂V/∂x ∘ dx = d(work) + d(heat absorbed), is kept without discretisation error, because λ is held over each
interval and changes only between two of them:

    jump λ_{k−1} → λ_k in no time      work  V(x_k, λ_k) − V(x_k, λ_{k−1}),        no heat
    wait for dt at λ_k                 heat  V(x_{k+1}, λ_k) − V(x_k, λ_k),        no work

The state is (position, protocol value so far): a jump at the beginning is the first interval's, the jump at the end, to the
prescribed last value, is the terminal cost. While λ is held the particle is an Ornstein–Uhlenbeck process, whose transition is
drawn exactly: x_{k+1} = c + (x_k − c) e^{−κ dt/γ} + √(T/κ (1 − e^{−2κ dt/γ})) w. So cost = work, the second law ⟨W⟩ ≥ ΔF and the
Jarzynski equality ⟨e^{−W/T}⟩ = e^{−ΔF/T} hold exactly for any number of steps and not only in a limit.

Units: with κ = γ = T = 1, lengths are in √(kT/κ), times in γ/κ and energies in kT.

By default only the protocol and the elapsed time are observed: who sees the particle (`feedback=True`) can extract work from the
bath as Maxwell's demon does, and the bounds of open-loop protocols are not bounds for him.

Sources: Sekimoto, Stochastic Energetics (2010), §4; Schmiedl and Seifert, Phys. Rev. Lett. 98 (2007) 108301; Jarzynski,
Phys. Rev. Lett. 78 (1997) 2690; Crooks, J. Stat. Phys. 90 (1998) 1481 for the alternation of work and heat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import casadi as ca
import numpy as np

from optctl.errors import require
from optctl.problem import Fixed, Normal, Problem
from optctl.problem.trajectory import Trajectory

_SOURCE = "Schmiedl and Seifert, Optimal finite-time processes in stochastic thermodynamics, Phys. Rev. Lett. 98 (2007) 108301"


def moved_potential(position: Any, centre: Any, stiffness: Any = 1.0) -> Any:
    """V = κ/2 (x − λ)²."""
    return 0.5 * stiffness * (position - centre) ** 2


def stiffened_potential(position: Any, stiffness: Any) -> Any:
    """V = λ/2 x²."""
    return 0.5 * stiffness * position**2


def _positive(**values: float) -> None:
    for name, value in values.items():
        require(bool(value > 0), name, "be positive", f"is {value!r}")


def _observed(problem: Problem, feedback: bool) -> dict[str, Any]:
    """Observation of the protocol (the second state) and the elapsed time; of the position before them with feedback."""
    first = 0 if feedback else 1
    return {
        "observation": lambda x, p, t: ca.vertcat(x[first:], t / problem.duration),
        "observation_names": (*tuple(problem.state)[first:], "elapsed"),
    }


def moved_trap(
    *, distance: float = 2.0, duration: float = 1.0, steps: int = 50, temperature: float = 1.0, feedback: bool = False
) -> Problem:
    """Move a trap of stiffness κ by `distance` in `duration` at the least mean work; control: its centre.

    The work is linear in x, so its mean is the cost of the noise-free problem from x = 0, which `solve` minimises:
    ⟨W⟩ = κ λ_f²/(2 + (2T_n/h) tanh(h/2)) with T_n = κ t_f/γ and h = κ dt/γ, for t_f/dt → ∞ Schmiedl and Seifert's κ λ_f²/(T_n + 2).
    The optimal centre jumps by the same amount at both ends, and by equal amounts in between. ΔF = 0. The work is Gaussian for every
    open-loop protocol, with variance 2T⟨W⟩.
    """
    _positive(distance=distance, duration=duration, steps=steps, temperature=temperature)
    dt = duration / steps

    def potential(x, centre, p):
        return moved_potential(x, centre, p.stiffness)

    def transition(x, u, p):
        return ca.vertcat(u[0] + (x[0] - u[0]) * ca.exp(-p.stiffness * dt / p.friction), u[0])

    def diffusion(x, u, p):
        variance = -p.temperature / p.stiffness * ca.expm1(-2 * p.stiffness * dt / p.friction)
        return ca.vertcat(ca.sqrt(variance), 0)

    problem = Problem(
        name="moved-trap",
        description="Move the trap of a Brownian particle in a given time at the least mean work.",
        source=f"{_SOURCE}, case study I.",
        state={"position": "1", "centre": "1"},
        control={"next_centre": "1"},
        params={"distance": distance, "temperature": temperature, "friction": 1.0, "stiffness": 1.0},
        param_ranges={"distance": (0.5 * distance, 1.5 * distance)},
        transition=transition,
        diffusion=diffusion,
        stage_cost=lambda x, u, p: potential(x[0], u[0], p) - potential(x[0], x[1], p),
        terminal_cost=lambda x, p: potential(x[0], p.distance, p) - potential(x[0], x[1], p),
        control_bounds={"next_centre": (-distance, 2 * distance)},
        initial_state=Normal([0.0, 0.0], [temperature**0.5, 0.0]),
        dt=dt,
        steps=steps,
    )
    return problem.replace(**_observed(problem, feedback))


def _stiffness_step(x, kappa, p, dt):
    """e^{−κ dt/γ} and the variance that the bath adds in one interval."""
    return ca.exp(-kappa * dt / p.friction), -p.temperature / kappa * ca.expm1(-2 * kappa * dt / p.friction)


def stiffened_trap(
    *,
    initial: float = 1.0,
    final: float = 4.0,
    duration: float = 1.0,
    steps: int = 50,
    temperature: float = 1.0,
    feedback: bool = False,
) -> Problem:
    """Change a trap's stiffness from `initial` to `final` in `duration` at the least mean work; control: the stiffness.

    ΔF = T/2 ln(κ_f/κ_i), and the work is not Gaussian. Its mean depends on the variance of x, so the optimum is that of
    `stiffened_trap_variance`; the noise-free optimum of this problem, which `solve` would give, is not a mean over anything.
    """
    _positive(initial=initial, final=final, duration=duration, steps=steps, temperature=temperature)
    dt = duration / steps
    problem = Problem(
        name="stiffened-trap",
        description="Stiffen (or soften) the trap of a Brownian particle in a given time at the least mean work.",
        source=f"{_SOURCE}, case study II.",
        state={"position": "1", "stiffness": "1"},
        control={"next_stiffness": "1"},
        params={"final": final, "temperature": temperature, "friction": 1.0},
        param_ranges={"final": (0.7 * final, 1.4 * final)},
        transition=lambda x, u, p: ca.vertcat(x[0] * _stiffness_step(x, u[0], p, dt)[0], u[0]),
        diffusion=lambda x, u, p: ca.vertcat(ca.sqrt(_stiffness_step(x, u[0], p, dt)[1]), 0),
        stage_cost=lambda x, u, p: stiffened_potential(x[0], u[0]) - stiffened_potential(x[0], x[1]),
        terminal_cost=lambda x, p: stiffened_potential(x[0], p.final) - stiffened_potential(x[0], x[1]),
        control_bounds=_stiffness_bounds(initial, final),
        initial_state=Normal([0.0, initial], [(temperature / initial) ** 0.5, 0.0]),
        dt=dt,
        steps=steps,
    )
    return problem.replace(**_observed(problem, feedback))


def stiffened_trap_variance(
    *, initial: float = 1.0, final: float = 4.0, duration: float = 1.0, steps: int = 50, temperature: float = 1.0
) -> Problem:
    """The same for the whole ensemble: state (⟨x²⟩, stiffness), no noise, cost = the mean work itself.

    For t_f/dt → ∞ the least mean work is ½ (κ_f y² − T) − T ln(y/y₀) + γ (y − y₀)²/t_f with y₀ = √(T/κ_i) and y the positive root of
    (κ_f + 2γ/t_f) y² − (2γ/t_f) y₀ y − T = 0; √⟨x²⟩ is linear in time.
    """
    paths = stiffened_trap(initial=initial, final=final, duration=duration, steps=steps, temperature=temperature)

    def transition(x, u, p):
        decay, added = _stiffness_step(x, u[0], p, paths.dt)
        return ca.vertcat(x[0] * decay**2 + added, u[0])

    return paths.replace(
        name="stiffened-trap-variance",
        description="The stiffened trap in terms of the variance of its particle: deterministic, with the same mean work.",
        state={"variance": "1", "stiffness": "1"},
        transition=transition,
        diffusion=None,
        stage_cost=lambda x, u, p: 0.5 * (u[0] - x[1]) * x[0],
        terminal_cost=lambda x, p: 0.5 * (p.final - x[1]) * x[0],
        initial_state=Fixed([temperature / initial, initial]),
        observation=None,
        observation_names=(),
    )


def _stiffness_bounds(initial: float, final: float) -> dict[str, tuple[float, float]]:
    return {"next_stiffness": (0.2 * min(initial, final), 3 * max(initial, final))}


# --- the balance --------------------------------------------------------------------------------------------------------


class Energetics(NamedTuple):
    """Sekimoto's balance along paths, accumulated since the start; shapes (*B, T + 1). After the last jump: `Trajectory.total_cost`."""

    work: np.ndarray
    """Work done on the particle by the jumps so far; the jump at time k comes after entry k."""
    heat: np.ndarray
    """Heat absorbed from the bath."""
    energy: np.ndarray
    """V(x_k, λ_{k−1}): the energy before the jump at time k."""


def energetics(path: Trajectory, potential: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Energetics:
    """Work, heat and energy along paths of `moved_trap` or `stiffened_trap`, from positions and protocol alone.

    `potential(x, λ)` is `moved_potential` or `stiffened_potential` (with other parameters bound, if they are not 1).
    """
    x, before, held = path.states[..., 0], path.states[..., 1], path.controls[..., 0]
    jump = potential(x[..., :-1], held) - potential(x[..., :-1], before[..., :-1])
    wait = potential(x[..., 1:], held) - potential(x[..., :-1], held)
    total = lambda part: np.concatenate([np.zeros_like(part[..., :1]), np.cumsum(part, axis=-1)], axis=-1)
    return Energetics(total(jump), total(wait), potential(x, before))
