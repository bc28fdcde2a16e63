"""Compare without a browser: its code gives its value, numbers come before texts, and any order does no harm."""

from __future__ import annotations

import pandas as pd
import pytest
from fake_models import LAYERS, FakeModels, LookedAt

import workbench
from workbench.comparison import compare
from workbench.errors import Refused, TrialError
from workbench.widgets.compare import Compare
from workbench.widgets.trials import choices

EVIL = "<img src=x onerror=alert(1)>"


def opened(numbers=(0, 1), models=None, study=None, **kwargs):
    made = Compare(study or LookedAt(), list(numbers), models=models or FakeModels(), **kwargs)
    made.settle()
    return made


def raising(error):
    def work(*args):
        raise error

    return work


def evaluate(made, models=None):
    given = models or FakeModels()
    names = {"compare": lambda *args: compare(*args, models=given), "study": made.study}
    return eval(made.code, names)  # noqa: S307 - that this gives the value is what is tested


def test_code_gives_the_value():
    made = opened((1, 0, 2))
    assert made.code == "compare(study, [1, 0, 2])"
    assert evaluate(made) == made.value


def test_code_with_own_texts_gives_the_value():
    made = opened()
    made.source.value = "own"
    made.own.value = "good\n\na long good one\tand its pair"
    made.answer.click()
    made.settle()
    assert made.code == "compare(study, [0, 1], ['good', ('a long good one', 'and its pair')])"
    assert evaluate(made) == made.value
    assert "no labels" in made.said.value
    assert made.kind.layout.display == "none"
    assert "#0 ↓" in made.matrices.value


def test_everything_is_shown():
    made = opened()
    assert "Change against #0" in made.table.value
    assert "static_int8" in made.differs.value
    assert "3 of 40 answers differ from those of trial 0: 2 right answers lost, 1 gained." in made.said.value
    assert made.matrices.value.count("<table") == 2
    assert made.list.value.index("text 3") < made.list.value.index("text 7") < made.list.value.index("text 10")
    assert made.list.value.count("data:text/csv") == 1
    made.kind.value = "gained"
    assert "text 10" in made.list.value
    assert "text 3<" not in made.list.value


def test_numbers_come_before_the_texts():
    models = FakeModels(error=TrialError("The process ended.", do="try again"))
    made = opened(models=models)
    assert "Change against #0" in made.table.value
    assert "The process ended." in made.panel.value
    assert made.value is None
    models.error = None
    made.numbers = [0, 2]
    made.settle()
    assert made.panel.value == ""
    assert made.value == compare(made.study, [0, 2], models=models)


def test_texts_are_read_once():
    models = FakeModels()
    made = opened(models=models)
    made.numbers = [1, 2]
    made.settle()
    assert [do for do, _ in models.asked] == ["examples"]
    assert made.value.texts[3] == ("text 3",)


def test_lists_and_trait_say_the_same():
    made = opened()
    assert [number for _, number in made.others.options] == [0, 1, 2]
    assert (made.reference.value, made.others.value) == (0, (1,))
    made.reference.value = 2
    made.settle()
    assert made.numbers == [2, 1]
    made.others.value = (0, 1, 2)
    made.settle()
    assert made.numbers == [2, 0, 1]
    assert [number for _, number in made.which.options] == [0, 1]
    made.which.value = 1
    assert "from those of trial 2" in made.said.value


@pytest.mark.parametrize("numbers", [(), (1,)])
def test_too_few_trials_say_what_to_do(numbers):
    made = opened(numbers)
    assert made.value is None
    assert made.code == "None"
    assert "Choose a reference" in made.told.value
    assert made._below.layout.display == "none"


def test_empty_study_says_what_to_do():
    made = opened((), study=LookedAt(trials=0))
    assert "No measured trial yet" in made.told.value
    assert "Start a sweep" in Compare().told.value


def test_another_study_takes_everything_of_the_first_away():
    made = opened()
    made.study = LookedAt("another")
    made.settle()
    assert made.numbers == []
    assert made.value is None
    assert made._below.layout.display == "none"
    made.numbers = [0, 2]
    made.settle()
    assert [t.number for t in made.value.trials] == [0, 2]


def test_a_frame_that_grows_keeps_what_is_chosen():
    made = opened()
    value = made.value
    made.frame = made.study.frame()
    assert made.numbers == [0, 1]
    assert made.value is value


def test_profiles_show_the_difference_by_layer():
    made = opened()
    assert "have not been timed" in made.delta.value
    made.profiles = {n: pd.DataFrame({"layer": LAYERS, "ms": [n + 1.0] * len(LAYERS)}) for n in (0, 1)}
    assert "Milliseconds by layer" in made.delta.value
    assert "1.000" in made.delta.value


def test_layers_are_timed_on_a_click_by_the_study():
    made = opened()
    assert (made.clock.button.disabled, made.clock.layout.display) == (False, None)
    made.clock.button.click()
    made.settle()
    # The fake's trial 0 takes 1 ms a layer, trial 1 takes 2, and 5 ms go elsewhere.
    assert "everything else" in made.delta.value
    assert "2.000" in made.delta.value
    assert made.clock.layout.display == "none"
    # What the study holds is read without a click.
    again = opened(study=made.study)
    assert "everything else" in again.delta.value
    names = {"study": made.study} | {name: getattr(workbench, name) for name in ("Recipe", "StaticInt8")}
    names |= {name: getattr(workbench, name) for name in ("Eager", "OpenVINO")}
    first, second = eval(made.clock.code, names)  # noqa: S307 - the law
    pd.testing.assert_frame_equal(first, made.clock.profiles[0])
    pd.testing.assert_frame_equal(second, made.clock.profiles[1])


def test_a_runtime_that_tells_no_times_is_named(monkeypatch):
    made = opened()
    monkeypatch.setattr(made.study, "costs", raising(Refused("It tells no times.", do="use openvino")))
    made.clock.button.click()
    made.settle()
    assert "It tells no times." in made.panel.value
    assert not made.clock.button.disabled


def test_long_lists_come_in_pages(monkeypatch):
    import workbench.widgets.compare as module

    monkeypatch.setattr(module, "PAGE", 2)
    made = opened((0, 2))
    assert made.list.value.count("<tr") == 3
    made.more.click()
    assert made.list.value.count("<tr") == 5
    assert made.more.layout.display == "none"


def test_nothing_from_data_is_markup():
    made = opened((0, 1), models=FakeModels(evil=EVIL), study=LookedAt(evil=EVIL))
    shown = [made.table, made.differs, made.said, made.matrices, made.list, made.told]
    page = " ".join(widget.value for widget in shown)
    assert "&lt;img" in page
    assert "<img" not in page


def test_choices_leave_out_what_has_no_measurement():
    found = choices(LookedAt().frame())
    assert [number for _, number in found] == [0, 1, 2]
    assert found[0][0].endswith("(uncompressed)")
    assert "−2.50 pt, 2.00×" in found[1][0]
    assert choices(None) == choices(pd.DataFrame()) == []
