"""Reads a study's scans from a thread of its own, about once a second for as long as rows come.

What was read of each scan is kept, so a scan of many rows is read again only where it grew. Left out: ordering scans.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pandas as pd

#: States of a scan in which rows still come.
COMING = ("waiting", "running")

Row = dict[str, Any]


class ScanReader:
    """`show(rows, status)` gets the scans as `Study.scans()` lists them and the study's status; `wrong` an error.

    `frames` are the scans' rows by id. `busy` says whether an order is under way whose scan may not be listed yet.
    """

    def __init__(
        self,
        show: Callable[[list[Row], Any], None],
        wrong: Callable[[Exception], None],
        busy: Callable[[], bool],
        seconds: float = 1.0,
    ) -> None:
        self.show, self.wrong, self.busy, self.seconds = show, wrong, busy, seconds
        self.study: Any = None
        self.frames: dict[str, pd.DataFrame] = {}
        self._marks: dict[str, Any] = {}
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._reading = False

    def turn_to(self, study: Any) -> None:
        """Another study, or none: what was read of the old one is dropped."""
        self.study, self.frames, self._marks = study, {}, {}
        if study is not None:
            self.refresh()

    def refresh(self) -> None:
        """Read now, and go on while rows come."""
        with self._lock:
            self._wake.set()
            if not self._reading:
                self._reading = True
                self._thread = threading.Thread(target=self._run, name="workbench-scans", daemon=True)
                self._thread.start()

    def settle(self, seconds: float = 60.0) -> None:
        """Wait until nothing comes any more (for scripts and tests)."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            self._wake.clear()
            coming = False
            try:
                coming = self.study is not None and self._read(self.study)
            except Exception as error:  # noqa: BLE001 - whatever it is, the person who looks has to see it
                self.wrong(error)
            with self._lock:
                if not coming and not self.busy() and not self._wake.is_set():
                    self._reading = False
                    return
            self._wake.wait(self.seconds)

    def _read(self, study: Any) -> bool:
        """Read once; whether rows still come."""
        found = [row for row in study.scans().to_dict("records") if row["kind"] == "scan"]
        frames, marks = dict(self.frames), dict(self._marks)
        for row in found:
            mark = (row["state"], row["rows"])
            if row["rows"] and marks.get(row["id"]) != mark:
                frames[row["id"]], marks[row["id"]] = study.scanned(row["id"]), mark
        status = study.status()
        if study is not self.study:
            return False
        self.frames, self._marks = frames, marks
        self.show(found, status)
        return any(row["state"] in COMING for row in found)
