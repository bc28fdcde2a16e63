"""The studies on disk: open, rename, duplicate, delete, compare two, take a trial over from another one.

    StudyBrowser("runs")

Every button makes one call of `workbench.studies`, off the main thread and one at a time, and shows it as Python. A
study that is running is never renamed, copied or deleted, and deleting asks first. `show` and `moved` are called for
whoever shows a study. Left out: studies in other folders than the one that is served.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as ipw
import traitlets

from workbench.errors import UserError
from workbench.paths import is_inside
from workbench.plots import table as tables
from workbench.plots.bars import csv_link
from workbench.plots.markup import Markup, join, table, tag, wide
from workbench.plots.studies import comparison_table, studies_table
from workbench.studies import (
    Comparison,
    StudyRow,
    compare_studies,
    delete_study,
    duplicate_study,
    import_trial,
    list_studies,
    plain_name,
    rename_study,
)
from workbench.study import Study
from workbench.widgets.background import Background
from workbench.widgets.base import Adapter, code_html, heading, html, styled
from workbench.widgets.error_panel import ErrorPanel

#: The values of "none" in the lists; None would leave a list blank.
_NONE, _NO_TRIAL = "", -1
_LABEL = {"style": {"description_width": "auto"}}


def studies_html(rows: list[StudyRow], selected: str = "") -> Markup:
    """The list; the selected study is set off."""
    if not rows:
        return tag("p", "There is no study here yet. Start a sweep, and it appears in this list.", class_="wb-note")
    frame = studies_table(rows)
    marked = [i for i, row in enumerate(rows) if row.name == selected]
    parts = [wide(table(frame, css="wb-table wb-studies", marked=marked), "Studies")]
    return join([*parts, csv_link(frame, "studies")])


def comparison_html(found: Comparison) -> Markup:
    """Two studies recipe by recipe, and first what forbids to read their numbers as equals."""
    frame = comparison_table(found)
    notes = [tag("li", note) for note in found.notes]
    said = tag("details", tag("summary", f"What differs around the numbers ({len(notes)})"), tag("ul", *notes))
    title = tag("h4", f"{found.first} and {found.second}, recipe by recipe")
    key = "Change is paired on the same examples, from the first to the second. Speed: only intervals that do not meet."
    shown = wide(table(frame, css="wb-table wb-compared"), "Both studies, recipe by recipe")
    name = f"{found.first}-{found.second}"
    parts = [title, said if notes else "", shown, tag("p", key, class_="wb-note"), csv_link(frame, name)]
    return tag("div", *parts, class_="wb-refusals")


class StudyBrowser(Adapter):
    """`value` is the selected study's folder as text, None while there is none; `code` opens it.

    StudyBrowser("runs")

    `study` is the one that is shown elsewhere; it is selected when it opens, for that is what a click on Duplicate or
    Delete will be taken to mean. `done` is the Python of the last button's call, `comparison` what Compare found.
    """

    value = traitlets.Unicode(None, allow_none=True)
    study = traitlets.Any(None)
    done = traitlets.Unicode("")
    comparison = traitlets.Instance(Comparison, allow_none=True)

    def __init__(self, root: str | Path = "runs", **kwargs: Any) -> None:
        self.root = Path(root).expanduser().absolute()
        self.rows: list[StudyRow] = []
        #: Called with a study's folder: to show it; and with the old and the new one (None: deleted) when it moved.
        self.show: Callable[[str], None] = lambda folder: None
        self.moved: Callable[[str, str | None], None] = lambda old, new: None
        self._work, self._list, self._inside = Background("studies"), Background("studies-list"), Background("trials")
        self._refilling = self._doing = False
        self._make_controls()
        self.listed, self.compared = html("", "wb-flow"), html("", "wb-flow")
        self.said, self.panel = html("", "wb-note"), ErrorPanel()
        choose = styled(ipw.HBox([self.choose, self.buttons["open"], self.buttons["again"]]), "wb-row")
        change = styled(ipw.HBox([self.name, self.buttons["rename"], self.buttons["duplicate"]]), "wb-row")
        remove = styled(ipw.HBox([self.buttons["delete"], self.ask]), "wb-row")
        with_other = styled(ipw.HBox([self.other, self.buttons["compare"]]), "wb-row")
        take = styled(ipw.HBox([self.trial, self.buttons["import"], self.anyway]), "wb-row")
        parts = [heading("Studies"), self.listed, choose, change, remove, html(tag("h4", "Beside another study"))]
        super().__init__([*parts, with_other, take, self.said, self.panel, self.compared], "wb-card", **kwargs)
        self.children = (*self.children, self.code_box())
        self.choose.observe(self._select, "value")
        self.other.observe(self._other_chosen, "value")
        self.observe(self._show_rows, "value")
        self.observe(self._follow, "study")
        self.refresh()

    @property
    def code(self) -> str:
        """`Study('/…/runs/mine')`, the call that opens what is selected."""
        return f"Study({self.value!r})" if self.value else "None"

    def refresh(self) -> None:
        """Read the list again, in a thread."""
        self._list.do(lambda: list_studies(self.root), self._listed, self._unlisted)

    def settle(self, seconds: float = 60.0) -> None:
        """Wait until everything that was asked for is shown (for scripts and tests)."""
        for background in (self._work, self._list, self._inside):
            background.settle(seconds)

    # --- what the buttons do ------------------------------------------------------------------------------------

    def rename(self) -> None:
        """Give the selected study the name in the field."""
        here, name = self._chosen(), plain_name(self.name.value.strip())
        self._do("Renaming …", f"rename_study({here!r}, {name!r})", lambda: rename_study(here, name), self._renamed)

    def duplicate(self) -> None:
        """Copy the selected study, under the name in the field where there is one."""
        here, name = self._chosen(), self.name.value.strip()
        given = f", {plain_name(name)!r}" if name else ""
        self._do("Copying …", f"duplicate_study({here!r}{given})", lambda: duplicate_study(here, name), self._copied)

    def delete(self) -> None:
        """Remove the study that was asked about."""
        here = self._about
        self.ask.layout.display = "none"
        if here is not None:
            self._do("Deleting …", f"delete_study({here!r})", lambda: delete_study(here), lambda _: self._gone(here))

    def compare(self) -> None:
        """Show the selected study and the other one recipe by recipe."""
        one, two = self._chosen(), self._other()
        code = f"compare_studies({one!r}, {two!r})"
        self._do("Comparing …", code, lambda: compare_studies(one, two), self._compared)

    def take(self) -> None:
        """Take the chosen trial of the other study over into the selected one."""
        into, source, number = self._chosen(), self._other(), self.trial.value
        if number == _NO_TRIAL:
            raise UserError("No trial is chosen.", allowed="a measured trial of the other study", do="choose one")
        more = {"other_machine": True} if self.anyway.value else {}
        code = f"import_trial({into!r}, {source!r}, {number}{', other_machine=True' if more else ''})"
        self._do("Taking over …", code, lambda: import_trial(into, source, number, **more), self._taken)

    # --- plumbing -----------------------------------------------------------------------------------------------

    def _make_controls(self) -> None:
        self.choose = ipw.Dropdown(options=[("none", _NONE)], description="Study", **_LABEL)
        self.name = ipw.Text(description="New name", placeholder="letters, digits, '-', '_' and '.'", **_LABEL)
        self.name.add_class("wb-name")
        self.other = ipw.Dropdown(options=[("none", _NONE)], description="Other study", **_LABEL)
        self.trial = ipw.Dropdown(options=[("none", _NO_TRIAL)], description="Its trial", **_LABEL)
        self.anyway = ipw.Checkbox(description="even from another machine", indent=False)
        tips = {
            "open": ("Open", "Show this study as it stands", self._open),
            "again": ("Refresh", "Read the list again", self.refresh),
            "rename": ("Rename", "Give the study the new name", self.rename),
            "duplicate": ("Duplicate", "Copy the study with its trials and models", self.duplicate),
            "delete": ("Delete …", "Asks first", self._ask),
            "compare": ("Compare", "Both studies, recipe by recipe", self.compare),
            "import": ("Take over", "Copy the other study's trial into this one", self.take),
            "sure": ("Delete for good", "There is no way back", self.delete),
            "keep": ("Keep it", "Nothing is deleted", self._keep),
        }
        self.buttons = {key: ipw.Button(description=name, tooltip=tip) for key, (name, tip, _) in tips.items()}
        self.buttons["open"].button_style, self.buttons["sure"].button_style = "primary", "danger"
        for key, (_, _, action) in tips.items():
            self.buttons[key].on_click(lambda _, action=action: self._clicked(action))
        self._about: str | None = None
        self.question = html("", "wb-question")
        self.ask = styled(ipw.HBox([self.question, self.buttons["sure"], self.buttons["keep"]]), "wb-row")
        self.ask.layout.display = "none"

    def _clicked(self, action: Callable[[], None]) -> None:
        """Do what the button says; a mistake becomes a panel."""
        try:
            self.panel.error = None
            action()
        except UserError as error:
            self.panel.error = error

    def _do(self, saying: str, code: str, work: Callable[[], Any], show: Callable[[Any], None]) -> None:
        """Make a call off the main thread; a second click while one is at work does nothing."""
        if self._doing:
            return
        self._doing = True
        self.said.value = tag("span", saying)
        self._enable()

        def shown(result: Any) -> None:
            self.done, self._doing = code, False
            self.said.value = join([tag("span", "Done:"), code_html(code)])
            self._enable()
            show(result)

        self._work.do(work, shown, self._wrong)

    def _wrong(self, error: Exception) -> None:
        self.panel.error, self.said.value, self._doing = error, "", False
        self._enable()

    def _unlisted(self, error: Exception) -> None:
        self.panel.error = error

    def _enable(self) -> None:
        """Buttons as the selection allows, all off while one is at work."""
        row, on = self._row(), not self._doing
        resting = on and row is not None and not row.running
        for key in ("rename", "duplicate", "delete", "import"):
            self.buttons[key].disabled = not resting
        self.buttons["open"].disabled = not on or row is None
        self.buttons["compare"].disabled = not on or row is None

    def _row(self) -> StudyRow | None:
        return next((row for row in self.rows if str(row.folder) == self.value), None)

    def _chosen(self) -> str:
        return self._checked(self.value or "")

    def _other(self) -> str:
        return self._checked(self.other.value)

    def _checked(self, folder: str) -> str:
        """A folder that a browser sent; raises unless it is one of the listed studies."""
        if not folder:
            raise UserError("No study is chosen.", allowed="a study of the list", do="choose one")
        if folder not in [str(row.folder) for row in self.rows] or not is_inside(folder, self.root):
            raise UserError(f"{folder} is no study below {self.root}.", do="refresh the list and choose again")
        return folder

    def _open(self) -> None:
        self.show(self._chosen())

    def _ask(self) -> None:
        """Ask before anything is deleted, and say what would be lost."""
        self._about = self._chosen()
        row = self._row()
        size = f"{row.trials} trials and {tables.amount(row.size_mb, 'MB')}" if row else "all that is in it"
        self.question.value = tag("span", f"Delete “{Path(self._about).name}” with {size}?", role="alert")
        self.ask.layout.display = None

    def _keep(self) -> None:
        self._about, self.ask.layout.display = None, "none"

    def _select(self, change: dict) -> None:
        if self._refilling:
            return
        self._keep()
        self.value = change["new"] or None

    def _other_chosen(self, change: dict) -> None:
        if self._refilling:
            return
        folder = change["new"]
        self.trial.options = [("none", _NO_TRIAL)]
        if folder:
            self._inside.do(lambda: _trials(self._checked(folder)), self._offer, self._unlisted)

    def _offer(self, found: list[tuple[str, int]]) -> None:
        self.trial.options = [("none", _NO_TRIAL), *found]

    def _follow(self, _: object = None) -> None:
        """Select the study that was opened; one that is not listed yet is found with the next list."""
        folder = "" if self.study is None else str(self.study.folder)
        if folder in [str(row.folder) for row in self.rows]:
            self.choose.value = folder
        elif folder:
            self.choose.value = _NONE
            self.refresh()

    def _listed(self, rows: list[StudyRow]) -> None:
        self.rows = rows
        self._refill(self.choose, rows)
        if not self.choose.value and rows:
            folders = [str(row.folder) for row in rows]
            shown = "" if self.study is None else str(self.study.folder)
            self.choose.value = shown if shown in folders else folders[0]
        self._show_rows()

    def _refill(self, field: Any, rows: list[StudyRow]) -> None:
        """Offer these studies; what was chosen stays chosen, unnoticed, while it is among them."""
        names = [(f"{row.name} ({'unreadable' if row.problem else row.state})", str(row.folder)) for row in rows]
        if list(field.options) == [("none", _NONE), *names]:
            return
        kept, self._refilling = field.value, True
        try:
            field.options = [("none", _NONE), *names]
            field.value = kept if kept in [folder for _, folder in names] else _NONE
        finally:
            self._refilling = False
        if field.value != kept:
            change = {"name": "value", "old": kept, "new": field.value, "owner": field, "type": "change"}
            field.notify_change(traitlets.Bunch(change))

    def _show_rows(self, _: object = None) -> None:
        row = self._row()
        self._refill(self.other, [other for other in self.rows if other is not row])
        self.listed.value = studies_html(self.rows, row.name if row else "")
        self._enable()

    def _renamed(self, new: Path) -> None:
        old, self.name.value = self.value, ""
        self._select_after(new)
        self.moved(str(old), str(new))

    def _copied(self, new: Path) -> None:
        self.name.value = ""
        self._select_after(new)

    def _gone(self, folder: str) -> None:
        self._about = None
        self.refresh()
        self.moved(folder, None)

    def _compared(self, found: Comparison) -> None:
        self.comparison = found
        self.compared.value = comparison_html(found)

    def _taken(self, _: object) -> None:
        self.refresh()

    def _select_after(self, folder: Path) -> None:
        """Read the list again and select `folder`."""

        def show(rows: list[StudyRow]) -> None:
            self._listed(rows)
            if str(folder) in [str(row.folder) for row in rows]:
                self.choose.value = str(folder)

        self._list.do(lambda: list_studies(self.root), show, self._unlisted)


def _trials(folder: str) -> list[tuple[str, int]]:
    """The measured trials of a study but its baseline, for a list."""
    found = [trial for trial in Study(folder).trials if trial.measurement is not None and trial.number]
    return [(f"{trial.number}: {trial.recipe.title}", trial.number) for trial in found]
