"""How many recipes and how long: the count against a plain listing, the time from trials and declared minutes."""

from __future__ import annotations

import math

import pytest

from workbench.draft import ModelFacts
from workbench.recipe import Choice, Open, Range, Recipe, Space, plugin
from workbench.registry import members
from workbench.tuning.effort import Effort, as_space, effort, seconds_left, typical_seconds
from workbench.tuning.goal import Goal

FACTS = ModelFacts(architecture="Small", layers=("a", "b"), blocks=6, block_path="layers")


@pytest.fixture(autouse=True)
def every_runtime(monkeypatch):
    for kind in members("backends").values():
        monkeypatch.setattr(kind, "available", classmethod(lambda cls: None))


def listed(space: Space) -> list[Recipe]:
    return [recipe for recipe in space.recipes() if recipe.refusal(FACTS) is None]


@pytest.mark.parametrize(
    "space",
    [
        Space("bf16", "static_int8", "dynamic_int8", backends=["openvino", "onnxruntime", "eager"]),
        Space("prune", "lock_masks", "distil", "qat", "bf16", backends=["onnxruntime", "openvino"]),
        Space(
            Open("static_int8", samples=Choice(100, 300), optional=True),
            Open("prune", sparsity=Range(0.3, 0.7), optional=True),
            backends=[Open("openvino", batch=Choice(1, 8)), "onnxruntime"],
            keep=Choice((), ("a",)),
        ),
        Space(Open("drop_layers", count=Range(1, 2, points=5)), "smooth_quant", "weight_rtn", backends=["eager"]),
        Space(Open("bf16"), "fp16", "mixed_precision", backends=["onnxruntime", "openvino", "compiled"]),
        Space("distil", "prune_gradual", Open("qat", minutes=Choice(2.0, 4.0), optional=True), backends=["openvino"]),
        Space(backends=["eager"]),
    ],
    ids=range(7),
)  # fmt: skip
def test_counts_what_a_listing_finds(space):
    recipes, found = listed(space), effort(space, FACTS)
    assert found.recipes == len(recipes)
    assert found.training == sum(recipe.minutes() > 0 for recipe in recipes)


def test_minutes_of_training_are_those_of_the_recipes():
    space = Space("prune_gradual", Open("distil", minutes=4.0, optional=True), "bf16", backends=["openvino"])
    assert effort(space, FACTS).training_minutes == pytest.approx(sum(recipe.minutes() for recipe in listed(space)))


def test_a_space_of_everything_is_counted_at_once():
    found = effort(Space(*members("techniques"), backends=list(members("backends"))), FACTS)
    assert found.recipes > 10_000
    assert 0 < found.training < found.recipes


def test_what_the_model_refuses_is_not_counted():
    few = ModelFacts(architecture="Small", blocks=1)
    space = Space("drop_layers", backends=["eager"])
    assert effort(space, few).recipes == 1
    assert effort(Space(Open("drop_layers"), backends=["eager"]), few).recipes == 0


def test_a_missing_runtime_runs_nothing(monkeypatch):
    monkeypatch.setattr(members("backends")["openvino"], "available", classmethod(lambda cls: "not installed"))
    assert effort(Space("bf16", backends=["openvino"]), FACTS) == Effort(0)


def test_a_recipe_is_a_space_of_one():
    steps = [plugin("techniques", "prune", sparsity=0.3), plugin("techniques", "lock_masks")]
    recipe = Recipe(*steps, backend=plugin("backends", "openvino", batch=8), keep=("a",))
    space = as_space(recipe)
    assert list(space.recipes()) == [recipe]
    assert as_space(space) is space
    assert effort(recipe, FACTS).recipes == 1


def test_time_is_taken_from_trials_that_train_nothing():
    trials = [(("bf16",), 10.0), ((), 20.0), (("distil",), 500.0), (("no_longer_here",), 30.0), ((), math.nan)]
    assert typical_seconds(trials) == (20.0, 3)
    assert typical_seconds([(("distil",), 500.0)]) is None
    assert Effort(10, 2, 12.0).minutes(30.0) == pytest.approx(17.0)
    assert Effort(10, 2, 12.0).minutes(30.0, trials=5) == pytest.approx(8.5)
    assert Effort(0).minutes(30.0) == 0.0


def test_time_left_is_the_sooner_end():
    goal = Goal(trials=20, minutes=10.0)
    assert seconds_left(goal, 5.5, 400.0, 10.0) == pytest.approx(145.0)
    assert seconds_left(goal, 5.0, 590.0, 10.0) == pytest.approx(10.0)
    assert seconds_left(goal, 5.0, 0.0, 10.0, recipes=6) == pytest.approx(10.0)
    assert seconds_left(Goal(trials=20), 5.0, 0.0, None) is None
    assert seconds_left(Goal(trials=None), 5.0, 0.0, 10.0) is None
    assert seconds_left(Goal(trials=3), 5.0, 0.0, 10.0) == 0.0
