"""A plotly figure on the page that says which trial was clicked.

plotly's own `FigureWidget` sends differences, and with traces that come and go it lost some of them (the template, a
second legend) and answered "indices must be valid". This sends the figure whole, some tens of kilobytes, and
`Plotly.react` finds the differences; it is also safe to assign from a thread. Left out: selections, relayout events.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import anywidget
import traitlets


class Figure(anywidget.AnyWidget):
    """`figure` is plotly's JSON; `clicked` is `{"trial": number, "at": milliseconds}` after a click on a point whose
    `customdata` is a trial's number. Each instance carries plotly.js, some 5 MB: one to a page."""

    figure = traitlets.Unicode('{"data": [], "layout": {}}').tag(sync=True)
    clicked = traitlets.Dict().tag(sync=True)

    _esm = files("workbench.widgets").joinpath("static/figure.js").read_text(encoding="utf-8")
    plotly = traitlets.Unicode().tag(sync=True)

    @traitlets.default("plotly")
    def _library(self) -> str:
        return files("plotly").joinpath("package_data/plotly.min.js").read_text(encoding="utf-8")

    def show(self, figure: Any) -> None:
        """Draw a plotly `Figure`."""
        self.figure = figure.to_json()
