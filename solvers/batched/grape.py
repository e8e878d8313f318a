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

_CPU = """
    #pragma clang fp contract(fast)
    typedef double V __attribute__((ext_vector_type(LANES)));
    const wp::int64 S = 1;
    const wp::int64 me = thread + offset;
    V* const w = reinterpret_cast<V*>(work.data) + me * rows;
    auto absolute = [](V v) { return __builtin_elementwise_abs(v); };
    auto ceiling = [](V v) { return __builtin_elementwise_ceil(v); };
    auto largest = [](V v) { return __builtin_reduce_max(v); };
    auto total = [](V v) { return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7])); };
    #define OPTCTL_INLINE __attribute__((always_inline))
"""
_GPU = """
    typedef double V;
    const wp::int64 S = threads;
    const wp::int64 me = thread + offset;
    V* const w = work.data + me;
    auto absolute = [](V v) { return ::fabs(v); };
    auto ceiling = [](V v) { return ::ceil(v); };
    auto largest = [](V v) { return v; };
    auto total = [](V v) { return v; };
    #define OPTCTL_INLINE
"""

_BODY = """
    const wp::int64 n = slots * K, blocks = (n + LANES - 1) / LANES;
    const wp::int64 pulse = 0, slope = pulse + n, path = slope + n, terms = path + (slots * splits + 1) * N;
    const wp::int64 factors = terms + (TERMS + 1) * N, costate = factors + TERMS + 1, before = costate + N, scaled = before + N;
    const wp::int64 source = scaled + N, pushes = source + N, begin = pushes + 5 * CHARGED, numbers = begin + N;
    const wp::int64 rates = numbers + systems * NC, value = rates + systems * (K + 1), homes = value + 1;
    const wp::int64 house = (6 + 2 * MEMORY) * blocks + OWN;
    const double dt = duration / double(slots);
    auto W = [&](wp::int64 row) OPTCTL_INLINE -> V& { return w[row * S]; };
    auto entry = [&](wp::int64 row, wp::int64 i) OPTCTL_INLINE -> double& {
        return reinterpret_cast<double*>(w + (row + i / LANES) * S)[i % LANES];
    };

    // --- cost and gradient of all lanes: `pulse` -> `value`, `slope` ---
    const double nodes[5] = {<nodes>}, weights[5] = {<weights>};
    const wp::int64 charged[CHARGED] = {<charged>};
    double powers[5][TERMS + 1];
    for (int g = 0; g < 5; ++g)
        for (int m = 0; m <= TERMS; ++m)
            powers[g][m] = m == 0 ? 1.0 : nodes[g] * powers[g][m - 1];
    // h times weight times R x at a Gauss-Legendre node, for the states that cost, in row `to`; returns half its product with x
    auto running_cost = [&](wp::int64 order, int g, V h, wp::int64 to) -> V {
        for (int i = 0; i < CHARGED; ++i) {
            V x = W(terms + order * N + charged[i]);
            for (wp::int64 m = order - 1; m >= 0; --m)
                x = x * nodes[g] + W(terms + m * N + charged[i]);
            W(before + i) = x;
        }
        V sum = 0.0;
        for (int i = 0; i < CHARGED; ++i) {
            V y = 0.0;
            for (int m = 0; m < CHARGED; ++m)
                y += running.data[charged[i] * N + charged[m]] * W(before + m);
            W(to + i) = h * weights[g] * y;
            sum += 0.5 * W(before + i) * W(to + i);
        }
        return sum;
    };
    auto divided = [&](V theta) -> V { const V r = ceiling(0.25 * theta); return r > 1.0 ? r : V(1.0); };
    auto evaluate = [&]() OPTCTL_INLINE {
        V a[NE], d[NE], good = 1.0;
        // the entries of A in a slot; returns a bound of the norm of dt A, zero where it is no number or beyond what is allowed for
        auto generate = [&](wp::int64 e, wp::int64 j) OPTCTL_INLINE -> V {
            const wp::int64 c = numbers + e * NC, u = pulse + j * K, r = rates + e * (K + 1);
            V norm = W(r);
            for (wp::int64 k = 0; k < K; ++k)
                norm += absolute(W(u + k)) * W(r + 1 + k);
            <entries>
            norm *= dt;
            good = norm <= 4.0 * double(splits) ? good : V(NAN);
            return norm <= 4.0 * double(splits) ? norm : V(0.0);
        };
        // t_m = h/m A t_{m-1} from the state in row `from`, added up in row `to`; returns how many there are
        auto taylor = [&](wp::int64 from, wp::int64 to, V h, V theta) OPTCTL_INLINE -> wp::int64 {
            for (wp::int64 i = 0; i < N; ++i)
                W(terms + i) = W(to + i) = W(from + i);
            V bound = theta;
            wp::int64 order = 0;
            while (order < TERMS && largest(bound) > 1e-16) {
                ++order;
                const V f = bound > 1e-16 ? h / double(order) : V(0.0);
                W(factors + order) = f;
                const wp::int64 p = terms + (order - 1) * N, q = terms + order * N;
                <product>
                bound *= theta / double(order + 1);
            }
            return order;
        };
        for (wp::int64 i = 0; i < n; ++i) {
            for (wp::int64 lane = 0; lane < LANES; ++lane)
                entry(pulse + i, lane) = scale.data[2 * (i % K)] + scale.data[2 * (i % K) + 1] * entry(homes + lane * house + blocks, i);
            W(slope + i) = 0.0;
        }
        V cost = 0.0;
        for (wp::int64 e = 0; e < systems; ++e) {
            for (wp::int64 i = 0; i < N; ++i)
                W(path + i) = W(begin + i);
            for (wp::int64 j = 0; j < slots; ++j) {
                const V theta = generate(e, j), r = divided(theta);
                const wp::int64 parts = wp::int64(largest(r));
                for (wp::int64 i = 0; i < parts; ++i) {
                    const wp::int64 from = path + (j * splits + i) * N, to = i + 1 < parts ? from + N : path + (j + 1) * splits * N;
                    const V share = double(i) < r ? 1.0 / r : V(0.0);
                    const wp::int64 order = taylor(from, to, dt * share, theta * share);
                    if (RUNNING)
                        for (int g = 0; g < 5; ++g)
                            cost += running_cost(order, g, dt * share, pushes);
                }
            }
            const wp::int64 last = path + slots * splits * N;
            for (wp::int64 i = 0; i < N; ++i) {
                V y = 0.0;
                for (wp::int64 m = 0; m < N; ++m)
                    y += final.data[i * N + m] * W(last + m);
                W(costate + i) = y;
                cost += 0.5 * y * W(last + i);
            }
            for (wp::int64 j = slots - 1; j >= 0; --j) {
                const V theta = generate(e, j), r = divided(theta);
                for (int i = 0; i < NE; ++i)
                    d[i] = 0.0;
                for (wp::int64 i = wp::int64(largest(r)) - 1; i >= 0; --i) {
                    const V share = double(i) < r ? 1.0 / r : V(0.0);
                    const wp::int64 order = taylor(path + (j * splits + i) * N, scaled, dt * share, theta * share);
                    if (RUNNING)
                        for (int g = 0; g < 5; ++g)
                            running_cost(order, g, dt * share, pushes + g * CHARGED);
                    // what drives s_m: the costate after the interval, and the running cost at the nodes
                    auto drive = [&](wp::int64 m, wp::int64 to) {
                        for (wp::int64 l = 0; l < N; ++l)
                            W(to + l) = W(costate + l);
                        for (int g = 0; RUNNING && g < 5; ++g)
                            for (int l = 0; l < CHARGED; ++l)
                                W(to + charged[l]) += powers[g][m] * W(pushes + g * CHARGED + l);
                    };
                    drive(order, before);
                    for (wp::int64 m = order; m > 0; --m) {
                        for (wp::int64 l = 0; l < N; ++l)
                            W(scaled + l) = W(factors + m) * W(before + l);
                        if (RUNNING)
                            drive(m - 1, source);
                        const wp::int64 p = terms + (m - 1) * N, from = RUNNING ? source : costate;
                        <adjoint>
                    }
                    for (wp::int64 l = 0; l < N; ++l)
                        W(costate + l) = W(before + l);
                }
                const wp::int64 c = numbers + e * NC, u = slope + j * K;
                <slopes>
            }
        }
        cost *= 1.0 / double(systems);
        for (wp::int64 j = 0; j < slots; ++j)
            for (wp::int64 k = 0; k < K; ++k) {
                const V u = W(pulse + j * K + k);
                V quadratic = 0.0;
                for (wp::int64 m = 0; m < K; ++m)
                    quadratic += effort.data[k * K + m] * W(pulse + j * K + m);
                cost += dt * u * (0.5 * quadratic + effort.data[K * K + k]);
                V& g = W(slope + j * K + k);
                g = scale.data[2 * k + 1] * (g / double(systems) + dt * (quadratic + effort.data[K * K + k]));
            }
        W(value) = (cost + constant) * good;
    };

    // --- the iteration of one member: rows z, trial, gradient, direction, free controls, pairs, then its own numbers ---
    auto clipped = [&](double z, wp::int64 i) {
        const double low = box.data[2 * (i % K)], high = box.data[2 * (i % K) + 1];
        return z < low ? low : z > high ? high : z;
    };
    auto dot = [&](wp::int64 p, wp::int64 q) {
        V sum = 0.0;
        for (wp::int64 b = 0; b < blocks; ++b)
            sum += W(p + b) * W(q + b);
        return total(sum);
    };
    auto dot_free = [&](wp::int64 p, wp::int64 q, wp::int64 open) {
        V sum = 0.0;
        for (wp::int64 b = 0; b < blocks; ++b)
            sum += W(open + b) * W(p + b) * W(q + b);
        return total(sum);
    };
    auto residual = [&](wp::int64 z, wp::int64 g) {
        double worst = 0.0;
        for (wp::int64 i = 0; i < n; ++i) {
            const double size = wp::abs(entry(z, i) - clipped(entry(z, i) - entry(g, i), i));
            worst = size > worst || size != size ? size : worst;
        }
        return worst;
    };
    wp::int64 next = me, busy = 0;
    auto load = [&](wp::int64 lane) {
        const wp::int64 z = homes + lane * house, own_row = z + (6 + 2 * MEMORY) * blocks;
        for (wp::int64 b = 0; b < 6 * blocks; ++b)
            W(z + b) = 0.0;
        for (wp::int64 b = 0; b < OWN; ++b)
            W(own_row + b) = 0.0;
        entry(own_row, MEMBER) = next < num ? double(next) : -1.0;
        if (next >= num)
            return;
        for (wp::int64 i = 0; i < n; ++i)
            entry(z + blocks, i) = clipped(guess.data[next * n + i], i);
        for (wp::int64 i = 0; i < N; ++i)
            entry(begin + i, lane) = start.data[(next % starts) * N + i];
        const wp::int64 system = own > 0 ? next : 0;
        for (wp::int64 i = 0; i < systems * NC; ++i)
            entry(numbers + i, lane) = coefficients.data[system * NC + i];
        for (wp::int64 i = 0; i < systems * (K + 1); ++i)
            entry(rates + i, lane) = norms.data[system * (K + 1) + i];
        next += threads;
        ++busy;
    };
    auto finish = [&](wp::int64 lane, double status) {
        const wp::int64 z = homes + lane * house, own_row = z + (6 + 2 * MEMORY) * blocks, i = wp::int64(entry(own_row, MEMBER));
        for (wp::int64 k = 0; k < n; ++k) {
            found.data[i * n + k] = entry(z, k);
            slopes.data[i * n + k] = entry(z + 2 * blocks, k);
        }
        summary.data[4 * i] = entry(own_row, COST);
        summary.data[4 * i + 1] = entry(own_row, RESIDUAL);
        summary.data[4 * i + 2] = entry(own_row, ITERATIONS);
        summary.data[4 * i + 3] = status;
        --busy;
        load(lane);
    };
    auto direct = [&](wp::int64 lane) {
        const wp::int64 z = homes + lane * house, g = z + 2 * blocks, way = z + 4 * blocks, open = z + 5 * blocks, pairs = z + 6 * blocks;
        const wp::int64 own_row = pairs + 2 * MEMORY * blocks;
        bool held = false;
        for (wp::int64 i = 0; i < n; ++i) {
            const double slope_i = entry(g, i), here = entry(z, i);
            const bool against = slope_i != 0.0 && clipped(slope_i > 0.0 ? -INFINITY : INFINITY, i) == here;
            entry(open, i) = against ? 0.0 : 1.0;
            entry(way, i) = against ? 0.0 : slope_i;
            held = held || against;
        }
        const double polyak = (wp::abs(entry(own_row, COST)) + 1e-9) / (dot(way, way) + 1e-300);
        const wp::int64 count = wp::int64(entry(own_row, PAIRS)), first = count > MEMORY ? count - MEMORY : 0;
        double gamma = 0.0;
        for (wp::int64 m = count - 1; m >= first; --m) {
            const wp::int64 place = m % MEMORY, s = pairs + 2 * place * blocks, y = s + blocks;
            double rho = entry(own_row, RHO + place);
            if (held) {
                const double sy = dot_free(s, y, open);
                rho = sy > 1e-10 * wp::sqrt(dot_free(s, s, open) * dot_free(y, y, open)) ? 1.0 / sy : 0.0;
            }
            if (rho > 0.0 && gamma == 0.0)
                gamma = 1.0 / (rho * dot_free(y, y, open));
            const double alpha = rho * dot(s, way);
            entry(own_row, NOW + place) = rho;
            entry(own_row, ALPHA + place) = alpha;
            for (wp::int64 b = 0; b < blocks; ++b)
                W(way + b) -= alpha * W(open + b) * W(y + b);
        }
        gamma = gamma > 0.0 ? gamma : polyak;
        for (wp::int64 b = 0; b < blocks; ++b)
            W(way + b) = -gamma * W(way + b);
        for (wp::int64 m = first; m < count; ++m) {
            const wp::int64 place = m % MEMORY, s = pairs + 2 * place * blocks, y = s + blocks;
            const double change = entry(own_row, ALPHA + place) + entry(own_row, NOW + place) * dot(y, way);
            for (wp::int64 b = 0; b < blocks; ++b)
                W(way + b) -= change * W(open + b) * W(s + b);
        }
        if (!(dot(g, way) < 0.0))
            for (wp::int64 b = 0; b < blocks; ++b)
                W(way + b) = -polyak * W(open + b) * W(g + b);
        double far = 1.0;
        for (wp::int64 i = 0; i < n; ++i) {
            const double size = wp::abs(entry(way, i)) / reach.data[wp::int64(entry(own_row, MEMBER))];
            far = size > far ? size : far;
        }
        for (wp::int64 b = 0; b < blocks; ++b)
            W(way + b) *= 1.0 / far;
        entry(own_row, STEP) = 1.0;
        entry(own_row, TRIES) = 0.0;
    };
    auto advance = [&](wp::int64 lane) {
        const wp::int64 z = homes + lane * house, trial = z + blocks, g = z + 2 * blocks, fresh = z + 3 * blocks, way = z + 4 * blocks;
        const wp::int64 pairs = z + 6 * blocks, own_row = pairs + 2 * MEMORY * blocks;
        auto my = [&](wp::int64 which) -> double& { return entry(own_row, which); };
        if (my(MEMBER) < 0.0)
            return;
        for (wp::int64 i = 0; i < n; ++i)
            entry(fresh, i) = entry(slope + i, lane);
        const double now = entry(value, lane);
        bool accepted = my(BEGUN) == 0.0, turn = false;
        if (!accepted) {
            double expected = 0.0;
            for (wp::int64 i = 0; i < n; ++i)
                expected += entry(g, i) * (entry(trial, i) - entry(z, i));
            const double change = now - my(COST);
            accepted = expected < 0.0 && (change <= 1e-4 * expected
                || (wp::abs(change) <= 1e-15 * (1.0 + wp::abs(now)) && residual(trial, fresh) < my(RESIDUAL)));
            if (accepted) {
                const wp::int64 place = wp::int64(my(PAIRS)) % MEMORY, s = pairs + 2 * place * blocks, y = s + blocks;
                for (wp::int64 b = 0; b < blocks; ++b) {
                    W(s + b) = W(trial + b) - W(z + b);
                    W(y + b) = W(fresh + b) - W(g + b);
                }
                const double sy = dot(s, y);
                if (sy > 1e-14 * wp::sqrt(dot(s, s) * dot(y, y))) {
                    my(RHO + place) = 1.0 / sy;
                    my(PAIRS) += 1.0;
                }
                my(ITERATIONS) += 1.0;
            } else if (my(TRIES) < 25.0) {
                const double ratio = -expected / (2.0 * (change - expected));
                my(STEP) *= ratio > 0.1 ? (ratio < 0.5 ? ratio : 0.5) : 0.1;
                my(TRIES) += 1.0;
            } else if (my(PAIRS) > 0.0) {
                my(PAIRS) = 0.0;  // a direction that leads nowhere: forget what it came from
                turn = true;
            } else {
                finish(lane, 1.0);
                return;
            }
        }
        if (accepted) {
            for (wp::int64 b = 0; b < blocks; ++b) {
                W(z + b) = W(trial + b);
                W(g + b) = W(fresh + b);
            }
            my(BEGUN) = 1.0;
            my(COST) = now;
            my(RESIDUAL) = residual(z, g);
            const double status = !(now - now == 0.0) ? 3.0 : now <= target || my(RESIDUAL) <= tolerance ? 0.0
                : my(ITERATIONS) >= max_iterations ? 2.0 : -1.0;
            if (status >= 0.0) {
                finish(lane, status);
                return;
            }
        }
        if (accepted || turn)
            direct(lane);
        for (wp::int64 i = 0; i < n; ++i)
            entry(trial, i) = clipped(entry(z, i) + my(STEP) * entry(way, i), i);
    };
    for (wp::int64 row = 0; row < homes; ++row)
        W(row) = 0.0;
    for (wp::int64 lane = 0; lane < LANES; ++lane)
        load(lane);
    while (busy > 0) {
        evaluate();
        for (wp::int64 lane = 0; lane < LANES; ++lane)
            advance(lane);
    }
"""

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
        body = (_CPU if cpu else _GPU) + _BODY
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
