"""A child process that answers requests, line by line of JSON, and dies with its parent.

The parent sends one request, then reads events until one says `done` or `error`. The child's own output (libraries
print where they like) goes to a log file, never into the pipe.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from workbench.errors import WorkbenchError

#: Seconds between two calls of the `watch` function while a child works.
TICK = 0.25

_PR_SET_PDEATHSIG = 1


class Crashed(Exception):
    """The child ended without an answer; `code` is its exit code (negative: the signal that killed it)."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


class Child:
    """The parent's side. `module` is run with `python -m`, in a session of its own."""

    def __init__(self, module: str, log: Path, env: dict[str, str] | None = None) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
                env={**os.environ, **(env or {}), "WORKBENCH_PARENT": str(os.getpid())},
            )
        self._in = cast(IO[bytes], self._process.stdin)
        self._out = cast(IO[bytes], self._process.stdout)
        os.set_blocking(self._out.fileno(), False)
        self._rest = b""

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def request(self, message: dict[str, Any], watch: Callable[[], None]) -> Iterator[dict[str, Any]]:
        """Send `message` and yield events up to and including the last; `watch` is called between them.

        Raises `Crashed` when the child ends first; whatever `watch` raises goes through.
        """
        try:
            self._in.write(json.dumps(message).encode() + b"\n")
            self._in.flush()
        except BrokenPipeError:
            raise Crashed(self._process.wait()) from None
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            while True:
                watch()
                if not selector.select(TICK):
                    continue
                chunk = self._out.read()
                if not chunk:
                    raise Crashed(self._process.wait())
                *lines, self._rest = (self._rest + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    yield event
                    if "done" in event or "error" in event:
                        return

    def tail(self, size: int = 4000) -> str:
        """The end of what the child and its libraries printed."""
        with contextlib.suppress(OSError), self.log.open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - size))
            return log.read().decode(errors="replace")
        return ""

    def memory_mb(self) -> float:
        """Resident memory of the child in MB; 0 once it is gone."""
        import psutil

        try:
            return float(psutil.Process(self.pid).memory_info().rss) / 1e6
        except psutil.NoSuchProcess:
            return 0.0

    def kill(self) -> None:
        """End the child and everything it started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._in.close()
        self._out.close()


def respond(owner: Any, request: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> None:
    """Answer `{"do": name, …}` with the owner's method `do_name`; every error becomes an event, with the words for a
    person and the traceback."""
    try:
        send({"done": getattr(owner, f"do_{request['do']}")(request, send)})
    except WorkbenchError as error:
        parts = {"what": error.what, "allowed": error.allowed, "do": error.do}
        send({"error": str(error), "kind": type(error).__name__, "details": traceback.format_exc(), **parts})
    except MemoryError:
        send({"error": "ran out of memory", "kind": "MemoryError", "details": traceback.format_exc()})
    # The parent must hear of everything that went wrong here; the reason is passed on whole.
    except Exception as error:  # noqa: BLE001
        message = f"{type(error).__name__}: {error}"
        send({"error": message, "kind": type(error).__name__, "details": traceback.format_exc()})


def serve(handle: Callable[[dict[str, Any], Callable[[dict[str, Any]], None]], None]) -> None:
    """The child's side: answer requests until the parent closes the pipe.

    `handle` gets a request and a function that sends an event. File descriptor 1 is turned to the log first.
    """
    die_with_parent()
    pipe = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def send(event: dict[str, Any]) -> None:
        pipe.write(json.dumps(event).encode() + b"\n")

    for line in sys.stdin:
        handle(json.loads(line), send)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies (Linux); elsewhere a thread looks every second."""
    parent = int(os.environ.get("WORKBENCH_PARENT", os.getppid()))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()
    # The parent may have died before the line above took effect.
    if os.getppid() != parent:
        os._exit(1)


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
