"""Estimates: intervals that cover, digits that make sense, JSON that comes back."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from workbench.errors import DataError
from workbench.measure.estimate import Estimate, bootstrap, exact, proportion, scaled


def median(values: np.ndarray) -> np.ndarray:
    return np.median(values, axis=-1)


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(4.41, 4.36, 4.46, 200, "ms"), "4.41 ± 0.05 ms"),
        (Estimate(2.93, 2.88, 2.99, 30, "×"), "2.93× [2.88, 2.99]"),
        (exact(-0.46, "pt"), "−0.46 pt"),
        (Estimate(0.4587, -0.232, 1.144, 872, "pt"), "0.46 pt [−0.23, 1.14]"),
        (Estimate(0.89908, 0.8773, 0.9173, 872, "fraction"), "0.899 [0.877, 0.917]"),
        (Estimate(1.0003, 0.9951, 1.0049, 30, "×"), "1.000× [0.995, 1.005]"),
        (Estimate(1234.4, 1222.0, 1246.8, 9, "examples/s"), "1234 ± 12 examples/s"),
        (exact(90.871, "MB"), "90.9 MB"),
        (Estimate(-0.001, -0.3, 0.3, 9, "pt"), "0.00 pt [−0.30, 0.30]"),
        (exact(0.0, "pt"), "0.00 pt"),
        (Estimate(math.nan, math.nan, math.nan, 0, "ms"), "unknown"),
        (Estimate(5.0, math.nan, math.nan, 1, "ms"), "5.00 ms"),
    ],
)
def test_text(estimate: Estimate, text: str) -> None:
    assert str(estimate) == text


def test_json_round_trip_and_no_nan() -> None:
    estimate = proportion(784, 872)
    data = json.loads(json.dumps(estimate.to_json(), allow_nan=False))
    assert data == {"value": 784 / 872, "low": estimate.low, "high": estimate.high, "n": 872, "unit": "fraction"}
    assert Estimate.from_json(data) == estimate
    unknown = Estimate(math.inf, math.nan, -math.inf, 0, "ms").to_json()
    assert unknown == {"value": None, "low": None, "high": None, "n": 0, "unit": "ms"}
    assert math.isnan(Estimate.from_json(unknown).value)
    assert Estimate.from_json(unknown).to_json() == unknown


def test_points() -> None:
    drop = Estimate(0.25, -0.125, 0.5, 872, "fraction")
    assert drop.in_points() == Estimate(25.0, -12.5, 50.0, 872, "pt")
    with pytest.raises(ValueError, match="percentage points"):
        exact(3.0, "ms").in_points()


def test_scaled_turns_the_interval_round() -> None:
    assert scaled(Estimate(2.0, 1.0, 4.0, 5, "s"), -1000, "ms") == Estimate(-2000.0, -4000.0, -1000.0, 5, "ms")


def test_wilson_published_values() -> None:
    # Newcombe 1998 (Statistics in Medicine 17, table I), method 3.
    for successes, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        estimate = proportion(successes, n)
        assert (round(estimate.low, 4), round(estimate.high, 4)) == (low, high)


@pytest.mark.parametrize("true", [0.02, 0.5, 0.9, 0.99])
def test_wilson_covers(true: float) -> None:
    """The exact coverage, averaged as a sum over the binomial, stays near 95 %."""
    from scipy.stats import binom

    n = 200
    estimates = [proportion(k, n) for k in range(n + 1)]
    chance = binom.pmf(np.arange(n + 1), n, true)
    covered = np.array([e.low <= true <= e.high for e in estimates])
    assert 0.93 <= float(chance @ covered) <= 0.985
    assert all(e.low <= e.value <= e.high for e in estimates)


@pytest.mark.parametrize(("successes", "n"), [(3, 2), (-1, 5), (0, 0)])
def test_no_proportion(successes: int, n: int) -> None:
    with pytest.raises(DataError, match="no proportion"):
        proportion(successes, n)


@pytest.mark.parametrize("statistic", [np.mean, np.median])
def test_bootstrap_agrees_with_scipy(statistic: Callable[..., np.ndarray]) -> None:
    from scipy import stats

    values, random = np.random.default_rng(3).lognormal(size=120), np.random.default_rng(2)
    ours = bootstrap(values, lambda drawn: statistic(drawn, axis=-1), resamples=8000, unit="ms", seed=1)
    theirs = stats.bootstrap((values,), statistic, method="percentile", n_resamples=8000, rng=random)
    low, high = theirs.confidence_interval
    assert ours.value == pytest.approx(statistic(values))
    # A 90 % interval would be 8 % of the width off on either side.
    assert ours.low == pytest.approx(low, abs=0.04 * (high - low))
    assert ours.high == pytest.approx(high, abs=0.04 * (high - low))
    assert (ours.n, ours.unit) == (120, "ms")


def test_bootstrap_is_seeded_and_indifferent_to_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=50)
    first = bootstrap(values, median, seed=4)
    assert bootstrap(values, median, seed=4) == first
    assert bootstrap(values, median, seed=5) != first
    monkeypatch.setattr("workbench.measure.estimate._CHUNK", 999)
    assert bootstrap(values, median, seed=4) == first


def test_bootstrap_of_nothing() -> None:
    with pytest.raises(DataError, match="at least one number"):
        bootstrap([], median)
    assert bootstrap([2.0], median) == Estimate(2.0, 2.0, 2.0, 1, "")
