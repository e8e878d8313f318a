"""Bang-bang, singular and constrained extremals to the last digits, and what the method refuses."""

import dataclasses

import casadi as ca
import numpy as np
import optima
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq

from optctl.errors import ArgumentError
from optctl.problem import Fixed, Problem
from optctl.problem.trajectory import Trajectory
from optctl.solvers import Verdict, solve
from optctl.solvers.methods.structures import structures


@pytest.mark.parametrize(
    ("problem", "value", "arcs"),
    [
        (optima.minimum_time(), 2.0, [("low", 1.0), ("high", 1.0)]),
        # the arcs (1, 0) → 0 of the oscillator are circles about ±1: durations by their angles
        (optima.minimum_time(harmonic=True), 1.823476581937, [("low", 2 * np.arcsin(0.25)), ("high", 1.318116071653)]),
        (optima.minimum_time((0.0, 1.0), harmonic=True), 1.994827366286, None),
        (optima.singular_arc(), 0.753983860576, [("low", 1.413764087630), ("singular", 5 - 1.413764087630)]),
        (optima.bryson_denham(), 4.0, [("free", 1 / 3), ("x0 high", 1 / 3), ("free", 1 / 3)]),
        (optima.van_der_pol(50, (-0.3, 1.0)), 2.867261045220, None),
        (optima.bukov(1.0), 1 - 0.577029386692, None),
    ],
    ids=["double integrator", "oscillator (1,0)", "oscillator (0,1)", "singular", "bryson-denham", "bounded", "bukov"],
)  # fmt: skip
def test_switch_times_to_ten_digits(problem, value, arcs):
    solution = solve(problem, problem.initial_state.location, method="switching")
    assert solution.verdict is Verdict.EXTREMAL, solution
    assert solution.value == pytest.approx(value, abs=2e-11)
    assert solution.certificate.resimulation < 1e-9
    assert solution.certificate.hamiltonian_drift < 1e-9
    if arcs is not None:
        assert [kind for kind, _ in solution.arcs] == [kind for kind, _ in arcs]
        np.testing.assert_allclose([d for _, d in solution.arcs], [d for _, d in arcs], atol=1e-9)


def test_least_time_of_the_qubit():
    # bang, singular (no field), bang; T_QSL = 2 arccos(7/24)/√17 + 2 arcsin(7/(4√5))
    exact = 2 * np.arccos(7 / 24) / np.sqrt(17) + 2 * np.arcsin(7 / (4 * np.sqrt(5)))
    solution = arcs(optima.bukov_time())
    assert solution.value == pytest.approx(exact, abs=1e-10)
    assert [kind for kind, _ in solution.arcs] == ["high", "singular", "low"]


def test_the_abnormal_extremal_of_the_oscillator():
    # from (2, 0) the only control that arrives at π is u = 1: no costate has 1 + λ'f = 0 and u = argmin, but λ = (cos t, −sin t)
    # makes λ'f = 0 = min λ'f throughout
    solution = solve(optima.minimum_time((2.0, 0.0), harmonic=True), [2.0, 0.0], method="switching")
    assert solution.verdict is Verdict.EXTREMAL
    assert solution.value == pytest.approx(np.pi, abs=1e-10)
    assert "abnormal" in solution.message
    t, costates = solution.trajectory.times, solution.trajectory.costates
    np.testing.assert_allclose(costates, np.stack([np.cos(t), -np.sin(t)], axis=1), atol=1e-9)


def test_arcs_against_the_minimum_principle_are_not_certified():
    # accelerate, wait, brake: it arrives, later than it could
    problem, third = optima.minimum_time(steps=60), 20
    u = np.repeat([-1.0, 0.0, 1.0], third)[:, None]
    states = np.concatenate([[[1.0, 0.0]], np.zeros((60, 2))])
    for k in range(60):
        states[k + 1] = states[k] + 0.02357 * np.array([states[k, 1], u[k, 0]])
    plan = Trajectory(np.arange(61) * 0.02357, states, u, np.full(60, 0.02357), 0.0, costates=np.ones((61, 2)))
    solution = solve(problem, [1.0, 0.0], method="switching", guess=plan)
    assert not solution.ok
    assert solution.verdict is Verdict.NOT_CONVERGED


def test_dynamics_and_costs_that_mention_the_time():
    # ẋ = u, |u| ≤ ½, ∫₀¹ (1 + t) u² with x(1) − x(0) = −0.4: λ is constant, u = max(−½, −c/(1 + t)), ∫u = −0.4:
    # ½ s + c ln(2/(1 + s)) = 0.4 with c = ½ (1 + s) at the switch s; J = ¼ (s + s²/2) + c² ln(2/(1 + s))
    s = brentq(lambda s: 0.5 * s + 0.5 * (1 + s) * np.log(2 / (1 + s)) - 0.4, 0.0, 1.0)
    J = 0.25 * (s + s**2 / 2) + 0.25 * (1 + s) ** 2 * np.log(2 / (1 + s))
    problem = Problem(
        name="timed", state=["x"], control=["u"], dynamics=lambda x, u, p: u, stage_cost=lambda x, u, p, t: (1 + t) * u[0] ** 2,
        control_bounds={"u": (-0.5, 0.5)}, terminal_constraints=lambda x, p: x - 0.6, dt=0.02, steps=50, initial_state=Fixed([1.0]),
    )  # fmt: skip
    solution = solve(problem, [1.0], method="switching")
    assert solution.verdict is Verdict.EXTREMAL
    assert solution.value == pytest.approx(J, abs=1e-10)
    np.testing.assert_allclose([d for _, d in solution.arcs], [s, 1 - s], atol=1e-9)
    assert solution.trajectory.states.shape == (51, 1)
    # free final time, ∫ 1 + (1 + t) u²: u = −c/(1 + t), H(T) = 1 − c²/(1 + T) = 0, c ln(1 + T) = 0.4, J = T + 0.4 c
    T = brentq(lambda T: np.sqrt(1 + T) * np.log(1 + T) - 0.4, 0.0, 3.0)
    free = problem.replace(
        stage_cost=lambda x, u, p, t: 1 + (1 + t) * u[0] ** 2, control_bounds={"u": (-2.0, 2.0)}, final_time=(0.05, 3.0)
    )
    for method in ("switching", "pontryagin"):
        solution = solve(free, [1.0], method=method)
        assert solution.final_time == pytest.approx(T, abs=1e-9)
        assert solution.value == pytest.approx(T + 0.4 * np.sqrt(1 + T), abs=1e-9)


def test_structure_of_a_plan_with_switches_inside_intervals():
    problem = optima.minimum_time(steps=8)
    plan = Trajectory(
        times=np.arange(9) / 4, states=np.zeros((9, 2)), controls=np.array([[-1, -1, -1, 0.2, 1, 1, 1, 1]]).T,
        costs=np.zeros(8), terminal_cost=0.0, costates=np.zeros((9, 2)),
    )  # fmt: skip
    assert next(structures(problem, plan)) == [(("low",), 4), (("high",), 4)]


def test_two_singular_controls_at_once_are_named():
    problem = Problem(
        name="flat", state=["a", "b"], control=["u", "v"], dynamics=lambda x, u, p: u, stage_cost=lambda x, u, p: ca.sumsqr(x),
        control_bounds={"u": (-1, 1), "v": (-1, 1)}, dt=0.1, steps=20, initial_state=Fixed([0.0, 0.0]),
    )  # fmt: skip
    solution = solve(problem, [0.0, 0.0], method="switching")
    assert not solution.ok
    assert "two controls singular" in solution.message


def test_what_it_cannot_do_is_refused():
    from optctl import envs
    from optctl.solvers import solve_switching

    with pytest.raises(ArgumentError, match="discrete"):
        solve(envs.make("pendulum-v1"), [1.0, 0.0], method="switching")
    plan = solve(optima.scalar_finite(), [1.0], method="collocation").trajectory
    with pytest.raises(ArgumentError, match="costates"):
        solve_switching(
            optima.scalar_finite(), [1.0], guess=Trajectory(plan.times, plan.states, plan.controls, plan.costs, 0.0)
        )


# --- bounds on states and path constraints ------------------------------------------------------------------------------

STRING = 2 * np.sqrt(3) + np.pi / 3
"""From (−2, 0) to (2, 0) round the unit disc: two tangents of √3, and 60° of the circle."""


def arcs(problem):
    patient = {"time_limit": 600.0}  # not a measurement: other work on the machine may take most of the time
    solution = solve(problem, problem.initial_state.location, method="switching", **patient)
    assert solution.verdict is Verdict.EXTREMAL, solution
    assert solution.certificate.resimulation < 1e-9
    assert solution.certificate.hamiltonian_drift < 1e-7 * (1 + abs(solution.value))
    return solution


def kinds(solution):
    return [kind for kind, _ in solution.arcs]


def durations(solution):
    return [duration for _, duration in solution.arcs]


def slope_of_the_optimum(problem, guess, direction, eps=1e-4):
    """∂J*/∂x0 along a direction by a central difference."""
    x0, step = problem.initial_state.location, eps * np.asarray(direction)
    ahead, back = (solve(problem, x, method="switching", guess=guess).value for x in (x0 + step, x0 - step))
    return (ahead - back) / (2 * eps)


@pytest.mark.parametrize("as_path", [False, True], ids=["state bound", "path constraint"])
@pytest.mark.parametrize("limit", [1 / 9, 0.16, 0.17, 0.2, 0.2499, 0.3])
def test_bryson_denham_in_every_regime(limit, as_path):
    # Bryson and Ho, §3.11: an arc on x = ℓ for 1 − 6ℓ, a touch at ½, or neither; u'(0) = λ₁, u(0) = −λ₂
    bound = "path 0" if as_path else "x0 high"
    if limit < 1 / 6:
        value, costate = 4 / (9 * limit), (2 / (9 * limit**2), 2 / (3 * limit))
        structure = [("free", 3 * limit), (bound, 1 - 6 * limit), ("free", 3 * limit)]
    elif limit < 1 / 4:
        value, costate = 2 + 6 * (1 - 4 * limit) ** 2, (24 * (1 - 4 * limit), 8 * (1 - 3 * limit))
        structure = [("free", 0.5), (bound, 0.0), ("free", 0.5)]
    else:
        value, costate, structure = 2.0, (0.0, 2.0), [("free", 1.0)]
    problem = optima.bryson_denham(limit=limit)
    if as_path:
        problem = problem.replace(state_bounds={}, path_constraints=lambda x, u, p: x[0] - limit)
    solution = arcs(problem)
    assert solution.value == pytest.approx(value, abs=1e-10)
    assert kinds(solution) == [kind for kind, _ in structure]
    np.testing.assert_allclose(durations(solution), [d for _, d in structure], atol=1e-8)
    np.testing.assert_allclose(solution.trajectory.costates[0], costate, atol=1e-7)


def test_a_touch_that_would_have_to_pull_is_not_certified():
    # up to x = 0.3 and no farther, although the optimum turns at ¼: 2 + 6 (1 − 1.2)² with π < 0
    t = np.linspace(0, 1, 49)
    u = -8 * (1 - 0.9) + 24 * (1 - 1.2) * np.minimum(t, 1 - t)
    rise = t - 0.4 * t**2 - 0.8 * t**3
    x = np.where(t < 0.5, rise, rise[::-1])
    v = np.where(t < 0.5, 1 - 0.8 * t - 2.4 * t**2, -(1 - 0.8 * (1 - t) - 2.4 * (1 - t) ** 2))
    plan = Trajectory(
        t, np.stack([x, v], axis=1), ((u[:-1] + u[1:]) / 2)[:, None], np.zeros(48), 0.0,
        costates=np.stack([24 * (1 - 1.2) * np.sign(0.5 - t), -u], axis=1),
    )  # fmt: skip
    solution = solve(optima.bryson_denham(limit=0.3), [0.0, 1.0], method="switching", guess=plan)
    assert solution.value == pytest.approx(2.24, abs=1e-9)
    assert kinds(solution) == ["free", "x0 high", "free"]
    assert not solution.ok


def test_a_rate_limit_that_depends_on_the_state():
    # ẋ = u from 2, ∫₀² x² + u²/5, −1 ≤ u, −u ≤ ⅕ + ⅗x: −1 down to x = 4/3; x + ⅓ falls as e^{−⅗t}; then u = −√5 x tanh √5(2 − t)
    def optimum(x0):
        first, r = x0 - 4 / 3, np.sqrt(5)
        slow = lambda t: 5 / 3 * np.exp(-0.6 * t) - 1 / 3
        left = 2 - first
        release = brentq(lambda t: r * slow(t) * np.tanh(r * (left - t)) - 0.2 - 0.6 * slow(t), 0.5, left - 0.05)
        J = quad(lambda t: (x0 - t) ** 2 + 0.2, 0, first)[0]
        J += quad(lambda t: slow(t) ** 2 + 0.2 * (0.2 + 0.6 * slow(t)) ** 2, 0, release, epsabs=1e-13)[0]
        return J + slow(release) ** 2 * np.tanh(r * (left - release)) / r, [first, release, left - release]

    problem = Problem(
        name="slow", state=["x"], control=["u"], dynamics=lambda x, u, p: u, stage_cost=lambda x, u, p: x[0] ** 2 + 0.2 * u[0] ** 2,
        control_bounds={"u": (-1.0, 1.0)}, path_constraints=lambda x, u, p: -u[0] - p.base - 0.6 * x[0], params={"base": 0.2},
        dt=0.02, steps=100, initial_state=Fixed([2.0]),
    )  # fmt: skip
    solution, (J, times) = arcs(problem), optimum(2.0)
    assert kinds(solution) == ["low", "path 0", "free"]
    assert solution.value == pytest.approx(J, abs=1e-10)
    np.testing.assert_allclose(durations(solution), times, atol=1e-9)
    slope = (optimum(2 + 1e-4)[0] - optimum(2 - 1e-4)[0]) / 2e-4
    np.testing.assert_allclose(solution.trajectory.costates[0], slope, atol=1e-7)


def test_a_bang_bang_control_runs_along_a_power_limit():
    # u = 1 until the speed is ½; v v' = ½ up to the top speed w; brakes: w from the distance, 16 w³ + 12 w² = 47
    w = brentq(lambda w: 16 * w**3 + 12 * w**2 - 47, 0.5, 2.0)
    solution = arcs(optima.power_limit())
    assert kinds(solution) == ["high", "path 0", "low"]
    np.testing.assert_allclose(durations(solution), [0.5, w**2 - 0.25, w], atol=1e-9)
    assert solution.value == pytest.approx((w + 0.5) ** 2, abs=1e-10)


@pytest.mark.parametrize("bounds", [{}, {"heading": (-np.pi, np.pi)}], ids=["unbounded", "bounded"])
def test_least_time_round_a_disc_with_a_heading(bounds):
    problem = Problem(
        name="heading", state=["x", "y"], control=["heading"], dynamics=lambda x, u, p: ca.vertcat(ca.cos(u[0]), ca.sin(u[0])),
        stage_cost=lambda x, u, p: 1.0, control_bounds=bounds, path_constraints=lambda x, u, p: p.radius**2 - ca.sumsqr(x),
        terminal_constraints=lambda x, p: x - ca.DM([2, 0]), params={"radius": 1.0}, final_time=(1.0, 20.0), dt=0.08, steps=60,
        initial_state=Fixed([-2.0, 0.0]),
    )  # fmt: skip
    solution = arcs(problem)
    assert kinds(solution) == ["free", "path 0", "free"]
    np.testing.assert_allclose(durations(solution), [np.sqrt(3), np.pi / 3, np.sqrt(3)], atol=1e-9)
    assert solution.value == pytest.approx(STRING, abs=1e-10)
    costate = solution.trajectory.costates[0]  # against the tangent, at 30° above or below
    np.testing.assert_allclose([costate[0], abs(costate[1])], [-np.sqrt(0.75), 0.5], atol=1e-8)


def test_least_energy_round_a_disc_with_two_velocities():
    solution = arcs(optima.round_the_disc())
    assert kinds(solution) == ["free, free", "path 0", "free, free"]
    np.testing.assert_allclose(durations(solution), np.array([np.sqrt(3), np.pi / 3, np.sqrt(3)]) / STRING, atol=1e-8)
    assert solution.value == pytest.approx(STRING**2 / 2, rel=1e-9)
    costate = solution.trajectory.costates[0]
    np.testing.assert_allclose([costate[0], abs(costate[1])], [-STRING * np.sqrt(0.75), STRING / 2], atol=1e-6)
    # λ on the disc is minus the velocity as well: nothing jumps
    x, costates = solution.trajectory.states, solution.trajectory.costates
    np.testing.assert_allclose(np.linalg.norm(costates, axis=1), STRING, atol=1e-6)
    assert np.linalg.norm(x, axis=1).min() > 1 - 1e-9


def wide_disc(steps=60):
    """Accelerations from rest to rest past a disc of radius 1.5: it is touched twice."""
    return Problem(
        name="wide-disc", state=["x", "y", "v", "w"], control=["a", "b"], dynamics=lambda x, u, p: ca.vertcat(x[2:], u),
        stage_cost=lambda x, u, p: 0.5 * ca.sumsqr(u), path_constraints=lambda x, u, p: 2.25 - ca.sumsqr(x[:2]), dt=1 / steps,
        steps=steps, terminal_constraints=lambda x, p: x - ca.DM([2, 0, 0, 0]), initial_state=Fixed([-2.0, 0.5, 0.0, 0.0]),
    )  # fmt: skip


def test_two_touches_of_a_disc():
    solution = arcs(wide_disc())
    assert kinds(solution) == ["free, free", "path 0", "free, free", "path 0", "free, free"]
    direct = solve(wide_disc(240), [-2.0, 0.5, 0.0, 0.0], method="collocation", guess=solution.trajectory)
    assert solution.value == pytest.approx(direct.value, rel=1e-7)
    direction = [0.5, -0.3, 0.7, -0.4]  # every costate counts, and they do not cancel
    slope = slope_of_the_optimum(wide_disc(), solution, direction)
    assert solution.trajectory.costates[0] @ direction == pytest.approx(slope, rel=1e-7)


def test_an_arc_in_place_of_two_touches_is_not_certified():
    # it keeps S = 0, costs 0.0001 too much, and has a negative multiplier
    direct = solve(wide_disc(), [-2.0, 0.5, 0.0, 0.0], method="collocation").trajectory
    radius = np.linalg.norm(direct.states[:, :2], axis=1)
    first, *_, last = np.flatnonzero(radius < 1.5 + 1e-4)
    states = direct.states.copy()
    states[first : last + 1, :2] *= (1.5 / radius[first : last + 1])[:, None]
    plan = dataclasses.replace(direct, states=states)
    solution = solve(wide_disc(), [-2.0, 0.5, 0.0, 0.0], method="switching", guess=plan)
    assert kinds(solution) == ["free, free", "path 0", "free, free"]
    assert solution.value == pytest.approx(248.52044, abs=1e-4)
    assert not solution.ok


def test_a_limit_kept_without_need_is_not_certified():
    # u = −1.2 throughout is admissible and costs more than the regulator, which never gets there
    problem = optima.scalar_finite(50).replace(path_constraints=lambda x, u, p: -1.2 - u[0])
    x = 1 - 1.2 * np.linspace(0, 1, 51)[:, None]
    plan = solve(problem, [1.0], method="collocation", resimulation=None).trajectory
    forced = dataclasses.replace(plan, states=x, controls=np.full((50, 1), -1.2), times=np.linspace(0, 1, 51))
    solution = solve(problem, [1.0], method="switching", guess=forced)
    assert not solution.ok
    assert "minimum principle" in solution.message
    assert arcs(problem).value == pytest.approx(np.tanh(1), abs=1e-10)


def moving_floor(start, end, steps=60):
    """ẋ = u, ½∫₀¹u², x ≥ 1 − 8 (t − ½)²."""
    return Problem(
        name="moving-floor", state=["x"], control=["u"], dynamics=lambda x, u, p: u, stage_cost=lambda x, u, p: 0.5 * u[0] ** 2,
        path_constraints=lambda x, u, p, t: 1 - 8 * (t - 0.5) ** 2 - x[0], terminal_constraints=lambda x, p: x - end,
        dt=1 / steps, steps=steps, initial_state=Fixed([start]),
    )  # fmt: skip


@pytest.mark.parametrize("start", [0.0, -1.0], ids=["above", "on it"])
@pytest.mark.parametrize("end", [0.0, -1.0], ids=["above", "on it"])
def test_a_string_over_a_floor_that_moves(start, end):
    # from 0 the tangent meets the parabola at t = 1/√8, with speed 16 (½ − t); on the parabola ½∫u² = 128/3 (½ − t)³
    meeting = 1 / np.sqrt(8)
    above = 128 * (0.5 - meeting) ** 2 * meeting + 128 / 3 * (0.5 - meeting) ** 3
    on_it = 128 / 3 * 0.5**3
    solution = arcs(moving_floor(start, end))
    assert solution.value == pytest.approx(sum(above if v == 0 else on_it for v in (start, end)), abs=1e-10)
    assert kinds(solution) == ["free"] * (start == 0) + ["path 0"] + ["free"] * (end == 0)
    assert not solution.message
    if start == 0:
        assert durations(solution)[0] == pytest.approx(meeting, abs=1e-9)


@pytest.mark.parametrize("as_path", [False, True], ids=["state bound", "path constraint"])
def test_a_bound_reached_at_the_end(as_path):
    # max x(1) − ½∫u² subject to x ≤ ½: u = ½, λ = −½ throughout, although φ_x = −1
    problem = Problem(
        name="ceiling", state=["x"], control=["u"], dynamics=lambda x, u, p: u, stage_cost=lambda x, u, p: 0.5 * u[0] ** 2,
        terminal_cost=lambda x, p: -x[0], dt=0.02, steps=50, initial_state=Fixed([0.0]),
        **({"path_constraints": lambda x, u, p: x[0] - 0.5} if as_path else {"state_bounds": {"x": (-np.inf, 0.5)}}),
    )  # fmt: skip
    solution = arcs(problem)
    assert solution.value == pytest.approx(-0.375, abs=1e-10)
    np.testing.assert_allclose(solution.trajectory.costates, -0.5, atol=1e-9)
    assert solution.arcs[-1] == ("path 0" if as_path else "x high", 0.0)


def test_two_constraints_on_two_controls():
    # limits of the controls stated as path constraints; and a pulse that stays on the edge of a disc
    problem = Problem(
        name="plane", state=["x", "y"], control=["u", "v"], dynamics=lambda x, u, p: u, dt=0.02, steps=100,
        stage_cost=lambda x, u, p: ca.sumsqr(x) + ca.sumsqr(u), initial_state=Fixed([2.0, 1.5]),
        path_constraints=lambda x, u, p: ca.vertcat(-1 - u[0], -1 - u[1]),
    )  # fmt: skip
    bounded = problem.replace(path_constraints=None, control_bounds={"u": (-1.0, 1.0), "v": (-1.0, 1.0)})
    solution, reference = arcs(problem), arcs(bounded)
    assert kinds(solution) == ["path 0, path 1", "path 0", "free, free"]
    assert solution.value == pytest.approx(reference.value, abs=1e-9)
    np.testing.assert_allclose(durations(solution), durations(reference), atol=1e-8)
    pulse = arcs(optima.lambda_time())
    assert kinds(pulse) == ["path 0"]
    assert pulse.value == pytest.approx(np.sqrt(3) * np.pi, abs=1e-9)


def test_a_state_bound_with_two_controls():
    solution = arcs(optima.container_crane())
    assert kinds(solution) == ["x4 low", "free, free"]
    fine = solve(
        optima.container_crane(180), solution.trajectory.states[0], method="collocation", guess=solution.trajectory
    )
    assert solution.value == pytest.approx(fine.value, rel=1e-7)


def test_one_control_for_two_constraints_is_named():
    twice = optima.power_limit().replace(path_constraints=lambda x, u, p: ca.vertcat(u[0] * x[1], u[0] * x[1]) - 0.5)
    solution = solve(twice, [0.0, 0.0], method="switching")
    assert not solution.ok
    assert "more bounds at once than free controls" in solution.message


def test_a_constraint_that_no_control_reaches_is_only_checked():
    # y = t: y ≤ 1 holds up to the end, y ≤ ½ does not
    problem = Problem(
        name="idle", state=["x", "y"], control=["u"], dynamics=lambda x, u, p: ca.vertcat(u[0], 1.0), dt=0.02, steps=50,
        stage_cost=lambda x, u, p: x[0] ** 2 + u[0] ** 2, initial_state=Fixed([1.0, 0.0]),
        path_constraints=lambda x, u, p: x[1] - 1,
    )  # fmt: skip
    assert arcs(problem).value == pytest.approx(np.tanh(1), abs=1e-10)
    late = problem.replace(path_constraints=lambda x, u, p: x[1] - 0.5)
    plan = solve(problem, [1.0, 0.0], method="collocation").trajectory
    assert not solve(late, [1.0, 0.0], method="switching", guess=plan).ok
