"""Known optima, each by every method that applies; costates against finite differences of the optimal cost."""

import numpy as np
import optima
import pytest

from optctl.errors import ArgumentError
from optctl.solvers import Guess, Status, Verdict, solve

SMOOTH = [
    (optima.minimum_energy(), 6.0, (-12.0, -6.0)),
    (optima.scalar_finite(), 0.7615941559557649, (2 * 0.7615941559557649,)),  # J = tanh(1) x0²
    (optima.duffing(), 0.187444856136, (0.26871908, -0.49143208)),
    (optima.van_der_pol(), 2.866952422563, (0.82339739, 4.87418722)),
]
METHODS = [("collocation", {"degree": 4}), ("pontryagin", {}), ("pontryagin", {"segments": 1})]


@pytest.mark.parametrize(("method", "options"), METHODS, ids=["radau", "multiple", "single"])
@pytest.mark.parametrize(("problem", "J", "costate"), SMOOTH, ids=lambda v: getattr(v, "name", ""))
def test_smooth_problems_reach_the_optimum_and_its_costates(problem, J, costate, method, options):
    solution = solve(problem, problem.initial_state.location, method=method, **options)
    assert solution.verdict in (Verdict.EXTREMAL, Verdict.PROVED), solution
    assert solution.value == pytest.approx(J, rel=1e-9)
    np.testing.assert_allclose(solution.trajectory.costates[0], costate, atol=2e-7)
    assert solution.certificate.hamiltonian_drift < 1e-7
    assert solution.certificate.resimulation < 1e-8


@pytest.mark.parametrize(("scheme", "order"), [("trapezoid", 2), ("hermite_simpson", 4)])
def test_collocation_error_falls_at_the_order_of_the_scheme(scheme, order):
    errors = [
        abs(
            solve(optima.van_der_pol(n), [0, 1], method="collocation", scheme_name=scheme, resimulation=None).value
            - 2.866952422563
        )
        for n in (25, 50)
    ]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.6)


def test_the_grid_is_refined_until_the_defect_is_met():
    problem = optima.van_der_pol(10)
    coarse = solve(problem, [0, 1], method="collocation", degree=2, resimulation=None)
    fine = solve(problem, [0, 1], method="collocation", degree=2, resimulation=1e-6)
    assert coarse.certificate.resimulation > 1e-3
    assert fine.certificate.resimulation <= 1e-6
    assert abs(fine.value - 2.866952422563) < 1e-2 * abs(coarse.value - 2.866952422563)
    # only where the defect asks for it: 80 equal intervals would be as good
    assert 40 < len(fine.trajectory.controls) < 80
    widths = np.diff(fine.trajectory.times)
    assert widths.max() / widths.min() == pytest.approx(4.0, rel=0.5)
    assert widths.sum() == pytest.approx(5.0)
    short = solve(problem, [0, 1], method="collocation", degree=2, resimulation=1e-6, max_intervals=20)
    assert short.status is Status.ACCEPTABLE
    assert "20 intervals" in short.message
    with pytest.raises(ArgumentError, match="resimulation"):
        solve(problem, [0, 1], method="collocation", resimulation=0.0)


def test_multiple_shooting_equals_the_closed_form_of_the_held_control():
    # ∫u² with N held controls, Σ h u = 0·…: minimum energy with zero-order hold costs 6 / (1 − 1/N²)
    solution = solve(optima.minimum_energy(20), [0, 0], method="multiple_shooting")
    assert solution.value == pytest.approx(6 / (1 - 1 / 400), rel=1e-10)
    assert solution.verdict is Verdict.PROVED


@pytest.mark.parametrize(
    ("method", "steps", "options"), [("collocation", 200, {"num_starts": 2}), ("pontryagin", 50, {})]
)
def test_bounded_van_der_pol(method, steps, options):
    problem = optima.van_der_pol(steps, (-0.3, 1.0))
    assert solve(problem, [0, 1], method=method, **options).value == pytest.approx(2.867261045220, rel=1e-6)


def test_hyper_sensitive_by_collocation_and_multiple_but_not_single_shooting():
    problem = optima.hyper_sensitive(200)
    radau = solve(problem, [1.5], method="collocation", degree=5)
    multiple = solve(problem, [1.5], method="pontryagin", guess=radau.trajectory)
    assert [radau.value, multiple.value] == pytest.approx([1.330806904943] * 2, rel=1e-8)
    single = solve(problem, [1.5], method="pontryagin", segments=1, time_limit=0.3)
    assert single.status is Status.SHOOTING_FAILED
    assert single.verdict is Verdict.NOT_CONVERGED


def test_cart_pole_swing_up_of_kelly_and_a_better_basin():
    problem = optima.kelly_cartpole(100)
    line = Guess(np.linspace(np.zeros(4), [1, np.pi, 0, 0], 101), np.zeros((100, 1)))
    local = solve(problem, np.zeros(4), method="collocation", guess=line, degree=5)
    assert local.value == pytest.approx(58.80766746, rel=1e-6)
    best = solve(problem, np.zeros(4), method="collocation", num_starts=4)
    # several guesses find a second basin, below the published one; indirect shooting confirms it
    polished = solve(problem.replace(state_bounds={}), np.zeros(4), method="pontryagin", guess=best.trajectory)
    assert polished.status.ok
    assert polished.value < 57.95
    assert best.value == pytest.approx(polished.value, rel=1e-5)
    assert best.basins >= 2


@pytest.mark.parametrize(
    ("problem", "T", "rel"),
    [
        (optima.minimum_time(), 2.0, 1e-8),
        (optima.minimum_time(harmonic=True), 1.823476581937, 1e-4),
        (optima.minimum_time((0.0, 1.0), harmonic=True), 1.994827366286, 1e-4),
        (optima.minimum_time((2.0, 0.0), harmonic=True), np.pi, 1e-4),
    ],
    ids=["double integrator", "harmonic (1,0)", "harmonic (0,1)", "harmonic (2,0)"],
)
def test_minimum_time(problem, T, rel):
    solution = solve(problem, problem.initial_state.location)
    assert solution.solver == "multiple_shooting"
    assert solution.final_time == pytest.approx(T, rel=rel)
    assert solution.value == pytest.approx(solution.final_time)
    assert solution.verdict is Verdict.EXTREMAL


def test_brachistochrone():
    solution = solve(optima.brachistochrone(), [0, 10, 0], method="collocation", num_starts=3)
    assert solution.value == pytest.approx(1.801295483014, rel=1e-9)


def test_bryson_denham_does_not_undercut_the_optimum():
    solution = solve(optima.bryson_denham(), [0, 1], method="collocation")
    assert solution.value == pytest.approx(4.0, rel=1e-6)
    assert solution.value > 4 - 1e-8  # IPOPT's bound relaxation would give 3.9999996
    assert solution.trajectory.states[:, 0].max() <= 1 / 9 + 1e-12


def test_singular_arc():
    assert solve(optima.singular_arc(), [0, 1]).value == pytest.approx(0.753983860576, rel=1e-4)


@pytest.mark.parametrize("method", ["ddp", "multiple_shooting", "collocation", "pontryagin"])
def test_costates_are_the_gradient_of_the_optimal_cost(method):
    problem, x0, d = (
        optima.van_der_pol(),
        np.array([0.0, 1.0]),
        1e-4 * np.array([0.8, -0.6]),
    )  # both entries in one slope
    change = solve(problem, x0 + d, method=method).value - solve(problem, x0 - d, method=method).value
    slope = solve(problem, x0, method=method).trajectory.costates[0] @ d / 1e-4
    assert slope == pytest.approx(change / 2e-4, abs=1e-5)
