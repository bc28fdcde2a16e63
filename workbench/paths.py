"""Where the workbench keeps things that may be deleted at any time.

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
