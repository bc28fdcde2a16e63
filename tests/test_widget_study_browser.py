"""The browser of studies without a browser: every button makes the call that it shows, and asks before it deletes."""

from __future__ import annotations

import pytest
from test_studies import make_study, set_running

import workbench.widgets.study_browser as module
from workbench import studies as functions
from workbench.study import Study
from workbench.widgets.study_browser import StudyBrowser, studies_html

pytestmark = pytest.mark.usefixtures("fake_plugins")

EVIL = "<img src=x onerror=alert(1)>"
MORE = ((None, 0, 1.0), (1, 4, 2.5), (9, 3, 4.0))


@pytest.fixture
def root(tmp_path):
    make_study(tmp_path / "runs" / "one")
    make_study(tmp_path / "runs" / "two", trials=MORE)
    return tmp_path / "runs"


def browser(root, choose="one", other=""):
    made = StudyBrowser(root)
    made.settle()
    made.choose.value = str(root / choose)
    made.other.value = str(root / other) if other else ""
    made.settle()
    return made


def click(made, name):
    made.buttons[name].click()
    made.settle()


def test_its_code_opens_what_is_selected(root):
    made, opened = browser(root), []
    assert eval(made.code, {"Study": lambda folder: folder}) == made.value  # noqa: S307 - the law
    made.show = opened.append
    click(made, "open")
    assert opened == [made.value] == [str(root / "one")]
    assert Study(opened[0]).name == "one"


@pytest.mark.parametrize(
    ("button", "name", "call"),
    [
        ("rename", "three", "rename_study"),
        ("duplicate", "", "duplicate_study"),
        ("duplicate", "four", "duplicate_study"),
        ("compare", "", "compare_studies"),
        ("import", "", "import_trial"),
        ("sure", "", "delete_study"),
    ],
)
def test_every_button_makes_the_call_that_it_shows(root, monkeypatch, button, name, call):
    calls = []

    def record(*args, **kwargs):
        calls.append((args, kwargs))
        raise functions.UserError("recorded only")

    made = browser(root, other="two")
    made.name.value = name
    made.trial.value = made.trial.options[2][1]
    if button == "sure":
        click(made, "delete")
    real = getattr(module, call)
    made_code = []
    monkeypatch.setattr(module, call, lambda *args, **kwargs: made_code.append((args, kwargs)) or real(*args, **kwargs))
    click(made, button)
    assert made.panel.value == ""
    eval(made.done, {call: lambda *args, **kwargs: calls.append((args, kwargs))})  # noqa: S307 - the law
    positional = [(tuple(arg for arg in args if arg != ""), kwargs) for args, kwargs in made_code]
    assert calls == positional
    assert made.done.startswith(f"{call}(")


def test_the_list_follows_what_was_done(root):
    made, moved = browser(root), []
    made.moved = lambda old, new: moved.append((old, new))
    made.name.value = "renamed"
    click(made, "rename")
    assert made.value == str(root / "renamed")
    click(made, "duplicate")
    assert made.value == str(root / "renamed-copy")
    click(made, "delete")
    click(made, "sure")
    assert sorted(row.name for row in made.rows) == ["renamed", "two"]
    assert moved == [(str(root / "one"), str(root / "renamed")), (str(root / "renamed-copy"), None)]


def test_the_study_that_is_open_is_the_one_that_buttons_mean(root):
    made = StudyBrowser(root, study=Study(root / "two"))
    made.settle()
    assert made.value == str(root / "two")
    made.study = Study(root / "one")
    made.settle()
    assert made.choose.value == made.value == str(root / "one")
    make_study(root / "later")
    made.study = Study(root / "later")
    made.settle()
    assert made.value == str(root / "later")
    made.study = None
    assert made.value == str(root / "later")


def test_deleting_asks_and_keeping_keeps(root):
    made = browser(root)
    assert made.ask.layout.display == "none"
    # The last button alone does nothing: nobody was asked.
    click(made, "sure")
    assert (root / "one").is_dir()
    click(made, "delete")
    assert made.ask.layout.display is None
    assert "Delete “one” with 3 trials" in made.question.value
    click(made, "keep")
    click(made, "sure")
    assert (root / "one").is_dir()
    # Choosing another study takes the question back: it was about the first one.
    click(made, "delete")
    made.choose.value = str(root / "two")
    click(made, "sure")
    assert (root / "one").is_dir()
    assert (root / "two").is_dir()


def test_a_running_study_cannot_be_changed(root):
    set_running(root / "one")
    made = browser(root, other="two")
    for name in ("rename", "duplicate", "delete", "import"):
        assert made.buttons[name].disabled
    assert not made.buttons["open"].disabled
    assert not made.buttons["compare"].disabled
    # Even where the page was slower than the runner.
    made.delete()
    made._about = str(root / "one")
    made.delete()
    made.settle()
    assert "running" in made.panel.value
    assert (root / "one").is_dir()


def test_two_studies_and_a_trial_taken_over(root):
    made = browser(root, other="two")
    click(made, "compare")
    for part in ("one and two, recipe by recipe", "in the first only", "faster in the second", "Change"):
        assert part in made.compared.value
    assert [number for _, number in made.trial.options] == [-1, 1, 2]
    click(made, "import")
    assert "No trial is chosen" in made.panel.value
    made.trial.value = 2
    click(made, "import")
    assert made.panel.value == ""
    assert len(Study(root / "one").trials) == 4
    click(made, "import")
    assert "holds this recipe already" in made.panel.value


def test_what_a_page_sends_is_checked(root, tmp_path):
    make_study(tmp_path / "outside")
    made = browser(root)
    for folder in (str(tmp_path / "outside"), str(root / ".." / "outside"), "/etc", ""):
        made.value = folder or None
        for name in ("open", "rename", "duplicate", "delete"):
            made.name.value = "x"
            click(made, name)
            assert made.panel.value != ""
    made.value = str(root / "one")
    made.name.value = "../outside2"
    click(made, "rename")
    assert "no name for a study" in made.panel.value
    assert (tmp_path / "outside").is_dir()


def test_an_empty_folder_says_what_to_do(tmp_path):
    made = StudyBrowser(tmp_path)
    made.settle()
    assert "Start a sweep" in made.listed.value
    assert made.value is None
    assert made.code == "None"
    assert all(made.buttons[name].disabled for name in ("open", "rename", "duplicate", "delete", "compare", "import"))


def test_names_and_reasons_show_as_text(root):
    rows = [functions.StudyRow(root / EVIL.replace("/", ""), problem=EVIL, model=EVIL)]
    page = studies_html(rows)
    assert "<img" not in page
    assert "&lt;img" in page


def test_a_second_click_while_one_is_at_work_does_nothing(root, monkeypatch):
    import threading

    gate, calls = threading.Event(), []

    def slow(folder, name=""):
        calls.append(folder)
        gate.wait(20)
        return functions.duplicate_study(folder, name)

    monkeypatch.setattr(module, "duplicate_study", slow)
    made = browser(root)
    made.buttons["duplicate"].click()
    made.buttons["duplicate"].click()
    assert made.buttons["rename"].disabled
    gate.set()
    made.settle()
    assert len(calls) == 1
    assert not made.buttons["rename"].disabled
