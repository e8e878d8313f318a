"""A second opinion on solutions: their residuals, costs and optimality found again from the problem's own functions.

Nothing here comes from `optctl.solvers`, nor from the problem's step: the user's functions are stated and stepped again (`restated`),
integrated by SciPy and optimised by IPOPT. What is measured is in natural units: a state beside
how far it moves, a control beside its range, a cost beside the costs along the way. So the units of a problem do not matter.

    numbers       states, controls and value are finite
    dynamics      x_{k+1} is what the problem's scheme makes of x_k, u_k
    integration   x_{k+1} is where the dynamics go from x_k with u_k held (SciPy, tight)
    integral      the cost is the integral along the way, where the scheme is exact; `coarse` for the others, which only approach it
    cost          the value is the sum of the costs along the trajectory
    feasibility   bounds, path and terminal constraints hold
    resolution    the value of a method whose controls vary within intervals is not below what a finer grid attains
    gradient      a step along the projected gradient, at most one hundredth of a control's range, lowers the cost
    descent       IPOPT, held within one hundredth of each range, lowers the cost
    optimum       IPOPT from the solution, or from a random guess, finds a lower cost: no proved optimum
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import casadi as ca
import numpy as np
from scipy.integrate import solve_ivp

from optctl.bench.restated import Restated
from optctl.problem import Problem

DYNAMICS = 1e-6
"""Defect of the problem's own scheme, in natural units, up to which it is met."""
INTEGRATION = 3e-2
"""The same against the exact solution, and relative error of the integrated cost: three times what is called true elsewhere."""
COST = 1e-6
"""Relative error of a sum of costs that is rounding."""
FEASIBILITY = 1e-3
"""Violation of a constraint, in natural units, up to which it is kept: 1e-4 and what rounding of the units can add."""
LOWER = 1e-5
"""Decrease of the cost, in natural units, that refutes an optimum."""
NEAR = 1e-2
"""Share of a control's range that is called local."""
FINER = 4
"""Pieces of an interval when a value is looked at on a finer grid."""
_STIFF = 50.0
"""‖h ∂f/∂x‖ from which an implicit scheme integrates."""
_NOTHING = 1e-30
"""A state this small beside its largest value has decayed."""


@dataclass(frozen=True)
class Finding:
    """One check that disagrees."""

    check: str
    size: float
    """In natural units."""
    text: str


class Judge(Restated):
    """The checks of one problem. `examine` is what callers want."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._programs: dict[bool, Any] = {}

    # --- along one trajectory -------------------------------------------------------------------------------------------

    def sizes(self, x: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Natural units: of states how far they move and a thousandth of how large they are, of controls their range or what is used."""
        state = np.ptp(x, axis=0) + 1e-3 * np.abs(x).max(axis=0)
        used = np.maximum(np.ptp(u, axis=0), np.abs(u).max(axis=0))
        width = self.problem.control_high - self.problem.control_low
        used = np.where(
            used > 0, used, np.array([self.problem.control_scale.get(name, 1.0) for name in self.problem.control])
        )
        return state, np.where(np.isfinite(width), width, used)

    def reach(self, jacobians: np.ndarray, state: np.ndarray, control: np.ndarray) -> np.ndarray:
        """Σ |∂g/∂z| times the natural units of z: the natural size of a function g along a trajectory, one entry a row."""
        size = np.concatenate([state, control]) if jacobians.shape[-1] == len(state) + len(control) else state
        return np.nan_to_num(np.abs(jacobians) @ size, nan=np.inf)

    def _over_time(self, function: ca.Function, output: int, *arguments: np.ndarray) -> np.ndarray:
        """One output of a function at every interval, (N, rows, columns)."""
        rows, columns = function.size_out(output)
        flat = np.array(function.call(list(map(ca.DM, arguments)))[output])
        return flat.reshape(rows, -1, columns).swapaxes(0, 1)

    def dynamics(self, x: np.ndarray, u: np.ndarray, t: np.ndarray) -> float:
        """Largest defect of the problem's scheme in natural units."""
        state, control = self.sizes(x, u)
        after, _, _ = self.along(x, u, t)
        slopes = self._over_time(self.slopes, 0, x[:-1].T, u.T, t[None, :-1], np.diff(t)[None])
        return self._mismatch(after, x[1:], state, self.reach(slopes, state, control))

    def _mismatch(self, found: np.ndarray, claimed: np.ndarray, state: np.ndarray, reach: np.ndarray) -> float:
        """|found − claimed| beside how far each state moves; what a relative change of 1e-9 of all inputs explains does not count."""
        gap = np.abs(found - claimed)
        unexplained = np.where(gap <= 1e-9 * reach, 0.0, gap)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(unexplained > 0, unexplained / state, 0.0)
        return float(np.max(np.nan_to_num(ratio, nan=np.inf)))

    def stiffness(self, x: np.ndarray, u: np.ndarray, t: np.ndarray) -> float:
        """max ‖h ∂f/∂x‖ along the trajectory."""
        assert self.rate is not None
        jacobians = self._over_time(self.rate, 2, x[:-1].T, u.T, t[None, :-1])
        return float(np.max(np.linalg.norm(np.nan_to_num(jacobians), axis=(1, 2)) * np.diff(t)))

    def integration(
        self, x: np.ndarray, u: np.ndarray, t: np.ndarray, value: float, scale: float
    ) -> tuple[float, float]:
        """Largest distance of a node from where the dynamics go with the control held, and the error of the cost, in natural units."""
        rate, problem = self.rate, self.problem
        assert rate is not None
        n, h = problem.n_x, np.diff(t)
        jacobians = self._over_time(rate, 2, x[:-1].T, u.T, t[None, :-1])
        ends = self._implicitly(x, u, t) if self.stiffness(x, u, t) > _STIFF else self._explicitly(x, u, t)
        state, _ = self.sizes(x, u)
        slopes = np.abs(np.nan_to_num(jacobians)) * h[:, None, None] + np.eye(n)
        gap = self._mismatch(ends[:, :n], x[1:], state, 1e3 * slopes @ state)
        total = float(ends[:, n].sum() + float(self.end_cost(x[-1], t[-1])[0]))
        return gap, abs(total - value) / scale if np.isfinite(total) else float("inf")

    def _explicitly(self, x: np.ndarray, u: np.ndarray, t: np.ndarray) -> np.ndarray:
        rate, n, h = self.rate, self.problem.n_x, np.diff(t)
        start = np.concatenate([x[:-1], np.zeros((len(u), 1))], axis=1)
        size = np.abs(x).max(axis=0)
        unit = np.tile(np.append(np.where(size > 0, size, 1.0), 1.0), len(u))

        def f(s: float, flat: np.ndarray) -> np.ndarray:
            y = (flat * unit).reshape(len(u), n + 1)
            dx, cost, _ = rate(y[:, :n].T, u.T, (t[:-1] + s * h)[None])  # type: ignore[misc]
            return (np.concatenate([np.array(dx), np.array(cost)]).T * h[:, None]).ravel() / unit

        with np.errstate(all="ignore"):
            done = solve_ivp(f, (0.0, 1.0), start.ravel() / unit, method="DOP853", rtol=1e-8, atol=1e-12)
        return (done.y[:, -1] * unit if done.success else np.full(start.size, np.nan)).reshape(start.shape)

    def _implicitly(self, x: np.ndarray, u: np.ndarray, t: np.ndarray) -> np.ndarray:
        rate, n = self.rate, self.problem.n_x
        size = np.append(np.where(np.abs(x).max(axis=0) > 0, np.abs(x).max(axis=0), 1.0), 1.0)
        ends = np.full((len(u), n + 1), np.nan)
        for k, control in enumerate(u):
            h = t[k + 1] - t[k]

            def f(s: float, y: np.ndarray, control=control, k=k, h=h) -> np.ndarray:
                dx, cost, _ = rate((y * size)[:n], control, t[k] + s * h)  # type: ignore[misc]
                return np.append(np.array(dx).ravel(), float(cost)) * h / size

            with np.errstate(all="ignore"):
                done = solve_ivp(f, (0.0, 1.0), np.append(x[k], 0.0) / size, method="LSODA", rtol=1e-8, atol=1e-12)
            if done.success and np.isfinite(done.y[:, -1]).all():
                ends[k] = done.y[:, -1] * size
            elif (np.abs(x[k : k + 2]) <= _NOTHING * size[:n]).all():  # LSODA ends among denormal numbers
                ends[k] = np.append(x[k + 1], 0.0)
        return ends

    def feasibility(self, x: np.ndarray, u: np.ndarray, t: np.ndarray) -> tuple[float, str]:
        """Largest violation in natural units, and of what."""
        problem, (state, control) = self.problem, self.sizes(x, u)
        found: dict[str, np.ndarray] = {}
        with np.errstate(divide="ignore", invalid="ignore"):
            beyond = np.maximum(problem.control_low - u, u - problem.control_high)
            found["control bounds"] = np.where(beyond > 0, beyond / control, 0.0)
            beyond = np.maximum(problem.state_low - x[1:], x[1:] - problem.state_high)
            found["state bounds"] = np.where(beyond > 0, beyond / state, 0.0)
            if self.path.numel_out(0):
                c = self._over_time(self.path, 0, x[:-1].T, u.T, t[None, :-1])[..., 0]
                size = self.reach(self._over_time(self.path, 1, x[:-1].T, u.T, t[None, :-1]), state, control).max(
                    axis=0
                )
                found["path constraints"] = np.where(c > 0, c / size, 0.0)
                last = np.array(self.lasting(x[-1], t[-1])).ravel()
                found["path constraints at the end"] = np.where(last > 0, last / size[self.alone], 0.0)
            if self.ends.numel_out(0):
                e, slope = (np.array(part) for part in self.ends(x[-1], t[-1]))
                found["terminal constraints"] = np.where(
                    e[:, 0] != 0, np.abs(e[:, 0]) / self.reach(slope, state, control), 0.0
                )
        worst = {name: float(np.nan_to_num(v, nan=np.inf).max(initial=0.0)) for name, v in found.items()}
        name = max(worst, key=worst.__getitem__)
        return worst[name], name

    def gradient(self, x: np.ndarray, u: np.ndarray, t: np.ndarray) -> np.ndarray:
        """dJ/du along the given states, (N, n_u), the states following the controls."""
        costate = np.array(self.end_cost(x[-1], t[-1])[1]).ravel()
        slope = np.empty_like(u)
        for k in reversed(range(len(u))):
            before, here = self.adjoint(x[k], u[k], t[k], t[k + 1] - t[k], costate)
            costate, slope[k] = np.array(before).ravel(), np.array(here).ravel()
        return slope

    def downhill(self, x: np.ndarray, u: np.ndarray, t: np.ndarray, scale: float) -> float:
        """Decrease of the cost, in natural units, that a step along the projected gradient attains. Without constraints on states."""
        low, high, (_, control) = self.problem.control_low, self.problem.control_high, self.sizes(x, u)
        slope, (_, now) = self.gradient(x, u, t), self.rolled(x[0], u, t)
        if not np.isfinite(slope).all() or not np.isfinite(now):
            return 0.0
        size = np.abs(slope * control).max()
        best = 0.0
        for share in NEAR * 10.0 ** -np.arange(0.0, 6.0):
            if size == 0:
                break
            trial = np.clip(u - share * slope * control**2 / size, low, high)
            _, then = self.rolled(x[0], trial, t)
            best = max(best, (now - then) / scale if np.isfinite(then) else 0.0)
        return best

    # --- a second method ------------------------------------------------------------------------------------------------

    def _program(self, near: bool) -> Any:
        """IPOPT on nodes and controls in natural units. Parameters: start, times, units, cost unit."""
        if near in self._programs:
            return self._programs[near]
        problem = self.problem
        n, m, steps = problem.n_x, problem.n_u, problem.steps
        X, U, T = ca.MX.sym("X", n, steps), ca.MX.sym("U", m, steps), ca.MX.sym("T")
        x0, begin, sx, su, unit = (ca.MX.sym(*a) for a in (("x0", n), ("begin",), ("sx", n), ("su", m), ("unit",)))
        rows = self.path.numel_out(0), self.ends.numel_out(0)
        sc, se = ca.MX.sym("sc", rows[0]), ca.MX.sym("se", rows[1])
        x = ca.horzcat(x0, X * ca.repmat(sx, 1, steps))
        u, h = U * ca.repmat(su, 1, steps), T / steps
        times = begin + h * ca.DM(np.arange(steps + 1)[None])
        after, costs = self.step.map(steps)(x[:, :-1], u, times[:-1], ca.repmat(h, 1, steps))
        total = ca.sum2(costs) + self.end_cost(x[:, -1], times[-1])[0]
        parts = [ca.vec((x[:, 1:] - after) / ca.repmat(sx, 1, steps))]
        if rows[1]:
            parts.append(self.ends(x[:, -1], times[-1])[0] / se)
        if rows[0]:
            parts.append(ca.vec(self.path.map(steps)(x[:, :-1], u, times[:-1])[0] / ca.repmat(sc, 1, steps)))
            if self.alone:
                parts.append(self.lasting(x[:, -1], times[-1]) / sc[self.alone])
        z = ca.vertcat(ca.vec(U), ca.vec(X), T)
        given = ca.vertcat(x0, begin, sx, su, unit, sc, se)
        g = ca.vertcat(*parts)
        equalities = n * steps + rows[1]
        options: dict[str, Any] = {
            "print_time": False,
            "ipopt.print_level": 0,
            "ipopt.sb": "yes",
            "ipopt.tol": 1e-10,
            "ipopt.max_iter": 150,
            "ipopt.bound_relax_factor": 0.0,
            "ipopt.max_cpu_time": 4.0,
            "error_on_fail": False,
            "show_eval_warnings": False,
        }
        if near:
            options |= {
                "ipopt.mu_init": 1e-9,
                "ipopt.bound_push": 1e-10,
                "ipopt.bound_frac": 1e-10,
                "ipopt.max_iter": 60,
            }
        solver = ca.nlpsol("second", "ipopt", {"x": z, "p": given, "f": total / unit, "g": g}, options)
        bounds = np.zeros(g.numel()), np.zeros(g.numel())
        bounds[0][equalities:] = -np.inf
        self._programs[near] = solver, bounds
        return self._programs[near]

    def second(
        self,
        x: np.ndarray,
        u: np.ndarray,
        t: np.ndarray,
        scale: float,
        *,
        guess: tuple[np.ndarray, np.ndarray],
        near: bool = False,
    ) -> tuple[float, np.ndarray, np.ndarray] | None:
        """(cost, states, controls) that IPOPT finds from a guess, `near` the solution or anywhere; `None` if nothing feasible."""
        problem = self.problem
        steps = problem.steps
        state, control = self.sizes(x, u)
        state = np.where(state > 0, state, np.maximum(1e-12 * np.abs(x).max(), 1e-300))
        c_size, e_size = np.zeros(0), np.zeros(0)
        if self.path.numel_out(0):
            slopes = self._over_time(self.path, 1, x[:-1].T, u.T, t[None, :-1])
            c_size = self.reach(slopes, state, control).max(axis=0)
        if self.ends.numel_out(0):
            e_size = self.reach(np.array(self.ends(x[-1], t[-1])[1]), state, control)
        c_size, e_size = (np.where((v > 0) & np.isfinite(v), v, 1.0) for v in (c_size, e_size))
        solver, (lbg, ubg) = self._program(near)
        low, high = np.tile(problem.control_low / control, steps), np.tile(problem.control_high / control, steps)
        middle = (u / control).ravel()
        if near:
            low, high = np.maximum(low, middle - NEAR), np.minimum(high, middle + NEAR)
        ends = (t[-1] - t[0],) * 2 if problem.final_time is None else problem.final_time
        if near and problem.final_time is not None:
            width = NEAR * (t[-1] - t[0])
            ends = max(ends[0], t[-1] - t[0] - width), min(ends[1], t[-1] - t[0] + width)
        lbx = np.concatenate([low, np.tile(problem.state_low / state, steps), ends[:1]])
        ubx = np.concatenate([high, np.tile(problem.state_high / state, steps), ends[1:]])
        states, controls = guess
        z0 = np.concatenate([(controls / control).ravel(), (states[1:] / state).ravel(), [t[-1] - t[0]]])
        given = np.concatenate([x[0], [t[0]], state, control, [scale], c_size, e_size])
        if not np.isfinite(z0).all() or not np.isfinite(given).all():
            return None
        try:
            found = solver(x0=z0, p=given, lbx=np.minimum(lbx, ubx), ubx=ubx, lbg=lbg, ubg=ubg)
        except RuntimeError:
            return None
        z, g = np.array(found["x"]).ravel(), np.array(found["g"]).ravel()
        broken = np.maximum(np.maximum(lbg - g, g - ubg), 0.0)
        if not np.isfinite(z).all() or not np.isfinite(g).all() or not broken.max(initial=0.0) <= 1e-8:
            return None
        gained = float(np.abs(np.array(found["lam_g"]).ravel()) @ broken)  # what the rest of infeasibility may be worth
        controls = z[: u.size].reshape(u.shape) * control
        return (
            (float(found["f"]) + gained) * scale,
            np.vstack([x[0], z[u.size : -1].reshape(x[1:].shape) * state]),
            controls,
        )

    def unresolved(self, x: np.ndarray, u: np.ndarray, t: np.ndarray, value: float) -> float:
        """How far a value lies below what controls held over a four times finer grid attain near the solution, in natural units.

        Controls that vary within an interval are cheaper by O(h²) than held ones; a value far below lives on a grid too coarse.
        """
        problem = self.problem
        fine = Judge(problem.replace(steps=FINER * problem.steps, dt=problem.dt / FINER))
        times = np.linspace(t[0], t[-1], FINER * problem.steps + 1)
        states = np.stack([np.interp(times, t, column) for column in x.T], axis=1)
        index = np.clip(np.searchsorted(t, (times[:-1] + times[1:]) / 2) - 1, 0, len(u) - 1)
        controls = np.clip(u[index], problem.control_low, problem.control_high)
        scale = fine.scale(states, controls, times)
        if not np.isfinite(scale) or scale == 0:
            return 0.0
        found = fine.second(states, controls, times, scale, guess=(states, controls))
        return 0.0 if found is None else (found[0] - value) / max(scale, abs(found[0]))

    # --- the whole ------------------------------------------------------------------------------------------------------

    def scale(self, x: np.ndarray, u: np.ndarray, t: np.ndarray) -> float:
        """The natural size of the cost: the sum of what is paid along the way, without regard to sign."""
        _, costs, end = self.along(x, u, t)
        return float(np.abs(costs).sum() + abs(end))

    def examine(
        self,
        x: np.ndarray,
        u: np.ndarray,
        t: np.ndarray,
        value: float,
        *,
        proved: bool,
        saddle: bool = False,
        held: bool = True,
        rng: np.random.Generator | None = None,
        guesses: int = 2,
    ) -> list[Finding]:
        """Every check that disagrees with a certified solution.

        `proved`: it claims a global optimum. `saddle`: it says itself that it is no minimum. `held`: its controls are held over
        the intervals. Those of collocation and of indirect methods vary within, and only feasibility and resolution are checked.
        """
        found: list[Finding] = []

        def note(check: str, size: float, limit: float, text: str) -> bool:
            if not size <= limit:
                found.append(Finding(check, size, f"{text} ({size:.2g})"))
            return not size <= limit

        if not (np.isfinite(x).all() and np.isfinite(u).all() and np.isfinite(value)):
            return [Finding("numbers", np.inf, "states, controls or value are not finite")]
        worst, of = self.feasibility(x, u, t)
        note("feasibility", worst, FEASIBILITY, f"{of} are broken")
        if not held:
            note(
                "resolution",
                self.unresolved(x, u, t, value),
                INTEGRATION,
                "lower than held controls on a finer grid attain",
            )
            return found
        scale = self.scale(x, u, t)
        _, costs, end = self.along(x, u, t)
        own = float(costs.sum() + end)
        if not np.isfinite(own):
            found.append(Finding("cost", np.inf, f"{own} where {value:.6g} is reported"))
            return found
        small = max(scale, 1e-300)
        integrated = integral = 0.0
        if self.rate is not None:
            integrated, integral = self.integration(x, u, t, value, small)
        wrong = note("dynamics", self.dynamics(x, u, t), DYNAMICS, "a node is not where the problem's scheme goes")
        wrong |= note(
            "integration", integrated, INTEGRATION, "a node is not where the dynamics go with the control held"
        )
        claimed = "integral" if self.problem.integrator == "exponential" else "coarse"
        wrong |= note(claimed, integral, INTEGRATION, "the cost is not the integral along the way")
        stiff = self.problem.integrator == "exponential" and self.stiffness(x, u, t) > 1  # quadratures differ then
        wrong |= note(
            "cost", abs(own - value) / small, INTEGRATION if stiff else COST, "the value is not the sum of the costs"
        )
        if wrong:  # what follows would be measured on another trajectory
            return found
        free = not self.problem.constrained and self.problem.final_time is None
        first = free and note(
            "gradient", self.downhill(x, u, t, small), LOWER, "a small step down the gradient lowers the cost"
        )
        if not first and not saddle:
            other = self.second(x, u, t, small, guess=(x, u), near=True)
            first = other is not None and note("descent", (own - other[0]) / small, LOWER, "lower beside it")
        if proved and not first:
            rng = np.random.default_rng(0) if rng is None else rng
            for n in range(guesses + 1):
                other = self.second(x, u, t, small, guess=(x, u) if n == 0 else self._guess(x, u, t, rng))
                if other is not None and note(
                    "optimum", (own - other[0]) / small, LOWER, f"J = {other[0]:.8g} for {own:.8g}"
                ):
                    break
        return found

    def _guess(
        self, x: np.ndarray, u: np.ndarray, t: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Random controls within their bounds, or a few times what the solution uses, and the states they lead to."""
        problem, (_, control) = self.problem, self.sizes(x, u)
        low = np.where(np.isfinite(problem.control_low), problem.control_low, -2 * control)
        high = np.where(np.isfinite(problem.control_high), problem.control_high, 2 * control)
        trial = rng.uniform(np.minimum(low, high), np.maximum(low, high), u.shape)
        states, _ = self.rolled(x[0], trial, t)
        return (
            states if np.isfinite(states).all() and np.abs(states).max() < 1e3 * (1e-300 + np.abs(x).max()) else x
        ), trial
