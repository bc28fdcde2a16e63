"""Scores, paired drops and flips, from per-example outcomes.

Every metric here is a formula of the answers counted by class, so that a bootstrap over examples is a multinomial
draw of counts: exact, seeded, and fast for any number of examples. A drop of accuracy has the adjusted Wald interval of
Bonett and Price (2012) for paired proportions, which does not collapse to a point when nothing flips; other
metrics have the paired bootstrap. Definitions follow scikit-learn (0 where a quotient is undefined).
Perplexity is a formula of the losses of a language model's windows, with the same bootstrap over windows.
Left out: metrics of the confidences (ROC AUC, log loss), of real-valued targets, and multi-label tasks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from workbench.errors import DataError
from workbench.measure.estimate import Estimate, Statistic, Z, proportion, scaled, with_percentiles
from workbench.measure.outcomes import Outcomes
from workbench.measure.windows import Windows
from workbench.registry import unknown

RESAMPLES = 2000

#: What a model answered, whatever the kind of task.
Answers = Outcomes | Windows

#: (right, true, predicted) answers by class, each (…, classes), to scores (…).
Formula = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Metric:
    """A score as a formula of the answers counted by class, and what a person should know of it.

    Without a `formula` it is a score of a language model's windows.
    """

    formula: Formula | None
    help: str
    higher_is_better: bool = True
    unit: str = "fraction"


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.zeros(np.shape(top)), where=bottom > 0)


def _accuracy(right: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return _ratio(right.sum(axis=-1), true.sum(axis=-1))


def _recall(right: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return _ratio(right, true)


def _precision(right: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return _ratio(right, predicted)


def _f1(right: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return _ratio(2 * right, true + predicted)


def _macro(by_class: Formula) -> Formula:
    """The mean over the classes that occur among labels or predictions."""

    def formula(right: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        return _ratio(by_class(right, true, predicted).sum(axis=-1), (true + predicted > 0).sum(axis=-1))

    return formula


def _binary_or_macro(by_class: Formula) -> Formula:
    """Class 1's value for two classes, the macro mean for more."""

    def formula(right: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        binary = right.shape[-1] == 2
        return by_class(right, true, predicted)[..., 1] if binary else _macro(by_class)(right, true, predicted)

    return formula


def _balanced_accuracy(right: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return _ratio(_ratio(right, true).sum(axis=-1), (true > 0).sum(axis=-1))


def _matthews_correlation(right: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    # Gorodkin 2004: the covariance of the true and the predicted class over the root of their variances.
    n = true.sum(axis=-1)
    covariance = right.sum(axis=-1) * n - (true * predicted).sum(axis=-1)
    variances = (n**2 - (true**2).sum(axis=-1)) * (n**2 - (predicted**2).sum(axis=-1))
    return _ratio(covariance, np.sqrt(variances))


METRICS: dict[str, Metric] = {
    "accuracy": Metric(_accuracy, "share of right answers"),
    "balanced_accuracy": Metric(_balanced_accuracy, "mean recall of the classes"),
    "f1": Metric(_binary_or_macro(_f1), "F1 of class 1 for two classes, the mean over the classes for more"),
    "f1_macro": Metric(_macro(_f1), "mean F1 of the classes"),
    "matthews_correlation": Metric(
        _matthews_correlation, "correlation of true and predicted class", unit="correlation"
    ),
    "perplexity": Metric(
        None, "exponential of a language model's mean loss per token", higher_is_better=False, unit=""
    ),
    "precision": Metric(_binary_or_macro(_precision), "precision of class 1 for two classes, else their mean"),
    "recall": Metric(_binary_or_macro(_recall), "recall of class 1 for two classes, else their mean"),
}


def metric(name: str) -> Metric:
    """The metric called `name`; raises `UnknownName` with near misses."""
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    return METRICS[name]


def class_metrics() -> list[str]:
    """Names of the metrics of classifiers."""
    return [name for name, one in METRICS.items() if one.formula is not None]


def class_metric(name: str) -> Metric:
    """The classifier's metric called `name`; raises `UnknownName` with near misses."""
    if name not in class_metrics():
        raise unknown("metric of a classifier", name, class_metrics())
    return METRICS[name]


def perplexity(windows: Windows) -> Estimate:
    """exp(loss per token) with the bootstrap over windows, which are taken to be drawn independently."""
    return _resampled(lambda draw: _perplexity(draw, windows), np.ones(len(windows), dtype=np.int64), "")


def _perplexity(draw: np.ndarray, windows: Windows) -> np.ndarray:
    """Perplexities (rows,) of windows of which `draw` (rows, windows) says how often each is taken."""
    losses, tokens = windows.losses.astype(np.float64), windows.tokens.astype(np.float64)
    return np.exp((draw @ losses) / (draw @ tokens))


def score(
    name: str, labels: Sequence[int] | np.ndarray, predictions: Sequence[int] | np.ndarray, classes: int = 2
) -> Estimate:
    """The score on labels and predictions, class indices of shape (examples,), with its 95 % interval.

    `classes` is the least number of classes; larger indices raise it. Accuracy has Wilson's interval, other metrics
    the bootstrap over examples. Raises `UnknownName` and `DataError` (empty, or of different lengths).
    """
    return score_of(name, Outcomes(np.asarray(predictions), np.asarray(labels), classes=classes))


def score_of(name: str, outcomes: Answers) -> Estimate:
    """`score` of outcomes, or the perplexity of windows."""
    wanted = metric(name)
    _check_kind(name, outcomes)
    if isinstance(outcomes, Windows):
        return perplexity(outcomes)
    if name == "accuracy":
        return proportion(outcomes.correct, len(outcomes))
    cells, counts = np.unique(np.stack([outcomes.labels, outcomes.predictions]), axis=1, return_counts=True)
    return _resampled(lambda draw: _scores(wanted, draw, cells[0], cells[1], outcomes.classes), counts, wanted.unit)


def drop(baseline: Answers, candidate: Answers, name: str = "accuracy") -> Estimate:
    """How much worse the candidate is than the baseline on the same examples; negative where it is better.

    In the unit of the metric (0.01 is one percentage point), with a paired 95 % interval. Raises `DataError` where
    the two did not see the same examples.
    """
    wanted = metric(name)
    check_paired(baseline, candidate)
    _check_kind(name, baseline)
    sign = 1.0 if wanted.higher_is_better else -1.0
    if isinstance(baseline, Windows) and isinstance(candidate, Windows):
        was, now = baseline, candidate
        each = np.ones(len(was), dtype=np.int64)
        return _resampled(lambda draw: sign * (_perplexity(draw, was) - _perplexity(draw, now)), each, wanted.unit)
    assert isinstance(baseline, Outcomes)  # both are of one kind: they pair
    assert isinstance(candidate, Outcomes)
    if name == "accuracy":
        lost, gained = flips(baseline, candidate)
        return paired_proportions(lost, gained, len(baseline))
    classes = max(baseline.classes, candidate.classes)
    answers = np.stack([baseline.labels, baseline.predictions, candidate.predictions])
    (labels, before, after), counts = np.unique(answers, axis=1, return_counts=True)

    def difference(draw: np.ndarray) -> np.ndarray:
        was, became = (_scores(wanted, draw, labels, answer, classes) for answer in (before, after))
        return sign * (was - became)

    return _resampled(difference, counts, wanted.unit)


def relative(absolute: Estimate, baseline: float) -> Estimate:
    """A drop as a share of the baseline's score, which is taken as known.

    Raises `DataError` where that score is not above 0, because a share of nothing says nothing.
    """
    if not baseline > 0:
        raise DataError(
            f"The baseline scores {baseline:g}, so a drop relative to it is undefined.",
            allowed="a baseline score above 0",
            do="state the allowed drop in absolute terms, or check that labels and model fit each other",
        )
    return scaled(absolute, 1 / baseline, "fraction")


def flips(baseline: Answers, candidate: Answers) -> tuple[int, int]:
    """(lost, gained): examples that only the baseline gets right, and that only the candidate gets right.

    Of windows it counts tokens: right is the next token that is the most likely one.
    """
    check_paired(baseline, candidate)
    before, after = baseline.right, candidate.right
    return int((before & ~after).sum()), int((~before & after).sum())


def check_paired(baseline: Answers, candidate: Answers) -> None:
    """Raise `DataError` unless both are outcomes of the same examples in the same order."""
    if not baseline.pairs_with(candidate):
        raise DataError(
            f"The two measurements are not of the same examples ({len(baseline)} and {len(candidate)} of them).",
            do="measure both on the same split, in the same order",
        )


def _check_kind(name: str, outcomes: Answers) -> None:
    """Raise `DataError` where a metric is asked of outcomes that it is not defined on."""
    if isinstance(outcomes, Windows) == (METRICS[name].formula is not None):
        raise DataError(
            f"{name} cannot be computed from {'windows of tokens' if isinstance(outcomes, Windows) else 'classes'}.",
            allowed="perplexity" if isinstance(outcomes, Windows) else ", ".join(class_metrics()),
        )


def paired_proportions(lost: int, gained: int, n: int) -> Estimate:
    """(lost - gained) / n with the adjusted Wald interval, which keeps its width at zero flips.

    Source: D. G. Bonett and R. M. Price, "Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data", J. Educational and Behavioral Statistics 37(4), 2012.
    """
    p_lost, p_gained = (lost + 1) / (n + 2), (gained + 1) / (n + 2)
    centre = p_lost - p_gained
    half = Z * math.sqrt((p_lost + p_gained - centre**2) / (n + 2))
    return Estimate((lost - gained) / n, max(-1.0, centre - half), min(1.0, centre + half), n, "fraction")


def mcnemar(lost: int, gained: int) -> float:
    """Exact two-sided p-value that flips either way are equally likely (McNemar 1947); 1.0 without any flip."""
    n = lost + gained
    # Logarithms, because a binomial coefficient of thousands of flips is beyond a float.
    tail = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(min(lost, gained) + 1)]
    return min(1.0, 2 * sum(math.exp(log - n * math.log(2)) for log in tail))


def allowed_flips(correct: int, n: int, share: float = 0.01, *, absolute: bool = False) -> int:
    """The most net flips (lost - gained) that keep the accuracy's drop within `share`."""
    # 0.29 * 100 is 28.999…: a whole number must not be lost to rounding.
    return math.floor(share * (n if absolute else correct) + 1e-9)


def meaning(correct: int, n: int, share: float = 0.01, *, absolute: bool = False) -> str:
    """What an allowed drop of accuracy means in answers: "1 % of the 784 right among 872 examples is 7 net flips …"."""
    of = f"{n} examples" if absolute else f"the {correct} right among {n} examples"
    count = allowed_flips(correct, n, share, absolute=absolute)
    doubt = paired_proportions(count, 0, n).in_points().half_width
    return (
        f"{100 * share:g} % of {of} is {count} net flip{'s' * (count != 1)} (right answers lost, less those gained). "
        f"One flip is {100 / n:.2g} pt; a drop of that size is known to ± {doubt:.2g} pt at best."
    )


def _scores(metric: Metric, draw: np.ndarray, labels: np.ndarray, answers: np.ndarray, classes: int) -> np.ndarray:
    """Scores (rows,) of examples that come in cells: `draw` (rows, cells) counts them, `labels` and `answers`
    (cells,) say what they are."""
    true, predicted = np.eye(classes)[labels], np.eye(classes)[answers]
    draw = draw.astype(np.float64)
    assert metric.formula is not None  # `_check_kind`
    return metric.formula(draw @ (true * predicted), draw @ true, draw @ predicted)


def _resampled(statistic: Statistic, counts: np.ndarray, unit: str, seed: int = 0) -> Estimate:
    """`statistic` of `counts` (cells,), with the bootstrap over the examples counted: a multinomial draw of cells."""
    n, random = int(counts.sum()), np.random.default_rng(seed)
    rows = max(1, 4_000_000 // counts.size)
    drawn = [
        statistic(random.multinomial(n, counts / n, size=min(rows, RESAMPLES - done)))
        for done in range(0, RESAMPLES, rows)
    ]
    return with_percentiles(float(statistic(counts[None])[0]), np.concatenate(drawn), n, unit)
