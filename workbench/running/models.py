"""The notebook's side of the process that loads models: started at the first question, ended when nobody asks.

One question at a time, and none while a trial is being measured on this machine: its numbers would suffer. The child
dies with the thread that started it, so one thread owns it for good.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from workbench import errors
from workbench.errors import TrialError, WorkbenchError
from workbench.paths import cache_dir
from workbench.running.child import Child, Crashed
from workbench.running.lock import exclusive

#: Seconds without a question after which the process and its models go.
IDLE_SECONDS = 600.0

WAITING = "Waiting: a trial is being measured on this machine, and its numbers should hold."


class Dropped(Exception):
    """The question is not wanted any more."""


class Models:
    """`Models().ask("answer", folder=…, texts=[["a text"]])`; see `model_process` for what can be asked."""

    def __init__(self, log: Path | None = None, idle: float = IDLE_SECONDS) -> None:
        self._log, self._idle = log, idle
        self._orders: queue.Queue[tuple[Future, Callable[[], Any]] | None] = queue.Queue()
        self._child: Child | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def ask(
        self,
        do: str,
        *,
        say: Callable[[str], None] = lambda text: None,
        dropped: Callable[[], bool] = lambda: False,
        **request: Any,
    ) -> dict[str, Any]:
        """The answer; blocks. `say` hears why it waits; `dropped` is looked at before the question is sent.

        Raises `Dropped`, the process's own `WorkbenchError`, and `TrialError` where the process broke down.
        """
        wanted: Future = Future()
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="workbench-models", daemon=True)
                self._thread.start()
            self._orders.put((wanted, lambda: self._ask({"do": do, **request}, say, dropped)))
        answer: dict[str, Any] = wanted.result()
        return answer

    def close(self) -> None:
        """End the process; a later question starts it again."""
        self._orders.put(None)

    @property
    def pid(self) -> int | None:
        """The process's id; None where there is none."""
        return self._child.pid if self._child else None

    def _run(self) -> None:
        while True:
            try:
                order = self._orders.get(timeout=self._idle)
            except queue.Empty:
                order = None
            if order is None:
                self._end()
                continue
            wanted, work = order
            try:
                wanted.set_result(work())
            except Exception as error:  # noqa: BLE001 - whoever asked hears of it
                wanted.set_exception(error)

    def _ask(self, request: dict[str, Any], say: Callable[[str], None], dropped: Callable[[], bool]) -> dict[str, Any]:
        looks = 0

        def watch() -> None:
            nonlocal looks
            looks += 1
            if dropped():
                raise Dropped
            if looks == 2:
                say(WAITING)

        with exclusive(watch):
            if self._child is None:
                say("Starting the process that loads models …")
                self._child = Child("workbench.running.model_process", self._log or cache_dir("logs") / "models.log")
            try:
                for event in self._child.request(request, lambda: None):
                    if "done" in event:
                        return dict(event["done"])
                    if "error" in event:
                        raise _error(event)
            except Crashed as crash:
                tail = self._child.tail(600)
                self._end()
                raise TrialError(
                    f"The process that loads models ended ({crash}): {tail.strip() or 'it printed nothing'}",
                    do="try again; a model that does not fit into memory ends it each time",
                ) from None
        raise AssertionError("unreachable")

    def _end(self) -> None:
        if self._child:
            self._child.kill()
            self._child = None


def _error(event: dict[str, Any]) -> WorkbenchError:
    """The error that the process sent, of its own kind where it is one of the workbench's."""
    kind = getattr(errors, event["kind"], None)
    if isinstance(kind, type) and issubclass(kind, WorkbenchError):
        return kind(event["what"], allowed=event["allowed"], do=event["do"])
    return TrialError(event["error"])
