"""Voila with the dashboard, and a Chromium to look at it: what the benchmarks of the page share.

Chromium is `$WORKBENCH_CHROMIUM` or the one on the path. Left out: other browsers.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from workbench.widgets.serve import command, environment, write_notebook

TOKEN = "benchmark"
SWITCHES = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
#: Milliseconds until a page that does not come is given up.
PATIENCE = 120_000


@contextmanager
def served(studies: Path, *, preheat: bool = False) -> Iterator[str]:
    """The dashboard on the studies below `studies`, by its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as place, (Path(place) / "log").open("wb") as log:
        notebook = write_notebook(Path(place), studies)
        line = command(notebook, port=port, token=TOKEN, preheat=preheat)
        process = subprocess.Popen(line, stdout=log, stderr=log, env=environment(notebook))
        try:
            _wait_for(port, process)
            yield f"http://127.0.0.1:{port}/?token={TOKEN}"
        finally:
            process.terminate()
            process.wait(20)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser with a fresh profile."""
    path = os.environ.get("WORKBENCH_CHROMIUM") or shutil.which("chromium")
    if path is None:
        raise SystemExit("no Chromium: set WORKBENCH_CHROMIUM to its path")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=SWITCHES)
        yield browser
        browser.close()


def _wait_for(port: int, process: subprocess.Popen) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/static/favicon.ico?token={TOKEN}", timeout=5)
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise SystemExit("Voila did not start")
