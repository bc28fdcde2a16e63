"""How the search went: the hypervolume of the front against trials or minutes.

`history_data` takes the steps of `workbench.tuning.front.history`; several studies or strategies share a figure. Left
out: an interval over seeds, for which a study is run once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.errors import UserError
from workbench.plots.markup import escape
from workbench.plots.theme import template
from workbench.plots.theme import theme as find_theme
from workbench.tuning.front import Step

#: What a search is counted in, and its title.
AXES = {"trials": "full evaluations", "minutes": "minutes of trials"}


@dataclass(frozen=True)
class Line:
    """One search: how far along the axis, the hypervolume there, and the trial that ended then."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    numbers: tuple[int, ...]


def history_data(searches: Mapping[str, Sequence[Step]], x: str = "trials") -> list[Line]:
    """A line for each search, from its beginning at no hypervolume; raises `UserError` for another `x`."""
    if x not in AXES:
        raise UserError(f"x = {x!r} is not possible.", allowed=" | ".join(AXES))
    return [
        Line(
            name,
            (0.0, *(float(getattr(step, x)) for step in steps)),
            (0.0, *(step.hypervolume for step in steps)),
            (0, *(step.number for step in steps)),
        )
        for name, steps in searches.items()
    ]


def hypervolume_history(
    searches: Mapping[str, Sequence[Step]] | Sequence[Step], theme: str = "light", x: str = "trials"
) -> Any:
    """The figure: a staircase for each search. One search may be given without a name: `study.history()`."""
    import plotly.graph_objects as go

    named = searches if isinstance(searches, Mapping) else {"front": searches}
    lines, look = history_data(named, x), find_theme(theme)
    figure = go.Figure(
        layout={
            "template": template(theme),
            "xaxis": {"title": {"text": AXES[x]}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": "hypervolume of drop and cost"}, "rangemode": "tozero"},
            "height": 360,
            "showlegend": len(lines) > 1,
        }
    )
    for i, line in enumerate(lines):
        figure.add_scatter(
            x=line.x,
            y=line.y,
            name=escape(line.name),
            mode="lines+markers",
            line={"shape": "hv", "color": look.runtimes[i % len(look.runtimes)]},
            customdata=line.numbers,
            hovertemplate="%{x:.3g}: %{y:.4g}, trial %{customdata}<extra></extra>",
        )
    return figure
