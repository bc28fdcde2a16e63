"""The layer explorer without a browser: its code gives its value, and what cannot be shown says why."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from fake_models import LAYERS, FakeModels, LookedAt

from workbench.errors import Refused, TrialError
from workbench.reading import layer_table
from workbench.widgets.layer_explorer import LayerExplorer

EVIL = "<img src=x onerror=alert(1)>"


def opened(number=1, models=None, study=None, **kwargs):
    made = LayerExplorer(study or LookedAt(), number, models=models or FakeModels(), **kwargs)
    made.settle()
    return made


def raising(error):
    def work(*args, **kwargs):
        raise error

    return work


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
    told, box = made.values.told, made.values.boxes["weights"]
    assert "Choose a layer" in told["weights"].value
    assert box.children == ()
    made.tree.selected = "classifier"
    made.settle()
    assert (made.selected, made.layer.value) == ("classifier", "classifier")
    assert "40.0 dB" in told["weights"].value
    assert "weight_histogram(study, 1, &#x27;classifier&#x27;)" in made.values.under["weights"].value
    assert "activation_histogram(study, 1, &#x27;classifier&#x27;)" in made.values.under["activations"].value
    assert "Different values" in told["activations"].value
    assert "dB" not in told["activations"].value
    (figure,) = box.children
    first = figure.figure
    made.theme = "dark"
    assert figure.figure != first
    made.layer.value = LAYERS[0]
    made.settle()
    assert made.tree.selected == LAYERS[0]
    asked = {do: request for do, request in models.asked if "layers" in request}
    assert set(asked) == {"histogram", "activations"}
    assert all([name for _, name in request["layers"]] == [LAYERS[0]] * 2 for request in asked.values())
    assert len(asked["activations"]["texts"]) == 32
    made.layer.value = ""
    made.settle()
    assert made.values.found == {}
    assert box.layout.display == "none"


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
    assert list(made.values.found["weights"].counts) == ["uncompressed"]
    assert list(made.values.found["activations"].counts) == ["uncompressed"]


def test_weights_that_cannot_be_read_are_no_failure_of_the_rest():
    models = FakeModels()
    models.layers = lambda folder: {"layers": {n: {"macs": 1} for n in LAYERS}, "why": "It keeps them to itself."}
    made = opened(models=models)
    assert "It keeps them to itself." in made.told.value
    assert rows(made)["classifier"]["sparsity"] is None
    models.histogram = raising(Refused("It keeps them to itself.", do="look at a trial of another runtime"))
    made.selected = "classifier"
    made.settle()
    # One part that a runtime keeps to itself is said where it would stand, and hides no other.
    assert "another runtime" in made.values.told["weights"].value
    assert made.values.boxes["weights"].layout.display == "none"
    assert made.panel.value == ""
    assert made.value is not None
    models.histogram = raising(TrialError("The process that loads models ended."))
    made.selected = LAYERS[0]
    made.settle()
    assert "The process that loads models ended." in made.panel.value


def test_activations_of_what_a_technique_made_have_nothing_beside_them():
    models = FakeModels()
    made = opened(models=models)
    listed = models.layers
    models.layers = lambda folder: listed(folder) if not folder.endswith("0") else {"layers": {}, "why": ""}
    made.selected = LAYERS[0]
    made.settle()
    assert list(made.values.found["activations"].counts) == ["compressed"]
    assert "no layer that this one could be held against" in made.values.told["activations"].value


def test_a_profile_brings_time_by_layer_and_by_type():
    made = opened(profile=pd.DataFrame({"layer": LAYERS, "ms": [1.0, 2.0, 1.0, 2.0, 4.0], "share": [0.1] * 5}))
    assert rows(made)["classifier"]["ms_text"] == "4.00 ms"
    assert made.times.value.index("dense") < made.times.value.index("query")
    assert len(made.times_box.children) == 1
    made.profile = None
    assert made.times_box.layout.display == "none"
    made.profile = pd.DataFrame({"layer": LAYERS})
    assert "tells no times" in made.panel.value


def test_the_study_times_the_layers_on_a_click():
    made = opened()
    assert made.times_box.layout.display == "none"
    made.clock.button.click()
    made.settle()
    assert rows(made)["classifier"]["ms_text"] == "2.00 ms"
    # Of 15 ms in all; what is no layer counts as operators, not as layers.
    assert rows(made)["classifier"]["time_share"] == pytest.approx(2 / 15)
    assert "Softmax" in made.times.value
    assert made.clock.layout.display == "none"
    made.number = 2
    made.settle()
    assert made.times_box.layout.display == "none"
    assert made.clock.layout.display is None
    made.number = 1
    made.settle()
    assert made.times_box.layout.display is None


def test_the_latest_scan_stands_beside_each_layer():
    study = LookedAt(evil=EVIL)
    assert "score_text" in rows(opened(study=study))["classifier"]
    assert not opened(study=study).scan.value
    study.scanned_layers = dict.fromkeys(LAYERS, 0.01) | {"classifier": 0.04}
    made = opened(study=study)
    found = rows(made)
    assert (found["classifier"]["score_text"], found["classifier"]["score_share"]) == ("0.04", 1.0)
    assert found["encoder.layer.0"]["score_share"] == pytest.approx(0.25)
    assert "kl of static_int8&lt;img" in made.scan.value
    # A layer that stands elsewhere in the uncompressed model has the score that it has there.
    study.scanned_layers = {name.replace(".0.", ".1."): 0.5 for name in LAYERS[:2]}
    assert rows(opened(1, study=study))[LAYERS[0]]["score_text"] == ""


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
    page = made.told.value + made.line.value
    page += "".join(part.value for parts in (made.values.told, made.values.under) for part in parts.values())
    assert "&lt;" in page
    assert text not in page
