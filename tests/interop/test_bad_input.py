"""What docs/ecosystem.md says of bad input, wherever it comes in: one sentence that names the argument."""

import gymnasium
import numpy as np
import pytest
import torch

import optctl
from optctl.errors import ArgumentError
from optctl.interop import GymEnv, GymVectorEnv, from_policy
from optctl.problem import quantum

PENDULUM = optctl.make("pendulum")
LOWERING = np.array([[0.0, 1.0], [0.0, 0.0]])


def states(dynamics):
    """A problem of two states with these dynamics."""
    return PENDULUM.replace(dynamics=dynamics)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        # states
        (lambda: optctl.solve(PENDULUM, [0.0] * 3), r"`x0` must have shape \(2,\) or \(B, 2\), but has shape \(3,\)"),
        (lambda: optctl.solve(PENDULUM, [0.0, np.nan]), "`x0` must be finite, but holds NaN or infinity"),
        (lambda: optctl.make_vec(PENDULUM, 4).reset(options={"state": np.zeros((4, 3))}),
         r"`state` must have shape \(1, 2\) or \(4, 2\), but has shape \(4, 3\)"),
        (lambda: GymEnv(PENDULUM).reset(options={"state": np.zeros(3)}),
         r"`options\['state'\]` must have shape \(2,\), but has shape \(3,\)"),
        # actions
        (lambda: optctl.make_vec(PENDULUM, 4).step(torch.zeros(4, 2)), r"`action` must have shape \(4, 1\), but has shape \(4, 2\)"),
        (lambda: GymVectorEnv(PENDULUM, 4).step(np.zeros((3, 1))), r"`action` must have shape \(4, 1\), but has shape \(3, 1\)"),
        (lambda: optctl.rollout(PENDULUM, from_policy(PENDULUM, lambda obs: obs), [0.0, 0.0], steps=1),
         r"`act` must return actions of shape \(1, 1\), but returns shape \(1, 3\)"),
        # parameters and options
        (lambda: optctl.make_vec(PENDULUM, 4, params=[[1.0]]), r"`params` must have shape \(1, 3\) or \(4, 3\), but has shape \(1, 1\)"),
        (lambda: optctl.make_vec(PENDULUM, 4, params=[[1.0, np.inf, 9.81]]), "`params` must be finite, but has entries that are not"),
        (lambda: PENDULUM.replace(param_ranges={"mass": (2.0, 1.0)}), "`param_ranges` must have low < high for `mass`, but has low 2.0"),
        (lambda: PENDULUM.replace(dt=-0.1), "`dt` must be a positive number, but is -0.1"),
        (lambda: optctl.make("qubit-transfer", steps=0), "`steps` must be a positive integer, but is 0"),
        (lambda: optctl.make("qubit-gate", duration=-1.0), "`duration` must be positive, but is -1.0"),
        (lambda: optctl.make("damped-qubit", energy=-1.0), "`energy` must not be negative, but is -1.0"),
        (lambda: optctl.make("moved-trap", steps=0), "`steps` must be positive, but is 0"),
        (lambda: optctl.make("parametric-oscillator", depth=2.0), "`depth` must lie between 0 and 1, but is 2.0"),
        (lambda: optctl.make("pendulum", mass=2.0), "`options` must be among dt, steps for `pendulum`, but hold mass"),
        # names
        (lambda: optctl.make("cartpol"), r"but is 'cartpol'; did you mean `cartpole`\?"),
        (lambda: optctl.make_vec("xyzzy", 2), "`name` must be a problem of the catalogue, but is 'xyzzy'; the problems are"),
        # quantum systems
        (lambda: quantum.ground_state(LOWERING), "`hamiltonian` must be Hermitian, but differs from its adjoint by 1"),
        (lambda: states(lambda x, u, p: quantum.schroedinger(x, [(1.0, LOWERING)])), "must be Hermitian, but differs"),
        (lambda: quantum.to_bloch(np.diag([1.5, -0.5])), "must have no negative eigenvalue, but has the eigenvalue -0.5"),
        (lambda: quantum.check_ket([1.0, 1.0]), "`state` must have norm 1, but has norm 1.41421"),
        # functions
        (lambda: states(lambda x, u, p: x[0]), r"`dynamics` must return shape \(2, 1\), one entry per state, but returns shape \(1, 1\)"),
        (lambda: PENDULUM.replace(stage_cost=lambda x, u, p: x), r"`stage_cost` must return shape \(1, 1\), but returns shape \(2, 1\)"),
        (lambda: states(lambda x: x), "`dynamics` must take 3 arguments, or one more for the time, but takes 1"),
        (lambda: states(lambda x, u, p: [x[1], p.weight]), "Parameter `weight` is used but not declared"),
    ],
)  # fmt: skip
def test_one_sentence_says_what_is_wrong(call, sentence):
    with pytest.raises(ArgumentError, match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_actions_outside_are_clipped_alike_everywhere():
    env, envs, batch = GymEnv(PENDULUM), GymVectorEnv(PENDULUM, 1), optctl.make_vec(PENDULUM, 1)
    for each in (env, envs, batch):
        each.reset(seed=0)
    found = [
        env.step(np.array([9.0]))[0],
        envs.step(np.array([[9.0]]))[0][0],
        batch.step(torch.tensor([[9.0]]))[0][0].numpy(),
    ]
    batch.reset(seed=0)
    assert all(obs.tolist() == batch.step(torch.ones(1, 1))[0][0].tolist() for obs in found[:1])
    assert found[0].tolist() == found[1].tolist() == found[2].tolist()
    assert from_policy(PENDULUM, lambda obs: 9.0 + 0 * obs[:, :1])(np.zeros((3, 2)), 0.0).tolist() == [[2.0]] * 3


def test_plants_outside_their_ranges_are_allowed():
    env = optctl.make_vec(PENDULUM, 2, params=[[5.0, 1.0, 9.81]])
    assert PENDULUM.param_ranges["mass"][1] < 5.0
    assert env.reset(seed=0)[0].isfinite().all() and env.step(torch.zeros(2, 1))[0].isfinite().all()


def test_an_unknown_id_is_gymnasiums_own_error():
    import optctl.gym  # noqa: F401

    with pytest.raises(gymnasium.error.NameNotFound):
        gymnasium.make("optctl/cartpol-v0")
