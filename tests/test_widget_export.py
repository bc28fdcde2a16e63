"""The export panel without a browser: the call that its code is, sizes first, paths that stay, a token that goes."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
from fake_models import LookedAt

import workbench.widgets.export_panel as module
from workbench.errors import HubError, ResourceError, UserError
from workbench.export import ExportSize
from workbench.widgets.export_panel import ExportPanel, free

EVIL = "<img src=x onerror=alert(1)>"


class Calls(list):
    """What was called, by name; `hold` keeps an export going, `error` ends it."""

    def __init__(self):
        self.hold, self.error = None, None

    def export(self, study, number, place):
        self.append(("export", number, place))
        if self.hold:
            self.hold.wait(10)
        if self.error:
            raise self.error
        return place

    def push(self, folder, repo, *, token, private):
        self.append(("push", folder, repo, token, private))
        if self.error:
            raise self.error
        return f"https://huggingface.co/{repo}"


@pytest.fixture
def calls(monkeypatch):
    made = Calls()
    monkeypatch.setattr(module, "export", made.export)
    monkeypatch.setattr(module, "push", made.push)
    monkeypatch.setattr(module, "export_size", lambda study, number: ExportSize(12.2, 0.7, 12.9, 9.1))
    return made


@pytest.fixture
def panel(calls, tmp_path):
    made = ExportPanel(LookedAt(tmp_path / "demo"), 1)
    made.settle()
    return made


def test_code_makes_the_call_of_the_button(panel, calls):
    made = []
    eval(panel.code, {"study": SimpleNamespace(export=lambda *args: made.append(args))})  # noqa: S307 - the law
    panel.write.click()
    panel.settle()
    assert calls == [("export", *made[0][:1], panel.place())]
    assert str(calls[0][2]) == made[0][1]
    assert panel.value == panel.place()
    assert "python run.py --check" in panel.done.value


def test_size_and_lineage_stand_before_the_button(panel):
    assert "12.9 MB" in panel.size.value
    assert "9.10 MB" in panel.size.value
    assert "Licence of the original" in panel.size.value
    assert panel.name.value == "demo-1"
    panel.number = 2
    panel.settle()
    assert panel.name.value == "demo-2"
    panel.name.value = "mine"
    panel.number = 0
    panel.settle()
    assert panel.name.value == "mine"


def test_zip_and_folder(panel, calls, tmp_path):
    panel.form.value = "zip"
    assert panel.place() == tmp_path / "demo" / "exports" / "demo-1.zip"
    panel.write.click()
    panel.settle()
    assert "unpack it" in panel.done.value
    # A zip cannot be pushed.
    assert panel.upload.disabled
    panel.folder = tmp_path / "elsewhere"
    assert panel.place() == tmp_path / "elsewhere" / "demo-1.zip"


@pytest.mark.parametrize("name", ["../../up", "/etc/x", "", "a/b"])
def test_paths_from_the_page_stay_below(panel, calls, name):
    panel.name.value = name
    panel.write.click()
    panel.settle()
    assert calls == []
    assert "no name for an export" in panel.panel.value
    assert repr(name) in panel.code


def test_errors_are_shown_and_go(panel, calls):
    calls.error = ResourceError("The disk is full.", do="free some space")
    panel.write.click()
    panel.settle()
    assert "The disk is full." in panel.panel.value
    assert panel.value is None
    assert not panel.write.disabled
    calls.error = None
    panel.write.click()
    panel.settle()
    assert panel.panel.value == ""
    assert panel.value is not None


def test_a_second_click_while_exporting_does_nothing(panel, calls):
    calls.hold = threading.Event()
    panel.export()
    panel.export()
    panel.push()
    assert panel.write.disabled
    panel.number = 2
    calls.hold.set()
    panel.settle()
    assert len(calls) == 1
    assert panel.value.name == "demo-1"
    assert panel.number == 2
    assert not panel.write.disabled


def test_closing_while_exporting_does_no_harm(panel, calls):
    calls.hold = threading.Event()
    panel.export()
    panel.close()
    calls.hold.set()
    panel.settle()
    assert len(calls) == 1


def test_the_token_leaves_the_page_and_is_never_shown(panel, calls):
    panel.export()
    panel.settle()
    panel.repo.value, panel.token.value = "owner/name", "hf_secret"
    panel.upload.click()
    assert panel.token.value == ""
    panel.settle()
    assert calls[-1] == ("push", panel.value, "owner/name", "hf_secret", True)
    assert "https://huggingface.co/owner/name" in panel.done.value
    assert "hf_secret" not in panel.done.value + panel.code
    calls.error = HubError("The hub did not take it.")
    panel.token.value = "hf_secret"
    panel.upload.click()
    panel.settle()
    assert "did not take it" in panel.panel.value


def test_nothing_is_pushed_without_an_export_or_a_name(panel, calls):
    panel.push()
    panel.settle()
    assert "no exported folder" in panel.panel.value
    panel.export()
    panel.settle()
    panel.upload.click()
    panel.settle()
    assert "No repository is named" in panel.panel.value
    assert [name for name, *_ in calls] == ["export"]


def test_save_as_notebook(panel, monkeypatch, tmp_path):
    saved = []
    monkeypatch.setattr(module, "save_notebook", lambda *args, **options: saved.append((args, options)) or args[1])
    panel.note.click()
    panel.settle()
    ((study, place, number), options) = saved[0]
    assert (study, place, number) == (panel.study, tmp_path / "demo" / "exports" / "demo-1.ipynb", 1)
    assert options == {"search": True}
    assert "save_notebook(study, " in panel.done.value
    place.parent.mkdir(parents=True)
    place.touch()
    assert free(place).name == "demo-1-2.ipynb"


def test_empty_states_and_another_study(panel, tmp_path):
    assert "No measured trial yet" in ExportPanel().told.value
    panel.study = LookedAt(tmp_path / "another")
    panel.settle()
    assert panel.value is None
    assert panel.number == 2
    assert panel.name.value == "another-2"
    with pytest.raises(UserError, match="No study is open"):
        ExportPanel().place()


def test_nothing_from_a_model_is_markup(calls, tmp_path):
    made = ExportPanel(LookedAt(tmp_path / "demo", evil=EVIL), 1)
    made.settle()
    assert "&lt;img" in made.size.value
    assert "<img" not in made.size.value
