"""Labels of the data against the classes of the model: by name (whatever the case), or by index.

Names win over indices, because data sets and models often number the same classes differently (MNLI). What does not
fit is an error that names the row; what is missing is counted, never dropped in silence.
Left out: several labels per example, soft labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from workbench.errors import DataError, ModelError
from workbench.loading.source import generic
from workbench.loading.tables import Table


class Mapped(NamedTuple):
    """Class indices, int64 of shape (rows,), -1 where missing; `names` where the data name the classes better than
    the model does; what a person should know."""

    indices: np.ndarray
    names: tuple[str, ...] | None = None
    note: str = ""


def map_labels(
    table: Table, column: str, labels: Sequence[str], labels_map: Mapping[str, str | int] | None = None
) -> Mapped:
    """Map a column to class indices of a model with `labels`.

    `labels_map` maps values of the data (as text, whatever the case) to names or indices of the model. Raises
    `ModelError` where the data have more classes than the head, `DataError` for a value that the model does not know.
    """
    values = [_plain(value) for value in table.columns[column]]
    names = None if labels_map else table.classes.get(column)
    chosen, note = (names, "") if names else (None, "")
    lookup = _lookup(labels, labels_map, table.where)
    if names:
        lookup, chosen, note = _lookup_by_class(names, labels, lookup)
        if len(names) > len(labels):
            raise _head_does_not_fit(names, labels, table.where)
    # The test splits of GLUE hold -1 for "not told".
    missing = {"", *(() if "-1" in lookup else ("-1",))}
    indices = np.full(len(values), -1, dtype=np.int64)
    for row, value in enumerate(values):
        if value in missing:
            continue
        index = lookup.get(value)
        if index is None:
            raw = {v: str(r).strip() for v, r in zip(values, table.columns[column], strict=True) if v not in missing}
            raise _unknown(table.place(row), raw, value, labels, table.where if labels_map is None else "")
        indices[row] = index
    return Mapped(indices, chosen, note)


def _plain(value: Any) -> str:
    """A label as text: 1, 1.0, True and " Positive " become "1", "1", "true" and "positive"; missing is ""."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value).strip().lower()
    whole, _, fraction = text.partition(".")
    return whole if fraction and not fraction.strip("0") and whole.lstrip("-").isdigit() else text


def _lookup(labels: Sequence[str], labels_map: Mapping[str, str | int] | None, where: str) -> dict[str, int]:
    """Text of a label -> class index."""
    names = {label.strip().lower(): index for index, label in enumerate(labels)}
    indices = {str(index): index for index in range(len(labels))}
    if not labels_map:
        return {**indices, **names}
    lookup = {}
    for value, target in labels_map.items():
        key = _plain(target)
        if key not in names and key not in indices:
            raise DataError(
                f"labels_map sends {value!r} to {target!r}, which is no class of the model.",
                allowed=", ".join(f"{i} or {name!r}" for i, name in enumerate(labels)),
                do=f"correct labels_map for {where}",
            )
        lookup[_plain(value)] = {**indices, **names}[key]
    return lookup


def _lookup_by_class(
    names: Sequence[str], labels: Sequence[str], lookup: dict[str, int]
) -> tuple[dict[str, int], tuple[str, ...] | None, str]:
    """The lookup for a column of class indices with names behind them."""
    lowered = [name.strip().lower() for name in names]
    known = {label.strip().lower() for label in labels}
    if all(name in known for name in lowered):
        by_index = {str(i): lookup[name] for i, name in enumerate(lowered)}
        return {**by_index, **{name: lookup[name] for name in lowered}}, None, ""
    if generic(tuple(labels)) and len(names) == len(labels):
        return {**lookup, **{name: i for i, name in enumerate(lowered)}}, tuple(names), ""
    shown = f"the data call the classes {', '.join(names)}, the model {', '.join(labels)}"
    return lookup, None, f"Labels were matched by index: {shown}."


def _head_does_not_fit(values: Sequence[str], labels: Sequence[str], where: str) -> ModelError:
    shown = ", ".join(values[:8]) + (" …" if len(values) > 8 else "")
    return ModelError(
        f"The model's head has {len(labels)} classes ({', '.join(labels[:8])}), "
        f"and {where} has {len(values)} ({shown}).",
        allowed="a model that was fine-tuned on these labels",
        do="choose another model or data, or merge classes with labels_map={'value': 'class of the model'}",
    )


def _unknown(
    place: str, raw: Mapping[str, str], value: str, labels: Sequence[str], where: str
) -> DataError | ModelError:
    values = sorted(raw.values())
    if len(values) > len(labels) and where:
        return _head_does_not_fit(values, labels, where)
    example = {shown: labels[i % len(labels)] for i, shown in enumerate(values[:3])}
    return DataError(
        f"The label {raw[value]!r} in {place} is unknown to the model.",
        allowed=", ".join(f"{i} or {name!r}" for i, name in enumerate(labels[:20])),
        do=f"correct it, name another column with label=, or map the values, for example labels_map={example!r}",
    )
