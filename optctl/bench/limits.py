"""What the device can do: its memory bandwidth and its peak of arithmetic, measured, for rates to be set against."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from optctl.codegen.cache import load_module
from optctl.codegen.cpp_source import module, vector_lanes
from optctl.codegen.launch import launch, num_threads, resolve_device, resolve_dtype, target

_SUMS, _ROUNDS = 24, 200_000
WEIGHTS = {"float32": {"sin": 90, "cos": 90, "tanh": 22}, "float64": {"sin": 45, "cos": 45, "tanh": 45}}
"""Operations of the functions on a CPU: those of the written-out text, a multiply-add and an operation in double as two each;
in float64, where libm is called, about as many as the same text would need."""


def best_seconds(call: Callable[[], object], device: torch.device, rounds: int = 50) -> float:
    """The shortest of some calls [s]."""
    best = float("inf")
    for _ in range(rounds):
        _wait(device)
        start = time.perf_counter()
        call()
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory_bandwidth(device: str | torch.device = "cpu", megabytes: int = 256) -> float:
    """Bytes per second read and written by copying an array larger than the caches."""
    device = resolve_device(device)
    source = torch.zeros(megabytes * 2**20, dtype=torch.uint8, device=device)
    sink = torch.empty_like(source)
    return 2 * source.numel() / best_seconds(lambda: sink.copy_(source), device, rounds=8)


def peak_operations(device: str | torch.device = "cpu", dtype: str | torch.dtype = "float32") -> float:
    """Operations per second of independent fused multiply-adds in registers, on all threads; each counts as two."""
    device, kind = resolve_device(device), target(resolve_device(device), resolve_dtype(dtype))
    lanes = vector_lanes(kind)
    vector = "typedef REAL vec;" if lanes == 1 else f"typedef REAL vec __attribute__((ext_vector_type({lanes})));"
    sums = [f"s{k}" for k in range(_SUMS)]
    begin = [f"vec {s} = (vec)(REAL({k}));" for k, s in enumerate(sums)]
    body = [
        vector,
        "const vec a = (vec)(factors.data[0]), b = (vec)(factors.data[1]);",
        *begin,
        f"for (wp::int32 k = 0; k < {_ROUNDS}; ++k) {{",
        *(f"{s} = muladd({s}, a, b);" for s in sums),
        "}",
        f"const vec total = {' + '.join(sums)};",
        f"result.data[tile_index] = {'total' if lanes == 1 else 'total[0]'};",
    ]
    array = f"wp.array(dtype=wp.{kind.dtype})"
    source = module(
        "peak", "peak of arithmetic", {"factors": array, "result": array, "num": "wp.int64"}, [], body, 1, kind
    )
    kernel = load_module(source, device)
    tiles = 2**17 if device.type == "cuda" else 4 * num_threads()
    factors = torch.tensor([0.999, 0.001], dtype=resolve_dtype(dtype), device=device)
    result = torch.empty(tiles, dtype=factors.dtype, device=device)
    work = 2 * _SUMS * _ROUNDS * lanes
    seconds = best_seconds(
        lambda: launch(kernel.peak, tiles, [factors, result, tiles], device, work, alignment=1), device
    )
    return tiles * work / seconds
