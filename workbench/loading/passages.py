"""Plain text for language models: documents from .txt files or a table's text column, cut into windows of tokens.

A document is what stands between two separators in a .txt file (the whole file where there is none), or one row of a
table. Windows do not overlap and do not cross documents: every token is scored once, from what stands before it in
its own window. Left out: overlapping windows (a stride), which give each token more context and cost as much more.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from workbench.errors import DataError
from workbench.loading.columns import choose_columns
from workbench.loading.data import find_tables
from workbench.loading.tables import READERS, concatenated, read_table

#: What stands between two texts in the files of TinyStories and of GPT-2's training data.
SEPARATOR = "<|endoftext|>"


def find_texts(path: Path) -> dict[str, list[Path]]:
    """Name of a split -> its files: .txt files where there are any, else tables (see `find_tables`)."""
    if path.is_file() and path.suffix.lower() == ".txt":
        return {path.stem: [path]}
    plain = sorted(file for file in path.iterdir() if file.suffix.lower() == ".txt") if path.is_dir() else []
    if plain:
        return {file.stem: [file] for file in plain}
    if path.is_file() and path.suffix.lower() not in READERS:
        raise DataError(f"{path} is of a kind that cannot be read.", allowed=f".txt, {', '.join(READERS)}")
    return find_tables(path)


def read_documents(files: Sequence[Path], *, separator: str = SEPARATOR, text: Sequence[str] = ()) -> list[str]:
    """The documents of one split; raises `DataError` where there is no text."""
    if files[0].suffix.lower() == ".txt":
        documents = [part.strip() for file in files for part in _read(file).split(separator)]
    else:
        columns = choose_columns(concatenated([read_table(file) for file in files]), text)
        if len(columns.text) > 1:
            raise DataError(
                f"{columns.table.where} has several text columns: {', '.join(columns.text)}.",
                allowed="one column of text",
                do="name it with text=",
            )
        documents = [str(value or "").strip() for value in columns.table.columns[columns.text[0]]]
    documents = [document for document in documents if document]
    if not documents:
        raise DataError(f"{files[0]} holds no text.", allowed="at least one document")
    return documents


def windows(documents: Sequence[Sequence[int]], size: int, begin: int | None) -> list[list[int]]:
    """Documents of tokens cut into windows of at most `size` tokens; each starts with the token `begin`, if not None.

    With it every token of a document is predicted once; without it the first one of each window only gives context.
    Windows in which nothing could be predicted are left out.
    """
    head = [] if begin is None else [begin]
    step = size - len(head)
    cut = [[*head, *one[at : at + step]] for one in documents for at in range(0, len(one), step)]
    return [window for window in cut if len(window) > 1]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}", do="convert it") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.", do="check the path") from error
