"""Which data a model is measured on, and what is in them: splits, labels, lengths, rows, tokens.

    DataPicker()                                             the demo's own data
    DataPicker({"model": "path/to/model"})                   for a model; `value` is what `make_task` takes

Local data are looked at as soon as they are named, those of the hub after a click, because looking downloads them.
Reading happens in a process of its own: first the files alone, then with the model's tokenizer. Left out: editing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ipywidgets as ipw
import traitlets

from workbench.errors import DataError, UserError
from workbench.loading.data import find_data
from workbench.measure.accuracy import class_metrics
from workbench.plots.markup import tag
from workbench.running import look
from workbench.summary import DataSummary, TableSummary
from workbench.widgets import data_view as view
from workbench.widgets.background import Background
from workbench.widgets.base import Adapter, heading, html, styled
from workbench.widgets.error_panel import ErrorPanel
from workbench.widgets.model_picker import data_problem

#: The value of "guessed" and "all" in lists: an empty option is not passed on.
_OPEN = ""
_WIDE = {"style": {"description_width": "8em"}}
#: Seconds without a change after which local data are looked at.
PAUSE = 0.4


def data_options(
    *,
    text: tuple[str, ...] = (),
    label: str = "",
    labels_map: Mapping[str, str] | None = None,
    metric: str = "accuracy",
    split: str = "",
    reserve: float = 0.0,
    limit: int = 0,
    data_revision: str = "",
) -> dict[str, Any]:
    """The keyword arguments of `make_task` that are about data; what is left to its defaults is left out."""
    given = {
        "text": text,
        "label": label,
        "labels_map": dict(labels_map or {}),
        "metric": metric if metric != "accuracy" else "",
        "split": split,
        "reserve": round(reserve, 6),
        "limit": limit,
        "data_revision": data_revision,
    }
    return {name: value for name, value in given.items() if value}


def parse_map(text: str) -> dict[str, str]:
    """`5=positive, 1=negative` as a dictionary; raises `DataError`."""
    found = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        value, equals, target = (piece.strip() for piece in part.partition("="))
        if not (value and equals and target):
            raise DataError(
                f"{part!r} in the label map is not understood.",
                allowed="value in the data=class of the model, such as 5=positive, 1=negative",
                do="correct it, or leave it empty",
            )
        found[value] = target
    return found


class DataPicker(Adapter):
    """`value` is the dictionary of arguments for `make_task`, the model among them; None while something is missing.

    DataPicker({"model": "path/to/model"}, data="path/to/data")

    `model` is what a `ModelPicker(data=False)` has as its `value`; `table` and `summary` are what was seen of the data
    without and with the model. With `within`, paths outside that folder are refused; without `auto`, nothing is looked
    at before the click.
    """

    model = traitlets.Dict(allow_none=True)
    task_kind = traitlets.Unicode("text_classification")
    problem = traitlets.Any(None, allow_none=True)
    table = traitlets.Instance(TableSummary, allow_none=True)
    summary = traitlets.Instance(DataSummary, allow_none=True)

    def __init__(
        self,
        model: dict[str, Any] | None = None,
        data: str = "",
        *,
        root: str | Path = ".",
        within: str | Path | None = None,
        auto: bool = True,
        **kwargs: Any,
    ) -> None:
        self.auto, self._searched = auto, False
        self.root, self.within = Path(root).expanduser().absolute(), Path(within) if within else None
        self._filling = False
        self._make_controls(data)
        self._make_views()
        self._background, self._around = Background("data"), Background("data-files")
        title = heading("Data")
        self.form = styled(
            ipw.VBox([title, self.about, self.fields, self.panel, self.line, self.look, self.code_box()]), "wb-form"
        )
        super().__init__([self.form, self.view], "wb-card", model=model or {"model": "demo"}, **kwargs)
        self.add_class("wb-data")
        for field in self._fields:
            styled(field, "wb-field").observe(self._assign, "value")
        self.look.on_click(lambda _: self.read())
        self.observe(self._assign, ["model", "task_kind"])
        self._assign()

    @property
    def code(self) -> str:
        """`make_task('path/to/model', 'path/to/data', text=('sentence',))`"""
        given = dict(self.value or {"model": "demo"})
        rest = "".join(f", {name}={value!r}" for name, value in given.items() if name != "model")
        return f"make_task({given['model']!r}{rest})"

    def fill(self, task: dict[str, Any]) -> None:
        """Show the data of a task as `Task.to_json` describes it."""
        self._filling = True
        try:
            self._fill(task)
        finally:
            self._filling = False
        self._assign()

    def wake(self) -> None:
        """Look by itself from now on, and at once where nothing has to be downloaded; see `auto`."""
        if not self.auto:
            self.auto = True
            self._assign()

    def read(self) -> None:
        """Look at the data now, in another process; a hub's data are downloaded for it."""
        given = self.value
        if given is None:
            self.panel.error = self.problem
            return
        self.table = self.summary = None
        self._show()
        self.line.value = tag("span", "Reading the data …")
        self._background.do(lambda: self._ask_table(given), lambda seen: self._seen(given, seen), self._wrong)

    def settle(self, seconds: float = 60.0) -> None:
        """Wait until everything that was asked for is shown (for scripts and tests)."""
        self._around.settle(seconds)
        self._background.settle(seconds)

    # --- the form -----------------------------------------------------------------------------------------------

    def _make_controls(self, data: str) -> None:
        self.about = html("", "wb-note")
        self.data = ipw.Combobox(
            value=data, description="Data", placeholder="file, folder or hub id", ensure_option=False, **_WIDE
        )
        self.configuration = ipw.Text(description="Configuration", placeholder="such as sst2 of glue", **_WIDE)
        self.revision = ipw.Text(description="Revision", placeholder="main", **_WIDE)
        self.text = ipw.Dropdown(description="Text", options=[("guessed", _OPEN)], **_WIDE)
        self.second = ipw.Dropdown(description="Second text", options=[("none", _OPEN)], **_WIDE)
        self.label = ipw.Dropdown(description="Label", options=[("guessed", _OPEN)], **_WIDE)
        self.labels_map = ipw.Text(description="Label map", placeholder="5=positive, 1=negative", **_WIDE)
        self.metric = ipw.Dropdown(description="Metric", options=class_metrics(), **_WIDE)
        self.split = ipw.Dropdown(description="Measure on", options=[("validation, else test", _OPEN)], **_WIDE)
        self.reserve = ipw.BoundedFloatText(
            description="Reserve (%)", min=0, max=90, step=10, tooltip="Share kept back for the report", **_WIDE
        )
        self.limit = ipw.BoundedIntText(
            description="At most (0: all)", min=0, max=10**9, tooltip="Examples that are measured", **_WIDE
        )
        for typed in (self.data, self.configuration, self.revision, self.labels_map):
            typed.continuous_update = False
        columns = [self.text, self.second, self.label, self.labels_map]
        measured = [self.metric, self.split, self.reserve, self.limit]
        self._fields = [self.data, self.configuration, self.revision, *columns, *measured]
        self.fields = ipw.VBox(self._fields)
        self.look = ipw.Button(
            description="Look at the data", tooltip="Read them, download them where they are not here"
        )
        self.panel, self.line = ErrorPanel(), html("", "wb-note")

    def _make_views(self) -> None:
        names = ("splits", "labels", "lengths", "raw", "tokens", "notes")
        self.views = {name: html("", "wb-flow") for name in names}
        titles = ("Splits", "Labels", "Lengths", "As they lie there", "As the model sees them", "To know")
        self._titles = {name: html(tag("h4", title)) for name, title in zip(names, titles, strict=True)}
        sections = [ipw.VBox([self._titles[name], self.views[name]]) for name in names]
        counts = styled(ipw.HBox(sections[:3]), "wb-three")
        self.view = styled(ipw.VBox([counts, *sections[3:]]), "wb-view")

    def _fill(self, task: dict[str, Any]) -> None:
        self.data.value, self.configuration.value = str(task.get("data") or ""), ""
        self.revision.value = str(task.get("data_revision") or "")
        named = [*(task.get("text") or ())]
        self._offer([name for name in (*named, task.get("label"), task.get("split")) if name])
        self.text.value = named[0] if named else _OPEN
        self.second.value = named[1] if len(named) > 1 else _OPEN
        self.label.value, self.split.value = task.get("label") or _OPEN, task.get("split") or _OPEN
        pairs = (task.get("labels_map") or {}).items()
        self.labels_map.value = ", ".join(f"{value}={target}" for value, target in pairs)
        if task.get("metric") in self.metric.options:
            self.metric.value = task["metric"]
        self.reserve.value = 100 * float(task.get("reserve") or 0)
        self.limit.value = int(task.get("limit") or 0)

    def _offer(self, columns: list[str], splits: list[str] | None = None, guesses: TableSummary | None = None) -> None:
        """Put columns and splits into the lists; what was chosen stays chosen."""
        text = guesses.text[0] if guesses and guesses.text else ""
        label = guesses.label if guesses and guesses.label else ""
        first = {
            self.text: f"guessed: {text}" if text else "guessed",
            self.second: "none",
            self.label: f"guessed: {label}" if label else "guessed",
            self.split: "validation, else test",
        }
        for field, open_title in first.items():
            names = splits if field is self.split and splits is not None else columns
            kept = field.value
            names = [*names, *([kept] if kept and kept not in names else [])]
            field.options = [(open_title, _OPEN), *((name, name) for name in names)]
            field.value = kept

    def _assign(self, _: object = None) -> None:
        if self._filling:
            return
        given = dict(self.model or {})
        self.problem, self.value = None, None
        try:
            self.value = self._description(given)
        except UserError as error:
            self.problem = error
        demo = given.get("model") == "demo"
        self._layout(demo)
        self.panel.error = self.problem if self.data.value.strip() else None
        self.table = self.summary = None
        self._show()
        if self.value is None:
            self._background.forget()
            self.line.value = "" if self.panel.error else tag("span", "Name the data to see what is in them.")
        elif not self.auto:
            self._background.forget()
            self.line.value = tag("span", "“Look at the data” shows splits, labels, lengths and examples.")
        elif demo or self._is_local(given):
            self._read_soon()
        else:
            self._background.forget()
            self.line.value = tag(
                "span", "From the hub: “Look at the data” downloads what is not here, the model included."
            )

    def _description(self, given: dict[str, Any]) -> dict[str, Any]:
        if not given.get("model"):
            raise UserError("No model is chosen.", do="choose a model first")
        if given["model"] == "demo":
            return {"model": "demo"}
        data = "/".join(filter(None, (self.data.value.strip(), self.configuration.value.strip())))
        if wrong := data_problem(data, self.within):
            raise wrong
        kind = {} if self.task_kind == "text_classification" else {"kind": self.task_kind}
        options = data_options(
            text=tuple(filter(None, (self.text.value, self.second.value))),
            label=self.label.value,
            labels_map=parse_map(self.labels_map.value),
            metric=self.metric.value,
            split=self.split.value,
            reserve=self.reserve.value / 100,
            limit=self.limit.value,
            data_revision="" if Path(data).expanduser().exists() else self.revision.value.strip(),
        )
        if kind:
            options = {name: value for name, value in options.items() if name not in ("label", "labels_map", "metric")}
        return {**given, "data": data, **kind, **options}

    def _layout(self, demo: bool) -> None:
        self.fields.layout.display = "none" if demo else None
        if not demo and not self._searched:
            self._searched = True
            self._around.do(self._suggestions, self._suggest, lambda error: None)
        self.about.value = "The demo brings its own data: reviews from a grammar." if demo else ""
        typed = self.data.value.strip()
        hub = bool(typed) and not Path(typed).expanduser().exists()
        for field in (self.configuration, self.revision):
            field.layout.display = None if hub else "none"
        for field in (self.label, self.labels_map, self.metric, self.second):
            field.layout.display = None if self.task_kind == "text_classification" else "none"

    def _is_local(self, given: dict[str, Any]) -> bool:
        """Whether neither the model nor the data would have to be downloaded."""
        data = self.data.value.strip()
        return Path(str(given["model"])).expanduser().exists() and Path(data).expanduser().exists()

    def _suggestions(self) -> list[str]:
        return [str(path) for path in find_data(self.root)[:200]]

    def _suggest(self, found: list[str]) -> None:
        self.data.options = found

    # --- looking ------------------------------------------------------------------------------------------------

    def _read_soon(self) -> None:
        given = self.value
        self.line.value = tag("span", "Reading the data …")
        self._background.do(
            lambda: self._ask_table(given), lambda seen: self._seen(given, seen), self._wrong, wait=PAUSE
        )

    def _ask_table(self, given: dict[str, Any]) -> TableSummary | None:
        if given["model"] == "demo":
            return None
        kind = given.get("kind", "text_classification")
        options = {"text": given.get("text", ()), "label": given.get("label"), "revision": given.get("data_revision")}
        return TableSummary.from_json(look.ask("table", data=given["data"], kind=kind, **options))

    def _seen(self, given: dict[str, Any], seen: TableSummary | None) -> None:
        """Show the files, then go on with the model's view of them."""
        self.table = seen
        if seen is not None:
            self._filling = True
            try:
                self._offer(list(seen.columns), list(seen.splits), seen)
            finally:
                self._filling = False
        self._show()
        self.line.value = tag("span", "Reading them with the model's tokenizer …")
        self._background.do(lambda: DataSummary.from_json(look.ask("data", **given)), self._understood, self._wrong)

    def _understood(self, seen: DataSummary) -> None:
        self.summary, self.line.value = seen, ""
        self._show()

    def _wrong(self, error: Exception) -> None:
        self.panel.error, self.line.value = error, ""

    def _show(self) -> None:
        found, seen = self.table, self.summary
        shown = {
            "splits": view.splits_html(found, seen),
            "labels": view.labels_html(found, seen),
            "lengths": view.lengths_html(seen),
            "raw": view.rows_html(found),
            "tokens": view.tokens_html(seen),
            "notes": view.notes_html(found, seen),
        }
        for name, text in shown.items():
            self.views[name].value = text
            self._titles[name].layout.display = None if text else "none"
        self.view.layout.display = None if found or seen else "none"
