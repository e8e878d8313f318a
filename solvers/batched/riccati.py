"""Riccati equations of thousands of plants at once, in float64 on a CPU or a GPU: a kernel for recursions, batched linear algebra else.

Problem, letters and sources: `optctl.solvers.methods.lqr`, whose `lqr` treats one plant. Infinite horizon by structure-preserving doubling,

    A ← A (I + GH)⁻¹ A,   G ← G + A (I + GH)⁻¹ G A',   H ← H + A'H (I + GH)⁻¹ A  → P,      G₀ = B R⁻¹ B',  H₀ = Q − N R⁻¹ N'

to which a continuous equation is led by a Cayley transform, then one step of Newton's method (Kleinman), whose Lyapunov equation is
doubled as well. Finite horizon: the recursion as a kernel, or exponentials of the Hamiltonian matrix. What does not end in a
stabilising solution is given to `riccati_infinite` alone: its answer or its reason stands. No member sees another.
Sources: Chu, Fan, Lin, Wang, Int. J. Control 77 (2004) 767; Chu, Fan, Lin, Linear Algebra Appl. 396 (2005) 55; Kleinman, IEEE TAC 13
(1968) 114; Smith, SIAM J. Appl. Math. 16 (1968) 198.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
import warp as wp
from torch import Tensor

from optctl.codegen.cache import load_module
from optctl.codegen.cpp_source import native_module, with_numbers
from optctl.codegen.launch import launch_shared, one_thread, resolve_device, sharing_threads
from optctl.errors import ArgumentError, require
from optctl.problem import Problem
from optctl.problem.controller import check_params
from optctl.problem.structure import expansion, time_invariant
from optctl.solvers.batch import Batched
from optctl.solvers.batched.kernels import text
from optctl.solvers.batched.source import FLAGS, LANE_LOOP, LANES
from optctl.solvers.methods.lqr import LinearQuadratic, augmented, equilibrium, riccati_infinite

_DOUBLINGS = 60
_WIDE, _LARGEST = 48, 256
"""States up to which eight plants, and up to which one plant fits a thread's stack."""


@dataclass(frozen=True)
class Gains:
    """u = u₀ − K (x − x₀) − k and V = z'Pz + 2v'z + w with z = x − x₀, of every plant; NaN where there is none."""

    K: np.ndarray
    """(B, n_u, n_x); finite horizon: (B, N, n_u, n_x)."""
    k: np.ndarray
    P: np.ndarray
    """(B, n_x, n_x); finite horizon: (B, N + 1, n_x, n_x)."""
    v: np.ndarray
    w: np.ndarray
    about: tuple[np.ndarray, np.ndarray]
    """(B, n_x) and (B, n_u)."""
    messages: list[str]
    """Why a plant has no gain; empty where it has."""
    average_cost: np.ndarray | None = None
    """(B,), infinite horizon: cost per unit time (or per step) under the problem's process noise."""

    @property
    def ok(self) -> np.ndarray:
        """(B,)."""
        return np.array([not message for message in self.messages])

    def value(self, states: np.ndarray) -> np.ndarray:
        """V at the start of the horizon for states (B, n_x)."""
        P, v, w = (a[:, 0] if self.K.ndim == 4 else a for a in (self.P, self.v, self.w))
        z = states - self.about[0]
        return ((P @ z[..., None])[..., 0] * z + 2 * v * z).sum(axis=1) + w


# --- equations ----------------------------------------------------------------------------------------------------------


def _t(a: Tensor) -> Tensor:
    return a.transpose(-1, -2)


def _symmetric(a: Tensor) -> Tensor:
    return (a + _t(a)) / 2


def _solve(a: Tensor, b: Tensor) -> Tensor:
    """a⁻¹ b, not finite where a is singular."""
    return torch.linalg.solve_ex(a, b)[0]


def _size(a: Tensor) -> Tensor:
    return a.abs().amax(dim=(-2, -1), keepdim=True)


def doubling(A: Tensor, G: Tensor, H: Tensor) -> Tensor:
    """The stabilising solution of P = H + A'P(I + GP)⁻¹A. A member that has converged is left alone."""
    one, busy = (
        torch.eye(A.shape[-1], dtype=A.dtype, device=A.device),
        torch.ones_like(A[..., :1, :1], dtype=torch.bool),
    )
    for _ in range(_DOUBLINGS):
        solved = _solve(one + G @ H, torch.cat([A, G], dim=-1))
        left, right = solved.split(A.shape[-1], dim=-1)
        gain = _symmetric(_t(A) @ H @ left)
        A, G, H = (
            torch.where(busy, new, old)
            for new, old in ((A @ left, A), (G + _symmetric(A @ right @ _t(A)), G), (H + gain, H))
        )
        busy = busy & (_size(gain) > 1e-16 * _size(H)) & torch.isfinite(_size(H))
        if not busy.any():
            break
    return H


def lyapunov(A: Tensor, M: Tensor) -> Tensor:
    """P = M + A'PA for a stable A."""
    busy = torch.ones_like(A[..., :1, :1], dtype=torch.bool)
    for _ in range(_DOUBLINGS):
        gain = _symmetric(_t(A) @ M @ A)
        A, M = torch.where(busy, A @ A, A), torch.where(busy, M + gain, M)
        busy = busy & (_size(gain) > 1e-17 * _size(M)) & torch.isfinite(_size(M))
        if not busy.any():
            break
    return M


def infinite(matrices: list[Tensor], discrete: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(K, P, whether K stabilises and P solves the equation to rounding) of A, B, Q, N and R > 0."""
    A, B, Q, N, R = matrices
    one, weighted = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device), _solve(R, torch.cat([_t(N), _t(B)], dim=-1))
    cross, G = weighted[..., : A.shape[-1]], _symmetric(B @ weighted[..., A.shape[-1] :])
    F, H = A - B @ cross, _symmetric(Q - N @ cross)
    shift = (
        1.1 * torch.maximum(F.abs().sum(-1).amax(-1), (_size(G) * _size(H)).sqrt()[..., 0, 0])[..., None, None] + 1e-9
    )
    if discrete:
        P = doubling(F, G, H)
    else:
        left = F - shift * one
        W = left + G @ _solve(_t(left), H)
        inner = _solve(W, one)
        P = doubling(
            one + 2 * shift * inner,
            _symmetric(2 * shift * _solve(left, G) @ _t(inner)),
            _symmetric(2 * shift * _t(inner) @ _t(_solve(_t(left), H))),
        )

    def gain(P: Tensor) -> Tensor:
        return _solve(R + _t(B) @ P @ B, _t(B) @ P @ A + _t(N)) if discrete else _solve(R, _t(B) @ P + _t(N))

    K = gain(P)
    closed, M = A - B @ K, _symmetric(Q - N @ K - _t(K) @ _t(N) + _t(K) @ R @ K)
    if discrete:
        P = lyapunov(closed, M)
    else:
        inner = _solve(shift * one - closed, one)
        P = lyapunov((shift * one + closed) @ inner, 2 * shift * _t(inner) @ M @ inner)
    K = gain(P)
    closed = A - B @ K
    left = Q + _t(A) @ P @ closed - N @ K - P if discrete else Q + _t(A) @ P + P @ closed - N @ K
    terms = _size(Q) + _size(P) * (1 if discrete else _size(A) + _size(B) * _size(K))
    sound = torch.isfinite(_size(P))[..., 0, 0] & torch.isfinite(_size(K))[..., 0, 0]
    poles = torch.linalg.eigvals(torch.where(sound[..., None, None], closed, torch.zeros_like(closed)))
    stable = (poles.abs() < 1).all(-1) if discrete else (poles.real < 0).all(-1)
    return K, P, sound & stable & (_size(left) <= 1e-10 * terms)[..., 0, 0]


_ARGUMENTS = dict.fromkeys(
    ("a_in", "b_in", "q_in", "n_in", "r_in", "end", "gains", "values"), "wp.array(dtype=wp.float64)"
) | dict.fromkeys(("num", "steps", "stages", "threads", "offset"), "wp.int64")


def _lanes(n: int, device: str) -> int:
    return LANES if device == "cpu" and n <= _WIDE else 1


def source(n: int, m: int, device: str) -> str:
    """The module of the recursion for n states and m controls: eight plants of a thread in lock-step, on a GPU one."""
    body = with_numbers(text("riccati.cpp").replace("<lanes>", LANE_LOOP), {"N": n, "M": m, "LANES": _lanes(n, device)})
    return native_module("recursion", f"Riccati recursions with {n} states and {m} controls", _ARGUMENTS, body, FLAGS)


@functools.cache
def kernel(n: int, m: int, device: torch.device) -> wp.Kernel:
    """Compiled on first use."""
    return load_module(source(n, m, device.type), device).recursion


def finite(matrices: list[Tensor], P: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """(K, P) of the discrete problem over `steps` from P at the end, A, B, Q, N, R of shapes (B, 1 or steps, …); NaN where the cost is
    not positive definite in the controls."""
    num, stages, n, m = matrices[1].shape
    require(n <= _LARGEST, "problem", f"have fewer than {_LARGEST} states for batched recursions", f"has {n - 1}")
    where = P.device
    compiled = kernel(n, m, where)
    K, values = (torch.empty(num, *shape, dtype=P.dtype, device=where) for shape in ((steps, m, n), (steps + 1, n, n)))
    threads = sharing_threads(-(-num // _lanes(n, where.type)), where)
    launch_shared(compiled, threads, [*(a.contiguous() for a in (*matrices, P)), K, values, num, steps, stages], where)
    return K, values


def continuous(matrices: list[Tensor], P: Tensor, steps: int, dt: float) -> tuple[Tensor, Tensor]:
    """(K, P) of the differential equation with A, B, Q, N, R at the `steps` + 1 ends of intervals `dt`; see `lqr.riccati_continuous`."""
    A, B, Q, N, R = matrices
    n, inverse = A.shape[-1], _solve(R, torch.eye(R.shape[-1], dtype=R.dtype, device=R.device))
    F = A - B @ inverse @ _t(N)
    hamiltonian = torch.cat(
        [torch.cat([F, -B @ inverse @ _t(B)], -1), torch.cat([-Q + N @ inverse @ _t(N), -_t(F)], -1)], -2
    )
    pieces = max(1, int(np.ceil(dt * float(torch.nan_to_num(hamiltonian).abs().sum(-1).max()))))
    back, one = torch.linalg.matrix_exp(-hamiltonian * (dt / pieces)), torch.eye(n, dtype=A.dtype, device=A.device)
    values = [P]
    for _ in range(steps):
        for _ in range(pieces):
            XY = back @ torch.cat([one.expand_as(P), P], dim=-2)
            P = _symmetric(_t(_solve(_t(XY[:, :n]), _t(XY[:, n:]))))
        values.append(P)
    values = values[::-1]
    definite = (torch.linalg.cholesky_ex(R).info == 0)[:, None, None, None]
    both = torch.stack(values, dim=1)
    return torch.where(definite, inverse[:, None] @ (_t(B)[:, None] @ both + _t(N)[:, None]), torch.nan), both


# --- problems -----------------------------------------------------------------------------------------------------------


def matrices(
    problem: Problem, x: np.ndarray, u: np.ndarray, params: np.ndarray, discretised: bool, times: np.ndarray
) -> LinearQuadratic:
    """`lqr.expand` about (x, u) of every plant at every time: arrays (B, len(times), …)."""
    function, (num, m), n = Batched(expansion(problem, discretised)[0]), (len(params), len(times)), problem.n_x
    rows = [np.repeat(a, m, axis=0) for a in (x, u, params)]
    motion, jacobian, cost, gradient, hessian, *_ = function(*rows, np.tile(times, num)[:, None])
    end, end_gradient, end_hessian = np.zeros((num, 1)), np.zeros((num, n)), np.zeros((num, n, n))
    if problem.horizon == "finite":
        end, end_gradient, end_hessian = function(x, u, params, np.full((num, 1), problem.duration))[5:]
    lead, size = (num, m), n + problem.n_u
    turned = lambda a, rows: np.swapaxes(a.reshape(*lead, -1, rows), -1, -2)
    J, H, g = turned(jacobian, n), turned(hessian, size), gradient.reshape(*lead, size)
    H = (H + np.swapaxes(H, -1, -2)) / 4
    last = lambda a, *shape: np.broadcast_to(a.reshape(num, 1, *shape), (num, m, *shape))
    return LinearQuadratic(
        A=J[..., :n],
        B=J[..., n:],
        c=(motion - (rows[0] if discretised else 0.0)).reshape(*lead, n),
        Q=H[..., :n, :n],
        N=H[..., :n, n:],
        R=H[..., n:, n:],
        q=g[..., :n] / 2,
        r=g[..., n:] / 2,
        s=cost.reshape(lead),
        Q_end=last(end_hessian / 2, n, n),
        q_end=last(end_gradient / 2, n),
        s_end=last(end[:, 0]),
        discrete=discretised,
    )


def _references(
    problem: Problem, linearize_at: object, p: np.ndarray, messages: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """An equilibrium of every plant: that of the mean plant where it holds for all, else found plant by plant."""
    try:
        x, u = equilibrium(problem, linearize_at, p.mean(axis=0))
    except ArgumentError:
        x, u = np.zeros(problem.n_x), np.zeros(problem.n_u)
    states, controls = np.tile(x, (len(p), 1)), np.tile(u, (len(p), 1))
    now = np.zeros(1)
    for _ in range(20):
        m = matrices(problem, states, controls, p, True, now)
        step = (np.linalg.pinv(m.B[:, 0]) @ m.c[:, 0, :, None])[..., 0]
        controls = np.clip(controls - step, problem.control_low, problem.control_high)
    gap = np.abs(matrices(problem, states, controls, p, True, now).c).max(axis=(1, 2))
    for i in np.flatnonzero(~(gap < 1e-6 * (1 + np.abs(x).max()))):
        try:
            states[i], controls[i] = equilibrium(problem, linearize_at, p[i])
        except ArgumentError as error:
            messages[i] = str(error)
    return states, controls


def lqr(
    problem: Problem,
    params: np.ndarray,
    *,
    horizon: str | None = None,
    discretised: bool = True,
    linearize_at: object = None,
    device: str | torch.device = "cpu",
) -> Gains:
    """Gain and value of every plant of `params` (B, n_p), as `optctl.solvers.methods.lqr` gives them one by one.

    A plant without a stabilising gain says so in `messages`, has NaN for it, and leaves the others alone.
    """
    p = np.atleast_2d(np.asarray(params, dtype=float))
    p = check_params(problem, p, len(p))
    horizon = problem.horizon if horizon is None else horizon
    require(horizon in ("finite", "infinite"), "horizon", "be 'finite' or 'infinite'", f"is {horizon!r}")
    discretised = discretised or problem.discrete
    num, messages = len(p), [""] * len(p)
    linear, steady = expansion(problem, discretised)[1] and linearize_at is None, time_invariant(problem)
    x, u = np.zeros((num, problem.n_x)), np.zeros((num, problem.n_u))
    m = matrices(problem, x, u, p, discretised, np.zeros(1))
    affine = any(np.any(a) for a in (m.c, m.q, m.r))
    require(
        steady or (linear and horizon == "finite" and discretised),
        "problem",
        "be free of time, or linear, discretised and over a finite horizon",
        "depends on time",
    )
    if not linear or (horizon == "infinite" and affine):
        x, u = _references(problem, linearize_at, p, messages)
        m = matrices(problem, x, u, p, discretised, np.zeros(1))
    elif not steady:
        m = matrices(problem, x, u, p, discretised, problem.dt * np.arange(problem.steps))
    where = resolve_device(device)
    tensors = lambda *arrays: [torch.from_numpy(np.ascontiguousarray(a)).to(where) for a in arrays]
    numbers = lambda *arrays: [a.cpu().numpy() for a in arrays]
    average = None
    if horizon == "finite":
        a, b, q, n, end = augmented(m)
        A, B, Q, N, R, last = tensors(a, b, q, n, m.R, end[:, -1])
        if discretised:
            K, P = numbers(*finite([A, B, Q, N, R], last, problem.steps))
        else:
            first = [matrix[:, 0] for matrix in (A, B, Q, N, R)]
            with one_thread():
                K, P = numbers(*continuous(first, last, problem.steps, problem.dt))
        for i in np.flatnonzero(~np.isfinite(K).all(axis=(1, 2, 3))):
            messages[i] = messages[i] or "The cost is not positive definite in the controls, or the value is unbounded."
        k, v, w, K, P = K[..., -1], P[..., :-1, -1], P[..., -1, -1], K[..., :-1], P[..., :-1, :-1]
    else:
        single = [a[:, 0] for a in (m.A, m.B, m.Q, m.N, m.R)]
        with one_thread():
            K, P, good = numbers(*infinite(tensors(*single), m.discrete))
        for i in np.flatnonzero(~good):
            A, B, Q, N, R = (a[i] for a in single)
            none = np.zeros(problem.n_x)
            alone = LinearQuadratic(A, B, none, Q, N, R, none, np.zeros(problem.n_u), 0.0, 0 * Q, none, 0.0, m.discrete)
            try:
                K[i], P[i] = riccati_infinite(alone)
            except ArgumentError as error:
                messages[i] = messages[i] or str(error)
        k, v, w = np.zeros(u.shape), np.zeros(x.shape), np.zeros(num)
        if problem.diffusion_function is not None:
            G = Batched(problem.diffusion_function)(x, u, p, np.zeros((1, 1)))[0].reshape(num, -1, problem.n_x)
            average = ((G @ P) * G).sum(axis=(1, 2)) * (problem.dt if discretised and not problem.discrete else 1.0)
    lost = np.array([bool(message) for message in messages])
    for array in (K, k, P, v, w, *([] if average is None else [average])):
        array[lost] = np.nan
    return Gains(K, k, P, v, w, (x, u), messages, average)
