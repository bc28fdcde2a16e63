"""Token pruning: scores and selection against NumPy, a whole layer against NumPy, and what the rewired module keeps."""

from __future__ import annotations

import copy
import importlib.util
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import Examples, as_draft, logits, tiny_draft, tiny_module

import workbench
from workbench.backends.base import collate
from workbench.draft import Draft, ModelFacts
from workbench.errors import Refused
from workbench.loading.structure import load_module, save_module
from workbench.measure.layers import macs
from workbench.registry import find
from workbench.shortening import flow_of, gathered, kept_tokens, ranked, real, received
from workbench.techniques.distil import Distil, of_tokens
from workbench.techniques.drop_layers import DropLayers
from workbench.techniques.prune import Prune
from workbench.techniques.prune_tokens import PruneTokens, schedule
from workbench.techniques.smooth_quant import SmoothQuant
from workbench.techniques.static_int8 import StaticInt8

TEXT = ("bert", "distilbert", "roberta", "electra")
#: Wide weights, so that attention is uneven and every token changes the answer.
WIDE = {"initializer_range": 0.3}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))


def batch(length: int = 12) -> dict[str, torch.Tensor]:
    """Four texts of three to six tokens, padded to `length`."""
    arrays = collate(Examples(4).calibration(4), length, {})
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def answers(module: Any, inputs: dict[str, torch.Tensor], **more: Any) -> Any:
    with torch.no_grad():
        return module(**inputs, **more)


def lengths(module: Any, inputs: dict[str, torch.Tensor]) -> list[int]:
    """Tokens in every hidden state."""
    return [state.shape[1] for state in answers(module, inputs, output_hidden_states=True).hidden_states]


# -- the maths -------------------------------------------------------------------------------------------------------


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize(
    ("kind", "expected"), [("linear", [900, 800, 700, 600, 500]), ("geometric", [871, 758, 660, 574, 500])]
)
def test_the_schedule_reaches_its_share(kind: str, expected: list[int]) -> None:
    assert schedule(0.5, 5, kind) == expected
    assert schedule(1.0, 3, kind) == [1000, 1000, 1000]


def test_importance_is_the_attention_received_from_real_tokens() -> None:
    weights = softmax(np.random.default_rng(0).normal(size=(2, 3, 5, 5)))
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=bool)
    expected = np.zeros((2, 5))
    for text in range(2):
        for token in range(5):
            heads = [weights[text, head, query, token] for head in range(3) for query in np.flatnonzero(mask[text])]
            expected[text, token] = np.mean(heads)
    given = received(torch.from_numpy(weights), torch.from_numpy(mask))
    np.testing.assert_allclose(given, expected, rtol=1e-5)


def test_the_first_token_comes_first_and_padding_last() -> None:
    score = torch.tensor([[0.0, 0.1, 0.4, 0.9, 0.2]])
    assert ranked(score, None).tolist() == [[0, 3, 2, 4, 1]]
    mask = torch.tensor([[True, True, True, False, False]])
    assert ranked(score, mask)[0, :3].tolist() == [0, 2, 1]
    assert ranked(torch.zeros(1, 5), mask)[0, :3].sort().values.tolist() == [0, 1, 2], "a score of 0 is still a token"


def test_tokens_are_gathered_row_by_row() -> None:
    values = torch.arange(24.0).reshape(2, 4, 3)
    places = torch.tensor([[0, 3], [2, 1]])
    assert torch.equal(gathered(values, places), torch.stack([values[0][[0, 3]], values[1][[2, 1]]]))


def test_every_form_of_mask_says_the_same() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    for form in (mask, mask.bool()[:, None, None], (mask[:, None, None] - 1.0) * 1e9):
        assert torch.equal(real(form), mask.bool())
    assert real(None) is None


@pytest.mark.parametrize("queries", ["all", "first"])
def test_a_layer_is_the_papers_formula(queries: str) -> None:
    """Attention, importance, selection and feed-forward network of one text in plain NumPy."""
    module = tiny_module("bert", num_hidden_layers=2, **WIDE)
    text = torch.arange(3, 11)[None]
    states = answers(module, {"input_ids": text}, output_hidden_states=True).hidden_states
    part = {name: tensor.double().numpy() for name, tensor in module.bert.encoder.layer[1].state_dict().items()}
    x = states[1][0].double().numpy()

    def linear(name: str, values: np.ndarray) -> np.ndarray:
        return values @ part[f"{name}.weight"].T + part[f"{name}.bias"]

    def norm(name: str, values: np.ndarray) -> np.ndarray:
        centred = values - values.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + module.config.layer_norm_eps)
        return scaled * part[f"{name}.weight"] + part[f"{name}.bias"]

    q, k, v = (linear(f"attention.self.{one}", x).reshape(8, 2, 8).swapaxes(0, 1) for one in ("query", "key", "value"))
    weights = softmax(q @ k.swapaxes(1, 2) / np.sqrt(8))
    context = (weights @ v).swapaxes(0, 1).reshape(8, 16)
    after = norm("attention.output.LayerNorm", linear("attention.output.dense", context) + x)
    importance = weights.mean(axis=0).mean(axis=0) if queries == "all" else weights.mean(axis=0)[0]
    importance[0] = np.inf
    left = after[np.argsort(-importance)[:4]]
    inner = linear("intermediate.dense", left)
    gelu = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / np.sqrt(2)))
    expected = norm("output.LayerNorm", linear("output.dense", gelu) + left)

    draft = PruneTokens(share=0.5, first=1, last=False, queries=queries).apply(as_draft(module))
    given = answers(draft.module, {"input_ids": text}, output_hidden_states=True).hidden_states[2]
    np.testing.assert_allclose(given[0].numpy(), expected, atol=2e-4)


# -- the rewired module --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", TEXT)
def test_every_layer_hands_on_its_share(shape: str) -> None:
    draft = PruneTokens(share=0.25, first=0, last=False).apply(tiny_draft(shape))
    # Of 12 tokens ceil(0.875 * 12), ceil(0.75 * 12) …
    assert lengths(draft.module, batch(12)) == [12, *(int(np.ceil(12 * s / 8)) for s in (7, 6, 5, 4, 3, 2))]
    assert "12.5 %" not in draft.notes[0]
    assert "25 %" in draft.notes[0]
    assert list(draft.module.state_dict()) == list(tiny_module(shape).state_dict()), "no name and no tensor changes"


@pytest.mark.parametrize("shape", TEXT)
@pytest.mark.parametrize("queries", ["all", "first"])
def test_the_whole_share_answers_as_before(shape: str, queries: str) -> None:
    inputs = batch()
    module = tiny_module(shape, **WIDE)
    before = answers(module, inputs).logits
    same = PruneTokens(share=1.0, queries=queries, last=False).apply(as_draft(copy.deepcopy(module)))
    assert torch.equal(answers(same.module, inputs).logits, before)
    # Nothing but the first token is read behind the last layer.
    exact = PruneTokens(share=1.0, queries=queries).apply(as_draft(copy.deepcopy(module)))
    torch.testing.assert_close(answers(exact.module, inputs).logits, before, atol=1e-5, rtol=1e-5)
    assert lengths(exact.module, inputs)[-1] == 1


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("queries", ["all", "first"])
def test_padding_goes_first_and_changes_nothing(attention: str, queries: str) -> None:
    """A text of six tokens, padded to twelve, of which half are left, answers as it does whole."""
    module = tiny_module("bert", **WIDE)
    module.config._attn_implementation = attention
    text = {name: tensor[3:] for name, tensor in batch(12).items()}
    assert int(text["attention_mask"].sum()) == 6
    before = answers(module, text).logits
    draft = PruneTokens(share=0.5, queries=queries, last=False).apply(as_draft(module))
    assert lengths(draft.module, text)[-1] == 6
    torch.testing.assert_close(answers(draft.module, text).logits, before, atol=1e-4, rtol=1e-4)


def test_fewer_tokens_change_the_answer_and_cost_less() -> None:
    whole, draft = tiny_module("bert", **WIDE), PruneTokens(share=0.25).apply(tiny_draft("bert", **WIDE))
    assert not torch.allclose(logits(draft.module), logits(whole), atol=1e-3)
    one = {"input_ids": torch.ones(1, 16, dtype=torch.long)}
    assert macs(draft.module, one) < 0.75 * macs(whole, one)


def test_the_first_layers_are_left_alone() -> None:
    draft = PruneTokens(share=0.5, first=3, last=False).apply(tiny_draft())
    # Thousandths: ceil(0.833 * 12), ceil(0.667 * 12), ceil(0.5 * 12).
    assert lengths(draft.module, batch(12)) == [12, 12, 12, 12, 10, 9, 6]


@pytest.mark.parametrize("shape", TEXT)
def test_it_survives_the_disk_and_a_copy(shape: str, tmp_path: Path) -> None:
    draft = PruneTokens(share=0.3, queries="first").apply(tiny_draft(shape, **WIDE))
    wanted = answers(draft.module, batch()).logits
    save_module(draft.module, None, tmp_path)
    assert torch.equal(answers(load_module(tmp_path), batch()).logits, wanted)
    twin = copy.deepcopy(draft.module)
    assert flow_of(twin) is not flow_of(draft.module)
    assert flow_of(twin).config is twin.config
    assert torch.equal(answers(twin, batch()).logits, wanted)


def test_an_exported_folder_drops_the_same_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader that goes with it has only a copy of the rewiring beside it."""
    package = Path(workbench.__file__).parent
    shutil.copy(package / "shortening.py", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    spec = importlib.util.spec_from_file_location("standalone_eager", package / "standalone" / "eager.py")
    assert spec is not None
    assert spec.loader is not None
    standalone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(standalone)
    draft = PruneTokens(share=0.3).apply(tiny_draft(**WIDE))
    save_module(draft.module, None, tmp_path / "model")
    call = standalone.load(tmp_path / "model", {"base": "fp32", "int8": []}, 1)
    given = call({name: tensor.numpy() for name, tensor in batch().items()})
    monkeypatch.delitem(sys.modules, "shortening")
    np.testing.assert_allclose(given, answers(draft.module, batch()).logits, atol=1e-6)


def test_it_survives_what_other_steps_do() -> None:
    """Dropped layers before, masks and scaled inputs after; every layer is planned."""
    draft = tiny_draft(examples=8, **WIDE)
    for step in (
        DropLayers(count=2),
        PruneTokens(share=0.5, first=0),
        Prune(score="wanda", samples=8),
        SmoothQuant(samples=4),
    ):
        step.apply(draft)
    StaticInt8(calibration="minmax", samples=4).apply(draft)
    assert lengths(draft.module, batch(12)) == [12, 10, 9, 6, 1]
    assert all(one.input_range for one in draft.plan.layers.values())


# -- with distillation -----------------------------------------------------------------------------------------------


def test_the_teachers_states_are_those_of_the_students_tokens() -> None:
    draft = PruneTokens(share=0.4, first=0).apply(tiny_draft(**WIDE))
    inputs = batch(8)
    with torch.enable_grad():
        states = draft.module(**inputs, output_hidden_states=True).hidden_states
    kept = kept_tokens(draft.module, 6)
    assert kept[0] is None
    assert [place.shape[1] for place in kept[1:]] == [state.shape[1] for state in states[1:]]
    assert kept[-1].tolist() == [[0]] * 4
    for place in kept[1:]:
        assert (place[:, 0] == 0).all()
        assert all(len(set(row)) == len(row) for row in place.tolist())
    # Word embeddings of the tokens that are left are found among all of them.
    words = draft.module.bert.embeddings.word_embeddings(inputs["input_ids"])
    some, there = of_tokens(words, inputs["attention_mask"], kept[3])
    for row in range(4):
        assert torch.equal(some[row], words[row][kept[3][row]])
        assert torch.equal(there[row], inputs["attention_mask"][row][kept[3][row]])


def test_a_student_with_fewer_tokens_learns_from_hidden_states() -> None:
    draft, inputs = PruneTokens(share=0.5).apply(DropLayers(count=3).apply(tiny_draft(examples=60, **WIDE))), batch(8)
    teacher = answers(tiny_module("bert", **WIDE), inputs).logits
    before = float((answers(draft.module, inputs).logits - teacher).abs().mean())
    Distil(steps=60, minutes=5, batch_size=8, learning_rate=3e-3, temperature=1.0).apply(draft)
    assert lengths(draft.module, inputs)[-1] == 1
    assert float((answers(draft.module, inputs).logits - teacher).abs().mean()) < 0.9 * before


def test_what_cannot_be_compared_is_refused() -> None:
    draft = PruneTokens().apply(tiny_draft())
    with pytest.raises(Refused, match="relations=0"):
        Distil(relations=1.0).part(draft)
    with pytest.raises(Refused, match="drops tokens itself"):
        Distil(teacher="self").part(draft)
    Distil(teacher="self", hidden=0.0).part(draft)


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "word"),
    [
        ("LlamaForCausalLM", "language models"),
        ("BertForQuestionAnswering", "question"),
        ("ViTForImageClassification", "images"),
    ],
)
def test_answers_that_need_more_tokens_do_not_fit(architecture: str, word: str) -> None:
    reason = PruneTokens().fits(ModelFacts(architecture, layers=("a",), blocks=6))
    assert reason is not None
    assert word in reason


def test_a_classifier_that_reads_every_token_is_refused() -> None:
    draft = tiny_draft()
    draft.module.bert.pooler.forward = lambda states: states.mean(dim=1)
    with pytest.raises(Refused, match="needs every token"):
        PruneTokens().apply(draft)
    assert flow_of(draft.module) is None


def test_layers_with_the_norm_before_them_are_refused() -> None:
    import transformers as t

    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = t.RobertaPreLayerNormConfig(**sizes, intermediate_size=24, max_position_embeddings=32)
    draft = as_draft(t.RobertaPreLayerNormForSequenceClassification(config).eval())
    with pytest.raises(Refused, match=r"norm|every token"):
        PruneTokens(first=0).apply(draft)
    assert flow_of(draft.module) is None


@pytest.mark.parametrize("settings", [{"first": 6}, {"first": 5}, {"first": 20, "last": False}])
def test_too_few_layers_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="no layer to drop tokens in"):
        PruneTokens(**settings).apply(tiny_draft())


def test_twice_is_refused() -> None:
    with pytest.raises(Refused, match="already"):
        PruneTokens().apply(PruneTokens().apply(tiny_draft()))


# -- runtimes --------------------------------------------------------------------------------------------------------

HEAD = ("classifier", "bert.pooler.dense")
SMALL = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, **WIDE}


def lowered(name: str, draft: Draft, folder: Path, **knobs: Any) -> Any:
    backend = find("backends", name).make(threads=1, sequence=16, **knobs)
    backend.lower(draft, folder)
    return backend.load(folder)


def small(queries: str, int8: bool) -> Draft:
    # Of so few numbers OpenVINO computes the head in FP32 where shapes are fixed, whatever its plan.
    draft = tiny_draft(examples=8, keep=HEAD, **SMALL)
    PruneTokens(share=0.5, first=0, queries=queries, last=False).apply(draft)
    return StaticInt8(calibration="minmax", samples=8).apply(draft) if int8 else draft


@pytest.mark.parametrize(
    ("name", "queries", "int8", "knobs"),
    [
        ("eager", "all", False, {}),
        ("onnxruntime", "first", True, {}),
        ("openvino", "all", False, {}),
        ("openvino", "first", True, {}),
        ("openvino", "all", True, {"shapes": "fixed", "batch": 4}),
        pytest.param("onnxruntime", "all", False, {}, marks=pytest.mark.slow),
        pytest.param("compiled", "all", False, {}, marks=pytest.mark.slow),
        pytest.param("compiled", "first", True, {"shapes": "fixed", "batch": 4}, marks=pytest.mark.slow),
    ],
)
def test_every_runtime_drops_the_same_tokens(
    name: str, queries: str, int8: bool, knobs: dict[str, Any], tmp_path: Path
) -> None:
    draft = small(queries, int8)
    runner = lowered(name, draft, tmp_path, **knobs)
    for length in (16,) if knobs else (6, 11, 16):
        inputs = batch(length)
        wanted = answers(draft.module, inputs).logits.numpy()
        given = runner({key: tensor.numpy() for key, tensor in inputs.items()})
        assert np.abs(given - wanted).max() <= (0.35 if int8 else 1e-3) * np.ptp(wanted)
    effect = runner.effect()
    kinds = {name: "int8" if int8 and name not in HEAD else "fp32" for name in effect.layers}
    assert effect.layers == kinds
    if name == "onnxruntime":
        assert effect.nodes.get("MultiHeadAttention", 0) == (2 if queries == "first" else 0)
