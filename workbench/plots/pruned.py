"""What pruning left: corners of masks side by side, and how much of each layer is still there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from workbench.errors import DataError
from workbench.plots.markup import escape
from workbench.plots.sensitivity import short_names
from workbench.plots.theme import template
from workbench.plots.theme import theme as find_theme


def mask_corners(masks: Mapping[str, Any], theme: str = "light", *, size: int = 32) -> Any:
    """The first `size` outputs and inputs of some masks, (outputs, inputs), True where a weight is zero.

    `masks`: title -> mask, such as those in `Draft.masks`. Raises `DataError` for none.
    """
    from plotly.subplots import make_subplots

    if not masks:
        raise DataError("There is no mask to draw.", do="apply a technique that prunes first")
    look = find_theme(theme)
    titles = [f"{escape(title)}: {np.asarray(mask).mean():.0%} zeros" for title, mask in masks.items()]
    figure = make_subplots(1, len(masks), subplot_titles=titles, horizontal_spacing=0.04)
    for column, mask in enumerate(masks.values(), 1):
        corner = np.asarray(mask)[:size, :size].astype(int)
        figure.add_heatmap(
            z=corner, row=1, col=column, showscale=False, zmin=0, zmax=1, xgap=1, ygap=1,
            colorscale=[[0, look.runtimes[0]], [1, look.grid]],
            hovertemplate="output %{y}, input %{x}<extra></extra>",
        )  # fmt: skip
        figure.update_yaxes(row=1, col=column, autorange="reversed", scaleanchor=f"x{column}" if column > 1 else "x")
    figure.update_xaxes(constrain="domain", title={"text": "input"})
    figure.update_yaxes(constrain="domain", title={"text": "output"}, col=1)
    figure.update_layout(template=template(theme), height=340, margin={"t": 40})
    figure.update_annotations(font={"size": 12, "color": look.text})
    return figure


def left_table(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """`layer`, `before` and `after` (weights), and `left` (their ratio), one row per layer of the uncompressed model.

    Both tables are of `workbench.reading.layer_table`; a layer that was removed has 0 weights after. Weights at zero
    count: what is masked is still there.
    """
    now = after.groupby("origin")["parameters"].sum()
    found = before[["layer", "parameters"]].rename(columns={"parameters": "before"})
    found["after"] = found.layer.map(now).fillna(0)
    found["left"] = found.after / found.before
    return found.reset_index(drop=True)


def layers_left(before: pd.DataFrame, after: Mapping[str, pd.DataFrame], theme: str = "light") -> Any:
    """Bars of `left_table`, one colour for each compressed model. `after`: title -> layer table."""
    import plotly.graph_objects as go

    look, names = find_theme(theme), short_names(list(before.layer))
    legend = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    figure = go.Figure(layout={"template": template(theme), "height": 380, "barmode": "group", "legend": legend})
    for i, (title, table) in enumerate(after.items()):
        found = left_table(before, table)
        figure.add_bar(
            x=[names[layer] for layer in found.layer], y=found.left, name=escape(title), customdata=list(found.layer),
            marker={"color": look.runtimes[i % len(look.runtimes)]}, hovertemplate="%{customdata}: %{y:.0%}",
            showlegend=True,
        )  # fmt: skip
    figure.update_yaxes(title={"text": "Share of the weights left"}, tickformat=".0%")
    figure.update_xaxes(tickangle=-60, tickfont={"size": 10}, dtick=1)
    return figure
