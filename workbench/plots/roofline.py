"""The roofline: what the machine can do at most, and how near each layer comes to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from workbench.errors import DataError
from workbench.measure.peak import Peaks
from workbench.plots.markup import escape, hover_lines
from workbench.plots.sensitivity import short_names
from workbench.plots.theme import LOG, template
from workbench.plots.theme import theme as find_theme

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross")


def roofline_figure(found: Mapping[str, pd.DataFrame], peaks: Peaks, theme: str = "light") -> Any:
    """Operations a second against operations a byte, both logarithmic: a roof for each precision, a point for each
    layer. `found`: title -> table of `workbench.sensitivity.roofline.roofline`; raises `DataError` for none.
    """
    import plotly.graph_objects as go

    if not found:
        raise DataError("There is no table to draw.", do="give at least one")
    look = find_theme(theme)
    shown = pd.concat(found.values())
    low, high = float(shown.intensity.min()) / 4, float(shown.intensity.max()) * 4
    across = np.geomspace(low, high, 200)
    figure = go.Figure(layout={"template": template(theme), "height": 440})
    for i, (kind, most) in enumerate(peaks.operations.items()):
        line = {"color": look.muted, "width": 1.5, "dash": ("solid", "dash", "dot", "dashdot")[i % 4]}
        roof = np.minimum(most, peaks.memory * across)
        figure.add_trace(
            go.Scatter(x=across, y=roof, mode="lines", name=f"roof of {escape(kind)}", line=line, hoverinfo="skip")
        )
    for i, (title, table) in enumerate(found.items()):
        names = short_names(list(table.layer))
        hover = [
            "<br>".join([f"<b>{names[row['layer']]}</b>", f"{row['gops']:.3g} Gop/s, {row['share']:.0%} of its roof",
                         f"{row['intensity']:.3g} operations a byte", f"bound by {row['bound']}"])
            for row in table.to_dict("records")
        ]  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=table.intensity, y=table.gops, mode="markers", name=" ".join(hover_lines(title)), hovertext=hover,
                hoverinfo="text", customdata=list(table.layer),
                marker={"size": 10, "color": look.runtimes[i % len(look.runtimes)], "opacity": 0.8,
                        "symbol": _SYMBOLS[i % len(_SYMBOLS)]},
            )
        )  # fmt: skip
    figure.update_xaxes(**LOG, title={"text": "Operations for each byte that must be moved"})
    figure.update_yaxes(**LOG, title={"text": "Billion operations a second"})
    return figure
