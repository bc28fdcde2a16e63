"""Every knob of every trial side by side: a line for each trial, coloured by its drop.

`parallel_data` makes plain columns of `Study.frame()`. Left out: brushing that selects trials in other figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from workbench.plots import table
from workbench.plots.markup import escape
from workbench.plots.theme import template

#: Numbers that stand beside the knobs, with their titles.
NUMBERS = {"drop": "drop", "speedup": "speed-up", "size_mb": "size (MB)"}
#: How a technique is shown that takes no part.
ABSENT = "–"


@dataclass(frozen=True)
class Axis:
    """One dimension: its values by trial as numbers, and `ticks`, the words for 0, 1 … where it is no number."""

    name: str
    values: tuple[float, ...]
    ticks: tuple[str, ...] = ()


@dataclass(frozen=True)
class ParallelData:
    """The axes that differ between trials, the trials' numbers, and their drops."""

    axes: tuple[Axis, ...]
    numbers: tuple[int, ...]
    drops: tuple[float, ...]


def parallel_data(frame: pd.DataFrame) -> ParallelData:
    """Runtime, technique knobs and layers kept of every measured trial, then drop, speed-up and size.

    What is the same for all trials is left out.
    """
    rows = [row for row in table.rows(frame) if row["state"] == "complete" and math.isfinite(table.number(row["drop"]))]
    knobs = [knobs_of(row["recipe"]) for row in rows]
    names = list(dict.fromkeys(name for one in knobs for name in one))
    axes = [_axis(name, [one.get(name, ABSENT) for one in knobs]) for name in names]
    numbers = [Axis(title, tuple(table.number(row[name]) for row in rows)) for name, title in NUMBERS.items()]
    shown = [axis for axis in axes if len(set(axis.values)) > 1] + [
        a for a in numbers if all(map(math.isfinite, a.values))
    ]
    drops = tuple(table.number(row["drop"]) for row in rows)
    return ParallelData(tuple(shown), tuple(int(row["number"]) for row in rows), drops)


def knobs_of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The runtime, every technique with its knobs, and the number of patterns kept, of a recipe's JSON."""
    backend = dict(recipe["backend"])
    found: dict[str, Any] = {"runtime": backend.pop("name")}
    found |= {f"runtime.{name}": value for name, value in backend.items()}
    for step in recipe["techniques"]:
        found[step["name"]] = "yes"
        found |= {f"{step['name']}.{name}": value for name, value in step.items() if name != "name"}
    return {**found, "kept": len(recipe["keep"])}


def parallel_coordinates(frame: pd.DataFrame, theme: str = "light") -> Any:
    """The figure: a plotly `Figure` of `parallel_data`."""
    import plotly.graph_objects as go

    data = parallel_data(frame)
    figure = go.Figure(layout={"template": template(theme), "height": 420, "margin": {"l": 90, "r": 60, "t": 90}})
    if not data.numbers:
        return figure
    dimensions = []
    for axis in data.axes:
        one: dict[str, Any] = {"label": escape(axis.name), "values": axis.values}
        if axis.ticks:
            one |= {"tickvals": list(range(len(axis.ticks))), "ticktext": [escape(t) for t in axis.ticks]}
        dimensions.append(one)
    line = {
        "color": data.drops,
        "colorscale": "Cividis",
        "showscale": True,
        "colorbar": {"title": {"text": "drop"}},
    }
    figure.add_parcoords(dimensions=dimensions, line=line, labelangle=-30)
    return figure


def _axis(name: str, values: list[Any]) -> Axis:
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if numeric:
        return Axis(name, tuple(map(float, values)))
    words = [value if isinstance(value, str) else repr(value) for value in values]
    ticks = tuple(sorted(set(words), key=lambda word: (word != ABSENT, _order(word))))
    return Axis(name, tuple(float(ticks.index(word)) for word in words), ticks)


def _order(word: str) -> tuple[float, str]:
    try:
        return float(word), ""
    except ValueError:
        return math.inf, word
