"""The nonlinear program of one transcription, built once and solved from many guesses by IPOPT.

    min J(w; θ)  subject to  g_low ≤ g(w; θ) ≤ g_high,  w_low ≤ w ≤ w_high,   θ = (x0, p)

IPOPT's relaxation of bounds is off: its default lets a solution cross every bound by 1e-8 relative and pay less than the optimum.
Source: Wächter and Biegler, Math. Program. 106 (2006) 25.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import casadi as ca
import numpy as np

from optctl.solvers.solution import Status

_Symbol = TypeVar("_Symbol", ca.MX, ca.SX)
_STATUS = {
    "Solve_Succeeded": Status.CONVERGED,
    "Solved_To_Acceptable_Level": Status.ACCEPTABLE,
    "Feasible_Point_Found": Status.CONVERGED,
    "Infeasible_Problem_Detected": Status.INFEASIBLE,
    "Search_Direction_Becomes_Too_Small": Status.STALLED,
    "Restoration_Failed": Status.INFEASIBLE,
    "Error_In_Step_Computation": Status.STALLED,
    "Maximum_Iterations_Exceeded": Status.MAX_ITERATIONS,
    "Maximum_WallTime_Exceeded": Status.TIME_LIMIT,
    "Invalid_Number_Detected": Status.DIVERGED,
    "Diverging_Iterates": Status.DIVERGED,
}


@dataclass
class NlpResult:
    """Primal and dual point, and why IPOPT stopped there."""

    w: np.ndarray
    g: np.ndarray
    cost: float
    multipliers: np.ndarray
    bound_multipliers: np.ndarray
    status: Status
    iterations: int
    message: str
    gradient: float
    """Largest entry of ∇J + ∇g'y + z."""


class _Limits(ca.Callback):
    """Called by IPOPT once an iteration: stops it when the time is up or the iterations are."""

    def __init__(self, n_w: int, n_g: int, n_theta: int) -> None:
        super().__init__()
        rows = {"x": n_w, "lam_x": n_w, "g": n_g, "lam_g": n_g, "lam_p": n_theta, "f": 1}
        self.rows = [rows[name] for name in ca.nlpsol_out()]
        self.construct("limits", {})

    def begin(self, max_iterations: int, time_limit: float) -> None:
        self.left, self.end = max_iterations, time.perf_counter() + time_limit

    def get_n_in(self) -> int:
        return len(self.rows)

    def get_n_out(self) -> int:
        return 1

    def get_sparsity_in(self, i: int) -> ca.Sparsity:
        return ca.Sparsity.dense(self.rows[i], 1)

    def eval(self, arg: Any) -> list[float]:
        self.left -= 1
        return [float(self.left < 0 or time.perf_counter() > self.end)]


class NonlinearProgram(Generic[_Symbol]):
    """`solve(guess, …)` with the solver of the given tolerance, made at first use."""

    def __init__(self, w: _Symbol, theta: _Symbol, cost: _Symbol, g: _Symbol) -> None:
        self.nlp: dict[str, _Symbol] = {"x": w, "p": theta, "f": cost, "g": g}
        y, z = type(w).sym("y", g.numel()), type(w).sym("z", w.numel())
        lagrangian = cost + ca.dot(y, g)
        self._gradient = ca.Function("kkt", [w, theta, y, z], [ca.gradient(lagrangian, w) + z, g])
        self._solvers: dict[tuple, ca.Function] = {}
        self._derivatives: dict[str, ca.Function] = {}
        self._limits = _Limits(w.numel(), g.numel(), theta.numel())

    def _solver(self, tolerance: float, warm: bool, damped: bool) -> ca.Function:
        key = (tolerance, warm, damped)
        if key not in self._solvers:
            options: dict[str, Any] = {
                "print_level": 0,
                "sb": "yes",
                "tol": tolerance,
                "max_iter": 1_000_000,
                "bound_relax_factor": 0.0,
                "honor_original_bounds": "yes",
                "mu_strategy": "adaptive",
                "constr_viol_tol": min(1e-8, tolerance),
                "dual_inf_tol": 1e-6,
                "compl_inf_tol": min(1e-8, tolerance),
                "acceptable_tol": 1e-7,
                "acceptable_iter": 20,
                "mu_min": 1e-13,
            }
            if damped:
                options["perturb_always_cd"] = "yes"
            if warm:
                options |= {
                    "mu_strategy": "monotone",
                    "mu_init": 1e-4,
                    "bound_push": 1e-6,
                    "bound_frac": 1e-6,
                    "warm_start_init_point": "yes",
                    "warm_start_bound_push": 1e-8,
                    "warm_start_mult_bound_push": 1e-8,
                }
            self._solvers[key] = ca.nlpsol(
                "ipopt",
                "ipopt",
                self.nlp,
                {
                    "ipopt": options,
                    "print_time": False,
                    "error_on_fail": False,
                    "calc_lam_p": False,
                    "expand": True,
                    "show_eval_warnings": False,
                    "iteration_callback": self._limits,
                    **self._derivatives,
                },
            )
            names = {
                "grad_f": "nlp_grad_f",
                "jac_g": "nlp_jac_g",
                "hess_lag": "nlp_hess_l",
            }  # most of the work, done once
            self._derivatives = {k: self._solvers[key].get_function(name) for k, name in names.items()}
        return self._solvers[key]

    def solve(
        self,
        guess: np.ndarray,
        theta: np.ndarray,
        bounds: tuple[np.ndarray, np.ndarray],
        g_bounds: tuple[np.ndarray, np.ndarray],
        *,
        tolerance: float = 1e-10,
        max_iterations: int = 1000,
        time_limit: float = 60.0,
        multipliers: tuple[np.ndarray, np.ndarray] | None = None,
        damped: bool = False,
    ) -> NlpResult:
        """`time_limit` [s]. `damped` regularises the constraints in every linear system: far from a solution, where they are nearly
        dependent, factorisations are then ten times as fast, but the last digits are lost. Raises KeyboardInterrupt where IPOPT
        was interrupted."""
        self._limits.begin(max_iterations, time_limit)  # building the solver counts
        solver = self._solver(tolerance, multipliers is not None, damped)
        start = {} if multipliers is None else {"lam_g0": multipliers[0], "lam_x0": multipliers[1]}
        out = solver(x0=guess, p=theta, lbx=bounds[0], ubx=bounds[1], lbg=g_bounds[0], ubg=g_bounds[1], **start)
        stats = solver.stats()
        message = stats["return_status"]
        if message == "NonIpopt_Exception_Thrown":  # CasADi throws nothing else there, and swallows the interrupt
            raise KeyboardInterrupt
        if message == "User_Requested_Stop":
            message = "Maximum_Iterations_Exceeded" if self._limits.left < 0 else "Maximum_WallTime_Exceeded"
        w, y, z = (np.asarray(out[name]).ravel() for name in ("x", "lam_g", "lam_x"))
        gradient, g = self._gradient(w, theta, y, z)
        return NlpResult(
            w=w,
            g=np.asarray(g).ravel(),
            cost=float(out["f"]),
            multipliers=y,
            bound_multipliers=z,
            status=_STATUS.get(message, Status.DIVERGED),
            iterations=int(stats.get("iter_count", 0)),
            message=message,
            gradient=float(np.max(np.abs(np.asarray(gradient)), initial=0.0)),
        )
