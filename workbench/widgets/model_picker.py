"""Which model, which data: the demo, a local folder or ONNX file, or a hub id, with a card of what it is.

    ModelPicker()                    a model and its data in one widget; `value` is what `make_task` takes
    ModelPicker(data=False)          the model alone, beside a `DataPicker`

Models found under the working folder stand as rows; those that cannot be used are disabled, with the reason. A hub id
is checked as it is typed. Searching, asking the hub and counting MACs happen in threads and in a process of their own;
`problem` looks at names and files only. Left out: browsing the hub.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import ipywidgets as ipw
import traitlets

from workbench.errors import DataError, ModelError, UserError
from workbench.loading.model_summary import ModelSummary, find_models, summarize
from workbench.measure.accuracy import class_metrics
from workbench.paths import is_inside
from workbench.plots.markup import tag
from workbench.running import look
from workbench.summary import summarize_demo
from workbench.tasks.demo import is_trained
from workbench.widgets.background import Background
from workbench.widgets.base import Adapter, heading, html, styled
from workbench.widgets.error_panel import ErrorPanel, error_html
from workbench.widgets.model_card import card_html, row_html, short_name

KINDS = {"Embedded demo": "demo", "Local folder or ONNX file": "folder", "Hub id": "hub"}
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_DATA_FILES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
_ABOUT = {
    "demo": "A small DistilBERT on made-up product reviews. It needs no download and is trained at its first use.",
    "folder": "A folder as save_pretrained writes it, with safetensors, or an .onnx file beside its tokenizer.",
    "hub": "Downloaded at its first use, such as distilbert/distilbert-base-uncased-finetuned-sst-2-english.",
}
#: Rows of found models; more are told, and can be named.
ROWS = 12
#: Seconds without a letter after which a hub id is asked for; and before the layers of a local model are counted, which
#: starts a process and must not hold up the page's first paint.
TYPING, CALM = 0.6, 1.0


def description(kind: str, model: str, data: str, **options: Any) -> dict[str, Any]:
    """The keyword arguments of `make_task`; empty options are left out, and so is `data` for the demo."""
    if kind == "demo":
        return {"model": "demo"}
    given = {"model": model.strip(), "data": data.strip(), **options}
    return {name: value for name, value in given.items() if value not in ("", (), None)}


def problem(kind: str, model: str, data: str) -> UserError | None:
    """None, or what is wrong with model or data as far as names and files tell; nothing is loaded or downloaded."""
    return None if kind == "demo" else model_problem(kind, model) or data_problem(data)


def model_problem(kind: str, model: str, within: Path | None = None) -> UserError | None:
    """None, or what is wrong with the model's name; a path must lie in the folder `within`, where there is one."""
    model = model.strip()
    if kind == "demo":
        return None
    if not model:
        return ModelError("No model is named.", allowed="a folder, an ONNX file or a hub id", do="fill in Model")
    if kind == "hub":
        if _HUB_ID.fullmatch(model) and ".." not in model:
            return None
        return ModelError(f"{model!r} is no hub id.", allowed="owner/name", do="copy it from the model's page")
    path = Path(model).expanduser()
    if within is not None and not is_inside(path.absolute(), within):
        return ModelError(f"{model!r} lies outside {within}.", allowed=f"models in {within}", do="choose another path")
    if not path.exists():
        return ModelError(f"{model!r} does not exist.", allowed="a folder or an .onnx file", do="check the path")
    if path.is_dir() and not ((path / "config.json").exists() or any(path.glob("*.onnx"))):
        return ModelError(
            f"{model!r} holds neither config.json nor an .onnx file.",
            allowed="a folder that save_pretrained wrote",
            do="name the folder that holds config.json",
        )
    return None


def data_problem(data: str, within: Path | None = None) -> UserError | None:
    """None, or what is wrong with the data's name; a path must lie in the folder `within`, where there is one."""
    data = data.strip()
    if not data:
        return DataError("No data are named.", allowed="a file, a folder of splits or a hub id", do="fill in Data")
    path = Path(data).expanduser()
    if within is not None and (path.exists() or _looks_local(data)) and not is_inside(path.absolute(), within):
        return DataError(f"{data!r} lies outside {within}.", allowed=f"data in {within}", do="choose another path")
    if _looks_local(data) and not path.exists():
        return DataError(f"{data!r} does not exist.", allowed="CSV, TSV, JSON Lines, Parquet", do="check the path")
    return None


def _looks_local(data: str) -> bool:
    return data.startswith(("/", ".", "~")) or Path(data).suffix in _DATA_FILES


class ModelPicker(Adapter):
    """`value` is the dictionary of arguments for `make_task`, None while something is missing (see `problem`).

    ModelPicker(root="models")       looks for models there, instead of in the working folder

    `summary` is the `ModelSummary` of the card, None until it is known. `task_kind` decides which heads fit. With
    `within`, paths outside that folder are refused; without `auto`, no thread and no process is started before `wake`.
    """

    problem = traitlets.Any(None, allow_none=True)
    summary = traitlets.Instance(ModelSummary, allow_none=True)
    task_kind = traitlets.Unicode("text_classification")

    def __init__(
        self,
        *,
        root: str | Path = ".",
        data: bool = True,
        within: str | Path | None = None,
        auto: bool = True,
        **kwargs: Any,
    ) -> None:
        self.auto = auto
        self.root, self.within = Path(root).expanduser().absolute(), Path(within) if within else None
        wide = {"style": {"description_width": "5.5em"}, "continuous_update": False}
        self.kind = ipw.RadioButtons(options=list(KINDS.items()), layout={"width": "auto"})
        self.kind.add_class("wb-kinds")
        self.about = html("", "wb-note")
        self.model = ipw.Text(description="Model", placeholder="path or owner/name", **wide)
        self.revision = ipw.Text(description="Revision", placeholder="main", **wide)
        self.data = ipw.Text(description="Data", placeholder="file, folder or hub id such as glue/sst2", **wide)
        self.text = ipw.Text(description="Text", placeholder="column(s), guessed when empty", **wide)
        self.label = ipw.Text(description="Label", placeholder="column, guessed when empty", **wide)
        self.metric = ipw.Dropdown(description="Metric", options=class_metrics(), style={"description_width": "5.5em"})
        about_data = [self.data, self.text, self.label, self.metric]
        self._with_data = data
        self.fields = ipw.VBox([self.model, self.revision, *(about_data if data else [])])
        self.found: list[Any] = []
        self.rows = styled(ipw.VBox(), "wb-rows")
        self.search = ipw.Button(description="Look for models", tooltip=f"Search {self.root} for models")
        self.search.on_click(lambda _: self.look_around())
        self.card, self.panel = html("", "wb-flow"), ErrorPanel()
        self._asked: tuple[str, str | None, str] | None = None
        self._around, self._look = Background("models"), Background("model")
        title = "Model and data" if data else "Model"
        super().__init__([heading(title), self.kind, self.about, self.rows, self.search, self.fields], "wb-card")
        self.children = (*self.children, self.panel, self.card, self.code_box())
        for field in (self.kind, *self.fields.children):
            styled(field, "wb-field").observe(self._assign, "value")
        self.observe(self._assign, "task_kind")
        self.kind.observe(self._first_look, "value")
        self._assign()

    def _first_look(self, change: Any) -> None:
        """Look for folders the first time that they are wanted."""
        if change["new"] == "folder" and not self.found and self.auto:
            self.look_around()

    @property
    def code(self) -> str:
        """`make_task('demo')`, or the same call with a model and its data; without data, what fills the card."""
        given = dict(self.value or {"model": "demo"})
        rest = "".join(f", {name}={value!r}" for name, value in given.items() if name != "model")
        if self._with_data:
            return f"make_task({given['model']!r}{rest})"
        kind = "" if self.task_kind == "text_classification" else f", kind={self.task_kind!r}"
        return f"describe_model({given['model']!r}{rest}{kind})"

    def fill(self, task: dict[str, Any]) -> None:
        """Show the model and data of a task as `Task.to_json` describes it."""
        if task.get("name") == "demo":
            self.kind.value = "demo"
            return
        model = str(task.get("model") or "")
        self.model.value, self.data.value = model, str(task.get("data") or "")
        self.metric.value = task.get("metric", self.metric.value)
        self.text.value, self.label.value = ", ".join(task.get("text") or ()), str(task.get("label") or "")
        self.revision.value = str(task.get("revision") or "")
        self.kind.value = "folder" if Path(model).expanduser().exists() else "hub"

    def wake(self) -> None:
        """Search and look by itself from now on; see `auto`."""
        if not self.auto:
            self.auto, self._asked = True, None
            self._first_look({"new": self.kind.value})
            self._describe(self.kind.value)

    def look_around(self) -> None:
        """Search the working folder for models, in a thread, and show them as rows."""
        self.search.disabled = True
        self.rows.children = (html(f"Looking for models in {self.root} …", "wb-note"),)
        kind = self.task_kind
        self._around.do(lambda: find_models(self.root, kind), self._show_rows, self._no_rows)

    def settle(self, seconds: float = 60.0) -> None:
        """Wait until everything that was asked for is shown (for scripts and tests)."""
        self._around.settle(seconds)
        self._look.settle(seconds)

    # --- plumbing -----------------------------------------------------------------------------------------------

    def _assign(self, _: object = None) -> None:
        kind, metric = self.kind.value, self.metric.value
        columns = tuple(part.strip() for part in self.text.value.split(",") if part.strip())
        options = {"text": columns, "label": self.label.value.strip(), "metric": metric if metric != "accuracy" else ""}
        options = options if self._with_data else {}
        if kind == "hub":
            options["revision"] = self.revision.value.strip()
        self._layout(kind)
        self._mark()
        wrong = model_problem(kind, self.model.value, self.within)
        if wrong is None and self._with_data and kind != "demo":
            wrong = data_problem(self.data.value, self.within)
        self.problem = wrong
        named = bool(self.model.value.strip())
        # Nothing typed yet is no mistake: the message comes with the first word, and again at Start.
        self.panel.error = self.problem if named else None
        data = self.data.value if self._with_data else ""
        self.value = None if self.problem else description(kind, self.model.value, data, **options)
        self._describe(kind)

    def _layout(self, kind: str) -> None:
        # A hub id is checked while it is typed; half a path would only be called missing.
        self.model.continuous_update = kind == "hub"
        self.revision.layout.display = None if kind == "hub" else "none"
        self.fields.layout.display = "none" if kind == "demo" else None
        for widget in (self.rows, self.search):
            widget.layout.display = None if kind == "folder" else "none"
        self.about.value = _ABOUT[kind]

    def _mark(self) -> None:
        """Set the chosen row off; the field below it says the same in words."""
        for one, row in zip(self.found, self.rows.children, strict=False):
            row.children[0].button_style = "info" if one.model == self.model.value.strip() else ""

    def _describe(self, kind: str) -> None:
        """Have the card made for the model that is named now, unless it is the one it shows."""
        model, revision = self.model.value.strip(), self.revision.value.strip() if kind == "hub" else ""
        if model_problem(kind, model, self.within):
            self._asked, self.summary = None, None
            self._look.forget()
            self.card.value = ""
            return
        asked = ("demo" if kind == "demo" else model, revision or None, self.task_kind)
        if asked == self._asked:
            if self.summary is not None and self.summary.problem:
                self._refuse(self.summary)
            return
        self.summary = None
        self._asked = asked
        self.card.value = tag("p", f"Asking the hub for {model} …" if kind == "hub" else "Looking …", class_="wb-note")
        # What can be read at once is shown at once; what needs the layers follows.
        if kind == "demo":
            self._show_card(summarize_demo(), complete=False)
        elif kind == "folder":
            self._show_card(summarize(Path(model).expanduser(), self.task_kind), complete=False)
        if not self.auto:
            self._look.forget()
            return
        if self.summary is not None and (self.summary.problem or (kind == "demo" and not is_trained())):
            self._look.forget()
            self._show_card(self.summary)
            return
        self._look.do(
            lambda: ModelSummary.from_json(look.ask("model", model=asked[0], revision=asked[1], kind=asked[2])),
            self._show_card,
            self._no_card,
            wait=TYPING if kind == "hub" else CALM,
        )

    def _show_card(self, found: ModelSummary, *, complete: bool = True) -> None:
        self.summary = found
        self.card.value = card_html(found, complete=complete)
        if found.problem:
            self._refuse(found)

    def _refuse(self, found: ModelSummary) -> None:
        """A model that cannot be used is no value; the card says why."""
        self.problem, self.value = ModelError(found.problem, do=found.do), None

    def _no_card(self, error: Exception) -> None:
        self.card.value = error_html(error)

    def _show_rows(self, found: list[ModelSummary]) -> None:
        self.found, self.search.disabled = found, False
        self.search.description = "Look again"
        if not found:
            note = f"No model was found in {self.root}. Save one there with model.save_pretrained, or name its path."
            self.rows.children = (html(note, "wb-note"),)
            return
        rows = [self._row(one) for one in found[:ROWS]]
        if len(found) > ROWS:
            rows.append(html(f"and {len(found) - ROWS} more; name one by its path", "wb-note"))
        self.rows.children = tuple(rows)
        self._mark()

    def _row(self, one: ModelSummary) -> Any:
        name = short_name(one, self.root)
        button = styled(ipw.Button(description=name, tooltip=one.model, disabled=not one.usable), "wb-row-name")
        button.on_click(lambda _: setattr(self.model, "value", one.model))
        return styled(ipw.HBox([button, html(row_html(one), "wb-note")]), "wb-found")

    def _no_rows(self, error: Exception) -> None:
        self.search.disabled = False
        self.rows.children = (html(error_html(error)),)
