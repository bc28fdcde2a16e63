"""Milliseconds by layer on one runtime, with and without a technique: what the value map of a scan needs.

The runner measures them, as it measures trials; a table that the study holds is read. Left out: other techniques than
the scan's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ipywidgets as ipw
import pandas as pd
import traitlets

from workbench.backends.base import Backend
from workbench.errors import WorkbenchError
from workbench.plots.markup import tag
from workbench.recipe import Recipe, plugin
from workbench.registry import members
from workbench.sensitivity.cost import value_map
from workbench.widgets.background import Background
from workbench.widgets.base import Adapter, code_html, html, styled
from workbench.widgets.error_panel import ErrorPanel


def recipes(study: Any, technique: Any, backend: str) -> tuple[Recipe, Recipe]:
    """The model as it is and compressed by `technique`, on a runtime at the workload of the study's baseline."""
    first = study.baseline
    if first is None:
        workload = {"sequence": study.task.to_json().get("sequence", 128)}
    else:
        settings = first.recipe.backend.settings()
        workload = {name: settings[name] for name in Backend.knobs() if name in settings}
    runtime = plugin("backends", backend, **workload)
    return Recipe(backend=runtime), Recipe(technique, backend=runtime)


class LayerTimes(Adapter):
    """`study` and `technique` (an object) in; `value` is the pair of tables that `Study.costs` gives, without the
    technique and with it, None where the study has them not."""

    study = traitlets.Any(None, allow_none=True)
    technique = traitlets.Any(None, allow_none=True)

    def __init__(self, **kwargs: Any) -> None:
        kinds: Mapping[str, Any] = members("backends")
        there = {name: kind for name, kind in kinds.items() if not kind.available()}
        options = [(getattr(kind, "title", name), name) for name, kind in there.items()]
        self.runtime = ipw.Dropdown(options=options, description="Runtime", style={"description_width": "auto"})
        if "openvino" in there:
            self.runtime.value = "openvino"
        self.measure = ipw.Button(
            description="Time layers", tooltip="Have the runner time every layer, with and without"
        )
        self.line, self.panel = html("", "wb-note"), ErrorPanel()
        self._work = Background("layer-times")
        super().__init__([styled(ipw.HBox([self.runtime, self.measure]), "wb-row"), self.line, self.panel], **kwargs)
        self.measure.on_click(lambda _: self.ask())
        self.observe(self._look, ["study", "technique"])
        self.runtime.observe(self._look, "value")

    @property
    def code(self) -> str:
        """The two calls that give `value`, as a tuple."""
        made = self._recipes()
        return f"(study.costs({made[0]!r}), study.costs({made[1]!r}))" if made else "None"

    def ask(self) -> None:
        """Have both timed, by the runner."""
        made, study = self._recipes(), self.study
        if made is None:
            return
        self.measure.disabled, self.panel.error = True, None
        self.line.value = tag("span", "Timing layers in the runner …")
        self._work.do(lambda: (study.costs(made[0]), study.costs(made[1])), self._timed, self._wrong)

    def worth(self, scan: pd.DataFrame) -> pd.DataFrame | None:
        """The table of `value_map` for a scan; None where the layers were not timed. Raises `DataError` where scan and
        times are of different layers."""
        return value_map(scan, *self.value) if self.value is not None and len(scan) else None

    def settle(self, seconds: float = 60.0) -> None:
        """Wait until what was asked for is shown (for scripts and tests)."""
        self._work.settle(seconds)

    def _recipes(self) -> tuple[Recipe, Recipe] | None:
        if self.study is None or self.technique is None or self.runtime.value is None:
            return None
        try:
            return recipes(self.study, self.technique, self.runtime.value)
        except WorkbenchError as error:
            self.panel.error = error
            return None

    def _look(self, _: object = None) -> None:
        """Read what the study holds."""
        self.value, self.panel.error, self.line.value, self.measure.disabled = None, None, "", False
        made, study = self._recipes(), self.study
        if made is not None:
            self._work.do(lambda: (study.costed(made[0]), study.costed(made[1])), self._timed, self._wrong)

    def _timed(self, found: tuple[pd.DataFrame | None, pd.DataFrame | None]) -> None:
        self.measure.disabled, self.line.value = False, ""
        if found[0] is not None and found[1] is not None:
            self.line.value = tag("div", f"{self.runtime.label}, profiler's own milliseconds.", code_html(self.code))
            self.value = found

    def _wrong(self, error: Exception) -> None:
        self.panel.error, self.line.value, self.measure.disabled = error, "", False
