"""Goals and budgets: what they allow, and how a mistake in one is answered."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from workbench.errors import UserError
from workbench.measure.estimate import Estimate, exact
from workbench.measure.measurement import Measurement
from workbench.tuning.goal import MINIMISE, Goal, parse_budget


def lost(drop: float | None) -> Measurement:
    return Measurement(accuracy=exact(0.9), metric="accuracy", drop=None if drop is None else exact(drop))


def test_a_relative_drop_is_a_share_of_the_baseline() -> None:
    assert Goal(max_drop=0.01).allowed_drop(0.9) == pytest.approx(0.009)
    assert Goal(max_drop=0.01).allowed_drop(-0.5) == pytest.approx(0.005)
    assert Goal(max_drop=0.01, absolute=True).allowed_drop(0.9) == 0.01


@pytest.mark.parametrize(
    ("goal", "drop", "met"),
    [
        (Goal(max_drop=0.01), 0.009, True),
        (Goal(max_drop=0.01), 0.0091, False),
        (Goal(max_drop=0.01, absolute=True), 0.0091, True),
        (Goal(max_drop=0.0), 0.0, True),
        (Goal(max_drop=0.0), -0.01, True),
        (Goal(max_drop=0.0), 0.001, False),
        (Goal(), None, True),
        (Goal(max_drop=1.0), float("nan"), False),
    ],
)
def test_met(goal: Goal, drop: float | None, met: bool) -> None:
    assert goal.met(lost(drop), baseline=0.9) == met


def test_seven_flips_of_784_are_one_percent_whatever_the_rounding() -> None:
    goal, baseline = Goal(max_drop=0.01), 784 / 872
    assert goal.met(lost(7 / 872), baseline)
    assert not goal.met(lost(8 / 872), baseline)
    # 0.1 * (10 / 20) and (10 - 9) / 20 are equal only on paper.
    assert Goal(max_drop=0.1).met(lost(10 / 20 - 9 / 20), 10 / 20)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_drop": -0.01}, "max_drop"),
        ({"max_drop": 1.5}, "max_drop"),
        ({"max_drop": float("nan")}, "max_drop"),
        ({"minimise": "cost"}, "minimise"),
        ({"trials": 0}, "0 trials"),
        ({"trials": -3}, "-3 trials"),
        ({"minutes": 0}, "0 minutes"),
    ],
)
def test_an_impossible_goal_says_what_is_allowed(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        Goal(**settings)
    assert caught.value.allowed


def test_a_goal_survives_json() -> None:
    for minimise in MINIMISE:
        goal = Goal(max_drop=0.02, absolute=True, minimise=minimise, trials=None, minutes=1.5)
        assert Goal(**json.loads(json.dumps(goal.to_json()))) == goal


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20", (20, None)),
        (" 20 ", (20, None)),
        ("1 trial", (1, None)),
        ("20 trials", (20, None)),
        ("15min", (None, 15.0)),
        ("15 m", (None, 15.0)),
        ("1 minute", (None, 1.0)),
        ("90s", (None, 1.5)),
        ("90sec", (None, 1.5)),
        ("2h", (None, 120.0)),
        ("0.5 hours", (None, 30.0)),
    ],
)
def test_budgets_are_trials_or_a_time(text: str, expected: tuple[int | None, float | None]) -> None:
    assert parse_budget(text) == expected


@pytest.mark.parametrize("text", ["", "0", "0min", "-3", "2.5", "2.5 trials", "ten", "15 parsecs", "20 min trials"])
def test_a_budget_that_is_not_understood(text: str) -> None:
    with pytest.raises(UserError, match="budget") as caught:
        parse_budget(text)
    assert "15min" in caught.value.allowed


# -- evidence ----------------------------------------------------------------------------------------------------------


def between(value: float, low: float, high: float, n: int = 872) -> Measurement:
    return Measurement(accuracy=exact(0.9), metric="accuracy", drop=Estimate(value, low, high, n, "fraction"))


@pytest.mark.parametrize(
    ("evidence", "high", "met"),
    [(0.5, 0.05, True), (0.975, 0.0089, True), (0.975, 0.0091, False), (0.8, 0.012, True), (0.8, 0.03, False)],
)
def test_evidence_moves_the_drop_towards_the_end_of_its_interval(evidence: float, high: float, met: bool) -> None:
    goal = Goal(max_drop=0.01, evidence=evidence)
    assert goal.met(between(0.004, -0.001, high), baseline=0.9) == met


def test_how_sure_it_is_and_how_many_examples_would_tell() -> None:
    goal = Goal(max_drop=0.01, absolute=True)
    assert goal.sure(between(0.002, -0.003, 0.008), 0.9).word == "passes"
    assert goal.sure(between(0.03, 0.012, 0.05), 0.9).word == "fails"
    unsure = goal.sure(between(0.005, -0.005, 0.015), 0.9)
    # The interval is 0.01 to each side and 0.005 away: four times the examples.
    assert (unsure.word, unsure.text) == ("unsure", "too few examples to tell: needs about 3,500")
    assert "edge" in goal.sure(between(0.01, 0.0, 0.02), 0.9).text
    assert goal.sure(lost(None), 0.9).word == "passes"
    assert goal.sure(lost(float("nan")), 0.9).word == "fails"


def test_the_number_of_examples_that_would_tell_tells() -> None:
    from workbench.measure.accuracy import paired_proportions

    goal = Goal(max_drop=0.02, absolute=True)
    few = Measurement(exact(0.9), "accuracy", drop=paired_proportions(6, 2, 400))
    needed = int(goal.sure(few, 0.9).text.rsplit(" ", 1)[1].replace(",", ""))
    times = needed / 400
    many = Measurement(exact(0.9), "accuracy", drop=paired_proportions(round(6 * times), round(2 * times), needed))
    assert goal.sure(many, 0.9).word == "passes"
    fewer = Measurement(
        exact(0.9), "accuracy", drop=paired_proportions(round(3 * times), round(times), round(needed / 2))
    )
    assert goal.sure(fewer, 0.9).word == "unsure"


def test_a_share_of_a_baseline_of_zero_allows_nothing_and_says_so() -> None:
    goal = Goal(max_drop=0.01)
    assert goal.allowed_drop(0.0) == 0.0
    assert goal.met(lost(0.0), 0.0)
    assert not goal.met(lost(0.001), 0.0)
    assert "absolute" in goal.caution(0.0)
    assert goal.caution(0.9) == Goal(max_drop=0.01, absolute=True).caution(0.0) == ""


def test_of_a_perplexity_more_is_worse_and_points_may_be_many() -> None:
    from workbench.measure.accuracy import drop as measured_drop
    from workbench.measure.accuracy import score_of
    from workbench.measure.windows import Windows
    from workbench.tuning.strategies._session import baseline_of

    tokens, right = np.full(20, 50), np.zeros(20 * 50, dtype=bool)
    first, second = (Windows(np.full(20, 50 * np.log(ppl)), tokens, right) for ppl in (10.0, 12.0))
    worse = Measurement(
        score_of("perplexity", second), "perplexity", drop=measured_drop(first, second, "perplexity"), outcomes=second
    )
    assert worse.drop is not None
    assert worse.drop.value == pytest.approx(2.0, rel=1e-3)
    assert not Goal(max_drop=0.1).met(worse, 10.0)
    assert Goal(max_drop=0.25).met(worse, 10.0)
    assert Goal(max_drop=2.5, absolute=True).met(worse, 10.0)
    assert Goal(max_drop=0.1).missing(worse, 10.0) == pytest.approx(1.0, rel=1e-2)
    assert baseline_of(worse) == pytest.approx(10.0, rel=1e-3)


# -- what is minimised -------------------------------------------------------------------------------------------------


def test_costs() -> None:
    measured = Measurement(
        exact(0.9), "accuracy", speedup=exact(4.0), latency_ms={"p50": 5.0, "p90": 6.0},
        baseline_latency_ms={"p50": 20.0, "p90": 30.0}, throughput=200.0, size_mb=12.0, peak_mb=300.0,
    )  # fmt: skip
    costs = {name: Goal(minimise=name).cost(measured) for name in MINIMISE}
    assert costs == {"latency": 0.25, "latency_p90": 0.2, "size": 12.0, "memory": 300.0, "throughput": -200.0}
    empty = Measurement(exact(0.9), "accuracy")
    assert {name: Goal(minimise=name).cost(empty) for name in MINIMISE if name != "latency"} == dict.fromkeys(
        ["latency_p90", "size", "memory", "throughput"], float("inf")
    )


@pytest.mark.parametrize(
    "settings", [{"evidence": 0.4}, {"evidence": 1.0}, {"max_drop": float("inf"), "absolute": True}]
)
def test_other_impossible_goals(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        Goal(**settings)
    assert caught.value.allowed
