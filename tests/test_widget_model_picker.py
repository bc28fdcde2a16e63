"""The model's picker without a browser: rows, card, hub ids as they are typed, paths that are refused."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest
from tiny_folders import save_model

import workbench.widgets.model_picker as module
from workbench.loading.model_summary import ModelSummary
from workbench.running import look
from workbench.widgets.model_card import card_html, number, row_html
from workbench.widgets.model_picker import ModelPicker

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    save_model(place / "good")
    shutil.copytree(place / "good", place / "other")
    config = json.loads((place / "other" / "config.json").read_text())
    config["architectures"] = ["BertForMaskedLM"]
    (place / "other" / "config.json").write_text(json.dumps(config))
    return place


@pytest.fixture
def asked(monkeypatch):
    """What was asked of the other process, answered at once."""
    seen = []

    def ask(question, **given):
        seen.append((question, given))
        found = ModelSummary(given["model"], "hub", "SomeForSequenceClassification", parameters=7, macs=2_500_000)
        if "none" in given["model"]:
            found = ModelSummary(given["model"], "hub", problem="The hub has no such model.", do="check the spelling")
        return found.to_json()

    monkeypatch.setattr(look, "ask", ask)
    monkeypatch.setattr(module, "TYPING", 0.05)
    monkeypatch.setattr(module, "CALM", 0.0)
    monkeypatch.setattr(module, "is_trained", lambda: True)
    monkeypatch.setattr(module, "summarize_demo", lambda: ModelSummary("demo", "demo"))
    return seen


def picker(**options):
    made = ModelPicker(**options)
    made.settle()
    return made


@pytest.mark.parametrize(
    ("kind", "model", "revision", "task_kind"),
    [("demo", "", "", "text_classification"), ("hub", "owner/na'me", "v1", "causal_lm")],
)
def test_without_data_its_code_fills_the_card(asked, kind, model, revision, task_kind):
    made = picker(data=False)
    made.task_kind, made.kind.value = task_kind, kind
    made.model.value, made.revision.value = model.replace("'", ""), revision
    made.settle()
    calls = []

    def describe_model(name, revision=None, kind="text_classification"):
        calls.append(("model", {"model": name, "revision": revision, "kind": kind}))

    eval(made.code, {"describe_model": describe_model})  # noqa: S307 - the law
    assert calls == asked[-1:]
    assert made.value == {k: v for k, v in calls[0][1].items() if v and k != "kind"}


def test_models_found_stand_as_rows(models, asked):
    made = picker(root=models, data=False)
    assert made.found == []
    made.kind.value = "folder"
    made.settle()
    good, other = made.rows.children
    assert good.children[0].description == "good"
    assert not good.children[0].disabled
    assert other.children[0].disabled
    assert "no classification head" in other.children[1].value
    good.children[0].click()
    made.settle()
    assert made.value == {"model": str(models / "good")}
    assert good.children[0].button_style == "info"
    assert "2.5 M at 128 tokens" in made.card.value


def test_what_the_files_tell_shows_before_the_rest(models, asked, monkeypatch):
    gate = threading.Event()

    def slow(question, **given):
        gate.wait(20)
        return ModelSummary(given["model"], "folder", "Slow").to_json()

    monkeypatch.setattr(look, "ask", slow)
    made = ModelPicker(root=models, data=False)
    made.kind.value = "folder"
    made.model.value = str(models / "good")
    assert "BertForSequenceClassification" in made.card.value.replace("<wbr>", "")
    assert made.summary.labels == ("negative", "positive")
    gate.set()
    made.settle()
    assert "Slow" in made.card.value


def test_nothing_found_says_what_to_do(tmp_path, asked):
    made = picker(root=tmp_path)
    made.kind.value = "folder"
    made.settle()
    assert "No model was found" in made.rows.children[0].value


def test_a_hub_id_is_asked_once_the_typing_ends(asked):
    made = picker(data=False)
    made.kind.value = "hub"
    for typed in ("o", "ow", "owner", "owner/", "owner/name"):
        made.model.value = typed
    made.settle()
    assert [given["model"] for _, given in asked if given["model"] != "demo"] == ["owner/name"]
    assert made.summary.architecture == "SomeForSequenceClassification"
    made.model.value = "owner/none"
    assert made.summary is None or made.summary.model != "owner/none"
    made.settle()
    assert "The hub has no such model." in made.card.value
    assert "check the spelling" in made.card.value
    assert made.value is None
    assert "The hub has no such model." in str(made.problem)
    made.model.value = "owner/name"
    made.settle()
    assert made.value == {"model": "owner/name"}


def test_a_model_that_cannot_be_used_is_no_value_whatever_else_changes(models, asked):
    made = picker(root=models)
    made.kind.value, made.data.value = "folder", "glue/sst2"
    made.model.value = str(models / "other")
    made.settle()
    assert made.value is None
    assert "no classification head" in str(made.problem)
    made.label.value = "label"
    assert made.value is None
    made.model.value = str(models / "good")
    assert made.value == {"model": str(models / "good"), "data": "glue/sst2", "label": "label"}


def test_an_untrained_demo_starts_no_process(asked, monkeypatch):
    monkeypatch.setattr(module, "is_trained", lambda: False)
    made = picker()
    assert asked == []
    assert made.value == {"model": "demo"}
    assert made.summary.kind == "demo"


def test_an_answer_that_was_overtaken_is_dropped(asked, monkeypatch):
    first, answered = threading.Event(), []

    def ask(question, **given):
        if given["model"] == "owner/slow":
            first.wait(20)
        answered.append(given["model"])
        return ModelSummary(given["model"], "hub", given["model"]).to_json()

    monkeypatch.setattr(look, "ask", ask)
    monkeypatch.setattr(module, "TYPING", 0.0)
    made = picker(data=False)
    made.kind.value = "hub"
    made.model.value = "owner/slow"
    made.model.value = "owner/fast"
    while "owner/fast" not in answered:
        threading.Event().wait(0.01)
    first.set()
    made.settle()
    assert made.summary.model == "owner/fast"


def test_an_id_that_is_none_is_not_asked_for(asked):
    made = picker(data=False)
    made.kind.value = "hub"
    asked.clear()
    for wrong in ("a b", "../../etc", "a/b/c", EVIL):
        made.model.value = wrong
        made.settle()
        assert made.value is None
        assert "<img" not in made.panel.value
    assert asked == []


def test_paths_outside_are_refused(models, tmp_path, asked):
    made = picker(within=tmp_path)
    made.kind.value = "folder"
    for outside in (models / "good", tmp_path / ".." / models.name / "good", Path("/etc")):
        made.model.value = str(outside)
        assert made.value is None
        assert "lies outside" in made.panel.value
    (tmp_path / "link").symlink_to(models / "good")
    made.model.value = str(tmp_path / "link")
    assert "lies outside" in made.panel.value
    shutil.copytree(models / "good", tmp_path / "good")
    (tmp_path / "d.csv").write_text("text,label\n")
    made.model.value, made.data.value = str(tmp_path / "good"), "/etc/passwd"
    assert "lies outside" in made.panel.value
    made.data.value = str(tmp_path / "d.csv")
    assert made.value == {"model": str(tmp_path / "good"), "data": str(tmp_path / "d.csv")}


def test_what_strangers_wrote_shows_as_text(tmp_path, asked):
    evil = ModelSummary("owner/name", "hub", EVIL, (EVIL,), license=EVIL, problem=EVIL, do=EVIL)
    for page in (card_html(evil), row_html(evil)):
        assert "<img" not in page
        assert "&lt;img" in page
    assert "it is no folder" in row_html(ModelSummary(EVIL, "folder", problem=f"{EVIL} is no folder"))
    (tmp_path / EVIL.replace("/", "")).mkdir()
    folder = tmp_path / EVIL.replace("/", "")
    (folder / "config.json").write_text(json.dumps({"architectures": [EVIL]}))
    (folder / "pytorch_model.bin").write_bytes(b"x")
    made = picker(root=tmp_path)
    made.kind.value = "folder"
    made.settle()
    assert "<img" not in made.rows.children[0].children[1].value


def test_a_process_that_ends_is_said(asked, monkeypatch):
    def broken(question, **given):
        raise OSError("it ended")

    monkeypatch.setattr(look, "ask", broken)
    assert "it ended" in picker().card.value


@pytest.mark.parametrize(
    ("value", "shown"), [(None, ""), (999, "999"), (260_032, "260 K"), (22_713_986, "22.7 M"), (1.43e9, "1.43 G")]
)
def test_numbers(value, shown):
    assert number(value) == shown
