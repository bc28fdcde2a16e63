"""Why a layer is sensitive, as a figure: its weight and input, by value and by channel, with their grids."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from workbench.errors import DataError
from workbench.plots.theme import LOG, Theme, template
from workbench.plots.theme import theme as find_theme
from workbench.sensitivity.histogram import Distribution

_TITLES = {"weight": ("Weight", "output"), "input": ("Input", "input channel")}


def words(one: Distribution) -> str:
    """What the grid does to a distribution, in one line."""
    if not one.steps:
        return "stays in float" if one.what == "weight" else "no range is fixed before the model runs"
    scales = f"scale {one.scale[0]:.3g}" if len(one.scale) == 1 else f"{len(one.scale)} scales"
    middle = f"the middle half of all values lies on {one.used:.1f} of {one.steps} steps"
    zero = f", zero point {one.zero}" if one.what == "input" else ""
    return f"{scales}{zero}; {100 * one.clipped:.2g}% is cut off; {middle}"


def distribution(found: Sequence[Distribution], theme: str = "light") -> Any:
    """Weight and input of one layer: histograms above with the grid's ends, ranges by channel below.

    Raises `DataError` where `found` is of no layer, or of several.
    """
    from plotly.subplots import make_subplots

    if len({one.layer for one in found}) != 1:
        raise DataError("A figure of distributions is of one layer.", do="pass those of one layer: d.layer == name")
    look = find_theme(theme)
    # One line would be as wide as both.
    titles = [f"{_TITLES[one.what][0]}: {words(one).replace('; ', '<br>')}" for one in found]
    below = [f"by {_TITLES[one.what][1]}" for one in found]
    figure = make_subplots(2, len(found), subplot_titles=[*titles, *below], vertical_spacing=0.16)
    for column, one in enumerate(found, 1):
        figure.add_trace(_histogram(one, look), 1, column)
        for trace in _channels(one, look):
            figure.add_trace(trace, 2, column)
        for end in (one.low, one.high):
            if np.isfinite(end):
                figure.add_vline(x=end, line={"color": look.goal, "dash": "dash", "width": 1.5}, row=1, col=column)
                figure.add_hline(y=end, line={"color": look.goal, "dash": "dash", "width": 1.5}, row=2, col=column)
        figure.update_yaxes(**LOG, row=1, col=column)
    figure.update_layout(template=template(theme), height=600, showlegend=False, bargap=0)
    figure.update_layout(title={"text": html.escape(found[0].layer), "font": {"size": 14}}, margin={"t": 120})
    figure.update_annotations(font={"size": 11, "color": look.muted})
    return figure


def _histogram(one: Distribution, look: Theme) -> Any:
    import plotly.graph_objects as go

    centres = (one.edges[:-1] + one.edges[1:]) / 2
    return go.Bar(x=centres, y=one.counts, marker={"color": look.runtimes[0], "line": {"width": 0}}, name=one.what)


def _channels(one: Distribution, look: Theme) -> list[Any]:
    """The least and the largest value of every channel, and a line at three standard deviations."""
    import plotly.graph_objects as go

    place = np.arange(len(one.channel_low))
    dot = {"size": 3, "color": look.runtimes[0]}
    ends = [
        go.Scatter(x=place, y=values, mode="markers", marker=dot, name=name)
        for values, name in ((one.channel_low, "least"), (one.channel_high, "largest"))
    ]
    line = {"color": look.runtimes[1], "width": 1}
    return [*ends, go.Scatter(x=place, y=3 * one.channel_deviation, mode="lines", line=line, name="3 sigma")]
