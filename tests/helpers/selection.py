"""Problems of the catalogue for tests of all of them, and which are compiled at every test and which only by `make prove`."""

import functools

import pytest

from optctl.envs import CATALOGUE, make

made = functools.cache(make)
"""A problem is made once in a process and keeps what has been built for it; it is never changed."""

CHOSEN = (
    "pendulum-v1", "stiffened-trap-variance", "fitzhugh-nagumo", "double-integrator-tracking", "double-integrator-minimum-time",
    "cartpole", "qubit-transfer",
)  # fmt: skip
"""Their steps together use every operation, integrator and horizon of the catalogue; a test keeps that true."""


def cases(names=CATALOGUE):
    """The names as parameters of a test, of which those that are not chosen are left to `make prove`."""
    return [pytest.param(name, marks=() if name in CHOSEN else pytest.mark.prove) for name in names]
