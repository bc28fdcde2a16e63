"""The dashboard: pick a model, tick techniques and runtimes, start, watch the front grow, click a point.

It composes the widgets and steers a study. What takes longer than a moment (opening a store, starting a runner) runs in
a thread of its own, and what the study says arrives through the watcher. The study's name stands in the page's
address, so a reload, which is a new kernel under Voila, shows the study as it stands. Left out: studies side by side.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as ipw

from workbench.errors import UserError
from workbench.plots.markup import tag
from workbench.study import Study, make_task, studies
from workbench.widgets.base import html, styled
from workbench.widgets.error_panel import ErrorPanel
from workbench.widgets.model_picker import ModelPicker
from workbench.widgets.page import Page, asked_for, in_voila
from workbench.widgets.pareto_explorer import ParetoExplorer
from workbench.widgets.recipe_builder import RecipeBuilder
from workbench.widgets.tuner import Tuner
from workbench.widgets.watcher import Snapshot, Watcher


def root_folder(folder: str | Path | None = None) -> Path:
    """Where studies live: `folder`, or `$WORKBENCH_STUDIES`, or `runs` where the kernel stands."""
    return Path(folder or os.environ.get("WORKBENCH_STUDIES") or "runs").expanduser()


def study_name(model: str) -> str:
    """A folder's name for a model: the last part of its path or id, in plain characters."""
    last = [part for part in re.split(r"[/\\]", model) if part][-1:] or ["study"]
    return re.sub(r"[^\w.-]+", "-", last[0]).strip("-.") or "study"


def safe_name(name: str) -> str:
    """`name`, or `UserError` where it is no plain folder name (it may come from a page's address)."""
    if not re.fullmatch(r"\w[\w.-]{0,99}", name):
        raise UserError(
            f"{name!r} is no name for a study.", allowed="letters, digits, '-', '_' and '.'", do="choose another name"
        )
    return name


class Dashboard(ipw.VBox):
    """`Dashboard()` in a cell, or `Dashboard("folder-of-studies")`. `study` is the open `Study`, or None."""

    def __init__(self, folder: str | Path | None = None, *, study: str = "", watch: bool = True) -> None:
        self.root = root_folder(folder)
        self.study: Study | None = None
        self.page = Page(addressed=in_voila())
        if asked_for("theme") == "dark":
            self.page.theme = "dark"
        self.picker, self.builder = ModelPicker(), RecipeBuilder()
        self.tuner, self.explorer = Tuner(), ParetoExplorer()
        self.name = ipw.Combobox(description="Study", placeholder="named after the model", ensure_option=False)
        self.opener = ipw.Button(description="Open", tooltip="Show this study as it stands")
        self.title = html(tag("h2", "Compression workbench"))
        self.panel = ErrorPanel()
        super().__init__(self._layout())
        styled(self, "wb", "wb-dashboard")
        self._connect()
        self._working: threading.Thread | None = None
        self.watcher = Watcher(self._show)
        self._list()
        wanted = study or asked_for("study")
        if wanted:
            self._do("Opening the study …", lambda: self.open_study(wanted))
        if watch:
            self.watcher.start()

    @property
    def code(self) -> str:
        """The call that builds this dashboard on the open study."""
        opened = f", study={self.study.name!r}" if self.study else ""
        return f"Dashboard({str(self.root)!r}{opened})"

    # --- what the buttons do ------------------------------------------------------------------------------------

    def open_study(self, name: str) -> None:
        """Show the study called `name` below the root; raises `UserError` where there is none."""
        folder = self.root / safe_name(name)
        if folder not in list(studies(self.root)):
            known = ", ".join(path.name for path in studies(self.root)) or "(there are none yet)"
            raise UserError(f"There is no study {name!r} in {self.root}.", allowed=known, do="start one")
        self._hold(Study(folder))
        self.picker.fill(self.study.task.to_json())  # type: ignore[union-attr]

    def start(self) -> None:
        """Open or create the named study and search the ticked space in the background."""
        if self.picker.problem:
            raise self.picker.problem
        if self.builder.value is None:
            raise UserError("Nothing to run.", allowed="at least one runtime", do="tick a runtime")
        if self.tuner.value is None:
            raise UserError("The goal or the budget cannot be read.", do="see the message beside it")
        given = {**self.picker.value, **self.builder.task_options()}
        name = safe_name(self.name.value.strip() or study_name(given["model"]))
        self._hold(Study(self.root / name, make_task(**given)))
        self.study.start(self.builder.value, strategy=self.tuner.strategy.value, goal=self.tuner.value)  # type: ignore[union-attr]

    def stop(self) -> None:
        """Stop the sweep; nothing happens without one."""
        if self.study:
            self.study.stop()

    def resume(self) -> None:
        """Go on with the open study's latest sweep."""
        if not self.study:
            raise UserError("No study is open.", allowed="a study to resume", do="choose one above and press Open")
        self.study.resume()

    def settle(self, seconds: float = 60.0) -> None:
        """Wait until the last button's work is done and shown (for scripts and tests)."""
        working = self._working
        if working:
            working.join(seconds)
        self.watcher.look()

    # --- plumbing -----------------------------------------------------------------------------------------------

    def _layout(self) -> list[Any]:
        head = styled(ipw.HBox([self.title, self.name, self.opener, self.page]), "wb-head")
        left = styled(ipw.VBox([self.picker, self.builder]), "wb-left")
        right = styled(ipw.VBox([self.tuner, self.explorer]), "wb-right")
        return [head, self.panel, styled(ipw.HBox([left, right]), "wb-columns")]

    def _connect(self) -> None:
        for widget in (self.picker, self.builder, self.tuner, self.explorer):
            widget.copy = self.page.copy
        self.page.observe(lambda change: self.explorer.set_trait("theme", change["new"]), "theme")
        self.explorer.theme = self.page.theme
        self.builder.observe(lambda change: self.tuner.set_trait("space", change["new"]), "value")
        self.tuner.space = self.builder.value
        self.explorer.use = self.builder.show
        self.tuner.start = lambda: self._do("Starting …", self.start)
        self.tuner.stop = lambda: self._do("Stopping …", self.stop)
        self.tuner.resume = lambda: self._do("Resuming …", self.resume)
        self.opener.on_click(lambda _: self._do("Opening the study …", self._open_named))

    def _open_named(self) -> None:
        self.open_study(self.name.value.strip())

    def _do(self, saying: str, action: Callable[[], None]) -> None:
        """Run `action` off the main thread, one at a time: a second click while one is at work does nothing."""
        if self._working and self._working.is_alive():
            return
        self.tuner.busy, self.panel.error = saying, None
        self._working = threading.Thread(target=self._work, args=(action,), name="workbench-action", daemon=True)
        self._working.start()

    def _work(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - whatever it is, the person who clicked has to see it
            self.panel.error = error
        finally:
            self.watcher.look()
            self.tuner.busy = ""
            self._list()

    def _hold(self, study: Study) -> None:
        if self.study is None or self.study.folder != study.folder:
            self.explorer.selected = None
        self.study = self.watcher.study = study
        self.page.study = self.name.value = study.name
        self.title.value = tag("h2", f"Compression workbench: {study.name}")

    def _show(self, seen: Snapshot) -> None:
        """Assign what the watcher saw."""
        if seen.error:
            self.panel.error = seen.error
            return
        self.tuner.status = seen.status
        explorer = self.explorer
        explorer.goal, explorer.refused, explorer.notes = seen.goal, seen.refused, seen.notes
        if not seen.frame.equals(explorer.frame):
            explorer.frame = seen.frame

    def _list(self) -> None:
        self.name.options = tuple(path.name for path in studies(self.root) if path != self.root)
