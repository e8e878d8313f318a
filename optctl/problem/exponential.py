"""The exact step of ẋ = A x + b with A and b constant over the step, in symbols: x(t + h) and ∫ l dt, for any ‖h A‖.

Three ways to the same numbers; what A depends on and the number of operations decide between them:

    numbers   A and h are known: exp(h A) and the Gramian of the cost are computed once; the step is one product with each
    chain     A depends on controls, parameters or h, and their ranges are known: x is multiplied by a Taylor polynomial, in as many
              pieces as keep ‖h A‖ small in each; where A is much larger than in these ranges, the step is NaN
    doubling  the same for any range: the propagator of a short piece by a diagonal Padé approximant, then squared again and again

The diagonal Padé approximant of a skew-symmetric matrix is orthogonal. So with doubling the step of a closed quantum system keeps
the norm whatever the controls are. The propagator is kept as exp(·) − 1, of which no digit is lost in squaring.

Sources: Al-Mohy and Higham, SIAM J. Sci. Comput. 33 (2011) 488 (Taylor); Moler and Van Loan, SIAM Rev. 45 (2003) 3 (scaling and
squaring); Van Loan, IEEE TAC 23 (1978) 395 (cost integrals of linear systems).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, product

import casadi as ca
import numpy as np

Rate = Callable[[ca.SX, ca.SX], tuple[ca.SX, ca.SX]]
"""(x, t) -> (ẋ, l), with the control and the parameters already fixed."""
Matrix = ca.SX | ca.DM


@dataclass(frozen=True)
class Ranges:
    """What the controls and parameters of a step may be: its exponential is built for these. Columns of equal length."""

    symbols: ca.SX
    low: np.ndarray
    """−inf where there is no bound."""
    high: np.ndarray
    scale: np.ndarray
    """How large an unbounded symbol typically is."""
    longest: float
    """The largest h where h is a symbol."""

    def shortened(self, parts: int) -> Ranges:
        """Those of one of so many equal parts of the step."""
        return replace(self, longest=self.longest / parts)


_PIECE = 2.25
"""Largest ‖h A‖ of a piece of a chain."""
_TAYLOR_DEGREE = 18
"""At least: ‖h A‖^19/19! = 4e-12 for ‖h A‖ = 2, and no more for larger ones."""
_REMAINDER = 4.5e-12
_NODES = 5
"""At least, of the quadrature of one piece; more where a cost quadratic in x would lose more than `_QUADRATURE` of it."""
_QUADRATURE = 1e-8
_TRUSTED = 3.0
"""‖h A‖ of a piece up to which the polynomial has eight digits: the chain is NaN beyond."""
_FAR = 4.0
"""A chain whose controls are unbounded is built for this many of their scales."""
_SMALL, _ORDER = 0.0147, 3
"""‖h A‖ of the first piece with a Gramian: Boole's rule and the Padé approximant [3/3] have all digits, (3!)²/(6! 7!) ‖h A‖⁶ < 1e-16."""
_WIDE, _ORDER_WIDE = 0.94, 7
"""Without a Gramian: that of [7/7] has them, (7!)²/(14! 15!) ‖h A‖¹⁴ < 1e-16."""
_UNBOUNDED = 100.0
"""‖h A‖ in one interval up to which the step of an unbounded A has all digits; at three times that there are nine."""
_MARGIN = 2
"""Squarings of a bounded A beyond those that the range asks for."""
_BASE = 6
"""What Padé's approximant and the first piece of the Gramian cost, in squarings."""
_AFFORDABLE = 10_000
"""Largest number of multiplications by which an unbounded A is doubled; larger systems are chains, for `_FAR` scales of the controls."""
_PIECES = 2000
_TOO_LONG = f"The exponential integrator would need more than {_PIECES} pieces: make `dt` shorter, or bound what the rates depend on."
_NOT_FINITE = "The exponential integrator needs dynamics whose coefficients are finite numbers."
_BOOLE = np.array([7.0, 32.0, 12.0, 32.0, 7.0]) / 90
_DEPTH = 5
"""Where A is not affine in its symbols: all corners of the ranges of so many are looked at, of more symbols random ones."""


def exponential(rate: Rate, x: ca.SX, t: ca.SX, h: float | ca.SX, ranges: Ranges | None = None) -> tuple[ca.SX, ca.SX]:
    """x(t + h) = exp(h A) x + ∫ exp(s A) ds b and ∫ l dt for ẋ = A x + b, A and b constant over the step.

    That covers linear systems and bilinear ones (quantum: A depends on the control), stiff ones included. The cost integral is exact
    where l is quadratic in x and free of time; other costs, and those of a chain, are integrated along the exact solution by
    Gauss–Legendre quadrature with five nodes in each piece. Raises ValueError where the dynamics are not affine in the state
    or mention the time.
    """
    z, clock = ca.SX.sym("x", x.numel()), ca.SX.sym("t")
    motion, running = rate(z, clock)
    if degree(motion, z) > 1 or ca.depends_on(motion, clock):
        raise ValueError("The exponential integrator needs dynamics that are affine in the state and free of time.")
    a, b = ca.sparsify(ca.jacobian(motion, z)), ca.sparsify(_at_zero(motion, z))
    cost = _Quadratic.of(running, z) if degree(running, z) <= 2 and not ca.depends_on(running, clock) else None
    if not isinstance(h, ca.SX) and not ca.symvar(a):
        numbers = ca.evalf(h * a)
        if not numbers.is_regular():
            raise ValueError(_NOT_FINITE)
        if cost is not None and not ca.symvar(cost.hessian):
            return _by_numbers(numbers, h * b, h, cost, x)
        return _by_nodes(numbers, h * b, h, rate, x, t)

    entries, norm, open_ended = _reach(a, ranges)
    longest = h if not isinstance(h, ca.SX) else math.inf if ranges is None else ranges.longest
    size = longest * norm if norm else 0.0
    if math.isnan(size):
        raise ValueError(_NOT_FINITE)
    pieces = math.ceil(min(max(size / _PIECE, 1), _PIECES + 1))
    order, nodes = _orders(min(size / pieces, _PIECE))
    if cost is not None:
        known = 2**_MARGIN * size if math.isfinite(size) else 0.0
        open_ended |= math.isinf(size)
        squarings = _squarings(max(known, _UNBOUNDED) if open_ended else known, _WIDE if cost.free else _SMALL)
        each = a.nnz() + (0 if cost.free else nodes * x.numel())
        affordable = _AFFORDABLE if open_ended else pieces * order * each
        if _work(a, b, cost) * (squarings + _BASE) < affordable:
            return _by_doubling(h * a, h * b, h, cost, x, squarings)
    if pieces > _PIECES:
        raise ValueError(_TOO_LONG)
    total = ca.SX(0)
    x = x * _trusted(h * a, longest * entries, pieces * _TRUSTED)
    for k in range(pieces):
        x, part = _chain(rate, a, x, t + k * h / pieces, h / pieces, order, nodes)
        total += part
    return x, total if cost is None or not cost.free else h * cost.constant


# --- structure ----------------------------------------------------------------------------------------------------------


def degree(value: ca.SX, z: ca.SX) -> float:
    """The degree of `value` as a polynomial in z, read off its operations; infinite where it is none (|z|, say)."""
    function = ca.Function("f", [z], [value], {"allow_free": True})
    slots: dict[int, float] = {}
    highest = 0.0
    for k in range(function.n_instructions()):
        operation, inputs = function.instruction_id(k), function.instruction_input(k)
        if operation == ca.OP_OUTPUT:
            highest = max(highest, slots[inputs[0]])
            continue
        if operation == ca.OP_INPUT:
            found = 1.0
        elif operation in (ca.OP_CONST, ca.OP_PARAMETER):
            found = 0.0
        else:
            known = [slots[i] for i in inputs if i >= 0]
            first, second = known[0], known[-1]
            if operation in (ca.OP_ADD, ca.OP_SUB, ca.OP_NEG, ca.OP_TWICE, ca.OP_ASSIGN):
                found = max(first, second)
            else:
                product_of = operation in (ca.OP_MUL, ca.OP_SQ)
                product_of |= (operation == ca.OP_DIV and not second) or (operation == ca.OP_IF_ELSE_ZERO and not first)
                found = first + second if product_of or not (first or second) else math.inf
        for slot in function.instruction_output(k):
            slots[slot] = found
    return highest


def _at_zero(value: ca.SX, z: ca.SX) -> ca.SX:
    return ca.substitute(value, z, ca.SX.zeros(z.numel()))


@dataclass(frozen=True)
class _Quadratic:
    """l = ½ x'Hx + g'x + c."""

    hessian: ca.SX
    gradient: ca.SX
    constant: ca.SX

    @classmethod
    def of(cls, value: ca.SX, z: ca.SX) -> _Quadratic:
        hessian, gradient = ca.hessian(value, z)
        return cls(ca.sparsify(hessian), ca.sparsify(_at_zero(gradient, z)), _at_zero(value, z))

    @property
    def free(self) -> bool:
        """Whether x costs nothing."""
        return not self.hessian.nnz() and not self.gradient.nnz()


def _work(a: ca.SX, b: ca.SX, cost: _Quadratic) -> int:
    """Multiplications of one doubling: products of matrices with the zeros that exp(A) keeps."""
    motion, weight = (_pattern(matrix) for matrix in _bordered(a, b, cost))
    pattern = np.eye(len(motion), dtype=int) | motion
    for _ in range(len(motion).bit_length()):
        pattern = (pattern @ pattern > 0).astype(int)
    count = lambda left, right: int(left.sum(axis=0) @ right.sum(axis=1))
    if cost.free:
        return count(pattern, pattern)
    full = (pattern.T @ weight @ pattern > 0).astype(int)
    return count(pattern, pattern) + count(full, pattern) + count(pattern.T, full)


def _pattern(matrix: ca.SX) -> np.ndarray:
    return np.asarray(ca.DM(matrix.sparsity(), 1.0)).astype(int)


def _bordered(a: ca.SX, b: ca.SX, cost: _Quadratic) -> tuple[ca.SX, ca.SX]:
    """F and Q of ż = F z and l = z'Qz + c with z = (x, 1), or z = x where there is nothing affine."""
    half, slope = 0.5 * cost.hessian, 0.5 * cost.gradient
    if not b.nnz() and not slope.nnz():
        return a, half
    last = ca.SX(1, a.shape[0])
    return ca.blockcat([[a, b], [last, ca.SX(1, 1)]]), ca.blockcat([[half, slope], [slope.T, ca.SX(1, 1)]])


def _reach(a: ca.SX, ranges: Ranges | None) -> tuple[np.ndarray, float, bool]:
    """The largest |a_ij| (n, n) and a bound of ‖A‖₂ over the ranges of its symbols, and whether one of them is unbounded: then over
    `_FAR` of its scales. Both are infinite where nothing is known of a symbol."""
    known = ca.vertsplit(ranges.symbols) if ranges else []
    kept = [k for k, symbol in enumerate(known) if ca.depends_on(a, symbol)]
    symbols = ca.vertcat(*(known[k] for k in kept)) if kept else ca.SX(0, 1)
    low, high, scale = (side[kept] for side in (ranges.low, ranges.high, ranges.scale)) if ranges else np.empty((3, 0))
    bounded = np.isfinite(low) & np.isfinite(high)
    low, high = np.where(bounded, low, -_FAR * scale), np.where(bounded, high, _FAR * scale)
    middle, half = 0.5 * (low + high), 0.5 * (high - low)
    function = ca.Function("a", [symbols], [ca.densify(a)], {"allow_free": True})
    if function.has_free():
        return np.full(a.shape, np.inf), math.inf, True
    at = lambda values: np.asarray(function(values))
    if affine := degree(a, symbols) <= 1:
        centre = at(middle)
        found = np.stack(
            [centre, *((at(middle + unit) - centre) * w for unit, w in zip(np.eye(len(half)), half, strict=True))]
        )
    elif len(kept) <= _DEPTH:
        found = np.stack([at(middle + half * side) for side in product((-1, 0, 1), repeat=len(kept))])
    else:
        found = np.stack(
            [at(middle + half * side) for side in np.random.default_rng(0).choice([-1, 1], (3**_DEPTH, len(kept)))]
        )
    usual = np.isfinite(found).all(axis=(1, 2))  # at the end of a range there may be a pole
    if not usual.any() or (affine and not usual.all()):
        return np.full(a.shape, np.nan), math.nan, False
    sizes, norms = np.abs(found[usual]), np.linalg.norm(found[usual], 2, axis=(1, 2))
    together = np.sum if affine else np.max
    return together(sizes, axis=0), float(together(norms)), not bounded.all()


def _trusted(a: ca.SX, largest: np.ndarray, limit: float) -> ca.SX:
    """1 while ‖A‖_∞ ≤ `limit`, or at least while |a_ij| ≤ `largest`, and NaN beyond; without a kink, for solvers look for kinks.

    The largest of the row sums r_i is taken by Σ r_i⁸ ≤ limit⁸, and |a| as √(a² + ε²).
    """
    limit = max(limit, float(2 * (largest.sum(axis=1) ** 8).sum()) ** 0.125)
    size = ca.sqrt((a / limit) ** 2 + 1e-24)
    power = ca.sum2(size * ca.SX(a.sparsity(), 1.0))
    for _ in range(3):
        power = power * power
    return 1 + 1e-300 * ca.sqrt(1 - ca.sum1(power))


def _squarings(norm: float, small: float) -> int:
    return max(0, math.ceil(math.log2(max(norm, small) / small)))


# --- the three ways -----------------------------------------------------------------------------------------------------


def _orders(norm: float) -> tuple[int, int]:
    """Degree of Taylor's polynomial and nodes of the quadrature in a piece with ‖h A‖ = `norm`."""
    order, nodes = _TAYLOR_DEGREE, _NODES
    while norm ** (order + 1) / math.factorial(order + 1) > _REMAINDER:
        order += 1
    f = math.factorial
    while (2 * norm) ** (2 * nodes) * f(nodes) ** 4 / ((2 * nodes + 1) * f(2 * nodes) ** 3) > _QUADRATURE:
        nodes += 1  # the error of Gauss's rule for exp(2 ‖A‖ t)
    return order, nodes


def _gauss(nodes: int) -> list[tuple[float, float]]:
    """Nodes and weights on [0, 1]."""
    places, weights = np.polynomial.legendre.leggauss(nodes)
    return [(float(0.5 * (x + 1)), float(0.5 * w)) for x, w in zip(places, weights, strict=True)]


def _chain(rate: Rate, a: ca.SX, x: ca.SX, t: ca.SX, h: float | ca.SX, order: int, nodes: int) -> tuple[ca.SX, ca.SX]:
    """One piece by Taylor's polynomial acting on x."""
    terms = [x, h * rate(x, t)[0]]  # h^k x^(k) / k!
    for k in range(2, order + 1):
        terms.append(h / k * (a @ terms[-1]))

    def at(fraction: float) -> ca.SX:
        value = terms[-1]
        for term in reversed(terms[:-1]):
            value = value * fraction + term
        return value

    cost = ca.SX(0)
    for fraction, weight in _gauss(nodes):
        cost += weight * h * rate(at(fraction), t + fraction * h)[1]
    return at(1.0), cost


def _by_doubling(
    a: ca.SX, b: ca.SX, h: float | ca.SX, cost: _Quadratic, x: ca.SX, squarings: int
) -> tuple[ca.SX, ca.SX]:
    motion, weight = _bordered(a, b, cost)
    z = x if motion.shape[0] == x.numel() else ca.vertcat(x, 1)
    order, times = _ORDER_WIDE if cost.free else _ORDER, _product(motion)
    flow, gramian = _doubled(
        motion, None if cost.free else weight, squarings, partial(_pade, order=order, times=times), times
    )
    total = cost.constant if gramian is None else cost.constant + ca.dot(z, gramian @ z)
    return x + (flow @ z)[: x.numel()], h * total


def _by_numbers(a: ca.DM, b: ca.SX, h: float, cost: _Quadratic, x: ca.SX) -> tuple[ca.SX, ca.SX]:
    """z = (x, b, g): of b and g what is not zero."""
    z, motion, weight = _held(a, b, cost.gradient, x)
    weight[: x.numel(), : x.numel()] = 0.5 * ca.evalf(cost.hessian)
    norm = float(np.linalg.norm(np.asarray(a), 2))
    flow, gramian = _doubled(motion, None if cost.free else weight, _squarings(norm, _SMALL), _taylor)
    after = ca.sparsify(flow + ca.DM.eye(z.numel()))[: x.numel(), :] @ z
    if gramian is None:
        return after, h * cost.constant
    upper = ca.sparsify(2 * ca.triu(gramian) - ca.diag(ca.diag(gramian)))
    return after, h * (cost.constant + ca.dot(z, upper @ z))


def _by_nodes(a: ca.DM, b: ca.SX, h: float, rate: Rate, x: ca.SX, t: ca.SX) -> tuple[ca.SX, ca.SX]:
    """The state at the nodes of a quadrature whose pieces resolve every oscillation and, growing with the time, every decay."""
    z, motion, _ = _held(a, b, ca.SX(x.numel(), 1), x)
    values = np.linalg.eigvals(np.asarray(a))
    norm = float(np.linalg.norm(np.asarray(a), 2))
    even = max(1, math.ceil(max(np.abs(values.imag).max(), values.real.max()) / _PIECE))
    decay = max(1.0, -values.real.min())
    if even > _PIECES:
        raise ValueError(_TOO_LONG)
    grown = np.sqrt(2) ** np.arange(math.floor(2 * math.log2(decay))) / decay
    ends = np.unique(np.concatenate([np.linspace(0, 1, even + 1), grown]))

    def at(fraction: float) -> ca.SX:
        flow, _ = _doubled(fraction * motion, None, _squarings(norm, _SMALL), _taylor)
        return ca.sparsify(flow + ca.DM.eye(z.numel()))[: x.numel(), :] @ z

    cost = ca.SX(0)
    for start, end in pairwise(ends):
        for node, weight in _gauss(_NODES):
            fraction, width = float(start + node * (end - start)), float(end - start)
            cost += weight * width * h * rate(at(fraction), t + fraction * h)[1]
    return at(1.0), cost


def _held(a: ca.DM, b: ca.SX, g: ca.SX, x: ca.SX) -> tuple[ca.SX, ca.DM, ca.DM]:
    """z = (x, b, g) without what is zero in b and g, the matrix of ẋ = a x + b with both held, and the weight of g'x."""
    n, pushed, priced = x.numel(), b.sparsity().row(), g.sparsity().row()
    z = ca.vertcat(x, *(b[i] for i in pushed), *(g[i] for i in priced))
    motion, weight = ca.DM(z.numel(), z.numel()), ca.DM(z.numel(), z.numel())
    motion[:n, :n] = a
    for k, i in enumerate(pushed):
        motion[i, n + k] = 1
    for k, i in enumerate(priced):
        j = n + len(pushed) + k
        weight[i, j] = weight[j, i] = 0.5
    return z, motion, weight


Product = Callable[[Matrix, Matrix], Matrix]


def _product(m: ca.SX) -> Product:
    """How powers of `m` are multiplied: by half of the work where m = [[X, Y], [−Y, X]], which is X − iY on [Re, Im]."""
    half, odd = divmod(m.shape[0], 2)
    symbols = ca.SX(ca.vertcat(*ca.symvar(m)))
    values = ca.Function("m", [symbols], [ca.densify(m)])(np.random.default_rng(0).uniform(0.5, 1.5, symbols.shape))
    x, y = (np.asarray(values)[:half, columns] for columns in (slice(half), slice(half, 2 * half)))
    if odd or not np.array_equal(np.block([[x, y], [-y, x]]), np.asarray(values)):
        return lambda a, b: a @ b

    def multiplied(a: Matrix, b: Matrix) -> Matrix:
        top = a[:half, :] @ b
        return ca.vertcat(top, ca.horzcat(-top[:, half:], top[:, :half]))

    return multiplied


def _doubled(
    motion: Matrix,
    weight: Matrix | None,
    squarings: int,
    small: Callable[[Matrix], Matrix],
    times: Product = operator.matmul,
) -> tuple[Matrix, Matrix | None]:
    """exp(F) − 1 and ∫₀¹ exp(sF)' Q exp(sF) ds, F = `motion` and Q = `weight`, from those of F / 2^`squarings`.

    Over the first four pieces the integral is Boole's rule, whose weights are positive. Then the interval is doubled:
    Y ← 2Y + Y² and W ← W + (1 + Y)'W(1 + Y), so W stays positive semidefinite where Q is.
    """
    squarings = max(squarings, 0 if weight is None else 2)
    flow, gramian = small(motion / 2**squarings), None
    one = type(motion).eye(motion.shape[0])
    if weight is not None:
        moved = one + flow
        gramian = _BOOLE[-1] * weight
        for share in reversed(_BOOLE[:-1].tolist()):
            gramian = share * weight + moved.T @ gramian @ moved
        gramian = gramian * 2.0 ** (2 - squarings)
    for k in range(squarings):
        if gramian is not None and k >= 2:
            moved = one + flow
            gramian = gramian + moved.T @ gramian @ moved
        flow = 2 * flow + times(flow, flow)
    return flow, gramian


def _taylor(m: Matrix) -> Matrix:
    """exp(M) − 1 for ‖M‖ ≤ `_SMALL`: ‖M‖⁷/8! = 4e-18."""
    total = m
    for k in range(7, 1, -1):
        total = m + m @ total / k
    return total


def _pade(m: ca.SX, order: int, times: Product) -> ca.SX:
    """exp(M) − 1 by the diagonal Padé approximant 1 + 2 (V − U)⁻¹ U: orthogonal for any skew-symmetric M.

    U and V are the odd and the even part of Σ c_j M^j, c_j = (2q − j)! / (j! (q − j)!) up to a factor, q = `order` odd.
    """
    f = math.factorial
    c = [f(2 * order - j) / (f(j) * f(order - j)) / f(order) for j in range(order + 1)]
    square: Matrix = times(m, m)
    power = square
    one = ca.SX.eye(m.shape[0])
    even, odd = c[0] * one + c[2] * power, c[1] * one + c[3] * power
    for j in range(4, order, 2):
        power = times(power, square)
        even, odd = even + c[j] * power, odd + c[j + 1] * power
    odd = times(m, odd)  # type: ignore[assignment]
    return _solved(even - odd, 2 * odd)


def _solved(left: ca.SX, right: ca.SX) -> ca.SX:
    """left⁻¹ right by elimination on what is not zero; no pivots: the symmetric part of `left` is positive definite."""
    n = left.shape[0]
    rows = ca.vertsplit(ca.horzcat(left, right))
    for k in range(n):
        rows[k] = rows[k] / rows[k][k]
        for i in range(n):
            if i != k and rows[i].sparsity().has_nz(0, k):
                rows[i] = rows[i] - rows[i][k] * rows[k]
    return ca.vertcat(*rows)[:, n:]
