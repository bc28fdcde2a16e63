"""Scores agree with scikit-learn, intervals cover, flips count, and words say what one percent means."""

from __future__ import annotations

import base64
import json
import tracemalloc
import zlib

import numpy as np
import pytest

from workbench.errors import DataError, UnknownName
from workbench.measure import accuracy
from workbench.measure.accuracy import (
    METRICS,
    class_metrics,
    drop,
    flips,
    mcnemar,
    meaning,
    paired_proportions,
    relative,
    score,
)
from workbench.measure.outcomes import Outcomes


def outcomes(n: int, classes: int, right: float, seed: int) -> Outcomes:
    """Labels from a seed of their own, so that two calls of one size are paired; some answers wrong."""
    labels = np.random.default_rng(99).integers(0, classes, n)
    random = np.random.default_rng(seed)
    wrong = random.random(n) > right
    predictions = np.where(wrong, random.integers(0, classes, n), labels)
    return Outcomes(predictions, labels, random.random(n), classes)


def flipped(lost: int, gained: int, right: int, n: int) -> tuple[Outcomes, Outcomes]:
    """Two outcomes that differ by `lost` and `gained` right answers."""
    before = np.zeros(n, dtype=int)
    before[:right] = 1
    after = before.copy()
    after[:lost] = 0
    after[right : right + gained] = 1
    ones = np.ones(n, dtype=int)
    return Outcomes(before, ones), Outcomes(after, ones)


def sklearn_score(name: str, labels: np.ndarray, predictions: np.ndarray, classes: int) -> float:
    from sklearn import metrics as m

    average = "binary" if classes == 2 else "macro"
    by_name = {
        "accuracy": m.accuracy_score,
        "balanced_accuracy": m.balanced_accuracy_score,
        "f1": lambda t, p: m.f1_score(t, p, average=average, zero_division=0),
        "f1_macro": lambda t, p: m.f1_score(t, p, average="macro", zero_division=0),
        "matthews_correlation": m.matthews_corrcoef,
        "precision": lambda t, p: m.precision_score(t, p, average=average, zero_division=0),
        "recall": lambda t, p: m.recall_score(t, p, average=average, zero_division=0),
    }
    return float(by_name[name](labels, predictions))


@pytest.mark.parametrize("name", class_metrics())
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_scores_are_those_of_scikit_learn(name: str, classes: int) -> None:
    for seed in range(3):
        seen = outcomes(40, classes, 0.6, seed)
        estimate = score(name, seen.labels, seen.predictions, classes)
        expected = sklearn_score(name, seen.labels, seen.predictions, classes)
        assert estimate.value == pytest.approx(expected, abs=1e-12)
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.n == 40
        assert METRICS[name].higher_is_better


@pytest.mark.parametrize("name", class_metrics())
def test_undefined_quotients_are_zero(name: str) -> None:
    """All labels and all predictions of different classes: nothing right, nothing to divide by."""
    seen = Outcomes(np.zeros(5, dtype=int), np.ones(5, dtype=int))
    assert score(name, seen.labels, seen.predictions).value == 0


def test_absent_classes_do_not_count_in_a_mean() -> None:
    assert score("f1_macro", [0, 0, 1], [0, 0, 1], classes=5).value == 1.0
    assert score("f1", [0, 0, 1], [0, 0, 1], classes=5).value == 1.0


def test_the_bootstrap_over_counts_is_the_bootstrap_over_examples() -> None:
    """Against scipy's bootstrap of paired examples with scikit-learn's metric."""
    from scipy import stats
    from sklearn.metrics import f1_score

    before, after = outcomes(120, 2, 0.9, 1), outcomes(120, 2, 0.8, 2)

    def statistic(index: np.ndarray) -> float:
        labels = before.labels[index]
        return float(f1_score(labels, before.predictions[index]) - f1_score(labels, after.predictions[index]))

    theirs = stats.bootstrap(
        (np.arange(120),),
        statistic,
        vectorized=False,
        method="percentile",
        n_resamples=600,
        rng=np.random.default_rng(0),
    ).confidence_interval
    ours = drop(before, after, "f1")
    width = theirs.high - theirs.low
    assert ours.value == pytest.approx(statistic(np.arange(120)))
    assert ours.low == pytest.approx(theirs.low, abs=0.12 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.12 * width)


@pytest.mark.parametrize("name", class_metrics())
def test_drop_is_the_difference_and_positive_is_worse(name: str) -> None:
    better, worse = outcomes(300, 3, 0.9, 1), outcomes(300, 3, 0.6, 2)
    estimate = drop(better, worse, name)
    apart = (
        score(name, better.labels, better.predictions, 3).value - score(name, worse.labels, worse.predictions, 3).value
    )
    assert estimate.value == pytest.approx(apart, abs=1e-12)
    assert 0 < estimate.low < estimate.value < estimate.high
    back = drop(worse, better, name)
    assert back.value == pytest.approx(-estimate.value, abs=1e-12)
    assert back.high < 0


def test_no_flip_leaves_doubt() -> None:
    same, _ = flipped(0, 0, 784, 872)
    estimate = drop(same, same)
    assert estimate.value == 0
    # z √2 / 874: two pseudo-flips among 874.
    assert estimate.high == pytest.approx(1.959964 * 2**0.5 / 874, rel=1e-5)
    assert estimate.low == -estimate.high


def test_interval_as_published() -> None:
    """Bonett & Price's adjusted interval by hand: n = 50, 10 lost, 3 gained."""
    estimate = paired_proportions(10, 3, 50)
    lost, gained = 11 / 52, 4 / 52
    half = 1.959964 * ((lost + gained - (lost - gained) ** 2) / 52) ** 0.5
    assert estimate.value == pytest.approx(0.14)
    assert (estimate.low, estimate.high) == (pytest.approx(lost - gained - half), pytest.approx(lost - gained + half))
    assert paired_proportions(10, 0, 10).high == 1.0


@pytest.mark.parametrize(
    ("lost", "gained", "n", "least"),
    # The last is hard: with all discordance on one side, coverage lies a little under 95 %.
    [(0.01, 0.01, 872, 0.945), (0.03, 0.01, 200, 0.945), (0.001, 0.001, 872, 0.99), (0.1, 0.0, 100, 0.925)],
)
def test_paired_interval_covers(lost: float, gained: float, n: int, least: float) -> None:
    draws = np.random.default_rng(5).multinomial(n, [lost, gained, 1 - lost - gained], size=4000)
    estimates = [paired_proportions(int(a), int(b), n) for a, b, _ in draws]
    assert np.mean([e.low <= lost - gained <= e.high for e in estimates]) >= least


def test_paired_interval_is_narrower_than_an_unpaired_one() -> None:
    before, after = flipped(4, 8, 784, 872)
    alone = accuracy.score_of("accuracy", before)
    assert drop(before, after).half_width < 0.5 * alone.half_width


def test_flips() -> None:
    before, after = flipped(5, 3, 784, 872)
    assert flips(before, after) == (5, 3)
    assert flips(after, before) == (3, 5)
    assert drop(before, after).value == pytest.approx(2 / 872)


def test_different_examples_are_refused() -> None:
    with pytest.raises(DataError, match="not of the same examples"):
        flips(outcomes(20, 2, 0.5, 0), outcomes(21, 2, 0.5, 0))
    with pytest.raises(DataError, match="not of the same examples"):
        drop(Outcomes(np.array([0, 1]), np.array([0, 1])), Outcomes(np.array([0, 1]), np.array([1, 0])), "f1")


def test_mcnemar_is_the_exact_binomial() -> None:
    from scipy.stats import binomtest

    for lost, gained in [(0, 0), (5, 0), (8, 3), (3, 8), (4, 4), (3000, 2800)]:
        expected = binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
        assert mcnemar(lost, gained) == pytest.approx(expected, rel=1e-9)


def test_relative_drop() -> None:
    absolute = paired_proportions(7, 0, 872)
    share = relative(absolute, 784 / 872)
    assert share.value == pytest.approx(7 / 784)
    assert share.low == pytest.approx(absolute.low * 872 / 784)
    for baseline in (0.0, -0.2, float("nan")):
        with pytest.raises(DataError, match="undefined"):
            relative(absolute, baseline)


def test_what_one_percent_means() -> None:
    text = meaning(784, 872)
    assert text.startswith("1 % of the 784 right among 872 examples is 7 net flips")
    assert "One flip is 0.11 pt" in text
    assert meaning(784, 872, absolute=True).startswith("1 % of 872 examples is 8 net flips")
    assert "is 1 net flip (" in meaning(90, 100, 0.012)
    assert accuracy.allowed_flips(100, 100, 0.29) == 29
    assert accuracy.allowed_flips(50, 60) == 0


def test_unknown_metric_has_near_misses() -> None:
    with pytest.raises(UnknownName, match="no metric 'acuracy', did you mean 'accuracy'") as caught:
        score("acuracy", [0, 1], [0, 1])
    assert "matthews_correlation" in caught.value.allowed
    with pytest.raises(UnknownName):
        drop(outcomes(9, 2, 1, 0), outcomes(9, 2, 1, 0), "mcc")


def test_hundreds_of_classes() -> None:
    before, after = outcomes(3000, 150, 0.8, 1), outcomes(3000, 150, 0.7, 2)
    assert drop(before, after, "f1_macro").low > 0


@pytest.mark.parametrize("confident", [True, False])
def test_outcomes_come_back_from_json(confident: bool) -> None:
    made = outcomes(872, 3, 0.9, 1)
    made = made if confident else Outcomes(made.predictions, made.labels, classes=4)
    data = json.loads(json.dumps(made.to_json(), allow_nan=False))
    back = Outcomes.from_json(data)
    assert back == made
    assert back.classes == (3 if confident else 4)
    assert np.array_equal(back.predictions, made.predictions)
    assert (back.confidences is None) or np.array_equal(back.confidences, made.confidences)
    assert back != Outcomes(made.labels, made.labels)


def test_outcomes_are_compact() -> None:
    assert len(json.dumps(outcomes(10_000, 2, 0.9, 1).to_json())) < 40_000


@pytest.mark.parametrize(
    ("predictions", "labels", "confidences", "message"),
    [
        ([], [], None, "at least one"),
        ([0, 1], [0], None, "do not fit"),
        ([0.0, 1.0], [0, 1], None, "not class indices"),
        ([0, -1], [0, 1], None, "not class indices"),
        ([0, 1], [0, 1], [0.5], "confidences"),
        ([0, 1], [0, 1], [0.5, 1.5], "confidences"),
        ([0, 1], [0, 1], [0.5, float("nan")], "NaN for 1 of 2 examples"),
    ],
)
def test_bad_outcomes(predictions: list, labels: list, confidences: list | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Outcomes(np.array(predictions), np.array(labels), None if confidences is None else np.array(confidences))


@pytest.mark.parametrize("damage", ["!!", "AAAA", ""])
def test_damaged_outcomes(damage: str) -> None:
    data = outcomes(10, 2, 0.9, 1).to_json() | {"labels": damage}
    with pytest.raises(DataError, match="damaged"):
        Outcomes.from_json(data)


def test_no_more_is_decompressed_than_was_promised() -> None:
    bomb = base64.b64encode(zlib.compress(bytes(30_000_000))).decode()
    data = outcomes(10, 2, 0.9, 1).to_json() | {"labels": bomb, "confidences": None}
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="not 10 of them"):
            Outcomes.from_json(data)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


def test_outcomes_do_not_change() -> None:
    given = np.array([0, 1, 1])
    made = Outcomes(given, given)
    given[0] = 1
    assert made.predictions[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        made.labels[0] = 1
