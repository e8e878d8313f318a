"""Where episodes start: `Uniform`, `Normal` and `Fixed` initial states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from optctl.errors import ProblemError, require


class InitialState:
    """x0 = location + spread * z, with z uniform on [0, 1) or standard normal: the plain data that kernels read."""

    kind: Literal["uniform", "normal"]

    @property
    def location(self) -> np.ndarray:
        raise NotImplementedError

    @property
    def spread(self) -> np.ndarray:
        raise NotImplementedError

    def sample(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """`num` initial states, shape (num, n_x)."""
        shape = (num, len(self.location))
        z = rng.random(shape) if self.kind == "uniform" else rng.standard_normal(shape)
        return self.location + self.spread * z

    def midpoints(self, counts: Sequence[int]) -> np.ndarray:
        """The midpoint rule over a uniform distribution: a grid of cell centres, shape (∏ counts, n_x)."""
        require(self.kind == "uniform", "initial_state", "be uniform for a midpoint grid", f"is {self.kind}")
        require(len(counts) == len(self.location), "counts", f"have {len(self.location)} entries", f"has {len(counts)}")
        axes = [a + s * (np.arange(n) + 0.5) / n for a, s, n in zip(self.location, self.spread, counts, strict=True)]
        return np.stack([grid.ravel() for grid in np.meshgrid(*axes, indexing="ij")], axis=-1)


def _vector(value: Any, argument: str) -> np.ndarray:
    try:
        array = np.atleast_1d(np.asarray(value, dtype=np.float64))
    except (TypeError, ValueError):
        raise ProblemError(f"Argument `{argument}` must be a vector of numbers, but is {value!r}.") from None
    require(array.ndim == 1, argument, "be a vector", f"has shape {array.shape}")
    require(bool(np.isfinite(array).all()), argument, "be finite", f"is {array.tolist()}")
    return array


@dataclass(frozen=True)
class Uniform(InitialState):
    """Independent uniform entries between `low` and `high`."""

    low: Any
    high: Any
    kind = "uniform"

    def __post_init__(self) -> None:
        low, high = _vector(self.low, "low"), _vector(self.high, "high")
        require(low.shape == high.shape, "high", f"have shape {low.shape} like `low`", f"has shape {high.shape}")
        require(bool((low <= high).all()), "low", "not exceed `high`", f"is {low.tolist()} with high {high.tolist()}")

    @property
    def location(self) -> np.ndarray:
        return _vector(self.low, "low")

    @property
    def spread(self) -> np.ndarray:
        return _vector(self.high, "high") - self.location


@dataclass(frozen=True)
class Normal(InitialState):
    """Independent normal entries with `mean` and standard deviation `std`."""

    mean: Any
    std: Any
    kind = "normal"

    def __post_init__(self) -> None:
        mean, std = _vector(self.mean, "mean"), _vector(self.std, "std")
        require(mean.shape == std.shape, "std", f"have shape {mean.shape} like `mean`", f"has shape {std.shape}")
        require(bool((std >= 0).all()), "std", "not be negative", f"is {std.tolist()}")

    @property
    def location(self) -> np.ndarray:
        return _vector(self.mean, "mean")

    @property
    def spread(self) -> np.ndarray:
        return _vector(self.std, "std")


@dataclass(frozen=True)
class Fixed(InitialState):
    """Always the same initial state."""

    value: Any
    kind = "uniform"

    def __post_init__(self) -> None:
        _vector(self.value, "value")

    @property
    def location(self) -> np.ndarray:
        return _vector(self.value, "value")

    @property
    def spread(self) -> np.ndarray:
        return np.zeros_like(self.location)
