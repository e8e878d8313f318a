"""Oscillators: one, several and chaotic. Equations, known facts and warnings: docs/families/oscillators.md.

Mechanical oscillators have the state (q, v), positions first. `goal` of the single ones says what is asked for:

    regulate         ∫₀^∞ of a quadratic cost towards the origin
    minimum-energy   ½ ∫₀ᵀ u² dt, at rest in the origin at T = steps · dt (terminal constraint)
    minimum-time     ∫ dt, to rest in the origin, with bounded force (terminal constraint, free final time)

Environments need the first; the other two are for the solvers, and an environment of theirs pays no price for missing the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import casadi as ca
import numpy as np

from optctl.errors import require
from optctl.problem import Problem, Uniform
from optctl.problem.transforms import minimum_time

Goal = Literal["regulate", "minimum-energy", "minimum-time"]


def _towards(goal: Goal, problem: Problem) -> Problem:
    """The regulator `problem`, or the same oscillator with another goal."""
    goals = ("regulate", "minimum-energy", "minimum-time")
    require(goal in goals, "goal", f"be one of {', '.join(goals)}", f"is {goal!r}")
    if goal == "minimum-energy":
        return problem.replace(
            name=f"{problem.name}-minimum-energy",
            stage_cost=lambda x, u, p: 0.5 * ca.sumsqr(u),
            terminal_constraints=lambda x, p: x,
            horizon="finite",
        )
    if goal == "minimum-time":
        bounded = bool(np.isfinite(problem.control_high).all())
        require(bounded, "goal", "be another one where the force is not bounded", f"is {goal!r}")
        return minimum_time(problem, dict.fromkeys(problem.state, 0.0), final_time=(problem.dt, 4 * problem.duration))
    return problem


def _force(max_force: float | None) -> dict[str, Any]:
    return {} if max_force is None else {"control_bounds": {"force": (-max_force, max_force)}}


# --- one oscillator -----------------------------------------------------------------------------------------------------


def harmonic(
    *, goal: Goal = "regulate", damping: float = 0.1, max_force: float | None = 1.0, dt: float = 0.1, steps: int = 200
) -> Problem:
    """m q'' = −k q − c q' + u: stop a swinging mass with a bounded force, cost ∫ q² + v² + 0.1 u² dt."""
    problem = Problem(
        name="harmonic-oscillator",
        description="Stop a mass on a spring with a bounded force.",
        source="Pontryagin et al., The Mathematical Theory of Optimal Processes (1962), §5, for the minimum time.",
        state={"position": "m", "velocity": "m/s"},
        control={"force": "N"},
        params={"mass": 1.0, "stiffness": 1.0, "damping": damping},
        param_ranges={"mass": (0.7, 1.4), "stiffness": (0.7, 1.4)},
        dynamics=lambda x, u, p: ca.vertcat(x[1], (u[0] - p.stiffness * x[0] - p.damping * x[1]) / p.mass),
        stage_cost=lambda x, u, p: ca.sumsqr(x) + 0.1 * u[0] ** 2,
        initial_state=Uniform([-3.0, -3.0], [3.0, 3.0]),
        dt=dt,
        steps=steps,
        horizon="infinite",
        integrator="exponential",
        **_force(max_force),
    )
    return _towards(goal, problem)


def driven(*, dt: float = 0.1, steps: int = 300) -> Problem:
    """q'' = −ω² q − 2ζω q' + F cos Ωt + u: hold still what is shaken near its resonance, cost ∫ q² + v² + 0.1 u² dt.

    Without control the amplitude settles at F/√((ω² − Ω²)² + (2ζωΩ)²). The phase of the drive is observed.
    """

    def dynamics(x, u, p, t):
        push = p.drive * ca.cos(p.drive_frequency * t) + u[0]
        return ca.vertcat(x[1], push - p.frequency**2 * x[0] - 2 * p.damping_ratio * p.frequency * x[1])

    def observation(x, p, t):
        return ca.vertcat(x, ca.cos(p.drive_frequency * t), ca.sin(p.drive_frequency * t))

    return Problem(
        name="driven-oscillator",
        description="Hold still an oscillator that is shaken near its resonance; the phase of the drive is seen.",
        source="Landau and Lifshitz, Mechanics (1976), §26, for the response; cost: optctl.",
        state={"position": "m", "velocity": "m/s"},
        control={"force": "N/kg"},
        params={"frequency": 1.0, "damping_ratio": 0.05, "drive": 0.5, "drive_frequency": 0.9},
        param_ranges={"drive": (0.3, 0.7), "drive_frequency": (0.7, 1.3)},
        dynamics=dynamics,
        stage_cost=lambda x, u, p: ca.sumsqr(x) + 0.1 * u[0] ** 2,
        control_bounds={"force": (-1.0, 1.0)},
        initial_state=Uniform([-2.0, -2.0], [2.0, 2.0]),
        observation=observation,
        observation_names=("position", "velocity", "cos phase", "sin phase"),
        dt=dt,
        steps=steps,
        horizon="infinite",
    )


def parametric(*, depth: float = 0.3, damping_ratio: float = 0.0, dt: float = 0.1, steps: int = 300) -> Problem:
    """q'' = −ω² (1 + u) q − 2ζω q', |u| ≤ `depth`: cool by modulating the stiffness, cost ∫ ω² q² + v² + 0.1 u² dt.

    Bilinear, so the exponential integrator is exact. Soft towards the centre and stiff away from it multiplies the amplitude by
    √((1 − depth)/(1 + depth)) in every half period; no control acts in the centre itself.
    """
    require(0 < depth < 1, "depth", "lie between 0 and 1", f"is {depth!r}")
    return Problem(
        name="parametric-oscillator",
        description="Cool an oscillator by modulating its stiffness: the control multiplies the state.",
        source="Landau and Lifshitz, Mechanics (1976), §27; as feedback cooling: Gieseler et al., Phys. Rev. Lett. 109 (2012) 103603.",
        state={"position": "m", "velocity": "m/s"},
        control={"modulation": "1"},
        params={"frequency": 1.0, "damping_ratio": damping_ratio},
        param_ranges={"frequency": (0.8, 1.25)},
        dynamics=lambda x, u, p: ca.vertcat(
            x[1], -(p.frequency**2) * (1 + u[0]) * x[0] - 2 * p.damping_ratio * p.frequency * x[1]
        ),
        stage_cost=lambda x, u, p: p.frequency**2 * x[0] ** 2 + x[1] ** 2 + 0.1 * u[0] ** 2,
        control_bounds={"modulation": (-depth, depth)},
        initial_state=Uniform([-2.0, -2.0], [2.0, 2.0]),
        dt=dt,
        steps=steps,
        horizon="infinite",
        integrator="exponential",
    )


def duffing(
    *,
    goal: Goal = "regulate",
    stiffness: float = 1.0,
    cubic: float = 0.15,
    damping: float = 0.0,
    drive: float = 0.0,
    drive_frequency: float = 1.2,
    max_force: float | None = None,
    dt: float = 0.1,
    steps: int = 150,
) -> Problem:
    """q'' = −α q − β q³ − δ q' + F cos Ωt + u: rest in the origin, cost ∫ q² + v² + u² dt.

    α > 0: a spring that hardens (β > 0) or softens; α < 0 < β: two wells at q = ±√(−α/β), the origin being the saddle between
    them. A drive is part of the equation, and its phase of the observation, only where `drive` is not zero.
    """

    def dynamics(x, u, p, t):
        force = u[0] - p.stiffness * x[0] - p.cubic * x[0] ** 3 - p.damping * x[1]
        return ca.vertcat(x[1], force + (p.drive * ca.cos(p.drive_frequency * t) if drive else 0.0))

    shaken: dict[str, Any] = {
        "observation": lambda x, p, t: ca.vertcat(x, ca.cos(p.drive_frequency * t), ca.sin(p.drive_frequency * t)),
        "observation_names": ("position", "velocity", "cos phase", "sin phase"),
    }
    problem = Problem(
        name="duffing",
        description="Bring a spring with a cubic term to rest in its centre.",
        source="Duffing (1918); Guckenheimer and Holmes, Nonlinear Oscillations (1983), §2.2.",
        state={"position": "m", "velocity": "m/s"},
        control={"force": "N/kg"},
        params={"stiffness": stiffness, "cubic": cubic, "damping": damping}
        | ({"drive": drive, "drive_frequency": drive_frequency} if drive else {}),
        param_ranges={"cubic": (0.5 * cubic, 1.5 * cubic)} if cubic > 0 else {},
        dynamics=dynamics if drive else lambda x, u, p: dynamics(x, u, p, 0.0),
        stage_cost=lambda x, u, p: ca.sumsqr(x) + u[0] ** 2,
        control_scale={"force": 3.0},
        initial_state=Uniform([-1.5, -1.5], [1.5, 1.5]),
        dt=dt,
        steps=steps,
        horizon="infinite",
        **(shaken if drive else {}),
        **_force(max_force),
    )
    return _towards(goal, problem)


def duffing_chaos(*, dt: float = 0.05, steps: int = 300) -> Problem:
    """The driven double well q'' = q − q³ − 0.3 q' + 0.5 cos 1.2t + u, chaotic without control; |u| ≤ 1."""
    problem = duffing(
        stiffness=-1.0, cubic=1.0, damping=0.3, drive=0.5, drive_frequency=1.2, max_force=1.0, dt=dt, steps=steps
    )
    return problem.replace(
        name="duffing-chaos",
        description="Calm a chaotic driven double well on the saddle between its wells.",
        source="Guckenheimer and Holmes, Nonlinear Oscillations (1983), §2.2; the usual chaotic parameters.",
    )


def van_der_pol(
    *,
    goal: Goal = "regulate",
    mu: float = 1.0,
    force: tuple[float, float] | None = (-1.0, 1.0),
    dt: float = 0.1,
    steps: int = 100,
) -> Problem:
    """q'' = μ (1 − q²) q' − q + u: leave the limit cycle for the unstable origin, cost ∫ q² + v² + u² dt.

    For small μ the cycle has amplitude 2, its period is 2π (1 + μ²/16); for large μ it is a relaxation oscillation of
    period (3 − 2 ln 2) μ.
    """
    problem = Problem(
        name="van-der-pol",
        description="Leave the limit cycle of Van der Pol's oscillator for the unstable rest in its middle.",
        source="Van der Pol, Phil. Mag. 2 (1926) 978; the control benchmark: CasADi's and Maurer's examples.",
        state={"position": "1", "velocity": "1"},
        control={"force": "1"},
        params={"mu": mu},
        param_ranges={"mu": (0.5 * mu, 1.5 * mu)},
        dynamics=lambda x, u, p: ca.vertcat(x[1], p.mu * (1 - x[0] ** 2) * x[1] - x[0] + u[0]),
        stage_cost=lambda x, u, p: ca.sumsqr(x) + u[0] ** 2,
        control_bounds={} if force is None else {"force": force},
        control_scale={"force": 3.0},
        initial_state=Uniform([-2.0, -2.0], [2.0, 2.0]),
        dt=dt,
        steps=steps,
        horizon="infinite",
    )
    return _towards(goal, problem)


def fitzhugh_nagumo(*, current: float = 0.5, dt: float = 0.2, steps: int = 500) -> Problem:
    """V' = V − V³/3 − W + I + u, W' = (V + a − b W)/τ: silence a spiking neuron at its rest (V*, W*).

    Cost ∫ (V − V*)² + (W − W*)² + u² dt. The rest solves V*³/3 + (1/b − 1) V* + a/b − I = 0, for b < 1 its only real root; it is
    unstable for I between about 0.33 and 1.42.
    """

    def rest(p):
        # V³ + 3 s V + q = 0 with s > 0: Cardano's root in hyperbolic functions
        s, q = 1 / p.b - 1, 3 * (p.a / p.b - p.current)
        v = -2 * ca.sqrt(s) * ca.sinh(ca.asinh(q / (2 * s * ca.sqrt(s))) / 3)
        return ca.vertcat(v, (v + p.a) / p.b)

    return Problem(
        name="fitzhugh-nagumo",
        description="Silence a spiking model neuron: hold it at its unstable rest with a small current.",
        source="FitzHugh, Biophys. J. 1 (1961) 445; Nagumo, Arimoto, Yoshizawa, Proc. IRE 50 (1962) 2061.",
        state={"voltage": "1", "recovery": "1"},
        control={"current": "1"},
        params={"a": 0.7, "b": 0.8, "tau": 12.5, "current": current},
        param_ranges={"current": (0.4, 0.8)},
        dynamics=lambda x, u, p: ca.vertcat(
            x[0] - x[0] ** 3 / 3 - x[1] + p.current + u[0], (x[0] + p.a - p.b * x[1]) / p.tau
        ),
        stage_cost=lambda x, u, p: ca.sumsqr(x - rest(p)) + u[0] ** 2,
        control_bounds={"current": (-1.0, 1.0)},
        initial_state=Uniform([-2.0, -0.5], [2.0, 2.0]),
        dt=dt,
        steps=steps,
        horizon="infinite",
    )


# --- several ------------------------------------------------------------------------------------------------------------


def _at_least(argument: str, value: int, least: int) -> None:
    require(isinstance(value, int) and value >= least, argument, f"be an integer of at least {least}", f"is {value!r}")


def _pushed(actuated: Sequence[int] | None, n: int) -> list[int]:
    chosen = list(range(n)) if actuated is None else list(actuated)
    fits = chosen and all(isinstance(i, int) and 0 <= i < n for i in chosen) and len(set(chosen)) == len(chosen)
    require(bool(fits), "actuated", f"hold different numbers from 0 to {n - 1}", f"is {actuated!r}")
    return chosen


def chain(
    *, n: int = 4, cubic: float = 1.0, actuated: Sequence[int] | None = (0,), dt: float = 0.1, steps: int = 200
) -> Problem:
    """Fermi–Pasta–Ulam–Tsingou β chain: n unit masses between walls, q_i'' = f(r_{i+1}) − f(r_i) + u_i, f(r) = k r + β r³.

    r_i = q_i − q_{i−1} with q_0 = q_{n+1} = 0. Cost ∫ |q|² + |v|² + |u|² dt. Forces on the masses `actuated` (`None`: on all).
    Linear (β = 0): frequencies 2 √k sin(jπ/(2n + 2)). The energy |v|²/2 + Σ k r²/2 + β r⁴/4 is conserved without control.
    """
    _at_least("n", n, 1)
    pushed = _pushed(actuated, n)

    def dynamics(x, u, p):
        wall = ca.SX.zeros(1, 1)
        stretch = ca.diff(ca.vertcat(wall, x[:n], wall))
        tension = p.stiffness * stretch + p.cubic * stretch**3
        force = ca.diff(tension)
        force[pushed] += u
        return ca.vertcat(x[n:], force)

    return Problem(
        name="oscillator-chain",
        description=f"Calm {n} masses between two walls, coupled by springs with a cubic term (FPUT-β chain).",
        source="Fermi, Pasta, Ulam (Tsingou), Los Alamos report LA-1940 (1955); Ford, Phys. Rep. 213 (1992) 271.",
        state={f"q{i + 1}": "m" for i in range(n)} | {f"v{i + 1}": "m/s" for i in range(n)},
        control={f"force{i + 1}": "N" for i in pushed},
        params={"stiffness": 1.0, "cubic": cubic},
        param_ranges={"stiffness": (0.7, 1.4)},
        dynamics=dynamics,
        stage_cost=lambda x, u, p: ca.sumsqr(x) + ca.sumsqr(u),
        control_bounds={f"force{i + 1}": (-2.0, 2.0) for i in pushed},
        initial_state=Uniform([-1.0] * (2 * n), [1.0] * (2 * n)),
        dt=dt,
        steps=steps,
        horizon="infinite",
    )


def ring(*, n: int = 4, actuated: Sequence[int] | None = None, dt: float = 0.1, steps: int = 200) -> Problem:
    """n oscillators in a ring, q_i'' = −ω² q_i + κ (q_{i+1} − 2 q_i + q_{i−1}) + u_i; cost ∫ |q|² + |v|² + |u|² dt.

    Linear: the modes are plane waves with ω_j² = ω² + 4κ sin²(πj/n). Forces on the oscillators `actuated` (default: all, each an
    agent that sees its neighbours). One force alone cannot stop standing waves that have a node there.
    """
    _at_least("n", n, 3)
    pushed = _pushed(actuated, n)
    laplacian = np.roll(np.eye(n), 1, axis=0) + np.roll(np.eye(n), -1, axis=0) - 2 * np.eye(n)

    def dynamics(x, u, p):
        force = -(p.frequency**2) * x[:n] + p.coupling * (ca.DM(laplacian) @ x[:n])
        force[pushed] += u
        return ca.vertcat(x[n:], force)

    return Problem(
        name="oscillator-ring",
        description=f"Calm a ring of {n} equal, linearly coupled oscillators.",
        source="Ashcroft and Mermin, Solid State Physics (1976), §22, for the modes; distributed control of a ring: optctl.",
        state={f"q{i + 1}": "m" for i in range(n)} | {f"v{i + 1}": "m/s" for i in range(n)},
        control={f"force{i + 1}": "N/kg" for i in pushed},
        params={"frequency": 1.0, "coupling": 0.5},
        param_ranges={"frequency": (0.8, 1.25), "coupling": (0.2, 0.8)},
        dynamics=dynamics,
        stage_cost=lambda x, u, p: ca.sumsqr(x) + ca.sumsqr(u),
        control_scale={f"force{i + 1}": 2.0 for i in pushed},
        initial_state=Uniform([-1.0] * (2 * n), [1.0] * (2 * n)),
        dt=dt,
        steps=steps,
        horizon="infinite",
        integrator="exponential",
    )


def kuramoto(
    *, n: int = 6, coupling: float = 0.8, spread: float = 0.5, network: Any = None, dt: float = 0.1, steps: int = 100
) -> Problem:
    """θ_i' = ω_i + (K/n) Σ_j A_ij sin(θ_j − θ_i) + u_i: bring phases together, cost ∫ 1 − r² + 0.05 |u|²/n dt.

    r = |Σ exp(iθ_j)|/n is the order parameter. The ω_i are the n mid-quantiles of a Lorentzian of half width `spread` about 0,
    for which (A = 1, n → ∞, no control) K_c = 2 · spread and r = √(1 − K_c/K) above it. `network`: a symmetric matrix A (n, n)
    of weights; `None`: everyone with everyone, written through the mean field in O(n) operations.
    """
    _at_least("n", n, 2)
    quantiles = np.tan(np.pi * ((np.arange(n) + 0.5) / n - 0.5))
    weights = None if network is None else np.asarray(network, dtype=float)
    if weights is not None:
        require(weights.shape == (n, n), "network", f"have shape ({n}, {n})", f"has shape {weights.shape}")
        require(bool((weights == weights.T).all()), "network", "be symmetric", "is not")

    def pull(theta):
        s, c = ca.sin(theta), ca.cos(theta)
        towards_s, towards_c = (ca.sum1(s), ca.sum1(c)) if weights is None else (ca.DM(weights) @ s, ca.DM(weights) @ c)
        return towards_s * c - towards_c * s

    def disorder(x):
        return 1 - (ca.sum1(ca.cos(x)) ** 2 + ca.sum1(ca.sin(x)) ** 2) / n**2

    return Problem(
        name="kuramoto",
        description=f"Synchronise {n} phase oscillators whose coupling is too weak for it.",
        source="Kuramoto, Chemical Oscillations, Waves, and Turbulence (1984), §5.4; Acebrón et al., Rev. Mod. Phys. 77 (2005) 137.",
        state={f"theta{i + 1}": "rad" for i in range(n)},
        control={f"u{i + 1}": "rad/s" for i in range(n)},
        params={"coupling": coupling, "spread": spread},
        param_ranges={"coupling": (0.5 * coupling, 1.5 * coupling)},
        dynamics=lambda x, u, p: p.spread * ca.DM(quantiles) + p.coupling / n * pull(x) + u,
        stage_cost=lambda x, u, p: disorder(x) + 0.05 * ca.sumsqr(u) / n,
        control_bounds={f"u{i + 1}": (-2.0, 2.0) for i in range(n)},
        initial_state=Uniform([-np.pi] * n, [np.pi] * n),
        observation=lambda x, p: ca.vertcat(ca.cos(x), ca.sin(x)),
        observation_names=tuple(f"{f} theta{i + 1}" for f in ("cos", "sin") for i in range(n)),
        dt=dt,
        steps=steps,
        horizon="infinite",
    )


# --- chaos --------------------------------------------------------------------------------------------------------------


def lorenz(*, dt: float = 0.02, steps: int = 300) -> Problem:
    """x' = σ (y − x), y' = x (ρ − z) − y + u, z' = x y − β z: hold convection at C₊, cost ∫ |x − C₊|² + 0.1 u² dt, |u| ≤ 50.

    C± = (±√(β(ρ − 1)), ±√(β(ρ − 1)), ρ − 1) are unstable for ρ > σ(σ + β + 3)/(σ − β − 1) = 24.74; volumes shrink at the rate
    σ + 1 + β everywhere.
    """

    def target(p):
        roll = ca.sqrt(p.beta * (p.rho - 1))
        return ca.vertcat(roll, roll, p.rho - 1)

    return Problem(
        name="lorenz",
        description="Stop the chaos of the Lorenz equations at one of their unstable fixed points.",
        source="Lorenz, J. Atmos. Sci. 20 (1963) 130; Sparrow, The Lorenz Equations (1982); the control: optctl.",
        state={"x": "1", "y": "1", "z": "1"},
        control={"u": "1"},
        params={"sigma": 10.0, "rho": 28.0, "beta": 8 / 3},
        param_ranges={"rho": (26.0, 30.0)},
        dynamics=lambda x, u, p: ca.vertcat(
            p.sigma * (x[1] - x[0]), x[0] * (p.rho - x[2]) - x[1] + u[0], x[0] * x[1] - p.beta * x[2]
        ),
        stage_cost=lambda x, u, p: ca.sumsqr(x - target(p)) + 0.1 * u[0] ** 2,
        control_bounds={"u": (-50.0, 50.0)},
        initial_state=Uniform([-15.0, -20.0, 10.0], [15.0, 20.0, 40.0]),
        dt=dt,
        steps=steps,
        horizon="infinite",
    )
