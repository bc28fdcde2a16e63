"""The dashboard: pick a model, tick techniques and runtimes, start, watch the front grow, click a point.

On the left the rail (model, data, recipe, sweep, machine), on the right the tabs, at the foot, always in sight, the
buttons of the sweep and what is happening. It composes the widgets and steers a study. What takes longer than a moment
(opening a store, starting a runner) runs in a thread of its own, and what the study says arrives through the watcher.
The study's name stands in the page's address, so a reload, which is a new kernel under Voila, shows the study as it
stands. Left out: several studies at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import ipywidgets as ipw
import pandas as pd
import traitlets

from workbench.errors import UserError
from workbench.plots.markup import Markup, join, tag
from workbench.study import Study, make_task, studies
from workbench.widgets.base import bring_up_to_date, heading, html, styled
from workbench.widgets.data_picker import DataPicker
from workbench.widgets.error_panel import ErrorPanel
from workbench.widgets.model_picker import ModelPicker
from workbench.widgets.names import root_folder, safe_name, study_name
from workbench.widgets.page import Page, asked_for, in_voila
from workbench.widgets.pareto_explorer import ParetoExplorer
from workbench.widgets.part import Part
from workbench.widgets.recipe_builder import RecipeBuilder
from workbench.widgets.sweep_words import share_done
from workbench.widgets.tuner import Tuner
from workbench.widgets.views import Chosen, Views
from workbench.widgets.watcher import Snapshot, Watcher

_TITLE = tag("h2", "Compression workbench")


class Dashboard(ipw.VBox):
    """`Dashboard()` in a cell, or `Dashboard("folder-of-studies")`. `study` is the open `Study`, or None.

    `models` is the folder in which models and data are looked for; with `within`, paths that a page names outside that
    folder are refused.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        study: str = "",
        models: str | Path = ".",
        within: str | Path | None = None,
        watch: bool = True,
    ) -> None:
        self.root, self.models = root_folder(folder), models
        self.within = Path(within) if within else None
        self.study: Study | None = None
        self.page = Page(addressed=in_voila())
        if asked_for("theme") == "dark":
            self.page.theme = "dark"
        places: dict[str, Any] = {"root": models, "within": within, "auto": False}
        self.picker, self.data = ModelPicker(data=False, **places), DataPicker(**places)
        self.builder, self.tuner, self.explorer = RecipeBuilder(), Tuner(), ParetoExplorer()
        self.name = ipw.Combobox(description="Study", placeholder="named after the model", ensure_option=False)
        self.opener = ipw.Button(description="Open", tooltip="Show this study as it stands")
        self.title = html(_TITLE)
        self.panel = ErrorPanel()
        self.line, self.bar = html("", "wb-status"), styled(ipw.FloatProgress(min=0, max=1), "wb-bar")
        self.views = Views(self._makers())
        super().__init__(self._layout())
        styled(self, "wb", "wb-dashboard", *(["wb-full"] if in_voila() else []))
        self._working: threading.Thread | None = None
        self._filling, self._given = False, self.data.value
        self._offered = False
        self.watcher = Watcher(self._show)
        self._wanted, self._watch, self._begun = study, watch, False
        self._unread: Exception | None = None
        self._connect()
        self._list()
        self.page.observe(self._begin, "hello")
        if not self.page.addressed:
            self._begin()

    @property
    def code(self) -> str:
        """The call that builds this dashboard on the open study."""
        opened = f", study={self.study.name!r}" if self.study else ""
        looked = f", models={str(self.models)!r}" if str(self.models) != "." else ""
        kept = f", within={str(self.within)!r}" if self.within else ""
        return f"Dashboard({str(self.root)!r}{opened}{looked}{kept})"

    # --- what the buttons do ------------------------------------------------------------------------------------

    def open_study(self, name: str) -> None:
        """Show the study called `name` below the root; raises `UserError` where there is none."""
        folder = self.root / safe_name(name)
        if folder not in list(studies(self.root)):
            known = ", ".join(path.name for path in studies(self.root)) or "(there are none yet)"
            raise UserError(f"There is no study {name!r} in {self.root}.", allowed=known, do="start one")
        study = Study(folder)
        task = study.task.to_json()
        self._hold(study)
        self._filling = True
        try:
            self.picker.fill(task)
            self.data.fill(task)
        finally:
            self._filling, self._given = False, self.data.value
        # The model is known now; it is looked at when somebody unfolds it.
        self.parts["model"].unfolded = False

    def start(self) -> None:
        """Open or create the named study and search the ticked space in the background."""
        if wrong := self.picker.problem or self.data.problem:
            raise wrong
        if self.builder.value is None:
            raise UserError("Nothing to run.", allowed="at least one runtime", do="tick a runtime")
        if self.tuner.value is None:
            raise UserError("The goal or the budget cannot be read.", do="see the message beside it")
        given = {**self.data.value, **self.builder.task_options()}
        name = safe_name(self.name.value.strip() or study_name(given["model"]))
        study = Study(self.root / name, make_task(**given))
        self._hold(study)
        study.start(self.builder.value, strategy=self.tuner.strategy.value, goal=self.tuner.value)

    def stop(self) -> None:
        """Stop the sweep; nothing happens without one."""
        if self.study:
            self.study.stop()

    def pause(self) -> None:
        """Let the running trial end, and the sweep with it; nothing happens without one."""
        if self.study:
            self.study.pause()

    def again(self, number: int) -> None:
        """Run a failed trial's recipe once more."""
        if self.study:
            self.study.again(number)

    def resume(self) -> None:
        """Go on with the open study's latest sweep."""
        if not self.study:
            raise UserError("No study is open.", allowed="a study to resume", do="choose one above and press Open")
        self.study.resume()

    def close_study(self) -> None:
        """Show no study any more; a sweep that runs goes on."""
        self.study = self.watcher.study = None
        self.page.study = self.name.value = ""
        self.title.value = _TITLE
        self.views.hand(None)
        self.explorer.selected, self.explorer.pinned = None, ()
        self._feed(Snapshot("", pd.DataFrame(), None, None, [], []))
        self._say()

    def settle(self, seconds: float = 60.0) -> None:
        """Wait until the last button's work is done and shown (for scripts and tests)."""
        working = self._working
        if working:
            working.join(seconds)
        self.watcher.look()

    # --- plumbing -----------------------------------------------------------------------------------------------

    def _begin(self, _: object = None) -> None:
        """Open what is asked for and begin to watch, when the page is there; a page that comes later is brought up to
        date, because what changed while it loaded is lost to it."""
        if self._begun:
            bring_up_to_date(self)
            return
        self._begun = True
        wanted = self._wanted or self.page.asked_for("study")
        if wanted:
            self._do("Opening the study …", lambda: self.open_study(wanted))
        else:
            self.picker.wake()
        self.views.feed()
        if self._watch:
            self.watcher.start()

    def _makers(self) -> dict[str, Callable[[], Any]]:
        """What each tab makes when it is opened; its module is imported then, too."""

        def made(module: str, name: str, **given: Any) -> Callable[[], Any]:
            return lambda: getattr(import_module(f"workbench.widgets.{module}"), name)(**given)

        return {
            "Front": lambda: self.explorer,
            "Data": self._data_view,
            "Sensitivity": self._sensitivity,
            "Layers": made("layer_explorer", "LayerExplorer"),
            "Compare": made("compare", "Compare"),
            "Playground": made("playground", "Playground"),
            "Export": made("export_panel", "ExportPanel"),
            "Studies": self._browser,
        }

    def _data_view(self) -> Any:
        """What is in the data: the picker's own view, wide enough here; it looks from now on."""
        self.data.wake()
        return styled(ipw.VBox([heading("Data"), self.data.line, self.data.view]), "wb-card")

    def _sensitivity(self) -> Any:
        from workbench.widgets.sensitivity_map import SensitivityMap

        scans = SensitivityMap()
        scans.use_keep = self._keep
        return scans

    def _keep(self, layers: tuple[str, ...]) -> None:
        """Layers from the sensitivity map into what recipes keep."""
        self.parts["recipe"].unfolded = True
        self.builder.keep = tuple(dict.fromkeys([*self.builder.keep, *layers]))

    def _browser(self) -> Any:
        from workbench.widgets.study_browser import StudyBrowser

        browser = StudyBrowser(self.root)
        browser.show = lambda folder: self._do("Opening the study …", lambda: self.open_study(Path(folder).name))
        browser.moved = self._moved
        return browser

    def _machine(self) -> Any:
        from workbench.widgets.machine_card import MachineCard

        card = MachineCard()
        card.copy = self.page.copy
        return card

    def _layout(self) -> list[Any]:
        choose = styled(ipw.HBox([self.name, self.opener]), "wb-choose-study")
        head = styled(ipw.HBox([self.title, choose, self.page]), "wb-head")
        self.parts = {
            "model": Part("Model", self.picker, unfolded=True),
            "data": Part("Data", self.data.form),
            "recipe": Part("Recipe", self.builder, unfolded=True),
            "sweep": Part("Goal and sweep", self.tuner, unfolded=True),
            "machine": Part("This machine", make=self._machine),
        }
        rail = styled(ipw.VBox(list(self.parts.values())), "wb-rail")
        right = styled(ipw.VBox([self.panel, self.views]), "wb-right")
        foot = styled(ipw.HBox([self.tuner.lend_actions(), self.line, self.bar]), "wb-foot")
        return [head, styled(ipw.HBox([rail, right]), "wb-columns"), foot]

    def _connect(self) -> None:
        self.views.copy = self.page.copy
        for widget in (self.picker, self.data, self.builder, self.tuner, self.explorer):
            widget.copy = self.page.copy
        self.page.observe(lambda change: self._paint(change["new"]), "theme")
        self._paint(self.page.theme)
        traitlets.dlink((self.picker, "value"), (self.data, "model"))
        for widget in (self.picker, self.data, self.builder, self.tuner):
            widget.observe(self._summarise, "value")
        self.builder.observe(lambda change: self.tuner.set_trait("space", change["new"]), "value")
        self.tuner.space = self.builder.value
        self.explorer.use = self._use
        self.explorer.observe(self._choose, ["selected", "pinned"])
        self.tuner.start = lambda: self._do("Starting …", self.start)
        self.tuner.stop = lambda: self._do("Stopping …", self.stop)
        self.tuner.resume = lambda: self._do("Resuming …", self.resume)
        self.tuner.pause = lambda: self._do("Pausing …", self.pause)
        self.tuner.again = lambda number: self._do("Queueing the trial again …", lambda: self.again(number))
        self.tuner.line.observe(self._say, "value")
        self.views.observe(self._say, "doing")
        self.opener.on_click(lambda _: self._do("Opening the study …", self._open_named))
        self.data.observe(self._renamed, "value")
        self.parts["model"].observe(lambda _: self.picker.wake(), "unfolded")
        self.data.look.on_click(lambda _: self.views.turn_to("Data"))
        self._summarise()
        self._say()

    def _renamed(self, _: object = None) -> None:
        """Another model or other data are another study: the open one's name is not kept for it."""
        given = self.data.value
        if self._filling or given is None or given == self._given:
            return
        self._given = given
        if self.study and self.name.value == self.study.name:
            self.name.value = ""

    def _paint(self, theme: str) -> None:
        self.explorer.theme = theme
        self.views.paint(theme)

    def _use(self, recipe: Any) -> None:
        """A trial's recipe into the builder, which is unfolded for it."""
        self.parts["recipe"].unfolded = True
        self.builder.show(recipe)

    def _choose(self, _: object = None) -> None:
        """Trials that were clicked or pinned are looked at in the other tabs."""
        self.views.chosen = Chosen(self.explorer.selected, tuple(self.explorer.pinned))
        self.views.feed()

    def _summarise(self, _: object = None) -> None:
        """What stands behind the name of a folded part."""
        model, data = self.picker.value or {}, self.data.value or {}
        named = str(model.get("model", ""))
        about = ("embedded demo", "the demo's own") if named == "demo" else (named, str(data.get("data", "")))
        for name, text in zip(("model", "data"), about, strict=True):
            self.parts[name].about = Path(text).name or "none yet"
        self.parts["recipe"].about = self.builder.in_short()

    def _open_named(self) -> None:
        self.open_study(self.name.value.strip())

    def _moved(self, old: str, new: str | None) -> None:
        """A study was renamed, or deleted: if it is the open one, follow it, or let go of it."""
        if self.study is not None and str(self.study.folder) == str(Path(old).absolute()):
            self.close_study()
            self.panel.error = None
            if new is not None:
                self._do("Opening the study …", lambda: self.open_study(Path(new).name))
        self._list()

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
            self.tuner.busy = ""
            self.watcher.look()
            self._list()

    def _hold(self, study: Study) -> None:
        if self.study is None or self.study.folder != study.folder:
            self.explorer.selected, self.explorer.pinned = None, ()
        self._offered = False
        self.study = self.watcher.study = study
        self.views.hand(study)
        self.page.study = self.name.value = study.name
        self.title.value = tag("h2", f"Compression workbench: {study.name}")

    def _show(self, seen: Snapshot) -> None:
        """Assign what the watcher saw."""
        if seen.error:
            self._unread = self.panel.error = seen.error
            return
        if self._unread is not None and self.panel.error is self._unread:
            # It can be read again.
            self.panel.error = None
        self._unread = None
        self._feed(seen)
        resting = seen.status is not None and seen.status.state not in ("running", "stopping")
        best = seen.status.best if seen.status and resting else None
        self.views.frame, self.views.best = seen.frame, best
        self._offer(best)
        self.views.feed()
        self._say()

    def _offer(self, best: int | None) -> None:
        """Choose the best trial, once, where a study is opened at rest or its sweep ends: whoever comes back to it sees
        what came of it. A choice of one's own stays."""
        if not best or self._offered:
            return
        self._offered = True
        if self.explorer.selected is None:
            self.explorer.selected = best

    def _feed(self, seen: Snapshot) -> None:
        """What the rail and the front show of a study."""
        explorer, tuner = self.explorer, self.tuner
        tuner.goal = explorer.goal = seen.goal
        tuner.refused = explorer.refused = seen.refused
        tuner.examples, tuner.metric, explorer.notes = seen.examples, seen.metric, seen.notes
        if not seen.frame.equals(explorer.frame):
            explorer.frame = tuner.frame = self.builder.frame = seen.frame
        tuner.status = seen.status

    def _say(self, _: object = None) -> None:
        """The line at the foot: what the last click set off, what the study does, what a tab waits for."""
        status, frame = self.tuner.status, self.explorer.frame
        parts = [Markup(self.tuner.line.value)]
        measured = 0 if frame is None or frame.empty else int((frame["state"] == "complete").sum())
        if status is not None and measured and not self.tuner.busy:
            best = f", best #{status.best}" if status.best else ""
            parts.append(tag("span", f"{measured} measured in this study{best}"))
        # A scan is said once: by the study, which knows how far it is.
        scanning = status is not None and status.stage == "scan"
        doing = Markup("") if scanning else Markup(self.views.doing)
        self.line.value = join([part for part in (*parts, doing) if part], " · ")
        self.bar.value = share_done(status)
        self.bar.layout.visibility = "visible" if self.bar.value else "hidden"

    def _list(self) -> None:
        self.name.options = tuple(path.name for path in studies(self.root) if path != self.root)
