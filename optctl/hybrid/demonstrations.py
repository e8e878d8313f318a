"""Optimal trajectories → demonstrations: states with the optimal action, cost-to-go and costate, and states around them.

Along an optimal trajectory the second-order sweep gives gains K and value Hessians P, so a perturbed state x* + δ has, to first order,

    u = u* − K δ,        V(x* + δ) = V + λ'δ + ½ δ'P δ,        λ(x* + δ) = λ + P δ

(Bryson and Ho, Applied Optimal Control, 1975, §6.3, neighbouring extremals). A learner discounts by γ, the optimum does not: values and
gradients for a given γ are obtained by the recursion along the trajectory under its own feedback,

    q_k = l_x + γ A' w_{k+1},     w_k = l_x − K'l_u + γ (A − B K)' w_{k+1},     w_T = φ_x,

where q_k = ∂Q/∂x at the demonstrated action and w_k = dV/dx; at γ = 1 both equal the costate where the control is interior.
"""

from __future__ import annotations

from dataclasses import dataclass

import casadi as ca
import numpy as np

from optctl.errors import require
from optctl.problem import Problem
from optctl.problem.controller import check_params
from optctl.problem.trajectory import Trajectory


@dataclass(frozen=True, eq=False)
class Demonstrations:
    """N demonstrated decisions, numpy float64."""

    state: np.ndarray
    """(N, n_x)."""
    time: np.ndarray
    """(N,) [s]."""
    obs: np.ndarray
    """(N, n_y): the observation of the state."""
    obs_jacobian: np.ndarray
    """(N, n_y, n_x): ∂y/∂x."""
    action: np.ndarray
    """(N, n_u) in [−1, 1]."""
    reward: np.ndarray
    """(N,): minus the cost of the step, terminal cost included where the horizon ends."""
    next_obs: np.ndarray
    """(N, n_y)."""
    terminated: np.ndarray
    """(N,) bool: the step reached the end of a finite horizon."""
    value: np.ndarray
    """(N,): undiscounted cost-to-go J*."""
    costate: np.ndarray
    """(N, n_x): λ = ∂J*/∂x; NaN where the trajectory's is not given."""
    discounted_value: np.ndarray
    """(N,): cost-to-go discounted by γ per step."""
    discounted_gradient: np.ndarray
    """(N, n_x): ∂/∂x of the discounted cost of taking the demonstrated action, then following the demonstration; NaN where λ is."""

    def __len__(self) -> int:
        return len(self.state)


def demonstrations_from(
    problem: Problem,
    trajectories: Trajectory,
    gains: np.ndarray,
    hessians: np.ndarray,
    *,
    gamma: float = 1.0,
    perturbed: float = 0.5,
    spread: float = 0.1,
    seed: int = 0,
    params: object = None,
    rest: float = 1e-5,
) -> Demonstrations:
    """Demonstrations from a batch (B, …) of optimal trajectories, and for each of their states `perturbed` states more, drawn around
    those from which no bound is active any more and whose costate, gain and Hessian are given (not NaN).

    gains (B, T, n_u, n_x), hessians (B, T + 1, n_x, n_x). Perturbations are normal with standard deviation `spread` times that of
    the demonstrated states. Where an infinite horizon has come to rest (a cost-to-go below `rest` times the mean one at the
    start), the trajectory says nothing new and is left out.
    """
    require(trajectories.costates is not None, "trajectories", "carry costates", "they have none")
    assert trajectories.costates is not None
    require(
        len(trajectories.batch_shape) == 1, "trajectories", "have one batch axis", f"has {trajectories.batch_shape}"
    )
    num, length = trajectories.controls.shape[:2]
    p = np.broadcast_to(check_params(problem, params, num), (num, problem.n_p))
    rng = np.random.default_rng(seed)
    finite = problem.horizon == "finite"

    value = np.cumsum(trajectories.costs[:, ::-1], axis=1)[:, ::-1] + trajectories.terminal_cost[:, None]
    discounted, gradient, slope = _discounted(problem, trajectories, gains, p, gamma)
    moving: np.ndarray = np.ones((num, length), bool) if finite else np.abs(value) >= rest * np.abs(value[:, :1]).mean()
    scale = spread * trajectories.states[moving[:, : length + 1].nonzero()].std(axis=0)
    # A bound that is active later on shifts its switching time, which the second-order sweep does not see.
    margin = 1e-6 * (problem.action_high - problem.action_low)
    below, above = problem.control_low + margin, problem.control_high - margin
    active = (trajectories.controls <= below) | (trajectories.controls >= above)
    known = np.isfinite(trajectories.costates[:, :-1]).all(axis=-1)
    near = known & np.isfinite(gains).all(axis=(-2, -1)) & np.isfinite(hessians[:, :-1]).all(axis=(-2, -1))
    free = moving & near & ~np.logical_or.accumulate(active.any(axis=-1)[:, ::-1], axis=1)[:, ::-1]
    b, k = np.nonzero(moving)
    chosen = rng.integers(0, max(1, free.sum()), round(perturbed * len(b)) if free.any() else 0)
    near_b, near_k = (index[chosen] for index in np.nonzero(free))
    b, k = np.concatenate([b, near_b]), np.concatenate([k, near_k])
    delta = scale * rng.standard_normal((len(b), problem.n_x))
    shown = int(moving.sum())
    delta[:shown] = 0.0
    along = lambda slopes: np.concatenate(
        [np.zeros(shown), (slopes[shown:] * delta[shown:]).sum(-1)]
    )  # NaN · 0 is no number
    turned = lambda matrices: np.concatenate(
        [np.zeros((shown, matrices.shape[-2])), np.einsum("nij,nj->ni", matrices[shown:], delta[shown:])]
    )
    bend = turned(hessians[b, k])
    curvature = 0.5 * (bend * delta).sum(-1)
    costate = trajectories.costates[b, k]
    controls = trajectories.controls[b, k] - turned(gains[b, k])
    return _decisions(
        problem,
        trajectories.states[b, k] + delta,
        np.clip(controls, problem.control_low, problem.control_high),
        k * problem.dt,
        p[b],
        value=value[b, k] + along(costate) + curvature,
        costate=costate + bend,
        discounted_value=discounted[b, k] + along(slope[b, k]) + curvature,
        discounted_gradient=np.where(known[b, k, None], gradient[b, k], np.nan) + bend,
    )


def _discounted(
    problem: Problem, trajectories: Trajectory, gains: np.ndarray, p: np.ndarray, gamma: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Discounted cost-to-go (B, T), q and w (B, T, n_x)."""
    num, length, n_u = trajectories.controls.shape
    n_x = problem.n_x
    x, u, q, t = problem.x, problem.u, problem.p, problem.t
    after, cost = problem.step_function(x, u, q, t)
    slopes = ca.Function(
        "slopes", [x, u, q, t], [ca.jacobian(after, ca.vertcat(x, u)), ca.gradient(cost, ca.vertcat(x, u))]
    )
    flat = lambda a: a.reshape(num * length, -1).T
    times = np.tile(np.arange(length) * problem.dt, num)[None]
    jac, grad = slopes(
        flat(trajectories.states[:, :-1]), flat(trajectories.controls), np.repeat(p, length, axis=0).T, times
    )
    jac = np.asarray(jac).reshape(n_x, num, length, n_x + n_u).transpose(1, 2, 0, 3)
    grad = np.asarray(grad).reshape(n_x + n_u, num, length).transpose(1, 2, 0)
    value = trajectories.terminal_cost.copy()
    w = np.zeros((num, n_x))
    if problem.horizon == "finite":
        phi = problem.terminal_cost_function(x, q, t)
        end = ca.Function("end", [x, q, t], [ca.gradient(phi, x)])
        w = np.asarray(end(trajectories.states[:, -1].T, p.T, problem.duration)).T
    values, gradients, totals = np.empty((num, length)), np.empty((num, length, n_x)), np.empty((num, length, n_x))
    for k in reversed(range(length)):
        a, b = jac[:, k, :, :n_x], jac[:, k, :, n_x:]
        carried = gamma * np.einsum("nji,nj->ni", a, w)
        through = grad[:, k, n_x:] + gamma * np.einsum("nji,nj->ni", b, w)
        gradients[:, k] = grad[:, k, :n_x] + carried
        totals[:, k] = w = gradients[:, k] - np.einsum("nji,nj->ni", gains[:, k], through)
        value = trajectories.costs[:, k] + gamma * value
        values[:, k] = value
    return values, gradients, totals


def _decisions(
    problem: Problem, states: np.ndarray, controls: np.ndarray, times: np.ndarray, p: np.ndarray, **known: np.ndarray
) -> Demonstrations:
    """Step the problem once from every state and fill in what a learner sees."""
    x, q, t = problem.x, problem.p, problem.t
    y = problem.observation_function(x, q, t)
    observe = ca.Function("observe", [x, q, t], [y, ca.jacobian(y, x)])
    after, cost = problem.step_function(states.T, controls.T, p.T, times[None])
    after, cost = np.asarray(after).T, np.asarray(cost).ravel()
    obs, jacobian = observe(states.T, p.T, times[None])
    later = times + problem.dt
    next_obs = problem.observation_function(after.T, p.T, later[None])
    terminated = np.zeros(len(states), bool)
    if problem.horizon == "finite":
        terminated = np.rint(later / problem.dt).astype(int) >= problem.steps
        end = np.asarray(problem.terminal_cost_function(after.T, p.T, later[None])).ravel()
        cost = cost + np.where(terminated, end, 0.0)
    return Demonstrations(
        state=states,
        time=times,
        obs=np.asarray(obs).T,
        obs_jacobian=np.asarray(jacobian).reshape(problem.n_y, len(states), problem.n_x).transpose(1, 0, 2),
        action=problem.to_action(controls),
        reward=-cost,
        next_obs=np.asarray(next_obs).T,
        terminated=terminated,
        **known,
    )
