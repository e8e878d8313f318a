"""How long a problem takes to become an environment: generated, compiled and stepped once, with an empty cache and with a full one."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

from optctl import Fixed, Problem
from optctl.envs import make
from optctl.simulation import make_vec


def compile_times(names: Sequence[str]) -> Iterator[tuple[str, float, float]]:
    """(name, seconds with an empty cache, seconds from the cache) for problems of the catalogue, in fresh processes.

    Starting Warp, which happens once a process, is not counted, nor is its precompiled header, which is made once, nor the
    collection of what the problems before have left.
    """
    with tempfile.TemporaryDirectory(prefix="optctl-") as folder:
        runs = [_child(names, folder) for _ in range(2)]
        for (name, cold), (_, cached) in zip(*runs, strict=True):
            yield name, cold, cached


def _child(names: Sequence[str], folder: str) -> list[tuple[str, float]]:
    environment = {k: v for k, v in os.environ.items() if k != "WARP_CACHE_PATH"} | {"OPTCTL_CACHE_DIR": folder}
    command = [sys.executable, "-m", "optctl.bench.compile_times", *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]  # type: ignore[misc]


def _measure(names: Sequence[str]) -> None:
    def seconds(problem: Problem) -> float:
        gc.collect()
        began = time.perf_counter()
        make_vec(problem, 1).reset(seed=0)
        return time.perf_counter() - began

    seconds(
        Problem(
            name="nothing",
            state=["x"],
            control=["u"],
            transition=lambda x, u, p: x,
            stage_cost=lambda x, u, p: 0 * x[0],
            initial_state=Fixed([0.0]),
            dt=1.0,
            steps=1,
        )
    )
    for name in names:
        print(json.dumps([name, seconds(make(name))]), flush=True)


if __name__ == "__main__":
    _measure(sys.argv[1:])
