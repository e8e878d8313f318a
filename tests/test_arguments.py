"""Bad arguments of the public functions: one sentence that names the argument, what it must be and what it was."""

import numpy as np
import pytest

import optctl
from optctl.errors import ArgumentError
from optctl.solvers import solve_many

LQR = optctl.make("double-integrator")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optctl.solve("pendulum", [0, 0]), "`problem` must be a Problem, but is 'pendulum'; `optctl.make"),
        (lambda: optctl.rollout("pendulum", None, [0, 0]), "`problem` must be a Problem"),
        (lambda: solve_many(LQR, np.zeros((1, 2)), rouns=3), "`rouns` must be an option of `ddp` .*, but is none"),
        (lambda: optctl.rollout(LQR, None, [0, 0], steps=0), "`steps` must be a positive integer, but is 0"),
        (lambda: LQR.replace(state=["x", "x"]), "`state` must name each entry once, but names `x` twice"),
        (lambda: optctl.compare("nowhere", ["lqr"]), "'nowhere'"),
        (lambda: optctl.compare(3, ["lqr"]), "`problem` must be a Problem or a name in the catalogue, but is 3"),
        (lambda: optctl.compare(LQR, ["lqr"], repetitions=0), "`repetitions` must be a positive integer, but is 0"),
        (lambda: optctl.compare(LQR, ["lqr"], tolerance=-1.0), "`tolerance` must not be negative, but is -1.0"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


def test_one_controller_without_a_reference_has_no_gap():
    comparison = optctl.compare(LQR, ["zero"], num_starts=5, reference=None)
    assert np.isnan(comparison["zero"].gap.mean.estimate) and "nothing to measure a gap to" in str(comparison)


def test_training_says_that_constraints_are_not_known_to_the_agent():
    from optctl.training.run import TrainConfig

    bounded = LQR.replace(state_bounds={"velocity": (-1.0, 1.0)})
    with pytest.warns(UserWarning, match="sac does not know them"):
        optctl.train("sac", bounded, config=TrainConfig(num_envs=4, iterations=1, evaluation_starts=2))
