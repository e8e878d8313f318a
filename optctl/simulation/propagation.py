"""Many closed quantum systems at once: `propagate` for constant Hamiltonians, `propagate_pulses` for pulses in intervals.

`propagate`: ψ(t) of i ψ̇ = H ψ for a batch of Hamiltonians at given times.
Two levels have a kernel of their own: exp(−iHτ) = exp(−iατ) (cos Ωτ − i sin Ωτ (H − α)/Ω) with α = ½ tr H and Ω² = ½ tr (H − α)², once for
each different interval between save times; one 2 × 2 product a save time is all that remains. More levels are diagonalised:
ψ(t) = V exp(−iEt) V†ψ₀. Both are exact; all arithmetic is float64, only the result is rounded to float32 where that is asked for.

`propagate_pulses`: one system under a batch of pulses, for sizes whose straight-line program would be too long to compile (from about
10,000 operations: five qubits, or a gate of three). The Taylor series of the exponential acts on the states, and since all members
share the operators each term is one product of a stacked operator matrix with all states at once. torch differentiates it.
"""

from __future__ import annotations

import functools
import math
from typing import Any, no_type_check

import numpy as np
import torch
import warp as wp
from torch import Tensor

from optctl.codegen.cache import init_warp
from optctl.codegen.launch import launch, resolve_device, resolve_dtype
from optctl.errors import require
from optctl.problem.quantum import check_hermitian

_OPERATIONS = 60
"""Of one save time of one two-level system, loads and stores included."""
_TERMS = {torch.complex64: 12, torch.complex128: 18}
"""Taylor terms: what is left out is below rounding for a norm of one."""


def propagate(
    hamiltonian: Any,
    initial: Any,
    times: Any,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float32",
) -> Tensor:
    """Kets ψ_b(t_k) of i ψ̇ = H_b ψ, ψ_b(t_0) = `initial`, ħ = 1: shape (B, T, n), complex.

    Args:
        hamiltonian: H (B, n, n), or (n, n) for one; Hermitian.
        initial: ψ (n,) for all, or (B, n). It is not normalised.
        times: Save times (T,), finite, in any order; the state at times[0] is `initial`.
        device: cpu, cuda or cuda:N.
        dtype: Of the real parts of the result: float32 (complex64) or float64 (complex128).

    Raises ArgumentError where H is not Hermitian or a shape does not fit.

    >>> detuning = np.linspace(0, 10, 3000)[:, None, None]
    >>> propagate(SIGMA_X + detuning * SIGMA_Z, [1, 0], np.linspace(0, 1, 50)).shape
    torch.Size([3000, 50, 2])
    """
    where, real = resolve_device(device), resolve_dtype(dtype)
    h = torch.as_tensor(hamiltonian, device=where).to(torch.complex128)
    h = h[None] if h.dim() == 2 else h
    require(
        h.dim() == 3 and h.shape[1] == h.shape[2] >= 2,
        "hamiltonian",
        "have shape (B, n, n)",
        f"has shape {tuple(np.shape(hamiltonian))}",
    )
    num, n = h.shape[:2]
    psi = torch.as_tensor(initial, device=where).to(torch.complex128)
    require(
        psi.shape in ((n,), (1, n), (num, n)),
        "initial",
        f"have shape ({n},) or ({num}, {n})",
        f"has shape {tuple(psi.shape)}",
    )
    t = np.asarray(times, dtype=np.float64)
    require(
        t.ndim == 1 and t.size > 0 and np.isfinite(t).all(),
        "times",
        "be a vector of finite numbers",
        f"has shape {t.shape}",
    )
    _check_hermitian(h)
    psi = psi.reshape(-1, n)
    return (_two_levels if n == 2 else _diagonalised)(h, psi, t, torch.promote_types(real, torch.complex32))


def propagate_pulses(
    h_drift: Any,
    h_controls: Any,
    amplitudes: Any,
    initial: Any,
    dt: float,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float32",
) -> Tensor:
    """States at the ends of all intervals, U_k = exp(−i (H₀ + Σ_j u_kj H_j) dt) U_{k−1}, ħ = 1; differentiable by `amplitudes`.

    Args:
        h_drift: H₀ (n, n), Hermitian.
        h_controls: H_j (K, n, n), Hermitian.
        amplitudes: u (B, T, K), constant over each interval; a tensor that requires a gradient gets one.
        initial: Ket (n,), or the columns of a gate (n, m), at the start.
        dt: Length of an interval.
        device: cpu, cuda or cuda:N.
        dtype: Of the real parts: float32 (complex64) or float64 (complex128).

    Returns kets (B, T + 1, n), or gates (B, T + 1, n, m). Raises ArgumentError where an operator is not Hermitian or a shape does not fit.
    """
    where, real = resolve_device(device), resolve_dtype(dtype)
    kind = torch.promote_types(real, torch.complex32)
    drift, controls = check_hermitian(h_drift, "h_drift"), check_hermitian(h_controls, "h_controls")
    n = len(drift)
    require(
        drift.ndim == 2 and controls.shape[1:] == (n, n),
        "h_controls",
        f"have shape (K, {n}, {n})",
        f"has shape {controls.shape}",
    )
    operators = np.concatenate([drift[None], controls])
    start = torch.as_tensor(initial, device=where).to(kind)
    u = torch.as_tensor(amplitudes, device=where).to(real)
    require(
        u.dim() == 3 and u.shape[2] == len(operators) - 1,
        "amplitudes",
        f"have shape (B, T, {len(operators) - 1})",
        f"has shape {tuple(u.shape)}",
    )
    require(
        start.dim() in (1, 2) and len(start) == n,
        "initial",
        f"have shape ({n},) or ({n}, m)",
        f"has shape {tuple(start.shape)}",
    )
    require(np.isfinite(dt) and dt > 0, "dt", "be positive", f"is {dt!r}")
    weights = torch.cat([torch.ones_like(u[..., :1]), u], dim=2)
    norms = torch.as_tensor(np.linalg.norm(operators, 2, axis=(1, 2)), dtype=real, device=where)
    substeps = math.ceil(dt * float((weights.detach().abs() @ norms).max())) if u.numel() else 1
    generator = torch.as_tensor(-1j * dt / substeps * operators.reshape(-1, n), device=where).to(kind)
    states = start.reshape(n, -1, 1).expand(-1, -1, len(u))  # (n, m, B): one matrix for all products
    path = [states]
    for weight in weights.permute(1, 2, 0)[..., None, None, :]:
        for _ in range(substeps):
            states = _exponential(generator, weight, states)
        path.append(states)
    result = torch.stack(path).permute(3, 0, 1, 2)
    return result[..., 0] if start.dim() == 1 else result


def _exponential(generator: Tensor, weight: Tensor, states: Tensor) -> Tensor:
    """Σ_k A^k/k! ψ, A = Σ_j weight_j generator_j, of norm one at most, for states (n, m, B)."""
    term, terms = states, _TERMS[generator.dtype]
    for k in range(1, terms + 1):
        images = generator @ term.reshape(len(term), -1)
        term = (weight / k * images.view(len(weight), *term.shape)).sum(0)
        states = states + term
    return states


def _check_hermitian(h: Tensor) -> None:
    if torch.equal(h, h.mH):
        return
    deviation = float((h - h.mH).abs().max())
    require(
        deviation <= 1e-6 * (1.0 + float(h.abs().max())),
        "hamiltonian",
        "be Hermitian",
        f"differs from its adjoint by {deviation:.3g}",
    )


def _diagonalised(h: Tensor, psi: Tensor, t: np.ndarray, dtype: torch.dtype) -> Tensor:
    energies, states = torch.linalg.eigh(h)
    amplitudes = (states.mH @ psi[..., None])[..., 0]
    elapsed = torch.as_tensor(t - t[0], device=h.device)
    phases = torch.polar(amplitudes.new_ones((), dtype=torch.float64), -energies[:, None] * elapsed[:, None])
    return ((phases * amplitudes[:, None]) @ states.mT).to(dtype)


def _two_levels(h: Tensor, psi: Tensor, t: np.ndarray, dtype: torch.dtype) -> Tensor:
    steps = np.diff(t, prepend=t[0])
    if len(t) > 2 and np.ptp(steps[1:]) <= 1e-12 * np.abs(t).max():  # evenly spaced but for rounding
        steps[1:] = (t[-1] - t[0]) / (len(t) - 1)
    out = torch.empty((len(h), len(t), 2), dtype=dtype, device=h.device)
    flat = lambda z: torch.view_as_real(z.contiguous())
    arguments = [flat(h), flat(psi), torch.as_tensor(steps, device=h.device), flat(out), len(t), len(psi)]
    launch(_kernel(torch.view_as_real(out).dtype), len(h), arguments, h.device, _OPERATIONS * len(t))
    return out


@functools.cache
def _kernel(dtype: torch.dtype) -> wp.Kernel:
    init_warp()
    real = wp.float32 if dtype == torch.float32 else wp.float64
    double = wp.float64

    @wp.kernel(enable_backward=False, module="unique")
    @no_type_check  # the annotations are Warp's
    def two_levels(
        hamiltonian: wp.array(dtype=double),  # (B, 2, 2) complex
        initial: wp.array(dtype=double),  # (1 or B, 2) complex
        steps: wp.array(dtype=double),  # (T,)
        out: wp.array(dtype=real),  # (B, T, 2) complex
        num_times: int,
        num_initial: int,
        offset: int,
    ):
        b = wp.tid() + offset
        mean = double(0.5) * (hamiltonian[8 * b] + hamiltonian[8 * b + 6])
        z = double(0.5) * (hamiltonian[8 * b] - hamiltonian[8 * b + 6])
        x = hamiltonian[8 * b + 2]
        y = -hamiltonian[8 * b + 3]
        omega = wp.sqrt(x * x + y * y + z * z)
        k = 4 * (b % num_initial)
        re0 = initial[k]
        im0 = initial[k + 1]
        re1 = initial[k + 2]
        im1 = initial[k + 3]
        last = double(0.0)
        ar, ai, br, bi = double(1.0), double(0.0), double(0.0), double(0.0)
        cr, ci, dr, di = double(0.0), double(0.0), double(1.0), double(0.0)
        for k in range(num_times):
            step = steps[k]
            if step != last:
                last = step
                c = wp.cos(omega * step)
                s = wp.sin(omega * step) / omega
                if omega == double(0.0):
                    s = step
                pr = wp.cos(mean * step)
                pi = -wp.sin(mean * step)
                # phase · (c − i s (x σx + y σy + z σz))
                ar, ai = pr * c + pi * s * z, pi * c - pr * s * z
                dr, di = pr * c - pi * s * z, pi * c + pr * s * z
                br, bi = -pr * s * y + pi * s * x, -pi * s * y - pr * s * x
                cr, ci = pr * s * y + pi * s * x, pi * s * y - pr * s * x
            if step != double(0.0):
                r0 = ar * re0 - ai * im0 + br * re1 - bi * im1
                i0 = ar * im0 + ai * re0 + br * im1 + bi * re1
                r1 = cr * re0 - ci * im0 + dr * re1 - di * im1
                i1 = cr * im0 + ci * re0 + dr * im1 + di * re1
                re0, im0, re1, im1 = r0, i0, r1, i1
            j = 4 * (b * num_times + k)
            out[j] = real(re0)
            out[j + 1] = real(im0)
            out[j + 2] = real(re1)
            out[j + 3] = real(im1)

    return two_levels
