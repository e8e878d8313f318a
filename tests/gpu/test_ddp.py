"""Batched DDP on a GPU: the CPU's solutions."""

import numpy as np
import optima
import pytest

from optctl import envs
from optctl.solvers.batched.ddp import solve_ddp

pytestmark = pytest.mark.gpu


def hold(problem, starts):
    """The state held and no control: a guess with a gap in every interval."""
    states = np.repeat(starts[:, None], problem.steps + 1, axis=1)
    return states, np.zeros((len(starts), problem.steps, problem.n_u))


def sample(problem, num):
    return problem.initial_state.sample(np.random.default_rng(5), num)


@pytest.mark.parametrize(
    ("problem", "starts"),
    [
        (envs.make("pendulum", steps=60), sample(envs.make("pendulum"), 21)),
        (optima.van_der_pol(200, (-0.3, 1.0)), np.random.default_rng(0).uniform(-1, 1, (21, 2))),
    ],
    ids=["pendulum", "van-der-pol"],
)
def test_ddp(agrees, problem, starts):
    def solved(device):
        found = solve_ddp(problem, *hold(problem, starts), problem.param_values[None], device=device)
        assert found.converged.mean() > 0.9
        return [found.converged, np.where(found.converged, found.value, 0)]

    agrees(solved, rtol=1e-8)
