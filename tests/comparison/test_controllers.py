"""What every named controller keeps; a new name in `CONTROLLERS` comes under this test."""

import numpy as np
import pytest

import optctl
from optctl.agents import AGENTS
from optctl.comparison.controllers import CLASSICAL, CONTROLLERS, TRAINED


@pytest.mark.parametrize("name", CLASSICAL)
def test_a_classical_controller_is_compared_by_its_name(name):
    problem = optctl.make("lqg") if name == "lqg" else optctl.make("double-integrator").replace(steps=30)
    if name == "hjb":  # its grid has edges
        problem = problem.replace(control_bounds={"force": (-5.0, 5.0)})
    reference = {"reference": None} if name == "lqg" else {}
    report = optctl.compare(problem, [name], num_starts=3, repetitions=20, **reference)
    assert np.isfinite(report[name].mean_cost)
    assert name in str(report)


def test_every_agent_has_its_names():
    assert set(TRAINED) == {*AGENTS, *(f"{name}-warm" for name, entry in AGENTS.items() if entry.cloneable)}
    assert set(CONTROLLERS) == {*CLASSICAL, *TRAINED}
