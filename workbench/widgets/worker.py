"""Work off the main thread, one piece at a time, the newest order first: what typing and clicking set off.

An order that a newer one has overtaken is dropped, before or after it was carried out. What is shown of the result is
assigned by `done`, in the worker's thread. Left out: progress; the work says what it does by `say`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from workbench.running.models import Dropped


class Order:
    """What the work is given: whether it is still wanted, and how to say what it waits for."""

    def __init__(self, worker: Worker, ticket: int) -> None:
        self._worker, self._ticket = worker, ticket

    def dropped(self) -> bool:
        """Whether a newer order has come."""
        return self._worker.latest != self._ticket

    def say(self, text: str) -> None:
        """Show what is happening."""
        if not self.dropped():
            self._worker.busy(text)


class Worker:
    """`busy` is told what is happening ("" when nothing), `failed` the error of the last order (None for none)."""

    def __init__(self, busy: Callable[[str], None], failed: Callable[[BaseException | None], None]) -> None:
        self.busy, self.failed = busy, failed
        self.latest = 0
        self._one_at_a_time = threading.Lock()
        self._threads: list[threading.Thread] = []

    def order(
        self, saying: str, work: Callable[[Order], Any], done: Callable[[Any], None], *, after: float = 0.0
    ) -> None:
        """Carry out `work` after so many seconds, unless another order comes first; then hand its result to `done`."""
        self.latest += 1
        given = Order(self, self.latest)
        thread = threading.Timer(after, self._run, args=(saying, given, work, done))
        thread.name, thread.daemon = "workbench-work", True
        self._threads = [*(t for t in self._threads if t.is_alive()), thread]
        thread.start()

    def drop(self) -> None:
        """Nothing that was ordered is wanted any more."""
        self.latest += 1
        self.busy("")

    @property
    def at_work(self) -> bool:
        """Whether something that was ordered is not done."""
        return any(thread.is_alive() for thread in self._threads)

    def settle(self, seconds: float = 60.0) -> None:
        """Wait until what was ordered is done and shown (for scripts and tests)."""
        while waiting := [thread for thread in self._threads if thread.is_alive()]:
            waiting[0].join(seconds)
            if waiting[0].is_alive():
                return

    def _run(self, saying: str, given: Order, work: Callable[[Order], Any], done: Callable[[Any], None]) -> None:
        with self._one_at_a_time:
            if given.dropped():
                return
            self.busy(saying)
            error: BaseException | None = None
            try:
                result = work(given)
                if not given.dropped():
                    done(result)
            except Dropped:
                return
            except Exception as caught:  # noqa: BLE001 - whatever it is, the person who waits has to see it
                error = caught
            if not given.dropped():
                self.failed(error)
                self.busy("")
