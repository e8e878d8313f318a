"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path


def machine() -> dict[str, str]:
    """Where it ran: processor, cores, system, and the versions that matter."""
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), processor)
    except OSError:
        pass
    found = {"processor": processor, "cores": str(os.cpu_count()), "system": platform.platform(terse=True)}
    found["python"] = platform.python_version()
    for package in ("optctl", "numpy", "scipy", "casadi", "torch", "warp-lang", "matplotlib"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
