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
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import warp as wp

from optctl.codegen.cache import load_module
from optctl.codegen.cpp_source import native_module, with_numbers
from optctl.codegen.launch import launch_shared, resolve_device, sharing_threads
from optctl.shared import kept
from optctl.solvers.batched.kernels import text
from optctl.solvers.batched.source import LANES
from optctl.solvers.solution import Status

if TYPE_CHECKING:
    from optctl.solvers.methods.grape import Bilinear

_MEMORY = 20
"""Pairs that L-BFGS keeps."""
_TERMS = 40
"""Of a Taylor series: 4⁴⁰/40! = 1e-24."""
_LARGEST_ARRAY = 2**28
_STATUSES = (Status.CONVERGED, Status.STALLED, Status.MAX_ITERATIONS, Status.DIVERGED)
_NODES, _WEIGHTS = (0.5 * (np.polynomial.legendre.leggauss(5)[i] + (1 - i)) for i in (0, 1))

_ARGUMENTS = dict.fromkeys(
    ("guess", "reach", "box", "scale", "start", "coefficients", "norms", "final", "running", "effort", "work", "found", "slopes",
     "summary"), "wp.array(dtype=wp.float64)",
) | dict.fromkeys(("duration", "constant", "target", "tolerance", "max_iterations"), "wp.float64") | dict.fromkeys(
    ("num", "slots", "systems", "own", "starts", "splits", "rows", "threads", "offset"), "wp.int64"
)  # fmt: skip
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
            "N": self.states, "K": self.controls, "NE": 1 + max(e for e, _ in self.parts), "NC": len(self.parts), "LANES": lanes,
            "MEMORY": _MEMORY, "TERMS": _TERMS, "OWN": self._own(lanes), "RUNNING": str(bool(self.charged)).lower(),
            "CHARGED": max(1, len(self.charged)),
        } | {name: i for i, name in enumerate(_OWN)}  # fmt: skip
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
            f"W(q + {i}) = f * ({' '.join(row).removeprefix('+ ')}); W(to + {i}) += W(q + {i});" if row else f"W(q + {i}) = 0.0;"
            for i, row in enumerate(rows)
        ]  # fmt: skip

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
        ]  # fmt: skip

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
        z, reach, box, np.stack([middle, half], axis=1), np.atleast_2d(system.start), numbers, system.norms, system.final, system.running,
        system.effort,
    ]  # fmt: skip
    outputs = [torch.empty(shape, dtype=torch.float64, device=where) for shape in (z.shape, z.shape, (num, 4))]
    work = torch.empty(threads * rows * lanes, dtype=torch.float64, device=where)
    settings = [system.duration, system.constant, target, gradient, float(max_iterations)]
    counts = [num, slots, systems, int(own), len(np.atleast_2d(system.start)), splits, rows]
    launch_shared(kernel, threads, [*map(tensor, inputs), work, *outputs, *settings, *counts], where)
    z, slopes, summary = (a.cpu().numpy() for a in outputs)
    pulses = np.where(z <= box[:, 0], system.low, np.where(z >= box[:, 1], system.high, middle + half * z))
    return Found(
        pulses=pulses, cost=summary[:, 0].copy(), gradient=slopes / half, residual=summary[:, 1].copy(),
        iterations=summary[:, 2].astype(int), statuses=[_STATUSES[int(i)] for i in summary[:, 3]],
    )  # fmt: skip
