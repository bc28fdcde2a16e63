"""Things that were only in memory, written once into the cache under the hash of what they are.

A task is carried to other processes, so it holds paths. Equal content gets an equal path, so nothing is written
twice and two notebooks agree. Left out: cleaning up; the cache may be deleted at any time.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from workbench.errors import ResourceError
from workbench.loading.hashing import hash_files
from workbench.paths import cache_dir


def keep(kind: str, write: Callable[[Path], None]) -> Path:
    """Let `write` fill an empty folder and move it to `cache/kind/<hash of its files>`; nothing half-written stays.

    Raises `ResourceError` for a full disk or a missing permission.
    """
    base = cache(kind)
    try:
        with tempfile.TemporaryDirectory(dir=base, prefix=".new-", ignore_cleanup_errors=True) as temporary:
            folder = Path(temporary) / "content"
            folder.mkdir()
            write(folder)
            target = base / hash_files(path for path in folder.rglob("*") if path.is_file())[:16]
            settle(folder, target)
    except OSError as error:
        raise disk_error(error, kind) from error
    return target


def cache(*parts: str) -> Path:
    """`paths.cache_dir`, with a `ResourceError` where it cannot be made."""
    try:
        return cache_dir(*parts)
    except OSError as error:
        raise disk_error(error, "the cache") from error


def settle(folder: Path, target: Path) -> None:
    """Rename a finished folder; another process may have been faster with the same content."""
    try:
        os.rename(folder, target)
    except OSError:
        if not target.is_dir():
            raise


def disk_error(error: OSError, what: str) -> ResourceError:
    """The error for a disk that is full or a folder that may not be written."""
    where = error.filename or os.environ.get("WORKBENCH_CACHE") or "the cache folder"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceError(
            f"The disk is full: {what} could not be written to {where}.",
            do="free some space, or name another folder in the environment variable WORKBENCH_CACHE",
        )
    return ResourceError(
        f"{what} could not be written: {error.strerror or error} ({where}).",
        do="check the permissions, or name another folder in the environment variable WORKBENCH_CACHE",
    )
