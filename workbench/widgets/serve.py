"""Serve the dashboard with Voila: on loopback, with a token, with kernels that end when nobody looks at them."""

from __future__ import annotations

import os
import secrets
import signal
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
CULL_SECONDS, PREHEATED_CULL_SECONDS = 600, 24 * 3600

TITLE = "Compression workbench"
TEMPLATE = "workbench"
#: Voila's own page asks a content network for icons, which are not used here; this one asks nobody outside.
_INDEX = """{%- extends 'voila/templates/lab/index.html.j2' -%}
{%- block notebook_css -%}
{{ super() | replace('href="https://', 'data-left-out="https://') }}
{%- endblock notebook_css -%}
"""


def command(
    notebook: Path, *, port: int, token: str, dark: bool = False, public: bool = False, preheat: bool = False
) -> list[str]:
    """The command that serves `notebook`; an empty `token` asks for none; `preheat` keeps a kernel ready for the next
    page, which must not be culled while it waits."""
    idle = PREHEATED_CULL_SECONDS if preheat else CULL_SECONDS
    return [
        sys.executable,
        "-m",
        "voila",
        str(notebook),
        f"--port={port}",
        f"--Voila.ip={'0.0.0.0' if public else '127.0.0.1'}",
        f"--token={token}",
        f"--theme={'dark' if dark else 'light'}",
        f"--template={TEMPLATE}",
        "--no-browser",
        "--VoilaConfiguration.show_tracebacks=True",
        f"--MappingKernelManager.cull_idle_timeout={idle}",
        "--MappingKernelManager.cull_interval=60",
        *(["--preheat_kernel=True", "--pool_size=1"] if preheat else []),
    ]


def write_notebook(place: Path, studies: Path, models: Path | None = None) -> Path:
    """The dashboard's notebook in `place`: one cell, for the studies below `studies`; and the template of its page.

    With `models`, models and data are looked for in that folder, and paths outside of it are refused.
    """
    given = f", models={str(models.absolute())!r}, within={str(models.absolute())!r}" if models else ""
    source = f"from workbench.widgets.dashboard import Dashboard\n\nDashboard({str(studies.absolute())!r}{given})"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)], metadata={"title": TITLE})
    path = place / "dashboard.ipynb"
    nbformat.write(notebook, path)
    template = place / "voila" / "templates" / TEMPLATE
    template.mkdir(parents=True, exist_ok=True)
    (template / "conf.json").write_text('{"base_template": "lab"}', encoding="utf-8")
    (template / "index.html.j2").write_text(_INDEX, encoding="utf-8")
    return path


def environment(notebook: Path) -> dict[str, str]:
    """The environment of `command`: Voila finds its templates where Jupyter's data lie."""
    paths = [str(notebook.parent), os.environ.get("JUPYTER_PATH", "")]
    return {**os.environ, "JUPYTER_PATH": os.pathsep.join(filter(None, paths))}


def serve(
    studies: Path,
    *,
    port: int = 8866,
    dark: bool = False,
    public: bool = False,
    token: bool = True,
    browser: bool = True,
    models: Path = Path("."),
    preheat: bool = False,
) -> None:
    """Serve until interrupted or terminated, in a program's main thread; models and data are taken from below `models`.

    Raises `ResourceError` where the port is taken.
    """
    _check_port(port)
    studies.mkdir(parents=True, exist_ok=True)
    secret = secrets.token_urlsafe(24) if token else ""
    address = f"http://127.0.0.1:{port}/" + (f"?token={secret}" if secret else "")
    with tempfile.TemporaryDirectory(prefix="workbench-") as place:
        notebook = write_notebook(Path(place), studies, models)
        line = command(notebook, port=port, token=secret, dark=dark, public=public, preheat=preheat)
        # Whoever ends this ends the server with it, as Ctrl-C does.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        process = subprocess.Popen(line, env=environment(notebook))
        typer.echo(f"Dashboard: {address}  (studies in {studies}; Ctrl-C ends it, sweeps go on)")
        if public:
            typer.echo(
                "--public: whoever reaches this machine"
                + (" and has the token" if token else "")
                + f" can start sweeps, read models and data below {models.absolute()}, and fill the disk.",
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
