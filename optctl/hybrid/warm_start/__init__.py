"""The warm start: an agent that begins as a clone of optimal trajectories, with a critic that fits it."""

from optctl.hybrid.warm_start.config import WarmStartConfig
from optctl.hybrid.warm_start.preparation import WarmStart, demonstrate

__all__ = ["WarmStart", "WarmStartConfig", "demonstrate"]
