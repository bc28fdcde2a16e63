"""Work that would hold the page up, off the main thread: the newest request wins.

A person who types sends a request with each letter; `wait` lets the typing end, and an answer that was overtaken is
dropped. What is shown is assigned from the thread, which traits allow. Left out: cancelling what has begun.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any


class Background:
    """`do(work, show, wrong)`: `show` gets what `work` returns, `wrong` the exception that it raises."""

    def __init__(self, name: str = "look") -> None:
        self.name = f"workbench-{name}"
        self._lock, self._newest = threading.RLock(), 0
        self._threads: list[threading.Thread] = []

    @property
    def busy(self) -> bool:
        """Whether the newest request is still at work."""
        return any(thread.is_alive() for thread in self._threads)

    def do(
        self,
        work: Callable[[], Any],
        show: Callable[[Any], None],
        wrong: Callable[[Exception], None],
        *,
        wait: float = 0.0,
    ) -> None:
        """Begin `work` in a thread after `wait` seconds, unless another request comes first."""
        with self._lock:
            self._newest += 1
            ticket = self._newest
            arguments = (ticket, work, show, wrong, wait)
            thread = threading.Thread(target=self._run, args=arguments, name=self.name, daemon=True)
            self._threads = [t for t in self._threads if t.is_alive()] + [thread]
            thread.start()

    def forget(self) -> None:
        """Drop the answer to whatever was asked."""
        with self._lock:
            self._newest += 1

    def settle(self, seconds: float = 60.0) -> None:
        """Wait until everything asked is shown (for scripts and tests)."""
        end = time.monotonic() + seconds
        while (waiting := [t for t in self._threads if t.is_alive()]) and time.monotonic() < end:
            waiting[0].join(end - time.monotonic())

    def _run(
        self,
        ticket: int,
        work: Callable[[], Any],
        show: Callable[[Any], None],
        wrong: Callable[[Exception], None],
        wait: float,
    ) -> None:
        end = time.monotonic() + wait
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))
            if ticket != self._newest:
                return
        answer: Any = None
        failure: Exception | None = None
        try:
            answer = work()
        except Exception as error:  # noqa: BLE001 - whatever it is, the person who asked has to see it
            failure = error
        with self._lock:
            if ticket != self._newest:
                return
            if failure is not None:
                wrong(failure)
            else:
                show(answer)
