"""`optctl bench quantum`: many two-level systems at once, beside dynamiqs and NumPy, with the error of each; float32's drift."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from optctl.bench.record import ask_peer, check_counts, finish, markdown_table
from optctl.envs import make
from optctl.problem.quantum import SIGMA_X, SIGMA_Z, propagator
from optctl.simulation import make_vec
from optctl.simulation.propagation import propagate


def numpy_propagation(hamiltonian: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The same in plain NumPy: one exact 2 × 2 propagator of the save interval, applied again and again; from |0⟩."""
    step = propagator(hamiltonian, float(times[1] - times[0]))
    states = np.zeros((len(times), len(hamiltonian), 2, 1), dtype=complex)
    states[0, :, 0] = 1
    for k in range(1, len(times)):
        states[k] = step @ states[k - 1]
    return states[..., 0].swapaxes(0, 1)


def norm_drift(steps: int, num_envs: int = 64, seed: int = 0, device: str = "cpu") -> float:
    """Largest deviation of |ψ| from 1 in float32 after `steps` control intervals of the qubit transfer, random fields."""
    problem = make("qubit-transfer").replace(horizon="infinite", terminal_cost=None, steps=steps + 1)
    env = make_vec(problem, num_envs, device=device)
    env.reset(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    actions = 2 * torch.rand((1000, num_envs, 1), generator=generator).to(device) - 1
    for k in range(steps):
        obs = env.step(actions[k % 1000])[0]
    return float((obs.double().norm(dim=1) - 1).abs().max())


def quantum(
    members: int = 3000,
    times: int = 50,
    repeats: int = 50,
    drift_steps: int = 100_000,
    device: str = "cpu",
    peer_python: Path | None = None,
    out: Path | None = None,
) -> int:
    """H = σ_x + w σ_z for many w at many times: seconds and largest error, beside dynamiqs; drift of the norm in float32.

    Args:
        members: Hamiltonians, w in [0, 10].
        times: Save times in [0, 1].
        repeats: Calls; the median counts.
        drift_steps: Steps of the environment whose norm is watched.
        device: cpu, cuda or cuda:N.
        peer_python: Interpreter that has dynamiqs.
        out: Folder for quantum.json.
    """
    check_counts(out, members=members, times=times - 1, repeats=repeats, drift_steps=drift_steps)
    w, t = np.linspace(0, 10, members)[:, None], np.linspace(0, 1, times)
    h = SIGMA_X + w[:, :, None] * SIGMA_Z
    omega = np.sqrt(1 + w**2)
    exact = np.stack([np.cos(omega * t) - 1j * w / omega * np.sin(omega * t), -1j / omega * np.sin(omega * t)], axis=-1)
    calls: dict[str, Callable[[], np.ndarray]] = {
        "optctl float32": lambda: propagate(h, [1, 0], t, device=device).cpu().numpy(),
        "optctl float64": lambda: propagate(h, [1, 0], t, device=device, dtype="float64").cpu().numpy(),
        "NumPy, exact propagators": lambda: numpy_propagation(h, t),
    }
    figures = [{"name": name, **_measure(call, repeats, exact)} for name, call in calls.items()]
    peers = [{"name": line.pop("peer"), **line} for line in ask_peer(peer_python, "quantum", members, times)]
    rows = [
        [
            f["name"],
            f"{1e3 * f['seconds']:.2f} ms",
            f"{f['first_seconds']:.2f} s",
            f"{f['error']:.1e}",
            f"{peers[0]['seconds'] / f['seconds']:.0f}×" if peers else "not measured",
        ]
        for f in figures + peers
    ]
    drift = norm_drift(drift_steps, device=device)
    print(f"norm of the qubit after {drift_steps:,} steps in float32: off by {drift:.1e} (law 1e-8 n + 1e-6)")
    table = markdown_table(
        f"{members:,} two-level Hamiltonians, {times} save times",
        ("", "a call (median)", "first call", "largest error", "speed ÷ dynamiqs"),
        rows,
    )
    return finish("quantum", "optctl bench quantum", table, {"rows": figures + peers, "norm_drift": drift}, out, device)


def _measure(call: Callable[[], np.ndarray], repeats: int, exact: np.ndarray) -> dict[str, float]:
    begin = time.perf_counter()
    error = float(np.abs(call() - exact).max())
    first, seconds = time.perf_counter() - begin, []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return {"first_seconds": first, "seconds": float(np.median(seconds)), "error": error}
