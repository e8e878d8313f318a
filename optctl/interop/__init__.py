"""Bridges to other libraries, one file each. Nothing is loaded, nor needs to be installed, before it is used.

Problems from elsewhere: `from_function` (plain Python with numpy), `from_sympy`, `from_state_space` (scipy.signal, python-control),
`from_qutip`; and back: `to_scipy`, `to_control`, `to_qutip`, `to_qobj`. Policies from elsewhere: `from_policy`. Environments for
elsewhere: `GymEnv`, `GymVectorEnv` (their ids: `optctl.gym`), `optctl.interop.pettingzoo.ParallelEnv`,
`optctl.interop.torchrl.TorchRLEnv`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "GymEnv": "optctl.interop.gymnasium",
    "GymVectorEnv": "optctl.interop.gymnasium",
    "from_function": "optctl.interop.functions",
    "from_policy": "optctl.interop.policies",
    "from_qutip": "optctl.interop.qutip",
    "from_state_space": "optctl.interop.linear",
    "from_sympy": "optctl.interop.symbolic",
    "to_control": "optctl.interop.linear",
    "to_qobj": "optctl.interop.qutip",
    "to_qutip": "optctl.interop.qutip",
    "to_scipy": "optctl.interop.linear",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'optctl.interop' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
