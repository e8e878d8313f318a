"""DDP in tiles on a GPU: the CPU's solutions."""

import numpy as np
import pytest

from optctl.envs import oscillators
from optctl.solvers.batched import tiles
from optctl.solvers.methods import ddp as host

pytestmark = pytest.mark.gpu


def hold(problem, starts):
    """The state held and no control: a guess with a gap in every interval."""
    states = np.repeat(starts[:, None], problem.steps + 1, axis=1)
    return states, np.zeros((len(starts), problem.steps, problem.n_u))


def sample(problem, num):
    return problem.initial_state.sample(np.random.default_rng(5), num)


def test_ddp_in_tiles(agrees):
    problem = oscillators.chain(n=9, steps=20)
    guess = hold(problem, sample(problem, 6))

    def solved(device):
        found = host.solve_ddp(
            problem, *guess, problem.param_values[None], bundle=lambda p, steps=None: tiles.sweeps(p, steps, device)
        )
        assert found.converged.all()
        return [found.value, found.controls]

    agrees(solved, rtol=1e-8, atol=1e-7)
