"""Structured pruning: the mask search against brute force, the repair against plain least squares, real removal."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import SHAPES, as_draft, logits, tiny_draft, tiny_module
from torch import nn

from workbench.anatomy import layout
from workbench.errors import Refused
from workbench.techniques._masks import Costs, block_macs, rearrange, rounded, search
from workbench.techniques._shrink import cut_inputs, cut_outputs, refit, shrink
from workbench.techniques.prune_structured import PruneStructured, latencies, magnitudes, mask_gradients

random = np.random.default_rng(0)


def batch_of(module: Any, rows: int = 4) -> Any:
    tokens = torch.arange(3, 3 + 8 * rows).remainder(30).add(3).reshape(rows, 8)
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}, torch.arange(rows) % 2


# -- where heads and neurons live ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_one_description_finds_heads_and_neurons_of_every_style(shape: str) -> None:
    module = tiny_module(shape)
    blocks = layout(module)
    assert len(blocks) == 6
    for block in blocks:
        query, output, up, down = (module.get_submodule(n) for n in (block.query, block.output, block.up, block.down))
        assert block.head == 8
        assert (query.out_features, output.in_features) == (16, 16)
        assert (up.out_features, down.in_features) == (24, 24)
        assert "q" in block.query.rsplit(".", 1)[-1]


def test_another_anatomy_is_refused_with_what_was_found() -> None:
    with pytest.raises(Refused, match="linear layers are"):
        layout(tiny_module("modernbert"))


@pytest.mark.parametrize("shape", SHAPES)
def test_removed_heads_and_neurons_give_what_masked_ones_give(shape: str) -> None:
    module, masked = tiny_module(shape), tiny_module(shape)
    blocks = layout(module)
    heads = np.array([[True, False], [False, True], [True, True], [True, True], [True, False], [True, True]])
    neurons = random.random((6, 24)) > 0.4
    for block, some, few in zip(blocks, heads, neurons, strict=True):
        columns = torch.from_numpy(np.repeat(some, block.head))
        masked.get_submodule(block.output).weight.data[:, ~columns] = 0
        masked.get_submodule(block.down).weight.data[:, ~torch.from_numpy(few)] = 0
    shrink(module, blocks, heads, neurons, [], repair="none")
    assert torch.allclose(logits(module), logits(masked), atol=1e-5)
    assert sum(p.numel() for p in module.parameters()) < sum(p.numel() for p in masked.parameters())


# -- the search ----------------------------------------------------------------------------------------------------


def brute_force(heads: np.ndarray, neurons: np.ndarray, costs: Costs, budget: float) -> float:
    """The least importance lost over all masks that leave something in every layer."""
    layers, best = len(heads), np.inf
    shape = heads.size + neurons.size
    for bits in itertools.product([False, True], repeat=shape):
        h = np.array(bits[: heads.size]).reshape(heads.shape)
        n = np.array(bits[heads.size :]).reshape(neurons.shape)
        if not (h.any(axis=1).all() and n.any(axis=1).all()):
            continue
        spent = costs.heads[h.sum(axis=1)].sum() + costs.neurons[n.sum(axis=1)].sum()
        if spent <= budget * layers * costs.whole + 1e-9:
            best = min(best, heads[~h].sum() + neurons[~n].sum())
    return best


@pytest.mark.parametrize("budget", [0.4, 0.6, 0.8, 1.0])
def test_search_is_as_good_as_trying_all_masks(budget: float) -> None:
    for _ in range(5):
        heads, neurons = random.random((2, 2)), random.random((2, 4))
        costs = Costs(np.arange(3) * 3.0, np.arange(5) * 1.0)
        h, n = search(heads, neurons, costs, budget)
        spent = costs.heads[h.sum(axis=1)].sum() + costs.neurons[n.sum(axis=1)].sum()
        assert spent <= budget * 2 * costs.whole + 1e-9
        assert heads[~h].sum() + neurons[~n].sum() == pytest.approx(brute_force(heads, neurons, costs, budget))


def test_search_meets_a_latency_budget_that_is_not_linear() -> None:
    heads, neurons = random.random((4, 6)), random.random((4, 64))
    costs = Costs(np.sqrt(np.arange(7.0)), np.floor(np.arange(65) / 16) * 0.5)
    for budget in (0.5, 0.7, 0.9):
        h, n = search(heads, neurons, costs, budget)
        assert costs.heads[h.sum(axis=1)].sum() + costs.neurons[n.sum(axis=1)].sum() <= budget * 4 * costs.whole + 1e-9


def test_search_keeps_something_in_every_layer_or_says_that_it_cannot() -> None:
    heads = np.array([[5.0, 4.0], [0.1, 0.2]])
    neurons = np.array([[3.0, 3.0, 3.0], [0.0, 0.0, 0.1]])
    h, n = search(heads, neurons, block_macs(4, 2, 2, 3, 8), 0.6)
    assert h.any(axis=1).all()
    assert n.any(axis=1).all()
    with pytest.raises(ValueError, match="one head and one neuron"):
        search(heads, neurons, block_macs(4, 2, 2, 3, 8), 0.1)


def test_macs_of_a_layer_are_those_that_are_counted() -> None:
    from workbench.measure.layers import macs

    module = tiny_module("bert")
    inputs = {"input_ids": torch.ones((1, 8), dtype=torch.long)}
    shorter = tiny_module("bert", num_hidden_layers=5)
    assert block_macs(16, 8, 2, 24, 8).whole == macs(module, inputs) - macs(shorter, inputs)


def loss_of(mask: np.ndarray, gradients: np.ndarray) -> float:
    return float((gradients[:, ~mask].sum(axis=1) ** 2).sum())


def test_rearranging_never_loses_more_by_the_whole_fisher_matrix() -> None:
    better = 0
    for _ in range(20):
        gradients = random.standard_normal((50, 10)) @ random.standard_normal((10, 10))
        order = np.argsort((gradients**2).sum(axis=0))
        mask = np.ones(10, dtype=bool)
        mask[order[:4]] = False
        changed = rearrange(mask, gradients)
        assert changed.sum() == 6
        assert loss_of(changed, gradients) <= loss_of(mask, gradients) * (1 + 1e-9)
        better += loss_of(changed, gradients) < 0.9 * loss_of(mask, gradients)
    assert better > 5, "with correlated gradients it must find something"


def test_rounded_widths_are_multiples_and_keep_what_was_chosen() -> None:
    importance = np.arange(40.0)
    mask = importance >= 23
    assert rounded(mask, importance, 16)[mask].sum() == 16
    up = rounded(importance >= 13, importance, 16)
    assert up.sum() == 32
    assert up[importance >= 13].all()
    assert rounded(importance >= 39, importance, 16).sum() == 16
    assert rounded(np.ones(40, dtype=bool), importance, 16).sum() in (32, 40)


def test_mask_gradients_are_those_of_each_example() -> None:
    module = tiny_module("bert")
    blocks = layout(module)
    inputs, targets = batch_of(module)
    heads, neurons = mask_gradients(module, blocks, [(inputs, targets)])
    assert heads[0].shape == (4, 2)
    assert neurons[0].shape == (4, 24)
    # One example, one head, by a central difference.
    row, layer, head, step = 2, 3, 1, 1e-2
    one = {name: tensor[row : row + 1] for name, tensor in inputs.items()}
    weight = module.get_submodule(blocks[layer].output).weight
    columns = slice(head * 8, head * 8 + 8)
    original, losses = weight.detach().clone(), []
    for factor in (1 + step, 1 - step):
        weight.data.copy_(original)
        weight.data[:, columns] *= factor
        with torch.no_grad():
            losses.append(nn.functional.cross_entropy(module(**one).logits, targets[row : row + 1]).item())
    assert heads[layer][row, head] == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=0.05, abs=1e-4)


# -- the repair ----------------------------------------------------------------------------------------------------


def test_refit_is_least_squares() -> None:
    layer = nn.Linear(6, 3)
    x = torch.randn(200, 6)
    truth, offset = torch.randn(3, 6), torch.randn(3)
    refit(layer, x, x @ truth.T + offset, ridge=1e-9)
    design = np.hstack([x.numpy(), np.ones((200, 1))])
    solved = np.linalg.lstsq(design, (x @ truth.T + offset).numpy(), rcond=None)[0]
    assert np.allclose(layer.weight.detach().numpy(), solved[:6].T, atol=1e-4)
    assert np.allclose(layer.bias.detach().numpy(), solved[6], atol=1e-4)


@pytest.mark.parametrize("group", [1, 2])
def test_refit_of_masks_is_least_squares_in_the_factors(group: int) -> None:
    layer = nn.Linear(6, 3)
    x, y = torch.randn(200, 6), torch.randn(200, 3)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    columns = [(x[:, i : i + group] @ weight[:, i : i + group].T).flatten() for i in range(0, 6, group)]
    solved = np.linalg.lstsq(torch.stack(columns, 1).numpy(), (y - bias).flatten().numpy(), rcond=None)[0]
    refit(layer, x, y, group, ridge=1e-9)
    factors = torch.tensor(solved).repeat_interleave(group)
    assert torch.allclose(layer.weight, weight * factors, atol=1e-3)
    assert torch.equal(layer.bias, bias)


def test_repair_brings_the_answer_nearer_to_the_whole_models() -> None:
    errors = {}
    for repair in ("none", "masks", "projection"):
        module = tiny_module("bert")
        whole = logits(module)
        batches = [batch_of(module, 16)]
        heads, neurons = np.ones((6, 2), dtype=bool), random.random((6, 24)) > 0.5
        neurons = np.tile(np.arange(24) % 2 == 0, (6, 1))
        shrink(module, layout(module), heads, neurons, batches, repair)
        errors[repair] = float((logits(module) - whole).pow(2).mean())
    assert errors["projection"] < errors["masks"] < errors["none"]


def test_cutting_leaves_the_other_rows_and_columns() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2, bias=False))
    before = module[0].weight.detach().clone(), module[1].weight.detach().clone()
    kept = np.array([True, False, True])
    cut_outputs(module, "0", kept)
    cut_inputs(module, "1", kept)
    assert torch.equal(module[0].weight, before[0][kept])
    assert torch.equal(module[1].weight, before[1][:, kept])
    assert module[1].bias is None
    assert module(torch.ones(1, 4)).shape == (1, 2)


# -- the technique -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("select", ["fisher", "magnitude", "random"])
def test_the_budget_is_kept(select: str) -> None:
    from workbench.measure.layers import macs

    whole, one = tiny_module("bert"), tiny_draft(examples=40)
    PruneStructured(budget=0.6, select=select, multiple=1, samples=32).apply(one)
    inputs = {"input_ids": torch.ones((1, 16), dtype=torch.long)}
    head = macs(tiny_module("bert", num_hidden_layers=1), inputs)
    layer = (macs(whole, inputs) - head) / 5
    rest = macs(whole, inputs) - 6 * layer
    assert (macs(one.module, inputs) - rest) / (6 * layer) <= 0.6 + 1e-9
    assert "of the layers' macs" in one.notes[-1]


def test_what_is_chosen_by_magnitude_has_the_larger_weights() -> None:
    module = tiny_module("bert")
    blocks = layout(module)
    module.get_submodule(blocks[0].down).weight.data[:, 5] = 100.0
    heads, neurons = magnitudes(module, blocks)
    assert heads.shape == (6, 2)
    assert neurons[0].argmax() == 5


def test_a_latency_budget_asks_the_runtime() -> None:
    calls: list[int] = []

    def clock(module: Any) -> float:
        calls.append(sum(p.numel() for p in module.parameters()))
        return 1.0 + calls[-1] / 1000

    one = tiny_draft(examples=40)
    one.clock = clock
    technique = PruneStructured(budget=0.6, cost="latency", multiple=1, samples=16)
    assert technique.asks_runtime
    technique.apply(one)
    assert len(calls) == 4, "the whole model once, heads at one other width, neurons at two"
    assert len(set(calls)) == 4


def test_latencies_give_what_a_head_and_a_neuron_take() -> None:
    module = tiny_module("bert")
    blocks = layout(module)

    def clock(smaller: Any) -> float:
        first = layout(smaller)[0]
        heads = smaller.get_submodule(first.query).out_features // 8
        return 10.0 + 6 * (0.5 * heads + 0.01 * smaller.get_submodule(first.up).out_features)

    costs = latencies(clock, module, blocks, 2, 24)
    assert np.allclose(costs.heads, [0, 0.5, 1.0], atol=1e-6)
    assert np.allclose(costs.neurons, 0.01 * np.arange(25), atol=1e-6)


def test_without_a_runtime_a_latency_budget_is_refused() -> None:
    with pytest.raises(Refused, match="no runtime"):
        PruneStructured(cost="latency").apply(tiny_draft(examples=40))


def test_the_part_of_a_kept_layer_stays_whole() -> None:
    one = tiny_draft(keep=("bert.encoder.layer.1.output.dense", "bert.encoder.layer.2.attention.self.key"), examples=40)
    PruneStructured(budget=0.6, multiple=1, samples=16).apply(one)
    shapes = {
        name: tuple(part.weight.shape) for name, part in one.module.named_modules() if isinstance(part, nn.Linear)
    }
    assert shapes["bert.encoder.layer.1.intermediate.dense"] == (24, 16)
    assert shapes["bert.encoder.layer.2.attention.self.query"] == (16, 16)
    assert shapes["bert.encoder.layer.2.intermediate.dense"] != (24, 16)


def test_only_neurons_are_removed_where_only_they_may_be() -> None:
    one = tiny_draft(examples=40)
    PruneStructured(budget=0.75, parts="neurons", multiple=1, samples=16).apply(one)
    assert "12 of 12 heads" in one.notes[-1]
    with pytest.raises(Refused, match="too small"):
        PruneStructured(budget=0.3, parts="heads", samples=16).apply(tiny_draft(examples=40))


def test_a_budget_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(Refused, match="too small"):
        PruneStructured(budget=0.1, samples=8).apply(tiny_draft(examples=40))


def test_layers_that_differ_already_are_refused() -> None:
    module = tiny_module("bert")
    block = layout(module)[1]
    kept = np.arange(24) < 16
    cut_outputs(module, block.up, kept)
    cut_inputs(module, block.down, kept)
    with pytest.raises(Refused, match="different numbers"):
        PruneStructured().apply(as_draft(module, examples=40))
