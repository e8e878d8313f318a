"""Comparison: planted differences are found, failures come last, and the optimum of an LQR has no gap."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy.linalg import expm, solve_discrete_are

import optctl
from optctl.comparison.charge import charge, from_solutions, violations
from optctl.comparison.compare import compare
from optctl.comparison.controllers import CONTROLLERS
from optctl.comparison.result import Reference
from optctl.comparison.statistics import Interval
from optctl.comparison.wording import interval, percent
from optctl.errors import ArgumentError
from optctl.interop import from_policy
from optctl.problem import Problem, Uniform
from optctl.problem.controller import FeedbackController, rollout
from optctl.problem.trajectory import Trajectory
from optctl.solvers import solve_many


def riccati(dt: float) -> tuple[np.ndarray, np.ndarray]:
    """Gain and value of the double integrator with held control and the cost integrated exactly (Van Loan 1978).

    z = (x, u) obeys z' = F z with u' = 0; exp([[−F', I], [0, F]] dt) gives Φ = e^{F dt} and ∫ e^{F's} e^{Fs} ds.
    """
    f = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    e = expm(np.block([[-f.T, np.eye(3)], [np.zeros((3, 3)), f]]) * dt)
    phi = e[3:, 3:]
    w = phi.T @ e[:3, 3:]
    a, b, q, s, r = phi[:2, :2], phi[:2, 2:], w[:2, :2], w[:2, 2:], w[2:, 2:]
    value = solve_discrete_are(a, b, q, r, s=s)
    return np.linalg.solve(r + b.T @ value @ b, b.T @ value @ a + s.T), value


@pytest.fixture(scope="module")
def problem():
    return optctl.make("double-integrator")


@pytest.fixture(scope="module")
def optimum(problem):
    """Starts, the optimal gain and the optimal cost of each start."""
    gain, value = riccati(problem.dt)
    starts = problem.initial_state.sample(np.random.default_rng(0), 64)
    return starts, gain, np.einsum("bi,ij,bj->b", starts, value, starts)


def linear(gain: np.ndarray, name: str = "linear", wall_time: float | None = None) -> FeedbackController:
    controller = FeedbackController(lambda x, t: -x @ gain.T, name)
    if wall_time is not None:
        controller.wall_time = wall_time
    return controller


def constant(value: float, name: str) -> FeedbackController:
    return FeedbackController(lambda x, t: np.full((len(x), 1), value), name)


# --- what is measured ---------------------------------------------------------------------------------------------------


def test_the_optimal_gain_has_no_gap_to_the_riccati_bound(problem, optimum):
    starts, gain, cost = optimum
    bound = Reference(name="riccati", costs=cost, proved=True)
    found = compare(problem, [linear(gain), linear(1.3 * gain, "stiff")], starts=starts, reference=bound)
    assert abs(found["linear"].gap.mean.estimate) < 1e-6
    assert found["stiff"].gap.mean.low > 0.01
    assert found.yardstick == "proved optimum"
    assert "a bound no controller can undercut" in str(found)


def test_a_planted_difference_is_found(problem, optimum):
    # Against a reference of cost J/1.05 at every start, give or take, the optimal gain is 5 % worse by construction.
    starts, gain, cost = optimum
    planted = 1.05 * (1 + 0.05 * np.random.default_rng(1).standard_normal(len(cost)))
    found = compare(problem, [linear(gain)], starts=starts, reference=cost / planted)["linear"]
    assert found.gap.mean.low < 0.05 < found.gap.mean.high
    assert found.gap.mean.estimate == pytest.approx(0.05, abs=0.02)
    assert found.gap.mean.high - found.gap.mean.low < 0.05


def test_pairing_by_start_makes_the_interval_narrow(problem, optimum):
    # Costs spread over two decades; exactly 5 % at each start must give 5 % with no interval at all.
    starts, gain, cost = optimum
    assert cost.max() > 20 * cost.min()
    found = compare(problem, [linear(gain)], starts=starts, reference=cost / 1.05)["linear"].gap.mean
    assert np.allclose(found, 0.05, atol=1e-6)


def test_gap_by_hand_from_costs(problem):
    # From rest at q = 1 with no control the cost is ∫₀¹⁰ 1 dt = 10; against 8 the gap is 25 %.
    found = compare(problem, ["zero"], starts=[1.0, 0.0], reference=[8.0])
    assert found["zero"].mean_cost == pytest.approx(10.0, rel=1e-9)
    assert found["zero"].gap.mean.estimate == pytest.approx(0.25, rel=1e-9)
    assert found["zero"].against_reference.mean.estimate == pytest.approx(2.0, rel=1e-9)


def test_beating_the_reference_is_said_and_becomes_best_known(problem, optimum):
    starts, gain, cost = optimum
    weak = Reference(name="local", costs=1.1 * cost)
    found = compare(problem, [linear(gain)], starts=starts, reference=weak)
    result = found["linear"]
    assert result.gap_to_reference.estimate == pytest.approx(-0.1 / 1.1, rel=1e-4)
    assert result.gap.mean.estimate == pytest.approx(0.0, abs=1e-12)
    assert np.allclose(found.best, cost, rtol=1e-6) and set(found.best_by) == {"linear"}
    assert found.yardstick == "best known solution"
    assert any("undercut on 64 of 64 starts" in note for note in found.notes)
    assert "cheaper than the reference from 64 of 64 starts" in found.to_dict()["controllers"][0]["headline"]


def test_undercutting_a_proved_bound_is_reported_as_a_contradiction(problem, optimum):
    starts, gain, cost = optimum
    false = Reference(name="bound", costs=np.where(np.arange(64) < 3, 1.1, 1.0) * cost, proved=True)
    found = compare(problem, [linear(gain)], starts=starts, reference=false)
    assert any("3 starts have costs below a bound that was called proved" in note for note in found.notes)


def test_a_reference_beyond_the_actions_of_a_policy_is_said_with_the_remedy():
    """ẋ = u unbounded: the optimal u begins near −x, and actions of ±1 stand for ±0.5."""
    problem = Problem(
        name="free", state=["x"], control=["u"], dynamics=lambda x, u, p: u, dt=0.1, steps=10, control_scale={"u": 0.5},
        stage_cost=lambda x, u, p: x[0] ** 2 + u[0] ** 2, initial_state=Uniform([-2], [2]),
    )  # fmt: skip
    policy = from_policy(problem, lambda y: -y[:, :1], name="clone")
    said = compare(problem, ["optimal", policy], starts=[[2.0], [-1.0]]).notes
    assert len(said) == 1 and "The reference's `u` covers -1.4" in said[0] and "actions only -0.5 … 0.5" in said[0]
    assert "the gap of clone" in said[0] and '`control_scale={"u": 1.' in said[0]
    wider = problem.replace(control_scale={"u": 1.6})
    assert compare(wider, ["optimal", from_policy(wider, lambda y: -y[:, :1])], starts=[[2.0], [-1.0]]).notes == []
    assert compare(problem, ["optimal", "zero"], starts=[[2.0], [-1.0]]).notes == []  # no policy: nothing is clipped


def test_gaps_of_negative_costs_are_positive_where_a_controller_is_worse():
    earns = Problem(
        name="earns", state=["x"], control=["u"], transition=lambda x, u, p: x, stage_cost=lambda x, u, p: u[0] - 1,
        initial_state=Uniform([0.0], [1.0]), dt=1.0, steps=1,
    )  # fmt: skip
    found = compare(earns, ["zero"], num_starts=3, reference=np.full(3, -2.0))["zero"]
    assert (found.gap.mean.estimate, found.gap_of_rest) == (0.5, 0.5)


def test_several_seeds_are_one_row_with_iqm_and_spread(problem, optimum):
    starts, gain, cost = optimum
    runs = [linear(scale * gain, "agent", wall_time=10.0 * k) for k, scale in enumerate((0.8, 0.9, 1.0, 1.1, 3.0), 1)]
    found = compare(problem, [runs], starts=starts, reference=cost)["agent"]
    assert found.runs == 5 and found.costs.shape == (5, 64)
    assert found.gap.iqm.estimate < found.gap.mean.estimate  # the fifth seed is an outlier
    assert 30.0 <= found.wall_time < 32.0
    assert found.gap.mean.low < found.gap.mean.estimate < found.gap.mean.high


# --- failures and violations --------------------------------------------------------------------------------------------


def test_a_nan_controller_comes_last_and_is_counted(problem, optimum):
    starts, gain, cost = optimum
    broken = constant(np.nan, "broken")
    found = compare(problem, [broken, "zero", linear(gain)], starts=starts, reference=cost)
    assert [r.name for r in found.results] == ["linear", "zero", "broken"]
    assert found["broken"].failed == 64 and found["broken"].mean_cost == np.inf
    assert found["broken"].gap.mean.estimate == np.inf
    assert "failed everywhere (64 of 64 episodes)" in found.to_dict()["controllers"][-1]["headline"]


def test_one_failed_start_is_enough_to_come_last_and_does_not_vanish(problem, optimum):
    starts, gain, cost = optimum
    there = np.arange(len(starts))[:, None] == 7
    fragile = FeedbackController(lambda x, t: np.where(there & (t > 5), np.nan, -x @ gain.T), "fragile")
    found = compare(problem, [fragile, "zero"], starts=starts, reference=cost)
    assert found.results[-1].name == "fragile" and found["fragile"].failed == 1
    assert found["fragile"].mean_cost == np.inf
    assert found["fragile"].gap_of_rest == pytest.approx(0.0, abs=1e-6)
    assert "1 of 64 failed" in found.to_dict()["controllers"][-1]["headline"]


def test_breaking_a_constraint_is_counted_and_never_best_known(problem):
    bounded = problem.replace(state_bounds={"velocity": (-0.5, 0.5)}, control_bounds={"force": (-0.3, 0.3)})
    found = compare(bounded, ["zero", constant(0.3, "push")], starts=[[0.0, 0.2], [0.0, -0.1]], reference=None)
    # Pushed for 10 s at 0.3 m/s²: velocities 3.2 and 2.9, that is 2.7 and 2.4 beyond the bound.
    assert found["push"].violated == 2
    assert found["push"].worst_violation[0] == "state bounds"
    assert found["push"].worst_violation[1] == pytest.approx(2.7, rel=1e-9)
    assert found["zero"].violated == 0 and set(found.best_by) == {"zero"}
    assert found.results[0].name == "zero"


def test_breaking_a_constraint_does_not_pay(problem, optimum):
    _, gain, _ = optimum
    slow = problem.replace(state_bounds={"velocity": (-0.05, 0.05)})
    path = optctl.rollout(slow, linear(gain), [1.0, 0.0])
    plan = from_solutions(slow, [Solved(path[0])])
    found = compare(slow, {"fast": linear(gain), "plan": plan, "zero": "zero"}, starts=[1.0, 0.0], reference=plan)
    assert found["fast"].mean_cost < 0.2 * found["zero"].mean_cost  # cheap, because it is too fast
    assert found.results[0].name == "zero" and found.best_by == ["zero"]
    assert found["fast"].gap.mean.estimate < 0
    assert "break constraints" in found.to_dict()["controllers"][-1]["headline"]


def test_path_and_terminal_constraints_are_measured(problem):
    # Coasting at 1 m/s from 0: 10 m at the end, where a path constraint without controls holds too.
    stated = problem.replace(
        horizon="finite",
        path_constraints=lambda x, u, p: [x[0] - 3.0, -5.0 - x[0]],
        terminal_constraints=lambda x, p: x[0],
    )
    found = compare(stated, ["zero"], starts=[0.0, 1.0], reference=None)["zero"].violations
    assert found["path constraints"].item() == pytest.approx(7.0, rel=1e-9)
    assert found["terminal constraints"].item() == pytest.approx(10.0, rel=1e-9)


def test_starts_that_nobody_solves_are_left_out_and_said(problem):
    bounded = problem.replace(state_bounds={"velocity": (-0.5, 0.5)})
    found = compare(bounded, ["zero", "random"], starts=[[1.0, 0.0], [1.0, 2.0]], reference=None)
    assert np.isnan(found.best[1]) and found["zero"].gap.mean.estimate == 0.0
    assert any("1 of 2 starts have no admissible solution" in note for note in found.notes)


# --- references ---------------------------------------------------------------------------------------------------------


class Solved:
    """What `compare` needs of a `Solution`."""

    def __init__(self, trajectory: Trajectory, verdict: str = "proved optimum") -> None:
        self.trajectory, self.verdict, self.wall_time = trajectory, verdict, 0.25


def test_solutions_are_charged_by_the_problems_own_step(problem, optimum):
    starts, gain, cost = optimum
    path = optctl.rollout(problem, linear(gain), starts[:2])
    lying = Trajectory(path.times, path.states, path.controls, 0 * path.costs, path.terminal_cost)
    plan = from_solutions(problem, [Solved(lying[0]), Solved(lying[1], "best found")])
    assert np.allclose(plan.costs, cost[:2], rtol=1e-6)  # not the zeros that they claim
    assert plan.proved.tolist() == [True, False] and plan.kind == "reference"
    assert plan.wall_time == 0.5 and plan.verdicts == {"proved optimum": 1, "best found": 1}


def test_a_solution_with_defects_is_no_trajectory(problem, optimum):
    starts, gain, _ = optimum
    path = optctl.rollout(problem, linear(gain), starts[:1])
    jumping = path.states.copy()
    jumping[:, 50:] *= 0.5
    torn = Trajectory(path.times, jumping, path.controls, path.costs, path.terminal_cost)
    assert charge(problem, torn[0], problem.param_values)[1] > 1e-6
    plan = from_solutions(problem, [Solved(torn[0])])
    assert plan.costs.tolist() == [np.inf]
    found = compare(problem, {"plan": plan}, starts=starts[:1], reference=plan)
    assert found["plan"].failed == 1
    assert any("reference is missing for 1 of 1" in note for note in found.notes)


def test_a_free_final_time_is_charged_over_its_own_intervals(problem):
    # Held at rest at q = 1 for 50 intervals of 0.04 s: 2 s of cost 1.
    free = problem.replace(horizon="finite", final_time=(1.0, 20.0))
    times = np.linspace(0.0, 2.0, 51)
    still = Trajectory(times, np.tile([1.0, 0.0], (51, 1)), np.zeros((50, 1)), np.zeros(50), np.zeros(()))
    cost, defect = charge(free, still, free.param_values)
    assert cost == pytest.approx(2.0, rel=1e-12) and defect < 1e-12


def test_plans_can_break_constraints_too(problem):
    bounded = problem.replace(state_bounds={"velocity": (-0.5, 0.5)})
    path = optctl.rollout(bounded, constant(0.3, "push"), [0.0, 0.0])
    found = violations(bounded, path, bounded.param_values[None])
    assert found["state bounds"].item() == pytest.approx(2.5, rel=1e-9)
    plan = from_solutions(bounded, [Solved(path[0])])
    compared = compare(bounded, {"plan": plan, "zero": "zero"}, starts=[0.0, 0.0], reference=plan)
    assert compared["plan"].violated == 1 and compared.best_by == ["zero"]


def test_the_names_optimal_and_lqr_solve_the_problem(problem):
    found = compare(problem, ["optimal", "lqr", "zero"], num_starts=8)
    assert found.reference is not None and found.reference.kind == "bound"  # linear-quadratic, so convex: proved
    assert found.yardstick == "proved optimum"
    # The gain for ever against the optimum over these 10 s: both within the tail, e^{−√3 · 10} of the cost.
    assert abs(found["lqr"].gap.mean.estimate) < 1e-6 and abs(found["optimal"].gap.mean.estimate) < 1e-12
    assert found["zero"].gap.mean.low > 1.0
    assert found["optimal"].wall_time > 0 and found["lqr"].wall_time > 0


def test_plans_of_a_nonlinear_problem_are_a_reference_not_a_bound():
    found = compare(optctl.make("pendulum"), ["optimal", "zero"], num_starts=2)
    assert found.reference is not None and found.reference.kind == "reference"
    assert "not a proved bound" in str(found) and found["zero"].gap.mean.estimate > 0.5
    assert "Second opinion: HJB on a 223 × 223 grid, rollouts from 2 starts" in str(found)


# --- a reference that is solved here is never undercut ------------------------------------------------------------------

WELLS = Problem(
    name="two-wells", state=["x"], control=["u"], dynamics=lambda x, u, p: u, stage_cost=lambda x, u, p: 0.1 * u[0] ** 2,
    terminal_cost=lambda x, p: (x[0] ** 2 - 1) ** 2 + 0.3 * x[0], horizon="finite", initial_state=Uniform([0.1], [0.4]),
    dt=0.1, steps=10,
)  # fmt: skip
"""From x > 0 a descent ends at x = 1, but the well at x = −1 is lower by 0.6, and the way there costs about 0.14."""


def stuck(problem, starts, params, seed):
    """A solver that knows the dearer well only."""
    path = rollout(problem, constant(0.8, "right"), starts)
    return from_solutions(problem, solve_many(problem, starts, params=params, guess=path), params)


def leftwards(rows=slice(None)):
    """To the better well, from the starts `rows` only; a little too far."""
    on = np.zeros((3, 1))
    on[rows] = 1.0
    return FeedbackController(lambda x, t: -1.3 * on, "left")


def test_what_a_controller_finds_is_polished_before_it_is_measured_against(monkeypatch):
    monkeypatch.setitem(CONTROLLERS, "optimal", stuck)
    found = compare(WELLS, ["optimal", leftwards(), "zero"], num_starts=3)
    wrong = stuck(WELLS, found.starts, found.params, 0).costs
    assert (found["left"].costs[0] < wrong - 0.1).all()
    assert (found.reference.costs < found["left"].costs[0] - 1e-5).all()  # better than its guess
    assert np.array_equal(found["optimal"].costs[0], found.reference.costs) and set(found.best_by) == {"optimal"}
    assert found.reference.verdicts == {"certified extremal": 3}
    assert any("3 starts improved" in note and "(3 by left)" in note for note in found.notes)
    assert not any("undercut" in note for note in found.notes)
    assert "The search ended after 1 round of neighbours" in str(found)


def test_what_one_start_learns_its_neighbours_try(monkeypatch):
    monkeypatch.setitem(CONTROLLERS, "optimal", stuck)
    once, all_ = (compare(WELLS, [leftwards(rows)], num_starts=3).reference for rows in (slice(1), slice(None)))
    assert np.allclose(once.costs, all_.costs, rtol=1e-6)


def test_another_way_is_tried_from_every_start(monkeypatch):
    def lucky_once(problem, starts, params, seed):
        controls = np.where(np.arange(len(starts)) == 1, -1.3, 0.8)[:, None]
        path = rollout(problem, FeedbackController(lambda x, t: controls), starts)
        return from_solutions(problem, solve_many(problem, starts, params=params, guess=path), params)

    monkeypatch.setitem(CONTROLLERS, "optimal", lucky_once)
    monkeypatch.setattr("optctl.comparison.reference._MANY", 2)
    found = compare(WELLS, ["optimal"], num_starts=3).reference
    known = solve_many(WELLS, compare(WELLS, ["zero"], num_starts=3, reference=None).starts).values
    assert np.allclose(found.costs, known, rtol=1e-6)
    assert found.checks[0].startswith(
        "Second opinion: the 3 trajectories that differ most, tried from every start: 2 starts improved"
    )


@pytest.mark.parametrize("proved", [True, False])
def test_where_no_solver_helps_the_controllers_own_path_is_the_reference(problem, optimum, monkeypatch, proved):
    starts, gain, cost = optimum
    dear = np.where(np.arange(64) < 3, 1.1, 1.0) * cost
    plan = Reference(name="optimal", costs=dear, proved=proved)
    monkeypatch.setitem(CONTROLLERS, "optimal", lambda *_: plan)
    found = compare(problem, [linear(gain)], starts=starts)
    assert np.allclose(found.reference.costs, cost, rtol=1e-6) and found["linear"].against_reference.better == 0.0
    assert any("(3 by linear itself)" in note for note in found.notes)
    assert found.reference.proved.sum() == (61 if proved else 0) and found.reference.kind == "reference"
    assert any("3 starts have costs below a bound" in note for note in found.notes) is proved


def test_a_start_that_the_solver_lost_has_the_best_controller_as_reference(problem, optimum, monkeypatch):
    starts, gain, cost = optimum
    plan = Reference(name="optimal", costs=np.where(np.arange(64) == 5, np.inf, cost))
    monkeypatch.setitem(CONTROLLERS, "optimal", lambda *_: plan)
    found = compare(problem, [linear(gain), "zero"], starts=starts)
    assert np.allclose(found.reference.costs, cost, rtol=1e-6)
    assert not any("missing" in note for note in found.notes)


def test_paths_that_break_constraints_never_become_the_reference(problem, monkeypatch):
    slow = problem.replace(state_bounds={"velocity": (-0.05, 0.05)})
    rest = rollout(slow, constant(0.0, "rest"), [1.0, 0.0])
    monkeypatch.setitem(CONTROLLERS, "optimal", lambda *_: Reference(name="optimal", costs=rest.total_cost))
    found = compare(slow, [linear(np.array([[1.0, 1.7]]), "fast")], starts=[1.0, 0.0])
    assert found["fast"].mean_cost < 0.5 * rest.total_cost and found.reference.costs == rest.total_cost


# --- gaps beside doing nothing ------------------------------------------------------------------------------------------


def test_the_normalised_gap_is_zero_at_the_best_and_one_for_doing_nothing(problem, optimum):
    starts, gain, cost = optimum
    found = compare(problem, [linear(gain), "zero", linear(0.7 * gain, "soft")], starts=starts, reference=cost)
    assert found["linear"].normalised.mean.estimate == pytest.approx(0.0, abs=1e-6)
    assert found["zero"].normalised.mean == pytest.approx((1.0, 1.0, 1.0))
    soft, rest = found["soft"], found["zero"].mean_cost
    assert soft.normalised.mean.estimate == pytest.approx(
        (soft.mean_cost - cost.mean()) / (rest - cost.mean()), rel=1e-4
    )
    assert soft.normalised.mean.low < soft.normalised.mean.estimate < soft.normalised.mean.high
    assert "100 %" in str(found) and found.to_dict()["controllers"][-1]["normalised_gap"]["estimate"] == pytest.approx(
        1.0
    )


def test_a_gap_to_next_to_nothing_is_a_dash_beside_the_normalised_one(problem):
    # Doing nothing costs 10 and half a control 5 or so, against 1e-6: a relative gap of a thousand million percent.
    found = compare(problem, ["zero", linear(np.array([[1.0, 1.7]]), "lqr")], starts=[1.0, 0.0], reference=[1e-6])
    assert found["zero"].gap.mean.estimate > 1e6
    row = next(line for line in str(found).splitlines() if line.startswith("zero"))
    assert row.split()[:6] == ["zero", "10", "–", "100", "%", "0/1"]
    said = found.to_dict()["controllers"][-1]["headline"]
    assert said.startswith("zero: 100 % of the way from the reference to doing nothing")
    modest = compare(problem, ["zero"], starts=[1.0, 0.0], reference=[1.0])
    assert "900 %" in str(modest)


def test_where_doing_nothing_fails_there_is_no_normalised_gap():
    runaway = Problem(
        name="runaway", state=["x"], control=["u"], dynamics=lambda x, u, p: 100 * x[0] ** 3 + u[0],
        stage_cost=lambda x, u, p: x[0] ** 2, initial_state=Uniform([1.0], [2.0]), dt=0.5, steps=20,
    )  # fmt: skip
    calm = FeedbackController(lambda x, t: -100 * x**3 - 1.5 * x, "calm")
    with np.errstate(all="ignore"):
        found = compare(runaway, [calm], num_starts=2, reference=[1.0, 1.0])
    assert np.isinf(found.resting).all() and np.isnan(found["calm"].normalised.mean.estimate)


# --- the same for everybody, and every time -----------------------------------------------------------------------------


def test_deterministic_for_a_seed_except_for_the_clock(problem):
    def once(seed: int) -> dict:
        data = compare(problem, ["zero", "random"], num_starts=20, seed=seed, reference=None).to_dict()
        for result in data["controllers"]:
            for key in ("wall_time_s", "run_time_s", "prepare_time_s", "headline"):
                del result[key]
        return data

    assert once(3) == once(3)
    assert once(3) != once(4)


def test_noise_is_the_same_for_all_and_averaged_over_the_draws():
    problem = optctl.make("dean", noise=0.1)
    twins = [constant_many(problem, "a"), constant_many(problem, "b")]
    found = compare(problem, twins, num_starts=5, seeds=(0, 1, 2), reference=None)
    assert np.array_equal(found["a"].costs, found["b"].costs)
    single = compare(problem, twins, num_starts=5, seeds=(1,), reference=None)
    assert not np.allclose(found["a"].costs, single["a"].costs, rtol=1e-3)
    assert any("means over 3 draws" in note for note in found.notes)
    assert any("a plan made without it is no reference" in n for n in compare(problem, twins, num_starts=2).notes)


def constant_many(problem, name):
    return FeedbackController(lambda x, t: np.zeros((len(x), problem.n_u)), name)


def test_parameters_may_differ_by_start():
    problem = optctl.make("pendulum")
    params = np.array([[1.0, 1.0, 9.81], [1.0, 1.2, 9.81]])
    found = compare(problem, ["zero"], starts=[[3.0, 0.0]] * 2, params=params, reference=None)
    assert found["zero"].costs[0, 0] != found["zero"].costs[0, 1]


# --- words --------------------------------------------------------------------------------------------------------------


def test_printing_gives_a_table_without_a_terminal(problem, optimum):
    starts, gain, cost = optimum
    found = compare(
        problem, [linear(1.3 * gain, "stiff"), "zero", constant(np.nan, "broken")], starts=starts, reference=cost
    )
    lines = str(found).splitlines()
    assert lines[2].split()[:2] == ["controller", "mean"]
    assert [line.split()[0] for line in lines[4:7]] == ["stiff", "zero", "broken"]
    assert len({len(line) for line in lines[3:7]}) == 1 and max(map(len, lines[2:7])) <= 110
    assert "\x1b" not in str(found)


def test_the_headline_says_gap_interval_failures_and_time(problem, optimum):
    starts, gain, cost = optimum
    found = compare(problem, [linear(1.3 * gain, "sac", wall_time=12.3)], starts=starts, reference=cost)
    said = found.to_dict()["controllers"][0]["headline"]
    gap = found["sac"].gap.mean
    assert said.startswith(
        f"sac: {100 * gap.estimate:.1f} % [{100 * gap.low:.1f}, {100 * gap.high:.1f}] above the reference"
    )
    assert "0 of 64 failed" in said and said.endswith(" s.")


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0123, "1.2 %"), (-0.0123, "−1.2 %"), (-1e-9, "0 %"), (3e-5, "0.0030 %"), (2.5, "250 %"), (125.0, "12,500 %"),
     (1e8, "1.0e+10 %"), (np.inf, "∞"), (np.nan, "–")],
)  # fmt: skip
def test_percentages_are_short_and_never_minus_zero(value, said):
    assert percent(value) == said


def test_intervals_share_their_digits_and_hide_rounding_noise():
    assert interval(Interval(0.012, 0.0003, 0.016)) == "[0.0, 1.6]"
    assert interval(Interval(0.012, 0.009, np.inf)) == "[0.90, ∞]"
    assert interval(Interval(0.0, -1e-12, 1e-12)) == interval(Interval(0.1, 0.1, 0.1)) == ""


# --- bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("controllers", "options", "message"),
    [
        (
            ["lqx"],
            {},
            "must use controllers or names among optimal, lqr, lqg, mpc, hjb, "
            "zero, random, sac, sac-warm, td3, td3-warm, ppo, but is 'lqx'. Did you mean `lqr`?",
        ),
        ([], {}, "`controllers` must be a non-empty list"),
        ("zero", {}, "`controllers` must be a non-empty list"),
        ([3.0], {}, "`controllers` must hold controllers, lists of them, or names"),
        ([[]], {}, "`controllers` must hold controllers"),
        (["zero"], {"num_starts": 0}, "`num_starts` must be a positive integer"),
        (["zero"], {"starts": [[1.0, 2.0, 3.0]]}, "`starts` must have shape"),
        (["zero"], {"reference": "best"}, "`reference` must use controllers or names among"),
        (["zero"], {"reference": "zero"}, "`reference` must name solved trajectories"),
        (["zero"], {"reference": [1.0, 2.0]}, "`reference` must hold one cost per start"),
        (["zero"], {"reference": object()}, "`reference` must be 'optimal', a Reference"),
    ],
)
def test_bad_input_is_one_clear_sentence(problem, controllers, options, message):
    options = {"num_starts": 3, "reference": None} | options
    with pytest.raises(ArgumentError) as error:
        compare(problem, controllers, **options)
    assert message in str(error.value)


def test_noise_without_a_seed_and_plans_with_noise_are_refused():
    problem = optctl.make("dean", noise=0.1)
    for seeds in (3, [-1], [0.5]):
        with pytest.raises(ArgumentError, match="`seeds` must be integers that are not negative"):
            compare(problem, ["zero"], seeds=seeds, num_starts=2)
    with pytest.raises(ArgumentError, match="`seed` must be an integer that is not negative, but is -1"):
        compare(problem, ["zero"], seed=-1, num_starts=2)
    with pytest.raises(ArgumentError, match=r"`params` must have shape .* but has shape \(\)"):
        compare(problem, ["zero"], params={"mass": 1.0}, num_starts=2)
    with pytest.raises(ArgumentError, match="`seeds` must hold at least one seed"):
        compare(problem, ["zero"], seeds=(), num_starts=2)
    plan = Reference(name="plan", costs=[1.0, 1.0])
    with pytest.raises(ArgumentError, match="`plan` is a plan"):
        compare(problem, {"plan": plan}, num_starts=2, reference=None)


def test_an_unknown_result_names_the_known_ones(problem):
    with pytest.raises(ArgumentError, match="must be one of zero"):
        compare(problem, ["zero"], num_starts=2, reference=None)["sac"]


def test_equal_names_are_told_apart(problem):
    found = compare(problem, [constant(0.1, "push"), constant(0.2, "push"), "zero"], num_starts=2, reference=None)
    assert {r.name for r in found.results} == {"push", "push (2)", "zero"}


def test_a_controller_name_can_be_added(problem, monkeypatch):
    monkeypatch.setitem(CONTROLLERS, "push", lambda problem, starts, params, seed: constant(float(seed), "push"))
    found = compare(problem, ["push", "zero"], num_starts=2, seed=0, reference=None)
    assert np.array_equal(found["push"].costs, found["zero"].costs)


def test_an_agent_is_there_by_itself(monkeypatch):
    from optctl.agents import AGENTS

    monkeypatch.setitem(AGENTS, "twin", AGENTS["sac"])
    assert list(CONTROLLERS)[-2:] == ["twin", "twin-warm"] and "twin-warm" in CONTROLLERS
    assert "twin-cold" not in CONTROLLERS and "warm" not in CONTROLLERS


def test_compare_itself_does_not_load_matplotlib_or_torch():
    code = "import sys, optctl.comparison.compare; print(sorted({'matplotlib', 'torch', 'warp'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
