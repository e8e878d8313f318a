"""From a problem and an agent's name to a trained policy: runs, their settings and loops, checkpoints."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "Policy": "optctl.training.policy",
    "TrainConfig": "optctl.training.config",
    "TrainingRun": "optctl.training.run",
    "load_agent": "optctl.training.run",
    "train": "optctl.training.run",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'optctl.training' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
