"""A trained agent as a controller."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from optctl.interop.policies import PolicyController
from optctl.problem import Problem


class Policy(PolicyController):
    """An agent as a controller: observations → controls, deterministic, in physical units, batched."""

    def __init__(self, problem: Problem, agent: Any, name: str, seconds: float, run: Any = None) -> None:
        """`seconds`: what training took. `run`: the run that it comes from, with its learning curve."""

        def act(observations: np.ndarray) -> np.ndarray:
            tensor = torch.as_tensor(observations, dtype=agent.dtype, device=agent.device)
            return agent.act(tensor, explore=False).cpu().double().numpy()

        super().__init__(problem, act, name)
        self.agent, self.wall_time, self.run = agent, seconds, run
