"""Recipes and spaces: round trips, identity, contradictions, grids."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import pytest

from workbench.backends.eager import Eager
from workbench.backends.onnxruntime import OnnxRuntime
from workbench.backends.openvino import OpenVINO
from workbench.draft import Draft, ModelFacts, resolve_keep
from workbench.errors import KnobError, RecipeError, UnknownName, UserError
from workbench.parsing import recipe_from_code
from workbench.recipe import Choice, Open, Range, Recipe, Space, contradiction, draw
from workbench.techniques.base import Technique
from workbench.techniques.bf16 import Bf16
from workbench.techniques.distil import Distil
from workbench.techniques.drop_layers import DropLayers
from workbench.techniques.mixed_precision import MixedPrecision
from workbench.techniques.prune import Prune
from workbench.techniques.prune_gradual import PruneGradual
from workbench.techniques.static_int8 import StaticInt8
from workbench.techniques.weight_rtn import WeightRtn

RECIPES = [
    Recipe(backend=Eager()),
    Recipe(Bf16(), backend=Eager(threads=2, padding="fixed")),
    Recipe(DropLayers(count=3, which="top"), Prune(sparsity=0.25), StaticInt8(), backend=OnnxRuntime()),
    Recipe(StaticInt8(calibration="percentile"), backend=OnnxRuntime(), keep=("classifier", "*.layer.0.*")),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.title)
def test_survives_json_and_repr(recipe: Recipe) -> None:
    for again in (Recipe.from_json(json.loads(json.dumps(recipe.to_json()))), recipe_from_code(repr(recipe))):
        assert again == recipe
        assert hash(again) == hash(recipe)
        assert again.id == recipe.id


def test_equal_recipes_and_only_those_have_equal_ids() -> None:
    assert Recipe(StaticInt8(samples=300), backend=Eager()).id == Recipe(StaticInt8(), backend=Eager()).id
    assert len({recipe.id for recipe in RECIPES}) == len(RECIPES)
    base = RECIPES[0]
    for other in (
        Recipe(backend=Eager(threads=3)),
        Recipe(backend=Eager(), keep=("classifier",)),
        Recipe(Bf16(), backend=Eager()),
    ):
        assert other.id != base.id


def test_json_has_every_knob_written_out() -> None:
    (row,) = Recipe(StaticInt8(), backend=Eager()).to_json()["techniques"]
    assert set(row) == {"name", *StaticInt8.knobs()}


def test_title_shows_what_differs_from_the_default() -> None:
    assert Recipe(backend=Eager()).title == "fp32 · eager"
    titled = Recipe(DropLayers(count=3), StaticInt8(), backend=OnnxRuntime(threads=2)).title
    assert titled == "drop_layers(count=3) → static_int8 · onnxruntime"


def test_precisions() -> None:
    assert RECIPES[0].precisions() == {"fp32"}
    assert Recipe(Prune(), backend=Eager()).precisions() == {"fp32"}
    assert RECIPES[2].precisions() == {"int8_static"}


class Hermit(Technique):
    """Stands beside nothing that prunes."""

    name = "hermit"
    excludes = frozenset({"prune"})

    def apply(self, draft: Draft) -> Draft:
        return draft


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ((StaticInt8(), StaticInt8(samples=10)), "static_int8 stands twice"),
        ((Bf16(), StaticInt8()), "both set the precision"),
        ((Prune(), DropLayers()), "drop_layers has to come first"),
        ((Hermit(), Prune()), "hermit and prune exclude each other"),
        ((Prune(), Hermit()), "exclude each other"),
    ],
)
def test_contradictions_cannot_be_made(steps: tuple[Technique, ...], words: str) -> None:
    assert words in (contradiction(steps) or "")
    with pytest.raises(RecipeError, match=words) as caught:
        Recipe(*steps, backend=Eager())
    assert "take one of them out" in caught.value.do


def test_integer_weights_stand_beside_the_float_of_the_model() -> None:
    steps = (WeightRtn(), Bf16())
    assert contradiction(steps) is None
    assert Recipe(*steps, backend=Eager()).precisions() == {"int8_weight", "int4_weight", "bf16"}
    assert "both set the precision" in (contradiction((WeightRtn(), StaticInt8())) or "")
    assert "both set the precision" in (contradiction((MixedPrecision(), WeightRtn())) or "")


@pytest.mark.parametrize("order", list(itertools.permutations([DropLayers(), Prune(), Bf16()])))
def test_only_ascending_phases_stand(order: tuple[Technique, ...]) -> None:
    ascending = [step.phase for step in order] == sorted(step.phase for step in order)
    assert (contradiction(order) is None) == ascending


@pytest.mark.parametrize(
    ("steps", "backend"),
    [(("static_int8",), Eager()), ((StaticInt8,), Eager()), ((), "eager"), ((), Eager), ((Eager(),), Eager())],
)
def test_what_is_no_plug_in_is_refused(steps: Any, backend: Any) -> None:
    with pytest.raises(RecipeError, match=r"is no (technique|backend)"):
        Recipe(*steps, backend=backend)


@pytest.mark.parametrize("keep", ["classifier", [1], ("a", None)])
def test_keep_is_a_list_of_patterns(keep: Any) -> None:
    with pytest.raises(RecipeError, match="no list of patterns"):
        Recipe(backend=Eager(), keep=keep)
    with pytest.raises(RecipeError, match="no list of patterns"):
        Space(backends=["eager"], keep=keep)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"backend": "eager"},
        {"backend": {}},
        {"backend": {"name": 3}},
        {"techniques": "bf16", "backend": {"name": "eager"}},
        {"techniques": ["bf16"], "backend": {"name": "eager"}},
        {"techniques": [{}], "backend": {"name": "eager"}},
    ],
)
def test_json_that_is_no_recipe(data: Any) -> None:
    with pytest.raises(UserError, match="no recipe"):
        Recipe.from_json(data)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({"techniques": [{"name": "static_int"}], "backend": {"name": "eager"}}, UnknownName),
        ({"techniques": [], "backend": {"name": "eager", "thread": 2}}, UnknownName),
        ({"techniques": [{"name": "static_int8", "samples": 0}], "backend": {"name": "eager"}}, KnobError),
        ({"techniques": [], "backend": {"name": "eager"}, "keep": "classifier"}, RecipeError),
    ],
)
def test_json_with_a_mistake(data: Any, kind: type[UserError]) -> None:
    with pytest.raises(kind):
        Recipe.from_json(data)


@pytest.mark.parametrize(
    "code",
    [
        "Recipe(",
        "Eager()",
        "3",
        "Recipe()",
        "Recipe(backend=Eager(1))",
        "Recipe(backend=eager)",
        "Recipe(backend=Eager(threads=open('x')))",
        "__import__('os').system('true')",
        "Recipe(backend=Eager(), colour=1)",
    ],
)
def test_code_that_is_no_recipe(code: str) -> None:
    with pytest.raises(UserError):
        recipe_from_code(code)


@pytest.mark.parametrize("code", ["Recipe(backend=Eagle())", "Recipe(backend=Eager(thread=1))"])
def test_code_with_a_mistyped_name_gets_a_hint(code: str) -> None:
    with pytest.raises(UnknownName, match="did you mean"):
        recipe_from_code(code)


def test_refusal_names_the_first_reason() -> None:
    onnx, small = ModelFacts("file", has_module=False), ModelFacts("Bert", layers=("a",), blocks=2)
    assert "ONNX" in (Recipe(backend=Eager()).refusal(onnx) or "")
    assert "2 layers" in (Recipe(DropLayers(count=2), backend=Eager()).refusal(small) or "")
    assert Recipe(DropLayers(count=1), backend=Eager()).refusal(small) is None


# -- keep --------------------------------------------------------------------------------------------------------------

LAYERS = ("bert.layer.0.query", "bert.layer.0.value", "bert.layer.1.query", "classifier")


def test_keep_patterns_match_names_last_parts_and_wildcards() -> None:
    assert resolve_keep((), LAYERS) == frozenset()
    assert resolve_keep(("classifier",), LAYERS) == {"classifier"}
    assert resolve_keep(("query",), LAYERS) == {"bert.layer.0.query", "bert.layer.1.query"}
    assert resolve_keep(("*.layer.0.*", "classifier"), LAYERS) == {*LAYERS[:2], "classifier"}


def test_a_pattern_that_matches_nothing_gets_near_names() -> None:
    with pytest.raises(UnknownName, match="clasifier") as caught:
        resolve_keep(("clasifier",), LAYERS)
    assert "classifier" in caught.value.do


# -- spaces ------------------------------------------------------------------------------------------------------------


def wide() -> Space:
    return Space(
        Open("static_int8", optional=True, samples=Choice(100, 300)),
        "bf16",
        Open("drop_layers", optional=True, count=Range(1, 3)),
        backends=[Open("eager", threads=Choice(1, 2)), Open("onnxruntime", batch=4)],
        keep=("classifier",),
    )


def test_a_space_survives_json_and_repr() -> None:
    space = wide()
    assert Space.from_json(json.loads(json.dumps(space.to_json()))) == space
    names = {"Space": Space, "Open": Open, "Choice": Choice, "Range": Range}
    assert eval(repr(space), names) == space  # noqa: S307 - the text is our own
    assert hash(space) == hash(wide())


def test_the_grid_holds_every_sound_combination_once() -> None:
    recipes = list(wide().recipes())
    # drop_layers: left out or 1, 2, 3; precision: none, bf16, int8 with 100 or 300; eager with 1 or 2 threads, or ORT.
    assert len(recipes) == 4 * 4 * 3
    assert len({recipe.id for recipe in recipes}) == len(recipes)
    assert all(recipe.keep == ("classifier",) for recipe in recipes)
    counts = [len(recipe.steps) for recipe in recipes]
    assert counts == sorted(counts)


def test_every_point_of_the_grid_builds_or_contradicts_itself() -> None:
    space, dimensions = wide(), set(wide().dimensions())
    built = set()
    for point in space.points():
        assert set(point) <= dimensions
        try:
            built.add(space.build(point))
        except RecipeError:
            assert point["bf16"]
            assert point["static_int8"]
    assert built == set(space.recipes())


def test_a_huge_grid_begins_at_once() -> None:
    many = [Open("eager", threads=Choice(*range(1, 100)), batch=Choice(*range(1, 100))) for _ in range(8)]
    space = Space("static_int8", Open("drop_layers", count=Range(1, 48, points=48)), backends=many)
    assert len(list(itertools.islice(space.recipes(), 5))) == 5


def test_techniques_are_put_in_the_order_of_their_phases() -> None:
    space = Space("static_int8", "prune", "drop_layers", backends=["eager"])
    assert [step.name for step in space.steps] == ["drop_layers", "prune", "static_int8"]


def test_ranges_stay_inside_whatever_the_rounding() -> None:
    # 0.6 * (0.7 / 0.6) is more than 0.7, and 0.3 + (0.9 - 0.3) more than 0.9.
    generator = random.Random(0)
    for low, high in itertools.combinations([0.1, 0.3, 0.35, 0.6, 0.7, 0.9, 0.99, 2.1], 2):
        for log in (False, True):
            dimension = Range(low, high, points=7, log=log)
            grid = dimension.grid()
            assert (grid[0], len(grid)) == (low, 7)
            assert max(grid) <= high
            assert grid[-1] == pytest.approx(high)
            assert all(low <= draw(dimension, generator) <= high for _ in range(50))
    assert Range(1.0, 100.0, log=True).grid() == pytest.approx((1, 10, 100))


def test_a_log_range_reaches_its_bound_in_a_space() -> None:
    space = Space(Open("prune", sparsity=Range(0.01, 0.99, points=9, log=True)), backends=["eager"])
    assert len(list(space.recipes())) == 9


def test_samples_are_repeatable_and_of_the_space() -> None:
    space, grid = wide(), set(wide().recipes())
    drawn = [space.sample(random.Random(seed)) for seed in range(40)]
    assert drawn == [space.sample(random.Random(seed)) for seed in range(40)]
    assert set(drawn) <= grid
    assert len(set(drawn)) > 5


def test_a_space_without_any_sound_recipe_says_so() -> None:
    space = Space(Open("bf16"), Open("static_int8"), backends=["eager"])
    assert list(space.recipes()) == []
    with pytest.raises(RecipeError, match="free of contradiction"):
        space.sample(random.Random(0))


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: Space(backends=[]), UserError, "without a backend"),
        (lambda: Space("static_int", backends=["eager"]), UnknownName, "static_int8"),
        (lambda: Space(backends=["eagr"]), UnknownName, "eager"),
        (lambda: Space(Open("static_int8", sample=3), backends=["eager"]), UnknownName, "samples"),
        (lambda: Space(Open("static_int8", samples=Choice(1, 0)), backends=["eager"]), KnobError, "samples = 0"),
        (lambda: Space(Open("static_int8", samples=Range(1, 99999)), backends=["eager"]), KnobError, "99999"),
        (
            lambda: Space(Open("static_int8", per_channel=Range(0, 1)), backends=["eager"]),
            UserError,
            "cannot be a Range",
        ),
        (lambda: Space("bf16", Open("bf16"), backends=["eager"]), RecipeError, "twice"),
        (lambda: Choice(), UserError, "empty Choice"),
        (lambda: Range(2, 1), UserError, "no range"),
        (lambda: Range(1, 2, points=1), UserError, "no range"),
        (lambda: Range(0, 1, log=True), UserError, "no range"),
    ],
)
def test_mistakes_in_a_space_are_found_at_once(make: Any, kind: type[UserError], words: str) -> None:
    with pytest.raises(kind, match=words):
        make()


def test_the_minutes_of_a_recipe_are_those_its_steps_may_train() -> None:
    assert Recipe(DropLayers(), backend=Eager()).minutes() == 0
    assert Recipe(DropLayers(), Distil(minutes=7.5), StaticInt8(), backend=OpenVINO()).minutes() == 7.5
    shared = Recipe(PruneGradual(minutes=2.0), Distil(minutes=5.0), backend=OpenVINO())
    assert shared.minutes() == 5.0


# -- layers kept -------------------------------------------------------------------------------------------------------

KEEPS = Choice((), ("classifier",), ("classifier", "*.layer.0.*"))


def test_an_open_keep_is_a_dimension_where_a_step_sets_a_precision() -> None:
    space = Space("static_int8", "prune", backends=["openvino", "eager"], keep=KEEPS)
    assert space.dimensions()["keep"] == KEEPS
    kept = [(r.keep, [s.name for s in r.steps]) for r in space.recipes() if r.backend.name == "openvino"]
    wanted = [((), []), ((), ["prune"])]
    wanted += [(choice, [*more, "static_int8"]) for choice in KEEPS.values for more in ([], ["prune"])]
    assert sorted(kept) == sorted(wanted)
    point = {"backend": 0, "static_int8": False, "prune": True, "keep": ("classifier",)}
    assert space.build(point).keep == ()
    assert Space.from_json(json.loads(json.dumps(space.to_json()))) == space
    assert "keep=Choice(" in repr(space)
    assert {space.sample(random.Random(i)).keep for i in range(40)} == set(KEEPS.values)


def test_a_keep_that_is_no_list_of_patterns_is_refused_in_a_choice_too() -> None:
    with pytest.raises(RecipeError):
        Space(backends=["eager"], keep=Choice((), "classifier"))


NAMES = ("encoder.0.query", "encoder.0.key", "encoder.1.query", "classifier")


def test_kept_layers_are_edited_by_name_or_pattern() -> None:
    recipe = Recipe(backend=Eager(), keep=("encoder.*", "classifier"))
    assert recipe.edited(["x"], ["classifier"], NAMES).keep == ("encoder.*", "x")
    assert recipe.edited([], ["encoder.0.query"], NAMES).keep == ("classifier", "encoder.0.key", "encoder.1.query")
    assert recipe.edited([], ["query"], NAMES).keep == ("classifier", "encoder.0.key")
    assert recipe.edited(["classifier"], [], NAMES).keep == recipe.keep
    with pytest.raises(UserError, match="is not kept"):
        recipe.edited([], ["encoder.*"], NAMES).edited([], ["encoder.0.key"], NAMES)
    with pytest.raises(UserError, match="matches no layer"):
        recipe.edited([], ["decoder"], NAMES)


def test_a_title_tells_which_layers_are_left_alone() -> None:
    plain = Recipe(StaticInt8(), backend=OpenVINO())
    assert plain.title == "static_int8 · openvino"
    assert plain.keeping(["classifier"]).title == "static_int8 · openvino, classifier kept"
    assert plain.keeping(["classifier", "*.layer.0.*"]).title == "static_int8 · openvino, 2 kept"
