"""How much a process has used, and whether that is too much: what a loaded machine does not change."""

from __future__ import annotations

import os
import time
from pathlib import Path

PATIENCE = 10.0
"""Wall time beside the CPU-seconds allowed that no load explains: the process waits for something."""


class Allowance:
    """CPU-seconds for what a process does from now on."""

    def __init__(self, pid: int | None, seconds: float) -> None:
        self.pid, self.seconds = pid, seconds
        self.since, self.used = time.monotonic(), self._clock()

    def _clock(self) -> float:
        """CPU-seconds of the process and of its children that have ended; the time of day where the system does not tell."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
            return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
        except (OSError, AttributeError):
            return time.monotonic()

    @property
    def spent(self) -> bool:
        waited = time.monotonic() - self.since
        return self._clock() - self.used > self.seconds or waited > PATIENCE * self.seconds
