"""The dashboard as one page, without a browser: tabs on demand, trials handed on, wrong orders of clicks, injection."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import ipywidgets as ipw
import pandas as pd
import pytest
from fake_study import FakeStudy, fake_frame

import workbench.widgets.dashboard as dashboard_module
from workbench.errors import UserError
from workbench.running.scans import Scans
from workbench.running.status import Status
from workbench.studies import StudyRow
from workbench.widgets import study_browser
from workbench.widgets.base import everything
from workbench.widgets.dashboard import Dashboard
from workbench.widgets.part import Part
from workbench.widgets.views import Chosen, Views

EVIL = "<img src=x onerror=alert(1)>"
TABS = ["Front", "Data", "Sensitivity", "Layers", "Compare", "Playground", "Export", "Studies"]


class Study(FakeStudy):
    """A fake study that can be started and stopped, and has no scans."""

    def __init__(self, folder, evil=""):
        super().__init__(folder, count=12, evil=evil)
        self.state = "idle"
        self.task = SimpleNamespace(to_json=lambda: {"name": "demo", "model": "demo"}, describe=dict)

    def start(self, space, strategy, goal):
        if self.state == "running":
            raise UserError("A sweep of this study is running already.")
        self.state = "running"
        self.calls.append("start")

    def stop(self):
        self.state = "idle"
        self.calls.append("stop")

    def resume(self):
        self.state = "running"

    def pause(self):
        self.calls.append("pause")

    def again(self, number):
        self.calls.append(f"again {number}")

    def status(self):
        return Status(self.state, done=2, best=10, title=self.evil, message=self.evil)

    def scans(self):
        return pd.DataFrame(columns=["id", "kind", "title", "state", "rows", "seconds", "message"])

    costed = staticmethod(lambda recipe: None)
    artifact = Scans.scanned

    @property
    def trials(self):
        return []


@pytest.fixture
def disk(monkeypatch, tmp_path):
    """Studies on no disk: name -> study; the browser lists the same."""
    made = {name: Study(tmp_path / name) for name in ("one", "two")}

    def opened(folder, task=None):
        return made.setdefault(Path(folder).name, Study(Path(folder)))

    rows = lambda root: [StudyRow(study.folder, "idle", 12) for study in made.values()]  # noqa: E731
    monkeypatch.setattr(dashboard_module, "Study", opened)
    monkeypatch.setattr(dashboard_module, "studies", lambda root: [study.folder for study in made.values()])
    monkeypatch.setattr(dashboard_module, "make_task", lambda **given: SimpleNamespace(**given))
    monkeypatch.setattr(study_browser, "list_studies", rows)
    return made


def opened(root, study="one"):
    made = Dashboard(root, study=study, watch=False)
    made.settle()
    return made


def shown(widget):
    """Every text of a widget tree that a page would read as HTML."""
    return "".join(part.value for part in everything(widget) if isinstance(part, ipw.HTML))


def test_a_tab_is_made_when_it_is_opened(disk, tmp_path):
    made = opened(tmp_path)
    assert list(made.views.titles) == TABS
    assert list(made.views.widgets) == ["Front"]
    made.views.turn_to("Layers")
    assert set(made.views.widgets) == {"Front", "Layers"}
    first = made.views.shown
    assert (first.study, first.theme) == (disk["one"], "light")
    made.page.theme = "dark"
    assert first.theme == "dark"
    made.views.turn_to("Front")
    made.views.turn_to("Layers")
    assert made.views.shown is first


def test_chosen_trials_reach_the_open_tab_only(disk, tmp_path):
    made = opened(tmp_path)
    layers, compare = made.views.widget("Layers"), made.views.widget("Compare")
    layers.models = compare.models = SimpleNamespace(ask=lambda *args, **kwargs: {})
    made.explorer.selected = 8
    assert (layers.number, compare.numbers) == (None, [])
    made.views.turn_to("Layers")
    assert layers.number == 8
    # What a person chooses there stays, until another point is clicked.
    layers.number = 5
    made.watcher.look()
    assert layers.number == 5
    made.explorer.selected = 6
    assert layers.number == 6
    made.views.turn_to("Compare")
    assert compare.numbers == [0, 6]
    # A trial that failed has no layers.
    made.views.turn_to("Layers")
    made.explorer.selected = 9
    assert layers.number == 6


def test_a_tab_begins_with_the_best_trial_of_a_study_at_rest(disk, tmp_path):
    made = opened(tmp_path)
    best = made.tuner.status.best
    layers, compare = made.views.widget("Layers"), made.views.widget("Compare")
    layers.models = compare.models = SimpleNamespace(ask=lambda *args, **kwargs: {})
    made.views.turn_to("Compare")
    assert best
    assert compare.numbers == [0, best]
    # Another best does not move what somebody reads.
    made.views.best = best + 1
    made.views.feed()
    assert compare.numbers == [0, best]
    made.explorer.selected = 8
    made.views.turn_to("Layers")
    assert layers.number == 8


def test_the_best_trial_is_chosen_once_when_a_study_rests(disk, tmp_path):
    made = opened(tmp_path)
    best = made.tuner.status.best
    assert made.explorer.selected == best
    assert made.explorer.value is not None
    # Who chooses none, or another, keeps that.
    made.explorer.selected = None
    made.watcher.look()
    assert made.explorer.selected is None
    # While a sweep runs nothing is chosen for anybody; its end chooses, unless somebody did.
    disk["one"].state = "running"
    made.open_study("one")
    made.watcher.look()
    assert made.explorer.selected is None
    disk["one"].state = "idle"
    made.watcher.look()
    assert made.explorer.selected == best


@pytest.mark.parametrize(
    ("chosen", "compared", "tried", "one"),
    [
        (Chosen(), [], [], None),
        (Chosen(0), [], [], 0),
        (Chosen(5), [0, 5], [5], 5),
        (Chosen(5, (7,)), [0, 7], [7], 5),
        (Chosen(None, (7, 0, 8)), [7, 0, 8], [7, 8], 8),
    ],
)
def test_what_is_made_of_chosen_trials(chosen, compared, tried, one):
    assert (chosen.compared(), chosen.tried(), chosen.one()) == (compared, tried, one)


def test_another_study_is_handed_to_every_tab(disk, tmp_path):
    made = opened(tmp_path)
    for title in TABS:
        made.views.turn_to(title)
    made.explorer.selected = 8
    made._do("", lambda: made.open_study("two"))
    made.settle()
    assert made.explorer.selected == made.tuner.status.best != 8
    for title in ("Sensitivity", "Layers", "Compare", "Playground", "Export"):
        assert made.views.widget(title).study is disk["two"]
    assert made.page.study == "two"


def test_sweeps_started_twice_and_stopped_when_idle(disk, tmp_path):
    made = opened(tmp_path)
    made.tuner.stop()
    made.settle()
    made.tuner.start()
    made.tuner.start()
    made.settle()
    assert disk["one"].calls == ["stop", "start"]
    made.tuner.start()
    made.settle()
    assert "running already" in made.panel.value
    made.tuner.stop()
    made.settle()
    assert made.panel.value == ""


def test_pause_and_run_again_reach_the_study(disk, tmp_path):
    made = opened(tmp_path)
    made.tuner.pause()
    made.settle()
    made.tuner.again(9)
    made.settle()
    assert disk["one"].calls == ["pause", "again 9"]
    assert made.tuner.frame is made.builder.frame is made.explorer.frame


def test_the_open_study_is_deleted_and_another_is_not(disk, tmp_path):
    made = opened(tmp_path)
    for title in TABS:
        made.views.turn_to(title)
    made._moved(str(tmp_path / "two"), None)
    assert made.study is disk["one"]
    del disk["one"]
    made._moved(str(tmp_path / "one"), None)
    assert made.study is None
    assert made.page.study == made.name.value == ""
    assert "No study is open" in made.line.value
    assert made.explorer.frame.empty
    for title in TABS:
        made.views.turn_to(title)
    assert "Open a study" in made.views.widget("Sensitivity").empty.value
    made.tuner.resume()
    made.settle()
    assert "No study is open" in made.panel.value


def test_a_renamed_study_is_followed(disk, tmp_path):
    made = opened(tmp_path)
    disk["three"] = Study(tmp_path / "three")
    del disk["one"]
    made._moved(str(tmp_path / "one"), str(tmp_path / "three"))
    made.settle()
    assert made.study is disk["three"]


def test_another_model_while_a_sweep_runs_is_another_study(disk, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "d.csv").write_text("text,label\na,0\n")
    made = opened(tmp_path)
    made.tuner.start()
    made.settle()
    made.picker.auto = False
    made.picker.kind.value = "folder"
    made.picker.model.value, made.data.data.value = str(tmp_path / "model"), str(tmp_path / "d.csv")
    if made.data.value is None:
        # The card says at once that this folder holds no usable model: then nothing starts, and the reason is told.
        made.tuner.start()
        made.settle()
        assert made.panel.value
        assert made.study is disk["one"]
        return
    assert made.name.value == ""
    made.tuner.start()
    made.settle()
    assert made.study.name == "model"
    assert disk["one"].state == "running"


def test_an_error_that_nobody_expected_ends_neither_watcher_nor_buttons(disk, tmp_path):
    made = opened(tmp_path)

    def broken():
        raise RuntimeError(f"broken {EVIL}")

    disk["one"].status = broken
    made.watcher.look()
    assert "broken &lt;img" in made.panel.value
    made.tuner.start()
    made.settle()
    assert made.tuner.busy == ""
    del disk["one"].status
    made.watcher.look()


def test_nothing_from_a_study_is_markup_in_any_tab(disk, tmp_path):
    disk["evil"] = Study(tmp_path / "evil", evil=EVIL)
    made = opened(tmp_path, "evil")
    for title in TABS:
        made.views.turn_to(title)
        if title == "Front":
            made.explorer.selected = 8
    made.watcher.look()
    page = shown(made)
    assert "&lt;img" in page
    assert "<img" not in page
    assert EVIL not in made.title.value


def test_layers_from_the_map_go_to_keep(disk, tmp_path):
    made = opened(tmp_path)
    scans = made.views.widget("Sensitivity")
    made.builder.keep = ("classifier",)
    scans.use_keep(("a.b", "classifier"))
    assert made.builder.keep == ("classifier", "a.b")
    assert made.parts["recipe"].unfolded


def test_a_late_page_is_brought_up_to_date(disk, tmp_path, monkeypatch):
    made, sent = opened(tmp_path), []
    monkeypatch.setattr(ipw.Widget, "send_state", lambda self, key=None: sent.append((self, key)))
    made.page.hello = 2.0
    assert any(widget is made.line and "value" in keys for widget, keys in sent)


def test_the_data_tab_looks_at_the_data(disk, tmp_path, monkeypatch):
    made = opened(tmp_path)
    looked = []
    monkeypatch.setattr(made.data, "_read_soon", lambda: looked.append(1))
    made.data.look.click()
    assert made.views.title == "Data"
    assert looked == [1]


def test_a_part_of_the_rail_folds():
    parts = []
    made = Part("Machine", make=lambda: parts.append(1) or ipw.Label("x"))
    made.about = "a <b>"
    assert (parts, made.button.label, made.button.note) == ([], "Machine", "a <b>")
    assert made.body.layout.display == "none"
    made.button.unfolded = True
    assert (parts, made.unfolded, made.button.note, made.body.layout.display) == ([1], True, "", None)
    made.button.unfolded = False
    made.button.unfolded = True
    assert parts == [1]


def test_tabs_of_nothing():
    views = Views({"A": ipw.VBox, "B": ipw.VBox})
    views.feed()
    assert list(views.widgets) == ["A"]
    views.frame = fake_frame(0)
    views.hand(None)
    views.turn_to("B")
    assert views.frame is None


def test_the_served_notebook_keeps_to_its_folders(tmp_path):
    from workbench.widgets.serve import command, environment, write_notebook

    notebook = write_notebook(tmp_path, tmp_path / "runs", tmp_path / "models")
    text = notebook.read_text(encoding="utf-8")
    assert f"within='{tmp_path}/models'" in text
    line = command(notebook, port=1, token="t")
    assert "--Voila.ip=127.0.0.1" in line
    assert "--token=t" in line
    assert "--preheat_kernel=True" not in line
    assert "--preheat_kernel=True" in command(notebook, port=1, token="t", preheat=True)
    assert environment(notebook)["JUPYTER_PATH"].startswith(str(tmp_path))
    page = (tmp_path / "voila" / "templates" / "workbench" / "index.html.j2").read_text(encoding="utf-8")
    assert "replace('href=\"https://" in page


def test_paths_outside_the_served_folder_are_refused(disk, tmp_path):
    (tmp_path / "models").mkdir()
    made = Dashboard(tmp_path, models=tmp_path / "models", within=tmp_path / "models", watch=False)
    made.picker.kind.value = "folder"
    for path in ("/etc", "../..", str(tmp_path)):
        made.picker.model.value = path
        assert "lies outside" in str(made.picker.problem)
    assert evaluate_root(made).within == made.within


def evaluate_root(made):
    names = {"Dashboard": lambda *args, **kwargs: Dashboard(*args, watch=False, **kwargs)}
    return eval(made.code, names)  # noqa: S307 - the law


def test_a_page_that_comes_late_does_not_empty_what_is_typed(disk, tmp_path, monkeypatch):
    made = Dashboard(tmp_path, watch=False)
    sent = {}
    note = lambda self, key=None: sent.update({id(self): {key} if isinstance(key, str) else set(key or ())})  # noqa: E731
    monkeypatch.setattr(ipw.Widget, "send_state", note)
    made._begin()
    assert "value" not in sent[id(made.name)]
    assert "value" in sent[id(made.title)]
    made.name.value = "one"
    sent.clear()
    made._begin()
    assert "value" in sent[id(made.name)]
