"""Examples from data files: a file, or a folder with one file (or several shards) for each split.

Rows that cannot be used are counted and reported, never dropped in silence; a label that the model does not know is
an error. Left out: streaming; the texts of every split are held in memory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workbench.errors import DataError
from workbench.loading.columns import choose_columns, missing_column
from workbench.loading.labels import map_labels
from workbench.loading.tables import READERS, Table, concatenated, read_table

_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_SPLIT = re.compile(r"(train|valid|val|dev|test|eval)", re.IGNORECASE)
#: Folders that are not searched for data, and how many are.
_SKIPPED, _FOLDERS = {"node_modules", "site-packages", "__pycache__", "artifacts", "venv"}, 3000


@dataclass(frozen=True)
class Labelled:
    """Texts with class indices, int64 of shape (examples,), -1 where there is no label."""

    texts: list[tuple[str, ...]]
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def labelled(self) -> bool:
        """Whether every example has a label, and there is one."""
        return len(self) > 0 and bool((self.targets >= 0).all())

    def take(self, rows: np.ndarray) -> Labelled:
        """The examples at `rows`, in that order."""
        return Labelled([self.texts[i] for i in rows], self.targets[rows])


def find_tables(path: Path) -> dict[str, list[Path]]:
    """Name of a split -> its files. A file is one split; a folder has one (or several shards) for each."""
    if path.is_file():
        return {path.stem: [path]}
    if not path.is_dir():
        raise DataError(f"There is no file or folder {path}.", do="check the path, or give a hub id such as glue/sst2")
    folder = path
    if not _data_files(folder) and (path / "data").is_dir():
        folder = path / "data"
    found: dict[str, list[Path]] = {}
    for file in _data_files(folder):
        found.setdefault(_SHARD.sub("", file.stem), []).append(file)
    if not found:
        raise DataError(
            f"{path} holds no data file.",
            allowed=f"train, validation (or dev) and test files ending in {', '.join(READERS)}",
            do="for a folder of datasets' save_to_disk, write it with to_parquet instead",
        )
    for name, files in found.items():
        if len({file.suffix for file in files}) > 1:
            raise DataError(
                f"The split {name!r} stands twice in {folder}: {', '.join(file.name for file in files)}.",
                do="remove one of them, or give the file instead of the folder",
            )
    return found


def find_data(root: Path, depth: int = 3) -> list[Path]:
    """Folders of splits, and data files, in `root` and at most `depth` folders below it, by path.

    A folder counts where one of its files is called as splits are; JSON files alone may be anything and do not.
    """
    found: list[Path] = []
    waiting, seen = [(root, 0)], 0
    while waiting and seen < _FOLDERS:
        folder, level = waiting.pop(0)
        seen += 1
        try:
            inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        except OSError:
            continue
        files = [path for path in inside if path.suffix.lower() in READERS and path.suffix.lower() != ".json"]
        if any(_SPLIT.match(path.stem) for path in files):
            found.append(folder)
        found += files
        if level < depth:
            waiting += [(p, level + 1) for p in inside if p.is_dir() and not p.is_symlink() and p.name not in _SKIPPED]
    return found


def read_split(
    files: Sequence[Path],
    labels: Sequence[str],
    *,
    text: Sequence[str] = (),
    label: str | None = None,
    labels_map: Mapping[str, str | int] | None = None,
    must: bool = False,
) -> tuple[Labelled, list[str], tuple[str, ...] | None]:
    """Rows of one split, what to know about them, and the data's own class names (or None).

    Rows without text, and rows without label among labelled ones, are left out and counted in the notes. With
    `must`, a split without labels is a `DataError`.
    """
    columns = choose_columns(concatenated([read_table(file) for file in files]), text, label)
    table, notes = columns.table, [columns.note] if columns.note else []
    texts = _texts(table, columns.text)
    names = None
    if columns.label is not None:
        mapped = map_labels(table, columns.label, labels, labels_map)
        targets, names = mapped.indices, mapped.names
        notes += [mapped.note] if mapped.note else []
    else:
        targets = np.full(len(texts), -1, dtype=np.int64)
    if must and not (targets >= 0).any():
        raise missing_column(table, label, "label") if label else _no_label(table, columns.label)
    filled = np.array([all(part.strip() for part in row) for row in texts])
    some = (targets >= 0) | (not (targets >= 0).any())
    for missing, what in ((~filled, "text"), (filled & ~some, "label")):
        if missing.any():
            first = table.place(int(np.flatnonzero(missing)[0]))
            notes.append(f"{missing.sum()} row(s) without {what} were left out, the first in {first}.")
    rows = Labelled(texts, targets).take(np.flatnonzero(filled & some))
    if not len(rows):
        raise DataError(f"No row of {table.where} has a text.", do="check the file, or name its column with text=")
    return rows, notes, names


def _data_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file() and file.suffix.lower() in READERS)


def _texts(table: Table, columns: tuple[str, ...]) -> list[tuple[str, ...]]:
    for name in columns:
        for row, value in enumerate(table.columns[name]):
            if value is not None and not isinstance(value, str):
                raise DataError(
                    f"Column {name!r} holds {type(value).__name__} {value!r} in {table.place(row)}, not text.",
                    allowed="strings",
                    do="name the column that holds the text with text=",
                )
    return [tuple(value or "" for value in row) for row in zip(*(table.columns[n] for n in columns), strict=True)]


def _no_label(table: Table, column: str | None) -> DataError:
    if column is not None:
        return DataError(f"No row of {table.where} has a label in column {column!r}.", do="name another with label=")
    return DataError(
        f"None of the columns of {table.where} looks like a label: {', '.join(table.columns)}.",
        allowed="a column called label, class, sentiment …",
        do="name it with label=",
    )
