"""Who runs a trial: one process on one machine, told apart from a later process that got the same number."""

from __future__ import annotations

import os
import socket
import time
import uuid
from dataclasses import asdict, dataclass
from typing import Any, Self

#: A runner on another machine is taken for dead after this many seconds without a heartbeat.
SILENCE = 120.0


@dataclass(frozen=True)
class Owner:
    """A process: `id` is unique, `started` is the process's start time in seconds since the epoch."""

    id: str
    host: str
    pid: int
    started: float

    @classmethod
    def me(cls) -> Self:
        """This process."""
        import psutil

        return cls(uuid.uuid4().hex[:12], socket.gethostname(), os.getpid(), psutil.Process().create_time())

    def alive(self, heartbeat: float | None = None) -> bool:
        """Whether the process still runs; for another machine, whether its last `heartbeat` is recent."""
        if self.host != socket.gethostname():
            return heartbeat is not None and time.time() - heartbeat < SILENCE
        return is_alive(self.pid, self.started)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The owner that `to_json` wrote."""
        return cls(**data)


def is_alive(pid: int, started: float | None = None) -> bool:
    """Whether process `pid` (started at `started`) runs on this machine and is not a zombie."""
    import psutil

    try:
        process = psutil.Process(pid)
        same = started is None or abs(process.create_time() - started) < 1.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
