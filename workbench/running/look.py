"""Looking at a model or at data from a process of its own, so that the kernel imports no torch and never waits.

    ask("model", model="path/to/model")        what `workbench.summary.describe_model` gives, as plain data

The process is started by the first question, is polite to whatever is being timed, and ends some minutes after the
last one. Left out: stopping a look that has begun; the next question waits for its end.
"""

from __future__ import annotations

import os
import queue
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import workbench.errors as errors
from workbench.errors import WorkbenchError
from workbench.running.child import Child, Crashed, serve

#: Seconds without a question after which the process is ended: it holds some hundred megabytes.
IDLE_SECONDS = 120.0

#: Behind a sweep that may be timing something, which runs at 0.
NICENESS = 5


def answer(question: str, given: dict[str, Any]) -> dict[str, Any]:
    """Plain data on a `model` (arguments of `describe_model`), a `table` (of `describe_table`), `data` (of
    `make_task`) or the `distributions` of a layer (of `distributions`); raises what those raise."""
    from workbench import summary
    from workbench.tasks.base import make_task

    if question == "distributions":
        return distributions(**given)

    if question == "model":
        return summary.describe_model(**given).to_json()
    if question == "table":
        return summary.describe_table(**given).to_json()
    return summary.describe_data(make_task(**given)).to_json()


def distributions(task: dict[str, Any], technique: dict[str, Any], layer: str) -> dict[str, Any]:
    """Weight and input of one layer of a task's model, on the grids that a technique gives them, as plain data."""
    from workbench.recipe import plugin
    from workbench.sensitivity.histogram import histograms
    from workbench.tasks.base import task_from_json

    found = histograms(task_from_json(task), plugin("techniques", **technique), [layer])  # type: ignore[arg-type]
    return {"found": [one.to_json() for one in found]}


class Looker:
    """Keeps one process and asks it one question at a time; safe to use from several threads.

    One thread owns the process from its start to its end: the kernel ends a child with the thread that started it.
    """

    def __init__(self, idle: float = IDLE_SECONDS) -> None:
        self._idle = idle
        self._lock = threading.Lock()
        self._requests: queue.Queue[tuple[dict[str, Any], queue.Queue] | None] = queue.Queue()
        self._owner: threading.Thread | None = None

    def ask(self, question: str, **given: Any) -> dict[str, Any]:
        """What `answer` gives; raises the `WorkbenchError` that it raised there."""
        reply: queue.Queue[dict[str, Any]] = queue.Queue(1)
        with self._lock:
            self._requests.put(({"question": question, "given": given}, reply))
            if self._owner is None:
                self._owner = threading.Thread(target=self._own, name="workbench-looker", daemon=True)
                self._owner.start()
        event = reply.get()
        if "error" in event:
            raise _error(event["error"])
        return dict(event["done"])

    def close(self) -> None:
        """End the process after the questions that were asked; the next one starts another."""
        with self._lock:
            owner = self._owner
            if owner is not None:
                self._requests.put(None)
        if owner is not None:
            owner.join()

    def _own(self) -> None:
        child: Child | None = None
        while True:
            try:
                request = self._requests.get(timeout=self._idle)
            except queue.Empty:
                request = None
            if request is None:
                if child is not None:
                    child.kill()
                    child = None
                with self._lock:
                    if self._requests.empty():
                        self._owner = None
                        return
                continue
            message, reply = request
            try:
                child = child or _start()
                reply.put(list(child.request(message, lambda: None))[-1])
            except Crashed as crash:
                reply.put({"error": _plain(f"The process that looks at models ended ({crash}).", f"see {_log()}")})
                child = None
            # Whoever asked waits for an answer, whatever went wrong.
            except Exception as error:  # noqa: BLE001
                reply.put({"error": _plain(f"{type(error).__name__}: {error}", f"see {_log()}")})


_LOOKER = Looker()


def ask(question: str, **given: Any) -> dict[str, Any]:
    """`answer(question, given)` in the process that this kernel keeps for it."""
    return _LOOKER.ask(question, **given)


def _log() -> Path:
    return Path(tempfile.gettempdir()) / f"workbench-{os.getuid()}-look.log"


def _start() -> Child:
    return Child("workbench.running.look", _log(), {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"})


def _plain(what: str, do: str = "") -> dict[str, str]:
    return {"kind": "", "what": what, "allowed": "", "do": do}


def _error(row: dict[str, str]) -> WorkbenchError:
    kind = getattr(errors, row["kind"], WorkbenchError)
    return kind(row["what"], allowed=row["allowed"], do=row["do"])


def _handle(request: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> None:
    try:
        send({"done": answer(request["question"], request["given"])})
    except WorkbenchError as error:
        kind = type(error).__name__
        send({"error": {"kind": kind, "what": error.what, "allowed": error.allowed, "do": error.do}})
    # The page must hear of everything that went wrong here.
    except Exception as error:  # noqa: BLE001
        send({"error": _plain(f"{type(error).__name__}: {error}")})


def main() -> None:
    """Answer until the kernel goes."""
    os.nice(max(0, NICENESS - os.nice(0)))
    serve(_handle)


if __name__ == "__main__":
    main()
