"""Where the workbench keeps things that may be deleted at any time, and whether a path stays in its folder.

`WORKBENCH_CACHE` names the folder; the default is `~/.cache/workbench` (or `$XDG_CACHE_HOME/workbench`). Studies do
not live here: they live in the folder that the user names.
"""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir(*parts: str) -> Path:
    """The cache folder, or one inside it, made when missing."""
    base = os.environ.get("WORKBENCH_CACHE")
    root = Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "workbench"
    folder = root.joinpath(*parts).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def is_inside(path: str | Path, folder: str | Path) -> bool:
    """Whether `path` is `folder` or lies below it, links followed; a relative path is taken from `folder`.

    What a browser sends is checked with this before anything is opened, moved or written.
    """
    base = Path(folder).expanduser().resolve()
    return (base / Path(path).expanduser()).resolve().is_relative_to(base)
