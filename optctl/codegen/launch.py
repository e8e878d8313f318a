"""Launching a kernel over a batch: all cores of a CPU, or the current stream of a GPU.

Warp runs a CPU kernel on one thread but releases Python's lock meanwhile, so a large batch is cut into one range per thread. The
number of threads is torch's (`torch.set_num_threads`), never more than the cores this process may use.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import warp as wp

from optctl.codegen.cache import init_warp
from optctl.codegen.warp_source import Target
from optctl.errors import require

_single = 0  # how many are within `one_thread`, over all Python threads
_before = 1
_count_lock = threading.Lock()
_WORTH_A_THREAD = 1_000_000
"""Arithmetic operations below which waking another thread costs more than it saves (vectorised: about 50 µs)."""
_ALIGNMENT = 64
_GPU_THREADS = 32_768

WARP_DTYPE = {
    torch.float32: wp.float32,
    torch.float64: wp.float64,
    torch.int32: wp.int32,
    torch.bool: wp.bool,
    torch.int64: wp.uint64,
}
"""Tensors become arrays of these types (torch has no unsigned arithmetic: random keys travel as int64)."""


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="optctl")


os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked child has none of its parent's threads


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Within, torch works on one thread: on matrices as small as those of control problems a second costs more than it brings.

    The number is one for the whole process: where several threads are within, the first sets it and the last sets it back.
    """
    global _single, _before
    with _count_lock:
        if not _single:
            _before = torch.get_num_threads()
        _single += 1
        torch.set_num_threads(1)  # by each: OpenMP keeps the number for every thread
    try:
        yield
    finally:
        with _count_lock:
            _single -= 1
            torch.set_num_threads(1 if _single else _before)


def num_threads() -> int:
    """Threads that share a large batch on the CPU."""
    return min(torch.get_num_threads(), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 64)


def ranges(size: int, operations: int, threads: int, alignment: int = _ALIGNMENT) -> list[tuple[int, int]]:
    """Cut 0 … size into at most `threads` ranges (offset, length), each of them worth it at `operations` per index."""
    threads = min(threads, size * operations // _WORTH_A_THREAD)
    if threads < 2:
        return [(0, size)]
    length = -(-size // threads)
    length = -(-length // alignment) * alignment
    return [(start, min(length, size - start)) for start in range(0, size, length)]


def resolve_device(device: str | torch.device) -> torch.device:
    """The torch device of a name, with its index, checked to exist."""
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        chosen = None
    require(
        chosen is not None and chosen.type in ("cpu", "cuda"),
        "device",
        "be 'cpu', 'cuda' or 'cuda:<index>'",
        f"is {device!r}",
    )
    assert chosen is not None
    if chosen.type == "cuda":
        count = torch.cuda.device_count()
        index = chosen.index if chosen.index is not None else (torch.cuda.current_device() if count else 0)
        require(index < count, "device", "name a GPU that torch can use", f"is {device!r} and torch sees {count}")
        return torch.device("cuda", index)
    return torch.device("cpu")


def resolve_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """torch.float32 or torch.float64."""
    name = str(dtype).removeprefix("torch.")
    require(name in ("float32", "float64"), "dtype", "be 'float32' or 'float64'", f"is {dtype!r}")
    return getattr(torch, name)


def target(device: torch.device, dtype: torch.dtype) -> Target:
    """What source is generated for."""
    return Target(str(dtype).removeprefix("torch."), device.type)


def as_array(tensor: torch.Tensor) -> Any:
    """A flat Warp view of a contiguous tensor."""
    return wp.from_torch(tensor.detach().reshape(-1), dtype=WARP_DTYPE[tensor.dtype], requires_grad=False)


@functools.lru_cache(maxsize=64)
def _stream(handle: int, device: str) -> wp.Stream:
    return wp.Stream(device, cuda_stream=handle)


def current_stream(device: torch.device) -> wp.Stream:
    """Torch's current stream, as Warp knows it (also while torch captures a graph)."""
    return _stream(torch.cuda.current_stream(device).cuda_stream, str(device))


class RecordedLaunch:
    """One or more kernels with the same fixed arguments, replayed one after the other in a few microseconds each.

    Only the data pointer of the first argument may change. Tensors among `arguments` must be contiguous; the kernels' last
    argument is the offset. `widths`: the environments that one index of each kernel stands for (default 1). On a CPU each thread
    runs all kernels over its own range, so they may not exchange between ranges.
    """

    def __init__(
        self,
        kernels: Sequence[wp.Kernel],
        size: int,
        arguments: Sequence[Any],
        device: torch.device,
        operations: int,
        widths: Sequence[int] = (),
    ) -> None:
        init_warp()
        widths = widths or [1] * len(kernels)
        self.device = device
        alignment = max(_ALIGNMENT, *widths)
        parts = ranges(size, operations, num_threads(), alignment) if device.type == "cpu" else [(0, size)]
        self._keep = [a for a in arguments if isinstance(a, torch.Tensor)]
        converted = [as_array(a) if isinstance(a, torch.Tensor) else a for a in arguments]

        def record(kernel: wp.Kernel, width: int, start: int, length: int) -> wp.Launch:
            inputs = [*converted, start // width]
            return wp.launch(kernel, dim=-(-length // width), inputs=inputs, device=str(device), record_cmd=True)

        self._parts = [[record(*kernel, *part) for kernel in zip(kernels, widths, strict=True)] for part in parts]
        self._first = [launch.params[1] for part in self._parts for launch in part]  # descriptors read at each replay
        self._calls = [functools.partial(_replay, part) for part in self._parts]

    def __call__(self, first: torch.Tensor | None = None) -> None:
        """Replay, with `first` in place of the first argument (same type and size, contiguous)."""
        if first is not None:
            pointer = first.data_ptr()
            for descriptor in self._first:
                descriptor.data = pointer
        if self.device.type == "cuda":
            stream = current_stream(self.device)
            for launch in self._parts[0]:
                launch.launch(stream=stream)
        else:
            run_parts(self._calls)


def _replay(launches: Sequence[wp.Launch]) -> None:
    for launch in launches:
        launch.launch()


def run_parts(calls: Sequence[Any]) -> None:
    """Run calls on as many threads, the last on this one; errors are raised here."""
    others = [_pool(len(calls) - 1).submit(call) for call in calls[:-1]]
    calls[-1]()
    for future in others:
        future.result()


def launch(
    kernel: wp.Kernel,
    size: int,
    arguments: Sequence[Any],
    device: torch.device,
    operations: int,
    alignment: int = _ALIGNMENT,
) -> None:
    """Launch once over `size` environments (or tiles); the kernel's last argument, the offset, is added here."""
    converted = [as_array(a) if isinstance(a, torch.Tensor) else a for a in arguments]
    if device.type == "cuda":
        wp.launch(kernel, dim=size, inputs=[*converted, 0], device=str(device), stream=current_stream(device))
        return
    parts = ranges(size, operations, num_threads(), alignment)
    run_parts(
        [functools.partial(wp.launch, kernel, dim=n, inputs=[*converted, start], device="cpu") for start, n in parts]
    )


def sharing_threads(pieces: int, device: torch.device) -> int:
    """Threads that share so many pieces of work by `launch_shared`: at most one for each core of a CPU, or 32,768 on a GPU."""
    return max(1, min(pieces, num_threads() if device.type == "cpu" else _GPU_THREADS))


def launch_shared(kernel: wp.Kernel, threads: int, arguments: Sequence[Any], device: torch.device) -> None:
    """Launch `threads` threads, of which thread k does the pieces k, k + threads, … of a batch, however long each takes. The kernel's
    last arguments are added here: `threads`, and the offset of its thread number."""
    inputs = [*(as_array(a) if isinstance(a, torch.Tensor) else a for a in arguments), threads]
    if device.type == "cuda":
        wp.launch(kernel, dim=threads, inputs=[*inputs, 0], device=str(device), stream=current_stream(device))
        return
    run_parts([functools.partial(wp.launch, kernel, dim=1, inputs=[*inputs, k], device="cpu") for k in range(threads)])
