"""The contract of a technique, over every one that is registered; then what is particular to each."""

from __future__ import annotations

import ast
import atexit
import itertools
import json
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from typing import Any, get_args

import pytest
import torch
from tiny_models import SHAPES, as_draft, logits, onnx_draft, tiny_draft, tiny_module

from workbench.anatomy import find_blocks
from workbench.draft import PRECISIONS, Draft, ModelFacts
from workbench.errors import DataError, KnobError, Refused
from workbench.measure.layers import parameters, quantizable, sparsity
from workbench.registry import members
from workbench.techniques.base import Group, Need
from workbench.techniques.bf16 import Bf16
from workbench.techniques.drop_layers import DropLayers, dropped
from workbench.techniques.dynamic_int8 import DynamicInt8
from workbench.techniques.prune import Prune
from workbench.techniques.static_int8 import StaticInt8

ALL = list(members("techniques").values())
every = pytest.mark.parametrize("technique", ALL, ids=[t.name for t in ALL])
KEPT = "bert.encoder.layer.5.output.dense"
SPARSE = "bert.encoder.layer.0.output.dense"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))


def weights(module: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


# -- the contract ------------------------------------------------------------------------------------------------


def ordinary(**options: Any) -> Draft:
    """A draft of a tiny model. One layer is half zeros: a technique may ask for a model that is sparse already."""
    draft = tiny_draft(**options)
    with torch.no_grad():
        draft.module.get_submodule(SPARSE).weight[::2] = 0.0
    return draft


def quick(technique: Any) -> Any:
    """An instance that is done in a moment: two steps of training, four examples of calibration, another model where a
    folder is asked for."""
    short = {"steps": 2, "minutes": 5.0, "batch_size": 4, "samples": 4, "folder": other_model()}
    return technique(**{name: value for name, value in short.items() if name in technique.knobs()})


@cache
def other_model() -> str:
    """A folder with a model of the same shape and other weights."""
    folder = tempfile.mkdtemp(prefix="workbench-other-model-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    tiny_module("bert", initializer_range=0.3).save_pretrained(folder)
    return folder


@every
def test_describes_itself(technique: Any) -> None:
    assert technique.group in get_args(Group)
    assert technique.needs in get_args(Need)
    assert technique.precisions <= set(PRECISIONS)
    assert technique.phase in range(6)
    assert technique.source
    assert technique.excludes <= set(members("techniques"))
    summary, _, rest = (technique.__doc__ or "").partition("\n")
    assert summary.endswith("."), "the summary of a listing is the docstring's first line"
    assert len(summary) <= 110
    assert "Source:" in rest
    assert "Cost:" in rest
    assert "Helps" in rest


@every
def test_precision_techniques_come_last(technique: Any) -> None:
    assert bool(technique.precisions) == (technique.phase == 5)


@every
def test_survives_json_and_repr(technique: Any) -> None:
    for one in variants(technique):
        row = json.loads(json.dumps(one.to_json()))
        assert technique.make(**{k: v for k, v in row.items() if k != "name"}) == one
        call = ast.parse(repr(one), mode="eval").body
        assert isinstance(call, ast.Call)
        assert technique.make(**{k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg}) == one
        assert hash(one) == hash(technique.make(**one.settings()))


@every
def test_fits_an_ordinary_model(technique: Any) -> None:
    assert quick(technique).fits(ordinary().facts) is None


@every
def test_apply_gives_the_draft_back_and_is_deterministic(technique: Any) -> None:
    one, other = ordinary(), ordinary()
    assert quick(technique).apply(one) is one
    quick(technique).apply(other)
    assert one.plan == other.plan
    assert timeless(one.notes) == timeless(other.notes)
    assert one.kept == other.kept
    assert same(weights(one.module), weights(other.module))


def timeless(notes: list[str]) -> list[str]:
    """Notes without the minutes that a training took."""
    return [re.sub(r"[\d.]+ min", "", note) for note in notes]


@every
def test_changes_the_module_or_the_plan_and_only_training_both(technique: Any) -> None:
    draft = ordinary()
    before, answered = weights(draft.module), logits(draft.module)
    quick(technique).apply(draft)
    if technique.precisions and technique.needs != "training":
        # Scaling a layer's input and its weight against each other changes tensors, but not what the module computes.
        assert torch.allclose(logits(draft.module), answered, atol=1e-5)
    else:
        # What holds zeros that are there already changes what a later training does; what rewires changes the answer.
        changed = not same(before, weights(draft.module)) or not torch.equal(logits(draft.module), answered)
        assert changed or draft.masks
    planned = draft.plan.kinds() - {"fp32"}
    assert planned <= technique.precisions
    assert bool(planned) == bool(technique.precisions)


@every
def test_the_model_still_answers(technique: Any) -> None:
    draft = quick(technique).apply(ordinary())
    answer = logits(draft.module)
    assert answer.shape == (2, 2)
    assert torch.isfinite(answer).all()


@every
def test_kept_layers_stay_bit_identical(technique: Any) -> None:
    draft = ordinary(keep=("classifier", KEPT))
    before = [draft.module.get_submodule(name).weight.clone() for name in sorted(draft.kept)]
    quick(technique).apply(draft)
    assert len(draft.kept) == 2, "a kept layer may get a new name, it may not get lost"
    kept = [draft.module.get_submodule(name).weight for name in sorted(draft.kept, reverse=False)]
    assert all(torch.equal(a, b) for a, b in zip(before, kept, strict=True))
    assert not set(draft.plan.layers) & draft.kept


@every
def test_it_looks_at_data_only_where_it_says_so(technique: Any) -> None:
    for one in variants(technique, quick(technique)):
        draft = ordinary()
        draft.data = NoData()
        if one.asks == "nothing":
            assert one.apply(draft) is draft
        else:
            assert one.asks == technique.needs
            with pytest.raises(DataError, match="no training split"):
                one.apply(draft)


@every
def test_plans_only_layers_that_exist(technique: Any) -> None:
    draft = quick(technique).apply(ordinary())
    assert set(draft.plan.layers) <= set(quantizable(draft.module))


@every
def test_an_onnx_file_is_planned_or_refused_before_the_work(technique: Any) -> None:
    draft = onnx_draft()
    reason = quick(technique).fits(draft.facts)
    # Weight-only techniques plan precisions, but compute with the module's weights.
    assert technique.precisions or reason is not None, "there is no module to change"
    if reason is None:
        assert quick(technique).apply(draft).plan.kinds() - {"fp32"} == technique.precisions
    else:
        assert "ONNX" in reason
        assert technique.name in reason
        with pytest.raises(Refused, match="ONNX"):
            quick(technique).apply(draft)


@every
def test_a_draft_with_every_layer_kept_is_refused_or_says_so(technique: Any) -> None:
    draft = ordinary(keep=("*",))
    try:
        quick(technique).apply(draft)
        said = " ".join(draft.notes)
    except Refused as error:
        said = f"{error.what} {error.do}"
    assert "kept" in said


def test_importing_them_loads_no_framework() -> None:
    modules = [technique.__module__ for technique in ALL]
    code = (
        f"import sys, {', '.join(modules)}; print([m for m in ('torch', 'transformers', 'onnx') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def variants(technique: Any, default: Any = None) -> list[Any]:
    """The default, and one instance for every value that a search would try and every choice."""
    found = [default or technique()]
    for name, knob in technique.knobs().items():
        found += [found[0].replace(**{name: value}) for value in (*knob.search, *knob.choices)]
    return found


def test_all_three_kinds_together_follow_what_the_others_did() -> None:
    draft = tiny_draft(keep=("classifier", KEPT))
    for step in (DropLayers(count=2), Prune(sparsity=0.9), StaticInt8()):
        step.apply(draft)
    kept = {"classifier", "bert.encoder.layer.3.output.dense"}
    assert set(draft.plan.layers) == set(quantizable(draft.module)) - kept
    assert all(share == 0 for name, share in sparsity(draft.module).items() if name in kept)
    assert len(draft.notes) == 2


# -- precision plans -----------------------------------------------------------------------------------------------


def test_bf16_is_the_base_of_the_plan() -> None:
    draft = Bf16().apply(tiny_draft())
    assert draft.plan.base == "bf16"
    assert not draft.plan.layers
    assert not draft.notes


def test_bf16_says_that_kept_layers_run_in_it_too() -> None:
    assert "1 kept" in Bf16().apply(tiny_draft(keep=("classifier",))).notes[0]


@pytest.mark.parametrize("technique", [DynamicInt8, StaticInt8])
def test_int8_plans_every_layer_that_is_not_kept(technique: Any) -> None:
    draft = technique(per_channel=False).apply(tiny_draft(keep=("classifier",)))
    assert set(draft.plan.layers) == set(quantizable(draft.module)) - {"classifier"}
    assert not any(precision.per_channel for precision in draft.plan.layers.values())
    assert draft.plan.base == "fp32"


@pytest.mark.parametrize("technique", [DynamicInt8, StaticInt8])
def test_int8_does_not_fit_without_linear_layers(technique: Any) -> None:
    reason = technique().fits(ModelFacts("Embeddings"))
    assert reason is not None
    assert "linear" in reason
    assert "Embeddings" in reason


def test_static_int8_hands_its_calibration_to_the_plan() -> None:
    draft = StaticInt8(samples=17, symmetric=True, per_channel=False).apply(tiny_draft())
    precision = draft.plan.quantization()
    assert precision is not None
    assert (precision.calibration, precision.samples) == ("runtime", 17)
    assert precision.symmetric
    assert not precision.per_channel


def test_static_int8_without_calibration_examples_is_refused() -> None:
    with pytest.raises(Refused, match="dynamic_int8"):
        StaticInt8().apply(tiny_draft(examples=0))


def test_static_int8_passes_on_why_there_are_no_data() -> None:
    draft = tiny_draft()
    draft.data = NoData()
    with pytest.raises(DataError, match="no training split"):
        StaticInt8().apply(draft)
    assert not draft.plan.layers


class NoData:
    def calibration(self, samples: int) -> list[Any]:
        raise DataError("no training split")

    def training(self) -> Any:
        raise DataError("no training split")

    def key(self) -> str:
        return "none"


# -- dropping layers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("which", "count", "expected"),
    [
        ("spread", 1, (2,)),
        ("spread", 2, (1, 4)),
        ("spread", 3, (1, 2, 4)),
        ("spread", 4, (1, 2, 3, 4)),
        ("spread", 5, (1, 2, 3, 4, 5)),
        ("top", 2, (4, 5)),
        ("bottom", 2, (0, 1)),
        ("alternate", 1, (4,)),
        ("alternate", 2, (2, 4)),
        ("alternate", 3, (0, 2, 4)),
        ("alternate", 4, (0, 2, 3, 4)),
        ("alternate", 5, (0, 1, 2, 3, 4)),
    ],
)
def test_which_layers_go(which: str, count: int, expected: tuple[int, ...]) -> None:
    assert dropped(6, count, which) == expected


@pytest.mark.parametrize("which", DropLayers.knobs()["which"].choices)
@pytest.mark.parametrize("blocks", [2, 3, 6, 7, 12, 24, 48])
def test_exactly_so_many_layers_go(blocks: int, which: str) -> None:
    sets = [set(dropped(blocks, count, which)) for count in range(1, blocks)]
    assert [len(s) for s in sets] == list(range(1, blocks))
    assert all(s < set(range(blocks)) for s in sets)
    if which == "spread":
        assert not any({0, blocks - 1} & s for s in sets[:-1])
    else:
        assert all(a < b for a, b in itertools.pairwise(sets)), "one more layer, the others the same"


@pytest.mark.parametrize("which", DropLayers.knobs()["which"].choices)
@pytest.mark.parametrize("shape", SHAPES)
def test_layers_are_gone_and_the_rest_is_untouched(shape: str, which: str) -> None:
    draft = tiny_draft(shape)
    path, blocks = find_blocks(draft.module)
    survivors = [b for i, b in enumerate(draft.module.get_submodule(path)) if i not in dropped(blocks, 2, which)]
    before = [weights(block) for block in survivors]
    DropLayers(count=2, which=which).apply(draft)
    assert find_blocks(draft.module) == (path, 4)
    after = draft.module.get_submodule(path)
    assert all(same(a, weights(b)) for a, b in zip(before, after, strict=True))
    assert parameters(draft.module) < draft.facts.parameters
    places = {vars(m)["layer_idx"] for i, b in enumerate(after) for m in b.modules() if "layer_idx" in vars(m)}
    assert places in (set(), {0, 1, 2, 3})


@pytest.mark.parametrize("shape", SHAPES)
def test_a_model_built_from_the_saved_config_answers_the_same(shape: str, tmp_path: Any) -> None:
    draft = DropLayers(count=3).apply(tiny_draft(shape))
    assert draft.module.config.num_hidden_layers == 3
    draft.module.save_pretrained(tmp_path)
    again, info = type(draft.module).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert torch.equal(logits(again.eval()), logits(draft.module))


def test_the_layers_that_stay_can_be_named() -> None:
    draft = tiny_draft()
    before = [weights(draft.module.bert.encoder.layer[i]) for i in (0, 3, 5)]
    DropLayers(layers="5, 0 3").apply(draft)
    after = draft.module.bert.encoder.layer
    assert all(same(a, weights(b)) for a, b in zip(before, after, strict=True))
    assert draft.blocks == (0, 3, 5)
    assert "removed layers 1, 2, 4" in draft.notes[0]


def test_equal_lists_of_layers_are_equal_recipes() -> None:
    one, other = DropLayers(layers="3,0", count=1, which="top"), DropLayers(layers=" 0 3 3")
    assert one == other
    assert one.layers == "0 3"


@pytest.mark.parametrize("layers", ["a", "0 -1", ",", "1.5"])
def test_layers_that_are_no_places_are_refused(layers: str) -> None:
    with pytest.raises(KnobError, match="places such as"):
        DropLayers(layers=layers)


@pytest.mark.parametrize(("layers", "word"), [("0 6", "cannot keep layer 6"), ("0 1 2 3 4 5", "all of the 6")])
def test_layers_that_do_not_fit_are_refused(layers: str, word: str) -> None:
    reason = DropLayers(layers=layers).fits(tiny_draft().facts)
    assert reason is not None
    assert word in reason


def test_lists_with_one_entry_a_layer_follow() -> None:
    draft = tiny_draft("modernbert")
    before = list(draft.module.config.layer_types)
    DropLayers(count=2, which="alternate").apply(draft)
    assert draft.module.config.layer_types == [before[i] for i in (0, 1, 3, 5)]
    assert len(set(before)) > 1


def test_a_config_that_cannot_describe_the_rest_is_refused() -> None:
    # ModernBERT builds its first layer without a norm: no other layer can take its place.
    with pytest.raises(Refused, match=r"layers\.0\.attn_norm"):
        DropLayers(which="bottom").apply(tiny_draft("modernbert"))


def test_kept_layers_are_followed_to_their_new_names() -> None:
    draft = DropLayers(count=2).apply(tiny_draft(keep=("classifier", KEPT)))
    assert draft.kept == {"classifier", "bert.encoder.layer.3.output.dense"}


def test_a_kept_layer_inside_a_dropped_one_is_refused() -> None:
    draft = tiny_draft(keep=("*.layer.4.*",))
    before = weights(draft.module)
    with pytest.raises(Refused, match=r"bert\.encoder\.layer\.4\."):
        DropLayers(count=2).apply(draft)
    assert same(before, weights(draft.module)), "a refusal must come before the module is touched"


def test_a_module_without_config_can_lose_layers() -> None:
    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(4))

    draft = DropLayers(count=1).apply(as_draft(Plain()))
    assert len(draft.module.blocks) == 3


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        (ModelFacts("Mlp", layers=("a",)), "no list of transformer layers"),
        (ModelFacts("Bert", blocks=2), "at most 1"),
        (ModelFacts("onnx", has_module=False, blocks=6), "ONNX"),
    ],
)
def test_dropping_layers_does_not_fit(facts: ModelFacts, word: str) -> None:
    reason = DropLayers(count=2).fits(facts)
    assert reason is not None
    assert word in reason
