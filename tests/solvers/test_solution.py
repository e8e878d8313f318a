"""What a solution claims, and how it prints."""

import numpy as np
import pytest

from optctl import envs
from optctl.solvers import Certificate, Solution, Status, Verdict
from optctl.trajectory import Trajectory


def _solution(status=Status.CONVERGED, **residuals):
    trajectory = Trajectory(
        times=np.arange(3),
        states=np.zeros((3, 1)),
        controls=np.zeros((2, 1)),
        costs=np.array([1.0, 2.0]),
        terminal_cost=np.asarray(0.5),
    )
    certificate = Certificate(**{"defect": 0.0, "stationarity": 0.0} | residuals)
    return Solution(
        problem="p", solver="s", trajectory=trajectory, status=status, certificate=certificate, wall_time=0.1
    )


def test_resimulation_gives_up_where_the_dynamics_leave_the_numbers():
    import casadi as ca

    from optctl.solvers.solution import resimulation

    problem = envs.make("double-integrator").replace(
        integrator="rk4", dynamics=lambda x, u, p: ca.vertcat(x[1], ca.log(x[0]) + u[0])
    )
    nowhere = Trajectory(np.arange(3.0), -np.ones((3, 2)), np.zeros((2, 1)), np.zeros(2), np.zeros(()))
    assert np.isnan(resimulation(problem, nowhere, problem.param_values))


def test_value_is_the_total_cost():
    assert _solution().value == 3.5


@pytest.mark.parametrize(
    ("solution", "verdict"),
    [
        (_solution(), Verdict.EXTREMAL),
        (_solution().replace(proved=True), Verdict.PROVED),
        (_solution(stationarity=1.0), Verdict.BEST_FOUND),
        (_solution(Status.STALLED, stationarity=1.0), Verdict.BEST_FOUND),
        (_solution(defect=1.0), Verdict.NOT_CONVERGED),
        (_solution(constraint_violation=1.0), Verdict.NOT_CONVERGED),
        (_solution(defect=float("nan")), Verdict.NOT_CONVERGED),
        (_solution(Status.MAX_ITERATIONS), Verdict.NOT_CONVERGED),
        (_solution(Status.INFEASIBLE), Verdict.NOT_CONVERGED),
    ],
)
def test_verdict(solution, verdict):
    assert solution.verdict is verdict


def test_every_status_carries_a_remedy_and_prints():
    for status in Status:
        assert status.value.endswith(".")
        assert status.value in str(_solution(status))
