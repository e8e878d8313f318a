"""Batched DDP, with and without constraints and in tiles, and model-predictive control on a GPU: the CPU's solutions."""

import numpy as np
import optima
import pytest

from optctl import envs
from optctl.envs import oscillators
from optctl.problem import Problem, Uniform
from optctl.solvers.batched import tiles
from optctl.solvers.batched.constrained import solve_constrained
from optctl.solvers.batched.ddp import solve_ddp
from optctl.solvers.feedback.mpc import MpcController
from optctl.solvers.methods import ddp as host

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


def test_model_predictive_control(agrees):
    problem = envs.make("pendulum", steps=60)
    starts = sample(problem, 8)

    def controls(device):
        law = MpcController(problem, horizon=15, device=device)
        law.reset(starts, problem.param_values[None])
        return [law(starts + 0.01 * k, k * problem.dt) for k in range(3)]

    agrees(controls, rtol=1e-7, atol=1e-7)
