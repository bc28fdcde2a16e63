"""The rows of `workbench.plots.layers.layer_tree` on the page: parts fold, one layer is chosen.

Left out: choosing several layers; the sensitivity map does that.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import anywidget
import traitlets


class LayerTree(anywidget.AnyWidget):
    """`rows` is JSON; `selected` the path of the chosen layer, "" for none."""

    rows = traitlets.Unicode("[]").tag(sync=True)
    selected = traitlets.Unicode("").tag(sync=True)

    _esm = files("workbench.widgets").joinpath("static/tree.js").read_text(encoding="utf-8")

    def show(self, rows: list[dict[str, Any]]) -> None:
        """Draw other rows; what is folded stays so."""
        self.rows = json.dumps(rows)
