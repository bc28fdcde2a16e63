"""Score against cost: which trials are worth having, and how sure that is.

`pareto_data` (from `workbench.plots.front`) is plain data, `pareto` draws it: colour is the runtime, the symbol the
set of techniques. The split into data and drawing is Optuna's. `drawn` is the same figure as plain JSON, without
plotly's checks of every number, for a figure that is drawn again at each touch. Left out: three dimensions, animation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from workbench.plots.front import AXES, ParetoData, Point, front_of, hover, pareto_data
from workbench.plots.markup import hover_lines
from workbench.plots.theme import Theme, runtime_colours, technique_symbols, template
from workbench.plots.theme import theme as find_theme
from workbench.tuning.goal import Goal

__all__ = ["AXES", "ParetoData", "Point", "drawn", "front_of", "hover", "pareto", "pareto_data"]

#: From so many points on they are drawn by the graphics card: as SVG, thousands of error bars take seconds.
MANY = 500
#: Pixels for both legends, and of a line in the first and the second one; sets of techniques for which there is no room
#: are told by the hover.
_ROOM, _LINE, _WRAPPED = 368, 19, 14
#: How far intervals may stretch an axis beyond the outermost points, as a share of what the points span.
_STRETCH = 1.0


def pareto(
    frame: pd.DataFrame,
    goal: Goal | None = None,
    theme: str = "light",
    x: str = "speedup",
    *,
    y: str = "accuracy",
    focus: bool = False,
    selected: int | None = None,
) -> Any:
    """The figure: a plotly `Figure` of `pareto_data`.

    Colour is the runtime, the symbol the set of techniques; dominated trials are faded; the shaded band is where a
    speed-up cannot be told from none. `focus` shows only the heights from the goal upwards; `selected` rings a trial.
    """
    import plotly.graph_objects as go

    made = drawn(pareto_data(frame, goal, x, y), find_theme(theme), focus=focus, selected=selected, many=math.inf)
    made["layout"]["uirevision"] = f"{x} {focus}"
    return go.Figure(data=made["data"], layout={"template": template(theme), **made["layout"]})


def drawn(
    data: ParetoData,
    look: Theme,
    *,
    focus: bool = False,
    selected: int | None = None,
    pinned: Collection[int] = (),
    best: Point | None = None,
    bound: float | None = None,
    symbols: Mapping[tuple[str, ...], str] | None = None,
    many: float = MANY,
) -> dict[str, Any]:
    """`{"data": …, "layout": …}` of the figure. `best` is marked, `pinned` trials are boxed, `bound` is a line across;
    `symbols` by set of techniques stay the same whatever is shown."""
    symbols = symbols or technique_symbols(p.techniques for p in data.points)
    layout = _layout(data, look)
    shapes, notes = layout["shapes"], layout["annotations"]
    if data.band:
        _draw_band(shapes, notes, data.band, look)
    if data.goal is not None:
        shapes.append(_line(look, y0=data.goal, y1=data.goal, x0=0, x1=1, xref="x domain"))
        notes.append(_note("goal", look.goal, 12, x=1, xref="paper", y=data.goal, yanchor="bottom", xanchor="right"))
    if bound is not None:
        shapes.append(_line(look, x0=bound, x1=bound, y0=0, y1=1, yref="y domain"))
    # A live figure keeps a person's zoom until something else is asked for.
    layout["uirevision"] = f"{data.x_title} {data.y_title} {focus}"
    if focus:
        _focus(layout, data, look)
    traces = _traces(data, look, symbols, "scattergl" if len(data.points) > many else "scatter")
    traces += _marks(data, look, selected, pinned, best)
    return {"data": traces + _explained(data, symbols, look), "layout": layout}


def _layout(data: ParetoData, look: Theme) -> dict[str, Any]:
    legend = {"x": 1.01, "xanchor": "left", "bgcolor": "rgba(0,0,0,0)", "tracegroupgap": 0}
    note = f"{data.failed} trial{'s' * (data.failed != 1)} gave no measurement: see the list" if data.failed else ""
    where = {"x": 0, "y": 1, "xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom"}
    return {
        "xaxis": {"title": {"text": data.x_title}, **_clipped([p.x for p in data.points])},
        # The better score is always above.
        "yaxis": {
            "title": {"text": data.y_title},
            "autorange": True if data.more_is_better else "reversed",
            **_clipped([p.y for p in data.points]),
        },
        "height": 440,
        "hovermode": "closest",
        "clickmode": "event",
        "legend": {**legend, "y": 1, "yanchor": "top", "title": {"text": "<b>Runtime</b>"}},
        # The second legend only explains: hiding a symbol would have to cut through every runtime's trace.
        "legend2": {
            **legend,
            "y": 0,
            "yanchor": "bottom",
            "font": {"size": 11},
            "title": {"text": "<b>Techniques</b>", "font": {"size": 12}},
            "itemclick": False,
            "itemdoubleclick": False,
        },
        "shapes": [],
        "annotations": [_note(note, look.muted, 12, **where)],
    }


def _clipped(values: list[float]) -> dict[str, Any]:
    """Ends of an axis that no interval goes beyond: one wide interval would squeeze all points together."""
    known = [value for value in values if math.isfinite(value)]
    room = _STRETCH * (max(known) - min(known)) if known else 0.0
    return {"autorangeoptions": {"clipmin": min(known) - room, "clipmax": max(known) + room}} if room else {}


def _note(text: str, colour: str, size: int, **where: Any) -> dict[str, Any]:
    return {"text": text, "showarrow": False, "font": {"color": colour, "size": size}, **where}


def _line(look: Theme, **where: Any) -> dict[str, Any]:
    """A dashed line over the whole plot, in the colour of goals."""
    return {"type": "line", "line": {"color": look.goal, "width": 1.5, "dash": "dash"}, **where}


def _traces(data: ParetoData, look: Theme, symbols: Mapping[tuple, str], kind: str) -> list[dict[str, Any]]:
    """The front's line, then for each runtime the dominated and the front's points, and the baseline."""
    colours = runtime_colours((p.runtime for p in data.points), look)
    on_front = sorted((p for p in data.points if p.front), key=lambda p: p.x)
    line = {
        "type": "scatter",
        "x": [p.x for p in on_front],
        "y": [p.y for p in on_front],
        "mode": "lines",
        "name": "Pareto front",
        "hoverinfo": "skip",
        "line": {"color": look.front, "width": 1.5, "dash": "dot"},
    }
    groups: dict[tuple[str, bool], list[Point]] = {}
    for point in data.points:
        if not point.baseline:
            groups.setdefault((point.runtime, point.front), []).append(point)
    traces = [line]
    for runtime in sorted({p.runtime for p in data.points}):
        traces.append(_key(runtime, "circle", colours[runtime], legendgroup=runtime))
        for front in (False, True):
            group = groups.get((runtime, front))
            if group:
                # The few of the front keep their labels, which the graphics card draws badly.
                traces.append(_cloud(group, front, colours[runtime], symbols, look, "scatter" if front else kind))
    return traces + [_baseline(p, colours[p.runtime], look) for p in data.points if p.baseline]


def _key(name: str, symbol: str, colour: str, **where: str) -> dict[str, Any]:
    """An entry of a legend, without a point."""
    marker = {"symbol": symbol, "size": 9, "color": colour}
    return {"type": "scatter", "x": [None], "y": [None], "mode": "markers", "name": name, "marker": marker, **where}


def _explained(data: ParetoData, symbols: Mapping[tuple, str], look: Theme) -> list[dict[str, Any]]:
    """The second legend: the sets of techniques that occur most and find room under the first one, by size and name."""
    counted = Counter(p.techniques for p in data.points if not p.baseline)
    first = 2 + len({p.runtime for p in data.points}) + sum(p.baseline for p in data.points)
    room, often = _ROOM - first * _LINE - 2 * _LINE, []
    for names, _ in counted.most_common():
        lines = hover_lines(" + ".join(names) or "none (fp32)", 28)
        room -= _LINE + _WRAPPED * (len(lines) - 1)
        if room < 0:
            break
        often.append((names, "<br>".join(lines)))
    keys = [
        _key(words, symbols[names], look.muted, legend="legend2")
        for names, words in sorted(often, key=lambda pair: (len(pair[0]), pair[0]))
    ]
    if len(counted) > len(often):
        more = len(counted) - len(often)
        words = f"and {more} more set{'s' * (more > 1)}"
        keys.append(_key(words, "circle", "rgba(0,0,0,0)", legend="legend2"))
    return keys


def _cloud(
    points: list[Point], front: bool, colour: str, symbols: Mapping[tuple, str], look: Theme, kind: str
) -> dict[str, Any]:
    """One runtime's points, on the front or behind it. `customdata` is the trial's number, for clicks."""
    found = {
        "type": kind,
        "x": [p.x for p in points],
        "y": [p.y for p in points],
        "mode": "markers+text" if front else "markers",
        "customdata": [p.number for p in points],
        "hovertext": [p.hover for p in points],
        "hoverinfo": "text",
        "name": points[0].runtime,
        "legendgroup": points[0].runtime,
        "showlegend": False,
        "opacity": 1.0 if front else 0.45,
        "marker": {
            "symbol": [symbols[p.techniques] for p in points],
            "size": 13 if front else 7 if kind == "scattergl" else 10,
            "color": colour,
            "line": {"color": look.front if front else colour, "width": 1},
        },
    }
    across = ([p.x for p in points], [p.x_low for p in points], [p.x_high for p in points])
    upright = ([p.y for p in points], [p.y_low for p in points], [p.y_high for p in points])
    # Thousands of bars on each other say nothing: then those of the front only, and the hover tells the others.
    if kind != "scattergl":
        bars = {"error_x": _bars(*across, colour), "error_y": _bars(*upright, colour)}
        found |= {name: each for name, each in bars.items() if each}
    if front:
        found |= {"text": [f"#{p.number}" for p in points], "textposition": "top right"}
        found["textfont"] = {"color": look.text, "size": 12}
    return found


def _baseline(point: Point, colour: str, look: Theme) -> dict[str, Any]:
    return {
        "type": "scatter",
        "x": [point.x],
        "y": [point.y],
        "mode": "markers+text",
        "name": f"baseline ({point.runtime} FP32)",
        "text": ["baseline"],
        "textposition": "bottom right",
        "textfont": {"color": look.muted, "size": 12},
        "customdata": [point.number],
        "hovertext": [point.hover],
        "hoverinfo": "text",
        "marker": {"symbol": "star-diamond", "size": 15, "color": colour, "line": {"color": look.text, "width": 1.5}},
    }


def _marks(
    data: ParetoData, look: Theme, selected: int | None, pinned: Collection[int], best: Point | None
) -> list[dict[str, Any]]:
    """What is set off: the selected trial, the pinned ones, the best within the limits. Always there, so that a live
    figure can move them."""
    chosen = [p for p in data.points if p.number == selected]
    boxed = [p for p in data.points if p.number in pinned]
    return [
        _mark("selected", chosen, "circle-open", 26, look.text, 2.5),
        _mark("pinned", boxed, "square-open", 24, look.text, 1.5),
        _mark("best within the limits", [best] if best else [], "diamond-open", 28, look.goal, 2.5),
    ]


def _mark(name: str, points: list[Point], symbol: str, size: int, colour: str, width: float) -> dict[str, Any]:
    return {
        "type": "scatter",
        "x": [p.x for p in points] or [None],
        "y": [p.y for p in points] or [None],
        "mode": "markers",
        "name": name,
        "showlegend": False,
        "hoverinfo": "skip",
        "marker": {"symbol": symbol, "size": size, "color": colour, "line": {"width": width}},
    }


def _bars(values: list[float], lows: list[float], highs: list[float], colour: str) -> dict[str, Any] | None:
    """Asymmetric error bars; an unknown end has none, and None where none is known."""

    def length(a: float, b: float) -> float:
        return max(a - b, 0.0) if math.isfinite(a - b) else 0.0

    up = [length(high, value) for value, high in zip(values, highs, strict=True)]
    down = [length(value, low) for value, low in zip(values, lows, strict=True)]
    if not any(up) and not any(down):
        return None
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "color": colour, "thickness": 1.2}


def _draw_band(shapes: list[Any], notes: list[Any], band: tuple[float, float], look: Theme) -> None:
    across = {"x0": band[0], "x1": band[1], "y0": 0, "y1": 1, "yref": "y domain"}
    shapes.append({"type": "rect", "fillcolor": look.band, "line": {"width": 0}, "layer": "below", **across})
    where = {"x": band[1], "y": 0.01, "yref": "paper", "textangle": -90, "xanchor": "left", "yanchor": "bottom"}
    notes.append(_note("no difference (A/A run)", look.muted, 11, **where))


def _focus(layout: dict[str, Any], data: ParetoData, look: Theme) -> None:
    """Show the heights that matter for the goal, and say how many trials lie below."""
    goal = [] if data.goal is None else [data.goal]
    sign = 1 if data.more_is_better else -1
    wanted = [p.y for p in data.points if p.baseline or (p.front and (not goal or sign * p.y >= sign * goal[0]))]
    wanted += goal
    if not wanted:
        return
    low, high = min(wanted), max(wanted)
    room = max(0.35 * (high - low), 0.2)
    layout["yaxis"] |= {"range": [low - room, high + room][::sign], "autorange": False}
    below = sum(p.y < low - room if sign > 0 else p.y > high + room for p in data.points)
    if below:
        where = {"x": 1, "y": 0, "xref": "paper", "yref": "paper", "xanchor": "right", "yanchor": "bottom"}
        layout["annotations"].append(_note(f"{below} more below ↓", look.muted, 12, **where))
