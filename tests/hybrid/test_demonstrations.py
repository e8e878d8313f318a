"""Demonstrations against Riccati recursions written down here, and against costs of perturbed rollouts."""

import dataclasses

import numpy as np
import pytest

import optctl
from optctl.errors import ArgumentError
from optctl.hybrid.demonstrations import demonstrations_from
from optctl.problem import Problem, Uniform
from optctl.problem.controller import PlanController, rollout
from optctl.problem.trajectory import Trajectory
from optctl.solvers import solve_many

A, B = np.array([[1.0, 0.1], [-0.05, 0.95]]), np.array([[0.0], [0.1]])
Q, R, END, STEPS = np.diag([1.0, 0.3]), np.array([[0.2]]), np.diag([4.0, 1.0]), 12


def linear(**changes):
    """x⁺ = A x + B u, cost x'Qx + u'Ru, x'END x at the end."""
    return Problem(
        name="taught", state=["q", "v"], control=["u"], control_scale={"u": 10.0}, dt=0.1, steps=STEPS,
        transition=lambda x, u, p: A @ x + B @ u, stage_cost=lambda x, u, p: x.T @ Q @ x + u.T @ R @ u,
        terminal_cost=lambda x, p: x.T @ END @ x, initial_state=Uniform([-1.0, -1.0], [1.0, 1.0]),
    ).replace(**changes)  # fmt: skip


def riccati(gamma=1.0):
    """(K, P) of the optimum, and P of its own gains discounted by γ."""
    P, discounted, gains, values = END, END, [], [(END, END)]
    for _ in range(STEPS):
        K = np.linalg.solve(R + B.T @ P @ B, B.T @ P @ A)
        closed = A - B @ K
        P = Q + K.T @ R @ K + closed.T @ P @ closed
        discounted = Q + K.T @ R @ K + gamma * closed.T @ discounted @ closed
        gains.append(K)
        values.append((P, discounted))
    return gains[::-1], [p for p, _ in values[::-1]], [d for _, d in values[::-1]]


def taught(problem, num=5, **options):
    starts = problem.initial_state.sample(np.random.default_rng(0), num)
    found = solve_many(problem, starts)
    assert found.ok.all()
    return found, demonstrations_from(problem, found.trajectory, found.gains, found.hessians, **options)


def test_of_a_linear_problem_every_label_is_exact_around_the_trajectories_too():
    problem = linear()
    found, data = taught(problem, perturbed=1.0, spread=0.5, seed=3)
    gains, values, _ = riccati()
    shown = found.trajectory.controls.shape[0] * STEPS
    assert len(data) == 2 * shown
    k = np.rint(data.time / problem.dt).astype(int)
    x = data.state
    assert np.array_equal(x[:shown], found.trajectory.states[:, :-1].reshape(-1, 2))
    apart = np.abs(x[shown:, None] - x[None, :shown]).max(axis=-1).min(axis=1)
    assert np.median(apart) > 0.01  # perturbed indeed
    P, K = np.array(values)[k], np.array(gains)[k]
    u = -np.einsum("nij,nj->ni", K, x)
    np.testing.assert_allclose(data.action, u / 10, atol=1e-9)
    np.testing.assert_allclose(data.value, np.einsum("ni,nij,nj->n", x, P, x), atol=1e-9)
    np.testing.assert_allclose(data.costate, 2 * np.einsum("nij,nj->ni", P, x), atol=1e-9)
    after = x @ A.T + u @ B.T
    np.testing.assert_allclose(data.next_obs[:, :2], after, atol=1e-9)
    last = k == STEPS - 1
    assert np.array_equal(data.terminated, last)
    end = np.where(last, np.einsum("ni,ij,nj->n", after, END, after), 0.0)
    cost = np.einsum("ni,ij,nj->n", x, Q, x) + np.einsum("ni,ij,nj->n", u, R, u) + end
    np.testing.assert_allclose(-data.reward, cost, atol=1e-9)


def test_discounted_labels_are_those_of_the_demonstrated_gains():
    problem, gamma = linear(), 0.9
    _, data = taught(problem, gamma=gamma, perturbed=0.0)
    gains, _, discounted = riccati(gamma)
    k = np.rint(data.time / problem.dt).astype(int)
    x, K = data.state, np.array(gains)[k]
    np.testing.assert_allclose(
        data.discounted_value, np.einsum("ni,nij,nj->n", x, np.array(discounted)[k], x), atol=1e-9
    )
    after = x @ A.T - np.einsum("nij,nj->ni", K, x) @ B.T
    ahead = np.einsum("nij,nj->ni", np.array(discounted)[k + 1], after)
    np.testing.assert_allclose(data.discounted_gradient, 2 * (x @ Q + gamma * ahead @ A), atol=1e-9)


def test_discounted_values_around_a_trajectory_hold_to_first_order():
    """γ = 0.5, far from one: J_γ of the plan with its feedback from x₀ + δ, as rolled out."""
    problem, gamma = optctl.make("pendulum", steps=40).replace(control_bounds={"torque": (-50.0, 50.0)}), 0.5
    start = np.array([[0.3, 0.2]])
    found = solve_many(problem, start)
    weights = gamma ** np.arange(40)
    for size in (1e-3, 1e-4):
        data = demonstrations_from(
            problem, found.trajectory, found.gains, found.hessians, gamma=gamma, perturbed=20.0, spread=size, seed=1
        )
        first = np.flatnonzero((data.time == 0) & (np.arange(len(data)) >= 40))
        assert len(first) > 5
        num = len(first)
        repeated = lambda a, num=num: np.repeat(a, num, axis=0)
        t = found.trajectory
        plan = Trajectory(t.times, *(repeated(a) for a in (t.states, t.controls, t.costs, t.terminal_cost)))
        run = rollout(problem, PlanController(plan, problem.dt, repeated(found.gains)), data.state[first])
        charged = run.costs @ weights + gamma**40 * run.terminal_cost
        error = np.abs(data.discounted_value[first] - charged).max()
        moved = np.abs(data.state[first] - start).max()
        assert error < 2.0 * moved**2
        assert np.abs(data.discounted_value[first] - data.discounted_value[0]).max() > 20 * error


def test_no_state_is_perturbed_before_a_bound_is_active():
    problem = linear(control_bounds={"u": (-0.8, 0.8)})
    found, data = taught(problem, perturbed=1.0, spread=1e-6, num=20)
    u, shown = found.trajectory.controls[..., 0], 20 * STEPS
    active = np.abs(u) > 0.8 - 1e-5
    assert active.any() and (~active[:, -1]).any()
    source = np.argmin(np.abs(data.state[shown:, None] - data.state[None, :shown]).max(axis=-1), axis=1)
    assert len(source) > 20
    for b, k in zip(*np.divmod(source, STEPS), strict=True):
        assert not active[b, k:].any()


def test_what_has_come_to_rest_is_left_out():
    problem = optctl.make("double-integrator", steps=400)
    found, data = taught(problem, perturbed=0.0, rest=1e-3)
    ahead = found.trajectory.costs[:, ::-1].cumsum(axis=1)[:, ::-1]
    limit = 1e-3 * ahead[:, 0].mean()
    assert len(data) == (ahead >= limit).sum() < ahead.size / 2
    assert data.value.min() >= limit and not data.terminated.any()


def test_trajectories_without_costates_are_refused():
    problem = linear()
    found = solve_many(problem, np.ones((1, 2)))
    t = found.trajectory
    bare = Trajectory(t.times, t.states, t.controls, t.costs, t.terminal_cost)
    with pytest.raises(ArgumentError, match="`trajectories` must carry costates"):
        demonstrations_from(problem, bare, found.gains, found.hessians)


def test_what_is_not_given_of_a_trajectory_is_no_label_and_nothing_is_drawn_around_it():
    problem = linear()
    found = solve_many(problem, problem.initial_state.sample(np.random.default_rng(0), 5))
    whole = demonstrations_from(problem, found.trajectory, found.gains, found.hessians, perturbed=0.0)
    costates, gains, hessians = found.trajectory.costates.copy(), found.gains.copy(), found.hessians.copy()
    costates[0, :7], gains[1, 2], hessians[2, 4] = np.nan, np.nan, np.nan
    path = dataclasses.replace(found.trajectory, costates=costates)
    data = demonstrations_from(problem, path, gains, hessians, perturbed=3.0, spread=1e-3)
    shown = 5 * STEPS
    assert (
        np.isfinite(data.value).all()
        and np.isfinite(data.action).all()
        and np.isfinite(data.discounted_value[:shown]).all()
    )
    np.testing.assert_array_equal(data.value[:shown], whole.value)
    missing = np.isnan(data.costate[:shown]).any(axis=1).reshape(5, STEPS)
    assert missing[0, :7].all() and missing.sum() == 7
    # a gradient needs the costate and all later gains
    missing = np.isnan(data.discounted_gradient[:shown]).any(axis=1).reshape(5, STEPS)
    assert missing[0, :7].all() and missing[1, :2].all() and missing.sum() == 9
    first = data.state[:shown].reshape(5, STEPS, 2)
    near = np.abs(data.state[shown:, None, None] - first).max(axis=-1).reshape(3 * shown, shown).argmin(axis=1)
    assert not set(near) & {*range(7), STEPS + 2, 2 * STEPS + 4}
