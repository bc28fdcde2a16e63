"""Trials side by side: what flipped and by how much, what differs, and the numbers, against plain formulas."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from fake_models import EXAMPLES, FakeModels, LookedAt

import workbench
from workbench.comparison import (
    Answered,
    changed,
    compare,
    confusion,
    kept,
    layer_delta,
    paired,
    ratio,
    recipe_difference,
    window_shifts,
)
from workbench.errors import DataError, UserError
from workbench.measure.estimate import Estimate
from workbench.measure.windows import Windows
from workbench.plots.comparison import confusion_html, flips_html, flips_table, numbers_table, summary
from workbench.plots.download import csv_text
from workbench.recipe import Recipe

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture
def study():
    return LookedAt()


def test_flip_list_is_sorted_by_confidence_shift(study):
    done = compare(study, [0, 1], models=FakeModels())
    flips = done.flips(1)
    # 3: 0.8 -> 0.9 in the other answer, so the probability rose by 0.9 - 0.2.
    assert flips["example"].tolist() == [3, 7, 10]
    np.testing.assert_allclose(flips["shift"], [0.7, 0.55, 0.4])
    assert flips["change"].tolist() == ["lost", "lost", "gained"]
    assert flips["text"].tolist() == ["text 3", "text 7", "text 10"]
    assert flips.loc[0, ["label", "was", "now"]].tolist() == ["positive", "positive", "negative"]
    assert (flips["change"] == "lost").sum() == study.trials[1].measurement.flips_lost


@pytest.mark.parametrize(("p", "q"), [(0.4, 0.4), (0.5, 0.34), (0.9, 0.35), (0.34, 0.9)])
def test_shift_never_claims_more_than_happened(p, q):
    """Of three classes: whatever the unseen probabilities were, some probability moved by at least the shift."""
    frame = changed(
        Answered(np.array([0]), np.array([p])), Answered(np.array([1]), np.array([q])), names=("a", "b", "c")
    )
    shift = frame.loc[0, "shift"]
    for b_before in np.linspace(max(0, 1 - 2 * p), min(p, 1 - p), 5):
        for a_after in np.linspace(max(0, 1 - 2 * q), min(q, 1 - q), 5):
            assert max(q - b_before, p - a_after) >= shift - 1e-9
    assert shift >= 0


def test_two_classes_have_the_exact_shift():
    frame = changed(Answered(np.array([0]), np.array([0.7])), Answered(np.array([1]), np.array([0.95])))
    assert frame.loc[0, "shift"] == pytest.approx(0.95 - 0.3)


def test_works_without_labels_and_confidences():
    frame = changed(Answered(np.array([0, 1, 1])), Answered(np.array([0, 0, 1])), [("a",), ("b", "c"), ("d",)])
    assert frame[["text", "was", "now", "label", "change"]].values.tolist() == [["b ⏐ c", "1", "0", "", "changed"]]
    assert math.isnan(frame.loc[0, "shift"])
    assert "Label" not in flips_table(frame)
    with pytest.raises(DataError, match="not of the same examples"):
        changed(Answered(np.array([0])), Answered(np.array([0, 1])))


def test_own_texts_need_no_labels(study):
    models = FakeModels()
    done = compare(study, [0, 1], ["good", "a long good one", "bad, but long"], models=models)
    assert not done.labelled
    assert done.flips(1)["text"].tolist() == ["good", "bad, but long"]
    assert "no labels" in summary(done, 1)
    assert done.confusion(1).to_numpy().tolist() == [[0, 1], [1, 1]]
    assert [do for do, _ in models.asked] == ["answer", "answer"]


def test_confusion_counts_what_scikit_learn_counts(study):
    from sklearn.metrics import confusion_matrix

    found = study.trials[2].measurement.outcomes
    mine = kept(study, [0, 2]).confusion(2)
    assert mine.index.tolist() == mine.columns.tolist() == ["negative", "positive"]
    np.testing.assert_array_equal(mine, confusion_matrix(found.labels, found.predictions))
    assert confusion(np.array([0, 0, 2]), np.array([1, 1, 2]), "abc").loc["a", "b"] == 2


def test_pair_is_against_the_reference_not_the_baseline(study):
    pair = paired(study.trials[1], study.trials[2])
    # Trial 2 lost 4, 5 and gained back 7, lost what 1 gained in 10; it gained 20.
    assert (pair.lost, pair.gained) == (3, 2)
    assert pair.drop.value == pytest.approx(1 / EXAMPLES)
    assert pair.speed.value == pytest.approx(3 / 2)
    other = workbench.Trial(9, study.trials[0].recipe, "failed")
    assert paired(study.trials[0], other).drop is None


def test_ratio_of_speeds_is_wider_than_either():
    top, bottom = Estimate(4.0, 3.6, 4.4, 9, "×"), Estimate(2.0, 1.9, 2.1, 9, "×")
    found = ratio(top, bottom)
    half = math.hypot(math.log(4.4 / 4), math.log(2 / 1.9))
    assert found.high == pytest.approx(2 * math.exp(half))
    assert found.low < 2 < found.high
    # The uncompressed model is one time itself: its A/A run is noise, not a speed.
    alone = ratio(top, Estimate(0.9, 0.8, 1.0, 9, "×"), base=True)
    assert (alone.value, alone.low, alone.high) == pytest.approx((4.0, 3.6, 4.4))
    assert ratio(None, top) is None


def test_recipe_difference_names_what_is_not_the_same():
    one = Recipe(workbench.StaticInt8(samples=100), backend=workbench.OpenVINO(shapes="fixed"), keep=("classifier",))
    two = Recipe(workbench.DropLayers(count=3), workbench.StaticInt8(), backend=workbench.OpenVINO(shapes="fixed"))
    frame = recipe_difference([one, two], ["#1", "#2"]).set_index("setting")
    assert frame.loc["techniques"].tolist() == ["static_int8", "drop_layers → static_int8"]
    assert frame.loc["static_int8.samples"].tolist() == ["100", "300"]
    assert frame.loc["keep"].tolist() == ["classifier", "none"]
    assert frame.loc["drop_layers.count"].tolist() == ["–", "3"]
    assert not [name for name in frame.index if name.startswith("openvino.")]
    assert recipe_difference([one, one], ["a", "b"]).empty


def test_language_models_are_compared_by_window():
    def windows(losses):
        return Windows(np.array(losses), np.array([2, 4]), np.zeros(6, dtype=bool), "text")

    frame = window_shifts(windows([2.0, 4.0]), windows([2.2, 2.0]), [("a",), ("b",)])
    assert frame["text"].tolist() == ["b", "a"]
    np.testing.assert_allclose(frame["shift"], [-0.5, 0.1], rtol=1e-5)
    assert flips_table(frame)["Loss per token moved"].tolist() == ["−0.500 nats", "+0.100 nats"]


def test_milliseconds_by_layer():
    before = pd.DataFrame({"layer": ["a", "b", "c"], "ms": [1.0, 2.0, 0.5]})
    after = pd.DataFrame({"layer": ["a", "b"], "ms": [0.9, 0.5]})
    frame = layer_delta(before, after)
    assert frame["layer"].tolist() == ["b", "c", "a"]
    np.testing.assert_allclose(frame["delta"], [-1.5, -0.5, -0.1])
    # Operators that are no layer are one row, however many there are.
    rest = pd.DataFrame({"layer": ["", "", "a"], "ms": [1.0, 2.0, 1.0]})
    assert layer_delta(rest, rest)[["layer", "was", "now"]].values.tolist() == [["everything else", 3, 3], ["a", 1, 1]]


def test_numbers_are_those_of_the_trials(study):
    done = kept(study, [1, 2])
    frame = numbers_table(done).set_index("")
    assert list(frame.columns) == ["#1 (reference)", "#2"]
    assert frame.loc["Change against #1"].tolist() == ["", str(Estimate.from_json(_points(done)))]
    assert frame.loc["Speed against #1", "#2"].startswith("1.50×")
    assert frame.loc["Score", "#1 (reference)"].startswith("87.50 %")
    assert frame.loc["Flips against #1", "#2"].startswith("−3 / +2")


def _points(done):
    drop = done.pair(2).drop
    return {"value": -100 * drop.value, "low": -100 * drop.high, "high": -100 * drop.low, "n": 40, "unit": "pt"}


def test_nothing_from_models_or_data_is_markup(study):
    evil = LookedAt(evil=EVIL)
    done = compare(evil, [0, 1], models=FakeModels(evil=EVIL))
    for page in (flips_html(done.flips(1), 10), confusion_html(done.confusion(1), EVIL, EVIL)):
        assert "&lt;img" in page
        assert "<img" not in page


def test_a_spreadsheet_runs_nothing():
    assert (
        csv_text(pd.DataFrame({"text": ["=HYPERLINK(1)", "fine"], "n": [-1, 2]})).splitlines()[1] == "'=HYPERLINK(1),-1"
    )


@pytest.mark.parametrize("numbers", [[0], [1, 1], []])
def test_one_trial_is_no_comparison(study, numbers):
    with pytest.raises(UserError, match="no comparison"):
        compare(study, numbers)


def test_equal_comparisons_are_equal(study):
    one, two = (compare(study, [0, 1], models=FakeModels()) for _ in range(2))
    assert one == two
    assert one != compare(study, [0, 2], models=FakeModels())
    assert one != compare(study, [0, 1], ["other texts"], models=FakeModels())


def test_marks_in_a_flip_list_are_markup(study):
    page = flips_html(compare(study, [0, 1], models=FakeModels()).flips(1), 10)
    assert page.count('<span class="wb-lost">▼ was right, is wrong</span>') == 2
