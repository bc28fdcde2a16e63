"""One layer's weights, and what it multiplies them by, before and after: figures, numbers, downloads.

Both are read from the lowered models by another process, the weights first. Left out: the grid behind the values, which
the sensitivity map's histograms show.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import ipywidgets as ipw
import pandas as pd

from workbench.errors import Refused
from workbench.plots.download import csv_link
from workbench.plots.layers import histogram_figure
from workbench.plots.markup import Markup, join, table, tag, wide
from workbench.reading import LayerHistogram, activation_histogram, weight_histogram
from workbench.running.models import Models
from workbench.widgets.base import code_html, html, styled
from workbench.widgets.figure import Figure
from workbench.widgets.worker import Order, Worker

NO_LAYER = "Choose a layer in the tree, or in the list, to see its weights and activations before and after."
#: What is read of a layer -> (heading, the function that reads it).
KINDS: dict[str, tuple[str, Callable[..., LayerHistogram]]] = {
    "weights": ("Weights", weight_histogram),
    "activations": ("Activations: what the weights are multiplied with", activation_histogram),
}


class LayerHistograms(ipw.VBox):
    """`look(study, number, layer)` reads and shows a layer, and nothing without one; `found` is what was read.

    `busy` and `failed` are a worker's; what a runtime refuses to tell is said where it would stand.
    """

    def __init__(
        self,
        busy: Callable[[str], None],
        failed: Callable[[BaseException | None], None],
        models: Models | None = None,
    ) -> None:
        self.models, self.theme = models, "light"
        self.busy, self.failed = busy, failed
        self.found: dict[str, LayerHistogram] = {}
        self.told, self.under = ({kind: html("", "wb-wrap") for kind in KINDS} for _ in range(2))
        # Figures bring a large library along, so each comes when there is something to draw.
        self.boxes = {kind: ipw.VBox() for kind in KINDS}
        self.workers = {kind: Worker(partial(self._said, kind), partial(self._failed, kind)) for kind in KINDS}
        self._saying, self._errors = dict.fromkeys(KINDS, ""), dict.fromkeys(KINDS)
        self._number: int | None = None
        super().__init__([part for kind in KINDS for part in (self.told[kind], self.boxes[kind], self.under[kind])])
        self._draw()

    def look(self, study: Any, number: int | None, layer: str) -> None:
        """Read the chosen layer; nothing is chosen without a study, a trial or a layer."""
        self.found, self._number = {}, number
        self._draw()
        for kind, (_, read) in KINDS.items():
            if study is None or number is None or not layer:
                self.workers[kind].drop()
                continue
            self.workers[kind].order(
                f"Reading the {kind} …",
                partial(self._ask, read, study, number, layer),
                partial(self._read, kind),
            )

    def paint(self, theme: str) -> None:
        """Every figure in the page's theme."""
        self.theme = theme
        self._draw()

    def settle(self, seconds: float = 60.0) -> None:
        """Wait until everything that was asked for is shown (for scripts and tests)."""
        for worker in self.workers.values():
            worker.settle(seconds)

    def _ask(
        self, read: Callable[..., LayerHistogram], study: Any, number: int, layer: str, order: Order
    ) -> LayerHistogram:
        return read(study, number, layer, models=self.models, **heard(order))

    def _read(self, kind: str, made: LayerHistogram) -> None:
        self.found[kind] = made
        self._draw()

    def _said(self, kind: str, saying: str) -> None:
        """Both read at once; one that is done does not silence the other."""
        self._saying[kind] = saying
        self.busy(next(filter(None, self._saying.values()), ""))

    def _failed(self, kind: str, error: BaseException | None) -> None:
        if isinstance(error, Refused):
            self.told[kind].value = join([tag("h3", KINDS[kind][0]), tag("p", str(error), class_="wb-note")])
            error = None
        self._errors[kind] = error
        self.failed(next(filter(None, self._errors.values()), None))

    def _draw(self) -> None:
        for kind, (title, read) in KINDS.items():
            found, box = self.found.get(kind), self.boxes[kind]
            box.layout.display = "none" if found is None else None
            if found is None:
                nothing = kind == "weights" and not self.found
                words = join([tag("h3", title), tag("p", NO_LAYER, class_="wb-note")]) if nothing else ""
                self.told[kind].value, self.under[kind].value = words, ""
                continue
            if not box.children:
                box.children = (styled(Figure(), "wb-figure", "wb-low"),)
            box.children[0].show(histogram_figure(found, self.theme))
            call = f"{read.__name__}(study, {self._number}, {found.layer!r})"
            self.told[kind].value = join([tag("h3", title), numbers_html(found, self._number)])
            self.under[kind].value = join([csv_link(found.frame(), kind), code_html(call)])


def numbers_html(found: LayerHistogram, number: int | None) -> Markup:
    """The numbers beside a layer's histogram."""
    rows = []
    for name, facts in found.facts.items():
        row = {
            "": "uncompressed" if name == "uncompressed" else f"trial {number}",
            found.what.capitalize(): f"{facts['count']:,.0f}",
            "Zeros": f"{100 * facts['zeros']:.1f} %",
            "Standard deviation": f"{facts['deviation']:.4f}",
            "Range": f"{facts['low']:.3f} … {facts['high']:.3f}".replace("-", "−"),
        }
        rows.append(row | ({"Different values": f"{facts['distinct']:,.0f}"} if "distinct" in facts else {}))
    title = f"{found.what.capitalize()} of the layer"
    parts = [tag("p", tag("b", found.layer)), wide(table(pd.DataFrame(rows)), title)]
    if found.noise_db is not None and found.noise_db < 0:
        # Noise that is larger than the signal is no rounding.
        parts.append(tag("p", "These weights were scaled or trained, not only rounded.", class_="wb-note"))
    elif found.noise_db is not None:
        parts.append(tag("p", f"Signal to noise of the compressed weights: {found.noise_db:.1f} dB."))
    elif len(found.facts) == 1 and number:
        parts.append(
            tag("p", "The uncompressed model has no layer that this one could be held against.", class_="wb-note")
        )
    return join(parts)


def heard(order: Order) -> dict[str, Any]:
    """What `Models.ask` is given of an order."""
    return {"say": order.say, "dropped": order.dropped}
