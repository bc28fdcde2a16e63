"""A container's limits: how many processors and how much memory its control group allows.

Versions 1 and 2 of Linux's cgroups; every group from the process's own up to the root is asked, and the tightest
limit holds. Source: the kernel's `admin-guide/cgroup-v2` and `cgroup-v1`. Elsewhere there is no limit to read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

#: Version 1 writes "no limit" as a number near 2^63.
_NO_LIMIT = 2**60


def cpu_limit(root: Path = Path("/")) -> float | None:
    """Processors that the quota allows, such as 1.5, or None without one."""
    shares = []
    for group in _groups(root, "cpu"):
        period = _number(group / "cpu.cfs_period_us")
        quota = _number(group / "cpu.cfs_quota_us")
        if (group / "cpu.max").exists():
            first, second = (group / "cpu.max").read_text().split()
            quota, period = None if first == "max" else float(first), float(second)
        if quota is not None and quota > 0 and period:
            shares.append(quota / period)
    return min(shares, default=None)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Bytes of memory allowed, or None without a limit."""
    limits = [_limit(group) for group in _groups(root, "memory")]
    return min((limit for limit in limits if limit is not None), default=None)


def memory_left(root: Path = Path("/")) -> int | None:
    """Bytes that may still be taken before a limit, files' caches that can be dropped counted as free; None without
    a limit."""
    left = []
    for group in _groups(root, "memory"):
        used = _number(group / "memory.current") or _number(group / "memory.usage_in_bytes")
        if (limit := _limit(group)) is not None and used is not None:
            left.append(max(0, limit - int(used) + _droppable(group)))
    return min(left, default=None)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's groups for `controller`, innermost first."""
    lines = root / "proc" / "self" / "cgroup"
    if not lines.exists():
        return
    for line in lines.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        # Inside a container the path may be the host's; its last existing ancestor is the container's own group.
        mount = root / "sys" / "fs" / "cgroup" / controllers
        inner = mount / path.lstrip("/")
        yield from (folder for folder in (inner, *inner.parents) if folder.is_dir() and folder.is_relative_to(mount))


def _limit(group: Path) -> int | None:
    limit = _number(group / "memory.max")
    limit = _number(group / "memory.limit_in_bytes") if limit is None else limit
    return int(limit) if limit is not None and limit < _NO_LIMIT else None


def _droppable(group: Path) -> int:
    """Bytes of file cache not used of late, which the kernel drops before it kills."""
    stat = group / "memory.stat"
    lines = stat.read_text().splitlines() if stat.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)


def _number(file: Path) -> float | None:
    """The number in `file`; None where there is no such file or it says `max`."""
    try:
        return float(file.read_text())
    except (OSError, ValueError):
        return None
