"""`optctl bench thermodynamics`: mean work and Jarzynski's equality of the Brownian traps, by simulation against theory.

Every path is an environment of `make_vec`: the generated kernels with their process noise, rewards summed to minus the work.
Theory is that of continuous protocols; the held ones simulated here differ from it by O(dt²), less than the error bars.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp

from optctl.bench.record import check_counts, finish, markdown_table
from optctl.envs import thermodynamics as traps
from optctl.problem import Problem
from optctl.simulation import make_vec
from optctl.solvers import solve


def simulated_work(
    problem: Problem, protocol: np.ndarray, paths: int, *, device: str = "cpu", dtype: str = "float32", seed: int = 0
) -> np.ndarray:
    """The work of `paths` paths under a protocol (steps,), in float64, shape (paths,)."""
    env = make_vec(problem, paths, device=device, dtype=dtype)
    env.reset(seed=seed)
    work = torch.zeros(paths, dtype=torch.float64, device=env.device)
    for action in problem.to_action(protocol[:, None]):
        row = torch.tensor(action, dtype=env.dtype, device=env.device)
        work -= env.step(row.expand(paths, 1).contiguous())[1]
    return work.cpu().numpy()


def optimal_protocol(problem: Problem) -> np.ndarray:
    """The controls (steps,) of the optimum from the initial state's mean, by `solve`."""
    solution = solve(problem, problem.initial_state.location)
    return np.asarray(solution.trajectory.controls)[:, 0]


def linear_protocol(start: float, end: float, steps: int) -> np.ndarray:
    """A straight ramp, held at its value in the middle of each interval."""
    return start + (end - start) * (np.arange(steps) + 0.5) / steps


# --- theory, for friction and temperature 1 -----------------------------------------------------------------------------


def moved_work(distance: float, duration: float) -> dict[str, float]:
    """Mean work of the optimal and of the linear protocol in a moved trap of stiffness 1 (Schmiedl and Seifert 2007, eq. 9)."""
    return {
        "optimal": distance**2 / (duration + 2),
        "linear": (distance / duration) ** 2 * (duration + np.exp(-duration) - 1),
    }


def stiffened_work(initial: float, final: float, duration: float) -> dict[str, float]:
    """The same for a stiffened trap: the optimum in closed form (ibid., case study II), the ramp from d⟨x²⟩/dt = 2 − 2κ⟨x²⟩."""
    y0 = initial**-0.5
    y = np.roots([final + 2 / duration, -2 / duration * y0, -1.0]).max()
    rate = (final - initial) / duration
    ramp = solve_ivp(
        lambda t, z: [2 - 2 * (initial + rate * t) * z[0], 0.5 * rate * z[0]],
        (0, duration),
        [1 / initial, 0.0],
        rtol=1e-10,
        atol=1e-12,
    )
    return {
        "optimal": float(0.5 * (final * y**2 - 1) - np.log(y / y0) + (y - y0) ** 2 / duration),
        "linear": float(ramp.y[1, -1]),
    }


def thermodynamics(
    paths: int = 1_000_000, steps: int = 50, device: str = "cpu", seed: int = 0, out: Path | None = None
) -> int:
    """Brownian traps: mean work of optimal and linear protocols, and the Jarzynski equality, against theory.

    Args:
        paths: Simulated paths of each protocol.
        steps: Intervals in which the protocol is held.
        device: cpu, cuda or cuda:N.
        seed: Of the noise.
        out: Folder for thermodynamics.json.
    """
    check_counts(out, paths=paths, steps=steps)
    moved, stiffened = traps.moved_trap(steps=steps), traps.stiffened_trap(steps=steps)
    variance = traps.stiffened_trap_variance(steps=steps)
    d, k = moved.params["distance"], stiffened.params["final"]
    cases = [
        (moved, optimal_protocol(moved), linear_protocol(0, d, steps), moved_work(d, 1.0), 0.0),
        (stiffened, optimal_protocol(variance), linear_protocol(1, k, steps), stiffened_work(1, k, 1.0), np.log(k) / 2),
    ]
    rows, figures = [], []
    for problem, best, ramp, theory, free_energy in cases:
        for name, protocol in (("optimal", best), ("linear", ramp)):
            work = simulated_work(problem, protocol, paths, device=device, seed=seed)
            figure = _figure(problem.name, name, work, theory[name], free_energy)
            figures.append(figure)
            rows.append(
                [
                    problem.name,
                    name,
                    f"{figure['mean_work']:.5f} ± {figure['error']:.5f}",
                    f"{theory[name]:.5f}",
                    f"{figure['deviation']:+.2f}",
                    f"{figure['jarzynski']:.5f} ± {figure['jarzynski_error']:.5f}",
                    f"{np.exp(-free_energy):.5f}",
                    f"{figure['jarzynski_deviation']:+.2f}",
                ]
            )
    header = ("problem", "protocol", "⟨W⟩", "theory", "in errors", "⟨exp(−W)⟩", "exp(−ΔF)", "in errors")
    table = markdown_table(f"Work on a Brownian particle, {paths:,} paths", header, rows)
    command = f"optctl bench thermodynamics --paths {paths}"
    return finish("thermodynamics", command, table, {"rows": figures}, out, device)


def _figure(problem: str, protocol: str, work: np.ndarray, theory: float, free_energy: float) -> dict[str, Any]:
    """Means with standard errors, and their deviations from theory in those."""
    weights, root = np.exp(-work), np.sqrt(len(work))
    error, jarzynski_error = work.std() / root, weights.std() / root
    return {
        "problem": problem,
        "protocol": protocol,
        "mean_work": float(work.mean()),
        "error": float(error),
        "theory": theory,
        "deviation": float((work.mean() - theory) / error),
        "jarzynski": float(weights.mean()),
        "jarzynski_error": float(jarzynski_error),
        "free_energy": float(free_energy),
        "jarzynski_deviation": float((weights.mean() - np.exp(-free_energy)) / jarzynski_error),
    }
