"""Several phases, one after the other, as one problem: stages of a rocket, media that a path crosses, a point to pass on the way.

    min Σ_i J_i,   ẋ_i = f_i(x_i, u_i, t_i) on [0, T_i],   x_{i+1}(0) = link_i(x_i(T_i))

Every phase is a `Problem` with its own states, controls, dynamics, cost, bounds, constraints and duration, fixed or free. They run
side by side on τ = t_i / T_i ∈ [0, 1]; T_i is a constant state where it is free, and a later phase begins at a free state. With
ḋ_i = ẋ_i, d_i(0) = 0 the links are conditions on the end alone, x_i(1) − d_i(1) = link(x_{i−1}(1)), so every method for
terminal constraints and free starts applies. Source: Betts (2010), Practical Methods for Optimal Control, §3.7 (linked phases).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import casadi as ca
import numpy as np

from optctl.errors import require
from optctl.problem import Fixed, Problem
from optctl.solvers.solution import Solution

Link = Callable[[ca.SX], Any]


@dataclass(frozen=True, eq=False)
class Phase:
    """One phase of a solution, in its own units; `times` count from the start of the first phase."""

    times: np.ndarray
    """(T + 1,) [s]."""
    states: np.ndarray
    """(T + 1, n_x)."""
    controls: np.ndarray
    """(T, n_u)."""

    @property
    def duration(self) -> float:
        """T_i [s]."""
        return float(self.times[-1] - self.times[0])


@dataclass(frozen=True, eq=False)
class PhasedSolution:
    """The phases, and the solution of the problem that stacks them, with its verdict and certificate."""

    phases: tuple[Phase, ...]
    solution: Solution

    @property
    def value(self) -> float:
        """Σ J_i."""
        return self.solution.value

    @property
    def ok(self) -> bool:
        """Whether it converged."""
        return self.solution.ok


def _column(value: Any) -> Any:
    return ca.vertcat(*value) if isinstance(value, (list, tuple)) else value


class Stack:
    """Where the states, controls and parameters of every phase stand in the problem that stacks them."""

    def __init__(self, phases: Sequence[Problem], links: Sequence[Link | None]) -> None:
        self.phases, self.links = phases, links
        self.params: dict[str, float] = {}
        self.states: list[str] = []
        self.controls: list[str] = []
        self.units: dict[str, str] = {}
        for i, phase in enumerate(phases, 1):
            self.params.update(phase.params)
            names = [f"{name}_{i}" for name in phase.state]
            self.states += names + ([f"change_{name}" for name in names] if i > 1 else [])
            self.units |= dict(zip(names, phase.state.values(), strict=True))  # type: ignore[union-attr]
            if phase.final_time is not None:
                self.states.append(f"duration_{i}")
                self.units[f"duration_{i}"] = "s"
            self.controls += [f"{name}_{i}" for name in phase.control]
            self.units |= dict(zip(self.controls[-phase.n_u :], phase.control.values(), strict=True))  # type: ignore[union-attr]

    def state(self, i: int, x: Any, prefix: str = "") -> Any:
        """x_i, or with the prefix `change_` d_i, along the last axis of an array or down a column of symbols."""
        rows = [self.states.index(f"{prefix}{name}_{i + 1}") for name in self.phases[i].state]
        return x[rows] if isinstance(x, ca.SX) else x[..., rows]

    def control(self, i: int, u: Any) -> Any:
        rows = [self.controls.index(f"{name}_{i + 1}") for name in self.phases[i].control]
        return u[rows] if isinstance(u, ca.SX) else u[..., rows]

    def duration(self, i: int, x: Any) -> Any:
        """T_i: a state, or a number."""
        name = f"duration_{i + 1}"
        return x[self.states.index(name)] if name in self.states else self.phases[i].duration

    def inputs(self, i: int, x: ca.SX, u: ca.SX, p: Any, tau: Any) -> tuple[Any, ...]:
        own = ca.vertcat(*(getattr(p, name) for name in self.phases[i].params))
        return self.state(i, x), self.control(i, u), own, self.duration(i, x) * tau

    def rates(self, x: ca.SX, u: ca.SX, p: Any, tau: Any) -> ca.SX:
        """T_i f_i, again for its change, and 0 for a duration."""
        rows = []
        for i, phase in enumerate(self.phases):
            rate = self.duration(i, x) * phase.dynamics_function(*self.inputs(i, x, u, p, tau))  # type: ignore[misc]
            rows += [rate] * (2 if i else 1) + [0] * (phase.final_time is not None)
        return ca.vertcat(*rows)

    def cost(self, x: ca.SX, u: ca.SX, p: Any, tau: Any) -> ca.SX:
        return sum(
            self.duration(i, x) * q.stage_cost_function(*self.inputs(i, x, u, p, tau))
            for i, q in enumerate(self.phases)
        )

    def _end(self, i: int, x: ca.SX, p: Any) -> tuple[Any, ...]:
        return self.state(i, x), ca.vertcat(*(getattr(p, name) for name in self.phases[i].params)), self.duration(i, x)

    def end_cost(self, x: ca.SX, p: Any) -> ca.SX:
        return sum(q.terminal_cost_function(*self._end(i, x, p)) for i, q in enumerate(self.phases))

    def path(self, x: ca.SX, u: ca.SX, p: Any, tau: Any) -> ca.SX:
        pairs = [(i, q.path_constraint_function) for i, q in enumerate(self.phases)]
        return ca.vertcat(*(f(*self.inputs(i, x, u, p, tau)) for i, f in pairs if f is not None))

    def end(self, x: ca.SX, p: Any) -> ca.SX:
        """e_i(x_i(T_i)) and the links."""
        rows = []
        for i, q in enumerate(self.phases):
            if q.terminal_constraint_function is not None:
                rows.append(q.terminal_constraint_function(*self._end(i, x, p)))
            if i:
                link, before = self.links[i - 1], self.state(i - 1, x)
                after = before if link is None else link(before)
                rows.append(self.state(i, x) - self.state(i, x, "change_") - _column(after))
        return ca.vertcat(*rows)

    def limits(self, low: np.ndarray, high: np.ndarray, names: Sequence[str]) -> dict[str, tuple[float, float]]:
        pairs = zip(names, low.tolist(), high.tolist(), strict=True)
        return {name: (a, b) for name, a, b in pairs if np.isfinite([a, b]).any()}

    def problem(self, x0: np.ndarray) -> Problem:
        """The phases side by side, from the start x0 of the stack."""
        states: dict[str, tuple[float, float]] = {}
        controls: dict[str, tuple[float, float]] = {}
        scales: dict[str, float] = {}
        for i, q in enumerate(self.phases, 1):
            states |= self.limits(q.state_low, q.state_high, [f"{name}_{i}" for name in q.state])
            controls |= self.limits(q.control_low, q.control_high, [f"{name}_{i}" for name in q.control])
            scales |= {f"{name}_{i}": scale for name, scale in q.control_scale.items()}
        constrained = any(q.path_constraints is not None for q in self.phases)
        steps = max(q.steps for q in self.phases)
        return Problem(
            name="-then-".join(q.name for q in self.phases),
            state={name: self.units.get(name, "") for name in self.states},
            control={name: self.units[name] for name in self.controls},
            params=self.params,
            dynamics=self.rates,
            stage_cost=self.cost,
            terminal_cost=self.end_cost,
            terminal_constraints=self.end,
            path_constraints=self.path if constrained else None,
            state_bounds=states,
            control_bounds=controls,
            control_scale=scales,
            initial_state=Fixed(x0),
            integrator=self.phases[0].integrator,
            substeps=max(q.substeps for q in self.phases),
            dt=1.0 / steps,
            steps=steps,
        )

    def start(self, x0: np.ndarray) -> tuple[np.ndarray, dict[str, tuple[float, float]]]:
        """x(0) of the stack, a guess where it is free, and the limits there."""
        start = np.zeros(len(self.states))
        free: dict[str, tuple[float, float]] = {}
        for i, q in enumerate(self.phases):
            drawn = q.initial_state
            middle = drawn.location + 0.5 * drawn.spread if drawn.kind == "uniform" else drawn.location
            begin = x0 if i == 0 else middle
            for j, name in enumerate(q.state):
                start[self.states.index(f"{name}_{i + 1}")] = begin[j]
                if i:
                    free[f"{name}_{i + 1}"] = (float(q.state_low[j]), float(q.state_high[j]))
            if q.final_time is not None:
                free[f"duration_{i + 1}"] = tuple(map(float, q.final_time))  # type: ignore[assignment]
                start[self.states.index(f"duration_{i + 1}")] = float(np.sqrt(np.prod(q.final_time)))
        return start, free

    def apart(self, found: Solution) -> PhasedSolution:
        """Every phase of a solution of `problem`, in its own units."""
        path, parts, begin = found.trajectory, [], 0.0
        for i in range(len(self.phases)):
            duration = float(self.duration(i, path.states[0]))
            times = begin + duration * path.times
            parts.append(Phase(times, self.state(i, path.states), self.control(i, path.controls)))
            begin += duration
        return PhasedSolution(tuple(parts), found)


def stacked(phases: Sequence[Problem], x0: np.ndarray, links: Sequence[Link | None] | None) -> tuple[Stack, np.ndarray]:
    """The stack of phases that fit together, and the start of the first; arguments as in `optctl.solvers.solve_phases`."""
    require(len(phases) > 0, "phases", "be at least one Problem", "is empty")
    shared: dict[str, float] = {}
    for i, phase in enumerate(phases):
        where = f"phases[{i}]"
        require(isinstance(phase, Problem), where, "be a Problem", f"is {phase!r}")
        require(not phase.discrete, where, "have `dynamics`", "has `transition`")
        require(phase.horizon == "finite", where, "have a finite horizon", "has an infinite one")
        for name, value in phase.params.items():
            require(shared.setdefault(name, value) == value, where, f"have `{name}` = {shared[name]}", f"has {value}")
    joints = len(phases) - 1
    links = [None] * joints if links is None else list(links)
    require(len(links) == joints, "links", f"have {joints} entries, one between neighbours", f"has {len(links)}")
    for i, link in enumerate(links):
        same = phases[i].n_x == phases[i + 1].n_x
        image = phases[i].x if link is None else _column(link(phases[i].x))
        does = "is None" if link is None else f"returns {image.numel()} rows"
        require(
            same if link is None else image.numel() == phases[i + 1].n_x,
            "links",
            f"map {phases[i].n_x} states to {phases[i + 1].n_x}",
            does,
        )
    start_of = np.asarray(x0, dtype=float)
    require(start_of.shape == (phases[0].n_x,), "x0", f"have shape ({phases[0].n_x},)", f"has shape {start_of.shape}")
    return Stack(phases, links), start_of
