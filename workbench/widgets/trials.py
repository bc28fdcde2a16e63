"""What several widgets share: a list of measured trials to choose from, and standing alone in a cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from workbench.errors import UnknownName
from workbench.plots import table as tables
from workbench.recipe import Recipe
from workbench.widgets.page import Page


def choices(frame: pd.DataFrame | None) -> list[tuple[str, int]]:
    """(words, number) of every measured trial: `#5  static_int8 · openvino  (−0.23 pt, 4.51×)`."""
    if frame is None or frame.empty:
        return []
    return [(_words(row), int(row["number"])) for row in tables.rows(frame) if row["state"] == "complete"]


def _words(row: dict[str, Any]) -> str:
    told = [f"{tables.number(row.get('speedup')):.2f}×" if row["number"] else "uncompressed"]
    share = tables.is_fraction(row.get("metric"))
    drop = tables.number(row.get("drop")) * (-100 if share else -1)
    if row["number"] and not math.isnan(drop):
        # No sign before a zero.
        text = f"{drop:+.2f}" if abs(drop) >= 0.005 else "0.00"
        told.insert(0, f"{text}{' pt' if share else ''}".replace("-", "−"))
    return f"#{row['number']}  {row['title']}  ({', '.join(told)})"


def rows(options: Sequence[Any]) -> int:
    """Lines of a list of trials: all of a few, and a part of many."""
    return min(max(len(options), 3), 8)


def alone(widget: Any) -> None:
    """Give a widget that stands in a cell by itself what the dashboard's page brings: style, theme, clipboard."""
    page = Page()
    widget.children = (*widget.children, page)
    widget.copy = page.copy
    if widget.has_trait("theme"):
        widget.theme = page.theme
        page.observe(lambda change: widget.set_trait("theme", change["new"]), "theme")


def known_recipe(data: dict[str, Any]) -> Recipe | None:
    """The recipe, or None where a plug-in that it names is not installed here; its numbers can be read all the same."""
    try:
        return Recipe.from_json(data)
    except UnknownName:
        return None
