"""Batched DDP under state bounds, path and terminal constraints: the augmented Lagrangian, each member with its own multipliers.

    min Σ l(x_k, u_k) + φ(x_N)   subject to   x⁺ = F(x, u),  bounds on u,  c(x_k, u_k) ≤ 0,  x_low ≤ x_k ≤ x_high,  e(x_N) = 0
    and c(x_N) ≤ 0 for the components that mention no control

A round minimises J + Σ ([y + ρc]₊² − y²)/2ρ + Σ (νe + ρe²/2) by `solve_ddp` from where the last one ended; then y ← [y + ρc]₊,
ν ← ν + ρe, and the weight ρ of a constraint whose violation has not fallen to a quarter grows tenfold. A member is solved when
|max(c, −y/ρ)| and |e| are at most `feasibility` everywhere and the projected gradient vanishes; then y, ν are the multipliers of
the first-order conditions, with y ≥ 0 and yc = 0. State bounds count from the second state on: the first is given.

Members never meet: each has its own multipliers, weights and number of rounds, so its bits do not depend on the batch.

Sources: Hestenes, Powell (1969); Bertsekas, Constrained Optimization and Lagrange Multiplier Methods (1982), ch. 2; Nocedal and
Wright, Numerical Optimization (2006), §17.4; Howell, Jackson, Manchester, ALTRO (IROS 2019).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import casadi as ca
import numpy as np

from optctl.codegen.program import TranslationError
from optctl.problem import Problem
from optctl.problem.structure import convex
from optctl.problem.trajectory import Trajectory
from optctl.shared import kept
from optctl.solvers.batch import Batched
from optctl.solvers.batched.choice import engine
from optctl.solvers.batched.ddp import Multipliers, kernel, solve_ddp
from optctl.solvers.batched.stages import constraints
from optctl.solvers.guesses import dynamic_programming
from optctl.solvers.guesses.basins import Best, from_start, grid_guesses, neighbour_round, wide_guesses
from optctl.solvers.guesses.parallel import solve_list
from optctl.solvers.guesses.targets import distinct, moved
from optctl.solvers.methods.ddp import DdpResult
from optctl.solvers.methods.multiple_shooting import solve_multiple_shooting
from optctl.solvers.methods.sweeps import sweeps
from optctl.solvers.solution import Solution, Status
from optctl.solvers.solution_batch import SolutionBatch

_LARGEST_GROWTH = 1e8
"""Of a weight ρ; a constraint still violated then is taken as one that cannot be met."""


@dataclass
class ConstrainedResult(DdpResult):
    """As `DdpResult`; `gradient` is that of the Lagrangian, `converged` means feasible as well."""

    multipliers: np.ndarray
    """y (B, N, n_c): path constraints, then upper and lower state bounds where they are finite."""
    end_multipliers: np.ndarray
    """(B, n_e): state bounds likewise, path constraints without controls, then terminal constraints."""
    violation: np.ndarray
    """(B,): largest max(c, 0), |e|; infinite where there is no trajectory."""


class _Functions:
    """Constraints and first-order conditions on whole trajectories."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.limits = problem, constraints(problem)
        x, u, p, t = problem.x, problem.u, problem.p, problem.t
        costate = ca.SX.sym("costate", problem.n_x)
        y, y_end = ca.SX.sym("y", self.limits.n_stage), ca.SX.sym("y_end", self.limits.n_end)
        after, cost = problem.step_function(x, u, p, t)
        lagrangian = cost + ca.dot(costate, after) + ca.dot(y, self.limits.stage(x, u, p, t))
        phi = problem.terminal_cost_function(x, p, t) if problem.horizon == "finite" else ca.SX(0)
        total = phi + ca.dot(y_end, self.limits.end(x, p, t))
        self.stage = Batched(ca.Function("stage", [x, u, p, t], [self.limits.stage(x, u, p, t), cost]))
        self.end = Batched(ca.Function("end", [x, p, t], [self.limits.end(x, p, t)]))
        self.first_order = Batched(
            ca.Function(
                "first_order", [x, u, p, t, costate, y], [after, ca.gradient(lagrangian, x), ca.gradient(lagrangian, u)]
            )
        )
        self.transversality = Batched(ca.Function("transversality", [x, p, t, y_end], [ca.gradient(total, x)]))

    def _stages(self, *arrays: np.ndarray, p: np.ndarray, times: np.ndarray) -> list[np.ndarray]:
        """Arrays (B, N, ·) flattened over the stages; `p` and the time after the second."""
        num, steps = arrays[1].shape[:2]
        flat = [a.reshape(num * steps, -1) for a in arrays]
        t = (times + np.arange(steps) * self.problem.dt).reshape(-1, 1)
        return [*flat[:2], np.repeat(p, steps, axis=0), t, *flat[2:]]

    def evaluate(
        self, x: np.ndarray, u: np.ndarray, p: np.ndarray, times: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """c (B, N, n_c), −∞ for the bounds on the first state; values at the end (B, n_e); stage costs (B, N)."""
        num, steps = u.shape[:2]
        c, cost = self.stage(*self._stages(x[:, :-1], u, p=p, times=times))
        c = c.reshape(num, steps, -1)
        c[:, 0, self.limits.n_path :] = -np.inf
        (e,) = self.end(x[:, -1], p, times + steps * self.problem.dt)
        return c, e.reshape(num, -1), cost.reshape(num, steps)

    def residuals(self, r: ConstrainedResult, p: np.ndarray) -> dict[str, np.ndarray]:
        """Residuals of the first-order conditions (B,), with the multipliers."""
        num, steps = r.controls.shape[:2]
        zero = np.zeros((num, 1))
        after, l_x, l_u = (
            a.reshape(num, steps, -1)
            for a in self.first_order(
                *self._stages(r.states[:, :-1], r.controls, r.costates[:, 1:], r.multipliers, p=p, times=zero)
            )
        )
        (end,) = self.transversality(r.states[:, -1], p, zero + steps * self.problem.dt, r.end_multipliers)
        low, high = self.problem.control_low, self.problem.control_high
        worst = lambda a: np.abs(a).reshape(num, -1).max(axis=1, initial=0.0)
        c, e, _ = self.evaluate(r.states, r.controls, p, zero)
        unequal = slice(None, self.limits.n_last)
        slack = np.concatenate([np.where(np.isneginf(c), 0.0, c).reshape(num, -1), e[:, unequal]], axis=1)
        force = np.concatenate([r.multipliers.reshape(num, -1), r.end_multipliers[:, unequal]], axis=1)
        return {
            "defect": worst(after - r.states[:, 1:]),
            "stationarity": worst(r.controls - np.clip(r.controls - l_u, low, high)),
            "costate_defect": worst(l_x - r.costates[:, :-1]),
            "transversality": worst(end.reshape(num, -1) - r.costates[:, -1]),
            "complementarity": worst(force * slack),
        }


@kept
def _functions(problem: Problem) -> _Functions:
    return _Functions(problem)


def _weights(problem: Problem, x: np.ndarray, u: np.ndarray, p: np.ndarray, times: np.ndarray) -> list[np.ndarray]:
    """First ρ of stages (B, n_c) and end (B, n_e): 10 (1 + |J|) / (largest value along the guess)², as powers of ten."""
    f = _functions(problem)
    c, _, cost = f.evaluate(x, u, p, times)
    num, points = x.shape[:2]
    (e,) = f.end(x.reshape(num * points, -1), np.repeat(p, points, axis=0), np.repeat(times, points, axis=0))
    unit = 10 * (1 + np.abs(np.nan_to_num(cost, posinf=1e6, neginf=-1e6)).sum(axis=1).clip(max=1e6))
    found = []
    for values in (np.where(np.isneginf(c), 0.0, c), e.reshape(num, points, -1)):
        scale = np.nan_to_num(np.abs(values), nan=1.0, posinf=1.0).max(axis=1, initial=0.0)
        scale = np.where(scale > 1e-6, scale, 1.0)
        found.append(10.0 ** np.round(np.log10(unit[:, None] / scale**2)))
    return found


def solve_constrained(
    problem: Problem,
    states: np.ndarray,
    controls: np.ndarray,
    params: np.ndarray,
    *,
    tolerance: float = 1e-10,
    feasibility: float = 1e-9,
    rounds: int = 30,
    barrier: float = 1e-2,
    stiffness: float = 1.0,
    start_times: np.ndarray | float = 0.0,
    **options: Any,
) -> ConstrainedResult:
    """Iterate from a guess `states` (B, N+1, n_x), `controls` (B, N, n_u), which need not be consistent nor feasible.

    `feasibility`: largest violation, in the constraints' own units. `stiffness` multiplies the first weights: a large one stays on
    the side of an obstacle where an admissible guess is, a small one finds admissible trajectories. `rounds` of the multipliers at
    most; `barrier` and the other `options` as in `solve_ddp`. Not converged and `violation` large: no feasible point near the guess
    was found.
    """
    f, num = _functions(problem), len(controls)
    p = np.broadcast_to(params, (num, problem.n_p)).copy()
    times = np.broadcast_to(np.reshape(start_times, (-1, 1)), (num, 1)).astype(np.float64)
    x, u = np.array(states, dtype=np.float64), np.array(controls, dtype=np.float64)
    stage_weight, end_weight = (stiffness * weight for weight in _weights(problem, x, u, p, times))
    m = Multipliers(
        np.zeros((num, u.shape[1], f.limits.n_stage)), np.zeros((num, f.limits.n_end)), stage_weight, end_weight
    )
    largest = stage_weight * _LARGEST_GROWTH, end_weight * _LARGEST_GROWTH
    before = np.full_like(stage_weight, np.inf), np.full_like(end_weight, np.inf)
    result: ConstrainedResult | None = None
    failures = np.zeros(num, dtype=int)
    equality = np.arange(f.limits.n_end) >= f.limits.n_last
    i = np.arange(num)
    for n in range(rounds):
        found = solve_ddp(
            problem,
            x[i],
            u[i],
            p[i],
            start_times=times[i],
            multipliers=m.take(i),
            tolerance=tolerance,
            barrier=barrier if n == 0 else min(barrier, 1e-4),
            **options,
        )
        sound = np.isfinite(found.gradient) & np.isfinite(found.value)
        x[i], u[i] = found.states, found.controls
        c, e, _ = f.evaluate(found.states, found.controls, p[i], times[i])
        y, nu, rho, rho_end = m.stage[i], m.end[i], m.stage_weight[i], m.end_weight[i]
        with np.errstate(invalid="ignore", over="ignore"):
            gap = np.abs(np.maximum(c, -y / rho[:, None])).max(axis=1, initial=0.0)
            end_gap = np.abs(np.where(equality, e, np.maximum(e, -nu / rho_end)))
            broken = np.maximum(
                c.max(axis=(1, 2), initial=0.0), np.where(equality, np.abs(e), e).max(axis=1, initial=0.0)
            )
            y_new, nu_new = np.maximum(y + rho[:, None] * c, 0.0), nu + rho_end * e
        nu_new = np.where(equality, nu_new, np.maximum(nu_new, 0.0))
        m.stage[i[sound]], m.end[i[sound]] = y_new[sound], nu_new[sound]
        met = np.maximum(gap.max(axis=1, initial=0.0), end_gap.max(axis=1, initial=0.0)) <= feasibility
        done = sound & found.converged & met
        failures[i] = np.where(found.converged, 0, failures[i] + 1)
        new = ConstrainedResult(
            **found.__dict__ | {"converged": done},
            multipliers=m.stage[i],
            end_multipliers=m.end[i],
            violation=np.where(sound, broken, np.inf),
        )
        if result is None:
            result = new
        else:
            new.iterations += result.iterations[i]
            for name, array in result.__dict__.items():
                array[i] = new.__dict__[name]
        hopeless = failures[i] >= 5
        for weight, gaps, old, most in (
            (m.stage_weight, gap, before[0], largest[0]),
            (m.end_weight, end_gap, before[1], largest[1]),
        ):
            slow = sound[:, None] & (gaps > feasibility) & (gaps > 0.25 * old[i])
            hopeless |= (slow & (weight[i] >= most[i])).any(axis=1)
            weight[i] = np.where(slow, np.minimum(10 * weight[i], most[i]), weight[i])
            old[i] = np.where(sound[:, None], gaps, old[i])
        i = i[~done & ~hopeless]
        if not len(i):
            break
    assert result is not None
    return result


_FIRM = 100.0
"""Stiffness with which an admissible guess keeps its side of an obstacle."""


# --- many starts --------------------------------------------------------------------------------------------------------


class _Feasible:
    """The best admissible trajectory of each start so far, and until there is one the least inadmissible."""

    def __init__(self, problem: Problem, x0: np.ndarray, p: np.ndarray) -> None:
        self.problem, self.x0, self.p, self.engine = problem, x0, p, engine(kernels=True)
        self.result: ConstrainedResult | None = None
        self.ranks = [(3, np.inf)] * len(x0)
        self.seen: list[list[float]] = [[] for _ in x0]
        self.tried: set[tuple[int, int]] = set()
        self.distinct = False
        """Whether the solutions that differ most have been tried."""

    @property
    def values(self) -> np.ndarray:
        """Costs (B,), infinite without a converged trajectory."""
        return np.array([value if rank == 0 else np.inf for rank, value in self.ranks])

    @property
    def lost(self) -> np.ndarray:
        return np.flatnonzero([rank > 0 for rank, _ in self.ranks])

    def run(
        self, index: np.ndarray, states: np.ndarray, controls: np.ndarray, follow: bool = False, **options: Any
    ) -> np.ndarray:
        """Solve from these guesses for the starts `index`, keep what is better; returns a mask of the improved. `follow`: the guesses are
        (nearly) admissible, and solved from firmly, too."""
        p = self.p if len(self.p) == 1 else self.p[index]
        improved = np.zeros(len(index), dtype=bool)
        for stiffness in (1.0, _FIRM) if follow else (1.0,):
            improved |= self._offer(
                index, solve_constrained(self.problem, states, controls, p, stiffness=stiffness, **options)
            )
        return improved

    def _offer(self, index: np.ndarray, found: ConstrainedResult) -> np.ndarray:
        improved = np.zeros(len(index), dtype=bool)
        if self.result is None:
            self.result = found.take(np.zeros(len(self.x0), dtype=int))
        for j, (i, value) in enumerate(zip(index, found.value, strict=True)):
            near = found.violation[j] <= 1e-6
            if found.converged[j]:
                rank = (0, float(value))
                if all(abs(value - v) > 1e-4 * (1 + abs(v)) for v in self.seen[i]):
                    self.seen[i].append(float(value))
            else:
                rank = (1, float(value)) if near else (2, float(np.nan_to_num(found.violation[j], nan=np.inf)))
            if rank < self.ranks[i] or self.ranks[i] == (3, np.inf):
                old = self.ranks[i]
                improved[j] = rank[0] < old[0] or value < old[1] - 1e-6 * (1 + abs(value))
                self.ranks[i] = rank
                for name, array in self.result.__dict__.items():
                    array[i] = found.__dict__[name][j]
        return improved


def _distinct_round(best: _Feasible, most: int = 8, solves: int = 1600) -> int:
    """Every start tries the solutions that differ most from each other: another way round an obstacle is no neighbour's. Returns how
    often one improved; once, for the same solutions end the same."""
    r, solved = best.result, np.flatnonzero(np.isfinite(best.values))
    if best.distinct or r is None or not len(solved):
        return 0
    best.distinct = True
    chosen = distinct(r.states[solved], best.values[solved], min(most, max(2, solves // len(best.x0))))
    improved = 0
    sources = [(r.states[i].copy(), r.controls[i].copy()) for i in solved[chosen]]
    for path, controls in sources:
        guesses, controls = moved(path, best.x0), np.repeat(controls[None], len(best.x0), axis=0)
        improved += int(best.run(np.arange(len(best.x0)), guesses, controls, follow=True, barrier=1e-3).sum())
    return improved


def softened(problem: Problem, p: np.ndarray) -> Problem:
    """The problem with quadratic costs in place of its constraints, to look for basins.

    A violation by a tenth of a constraint's typical size over a twentieth of the horizon costs about what the whole horizon does.
    """
    limits, rng = constraints(problem), np.random.default_rng(0)
    x0 = problem.initial_state.sample(rng, 64)
    u = problem.to_control(rng.uniform(-1, 1, (64, problem.steps, problem.n_u)))
    states, costs, _ = sweeps(problem).rollout(x0, u, p[None])
    c, e, _ = _functions(problem).evaluate(states, u, np.repeat(p[None], 64, axis=0), np.zeros((64, 1)))
    middle = lambda a: float(np.nan_to_num(np.nanmedian(np.abs(a[np.isfinite(a)]))) if np.isfinite(a).any() else 0.0)
    cost = middle(costs) + 1e-6
    scale = lambda values: np.array([max(middle(values[..., j]), 1e-6) for j in range(values.shape[-1])])
    stage_weight = 300 * cost / (1.0 if problem.discrete else problem.dt) / scale(c) ** 2
    end_weight = 200 * cost * problem.steps / scale(e) ** 2
    vector = lambda q: ca.vertcat(*(getattr(q, name) for name in problem.params))

    def stage_cost(x, u, q, t):
        c = limits.stage(x, u, vector(q), t)
        return problem.stage_cost_function(x, u, vector(q), t) + ca.dot(stage_weight, ca.fmax(c, 0) ** 2)

    def terminal_cost(x, q, t):
        e = limits.end(x, vector(q), t)
        unequal, equal = ca.vertsplit(e, [0, limits.n_last, e.numel()])  # slices of one row may be 1 × 0
        e = ca.vertcat(ca.fmax(unequal, 0), equal)
        return problem.terminal_cost_function(x, vector(q), t) + ca.dot(end_weight, e**2)

    end = {"terminal_cost": terminal_cost} if problem.horizon == "finite" else {}
    return problem.replace(
        name=f"{problem.name}-softened",
        stage_cost=stage_cost,
        state_bounds={},
        path_constraints=None,
        terminal_constraints=None,
        **end,
    )


def solve_many_constrained(
    problem: Problem,
    x0: np.ndarray,
    p: np.ndarray,
    *,
    guess: Trajectory | None,
    num_starts: int | None,
    seed: int,
    tolerance: float,
    rounds: int | None,
    processes: int | None,
    progress: Callable[[int, int], None] | None,
) -> SolutionBatch | None:
    """Every start (B, n_x): guesses are those of the softened problem, then come neighbours, and IPOPT for what is left.
    `None` where the problem has no kernel."""
    try:
        kernel(problem)
    except TranslationError:
        return None
    started, total = time.perf_counter(), len(x0)
    everyone, proved = np.arange(total), convex(problem, p)
    best = _Feasible(problem, x0, p)
    report = progress or (lambda done, of: None)
    report(0, total)
    ipopt: dict[int, Solution] = {}

    def direct(index: np.ndarray) -> None:
        found = solve_list(
            problem,
            x0[index],
            p if len(p) == 1 else p[index],
            solve_multiple_shooting,
            guess=None,
            num_starts=num_starts,
            seed=seed,
            tolerance=1e-9,
            processes=processes,
            progress=None,
            options={"max_iterations": 250},
        )
        ipopt.update({int(i): s for i, s in zip(index, found, strict=True) if s.ok})
        states, controls = (np.stack([getattr(s.trajectory, name) for s in found]) for name in ("states", "controls"))
        best.run(index, states, controls, follow=True, barrier=1e-5, tolerance=tolerance)

    soft = None if proved or guess is not None else softened(problem, p.mean(axis=0))
    if guess is not None:
        states = np.broadcast_to(guess.states, (total, *guess.states.shape[-2:])).copy()
        states[:, 0] = x0
        controls = np.broadcast_to(guess.controls, (total, *guess.controls.shape[-2:]))
        best.run(everyone, states, controls, follow=True, barrier=1e-3, tolerance=tolerance)
    elif soft is None:
        controls = np.tile(problem.resting_control, (total, problem.steps, 1))
        states = sweeps(problem).rollout(x0, controls, np.broadcast_to(p, (total, problem.n_p))).states
        best.run(everyone, states, controls, tolerance=tolerance)
    elif dynamic_programming.applies(soft):
        begin = Best(soft, x0, p, engine(kernels=True))
        grid_guesses(begin, everyone, dynamic_programming.grid_policy(soft, p.mean(axis=0), x0))
        if total >= 4:
            wide_guesses(begin, seed)
        assert begin.result is not None
        lost = np.flatnonzero(~np.isfinite(begin.values))
        begin.result.states[lost] = from_start(x0[lost], begin.result.controls[lost])
        best.run(everyone, begin.result.states, begin.result.controls, barrier=1e-3, tolerance=tolerance)
    else:
        direct(everyone if total <= 8 else np.linspace(0, total - 1, 8).astype(int))
    report(total // 2, total)
    if total >= 4 and not proved and len(best.lost) < total:
        for _ in range(10 if rounds is None else rounds):
            if not neighbour_round(best, 4, 1) and not _distinct_round(best):
                break
        if len(best.lost):
            neighbour_round(best, 8, 1, best.lost)
    outside = (np.maximum(problem.state_low - x0, x0 - problem.state_high) > 1e-9 * (1 + np.abs(x0))).any(axis=1)
    lost = np.array([i for i in best.lost if not outside[i] and i not in ipopt], dtype=int)
    if len(lost):
        direct(lost)
    report(total, total)
    return _batch(best, ipopt, outside, proved, time.perf_counter() - started)


def _batch(
    best: _Feasible, ipopt: dict[int, Solution], outside: np.ndarray, proved: bool, wall_time: float
) -> SolutionBatch:
    """Trajectories with their certificates; where only IPOPT converged, its trajectory with its own."""
    problem, r = best.problem, best.result
    assert r is not None
    num = len(r.states)
    residuals = _functions(problem).residuals(r, np.broadcast_to(best.p, (num, problem.n_p)))
    statuses = []
    for i, (rank, _) in enumerate(best.ranks):
        if rank and i in ipopt:
            s = ipopt[i]
            for name in ("states", "controls", "costs", "terminal_cost", "costates"):
                getattr(r, name)[i] = getattr(s.trajectory, name)
            r.gains[i], r.hessians[i] = np.nan, np.nan  # they belong to another trajectory
            for name, array in residuals.items():
                array[i] = getattr(s.certificate, name, None) or 0.0
            statuses.append(s.status)
        elif outside[i]:
            statuses.append(Status.INFEASIBLE)
        elif not np.isfinite(r.value[i]):
            statuses.append(Status.DIVERGED)
        else:
            statuses.append((Status.CONVERGED, Status.STALLED, Status.INFEASIBLE, Status.DIVERGED)[rank])
    r.costates[[not status.ok for status in statuses]] = np.nan  # no extremal, no gradient of the optimal cost
    trajectory = Trajectory(
        times=np.arange(problem.steps + 1) * problem.dt,
        states=r.states,
        controls=r.controls,
        costs=r.costs,
        terminal_cost=r.terminal_cost,
        costates=r.costates,
    )
    return SolutionBatch(
        problem,
        "ddp",
        trajectory,
        statuses,
        residuals,
        best.p,
        wall_time,
        gains=r.gains,
        hessians=r.hessians,
        iterations=r.iterations,
        basins=np.array([max(1, len(values)) for values in best.seen]),
        proved=proved,
    )
