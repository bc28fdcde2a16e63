"""A study's scans as a person looks through them: which views there are of one, its figure, its table.

Left out: drawing itself, which stands in `sensitivity`, `curves` and `distributions`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from workbench.errors import DataError
from workbench.plots.curves import curve_heat, curve_lines
from workbench.plots.sensitivity import bars, heat, value
from workbench.plots.table import amount

#: Views of a scan: key -> (name, what it shows).
VIEWS = {
    "bars": ("Bars", "The score of each layer with its 95 % interval, in the model's order. A longer bar loses more."),
    "heat": ("Heat map", "All finished scans side by side, by rank: what several probes call sensitive, is."),
    "value": ("Value map", "Milliseconds saved against the score: layers down and to the right are worth compressing."),
    "lines": ("Pruning curves", "The score of each layer over its share of zeros; the worst layers have a colour."),
    "grid": ("Pruning map", "Layer by share of zeros, coloured by the logarithm of the score."),
    "histograms": ("Histograms", "Weight and input of the chosen layer, with the grid they are put on."),
}


def several(scan: pd.DataFrame) -> bool:
    """Whether the scan has several rows for a layer: pruning curves."""
    return "sparsity" in scan.columns


def views(scan: pd.DataFrame | None) -> list[str]:
    """The views that make sense of a scan."""
    if scan is None:
        return []
    return ["lines", "grid", "heat"] if several(scan) else ["bars", "heat", "value", "histograms"]


def draw(
    view: str,
    scan: pd.DataFrame,
    theme: str = "light",
    *,
    keep: Sequence[str] = (),
    others: Mapping[str, pd.DataFrame] | None = None,
    worth: pd.DataFrame | None = None,
) -> Any:
    """The figure of a view: `others` are all finished scans by title for the heat map, `worth` is the table of
    `value_map`. Raises `DataError` with what is missing."""
    if view == "heat":
        flat = {title: one for title, one in (others or {}).items() if not several(one)}
        if not flat:
            raise DataError("No finished scan has one row for each layer.", do="wait for one, or start one")
        return heat(flat, theme)
    if view == "value":
        if worth is None:
            raise DataError(
                "Layers have not been timed for this technique.", do="choose a runtime and press Time layers"
            )
        return value(worth, theme)
    if view == "lines":
        return curve_lines(scan, theme)
    if view == "grid":
        return curve_heat(scan, theme)
    return bars(scan, theme, keep=keep)


def scan_table(scan: pd.DataFrame) -> pd.DataFrame:
    """A scan as text: layer, rank, score with its interval and unit, size, and what was odd."""
    unit = str(scan.attrs.get("unit", ""))
    rows = []
    for row in scan.to_dict("records"):
        shown = {"Layer": row["layer"]}
        if several(scan):
            shown["Zeros"] = f"{row['sparsity']:.0%}"
        shown |= {
            "Rank": row["rank"],
            f"Score{f' ({unit})' if unit else ''}": score_text(row["score"], row["score_low"], row["score_high"]),
            "Parameters": f"{row['parameters']:,}",
            "MACs": amount(row["macs"] / 1e6, "M") if row["macs"] is not None else "",
            "Note": row.get("note") or "",
        }
        rows.append(shown)
    return pd.DataFrame(rows, dtype=object)


def score_text(score: float, low: float, high: float) -> str:
    """`0.0123 [0.0101, 0.0150]`, with three digits; words where there is no number."""
    if score is None or np.isnan(score):
        return "no number"
    inside = "" if low is None or np.isnan(low) or low == high else f" [{low:.3g}, {high:.3g}]"
    return f"{score:.3g}{inside}".replace("-", "−")


def most_sensitive(scan: pd.DataFrame, count: int) -> list[str]:
    """The first `count` layers by rank; of pruning curves at the largest sparsity."""
    one = scan[scan["sparsity"] == scan["sparsity"].max()] if several(scan) and len(scan) else scan
    return [str(name) for name in one.sort_values("rank", kind="stable")["layer"].head(max(count, 0))]
