"""Quantum mechanics in real numbers: operators, real-stacked states, generators of motion and fidelities; ħ = 1.

    ket            x = [Re ψ, Im ψ]                                        2n numbers
    gate           x = [Re vec U, Im vec U], vec = columns one below the other     2nm numbers (U is n × m: the images of m kets)
    density matrix r_k = tr(ρ λ_k), ρ = 1/n + ½ Σ r_k λ_k                   n² − 1 numbers: the (generalised) Bloch vector

λ_k are the generalised Gell-Mann matrices, tr(λ_j λ_k) = 2 δ_jk; for n = 2 the Pauli matrices, so r is the Bloch vector. A Bloch
vector has trace one and is Hermitian by construction. The level |0⟩ is (1, 0, …): the ground state, with σ_z = +1.

A Hamiltonian is a sum of terms [(coefficient, operator), …]: coefficients are numbers or CasADi expressions (controls,
parameters), operators constant Hermitian matrices. With coefficients constant over a step, ẋ is linear in x and the integrator
"exponential" is exact. Fidelities take a CasADi column or a numpy array (…, size): one definition for problems and for numbers.

Sources: Nielsen and Chuang, Quantum Computation and Quantum Information (2010), §2; Bertlmann and Krammer, J. Phys. A 41 (2008)
235303 (Gell-Mann matrices); Pedersen, Møller, Mølmer, Phys. Lett. A 367 (2007) 47 (average fidelity of a gate in a subspace).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import casadi as ca
import numpy as np

from optctl.errors import require
from optctl.problem.distributions import Fixed
from optctl.problem.statement import Problem, check_problem

Terms = Sequence[tuple[Any, Any]]
"""Σ coefficient · operator."""

_TOLERANCE = 1e-9

SIGMA_X = np.array([[0, 1], [1, 0]], dtype=complex)
SIGMA_Y = np.array([[0, -1j], [1j, 0]], dtype=complex)
SIGMA_Z = np.array([[1, 0], [0, -1]], dtype=complex)

GATES = {
    "identity": np.eye(2, dtype=complex),
    "x": SIGMA_X,
    "y": SIGMA_Y,
    "z": SIGMA_Z,
    "hadamard": (SIGMA_X + SIGMA_Z) / np.sqrt(2),
    "s": np.diag([1, 1j]),
    "t": np.diag([1, np.exp(0.25j * np.pi)]),
    "cnot": np.eye(4, dtype=complex)[[0, 1, 3, 2]],
    "cz": np.diag([1, 1, 1, -1]).astype(complex),
    "swap": np.eye(4, dtype=complex)[[0, 2, 1, 3]],
    "iswap": np.diag([1, 0, 0, 1]) + 1j * np.eye(4)[[3, 2, 1, 0]] * np.array([0, 1, 1, 0]),
    "sqrt_swap": np.diag([1, 0.5 + 0.5j, 0.5 + 0.5j, 1])
    + (0.5 - 0.5j) * np.eye(4)[[3, 2, 1, 0]] * np.array([0, 1, 1, 0]),
}
"""Gates by name; of two qubits the first is the more significant (and controls)."""


# --- operators and states -----------------------------------------------------------------------------------------------


def destroy(levels: int) -> np.ndarray:
    """a = Σ √k |k−1⟩⟨k| on `levels` levels, shape (levels, levels); destroy(2) = |0⟩⟨1|."""
    require(isinstance(levels, int) and levels >= 2, "levels", "be an integer of at least 2", f"is {levels!r}")
    return np.diag(np.sqrt(np.arange(1, levels)), k=1).astype(complex)


def ket(levels: int, k: int) -> np.ndarray:
    """|k⟩, shape (levels,)."""
    require(isinstance(k, int) and 0 <= k < levels, "k", f"be a level 0 … {levels - 1}", f"is {k!r}")
    return np.eye(levels, dtype=complex)[k]


def tensor(*factors: Any) -> np.ndarray:
    """Kronecker product of operators or of kets, the first the most significant."""
    return functools.reduce(np.kron, (np.asarray(factor, dtype=complex) for factor in factors))


def embed(operator: Any, site: int, sites: int) -> np.ndarray:
    """A one-qubit operator on qubit `site` (from 0) of `sites`."""
    require(isinstance(site, int) and 0 <= site < sites, "site", f"be a site 0 … {sites - 1}", f"is {site!r}")
    return tensor(np.eye(2**site), operator, np.eye(2 ** (sites - 1 - site)))


def ground_state(hamiltonian: Any) -> np.ndarray:
    """The eigenvector of the lowest energy, shape (n,); its largest entry is real and positive."""
    state = np.linalg.eigh(check_hermitian(hamiltonian))[1][:, 0]
    largest = state[np.argmax(np.abs(state).round(9))]
    return state * (np.abs(largest) / largest)


def check_hermitian(operator: Any, argument: str = "hamiltonian") -> np.ndarray:
    """The operator as complex (…, n, n), or one sentence on what is wrong with it."""
    matrix = _square(operator, argument)
    deviation = np.abs(matrix - matrix.swapaxes(-1, -2).conj()).max(initial=0.0)
    require(
        deviation <= _TOLERANCE * (1 + np.abs(matrix).max(initial=0.0)),
        argument,
        "be Hermitian",
        f"differs from its adjoint by {deviation:.3g}",
    )
    return matrix


def check_ket(state: Any, argument: str = "state") -> np.ndarray:
    """The ket as complex (n,), of norm one."""
    psi = np.asarray(state, dtype=complex)
    require(psi.ndim == 1 and psi.size >= 2, argument, "be a vector of at least 2 entries", f"has shape {psi.shape}")
    norm = np.linalg.norm(psi)
    require(abs(norm - 1) <= 1e-6, argument, "have norm 1", f"has norm {norm:.6g}")
    return psi


def check_unitary(gate: Any, argument: str = "gate") -> np.ndarray:
    """The gate as complex (n, n), unitary."""
    matrix = _square(gate, argument)
    deviation = np.abs(matrix.conj().T @ matrix - np.eye(len(matrix))).max()
    require(deviation <= 1e-6, argument, "be unitary", f"has U†U different from 1 by {deviation:.3g}")
    return matrix


def check_density(rho: Any, argument: str = "rho") -> np.ndarray:
    """The density matrix as complex (n, n): Hermitian, trace one, no negative eigenvalue."""
    matrix = check_hermitian(rho, argument)
    trace = np.trace(matrix).real
    require(abs(trace - 1) <= 1e-6, argument, "have trace 1", f"has trace {trace:.6g}")
    lowest = np.linalg.eigvalsh(matrix)[0]
    require(lowest >= -_TOLERANCE, argument, "have no negative eigenvalue", f"has the eigenvalue {lowest:.3g}")
    return matrix


def _square(operator: Any, argument: str) -> np.ndarray:
    matrix = np.asarray(operator, dtype=complex)
    require(
        matrix.ndim >= 2 and matrix.shape[-1] == matrix.shape[-2] >= 2,
        argument,
        "be a square matrix",
        f"has shape {matrix.shape}",
    )
    require(bool(np.isfinite(matrix).all()), argument, "be finite", "holds NaN or infinity")
    return matrix


# --- real coordinates ---------------------------------------------------------------------------------------------------


def stack(psi: Any) -> np.ndarray:
    """Kets (…, n) → [Re ψ, Im ψ] (…, 2n)."""
    psi = np.asarray(psi, dtype=complex)
    return np.concatenate([psi.real, psi.imag], axis=-1)


def unstack(x: Any) -> np.ndarray:
    """[Re ψ, Im ψ] (…, 2n) → kets (…, n)."""
    re, im = np.split(np.asarray(x), 2, axis=-1)
    return re + 1j * im


def stack_gate(gate: Any) -> np.ndarray:
    """U (…, n, m) → [Re vec U, Im vec U] (…, 2nm), column below column."""
    gate = np.asarray(gate, dtype=complex)
    return stack(gate.swapaxes(-1, -2).reshape(*gate.shape[:-2], -1))


def unstack_gate(x: Any, columns: int) -> np.ndarray:
    """[Re vec U, Im vec U] (…, 2nm) → U (…, n, m) of m = `columns` columns."""
    entries = unstack(x)
    require(entries.shape[-1] % columns == 0, "columns", f"divide {entries.shape[-1]}", f"is {columns}")
    return entries.reshape(*entries.shape[:-1], columns, -1).swapaxes(-1, -2)


@functools.cache
def gell_mann(levels: int) -> np.ndarray:
    """λ_k, shape (n² − 1, n, n): the symmetric and antisymmetric pair of each (i < j), then the diagonal ones.

    For n = 2: σ_x, σ_y, σ_z.
    """
    matrices = []
    for j in range(1, levels):
        for i in range(j):
            unit = np.zeros((levels, levels), dtype=complex)
            unit[i, j] = 1
            matrices += [unit + unit.T, -1j * unit + 1j * unit.T]
    for k in range(1, levels):
        matrices.append(
            np.sqrt(2 / (k * (k + 1))) * np.diag([1.0] * k + [-k] + [0.0] * (levels - k - 1)).astype(complex)
        )
    return np.array(matrices)


def to_bloch(rho: Any) -> np.ndarray:
    """Density matrix (n, n) → Bloch vector (n² − 1,); a ket is taken as |ψ⟩⟨ψ|."""
    rho = np.asarray(rho, dtype=complex)
    rho = np.outer(rho, rho.conj()) if rho.ndim == 1 else rho
    check_density(rho)
    return np.einsum("kij,ji->k", gell_mann(len(rho)), rho).real


def from_bloch(r: Any) -> np.ndarray:
    """Bloch vectors (…, n² − 1) → density matrices (…, n, n)."""
    r = np.asarray(r, dtype=float)
    n = _bloch_levels(r.shape[-1])
    return np.eye(n) / n + 0.5 * np.einsum("...k,kij->...ij", r, gell_mann(n))


def _bloch_levels(size: int) -> int:
    n = round(np.sqrt(size + 1))
    require(n >= 2 and n * n - 1 == size, "r", "have n² − 1 entries (3, 8, 15, …)", f"has {size}")
    return n


# --- generators of motion -----------------------------------------------------------------------------------------------


def schroedinger_matrix(hamiltonian: Any) -> np.ndarray:
    """The real matrix of −iH on [Re ψ, Im ψ]: [[Im H, Re H], [−Re H, Im H]], shape (2n, 2n)."""
    h = check_hermitian(hamiltonian)
    return np.block([[h.imag, h.real], [-h.real, h.imag]])


def _bloch_map(levels: int, image: Any) -> tuple[np.ndarray, np.ndarray]:
    """A (n² − 1)², b of ṙ = A r + b for a linear map ρ̇ = image(ρ) of stacks of matrices."""
    basis = gell_mann(levels)
    a = 0.5 * np.einsum("jab,kba->jk", basis, image(basis)).real
    b = np.einsum("jab,ba->j", basis, image(np.eye(levels, dtype=complex) / levels)).real
    return a, b


def hamiltonian_bloch(hamiltonian: Any) -> np.ndarray:
    """A of ṙ = A r for ρ̇ = −i[H, ρ], shape (n² − 1, n² − 1), antisymmetric."""
    h = check_hermitian(hamiltonian)
    return _bloch_map(len(h), lambda rho: -1j * (h @ rho - rho @ h))[0]


def dissipator_bloch(jump: Any) -> tuple[np.ndarray, np.ndarray]:
    """A, b of ṙ = A r + b for ρ̇ = L ρ L† − ½ (L†L ρ + ρ L†L)."""
    jump = _square(jump, "jump")
    product = jump.conj().T @ jump
    return _bloch_map(len(jump), lambda rho: jump @ rho @ jump.conj().T - 0.5 * (product @ rho + rho @ product))


def schroedinger(x: Any, hamiltonian: Terms, columns: int = 1) -> ca.SX:
    """ẋ of i ψ̇ = H ψ, or of i U̇ = H U for a gate of `columns` columns; CasADi column in, CasADi column out.

    Args:
        x: [Re, Im], 2n · columns entries.
        hamiltonian: Terms [(coefficient, H_k), …] of H = Σ coefficient · H_k, each H_k (n, n) Hermitian.
        columns: 1 for a ket.

    Raises ArgumentError where an operator is not Hermitian or its dimension does not fit x.
    """
    total: Any = 0
    for coefficient, operator in hamiltonian:
        matrix = np.kron(np.eye(columns), check_hermitian(operator))
        _fits(2 * len(matrix), x, f"dimension {x.size1() / (2 * columns):g}", len(operator))
        total += coefficient * ca.sparsify(ca.DM(schroedinger_matrix(matrix)))
    return total @ x


def lindblad(r: Any, hamiltonian: Terms, dissipators: Terms) -> ca.SX:
    """ṙ of ρ̇ = −i[H, ρ] + Σ rate (L ρ L† − ½ {L†L, ρ}) for the Bloch vector r; affine in r.

    Args:
        r: n² − 1 entries.
        hamiltonian: Terms [(coefficient, H_k), …], each H_k (n, n) Hermitian.
        dissipators: Terms [(rate, L_k), …], rates ≥ 0, each L_k (n, n).

    Raises ArgumentError where an operator is not Hermitian, a rate is negative or a dimension does not fit r.
    """
    total: Any = 0
    constant: Any = ca.SX(r.size1(), 1)
    for coefficient, operator in hamiltonian:
        matrix = hamiltonian_bloch(operator)
        _fits(len(matrix), r, f"dimension {np.sqrt(r.size1() + 1):g}", len(operator))
        total += coefficient * ca.sparsify(ca.DM(matrix))
    for rate, jump in dissipators:
        require(not isinstance(rate, (int, float)) or rate >= 0, "rate", "not be negative", f"is {rate}")
        matrix, vector = dissipator_bloch(jump)
        _fits(len(matrix), r, f"dimension {np.sqrt(r.size1() + 1):g}", len(jump))
        total += rate * ca.sparsify(ca.DM(matrix))
        constant += rate * ca.DM(vector)
    return total @ r + constant


def _fits(size: int, x: Any, must: str, was: int) -> None:
    require(size == x.size1(), "operator", f"have {must} like the state", f"has dimension {was}")


# --- fidelities: a CasADi column or the last axis of a numpy array ------------------------------------------------------


def _size(x: Any) -> int:
    return x.size1() if isinstance(x, (ca.SX, ca.MX, ca.DM)) else np.shape(x)[-1]


def _entries(rows: np.ndarray, x: Any) -> list[Any]:
    """The entries of rows @ x."""
    require(_size(x) == rows.shape[1], "target", f"fit a state of {_size(x)} real entries", f"fits {rows.shape[1]}")
    if isinstance(x, (ca.SX, ca.MX, ca.DM)):
        return ca.vertsplit(ca.sparsify(ca.DM(rows)) @ x)
    return list(np.moveaxis(np.asarray(x) @ rows.T, -1, 0))


def overlap(x: Any, target: Any) -> list[Any]:
    """[Re, Im] of ⟨target|ψ⟩ for x = [Re ψ, Im ψ] and a complex vector `target` (n,) of any norm."""
    re, im = np.real(target), np.imag(target)
    return _entries(np.block([[re, im], [-im, re]]), x)


def state_fidelity(x: Any, target: Any) -> Any:
    """F = |⟨target|ψ⟩|² for x = [Re ψ, Im ψ], `target` (n,) of norm one."""
    re, im = overlap(x, check_ket(target, "target"))
    return re**2 + im**2


def gate_fidelity(x: Any, target: Any) -> Any:
    """F = |tr(V†U)|² / n² for x = [Re vec U, Im vec U], V = `target` (n, n) unitary; blind to a global phase."""
    target = check_unitary(target, "target")
    re, im = overlap(x, target.T.ravel())
    return (re**2 + im**2) / len(target) ** 2


def average_gate_fidelity(x: Any, target: Any) -> Any:
    """F = (|tr M|² + tr M M†) / (d (d + 1)), M = V†PU: the mean of |⟨ψ|V†U|ψ⟩|² over all kets of the subspace.

    x = [Re vec U, Im vec U] holds the images U (n, d) of the first d of n levels, V = `target` (d, d) is unitary and P projects on
    those levels, so what leaks out is lost. For n = d it is (n F + 1) / (n + 1) with F of `gate_fidelity`.
    """
    target = check_unitary(target, "target")
    d = len(target)
    padded = np.zeros((_size(x) // (2 * d), d), dtype=complex)
    require(len(padded) >= d, "target", f"fit a state of {_size(x)} real entries", f"has dimension {d}")
    padded[:d] = target
    re, im = overlap(x, padded.T.ravel())
    return (re**2 + im**2 + d * (1 - leakage(x, d))) / (d * (d + 1))


def leakage(x: Any, dimension: int) -> Any:
    """1 − tr(P U U†) / d: mean population outside the first d = `dimension` levels; x as in `average_gate_fidelity`."""
    levels = _size(x) // (2 * dimension)
    inside = np.eye(_size(x))[np.tile(np.arange(levels) < dimension, 2 * dimension)]
    return 1 - sum(entry**2 for entry in _entries(inside, x)) / dimension


def density_fidelity(r: Any, target: Any) -> Any:
    """F = ⟨ψ|ρ|ψ⟩ = 1/n + ½ r·s for the Bloch vector r of ρ and a pure `target` ψ (n,)."""
    target = check_ket(target, "target")
    (product,) = _entries(to_bloch(target)[None], r)
    return 1 / len(target) + 0.5 * product


def purity(r: Any) -> Any:
    """tr ρ² = 1/n + ½ |r|²."""
    return 1 / _bloch_levels(_size(r)) + 0.5 * sum(entry**2 for entry in _entries(np.eye(_size(r)), r))


# --- numbers ------------------------------------------------------------------------------------------------------------


def propagator(hamiltonian: Any, time: float) -> np.ndarray:
    """exp(−i H t) for Hermitian H (…, n, n), by diagonalisation."""
    energies, states = np.linalg.eigh(check_hermitian(hamiltonian))
    return (states * np.exp(-1j * time * energies)[..., None, :]) @ states.swapaxes(-1, -2).conj()


def steady_state(hamiltonian: Any, dissipators: Terms) -> np.ndarray:
    """The Bloch vector (n² − 1,) with ṙ = A r + b = 0 of constant H and dissipators [(rate, L), …]."""
    a, b = hamiltonian_bloch(hamiltonian), 0.0
    for rate, jump in dissipators:
        matrix, vector = dissipator_bloch(jump)
        require(matrix.shape == a.shape, "dissipators", f"have dimension {len(hamiltonian)}", f"have {len(jump)}")
        a, b = a + rate * matrix, b + rate * vector
    require(np.linalg.cond(a) < 1e12, "dissipators", "leave one steady state", "leave several")
    return -np.linalg.solve(a, b)


# --- robust pulses ------------------------------------------------------------------------------------------------------


def ensemble(problem: Problem, params: Any) -> Problem:
    """One pulse for many plants: the states of all members side by side, the mean of their costs, all their constraints.

    Its optimum is the open-loop control that does best on average over the parameters, a robust pulse. The members are
    (x of member 1, x of member 2, …) and the parameters are fixed.

    Args:
        problem: With one initial state and no noise.
        params: Parameters of the members (M, n_p).

    Source: Li and Khaneja, Control of inhomogeneous quantum ensembles, Phys. Rev. A 73 (2006) 030302.
    """
    check_problem(problem)
    values = np.asarray(params, dtype=float)
    require(
        values.ndim == 2 and values.shape[1] == problem.n_p and len(values) > 0,
        "params",
        f"have shape (M, {problem.n_p})",
        f"has shape {values.shape}",
    )
    certain = not problem.initial_state.spread.any() and problem.n_w == 0
    require(certain, "problem", "have one initial state and no noise", "has several or some")
    n, members = problem.n_x, range(len(values))

    def each(function: ca.Function, state: Any, *point: Any) -> list[Any]:
        *control, _, t = point
        return [function(state[k * n : (k + 1) * n], *control, values[k], t) for k in members]

    def stacked(name: str) -> Any:
        function = getattr(problem, f"{name.rstrip('s')}_function")
        if function is None:
            return None
        if function.n_in() == 4:
            return lambda x, u, p, t: ca.vertcat(*each(function, x, u, p, t))
        return lambda x, p, t: ca.vertcat(*each(function, x, p, t))

    rate, cost, end, step = (
        problem.dynamics_function,
        problem.stage_cost_function,
        problem.terminal_cost_function,
        problem.step_function,
    )
    motion = rate or ca.Function("next", step.sx_in(), [step(*step.sx_in())[0]])
    mean = lambda parts: sum(parts) / len(values)
    units: dict[str, str] = dict(problem.state)  # type: ignore[arg-type]
    return problem.replace(
        name=f"{problem.name}-ensemble",
        state={f"m{k}_{name}": unit for k in members for name, unit in units.items()},
        params={},
        param_ranges={},
        **{"transition" if rate is None else "dynamics": lambda x, u, p, t: ca.vertcat(*each(motion, x, u, p, t))},
        stage_cost=lambda x, u, p, t: mean(each(cost, x, u, p, t)),
        terminal_cost=None if problem.terminal_cost is None else lambda x, p, t: mean(each(end, x, p, t)),
        path_constraints=stacked("path_constraints"),
        terminal_constraints=stacked("terminal_constraints"),
        state_bounds={f"m{k}_{name}": pair for k in members for name, pair in problem.state_bounds.items()},
        initial_state=Fixed(np.tile(problem.initial_state.location, len(values))),
        observation=None,
        observation_names=(),
        observation_noise=0.0,
    )
