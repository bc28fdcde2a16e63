"""Looking at models and data, in this process and in one of its own: the same answers, errors whole."""

from __future__ import annotations

import os
import threading

import pytest
from tiny_folders import rows, save_model, write_splits, write_tsv
from tiny_lm import lm_folder, stories

from workbench.errors import DataError, UnknownName
from workbench.running.look import Looker, answer
from workbench.study import make_task
from workbench.summary import DataSummary, TableSummary, describe_data, describe_table


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("look")
    save_model(place / "model")
    write_splits(place / "data", train=60, dev=20)
    return place


def test_a_table_without_a_model(place):
    found = describe_table(str(place / "data"))
    assert found.splits == {"dev": 20, "train": 60}
    assert (found.text, found.label, found.shown) == (("sentence",), "label", "dev")
    assert found.counts["train"] == {"0": 30, "1": 30}
    assert len(found.rows) == 5
    assert found.rows[0] == {"sentence": rows(1, 1000)[0][0], "label": "0"}
    assert TableSummary.from_json(found.to_json()) == found


def test_columns_that_nobody_can_guess_are_told(tmp_path):
    path = write_tsv(tmp_path / "a.tsv", [("x y", "u"), ("z", "v")], header="first\tsecond")
    found = describe_table(str(path))
    assert found.columns == ("first", "second")
    assert (found.text, found.label, found.counts) == ((), None, {})
    assert "looks like text" in found.notes[0]
    assert describe_table(str(path), text=("first",), label="second").counts == {"a": {"u": 1, "v": 1}}


def test_plain_text_is_counted_in_documents(tmp_path):
    (tmp_path / "a.txt").write_text("one\n<|endoftext|>\ntwo " + "x" * 1000)
    found = describe_table(str(tmp_path / "a.txt"), kind="causal_lm")
    assert found.splits == {"a": 2}
    assert found.rows[0] == {"text": "one"}
    assert len(found.rows[1]["text"]) < 500


def test_data_as_the_model_sees_them(place):
    task = make_task(str(place / "model"), str(place / "data"), reserve=0.5, sequence=16)
    found = describe_data(task)
    assert found.sizes == {"calibration": 60, "select": 10, "report": 10}
    assert found.origin == {"select": "dev", "calibration": "train", "report": "50% of dev"}
    assert found.counts == {"negative": 5, "positive": 5}
    # Each text has four words, and [CLS] and [SEP] stand around them.
    assert found.lengths == [6] * 10
    assert found.rows[0]["tokens"][0] == "[CLS]"
    assert found.rows[0]["length"] == len(found.rows[0]["tokens"]) == 6
    assert "10 examples is 0.1 answers" in found.one_percent
    assert DataSummary.from_json(found.to_json()) == found


def test_a_language_model_has_windows_and_no_labels(tmp_path):
    folder = lm_folder(tmp_path / "lm")
    (tmp_path / "a.txt").write_text(stories(4))
    found = describe_data(make_task(str(folder), str(tmp_path / "a.txt"), kind="causal_lm", sequence=8))
    assert found.counts == {}
    assert found.lengths
    assert all(row["label"] == "" and row["tokens"] for row in found.rows)


def test_the_demo_is_not_trained_for_a_look(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    found = describe_data(make_task("demo"))
    assert found.sizes == {"calibration": 12_000, "select": 1_000, "report": 1_000}
    assert sum(found.counts.values()) == 1_000
    assert (found.lengths, found.rows[0]["tokens"]) == ([], [])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_another_process_gives_the_same_and_is_kept(place, monkeypatch):
    here = os.path.dirname(__file__)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.path.dirname(here), os.environ.get("PYTHONPATH", "")]))
    looker = Looker()
    try:
        found = {}
        for data in ("data", "nowhere.csv"):
            # A thread that ends must not take the process with it.
            def ask(data=data):
                try:
                    found[data] = looker.ask("table", data=str(place / data))
                except DataError as error:
                    found[data] = error

            thread = threading.Thread(target=ask)
            thread.start()
            thread.join()
        assert TableSummary.from_json(found["data"]) == TableSummary.from_json(
            answer("table", {"data": str(place / "data")})
        )
        assert "no file or folder" in found["nowhere.csv"].what
        assert found["nowhere.csv"].do
        with pytest.raises(UnknownName):
            looker.ask("data", model=str(place / "model"), data=str(place / "data"), metric="no such")
    finally:
        looker.close()
    assert looker._owner is None
