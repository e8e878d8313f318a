"""Optimal pulses of quantum systems by exact gradients: GRAPE for thousands of restarts at once, Krotov's method, robust ensembles, the
least time, and the best sequence of a few levels; ħ = 1.

    H(t) = H₀ + Σ_k u_k(t) H_k,  u constant on each of S slots of length Δ,  U_j = exp(−iΔ H_j),  X = U_S ⋯ U_1 X₀  (d × m)
    F = |tr(X_goal† X)|² / m²   (m = 1: state transfer; m = d, X₀ = 1: a gate up to its global phase),  J = 1 − F

A `Transfer` says this in matrices, a bilinear `Problem` in symbols; open systems and other costs are problems. Either becomes
ẋ = A(u) x in real numbers, whose gradients and L-BFGS iterations run in one generated kernel (`solvers/batched/bilinear.py`). Members share
nothing. An ensemble of many systems has them side by side in the kernel instead, and one pulse is optimised after the other.

Sources: Khaneja et al., J. Magn. Reson. 172 (2005) 296 (GRAPE); de Fouquieres et al., J. Magn. Reson. 212 (2011) 412 (L-BFGS,
exact gradients); Reich, Ndong, Koch, J. Chem. Phys. 136 (2012) 104103 (Krotov); Horowitz and Sahni, J. ACM 21 (1974) 277 (meet in
the middle).
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.optimize import minimize

from optctl.errors import require
from optctl.problem import Problem
from optctl.problem.quantum import check_hermitian, propagator, stack_gate
from optctl.shared import in_turn
from optctl.solvers.batched.bilinear import optimise
from optctl.solvers.methods.bilinear import Bilinear, bilinear
from optctl.solvers.solution import Status

_ENSEMBLE = 32
"""Systems from which on an ensemble goes through the kernel side by side."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Transfer:
    """One task: drive X₀ to X_goal in `duration`. With a leading axis E on `drift` or `controls`: an ensemble, whose mean F counts."""

    drift: Any
    """H₀ (d, d) or (E, d, d), Hermitian."""
    controls: Any
    """H_k (K, d, d) or (E, K, d, d), Hermitian."""
    target: Any
    """X_goal: (d,) a ket, (d, m) columns; a gate is (d, d)."""
    initial: Any = None
    """X₀ of the same shape; default: the identity, for gates."""
    duration: float
    """[1/energy]."""
    slots: int
    bounds: tuple[float, float] | None = None
    """Least and greatest amplitude of every control."""

    def __post_init__(self) -> None:
        drift = check_hermitian(self.drift, "drift")
        controls = check_hermitian(self.controls, "controls")
        d = drift.shape[-1]
        require(drift.ndim in (2, 3), "drift", "have shape (d, d) or (E, d, d)", f"has shape {drift.shape}")
        require(
            controls.ndim in (3, 4) and controls.shape[-1] == d,
            "controls",
            f"have shape (K, {d}, {d}) or (E, K, {d}, {d})",
            f"has shape {controls.shape}",
        )
        drift, controls = drift.reshape(-1, d, d), controls.reshape(-1, *controls.shape[-3:])
        sizes = {len(drift), len(controls)} - {1}
        require(len(sizes) <= 1, "controls", f"have an ensemble of {len(drift)} like `drift`", f"has {len(controls)}")
        members = max(len(drift), len(controls))
        columns = []
        for name, value in (("target", self.target), ("initial", np.eye(d) if self.initial is None else self.initial)):
            x = np.asarray(value, dtype=complex)
            x = x[:, None] if x.ndim == 1 else x
            require(x.ndim == 2 and len(x) == d, name, f"have {d} rows", f"has shape {np.shape(value)}")
            require(bool(np.isfinite(x).all()), name, "be finite", "holds NaN or infinity")
            off = np.abs(x.conj().T @ x - np.eye(x.shape[1])).max()
            require(off < 1e-6, name, "have orthonormal columns", f"is off by {off:.3g}")
            columns.append(x)
        target, initial = columns
        require(
            target.shape == initial.shape, "initial", f"have shape {target.shape} like `target`", f"has {initial.shape}"
        )
        require(0 < self.duration < np.inf, "duration", "be positive", f"is {self.duration!r}")
        require(isinstance(self.slots, int) and self.slots > 0, "slots", "be a positive integer", f"is {self.slots!r}")
        require(
            self.bounds is None or -np.inf < self.bounds[0] < self.bounds[1] < np.inf,
            "bounds",
            "be (low, high) with low < high",
            f"is {self.bounds!r}",
        )
        for field, value in (
            ("drift", np.broadcast_to(drift, (members, d, d))),
            ("target", target),
            ("initial", initial),
            ("controls", np.broadcast_to(controls, (members, *controls.shape[1:]))),
        ):
            object.__setattr__(self, field, value)

    @property
    def num_controls(self) -> int:
        return self.controls.shape[1]

    def replace(self, **changes: Any) -> Transfer:
        return replace(self, **changes)

    @cached_property
    def system(self) -> Bilinear:
        """In real numbers: x = [Re vec X, Im vec X], J = 1 + ½ x'Qx."""
        h = np.concatenate([self.drift[:, None], self.controls], axis=1)
        m, k = self.target.shape[1], self.num_controls
        real, imaginary = (np.kron(np.eye(m), part) for part in (h.real, h.imag))
        goal = stack_gate(self.target)
        parts = np.stack(
            [goal, np.concatenate([-goal[len(goal) // 2 :], goal[: len(goal) // 2]])]
        )  # Re and Im of the overlap
        low, high = self.bounds or (-np.inf, np.inf)
        return Bilinear(
            generators=np.block([[imaginary, real], [-real, imaginary]]),
            start=stack_gate(self.initial),
            final=-2 / m**2 * parts.T @ parts,
            running=np.zeros((len(goal), len(goal))),
            effort=np.zeros((k + 1, k)),
            constant=1.0,
            duration=self.duration,
            slots=self.slots,
            low=np.full(k, low),
            high=np.full(k, high),
            scale=np.ones(k),
        )

    def propagate(self, pulse: np.ndarray) -> np.ndarray:
        """X (E, d, m) at the end, by diagonalisation of every slot: what results are checked with. pulse (S, K)."""
        h = self.drift[:, None] + np.einsum("sk,ekij->esij", pulse, self.controls)
        u = propagator(h, self.duration / self.slots)
        x = np.broadcast_to(self.initial, (len(h), *self.initial.shape))
        for j in range(self.slots):
            x = u[:, j] @ x
        return x

    def fidelity(self, pulse: np.ndarray) -> float:
        """Mean of |tr(X_goal†X)|²/m² over the ensemble, for one pulse (S, K)."""
        overlaps = np.einsum("ij,eij->e", self.target.conj(), self.propagate(np.asarray(pulse, dtype=float)))
        return float(np.mean(np.abs(overlaps) ** 2) / self.target.shape[1] ** 2)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pulses:
    """Optimised members, in the order of their guesses."""

    pulses: np.ndarray
    """(B, S, K)."""
    infidelity: np.ndarray
    """1 − F, or the cost of a `Problem`, (B,)."""
    gradient: np.ndarray
    """Largest |v − clip(v − ∂J/∂v)|, (B,); v is the pulse relative to its bounds (half the width is 1), or to `amplitude`."""
    iterations: np.ndarray
    """(B,)."""
    statuses: list[Status]
    """Why each member stopped."""
    duration: float
    wall_time: float
    """[s]."""
    search: str = ""
    """What a search over durations leaves open."""

    @property
    def best(self) -> int:
        """The member of least infidelity; NaN is worst."""
        return int(np.nanargmin(np.where(np.isnan(self.infidelity), np.inf, self.infidelity)))


# --- GRAPE --------------------------------------------------------------------------------------------------------------


@in_turn
def grape(
    task: Transfer | Problem,
    *,
    restarts: int = 1,
    guess: np.ndarray | None = None,
    amplitude: float = 1.0,
    infidelity: float = 1e-10,
    gradient: float = 1e-9,
    max_iterations: int = 500,
    seed: int = 0,
    threads: int | None = None,
    params: np.ndarray | None = None,
    device: str = "cpu",
) -> Pulses:
    """Minimise 1 − F, or the cost of a bilinear problem, by L-BFGS with exact gradients from many guesses at once.

    Args:
        task: What to drive where.
        restarts: Random guesses, uniform over the bounds, or up to ± `amplitude` without bounds.
        guess: Pulses (S, K) or (B, S, K) to start from instead.
        amplitude: Scale of a pulse without bounds.
        infidelity: A member is done when 1 − F falls to it …
        gradient: … or its gradient does.
        max_iterations: Steps of L-BFGS.
        seed: Of the random guesses; member i is the same whatever `restarts`.
        threads: On a CPU (default: all cores); they do not change the result.
        params: Of a `Problem` (n_p,) or (E, n_p): an ensemble, whose mean cost counts.
        device: cpu, cuda or cuda:N.

    The first use of a pattern of Hamiltonians compiles a kernel (seconds), which is kept on disk.
    """
    began = time.perf_counter()
    require(isinstance(restarts, int) and restarts > 0, "restarts", "be a positive integer", f"is {restarts!r}")
    require(0 < amplitude < np.inf, "amplitude", "be positive", f"is {amplitude!r}")
    system = _system(task, params)
    system = system.replace(scale=np.full(len(system.low), float(amplitude)))
    shape = (system.slots, len(system.low))
    if guess is None:
        low, high = system.span
        u = np.stack([np.random.default_rng([seed, i]).uniform(low, high, shape) for i in range(restarts)])
    else:
        u = np.asarray(guess, dtype=float)
        require(
            u.ndim in (2, 3) and u.shape[-2:] == shape,
            "guess",
            f"have shape {shape} or (B, {shape[0]}, {shape[1]})",
            f"has {np.shape(guess)}",
        )
        require(bool(np.isfinite(u).all()), "guess", "be finite", "holds NaN or infinity")
        u = u.reshape(-1, *shape)
    if len(system.generators) >= _ENSEMBLE:
        found = [_side_by_side(system, one, infidelity, gradient, max_iterations, threads, device) for one in u]
        pulses, cost, residual, iterations, statuses = zip(*found, strict=True)
    else:
        f = optimise(
            system,
            u,
            target=infidelity,
            gradient=gradient,
            max_iterations=max_iterations,
            threads=threads,
            device=device,
        )
        pulses, cost, residual, iterations, statuses = f.pulses, f.cost, f.residual, f.iterations, f.statuses  # type: ignore[assignment]
    return Pulses(
        pulses=np.asarray(pulses),
        infidelity=np.asarray(cost),
        gradient=np.asarray(residual),
        iterations=np.asarray(iterations),
        statuses=list(statuses),
        duration=system.duration,
        wall_time=time.perf_counter() - began,
    )


def _system(task: Transfer | Problem, params: np.ndarray | None = None) -> Bilinear:
    if isinstance(task, Transfer):
        require(params is None, "params", "be None for a `Transfer`", "is given")
        return task.system
    system = bilinear(task, params) if isinstance(task, Problem) else None
    require(
        system is not None,
        "task",
        "be a `Transfer`, or a bilinear problem with quadratic costs, bounds on controls only and the "
        "integrator `exponential`",
        f"is {task!r}",
    )
    assert system is not None
    return system


def _side_by_side(
    system: Bilinear,
    guess: np.ndarray,
    target: float,
    gradient: float,
    max_iterations: int,
    threads: int | None,
    device: str,
) -> tuple[np.ndarray, float, float, int, Status]:
    """One pulse for many systems, each of them a member of the kernel; scipy's L-BFGS-B on the mean."""
    free, half = system.unbounded, np.broadcast_to(system.half, guess.shape).ravel()
    low, high = (np.broadcast_to(side, guess.shape).ravel() / half for side in (system.low, system.high))

    class Reached(Exception):
        pass

    best: list[Any] = [np.inf, None, None]

    def function(z: np.ndarray) -> tuple[float, np.ndarray]:
        pulses = np.broadcast_to((z * half).reshape(guess.shape), (len(system.generators), *guess.shape))
        found = optimise(free, pulses, own=True, max_iterations=0, threads=threads, device=device)
        value, slope = float(found.cost.mean()), found.gradient.mean(axis=0).ravel() * half
        if value < best[0]:
            best[:] = value, z.copy(), slope
        if value <= target:
            raise Reached
        return value, slope

    iterations, status = 0, Status.CONVERGED
    try:
        result = minimize(
            function,
            guess.ravel() / half,
            jac=True,
            method="L-BFGS-B",
            bounds=np.stack([low, high], axis=1),
            options={
                "maxiter": max_iterations,
                "maxfun": 10 * max_iterations,
                "maxcor": 20,
                "ftol": 0.0,
                "gtol": gradient,
            },
        )
        iterations = result.nit
        status = Status.MAX_ITERATIONS if result.status == 1 else Status.CONVERGED if result.success else Status.STALLED
    except Reached:
        pass
    if best[1] is None:
        return guess, np.nan, np.nan, 0, Status.DIVERGED
    value, z, slope = best
    return (
        (z * half).reshape(guess.shape),
        value,
        float(np.abs(z - np.clip(z - slope, low, high)).max()),
        iterations,
        status,
    )


# --- Krotov -------------------------------------------------------------------------------------------------------------


@in_turn
def krotov(
    task: Transfer, guess: np.ndarray, *, weight: float = 1.0, infidelity: float = 1e-6, max_iterations: int = 200
) -> tuple[np.ndarray, np.ndarray]:
    """Krotov's method: pulse (S, K) and the infidelity before every iteration and at the end.

    Every slot is changed at once and its effect felt by the next: Δu_kj = Im tr(Λ_j† H_k X_{j−1})/weight, Λ_S = τ X_goal/m², with
    Λ of the old pulse and X of the new one. 1 − F falls monotonically for a large enough `weight` and short enough slots.
    """
    require(weight > 0, "weight", "be positive", f"is {weight!r}")
    u = np.array(guess, dtype=float)
    shape = (task.slots, task.num_controls)
    require(u.shape == shape, "guess", f"have shape {shape}", f"has shape {u.shape}")
    require(len(task.drift) == 1, "task", "hold one system for Krotov's method", f"holds {len(task.drift)}")
    drift, controls, m, step = task.drift[0], task.controls[0], task.target.shape[1], task.duration / task.slots

    def gate(pulse: np.ndarray) -> np.ndarray:
        return propagator(drift + np.einsum("...k,kij->...ij", pulse, controls), step)

    x = task.propagate(u)[0]
    errors = [1 - abs(np.vdot(task.target, x) / m) ** 2]
    for _ in range(max_iterations):
        if errors[-1] <= infidelity:
            break
        costate = np.empty((task.slots + 1, *x.shape), dtype=complex)
        costate[-1] = np.vdot(task.target, x) * task.target / m**2
        for j, old in reversed(list(enumerate(gate(u)))):
            costate[j] = old.conj().T @ costate[j + 1]
        x = task.initial
        for j in range(task.slots):
            u[j] += np.einsum("ia,kij,ja->k", costate[j].conj(), controls, x).imag / weight
            if task.bounds is not None:
                u[j] = np.clip(u[j], *task.bounds)
            x = gate(u[j]) @ x
        errors.append(1 - abs(np.vdot(task.target, x) / m) ** 2)
    return u, np.array(errors)


# --- least time and few levels ------------------------------------------------------------------------------------------


def _lasting(task: Transfer | Problem, duration: float) -> Any:
    return task.replace(duration=duration) if isinstance(task, Transfer) else task.replace(dt=duration / task.steps)


_CONFIDENCE = 0.95
"""Of the statement how rare successful guesses are where none was met: (1 − share)^guesses = 1 − confidence."""


@in_turn
def least_time(
    task: Transfer | Problem,
    low: float,
    high: float,
    *,
    infidelity: float = 1e-8,
    accuracy: float = 1e-3,
    restarts: int = 4,
    max_iterations: int = 200,
    seed: int = 0,
) -> Pulses:
    """The pulse of the least duration between `low` and `high` that still reaches 1 − F (or a cost) ≤ `infidelity`, by bisection.

    Each duration is tried from the best pulses so far, then from `restarts` random guesses. That the next shorter one failed proves
    nothing: `Pulses.search` says how rare the guesses can be that reach it all the same. Raises ArgumentError where not even `high`
    suffices.
    """
    require(0 < low < high, "low", "be positive and below `high`", f"is {low!r} with high {high!r}")

    def attempt(duration: float, before: Pulses | None) -> Pulses:
        now = _lasting(task, duration)
        options: dict[str, Any] = {"infidelity": infidelity, "max_iterations": max_iterations}
        if before is not None:
            found = grape(now, guess=before.pulses[np.argsort(before.infidelity)[:restarts]], **options)
            if found.infidelity[found.best] <= infidelity:
                return found
        return grape(now, restarts=restarts, seed=seed, **options)

    best = attempt(high, None)
    reached = best.infidelity[best.best]
    require(reached <= infidelity, "high", f"suffice for an infidelity of {infidelity:g}", f"reaches {reached:.3g}")
    tried = False
    while high - low > accuracy:
        middle = 0.5 * (low + high)
        found = attempt(middle, best)
        if found.infidelity[found.best] <= infidelity:
            best, high = found, middle
        else:
            low, tried = middle, True
    rare = 1 - (1 - _CONFIDENCE) ** (1 / restarts)
    failed = f"{restarts} random guesses and the pulses of the next longer duration fell short at {low:.6g} s: with {_CONFIDENCE:.0%} "
    failed += f"confidence fewer than {rare:.0%} of such guesses reach it there"
    return replace(best, search=failed if tried else f"every duration tried was reached, down to {high:.6g} s")


def best_sequence(task: Transfer, levels: Any) -> tuple[np.ndarray, float]:
    """The best of all sequences whose slots take one of a few `levels` (L, K) (or (L,) for one control): (S, K) and its F.

    Proved by exhaustion, L^S sequences from the L^⌈S/2⌉ that the first half and the second half can do (meet in the middle).
    """
    values = np.asarray(levels, dtype=float)
    values = values[:, None] if values.ndim == 1 else values
    require(
        values.ndim == 2 and values.shape[1] == task.num_controls,
        "levels",
        f"have {task.num_controls} columns",
        f"has shape {np.shape(levels)}",
    )
    require(len(task.drift) == 1, "task", "hold one system", f"holds {len(task.drift)}")
    first = task.slots // 2
    count = len(values) ** (task.slots - first)
    require(
        count <= 2**17, "slots", "leave at most 131072 sequences in each half", f"is {task.slots}, which leaves {count}"
    )
    gates = propagator(task.drift[0] + np.einsum("lk,kij->lij", values, task.controls[0]), task.duration / task.slots)

    def reach(x: np.ndarray, matrices: np.ndarray, slots: int) -> np.ndarray:
        """All ends (L^slots, d·m); the index counts in base L, the slot applied first the most significant."""
        ends = x[None]
        for _ in range(slots):
            ends = np.einsum("lij,njm->nlim", matrices, ends).reshape(-1, *x.shape)
        return ends.reshape(len(ends), -1)

    ahead = reach(task.initial, gates, first)
    back = reach(task.target, gates.conj().swapaxes(-1, -2), task.slots - first)
    best, where = -1.0, (0, 0)
    for start in range(0, len(back), 1024):
        overlaps = np.abs(back[start : start + 1024].conj() @ ahead.T)
        i, j = np.unravel_index(np.argmax(overlaps), overlaps.shape)
        if overlaps[i, j] > best:
            best, where = float(overlaps[i, j]), (int(j), int(i) + start)
    digits = lambda index, slots: [index // len(values) ** (slots - 1 - k) % len(values) for k in range(slots)]
    chosen = list(itertools.chain(digits(where[0], first), reversed(digits(where[1], task.slots - first))))
    return values[chosen], (best / task.target.shape[1]) ** 2
