import numpy as np
import pytest

import optctl
from optctl.errors import ArgumentError
from optctl.hybrid import dataset


@pytest.fixture(scope="module")
def exchanged(tmp_path_factory):
    """A set, and what comes back from Minari."""
    folder = tmp_path_factory.mktemp("minari")
    problem = optctl.make("pendulum", steps=40)
    made = dataset.generate(problem, 3, folder / "set")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder))
        stored = dataset.to_minari(made, problem, "optctl/exchange/optimal-v0")
        yield problem, made, stored


def test_a_set_comes_back_from_minari_as_it_went(exchanged):
    problem, made, stored = exchanged
    back = dataset.from_minari(stored, problem)
    assert len(back) == len(made) > 0
    for name in ("states", "controls", "costs", "costates"):
        np.testing.assert_allclose(getattr(back.trajectory, name), getattr(made.trajectory, name), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(back.values, made.values, rtol=1e-6, atol=1e-6)
    assert back.metadata["fingerprint"] == problem.fingerprint


def test_episodes_that_are_not_the_problem_s_are_refused(exchanged):
    problem, _, stored = exchanged
    with pytest.raises(ArgumentError, match=r"`dataset` must hold episodes of 41 actions of shape \(1,\)"):
        dataset.from_minari(stored, problem.replace(steps=41))
