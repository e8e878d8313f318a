"""Problems of textbooks and example collections, stated as a user would; their optima with sources: `optctl.bench.known_optima`."""

import gc
import weakref

import casadi as ca
import numpy as np
import optima
import pytest

from optctl.errors import ArgumentError
from optctl.problem import Fixed, Problem, Uniform
from optctl.problem.structure import convex, periods
from optctl.solvers import Verdict, solve, solve_many, tvlqr
from optctl.solvers.batched.choice import engine
from optctl.solvers.guesses.basins import Best, improvable, regulated
from optctl.solvers.methods.ddp import rollout_controls
from optctl.solvers.units import natural

TURN = optima.dubins((0.0, 0.0, np.pi))
LAST = 2 / np.sqrt(3) * np.arctan(0.6 / np.sqrt(3))  # from x = ½ down to 0.2 by ẋ = x (1 − x) − 1
CATCH = 0.25 * (10 - np.log(4) - LAST) + LAST
ROUND = (2 * np.sqrt(3) + np.pi / 3) ** 2 / 2


@pytest.mark.parametrize(
    ("problem", "value", "rel", "kinds"),
    [
        (optima.zermelo(), 2 * np.sqrt(3) + 2, 1e-10, ["free"]),
        (optima.dubins(), 3 * np.sqrt(2) + np.pi / 2, 1e-10, ["high", "singular", "high"]),
        (TURN, 7 * np.pi / 3, 1e-10, None),  # right, left, right or its mirror image
        (optima.two_masses(), 4.217866510451, 1e-9, ["high", "low", "high", "low"]),
        (optima.speed_limit(), 2.5, 1e-10, ["high", "x1 high", "low"]),
        (optima.moon_landing(), np.sqrt(68), 1e-10, ["low", "high"]),
        (optima.goddard(), -1.01283, 1e-5, ["high", "singular", "x2 low"]),
        (optima.catalyst_mixing(), -0.0480557, 1e-6, ["high", "singular", "low"]),
        (optima.fishery(), -CATCH, 1e-10, ["low", "singular", "high"]),
        (optima.antiangiogenesis(), 7571.67158, 1e-6, None),
        (optima.orbit_raising(), -1.525, 3e-4, ["free"]),  # published to four digits
    ],
    ids=lambda v: getattr(v, "name", ""),
)
def test_arcs(problem, value, rel, kinds):
    solution = solve(problem, problem.initial_state.location, method="switching")
    assert solution.verdict is Verdict.EXTREMAL, solution
    assert solution.value == pytest.approx(value, rel=rel)
    assert kinds is None or [kind for kind, _ in solution.arcs] == kinds


@pytest.mark.parametrize(
    ("problem", "value", "rel"),
    [
        (optima.zermelo(), 2 * np.sqrt(3) + 2, 1e-9),
        (optima.hanging_chain(), 5.068480110993, 1e-9),
        (optima.tangent_steering(), 0.554570878, 1e-8),
        (optima.container_crane(), 0.0375194596, 1e-6),
        (optima.round_the_disc(), ROUND, 1e-6),
        (optima.stirred_tank(), 0.1331, 4e-4),  # published to four digits; the other basin has 0.2444
        (optima.antiangiogenesis(), 7571.67158, 1e-5),
    ],
    ids=lambda v: getattr(v, "name", ""),
)
def test_collocation(problem, value, rel):
    solution = solve(problem, problem.initial_state.location, method="collocation", num_starts=3)
    assert solution.verdict is Verdict.EXTREMAL, solution
    assert solution.value == pytest.approx(value, rel=rel)
    assert solution.certificate.resimulation < 1e-4 * (1 + np.abs(solution.trajectory.states).max())


@pytest.mark.parametrize(
    ("problem", "value"),
    [
        (optima.lambda_energy(), 3 * np.pi**2),
        (optima.stirred_tank(), 0.133095731),
        (optima.orbit_raising(), -1.5252777),
    ],
    ids=lambda v: getattr(v, "name", ""),
)
def test_indirect_shooting_finds_its_own_guess(problem, value):
    solution = solve(problem, problem.initial_state.location, method="pontryagin")
    assert solution.verdict is Verdict.EXTREMAL, solution
    assert solution.value == pytest.approx(value, rel=2e-8)


@pytest.mark.parametrize(
    ("problem", "value"),
    [
        (optima.zermelo(), 2 * np.sqrt(3) + 2),
        (optima.two_masses(), 4.217866510451),
        (TURN, 7 * np.pi / 3),
        (optima.moon_landing(), np.sqrt(68)),
        (optima.fishery(), -CATCH),
        (optima.catalyst_mixing(), -0.0480556859),
    ],
    ids=lambda v: getattr(v, "name", ""),
)
def test_without_naming_a_method(problem, value):
    solution = solve(problem, problem.initial_state.location)
    assert solution.verdict is Verdict.EXTREMAL, solution
    # the control is held over each interval: never below the optimum, and above it by O(dt²)
    assert -1e-7 <= (solution.value - value) / abs(value) < 2e-4


def test_discounted_savings_in_closed_form():
    # V_n(k) = A_n + B_n ln k: B_{n+1} = α (1 + β B_n), saved share β B_n/(1 + β B_n)
    a, b, alpha, beta = 0.0, 0.0, 0.3, 0.95
    for _ in range(20):
        share = beta * b / (1 + beta * b)
        a = np.log(1 - share) + beta * a + (beta * b * np.log(share) if share else 0.0)
        b = alpha * (1 + beta * b)
    solution = solve(optima.savings(), [0.1])
    assert solution.value == pytest.approx(-(a + b * np.log(0.1)), rel=1e-10)
    assert solution.trajectory.controls[0, 0] == pytest.approx(alpha * beta, abs=1e-5)  # far from the end


# --- free initial states and parameters ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["auto", "collocation"])
def test_a_free_initial_state(method):
    # ẋ = u, ∫₀¹ x² + u², x(1) = 1, x(0) free: λ(0) = 0, x = cosh t/cosh 1, J = tanh 1
    problem = optima.scalar_finite(200).replace(terminal_constraints=lambda x, p: x - 1.0)
    solution = solve(problem, [0.0], method=method, free_start={"x0": (-5.0, 5.0)})
    assert solution.verdict in (Verdict.EXTREMAL, Verdict.PROVED)
    assert solution.value == pytest.approx(np.tanh(1), rel=1e-5)
    assert solution.trajectory.states[0, 0] == pytest.approx(1 / np.cosh(1), abs=1e-4)
    assert abs(solution.trajectory.costates[0, 0]) < 1e-6
    bounded = solve(problem, [0.0], method=method, free_start={"x0": (-5.0, 0.5)})
    assert bounded.trajectory.states[0, 0] == pytest.approx(0.5, abs=1e-8)


@pytest.mark.parametrize("method", ["auto", "collocation"])
def test_a_parameter_is_a_constant_state_with_a_free_start(method):
    # ẋ = u + a from 0 to 1 in T = 1, ∫u² + a²: u = a = ½, J = ½
    problem = Problem(
        name="assist", state=["x", "a"], control=["u"], dynamics=lambda x, u, p: ca.vertcat(u[0] + x[1], 0.0),
        stage_cost=lambda x, u, p: u[0] ** 2 + x[1] ** 2, terminal_constraints=lambda x, p: x[0] - 1.0, dt=0.1, steps=10,
        initial_state=Fixed([0.0, 0.0]),
    )  # fmt: skip
    solution = solve(problem, [0.0, 0.0], method=method, free_start={"a": (0.0, 2.0)})
    assert solution.value == pytest.approx(0.5, rel=1e-9)
    np.testing.assert_allclose(solution.trajectory.states[:, 1], 0.5, atol=1e-8)


def test_a_free_start_names_states_and_limits():
    problem = optima.scalar_finite()
    with pytest.raises(ArgumentError, match="names `mass`"):
        solve(problem, [1.0], free_start={"mass": (0.0, 1.0)})
    with pytest.raises(ArgumentError, match="free_start"):
        solve(problem, [1.0], method="collocation", free_start={"x0": (1.0, 0.0)})
    with pytest.raises(ArgumentError, match="`free_start` must be an option of `switching`"):
        solve(problem, [1.0], method="switching", free_start={"x0": (0.0, 1.0)})


def test_a_solution_that_lives_on_the_error_of_its_integrator_is_not_certified():
    # unbounded control, fast reaction: with one step of rk4 an interval J = 0.03 is "reached", against 0.1331
    coarse = solve(optima.stirred_tank(), [0.09, 0.09], method="ddp")
    assert coarse.verdict is Verdict.BEST_FOUND
    assert "substeps" in coarse.shortcoming
    solution = solve(optima.stirred_tank(), [0.09, 0.09])
    assert solution.verdict is Verdict.EXTREMAL
    assert solution.value == pytest.approx(0.133095731, rel=1e-3)


# --- statements that a solver could misread -------------------------------------------------------------------------------


def unstable(rate=20.0, **changes):
    return Problem(
        name="unstable", state=["x"], control=["u"], dynamics=lambda x, u, p: rate * x + u[0], dt=0.02, steps=100,
        stage_cost=lambda x, u, p: x[0] ** 2 + 1e-3 * u[0] ** 2, initial_state=Uniform([-1.0], [1.0]),
    ).replace(**changes)  # fmt: skip


def test_an_exploding_rollout_is_no_optimum_however_small_its_gradient_is_beside_its_cost():
    """e⁴⁰ from u = 0; and with bounds that just hold the state, where the feedback saturates."""
    problem = unstable()
    riccati = solve(problem, [1.0], method="lqr").value
    assert riccati == pytest.approx(0.0595036, rel=1e-5)
    starts = np.linspace(-1, 1, 40)[:, None]
    assert solve(problem, [1.0]).value == pytest.approx(riccati, rel=1e-9)
    np.testing.assert_allclose(solve_many(problem, starts).values, riccati * starts[:, 0] ** 2, rtol=1e-8, atol=1e-12)
    bounded = unstable(control_bounds={"u": (-22.0, 22.0)})
    alone = solve(bounded, [1.0], method="multiple_shooting")
    assert solve(bounded, [1.0]).value == pytest.approx(alone.value, rel=1e-7)
    assert np.abs(alone.trajectory.controls).max() > 21.9


def test_a_member_that_newton_would_improve_is_not_converged():
    problem = unstable(rate=3.0, steps=60)
    start = np.array([[1.0], [0.5]])
    best = Best(problem, start, problem.param_values[None], engine(kernels=False))
    best.run(np.arange(2), *regulated(best), follow=True)
    assert not len(improvable(best)) and best.result.converged.all()
    best.result.controls[1] = 0.0
    best.result.states[1] = 0.5 * np.exp(3.0 * 0.02 * np.arange(61))[:, None]
    assert improvable(best).tolist() == [1]
    assert best.result.converged.tolist() == [True, False]


@pytest.mark.parametrize(
    ("cost", "start"),
    [
        (lambda x, u, p: -ca.fabs(x[0]) + 0.6 * x[0], 0.1),
        (lambda x, u, p: ca.if_else(x[0] > 0.5, -10, 0) + 0.1 * u[0] ** 2, 0.0),
        (lambda x, u, p: ca.fmin((x[0] - 1) ** 2, 4 * (x[0] + 1) ** 2 - 1) + 1e-3 * u[0] ** 2, 0.3),
    ],
    ids=["tent", "pot", "wells"],
)
def test_a_kink_is_not_taken_for_a_straight_line(cost, start):
    problem = Problem(
        name="kinked", state=["x"], control=["u"], dynamics=lambda x, u, p: u[0], stage_cost=cost, dt=0.05, steps=40,
        control_bounds={"u": (-1.0, 1.0)}, initial_state=Uniform([-1.0], [1.0]),
    )  # fmt: skip
    assert not convex(problem, problem.param_values[None])
    found = solve(problem, [start])
    assert found.verdict is not Verdict.PROVED and not found.proved
    # no worse than to drive either way at full speed for a while and to rest there
    plans = np.array([side * (np.arange(40) < n) for side in (-1.0, 1.0) for n in range(41)])[..., None]
    costs = rollout_controls(problem, np.full((82, 1), start), plans, problem.param_values[None])[1].sum(axis=1)
    assert costs.min() < costs[0] - 0.3
    assert found.value <= costs.min() + 1e-9


def test_an_obstacle_with_corners_is_not_convex():
    diamond = Problem(
        name="diamond", state=["x", "y"], control=["vx", "vy"], dynamics=lambda x, u, p: [u[0], u[1]], dt=0.1, steps=20,
        stage_cost=lambda x, u, p: ca.sumsqr(u), path_constraints=lambda x, u, p: 1 - ca.fabs(x[0] - 2) - ca.fabs(x[1] - 0.3),
        terminal_cost=lambda x, p: 100 * ((x[0] - 4) ** 2 + x[1] ** 2), control_bounds={"vx": (-5, 5), "vy": (-5, 5)},
        initial_state=Uniform([0, -0.5], [0, 0.5]),
    )  # fmt: skip
    found = [solve(diamond, [0.0, 0.1], method=method) for method in ("auto", "ddp")]
    assert not any(s.proved for s in found)
    assert [s.value for s in found] == pytest.approx([8.8211187] * 2, rel=1e-6)


def glider(**changes):
    return Problem(
        name="glider", state=["x", "v"], control=["u"], dynamics=lambda x, u, p: [x[1], u[0] - ca.sin(x[0])],
        stage_cost=lambda x, u, p: ca.sumsqr(x) + 0.1 * u[0] ** 2, control_bounds={"u": (-1, 1)}, dt=0.1, steps=30,
        initial_state=Uniform([-1, -1], [1, 0.3]),
    ).replace(**changes)  # fmt: skip


def solved(problem):
    starts = problem.initial_state.sample(np.random.default_rng(0), 33)
    return problem, starts, solve_many(problem, starts)


@pytest.fixture(scope="module")
def ended():
    """Gliders that end at x = ½: the problem, starts and solutions."""
    return solved(glider(terminal_constraints=lambda x, p: x[0] - 0.5))


@pytest.mark.parametrize("limit", ["one end condition", "one bound"])
def test_a_single_constraint_in_batches(limit, ended):
    bound = {"v": (-np.inf, 0.4)}
    problem, starts, batch = ended if limit == "one end condition" else solved(glider(state_bounds=bound))
    one_by_one = solve_many(problem, starts[:3], method="multiple_shooting")
    assert batch.certified.all() and batch.solver == "ddp"
    np.testing.assert_allclose(batch.values[:3], one_by_one.values, rtol=1e-7)


@pytest.mark.parametrize("method", ["auto", "multiple_shooting", "pontryagin", "switching"])
def test_one_interval(method):
    problem = glider(steps=1)
    found = solve(problem, [0.3, 0.0], method=method)
    _, scan = problem.step_function([0.3, 0.0], np.linspace(-1, 1, 20_001)[None], problem.param_values, 0.0)
    assert found.value == pytest.approx(np.min(scan), rel=1e-4)


def test_one_interval_of_many_starts_and_of_a_linear_problem():
    problem = glider(steps=1)
    starts = problem.initial_state.sample(np.random.default_rng(0), 9)
    np.testing.assert_allclose(
        solve_many(problem, starts).values[:3], solve_many(problem, starts[:3]).values, rtol=1e-9
    )
    linear = problem.replace(dynamics=lambda x, u, p: [x[1], u[0] - x[0]], control_bounds={}, control_scale={"u": 1.0})
    assert solve_many(linear, starts).values[0] == pytest.approx(solve(linear, starts[0], method="lqr").value, rel=1e-9)


def test_every_start_has_its_own_of_a_batch_of_guesses(ended):
    problem, starts, first = ended
    for num in (5, 33):  # one by one, and together
        again = solve_many(problem, starts[:num], guess=first.trajectory[:num])
        np.testing.assert_allclose(again.values, first.values[:num], rtol=1e-7)
    assert solve(problem, starts[0], guess=first[0]).value == pytest.approx(
        first.values[0], rel=1e-7
    )  # a solution is a guess
    with pytest.raises(ArgumentError, match=r"`guess` must have controls of shape \(20, 1\)"):
        solve_many(glider(steps=20), starts, guess=first.trajectory)


@pytest.mark.parametrize("method", ["auto", "multiple_shooting", "collocation"])
def test_units_change_nothing(method):
    """The same plant with its control in units of 10⁻⁸ and its cost in units of 10¹⁰."""

    def plant(volt, joule):
        return Problem(
            name="field", state=["x"], control=["E"], dynamics=lambda x, u, p: u[0] * volt - x[0] ** 3, dt=0.05, steps=40,
            stage_cost=lambda x, u, p: joule * ((x[0] - 1) ** 2 + 1e-2 * (u[0] * volt) ** 2),
            control_bounds={"E": (-2 / volt, 5 / volt)}, initial_state=Uniform([0.0], [0.5]),
        )  # fmt: skip

    plain, odd = (solve(plant(*units), [0.0], method=method) for units in ((1.0, 1.0), (1e-8, 1e-10)))
    assert odd.verdict is Verdict.EXTREMAL and odd.problem == "field"
    assert odd.value == pytest.approx(1e-10 * plain.value, rel=1e-7)
    np.testing.assert_allclose(odd.trajectory.controls, 1e8 * plain.trajectory.controls, rtol=1e-4, atol=1e4)
    np.testing.assert_allclose(odd.trajectory.costates, 1e-10 * plain.trajectory.costates, rtol=1e-4, atol=1e-14)
    assert odd.certificate.constraint_violation == 0.0


def test_units_of_batches_gains_and_guesses():
    problem = Problem(
        name="field", state=["x", "v"], control=["E", "f"], dynamics=lambda x, u, p: [x[1], p.k * u[0] / 1e7 - ca.sin(x[0]) + u[1]],
        stage_cost=lambda x, u, p: ca.sumsqr(x) + 0.1 * (u[0] / 1e7) ** 2 + 0.1 * u[1] ** 2, params={"k": 1.0}, dt=0.1, steps=30,
        control_bounds={"E": (-1e7, 1e7)}, control_scale={"f": 2.0}, initial_state=Uniform([-1, -1], [1, 1]),
    )  # fmt: skip
    same = problem.replace(
        dynamics=lambda x, u, p: [x[1], p.k * u[0] - ca.sin(x[0]) + u[1]], control_bounds={"E": (-1.0, 1.0)},
        stage_cost=lambda x, u, p: ca.sumsqr(x) + 0.1 * u[0] ** 2 + 0.1 * u[1] ** 2,
    )  # fmt: skip
    starts = problem.initial_state.sample(np.random.default_rng(0), 9)
    odd, plain = solve_many(problem, starts), solve_many(same, starts)
    assert odd.certified.all()
    unit = np.array([1e7, 1.0])
    np.testing.assert_allclose(odd.values, plain.values, rtol=1e-9)
    np.testing.assert_allclose(odd.gains, unit[:, None] * plain.gains, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(odd.hessians, plain.hessians, rtol=1e-4, atol=1e-6)
    again = solve_many(problem, starts, guess=odd.trajectory)
    np.testing.assert_allclose(again.values, odd.values, rtol=1e-10)
    replayed = rollout_controls(problem, starts, odd.trajectory.controls, problem.param_values[None])
    np.testing.assert_allclose(replayed[1].sum(axis=1), odd.values, rtol=1e-9)


def test_collocation_that_lives_on_its_quadrature_is_not_certified():
    """min ∫ x² − u dt has no minimum: each grid makes x jump between its points. A narrow hill is passed between two points."""
    free = Problem(
        name="free", state=["x"], control=["u"], dynamics=lambda x, u, p: u[0], stage_cost=lambda x, u, p: x[0] ** 2 - u[0],
        dt=0.05, steps=40, initial_state=Fixed([0.8]),
    )  # fmt: skip
    found = solve(free, [0.8], method="collocation")
    assert found.verdict is Verdict.BEST_FOUND and found.certificate.cost_defect > 0.1
    hill = free.replace(
        stage_cost=lambda x, u, p: u[0] ** 2 + 50 * ca.exp(-(((x[0] - 0.5) / 0.004) ** 2)), dt=0.02, steps=50,
        terminal_cost=lambda x, p: 100 * (x[0] - 1) ** 2,
    )  # fmt: skip
    coarse = solve(hill, [0.0], method="collocation", num_starts=3, resimulation=None)
    assert coarse.verdict is Verdict.BEST_FOUND and coarse.value < 1.01
    assert not solve_many(free, [[0.8], [0.5]], method="collocation").certified.any()
    fine = solve(hill, [0.0], method="collocation", num_starts=3)
    assert fine.certificate.cost_defect < 1e-5 and fine.value > 1.05
    assert fine.verdict is Verdict.EXTREMAL


@pytest.mark.parametrize(("bounds", "value"), [((5.0, np.inf), 73.2669), ((1.0, np.inf), 4.0)])
def test_one_sided_bounds_beyond_the_scale_of_the_control(bounds, value):
    problem = Problem(
        name="pushed", state=["x"], control=["u"], dynamics=lambda x, u, p: u[0] - x[0], dt=0.1, steps=20,
        stage_cost=lambda x, u, p: x[0] ** 2 + u[0] ** 2, control_bounds={"u": bounds}, initial_state=Fixed([1.0]),
    )  # fmt: skip
    found = solve(problem, [1.0])
    assert found.verdict is Verdict.PROVED
    if value == 4.0:  # u = 1 holds x = 1
        assert found.value == pytest.approx(4.0, rel=1e-9)
    other = solve(problem.replace(control_scale={"u": 20.0}), [1.0], method="multiple_shooting")
    assert found.value == pytest.approx(other.value, rel=1e-7)


def test_small_and_large_controls_together_are_certified_in_natural_units():
    problem = Problem(
        name="scales", state=["x", "v"], control=["tiny", "huge"], dynamics=lambda x, u, p: [x[1], 1e6 * u[0] + 1e-8 * u[1] - ca.sin(x[0])],
        stage_cost=lambda x, u, p: ca.sumsqr(x) + 0.1 * (1e6 * u[0]) ** 2 + 0.1 * (1e-8 * u[1]) ** 2, dt=0.1, steps=20,
        control_bounds={"tiny": (-1e-6, 1e-6), "huge": (0.0, 1e8)}, initial_state=Uniform([-1, -1], [1, 1]),
        terminal_constraints=lambda x, p: x[0] - 0.1,
    )  # fmt: skip
    starts = problem.initial_state.sample(np.random.default_rng(0), 3)
    assert [s.verdict for s in solve_many(problem, starts)] == [Verdict.EXTREMAL] * 3  # IPOPT
    batch = solve_many(problem, starts, method="ddp")
    assert batch.certified.all()
    gains, plain = tvlqr(problem, batch.trajectory).K, batch.gains
    assert np.abs(gains[:, 3, 0] * 1e6).max() > 0.1  # no floor meant for units of order one has swallowed them
    assert np.isfinite(plain).all()


def test_a_scaled_problem_is_forgotten_with_its_last_name():
    problem = glider(control_bounds={"u": (-1e6, 1e6)})
    assert natural(problem) is not None
    last = weakref.ref(problem)
    del problem
    gc.collect()
    assert last() is None


def test_small_costs_make_no_angle_of_a_state():
    problem = glider(stage_cost=lambda x, u, p: 1e-12 * (ca.sumsqr(x) + 0.1 * u[0] ** 2))
    assert not periods(problem).any()
    assert periods(glider(stage_cost=lambda x, u, p: 1e-12 * (1 - ca.cos(x[0]) + u[0] ** 2)))[0] > 6


@pytest.mark.parametrize("guess", [3, "solved"])
def test_guesses_that_are_none_or_too_few(guess):
    problem = glider(steps=10)
    starts = problem.initial_state.sample(np.random.default_rng(0), 4)
    if guess == "solved":
        guess = solve_many(problem, starts[:3]).trajectory
    with pytest.raises(ArgumentError, match="`guess` must be"):
        solve_many(problem, starts, method="multiple_shooting", guess=guess)
