"""Where the model, the tokenizer and the data that a user named lie on this machine; ids of the hub are fetched."""

from __future__ import annotations

import re
from pathlib import Path

from workbench.errors import DataError, ModelError
from workbench.loading.tables import READERS
from workbench.tasks.base import Progress

_HUB_ID = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*){0,2}")


def located(
    kind: str,
    name: str,
    revision: str | None,
    progress: Progress | None = None,
    *,
    ask: bool = False,
    code: bool = False,
) -> Path:
    """Where `name` (a `model`, `tokenizer` or `data`) lies; an id is fetched from the hub.

    Unless told to `ask` the hub for what is new, the copy of the last fetch is taken, so that all processes of a sweep
    see the same. `code` fetches a model's own code as well. Raises `DataError` or `ModelError` for what is neither.
    """
    if Path(name).exists():
        return Path(name)
    suffixes = (*READERS, ".txt", ".onnx", ".safetensors", ".bin", ".pt")
    if not _HUB_ID.fullmatch(name) or name.lower().endswith(suffixes):
        wrong, example = (DataError, "glue/sst2") if kind == "data" else (ModelError, "owner/name")
        raise wrong(
            f"There is no file or folder {name}.",
            allowed=f"a path on this machine, or an id of the hub such as {example}",
            do="check the path",
        )
    from workbench.loading import hub

    if not ask and (copy := hub.local_copy(kind, name, revision)):
        return copy
    if kind == "data":
        return hub.fetch_dataset(name, revision, progress)
    if kind == "tokenizer":
        return hub.fetch_tokenizer(name, revision, progress)
    return hub.fetch_model(name, revision, progress, code=code)


def absolute(name: str) -> str:
    """Paths that exist become absolute: the runner may stand in another folder."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name
