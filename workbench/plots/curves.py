"""Pruning curves as figures: a heat map of layer by sparsity, and a line for each layer."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import pandas as pd

from workbench.errors import DataError
from workbench.plots.sensitivity import scale, short_names
from workbench.plots.theme import LOG, template
from workbench.plots.theme import theme as find_theme


def curve_table(found: pd.DataFrame) -> pd.DataFrame:
    """Scores as layers by sparsities, from `workbench.sensitivity.curves.curves`; raises `DataError` for another
    table."""
    if "sparsity" not in found.columns:
        raise DataError("This is no table of pruning curves.", do="make one with curves(task)")
    table = found.pivot_table(index="layer", columns="sparsity", values="score", sort=False, dropna=False)
    return table.reindex(found.layer.unique()).sort_index(axis=1)


def curve_heat(found: pd.DataFrame, theme: str = "light") -> Any:
    """Layer by sparsity, coloured by the logarithm of the score."""
    import plotly.graph_objects as go

    table, look = curve_table(found), find_theme(theme)
    values = table.to_numpy(dtype=float)
    positive = values[np.isfinite(values) & (values > 0)]
    least = float(positive.min()) if positive.size else 1.0
    names = short_names(list(table.index))
    hover = [
        [
            f"<b>{html.escape(layer)}</b><br>{share:.0%} zeros: {'no number' if np.isnan(v) else f'{v:.3g}'}"
            for share, v in zip(table.columns, row, strict=True)
        ]
        for layer, row in zip(table.index, values, strict=True)
    ]
    trace = go.Heatmap(
        z=np.log10(np.maximum(values, least)), x=[f"{share:.0%}" for share in table.columns],
        y=[names[layer] for layer in table.index], hovertext=hover, hoverinfo="text", colorscale=scale(look), xgap=1,
        ygap=1, colorbar={"title": {"text": "log10 score"}},
    )  # fmt: skip
    figure = go.Figure(trace, layout={"template": template(theme), "height": 110 + 17 * max(len(table), 4)})
    figure.update_xaxes(title={"text": "Share of zeros"}, type="category")
    figure.update_yaxes(autorange="reversed", tickfont={"size": 11}, dtick=1)
    return figure


def curve_lines(found: pd.DataFrame, theme: str = "light", *, named: int = 6) -> Any:
    """A line for each layer; the `named` most sensitive ones at the largest sparsity have a colour and a name."""
    import plotly.graph_objects as go

    table, look = curve_table(found), find_theme(theme)
    names, last = short_names(list(table.index)), table.iloc[:, -1].fillna(np.inf)
    worst = list(last.sort_values(ascending=False, kind="stable").index[:named])
    figure = go.Figure(layout={"template": template(theme), "height": 440})
    for layer in [*(layer for layer in table.index if layer not in worst), *worst]:
        place = worst.index(layer) if layer in worst else None
        colour = look.grid if place is None else look.runtimes[place % len(look.runtimes)]
        figure.add_trace(
            go.Scatter(
                x=list(table.columns), y=table.loc[layer], mode="lines" if place is None else "lines+markers",
                name=names[layer], showlegend=place is not None, hovertext=html.escape(layer), hoverinfo="text+x+y",
                line={"color": colour, "width": 1.2 if place is None else 2},
            )
        )  # fmt: skip
    figure.update_xaxes(title={"text": "Share of zeros"}, tickformat=".0%")
    positive = bool((table.fillna(1.0) > 0).all(axis=None))
    figure.update_yaxes(
        title={"text": html.escape(str(found.attrs.get("title", "score")))}, **(LOG if positive else {"type": "linear"})
    )
    return figure
