"""Model-predictive control on a GPU: the CPU's controls."""

import numpy as np
import pytest

from optctl import envs
from optctl.solvers.feedback.mpc import MpcController

pytestmark = pytest.mark.gpu


def sample(problem, num):
    return problem.initial_state.sample(np.random.default_rng(5), num)


def test_model_predictive_control(agrees):
    problem = envs.make("pendulum", steps=60)
    starts = sample(problem, 8)

    def controls(device):
        law = MpcController(problem, horizon=15, device=device)
        law.reset(starts, problem.param_values[None])
        return [law(starts + 0.01 * k, k * problem.dt) for k in range(3)]

    agrees(controls, rtol=1e-7, atol=1e-7)
