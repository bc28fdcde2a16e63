"""The playground without a browser: what is typed is answered, the last word wins, nothing is injected."""

from __future__ import annotations

import threading

import pandas as pd
import pytest
from fake_models import FakeModels, LookedAt

import workbench.widgets.playground as module
from workbench.errors import TrialError
from workbench.reading import answers
from workbench.widgets.playground import Playground
from workbench.widgets.worker import Worker

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.0)


def opened(numbers=(1,), models=None, study=None):
    made = Playground(study or LookedAt(), list(numbers), models=models or FakeModels())
    made.settle()
    return made


def typed(made, text):
    made.text.value = text
    made.settle()
    return made


def test_code_gives_the_value():
    made = typed(opened((1, 2)), "it's a good one")
    names = {"answers": lambda *args: answers(*args, models=FakeModels()), "study": made.study}
    assert made.code == 'answers(study, [0, 1, 2], ["it\'s a good one"])'
    pd.testing.assert_frame_equal(eval(made.code, names), made.value)  # noqa: S307 - the law


def test_baseline_answers_beside_the_chosen_trials():
    made = typed(opened(), "good")
    assert made.value["trial"].tolist() == [0, 1]
    assert "not the answer of #0" in made.shown.value
    assert "4.00 ms" in made.shown.value
    made.choose.value = (1, 2)
    made.settle()
    assert made.value["trial"].tolist() == [0, 1, 2]
    assert [number for _, number in made.choose.options] == [1, 2]


def test_many_texts_at_once():
    made = opened()
    made.many.value = True
    typed(made, "good\nbad\n\n" + "x" * 20 + "\tpair")
    assert made.texts() == [("good",), ("bad",), ("x" * 20, "pair")]
    assert len(made.value) == 6
    assert "2 of 3 texts" in made.shown.value
    assert "data:text/csv" in made.shown.value
    made.many.value = False
    made.settle()
    assert len(made.value) == 2


def test_an_example_comes_from_the_data():
    models = FakeModels()
    made = opened(models=models)
    made.example.click()
    made.settle()
    assert made.text.value.startswith("text ")
    assert made.value is not None
    made.example.click()
    made.settle()
    assert [do for do, _ in models.asked].count("examples") == 1


def test_pairs_bring_a_second_field():
    models = FakeModels()
    models.examples = lambda task, split, limit: {"texts": [["first", "second"]]}
    made = opened(models=models)
    assert made.second.layout.display == "none"
    made.example.click()
    made.settle()
    assert (made.text.value, made.second.value) == ("first", "second")
    assert made.texts() == [("first", "second")]


def test_no_text_no_study_no_trial():
    made = opened()
    assert "Type a text" in made.shown.value
    typed(made, "good")
    typed(made, "   ")
    assert made.value is None
    assert "Type a text" in made.shown.value
    empty = typed(opened((), study=LookedAt(trials=0)), "good")
    assert "No measured trial yet" in empty.shown.value
    alone = typed(Playground(), "good")
    alone.example.click()
    assert alone.value is None


def test_errors_are_shown_and_go():
    models = FakeModels(error=TrialError("It does not fit into memory.", do="choose fewer"))
    made = typed(opened(models=models), "good")
    assert "does not fit into memory" in made.panel.value
    models.error = None
    typed(made, "better")
    assert made.panel.value == ""


def test_another_study_is_asked_from_then_on():
    made = typed(opened(), "good")
    made.study = LookedAt("another")
    made.settle()
    assert made.numbers == []
    assert made.value["trial"].tolist() == [0]


def test_nothing_typed_or_named_is_markup():
    made = typed(opened(models=FakeModels(evil=EVIL), study=LookedAt(evil=EVIL)), EVIL)
    assert "<img" not in made.shown.value
    made.many.value = True
    made.settle()
    assert "&lt;img" in made.shown.value
    assert "<img" not in made.shown.value


# --- the worker ------------------------------------------------------------------------------------------------------


def test_the_newest_order_wins():
    said, failed, done, hold = [], [], [], threading.Event()
    worker = Worker(said.append, failed.append)
    worker.order("first", lambda order: hold.wait(5) and "first", done.append)
    worker.order("second", lambda order: "second", done.append)
    worker.order("third", lambda order: "third", done.append)
    hold.set()
    worker.settle()
    assert done == ["third"]
    assert said[-1] == ""
    assert failed == [None]


def test_a_pause_collects_what_comes_in_it():
    done = []
    worker = Worker(lambda text: None, lambda error: None)
    for i in range(5):
        worker.order("", lambda order, i=i: i, done.append, after=0.05)
    worker.settle()
    assert done == [4]


def test_what_is_dropped_shows_nothing():
    said, done, hold = [], [], threading.Event()
    worker = Worker(said.append, lambda error: done.append(error))
    worker.order("at work", lambda order: hold.wait(5), done.append)
    worker.drop()
    hold.set()
    worker.settle()
    assert done == []
    assert said[-1] == ""
