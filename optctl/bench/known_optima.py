"""Optimal control problems with known optima, stated on `Problem`: what `optctl bench optima` and the tests solve.

Marks: D closed form, R recomputed by independent methods, P published.
"""

from __future__ import annotations

import casadi as ca
import numpy as np

from optctl.envs.cartpole import cart_pole_dynamics
from optctl.envs.quantum import qubit_transfer
from optctl.problem import Fixed, Problem


def _fixed(name, x0, f, cost, T, steps, **rest):
    names = [f"x{i}" for i in range(len(x0))]
    return Problem(
        name=name, state=names, control=rest.pop("control", ["u"]), dynamics=f, stage_cost=cost, dt=T / steps, steps=steps,
        initial_state=Fixed(x0), **rest,
    )  # fmt: skip


def scalar_infinite(steps=100):
    """x' = x + u, ∫₀^∞ x² + u²: p = 1 + √2 (D); V = p x² at the end makes the infinite horizon finite."""
    return _fixed("scalar-infinite", [1], lambda x, u, p: x + u, lambda x, u, p: x[0] ** 2 + u[0] ** 2, 2.0, steps,
                  terminal_cost=lambda x, p: (1 + 2**0.5) * x[0] ** 2)  # fmt: skip


def double_integrator(x, u, p):
    return ca.vertcat(x[1], u[0])


def minimum_energy(steps=100):
    """J = 6, λ(0) = (−12, −6), H = −18 (D): u = 6 − 12 t."""
    return _fixed("minimum-energy", [0, 0], double_integrator, lambda x, u, p: 0.5 * u[0] ** 2, 1.0, steps,
                  terminal_constraints=lambda x, p: x - ca.DM([1, 0]))  # fmt: skip


def scalar_finite(steps=100):
    """x' = u, ∫₀¹ x² + u², x0 = 1: J = tanh 1 (D)."""
    return _fixed("scalar-finite", [1], lambda x, u, p: u, lambda x, u, p: x[0] ** 2 + u[0] ** 2, 1.0, steps)


def duffing(steps=50):
    """J = 0.187444856136, λ(0) = (.26871908, −.49143208) (R)."""
    return _fixed("duffing", [0.5, -0.5], lambda x, u, p: ca.vertcat(x[1], -x[0] - 0.15 * x[0] ** 3 + u[0]),
                  lambda x, u, p: 0.5 * u[0] ** 2, 2.0, steps, terminal_constraints=lambda x, p: x)  # fmt: skip


def van_der_pol(steps=50, bounds=None):
    """J = 2.866952422563 free, 2.867261045220 with −.3 ≤ u ≤ 1 (R, P)."""
    return _fixed("van-der-pol", [0, 1], lambda x, u, p: ca.vertcat((1 - x[1] ** 2) * x[0] - x[1] + u[0], x[0]),
                  lambda x, u, p: ca.sumsqr(x) + u[0] ** 2, 5.0, steps,
                  control_bounds={} if bounds is None else {"u": bounds})  # fmt: skip


def hyper_sensitive(steps=200):
    """J = 1.330806904943 (D): boundary layers at both ends of T = 50."""
    return _fixed("hyper-sensitive", [1.5], lambda x, u, p: -(x[0] ** 3) + u[0], lambda x, u, p: 0.5 * (x[0] ** 2 + u[0] ** 2),
                  50.0, steps, terminal_constraints=lambda x, p: x - 1.0)  # fmt: skip


def kelly_cartpole(steps=50):
    """J = 58.80766746 (R; Kelly 2017, §6)."""
    return _fixed("kelly-cartpole", [0, 0, 0, 0], cart_pole_dynamics, lambda x, u, p: u[0] ** 2, 2.0, steps,
                  params={"cart_mass": 1.0, "pole_mass": 0.3, "length": 0.5, "gravity": 9.81},
                  control_bounds={"u": (-20.0, 20.0)}, state_bounds={"x0": (-2.0, 2.0)},
                  terminal_constraints=lambda x, p: x - ca.DM([1, np.pi, 0, 0]))  # fmt: skip


def minimum_time(x0=(1.0, 0.0), harmonic=False, steps=100):
    """Double integrator from (1, 0): T = 2 (D). Harmonic: 1.823476581937 from (1, 0), 1.994827366286 from (0, 1) (D, R)."""
    return _fixed("minimum-time", list(x0), lambda x, u, p: ca.vertcat(x[1], u[0] - (x[0] if harmonic else 0.0)),
                  lambda x, u, p: 1.0, 2.0, steps, control_bounds={"u": (-1.0, 1.0)}, terminal_constraints=lambda x, p: x,
                  final_time=(0.1, 10.0))  # fmt: skip


def brachistochrone(steps=40):
    """T = 1.801295483014 (D, R)."""
    return _fixed("brachistochrone", [0, 10, 0],
                  lambda x, u, p: ca.vertcat(x[2] * ca.sin(u[0]), -x[2] * ca.cos(u[0]), 9.81 * ca.cos(u[0])),
                  lambda x, u, p: 1.0, 2.0, steps, control_bounds={"u": (0.0, np.pi)},
                  terminal_constraints=lambda x, p: ca.vertcat(x[0] - 10, x[1] - 5), final_time=(0.5, 5.0))  # fmt: skip


def bryson_denham(steps=48, limit=1 / 9):
    """x ≤ ℓ: J = 4/(9ℓ), on the limit for 1 − 6ℓ, where ℓ ≤ 1/6; 2 + 6 (1 − 4ℓ)², a touch, up to ℓ = 1/4 (D; Bryson and Ho, §3.11)."""
    return _fixed("bryson-denham", [0, 1], double_integrator, lambda x, u, p: 0.5 * u[0] ** 2, 1.0, steps,
                  state_bounds={"x0": (-np.inf, limit)}, terminal_constraints=lambda x, p: x - ca.DM([0, -1]))  # fmt: skip


def singular_arc(steps=200):
    """J = 0.753983860576 (D, R): u = x₁ on the singular arc."""
    return _fixed("singular-arc", [0, 1], double_integrator, lambda x, u, p: ca.sumsqr(x), 5.0, steps,
                  control_bounds={"u": (-1.0, 1.0)})  # fmt: skip


# --- quantum ----------------------------------------------------------------------------------------------------------


def bukov(duration, steps=100):
    """1 − |⟨ψ*|ψ(T)⟩|²: 1 − .331299546052 at T = .5, 1 − .577029386692 at T = 1 (D, R; Bukov et al. 2018)."""
    return qubit_transfer(duration=duration, steps=steps, energy=0.0)


def bukov_time(steps=100):
    """T_QSL = 2 arccos(7/24)/√17 + 2 arcsin(7/(4√5)) = 2.416121543394 (D, R)."""
    return qubit_transfer(steps=steps, time_optimal=True)


def _lambda(x, pump, stokes):
    """Λ system with real amplitudes (c₁, i c₂, c₃)."""
    return 0.5 * ca.vertcat(-pump * x[1], pump * x[0] - stokes * x[2], stokes * x[1])


def lambda_time(steps=100):
    """H = ½(Ω_p|1⟩⟨2| + Ω_s|2⟩⟨3| + h.c.), 1 → 3, Ω_p² + Ω_s² ≤ 1: √3 π (D, R)."""
    return _fixed("lambda-time", [1, 0, 0], lambda x, u, p: _lambda(x, u[0], u[1]), lambda x, u, p: 1.0, 6.0, steps,
                  control=["pump", "stokes"], control_bounds={"pump": (-1.0, 1.0), "stokes": (-1.0, 1.0)},
                  path_constraints=lambda x, u, p: ca.sumsqr(u) - 1, final_time=(2.0, 10.0),
                  terminal_constraints=lambda x, p: x[:2])  # fmt: skip


def lambda_angle(steps=100):
    """The same on the circle: Ω = (cos α, sin α)."""
    return _fixed("lambda-angle", [1, 0, 0], lambda x, u, p: _lambda(x, ca.cos(u[0]), ca.sin(u[0])), lambda x, u, p: 1.0, 6.0,
                  steps, control=["angle"], control_bounds={"angle": (0.0, np.pi)}, final_time=(2.0, 10.0),
                  terminal_constraints=lambda x, p: x[:2])  # fmt: skip


def lambda_box(steps=100):
    """Separate bounds |Ω| ≤ 1: √2 π (D)."""
    return lambda_time(steps).replace(name="lambda-box", path_constraints=None)


# --- steering in least time -------------------------------------------------------------------------------------------


def zermelo(steps=100):
    """A ship of unit speed in the current −y: T = tan 240° − tan 105° = 5.464101615138 (D; Bryson and Ho, 1975, §2.7)."""
    return _fixed("zermelo", [3.658657561961599, -1.863703305156274], lambda x, u, p: ca.vertcat(ca.cos(u[0]) - x[1], ca.sin(u[0])),
                  lambda x, u, p: 1.0, 5.0, steps, control_bounds={"u": (0.0, 2 * np.pi)}, final_time=(1.0, 20.0),
                  terminal_constraints=lambda x, p: x)  # fmt: skip


def dubins(goal=(4.0, 4.0, np.pi / 2), steps=100):
    """A car of unit speed and turning radius: 3√2 + π/2 to (4, 4, 90°); 7π/3 to turn round where it is (D; Dubins, 1957)."""
    return _fixed("dubins", [0, 0, 0], lambda x, u, p: ca.vertcat(ca.cos(x[2]), ca.sin(x[2]), u[0]), lambda x, u, p: 1.0, 5.0,
                  steps, control_bounds={"u": (-1.0, 1.0)}, final_time=(1.0, 20.0),
                  terminal_constraints=lambda x, p: x - ca.DM(goal))  # fmt: skip


def two_masses(steps=80):
    """Two unit masses and a unit spring moved by 1, force on the first, |u| ≤ 1: T = 4.217866510 (D: rest of the rigid and of the
    elastic mode; Liu and Wie, J. Guidance 15, 1992: 4.218)."""
    return _fixed("two-masses", [0, 0, 0, 0], lambda x, u, p: ca.vertcat(x[2], x[3], u[0] - (x[0] - x[1]), x[0] - x[1]),
                  lambda x, u, p: 1.0, 4.0, steps, control_bounds={"u": (-1.0, 1.0)}, final_time=(1.0, 10.0),
                  terminal_constraints=lambda x, p: x - ca.DM([1, 1, 0, 0]))  # fmt: skip


def tangent_steering(steps=50):
    """Thrust 100 to height 5 and speed 45: T = 0.554570879 (P, R; Betts, 2010; COPS 3 has 0.55457)."""
    return _fixed("tangent-steering", [0, 0, 0, 0], lambda x, u, p: ca.vertcat(x[2:], 100 * ca.cos(u[0]), 100 * ca.sin(u[0])),
                  lambda x, u, p: 1.0, 1.0, steps, control_bounds={"u": (-np.pi / 2, np.pi / 2)}, final_time=(0.1, 5.0),
                  terminal_constraints=lambda x, p: x[1:] - ca.DM([5, 45, 0]))  # fmt: skip


def speed_limit(steps=80):
    """x'' = u, |u| ≤ 1, x' ≤ ½, over a distance of 1: T = 2.5 (D)."""
    return _fixed("speed-limit", [0, 0], double_integrator, lambda x, u, p: 1.0, 4.0, steps, control_bounds={"u": (-1.0, 1.0)},
                  state_bounds={"x1": (-np.inf, 0.5)}, final_time=(0.5, 20.0),
                  terminal_constraints=lambda x, p: x - ca.DM([1, 0]))  # fmt: skip


def power_limit(steps=80):
    """x'' = u, |u| ≤ 1, power u x' ≤ ½, over a distance of 2: T = (w + ½)² = 2.961323572023 with top speed w, 16 w³ + 12 w² = 47 (D)."""
    return _fixed("power-limit", [0, 0], double_integrator, lambda x, u, p: 1.0, 4.0, steps, control_bounds={"u": (-1.0, 1.0)},
                  path_constraints=lambda x, u, p: u[0] * x[1] - 0.5, final_time=(0.5, 20.0),
                  terminal_constraints=lambda x, p: x - ca.DM([2, 0]))  # fmt: skip


# --- flight -----------------------------------------------------------------------------------------------------------


def moon_landing(steps=60):
    """Least fuel from height 10 and speed −2, gravity 1.5, thrust up to 3: √68 (D: off, then full; Meditch, 1964)."""
    return _fixed("moon-landing", [10, -2], lambda x, u, p: ca.vertcat(x[1], u[0] - 1.5), lambda x, u, p: u[0], 4.0, steps,
                  control_bounds={"u": (0.0, 3.0)}, final_time=(1.0, 10.0), terminal_constraints=lambda x, p: x)  # fmt: skip


def goddard(steps=100):
    """Highest flight with drag 310 v² e^{−500 (h − 1)}: h = 1.01283 (P; COPS 3, problem 10), 1.0128369 (R). Full, singular, coast."""

    def f(x, u, p):
        drag = 310 * x[1] ** 2 * ca.exp(-500 * (x[0] - 1))
        return ca.vertcat(x[1], (u[0] - drag) / x[2] - 1 / x[0] ** 2, -2 * u[0])

    return _fixed("goddard", [1, 0, 1], f, lambda x, u, p: 0.0, 0.2, steps, control_bounds={"u": (0.0, 3.5)},
                  state_bounds={"x2": (0.6, 1.0)}, final_time=(0.05, 1.0), terminal_cost=lambda x, p: -x[0])  # fmt: skip


def orbit_raising(steps=100):
    """Largest circular orbit after T = 3.32 at low thrust: r = 1.525 (P; Bryson and Ho, §2.5), 1.5252777 (R)."""

    def f(x, u, p, t):
        a = 0.1405 / (1 - 0.0749 * t)
        return ca.vertcat(
            x[1], x[2] ** 2 / x[0] - 1 / x[0] ** 2 + a * ca.sin(u[0]), -x[1] * x[2] / x[0] + a * ca.cos(u[0])
        )

    return _fixed("orbit-raising", [1, 0, 1], f, lambda x, u, p: 0.0, 3.32, steps, terminal_cost=lambda x, p: -x[0],
                  terminal_constraints=lambda x, p: ca.vertcat(x[1], x[2] ** 2 - 1 / x[0]))  # fmt: skip


def hang_glider(steps=100):
    """Farthest glide through a thermal: 1248.031 m (P; Bulirsch, Nerz, Pesch and von Stryk, 1993; Betts, 2010)."""

    def f(x, u, p):
        r = (x[0] / 100 - 2.5) ** 2
        climb = x[3] - 2.5 * (1 - r) * ca.exp(-r)
        speed = ca.sqrt(x[2] ** 2 + climb**2)
        drag, lift = 0.5 * 1.13 * 14 * speed * (0.034 + 0.069662 * u[0] ** 2), 0.5 * 1.13 * 14 * speed * u[0]
        return ca.vertcat(x[2:], (-lift * climb - drag * x[2]) / 100, (lift * x[2] - drag * climb) / 100 - 9.80665)

    return _fixed("hang-glider", [0, 1000, 13.2275675, -1.28750052], f, lambda x, u, p: 0.0, 100.0, steps,
                  control_bounds={"u": (0.0, 1.4)}, final_time=(30.0, 200.0), terminal_cost=lambda x, p: -x[0],
                  state_bounds={"x0": (0, 1500), "x1": (0, 1100), "x2": (0, 15), "x3": (-4, 4)},
                  terminal_constraints=lambda x, p: x[1:] - ca.DM([900, 13.2275675, -1.28750052]))  # fmt: skip


# --- chemistry, medicine, resources -----------------------------------------------------------------------------------


def stirred_tank(steps=78):
    """Exothermic reaction with two basins: 0.1331 and 0.2444 (P; Luus, Iterative Dynamic Programming, 2000), 0.133095731 (R)."""

    def f(x, u, p):
        rate = (x[1] + 0.5) * ca.exp(25 * x[0] / (x[0] + 2))
        return ca.vertcat(-(2 + u[0]) * (x[0] + 0.25) + rate, 0.5 - x[1] - rate)

    return _fixed("stirred-tank", [0.09, 0.09], f, lambda x, u, p: ca.sumsqr(x) + 0.1 * u[0] ** 2, 0.78, steps)


def catalyst_mixing(steps=100):
    """1 − x₀ − x₁ at the end: 0.04806 (P; COPS 3, problem 14), 0.0480556859 (R). High, singular, low."""
    return _fixed("catalyst-mixing", [1, 0],
                  lambda x, u, p: ca.vertcat(u[0] * (10 * x[1] - x[0]), u[0] * (x[0] - 10 * x[1]) - (1 - u[0]) * x[1]),
                  lambda x, u, p: 0.0, 1.0, steps, control_bounds={"u": (0.0, 1.0)},
                  terminal_cost=lambda x, p: x[0] + x[1] - 1)  # fmt: skip


def antiangiogenesis(steps=60):
    """Smallest tumour with 15 units of a drug: 7571.67 (P; Ledzewicz and Schättler, 2007; Betts, 2010)."""
    birth, death, p0 = 5.85, 0.02, ((5.85 - 0.02) / 0.00873) ** 1.5 / 2

    def f(x, u, p):
        return ca.vertcat(
            -0.084 * x[0] * ca.log(x[0] / x[1]), x[1] * (birth - death - 0.00873 * x[0] ** (2 / 3) - 0.15 * u[0]), u[0]
        )

    return _fixed("antiangiogenesis", [p0, p0 / 2, 0], f, lambda x, u, p: 0.0, 1.2, steps, control_bounds={"u": (0.0, 75.0)},
                  state_bounds={"x0": (1.0, np.inf), "x1": (1.0, np.inf), "x2": (-np.inf, 15.0)}, final_time=(0.1, 5.0),
                  terminal_cost=lambda x, p: x[0])  # fmt: skip


def fishery(steps=100):
    """Largest catch from x' = x (1 − x) − u, u ≤ 1, stock 0.2 → 0.2 in T = 10: wait ln 4, catch ¼ at x = ½, then all (D; Clark, 1976)."""
    return _fixed("fishery", [0.2], lambda x, u, p: x * (1 - x) - u, lambda x, u, p: -u[0], 10.0, steps,
                  control_bounds={"u": (0.0, 1.0)}, terminal_constraints=lambda x, p: x - 0.2)  # fmt: skip


def savings(steps=20):
    """k⁺ = u k^0.3, discounted utility of what is not saved, Σ 0.95^t ln((1 − u) k^0.3) (D; Brock and Mirman, 1972)."""
    return Problem(
        name="savings", state=["capital"], control=["saved"], transition=lambda x, u, p: u * x**0.3, dt=1.0, steps=steps,
        stage_cost=lambda x, u, p, t: -(0.95**t) * ca.log((1 - u[0]) * x[0] ** 0.3), initial_state=Fixed([0.1]),
        control_bounds={"saved": (0.0, 0.999)},
    )  # fmt: skip


# --- constraints on the way -------------------------------------------------------------------------------------------


def round_the_disc(steps=60):
    """Least ½∫₀¹|v|² from (−2, 0) to (2, 0) round the unit disc: L²/2 with L = 2√3 + π/3 (D: string round the disc)."""
    return _fixed("round-the-disc", [-2, 0], lambda x, u, p: u, lambda x, u, p: 0.5 * ca.sumsqr(u), 1.0, steps, control=["v", "w"],
                  path_constraints=lambda x, u, p: 1 - ca.sumsqr(x), terminal_constraints=lambda x, p: x - ca.DM([2, 0]))  # fmt: skip


def container_crane(steps=90):
    """Swing and control effort while a container is moved: 0.0375194596 (P; Augustin and Maurer, 2001; Betts, 2010)."""
    return _fixed("container-crane", [0, 22, 0, 0, -1, 0],
                  lambda x, u, p: ca.vertcat(x[3:], u[0] + 17.2656 * x[2], u[1], -(u[0] + 27.0756 * x[2] + 2 * x[4] * x[5]) / x[1]),
                  lambda x, u, p: 0.5 * (x[2] ** 2 + x[5] ** 2 + 0.01 * ca.sumsqr(u)), 9.0, steps, control=["u", "w"],
                  control_bounds={"u": (-2.83374, 2.83374), "w": (-0.80865, 0.71265)},
                  state_bounds={"x3": (-2.5, 2.5), "x4": (-1.0, 1.0)},
                  terminal_constraints=lambda x, p: x - ca.DM([10, 14, 0, 2.5, 0, 0]))  # fmt: skip


def hanging_chain(steps=100):
    """A chain of length 4 from (0, 1) to (1, 3): 5.068480111 (D: catenary; COPS 3, problem 4, has 5.06848)."""
    return _fixed("hanging-chain", [1, 0], lambda x, u, p: ca.vertcat(u[0], ca.sqrt(1 + u[0] ** 2)),
                  lambda x, u, p: x[0] * ca.sqrt(1 + u[0] ** 2), 1.0, steps,
                  terminal_constraints=lambda x, p: x - ca.DM([3, 4]))  # fmt: skip


def lambda_energy(steps=60):
    """The Λ system by least ∫₀¹ Ω_p² + Ω_s²: 3π² (D: constant speed along the path of least time; Boscain et al., 2002)."""
    return lambda_time(steps).replace(name="lambda-energy", stage_cost=lambda x, u, p: ca.sumsqr(u), path_constraints=None,
                                      control_bounds={}, final_time=None, dt=1 / steps)  # fmt: skip
