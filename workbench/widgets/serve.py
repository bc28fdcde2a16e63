"""Serve the dashboard with Voila: on loopback, with a token, with kernels that end when nobody looks at them."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import webbrowser
from pathlib import Path

import nbformat
import typer

from workbench.errors import ResourceError

#: A page that was closed leaves its kernel behind (its shutdown request is refused); an idle one ends after this long.
CULL_SECONDS = 600


def command(notebook: Path, *, port: int, token: str, dark: bool = False, public: bool = False) -> list[str]:
    """The command that serves `notebook`; an empty `token` asks for none."""
    return [
        sys.executable,
        "-m",
        "voila",
        str(notebook),
        f"--port={port}",
        f"--Voila.ip={'0.0.0.0' if public else '127.0.0.1'}",
        f"--token={token}",
        f"--theme={'dark' if dark else 'light'}",
        "--no-browser",
        "--VoilaConfiguration.show_tracebacks=True",
        f"--MappingKernelManager.cull_idle_timeout={CULL_SECONDS}",
        "--MappingKernelManager.cull_interval=60",
    ]


def write_notebook(place: Path, studies: Path) -> Path:
    """The dashboard's notebook: one cell, for the studies below `studies`."""
    source = f"from workbench.widgets.dashboard import Dashboard\n\nDashboard({str(studies.absolute())!r})"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    path = place / "dashboard.ipynb"
    nbformat.write(notebook, path)
    return path


def serve(
    studies: Path,
    *,
    port: int = 8866,
    dark: bool = False,
    public: bool = False,
    token: bool = True,
    browser: bool = True,
) -> None:
    """Serve until interrupted. Raises `ResourceError` where the port is taken."""
    _check_port(port)
    studies.mkdir(parents=True, exist_ok=True)
    secret = secrets.token_urlsafe(24) if token else ""
    address = f"http://127.0.0.1:{port}/" + (f"?token={secret}" if secret else "")
    with tempfile.TemporaryDirectory(prefix="workbench-") as place:
        notebook = write_notebook(Path(place), studies)
        process = subprocess.Popen(command(notebook, port=port, token=secret, dark=dark, public=public))
        typer.echo(f"Dashboard: {address}  (studies in {studies}; Ctrl-C ends it, sweeps go on)")
        if public:
            typer.echo(
                "--public: whoever reaches this machine"
                + (" and has the token" if token else "")
                + " can start sweeps, read models and data that this user can read, and fill the disk.",
                err=True,
            )
        if browser:
            threading.Timer(3.0, webbrowser.open, args=(address,)).start()
        try:
            process.wait()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ResourceError(
                f"Port {port} cannot be used: {error.strerror}.", do="name another one with --port"
            ) from error
