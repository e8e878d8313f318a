"""Running normalisation of observations.

Moments are pooled batch by batch (Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance", equation 2.1b) in
float64, because a sum of squares in float32 loses a slow state beside a large constant. Between two calls of `update` the
normalisation is frozen: everything sampled in one burst of gradient steps sees the same one.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Normalizer:
    """y = clamp((x - mean) / max(std, floor), -limit, limit) with the mean and standard deviation of everything seen.

    A column that never changes has std 0 and gives y = 0, not an amplified rounding error: its scale is 1. `dim` columns; the
    output has the dtype of the input. `enabled=False` makes it the identity, with the same state.
    """

    def __init__(self, dim: int, *, enabled: bool = True, limit: float = 10.0, device: torch.device | str = "cpu"):
        self.enabled, self.limit, self.frozen = enabled, limit, False
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.mean = torch.zeros(dim, dtype=torch.float64, device=device)
        self.squares = torch.zeros(dim, dtype=torch.float64, device=device)  # sum of squared deviations from the mean
        self._shift = torch.zeros(dim, dtype=torch.float64, device=device)
        self._scale = torch.ones(dim, dtype=torch.float64, device=device)

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Pool the moments of a batch (batch, dim)."""
        if not self.enabled or self.frozen:
            return
        x = x.to(torch.float64)
        batch = x.shape[0]
        total = self.count + batch
        variance, mean = torch.var_mean(x, 0, correction=0)
        delta = mean - self.mean
        self.squares.add_(variance, alpha=batch).add_(delta.square() * (self.count * batch / total))
        self.mean.add_(delta * (batch / total))
        self.count.copy_(total)
        self._refresh()

    def freeze(self) -> None:
        """Ignore every later `update`: a policy that was cloned under this normalisation keeps its meaning."""
        self.frozen = True

    def _refresh(self) -> None:
        std = (self.squares / self.count.clamp(min=1)).sqrt()
        constant = std <= 1e-6 * self.mean.abs().clamp(min=1e-2)
        self._scale.copy_(torch.where(constant, 1.0, 1 / std))
        self._shift.copy_(-self.mean * self._scale)

    @property
    def std(self) -> Tensor:
        """(dim,): what deviations from the mean are divided by."""
        return 1 / self._scale

    def __call__(self, x: Tensor) -> Tensor:
        """(…, dim) -> (…, dim)."""
        if not self.enabled:
            return x
        return torch.addcmul(self._shift.to(x.dtype), x, self._scale.to(x.dtype)).clamp_(-self.limit, self.limit)

    def state_dict(self) -> dict[str, Tensor]:
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, value in self.state_dict().items():
            value.copy_(state[name])
        self._refresh()
