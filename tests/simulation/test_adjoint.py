"""Gradients of whole rollouts: CasADi's own adjoint, finite differences, and what is kept in memory."""

import casadi as ca
import numpy as np
import pytest
import tiny
import torch
from selection import cases
from torch.utils._python_dispatch import TorchDispatchMode

from optctl.envs import CATALOGUE, make
from optctl.errors import ArgumentError
from optctl.simulation import compile_problem

B, T = 2, 60


def by_casadi(problem, x, u, p):
    """Cost of T steps and its gradients by CasADi's reverse mode through a `mapaccum` of T steps."""
    start, controls, params = ca.MX.sym("x", problem.n_x), ca.MX.sym("u", problem.n_u, T), ca.MX.sym("p", problem.n_p)
    times = ca.DM(np.arange(T) * problem.dt).T
    _, costs = problem.step_function.mapaccum(T)(start, controls, ca.repmat(params, 1, T), times)
    total = ca.sum2(costs)
    gradients = [total, *(ca.gradient(total, v) for v in (start, controls, params))]
    function = ca.Function("gradients", [start, controls, params], gradients)
    rows = [[np.array(g) for g in function.call([x[i], u[i].T, p])] for i in range(len(x))]
    cost, gx, gu, gp = (np.array([row[k] for row in rows]) for k in range(4))
    return cost[:, 0, 0], gx[:, :, 0], gu.transpose(0, 2, 1), gp[:, :, 0].sum(0, keepdims=True)


def errors(values, references):
    """Largest error of each array, relative to the reference's largest entry."""
    pairs = zip(values, references, strict=True)
    return np.array([np.abs(v - r).max(initial=0.0) / max(np.abs(r).max(initial=0.0), 1e-12) for v, r in pairs])


def by_warp(problem, dtype, x, u, p):
    """The same by the compiled rollout and its own adjoint."""
    inside = [torch.tensor(a.astype(dtype), requires_grad=True) for a in (x, u, p)]
    _, costs = compile_problem(problem, dtype=dtype).rollout(*inside)
    costs.sum().backward()
    return [costs[:, 0].detach().double().numpy(), *(a.grad.double().numpy() for a in inside)]


SMOOTH = [name for name in CATALOGUE if name not in ("pendulum-v1", "qubit-bang-bang")]
"""The others round, or take the lesser of two."""


def case(problem):
    """Starts, controls and parameters that float32 represents."""
    rng = np.random.default_rng(0)
    x = problem.initial_state.sample(rng, B)
    u = problem.to_control(rng.uniform(-0.3, 0.3, (B, T, problem.n_u)))
    return [a.astype(np.float32).astype(float) for a in (x, u, problem.param_values[None])]


@pytest.mark.parametrize("name", cases(SMOOTH))
def test_gradient_of_a_rollout_equals_casadi(name):
    """To 1e-10 relative to the largest entry of each gradient."""
    problem = make(name)
    x, u, p = case(problem)
    assert errors(by_warp(problem, "float64", x, u, p), by_casadi(problem, x, u, p[0])).max() < 1e-10


@pytest.mark.parametrize("name", cases(SMOOTH))
def test_gradient_of_a_rollout_in_float32_equals_casadi_to_rounding(name):
    """To 1e-3 relative to the largest entry of each gradient.

    Where the trajectory is so unstable that moving the start by one unit of float32 in the last place changes the exact
    gradients by more than 1e-4, float32 may be off by ten times that change.
    """
    problem = make(name)
    x, u, p = case(problem)
    reference = by_casadi(problem, x, u, p[0])
    wrong = errors(by_warp(problem, "float32", x, u, p), reference).max()
    if wrong >= 1e-3:
        moved = by_casadi(problem, x + np.spacing(np.abs(x).astype(np.float32)), u, p[0])
        assert wrong < 10 * errors(moved, reference).max()


def test_gradcheck_with_saved_states_uneven_checkpoints_noise_and_times():
    compiled = compile_problem(tiny.driven(), dtype="float64")
    torch.manual_seed(0)
    x, u, w, p, t = (torch.randn(s, dtype=torch.float64) for s in ((3, 2), (3, 12, 2), (3, 12, 2), (3, 2), (3,)))
    for each in (x, u, w, p, t):
        each.requires_grad_()
    call = lambda *a: compiled.rollout(*a, save_every=4, checkpoint_every=5)
    assert torch.autograd.gradcheck(call, (x, u, p, t, w))
    shared = p[:1].detach().requires_grad_(), t[:1].detach().requires_grad_()
    assert torch.autograd.gradcheck(call, (x, u, *shared, w))
    assert torch.autograd.gradcheck(lambda *a: compiled.rollout(*a), (x, u, p, t))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_rollout_is_its_steps_bit_for_bit(dtype):
    """One environment, a tile and a bit, and noise; saved states and sums of costs where they belong."""
    problem = tiny.driven()
    compiled = compile_problem(problem, dtype=dtype)
    for batch in (1, 300):
        torch.manual_seed(0)
        x, u, w = (torch.randn(s, dtype=compiled.dtype) for s in ((batch, 2), (batch, 6, 2), (batch, 6, 2)))
        states, costs = compiled.rollout(x, u, None, 0.5, w, save_every=3)
        assert states.shape == (batch, 2, 2) and costs.shape == (batch, 2)
        paid, at = [], torch.tensor(0.5, dtype=compiled.dtype)
        for k in range(6):
            clock = at + torch.tensor(k, dtype=compiled.dtype) * torch.tensor(problem.dt, dtype=compiled.dtype)
            x, cost = compiled.step(x, u[:, k].contiguous(), None, clock[None], w[:, k].contiguous())
            paid.append(cost)
            if k in (2, 5):
                assert torch.equal(states[:, k // 3], x)
                torch.testing.assert_close(costs[:, k // 3], sum(paid[k - 2 : k + 1]))


def test_gradients_of_a_large_batch_are_those_of_its_rows():
    compiled = compile_problem(make("cartpole"))
    torch.manual_seed(0)
    x, u = torch.randn(70_001, 4).requires_grad_(), torch.randn(70_001, 7, 1).requires_grad_()
    compiled.rollout(x, u)[1].sum().backward()
    for i in (0, 255, 256, 35_007, 70_000):
        y, v = x[i : i + 1].detach().requires_grad_(), u[i : i + 1].detach().requires_grad_()
        compiled.rollout(y, v)[1].sum().backward()
        assert torch.equal(y.grad[0], x.grad[i]) and torch.equal(v.grad[0], u.grad[i])


class Allocations(TorchDispatchMode):
    """Bytes of every new tensor."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if "empty" in function.__name__ or "clone" in function.__name__ or "zeros" in function.__name__:
            self.bytes += result.numel() * result.element_size()
        return result


def test_memory_of_4096_environments_over_1000_steps():
    """32 = ⌈√1000⌉: 32 checkpoints of 4,096 · 2 float32 are 1 MiB kept, and 32 states more computed again, 1 MiB."""
    compiled = compile_problem("pendulum")
    x, u = torch.zeros(4096, 2).requires_grad_(), torch.zeros(1000, 4096, 1).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda a: kept.append(a) or a, lambda a: a), Allocations() as forward:
        _, costs = compiled.rollout(x, u.transpose(0, 1))
    own = [a for a in kept if a.data_ptr() != u.data_ptr() and a.numel() > 4096]
    assert [a.numel() * 4 for a in own] == [2**20]
    results = 4096 * (2 + 1) * 4
    assert forward.bytes <= 2**20 + results + 4096
    with Allocations() as backward:
        torch.autograd.grad(costs.sum(), [x, u])
    gradients = 4096 * (2 + 4 + 1) * 4 + 1000 * 4096 * 4  # start, parameters, time; controls
    assert 2**20 + gradients <= backward.bytes <= 2**20 + gradients + 10 * 4096 * 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c, x, u: c.rollout(x, u[0]), r"`u` must have shape \(2, T, 1\), but has shape \(6, 1\)"),
        (lambda c, x, u: c.rollout(x, u[:, :0]), "`u` must have at least one step"),
        (lambda c, x, u: c.rollout(x, u, save_every=4), "`save_every` must divide the 6 steps, but is 4"),
        (lambda c, x, u: c.rollout(x, u, save_every=0), "`save_every` must be a positive integer, but is 0"),
        (lambda c, x, u: c.rollout(x, u, checkpoint_every=1.5), "`checkpoint_every` must be a positive integer, but is 1.5"),
        (lambda c, x, u: c.rollout(x, u, w=u), "`w` must be absent for a problem without process noise"),
        (lambda c, x, u: c.rollout(x[0], u), r"`x` must have shape \(B, 4\)"),
    ],
)  # fmt: skip
def test_wrong_arguments_get_one_clear_sentence(call, message):
    with pytest.raises(ArgumentError, match=message):
        call(compile_problem("cartpole"), torch.zeros(2, 4), torch.zeros(2, 6, 1))
