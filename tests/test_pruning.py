"""Unstructured pruning: scores against the papers' formulas in NumPy, patterns, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import Examples, as_draft, tiny_draft, tiny_module

from workbench.draft import Draft
from workbench.errors import DataError, KnobError, Refused
from workbench.measure.layers import nonzero_parameters, quantizable, sparsity
from workbench.techniques import _scores
from workbench.techniques._observe import batches
from workbench.techniques._patterns import Pattern, mask, parse
from workbench.techniques.lock_masks import LockMasks
from workbench.techniques.prune import Prune, gradient_scores, input_norms
from workbench.training import Pace, train

random = np.random.default_rng(0)
LAYER = "bert.encoder.layer.1.intermediate.dense"
SINGLE = parse("1x1")


def tensor(*shape: int) -> torch.Tensor:
    return torch.from_numpy(random.normal(size=shape).astype(np.float32))


def near(found: torch.Tensor, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-4, atol=1e-7)


# -- scores ----------------------------------------------------------------------------------------------------------


def test_scores_are_the_papers_formulas() -> None:
    weight, grad, norms = tensor(3, 4), tensor(3, 4), tensor(4).abs()
    w, g, x = weight.numpy(), grad.numpy(), norms.numpy()
    near(_scores.magnitude(weight), np.abs(w))
    near(_scores.gradient(weight, grad), np.abs(w * g))
    near(_scores.wanda(weight, norms), np.abs(w) * x[None, :])


def test_snip_momentum_is_neural_compressors_recursion() -> None:
    score, expected = torch.zeros(2, 3), np.zeros((2, 3))
    for _ in range(5):
        weight, grad = tensor(2, 3), tensor(2, 3)
        score = _scores.snip_momentum(score, weight, grad)
        expected *= 0.9
        expected += 1.0 * np.abs(weight.numpy() * grad.numpy())
    near(score, expected)


def test_movement_is_high_for_weights_that_grow() -> None:
    # Gradient descent adds -g: a positive weight with a negative gradient moves away from zero.
    weight = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    grad = torch.tensor([[-1.0, 1.0, 1.0, -1.0]])
    assert _scores.movement(torch.zeros(1, 4), weight, grad).tolist() == [[1.0, -1.0, 1.0, -1.0]]
    steps = [(tensor(2, 2), tensor(2, 2)) for _ in range(3)]
    score = torch.zeros(2, 2)
    for weight, grad in steps:
        score = _scores.movement(score, weight, grad)
    near(score, -sum(w.numpy() * g.numpy() for w, g in steps))


def plain_forward(draft: Draft, layer: str, samples: int) -> np.ndarray:
    """Every real token that `layer` takes, one example at a time and so without padding: (tokens, in)."""
    seen: list[np.ndarray] = []
    handle = draft.module.get_submodule(layer).register_forward_hook(
        lambda part, args, output: seen.append(args[0].detach().reshape(-1, args[0].shape[-1]).numpy())
    )
    for example in draft.data.calibration(samples):
        with torch.no_grad():
            draft.module(**{name: torch.tensor([row]) for name, row in example.items()})
    handle.remove()
    return np.concatenate(seen)


@pytest.mark.parametrize("layer", [LAYER, "classifier"])
def test_input_norms_leave_padding_out(layer: str) -> None:
    draft = tiny_draft(examples=9)
    expected = np.sqrt((plain_forward(draft, layer, 7).astype(np.float64) ** 2).sum(axis=0))
    near(input_norms(draft, [layer], 7)[layer].float(), expected)


def loss_by_hand(draft: Draft, samples: int) -> Any:
    """The mean cross-entropy, one example at a time."""
    examples, targets = draft.data.training()
    total = 0.0
    for example, target in zip(examples[:samples], targets[:samples], strict=True):
        logits = draft.module(**{name: torch.tensor([row]) for name, row in example.items()}).logits[0]
        total = total - logits.log_softmax(dim=0)[int(target)]
    return total / samples


def test_gradient_scores_are_of_the_mean_loss_of_all_examples() -> None:
    draft = tiny_draft(examples=80, initializer_range=0.3)
    weight = draft.module.get_submodule(LAYER).weight
    (grad,) = torch.autograd.grad(loss_by_hand(draft, 50), [weight])
    found = gradient_scores(draft, {LAYER: weight}, 50, momentum=False)[LAYER]
    np.testing.assert_allclose(found.numpy(), np.abs((weight * grad).detach().numpy()), rtol=1e-3, atol=1e-8)


def test_snip_momentum_takes_batch_after_batch() -> None:
    draft = tiny_draft(examples=40, initializer_range=0.3)
    weight = draft.module.get_submodule(LAYER).weight
    expected = np.zeros(tuple(weight.shape))
    data = batches(draft, 40, labels=True)
    assert [len(batch.rows) for batch in data] == [32, 8]
    for batch in data:
        loss = torch.nn.functional.cross_entropy(draft.module(**batch.inputs).logits, batch.targets)
        (grad,) = torch.autograd.grad(loss, [weight])
        expected = 0.9 * expected + np.abs((weight * grad).detach().numpy())
    near(gradient_scores(draft, {LAYER: weight}, 40, momentum=True)[LAYER], expected)


def test_unlabelled_examples_stand_for_the_models_own_answer() -> None:
    class Unlabelled(Examples):
        def training(self) -> Any:
            examples, targets = super().training()
            return examples, np.full_like(targets, -1)

    draft = tiny_draft()
    draft.data = Unlabelled(8)
    score = gradient_scores(draft, {LAYER: draft.module.get_submodule(LAYER).weight}, 8, momentum=False)[LAYER]
    assert float(score.sum()) > 0


# -- patterns --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["global", "local", "row"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.99])
def test_mask_has_the_exact_number_of_zeros(share: float, scope: str) -> None:
    scores = {"a": tensor(7, 11).abs(), "b": 10 * tensor(13, 5).abs()}
    masks = mask(scores, SINGLE, share, scope)
    assert {name: one.shape for name, one in masks.items()} == {name: t.shape for name, t in scores.items()}
    counts = {name: int(one.sum()) for name, one in masks.items()}
    if scope == "row":
        assert {n: set(one.sum(dim=1).tolist()) for n, one in masks.items()} == {
            "a": {round(share * 11)},
            "b": {round(share * 5)},
        }
    elif scope == "local":
        assert counts == {"a": round(share * 77), "b": round(share * 65)}
    else:
        assert sum(counts.values()) == round(share * 142)
        pruned = torch.cat([scores[n][masks[n]] for n in scores])
        left = torch.cat([scores[n][~masks[n]] for n in scores])
        assert not pruned.numel() or pruned.max() <= left.min()


@pytest.mark.parametrize("scope", ["local", "row"])
def test_the_lowest_scores_go(scope: str) -> None:
    score = tensor(6, 8)
    found = mask({"a": score}, SINGLE, 0.25, scope)["a"].numpy()
    values = score.numpy()
    for rows in [slice(0, 6)] if scope == "local" else [slice(i, i + 1) for i in range(6)]:
        part, gone = values[rows], found[rows]
        assert gone.sum() == part.size // 4
        assert part[gone].max() < part[~gone].min()


def test_global_and_local_masks_differ_where_layers_have_different_scales() -> None:
    scores = {"small": torch.full((4, 4), 0.1), "large": torch.full((4, 4), 5.0)}
    assert mask(scores, SINGLE, 0.5, "global")["small"].all()
    assert not mask(scores, SINGLE, 0.5, "global")["large"].any()
    assert int(mask(scores, SINGLE, 0.5, "local")["large"].sum()) == 8


def test_ties_go_by_position() -> None:
    found = mask({"a": torch.tensor([[1.0, 1.0, 0.5], [1.0, 2.0, 1.0]])}, SINGLE, 0.5)["a"]
    assert found.tolist() == [[True, True, True], [False, False, False]]
    assert mask({"a": torch.ones(2, 4)}, SINGLE, 0.5, "row")["a"].tolist() == [[True, True, False, False]] * 2
    assert mask({"a": torch.ones(1, 8)}, parse("2:4"), 0.5)["a"].tolist() == [[True, True, False, False] * 2]
    first, second = mask({"a": torch.ones(1, 3), "b": torch.ones(1, 3)}, SINGLE, 0.5, "global").values()
    assert first.all()
    assert not second.any()


def test_nan_is_not_taken_for_small() -> None:
    nan = float("nan")
    assert mask({"a": torch.tensor([[nan, 3.0, 1.0, 2.0]])}, SINGLE, 0.5)["a"].tolist() == [[False, False, True, True]]
    assert mask({"a": torch.tensor([[nan, nan, 1.0, nan]])}, SINGLE, 0.5)["a"].tolist() == [[True, False, True, False]]
    assert mask({"a": torch.tensor([[nan, 3.0], [1.0, 2.0]])}, parse("2x1"), 0.5)["a"].tolist() == [[False, True]] * 2
    assert mask({"a": torch.tensor([[nan, nan, nan, 0.0]])}, parse("1:4"), 0.75)["a"].sum() == 3


@pytest.mark.parametrize(("text", "stay", "width"), [("2:4", 2, 4), ("1:4", 1, 4), ("4:8", 4, 8), ("1:3", 1, 3)])
@pytest.mark.parametrize("scope", ["local", "global", "row"])
def test_n_of_m_neighbours_stay(text: str, stay: int, width: int, scope: str) -> None:
    score = tensor(5, 24)
    found = mask({"a": score}, parse(text), 1 - stay / width, scope)["a"].numpy()
    groups, gone = score.numpy().reshape(-1, width), found.reshape(-1, width)
    for values, zeros in zip(groups, gone, strict=True):
        assert sorted(np.flatnonzero(zeros)) == sorted(np.argsort(values)[: width - stay])


def test_on_the_way_to_n_of_m_only_what_may_go_goes() -> None:
    score = tensor(4, 16)
    whole, part = (mask({"a": score}, parse("2:4"), share)["a"] for share in (0.5, 0.25))
    assert int(part.sum()) == 16
    assert not (part & ~whole).any()
    values = score[whole]
    assert torch.equal(score[part].sort().values, values.sort().values[:16])


@pytest.mark.parametrize(("text", "rows", "columns"), [("4x1", 4, 1), ("1x4", 1, 4), ("2x3", 2, 3)])
def test_blocks_go_together(text: str, rows: int, columns: int) -> None:
    score = tensor(8, 12).abs()
    found = mask({"a": score}, parse(text), 0.5)["a"].numpy()
    blocks = {
        (i, j): (float(score[i : i + rows, j : j + columns].sum()), found[i : i + rows, j : j + columns])
        for i in range(0, 8, rows)
        for j in range(0, 12, columns)
    }
    assert all(zeros.all() or not zeros.any() for _, zeros in blocks.values())
    gone = [total for total, zeros in blocks.values() if zeros.all()]
    assert len(gone) == round(0.5 * len(blocks))
    assert max(gone) < min(total for total, zeros in blocks.values() if not zeros.any())


@pytest.mark.parametrize("text", ["", "2", "0x1", "4:2", "4:4", "0:4", "2:4 ", "axb", "4x"])
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(KnobError, match="pattern"):
        Prune(pattern=text)


def test_patterns_are_written_as_they_are_read() -> None:
    assert [str(parse(text)) for text in ("1x1", "4x1", "2:4")] == ["1x1", "4x1", "2:4"]
    assert parse("4x1") == Pattern(4, 1)


@pytest.mark.parametrize(("text", "share", "words"), [("2:4", 0.6, "no more than 0.5"), ("5x1", 0.5, "not divide")])
def test_masks_that_cannot_be(text: str, share: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mask({"a": tensor(4, 4)}, parse(text), share)


# -- the technique ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", Prune.knobs()["score"].choices)
@pytest.mark.parametrize("pattern", ["1x1", "2:4", "4x1"])
def test_every_score_with_every_pattern(score: str, pattern: str) -> None:
    draft = Prune(score=score, pattern=pattern, samples=8).apply(tiny_draft(examples=8, keep=("classifier",)))
    layers = quantizable(draft.module)
    assert sparsity(draft.module) == pytest.approx({n: 0.0 if n == "classifier" else 0.5 for n in layers}, abs=1e-6)
    assert set(draft.masks) == set(layers) - {"classifier"}
    for name, zeros in draft.masks.items():
        weight = draft.module.get_submodule(name).weight
        assert torch.equal(weight == 0, zeros)
    assert all(p.requires_grad and p.grad is None for p in draft.module.parameters())


def test_scores_choose_differently() -> None:
    masks = [
        Prune(score=score, scope="local").apply(tiny_draft(examples=40)).masks[LAYER]
        for score in Prune.knobs()["score"].choices
    ]
    assert all(not torch.equal(one, other) for i, one in enumerate(masks) for other in masks[:i])


def test_wanda_compares_the_weights_of_one_output() -> None:
    draft = tiny_draft(examples=8)
    norms = np.sqrt((plain_forward(draft, LAYER, 8).astype(np.float64) ** 2).sum(axis=0))
    score = np.abs(draft.module.get_submodule(LAYER).weight.detach().numpy()) * norms
    expected = np.zeros(score.shape, dtype=bool)
    for row, values in enumerate(score):
        expected[row, np.argsort(values)[:8]] = True
    Prune(score="wanda", samples=8).apply(draft)
    assert np.array_equal(draft.masks[LAYER].numpy(), expected)


def test_pruning_counts_zeros_in_the_module_and_says_what_they_are_not() -> None:
    draft = tiny_draft()
    dense = nonzero_parameters(draft.module)
    Prune(sparsity=0.5, scope="global").apply(draft)
    total = sum(layer.weight.numel() for layer in quantizable(draft.module).values())
    assert dense - nonzero_parameters(draft.module) == round(0.5 * total)
    assert "no faster" in draft.notes[0]
    assert f"{round(0.5 * total)} of {total}" in draft.notes[0]
    assert "no faster" in Prune().note


def test_a_second_pruning_counts_the_zeros_of_the_first() -> None:
    draft = Prune(sparsity=0.3).apply(tiny_draft(examples=8))
    first = draft.masks[LAYER].clone()
    Prune(sparsity=0.6, score="gradient").apply(draft)
    assert float(draft.masks[LAYER].float().mean()) == pytest.approx(0.6, abs=0.01)
    assert not (first & ~draft.masks[LAYER]).any()


def test_a_weight_shared_with_a_kept_layer_is_not_pruned() -> None:
    module = tiny_module("bert")
    module.classifier.weight = torch.nn.Parameter(torch.randn(16, 16))
    module.bert.pooler.dense.weight = module.classifier.weight
    draft = as_draft(module, keep=("classifier",))
    before = module.classifier.weight.clone()
    Prune(sparsity=0.9).apply(draft)
    assert torch.equal(module.classifier.weight, before)


def test_a_transposed_layer_is_pruned_along_its_inputs() -> None:
    from transformers.pytorch_utils import Conv1D

    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = Conv1D(3, 8)

    module = Small()
    Prune(pattern="2:4").apply(as_draft(module))
    assert tuple(module.one.weight.shape) == (8, 3)
    assert ((module.one.weight.T.reshape(3, 2, 4) == 0).sum(dim=2) == 2).all()


@pytest.mark.parametrize("value", [-0.1, 1.0, "half"])
def test_impossible_sparsity_is_refused(value: Any) -> None:
    with pytest.raises(KnobError, match="sparsity"):
        Prune(sparsity=value)


def test_a_pattern_that_fixes_another_sparsity_is_refused_before_the_work() -> None:
    reason = Prune(pattern="1:4").fits(tiny_draft().facts)
    assert reason is not None
    assert "fixes the sparsity at 0.75" in reason
    assert Prune(pattern="1:4", sparsity=0.75).fits(tiny_draft().facts) is None
    assert Prune(pattern="1:3", sparsity=0.667).fits(tiny_draft().facts) is None
    with pytest.raises(Refused, match="fixes the sparsity"):
        Prune(pattern="2:4", sparsity=0.7).apply(tiny_draft())


def test_a_layer_left_empty_is_refused_with_its_name() -> None:
    draft = tiny_draft()
    with torch.no_grad():
        draft.module.get_submodule(LAYER).weight.mul_(1e-6)
    before = draft.module.get_submodule(LAYER).weight.clone()
    with pytest.raises(Refused, match=LAYER):
        Prune(scope="global").apply(draft)
    assert torch.equal(draft.module.get_submodule(LAYER).weight, before), "refused before the module is touched"
    with pytest.raises(Refused, match="'classifier'"):
        Prune(sparsity=0.99).apply(tiny_draft())


def test_a_pattern_that_does_not_divide_a_layer_is_refused_with_its_name() -> None:
    with pytest.raises(Refused, match="'classifier', which has 2 outputs and 16 inputs") as caught:
        Prune(pattern="4x1").apply(tiny_draft())
    assert "keep=('classifier',)" in caught.value.do
    with pytest.raises(Refused, match="2:5 does not divide"):
        Prune(pattern="2:5", sparsity=0.6).apply(tiny_draft())


@pytest.mark.parametrize("score", ["wanda", "gradient"])
def test_numbers_that_are_none_are_refused_with_the_layers_name(score: str) -> None:
    draft = tiny_draft(examples=8)
    with torch.no_grad():
        draft.module.get_submodule(LAYER).bias[0] = float("nan")
    with pytest.raises(Refused, match=r"bert\.encoder\.layer\.\d.*finite"):
        Prune(score=score).apply(draft)


def test_fewer_examples_than_asked_are_noted_and_none_is_an_error() -> None:
    draft = Prune(score="wanda", samples=100).apply(tiny_draft(examples=6))
    assert "looked at 6 training examples; there are not 100" in draft.notes
    for score in ("wanda", "snip_momentum"):
        with pytest.raises(DataError, match="none"):
            Prune(score=score).apply(tiny_draft(examples=0))


# -- the pattern lock ------------------------------------------------------------------------------------------------


def sparse_draft(share: float = 0.5) -> Draft:
    """A model that was pruned elsewhere: zeros, and no masks."""
    draft = Prune(sparsity=share, pattern="1x1").apply(tiny_draft(examples=20, num_hidden_layers=2))
    draft.masks = {}
    return draft


def test_zeros_of_a_sparse_model_outlive_a_training() -> None:
    loose, locked = sparse_draft(), LockMasks().apply(sparse_draft())
    zeros = {name: layer.weight == 0 for name, layer in quantizable(locked.module).items()}
    assert all(torch.equal(locked.masks[name], mask) for name, mask in zeros.items())
    for draft in (loose, locked):
        train(draft, [], Pace(steps=2, minutes=5, batch=4))
    assert sparsity(loose.module)[LAYER] < 0.1
    assert all(torch.equal(layer.weight == 0, zeros[name]) for name, layer in quantizable(locked.module).items())
    assert "are held" in locked.notes[1]


def test_only_layers_that_are_sparse_enough_are_held() -> None:
    draft = sparse_draft(0.3)
    with torch.no_grad():
        draft.module.get_submodule(LAYER).weight[0, 0] = 0.0
        draft.module.classifier.weight.fill_(1.0)
    LockMasks(threshold=0.2).apply(draft)
    assert set(draft.masks) == set(quantizable(draft.module)) - {"classifier"}
    assert f"{len(draft.masks)} of {len(draft.masks) + 1} linear layers" in draft.notes[-1]


def test_a_dense_model_has_nothing_to_hold() -> None:
    draft = tiny_draft()
    with torch.no_grad():
        draft.module.get_submodule(LAYER).weight[0] = 0.0
    with pytest.raises(Refused, match=rf"no layer of which 0\.1 are zeros; '{LAYER}' has most, 0\.0417"):
        LockMasks().apply(draft)
