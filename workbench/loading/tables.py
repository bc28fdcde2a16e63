"""Data files as tables: CSV, TSV, JSON Lines, JSON and Parquet.

TSV is read without quoting, as GLUE's files are written: a quotation mark is a character. CSV follows RFC 4180.
Nothing is guessed about the text in a cell, and no row is dropped here. Class names that `datasets` keeps in a
Parquet file's schema are read with it. Left out: compressed text files, spreadsheets, Arrow files of `save_to_disk`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from workbench.errors import DataError

#: Longest cell that is still taken for text, in characters.
_LONGEST_CELL = 10_000_000


@dataclass(frozen=True)
class Table:
    """Columns of equal length. `lines` are the rows' line numbers in a text file; `classes` the names behind a
    column of class indices; `headed` says that the column names were the first line of a text file."""

    where: str
    columns: dict[str, list[Any]]
    lines: list[int] = field(default_factory=list)
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    headed: bool = False

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def place(self, row: int) -> str:
        """Where a row stands, as a person looks for it."""
        return f"line {self.lines[row]} of {self.where}" if self.lines else f"row {row} of {self.where}"

    def without_header(self) -> Table:
        """The same file with its first line taken as data; the columns are called "0", "1" …"""
        columns = {str(i): [name, *column] for i, (name, column) in enumerate(self.columns.items())}
        return replace(self, columns=columns, lines=[1, *self.lines], headed=False)


def read_table(path: Path) -> Table:
    """Read a data file by its suffix; raises `DataError` with the line that is wrong."""
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise DataError(f"{path} is of a kind that cannot be read.", allowed=", ".join(READERS), do="convert it")
    if not path.is_file():
        raise DataError(f"There is no file {path}.", do="check the path")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty.", allowed="at least one row of text and label")
    try:
        table = READERS[suffix](path)
    except PermissionError as error:
        raise DataError(f"{path} may not be read: {error.strerror}.", do="change its permissions") from error
    if not len(table):
        raise DataError(f"{path} has no rows.", allowed="at least one row of text and label")
    return table


def concatenated(tables: list[Table]) -> Table:
    """Shards of one split as one table; raises `DataError` where their columns differ."""
    first = tables[0]
    for table in tables[1:]:
        if list(table.columns) != list(first.columns):
            raise DataError(
                f"{table.where} has the columns {', '.join(table.columns)}, and {first.where} has "
                f"{', '.join(first.columns)}.",
                do="give all shards of a split the same columns",
            )
    if len(tables) == 1:
        return first
    columns = {name: [value for table in tables for value in table.columns[name]] for name in first.columns}
    return Table(f"{first.where} and {len(tables) - 1} more", columns, classes=first.classes)


def _read_csv(path: Path) -> Table:
    return _from_rows(path, csv.reader(_lines(path), strict=True))


def _read_tsv(path: Path) -> Table:
    return _from_rows(path, csv.reader(_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE))


def _read_json_lines(path: Path) -> Table:
    rows, lines = [], []
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise DataError(
                f"Line {number} of {path} is not JSON: {error.msg} at column {error.colno}.",
                allowed="one JSON object per line",
                do="correct that line",
            ) from error
        lines.append(number)
    return _from_objects(path, rows, lines)


def _read_json(path: Path) -> Table:
    text = "".join(_lines(path))
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        if text.lstrip().startswith("{"):
            return _read_json_lines(path)
        raise DataError(
            f"{path} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.",
            allowed="an array of objects, or one object per line",
        ) from error
    rows = data if isinstance(data, list) else [data]
    return _from_objects(path, rows, [])


def _read_parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        table = parquet.read_table(path, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}", do="write or download it again") from error
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    return Table(str(path), columns, classes=_class_names(table.schema.metadata or {}))


READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json,
    ".parquet": _read_parquet,
}


def _lines(path: Path) -> Iterable[str]:
    """The lines of a UTF-8 file (with or without byte order mark), with their ends."""
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        guess = "UTF-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "WINDOWS-1252"
        raise DataError(
            f"{path} is not UTF-8: byte 0x{raw[error.start]:02x} in line {line}.",
            allowed="UTF-8",
            do=f"convert it, perhaps with: iconv -f {guess} -t UTF-8 {path} > {path.stem}-utf8{path.suffix}",
        ) from error
    # Not splitlines(): that would also break at the separators (U+2028 …) that occur inside texts.
    return [line + "\n" for line in text.replace("\r\n", "\n").split("\n")[: None if text[-1:] != "\n" else -1]]


def _from_rows(path: Path, reader: Any) -> Table:
    csv.field_size_limit(_LONGEST_CELL)
    header: list[str] = []
    rows, lines = [], []
    try:
        header = next(reader, [])
        for row in reader:
            if row:
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError(
            f"Line {reader.line_num} of {path} cannot be read: {error}.",
            allowed="fields in double quotes where they hold a comma, a quote or a line break; a quote doubled",
            do="write the file again with a CSV library, or as TSV without quotes",
        ) from error
    if len(set(header)) != len(header):
        raise DataError(f"{path} has two columns of one name: {', '.join(header)}.", do="rename one of them")
    for row, line in zip(rows, lines, strict=True):
        if len(row) > len(header):
            raise DataError(
                f"Line {line} of {path} has {len(row)} fields, and the first line has {len(header)}.",
                do="quote the field that holds a separator, or remove the surplus",
            )
    # A short row lacks its last fields: None is reported as missing, never invented.
    columns = {name: [row[i] if i < len(row) else None for row in rows] for i, name in enumerate(header)}
    return Table(str(path), columns, lines, headed=True)


def _from_objects(path: Path, rows: list[Any], lines: list[int]) -> Table:
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            place = f"line {lines[i]}" if lines else f"item {i}"
            raise DataError(f"{place} of {path} is not an object.", allowed='objects such as {"text": …, "label": …}')
    names = dict.fromkeys(name for row in rows for name in row)
    return Table(str(path), {name: [row.get(name) for row in rows] for name in names}, lines)


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Names of the columns that `datasets` wrote as ClassLabel."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    except (json.JSONDecodeError, AttributeError):
        return {}
    return {
        name: tuple(map(str, feature["names"]))
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
    }
