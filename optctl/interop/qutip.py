"""QuTiP's `Qobj` and `QobjEvo` ↔ quantum problems; ħ = 1 and the real coordinates of `optctl.problem.quantum` on our side.

from_qutip   H₀ + Σ u_k(t) H_k, start, target, collapse operators  →  `Problem`
to_qutip     `Problem` and its controls  →  `QobjEvo` for `sesolve` or `mesolve`
to_qobj      real-stacked states  →  kets, gates or density matrices
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import casadi as ca
import numpy as np

from optctl.errors import ArgumentError, require
from optctl.optional import library
from optctl.problem import Fixed, Problem, check_problem, quantum


def from_qutip(
    drift: Any,
    controls: Mapping[str, Any] | Sequence[Any] | None = None,
    *,
    initial: Any,
    target: Any,
    c_ops: Sequence[Any] = (),
    dt: float,
    steps: int,
    control_bounds: Mapping[str, tuple[float, float]] | None = None,
    control_scale: Mapping[str, float] | None = None,
    energy: float = 1e-3,
    **fields: Any,
) -> Problem:
    """Transfer `initial` → `target` under H = drift + Σ u_k controls_k: cost 1 − fidelity at the end + `energy` · ∫ |u|² dt.

    `drift` is a `Qobj`, or a `QobjEvo` (or QuTiP's list [H0, [H1, c1], …]) whose time-dependent terms are then the controls, their
    pulses forgotten. `controls`: Hermitian `Qobj`s, by name or as u1, u2, …. Kets give a state transfer, unitaries (`initial` the
    identity, say) a gate up to its phase; with `c_ops`, or where `initial` is a density matrix, the motion is Lindblad's. A `target`
    ket may be given as its density matrix. Tensor structure (`dims`) is flattened. Raises ArgumentError for what is not Hermitian,
    not normalised or does not fit.

    Give `control_bounds` where there are any. Without them the step of a small system (some ten real coordinates) is unitary for every
    pulse; that of a larger one is built for four times `control_scale` and NaN beyond about that.
    """
    qutip = library("qutip", "QuTiP", "qutip")
    if controls is None:
        drift, controls = _terms(drift, qutip)
    named = dict(controls) if isinstance(controls, Mapping) else {f"u{k + 1}": h for k, h in enumerate(controls)}
    require(len(named) > 0, "controls", "name at least one control Hamiltonian", "is empty")
    h0 = quantum.check_hermitian(_array(drift, "drift"), "drift")
    h = [
        quantum.check_hermitian(_array(term, f"controls[{name!r}]"), f"controls[{name!r}]")
        for name, term in named.items()
    ]
    for name, term in zip(named, h, strict=True):
        require(
            term.shape == h0.shape, "controls", f"have shape {h0.shape} like the drift", f"`{name}` has {term.shape}"
        )
    start, goal = _array(initial, "initial"), _array(target, "target")
    jumps = [(1.0, _array(c, "c_ops")) for c in c_ops]
    for matrix, argument in ((start, "initial"), (goal, "target"), *((jump, "c_ops") for _, jump in jumps)):
        require(len(matrix) == len(h0), argument, f"have dimension {len(h0)} like the drift", f"has {len(matrix)}")

    def terms(u: Any) -> list[tuple[Any, np.ndarray]]:
        return [(1.0, h0), *((u[k], term) for k, term in enumerate(h))]

    n = len(h0)
    goal = _pure(goal) if _is_density(goal) else goal
    open_system = bool(jumps) or _is_density(start) or (start.shape == (n, n) and goal.shape != (n, n))
    if open_system:
        goal = quantum.check_ket(goal.ravel(), "target") if goal.size == n else goal
        require(
            goal.shape == (n,),
            "target",
            "be a ket or a pure density matrix where the motion is Lindblad's",
            f"has shape {goal.shape}",
        )
        rho = np.outer(start, start.conj()) if start.shape == (n, 1) else start
        x0 = quantum.to_bloch(quantum.check_density(rho, "initial"))
        state = [f"r{k + 1}" for k in range(n * n - 1)]
        motion = lambda x, u, p: quantum.lindblad(x, terms(u), jumps)
        fidelity = lambda x: quantum.density_fidelity(x, goal)
    elif start.shape == (n, n):
        goal, x0 = quantum.check_unitary(goal, "target"), quantum.stack_gate(quantum.check_unitary(start, "initial"))
        state = [f"{part}_{i}_{j}" for part in ("re", "im") for j in range(n) for i in range(n)]
        motion = lambda x, u, p: quantum.schroedinger(x, terms(u), columns=n)
        fidelity = lambda x: quantum.gate_fidelity(x, goal)
    else:
        goal, x0 = quantum.check_ket(goal.ravel(), "target"), quantum.stack(quantum.check_ket(start.ravel(), "initial"))
        state = [f"{part}_{i}" for part in ("re", "im") for i in range(n)]
        motion = lambda x, u, p: quantum.schroedinger(x, terms(u))
        fidelity = lambda x: quantum.state_fidelity(x, goal)

    given: dict[str, Any] = {
        "name": "from-qutip",
        "description": f"A quantum system of {n} levels, imported from QuTiP.",
    }
    return Problem(
        state=dict.fromkeys(state, "1"),
        control=dict.fromkeys(named, "rad/s"),
        dynamics=motion,
        stage_cost=lambda x, u, p: energy * ca.sumsqr(u),
        terminal_cost=lambda x, p: 1 - fidelity(x),
        control_bounds=dict(control_bounds or {}),
        control_scale=dict(control_scale or {}),
        initial_state=Fixed(x0),
        dt=dt,
        steps=steps,
        integrator="exponential",
        **(given | fields),
    )


def to_qutip(problem: Problem, controls: Any) -> Any:
    """The `QobjEvo` of a quantum problem under `controls` (T, n_u), constant over each interval, at its nominal parameters.

    It is the Hamiltonian where the states are kets or gates, and the Liouvillian where they are Bloch vectors: what `sesolve`
    and `mesolve` take. Integrate with a `max_step` of at most dt, so that no jump of a control is stepped over.
    """
    qutip = library("qutip", "QuTiP", "qutip")
    check_problem(problem)
    values = np.asarray(controls, dtype=float)
    require(
        values.ndim == 2 and values.shape[1] == problem.n_u,
        "controls",
        f"have shape (T, {problem.n_u})",
        f"has shape {values.shape}",
    )
    drift, *terms = generators(problem)
    times = problem.dt * np.arange(len(values) + 1)
    held = np.vstack([values, values[-1:]])
    elements: list[Any] = [drift]
    for k, term in enumerate(terms):
        elements.append([term, qutip.coefficient(held[:, k].copy(), tlist=times, order=0)])
    return qutip.QobjEvo(elements)


def generators(problem: Problem) -> list[Any]:
    """[G₀, G₁, …] with G = G₀ + Σ u_k G_k: Hamiltonians (`Qobj`) where the states are kets or gates, else Liouvillians."""
    qutip = library("qutip", "QuTiP", "qutip")
    require(problem.dynamics_function is not None, "problem", "have `dynamics`", "has a `transition`")
    x, u, t = problem.x, problem.u, problem.t
    rate = problem.dynamics_function(x, u, problem.param_values, t)  # type: ignore[misc]
    a, b = ca.jacobian(rate, x), ca.substitute(rate, x, ca.SX.zeros(problem.n_x))
    parts = ca.horzcat(a, b)
    slopes = [ca.jacobian(ca.vec(parts), u[k]) for k in range(problem.n_u)]
    bilinear = not any(ca.depends_on(ca.vec(s), ca.vertcat(x, u, t)) for s in slopes) and not ca.depends_on(rate, t)
    require(
        bilinear and not ca.depends_on(ca.vec(a), x),
        "problem",
        "be bilinear: ẋ = (A₀ + Σ u_k A_k) x",
        f"`{problem.name}` is not",
    )
    base = np.array(ca.evalf(ca.substitute(parts, u, ca.SX.zeros(problem.n_u))))
    changes = [np.array(ca.evalf(s)).reshape(base.shape, order="F") for s in slopes]
    convert = _hamiltonian if _is_ket(problem, [base, *changes]) else _liouvillian
    columns = _columns(problem) if convert is _hamiltonian else 1
    return [qutip.Qobj(*convert(matrix, columns)) for matrix in (base, *changes)]


def to_qobj(problem: Problem, states: Any) -> list[Any]:
    """Kets, gates or density matrices of the rows of `states` (K, n_x), as `problem` stacks them."""
    qutip = library("qutip", "QuTiP", "qutip")
    rows = np.atleast_2d(np.asarray(states, dtype=float))
    require(rows.shape[-1] == problem.n_x, "states", f"have shape (K, {problem.n_x})", f"has shape {rows.shape}")
    if generators(problem)[0].issuper:
        return [qutip.Qobj(rho) for rho in quantum.from_bloch(rows)]
    columns = _columns(problem)
    kets = quantum.unstack(rows) if columns == 1 else quantum.unstack_gate(rows, columns)
    return [qutip.Qobj(ket) for ket in kets]


# --- reading ------------------------------------------------------------------------------------------------------------


def _array(value: Any, argument: str) -> np.ndarray:
    """The matrix of a `Qobj` (or of anything numpy takes)."""
    return np.asarray(value.full() if hasattr(value, "full") else value, dtype=complex)


def _is_density(matrix: np.ndarray) -> bool:
    """Hermitian, of trace one, without a negative eigenvalue: no gate of at least two levels is that."""
    try:
        quantum.check_density(matrix)
    except ArgumentError:
        return False
    return True


def _pure(rho: np.ndarray) -> np.ndarray:
    """The ket (n, 1) of a pure density matrix."""
    purity = float(np.trace(rho @ rho).real)
    require(abs(purity - 1) <= 1e-6, "target", "be a pure state", f"has the purity {purity:.6g}")
    return np.linalg.eigh(rho)[1][:, -1:]


def _terms(evolution: Any, qutip: Any) -> tuple[Any, list[Any]]:
    """Drift and control Hamiltonians of a `QobjEvo` or of QuTiP's list."""
    constant: list[Any] = []
    changing: list[Any] = []
    for element in qutip.QobjEvo(evolution).to_list():
        pair = isinstance(element, list)
        known = isinstance(element[0] if pair else element, qutip.Qobj)
        require(known, "drift", "be a sum of operators with coefficients", "is a function of time as a whole")
        (changing if pair else constant).append(element[0] if pair else element)
    require(bool(changing), "controls", "be given, for `drift` has no time-dependent term", "is None")
    return sum(constant) if constant else 0 * changing[0], changing


# --- structure of the real matrices -------------------------------------------------------------------------------------


def _is_ket(problem: Problem, matrices: list[np.ndarray]) -> bool:
    """Whether the real matrices are those of −iH on [Re, Im]; else they must be affine maps of Bloch vectors."""
    half, odd = divmod(problem.n_x, 2)
    stacked = not odd and all(
        np.allclose(m[:half, :half], m[half:, half : 2 * half])
        and np.allclose(m[:half, half : 2 * half], -m[half:, :half])
        and np.allclose(m[:half, half : 2 * half], m[:half, half : 2 * half].T)
        and np.allclose(m[:, -1], 0)
        and np.allclose(m[:half, :half], -m[:half, :half].T)
        for m in matrices
    )
    n = round(math.sqrt(problem.n_x + 1))
    require(
        stacked or (n >= 2 and n * n - 1 == problem.n_x),
        "problem",
        "have a real-stacked ket, a gate or a Bloch vector as its state",
        f"`{problem.name}` has not",
    )
    return stacked


def _columns(problem: Problem) -> int:
    """How many kets are stacked: a gate starts from orthonormal columns, a ket has one."""
    amplitudes = quantum.unstack(problem.initial_state.location)
    return max(1, round(float(np.sum(np.abs(amplitudes) ** 2))))


def _hamiltonian(matrix: np.ndarray, columns: int) -> tuple[np.ndarray]:
    half = matrix.shape[0] // 2
    levels = half // columns
    return (matrix[:levels, half : half + levels] + 1j * matrix[:levels, :levels],)


def _liouvillian(matrix: np.ndarray, columns: int) -> tuple[np.ndarray, list[Any]]:
    """The superoperator on columns below one another: 1/n ↦ ½ Σ b_j λ_j, ½ λ_k ↦ ½ Σ_j A_jk λ_j."""
    n = round(math.sqrt(len(matrix) + 1))
    vectors = quantum.gell_mann(n).swapaxes(-1, -2).reshape(n * n - 1, n * n)
    identity = np.eye(n).ravel() / n
    image = np.outer(0.5 * matrix[:, -1] @ vectors, n * identity)
    image += 0.5 * vectors.T @ matrix[:, :-1] @ vectors.conj()
    return image, [[[n], [n]], [[n], [n]]]
