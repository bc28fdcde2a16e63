"""What to scan: technique, probe, direction, examples, and several sparsities where the technique has one.

Left out: layers that are scanned, other splits, scans on a real runtime; `study.scan` takes them all.
"""

from __future__ import annotations

from typing import Any

import ipywidgets as ipw

from workbench.plots.markup import tag
from workbench.registry import members
from workbench.running.scans import call
from workbench.sensitivity.scan import Order, order
from workbench.techniques.base import Trained
from workbench.widgets.base import Adapter, html, styled
from workbench.widgets.recipe_builder import summary

#: Shares of zeros at which pruning curves are taken.
SPARSITIES = (0.3, 0.5, 0.7, 0.9)
_DIRECTIONS = [("only this layer compressed", "only"), ("all but this layer compressed", "all_but")]


def offered() -> list[str]:
    """Techniques of which single layers can be scored: those that neither train nor change more than their layers."""
    kinds = members("techniques").items()
    return [name for name, kind in kinds if not issubclass(kind, Trained) and getattr(kind, "phase", 2) in (1, 2, 5)]


class ScanForm(Adapter):
    """`value` is the `Order` that the fields describe."""

    def __init__(self, **kwargs: Any) -> None:
        auto = {"style": {"description_width": "auto"}}
        techniques, probes = offered(), list(members("probes"))
        self.technique = ipw.Dropdown(options=techniques, description="Technique", **auto)
        self.probe = ipw.Dropdown(options=probes, description="Probe", **auto)
        for field, first in ((self.technique, "static_int8"), (self.probe, "kl")):
            if first in field.options:
                field.value = first
        self.direction = ipw.Dropdown(options=_DIRECTIONS, description="With", **auto)
        self.samples = ipw.BoundedIntText(value=64, min=1, max=100_000, description="Examples", **auto)
        self.curves = ipw.Checkbox(indent=False, description="at 30, 50, 70 and 90 % zeros")
        self.about = html("", "wb-note")
        fields = (self.technique, self.probe, self.direction, self.samples, self.curves)
        super().__init__([styled(ipw.HBox(fields), "wb-row"), self.about], **kwargs)
        for field in fields:
            field.observe(self._assign, "value")
        self._assign()

    @property
    def code(self) -> str:
        """The call that orders this scan."""
        return call(self.value)

    def _assign(self, _: object = None) -> None:
        kind: Any = members("techniques")[self.technique.value]
        can = "sparsity" in kind.knobs()
        self.curves.layout.display = None if can else "none"
        knobs = {"sparsity": SPARSITIES} if can and self.curves.value else None
        given = (self.technique.value, self.probe.value, self.direction.value)
        self.value: Order = order(*given, knobs=knobs, samples=self.samples.value)
        probe = members("probes")[self.probe.value]
        self.about.value = tag("span", tag("b", self.probe.value), f": {summary(probe)}")
