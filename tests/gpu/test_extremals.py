"""Batched Riccati equations, indirect shooting, pulses and dynamic programming on a GPU: the CPU's numbers."""

import casadi as ca
import numpy as np
import pytest

from optctl import envs
from optctl.bench.grape import task
from optctl.problem import Problem, Uniform
from optctl.solvers import solve_many
from optctl.solvers.batched import riccati
from optctl.solvers.batched.bilinear import optimise
from optctl.solvers.batched.grape import grape
from optctl.solvers.batched.shooting import solve_pontryagin
from optctl.solvers.feedback.hjb import HjbController

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(("horizon", "discretised"), [("infinite", True), ("finite", True), ("finite", False)])
def test_riccati_equations(agrees, horizon, discretised):
    problem = envs.make("mass-spring")
    plants = np.random.default_rng(0).uniform(problem.param_low, problem.param_high, (50, problem.n_p))

    def solved(device):
        found = riccati.lqr(problem, plants, horizon=horizon, discretised=discretised, device=device)
        assert not any(found.messages)
        return [found.K, found.P]

    agrees(solved, rtol=1e-8, atol=1e-8)


def test_shooting(agrees):
    problem = envs.make("pendulum", steps=60)
    starts = problem.initial_state.sample(np.random.default_rng(5), 8)
    guess = solve_many(problem, starts, rounds=0).trajectory

    def solved(device):
        found = solve_pontryagin(problem, guess, device=device)
        assert found.ok.all()
        return [found.values, found.trajectory.costates]

    agrees(solved, rtol=1e-8, atol=1e-8)


def test_a_few_iterations_of_pulses(agrees):
    u = np.random.default_rng(3).uniform(-1, 1, (100, 50, 4))

    def solved(device):
        found = optimise(task("cnot").system, u, max_iterations=5, device=device)
        return [found.cost, found.pulses]

    agrees(solved, rtol=1e-9, atol=1e-7)


def test_pulses_reach_the_gate(repeats):
    (infidelity,) = repeats(lambda device: [grape(task("cnot", 20), restarts=8, device=device).infidelity])
    assert np.median(infidelity) <= 1e-9


def car():
    """Three states, of which the last is an angle, and a terminal cost."""
    return Problem(
        name="car", state=["x", "y", "heading"], control=["turn"], dynamics=lambda x, u, p: ca.vertcat(ca.cos(x[2]), ca.sin(x[2]), u),
        stage_cost=lambda x, u, p: x[0] ** 2 + x[1] ** 2 + 0.1 * u[0] ** 2, terminal_cost=lambda x, p: x[0] ** 4 + ca.cos(x[2]),
        control_bounds={"turn": (-2, 2)}, dt=0.1, steps=25, initial_state=Uniform([-1, -1, -3], [1, 1, 3]),
    )  # fmt: skip


@pytest.mark.parametrize("problem", [envs.make("pendulum", steps=20), car()], ids=["pendulum", "car"])
def test_dynamic_programming(agrees, problem):
    agrees(lambda device: [HjbController(problem, nodes=13, levels=5, device=device).values], 1e-10, 1e-10)
