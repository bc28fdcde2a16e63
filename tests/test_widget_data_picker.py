"""The data's picker without a browser: its code makes its call, columns arrive, mistakes are said."""

from __future__ import annotations

import pytest
from tiny_folders import write_splits

import workbench.widgets.data_picker as module
from workbench.errors import DataError
from workbench.running import look
from workbench.summary import DataSummary, describe_table
from workbench.widgets import data_view as view
from workbench.widgets.data_picker import DataPicker, parse_map

EVIL = "<img src=x onerror=alert(1)>"


def summary(text="good film", sizes=(60, 20, 0)):
    names = ("calibration", "select", "report")
    return DataSummary(
        dict(zip(names, sizes, strict=True)),
        {"select": "dev", "calibration": "train"},
        {"negative": 10, "positive": 10},
        [4, 5, 16, 16],
        16,
        [{"text": [text], "label": "positive", "tokens": ["[CLS]", text], "length": 2}],
        "accuracy",
        "one percentage point of 20 examples is 0.2 answers",
        ("A note.",),
    )


@pytest.fixture
def place(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    write_splits(tmp_path / "data", train=60, dev=20)
    return tmp_path


@pytest.fixture
def asked(monkeypatch):
    """What was asked of the other process; tables are read in this one."""
    seen = []

    def ask(question, **given):
        seen.append((question, given))
        return describe_table(**given).to_json() if question == "table" else summary().to_json()

    monkeypatch.setattr(look, "ask", ask)
    monkeypatch.setattr(module, "PAUSE", 0.0)
    return seen


def picker(place, data="data", **options):
    made = DataPicker({"model": str(place / "model")}, str(place / data) if data else "", root=place, **options)
    made.settle()
    return made


def test_its_code_makes_its_call(place, asked):
    made = picker(place)
    made.text.value, made.label.value = "sentence", "label"
    made.labels_map.value = "0=negative, 1=pos'itive"
    made.split.value, made.reserve.value, made.limit.value = "dev", 50, 10
    made.settle()
    calls = []
    names = {"make_task": lambda model, **options: calls.append({"model": model, **options})}
    eval(made.code, names)  # noqa: S307 - the law
    assert calls == [made.value]
    assert made.value == {
        "model": str(place / "model"),
        "data": str(place / "data"),
        "text": ("sentence",),
        "label": "label",
        "labels_map": {"0": "negative", "1": "pos'itive"},
        "split": "dev",
        "reserve": 0.5,
        "limit": 10,
    }
    assert asked[-1] == ("data", made.value)


def test_the_task_that_it_describes_can_be_made(place, asked):
    from workbench.study import make_task

    made = picker(place)
    made.reserve.value = 10
    made.settle()
    task = make_task(**made.value)
    assert task.reserve == 0.1
    assert task.data == str(place / "data")


def test_the_demo_brings_its_own(asked):
    made = DataPicker(root="nowhere")
    made.settle()
    assert made.value == {"model": "demo"}
    assert made.fields.layout.display == "none"
    assert asked == [("data", {"model": "demo"})]


def test_nothing_is_looked_at_before_the_click_where_it_should_not(place, asked):
    made = picker(place, auto=False)
    assert asked == []
    assert made.value is not None
    made.look.click()
    made.settle()
    assert [question for question, _ in asked] == ["table", "data"]


def test_what_is_seen_is_shown(place, asked):
    made = picker(place)
    assert [question for question, _ in asked] == ["table", "data"]
    assert dict(made.text.options) == {"guessed: sentence": "", "sentence": "sentence", "label": "label"}
    assert [value for _, value in made.split.options] == ["", "dev", "train"]
    shown = {name: part.value for name, part in made.views.items()}
    assert "sentence (text)" in shown["raw"]
    assert "<td>60</td>" in shown["splits"]
    assert "One percentage point of 20 examples is 0.2 answers." in shown["splits"]
    assert "50.0%" in shown["labels"]
    assert "2 fill all 16" in shown["lengths"]
    assert "<code>[CLS]</code>" in shown["tokens"]
    assert "A note." in shown["notes"]
    assert made.line.value == ""


def test_the_files_show_even_where_the_model_cannot_read_them(place, monkeypatch):
    def ask(question, **given):
        if question == "table":
            return describe_table(**given).to_json()
        raise DataError("The label 'x' is unknown to the model.", do=f"labels_map={EVIL}")

    monkeypatch.setattr(look, "ask", ask)
    monkeypatch.setattr(module, "PAUSE", 0.0)
    made = picker(place)
    assert "unknown to the model" in made.panel.value
    assert "<img" not in made.panel.value
    assert "sentence" in made.views["raw"].value
    # What is wrong is for the run to say as well: the description stands.
    assert made.value is not None


@pytest.mark.parametrize(
    ("data", "said"), [("", "No data are named"), ("missing.csv", "does not exist"), ("/nowhere/x", "does not exist")]
)
def test_names_that_lead_nowhere(place, asked, data, said):
    made = picker(place, data="")
    made.data.value = data
    made.settle()
    assert made.value is None
    assert said in str(made.problem)
    assert (said in made.panel.value) == bool(data)
    assert asked == []


def test_data_of_the_hub_wait_for_a_click(place, asked, monkeypatch):
    made = picker(place, data="")
    made.data.value, made.configuration.value, made.revision.value = "glue", "sst2", "v1"
    made.settle()
    assert made.value["data"] == "glue/sst2"
    assert made.value["data_revision"] == "v1"
    assert made.configuration.layout.display is None
    assert asked == []
    assert "downloads what is not here" in made.line.value
    monkeypatch.setattr(look, "ask", lambda question, **given: asked.append((question, given)) or _table(place))
    made.look.click()
    made.settle()
    assert asked[0] == (
        "table",
        {"data": "glue/sst2", "kind": "text_classification", "text": (), "label": None, "revision": "v1"},
    )


def _table(place):
    return describe_table(str(place / "data")).to_json()


def test_looking_without_data_says_what_is_missing(place, asked):
    made = picker(place, data="")
    made.look.click()
    assert "No data are named" in made.panel.value
    assert asked == []


def test_paths_outside_are_refused(place, asked, tmp_path_factory):
    inside = tmp_path_factory.mktemp("inside")
    made = picker(place, within=inside)
    assert made.value is None
    assert "lies outside" in made.panel.value
    for outside in ("/etc", str(inside / ".." / place.name / "data"), "~"):
        made.data.value = outside
        assert "lies outside" in made.panel.value
    assert asked == []


def test_a_language_model_has_no_labels(place, asked):
    (place / "a.txt").write_text("one\n<|endoftext|>\ntwo")
    made = picker(place, data="a.txt", task_kind="causal_lm")
    assert made.value == {"model": str(place / "model"), "data": str(place / "a.txt"), "kind": "causal_lm"}
    assert made.label.layout.display == "none"
    assert asked[0][1]["kind"] == "causal_lm"


def test_another_model_asks_again(place, asked):
    made = picker(place)
    asked.clear()
    (place / "second").mkdir()
    made.model = {"model": str(place / "second"), "revision": "v2"}
    made.settle()
    assert asked[-1][1]["model"] == str(place / "second")
    made.model = None
    made.settle()
    assert made.value is None


def test_it_shows_the_task_of_an_open_study(place, asked):
    made = picker(place, data="")
    task = {"data": str(place / "data"), "text": ["sentence"], "label": "label", "metric": "f1", "reserve": 0.25}
    made.fill({**task, "labels_map": {"0": "negative"}, "split": "dev", "limit": 7, "data_revision": None})
    made.settle()
    expected = {"data": str(place / "data"), "text": ("sentence",), "label": "label", "metric": "f1", "reserve": 0.25}
    assert {k: v for k, v in made.value.items() if k != "model"} == {
        **expected,
        "labels_map": {"0": "negative"},
        "split": "dev",
        "limit": 7,
    }


@pytest.mark.parametrize("text", ["5", "5=", "=x", "a=b, c"])
def test_a_label_map_that_cannot_be_read(place, asked, text):
    with pytest.raises(DataError, match="not understood"):
        parse_map(text)
    made = picker(place)
    made.labels_map.value = text
    assert made.value is None
    assert "not understood" in made.panel.value


def test_files_lying_about_are_suggested(place, asked):
    (place / "config.json").write_text("{}")
    (place / "notes").mkdir()
    (place / "notes" / "reviews.csv").write_text("text,label\n")
    made = picker(place, data="")
    names = [path.removeprefix(f"{place}/") for path in made.data.options]
    assert names == ["data", "data/dev.tsv", "data/train.tsv", "notes/reviews.csv"]


def test_texts_and_labels_show_as_text(place, asked):
    path = place / "evil.csv"
    path.write_text(f'"{EVIL}",label\n' + f'"{EVIL}",{EVIL}\n' * 3)
    found = describe_table(str(path), text=(EVIL,), label="label")
    seen = summary(EVIL)
    for page in (view.rows_html(found), view.labels_html(found, None), view.tokens_html(seen)):
        assert "<img" not in page
        assert "&lt;img" in page


def test_a_long_example_is_cut_and_says_so():
    seen = summary()
    seen.rows[0]["tokens"] = ["t"] * 100
    assert "40 more" in view.tokens_html(seen)
