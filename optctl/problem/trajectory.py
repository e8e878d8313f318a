"""`Trajectory`: what solvers, learning and comparison exchange, in numpy float64.

Axes: any batch axes first, time second, features last. T controls, T + 1 states; `costs[..., k]` pays for leaving
`states[..., k, :]`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from optctl.errors import require


@dataclass(frozen=True, eq=False)
class Trajectory:
    """States [units of the problem], controls, cost of each step, and where known the costates λ = ∂J*/∂x, NaN where they are not:
    before an instant at which the trajectory is no extremal, V_x is no gradient of the optimal cost."""

    times: np.ndarray
    """(T + 1,) or (*batch, T + 1) [s]."""
    states: np.ndarray
    """(*batch, T + 1, n_x)."""
    controls: np.ndarray
    """(*batch, T, n_u)."""
    costs: np.ndarray
    """(*batch, T)."""
    terminal_cost: np.ndarray
    """(*batch,)."""
    costates: np.ndarray | None = None
    """(*batch, T + 1, n_x); a row of NaN is not given."""

    def __post_init__(self) -> None:
        for field in ("times", "states", "controls", "costs", "terminal_cost", "costates"):
            value = getattr(self, field)
            if value is not None:
                object.__setattr__(self, field, np.asarray(value, dtype=np.float64))
        *batch, length, _ = self.states.shape
        expected = {
            "controls": (*batch, length - 1, self.controls.shape[-1]),
            "costs": (*batch, length - 1),
            "terminal_cost": tuple(batch),
        }
        if self.costates is not None:
            expected["costates"] = self.states.shape
        for field, shape in expected.items():
            actual = getattr(self, field).shape
            require(actual == shape, field, f"have shape {shape}", f"has shape {actual}")
        require(
            self.times.shape in ((length,), (*batch, length)),
            "times",
            f"have shape ({length},)",
            f"has shape {self.times.shape}",
        )

    @property
    def total_cost(self) -> np.ndarray:
        """Σ costs + terminal cost, shape (*batch,)."""
        return self.costs.sum(axis=-1) + self.terminal_cost

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self.states.shape[:-2]

    def __getitem__(self, index: int | slice | np.ndarray) -> Trajectory:
        """Some members of the batch."""
        require(len(self.batch_shape) > 0, "index", "address a batched trajectory", "this trajectory has no batch axis")
        return Trajectory(
            times=self.times if self.times.ndim == 1 else self.times[index],
            states=self.states[index],
            controls=self.controls[index],
            costs=self.costs[index],
            terminal_cost=self.terminal_cost[index],
            costates=None if self.costates is None else self.costates[index],
        )

    @staticmethod
    def stack(members: list[Trajectory]) -> Trajectory:
        """Equal-length trajectories → one with a leading batch axis."""
        require(len(members) > 0, "members", "hold at least one trajectory", "is empty")
        shared = all(np.array_equal(m.times, members[0].times) for m in members)
        costates = [m.costates for m in members]
        return Trajectory(
            times=members[0].times if shared else np.stack([m.times for m in members]),
            states=np.stack([m.states for m in members]),
            controls=np.stack([m.controls for m in members]),
            costs=np.stack([m.costs for m in members]),
            terminal_cost=np.stack([m.terminal_cost for m in members]),
            costates=None if any(c is None for c in costates) else np.stack(costates),  # type: ignore[arg-type]
        )
