"""Checkpoints: nested state in one safetensors file, no pickle, written atomically.

The tensors are the file's tensors, named by their path ("agent/actor"); the numbers and strings of the state, the caller's metadata
and a checksum are JSON in its header. A save writes `.NAME.tmp` in the same folder, flushes it to the disk, renames it over
the old file and flushes the folder: killed at any moment, it leaves the old or the new file, whole. One writer per path.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from optctl.errors import FileError
from optctl.files import write_atomically

FORMAT, VERSION = "optctl-checkpoint", 1

State = Mapping[str, Any]  # nested: tensors, int, float, bool, str, None, and dicts of them


class CheckpointError(FileError):
    """A checkpoint cannot be written or read; the message is one sentence for the user."""


def save(path: str | os.PathLike, state: State, metadata: Mapping[str, Any] | None = None) -> None:
    """Write `state` to `path`, replacing what is there in one step.

    state: nested dicts with string keys (without "/") of tensors, numbers, strings, booleans and None.
    metadata: JSON, for whoever reads the file: the problem's name, configurations, versions.
    Raises CheckpointError when the disk is full or the folder is missing or read-only; what was at `path` is then still there.
    """
    path = Path(path)
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    _flatten(state, "", tensors, plain)
    header = {
        "format": FORMAT,
        "version": str(VERSION),
        "state": json.dumps(plain),
        "metadata": json.dumps(dict(metadata or {})),
        "checksum": str(_checksum(tensors)),
    }
    try:
        write_atomically(path, safetensors.torch.save(tensors, header), "Checkpoint")
    except FileError as error:
        raise CheckpointError(*error.args) from error.__cause__


def load(
    path: str | os.PathLike, *, expect: Mapping[str, Any] | None = None, device: torch.device | str = "cpu"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what `save` wrote: (state, metadata), tensors on `device`.

    expect: entries that the metadata must have, such as {"problem": "pendulum-v1"}.
    Raises CheckpointError when the file is missing, damaged, not a checkpoint, of another version, or not what is expected.
    """
    path = Path(path)
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise CheckpointError(f"File {path} is a safetensors file, but not a checkpoint of optctl.")
            if header.get("version") != str(VERSION):
                raise CheckpointError(
                    f"Checkpoint {path} has format version {header.get('version')}, but this version of optctl reads {VERSION}."
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            plain, metadata = json.loads(header["state"]), json.loads(header["metadata"])
            intact = header["checksum"] == str(_checksum(tensors))
    except FileNotFoundError:
        raise CheckpointError(f"Checkpoint {path} does not exist.") from None
    except OSError as error:
        raise CheckpointError(f"Checkpoint {path} cannot be read: {error.strerror or error}.") from error
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"File {path} is damaged or not a checkpoint of optctl ({error}).") from error
    if not intact:
        raise CheckpointError(f"Checkpoint {path} is damaged: its checksum does not match its content.")
    for name, value in (expect or {}).items():
        if metadata.get(name) != value:
            raise CheckpointError(
                f"Checkpoint {path} was made with {name} {metadata.get(name)!r}, but {value!r} is expected."
            )
    return _unflatten({**plain, **{name: tensor.to(device) for name, tensor in tensors.items()}}), metadata


def _flatten(state: State, prefix: str, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
    for key, value in state.items():
        if not isinstance(key, str) or "/" in key or not key:
            raise TypeError(
                f"Argument `state` must have non-empty string keys without '/', but has {key!r} in {prefix!r}."
            )
        name = prefix + key
        if isinstance(value, Tensor):
            tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        elif isinstance(value, Mapping) and value:
            _flatten(value, name + "/", tensors, plain)
        elif value is None or isinstance(value, bool | int | float | str) or value == {}:
            plain[name] = value
        else:
            raise TypeError(
                f"Argument `state` must hold tensors, numbers, strings and dicts, but {name!r} is a {type(value).__name__}."
            )


def _unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    state: dict[str, Any] = {}
    for name, value in flat.items():
        *folders, key = name.split("/")
        inner = state
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[key] = value
    return state


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    """CRC-32 over the names and bytes of all tensors, in the order of their names."""
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(name.encode(), total)
        total = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, total)
    return total
