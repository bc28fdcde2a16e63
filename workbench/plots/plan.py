"""A precision plan as a strip: one cell per layer, coloured by the precision that it runs in, one row per recipe."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from workbench.draft import PRECISIONS
from workbench.plots.sensitivity import short_names
from workbench.plots.theme import Theme, template
from workbench.plots.theme import theme as find_theme

#: What an effect may call a layer beside the precisions of a plan.
_KINDS = (*PRECISIONS, "int8")


def strip_data(plans: Mapping[str, Mapping[str, str]], layers: Sequence[str] = ()) -> list[tuple[str, str, str]]:
    """(plan, layer, precision) for every plan and layer, in order; '' where a plan says nothing of a layer.

    `plans`: title -> precision by layer, such as a trial's `in_effect["layers"]`; `layers`: all layers in order.
    """
    names = list(layers) or list(dict.fromkeys(name for plan in plans.values() for name in plan))
    return [(title, name, plan.get(name, "")) for title, plan in plans.items() for name in names]


def strip(plans: Mapping[str, Mapping[str, str]], theme: str = "light", *, layers: Sequence[str] = ()) -> Any:
    """The figure of `strip_data`: layers from left to right, plans from top to bottom."""
    import plotly.graph_objects as go

    data, look = strip_data(plans, layers), find_theme(theme)
    names = list(dict.fromkeys(layer for _, layer, _ in data))
    short, colours = short_names(names), kind_colours(look)
    titles = [html.escape(title) for title in plans]
    figure = go.Figure(layout={"template": template(theme), "barmode": "stack", "bargap": 0.25})
    shown: set[str] = set()
    for title, layer, kind in data:
        figure.add_trace(
            go.Bar(
                x=[1], y=[html.escape(title)], base=[names.index(layer)], orientation="h", width=0.8,
                name=html.escape(kind or "not there"), legendgroup=kind, showlegend=kind not in shown,
                customdata=[layer], hovertext=f"<b>{html.escape(layer)}</b><br>{html.escape(kind or 'not there')}",
                hoverinfo="text", offset=-0.4,
                marker={"color": colours.get(kind, look.grid), "line": {"color": look.panel, "width": 1}},
            )
        )  # fmt: skip
        shown.add(kind)
    # Beside a low figure a legend would have to be scrolled.
    legend = {"title": {"text": "<b>Precision</b> "}, "orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    figure.update_layout(height=190 + 34 * max(len(titles), 1), legend=legend)
    ticks = [i + 0.5 for i in range(len(names))]
    figure.update_xaxes(tickvals=ticks, ticktext=[short[name] for name in names], tickangle=-60, tickfont={"size": 10})
    figure.update_yaxes(autorange="reversed", categoryorder="array", categoryarray=titles)
    return figure


def kind_colours(look: Theme) -> dict[str, str]:
    """A colour by precision, floats in greys and the first hue, integers in the rest."""
    order = ("bf16", "int8_static", "int8_dynamic", "int8_weight", "int4_weight", "fp16")
    found = {kind: look.runtimes[i % len(look.runtimes)] for i, kind in enumerate(order)}
    return {"fp32": look.muted, **found, "int8": found["int8_static"]} | {
        kind: look.muted for kind in _KINDS if kind not in found and kind not in ("fp32", "int8")
    }
