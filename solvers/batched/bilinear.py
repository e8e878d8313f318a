"""Thousands of pulses of one bilinear system in one launch: exact gradients and L-BFGS within bounds, float64, all cores or a GPU.

    ẋ = A(u) x,  A(u) = A₀ + Σ_k u_k A_k,  u held over each of S slots,  J = c₀ + ½ x(T)'Q x(T) + ∫ ½ x'R x + ½ u'M u + m'u dt

On a CPU a thread evaluates eight members in lock-step, one per lane of an explicit vector; on a GPU a thread is one member. What
a member does with its value and gradient is decided by that member alone, so its bits depend neither on the batch nor on the
number of threads; a member that is done makes room for the next one.

Evaluation. x(t + h) = Σ tₙ, t₀ = x, tₙ = h/n A tₙ₋₁, as long as ‖hA‖ⁿ/n! > 1e-16 for a bound on ‖A‖; slots with ‖ΔA‖ > 4 are
divided. The transposed recursion sₙ₋₁ = λ + h/n A' sₙ gives λ before the slot, and ∂J/∂a = Σ h/n sₙ' (∂A/∂a) tₙ₋₁ for every entry
a of A(u): the derivative of what is computed, to rounding. Entries that are equal up to their sign are one. The source depends
on the places of the entries only: numbers are data, so a kernel serves every Hamiltonian of the same pattern.

Iteration. Two-loop L-BFGS on the controls that no bound holds back, clipped to the bounds (Bertsekas, SIAM J. Control Optim. 20
(1982) 221), Armijo's rule with quadratic interpolation; the first step is Polyak's towards a cost of zero.

`newton` ends it: the Hessian by the controls comes from differences of exact gradients, all of them evaluated at once, so the last
digits cost a few Newton steps on the controls that no bound holds back.
"""

from __future__ import annotations

import functools
import re
import time
from dataclasses import dataclass

import numpy as np
import torch
import warp as wp
from scipy.linalg import eigh

from optctl.codegen.cache import load_module
from optctl.codegen.cpp_source import native_module, with_numbers
from optctl.codegen.launch import launch_shared, resolve_device, sharing_threads
from optctl.errors import require
from optctl.problem import Problem, check_problem
from optctl.problem.controller import check_params, check_states
from optctl.problem.trajectory import Trajectory
from optctl.shared import in_turn, kept
from optctl.solvers.batched.kernels import text
from optctl.solvers.batched.source import LANES
from optctl.solvers.methods.bilinear import Bilinear, bilinear, certified, random_pulses
from optctl.solvers.solution import Solution, Status

_STARTS = 64

_PROMISING = 8
"""Members that go on for longer, one for each lane."""

_REFINED = 3
"""Candidates that Newton's method finishes, until one is stationary."""
_MEMORY = 20
"""Pairs that L-BFGS keeps."""
_TERMS = 40
"""Of a Taylor series: 4⁴⁰/40! = 1e-24."""
_LARGEST_ARRAY = 2**28
_STATUSES = (Status.CONVERGED, Status.STALLED, Status.MAX_ITERATIONS, Status.DIVERGED)
_NODES, _WEIGHTS = (0.5 * (np.polynomial.legendre.leggauss(5)[i] + (1 - i)) for i in (0, 1))

_ARGUMENTS = (
    dict.fromkeys(
        (
            "guess",
            "reach",
            "box",
            "scale",
            "start",
            "coefficients",
            "norms",
            "final",
            "running",
            "effort",
            "work",
            "found",
            "slopes",
            "summary",
        ),
        "wp.array(dtype=wp.float64)",
    )
    | dict.fromkeys(("duration", "constant", "target", "tolerance", "max_iterations"), "wp.float64")
    | dict.fromkeys(("num", "slots", "systems", "own", "starts", "splits", "rows", "threads", "offset"), "wp.int64")
)
_FLAGS = "-march=native -mprefer-vector-width=512"


_OWN = ("MEMBER", "BEGUN", "COST", "RESIDUAL", "ITERATIONS", "STEP", "TRIES", "PAIRS")


@dataclass(frozen=True)
class Pattern:
    """Where the entries of A(u) stand and which of them are one: what the source depends on."""

    states: int
    controls: int
    places: tuple[tuple[int, int, int, int], ...]
    """(row, column, sign, entry)."""
    parts: tuple[tuple[int, int], ...]
    """(entry, k): the entry has a multiple of u_k, k = 0 for the constant 1."""
    charged: tuple[int, ...]
    """States with a running cost."""

    @classmethod
    def of(cls, system: Bilinear) -> tuple[Pattern, np.ndarray]:
        """The pattern, and its numbers (E, len(parts))."""
        a = system.generators
        num, _, n, _ = a.shape
        places = np.argwhere(a.any(axis=(0, 1)))
        rows = a[:, :, places[:, 0], places[:, 1]].reshape(-1, len(places)).T
        signs = np.sign(rows[np.arange(len(rows)), (rows != 0).argmax(axis=1)])
        entries, which = np.unique(rows * signs[:, None], axis=0, return_inverse=True)
        numbers = entries.reshape(len(entries), num, -1)
        parts = np.argwhere(numbers.any(axis=1))
        listed = tuple(
            (int(i), int(j), int(s), int(e)) for (i, j), s, e in zip(places, signs, which.ravel(), strict=True)
        )
        pattern = cls(
            n,
            a.shape[1] - 1,
            listed,
            tuple((int(e), int(k)) for e, k in parts),
            tuple(map(int, np.flatnonzero(system.running.any(axis=0)))),
        )
        return pattern, numbers[parts[:, 0], :, parts[:, 1]].T

    def work_rows(self, slots: int, splits: int, systems: int, lanes: int) -> int:
        """Numbers (on a CPU: vectors of eight) that a thread works with."""
        n, k, size = self.states, self.controls, slots * self.controls
        house = (6 + 2 * _MEMORY) * -(-size // lanes) + self._own(lanes)
        evaluation = (
            2 * size + (slots * splits + 1) * n + (_TERMS + 1) * (n + 1) + 5 * n + 5 * max(1, len(self.charged))
        )
        return evaluation + systems * (len(self.parts) + k + 1) + 1 + lanes * house

    def _own(self, lanes: int) -> int:
        return -(-(len(_OWN) + 3 * _MEMORY) // lanes)

    def source(self, device: str) -> str:
        """The module, with kernel `solve`."""
        cpu = device == "cpu"
        lanes = LANES if cpu else 1
        numbers = {
            "N": self.states,
            "K": self.controls,
            "NE": 1 + max(e for e, _ in self.parts),
            "NC": len(self.parts),
            "LANES": lanes,
            "MEMORY": _MEMORY,
            "TERMS": _TERMS,
            "OWN": self._own(lanes),
            "RUNNING": str(bool(self.charged)).lower(),
            "CHARGED": max(1, len(self.charged)),
        } | {name: i for i, name in enumerate(_OWN)}
        numbers |= {name: len(_OWN) + i * _MEMORY for i, name in enumerate(("RHO", "NOW", "ALPHA"))}
        body = text("bilinear_cpu.cpp" if cpu else "bilinear_gpu.cpp") + text("bilinear.cpp")
        blocks = {
            "entries": self._entries(),
            "product": self._product(),
            "adjoint": self._adjoint(),
            "slopes": self._slopes(),
        }
        body = re.sub(
            rf"^( *)<({'|'.join(blocks)})>", lambda m: "\n".join(m[1] + line for line in blocks[m[2]]), body, flags=re.M
        )
        for name, values in (("nodes", _NODES), ("weights", _WEIGHTS), ("charged", self.charged)):
            body = body.replace(f"<{name}>", ", ".join(repr(v) for v in np.asarray(values).tolist()))
        title = f"GRAPE, {self.states} states, {self.controls} controls"
        return native_module("solve", title, _ARGUMENTS, with_numbers(body, numbers), _FLAGS)

    def _entries(self) -> list[str]:
        sums: dict[int, list[str]] = {}
        for at, (e, k) in enumerate(self.parts):
            sums.setdefault(e, []).append(f"W(c + {at})" + (f" * W(u + {k - 1})" if k else ""))
        return [f"a[{e}] = {' + '.join(terms)};" for e, terms in sums.items()]

    def _product(self) -> list[str]:
        rows: list[list[str]] = [[] for _ in range(self.states)]
        for i, j, sign, e in self.places:
            rows[i].append(f"{'-' if sign < 0 else '+'} a[{e}] * W(p + {j})")
        return [
            f"W(q + {i}) = f * ({' '.join(row).removeprefix('+ ')}); W(to + {i}) += W(q + {i});"
            if row
            else f"W(q + {i}) = 0.0;"
            for i, row in enumerate(rows)
        ]

    def _adjoint(self) -> list[str]:
        driven = {e for e, k in self.parts if k}
        columns: list[list[str]] = [[] for _ in range(self.states)]
        for i, j, sign, e in self.places:
            add = "-=" if sign < 0 else "+="
            columns[j].append(
                f"s {add} a[{e}] * W(scaled + {i});" + (f" d[{e}] {add} q * W(scaled + {i});" if e in driven else "")
            )
        return [
            f"{{ const V q = W(p + {j}); V s = W(from + {j}); {' '.join(column)} W(before + {j}) = s; }}"
            for j, column in enumerate(columns)
        ]

    def _slopes(self) -> list[str]:
        return [f"W(u + {k - 1}) += W(c + {at}) * d[{e}];" for at, (e, k) in enumerate(self.parts) if k]


@dataclass(frozen=True, eq=False)
class Found:
    """What the kernel returns, in the order of the guesses."""

    pulses: np.ndarray
    """(B, S, K)."""
    cost: np.ndarray
    """(B,)."""
    gradient: np.ndarray
    """∂J/∂u (B, S, K)."""
    residual: np.ndarray
    """Largest projected gradient by the controls relative to their scale, (B,)."""
    iterations: np.ndarray
    statuses: list[Status]


@kept
def _pattern(system: Bilinear) -> tuple[Pattern, np.ndarray]:
    return Pattern.of(system)


@functools.lru_cache(maxsize=64)
def _kernel(pattern: Pattern, device: str) -> wp.Kernel:
    return load_module(pattern.source(device.partition(":")[0]), device).solve


def optimise(
    system: Bilinear,
    guess: np.ndarray,
    *,
    own: bool = False,
    target: float = -np.inf,
    gradient: float = 0.0,
    max_iterations: int = 500,
    threads: int | None = None,
    device: str | torch.device = "cpu",
) -> Found:
    """Minimise J from every pulse of `guess` (B, S, K); `max_iterations=0` only evaluates.

    `own`: member i has the i-th of B generators to itself; otherwise all of them share the pulse, and their mean cost counts. A member
    is done at a cost of `target` or a largest projected gradient of `gradient`.
    """
    where = resolve_device(device)
    pattern, numbers = _pattern(system)
    kernel = _kernel(pattern, str(where))
    num, slots, _ = guess.shape
    lanes = LANES if where.type == "cpu" else 1
    systems = 1 if own else len(numbers)
    (low, high), half = system.span, system.half
    middle = 0.5 * (low + high)
    box = np.stack([(system.low - middle) / half, (system.high - middle) / half], axis=1)
    z = np.clip((guess - middle) / half, box[:, 0], box[:, 1])
    bounded = np.isfinite(box).all(axis=1)
    largest = np.where(
        bounded,
        np.maximum(np.abs(low), np.abs(high)),
        np.maximum(10 * half, 2 * np.nan_to_num(np.abs(guess)).max(axis=(0, 1))),
    )
    theta = (system.norms @ np.append(1.0, largest)).max() * system.duration / slots
    splits = max(1, int(np.ceil(0.25 * theta * (1 + 1e-12))))
    reach = np.where(bounded.all(), 0.5, np.maximum(1.0, np.abs(z).max(axis=(1, 2))))
    rows = pattern.work_rows(slots, splits, systems, lanes)
    groups = -(-num // lanes)
    if where.type == "cuda":
        threads = max(1, min(sharing_threads(groups, where), _LARGEST_ARRAY // rows))
    else:
        threads = min(groups, threads) if threads else sharing_threads(groups, where)
    tensor = lambda a: torch.tensor(np.ascontiguousarray(a, dtype=np.float64), device=where)
    inputs = [
        z,
        reach,
        box,
        np.stack([middle, half], axis=1),
        np.atleast_2d(system.start),
        numbers,
        system.norms,
        system.final,
        system.running,
        system.effort,
    ]
    outputs = [torch.empty(shape, dtype=torch.float64, device=where) for shape in (z.shape, z.shape, (num, 4))]
    work = torch.empty(threads * rows * lanes, dtype=torch.float64, device=where)
    settings = [system.duration, system.constant, target, gradient, float(max_iterations)]
    counts = [num, slots, systems, int(own), len(np.atleast_2d(system.start)), splits, rows]
    launch_shared(kernel, threads, [*map(tensor, inputs), work, *outputs, *settings, *counts], where)
    z, slopes, summary = (a.cpu().numpy() for a in outputs)
    pulses = np.where(z <= box[:, 0], system.low, np.where(z >= box[:, 1], system.high, middle + half * z))
    return Found(
        pulses=pulses,
        cost=summary[:, 0].copy(),
        gradient=slopes / half,
        residual=summary[:, 1].copy(),
        iterations=summary[:, 2].astype(int),
        statuses=[_STATUSES[int(i)] for i in summary[:, 3]],
    )


# --- one problem --------------------------------------------------------------------------------------------------------


def newton(
    system: Bilinear, pulse: np.ndarray, *, tolerance: float = 1e-10, max_iterations: int = 60, device: str = "cpu"
) -> tuple[np.ndarray, float, float]:
    """Projected Newton steps from `pulse` (S, K): pulse, cost and |z − clip(z − ∂J/∂z)|, z the controls relative to their bounds.

    The Hessian of the free controls is a difference of exact gradients; its eigenvalues enter by their modulus, so that a saddle is
    left, plus a damping, of which several are tried at once and the best is kept.
    """
    shape, free_system = pulse.shape, system.unbounded  # differences step outside
    half = np.broadcast_to(system.half, shape).ravel()
    low, high = (np.broadcast_to(side, shape).ravel() / half for side in (system.low, system.high))

    def evaluate(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = optimise(free_system, (z * half).reshape(-1, *shape), max_iterations=0, device=device)
        return found.cost, found.gradient.reshape(len(z), -1) * half

    project = lambda z: np.clip(z, low, high)
    z = project(pulse.ravel() / half)
    (cost,), (slope,) = evaluate(z[None])
    for _ in range(max_iterations):
        residual = np.abs(z - project(z - slope)).max()
        if not residual > tolerance * (1 + abs(cost)):
            break
        free = np.flatnonzero(~((z <= low) & (slope > 0) | (z >= high) & (slope < 0)))
        step = 1e-5 * np.eye(len(z))[free]
        _, slopes = evaluate(np.concatenate([z + step, z - step]))
        hessian = ((slopes[: len(free)] - slopes[len(free) :]) / 2e-5)[:, free]
        curvature, axes = eigh(0.5 * (hessian + hessian.T))
        size = np.abs(curvature)
        damping = size.max(initial=1e-12) * np.append(1e-12, np.logspace(-8, 1, 23))
        ways = np.zeros((len(damping), len(z)))
        ways[:, free] = -(axes.T @ slope[free] / (size + damping[:, None])) @ axes.T
        trials = project(z + ways)
        costs, slopes = evaluate(trials)
        rounding = 4e-16 * (1 + abs(cost))
        residuals = np.abs(trials - project(trials - slopes)).max(axis=1)
        better = (costs <= cost + 1e-4 * (trials - z) @ slope) | ((costs <= cost + rounding) & (residuals < residual))
        if not better.any():
            break
        best = int(np.argmin(np.where(better, costs, np.inf)))
        z, cost, slope = trials[best], costs[best], slopes[best]
    return (z * half).reshape(shape), float(cost), float(np.abs(z - project(z - slope)).max())


@in_turn
def solve_grape(
    problem: Problem,
    x0: np.ndarray,
    *,
    params: np.ndarray | None = None,
    guess: Trajectory | None = None,
    num_starts: int | None = None,
    seed: int = 0,
    tolerance: float = 1e-10,
    max_iterations: int = 200,
    device: str = "cpu",
) -> Solution:
    """The best of `num_starts` random pulses (default 64) by L-BFGS with exact gradients, finished by Newton's method.

    For bilinear problems with quadratic costs, bounds on controls only and the integrator "exponential". Costates and certificate come
    from the problem's own step function. Raises ArgumentError where the problem is something else.
    """
    check_problem(problem)
    began = time.perf_counter()
    x0 = check_states(problem, x0)[0]
    p = check_params(problem, params, 1)[0]
    system = bilinear(problem, p[None], x0)
    require(
        system is not None,
        "problem",
        "be bilinear with quadratic costs, bounds on controls only and the integrator `exponential` for GRAPE",
        f"`{problem.name}` is not",
    )
    assert system is not None
    require(num_starts is None or num_starts > 0, "num_starts", "be a positive integer", f"is {num_starts!r}")
    pulses = random_pulses(system, num_starts or _STARTS, seed) if guess is None else guess.controls[None]
    first = optimise(system, pulses, gradient=1e-8, max_iterations=max_iterations, device=device)
    found = optimise(
        system,
        first.pulses[np.argsort(np.nan_to_num(first.cost, nan=np.inf), kind="stable")[:_PROMISING]],
        gradient=1e-8,
        max_iterations=5 * max_iterations,
        device=device,
    )
    cost = np.nan_to_num(found.cost, nan=np.inf)
    order = np.argsort(cost, kind="stable")
    distinct = [i for j, i in enumerate(order) if j == 0 or cost[i] > cost[order[j - 1]] + 1e-6 * (1 + abs(cost[i]))]
    refined: list[tuple[np.ndarray, float, float]] = []
    for i in distinct[:_REFINED]:
        refined.append(newton(system, found.pulses[i], tolerance=tolerance, device=device))
        if min(r[2] for r in refined) <= 1e-8:
            break
    best = min(refined, key=lambda r: r[1])
    values = {round(v, 4) for v, status in zip(first.cost, first.statuses, strict=True) if status.ok}
    solution = certified(problem, x0, best[0], p)
    return solution.replace(
        wall_time=time.perf_counter() - began,
        iterations=int(first.iterations.sum() + found.iterations.sum()),
        basins=max(1, len(values)),
    )
