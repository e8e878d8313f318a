"""Writing files so that nothing is ever half-written: a reader sees the old content or the new, whole."""

from __future__ import annotations

import errno
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from optctl.errors import FileError

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "folder {folder} is read-only",
    errno.EACCES: "folder {folder} is read-only",
    errno.EPERM: "folder {folder} is read-only",
    errno.ENOENT: "folder {folder} does not exist",
    errno.ENOTDIR: "{folder} is not a folder",
}


def file_error(path: Path, error: OSError, what: str = "File") -> FileError:
    """The sentence for an `OSError` met while writing `path`."""
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error)).format(folder=path.parent)
    return FileError(f"{what} {path} cannot be written: {reason}.")


def write_atomically(path: Path, data: bytes, what: str = "File") -> None:
    """Write `.NAME.tmp` beside `path`, flush it to the disk, rename it over `path` and flush the folder.

    Killed at any moment, this leaves the old or the new file. One writer per path.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise file_error(path, error, what) from error
        raise


def check_writable(folder: Path, what: str = "Folder") -> None:
    """Create `folder` and write into it once, so that long work does not fail at its end."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)
            file.flush()
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error)).format(folder=folder)
        raise FileError(f"{what} {folder} cannot be written: {reason}.") from error
