"""The front, alive: one figure that grows with the study; a click on a point shows its recipe, numbers and code.

A list of trials does the same as a click, for keyboards. Left out: selecting several points.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import ipywidgets as ipw
import pandas as pd
import traitlets

from workbench.errors import UnknownName
from workbench.plots import table as tables
from workbench.plots.front import AXES, pareto_data
from workbench.plots.markup import Markup, join, table, tag
from workbench.plots.pareto import pareto
from workbench.recipe import Recipe
from workbench.widgets.base import Adapter, code_html, heading, html, styled
from workbench.widgets.figure import Figure

#: The value of "none" in the list of trials: None would leave the list without a selection, blank.
_NONE = -1
#: Columns of the table beside the figure; a click shows all of them.
BESIDE = ["#", "Recipe", "State", "Score", "Change", "Speed-up", "Latency p50", "Size", "In effect"]


def detail_html(frame: pd.DataFrame, number: int | None) -> Markup:
    """One trial in full: every number with its interval, and why it failed where it did."""
    row = next((r for r in tables.rows(frame) if r["number"] == number), None)
    if row is None:
        return tag("p", "Click a point, or choose a trial, to see its recipe and its numbers.", class_="wb-note")
    shown = {k: v for k, v in tables.display_row(row).items() if k not in ("#", "Recipe") and v != ""}
    more = {
        "p90, p99": " / ".join(filter(None, (tables.amount(row.get(f"latency_ms_{p}"), "ms") for p in ("p90", "p99")))),
        "Speed-up at real lengths": tables.speedup_text(row, "speedup_real"),
        "Throughput": tables.amount(row.get("throughput"), "examples/s"),
        "Compressed": tables.amount(row.get("compressed_mb"), "MB"),
        "Score on the report split": tables.score_text(row, "report_accuracy"),
    }
    facts = [(k, v) for k, v in {**shown, **more}.items() if v]
    listed = tag("dl", *(item for key, value in facts for item in (tag("dt", key), tag("dd", value))))
    failed = tag("p", tables.reason(row), class_="wb-what") if row["state"] in tables.FAILED else ""
    return tag("div", tag("h3", f"Trial {row['number']}: {row['title']}"), failed, listed, code_html(row["code"]))


def trials_html(frame: pd.DataFrame) -> Markup:
    """Every trial, those of the front set off; then those that came to nothing, with reasons."""
    if frame.empty:
        return tag("p", "No trial yet.", class_="wb-note")
    front = set(pareto_data(frame).front)
    shown = tables.trials_table(frame)[BESIDE]
    if (shown["State"] == "complete").all():
        shown = shown.drop(columns=["State"])
    marked = [i for i, number in enumerate(shown["#"]) if number in front]
    parts = [tag("div", table(shown, marked=marked), class_="wb-wide")]
    lost = tables.failures(frame)[["#", "Recipe", "State", "Reason"]]
    if not lost.empty:
        parts += [tag("h3", "Without a measurement"), tag("div", table(lost), class_="wb-wide")]
    return join(parts)


def refused_html(refused: list[dict[str, Any]]) -> Markup:
    """What was refused before any work, with reasons."""
    if not refused:
        return Markup("")
    items = [tag("li", tag("b", row["title"]), f": {row['reason']}") for row in refused]
    return tag("details", tag("summary", f"{len(refused)} recipes refused before the start"), tag("ul", *items))


def _recipe(data: dict[str, Any]) -> Recipe | None:
    """The recipe, or None where a plug-in that it names is not installed here; its numbers can be read all the same."""
    try:
        return Recipe.from_json(data)
    except UnknownName:
        return None


class ParetoExplorer(Adapter):
    """`frame` (as `Study.frame()`), `goal`, `theme`, `refused`, `notes` in; `selected` is a trial's number and
    `value` its `Recipe`, both None where nothing is chosen."""

    frame = traitlets.Instance(pd.DataFrame, allow_none=True)
    goal = traitlets.Any(None, allow_none=True)
    theme = traitlets.Enum(("light", "dark"), "light")
    refused = traitlets.List()
    notes = traitlets.List()
    selected = traitlets.Int(None, allow_none=True)

    def __init__(self, **kwargs: Any) -> None:
        self._lock = threading.RLock()
        auto = {"style": {"description_width": "auto"}}
        self.figure = styled(Figure(), "wb-figure")
        self.axis = ipw.Dropdown(options=[(a.title, name) for name, a in AXES.items()], description="Across", **auto)
        self.near = ipw.ToggleButton(description="Around the goal", tooltip="Show the heights that matter for the goal")
        self.choose = ipw.Dropdown(options=[("none", _NONE)], description="Trial", **auto)
        self.use: Callable[[Recipe], None] = lambda recipe: None
        self.reuse = ipw.Button(description="Open in the builder", tooltip="Tick what this recipe is made of")
        self.reuse.layout.display = "none"
        self.reuse.on_click(lambda _: self.value is not None and self.use(self.value))
        self.said, self.detail = html("", "wb-note"), html("", "wb-detail")
        self.trials, self.left_out = html("", "wb-trials"), html("", "wb-refusals")
        top = styled(ipw.HBox([self.axis, self.near, self.choose]), "wb-row")
        super().__init__([heading("Accuracy against cost"), top, self.figure, self.said], "wb-card")
        actions = styled(ipw.HBox([self.code_box(), self.reuse]), "wb-row")
        self.children = (*self.children, self.detail, actions, self.trials, self.left_out)
        for widget, trait in ((self.axis, "value"), (self.near, "value"), (self, ["frame", "goal", "theme"])):
            widget.observe(self._draw, trait)
        self.observe(self._fill, "frame")
        self.observe(self._say, ["refused", "notes"])
        self.observe(self._select, "selected")
        self.figure.observe(self._clicked, "clicked")
        traitlets.link(
            (self, "selected"),
            (self.choose, "value"),
            transform=(lambda n: _NONE if n is None else n, lambda n: None if n in (_NONE, None) else n),
        )
        self.frame = pd.DataFrame()

    @property
    def code(self) -> str:
        """The selected trial's recipe as Python; `None` where nothing is selected."""
        return repr(self.value)

    def _draw(self, _: object = None) -> None:
        """Bring the figure to the frame; a person's zoom stays."""
        with self._lock:
            chosen = {"focus": self.near.value, "selected": self.selected}
            self.figure.show(pareto(self.frame, self.goal, self.theme, self.axis.value, **chosen))

    def _fill(self, _: object = None) -> None:
        """Bring the list of trials and the table to the frame."""
        with self._lock:
            titles = [(f"{row['number']}: {row['title']}", row["number"]) for row in tables.rows(self.frame)]
            if list(self.choose.options) != [("none", _NONE), *titles]:
                keep = self.selected
                self.choose.options = [("none", _NONE), *titles]
                self.selected = keep if keep in [number for _, number in titles] else None
            self.trials.value = trials_html(self.frame)
            self._detail()

    def _clicked(self, change: dict) -> None:
        self.selected = int(change["new"]["trial"])

    def _select(self, _: object = None) -> None:
        self._detail()
        self._draw()

    def _detail(self) -> None:
        with self._lock:
            row = next((r for r in tables.rows(self.frame) if r["number"] == self.selected), None)
            self.value = _recipe(row["recipe"]) if row else None
            self.reuse.layout.display = "none" if self.value is None else None
            self.detail.value = detail_html(self.frame, self.selected)

    def _say(self, _: object = None) -> None:
        self.left_out.value = refused_html(self.refused)
        self.said.value = join(tag("div", note) for note in self.notes)
