"""Dynamic programming on a grid on a GPU: the CPU's values."""

import casadi as ca
import pytest

from optctl import envs
from optctl.problem import Problem, Uniform
from optctl.solvers.feedback.hjb import HjbController

pytestmark = pytest.mark.gpu


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
