"""Compiled functions equal CasADi's, and their derivatives CasADi's derivatives."""

import numpy as np
import pytest
import tiny
import torch
from scipy.integrate import solve_ivp
from selection import CHOSEN, cases

from optctl.codegen.launch import ranges
from optctl.codegen.program import build_program
from optctl.envs import CATALOGUE, make
from optctl.errors import ArgumentError
from optctl.simulation import CompiledFunction, compile_problem

B = 7


def inputs(problem, dtype=torch.float64, seed=0, batch=B):
    """States, controls and parameters of a batch, near the initial distribution and inside the bounds."""
    rng = np.random.default_rng(seed)
    x = problem.initial_state.sample(rng, batch)
    u = rng.uniform(problem.action_low, problem.action_high, (batch, problem.n_u))
    p = problem.param_values * rng.uniform(0.9, 1.1, (batch, problem.n_p))
    t = rng.uniform(0, problem.duration, batch)
    return [torch.tensor(a, dtype=dtype) for a in (x, u, p, t)]


def by_casadi(function, *arguments):
    """The function over the rows of its arguments; each result with the batch first."""
    rows = [function.call([np.asarray(a[i]) for a in arguments]) for i in range(len(arguments[0]))]
    return [np.array([np.array(row[j]) for row in rows]) for j in range(function.n_out())]


@pytest.fixture
def problem(request):
    return tiny.driven() if request.param == "driven" else make(request.param)


each_problem = pytest.mark.parametrize("problem", ["driven", *cases()], indirect=True)


@pytest.mark.prove
def test_the_chosen_problems_use_what_the_catalogue_uses():
    def used(name):
        problem = make(name)
        operations = {k.operation for k in build_program(problem.step_function).instructions}
        return operations | {problem.integrator, problem.horizon, problem.discrete}

    assert set().union(*map(used, CHOSEN)) == set().union(*map(used, CATALOGUE))


@each_problem
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_step_observe_and_terminal_cost_equal_casadi(problem, dtype, tolerance):
    compiled = compile_problem(problem, dtype=dtype)
    x, u, p, t = inputs(problem, compiled.dtype)
    after, cost = compiled.step(x, u, p, t)
    expected_after, expected_cost = by_casadi(problem.step_function, x, u, p, t)
    np.testing.assert_allclose(after, expected_after[:, :, 0], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(cost, expected_cost[:, 0, 0], rtol=tolerance, atol=tolerance)
    (y,) = by_casadi(problem.observation_function, x, p, t)
    np.testing.assert_allclose(compiled.observe(x, p, t), y[:, :, 0], rtol=tolerance, atol=tolerance)
    (phi,) = by_casadi(problem.terminal_cost_function, x, p, t)
    np.testing.assert_allclose(compiled.terminal_cost(x, p, t), phi[:, 0, 0], rtol=tolerance, atol=tolerance)


@each_problem
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 2e-3)])
def test_trajectories_equal_casadi(problem, dtype, tolerance):
    """A hundred steps under a fixed random input; float32 is compared over ten, where its rounding has not yet grown."""
    compiled = compile_problem(problem, dtype=dtype)
    x, _, p, _ = inputs(problem, compiled.dtype)
    state, rng = np.asarray(x, dtype=float), np.random.default_rng(1)
    for k in range(100 if dtype == "float64" else 10):
        u = torch.tensor(rng.uniform(-0.1, 0.1, (B, problem.n_u)), dtype=compiled.dtype)
        x, _ = compiled.step(x, u, p, k * problem.dt)
        state = by_casadi(problem.step_function, state, u, p, np.full(B, k * problem.dt))[0][:, :, 0]
    np.testing.assert_allclose(x, state, rtol=tolerance, atol=tolerance * max(1.0, np.abs(state).max()))


@pytest.mark.parametrize("problem", ["driven", "pendulum", "cartpole"], indirect=True)
def test_trajectories_equal_dop853(problem):
    """With 4 substeps to the interval an RK4 step of at most 0.1/4 s leaves errors below 1e-7 a trajectory.

    The rest of the catalogue is compared with DOP853 by way of CasADi, in tests/envs.
    """
    fine = problem if problem.integrator == "exponential" else problem.replace(substeps=4)
    compiled = compile_problem(fine, dtype="float64")
    x, u, _, _ = inputs(fine, batch=2)
    start = x.numpy().copy()
    for k in range(20):
        x, _ = compiled.step(x, u, None, k * fine.dt)
    for i in range(2):
        exact = solve_ivp(
            lambda t, s, i=i: np.array(fine.dynamics_function(s, u[i].numpy(), fine.param_values, t))[:, 0],
            (0, 20 * fine.dt), start[i], method="DOP853", rtol=1e-12, atol=1e-12,
        ).y[:, -1]  # fmt: skip
        np.testing.assert_allclose(x[i], exact, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", [name for name in CHOSEN if name != "qubit-transfer"])
def test_linearize_and_vjp_equal_casadi(name):
    derivatives_equal_casadi(make(name))


def test_linearize_and_vjp_of_a_problem_with_everything_equal_casadi():
    derivatives_equal_casadi(tiny.driven())


@pytest.mark.prove
def test_linearize_and_vjp_of_the_catalogue_equal_casadi():
    """Of what a dense Jacobian is quick to compile; the adjoint rollouts are tested for all."""
    for problem in map(make, CATALOGUE):
        if problem.n_x <= (2 if problem.integrator == "exponential" else 6):
            derivatives_equal_casadi(problem)


def derivatives_equal_casadi(problem):
    compiled = compile_problem(problem, dtype="float64")
    x, u, p, t = inputs(problem)
    a, b, cost_x, cost_u = compiled.linearize(x, u, p, t)
    jacobian = problem.step_function.jacobian()
    outputs = [jacobian.call([*(np.asarray(v[i]) for v in (x, u, p, t)), 0, 0]) for i in range(B)]
    blocks = [np.array([row[j].full() for row in outputs]) for j in range(8)]
    np.testing.assert_allclose(a, blocks[0], atol=1e-12)
    np.testing.assert_allclose(b, blocks[1], atol=1e-12)
    np.testing.assert_allclose(cost_x, blocks[4][:, 0], atol=1e-12)
    np.testing.assert_allclose(cost_u, blocks[5][:, 0], atol=1e-12)
    weights, weight = torch.randn(B, problem.n_x, dtype=x.dtype), torch.randn(B, dtype=x.dtype)
    gradients = compiled.vjp(x, u, p, t, weights, weight)
    for j, gradient in enumerate(gradients):
        expected = np.einsum("bi,bij->bj", weights, blocks[j]) + weight.numpy()[:, None] * blocks[4 + j][:, 0]
        np.testing.assert_allclose(gradient, expected.reshape(gradient.shape), atol=1e-10)


def test_gradcheck_of_every_differentiable_call():
    problem = tiny.driven()
    compiled = compile_problem(problem, dtype="float64")
    x, u, p, t = (a.requires_grad_() for a in inputs(problem, batch=3))
    w = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(compiled.step, (x, u, p, t))
    assert torch.autograd.gradcheck(compiled.step, (x, u, p, t, w))
    assert torch.autograd.gradcheck(compiled.observe, (x, p, t))
    assert torch.autograd.gradcheck(compiled.terminal_cost, (x, p))
    shared = p[:1].detach().requires_grad_()
    assert torch.autograd.gradcheck(compiled.step, (x, u, shared, t))


def test_gradients_of_a_matrix_valued_function_keep_their_layout():
    import casadi as ca

    x = ca.SX.sym("x", 2)
    f = CompiledFunction(
        ca.Function("f", [x], [ca.vertcat(ca.horzcat(x[0], x[1], x[0] * x[1]), ca.SX([[1, 2, 3]]))]), dtype="float64"
    )
    at = torch.tensor([[2.0, 5.0]], dtype=torch.float64, requires_grad=True)
    assert f(at)[0].tolist() == [[[2.0, 5.0, 10.0], [1.0, 2.0, 3.0]]]
    assert torch.autograd.gradcheck(lambda v: f(v)[0], (at,))


def test_a_rollout_is_differentiated_by_the_chain_rule():
    """x⁺ = x + k u over three steps with cost x²: J = x0² + (x0 + u)² + (x0 + 2u)²; at x0 = 1, u = 1, dJ/du = 4 + 12 = 16."""
    compiled = compile_problem(tiny.counter(), dtype="float64")
    u = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
    k = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
    x, total = torch.ones(1, 1, dtype=torch.float64), 0.0
    for _ in range(3):
        x, cost = compiled.step(x, u, k)
        total = total + cost.sum()
    total.backward()
    assert total.item() == 1 + 4 + 9
    assert u.grad.item() == 16.0 and k.grad.item() == 16.0


def test_process_noise_enters_with_the_square_root_of_the_interval():
    compiled = compile_problem(tiny.driven(), dtype="float64")
    x, u, p, t = inputs(tiny.driven())
    w = torch.randn(B, 2, dtype=x.dtype)
    kick = compiled.step(x, u, p, t, w)[0] - compiled.step(x, u, p, t)[0]
    np.testing.assert_allclose(kick[:, 0], np.sqrt(0.1) * 0.1 * w[:, 0], atol=1e-14)  # G = [[0.1, 0], [0.2 q, 0.3]]
    np.testing.assert_allclose(kick[:, 1], np.sqrt(0.1) * (0.2 * x[:, 0] * w[:, 0] + 0.3 * w[:, 1]), atol=1e-14)
    discrete = compile_problem(tiny.still(), dtype="float64")
    zero = torch.zeros(1, 2, dtype=torch.float64)
    assert discrete.step(zero, zero[:, :1], None, 0.0, torch.tensor([[3.0]], dtype=torch.float64))[0].tolist() == [
        [3.0, 6.0]
    ]


def test_a_large_batch_split_over_threads_equals_its_rows_alone():
    compiled = compile_problem(make("cartpole"))
    x, u, p, _ = inputs(make("cartpole"), torch.float32, batch=100_003)
    after, cost = compiled.step(x, u, p)
    assert len(ranges(100_003, 150, 2)) == 2
    for i in (0, 1, 50_047, 50_048, 100_002):
        one, c = compiled.step(x[i : i + 1], u[i : i + 1], p[i : i + 1])
        assert torch.equal(one[0], after[i]) and torch.equal(c[0], cost[i])


def test_an_empty_batch_and_a_non_contiguous_argument():
    compiled = compile_problem(make("cartpole"))
    after, cost = compiled.step(torch.zeros(0, 4), torch.zeros(0, 1))
    assert after.shape == (0, 4) and cost.shape == (0,)
    x = torch.randn(4, B).T
    assert torch.equal(compiled.step(x, torch.zeros(B, 1))[0], compiled.step(x.contiguous(), torch.zeros(B, 1))[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.step(torch.zeros(4), torch.zeros(1, 1)), r"Argument `x` must have shape \(B, 4\), but has shape \(4,\)\."),
        (lambda c: c.step(torch.zeros(2, 4), torch.zeros(3, 1)), r"`u` must have shape \(2, 1\), but has shape \(3, 1\)"),
        (lambda c: c.step([0.0], torch.zeros(1, 1)), "`x` must be a torch tensor, but is list"),
        (lambda c: c.step(torch.zeros(2, 4).double(), torch.zeros(2, 1)), "`x` must have dtype torch.float32, but has torch.float64"),
        (lambda c: c.step(torch.zeros(2, 4), torch.zeros(2, 1), torch.zeros(4)), r"`p` must have shape \(1, 4\) or \(2, 4\)"),
        (lambda c: c.step(torch.zeros(2, 4), torch.zeros(2, 1), torch.zeros(3, 4)), r"but has shape \(3, 4\)"),
        (lambda c: c.step(torch.zeros(2, 4), torch.zeros(2, 1), None, torch.zeros(3)), r"`t` must be a number or have shape \(2,\)"),
        (lambda c: c.step(torch.zeros(2, 4), torch.zeros(2, 1), None, 0.0, torch.zeros(2, 1)), "`w` must be absent for a problem without"),
        (lambda c: c.step(torch.zeros(2, 4, device="meta"), torch.zeros(2, 1)), "`x` must be on cpu, but is on meta"),
        (lambda c: c.vjp(torch.zeros(2, 4), torch.zeros(2, 1), None, 0.0, torch.zeros(2, 3), torch.zeros(2)), "`adj_x_next`"),
    ],
)  # fmt: skip
def test_wrong_arguments_get_one_clear_sentence(call, message):
    with pytest.raises(ArgumentError, match=message):
        call(compile_problem(make("cartpole")))


def test_unknown_devices_dtypes_and_problems_are_refused():
    for device in ("tpu", "quantum:0", 3.5):
        with pytest.raises(ArgumentError, match="`device` must be 'cpu', 'cuda'"):
            compile_problem("cartpole", device=device)
    with pytest.raises(ArgumentError, match="`dtype` must be 'float32' or 'float64', but is 'float16'"):
        compile_problem("cartpole", dtype="float16")
    with pytest.raises(ArgumentError, match="did you mean `cartpole`"):
        compile_problem("cartpol")
    with pytest.raises(ArgumentError, match="`problem` must be a Problem or a name in the catalogue, but is 3"):
        compile_problem(3)
    if not torch.cuda.is_available():
        with pytest.raises(ArgumentError, match="`device` must name a GPU that torch can use"):
            compile_problem("cartpole", device="cuda")
