"""The mechanics families against independent derivations: Lagrange's equations by computer algebra, energies, frequencies, known optima."""

import casadi as ca
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import sympy as sp
import torch

import optctl
from optctl.envs import double_pendulum, flight
from optctl.problem.controller import FeedbackController, ZeroController, rollout

T = sp.Symbol("t")


def lagrange(problem, angles, kinetic_and_potential, forces):
    """(x, u, p) → (q'', energy), from a Lagrangian: `angles` coordinates, Q = forces(u); x = (q, q')."""
    n = angles
    q, v, a, u, p = (
        sp.symbols(f"{c}0:{k}") for c, k in (("q", n), ("v", n), ("a", n), ("u", problem.n_u), ("p", problem.n_p))
    )
    kinetic, potential = kinetic_and_potential(q, v, dict(zip(problem.params, p, strict=True)))
    lagrangian, equations = kinetic - potential, []
    for i in range(n):
        momentum = sp.diff(lagrangian, v[i])
        rate = sum(sp.diff(momentum, q[j]) * v[j] + sp.diff(momentum, v[j]) * a[j] for j in range(n))
        equations.append(rate - sp.diff(lagrangian, q[i]) - forces(u)[i])
    mass, rest = sp.linear_eq_to_matrix(equations, a)
    numbers = [sp.lambdify((q, v, u, p), e, "numpy") for e in (mass, rest, kinetic + potential)]

    def evaluate(x, u_, p_):
        m, r, energy = (f(x[:n], x[n:], u_, p_) for f in numbers)
        return np.linalg.solve(np.array(m, dtype=float), np.array(r, dtype=float).ravel()), float(energy)

    return evaluate


def planar(points, q, v):
    """Velocities squared of points (x(q), y(q))."""
    speed = lambda f: sum(sp.diff(f, q[j]) * v[j] for j in range(len(q)))
    return [speed(x) ** 2 + speed(y) ** 2 for x, y in points]


def two_links(q, v, p):
    """Two rigid links, from the positions of their centres of mass."""
    first = (p["center1"] * sp.sin(q[0]), -p["center1"] * sp.cos(q[0]))
    second = (
        p["length1"] * sp.sin(q[0]) + p["center2"] * sp.sin(q[0] + q[1]),
        -p["length1"] * sp.cos(q[0]) - p["center2"] * sp.cos(q[0] + q[1]),
    )
    s1, s2 = planar([first, second], q, v)
    spin = p["inertia1"] * v[0] ** 2 + p["inertia2"] * (v[0] + v[1]) ** 2
    kinetic = (p["mass1"] * s1 + p["mass2"] * s2 + spin) / 2
    return kinetic, p["gravity"] * (p["mass1"] * first[1] + p["mass2"] * second[1])


def cart_with_poles(names):
    masses, lengths = names

    def energies(q, v, p):
        kinetic, potential, x, y = p["cart_mass"] * v[0] ** 2 / 2, 0, q[0], 0
        for i, (mass, length) in enumerate(zip(masses, lengths, strict=True)):
            x, y = x + p[length] * sp.sin(q[i + 1]), y - p[length] * sp.cos(q[i + 1])
            kinetic += p[mass] * planar([(x, y)], q, v)[0] / 2
            potential += p[mass] * p["gravity"] * y
        return kinetic, potential

    return energies


MACHINES = {
    "acrobot": (2, two_links, lambda u: (0, u[0])),
    "pendubot": (2, two_links, lambda u: (u[0], 0)),
    "cartpole": (2, cart_with_poles((["pole_mass"], ["length"])), lambda u: (u[0], 0)),
    "cart-double-pole": (3, cart_with_poles((["mass1", "mass2"], ["length1", "length2"])), lambda u: (u[0], 0, 0)),
}


@pytest.fixture(scope="module")
def derived():
    return {name: lagrange(optctl.make(name), *rest) for name, rest in MACHINES.items()}


@pytest.mark.parametrize("name", MACHINES)
def test_equations_of_motion_agree_with_lagrange(name, derived):
    problem, rng = optctl.make(name), np.random.default_rng(0)
    n = problem.n_x // 2
    for _ in range(5):
        x, u = rng.normal(0, 2, problem.n_x), rng.normal(0, 5, problem.n_u)
        p = problem.param_values * rng.uniform(0.7, 1.3, problem.n_p)
        acceleration, _ = derived[name](x, u, p)
        rate = np.array(problem.dynamics_function(x, u, p, 0)).ravel()
        assert rate[:n] == pytest.approx(x[n:]) and rate[n:] == pytest.approx(acceleration, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", MACHINES)
def test_energy_drifts_with_the_order_of_the_integrator(name, derived):
    """Left alone a machine keeps its energy; with RK4 the drift over a fixed time falls as h⁴ or faster."""
    problem = optctl.make(name)
    n = problem.n_x // 2
    start = np.concatenate([np.linspace(0.3, 1.2, n), np.linspace(-0.5, 0.8, n)])
    drift, sizes = [], (2, 4, 8)
    for substeps in sizes:
        path = rollout(problem.replace(substeps=substeps), ZeroController(problem), start, steps=50).states[0]
        energy = np.array([derived[name](x, [0.0], problem.param_values)[1] for x in path])
        drift.append(np.abs(energy - energy[0]).max())
    order = -np.polyfit(np.log(sizes), np.log(drift), 1)[0]
    assert 3.7 < order < 5.5 and drift[-1] < 1e-4 * np.abs(energy[0])


def linear(problem, x, u):
    """A and B at a point."""
    z, v, p = problem.x, problem.u, problem.p
    f = problem.dynamics_function(z, v, p, 0)
    matrices = ca.Function("AB", [z, v, p], [ca.jacobian(f, z), ca.jacobian(f, v)])(x, u, problem.param_values)
    return [np.array(m) for m in matrices]


def controllable(a, b):
    return np.linalg.matrix_rank(np.hstack([np.linalg.matrix_power(a, k) @ b for k in range(len(a))]), tol=1e-9)


@pytest.mark.parametrize("name", ["acrobot", "pendubot"])
def test_two_links_hang_with_two_frequencies_and_fall_with_two_rates(name):
    """M δ'' + G δ = 0 with the constant mass matrix and the stiffness of gravity: λ² = −eig(M⁻¹G) hanging, +eig upright."""
    problem = optctl.make(name)
    i1, i2, g = 0.083 + 0.25, 0.33 + 1.0, 9.81  # inertias about the joints: I + m l_c²
    mass = np.array([[i1 + i2 + 1.0 + 2.0, i2 + 1.0], [i2 + 1.0, i2]])  # m₂ l₁² = m₂ l₁ l_c2 = 1, θ₂ = 0
    weight = g * np.array([[0.5 + 1.0 + 1.0, 1.0], [1.0, 1.0]])
    squares = np.sort(scipy.linalg.eigh(weight, mass)[0])
    hanging, _ = linear(problem, np.zeros(4), [0.0])
    assert np.sort(np.abs(np.linalg.eigvals(hanging).imag))[::2] == pytest.approx(np.sqrt(squares), rel=1e-9)
    upright, b = linear(problem, [np.pi, 0, 0, 0], [0.0])
    assert np.sort(np.linalg.eigvals(upright).real)[2:] == pytest.approx(np.sqrt(squares), rel=1e-9)
    assert controllable(upright, b) == 4


def test_double_pole_upright_falls_and_can_be_caught():
    problem = optctl.make("cart-double-pole")
    a, b = linear(problem, [0, np.pi, np.pi, 0, 0, 0], [0.0])
    m0, m1, m2, l1, l2, g = problem.param_values
    mass = np.array(
        [
            [m0 + m1 + m2, -(m1 + m2) * l1, -m2 * l2],
            [-(m1 + m2) * l1, (m1 + m2) * l1**2, m2 * l1 * l2],
            [-m2 * l2, m2 * l1 * l2, m2 * l2**2],
        ]
    )
    squares = np.sort(scipy.linalg.eigh(g * np.diag([0, (m1 + m2) * l1, m2 * l2]), mass)[0])[1:]
    assert np.sort(np.linalg.eigvals(a).real)[-2:] == pytest.approx(np.sqrt(squares), rel=1e-7)
    assert controllable(a, b) == 6


@pytest.mark.parametrize("name", ["acrobot", pytest.param("pendubot", marks=pytest.mark.prove)])
def test_swing_up_reaches_the_top(name):
    """A coarser statement of the same task: one start at rest, few guesses; the optimum ends upright and at rest."""
    problem = getattr(double_pendulum, name)(dt=0.08, steps=60)
    best = optctl.solve(problem, np.zeros(4), method="multiple_shooting", num_starts=4)
    last = best.trajectory.states[-1]
    height = -np.cos(last[0]) - np.cos(last[0] + last[1])
    assert best.ok and height > 1.999 and np.abs(last[2:]).max() < 0.1
    assert best.value < 0.5 * 4 * problem.duration  # hanging still costs 4 a second


@pytest.mark.parametrize("num", [2, pytest.param(3, marks=pytest.mark.prove)])
def test_reacher_puts_its_tip_on_the_goal(num):
    problem = optctl.make("reacher")
    starts = np.array([[1.0, 0.5, 0, 0], [-1.0, -1.0, 0.3, 0], [0.2, 0.4, 0, 0]])[:num]
    goals = np.array([[0.5, 0.5], [-0.3, 0.2], [0.0, -0.8]])[:num]
    params = np.hstack([np.tile(problem.param_values[:-2], (num, 1)), goals])
    best = optctl.solve(problem, starts, params=params, num_starts=3)
    x = best.trajectory.states[:, -1]
    elbow = 0.5 * np.stack([np.sin(x[:, 0]), -np.cos(x[:, 0])], axis=1)
    tip = elbow + 0.5 * np.stack([np.sin(x[:, 0] + x[:, 1]), -np.cos(x[:, 0] + x[:, 1])], axis=1)
    assert best.ok.all() and np.abs(tip - goals).max() < 0.01 and np.abs(x[:, 2:]).max() < 0.05
    seen = np.array(problem.observation_function(x[0], params[0], 0)).ravel()
    assert seen[6:] == pytest.approx([*(tip - goals)[0], 0.5, 0.5], abs=1e-12)


# --- flight -------------------------------------------------------------------------------------------------------------


def test_quadrotor_hovers_falls_and_tilts():
    problem = optctl.make("quadrotor")
    m, arm, inertia, g = problem.param_values
    rate = lambda x, u: np.array(problem.dynamics_function(x, u, problem.param_values, 0)).ravel()
    hover = np.full(2, m * g / 2)
    assert np.abs(rate([3.0, -2.0, 0, 0, 0, 0], hover)).max() < 1e-12
    assert float(problem.stage_cost_function(np.zeros(6), hover, problem.param_values, 0)) == 0
    assert rate(np.zeros(6), [0, 0])[4] == -g and rate([0, 0, np.pi, 0, 0, 0], hover)[4] == pytest.approx(-2 * g)
    assert rate([0, 0, np.pi / 2, 0, 0, 0], hover)[3] == pytest.approx(-g)  # lying on its left side it is pushed left
    assert rate(np.zeros(6), hover + np.array([0, 0.1]))[5] == pytest.approx(0.1 * arm / inertia)
    a, b = linear(problem, np.zeros(6), hover)
    assert np.abs(np.linalg.matrix_power(a, 4)).max() < 1e-12 and controllable(a, b) == 6  # chains of integrators
    assert a[3, 2] == pytest.approx(-g)


def test_quadrotor_stays_where_it_hovers_at_no_cost():
    problem = optctl.make("quadrotor", steps=30)
    assert optctl.solve(problem, np.zeros(6)).value == pytest.approx(0, abs=1e-12)


def test_flip_is_one_whole_turn():
    problem = optctl.make("quadrotor-flip")
    best = optctl.solve(problem, np.zeros(6), num_starts=4)
    x = best.trajectory.states
    assert best.ok and x[-1] == pytest.approx([0, 0, 2 * np.pi, 0, 0, 0], abs=0.02)
    assert x[:, 5].max() > 2 * np.pi / problem.duration and (np.cos(x[:, 2]) < -0.9).any()


def test_rocket_obeys_tsiolkovsky():
    """Straight up without gravity, mass flow q = T/c for a time s: v = c ln(m₀/m), z = c (s − (m/q) ln(m₀/m))."""
    problem = optctl.make("rocket").replace(substeps=4)
    p = dict(problem.params) | {"gravity": 0.0, "exhaust": 60.0}
    thrust, start = 120.0, np.array([0, 0, 0, 0, 0, 0, 10.0])
    full = FeedbackController(lambda x, t: np.tile([thrust, 0.0], (len(x), 1)))
    end = rollout(problem, full, start, params=list(p.values()), steps=30).states[0, -1]
    flow, time = thrust / 60.0, 3.0
    mass = 10.0 - flow * time
    assert end[6] == pytest.approx(mass, rel=1e-12)
    assert end[4] == pytest.approx(60.0 * np.log(10.0 / mass), rel=1e-8)
    height = 60.0 * (time - mass / flow * np.log(10.0 / mass))
    assert end[1] == pytest.approx(height, rel=1e-8) and np.abs(end[[0, 2, 3, 5]]).max() == 0


def test_rocket_turns_against_its_gimbal():
    """Thrust at the lower end, turned counterclockwise by δ, pushes left there: force −T sin δ, torque −T l sin δ."""
    problem = optctl.make("rocket")
    arm, gyration, _, g = problem.param_values
    x, u = np.array([0, 0, 0.3, 0, 0, 0, 8.0]), [100.0, 0.1]
    rate = np.array(problem.dynamics_function(x, u, problem.param_values, 0)).ravel()
    turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    force = turn @ (100.0 * np.array([-np.sin(0.1), np.cos(0.1)]))
    lever = turn @ np.array([0.0, -arm])
    torque = lever[0] * force[1] - lever[1] * force[0]
    assert rate[3:5] == pytest.approx(force / 8.0 - [0, g]) and rate[5] == pytest.approx(torque / (8.0 * gyration**2))


@pytest.mark.parametrize("num", [1, pytest.param(3, marks=pytest.mark.prove)])
def test_rocket_lands(num):
    problem = optctl.make("rocket")
    starts = problem.initial_state.sample(np.random.default_rng(3), num)
    best = optctl.solve(problem, starts)
    last = best.trajectory.states[:, -1]
    assert best.ok.all() and np.abs(last[:, :2]).max() < 0.2 and np.abs(last[:, 2:6]).max() < 0.1
    assert best.trajectory.states[:, :, 1].min() > -0.2


def coast_then_burn(height, velocity, mass, force, exhaust, gravity):
    """Fuel and duration of a free fall followed by full thrust that ends at rest on the ground (two equations, two times)."""
    flow = force / exhaust

    def miss(times):
        coast, burn = times
        ratio = mass / (mass - flow * burn)
        v = velocity - gravity * coast
        h = height + velocity * coast - gravity * coast**2 / 2
        gained = exhaust * np.log(ratio) - gravity * burn
        climbed = exhaust * (burn - (mass / flow - burn) * np.log(ratio)) - gravity * burn**2 / 2
        return [v + gained, h + v * burn + climbed]

    coast, burn = scipy.optimize.fsolve(miss, [2.0, 2.0], xtol=1e-13)
    return flow * burn, coast + burn, coast


def test_least_fuel_is_free_fall_and_then_full_thrust():
    """Meditch 1964. The last and the first interval of the burn may be split by the grid, so the cost is a little higher."""
    problem = flight.lander(fuel=True, steps=100)
    start = np.array([20.0, -2.0, 9.5])
    fuel, duration, coast = coast_then_burn(*start, 45.0, *problem.param_values)
    best = optctl.solve(problem, start, num_starts=4)
    assert best.ok and best.certificate.constraint_violation < 1e-8
    assert -1e-7 < best.value - fuel < 1e-3 * fuel and best.final_time == pytest.approx(duration, rel=5e-3)
    thrust, times = best.trajectory.controls[:, 0], best.trajectory.times[:-1]
    h = times[1]
    assert np.abs(thrust[times < coast - 2 * h]).max() < 1e-4 and thrust[times > coast + 2 * h].min() > 45 - 1e-4
    assert best.value == pytest.approx(start[2] - best.trajectory.states[-1, 2], rel=1e-9)


@pytest.mark.parametrize("name", ["acrobot", "cart-double-pole", "rocket"])
def test_full_swings_of_the_control_stay_finite_in_float32(name):
    problem = optctl.make(name)
    env = optctl.make_vec(problem, 64)
    env.reset(seed=0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(problem.steps):
        action = torch.sign(torch.rand((64, problem.n_u), generator=generator) - 0.5)
        obs, reward, _, _, info = env.step(action)
        assert torch.isfinite(info["final_obs"]).all() and torch.isfinite(reward).all()
    assert obs.abs().max() < 200
