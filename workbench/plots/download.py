"""A table as a CSV file that the page holds itself: a link that needs no server, beside every chart and table."""

from __future__ import annotations

import base64

import pandas as pd

from workbench.plots.markup import Markup, tag

#: A spreadsheet takes a cell that begins so for a formula; a text from a data set must not be one.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_link(frame: pd.DataFrame, name: str, words: str = "Download CSV") -> Markup:
    """A link that saves `frame` as `name`.csv."""
    data = base64.b64encode(csv_text(frame).encode("utf-8")).decode("ascii")
    return tag("a", words, href=f"data:text/csv;base64,{data}", download=f"{name}.csv", class_="wb-download")


def csv_text(frame: pd.DataFrame) -> str:
    """`frame` as CSV; texts that a spreadsheet would run are set behind an apostrophe."""
    safe = frame.map(lambda cell: f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell)
    return str(safe.to_csv(index=False))
