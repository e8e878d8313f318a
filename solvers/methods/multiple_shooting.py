"""Direct multiple shooting: the exact optimum of what the environment steps.

    min Σ l_k(x_k, u_k) + φ(x_N)   subject to   x_{k+1} = F(x_k, u_k), bounds, c ≤ 0, e(x_N) = 0

(l, F) is the problem's own step, cost included. With a free final time, T is one more unknown and every interval is T/N long.
Costates λ_k = ∂J*/∂x_k come from the multipliers of the defects g_k = F(x_k, u_k) − x_{k+1}: L = J + Σ y_k'g_k + …, so that
λ_{k+1} = y_k; λ_0 is minus the multiplier of x_0 being held. Sources: Bock and Plitt, IFAC 1984; Betts, Practical Methods (2010).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import casadi as ca
import numpy as np

from optctl.errors import require
from optctl.problem import Bounds, Problem
from optctl.problem.structure import state_bounded
from optctl.problem.trajectory import Trajectory
from optctl.shared import in_turn, kept
from optctl.solvers.certificates import checked_one, complementarity, gradient_functions, ruled_out, violation
from optctl.solvers.methods.nonlinear_program import NlpResult, NonlinearProgram
from optctl.solvers.solution import Certificate, Solution, Status


@dataclass(frozen=True)
class Guess:
    """States (N+1, n_x), controls (N, n_u) and, when it is free, the final time [s]."""

    states: np.ndarray
    controls: np.ndarray
    final_time: float | None = None

    times: np.ndarray | None = None
    """(N+1,) [s] where the grid is not uniform."""

    @staticmethod
    def of(trajectory: Trajectory) -> Guess:
        times = trajectory.times - trajectory.times[0]
        return Guess(trajectory.states, trajectory.controls, float(times[-1]), times)

    def grid(self, duration: float) -> np.ndarray:
        """The times of the states, stretched to `duration` [s]."""
        uniform = np.linspace(0.0, 1.0, len(self.states)) if self.times is None else self.times / self.times[-1]
        return duration * uniform

    def fitted(self, problem: Problem) -> Guess:
        """Interpolated to the problem's own uniform grid."""
        for name, n, array in (("states", problem.n_x, self.states), ("controls", problem.n_u, self.controls)):
            length = len(self.states) - (name == "controls")
            require(
                np.shape(array) == (length, n) and length > 0,
                f"guess.{name}",
                f"have shape ({length}, {n})",
                f"has {np.shape(array)}",
            )
        old, new = self.grid(1.0), np.linspace(0.0, 1.0, problem.steps + 1)
        if len(old) == len(new) and np.allclose(old, new, rtol=0, atol=1e-12):
            return self
        at = lambda t, knots, rows: np.stack([np.interp(t, knots, column) for column in rows.T], axis=1)
        middle = lambda t: (t[:-1] + t[1:]) / 2
        return Guess(at(new, old, self.states), at(middle(new), middle(old), self.controls), self.final_time)


def control_bounds(problem: Problem, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The control bounds, `scale` times as far apart where there are two."""
    low, high = problem.control_low, problem.control_high
    width = high - low
    margin = 0.5 * (scale - 1.0) * np.where(np.isfinite(width), width, 0.0)
    return low - margin, high + margin


def start_bounds(problem: Problem, x0: np.ndarray, free: Bounds) -> tuple[np.ndarray, np.ndarray]:
    """x(0): equal to x0, but between its bounds for the states that `free` names."""
    low, high = np.array(x0, dtype=float), np.array(x0, dtype=float)
    for name, pair in free.items():
        require(name in problem.state, "free_start", f"name states ({', '.join(problem.state)})", f"names `{name}`")
        require(
            np.shape(pair) == (2,) and pair[0] <= pair[1],
            "free_start",
            f"give (low, high) for `{name}`",
            f"gives {pair!r}",
        )
        i = list(problem.state).index(name)
        low[i], high[i] = pair
    return low, high


class Transcription:
    """The program of one problem; unknowns w = (x_0, u_0, x_1, u_1, …, x_N, T)."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        n_x, n_u, steps = problem.n_x, problem.n_u, problem.steps
        self.free_time = problem.final_time is not None
        xs, us = ca.MX.sym("x", n_x, steps + 1), ca.MX.sym("u", n_u, steps)
        final, x0, p = ca.MX.sym("T"), ca.MX.sym("x0", n_x), ca.MX.sym("p", problem.n_p)
        ts = (final / steps if self.free_time else problem.dt) * ca.DM(np.arange(steps)).T
        h = ca.repmat(final / steps, 1, steps)
        p_all = ca.repmat(p, 1, steps)
        if self.free_time:
            after, cost = problem.interval_function.map(steps)(xs[:, :-1], us, p_all, ts, h)
        else:
            after, cost = problem.step_function.map(steps)(xs[:, :-1], us, p_all, ts)
        end_time = final if self.free_time else problem.duration
        objective = ca.sum2(cost)
        if problem.horizon == "finite":
            objective += problem.terminal_cost_function(xs[:, -1], p, end_time)
        g = [ca.vec(after - xs[:, 1:])]
        self.n_end = 0
        if problem.path_constraint_function is not None:
            c = problem.path_constraint_function.map(steps)(xs[:, :-1], us, p_all, ts)
            g.append(ca.vec(c))
        if problem.last_constraint_function is not None:
            g.append(problem.last_constraint_function(xs[:, -1], p, end_time))
        self.n_path = sum(part.numel() for part in g[1:])
        if problem.terminal_constraint_function is not None:
            e = problem.terminal_constraint_function(xs[:, -1], p, end_time)
            self.n_end = e.numel()
            g.append(e)
        parts = [ca.vec(ca.vertcat(xs[:, :-1], us)), xs[:, -1]] + ([final] if self.free_time else [])
        w = ca.vertcat(*parts)
        # in terms of one vector, so that derivatives see a plain symbol
        symbol = ca.MX.sym("w", w.numel())
        block = ca.reshape(symbol[: steps * (n_x + n_u)], n_x + n_u, steps)
        last = symbol[steps * (n_x + n_u) : steps * (n_x + n_u) + n_x]
        states = ca.horzcat(block[:n_x, :], last)
        f = ca.Function("f", [xs, us, final, p], [objective, ca.vertcat(*g)])
        objective, constraints = f(states, block[n_x:, :], symbol[-1] if self.free_time else 0.0, p)
        self.program = NonlinearProgram(symbol, ca.vertcat(x0, p), objective, constraints)
        self.n_defect = n_x * steps
        self.gradients = gradient_functions(problem)

    # --- packing --------------------------------------------------------------------------------------------------------

    def pack(self, states: np.ndarray, controls: np.ndarray, final_time: float | None = None) -> np.ndarray:
        body = np.concatenate([states[:-1], controls], axis=1).ravel()
        return np.concatenate([body, states[-1], [final_time] if self.free_time else []])

    def unpack(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        n_x, n_u, steps = self.problem.n_x, self.problem.n_u, self.problem.steps
        block = w[: steps * (n_x + n_u)].reshape(steps, n_x + n_u)
        last = w[steps * (n_x + n_u) : steps * (n_x + n_u) + n_x]
        states = np.concatenate([block[:, :n_x], last[None]])
        return states, block[:, n_x:], float(w[-1]) if self.free_time else self.problem.duration

    def bounds(
        self, x0: np.ndarray, scale: float = 1.0, free_start: Bounds | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Bounds on w; `scale` widens the control bounds about their middle (homotopy)."""
        q, steps, sides = self.problem, self.problem.steps, []
        starts, limits = start_bounds(q, x0, free_start or {}), control_bounds(q, scale)
        for first, u_side, x_side, i in zip(starts, limits, (q.state_low, q.state_high), (0, 1), strict=True):
            states = np.tile(x_side, (steps + 1, 1))
            states[0] = first
            sides.append(self.pack(states, np.tile(u_side, (steps, 1)), q.final_time[i] if q.final_time else None))
        return sides[0], sides[1]

    def g_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        low = np.concatenate([np.zeros(self.n_defect), np.full(self.n_path, -np.inf), np.zeros(self.n_end)])
        return low, np.zeros(len(low))

    # --- solving --------------------------------------------------------------------------------------------------------

    def solve(
        self,
        x0: np.ndarray,
        p: np.ndarray,
        guess: Guess,
        *,
        scale: float = 1.0,
        free_start: Bounds | None = None,
        **options: object,
    ) -> NlpResult:
        final = guess.final_time
        if final is None and self.problem.final_time is not None:
            final = float(np.mean(self.problem.final_time))
        start = self.pack(np.nan_to_num(guess.states), np.nan_to_num(guess.controls), final)
        theta = np.concatenate([x0, p])
        return self.program.solve(start, theta, self.bounds(x0, scale, free_start), self.g_bounds(), **options)  # type: ignore[arg-type]

    def solution(self, result: NlpResult, p: np.ndarray, wall_time: float, name: str = "multiple_shooting") -> Solution:
        """Trajectory, costates and certificate of an NLP point."""
        problem, steps = self.problem, self.problem.steps
        states, controls, final = self.unpack(result.w)
        h = final / steps
        times = np.arange(steps + 1) * h if self.free_time else np.arange(steps + 1) * problem.dt
        y = result.multipliers[: self.n_defect].reshape(steps, problem.n_x)
        z0 = result.bound_multipliers[: problem.n_x]
        inner, end = self.gradients
        after, cost, h_x, h_u = (np.asarray(v).T for v in inner(states[:-1].T, controls.T, p, times[None, :-1], h, y.T))
        phi = 0.0
        if problem.horizon == "finite":
            phi = float(problem.terminal_cost_function(states[-1], p, final))
        costates = np.concatenate([-z0[None], y])
        trajectory = Trajectory(
            times=times,
            states=states,
            controls=controls,
            costs=cost[:, 0],
            terminal_cost=np.asarray(phi),
            costates=costates,
        )
        z = result.bound_multipliers[: steps * (problem.n_x + problem.n_u)].reshape(steps, -1)
        if self.n_path == 0:
            projected = controls - np.clip(controls - h_u, problem.control_low, problem.control_high)
            stationarity = float(np.max(np.abs(projected)))
            costate_defect = float(np.max(np.abs(h_x[1:] + z[1:, : problem.n_x] - y[:-1]), initial=0.0))
            if steps > 1 and not np.isfinite(costate_defect):
                costate_defect = float("nan")
            costate_defect = max(costate_defect, float(np.max(np.abs(h_x[0] - costates[0]))))
        else:  # path multipliers enter both: the whole KKT residual says it
            stationarity = costate_defect = result.gradient
        transversality = result.gradient
        unmet = self.n_end or problem.last_constraint_function is not None  # their multipliers enter
        if not unmet and not state_bounded(problem):
            phi_x = np.asarray(end(states[-1], p, final)).ravel() if problem.horizon == "finite" else 0.0
            transversality = float(np.max(np.abs(y[-1] - phi_x)))
        defect = float(np.max(np.abs(after - states[1:])))
        certificate = Certificate(
            defect=defect,
            stationarity=stationarity,
            costate_defect=costate_defect,
            transversality=transversality,
            constraint_violation=violation(problem, states, controls, p, times),
            complementarity=self._complementarity(result),
            **checked_one(problem, trajectory, p),
        )
        status = result.status
        if status is not Status.CONVERGED and defect < 1e-9 and certificate.worst() < 1e-6 * (1 + abs(result.cost)):
            status = Status.CONVERGED
        status, message = ruled_out(problem, states, controls) or (status, "" if status.ok else result.message)
        return Solution(
            problem=problem.name,
            solver=name,
            trajectory=trajectory,
            status=status,
            certificate=certificate,
            wall_time=wall_time,
            iterations=result.iterations,
            message=message,
        )

    def _complementarity(self, result: NlpResult) -> float:
        """max |multiplier · slack| over all bounds and path constraints; the start is no inequality."""
        path = slice(self.n_defect, self.n_defect + self.n_path)
        products = complementarity(result.w, result.bound_multipliers, *self.bounds(self.unpack(result.w)[0][0]))
        return float(max(products.max(), np.abs(result.multipliers[path] * result.g[path]).max(initial=0.0)))


@kept
def transcription(problem: Problem) -> Transcription:
    """The problem's program, built once."""
    return Transcription(problem)


@in_turn
def solve_multiple_shooting(
    problem: Problem,
    x0: np.ndarray,
    *,
    params: np.ndarray | None = None,
    guess: Guess | Trajectory | None = None,
    tolerance: float = 1e-10,
    max_iterations: int = 500,
    time_limit: float = 60.0,
    scale: float = 1.0,
    free_start: Bounds | None = None,
    damped: bool = False,
) -> Solution:
    """One local solve from one guess (default: the state held, the nearest control to zero). `scale` widens the
    control bounds, for homotopy. `free_start` maps states to (low, high): their initial values are chosen too, x0 is then a
    guess. A constant parameter to be chosen is such a state with derivative 0. `damped`: see `NonlinearProgram.solve`."""
    started = time.perf_counter()
    p = problem.param_values if params is None else params
    if guess is None:
        guess = Guess(np.tile(x0, (problem.steps + 1, 1)), np.tile(problem.resting_control, (problem.steps, 1)))
    guess = (Guess.of(guess) if isinstance(guess, Trajectory) else guess).fitted(problem)
    program = transcription(problem)
    result = program.solve(
        x0,
        p,
        guess,
        tolerance=tolerance,
        max_iterations=max_iterations,
        time_limit=time_limit - (time.perf_counter() - started),
        scale=scale,
        free_start=free_start,
        damped=damped,
    )
    return program.solution(result, p, time.perf_counter() - started)
