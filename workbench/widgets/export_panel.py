"""Take a trial away: a folder or zip that runs on its own, its size before it is written, the hub, a notebook.

Nothing is uploaded but by the button that says so, with the token in the field beside it, which is emptied at once.
Left out: downloads through the browser; files are written where the studies lie.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as ipw
import pandas as pd
import traitlets

from workbench.card import lineage
from workbench.errors import UserError
from workbench.export import ExportSize, export, export_place, export_size, push
from workbench.notebook import save_notebook
from workbench.plots.markup import Markup, join, tag
from workbench.plots.table import amount
from workbench.widgets.base import Adapter, code_html, heading, html, styled
from workbench.widgets.error_panel import ErrorPanel
from workbench.widgets.trials import alone, choices
from workbench.widgets.worker import Worker

NO_TRIALS = "No measured trial yet. A trial can be exported as soon as it is complete."
_INSIDE = (
    "Inside: the lowered model, its tokenizer, run.py and requirements.txt (this package is not needed), the recipe, "
    "the measurement, and a model card with lineage and licence."
)


def size_html(size: ExportSize | None, told: dict[str, str]) -> Markup:
    """What the export will take, and where the model comes from."""
    if size is None:
        return Markup("")
    parts = f"model {amount(size.model, 'MB')}, tokenizer {amount(size.tokenizer, 'MB')}"
    facts = {key: told[key] for key in ("Original model", "Data", "Licence of the original") if key in told}
    return join(
        [
            tag("p", tag("b", amount(size.total, "MB")), f" as a folder ({parts}), about ",
                tag("b", amount(size.zipped, "MB")), " as a zip."),
            tag("dl", *(item for key, text in facts.items() for item in (tag("dt", key), tag("dd", text)))),
        ]
    )  # fmt: skip


class ExportPanel(Adapter):
    """Export trial 5 of a study: `ExportPanel(study, 5)` in a cell.

    `study`, `frame` (as `Study.frame()`), `number` and `folder` (where exports go; by default `exports` in the study's
    folder) in; `value` is the path of the last export.
    """

    study = traitlets.Any(None, allow_none=True)
    frame = traitlets.Instance(pd.DataFrame, allow_none=True)
    number = traitlets.Int(None, allow_none=True)
    folder = traitlets.Any(None, allow_none=True)

    def __init__(self, study: Any = None, number: int | None = None, **kwargs: Any) -> None:
        auto = {"style": {"description_width": "auto"}}
        self.choose = styled(ipw.Dropdown(description="Trial", **auto), "wb-choose")
        self.form = ipw.Dropdown(options=[("folder", "folder"), ("zip file", "zip")], description="As", **auto)
        self.name = ipw.Text(description="Name", continuous_update=False, **auto)
        self.write = ipw.Button(description="Export", button_style="primary", tooltip="Write the folder or the zip")
        self.search = ipw.Checkbox(value=True, indent=False, description="with the search that was run")
        self.note = ipw.Button(
            description="Save as notebook", tooltip="Task, search and recipe as a notebook that runs from top to bottom"
        )
        self.repo = ipw.Text(description="Repository", placeholder="owner/name", **auto)
        self.token = ipw.Password(description="Token", placeholder="hf_… with the right to write", **auto)
        self.private = ipw.Checkbox(value=True, indent=False, description="private")
        self.upload = ipw.Button(
            description="Push to the hub",
            button_style="warning",
            tooltip="Upload the exported folder to huggingface.co",
        )
        self.size, self.line, self.panel = html("", "wb-detail"), html("", "wb-status"), ErrorPanel()
        self.done, self.told = html("", "wb-wrap"), html("", "wb-note")
        # What a button set off is never overtaken by a look at another trial's size.
        self.worker = Worker(self._busy, lambda error: self.panel.set_trait("error", error))
        self.looker = Worker(self._busy, lambda error: self.panel.set_trait("error", error))
        self._named, self._filling, self._acting = "", False, False
        self._body = ipw.VBox(
            [
                self.size,
                html(_INSIDE, "wb-note"),
                styled(ipw.HBox([self.form, self.name, self.write, self.code_box()]), "wb-row", "wb-wide-names"),
                heading("Everything done so far, as a notebook"),
                styled(ipw.HBox([self.note, self.search]), "wb-row"),
                heading("Hugging Face hub"),
                html("Uploads the exported folder, and only when you press the button.", "wb-note"),
                styled(ipw.HBox([self.repo, self.token, self.private, self.upload]), "wb-row", "wb-wide-names"),
            ]
        )
        super().__init__(
            [heading("Export"), self.choose, self.told, self._body, self.line, self.panel, self.done],
            "wb-card",
            **kwargs,
        )
        self.observe(self._open, "study")
        self.observe(self._list, "frame")
        self.observe(self._look, "number")
        self.choose.observe(self._chosen, "value")
        self.write.on_click(lambda _: self.export())
        self.note.on_click(lambda _: self.save_notebook())
        self.upload.on_click(lambda _: self.push())
        self.observe(self._enable, ["study", "number", "value"])
        self._list()
        if study is not None:
            alone(self)
            self.number = number
            self.study = study

    @property
    def code(self) -> str:
        """The call that Export makes: `study.export(5, 'runs/demo/exports/model')`."""
        try:
            return f"study.export({self.number!r}, {str(self.place())!r})"
        except UserError:
            return f"study.export({self.number!r}, {self.name.value!r})"

    def root(self) -> Path:
        """The folder below which everything is written."""
        if self.folder is not None:
            return Path(self.folder)
        if self.study is None:
            raise UserError("No study is open.", do="open a study first")
        return Path(self.study.folder) / "exports"

    def place(self) -> Path:
        """Where Export writes; raises `UserError` for a name that leads elsewhere."""
        return export_place(self.root(), self.name.value.strip(), zipped=self.form.value == "zip")

    def export(self) -> None:
        """Write the chosen trial in the chosen form."""
        self._do("Exporting …", self._export)

    def save_notebook(self) -> None:
        """Write what was done so far as a notebook beside the exports."""
        self._do("Writing the notebook …", self._save)

    def push(self) -> None:
        """Upload the folder of the last export; the token leaves the page's field at once."""
        token, self.token.value = self.token.value, ""
        self._do("Uploading to the hub …", lambda: self._push(token))

    def settle(self, seconds: float = 60.0) -> None:
        """Wait until the last button's work is done and shown (for scripts and tests)."""
        for worker in (self.worker, self.looker):
            worker.settle(seconds)

    # --- what the buttons do ------------------------------------------------------------------------------------

    def _export(self) -> Markup:
        study, number, place = self.study, self._number(), self.place()
        place.parent.mkdir(parents=True, exist_ok=True)
        written = export(study, number, place)
        self.value = written
        inside = "unpack it, and there" if written.suffix == ".zip" else "in it"
        return join(
            [
                tag("p", tag("b", "Exported"), f" to {written}. Run it: {inside}"),
                code_html('pip install -r requirements.txt\npython run.py "a text"\npython run.py --check'),
                tag("p", "The same in Python:"),
                code_html(f"study.export({number}, {str(written)!r})"),
            ]
        )

    def _save(self) -> Markup:
        name = self.name.value.strip().removesuffix(".zip") or "study"
        place = free(export_place(self.root(), f"{name}.ipynb"))
        written = save_notebook(self.study, place, self.number, search=self.search.value)
        call = f"save_notebook(study, {str(written)!r}, {self.number!r}, search={self.search.value!r})"
        return join([tag("p", tag("b", "Saved"), f" as {written}."), tag("p", "The same in Python:"), code_html(call)])

    def _push(self, token: str) -> Markup:
        folder = self.value
        if folder is None or Path(folder).suffix == ".zip":
            raise UserError("There is no exported folder to push.", do="export the trial as a folder first")
        repo, private = self.repo.value.strip(), self.private.value
        if not repo:
            raise UserError("No repository is named.", allowed="owner/name", do="fill in Repository")
        address = push(folder, repo, token=token or None, private=private)
        call = f"push({str(folder)!r}, {repo!r}, private={private!r})"
        return join([tag("p", tag("b", "Pushed"), f" to {address}."), tag("p", "The same in Python:"), code_html(call)])

    def _number(self) -> int:
        if self.study is None or self.number is None:
            raise UserError("No trial is chosen.", do="choose a measured trial")
        return self.number

    # --- plumbing -----------------------------------------------------------------------------------------------

    def _do(self, saying: str, action: Callable[[], Markup]) -> None:
        """Run `action` off the main thread; a second click while one is at work does nothing."""
        if self._acting:
            return
        for button in (self.write, self.note, self.upload):
            button.disabled = True

        def work(_: object) -> Markup:
            try:
                return action()
            finally:
                self._acting = False
                self._enable()

        self._acting = True
        self.worker.order(saying, work, lambda shown: self.done.set_trait("value", shown))

    def _open(self, change: dict) -> None:
        old, study = change["old"], change["new"]
        if old is not None and study is not None and old.folder == study.folder:
            return
        if old is not None:
            self.number, self.frame, self.value, self.done.value = None, None, None, ""
        if study is not None and self.frame is None:
            self.looker.order("Reading the study …", lambda order: study.frame(), self._framed)
        elif study is not None:
            self._look()

    def _framed(self, frame: pd.DataFrame) -> None:
        self.frame = frame
        self._look()

    def _list(self, _: object = None) -> None:
        options = choices(self.frame)
        if list(self.choose.options) != options:
            keep = self.number
            self._filling = True
            self.choose.options = options
            self._filling = False
            known = [number for _, number in options]
            self.number = keep if keep in known else known[-1] if known else None
        self.told.value = "" if options else tag("p", NO_TRIALS)
        self._body.layout.display = None if options else "none"
        self._show_choice()

    def _show_choice(self) -> None:
        self._filling = True
        if self.number in [number for _, number in self.choose.options]:
            self.choose.value = self.number
        self._filling = False

    def _chosen(self, change: dict) -> None:
        if not self._filling:
            self.number = change["new"]

    def _look(self, _: object = None) -> None:
        """Find out how large the export will be, and suggest a name."""
        self._show_choice()
        study, number = self.study, self.number
        if study is None or number is None:
            return
        if self.name.value in ("", self._named):
            self._named = self.name.value = f"{study.name}-{number}"

        def look(_: object) -> Markup:
            artifact = study.artifact(number)
            trial = next(t for t in study.trials if t.number == number)
            return size_html(export_size(study, number), lineage(study, trial, artifact.manifest))

        self.looker.order("Weighing the model …", look, lambda shown: self.size.set_trait("value", shown))

    def _enable(self, _: object = None) -> None:
        busy = self._acting
        self.write.disabled = busy or self.number is None
        self.note.disabled = busy or self.study is None
        self.upload.disabled = busy or self.value is None or Path(self.value).suffix == ".zip"

    def _busy(self, saying: str) -> None:
        self.line.value = tag("span", saying)


def free(path: Path) -> Path:
    """`path`, or the same name with the first number that is not taken."""
    taken, i = path, 1
    while taken.exists():
        i += 1
        taken = path.with_name(f"{path.stem}-{i}{path.suffix}")
    return taken
