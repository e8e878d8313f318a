"""Bang-bang, singular and state-constrained extremals to the last digits, and what the method refuses."""

import casadi as ca
import numpy as np
import optima
import pytest

from optctl.errors import ArgumentError
from optctl.problem import Fixed, Problem
from optctl.solvers import Verdict, solve
from optctl.solvers.switching import structures
from optctl.trajectory import Trajectory


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
    solution = solve(optima.bukov_time(), optima.bukov_time().initial_state.location, method="switching")
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
    from scipy.optimize import brentq

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
    with pytest.raises(ArgumentError, match="path constraints"):
        solve(optima.scalar_finite().replace(path_constraints=lambda x, u, p: u[0] - 5), [1.0], method="switching")
    from optctl import envs
    from optctl.solvers import solve_switching

    with pytest.raises(ArgumentError, match="discrete"):
        solve(envs.make("pendulum-v1"), [1.0, 0.0], method="switching")
    plan = solve(optima.scalar_finite(), [1.0], method="collocation").trajectory
    with pytest.raises(ArgumentError, match="costates"):
        solve_switching(
            optima.scalar_finite(), [1.0], guess=Trajectory(plan.times, plan.states, plan.controls, plan.costs, 0.0)
        )
