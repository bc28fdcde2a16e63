"""What a model weighs: on disk, compressed, and in the memory of the process that runs it.

MB are 10^6 bytes. Memory is the resident set as the operating system counts it, the runtimes' own allocations
included, which Python's view would miss. Left out: memory of GPUs, memory of child processes.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import psutil

from workbench.errors import ResourceError
from workbench.measure.cgroup import memory_left

_CHUNK = 2**20
#: At most this many chunks of one file are compressed, spread evenly over it.
_SAMPLED = 24


def size_mb(path: Path) -> float:
    """Size of a file, or of all files in a folder, in MB; a file with several names counts once.

    Links to files count as what they point to, as the hub's cache is made of them. Raises `ResourceError` where
    there is nothing.
    """
    return sum(file.stat().st_size for file in _files(path)) / 1e6


def compressed_mb(path: Path) -> float:
    """Size after deflate at its fastest level, in MB: what a zip or a container layer would take, and the only size
    that unstructured sparsity changes.

    Of a file over 24 MiB, 24 chunks of a MiB spread evenly over it are compressed and scaled up: an estimate in
    bounded time. Raises `ResourceError` where there is nothing.
    """
    return sum(_deflated(file) for file in _files(path)) / 1e6


def peak_mb() -> float:
    """The most resident memory this process has had, in MB, since it began or since `reset_peak`."""
    if (kilobytes := _status("VmHWM")) is not None:
        return kilobytes * 1024 / 1e6
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):
        return float(memory.peak_wset) / 1e6
    import resource

    # macOS counts in bytes, the BSDs in KiB.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def reset_peak() -> bool:
    """Let `peak_mb` count from now, for a process that runs one trial after another; False where the system cannot.

    Source: the kernel's `filesystems/proc`, `clear_refs`.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def resident_mb() -> float:
    """Resident memory of this process now, in MB."""
    return psutil.Process().memory_info().rss / 1e6


def available_mb() -> float:
    """Memory that can still be taken without swapping and within the container's limit, in MB."""
    free = psutil.virtual_memory().available
    left = memory_left()
    return (free if left is None else min(free, left)) / 1e6


def _files(path: Path) -> Iterator[Path]:
    """Every file below `path`, each inode once."""
    if not path.exists():
        raise ResourceError(f"There is nothing at {path}.", do="check the path; an artifact may have been deleted")
    seen = set()
    inside = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    for file in [path] if path.is_file() else sorted(inside):
        # A dangling link weighs nothing; a socket or a pipe has no size.
        if not file.is_file():
            continue
        stat = file.stat()
        if (stat.st_dev, stat.st_ino) not in seen:
            seen.add((stat.st_dev, stat.st_ino))
            yield file


def _deflated(file: Path) -> float:
    """Bytes of `file` after deflate, estimated from chunks where it is large."""
    size = file.stat().st_size
    chunks = -(-size // _CHUNK)
    chosen = range(chunks) if chunks <= _SAMPLED else [i * chunks // _SAMPLED for i in range(_SAMPLED)]
    read = packed = 0
    with file.open("rb") as stream:
        for index in chosen:
            stream.seek(index * _CHUNK)
            data = stream.read(_CHUNK)
            read += len(data)
            packed += len(zlib.compress(data, 1))
    return packed * size / read if read else 0.0


def _status(key: str) -> int | None:
    """A field of Linux's `/proc/self/status` in KiB, or None elsewhere."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), None)
