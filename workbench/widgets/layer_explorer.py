"""A lowered model layer by layer: what precision is in effect, how wide and how sparse it is, where its work goes.

Layers, weights and activations are read from the lowered model by another process; milliseconds are measured by the
study's runner on a click, and sensitivities are those of its latest scan. Left out: the layers of embeddings and norms,
which no technique here changes.
"""

from __future__ import annotations

from typing import Any

import ipywidgets as ipw
import pandas as pd
import traitlets

from workbench.errors import WorkbenchError
from workbench.plots.download import csv_link
from workbench.plots.layers import checked, layer_tree, operator_times, operators_figure
from workbench.plots.markup import Markup, join, table, tag, wide
from workbench.plots.table import amount
from workbench.reading import Transitions, layer_scores, layer_table, transitions
from workbench.running.models import Models
from workbench.widgets.base import Adapter, heading, html, styled
from workbench.widgets.error_panel import ErrorPanel
from workbench.widgets.figure import Figure
from workbench.widgets.layer_histograms import LayerHistograms, heard
from workbench.widgets.layer_tree import LayerTree
from workbench.widgets.trial_times import TrialTimes
from workbench.widgets.trials import alone, choices
from workbench.widgets.worker import Worker

NO_TRIALS = "No measured trial yet. Its layers can be looked at as soon as a trial is complete."
_NONE = ""


class LayerExplorer(Adapter):
    """A trial's layers: `LayerExplorer(study, 5)` in a cell.

    `study`, `frame` (as `Study.frame()`), `number` and `theme` in, perhaps a `profile` of one's own (columns `layer`,
    `ms`, perhaps `type`); `selected` is the chosen layer; `value` the frame that `layer_table` gives, None until it is
    read.
    """

    study = traitlets.Any(None, allow_none=True)
    frame = traitlets.Instance(pd.DataFrame, allow_none=True)
    number = traitlets.Int(None, allow_none=True)
    profile = traitlets.Instance(pd.DataFrame, allow_none=True)
    selected = traitlets.Unicode("")
    theme = traitlets.Enum(("light", "dark"), "light")

    def __init__(
        self,
        study: Any = None,
        number: int | None = None,
        *,
        profile: pd.DataFrame | None = None,
        models: Models | None = None,
        **kwargs: Any,
    ) -> None:
        self.models = models
        auto = {"style": {"description_width": "auto"}}
        self.choose = styled(ipw.Dropdown(description="Trial", **auto), "wb-choose")
        self.layer = styled(ipw.Dropdown(description="Layer", options=[("none", _NONE)], **auto), "wb-choose")
        self.tree = LayerTree()
        self.line, self.panel, self.told = html("", "wb-status"), ErrorPanel(), html("", "wb-wrap")
        # Figures bring a large library along, so each comes when there is something to draw.
        self.times_box = ipw.VBox()
        self.times_title, self.times = heading("Time by type of operator"), html("", "wb-wrap")
        fail = lambda error: self.panel.set_trait("error", error)  # noqa: E731 - handed on three times
        self.worker = Worker(self._busy, fail)
        self.values = LayerHistograms(self._busy, fail, models)
        self.clock = TrialTimes(self._timed, fail)
        self._scores: tuple[str, dict[str, float]] = ("", {})
        self.scan = html("", "wb-note")
        self._filling = False
        self._below = ipw.VBox(
            [
                self.tree,
                self.scan,
                self.clock,
                styled(ipw.HBox([self.layer]), "wb-row"),
                self.values,
                self.times_title,
                self.times_box,
                self.times,
            ]
        )
        super().__init__(
            [
                heading("Layers"),
                styled(ipw.HBox([self.choose]), "wb-row"),
                self.line,
                self.panel,
                self.told,
                self._below,
                self.code_box(),
            ],
            "wb-card",
            **kwargs,
        )
        self.observe(self._open, "study")
        self.observe(self._list, "frame")
        self.observe(self._look, "number")
        self.observe(self._select, "selected")
        self.observe(self._draw, ["value", "profile"])
        self.observe(self._draw_times, ["theme", "profile"])
        self.observe(lambda change: self.values.paint(change["new"]), "theme")
        self.choose.observe(self._chosen, "value")
        traitlets.link((self, "selected"), (self.tree, "selected"))
        self.layer.observe(self._listed, "value")
        self._draw()
        if profile is not None:
            self.profile = profile
        if study is not None:
            alone(self)
            self.number = number
            self.study = study

    @property
    def code(self) -> str:
        """`layer_table(study, 5)`; `None` while nothing is shown."""
        return f"layer_table(study, {self.number})" if self.value is not None else "None"

    def settle(self, seconds: float = 60.0) -> None:
        """Wait until everything that was asked for is shown (for scripts and tests)."""
        for part in (self.worker, self.values, self.clock):
            part.settle(seconds)

    # --- plumbing -----------------------------------------------------------------------------------------------

    def _open(self, change: dict) -> None:
        old, study = change["old"], change["new"]
        if old is not None and study is not None and old.folder == study.folder:
            return
        if old is not None:
            self.number, self.frame, self.value, self.selected = None, None, None, ""
            self._scores = ("", {})
        if study is not None and self.frame is None:
            self.worker.order("Reading the study …", lambda order: study.frame(), self._framed)
        elif study is not None:
            self._look()

    def _framed(self, frame: pd.DataFrame) -> None:
        self.frame = frame
        self._look()

    def _list(self, _: object = None) -> None:
        options, keep = [("choose a trial", None), *choices(self.frame)], self.number
        if list(self.choose.options) != options:
            self._filling = True
            self.choose.options = options
            self._filling = False
            self.number = keep if keep in [number for _, number in options] else None
        self._show_choice()
        self._draw()

    def _show_choice(self) -> None:
        self._filling = True
        if self.choose.options:
            known = [number for _, number in self.choose.options]
            self.choose.index = known.index(self.number) if self.number in known else 0
        self._filling = False

    def _chosen(self, change: dict) -> None:
        if not self._filling:
            self.number = change["new"]

    def _listed(self, change: dict) -> None:
        if not self._filling:
            self.selected = change["new"]

    def _look(self, _: object = None) -> None:
        """Read the layers of the chosen trial."""
        self._show_choice()
        self.value = None
        self._draw()
        study, number = self.study, self.number
        self.clock.look(study, [] if number is None else [number])
        if study is None or number is None:
            self.worker.drop()
            return
        asked = {"models": self.models}
        self.worker.order(
            "Reading the layers …",
            lambda order: (layer_scores(study), layer_table(study, number, **asked, **heard(order))),
            self._read,
        )

    def _timed(self) -> None:
        """What the study holds of the trial's times, or what was measured now."""
        self._draw()

    def _read(self, found: tuple[tuple[str, dict[str, float]], pd.DataFrame]) -> None:
        self._scores, frame = found
        self.value = frame
        if self.selected not in set(frame["layer"]):
            self.selected = ""
        else:
            self._select()

    def _select(self, _: object = None) -> None:
        """Read what the chosen layer holds."""
        self._filling = True
        if self.selected in [layer for _, layer in self.layer.options]:
            self.layer.value = self.selected
        self._filling = False
        self.values.look(self.study, self.number, self.selected if self.value is not None else "")

    # --- drawing ------------------------------------------------------------------------------------------------

    def _busy(self, saying: str) -> None:
        self.line.value = tag("span", saying)

    def _draw(self, _: object = None) -> None:
        frame: pd.DataFrame | None = self.value
        self._below.layout.display = "none" if frame is None else None
        if frame is None:
            words = "Choose a trial to see its layers." if choices(self.frame) else NO_TRIALS
            self.told.value = tag("p", words, class_="wb-note") if self.number is None else ""
            return
        title, scores = self._scores
        self.tree.show(layer_tree(frame, self._times(), scores))
        self.scan.value = tag("p", f"Sensitivity: {title}, the study's latest scan.") if scores else ""
        options = [("none", _NONE), *((name, name) for name in frame["layer"])]
        if list(self.layer.options) != options:
            self._filling = True
            self.layer.options = options
            if self.selected in set(frame["layer"]):
                self.layer.value = self.selected
            self._filling = False
        self.told.value = self._about(frame)
        self._draw_times()

    def _about(self, frame: pd.DataFrame) -> Markup:
        rows = self.frame.to_dict("records") if self.frame is not None else []
        row: dict[str, Any] = next((row for row in rows if row["number"] == self.number), {})
        parts = [transitions_html(transitions(row.get("in_effect") or {}))]
        if frame.attrs.get("why"):
            parts.append(tag("p", frame.attrs["why"], class_="wb-note"))
        return join([*parts, csv_link(frame, f"layers-{self.number}")])

    def _times(self) -> pd.DataFrame | None:
        """The profile, where there is one that can be read: a person's own, or the study's."""
        found = self.clock.profiles.get(self.number) if self.profile is None else self.profile  # type: ignore[arg-type]
        try:
            return None if found is None else checked(found)
        except WorkbenchError as error:
            self.panel.error = error
            return None

    def _draw_times(self, _: object = None) -> None:
        profile = self._times()
        if profile is None or self.value is None:
            self.times_title.layout.display = self.times_box.layout.display = "none"
            self.times.value = ""
            return
        found = operator_times(profile)
        self.times_title.layout.display = self.times_box.layout.display = None
        if not self.times_box.children:
            self.times_box.children = (styled(Figure(), "wb-figure", "wb-low"),)
        self.times_box.children[0].show(operators_figure(found, self.theme))
        shown = pd.DataFrame(
            {
                "Type": found["type"],
                "Time": [amount(ms, "ms") for ms in found["ms"]],
                "Share": [f"{100 * share:.1f} %" for share in found["share"]],
                "Layers": found["layers"],
            }
        )
        self.times.value = join([wide(table(shown), "Time by type of operator"), csv_link(found, "operators")])


def transitions_html(found: Transitions) -> Markup:
    """How often the precision changes, and the operators that only convert."""
    if not found.islands:
        return tag("p", "The runtime does not say which precision each layer runs in.", class_="wb-note")
    one = found.islands == 1
    said = "One precision throughout: no layer follows one of another precision." if one else (
        f"The precision changes {found.changes} time{'s' * (found.changes > 1)} from one layer to the next: "
        f"{found.islands} islands."
    )  # fmt: skip
    nodes = ", ".join(f"{count} {kind}" for kind, count in sorted(found.nodes.items(), key=lambda item: -item[1]))
    return join([tag("p", said), tag("p", f"Operators that only convert numbers: {nodes or 'none'}.")])
