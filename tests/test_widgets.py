"""Widgets without a browser: their code gives their value, buttons in any order do no harm, nothing is injected."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_study import FakeStudy, fake_frame

import workbench
import workbench.widgets.dashboard as dashboard_module
from workbench.errors import KnobError, StoreError, UserError
from workbench.knobs import Knob
from workbench.recipe import Recipe, Space
from workbench.running.status import Status
from workbench.study import make_task
from workbench.tuning.goal import Goal
from workbench.widgets.controls import changed, control, read
from workbench.widgets.dashboard import Dashboard, safe_name, study_name
from workbench.widgets.error_panel import ErrorPanel, error_html
from workbench.widgets.model_picker import ModelPicker, problem
from workbench.widgets.page import asked_for
from workbench.widgets.pareto_explorer import ParetoExplorer, detail_html, trials_html
from workbench.widgets.recipe_builder import RecipeBuilder
from workbench.widgets.tuner import Tuner

EVIL = "<img src=x onerror=alert(1)>"


class Recorder:
    """Keeps the calls made to it, and answers `value`."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.calls.append((name, args, kwargs))


def namespace(**more):
    """The names of `workbench`, as a person's cell after `from workbench import *` has them."""
    names = {name: getattr(workbench, name) for name in ("Space", "Open", "Goal", "Recipe", "Choice", "Range")}
    return {**names, **workbench.registry.classes(), "make_task": make_task, **more}


def evaluate(code, names):
    return eval(code, names)  # noqa: S307 - that this gives the value is what is tested


# --- the law: evaluating `code` gives `value`, or makes the call -----------------------------------------------------


def picker():
    made = ModelPicker()
    made.kind.value = "hub"
    made.model.value, made.data.value, made.label.value = "owner/name", "glue/sst2", 'la"bel'
    made.text.value = "first, second"
    return made


def builder():
    made = RecipeBuilder(techniques=["static_int8", "drop_layers"])
    made.settings["static_int8"]["samples"].value = 100
    made.workload["batch"].value = 8
    return made


def explorer():
    made = ParetoExplorer()
    made.frame = fake_frame(3)
    made.selected = 1
    return made


@pytest.mark.parametrize("make", [RecipeBuilder, builder, explorer], ids=lambda f: f.__name__)
def test_code_gives_the_value(make):
    made = make()
    assert made.value is not None
    assert evaluate(made.code, namespace()) == made.value


@pytest.mark.parametrize("make", [ModelPicker, picker], ids=lambda f: f.__name__)
def test_code_of_the_picker_makes_its_call(make):
    calls = []
    made = make()
    evaluate(made.code, {"make_task": lambda model, **options: calls.append({"model": model, **options})})
    assert calls == [made.value]


def test_code_of_the_tuner_makes_the_call_of_start():
    study, made = Recorder(), Tuner()
    made.space = builder().value
    made.drop.value, made.absolute.value = 0.5, True
    made.trials.value, made.minutes.value = 0, 15
    evaluate(made.code, namespace(study=study))
    ((name, args, options),) = study.calls
    assert (name, args[0]) == ("start", made.space)
    assert options == {"strategy": made.strategy.value, "goal": made.value}
    assert made.value == Goal(max_drop=0.005, absolute=True, trials=None, minutes=15.0)


def test_code_of_the_dashboard_builds_it():
    made = Dashboard("some-folder", watch=False)
    again = evaluate(made.code, {"Dashboard": lambda *args, **kwargs: Dashboard(*args, watch=False, **kwargs)})
    assert again.root == made.root


def test_copy_as_python_shows_and_copies_the_code():
    made, copied = picker(), []
    made.copy = copied.append
    box = made.children[-1]
    button, shown = box.children
    button.click()
    assert copied == [made.code]
    assert "owner/name" in shown.value
    assert "&quot;bel" in shown.value


# --- parts -----------------------------------------------------------------------------------------------------------


def test_error_panel_sets_the_parts_apart():
    panel = ErrorPanel()
    panel.error = KnobError("samples = 0 is not possible.", allowed="1 or more", do=EVIL)
    assert "Allowed: " in panel.value
    assert "What to do: " in panel.value
    assert "<img" not in panel.value
    panel.error = None
    assert panel.value == ""
    assert "OSError: disk" in error_html(OSError("disk"))


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        (Knob(3, "h", low=1, high=5), 4),
        (Knob(0.5, "h"), 0.25),
        (Knob(True, "h"), False),
        (Knob("a", "h", choices=("a", "b")), "b"),
        (Knob((), "h"), ("x", "y")),
        (Knob("t", "h"), "u"),
    ],
)
def test_control_of_every_kind_of_knob(knob, value):
    made = control("name", knob)
    assert read(knob, made) == knob.default
    assert changed({"name": knob}, {"name": made}) == {}
    made.value = ", ".join(value) if isinstance(value, tuple) else value
    assert changed({"name": knob}, {"name": made}) == {"name": value}


def test_a_control_keeps_to_its_range():
    made = control("samples", Knob(3, "h", low=1, high=5))
    made.value = 50
    assert made.value == 5


@pytest.mark.parametrize(
    ("kind", "model", "data", "message"),
    [
        ("folder", "", "", "No model is named"),
        ("folder", "nowhere/at/all", "d.csv", "does not exist"),
        ("folder", ".", "d.csv", "neither config.json nor"),
        ("hub", "a b", "glue/sst2", "is no hub id"),
        ("hub", "owner/name", "", "No data are named"),
        ("hub", "owner/name", "missing.csv", "does not exist"),
    ],
)
def test_picker_says_what_is_wrong(tmp_path, monkeypatch, kind, model, data, message):
    monkeypatch.chdir(tmp_path)
    assert message in str(problem(kind, model, data))
    made = ModelPicker()
    made.kind.value, made.model.value, made.data.value = kind, model, data
    assert made.value is None
    assert (message in made.panel.value) == bool(model)


def test_picker_accepts_what_is_there(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "d.csv").write_text("a,b\n")
    assert problem("folder", str(tmp_path), str(tmp_path / "d.csv")) is None
    assert problem("demo", "", "") is None


def test_picker_shows_the_task_of_an_open_study(tmp_path):
    made = ModelPicker()
    made.fill({"name": "text_classification", "model": str(tmp_path), "data": "glue/sst2", "metric": "f1"})
    assert (made.kind.value, made.model.value, made.metric.value) == ("folder", str(tmp_path), "f1")
    made.fill({"name": "demo"})
    assert made.value == {"model": "demo"}


def test_explorer_selects_by_click_and_by_list():
    made = explorer()
    made.figure.clicked = {"trial": 2, "at": 1}
    assert made.selected == 2
    assert made.choose.value == 2
    assert isinstance(made.value, Recipe)
    assert "Trial 2: fp32 · onnxruntime" in made.detail.value
    made.choose.value = made.choose.options[0][1]
    assert made.value is None
    assert made.code == "None"
    assert "Click a point" in made.detail.value


def test_explorer_keeps_the_selection_while_the_study_grows():
    made = explorer()
    made.frame = fake_frame()
    assert made.selected == 1
    assert len(made.choose.options) == 13
    assert "drop_layers" in made.figure.figure
    made.frame = fake_frame(1)
    assert made.selected is None
    assert made.choose.label == "none"


def test_explorer_follows_theme_axis_and_focus():
    made = explorer()
    seen = {made.figure.figure}
    made.theme = "dark"
    seen.add(made.figure.figure)
    made.axis.value = "size_mb"
    seen.add(made.figure.figure)
    made.near.value = True
    seen.add(made.figure.figure)
    assert len(seen) == 4
    assert "Size on disk" in made.figure.figure


def test_tables_and_details_escape():
    frame = fake_frame(evil=EVIL)
    for page in (trials_html(frame), detail_html(frame, 8), detail_html(frame, 9)):
        assert "&lt;img" in page
        assert "<img" not in page
    assert "The compiler ran out of memory." in detail_html(frame, 9)


def test_page_address_is_read_under_voila_only(monkeypatch):
    monkeypatch.setenv("QUERY_STRING", "study=my-study&theme=dark")
    monkeypatch.delenv("SERVER_SOFTWARE", raising=False)
    assert asked_for("study") == ""
    monkeypatch.setenv("SERVER_SOFTWARE", "voila/0.5")
    assert asked_for("study") == "my-study"


# --- the dashboard on a fake study -----------------------------------------------------------------------------------


class Store:
    """Fake studies on no disk: what `Study`, `studies` and `make_task` are to the dashboard."""

    def __init__(self, root: Path) -> None:
        self.root, self.made = root, {}

    def __call__(self, folder, task=None):
        if folder not in self.made and task is None:
            raise StoreError("no such study")
        return self.made.setdefault(folder, SweepingStudy(folder))

    def studies(self, root):
        return list(self.made)


class SweepingStudy(FakeStudy):
    def __init__(self, folder):
        super().__init__(folder, count=0)
        self.state = "idle"
        self.task = SimpleNamespace(to_json=lambda: {"name": "demo"}, describe=dict)

    def start(self, space, strategy, goal):
        if self.state == "running":
            raise UserError("A sweep of this study is running already.")
        assert isinstance(space, Space)
        self.calls.append("start")
        self.state, self.count = "running", 3

    def stop(self):
        self.calls.append("stop")
        self.state = "idle"

    def resume(self):
        self.calls.append("resume")
        self.state = "running"

    def status(self):
        return Status(self.state, done=self.count or 0)


@pytest.fixture
def store(monkeypatch, tmp_path):
    made = Store(tmp_path)
    monkeypatch.setattr(dashboard_module, "Study", made)
    monkeypatch.setattr(dashboard_module, "studies", made.studies)
    monkeypatch.setattr(dashboard_module, "make_task", lambda **given: SimpleNamespace(**given))
    return made


def test_start_watch_stop(store, tmp_path):
    made = Dashboard(tmp_path, watch=False)
    made.tuner.buttons["start"].click()
    made.settle()
    study = made.study
    assert study.folder == tmp_path / "demo"
    assert made.tuner.status.state == "running"
    assert len(made.explorer.frame) == 3
    assert made.page.study == "demo"
    study.count = 5
    made.watcher.look()
    assert len(made.explorer.frame) == 5
    made.tuner.buttons["stop"].click()
    made.settle()
    assert study.calls == ["start", "stop"]
    assert made.tuner.status.state == "idle"


def test_a_longer_sequence_reaches_the_task(store, tmp_path, monkeypatch):
    made, given = Dashboard(tmp_path, watch=False), []
    monkeypatch.setattr(dashboard_module, "make_task", lambda **options: given.append(options))
    made.builder.workload["sequence"].value = 256
    made.tuner.start()
    made.settle()
    assert given == [{"model": "demo", "sequence": 256}]


def test_clicks_in_the_wrong_order_do_no_harm(store, tmp_path):
    made = Dashboard(tmp_path, watch=False)
    made.tuner.stop()
    made.settle()
    assert made.panel.value == ""
    made.tuner.resume()
    made.settle()
    assert "No study is open" in made.panel.value
    made.tuner.start()
    made.settle()
    assert made.panel.value == ""
    made.tuner.start()
    made.settle()
    assert "running already" in made.panel.value
    assert made.study.calls == ["start"]
    made.builder.backends["eager"].value = False
    for tick in made.builder.backends.values():
        tick.value = False
    made.tuner.start()
    made.settle()
    assert "at least one runtime" in made.panel.value


def test_a_new_kernel_shows_the_study_as_it_stands(store, tmp_path, monkeypatch):
    first = Dashboard(tmp_path, watch=False)
    first.tuner.start()
    first.settle()
    monkeypatch.setenv("SERVER_SOFTWARE", "voila/0.5")
    monkeypatch.setenv("QUERY_STRING", "study=demo&theme=dark")
    again = Dashboard(tmp_path, watch=False)
    again.settle()
    # What changes before the page is drawn would be lost to it.
    assert again.study is None
    again.page.query, again.page.hello = "?study=demo&theme=dark", 1.0
    again.settle()
    assert again.study is first.study
    assert len(again.explorer.frame) == 3
    assert again.explorer.theme == "dark"
    assert again.tuner.status.state == "running"


@pytest.mark.parametrize("name", ["../etc", "/abs", EVIL, "missing", ""])
def test_a_name_from_the_address_opens_nothing_else(store, tmp_path, name):
    made = Dashboard(tmp_path, study=name, watch=False)
    made.settle()
    assert made.study is None
    assert bool(made.panel.value) == bool(name)
    assert "<img" not in made.panel.value


def test_only_what_is_listed_below_the_root_is_opened(store, tmp_path, monkeypatch):
    store(tmp_path / "hidden", task="one")
    made = Dashboard(tmp_path, watch=False)
    monkeypatch.setattr(dashboard_module, "studies", lambda root: [])
    with pytest.raises(UserError, match="There is no study 'hidden'"):
        made.open_study("hidden")


def test_names_of_studies():
    assert study_name("owner/some model") == "some-model"
    assert study_name("/a/b/minilm/") == "minilm"
    assert study_name("..") == "study"
    with pytest.raises(UserError):
        safe_name("a/b")


def test_a_store_that_cannot_be_read_is_said(store, tmp_path):
    made = Dashboard(tmp_path, watch=False)
    made.tuner.start()
    made.settle()

    def locked():
        raise StoreError("The store is locked.", do="wait")

    made.study.frame = locked
    made.watcher.look()
    assert "The store is locked." in made.panel.value


def test_the_watcher_looks_by_itself(store, tmp_path):
    made = Dashboard(tmp_path)
    try:
        made.tuner.start()
        made.settle()
        made.study.count = 7
        made.watcher.poke()
        for _ in range(100):
            if len(made.explorer.frame) == 7:
                break
            made.watcher._thread.join(0.05)
        assert len(made.explorer.frame) == 7
    finally:
        made.watcher.close()


def test_the_kernel_stays_light():
    code = (
        "import sys; from workbench.widgets.dashboard import Dashboard; Dashboard('x', watch=False); "
        "sys.exit(str([m for m in ('torch', 'transformers', 'onnxruntime', 'openvino', 'nncf') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"
