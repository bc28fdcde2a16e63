"""One trial at a time on a machine: nothing else of ours runs while something is timed.

The lock is the operating system's, so it is free again the moment its holder dies.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


def machine_lock() -> FileLock:
    """The lock that every runner of this user on this machine shares."""
    return FileLock(str(Path(tempfile.gettempdir()) / f"workbench-{os.getuid()}.lock"), thread_local=False)


@contextmanager
def exclusive(watch: Callable[[], None]) -> Iterator[None]:
    """Hold the machine; `watch` is called while waiting, and may raise to give up."""
    lock = machine_lock()
    while True:
        watch()
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            time.sleep(0.25)
    try:
        yield
    finally:
        lock.release()
