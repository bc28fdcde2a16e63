"""Counts as a table whose rows carry bars: chart and table at once, without a line of JavaScript.

For the few numbers that stand in a card (labels, lengths); everything that is clicked or zoomed is a plotly figure.
The counting is apart from the drawing. Left out: stacked bars, more than some dozens of rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import pandas as pd

from workbench.plots.markup import Markup, tag

#: Widths that a step of a histogram may have, in whole units, times powers of ten.
_STEPS = (1, 2, 4, 5, 8)


def histogram(values: Sequence[int], bars: int = 10) -> dict[str, int]:
    """`low–high` -> how many of the values lie there, in at most `bars` equal steps from 1; empty for no values.

    >>> histogram([1, 2, 2, 9, 10], 5)
    {'1–2': 3, '3–4': 0, '5–6': 0, '7–8': 0, '9–10': 2}
    """
    if not values:
        return {}
    step = _step(max(values), bars)
    first = (min(values) - 1) // step
    found = {}
    for i in range(first, (max(values) - 1) // step + 1):
        low, high = i * step + 1, (i + 1) * step
        name = str(low) if step == 1 else f"{low}–{high}"
        found[name] = sum(low <= value <= high for value in values)
    return found


def _step(largest: int, bars: int) -> int:
    """The smallest round step that covers 1 to `largest` in at most `bars` steps."""
    exact = max(1.0, largest / bars)
    scale = 10 ** math.floor(math.log10(exact))
    return next((k * scale for k in _STEPS if k * scale >= exact), 10 * scale)


def bars_html(counts: Mapping[str, int], what: str, unit: str = "Examples") -> Markup:
    """A row for each count: its name, a bar, the count and its share of all; `what` heads the names."""
    total, most = sum(counts.values()), max(counts.values(), default=0)
    names = ((what, None), ("Share", "wb-bar-cell"), (unit, None))
    head = tag("tr", *(tag("th", name, scope="col", class_=css) for name, css in names))
    rows = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            tag("td", _bar(count / most if most else 0.0), class_="wb-bar-cell"),
            tag("td", f"{count:,} ", tag("span", f"{count / total:.1%}" if total else "", class_="wb-share")),
        )
        for name, count in counts.items()
    ]
    return tag("table", tag("thead", head), tag("tbody", *rows), class_="wb-table wb-bars")


def _bar(share: float) -> Markup:
    """A bar of this share of the full width; the number beside it says the same."""
    return tag("div", tag("div", class_="wb-bar-fill", style=f"width:{100 * share:.1f}%"), aria_hidden="true")


def counts_frame(counts: Mapping[str, int], what: str, unit: str = "examples") -> pd.DataFrame:
    """The counts as a frame, for a download."""
    return pd.DataFrame({what: list(counts), unit: list(counts.values())})


def csv_link(frame: pd.DataFrame, name: str) -> Markup:
    """A link that saves the frame as `name`.csv; the data stand in the link itself, nothing is asked of a server."""
    address = "data:text/csv;charset=utf-8," + quote(_harmless(frame).to_csv(index=False))
    return tag("a", "Download CSV", href=address, download=f"{name}.csv", class_="wb-download")


def _harmless(frame: pd.DataFrame) -> pd.DataFrame:
    """A cell of text that a spreadsheet would take for a formula gets an apostrophe in front."""

    def tame(value: object) -> object:
        return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "@", "\t", "\r") else value

    return frame.map(tame)
