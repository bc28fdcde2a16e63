"""A plotly figure on the page that says which trials were clicked or drawn round, and can be saved.

plotly's own `FigureWidget` sends differences, and with traces that come and go it lost some of them (the template, a
second legend) and answered "indices must be valid". This sends the figure whole, and `Plotly.react` finds the
differences; it is also safe to assign from a thread. Hover texts, most of the bytes, go apart, only when they change.
The library, five megabytes, is asked for once by a page, however many figures it has. Left out: relayout events.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

import anywidget
import traitlets


class Figure(anywidget.AnyWidget):
    """`figure` is plotly's JSON. After a click on a point whose `customdata` is a trial's number `clicked` is
    `{"trial": number, "at": milliseconds}`, after a lasso or a box `chosen` is `{"trials": [number …], "at": …}`.
    `texts` are hovers by a trial's number. Under it stand buttons that save it as `name`.png, .svg and, where `csv`
    gives a text, .csv."""

    figure = traitlets.Unicode('{"data": [], "layout": {}}').tag(sync=True)
    texts = traitlets.Dict().tag(sync=True)
    clicked = traitlets.Dict().tag(sync=True)
    chosen = traitlets.Dict().tag(sync=True)
    name = traitlets.Unicode("figure").tag(sync=True)
    label = traitlets.Unicode("").tag(sync=True)
    has_csv = traitlets.Bool(False).tag(sync=True)

    _esm = files("workbench.widgets").joinpath("static/figure.js").read_text(encoding="utf-8")

    def __init__(self, csv: Callable[[], str] | None = None, **kwargs: Any) -> None:
        self.csv = csv
        super().__init__(has_csv=csv is not None, **kwargs)
        self.on_msg(self._asked)

    def show(self, figure: Any) -> None:
        """Draw a plotly `Figure`, or one as plain JSON."""
        self.figure = json.dumps(figure) if isinstance(figure, dict) else figure.to_json()

    def _asked(self, _: Any, content: dict[str, Any], buffers: Any = None) -> None:
        asked = content.get("ask") if isinstance(content, dict) else None
        if asked == "plotly":
            self.send({"plotly": library()})
        elif asked == "csv" and self.csv:
            self.send({"csv": self.csv(), "name": self.name})


@cache
def library() -> str:
    """plotly.js."""
    return files("plotly").joinpath("package_data/plotly.min.js").read_text(encoding="utf-8")
