"""Which layers suffer from being compressed: order a scan, see its rows come, choose layers and have them kept.

    SensitivityMap(study)

A scan is carried out by the study's runner, so it survives this page; the kernel only reads its rows. Choosing works by
clicks in the figure and by the list beside it. `use_keep` is called with the layers that "Send to keep" sends. Left
out: deleting scans, scans on a real runtime (`study.scan(…, backend=…)`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import ipywidgets as ipw
import pandas as pd
import traitlets

from workbench.errors import DataError, UserError
from workbench.plots import scans as views
from workbench.plots.download import csv_link
from workbench.plots.markup import join, table, tag, wide
from workbench.running.scans import call, name_of, repeat
from workbench.sensitivity.scan import Order
from workbench.widgets.background import Background
from workbench.widgets.base import Adapter, code_html, heading, html, styled
from workbench.widgets.error_panel import ErrorPanel
from workbench.widgets.figure import Figure
from workbench.widgets.layer_times import LayerTimes
from workbench.widgets.scan_form import ScanForm
from workbench.widgets.scan_reader import COMING, ScanReader
from workbench.widgets.trials import alone

NO_STUDY = "Open a study, or start one: a scan then shows which of its model's layers suffer from compression."
NO_SCAN = "No scan yet. “Scan” compresses each layer alone and says how much the model's answers change."
_NONE = ""


class SensitivityMap(Adapter):
    """`study` and `theme` in; `value` is the frame of the scan that is shown (its rows so far), None without one.

    `selected` are the chosen layers, `listed` the study's scans as `Study.scans()` gives them, `shown` the id of one.
    """

    study = traitlets.Any(None, allow_none=True)
    theme = traitlets.Enum(("light", "dark"), "light")
    selected = traitlets.Tuple()
    listed = traitlets.List()
    shown = traitlets.Unicode("")

    def __init__(self, study: Any = None, *, seconds: float = 1.0, **kwargs: Any) -> None:
        self.use_keep: Callable[[tuple[str, ...]], None] = lambda layers: None
        self._lock, self._filling = threading.RLock(), False
        self._orders, self._looks = Background("scans"), Background("distributions")
        self.reader = ScanReader(self._read, self._wrong_reading, lambda: self._orders.busy, seconds)
        self._make_controls()
        super().__init__(self._layout(), "wb-card", **kwargs)
        self._connect()
        self._draw()
        if study is not None:
            alone(self)
            self.study = study

    @property
    def code(self) -> str:
        """The call that gives `value`; while its rows still come, the one that reads them; without a scan, the call
        that the button makes."""
        if self.value is None:
            return self.form.code
        if self._state() != "done":
            return f"study.scanned({self.shown!r})"
        return call(Order.from_json(self.value.attrs["order"]))

    # --- what the buttons do ------------------------------------------------------------------------------------

    def scan(self) -> None:
        """Have the runner scan as the fields say; a scan that is there is only shown."""
        self._run(self.form.value)

    def resume(self) -> None:
        """Go on with the scan that is shown, where it was cut short."""
        if self.value is not None:
            self._run(Order.from_json(self.value.attrs["order"]))

    def stop(self) -> None:
        """End the runner's work; the rows that were found stay."""
        study = self.study
        if study is not None:
            self._orders.do(study.stop, lambda _: self.refresh(), self._wrong)

    def send_to_keep(self) -> None:
        """Hand the chosen layers on."""
        self._clicked(lambda: self.use_keep(tuple(self.selected)))
        if self.panel.error is None:
            count = f"{len(self.selected)} layer{'s' * (len(self.selected) != 1)}"
            self.said.value = tag("p", f"{count} sent: recipes keep them as they are.", role="status")

    def refresh(self) -> None:
        """Read the scans now, and go on reading while rows come."""
        self.reader.refresh()

    def settle(self, seconds: float = 60.0) -> None:
        """Wait until everything that was asked for is shown (for scripts and tests)."""
        for background in (self._orders, self._looks):
            background.settle(seconds)
        self.times.settle(seconds)
        self.reader.settle(seconds)

    # --- plumbing -----------------------------------------------------------------------------------------------

    def _make_controls(self) -> None:
        auto = {"style": {"description_width": "auto"}}
        self.form = ScanForm()
        tips = {
            "scan": ("Scan", "primary", "Have the study's runner score every layer"),
            "stop": ("Stop", "", "End the runner's work, a sweep's too; what was found stays, and Resume goes on"),
            "resume": ("Resume", "", "Go on with the scan that is shown"),
        }
        self.buttons = {
            key: ipw.Button(description=name, button_style=style, tooltip=tip)
            for key, (name, style, tip) in tips.items()
        }
        self.which = styled(ipw.Dropdown(options=[("none", _NONE)], description="Scan shown", **auto), "wb-choose")
        self.view = ipw.Dropdown(options=[], description="View", **auto)
        self.layers = styled(ipw.SelectMultiple(description="Layers", rows=8, **auto), "wb-choose")
        self.count = ipw.BoundedIntText(value=3, min=1, max=10_000, description="The most sensitive", **auto)
        self.pick = ipw.Button(description="Choose them", tooltip="Choose so many layers by rank")
        self.clear = ipw.Button(description="Choose none", tooltip="No layer is chosen")
        self.keep = ipw.Button(description="Send to keep", tooltip="Leave the chosen layers alone in recipes")
        self.ended = html("", "wb-note")
        self.line, self.bar = html("", "wb-status"), styled(ipw.FloatProgress(min=0, max=1), "wb-bar")
        self.panel, self.about, self.empty = ErrorPanel(), html("", "wb-note"), html("", "wb-note")
        self.figure_box, self.said, self.rows = ipw.VBox(), html("", "wb-wrap"), html("", "wb-wrap")
        self.times = LayerTimes()

    def _layout(self) -> list[Any]:
        row = lambda *parts: styled(ipw.HBox(parts), "wb-row")  # noqa: E731
        self._below = ipw.VBox(
            [
                row(self.which, self.view),
                self.about,
                self.times,
                self.figure_box,
                styled(ipw.HBox([self.layers]), "wb-row", "wb-choices"),
                row(self.count, self.pick, self.clear, self.keep),
                self.said,
                self.rows,
            ]
        )
        actions = row(*self.buttons.values(), self.code_box())
        return [
            heading("Sensitivity"),
            self.form,
            actions,
            self.line,
            self.bar,
            self.ended,
            self.panel,
            self.empty,
            self._below,
        ]

    def _connect(self) -> None:
        for key, action in {"scan": self.scan, "stop": self.stop, "resume": self.resume}.items():
            self.buttons[key].on_click(lambda _, action=action: self._clicked(action))
        self.keep.on_click(lambda _: self.send_to_keep())
        self.clear.on_click(lambda _: self.set_trait("selected", ()))
        self.pick.on_click(lambda _: self._pick())
        self.which.observe(lambda change: self._filling or self.set_trait("shown", change["new"]), "value")
        self.layers.observe(lambda change: self._filling or self.set_trait("selected", change["new"]), "value")
        self.observe(self._open, "study")
        self.observe(lambda _: self._take(), "shown")
        self.observe(self._fill, "value")
        self.observe(self._draw, ["value", "theme", "selected"])
        self.times.observe(self._draw, "value")
        self.view.observe(self._draw, "value")

    def _clicked(self, action: Callable[[], None]) -> None:
        try:
            self.panel.error = None
            action()
        except UserError as error:
            self.panel.error = error

    def _run(self, given: Order) -> None:
        study = self.study
        if study is None:
            raise UserError("No study is open.", do="open a study, or start one, first")
        self.shown = name_of(given.to_json())
        self._orders.do(lambda: repeat(study, given), lambda _: self.refresh(), self._wrong)
        self.refresh()

    def _wrong_reading(self, error: Exception) -> None:
        self.panel.error = error

    def _wrong(self, error: Exception) -> None:
        self.panel.error = error
        self.refresh()

    def _open(self, change: dict) -> None:
        """Another study: nothing of the old one stays."""
        old, study = change["old"], change["new"]
        if old is not None and study is not None and old.folder == study.folder:
            return
        self.listed, self.shown, self.value, self.selected = [], "", None, ()
        self.panel.error, self.said.value, self.times.study = None, "", study
        self._look_at([])
        self._draw()
        self.reader.turn_to(study)

    def _read(self, found: list[dict[str, Any]], status: Any) -> None:
        """Show what was read of the study."""
        with self._lock:
            self._look_at(found)
            self._take()
            self._tell(status)

    def _look_at(self, found: list[dict[str, Any]]) -> None:
        """List the scans; the newest is shown where none is chosen."""
        self.listed = found
        options = [
            ("none", _NONE),
            *((f"{row['title']} ({row['state']}, {row['rows']} rows)", row["id"]) for row in found),
        ]
        if not self.shown and found:
            self.shown = found[-1]["id"]
        self._filling = True
        try:
            if list(self.which.options) != options:
                self.which.options = options
            self.which.value = self.shown if self.shown in [name for _, name in options] else _NONE
        finally:
            self._filling = False

    def _take(self) -> None:
        """Show the rows of the chosen scan as far as they are read."""
        found = self.reader.frames.get(self.shown)
        if found is not self.value:
            self.value = found
        else:
            self._enable()

    def _state(self) -> str:
        return next((row["state"] for row in self.listed if row["id"] == self.shown), "")

    def _tell(self, status: Any) -> None:
        """What the runner does for the scan that is shown."""
        row = next((row for row in self.listed if row["id"] == self.shown), None)
        coming, scanning = row is not None and row["state"] in COMING, status.stage == "scan"
        words = status.message if scanning else "waiting for the runner, which finishes its trial first"
        self.line.value = tag("span", f"Scanning: {words}") if coming else ""
        self.bar.value = status.progress if coming and scanning else 0.0
        told = row is not None and not coming and row["message"]
        self.ended.value = tag("span", f"{row['title']}: {told}") if row and told else ""
        for each in (self.line, self.bar, self.ended):
            each.layout.display = None if each.value else "none"
        self._enable()

    def _enable(self) -> None:
        state, there = self._state(), self.study is not None
        self.buttons["scan"].disabled = not there
        self.buttons["stop"].disabled = not there or not any(row["state"] in COMING for row in self.listed)
        self.buttons["resume"].disabled = not there or state in ("", "done", *COMING) or self.value is None
        self.keep.disabled = not self.selected
        self.count.disabled = self.pick.disabled = self.value is None

    def _pick(self) -> None:
        if self.value is not None:
            self.selected = tuple(views.most_sensitive(self.value, self.count.value))

    def _chosen(self, change: dict) -> None:
        """A click in the figure chooses a layer, or lets go of it."""
        layer = change["new"].get("trial")
        if self.value is None or layer not in set(self.value["layer"]):
            return
        rest = tuple(name for name in self.selected if name != layer)
        self.selected = rest if layer in self.selected else (*rest, layer)

    def _drawn_round(self, change: dict) -> None:
        """A lasso or a box chooses the layers inside, beside those that were chosen."""
        known = [] if self.value is None else list(self.value["layer"])
        inside = [layer for layer in change["new"].get("trials", ()) if layer in known]
        self.selected = tuple(dict.fromkeys([*self.selected, *inside]))

    # --- drawing ------------------------------------------------------------------------------------------------

    def _fill(self, _: object = None) -> None:
        """Bring lists and table to the rows."""
        scan: pd.DataFrame | None = self.value
        names = [] if scan is None else list(dict.fromkeys(scan["layer"]))
        options = [(views.VIEWS[key][0], key) for key in views.views(scan)]
        self._filling = True
        try:
            self.selected = tuple(name for name in self.selected if name in names)
            if list(self.layers.options) != names:
                self.layers.options = names
            if list(self.view.options) != options:
                keep = self.view.value
                self.view.options = options
                self.view.value = (
                    keep if keep in [key for _, key in options] else next((key for _, key in options), None)
                )
        finally:
            self._filling = False
        self.times.technique = None if scan is None else Order.from_json(scan.attrs["order"]).technique
        if scan is not None:
            shown = wide(table(views.scan_table(scan), css="wb-table wb-facts"), "Scores by layer")
            self.rows.value = join([shown, csv_link(scan, f"scan-{self.shown}")])

    def _draw(self, _: object = None) -> None:
        with self._lock:
            scan, view = self.value, self.view.value
            self._enable()
            self._below.layout.display = "none" if scan is None else None
            words = "" if scan is not None else NO_STUDY if self.study is None else NO_SCAN
            self.empty.value = tag("p", words) if words and self._state() not in COMING else ""
            self._filling = True
            self.layers.value = tuple(name for name in self.layers.options if name in self.selected)
            self._filling = False
            self.times.layout.display = None if view == "value" else "none"
            if scan is None or view is None:
                return
            self.about.value = tag("span", views.VIEWS[view][1])
            if view == "histograms":
                self._histograms(scan)
                return
            self._looks.forget()
            frames = self.reader.frames
            done = {row["title"]: frames[row["id"]] for row in self.listed
                    if row["state"] == "done" and row["id"] in frames}  # fmt: skip
            try:
                worth = self.times.worth(scan) if view == "value" else None
                drawn = views.draw(view, scan, self.theme, keep=self.selected, others=done, worth=worth)
            except DataError as missing:
                self.about.value = tag("span", views.VIEWS[view][1], " ", tag("b", missing.what), f" {missing.do}")
                self.figure_box.layout.display = "none"
                return
            self._show_figure(drawn)

    def _show_figure(self, drawn: Any) -> None:
        if not self.figure_box.children:
            made = Figure(name="sensitivity", label="Sensitivity by layer")
            figure = styled(made, "wb-figure", "wb-tall")
            figure.observe(self._chosen, "clicked")
            figure.observe(self._drawn_round, "chosen")
            self.figure_box.children = (figure,)
        self.figure_box.layout.display = None
        self.figure_box.children[0].show(drawn)

    def _histograms(self, scan: pd.DataFrame) -> None:
        """Weight and input of the layer that was chosen last, read by another process."""
        self.figure_box.layout.display = "none"
        if not self.selected:
            self.about.value = tag("span", "Choose a layer in the list below to see its weight and its input.")
            return
        from workbench.plots.distributions import distribution
        from workbench.running import look
        from workbench.sensitivity.histogram import Distribution

        layer, technique = self.selected[-1], Order.from_json(scan.attrs["order"]).technique
        task, theme = self.study.task.to_json(), self.theme
        self.about.value = tag("span", f"Reading weight and input of {layer} …")

        def work() -> Any:
            found = look.ask("distributions", task=task, technique=technique.to_json(), layer=layer)["found"]
            return distribution([Distribution.from_json(one) for one in found], theme)

        def show(drawn: Any) -> None:
            told = code_html(f"histograms(study.task, {technique!r}, [{layer!r}])")
            self.about.value = join([tag("span", views.VIEWS["histograms"][1]), told])
            self._show_figure(drawn)

        self._looks.do(work, show, self._wrong)
