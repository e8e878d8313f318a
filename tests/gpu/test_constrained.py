"""Batched DDP under constraints on a GPU: the CPU's solutions."""

import numpy as np
import pytest

from optctl.problem import Problem, Uniform
from optctl.solvers.batched.constrained import solve_constrained

pytestmark = pytest.mark.gpu


def sample(problem, num):
    return problem.initial_state.sample(np.random.default_rng(5), num)


def test_ddp_under_constraints(agrees):
    problem = Problem(
        name="to-rest", state=["q", "v"], control=["f"], dynamics=lambda x, u, p: [x[1], u[0]],
        stage_cost=lambda x, u, p: u[0] ** 2, terminal_constraints=lambda x, p: x, state_bounds={"v": (-0.8, 0.8)},
        control_bounds={"f": (-3.0, 3.0)}, initial_state=Uniform([-1.0, -0.5], [1.0, 0.5]), dt=0.05, steps=40,
    )  # fmt: skip
    starts = sample(problem, 20)
    fraction = np.linspace(1, 0, problem.steps + 1)[None, :, None]
    guess = starts[:, None] * fraction, np.zeros((len(starts), problem.steps, 1))

    def solved(device):
        found = solve_constrained(problem, *guess, problem.param_values[None], device=device)
        assert found.converged.all() and found.violation.max() <= 1e-9
        return [found.value]

    agrees(solved, rtol=1e-8)
