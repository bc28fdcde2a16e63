"""The recipe panel without a browser: ticks and settings in, a recipe or a space out, and what is said before a run."""

from __future__ import annotations

import pandas as pd
import pytest
from fake_study import fake_frame

import workbench
from workbench.dimensions import Choice, Range
from workbench.draft import ModelFacts
from workbench.errors import KnobError, UserError
from workbench.knobs import Knob
from workbench.recipe import Open, Recipe, Space
from workbench.registry import find, members
from workbench.tuning.effort import Effort, refusals
from workbench.widgets.caveats import caveats_html, estimate_html, keep_problem
from workbench.widgets.controls import KnobField, range_of, set_of, told
from workbench.widgets.dashboard import Dashboard
from workbench.widgets.pieces import Slider
from workbench.widgets.plugin_row import foremost
from workbench.widgets.recipe_builder import GROUPS, RecipeBuilder
from workbench.widgets.words import duration, roughly

EVIL = "<img src=x onerror=alert(1)>"
FACTS = ModelFacts(architecture="Small", layers=("bert.layer.0.query", "bert.layer.1.query", "classifier"), blocks=2)


@pytest.fixture(autouse=True)
def every_runtime(monkeypatch):
    for kind in members("backends").values():
        monkeypatch.setattr(kind, "available", classmethod(lambda cls: None))


def evaluate(code):
    names = {n: getattr(workbench, n) for n in ("Space", "Open", "Recipe", "Choice", "Range")}
    return eval(code, {**names, **workbench.registry.classes()})  # noqa: S307 - that this gives the value is the test


def shown(widget):
    """All text of a widget and what it shows, but for what is hidden."""
    if getattr(widget.layout, "display", None) == "none":
        return ""
    own = [str(getattr(widget, name, "")) for name in ("value", "description", "label", "note")]
    return " ".join([*own, *(shown(child) for child in getattr(widget, "children", ()))])


# --- fields ----------------------------------------------------------------------------------------------------------

KNOBS = [
    (Knob(3, "h", low=1, high=50, search=(2, 4)), 4, Choice(2, 4), Range(2, 4)),
    (Knob(0.5, "h", low=0, high=1, search=(0.3, 0.7)), 0.25, Choice(0.3, 0.7), Range(0.3, 0.7)),
    (Knob(1e-4, "h", low=1e-7, high=1e-1, log=True), 1e-3, Choice(1e-4), Range(5e-5, 2e-4, log=True)),
    (Knob(True, "h"), False, Choice(False, True), None),
    (Knob("a", "h", choices=("a", "b", "c"), search=("a", "b")), "b", Choice("a", "b"), None),
    (Knob("1x1", "h"), "2:4", Choice("1x1"), None),
    (Knob((), "h"), ("x", "y"), None, None),
]


@pytest.mark.parametrize(("knob", "one", "some", "between"), KNOBS, ids=lambda v: getattr(v, "kind", ""))
def test_a_field_is_one_value_a_set_or_a_range(knob, one, some, between):
    made = KnobField("name", knob)
    assert made.value == knob.default
    made.value = one
    assert made.value == one
    for kind, wanted in (("set", some), ("range", between)):
        assert (kind in made.kind.options) == (wanted is not None)
        if wanted is not None:
            made.kind.value = kind
            assert made.value == wanted
            again = KnobField("name", knob, wanted)
            assert (again.kind.value, again.value) == (kind, wanted)
            made.kind.value = "fixed"
            assert made.value == one


def test_what_a_field_cannot_take_is_said_and_changes_nothing():
    made = KnobField("samples", Knob(3, "h", low=1, high=50, search=(2, 4)))
    made.kind.value = "set"
    (text,) = made._below.children
    for typed, word in (("2, many", "is no number"), ("0, 2", "not possible"), ("", "empty")):
        text.value = typed
        assert word in made.problem
        assert made.value == Choice(2, 4)
    text.value = "2, 2, 8"
    assert (made.value, made.problem) == (Choice(2, 8), "")
    made.kind.value = "range"
    low, high, points = made._below.children
    low.value = 9
    assert "is no range" in made.problem
    high.value, points.value = 20, 5
    assert (made.value, made.problem) == (Range(9, 20, points=5), "")


def test_text_becomes_a_set_or_a_range():
    number = Knob(0.5, "h", low=0, high=1)
    assert set_of("x", number, "0.1,0.2 , 0.1") == Choice(0.1, 0.2)
    with pytest.raises(KnobError, match="not possible"):
        range_of("x", number, 0.1, 2.0, 3)
    with pytest.raises(UserError, match="no range"):
        range_of("x", number, 0.5, 0.5, 3)
    assert told(Choice(100, 300)) == "100 or 300"
    assert told(Range(0.3, 0.7)) == "0.3 to 0.7"


def test_few_knobs_are_shown_at_once():
    knobs = find("techniques", "prune_gradual").knobs()
    assert foremost(knobs) == ["sparsity", "score"]
    assert foremost(find("techniques", "weight_rtn").knobs()) == ["bits", "group_size", "symmetric"]
    without = {str(i): Knob(i, "h") for i in range(6)}
    assert foremost(without) == ["0", "1", "2", "3"]


def test_a_slider_keeps_to_its_range():
    made = Slider(low=0, high=5, value=1)
    made.value = 9
    assert made.value == 5
    made.value = float("nan")
    assert made.value == 0
    assert Slider(low=0, high=5, most=100, value=9).value == 9


def test_durations():
    told = ["48 s", "3 min 20 s", "3 min", "2 h 5 min", "3 days"]
    assert [duration(seconds) for seconds in (48, 200, 180, 7500, 3 * 86400)] == told
    assert [roughly(seconds) for seconds in (4, 48, 466, 7300, 7900)] == ["4 s", "50 s", "8 min", "2 h", "2 h 10 min"]


# --- value and code --------------------------------------------------------------------------------------------------


def test_everything_registered_is_offered_in_the_five_groups():
    made = RecipeBuilder()
    assert set(made.techniques) == set(members("techniques"))
    assert set(made.backends) == set(members("backends"))
    assert {kind.group for kind in members("techniques").values()} <= set(GROUPS)
    assert all(step.optional for step in made.value.steps)
    for tick in made.backends.values():
        tick.value = False
    assert made.value is None
    assert "Tick at least one runtime" in made.told.value


def test_one_panel_makes_a_space():
    made = RecipeBuilder(["static_int8"], ["openvino", "onnxruntime"])
    made.settings["static_int8"]["samples"].kind.value = "set"
    made.runtimes["openvino"].fields["shapes"].value = "fixed"
    made.workload["batch"].value = Choice(1, 8)
    made.rows["static_int8"].box  # noqa: B018 - a row that is shown
    made.rows["static_int8"]._always.value = True
    made.keep = ("classifier",)
    made.without.value = True
    batch = Choice(1, 8)
    assert made.value == Space(
        Open("static_int8", samples=Choice(100, 300)),
        backends=[Open("onnxruntime", batch=batch), Open("openvino", batch=batch, shapes="fixed")],
        keep=Choice((), ("classifier",)),
    )
    assert evaluate(made.code) == made.value


def test_one_panel_makes_a_recipe():
    made = RecipeBuilder(["static_int8"], ["openvino", "onnxruntime"])
    made.settings["static_int8"]["samples"].kind.value = "set"
    made.make.value = "recipe"
    assert isinstance(made.value, Recipe)
    assert made.value.steps[0].samples == 300
    assert [tick.value for tick in made.backends.values()].count(True) == 1
    made.backends["openvino"].value = True
    made.keep_field.value = "classifier"
    made.settings["static_int8"]["samples"].value = 100
    assert made.value == Recipe(workbench.StaticInt8(samples=100), backend=workbench.OpenVINO(), keep=("classifier",))
    assert evaluate(made.code) == made.value
    made.techniques["bf16"].value = True
    assert made.value is None
    assert "exclude each other" in made.told.value


def test_a_recipe_can_be_shown():
    recipe = Recipe(
        workbench.DropLayers(count=1),
        workbench.StaticInt8(samples=77, per_channel=False),
        backend=workbench.OpenVINO(batch=4, shapes="fixed"),
        keep=("classifier",),
    )
    made = RecipeBuilder()
    made.settings["bf16"]
    made.settings["static_int8"]["calibration"].value = "mse"
    made.show(recipe)
    assert made.value == recipe
    made.make.value = "space"
    assert list(made.value.recipes())[-1] == recipe


def test_a_clicked_trial_opens_in_the_builder(tmp_path):
    made = Dashboard(tmp_path, watch=False)
    recipe = Recipe(workbench.DropLayers(count=1), workbench.StaticInt8(samples=77), backend=workbench.Eager(batch=4))
    made.explorer.value = recipe
    made.explorer.reuse.click()
    assert made.builder.value == recipe


def test_the_longest_sequence_reaches_the_task():
    made = RecipeBuilder()
    assert made.task_options() == {}
    made.workload["sequence"].value = 256
    assert made.task_options() == {"sequence": 256}
    made.workload["sequence"].value = Choice(64, 512)
    assert made.task_options() == {"sequence": 512}
    made.workload["sequence"].value = Range(64, 256)
    assert made.task_options() == {"sequence": 256}


def test_order_is_asked_where_it_matters():
    made = RecipeBuilder([], ["onnxruntime"])
    for name in ("static_int8", "lock_masks", "distil", "prune"):
        made.techniques[name].value = True
        made.rows[name].box  # noqa: B018
    assert made.chosen() == ["lock_masks", "prune", "distil", "static_int8"]
    names = {n: [b.description for b in made.rows[n]._line.children if hasattr(b, "click")] for n in made.chosen()}
    assert names == {"lock_masks": ["↓"], "prune": ["↑"], "distil": [], "static_int8": []}
    made.rows["prune"]._arrows[0].click()
    assert made.chosen() == ["prune", "lock_masks", "distil", "static_int8"]
    assert [step.name for step in made.value.steps] == made.chosen()
    made.make.value = "recipe"
    assert [step.name for step in made.value.steps] == made.chosen()
    made.techniques["bf16"].value = True
    assert made.rows["bf16"]._movable == (False, False)


# --- what is said before a run ---------------------------------------------------------------------------------------


def test_a_missing_runtime_is_greyed_with_its_reason(monkeypatch):
    name, kind = next(iter(members("backends").items()))
    monkeypatch.setattr(kind, "available", classmethod(lambda cls: f"not installed: pip install {EVIL}"))
    made = RecipeBuilder()
    assert made.backends[name].disabled
    assert not made.backends[name].value
    assert "not installed" in shown(made)
    assert "<img" not in shown(made)


def test_refused_pairs_come_with_the_reason_where_they_arise(monkeypatch):
    kind = find("backends", "eager")
    monkeypatch.setattr(kind, "refuses", lambda self, kinds, facts: f"no {'-'.join(kinds)} {EVIL}")
    assert refusals(["bf16"], ["eager"], None) == [("bf16", "eager", f"no bf16 {EVIL}")]
    made = RecipeBuilder(["bf16"], ["eager", "openvino"])
    said = shown(made.rows["bf16"].box)
    assert "not on PyTorch eager" in said
    assert "no bf16 &lt;img" in said
    assert "takes 0 of 1 techniques" in shown(made.runtimes["eager"].box)
    made.backends["eager"].value = False
    made.make.value = "recipe"
    assert made.backends["eager"].disabled
    assert "no bf16" in shown(made.runtimes["eager"].box)
    made.make.value = "space"
    assert not made.backends["eager"].disabled
    few = ModelFacts(architecture="Small", blocks=1)
    assert [pair[:2] for pair in refusals(["drop_layers"], ["eager"], few)] == [("drop_layers", "")]


def test_a_recipe_that_is_refused_says_so():
    made = RecipeBuilder(["drop_layers"], ["eager"])
    made.facts = ModelFacts(architecture="Small", blocks=1)
    assert "1 recipe" in made.told.value
    made.make.value = "recipe"
    assert "This cannot be run" in made.told.value


def test_caveats_are_said_before_the_run():
    made = RecipeBuilder(["prune", "distil", "qat"], ["onnxruntime"])
    assert "run no faster" in shown(made.rows["prune"].box)
    assert "trains: 6 min" in shown(made.rows["distil"].box)
    made.settings["distil"]["minutes"].value = 2.0
    assert "trains: 2 min" in shown(made.rows["distil"].box)
    made.techniques["prune"].value = False
    assert "run no faster" not in shown(made.rows["prune"].box)
    assert caveats_html([], [("A", "x"), ("B", EVIL)], 4).count("<li>") == 2
    assert "<img" not in caveats_html([EVIL], [("A", EVIL)], 4)


def test_the_estimate_of_trials_and_minutes():
    made = RecipeBuilder(["bf16"], ["openvino"])
    assert "2 recipes" in made.told.value
    assert "the first trial will tell" in made.told.value
    made.frame = fake_frame(6)
    assert "about 20 s for all" in made.told.value
    assert "as in 6 trials" in made.told.value
    assert "6 min" in estimate_html(Effort(1, 1, 6.0), None)
    assert "3 train" in estimate_html(Effort(6, 3, 18.0), (10.0, 1))
    assert "Nothing of this can be run" in estimate_html(Effort(0), None)
    made.frame = pd.DataFrame()
    assert "the first trial will tell" in made.told.value


def test_patterns_to_keep_are_checked_with_near_names():
    made = RecipeBuilder(["bf16"], ["openvino"])
    made.keep = ("classifer",)
    assert made.value.keep == ("classifer",)
    made.facts = FACTS
    assert made.value is None
    assert "near names: classifier" in made.told.value
    made.keep_field.value = "classifier, *.layer.0.*"
    assert made.keep == ("classifier", "*.layer.0.*")
    assert made.value.keep == made.keep
    assert "2 of 3 layers" in made.kept.value
    made.keep = ()
    assert (made.keep_field.value, made.kept.value) == ("", "")
    assert keep_problem([EVIL], None) is None


# --- what is shown ---------------------------------------------------------------------------------------------------


def names_in(made, group):
    return [box.children[0].children[0].description for box in made.boxes[group].children]


def test_a_folded_group_shows_what_is_ticked_of_it():
    made = RecipeBuilder(["bf16"])
    assert names_in(made, "mixed precision") == ["bf16"]
    assert names_in(made, "pruning") == []
    assert made.folds["mixed precision"].note == "1 of 3"
    made.folds["pruning"].unfolded = True
    assert "prune" in names_in(made, "pruning")
    made.techniques["prune"].value = True
    made.folds["pruning"].unfolded = False
    assert names_in(made, "pruning") == ["prune"]
    made.folds["graph optimization"].unfolded = True
    assert "Every runtime does this" in shown(made.boxes["graph optimization"])


def test_a_search_opens_what_it_finds():
    made = RecipeBuilder([])
    made.find.value = "MASK"
    assert "lock_masks" in names_in(made, "pruning")
    assert made.folds["distillation"].layout.display == "none"
    made.find.value = ""
    assert names_in(made, "pruning") == []
    assert made.folds["distillation"].layout.display is None


def test_settings_unfold_with_the_tick_and_tell_what_differs():
    made = RecipeBuilder([], ["openvino"])
    row = made.rows["prune"]
    assert row._fields is None
    row.box  # noqa: B018
    row.tick.value = True
    assert [field.name for field in row._settings.children[1:-1]] == ["sparsity", "score"]
    row._more.unfolded = True
    assert {field.name for field in row._settings.children if hasattr(field, "name")} == set(row.knobs)
    row.fields["sparsity"].value = Range(0.3, 0.7)
    assert "sparsity: 0.3 to 0.7" in row._said.value
    assert row._fold.note == "1 changed"
