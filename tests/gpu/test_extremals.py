"""Batched Riccati equations and indirect shooting on a GPU: the CPU's numbers."""

import numpy as np
import pytest

from optctl import envs
from optctl.solvers import solve_many
from optctl.solvers.batched import riccati
from optctl.solvers.batched.shooting import solve_pontryagin

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
