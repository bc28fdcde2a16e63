"""Names of studies: where they live, what one is called after its model, and what a page may call one.

Left out: listing them; `workbench.study.studies` does.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from workbench.errors import UserError


def root_folder(folder: str | Path | None = None) -> Path:
    """Where studies live: `folder`, or `$WORKBENCH_STUDIES`, or `runs` where the kernel stands."""
    return Path(folder or os.environ.get("WORKBENCH_STUDIES") or "runs").expanduser()


def study_name(model: str) -> str:
    """A folder's name for a model: the last part of its path or id, in plain characters."""
    last = [part for part in re.split(r"[/\\]", model) if part][-1:] or ["study"]
    return re.sub(r"[^\w.-]+", "-", last[0]).strip("-.") or "study"


def safe_name(name: str) -> str:
    """`name`, or `UserError` where it is no plain folder name (it may come from a page's address)."""
    if not re.fullmatch(r"\w[\w.-]{0,99}", name):
        raise UserError(
            f"{name!r} is no name for a study.", allowed="letters, digits, '-', '_' and '.'", do="choose another name"
        )
    return name
