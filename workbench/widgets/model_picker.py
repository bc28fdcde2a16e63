"""Which model, which data: the demo, a local folder or ONNX file, or a hub id, with what can be seen at a glance.

The picker only describes; the runner loads. `problem` looks at names and files and never opens a model.
Left out: a preview of examples, browsing the hub.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import ipywidgets as ipw
import traitlets

from workbench.errors import DataError, ModelError, UserError
from workbench.measure.accuracy import class_metrics
from workbench.widgets.base import Adapter, heading, html, styled
from workbench.widgets.error_panel import ErrorPanel

KINDS = {"Embedded demo": "demo", "Local folder or ONNX file": "folder", "Hub id": "hub"}
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_DATA_FILES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
_ABOUT = {
    "demo": "A small DistilBERT on made-up product reviews. It needs no download and is trained at its first use.",
    "folder": "A folder as save_pretrained writes it, with safetensors, or an .onnx file beside its tokenizer.",
    "hub": "Downloaded at its first use, such as distilbert/distilbert-base-uncased-finetuned-sst-2-english.",
}


def description(kind: str, model: str, data: str, **options: Any) -> dict[str, Any]:
    """The keyword arguments of `make_task`; empty options are left out, and so is `data` for the demo."""
    if kind == "demo":
        return {"model": "demo"}
    given = {"model": model.strip(), "data": data.strip(), **options}
    return {name: value for name, value in given.items() if value not in ("", (), None)}


def problem(kind: str, model: str, data: str) -> UserError | None:
    """None, or what is wrong as far as names and files tell; nothing is loaded or downloaded."""
    if kind == "demo":
        return None
    model, data = model.strip(), data.strip()
    if not model:
        return ModelError("No model is named.", allowed="a folder, an ONNX file or a hub id", do="fill in Model")
    if kind == "hub" and not _HUB_ID.fullmatch(model):
        return ModelError(f"{model!r} is no hub id.", allowed="owner/name", do="copy it from the model's page")
    path = Path(model).expanduser()
    if kind == "folder" and not path.exists():
        return ModelError(f"{model!r} does not exist.", allowed="a folder or an .onnx file", do="check the path")
    if kind == "folder" and path.is_dir() and not ((path / "config.json").exists() or any(path.glob("*.onnx"))):
        return ModelError(
            f"{model!r} holds neither config.json nor an .onnx file.",
            allowed="a folder that save_pretrained wrote",
            do="name the folder that holds config.json",
        )
    if not data:
        return DataError("No data are named.", allowed="a file, a folder of splits or a hub id", do="fill in Data")
    if _looks_local(data) and not Path(data).expanduser().exists():
        return DataError(f"{data!r} does not exist.", allowed="CSV, TSV, JSON Lines, Parquet", do="check the path")
    return None


def _looks_local(data: str) -> bool:
    return data.startswith(("/", ".", "~")) or Path(data).suffix in _DATA_FILES


class ModelPicker(Adapter):
    """`value` is the dictionary of arguments for `make_task`, None while something is missing (see `problem`)."""

    problem = traitlets.Any(None, allow_none=True)

    def __init__(self, **kwargs: Any) -> None:
        wide = {"style": {"description_width": "5.5em"}, "continuous_update": False}
        self.kind = ipw.RadioButtons(options=list(KINDS.items()))
        self.about = html("", "wb-note")
        self.model = ipw.Text(description="Model", placeholder="path or owner/name", **wide)
        self.revision = ipw.Text(description="Revision", placeholder="main", **wide)
        self.data = ipw.Text(description="Data", placeholder="file, folder or hub id such as glue/sst2", **wide)
        self.text = ipw.Text(description="Text", placeholder="column(s), guessed when empty", **wide)
        self.label = ipw.Text(description="Label", placeholder="column, guessed when empty", **wide)
        self.metric = ipw.Dropdown(description="Metric", options=class_metrics(), style={"description_width": "5.5em"})
        self.fields = ipw.VBox([self.model, self.revision, self.data, self.text, self.label, self.metric])
        self.panel = ErrorPanel()
        super().__init__(
            [heading("Model and data"), self.kind, self.about, self.fields, self.panel], "wb-card", **kwargs
        )
        self.children = (*self.children, self.code_box())
        for field in (self.kind, *self.fields.children):
            styled(field, "wb-field").observe(self._assign, "value")
        self._assign()

    @property
    def code(self) -> str:
        """`make_task('demo')`, or the same call with a model and its data."""
        given = dict(self.value or {"model": "demo"})
        rest = "".join(f", {name}={value!r}" for name, value in given.items() if name != "model")
        return f"make_task({given['model']!r}{rest})"

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

    def _assign(self, _: object = None) -> None:
        kind, metric = self.kind.value, self.metric.value
        columns = tuple(part.strip() for part in self.text.value.split(",") if part.strip())
        options = {"text": columns, "label": self.label.value.strip(), "metric": metric if metric != "accuracy" else ""}
        if kind == "hub":
            options["revision"] = self.revision.value.strip()
        self.revision.layout.display = None if kind == "hub" else "none"
        self.fields.layout.display = "none" if kind == "demo" else None
        self.about.value = _ABOUT[kind]
        self.problem = problem(kind, self.model.value, self.data.value)
        named = bool(self.model.value.strip())
        # Nothing typed yet is no mistake: the message comes with the first word, and again at Start.
        self.panel.error = self.problem if named else None
        self.value = None if self.problem else description(kind, self.model.value, self.data.value, **options)
