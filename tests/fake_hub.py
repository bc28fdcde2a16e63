"""A small Hugging Face hub on the loopback address, for the real clients (`HF_ENDPOINT`).

It serves made-up repositories from memory: the information, the file tree and the files (with ranges), and can be
told to be gated, to fail, to drop a connection after some bytes, or to die half-way through a file. Every request is
recorded. Left out: uploads, large-file storage elsewhere, log-in. Users' tests may use it too:

    with FakeHub() as hub:
        hub.models["owner/name"] = Repository({"config.json": b"{}"})
        subprocess.run([...], env={**os.environ, "HF_ENDPOINT": hub.url})
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Repository:
    """Files by path. `revisions` are names (branches, tags) of the one commit there is; `id` is the name that the hub
    gives it now, where it was asked for by an old one."""

    files: dict[str, bytes]
    gated: bool = False
    revisions: tuple[str, ...] = ("main",)
    commit: str = ""
    id: str = ""

    def __post_init__(self) -> None:
        self.commit = self.commit or hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()

    def knows(self, revision: str) -> bool:
        """Whether a branch, tag or commit exists."""
        return revision in (*self.revisions, self.commit)


@dataclass
class FakeHub:
    """Repositories by id. `drops[path]` closes the connection after that many bytes, once; half-way through the
    file `dies_at` the hub stops answering, until `dead` is unset; `status` is answered to everything while set."""

    models: dict[str, Repository] = field(default_factory=dict)
    datasets: dict[str, Repository] = field(default_factory=dict)
    drops: dict[str, int] = field(default_factory=dict)
    dies_at: str | None = None
    dead: bool = False
    status: int | None = None
    #: (method, path, Range header or "") of every request
    requests: list[tuple[str, str, str]] = field(default_factory=list)

    def __enter__(self) -> Self:
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fetched(self) -> list[str]:
        """Names of the files whose content was asked for, in order, without repetition."""
        paths = [
            path.split("/resolve/")[1].split("/", 1)[1]
            for m, path, _ in self.requests
            if m == "GET" and "/resolve/" in path
        ]
        return list(dict.fromkeys(paths))

    def forget(self) -> None:
        """Start a new record."""
        self.requests.clear()

    def ranges(self) -> list[str]:
        """The Range headers that were sent."""
        return [sent for method, _, sent in self.requests if method == "GET" and sent]


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    _API = re.compile(
        r"/api/(models|datasets)/([^/]+/[^/]+|[^/]+?)(?:/(revision|tree|paths-info|auth-check)(?:/([^/]+)(?:/(.*))?)?)?"
    )
    _FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""

    def _answer(self, body: bool) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        self.hub.requests.append((self.command, path, self.headers.get("Range", "")))
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.hub.dead:
            self.close_connection = True
        elif self.hub.status is not None:
            self._error(self.hub.status, "")
        elif found := self._FILE.fullmatch(path):
            self._file(found, body)
        elif found := self._API.fullmatch(path):
            self._api(found, parse_qs(sent.decode()))
        else:
            self._error(404, "EntryNotFound")

    def _repository(self, kind: str, name: str, revision: str) -> Repository | None:
        """The repository, or None after an error was answered."""
        known = self.hub.datasets if kind == "datasets" else self.hub.models
        if name not in known:
            return self._error(401, "RepoNotFound")
        if not known[name].knows(revision):
            return self._error(404, "RevisionNotFound")
        return known[name]

    def _api(self, found: re.Match[str], sent: dict[str, list[str]]) -> None:
        kind, name, action, revision, below = found.groups()
        repository = self._repository(kind, name, revision or "main")
        if repository is None:
            return
        if action in (None, "revision"):
            siblings = [{"rfilename": path, "size": len(data)} for path, data in repository.files.items()]
            about = {"id": repository.id or name, "sha": repository.commit, "siblings": siblings, "tags": []}
            self._json({**about, "private": False, "gated": "manual" if repository.gated else False})
            return
        if repository.gated:
            self._error(403, "GatedRepo")
        elif action == "auth-check":
            self._json({})
        elif action == "tree":
            self._json(_tree(repository, below or "", recursive="recursive=true" in self.path.lower()))
        else:
            self._json(
                [entry for entry in _tree(repository, "", recursive=True) if entry["path"] in sent.get("paths", [])]
            )

    def _file(self, found: re.Match[str], body: bool) -> None:
        repository = self._repository("datasets" if found[1] else "models", found[2], found[3])
        if repository is None:
            return
        if repository.gated:
            self._error(403, "GatedRepo")
            return
        data = repository.files.get(found[4])
        if data is None:
            self._error(404, "EntryNotFound", commit=repository.commit)
            return
        start = int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0, 0])[1])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("ETag", f'"{_blob(data)}"')
        self.send_header("X-Repo-Commit", repository.commit)
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if body:
            self._send(found[4], data[start:])

    def _send(self, path: str, data: bytes) -> None:
        limit = self.hub.drops.pop(path, None)
        if path == self.hub.dies_at:
            self.hub.dead, limit = True, len(data) // 2
        self.wfile.write(data if limit is None else data[:limit])
        if limit is not None and limit < len(data):
            self.wfile.flush()
            self.close_connection = True

    def _json(self, data: Any) -> None:
        raw = json.dumps(data).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _error(self, status: int, code: str, commit: str = "") -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
        if commit:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _tree(repository: Repository, below: str, *, recursive: bool) -> list[dict[str, Any]]:
    """Files below a folder, and the folders in it."""
    prefix = f"{below}/" if below else ""
    inside = {path: data for path, data in repository.files.items() if path.startswith(prefix)}
    folders = {prefix + path.removeprefix(prefix).split("/")[0] for path in inside if "/" in path.removeprefix(prefix)}
    entries: list[dict[str, Any]] = [{"type": "directory", "path": path, "oid": _blob(b"")} for path in sorted(folders)]
    for path, data in inside.items():
        if recursive or "/" not in path.removeprefix(prefix):
            entries.append({"type": "file", "path": path, "size": len(data), "oid": _blob(data)})
    return entries
