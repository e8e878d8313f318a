"""`optctl bench grape`: a thousand restarts of two-qubit gates at once, beside a loop over QuTiP's GRAPE (qutip-qtrl)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from optctl.bench.record import check_counts, finish, markdown_table
from optctl.problem.quantum import GATES, SIGMA_X, SIGMA_Y, SIGMA_Z, embed, tensor
from optctl.solvers.batched.bilinear import optimise
from optctl.solvers.batched.grape import Transfer, grape


def task(gate: str, slots: int = 50) -> Transfer:
    """σ_z σ_z coupling, σ_x and σ_y on either qubit, duration 2."""
    qft = np.exp(0.5j * np.pi * np.outer(np.arange(4), np.arange(4))) / 2
    controls = [embed(sigma, site, 2) for sigma in (SIGMA_X, SIGMA_Y) for site in (0, 1)]
    target = qft if gate == "qft" else GATES[gate]
    return Transfer(drift=tensor(SIGMA_Z, SIGMA_Z), controls=controls, target=target, duration=2.0, slots=slots)


def qutip_pulse(job: Transfer, infidelity: float) -> np.ndarray:
    """One restart by QuTiP's GRAPE with its exact gradients and L-BFGS-B: the pulse (S, K). Its error is 1 − |tr|/d, half of 1 − F."""
    import qutip
    import qutip_qtrl.pulseoptim as pulseoptim

    lift = lambda matrix: qutip.Qobj(matrix, dims=[[2, 2], [2, 2]])
    result = pulseoptim.optimize_pulse_unitary(
        lift(job.drift[0]),
        [lift(h) for h in job.controls[0]],
        lift(job.initial),
        lift(job.target),
        job.slots,
        job.duration,
        fid_err_targ=0.5 * infidelity,
        min_grad=1e-20,
        max_iter=500,
        init_pulse_type="RND",
        phase_option="PSU",
    )
    return np.asarray(result.final_amps)


def qutip_gradient(job: Transfer, pulses: np.ndarray) -> float:
    """Seconds that QuTiP takes for one infidelity and its exact gradient, mean over `pulses` (B, S, K)."""
    import qutip
    import qutip_qtrl.pulseoptim as pulseoptim

    lift = lambda matrix: qutip.Qobj(matrix, dims=[[2, 2], [2, 2]])
    optimizer = pulseoptim.create_pulse_optimizer(
        lift(job.drift[0]),
        [lift(h) for h in job.controls[0]],
        lift(job.initial),
        lift(job.target),
        job.slots,
        job.duration,
        dyn_type="UNIT",
        phase_option="PSU",
    )
    dynamics = optimizer.dynamics
    dynamics.initialize_controls(pulses[0])
    began = time.perf_counter()
    for pulse in pulses:
        dynamics.update_ctrl_amps(pulse)
        dynamics.fid_computer.get_fid_err()
        dynamics.fid_computer.get_fid_err_gradient()
    return (time.perf_counter() - began) / len(pulses)


def bench_grape(
    gates: tuple[str, ...] = ("cnot", "qft"),
    restarts: int = 1000,
    peer_restarts: int = 30,
    infidelity: float = 1e-9,
    ensemble: int = 1000,
    device: str = "cpu",
    out: Path | None = None,
) -> int:
    """Random restarts a second of GRAPE for two-qubit gates, and the fidelities reached, beside QuTiP's; a robust ensemble.

    Args:
        gates: Names of two-qubit gates, or qft.
        restarts: Random guesses, solved at once.
        peer_restarts: Random guesses that QuTiP solves one after the other.
        infidelity: Where both may stop.
        ensemble: Systems with drives between 95 and 105 % that one CNOT pulse shall serve.
        device: cpu, cuda or cuda:N.
        out: Folder for grape.json.
    """
    check_counts(out, restarts=restarts, peer_restarts=peer_restarts, ensemble=ensemble)
    rows: list[dict[str, Any]] = []
    for gate in gates:
        job = task(gate)
        grape(job, max_iterations=1, device=device)  # compilation does not count
        found = grape(job, restarts=restarts, infidelity=infidelity, device=device)
        errors = [
            1 - job.fidelity(pulse) for pulse in found.pulses
        ]  # by diagonalisation, not by the solver's own series
        rows.append(_row(gate, "optctl", found.wall_time / restarts, errors, infidelity))
        try:
            qutip_pulse(job, infidelity)  # imports and first calls do not count
        except ImportError as error:
            print(f"QuTiP not measured: {error}")
            continue
        began = time.perf_counter()
        pulses = [qutip_pulse(job, infidelity) for _ in range(peer_restarts)]
        seconds = (time.perf_counter() - began) / peer_restarts
        rows.append(_row(gate, "QuTiP", seconds, [1 - job.fidelity(pulse) for pulse in pulses], infidelity))
        rows[-2]["ratio"] = seconds / rows[-2]["seconds"]
    robust = _robust(ensemble, device)
    table = markdown_table(
        f"GRAPE, 50 slots, {restarts:,} restarts at once, QuTiP {peer_restarts} in a loop",
        ("gate", "", "time a restart", "least 1 − F", "median 1 − F", f"reached {infidelity:g}", "speed ÷ QuTiP"),
        [
            (
                r["gate"],
                r["solver"],
                f"{1e3 * r['seconds']:.2f} ms",
                f"{r['least']:.1e}",
                f"{r['median']:.1e}",
                f"{100 * r['reached']:.0f} %",
                f"{r['ratio']:.0f}×" if "ratio" in r else "",
            )
            for r in rows
        ],
    )
    words = (
        f"One CNOT pulse for {ensemble:,} drive strengths of 95 to 105 %: {robust['seconds']:.2f} s, {robust['iterations']} "
        f"iterations, mean 1 − F {robust['mean']:.1e} (the pulse of the nominal optimum: {robust['nominal']:.1e}); a gradient of all "
        f"systems {1e3 * robust['gradient']:.1f} ms"
    )
    if "ratio" in robust:
        words += f", {robust['ratio']:.0f}× as fast as QuTiP's one after the other"
    print(words)
    return finish("grape", "optctl bench grape", table, {"rows": rows, "ensemble": robust}, out, device)


def _robust(members: int, device: str) -> dict[str, Any]:
    job = task("cnot", 50).replace(duration=4.0)
    best = grape(job, restarts=8, device=device)
    strengths = np.linspace(0.95, 1.05, members)
    many = job.replace(controls=strengths[:, None, None, None] * job.controls)
    grape(many, guess=best.pulses[best.best], max_iterations=1, device=device)
    found = grape(many, guess=best.pulses[best.best], max_iterations=200, infidelity=1e-7, device=device)
    pulses = np.broadcast_to(found.pulses, (members, *found.pulses.shape[1:]))
    times = []
    for _ in range(5):
        began = time.perf_counter()
        optimise(many.system, pulses, own=True, max_iterations=0, device=device)
        times.append(time.perf_counter() - began)
    row = {
        "members": members,
        "seconds": found.wall_time,
        "iterations": int(found.iterations[0]),
        "gradient": min(times),
        "mean": 1 - many.fidelity(found.pulses[0]),
        "nominal": 1 - many.fidelity(best.pulses[best.best]),
    }
    try:
        row["ratio"] = qutip_gradient(job, np.random.default_rng(0).uniform(-1, 1, (20, 50, 4))) * members / min(times)
    except ImportError as error:
        print(f"QuTiP not measured: {error}")
    return row


def _row(gate: str, solver: str, seconds: float, errors: list[float], infidelity: float) -> dict[str, Any]:
    e = np.array(errors)
    return {
        "gate": gate,
        "solver": solver,
        "seconds": seconds,
        "least": float(e.min()),
        "median": float(np.median(e)),
        "reached": float((e <= 1.1 * infidelity).mean()),
    }
