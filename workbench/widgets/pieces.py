"""Small controls that ipywidgets has not, or has without an accessible name: a folding button, a slider.

    fold = Fold(label="Pruning", note="2 of 8")
    slider = Slider(label="Lose at most", low=0, high=5, step=0.05, value=1, unit="%")

Left out: everything that a plain ipywidgets control does well.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import anywidget
import traitlets

_STATIC = files("workbench.widgets").joinpath("static")


class Fold(anywidget.AnyWidget):
    """A button that opens and closes something; its owner shows and hides it. `note` stands at its right end."""

    _esm = _STATIC.joinpath("fold.js").read_text(encoding="utf-8")

    label = traitlets.Unicode("").tag(sync=True)
    note = traitlets.Unicode("").tag(sync=True)
    hint = traitlets.Unicode("").tag(sync=True)
    unfolded = traitlets.Bool(False).tag(sync=True)
    disabled = traitlets.Bool(False).tag(sync=True)


class Slider(anywidget.AnyWidget):
    """A number from `low` to `high`, by hand or typed; typed it may go up to `most` (`high` unless that is given)."""

    _esm = _STATIC.joinpath("slider.js").read_text(encoding="utf-8")

    label = traitlets.Unicode("").tag(sync=True)
    unit = traitlets.Unicode("").tag(sync=True)
    hint = traitlets.Unicode("").tag(sync=True)
    low = traitlets.CFloat(0.0).tag(sync=True)
    high = traitlets.CFloat(1.0).tag(sync=True)
    most = traitlets.CFloat(None, allow_none=True).tag(sync=True)
    step = traitlets.CFloat(0.01).tag(sync=True)
    value = traitlets.CFloat(0.0).tag(sync=True)
    disabled = traitlets.Bool(False).tag(sync=True)

    @traitlets.validate("value")
    def _inside(self, proposal: Any) -> float:
        # Nothing that a page sends leads out of the range.
        highest = self.high if self.most is None else self.most
        value = float(proposal["value"])
        return min(max(value, self.low), highest) if value == value else self.low
