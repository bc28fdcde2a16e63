"""The layer explorer without a browser: its code gives its value, and what cannot be shown says why."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from fake_models import LAYERS, FakeModels, LookedAt

from workbench.errors import Refused
from workbench.reading import layer_table
from workbench.widgets.layer_explorer import LayerExplorer

EVIL = "<img src=x onerror=alert(1)>"


def opened(number=1, models=None, study=None, **kwargs):
    made = LayerExplorer(study or LookedAt(), number, models=models or FakeModels(), **kwargs)
    made.settle()
    return made


def rows(made):
    return {row["path"]: row for row in json.loads(made.tree.rows)}


def test_code_gives_the_value():
    made = opened()
    assert made.code == "layer_table(study, 1)"
    names = {"layer_table": lambda *args: layer_table(*args, models=FakeModels()), "study": made.study}
    pd.testing.assert_frame_equal(eval(made.code, names), made.value)  # noqa: S307 - the law


def test_the_tree_shows_every_layer_and_its_parts():
    made = opened()
    found = rows(made)
    assert {path for path, row in found.items() if row["layer"]} == set(LAYERS)
    assert found["encoder.layer.0"]["share_text"] == "40.0 %"
    assert found["classifier"]["precision"] == [["fp32", "fp32"]]
    assert found["classifier"]["width_text"] == "4 → 8"
    assert "changes 1 time from one layer to the next: 2 islands" in made.told.value
    assert "3 Convert" in made.told.value


def test_tree_and_list_choose_the_same_layer():
    models = FakeModels()
    made = opened(models=models)
    assert "Choose a layer" in made.weights.value
    assert made.figure_box.children == ()
    made.tree.selected = "classifier"
    made.settle()
    assert (made.selected, made.layer.value) == ("classifier", "classifier")
    assert "40.0 dB" in made.weights.value
    assert "weight_histogram(study, 1, &#x27;classifier&#x27;)" in made.under.value
    (figure,) = made.figure_box.children
    first = figure.figure
    made.theme = "dark"
    assert figure.figure != first
    made.layer.value = LAYERS[0]
    made.settle()
    assert made.tree.selected == LAYERS[0]
    assert [name for _, name in models.asked[-1][1]["layers"]] == [LAYERS[0]] * 2
    made.layer.value = ""
    made.settle()
    assert made.histogram is None
    assert made.figure_box.layout.display == "none"


def test_another_trial_keeps_the_layer_where_it_has_it():
    made = opened()
    made.selected = LAYERS[3]
    made.settle()
    made.choose.value = 2
    made.settle()
    # Trial 2 has one block only.
    assert made.selected == ""
    assert set(made.value["layer"]) == {name for name in LAYERS if ".1." not in name}
    made.selected = "classifier"
    made.number = 0
    made.settle()
    assert made.selected == "classifier"
    assert list(made.histogram.counts) == ["uncompressed"]


def test_weights_that_cannot_be_read_are_no_failure_of_the_rest():
    models = FakeModels()
    models.layers = lambda folder: {"layers": {n: {"macs": 1} for n in LAYERS}, "why": "It keeps them to itself."}
    made = opened(models=models)
    assert "It keeps them to itself." in made.told.value
    assert rows(made)["classifier"]["sparsity"] is None
    models.error = Refused("It keeps them to itself.", do="look at a trial of another runtime")
    made.selected = "classifier"
    made.settle()
    assert "another runtime" in made.panel.value
    assert made.value is not None


def test_a_profile_brings_time_by_layer_and_by_type():
    made = opened(profile=pd.DataFrame({"layer": LAYERS, "ms": [1.0, 2.0, 1.0, 2.0, 4.0], "share": [0.1] * 5}))
    assert rows(made)["classifier"]["ms_text"] == "4.00 ms"
    assert made.times.value.index("dense") < made.times.value.index("query")
    assert len(made.times_box.children) == 1
    made.profile = None
    assert made.times_box.layout.display == "none"
    made.profile = pd.DataFrame({"layer": LAYERS})
    assert "tells no times" in made.panel.value


def test_empty_states_say_what_to_do():
    assert "No measured trial yet" in LayerExplorer().told.value
    made = opened(None)
    assert "Choose a trial" in made.told.value
    assert (made.code, made.value) == ("None", None)
    assert made._below.layout.display == "none"


def test_another_study_takes_everything_of_the_first_away():
    made = opened()
    made.study = LookedAt("another")
    made.settle()
    assert made.number is None
    assert made.value is None
    made.number = 2
    made.settle()
    assert made.value is not None


@pytest.mark.parametrize("text", [EVIL, "</script><script>alert(1)</script>"])
def test_nothing_from_a_model_is_markup(text):
    made = opened(models=FakeModels(evil=text), study=LookedAt(evil=text))
    made.selected = f"classifier{text}"
    made.settle()
    page = made.told.value + made.weights.value + made.under.value + made.line.value
    assert "&lt;" in page
    assert text not in page
