"""GRAPE and Krotov against exact optima, finite differences and QuTiP."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import minimize_scalar

import optctl
from optctl.bench.grape import qutip_pulse, task
from optctl.errors import ArgumentError
from optctl.problem.quantum import GATES, SIGMA_X, SIGMA_Y, SIGMA_Z, destroy, embed, ground_state, ket, tensor
from optctl.solvers import Status, Verdict, solve_many
from optctl.solvers.batched import bilinear as kernels
from optctl.solvers.batched.bilinear import newton, optimise, solve_grape
from optctl.solvers.batched.grape import Transfer, best_sequence, grape, krotov, least_time
from optctl.solvers.certificates import gradient_functions
from optctl.solvers.methods.bilinear import bilinear, certified, random_pulses

SPEED_LIMIT = 2 * np.arccos(7 / 24) / np.sqrt(17) + 2 * np.arcsin(7 / (4 * np.sqrt(5)))  # 2.416121543394


def bukov(duration, slots):
    """H = −½σ_z − ½hσ_x, |h| ≤ 4, from the ground state at h = −2 to that at h = 2."""
    start, goal = (ground_state(-0.5 * SIGMA_Z - 0.5 * h * SIGMA_X) for h in (-2.0, 2.0))
    return Transfer(
        drift=-0.5 * SIGMA_Z, controls=[-0.5 * SIGMA_X], initial=start, target=goal, duration=duration, slots=slots,
        bounds=(-4.0, 4.0),
    )  # fmt: skip


def qutrit(ensemble):
    """Anharmonic three-level ladder, driven; an ensemble of anharmonicities."""
    a = destroy(3)
    drift = [-0.5 * (alpha) * a.T @ a.T @ a @ a for alpha in ensemble]
    return Transfer(
        drift=drift, controls=[a + a.T, 1j * (a - a.T)], initial=np.eye(3)[:, :2], target=np.eye(3)[:, [1, 0]], duration=3.0, slots=12
    )  # fmt: skip


JOBS = {"gate": task("cnot", 7), "state": bukov(1.0, 9), "leaky": qutrit([5.0]), "ensemble": qutrit([4.0, 5.0, 6.0])}
# affine dynamics and a linear fidelity; a running cost; a quadratic end in a Bloch vector; complex and long intervals
PROBLEMS = ("damped-qubit", "lambda-system", "spin-saturation", "kerr-cavity", "transmon-gate", "exchange-gate")


def evaluated(system, u, **options):
    """J and ∂J/∂u of pulses (B, S, K)."""
    found = optimise(system, u, max_iterations=0, **options)
    return found.cost, found.gradient


def taylor_slope(system, u, d):
    """Decimal orders by which what the gradient does not explain falls when a step d is ten times shorter: 2 where it is right."""
    cost, slope = evaluated(system, u)
    left = [np.abs(evaluated(system, u + e * d)[0] - cost - e * (slope * d).sum(axis=(1, 2))) for e in (1e-3, 1e-4)]
    return np.log10(left[0] / left[1])


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_gradient_is_exact(job):
    u, d = np.random.default_rng(0).uniform(-3, 3, (2, 4, job.slots, job.num_controls))
    free = job.system.replace(low=-np.full(job.num_controls, np.inf), high=np.full(job.num_controls, np.inf))
    np.testing.assert_allclose(
        1 - evaluated(free, u)[0], [job.fidelity(v) for v in u], atol=1e-13
    )  # by diagonalisation
    np.testing.assert_allclose(taylor_slope(free, u, d), 2, atol=0.2)


@pytest.mark.parametrize("name", PROBLEMS)
def test_cost_and_gradient_of_a_problem_are_those_of_its_own_step(name):
    problem = optctl.make(name)
    system = bilinear(problem)
    u = 0.9 * random_pulses(system, 2)
    plan = certified(problem, problem.initial_state.location, u[0], problem.param_values)
    cost, slope = evaluated(system, u)
    assert cost[0] == pytest.approx(plan.value, abs=2e-11)
    inner = gradient_functions(problem)[0]  # H_u by CasADi's reverse mode through the step
    path, k = plan.trajectory, problem.steps // 3
    by_step = inner(path.states[k], u[0, k], problem.param_values, 0.0, problem.dt, path.costates[k + 1])[3]
    np.testing.assert_allclose(slope[0, k], np.asarray(by_step).ravel(), atol=2e-11)


def test_strong_drives_divide_the_slot():
    job = Transfer(drift=SIGMA_Z, controls=[SIGMA_X], initial=ket(2, 0), target=ket(2, 1), duration=3.0, slots=3)  # fmt: skip
    u = np.array([[[0.3], [17.0], [4.0]], [[0.0], [0.1], [0.0]]])  # ‖H Δ‖ up to 18
    cost, slope = evaluated(job.system, u)
    np.testing.assert_allclose(1 - cost, [job.fidelity(v) for v in u], atol=1e-13)
    h = 1e-5 * np.array([[0.0], [1.0], [0.0]])
    difference = (job.fidelity(u[0] - h) - job.fidelity(u[0] + h)) / 2e-5
    assert slope[0, 1, 0] == pytest.approx(difference, abs=1e-8)


@pytest.mark.parametrize("job", [task("cnot", 6), bukov(1.0, 9)], ids=["free", "bounded"])
def test_a_member_has_the_same_bits_alone_in_a_batch_on_one_thread_and_beside_nonsense(job):
    u = np.random.default_rng(1).uniform(-1, 1, (20, job.slots, job.num_controls))
    run = lambda v, **options: optimise(job.system, v, max_iterations=30, **options)
    together, alone, single = run(u), run(u[13:14]), run(u, threads=1)
    u[[5, 12]] = np.nan
    beside = run(u)
    for field in ("pulses", "cost", "gradient", "residual", "iterations"):
        many = getattr(together, field)
        np.testing.assert_array_equal(many[13:14], getattr(alone, field))
        np.testing.assert_array_equal(many, getattr(single, field))
        np.testing.assert_array_equal(np.delete(many, [5, 12], 0), np.delete(getattr(beside, field), [5, 12], 0))
    assert beside.statuses[5] is Status.DIVERGED and together.statuses[13] is not Status.DIVERGED


@pytest.mark.parametrize("name", [pytest.param("ising-gate", marks=pytest.mark.prove), "lambda-system"])
def test_the_source_for_a_gpu_computes_the_same(name, monkeypatch):
    # one member a thread and strided memory; on a CPU it runs as well, thread after thread
    system = bilinear(optctl.make(name))
    u = random_pulses(system, 5)
    here = optimise(system, u, max_iterations=5, threads=2)
    monkeypatch.setattr(kernels, "LANES", 1)
    load = lambda pattern, device: kernels.load_module(pattern.source("cuda")).solve
    monkeypatch.setattr(kernels, "_kernel", load)
    there = optimise(system, u, max_iterations=5, threads=2)
    np.testing.assert_allclose(there.cost, here.cost, rtol=1e-9)
    np.testing.assert_allclose(there.pulses, here.pulses, atol=1e-7 * np.abs(u).max())


def test_every_restart_says_why_it_stopped():
    short, done = (grape(task("cnot", 20), restarts=3, max_iterations=n) for n in (2, 500))
    assert short.statuses == [Status.MAX_ITERATIONS] * 3
    assert done.statuses == [Status.CONVERGED] * 3
    assert (done.infidelity <= 1e-10).all()


def test_bounds_hold_and_the_projected_gradient_vanishes():
    job = bukov(0.5, 20)
    found = grape(job, restarts=4)
    assert set(found.pulses[found.best].ravel()) <= {-4.0, 4.0} | set(
        found.pulses[found.best].ravel()[9:11]
    )  # bang, bang
    assert found.gradient[found.best] < 1e-8


def test_a_large_ensemble_has_the_mean_of_its_systems():
    job = qutrit(np.linspace(4, 6, 40))
    u = np.random.default_rng(2).uniform(-1, 1, (job.slots, 2))
    mean = evaluated(job.system, u[None])
    own = evaluated(job.system, np.tile(u, (40, 1, 1)), own=True)
    np.testing.assert_allclose(own[0].mean(), mean[0][0], atol=1e-14)
    np.testing.assert_allclose(own[1].mean(axis=0), mean[1][0], atol=1e-14)
    found = grape(job, guess=u, max_iterations=40)  # side by side
    assert 1 - found.infidelity[0] == pytest.approx(job.fidelity(found.pulses[0]), abs=1e-12)
    assert found.infidelity[0] < 0.5 * (1 - job.fidelity(u))


@pytest.mark.parametrize(
    ("gate", "compared"), [("cnot", True), ("qft", False), pytest.param("qft", True, marks=pytest.mark.prove)]
)
def test_gates_are_as_good_as_those_of_qutip(gate, compared):
    job = task(gate)
    found = grape(job, restarts=8)
    ours = 1 - job.fidelity(found.pulses[found.best])
    assert ours < 1.1e-10
    assert (found.infidelity < 1e-9).all()
    assert not compared or ours < 1 - job.fidelity(qutip_pulse(job, 1e-10)) + 1e-9


@pytest.mark.parametrize(("duration", "best"), [(0.5, 0.331299546052), (1.0, 0.577029386692)])
def test_fidelity_of_the_qubit(duration, best):
    # at T = 1 the best pulse has a singular arc whose ends fall inside slots: 100 slots lose 2e-8
    found = grape(bukov(duration, 100), restarts=6)
    assert 1 - found.infidelity[found.best] == pytest.approx(best, abs=5e-8)
    assert 1 - found.infidelity[found.best] <= best + 1e-12
    assert np.abs(found.pulses).max() <= 4


@pytest.mark.parametrize(("duration", "best"), [(0.5, 0.3312995461), (1.0, 0.5763866712)])
def test_best_sequence_of_two_levels(duration, best):
    job = bukov(duration, round(duration / 0.05))
    sequence, fidelity = best_sequence(job, [-4.0, 4.0])
    assert fidelity == pytest.approx(best, abs=1e-10)
    assert job.fidelity(sequence) == pytest.approx(fidelity, abs=1e-12)


def test_meeting_in_the_middle_finds_what_brute_force_finds():
    import itertools

    job = bukov(1.5, 5)
    brute = max(job.fidelity(np.array(s)[:, None]) for s in itertools.product([-4.0, 0.0, 3.0], repeat=5))
    assert best_sequence(job, [-4.0, 0.0, 3.0])[1] == pytest.approx(brute, abs=1e-13)


def test_least_time_is_the_quantum_speed_limit():
    # infidelity falls like the square of the missing time: 1e-7 is reached some 1e-3 before
    found = least_time(bukov(1.0, 40), 2.0, 3.0, infidelity=1e-7, accuracy=4e-3)
    assert found.duration == pytest.approx(SPEED_LIMIT, abs=5e-3)
    assert "4 random guesses" in found.search and "fewer than 53%" in found.search  # 1 − .05^(1/4)


def test_least_time_of_the_lambda_system_with_separate_bounds():
    # Boscain et al. (2002): √2 π for |Ω| ≤ 1, both drives on all the time
    step = lambda i: 0.5 * (np.outer(ket(3, i), ket(3, i + 1)) + np.outer(ket(3, i + 1), ket(3, i)))
    job = Transfer(
        drift=np.zeros((3, 3)), controls=[step(0), step(1)], initial=ket(3, 0), target=ket(3, 2), duration=1.0, slots=20,
        bounds=(-1.0, 1.0),
    )  # fmt: skip
    found = least_time(job, 3.0, 6.0, infidelity=1e-9, accuracy=1e-3)
    assert found.duration == pytest.approx(np.sqrt(2) * np.pi, abs=2e-3)


@pytest.mark.parametrize("duration", [0.2, 0.35, 0.5])
def test_cnot_under_ising_coupling_reaches_the_bound_of_its_duration(duration):
    # Khaneja, Brockett, Glaser (2001): H = ½πJ σ_zσ_z and local rotations of any strength; F = cos²(¼π(1 − 2JT)) up to T = 1/(2J)
    drives = [embed(sigma, site, 2) for sigma in (SIGMA_X, SIGMA_Y) for site in (0, 1)]
    coupling = 0.5 * np.pi * tensor(SIGMA_Z, SIGMA_Z)
    job = Transfer(drift=coupling, controls=drives, target=GATES["cnot"], duration=duration, slots=24)
    found = grape(job, restarts=16, amplitude=20.0, infidelity=1e-9, max_iterations=1500)
    bound = np.cos(0.25 * np.pi * (1 - 2 * duration)) ** 2
    reached = 1 - found.infidelity[found.best]
    assert reached <= bound + 1e-12
    assert reached > bound - 0.02  # rotations take time


def saturation_time(limit, t1, t2):
    """Lapert et al. (2010): full drive to z = z₀ = −γ/2(Γ − γ), the singular arc z = z₀ with u = γ(1 − z₀)/y, full drive from the best
    point on to y = 0, relaxation to z = 0."""
    slow, fast = 1 / t1, 1 / t2
    z0 = -0.5 * slow / (fast - slow)
    bloch = lambda u: lambda t, r: [-fast * r[0] - u * r[1], slow * (1 - r[1]) + u * r[0]]

    def until(r, rate, event):
        event.terminal = True
        end = solve_ivp(rate, (0, 5), r, events=event, rtol=1e-11, atol=1e-12)
        return end.t[-1], end.y[:, -1]

    first, r = until([0.0, 1.0], bloch(limit), lambda t, r: r[1] - z0)
    hold = lambda t, r: [-fast * r[0] + slow * (1 - z0) * z0 / r[0], 0.0]  # the drive that keeps z

    def total(y):
        arc, s = until(r, hold, lambda t, s: s[0] - y)
        bang, s = until(s, bloch(limit * np.sign(z0) * np.sign(y)), lambda t, s: s[0])
        return first + arc + bang + np.log(1 - s[1]) / slow

    return minimize_scalar(
        total, bounds=(0.9 * r[0], 1.02 * slow * (1 - z0) / limit * np.sign(r[0])), method="bounded"
    ).fun


def test_least_time_of_saturation_follows_the_singular_arcs():
    problem = optctl.make("spin-saturation", rabi=30.0, energy=0.0, steps=120)
    p = problem.params
    best = saturation_time(30.0, p["t1"], p["t2"])
    inversion = np.pi / 30 + p["t1"] * np.log(2)  # a π pulse, then wait for z = 0: what singular arcs beat
    found = least_time(problem, 0.5, 1.2, infidelity=1e-8, accuracy=1e-3)
    assert best < 0.95 < inversion
    assert found.duration == pytest.approx(best, abs=5e-3)


def test_a_robust_pulse_serves_the_whole_ensemble():
    job = qutrit([4.0, 5.0, 6.0]).replace(duration=6.0, slots=40)
    middle = job.replace(drift=job.drift[1:2], controls=job.controls[:1])
    single, robust = (grape(j, restarts=3, max_iterations=200) for j in (middle, job))
    assert job.fidelity(robust.pulses[robust.best]) > 0.999
    assert job.fidelity(robust.pulses[robust.best]) > job.fidelity(single.pulses[single.best])


def test_krotov_falls_monotonically_from_the_published_start():
    # H = −½σ_z + ε σ_x, ε = 0.2 · flat-top Blackman, T = 5: 1 − F = 0.951459434722 before the first iteration
    t = (np.arange(499) + 0.5) * 5.0 / 499  # 500 points
    blackman = lambda s: 0.42 - 0.5 * np.cos(np.pi * s) + 0.08 * np.cos(2 * np.pi * s)
    ramp = np.where(t < 0.3, blackman(t / 0.3), np.where(t > 4.7, blackman((5 - t) / 0.3), 1.0))
    job = Transfer(
        drift=-0.5 * SIGMA_Z, controls=[SIGMA_X], initial=ket(2, 0), target=ket(2, 1), duration=5.0, slots=499
    )  # fmt: skip
    pulse, errors = krotov(job, 0.2 * ramp[:, None], weight=5.0, infidelity=1e-3)
    assert errors[0] == pytest.approx(0.951459434722, abs=1e-9)
    assert (np.diff(errors) < 0).all()
    assert errors[-1] < 1e-3
    assert 1 - job.fidelity(pulse) == pytest.approx(errors[-1], abs=1e-12)


@pytest.mark.parametrize(("duration", "best"), [(0.5, 0.331299546052), (1.0, 0.577029386692)])
def test_krotov_reaches_the_bounded_optimum(duration, best):
    guess = 0.5 * np.sin(np.arange(100))[:, None]
    _, errors = krotov(bukov(duration, 100), guess, weight=1e-3 * duration, max_iterations=300)
    assert 1 - errors[-1] == pytest.approx(best, abs=1e-6)
    assert (np.diff(errors) < 1e-14).all()


def test_krotov_and_grape_agree_on_a_gate():
    job = Transfer(drift=0.5 * SIGMA_Z, controls=[SIGMA_X], target=GATES["hadamard"], duration=4.0, slots=100)
    _, errors = krotov(job, 0.3 * np.ones((100, 1)), weight=0.05, max_iterations=300)
    assert errors[-1] < 1e-6
    assert grape(job, guess=0.3 * np.ones((100, 1))).infidelity[0] < 1e-9


@pytest.mark.parametrize(("duration", "best"), [(0.5, 0.331299546052), (1.0, 0.577029386692)])
def test_solve_by_grape_finds_and_certifies_the_optimum_of_the_qubit(duration, best):
    problem = optctl.make("qubit-transfer", duration=duration, steps=100, energy=0.0)
    solution = optctl.solve(problem, problem.initial_state.location, method="grape", num_starts=8)
    assert solution.verdict is Verdict.EXTREMAL
    assert 1 - solution.value == pytest.approx(best, abs=5e-8)
    assert solution.certificate.stationarity < 1e-8


@pytest.mark.parametrize("name", ["lambda-system", "spin-chain", "damped-qubit", "qubit-reset"])
def test_grape_agrees_with_differential_dynamic_programming(name):
    problem = optctl.make(name)
    x0 = problem.initial_state.location
    mine = optctl.solve(problem, x0, method="grape", num_starts=8)
    theirs = optctl.solve(problem, x0, method="ddp", guess=mine.trajectory)
    assert mine.verdict is Verdict.EXTREMAL and mine.certificate.resimulation < 1e-9
    assert mine.value <= theirs.value + 1e-10
    assert mine.value == pytest.approx(theirs.value, abs=1e-7)
    given = np.isfinite(theirs.trajectory.costates)  # a start that stalls gives none
    assert given.any() or not theirs.ok
    np.testing.assert_allclose(mine.trajectory.costates[given], theirs.trajectory.costates[given], atol=1e-5)


def test_solve_hands_grape_its_number_of_starts_and_its_seed():
    problem = optctl.make("qubit-transfer", duration=1.0, steps=20, energy=0.0)
    x0 = problem.initial_state.location
    for num, seed in ((2, 0), (5, 0), (5, 3)):
        through = optctl.solve(problem, x0, method="grape", num_starts=num, seed=seed)
        direct = solve_grape(problem, x0, num_starts=num, seed=seed)
        assert through.iterations == direct.iterations
        assert np.array_equal(through.trajectory.controls, direct.trajectory.controls)


def test_gates_too_large_to_unroll_go_to_grape_whatever_their_number():
    problem = optctl.make("exchange-gate")
    starts = problem.initial_state.sample(np.random.default_rng(0), 2)
    found = solve_many(problem, starts)
    assert (problem.n_x, found.solver) == (32, "grape")
    assert found.certified.all()
    assert [s.verdict for s in found] == [Verdict.EXTREMAL] * 2
    assert found.residuals["stationarity"].tolist() == [s.certificate.stationarity for s in found]


def test_newton_leaves_a_maximum_and_lets_go_of_a_bound():
    turn = Transfer(
        drift=np.zeros((2, 2)),
        controls=[SIGMA_X],
        initial=ket(2, 0),
        target=ket(2, 1),
        duration=1.0,
        slots=4,
        bounds=(-4.0, 4.0),
    )
    flipped = newton(turn.system, np.full((4, 1), 1e-3))  # F = sin² ∫u dt: a pulse near zero is nearly the worst
    assert flipped[1] < 1e-12 and abs(flipped[0].mean()) == pytest.approx(0.5 * np.pi, abs=1e-6)
    job = bukov(0.5, 10)
    at_bound, cost, residual = newton(job.system, np.full((10, 1), 4.0))
    assert cost == pytest.approx(grape(job, restarts=4).infidelity.min(), abs=1e-9)
    assert residual < 1e-9 and (at_bound.min(), at_bound.max()) == (-4.0, 4.0)


def test_an_ensemble_of_a_problem_is_the_mean_over_its_parameters():
    problem = optctl.make("qubit-gate", target="x", duration=2.0, steps=20, energy=0.0)
    params = np.array([[0.0, 0.9], [0.0, 1.0], [0.0, 1.1]])
    found = grape(problem, restarts=8, params=params)
    pulse = found.pulses[found.best]
    losses = [certified(problem, problem.initial_state.location, pulse, p).value for p in params]
    assert np.mean(losses) == pytest.approx(found.infidelity[found.best], abs=1e-12)
    assert max(losses) < 1e-3  # the pulse of the nominal optimum: 2.4e-2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: grape(optctl.make("pendulum")), "bilinear"),
        (lambda: grape(optctl.make("qubit-bang-bang")), "bilinear"),  # its control is rounded
        (lambda: grape(optctl.make("qubit-gate-filtered")), "bilinear"),  # discrete
        (lambda: grape(bukov(1.0, 5), amplitude=0.0), "amplitude"),
        (lambda: grape(bukov(1.0, 5), params=np.zeros(1)), "params"),
        (lambda: optctl.solve(optctl.make("pendulum"), [0.0, 0.0], method="grape"), "bilinear"),
        (lambda: bukov(-1.0, 5), "duration"),
        (lambda: bukov(1.0, 0), "slots"),
        (lambda: bukov(1.0, 5).replace(bounds=(1.0, 1.0)), "bounds"),
        (lambda: bukov(1.0, 5).replace(target=np.ones(2)), "orthonormal"),
        (lambda: bukov(1.0, 5).replace(target=np.eye(3)), "rows"),
        (lambda: bukov(1.0, 5).replace(target=[np.nan, 0]), "finite"),
        (lambda: bukov(1.0, 5).replace(target=np.eye(2)), "initial"),
        (lambda: bukov(1.0, 5).replace(controls=np.eye(3)[None]), "controls"),
        (lambda: bukov(1.0, 5).replace(drift=np.zeros((1, 1, 2, 2))), "drift"),
        (lambda: bukov(1.0, 5).replace(drift=np.zeros((2, 2, 2)), controls=np.zeros((3, 1, 2, 2))), "ensemble"),
        (lambda: grape(bukov(1.0, 5), restarts=0), "restarts"),
        (lambda: grape(bukov(1.0, 5), guess=np.zeros((4, 1))), "guess"),
        (lambda: grape(bukov(1.0, 5), guess=np.full((5, 1), np.nan)), "finite"),
        (lambda: krotov(bukov(1.0, 5), np.zeros((4, 1))), "guess"),
        (lambda: krotov(bukov(1.0, 5), np.zeros((5, 1)), weight=0.0), "weight"),
        (lambda: krotov(qutrit([1.0, 2.0]), np.zeros((12, 2))), "one system"),
        (lambda: least_time(bukov(1.0, 5), 2.0, 1.0), "low"),
        (lambda: least_time(bukov(1.0, 5), 0.1, 0.5), "suffice"),
        (lambda: best_sequence(bukov(1.0, 5), [[1.0, 2.0]]), "levels"),
        (lambda: best_sequence(bukov(1.0, 60), [-4.0, 4.0]), "131072"),
        (lambda: best_sequence(qutrit([1.0, 2.0]), [[0.0, 0.0]]), "one system"),
    ],
)
def test_bad_arguments_are_named(call, words):
    with pytest.raises(ArgumentError, match=words):
        call()
