"""Generated source as importable modules in a cache folder, addressed by their content.

The file name is a hash of the source, of the generator's and of Warp's version, so a file is never changed once written and two
processes that want the same module write the same bytes. Files are written under a private name and renamed, which is atomic.
Warp keeps the compiled kernels in a cache of its own under the same folder; the module's name and content are the key, so a
second process compiles nothing.

The folder is `OPTCTL_CACHE_DIR`, else `~/.cache/optctl` (`XDG_CACHE_HOME` respected). A folder that cannot be written is
replaced, with a warning, by a temporary one.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import warp as wp

from optctl.codegen.warp_source import GENERATOR_VERSION
from optctl.shared import TURN, in_turn


@functools.cache
def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        fallback = Path(tempfile.mkdtemp(prefix="optctl-"))
        warnings.warn(
            f"The cache folder {folder} cannot be written ({error.strerror}); compiled kernels go to {fallback} and are "
            "lost with it. Set OPTCTL_CACHE_DIR to a folder that can.",
            stacklevel=2,
        )
        return fallback
    return folder


def cache_dir() -> Path:
    """The folder of generated modules and compiled kernels; created when missing."""
    chosen = os.environ.get("OPTCTL_CACHE_DIR")
    if chosen:
        return _writable(Path(chosen).expanduser())
    base = os.environ.get("XDG_CACHE_HOME")
    return _writable((Path(base) if base else Path.home() / ".cache") / "optctl")


@functools.cache
def init_warp() -> None:
    """Initialise Warp quietly, with its kernel cache beside the generated modules unless the user has chosen one."""
    if wp.config.kernel_cache_dir is None and "WARP_CACHE_PATH" not in os.environ:
        wp.config.kernel_cache_dir = str(cache_dir() / "kernels")
    wp.config.log_level = max(wp.config.log_level, wp.LOG_WARNING)
    with TURN, contextlib.nullcontext() if _has_cuda_driver() else _silent_stderr():
        wp.init()


def _has_cuda_driver() -> bool:
    for name in ("libcuda.so", "libcuda.so.1", "nvcuda.dll"):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Warp's library reports from C, and at every start, that a machine without a GPU has none."""
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def module_name(source: str) -> str:
    """`optctl_` and 20 hexadecimal digits of the hash of the source and of what else decides its meaning."""
    text = f"optctl {GENERATOR_VERSION}, warp {wp.__version__}\n{source}"
    return f"optctl_{hashlib.sha256(text.encode()).hexdigest()[:20]}"


@in_turn
def load_module(
    source: str, device: Any = None, options: Mapping[str, Any] | None = None, block_dim: int | None = None
) -> ModuleType:
    """The imported module with this source; written to the cache first where it is missing.

    With a `device` (a torch device or its name) its kernels are compiled for it, by Warp's module `options` and `block_dim`, and loaded:
    a launch would otherwise do so in whatever thread comes first.
    """
    init_warp()
    name = module_name(source)
    module = sys.modules.get(name) or _imported(name, source)
    if device is not None:
        if options:
            wp.set_module_options(dict(options), module)
        wp.load_module(module, device=str(device), block_dim=block_dim)
    return module


def _imported(name: str, source: str) -> ModuleType:
    path = cache_dir() / f"{name}.py"
    if not _holds(path, source):
        write_atomically(path, source)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Warp finds a kernel's module by name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _holds(path: Path, source: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == source
    except (OSError, UnicodeDecodeError):
        return False


def write_atomically(path: Path, text: str) -> None:
    """Write a file under a private name in the same folder and rename it: readers see all of it or nothing."""
    handle, private = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(private, path)
    except BaseException:
        Path(private).unlink(missing_ok=True)
        raise
