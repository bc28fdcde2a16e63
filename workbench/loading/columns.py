"""Which columns hold the text and the label: named by the user, or guessed from the names that data sets use.

A file whose first line is data already (no known name, and its label occurs again below) is read without a header.
Left out: guessing by what a language model would make of the text.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import NamedTuple

from workbench.errors import DataError
from workbench.loading.tables import Table

#: Pairs before singles: where both fit, both texts were meant to be read.
PAIRS = (
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("question", "sentence"),
    ("question", "passage"),
    ("query", "passage"),
    ("query", "document"),
    ("title", "description"),
    ("title", "content"),
)
SINGLES = ("text", "sentence", "review", "content", "comment", "tweet", "headline", "message", "document", "body")
LABELS = (
    "label",
    "labels",
    "class",
    "target",
    "category",
    "sentiment",
    "gold_label",
    "intent",
    "topic",
    "stars",
    "rating",
    "score",
    "emotion",
)


class Columns(NamedTuple):
    """One or two text columns and the label column (None where the split has no labels)."""

    table: Table
    text: tuple[str, ...]
    label: str | None
    note: str = ""


def choose_columns(table: Table, text: Sequence[str] = (), label: str | None = None) -> Columns:
    """The columns of `table`, by name or guessed; raises `DataError` with the names that there are.

    A label column that was not named may be missing: the split is unlabelled then.
    """
    named = [*text, *([label] if label else [])]
    if table.headed and not _known(table):
        if named and all(name.isdigit() and name not in table.columns for name in named):
            table = table.without_header()
        elif not named and _headless(table):
            return _without_names(table.without_header())
    for name in text:
        _check(table, name, "text")
    chosen = tuple(text) or _guess_text(table, label)
    if label is None:
        rest = {name.lower(): name for name in table.columns if name not in chosen}
        label = next((rest[name] for name in LABELS if name in rest), None)
    elif label not in table.columns:
        return Columns(table, chosen, None)
    return Columns(table, chosen, label)


def missing_column(table: Table, name: str, role: str) -> DataError:
    """The error for a column that is not there."""
    near = difflib.get_close_matches(name, list(table.columns), n=2, cutoff=0.5)
    hint = f", did you mean {' or '.join(map(repr, near))}?" if near else "."
    return DataError(
        f"{table.where} has no column {name!r}{hint}",
        allowed=", ".join(table.columns),
        do=f"name one of them with {role}=",
    )


def _check(table: Table, name: str, role: str) -> None:
    if name not in table.columns:
        raise missing_column(table, name, role)


def _known(table: Table) -> bool:
    names = {name.lower() for name in table.columns}
    return bool(names & {*SINGLES, *LABELS, *(name for pair in PAIRS for name in pair)})


def _guess_text(table: Table, label: str | None) -> tuple[str, ...]:
    names = {name.lower(): name for name in table.columns if name != label}
    for name in ("text", "sentence", "review"):
        # These say clearly that they are all of it, whatever title stands beside them.
        if name in names and not any(name in pair and set(pair) <= set(names) for pair in PAIRS):
            return (names[name],)
    for first, second in PAIRS:
        if first in names and second in names:
            return (names[first], names[second])
    for name in SINGLES:
        if name in names:
            return (names[name],)
    raise DataError(
        f"None of the columns of {table.where} looks like text: {', '.join(table.columns)}.",
        allowed="a column called " + ", ".join(SINGLES[:4]) + " …, or a pair such as premise and hypothesis",
        do="name it with text= (two of them, separated by a comma, for pairs) and the label with label=",
    )


def _headless(table: Table) -> bool:
    """Whether the first line reads like data: what stands in it occurs again below, as a label does."""
    return len(table.columns) > 1 and any(name in column for name, column in table.columns.items())


def _without_names(table: Table) -> Columns:
    repeated = [name for name, column in table.columns.items() if column[0] in column[1:]]
    label = min(repeated, key=lambda name: len(set(table.columns[name])))

    def length(name: str) -> int:
        return sum(len(value or "") for value in table.columns[name])

    text = max((name for name in table.columns if name != label), key=length)
    note = f"{table.where} has no header: column {text} was taken as text and column {label} as label."
    return Columns(table, (text,), label, note)
