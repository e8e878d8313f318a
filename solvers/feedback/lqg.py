"""Linear-quadratic-Gaussian control: the gain of `lqr` on the estimate of a Kalman filter, and the H∞ norm of linear systems.

    x⁺ = A x + B u + c + w,  w ~ N(0, W),      y = C x + d + v,  v ~ N(0, V),      x₀ ~ N(x̄, Σ₀)
    x̂ ← x̂ + M (y − C x̂ − d),   M = Σ C'(C Σ C' + V)⁻¹,   Σ ← Σ − M C Σ,   u = −K x̂ − k,   x̂⁺ = A x̂ + B u + c,   Σ⁺ = A Σ A' + W

By the separation principle this is the optimum of all output feedback where the problem is linear-quadratic, the noise Gaussian and no
bound active. W = dt G G' (G G' of a discrete problem), V = diag(σ²) are those of `rollout`. A nonlinear problem is linearised.
Sources: Anderson and Moore, Optimal Filtering (1979), §3.1; Åström, Introduction to Stochastic Control Theory (1970), §8.6;
Bruinsma and Steinbuch, Syst. Control Lett. 14 (1990) 287.
"""

from __future__ import annotations

from collections.abc import Iterable

import casadi as ca
import numpy as np
from scipy.linalg import solve_discrete_are

from optctl.errors import ArgumentError, require
from optctl.problem import Problem
from optctl.solvers.methods.lqr import augmented, lqr, stage_matrices, unreached


class LqgController:
    """Kalman filter and LQR as a controller that is given observations only; the filter starts from the initial distribution.

    `params` (n_p,), or one row for each of the episodes (B, n_p): then every plant has a filter and a gain of its own.
    """

    observes = True

    def __init__(
        self, problem: Problem, *, params: np.ndarray | None = None, linearize_at: object = None, name: str = "lqg"
    ) -> None:
        rows = np.atleast_2d(problem.param_values if params is None else np.asarray(params, dtype=float))
        self.problem, self.params, self.name = problem, rows, name
        plants, self._plant = np.unique(rows, axis=0, return_inverse=True)
        self.regulators = [Regulator(problem, p, linearize_at) for p in plants]
        """One for each distinct plant."""

    def reset(self, observations: np.ndarray, params: np.ndarray) -> None:
        num = len(observations)
        same = np.shape(params) in ((1, self.problem.n_p), (num, self.problem.n_p)) and len(self.params) in (1, num)
        require(
            same and np.allclose(params, self.params),
            "params",
            "be the plants that the filters were made for",
            "are others",
        )
        plant = np.broadcast_to(self._plant.ravel(), (num,))
        self._members = [np.flatnonzero(plant == i) for i in range(len(self.regulators))]
        for regulator, members in zip(self.regulators, self._members, strict=True):
            regulator.reset(len(members))

    def __call__(self, observations: np.ndarray, time: float) -> np.ndarray:
        controls = np.empty((len(observations), self.problem.n_u))
        for regulator, members in zip(self.regulators, self._members, strict=True):
            controls[members] = regulator.control(observations[members], time)
        return controls

    def expected_cost(self, steps: int | None = None) -> float:
        """Mean cost of an episode over initial states, noise and plants, exact while no bound is active."""
        return self._mean(regulator.expected_cost(steps) for regulator in self.regulators)

    @property
    def average_cost(self) -> float:
        """Cost per step of an infinite horizon, the mean over the plants."""
        return self._mean(regulator.average_cost for regulator in self.regulators)

    def _mean(self, values: Iterable[float]) -> float:
        return float(np.array(list(values))[self._plant.ravel()].mean())


class Regulator:
    """The filter and the gain of one plant p (n_p,)."""

    def __init__(self, problem: Problem, p: np.ndarray, linearize_at: object = None) -> None:
        self.problem, self.params = problem, p
        self.gain = lqr(problem, params=p, linearize_at=linearize_at)
        linear = stage_matrices(problem, p) if linearize_at is None and not np.any(self.gain.about[0]) else None
        self.stages = linear or [self.gain.matrices]
        x, u = self.gain.about
        slope = ca.jacobian(problem.observation_function(problem.x, problem.p, problem.t), problem.x)
        self.C = np.asarray(ca.Function("C", [problem.x, problem.p, problem.t], [ca.densify(slope)])(x, p, 0.0))
        self.V, self.W = np.diag(problem.noise_std**2), np.zeros((problem.n_x, problem.n_x))
        if problem.diffusion_function is not None:
            noise = problem.diffusion_function(problem.x, problem.u, problem.p, problem.t)
            constant = not ca.depends_on(ca.vec(noise), ca.vertcat(problem.x, problem.u, problem.t))
            require(constant, "diffusion", "be constant for a Kalman filter", "depends on state, control or time")
            G = np.asarray(problem.diffusion_function(x, u, p, 0.0))
            self.W = G @ G.T * (1.0 if problem.discrete else problem.dt)
        start = problem.initial_state
        middle = 0.5 * start.spread if start.kind == "uniform" else 0.0
        self.mean, spread = start.location + middle - x, start.spread**2 / (12.0 if start.kind == "uniform" else 1.0)
        self.prior = np.diag(spread)
        self._floor = 1e-13 * float(np.trace(self.C @ (self.prior + self.W) @ self.C.T + self.V))

    def reset(self, num: int) -> None:
        """Begin `num` episodes."""
        self._estimate, self._covariance = np.tile(self.mean, (num, 1)), self.prior

    def control(self, observations: np.ndarray, time: float) -> np.ndarray:
        """Controls (B, n_u) for observations (B, n_y)."""
        x, u = self.gain.about
        i = round(time / self.problem.dt)
        m, K, k = self._at(i)
        expected = (
            np.asarray(self.problem.observation_function(x, self.params, time)).ravel() + self._estimate @ self.C.T
        )
        M, covariance = self._update(self._covariance)
        estimate = self._estimate + (observations - expected) @ M.T
        control = np.clip(u - estimate @ K.T - k, self.problem.control_low, self.problem.control_high)
        self._estimate = estimate @ m.A.T + (control - u) @ m.B.T + m.c
        self._covariance = m.A @ covariance @ m.A.T + self.W
        return control

    def _at(self, i: int):
        """Matrices and gain of step i."""
        K, k = self.gain.K, self.gain.k
        if K.ndim == 3:
            K, k = K[min(i, len(K) - 1)], k[min(i, len(k) - 1)]
        return self.stages[min(i, len(self.stages) - 1)], K, k

    def _update(self, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Filter gain M, and Σ after the observation (Joseph's form, which stays symmetric and positive). Directions in which the
        observation tells nothing beyond rounding, as with sensors without noise, are left out."""
        values, axes = np.linalg.eigh(self.C @ covariance @ self.C.T + self.V)
        M = (
            covariance
            @ self.C.T
            @ (axes * np.where(values > self._floor, 1 / np.maximum(values, 1e-300), 0.0))
            @ axes.T
        )
        rest = np.eye(len(covariance)) - M @ self.C
        return M, rest @ covariance @ rest.T + M @ self.V @ M.T

    def expected_cost(self, steps: int | None = None) -> float:
        """See `LqgController`: second moments of x̂ and x − x̂."""
        steps = self.problem.steps if steps is None else steps
        z = np.append(self.mean, 1.0)
        moment, covariance, total = np.outer(z, z), self.prior, 0.0
        for i in range(steps):
            m, K, k = self._at(i)
            A, B, Q, N, _ = augmented(m)
            gain = np.column_stack([K, k])
            _, after = self._update(covariance)
            moment[:-1, :-1] += covariance - after  # the estimate varies by what the observation told
            weight = Q - N @ gain - gain.T @ N.T + gain.T @ m.R @ gain
            total += float((weight * moment).sum() + (m.Q * after).sum())
            closed = A - B @ gain
            moment, covariance = closed @ moment @ closed.T, m.A @ after @ m.A.T + self.W
        if self.problem.horizon == "finite":
            end = augmented(self.stages[-1])[4]
            total += float((end * moment).sum() + (self.stages[-1].Q_end * covariance).sum())
        return total

    @property
    def average_cost(self) -> float:
        """tr(P W) + tr(K'(R + B'PB) K Σ), Σ of the stationary filter: cost per step of an infinite horizon."""
        require(self.gain.K.ndim == 2, "problem", "have an infinite horizon", "has a finite one")
        require((np.diag(self.V) > 0).all(), "observation_noise", "be positive for a stationary filter", "is zero")
        m, P, K = self.stages[0], self.gain.P, self.gain.K
        hidden = unreached(m.A.T, self.C.T, discrete=True)
        if hidden is not None:
            raise ArgumentError(
                f"Argument `problem` must be detectable, but the mode with eigenvalue {hidden:.4g} does not decay and no "
                "observation shows it."
            )
        _, covariance = self._update(solve_discrete_are(m.A.T, self.C.T, self.W, self.V))
        return float(np.trace(P @ self.W) + np.trace(K.T @ (m.R + m.B.T @ P @ m.B) @ K @ covariance))


def h_infinity_norm(
    A: np.ndarray,
    B: np.ndarray,
    C: np.ndarray,
    D: np.ndarray | None = None,
    *,
    discrete: bool = False,
    tolerance: float = 1e-10,
) -> tuple[float, float]:
    """(sup over ω of the largest singular value of C(iω − A)⁻¹B + D, the ω [rad/s or rad/step] where it is met).

    γ exceeds the norm exactly where a Hamiltonian matrix has no imaginary eigenvalue; each round takes the best of the middles between
    the frequencies where γ is crossed, and converges quadratically. Infinite for an unstable A.
    """
    A, B, C = (np.atleast_2d(np.asarray(a, dtype=float)) for a in (A, B, C))
    D = np.zeros((len(C), B.shape[1])) if D is None else np.atleast_2d(np.asarray(D, dtype=float))
    n, one = len(A), np.eye(len(A))
    shapes = (A.shape, B.shape, C.shape, D.shape)
    fits = shapes == ((n, n), (n, B.shape[1]), (len(C), n), (len(C), B.shape[1]))
    require(fits, "A, B, C, D", "fit together", f"have shapes {', '.join(map(str, shapes))}")
    poles = np.linalg.eigvals(A)
    if (np.abs(poles) >= 1).any() if discrete else (poles.real >= 0).any():
        return np.inf, np.nan
    if discrete:  # z = (1 + s)/(1 − s) maps the circle to the axis and keeps the norm
        inverse = np.linalg.inv(A + one)
        norm, omega = h_infinity_norm(
            inverse @ (A - one),
            np.sqrt(2) * inverse @ B,
            np.sqrt(2) * C @ inverse,
            D - C @ inverse @ B,
            tolerance=tolerance,
        )
        return norm, 2 * np.arctan(omega)

    def peak(omega: float) -> float:
        return float(np.linalg.norm(C @ np.linalg.solve(1j * omega * one - A, B) + D, 2))

    candidates = [0.0, *np.abs(poles), *np.abs(poles.imag)]
    best, omega = max((peak(w), w) for w in candidates)
    if np.linalg.norm(D, 2) > best:
        best, omega = float(np.linalg.norm(D, 2)), np.inf
    for _ in range(100):
        gamma = (1 + 2 * tolerance) * best
        if gamma == 0:
            break
        inverse = np.linalg.inv(gamma**2 * np.eye(B.shape[1]) - D.T @ D)
        F = A + B @ inverse @ D.T @ C
        hamiltonian = np.block([[F, B @ inverse @ B.T], [-C.T @ (np.eye(len(C)) + D @ inverse @ D.T) @ C, -F.T]])
        values = np.linalg.eigvals(hamiltonian)
        crossed = np.sort(values.imag[(np.abs(values.real) < 1e-8 * (1 + np.abs(values).max())) & (values.imag >= 0)])
        middles = (crossed[:-1] + crossed[1:]) / 2 if len(crossed) > 1 else crossed
        found = max(((peak(w), w) for w in middles), default=(0.0, 0.0))
        if found[0] <= best * (1 + tolerance):
            break
        best, omega = found
    return best, float(omega)
