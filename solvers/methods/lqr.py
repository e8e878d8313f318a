"""Linear dynamics with quadratic cost: gain and value by Riccati equations, finite and infinite horizon, both kinds of time.

    ẋ = A x + B u + c   or   x⁺ = A x + B u + c,     cost  x'Qx + 2x'Nu + u'Ru + 2q'x + 2r'u + s
    V(x) = x'Px + 2v'x + w,   u = −K x − k,   costate λ = ∂V/∂x = 2(Px + v)

No factor ½ anywhere. Continuous: −Ṗ = Q + A'P + PA − (PB + N)R⁻¹(B'P + N'). Discrete: P = Q + A'P⁺A − (A'P⁺B + N)(R + B'P⁺B)⁻¹(…)'.
A continuous problem has both: its own equation, and that of the exact step it is simulated with (zero-order hold), whose
optimum is exactly what a rollout can reach. Sources: Anderson and Moore, Optimal Control (1990), §2–3; Bertsekas (2017), §3.1;
Vaughan, IEEE TAC 14 (1969) for the finite horizon through the exponential of the Hamiltonian matrix.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, expm, solve_continuous_are, solve_discrete_are

from optctl.errors import ArgumentError, require
from optctl.problem import Problem
from optctl.problem.structure import convex, expansion, time_invariant
from optctl.problem.trajectory import Trajectory
from optctl.shared import in_turn
from optctl.solvers.certificates import checked_one, violation
from optctl.solvers.methods.equilibrium import target
from optctl.solvers.solution import Certificate, Solution, Status


@dataclass(frozen=True)
class LinearQuadratic:
    """The matrices of one problem about a point, deviations x and u from it."""

    A: np.ndarray
    B: np.ndarray
    c: np.ndarray
    Q: np.ndarray
    N: np.ndarray
    R: np.ndarray
    q: np.ndarray
    r: np.ndarray
    s: float | np.ndarray
    Q_end: np.ndarray
    q_end: np.ndarray
    s_end: float | np.ndarray
    discrete: bool


@dataclass(frozen=True)
class Gain:
    """u = u₀ − K (x − x₀) − k and V = z'Pz + 2v'z + w with z = x − x₀; with a leading time axis on a finite horizon."""

    K: np.ndarray
    k: np.ndarray
    P: np.ndarray
    v: np.ndarray
    w: np.ndarray
    about: tuple[np.ndarray, np.ndarray]
    matrices: LinearQuadratic
    average_cost: float | None = None
    """tr(P G G'): cost per unit time (or per step) under the problem's process noise, infinite horizon."""

    @property
    def poles(self) -> np.ndarray:
        """Eigenvalues of A − BK (of the first interval)."""
        K = self.K if self.K.ndim == 2 else self.K[0]
        return np.linalg.eigvals(self.matrices.A - self.matrices.B @ K)


# --- detection ----------------------------------------------------------------------------------------------------------


def expand(
    problem: Problem, x: np.ndarray, u: np.ndarray, p: np.ndarray, discretised: bool, t: float = 0.0
) -> LinearQuadratic:
    """Linear dynamics and quadratic cost about (x, u) at time t."""
    function, _ = expansion(problem, discretised)
    values = [np.asarray(v) for v in function(x, u, p, t)]
    motion, jacobian, cost, gradient, hessian = (
        values[0].ravel(),
        values[1],
        values[2].item(),
        values[3].ravel(),
        values[4],
    )
    end_values = [np.asarray(v) for v in function(x, u, p, problem.duration)][5:]
    n = problem.n_x
    half = 0.5 * (hessian + hessian.T) / 2
    return LinearQuadratic(
        A=jacobian[:, :n],
        B=jacobian[:, n:],
        c=motion - (x if discretised else 0.0),
        Q=half[:n, :n],
        N=half[:n, n:],
        R=half[n:, n:],
        q=gradient[:n] / 2,
        r=gradient[n:] / 2,
        s=cost,
        Q_end=end_values[2] / 2,
        q_end=end_values[1].ravel() / 2,
        s_end=end_values[0].item(),
        discrete=discretised,
    )


def linear_quadratic(
    problem: Problem, *, discretised: bool | None = None, params: np.ndarray | None = None
) -> LinearQuadratic | None:
    """The matrices of a linear-quadratic problem, or `None` if it is not one (or depends on time).

    `discretised`: of the exact step instead of the differential equation (default: only for discrete problems)."""
    discretised = problem.discrete if discretised is None else discretised
    require(discretised or not problem.discrete, "discretised", "be True for a discrete problem", "is False")
    if not expansion(problem, discretised)[1] or not time_invariant(problem):
        return None
    p = problem.param_values if params is None else params
    return expand(problem, np.zeros(problem.n_x), np.zeros(problem.n_u), p, discretised)


def stage_matrices(problem: Problem, params: np.ndarray) -> list[LinearQuadratic] | None:
    """The matrices of every step of a linear-quadratic problem, which may depend on time; `None` if it is not one."""
    if not expansion(problem, True)[1]:
        return None
    times = [0.0] if time_invariant(problem) else problem.dt * np.arange(problem.steps)
    x, u = np.zeros(problem.n_x), np.zeros(problem.n_u)
    stages = [expand(problem, x, u, params, True, float(t)) for t in times]
    return stages * (problem.steps // len(stages))


# --- Riccati equations --------------------------------------------------------------------------------------------------


def _check_definite(R: np.ndarray, what: str) -> None:
    least, unit = np.linalg.eigvalsh(R)[0], np.sqrt(np.abs(np.diag(R)))
    if least <= 0 or np.linalg.eigvalsh(R / np.outer(unit, unit))[0] <= 1e-13:  # whatever the units of the controls
        raise ArgumentError(
            f"Argument `stage_cost` must be positive definite in the controls ({what}), but its smallest eigenvalue is "
            f"{least:.3g}: add a small cost on every control."
        )


def unreached(A: np.ndarray, B: np.ndarray, discrete: bool) -> complex | None:
    """The eigenvalue of a mode of A that does not decay and that B does not reach, if there is one.

    By the rank of [λ − A, B] (Popov, Belevitch, Hautus). Rows and columns are brought to the same size first, which changes no rank:
    so the units of states, controls and time do not matter.
    """
    values = np.linalg.eigvals(A)
    largest = np.abs(values).max()
    for value in values:
        decays = abs(value) - 1 < -1e-10 if discrete else value.real < -1e-10 * largest
        if decays:
            continue
        difference = value - np.diag(A)
        difference[np.abs(difference) <= 1e-12 * abs(value)] = 0  # rounding only, which would be made large
        shifted = np.diag(difference) - A + np.diag(np.diag(A))
        if np.linalg.svd(equilibrated(np.hstack([shifted, B])), compute_uv=False)[-1] < 1e-9:
            return complex(value)
    return None


def equilibrated(matrix: np.ndarray) -> np.ndarray:
    """The matrix between diagonal ones that make the largest entry of every row and column about 1.

    Ruiz, A scaling algorithm to equilibrate both rows and columns norms in matrices (2001).
    """
    scaled = np.array(matrix)
    for _ in range(20):  # halves the logarithms' distance to 0 each time
        for axis in (1, 0):
            size = np.abs(scaled).max(axis=axis, keepdims=True)
            scaled = scaled / np.sqrt(np.where(size > 0, size, 1.0))
    return scaled


def riccati_infinite(m: LinearQuadratic) -> tuple[np.ndarray, np.ndarray]:
    """(K, P) of the stationary problem."""
    mode = unreached(m.A, m.B, m.discrete)
    if mode is not None:
        raise ArgumentError(
            f"Argument `problem` must be stabilisable, but the mode with eigenvalue {mode:.4g} does not decay and no control reaches "
            "it: the infinite-horizon cost is unbounded."
        )
    if not m.discrete:
        _check_definite(m.R, "R")
    try:
        if m.discrete:
            P = solve_discrete_are(m.A, m.B, m.Q, m.R, s=m.N)
            S = m.R + m.B.T @ P @ m.B
            _check_definite(S, "R + B'PB")
            return np.linalg.solve(S, m.B.T @ P @ m.A + m.N.T), P
        P = solve_continuous_are(m.A, m.B, m.Q, m.R, s=m.N)
        return np.linalg.solve(m.R, m.B.T @ P + m.N.T), P
    except (LinAlgError, ValueError) as error:
        raise ArgumentError(
            f"Argument `problem` must have a stabilising Riccati solution, but none was found ({error}): is every mode that "
            "does not decay seen by the cost, and is R positive definite?"
        ) from error


def augmented(m: LinearQuadratic) -> tuple[np.ndarray, ...]:
    """(A, B, Q, N, P at the end) of the same problem for (x, 1), where affine terms are part of the matrices: the value is
    [[P, v], [v', w]] and the gain [K, k]. Leading axes are kept."""
    *lead, n, _ = m.A.shape
    join = lambda a, b, c, d: np.concatenate([np.concatenate([a, b], -1), np.concatenate([c, d], -1)], -2)
    column, row = lambda a: a[..., :, None], lambda a: a[..., None, :]
    scalar = lambda a: np.broadcast_to(np.asarray(a, dtype=float)[..., None, None], (*lead, 1, 1))
    still = np.zeros((*lead, 1, n))
    return (
        join(m.A, column(m.c), still, scalar(1.0 if m.discrete else 0.0)),
        np.concatenate([m.B, np.zeros((*lead, 1, m.B.shape[-1]))], -2),
        join(m.Q, column(m.q), row(m.q), scalar(m.s)),
        np.concatenate([m.N, row(m.r)], -2),
        join(m.Q_end, column(m.q_end), row(m.q_end), scalar(m.s_end)),
    )


def _gain(K: np.ndarray, P: np.ndarray, m: LinearQuadratic) -> Gain:
    """Gain and value of the augmented problem, taken apart."""
    about = np.zeros(len(m.A)), np.zeros(m.B.shape[1])
    return Gain(K[..., :-1], K[..., -1], P[..., :-1, :-1], P[..., :-1, -1], P[..., -1, -1], about, m)


def riccati_finite(m: LinearQuadratic | Sequence[LinearQuadratic], steps: int) -> Gain:
    """Backward recursion of the discrete problem over `steps`, affine terms included; matrices the same or one set per step."""
    stages = [m] * steps if isinstance(m, LinearQuadratic) else list(m)
    require(len(stages) == steps, "m", f"hold {steps} sets of matrices", f"holds {len(stages)}")
    n_x, n_u = stages[0].B.shape
    K, P = np.empty((steps, n_u, n_x + 1)), np.empty((steps + 1, n_x + 1, n_x + 1))
    P[-1] = augmented(stages[-1])[4]
    for i in reversed(range(steps)):
        A, B, Q, N, _ = augmented(stages[i])
        S = stages[i].R + B.T @ P[i + 1] @ B
        _check_definite(S, "R + B'PB")
        K[i] = np.linalg.solve(S, B.T @ P[i + 1] @ A + N.T)
        P[i] = Q + A.T @ P[i + 1] @ A - K[i].T @ S @ K[i]
        P[i] = (P[i] + P[i].T) / 2
    return _gain(K, P, stages[0])


def riccati_continuous(m: LinearQuadratic, times: np.ndarray) -> Gain:
    """P at `times` before the end `times[-1]` from exponentials of the Hamiltonian matrix over each interval.

    d/dt [X; Y] = [[A − BR⁻¹N', −BR⁻¹B'], [−Q + NR⁻¹N', −(A − BR⁻¹N')']] [X; Y],  P = Y X⁻¹, X = I at the end of each interval.
    """
    require(not m.discrete, "m", "be continuous", "is discrete")
    _check_definite(m.R, "R")
    A, B, Q, N, end = augmented(m)
    n, inverse = len(A), np.linalg.inv(m.R)
    F = A - B @ inverse @ N.T
    hamiltonian = np.block([[F, -B @ inverse @ B.T], [-Q + N @ inverse @ N.T, -F.T]])
    P = np.empty((len(times), n, n))
    P[-1] = end
    for i in reversed(range(len(times) - 1)):
        h = times[i + 1] - times[i]
        pieces = max(1, int(np.ceil(h * np.abs(hamiltonian).sum(axis=1).max())))
        back = expm(-hamiltonian * h / pieces)
        P[i] = P[i + 1]
        for _ in range(pieces):
            XY = back @ np.vstack([np.eye(n), P[i]])
            P[i] = np.linalg.solve(XY[:n].T, XY[n:].T).T
            P[i] = (P[i] + P[i].T) / 2
    return _gain(inverse @ (B.T @ P + N.T), P, m)


# --- what users call ----------------------------------------------------------------------------------------------------


def equilibrium(problem: Problem, linearize_at: object, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The equilibrium (x, u) to linearise at: given as x, as (x, u), or found as the cheapest one."""
    if isinstance(linearize_at, tuple) and len(linearize_at) == 2 and np.ndim(linearize_at[0]):
        x, u = (np.asarray(v, dtype=float) for v in linearize_at)
    else:
        found = target(problem, p) if linearize_at is None else np.asarray(linearize_at, dtype=float)
        require(found is not None, "linearize_at", "be given", "no equilibrium was found")
        assert found is not None
        x = found
        require(
            np.shape(x) == (problem.n_x,),
            "linearize_at",
            f"have shape ({problem.n_x},) or be a pair (x, u)",
            f"has shape {np.shape(x)}",
        )
        u = np.zeros(problem.n_u)
        for _ in range(20):  # Gauss–Newton for a control that holds x
            m = expand(problem, x, u, p, True)
            u = np.clip(u - np.linalg.lstsq(m.B, m.c, rcond=None)[0], problem.control_low, problem.control_high)
    require(u.shape == (problem.n_u,), "linearize_at", f"have {problem.n_u} controls", f"has shape {u.shape}")
    gap = float(np.abs(expand(problem, x, u, p, True).c).max())
    require(gap < 1e-6 * (1 + np.abs(x).max()), "linearize_at", "be an equilibrium", f"moves by {gap:.3g} in one step")
    return x, u


def lqr(
    problem: Problem,
    *,
    horizon: str | None = None,
    discretised: bool = True,
    linearize_at: object = None,
    params: np.ndarray | None = None,
) -> Gain:
    """Gain and value; horizon as in the problem unless said ("finite", "infinite"). A nonlinear problem is linearised at
    `linearize_at` (x, or (x, u); default: its cheapest equilibrium). `discretised=False`: continuous-time equations."""
    p = problem.param_values if params is None else np.asarray(params, dtype=float)
    horizon = problem.horizon if horizon is None else horizon
    require(horizon in ("finite", "infinite"), "horizon", "be 'finite' or 'infinite'", f"is {horizon!r}")
    discretised = discretised or problem.discrete
    stages = stage_matrices(problem, p) if horizon == "finite" and discretised and linearize_at is None else None
    if stages is not None:
        return riccati_finite(stages, problem.steps)
    m = linear_quadratic(problem, discretised=discretised, params=p)
    about = (np.zeros(problem.n_x), np.zeros(problem.n_u))
    if m is None or linearize_at is not None:
        about = equilibrium(problem, linearize_at, p)
        m = expand(problem, *about, p, discretised)
    elif horizon == "infinite" and any(np.any(a) for a in (m.c, m.q, m.r)):
        about = equilibrium(problem, None, p)
        m = expand(problem, *about, p, discretised)
    if horizon == "finite":
        gain = (
            riccati_finite(m, problem.steps)
            if discretised
            else riccati_continuous(m, np.arange(problem.steps + 1) * problem.dt)
        )
        return Gain(gain.K, gain.k, gain.P, gain.v, gain.w, about, m)
    K, P = riccati_infinite(m)
    average = None
    if problem.diffusion_function is not None:
        G = np.asarray(problem.diffusion_function(*about, p, 0.0))
        average = float(np.trace(P @ G @ G.T))
        average *= problem.dt if discretised and not problem.discrete else 1.0
    return Gain(K, np.zeros(problem.n_u), P, np.zeros(problem.n_x), np.asarray(0.0), about, m, average)


@in_turn
def solve_lqr(problem: Problem, x0: np.ndarray, *, params: np.ndarray | None = None) -> Solution:
    """The optimum of the discretised linear-quadratic problem over its `steps` by Riccati recursion: proved where no bound
    is crossed."""
    started = time.perf_counter()
    p = problem.param_values if params is None else params
    stages = stage_matrices(problem, p)
    require(stages is not None, "problem", "be linear-quadratic", "is not")
    assert stages is not None
    gain = riccati_finite(stages, problem.steps)
    x, u, c = [np.asarray(x0, dtype=float)], [], []
    for i, (K, k) in enumerate(zip(gain.K, gain.k, strict=True)):
        u.append(-K @ x[-1] - k)
        after, cost = problem.step_function(x[-1], u[-1], p, i * problem.dt)
        x.append(np.asarray(after).ravel())
        c.append(float(cost))
    states, controls = np.stack(x), np.stack(u)
    end = float(problem.terminal_cost_function(x[-1], p, problem.duration)) if problem.horizon == "finite" else 0.0
    times = np.arange(problem.steps + 1) * problem.dt
    costates = 2 * (np.einsum("tij,tj->ti", gain.P, states) + gain.v)
    trajectory = Trajectory(
        times=times,
        states=states,
        controls=controls,
        costs=np.array(c),
        terminal_cost=np.asarray(end),
        costates=costates,
    )
    A, B, Q, N, R, q, r = (np.stack([getattr(m, name) for m in stages]) for name in "ABQNRqr")
    product = lambda a, b: np.einsum("tij,tj->ti", a, b)
    turn = lambda a: np.swapaxes(a, 1, 2)
    slope = product(turn(B), costates[1:]) + 2 * (product(R, controls) + product(turn(N), states[:-1]) + r)
    flow = product(turn(A), costates[1:]) + 2 * (product(Q, states[:-1]) + product(N, controls) + q) - costates[:-1]
    crossed = violation(problem, states, controls, p, times)
    certificate = Certificate(
        defect=0.0,
        **checked_one(problem, trajectory, p),
        stationarity=float(np.abs(slope).max()),
        costate_defect=float(np.abs(flow).max()),
        transversality=0.0,
        constraint_violation=crossed,
    )
    admissible = crossed <= 1e-9
    return Solution(
        problem=problem.name,
        solver="lqr",
        trajectory=trajectory,
        certificate=certificate,
        gains=gain.K,
        status=Status.CONVERGED if admissible else Status.INFEASIBLE,
        wall_time=time.perf_counter() - started,
        proved=admissible and convex(problem, p),
        message="" if admissible else "the Riccati solution crosses a constraint",
    )
