"""Score against cost: which trials are worth having, and how sure that is.

`pareto_data` (from `workbench.plots.front`) is plain data, `pareto` draws it: colour is the runtime, the symbol the
set of techniques. The split into data and drawing is Optuna's. Left out: three dimensions, animation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from workbench.plots.front import AXES, ParetoData, Point, front_of, hover, pareto_data
from workbench.plots.theme import Theme, runtime_colours, technique_symbols, template
from workbench.plots.theme import theme as find_theme
from workbench.tuning.goal import Goal

__all__ = ["AXES", "ParetoData", "Point", "front_of", "hover", "pareto", "pareto_data"]


def pareto(
    frame: pd.DataFrame,
    goal: Goal | None = None,
    theme: str = "light",
    x: str = "speedup",
    *,
    focus: bool = False,
    selected: int | None = None,
) -> Any:
    """The figure: a plotly `Figure` of `pareto_data`.

    Colour is the runtime, the symbol the set of techniques; dominated trials are faded; the shaded band is where a
    speed-up cannot be told from none. `focus` shows only the heights from the goal upwards; `selected` rings a trial.
    """
    import plotly.graph_objects as go

    data, look = pareto_data(frame, goal, x), find_theme(theme)
    figure = go.Figure(layout={"template": template(theme), **_layout(data, look)})
    figure.add_traces(_traces(data, look, selected))
    if data.band:
        _draw_band(figure, data.band, look)
    if data.goal is not None:
        figure.add_hline(y=data.goal, line={"color": look.goal, "width": 1.5, "dash": "dash"})
        figure.add_annotation(
            text="goal", x=1, xref="paper", y=data.goal, yanchor="bottom", xanchor="right", showarrow=False,
            font={"color": look.goal, "size": 12},
        )  # fmt: skip
    # A live figure keeps a person's zoom until something else is asked for.
    figure.update_layout(uirevision=f"{x} {focus}")
    if focus:
        _focus(figure, data, look)
    return figure


def _layout(data: ParetoData, look: Theme) -> dict[str, Any]:
    legend = {"x": 1.01, "xanchor": "left", "bgcolor": "rgba(0,0,0,0)", "tracegroupgap": 0}
    note = f"{data.failed} trial{'s' * (data.failed != 1)} gave no measurement: see the list" if data.failed else ""
    return {
        "xaxis": {"title": {"text": data.x_title}},
        # The better score is always above.
        "yaxis": {"title": {"text": data.y_title}, "autorange": True if data.more_is_better else "reversed"},
        "height": 440,
        "hovermode": "closest",
        "clickmode": "event",
        "legend": {**legend, "y": 1, "yanchor": "top", "title": {"text": "<b>Runtime</b>"}},
        # The second legend only explains: hiding a symbol would have to cut through every runtime's trace.
        "legend2": {
            **legend,
            "y": 0,
            "yanchor": "bottom",
            "title": {"text": "<b>Techniques</b>", "font": {"size": 12}},
            "itemclick": False,
            "itemdoubleclick": False,
        },
        "annotations": [
            {
                "text": note, "x": 0, "y": 1, "xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom",
                "showarrow": False, "font": {"color": look.muted, "size": 12},
            }
        ],
    }  # fmt: skip


def _traces(data: ParetoData, look: Theme, selected: int | None) -> list[Any]:
    """The front's line, then for each runtime the dominated and the front's points, the baseline, the symbols' key."""
    import plotly.graph_objects as go

    colours = runtime_colours((p.runtime for p in data.points), look)
    symbols = technique_symbols(p.techniques for p in data.points)
    on_front = sorted((p for p in data.points if p.front), key=lambda p: p.x)
    traces = [
        go.Scatter(
            x=[p.x for p in on_front], y=[p.y for p in on_front], mode="lines", name="Pareto front", hoverinfo="skip",
            line={"color": look.front, "width": 1.5, "dash": "dot"},
        )
    ]  # fmt: skip
    for runtime in sorted({p.runtime for p in data.points}):
        traces.append(_key(runtime, "circle", colours[runtime], legendgroup=runtime))
        for front in (False, True):
            group = [p for p in data.points if p.runtime == runtime and p.front == front and not p.baseline]
            if group:
                traces.append(_cloud(group, front, colours[runtime], symbols, look))
    traces += [_baseline(p, colours[p.runtime], look) for p in data.points if p.baseline]
    traces.append(_ring(next((p for p in data.points if p.number == selected), None), look))
    for names in sorted({p.techniques for p in data.points if not p.baseline}, key=lambda names: (len(names), names)):
        traces.append(_key(" + ".join(names) or "none (fp32)", symbols[names], look.muted, legend="legend2"))
    return traces


def _key(name: str, symbol: str, colour: str, **where: str) -> Any:
    """An entry of a legend, without a point."""
    import plotly.graph_objects as go

    marker = {"symbol": symbol, "size": 9, "color": colour}
    return go.Scatter(x=[None], y=[None], mode="markers", name=name, marker=marker, **where)


def _cloud(points: list[Point], front: bool, colour: str, symbols: Mapping[tuple, str], look: Theme) -> Any:
    """One runtime's points, on the front or behind it. `customdata` is the trial's number, for clicks."""
    import plotly.graph_objects as go

    return go.Scatter(
        x=[p.x for p in points],
        y=[p.y for p in points],
        error_x=_bars([p.x for p in points], [p.x_low for p in points], [p.x_high for p in points], colour),
        error_y=_bars([p.y for p in points], [p.y_low for p in points], [p.y_high for p in points], colour),
        mode="markers+text" if front else "markers",
        text=[f"#{p.number}" for p in points] if front else None,
        textposition="top right",
        textfont={"color": look.text, "size": 12},
        customdata=[p.number for p in points],
        hovertext=[p.hover for p in points],
        hoverinfo="text",
        name=points[0].runtime,
        legendgroup=points[0].runtime,
        showlegend=False,
        opacity=1.0 if front else 0.45,
        marker={
            "symbol": [symbols[p.techniques] for p in points],
            "size": 13 if front else 10,
            "color": colour,
            "line": {"color": look.front if front else colour, "width": 1},
        },
    )


def _baseline(point: Point, colour: str, look: Theme) -> Any:
    import plotly.graph_objects as go

    return go.Scatter(
        x=[point.x], y=[point.y], mode="markers+text", name=f"baseline ({point.runtime} FP32)", text=["baseline"],
        textposition="bottom right", textfont={"color": look.muted, "size": 12}, customdata=[point.number],
        hovertext=[point.hover], hoverinfo="text",
        marker={"symbol": "star-diamond", "size": 15, "color": colour, "line": {"color": look.text, "width": 1.5}},
    )  # fmt: skip


def _ring(point: Point | None, look: Theme) -> Any:
    """The mark of the selected trial; always there, so that a live figure can move it."""
    import plotly.graph_objects as go

    return go.Scatter(
        x=[point.x if point else None], y=[point.y if point else None], mode="markers", name="selected",
        showlegend=False, hoverinfo="skip",
        marker={"symbol": "circle-open", "size": 26, "color": look.text, "line": {"width": 2.5}},
    )  # fmt: skip


def _bars(values: list[float], lows: list[float], highs: list[float], colour: str) -> dict[str, Any]:
    """Asymmetric error bars; an unknown end has none."""

    def length(a: float, b: float) -> float:
        return max(a - b, 0.0) if math.isfinite(a - b) else 0.0

    up = [length(high, value) for value, high in zip(values, highs, strict=True)]
    down = [length(value, low) for value, low in zip(values, lows, strict=True)]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "color": colour, "thickness": 1.2}


def _draw_band(figure: Any, band: tuple[float, float], look: Theme) -> None:
    figure.add_vrect(x0=band[0], x1=band[1], fillcolor=look.band, line_width=0, layer="below")
    figure.add_annotation(
        text="no difference (A/A run)", x=band[1], y=0.01, yref="paper", textangle=-90, xanchor="left",
        yanchor="bottom", showarrow=False, font={"color": look.muted, "size": 11},
    )  # fmt: skip


def _focus(figure: Any, data: ParetoData, look: Theme) -> None:
    """Show the heights that matter for the goal, and say how many trials lie below."""
    goal = [] if data.goal is None else [data.goal]
    sign = 1 if data.more_is_better else -1
    wanted = [p.y for p in data.points if p.baseline or (p.front and (not goal or sign * p.y >= sign * goal[0]))]
    wanted += goal
    if not wanted:
        return
    low, high = min(wanted), max(wanted)
    room = max(0.35 * (high - low), 0.2)
    figure.update_yaxes(range=[low - room, high + room][::sign], autorange=False)
    below = sum(p.y < low - room if sign > 0 else p.y > high + room for p in data.points)
    if below:
        figure.add_annotation(
            text=f"{below} more below ↓", x=1, y=0, xref="paper", yref="paper", xanchor="right", yanchor="bottom",
            showarrow=False, font={"color": look.muted, "size": 12},
        )  # fmt: skip
