"""The sensitivity map without a browser: rows come, stop and go on; what is chosen is sent on; the law holds."""

from __future__ import annotations

import json
import time

import pandas as pd
import pytest
from fake_scans import LAYERS, ScannedStudy

import workbench
from workbench.errors import UserError
from workbench.plots.scans import draw, most_sensitive, scan_table, score_text, views
from workbench.registry import classes
from workbench.running import look
from workbench.running.scans import call
from workbench.sensitivity.histogram import Distribution
from workbench.sensitivity.scan import order
from workbench.widgets.scan_form import ScanForm, offered
from workbench.widgets.sensitivity_map import SensitivityMap

EVIL = "<img src=x onerror=alert(1)>"


def until(happened):
    end = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def opened(study=None):
    made = SensitivityMap(study or ScannedStudy(), seconds=0.02)
    made.settle()
    return made


def scanned(study=None):
    made = opened(study)
    made.buttons["scan"].click()
    made.settle()
    return made


def evaluate(code, **names):
    return eval(code, {**classes(), "Recipe": workbench.Recipe, **names})  # noqa: S307 - the law


def test_code_gives_the_value_and_before_a_scan_the_call_of_the_button():
    made = opened()
    found = evaluate(made.code, study=ScannedStudy())
    made.buttons["scan"].click()
    made.settle()
    assert made.code == "study.scan('static_int8', 'kl', 'only', samples=64)"
    pd.testing.assert_frame_equal(evaluate(made.code, study=made.study), made.value)
    pd.testing.assert_frame_equal(found, made.value)


def test_a_call_says_all_that_differs():
    given = order(workbench.Prune(score="magnitude"), "nmse", "only", ["classifier"], knobs={"sparsity": (0.3, 0.5)},
                  samples=8, keep=("a",))  # fmt: skip
    again = evaluate(call(given).replace("study.scan(", "order("), order=order)
    assert again.to_json() == given.to_json()


def test_rows_come_stop_and_go_on():
    study = ScannedStudy(turns=2)
    made = opened(study)
    made.buttons["scan"].click()
    until(lambda: made.value is not None and len(made.value) == 2)
    until(lambda: "1 of 4 layers" in made.line.value)
    assert made.bar.value == 0.25
    assert made.code == f"study.scanned('{made.shown}')"
    assert (made.buttons["stop"].disabled, made.buttons["resume"].disabled) == (False, True)
    # Twice is once.
    made.buttons["scan"].click()
    made.buttons["stop"].click()
    until(lambda: study.orders[made.shown]["state"] == "stopped")
    made.settle()
    assert len(made.value) == 2
    assert "order it again" in made.ended.value
    assert not made.buttons["resume"].disabled
    study.give(9)
    made.buttons["resume"].click()
    made.settle()
    assert len(made.value) == len(LAYERS)
    assert made.panel.value == ""
    assert "done" in made.which.label
    assert made.line.value == made.ended.value == ""
    assert (made.buttons["stop"].disabled, made.buttons["resume"].disabled) == (True, True)


def test_layers_are_chosen_in_the_figure_in_the_list_and_by_rank():
    made, sent = scanned(), []
    made.use_keep = sent.append
    assert made.keep.disabled
    (figure,) = made.figure_box.children
    figure.clicked = {"trial": LAYERS[1], "at": 1}
    assert made.selected == (LAYERS[1],)
    assert made.layers.value == (LAYERS[1],)
    assert json.loads(figure.figure)["data"][0]["marker"]["pattern"]["shape"] == ["", "/", ""]
    figure.clicked = {"trial": LAYERS[1], "at": 2}
    assert made.selected == ()
    made.layers.value = (LAYERS[0],)
    assert made.selected == (LAYERS[0],)
    made.count.value = 2
    made.pick.click()
    # What is no number ranks first.
    assert set(made.selected) == {LAYERS[2], LAYERS[0]}
    made.keep.click()
    assert sent == [made.selected]
    assert "2 layers sent" in made.said.value
    made.clear.click()
    assert made.selected == ()
    figure.chosen = {"trials": [LAYERS[1], LAYERS[3], "no layer"], "at": 3}
    assert made.selected == (LAYERS[1], LAYERS[3])
    made.selected = ()
    figure.clicked = {"trial": "no layer", "at": 3}
    assert made.selected == ()


def test_a_refused_keep_is_told():
    made = scanned()

    def refuse(layers):
        raise UserError(f"No {EVIL}.", do="nothing")

    made.use_keep, made.selected = refuse, (LAYERS[0],)
    made.keep.click()
    assert "&lt;img" in made.panel.value
    assert "sent" not in made.said.value


def test_every_view_of_a_scan():
    made = scanned()
    assert [key for _, key in made.view.options] == ["bars", "heat", "value", "histograms"]
    figures = {made.figure_box.children[0].figure}
    made.view.value = "heat"
    figures.add(made.figure_box.children[0].figure)
    made.view.value = "value"
    assert "not been timed" in made.about.value
    assert made.figure_box.layout.display == "none"
    made.times.measure.click()
    made.settle()
    assert made.figure_box.layout.display is None
    figures.add(made.figure_box.children[0].figure)
    pair = evaluate(made.times.code, study=made.study)
    pd.testing.assert_frame_equal(pair[1], made.times.value[1])
    made.theme = "dark"
    figures.add(made.figure_box.children[0].figure)
    assert len(figures) == 4
    assert list(made.times.worth(made.value)["saved_ms"]) == [3.0] * 4


def test_pruning_curves():
    made = opened()
    assert made.form.curves.layout.display == "none"
    made.form.technique.value, made.form.curves.value = "prune", True
    made.buttons["scan"].click()
    made.settle()
    assert len(made.value) == 4 * len(LAYERS)
    assert [key for _, key in made.view.options] == ["lines", "grid", "heat"]
    for view in ("grid", "lines"):
        made.view.value = view
        assert made.figure_box.layout.display is None
    made.view.value = "heat"
    assert "No finished scan" in made.about.value
    made.count.value = 1
    made.pick.click()
    assert made.selected == (LAYERS[3],)


def test_histograms_are_of_the_chosen_layer(monkeypatch):
    import numpy as np

    asked = []

    def ask(question, **given):
        asked.append((question, given["layer"], given["technique"]["name"]))
        ends = np.array([-1.0, 1.0])
        one = Distribution(given["layer"], "weight", np.linspace(-1, 1, 4), np.ones(3), ends, ends, ends)
        return {"found": [one.to_json()]}

    monkeypatch.setattr(look, "ask", ask)
    made = scanned()
    made.view.value = "histograms"
    assert "Choose a layer" in made.about.value
    made.selected = (LAYERS[0],)
    made.settle()
    assert asked == [("distributions", LAYERS[0], "static_int8")]
    assert "histograms(study.task, StaticInt8(" in made.about.value
    assert made.figure_box.layout.display is None


def test_empty_states_and_another_study():
    made = SensitivityMap(seconds=0.02)
    assert "Open a study" in made.empty.value
    assert made.buttons["scan"].disabled
    made._clicked(made.scan)
    assert "No study is open" in made.panel.value
    made.study = ScannedStudy("one")
    made.settle()
    assert "No scan yet" in made.empty.value
    made.buttons["scan"].click()
    made.settle()
    made.selected = (LAYERS[0],)
    made.study = ScannedStudy("two")
    made.settle()
    assert (made.value, made.selected, made.shown, len(made.which.options)) == (None, (), "", 1)
    made.study = None
    assert "Open a study" in made.empty.value


def test_a_new_kernel_shows_the_newest_scan():
    study = ScannedStudy()
    study.scan("prune", "nmse", samples=8)
    study.scan("static_int8", "kl", samples=8)
    made = opened(study)
    assert "static_int8" in made.which.label
    made.which.value = made.which.options[1][1]
    assert made.value.attrs["order"]["technique"]["name"] == "prune"


@pytest.mark.parametrize("text", [EVIL, "</script><script>alert(1)</script>"])
def test_nothing_from_a_model_is_markup(text):
    made = scanned(ScannedStudy(evil=text))
    made.selected = (LAYERS[0] + text,)
    figure = json.loads(made.figure_box.children[0].figure)
    assert text not in json.dumps([trace.get("hovertext") for trace in figure["data"]])
    assert text not in json.dumps([trace.get("y") for trace in figure["data"]])
    assert "&lt;" in made.rows.value
    assert text not in made.rows.value + made.line.value + made.about.value + made.said.value + made.empty.value


def test_plain_parts():
    assert score_text(0.01234, 0.01, 0.02) == "0.0123 [0.01, 0.02]"
    assert score_text(float("nan"), 0.0, 0.0) == "no number"
    assert score_text(-0.5, -0.5, -0.5) == "−0.5"
    assert views(None) == []
    assert "static_int8" in offered()
    assert "distil" not in offered()
    scan = ScannedStudy().scan()
    assert most_sensitive(scan, 1) == [LAYERS[2]]
    assert list(scan_table(scan)["Note"])[2] == "the score is no number"
    assert draw("bars", scan, keep=[LAYERS[0]]).data[0].marker.pattern.shape[0] == "/"
    form = ScanForm()
    assert evaluate(form.code.replace("study.scan(", "order("), order=order) == form.value
