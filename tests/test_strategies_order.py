"""The order in which Neural Compressor's strategies try plans, on a fake model with a scripted accuracy.

The plan of a recipe is the set of layers that it keeps in FP32; what was tried is written as the names of those layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from workbench.draft import ModelFacts
from workbench.measure.estimate import exact
from workbench.measure.measurement import Measurement
from workbench.recipe import Open, Recipe, Space
from workbench.registry import find
from workbench.trial import Trial
from workbench.tuning.goal import Goal
from workbench.tuning.questions import Costs, Facts, Peek, Question, Scan, Unanswered

LAYERS = ("0.a", "0.b", "1.a", "1.b")
FACTS = ModelFacts("Fake", layers=LAYERS, blocks=2)
#: INT8 or nothing, on one runtime.
SPACE = Space(Open("static_int8", samples=10), backends=["openvino"])
GOAL = Goal(max_drop=0.01, absolute=True, trials=None)

Score = Callable[[frozenset[str]], float]
Answer = Callable[[Question], Any]


def plans(name: str, drop: Score, answer: Answer = lambda q: Unanswered("no"), space: Space = SPACE) -> list[str]:
    """What the strategy tries on the space: the kept layers of each recipe, "-" for none."""
    search = find("strategies", name)().search(space, GOAL)
    tried: list[str] = []
    try:
        asked = next(search)
        while True:
            if not isinstance(asked, Recipe):
                asked = search.send(FACTS if isinstance(asked, Facts) else answer(asked))
                continue
            tried.append(" ".join(asked.keep) or "-")
            lost = drop(frozenset(asked.keep))
            # Every kept layer costs time.
            speedup = exact(4.0 - len(asked.keep) / 2)
            measured = Measurement(exact(0.9 - lost), "accuracy", drop=exact(lost), speedup=speedup)
            asked = search.send(Trial(1, asked, "complete", measured))
    except StopIteration:
        return tried


def scripted(harm: dict[str, float]) -> Score:
    """The drop is the sum of the harm of the layers that are quantized."""
    return lambda kept: sum(value for name, value in harm.items() if name not in kept)


def rows(scores: dict[str, float]) -> list[dict[str, Any]]:
    return [{"layer": name, "score": value} for name, value in scores.items()]


def test_basic_goes_back_from_the_last_layer_one_by_one_then_accumulates_by_impact() -> None:
    drop = scripted({"0.a": 0.02, "0.b": 0.001, "1.a": 0.03, "1.b": 0.002})
    assert plans("basic", drop) == ["-", "1.b", "1.a", "0.b", "0.a", "0.a 1.a"]


def test_basic_accumulates_on_when_two_are_not_enough() -> None:
    drop = scripted({"0.a": 0.02, "0.b": 0.011, "1.a": 0.03, "1.b": 0.002})
    assert plans("basic", drop) == ["-", "1.b", "1.a", "0.b", "0.a", "0.a 1.a", "0.a 0.b 1.a"]


def test_basic_does_not_accumulate_where_one_layer_suffices() -> None:
    drop = scripted({"0.a": 0.05, "0.b": 0.001, "1.a": 0.001, "1.b": 0.001})
    assert plans("basic", drop) == ["-", "1.b", "1.a", "0.b", "0.a"]


def test_basic_stops_at_once_where_all_may_be_quantized() -> None:
    assert plans("basic", scripted({"0.a": 0.001})) == ["-"]


def test_mse_goes_by_the_error_of_the_layers() -> None:
    drop = scripted({"0.a": 0.02, "0.b": 0.001, "1.a": 0.03, "1.b": 0.002})
    scores = {"0.a": 1.0, "0.b": 4.0, "1.a": 3.0, "1.b": 2.0}
    asked: list[Question] = []

    def answer(question: Question) -> Any:
        asked.append(question)
        return rows(scores)

    assert plans("mse", drop, answer) == ["-", "0.b", "1.a", "1.b", "0.a", "0.a 1.a"]
    assert [(q.probe, q.direction) for q in asked if isinstance(q, Scan)] == [("mse", "only")]


def test_hawq_v2_accumulates_by_trace() -> None:
    drop = scripted({"0.a": 0.02, "0.b": 0.001, "1.a": 0.03, "1.b": 0.002})
    scores = {"0.a": 3.0, "0.b": 4.0, "1.a": 2.0, "1.b": 1.0}
    assert plans("hawq_v2", drop, lambda q: rows(scores)) == ["-", "0.b", "0.a 0.b", "0.a 0.b 1.a"]


def test_conservative_starts_from_fp32_and_quantizes_role_by_role_then_layer_by_layer() -> None:
    # Role a: both together are too much, 0.a alone is. Role b may be quantized whole.
    drop = scripted({"0.a": 0.02, "0.b": 0.001, "1.a": 0.003, "1.b": 0.002})
    assert plans("conservative", drop) == [
        "0.b 1.b",  # both a quantized: fails
        "0.b 1.a 1.b",  # 0.a alone: fails
        "0.a 0.b 1.b",  # 1.a alone: passes, stays
        "0.a",  # both b on top: passes
        "-",  # the rest of the grid
    ]


def test_mse_v2_scans_after_each_layer_then_quantizes_again() -> None:
    drop = scripted({"0.a": 0.004, "0.b": 0.003, "1.a": 0.02, "1.b": 0.004})
    asked: list[Scan] = []
    # What is regained changes with what is kept already; the scan of kept layers says what each does alone.
    regained = {
        (): {"0.a": 9.0, "0.b": 1.0, "1.a": 3.0, "1.b": 2.0},
        ("0.a",): {"0.b": 1.0, "1.a": 5.0, "1.b": 8.0},
        ("0.a", "1.b"): {"0.b": 1.0, "1.a": 5.0},
    }
    alone = {"0.a": 0.5, "0.b": 1.0, "1.a": 7.0, "1.b": 0.1}

    def answer(question: Question) -> Any:
        assert isinstance(question, Scan)
        asked.append(question)
        return rows(regained[question.keep] if question.direction == "all_but" else alone)

    assert plans("mse_v2", drop, answer) == [
        "-",
        "0.a",
        "0.a 1.b",
        "0.a 1.a 1.b",  # the goal is met
        "0.a 1.a",  # 1.b hurts least alone: quantized again, still met
        "1.a",  # 0.a hurts least of the rest: that is too much
    ]
    assert [(q.direction, q.keep) for q in asked] == [
        ("all_but", ()),
        ("all_but", ("0.a",)),
        ("all_but", ("0.a", "1.b")),
        ("only", ()),
        ("only", ()),
    ]


def test_auto_mixed_precision_lowers_all_then_goes_back() -> None:
    space = Space(Open("bf16"), backends=["openvino"])
    harm = scripted({"0.a": 0.02, "0.b": 0.0, "1.a": 0.0, "1.b": 0.0})
    tried = plans("auto_mixed_precision", harm, space=space)
    assert tried == ["-", "1.b", "1.a", "0.b", "0.a"]


@pytest.mark.parametrize("name", ["mse", "mse_v2", "hawq_v2"])
@pytest.mark.parametrize(
    "answer",
    [
        lambda q: Unanswered("the probe gives NaN for every layer"),
        lambda q: rows(dict.fromkeys(LAYERS, float("nan"))),
        lambda q: rows(dict.fromkeys(LAYERS, None)),  # type: ignore[arg-type]
        lambda q: [],
    ],
    ids=["unanswered", "nan", "none", "empty"],
)
def test_a_probe_without_numbers_leaves_the_order_from_the_last_layer(name: str, answer: Answer) -> None:
    drop = scripted({"0.a": 0.001, "0.b": 0.001, "1.a": 0.001, "1.b": 0.03})
    tried = plans(name, drop, answer)
    assert tried[:2] == ["-", "1.b"]


def test_a_layer_whose_score_is_nan_goes_back_first() -> None:
    drop = scripted({"0.a": 0.001, "0.b": 0.03, "1.a": 0.001, "1.b": 0.001})
    scores = {"0.a": 5.0, "0.b": float("nan"), "1.a": 1.0, "1.b": 2.0}
    assert plans("hawq_v2", drop, lambda q: rows(scores)) == ["-", "0.b"]


@pytest.mark.parametrize("name", ["basic", "mse", "mse_v2", "hawq_v2", "conservative", "frontier"])
def test_the_planted_layer_is_kept_and_the_goal_met(name: str) -> None:
    drop = scripted({"0.a": 0.002, "0.b": 0.2, "1.a": 0.002, "1.b": 0.002})

    def answer(question: Question) -> Any:
        if isinstance(question, Peek):
            lost = drop(frozenset(question.recipe.keep))
            return [{"examples": question.examples, "drop": lost, "low": lost - 0.004, "high": lost + 0.004}]
        if isinstance(question, Costs):
            step = 1.0 if question.recipe.steps else 4.0
            return [{"layer": name, "ms": step} for name in LAYERS]
        return rows({"0.a": 0.01, "0.b": 3.0, "1.a": 0.02, "1.b": 0.01})

    tried = plans(name, drop, answer)
    met = [plan for plan in tried if drop(frozenset(plan.split())) <= 0.01]
    assert "0.b" in met
    assert all("0.b" in plan.split() for plan in met)
    if name == "frontier":
        # It looked before it tried, so the first trial is the answer.
        assert tried[0] == "0.b"
