"""What continuous-time methods claim: the control minimises the Hamiltonian, the Hamiltonian is constant, and the control that is handed
over is the one that was certified."""

import dataclasses

import casadi as ca
import numpy as np
import optima
import pytest

from optctl.errors import ArgumentError
from optctl.problem import Fixed, Problem
from optctl.problem.trajectory import Trajectory
from optctl.solvers import Certificate, Solution, Status, Verdict, solve, solve_pontryagin
from optctl.solvers.batched.shooting import check_suitable
from optctl.solvers.methods.hamiltonian import excess
from optctl.solvers.methods.pontryagin import minimiser


def scalar(cost, bounds, name="scalar", controls=1):
    names = [f"u{i}" for i in range(controls)]
    return Problem(
        name=name, state=["x"], control=names, dynamics=lambda x, u, p: u[0], stage_cost=cost, dt=0.1, steps=20,
        initial_state=Fixed([0.0]), control_bounds={} if bounds is None else dict.fromkeys(names, bounds),
    )  # fmt: skip


CONCAVE = scalar(lambda x, u, p: -(u[0] ** 2), (-1.0, 1.0), "concave")


def spin(limit, steps=60):
    """A relaxing spin to the centre of its ball in least time; bang, singular (z = γ/2(γ − Γ)), bang, singular (y = 0).

    ẏ = −Γ y − u z, ż = γ (1 − z) + u y with Γ = .5, γ = .1, from the pole. Lapert et al., Phys. Rev. Lett. 104 (2010) 083001."""
    return Problem(
        name="spin", state=["y", "z"], control=["u"], stage_cost=lambda x, u, p: 1.0, dt=4.0 / steps, steps=steps,
        dynamics=lambda x, u, p: ca.vertcat(-0.5 * x[0] - u[0] * x[1], 0.1 * (1 - x[1]) + u[0] * x[0]),
        initial_state=Fixed([0.0, 1.0]), control_bounds={"u": (-limit, limit)}, terminal_constraints=lambda x, p: x,
        final_time=(0.1, 40.0),
    )  # fmt: skip


SPIN_TIME = 5.824264088670
"""|u| ≤ 1: the four arcs integrated one after the other, their junction found by a line search."""


# --- the minimum principle ----------------------------------------------------------------------------------------------


def test_a_concave_hamiltonian_is_minimised_at_a_bound():
    # H = −u² + λu with λ(T) = 0: u = ±1 throughout, J = −2; u = 0 maximises H
    solution = solve(CONCAVE, [0.0], method="pontryagin")
    assert solution.verdict is Verdict.EXTREMAL
    assert solution.value == pytest.approx(-2.0, abs=1e-9)


@pytest.mark.parametrize("coupling", [0.0, 1.0])
@pytest.mark.parametrize("n_u", [1, 2, 3])
def test_the_minimiser_of_a_quadratic_is_the_least_of_the_box(n_u, coupling):
    rng = np.random.default_rng(n_u)
    w, s, u = ca.SX.sym("w", n_u, n_u), ca.SX.sym("s", n_u), ca.SX.sym("u", n_u)
    symmetric = ca.diag(ca.diag(w)) if coupling == 0 else w + w.T
    h = ca.bilin(symmetric, u, u) / 2 + ca.dot(s, u)
    low, high = -np.ones(n_u), np.full(n_u, 0.5)
    best = ca.Function("best", [w, s], [minimiser(h, u, low, high)])
    value = ca.Function("value", [u, w, s], [h])
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 0.5, 16)] * n_u, indexing="ij"), axis=-1).reshape(-1, n_u)
    for _ in range(20):  # indefinite ones too
        weight, slope = rng.standard_normal((n_u, n_u)), rng.standard_normal(n_u)
        found = np.asarray(best(weight, slope)).ravel()
        assert (found >= low).all()
        assert (found <= high).all()
        least = np.asarray(
            value.map(len(grid))(grid.T, np.tile(weight, len(grid)), np.tile(slope, (len(grid), 1)).T)
        ).min()
        assert float(value(found, weight, slope)) <= least + 1e-12


def test_a_hamiltonian_without_minimum_gives_no_solution():
    start = Trajectory(
        times=np.linspace(0, 2, 21), states=np.zeros((21, 1)), controls=np.zeros((20, 1)), costs=np.zeros(20),
        terminal_cost=np.zeros(()), costates=np.zeros((21, 1)),
    )  # fmt: skip
    solution = solve_pontryagin(scalar(lambda x, u, p: -(u[0] ** 2), None, "runaway"), np.zeros(1), guess=start)
    assert solution.verdict is Verdict.NOT_CONVERGED
    assert "falls without limit" in solution.message
    assert np.isnan(solution.trajectory.costates).all()  # what is no extremal has no costates


def test_a_control_that_does_not_minimise_is_seen_on_the_grid():
    # H = −u² + 3u: least at u = −1 with −4; u = 1 costs 6 more, u = 0 (where nothing is stationary) 4 more
    missed = lambda u: float(excess(CONCAVE)(0.0, u, 3.0, [], 0.0))
    assert missed(-1.0) == 0.0
    assert missed(1.0) == pytest.approx(6.0)
    assert missed(0.0) == pytest.approx(4.0)
    with pytest.raises(ArgumentError, match="convex"):
        check_suitable(CONCAVE)


# --- the Hamiltonian is constant ----------------------------------------------------------------------------------------


def test_a_drifting_hamiltonian_is_not_certified():
    trajectory = Trajectory(
        times=np.array([0.0, 1.0]), states=np.zeros((2, 1)), controls=np.zeros((1, 1)), costs=np.ones(1), terminal_cost=np.zeros(())
    )  # fmt: skip
    steady = Solution(
        problem="p", solver="s", trajectory=trajectory, status=Status.CONVERGED, wall_time=0.0,
        certificate=Certificate(defect=0.0, stationarity=0.0, hamiltonian_drift=0.01, hamiltonian_size=2.0),
    )  # fmt: skip
    assert steady.verdict is Verdict.EXTREMAL
    drifting = steady.replace(certificate=dataclasses.replace(steady.certificate, hamiltonian_drift=0.3))
    assert drifting.verdict is Verdict.BEST_FOUND
    assert "Hamiltonian" in drifting.shortcoming


def test_collocation_does_not_live_on_controls_that_oscillate_inside_intervals():
    # polynomials that chatter along the singular arcs end 4e-4 too early on four times as many intervals, and were certified
    solution = solve(spin(1.0), [0.0, 1.0], method="collocation", num_starts=1)
    assert solution.verdict is Verdict.EXTREMAL
    assert solution.value == pytest.approx(SPIN_TIME, rel=1e-5)
    assert solution.value > SPIN_TIME  # a held control cannot undercut it
    assert solution.certificate.hamiltonian_drift < 1e-3
    assert solution.certificate.cost_defect < 1e-6
    # ∂T/∂x(0) of the extremal by `switching`: λ(0)'f = −1 at u = ∓1, |λ_y| = 1/z = 1
    assert abs(solution.trajectory.costates[0, 0]) == pytest.approx(1.0, abs=2e-3)


# --- what is handed over ------------------------------------------------------------------------------------------------


def test_path_constraints_hold_at_the_start():
    gate = Problem(
        name="gate", state=["x"], control=["u"], dynamics=lambda x, u, p: u[0], dt=0.05, steps=20, initial_state=Fixed([0.5]),
        stage_cost=lambda x, u, p: x[0] ** 2 + 1e-3 * u[0] ** 2, path_constraints=lambda x, u, p, t: 0.5 - 50 * t - x[0],
    )  # fmt: skip
    solution = solve(gate, [0.5], method="collocation", free_start={"x": (-2.0, 2.0)})
    assert solution.trajectory.states[0, 0] >= 0.5 - 1e-8  # 0.118 where only Radau's points count
    closed = gate.replace(path_constraints=lambda x, u, p: ca.vertcat(x[0] - 0.4, u[0] - 2))
    assert solve(closed, [0.5], method="collocation", num_starts=1).verdict is Verdict.NOT_CONVERGED


@pytest.mark.parametrize("turn", [2 * np.pi, 360.0], ids=["radians", "degrees"])
def test_unbounded_angles_are_continuous(turn):
    angle = lambda u: 2 * np.pi / turn * u
    ship = optima.zermelo(40).replace(
        name=f"ship-{turn:.0f}", control_bounds={}, control_scale={"u": turn / 2},
        dynamics=lambda x, u, p: ca.vertcat(ca.cos(angle(u[0])) - x[1], ca.sin(angle(u[0]))),
    )  # fmt: skip
    solution = solve(ship, ship.initial_state.location, method="collocation", num_starts=2)
    assert solution.verdict is Verdict.EXTREMAL
    assert solution.value == pytest.approx(5.464101615138, rel=1e-8)
    assert len(solution.trajectory.controls) == 40  # whole turns inside an interval would ask for finer grids
    assert np.abs(np.diff(solution.trajectory.controls[:, 0])).max() < turn / 36  # 135° in 40 intervals
    assert solution.certificate.resimulation < 1e-8
