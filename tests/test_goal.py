"""Goals and budgets: what they allow, and how a mistake in one is answered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from workbench.errors import UserError
from workbench.measure.estimate import exact
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
