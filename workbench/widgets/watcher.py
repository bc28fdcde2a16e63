"""Looks at a study once a second from a thread of its own, and hands over what changed.

Reading the store never runs in the kernel's main thread, which stays free for a person's cells; the receiver only
assigns traits. Left out: being told by the store; SQLite has no such thing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from workbench.study import Study


@dataclass(frozen=True)
class Snapshot:
    """A study as it stood at one moment; `error` is why it could not be read. `examples` are measured,
    by `metric`, once a runner has prepared the data."""

    name: str
    frame: pd.DataFrame
    status: Any
    goal: Any
    refused: list[dict[str, Any]]
    notes: list[str]
    error: Exception | None = None
    examples: int = 0
    metric: str = ""


def snapshot(study: Study) -> Snapshot:
    """Everything that is shown of a study; raises what reading it raises."""
    prepared = study.prepared
    about = {"examples": prepared.get("sizes", {}).get("select", 0), "metric": prepared.get("metric", "")}
    return Snapshot(study.name, study.frame(), study.status(), study.goal, study.refused(), study.notes, **about)


class Watcher:
    """Calls `show(snapshot)` about once in `seconds`, from one daemon thread, while there is a study."""

    def __init__(self, show: Callable[[Snapshot], None], seconds: float = 1.0) -> None:
        self.show, self.seconds = show, seconds
        self.study: Study | None = None
        self._wake, self._ended = threading.Event(), threading.Event()
        self._one_at_a_time = threading.RLock()
        self._thread = threading.Thread(target=self._run, name="workbench-watcher", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        self._wake.set()

    def poke(self) -> None:
        """Look again now."""
        self._wake.set()

    def look(self) -> None:
        """Read and show once, in the calling thread."""
        with self._one_at_a_time:
            study = self.study
            if study is None:
                return
            try:
                seen = snapshot(study)
            # A store that is locked for a moment is read again; until then the page says so, and it goes on watching.
            except Exception as error:  # noqa: BLE001
                seen = Snapshot(study.name, pd.DataFrame(), None, None, [], [], error)
            if study is self.study:
                self.show(seen)

    def _run(self) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            self.look()
            # A study of thousands of trials takes long to read: at most a sixth of the time goes into it.
            self._wake.wait(max(self.seconds, 5 * (time.monotonic() - began)))
            self._wake.clear()
