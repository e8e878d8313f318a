"""`optctl bench solvers`: batched DDP beside serial IPOPT from the same guesses, the swing-ups, and a replanning pass of MPC."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from optctl.bench.record import check_counts, finish, markdown_table
from optctl.envs import make
from optctl.problem import Problem
from optctl.solvers import Verdict, solve_many
from optctl.solvers.batched.ddp import kernel, solve_ddp
from optctl.solvers.feedback.mpc import MpcController
from optctl.solvers.guesses.dynamic_programming import grid_policy
from optctl.solvers.guesses.parallel import solve_list
from optctl.solvers.methods.multiple_shooting import Guess, solve_multiple_shooting, transcription
from optctl.solvers.methods.sweeps import sweeps

TOLERANCE = 1e-8
"""Of both solvers: relative projected gradient, and IPOPT's `tol`."""


def _guesses(problem: Problem, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Trajectories of the coarse dynamic-programming policy: what both solvers begin with."""
    p = problem.param_values[None]
    controls = grid_policy(problem, p[0], starts).rollouts(starts)
    return sweeps(problem).rollout(starts, controls, np.broadcast_to(p, (len(starts), problem.n_p)))[0], controls


def against_ipopt(problem: Problem, num: int, num_ipopt: int, device: str = "cpu") -> dict[str, Any]:
    """Certified solves per second of both, compilation not counted; and how their costs compare on the common starts."""
    starts = problem.initial_state.sample(np.random.default_rng(7), num)
    states, controls = _guesses(problem, starts)
    p = problem.param_values[None]
    began = time.perf_counter()
    kernel(problem, device)
    compile_seconds = time.perf_counter() - began
    solve_ddp(problem, states[:1], controls[:1], p, max_iterations=1, device=device)  # the first launch does not count
    began = time.perf_counter()
    found = solve_ddp(problem, states, controls, p, barrier=1e-3, tolerance=TOLERANCE, device=device)
    seconds = time.perf_counter() - began

    transcription(problem)
    solutions = []
    for i in range(num_ipopt):
        guess = Guess(states[i], controls[i])
        solutions.append(solve_multiple_shooting(problem, starts[i], guess=guess, tolerance=TOLERANCE))
    ipopt_seconds = sum(s.wall_time for s in solutions)
    certified = np.array([s.verdict is Verdict.EXTREMAL for s in solutions])
    ours, theirs = found.value[:num_ipopt], np.array([s.value for s in solutions])
    both = certified & found.converged[:num_ipopt]
    error = np.abs(ours - theirs)[both] / (1 + np.abs(theirs[both]))
    shared = error < 1e-3
    rate, ipopt_rate = found.converged.sum() / seconds, max(certified.sum(), 1e-9) / ipopt_seconds
    return {
        "problem": problem.name,
        "device": device,
        "starts": num,
        "certified": int(found.converged.sum()),
        "seconds": seconds,
        "compile_seconds": compile_seconds,
        "rate": float(rate),
        "iterations": float(found.iterations.mean()),
        "ipopt_starts": num_ipopt,
        "ipopt_certified": int(certified.sum()),
        "ipopt_seconds": ipopt_seconds,
        "ipopt_rate": float(ipopt_rate),
        "ipopt_iterations": float(np.mean([s.iterations for s in solutions])),
        "ratio": float(rate / ipopt_rate),
        "shared_basin": int(shared.sum()),
        "compared": int(both.sum()),
        "largest_difference_in_a_basin": float(error[shared].max(initial=0.0)),
        "mean_cost": float(ours[both].mean()) if both.any() else None,
        "ipopt_mean_cost": float(theirs[both].mean()) if both.any() else None,
    }


def replanning(num: int, horizon: int, passes: int, device: str = "cpu", real_time: bool = False) -> dict[str, Any]:
    """Seconds of one replanning pass of `num` cart-poles in closed loop; the states are moved by the plant and by noise.

    With `real_time`, one iteration made ahead; then `feedback_seconds` is what passes between a state and its control.
    """
    problem = make("cartpole")
    rng = np.random.default_rng(11)
    states = problem.initial_state.sample(rng, num)
    controller = MpcController(
        problem, horizon=horizon, device=device, iterations=1 if real_time else 2, real_time=real_time
    )
    began = time.perf_counter()
    controller.reset(states, problem.param_values[None])
    first, times, feedback = time.perf_counter() - began, [], []
    for k in range(passes):
        began = time.perf_counter()
        if real_time:
            controls = controller.feedback(states, k)
            feedback.append(time.perf_counter() - began)
            controller.prepare(states, controls, k)
        else:
            controls = controller(states, k * problem.dt)
        times.append(time.perf_counter() - began)
        after, _ = problem.step_function(states.T, controls.T, problem.param_values, 0.0)
        states = np.asarray(after).T + 0.01 * rng.standard_normal(states.shape)
    return {
        "environments": num,
        "horizon": horizon,
        "iterations": controller.iterations,
        "device": device,
        "first_plan_seconds": first,
        "median_seconds": float(np.median(times)),
        "worst_seconds": max(times),
        "feedback_seconds": float(np.median(feedback or times)),
        "real_time": real_time,
    }


def swing_ups(problem: Problem, num: int, sample: int, guesses: int) -> dict[str, Any]:
    """Random starts by `solve_many`, basins included: verdicts, mean cost, seconds; and the first `sample` by IPOPT's multi-start."""
    starts = problem.initial_state.sample(np.random.default_rng(7), num)
    began = time.perf_counter()
    solutions = solve_many(problem, starts)
    seconds = time.perf_counter() - began
    verdicts = [s.verdict.value for s in solutions]
    found = {
        "problem": problem.name,
        "starts": num,
        "verdicts": {v: verdicts.count(v) for v in dict.fromkeys(verdicts)},
        "mean_cost": float(solutions.values.mean()),
        "seconds": seconds,
    }
    return found | ({"multistart": _multistart(problem, solutions, min(sample, num), guesses)} if sample else {})


def _multistart(problem: Problem, ours: Any, num: int, guesses: int) -> dict[str, Any]:
    """The best of IPOPT from `guesses` guesses a start (lines, rest, random controls, homotopy in the bounds) beside `ours`.

    In the same basin are trajectories that nowhere differ by more than a hundredth of their own extent.
    """
    x0 = ours.trajectory.states[:num, 0]
    began = time.perf_counter()
    theirs = solve_list(
        problem,
        x0,
        problem.param_values[None],
        solve_multiple_shooting,
        guess=None,
        num_starts=guesses,
        seed=1,
        tolerance=TOLERANCE,
        processes=None,
        progress=None,
        options={"max_iterations": 500},
    )
    seconds = time.perf_counter() - began
    ok = np.array([s.ok for s in theirs])
    values = np.where(ok, [s.value for s in theirs], np.inf)
    mine = ours.values[:num]
    excess = (mine - values)[ok] / (1 + np.abs(values[ok]))
    paths, others = ours.trajectory.states[:num][ok], np.array([s.trajectory.states for s in theirs])[ok]
    extent = np.maximum(np.ptp(paths, axis=1), 1e-6)[:, None]
    same = (np.abs(paths - others) / extent).max(axis=(1, 2)) < 1e-2
    return {
        "sample": num,
        "guesses": guesses,
        "ipopt_solved": int(ok.sum()),
        "not_worse": int((excess <= 1e-6).sum()),
        "better": int((excess < -1e-6).sum()),
        "largest_excess": float(excess.max(initial=-np.inf)),
        "worse_starts": np.flatnonzero(ok)[excess > 1e-6].tolist(),
        "same_basin": int(same.sum()),
        "largest_difference_in_a_basin": float(np.abs(excess[same]).max(initial=0.0)),
        "mean_cost": float(mine[ok].mean()),
        "ipopt_mean_cost": float(values[ok].mean()),
        "ipopt_seconds": seconds,
    }


def solvers(
    num_starts: int = 4096,
    ipopt_starts: int = 20,
    swing_up_starts: int = 1000,
    multistart_sample: int = 50,
    multistart_guesses: int = 6,
    mpc_environments: int = 1000,
    mpc_horizon: int = 50,
    device: str = "cpu",
    out: Path | None = None,
) -> int:
    """Batched DDP against serial IPOPT, swing-ups from random starts, and batched MPC.

    Args:
        num_starts: Problems that batched DDP solves at once.
        ipopt_starts: The first of them, solved by IPOPT one after the other from the same guesses.
        swing_up_starts: Random starts of each swing-up, solved with their basins on the CPU; 0 for none, as on other devices.
        multistart_sample: The first of them, solved by IPOPT from many guesses as well; 0 for none.
        multistart_guesses: Guesses of each.
        mpc_environments: Cart-poles that replan together.
        mpc_horizon: Intervals of their window.
        device: cpu, cuda or cuda:N.
        out: Folder for solvers.json.
    """
    check_counts(
        out,
        num_starts=num_starts,
        ipopt_starts=ipopt_starts,
        multistart_guesses=multistart_guesses,
        mpc_environments=mpc_environments,
        mpc_horizon=mpc_horizon,
    )
    ratios = [
        against_ipopt(make(n), num_starts, min(ipopt_starts, num_starts), device) for n in ("pendulum", "cartpole")
    ]
    print(
        *(f"{r['problem']} on {r['device']}: {r['rate']:.0f} solves/s, {r['ratio']:.0f} × IPOPT" for r in ratios),
        sep="\n",
    )
    plans = [replanning(mpc_environments, mpc_horizon, 20, device, real_time) for real_time in (False, True)]
    swings = []
    for name in (
        ("pendulum", "pendulum-v1", "cartpole", "acrobot", "cartpole-rail")
        if swing_up_starts and device == "cpu"
        else ()
    ):
        sample = 0 if name == "pendulum-v1" else multistart_sample
        swings.append(swing_ups(make(name), swing_up_starts, sample, multistart_guesses))
        verdicts = ", ".join(f"{n} {v}" for v, n in swings[-1]["verdicts"].items())
        print(f"{name}: {verdicts}; {swings[-1]['seconds']:.1f} s for {swing_up_starts} starts")
    beside = [(s["problem"], s["multistart"]) for s in swings if "multistart" in s]
    rows = [
        (
            r["problem"],
            r["device"],
            f"{r['certified']:,} of {r['starts']:,}",
            f"{r['rate']:,.0f}",
            f"{r['iterations']:.0f}",
            f"{r['ipopt_certified']} of {r['ipopt_starts']}",
            f"{r['ipopt_rate']:.2f}",
            f"{r['ipopt_iterations']:.0f}",
            f"{r['ratio']:,.0f}×",
            f"{r['shared_basin']} of {r['compared']}",
            f"{r['largest_difference_in_a_basin']:.0e}",
        )
        for r in ratios
    ]
    table = markdown_table(
        f"200-step swing-ups to a certified extremal from the same guesses, tolerance {TOLERANCE:g}, {torch.get_num_threads()} threads",
        (
            "problem",
            "device",
            "batched DDP certified",
            "solves/s",
            "iterations",
            "IPOPT certified",
            "solves/s",
            "iterations",
            "ratio",
            "same basin",
            "largest relative difference there",
        ),
        rows,
    )
    table += (
        "\n"
        + markdown_table(
            "Swing-ups from random starts, basins included",
            ("problem", "starts", "verdicts", "mean cost", "in all", "per start"),
            [
                (
                    s["problem"],
                    s["starts"],
                    ", ".join(f"{n} {v}" for v, n in s["verdicts"].items()),
                    f"{s['mean_cost']:.4f}",
                    f"{s['seconds']:.1f} s",
                    f"{1000 * s['seconds'] / s['starts']:.1f} ms",
                )
                for s in swings
            ],
        )
        if swings
        else ""
    )
    table += (
        "\n"
        + markdown_table(
            f"The first of these starts beside the best of IPOPT from {multistart_guesses} guesses each",
            (
                "problem",
                "IPOPT solved",
                "not worse than IPOPT",
                "better",
                "largest relative excess",
                "same basin",
                "largest relative difference there",
                "mean cost",
                "IPOPT's",
            ),
            [
                (
                    name,
                    f"{m['ipopt_solved']} of {m['sample']}",
                    m["not_worse"],
                    m["better"],
                    f"{m['largest_excess']:.1e}",
                    m["same_basin"],
                    f"{m['largest_difference_in_a_basin']:.0e}",
                    f"{m['mean_cost']:.4f}",
                    f"{m['ipopt_mean_cost']:.4f}",
                )
                for name, m in beside
            ],
        )
        if beside
        else ""
    )
    table += "\n" + markdown_table(
        "Batched MPC: one replanning pass in closed loop",
        ("cart-poles", "window", "iterations", "device", "median pass", "slowest pass", "from state to control"),
        [
            (
                m["environments"],
                m["horizon"],
                f"{m['iterations']}{' ahead' if m['real_time'] else ''}",
                m["device"],
                f"{1000 * m['median_seconds']:.0f} ms",
                f"{1000 * m['worst_seconds']:.0f} ms",
                f"{1000 * m['feedback_seconds']:.2f} ms",
            )
            for m in plans
        ],
    )
    figures = {"against_ipopt": ratios, "mpc": plans, "swing_ups": swings}
    return finish("solvers", "optctl bench solvers", table, figures, out, device)
