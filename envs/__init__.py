"""The catalogue of problems: one file per family, each problem a function that returns a `Problem`.

`make(name)` builds one; `CATALOGUE` maps every name to its function. To add a problem, write its function and one line here.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any

from optctl.envs import (
    cartpole,
    double_pendulum,
    flight,
    lqr,
    open_quantum,
    oscillators,
    pendulum,
    quantum,
    thermodynamics,
    variants,
)
from optctl.errors import ArgumentError, require
from optctl.problem import Problem

CATALOGUE: dict[str, Callable[..., Problem]] = {
    "lqr-scalar": lqr.scalar,
    "double-integrator": lqr.double_integrator,
    "dean": lqr.dean,
    "mass-spring": lqr.mass_spring,
    "discrete-scalar": lqr.discrete_scalar,
    "discrete-integrator": lqr.discrete_integrator,
    "lqr-marginal": lqr.marginal,
    "lqr-unstable": lqr.unstable,
    "lqg": lqr.lqg,
    "flexible-beam": lqr.beam,
    "harmonic-oscillator": oscillators.harmonic,
    "driven-oscillator": oscillators.driven,
    "parametric-oscillator": oscillators.parametric,
    "duffing": oscillators.duffing,
    "duffing-chaos": oscillators.duffing_chaos,
    "van-der-pol": oscillators.van_der_pol,
    "fitzhugh-nagumo": oscillators.fitzhugh_nagumo,
    "oscillator-chain": oscillators.chain,
    "oscillator-ring": oscillators.ring,
    "kuramoto": oscillators.kuramoto,
    "lorenz": oscillators.lorenz,
    "moved-trap": thermodynamics.moved_trap,
    "stiffened-trap": thermodynamics.stiffened_trap,
    "stiffened-trap-variance": thermodynamics.stiffened_trap_variance,
    "pendulum": pendulum.swing_up,
    "pendulum-v1": pendulum.gymnasium_v1,
    "cartpole": cartpole.swing_up,
    "cart-double-pole": cartpole.double_pole,
    "acrobot": double_pendulum.acrobot,
    "pendubot": double_pendulum.pendubot,
    "reacher": double_pendulum.reacher,
    "quadrotor": flight.quadrotor,
    "quadrotor-flip": flight.quadrotor_flip,
    "rocket": flight.rocket,
    "lander": flight.lander,
    "pendulum-delayed": variants.pendulum_delayed,
    "pendulum-goal": variants.pendulum_goal,
    "cartpole-rail": variants.cartpole_rail,
    "double-integrator-minimum-time": variants.double_integrator_minimum_time,
    "double-integrator-tracking": variants.double_integrator_tracking,
    "qubit-transfer": quantum.qubit_transfer,
    "qubit-bang-bang": quantum.qubit_bang_bang,
    "qubit-transfer-slew": quantum.qubit_transfer_slew,
    "landau-zener": quantum.landau_zener,
    "qubit-gate": quantum.qubit_gate,
    "qubit-gate-filtered": quantum.qubit_gate_filtered,
    "lambda-system": quantum.lambda_system,
    "transmon-gate": quantum.transmon_gate,
    "kerr-cavity": quantum.kerr_cavity,
    "ising-gate": quantum.ising_gate,
    "exchange-gate": quantum.exchange_gate,
    "spin-chain": quantum.spin_chain,
    "damped-qubit": open_quantum.damped_qubit,
    "spin-saturation": open_quantum.spin_saturation,
    "qubit-reset": open_quantum.qubit_reset,
}


def make(name: str, **options: Any) -> Problem:
    """The catalogue problem `name`, with the options of its function (see each family's file)."""
    if name not in CATALOGUE:
        close = difflib.get_close_matches(str(name), CATALOGUE, n=1)
        hint = f"; did you mean `{close[0]}`?" if close else f"; the problems are {', '.join(CATALOGUE)}"
        raise ArgumentError(f"Argument `name` must be a problem of the catalogue, but is {name!r}{hint}")
    known = inspect.signature(CATALOGUE[name]).parameters
    strange = [option for option in options if option not in known]
    require(not strange, "options", f"be among {', '.join(known) or 'none'} for `{name}`", f"hold {', '.join(strange)}")
    return CATALOGUE[name](**options)


def resolve_problem(problem: Problem | str) -> Problem:
    """A problem, or the catalogue's problem of that name."""
    problem = make(problem) if isinstance(problem, str) else problem
    require(isinstance(problem, Problem), "problem", "be a Problem or a name in the catalogue", f"is {problem!r}")
    return problem
