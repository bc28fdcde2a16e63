"""SmoothQuant: the function stays, outliers move into the weights, and every runtime takes the rescaled module."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_backends import Sentences, answer, batch_of
from tiny_models import as_draft, logits, tiny_draft, tiny_module

from workbench import prefix
from workbench.backends import _lowering, _pt2e
from workbench.draft import Draft
from workbench.modules import Factored, ScaledLinear
from workbench.registry import find
from workbench.techniques import _int8
from workbench.techniques.drop_layers import DropLayers
from workbench.techniques.dynamic_int8 import DynamicInt8
from workbench.techniques.smooth_quant import Inputs, SmoothQuant, best_alpha, smoothing
from workbench.techniques.static_int8 import StaticInt8

BLOCK = "bert.encoder.layer.0."
GENERATOR = torch.Generator().manual_seed(0)


def outliers() -> tuple[Inputs, torch.Tensor]:
    """Tokens with two channels that are fifty times as large, and a weight."""
    values = torch.randn(500, 32, generator=GENERATOR)
    values[:, [3, 7]] *= 50
    inputs = Inputs()
    inputs.add(values, 500)
    return inputs, torch.randn(24, 32, generator=GENERATOR)


def test_factors_are_those_of_the_paper() -> None:
    inputs, weight = outliers()
    other = 3 * weight[:10]
    for alpha in (0.0, 0.3, 0.5, 1.0):
        found = smoothing(inputs.largest, [weight, other], alpha).numpy()
        tops = np.abs(np.concatenate([weight, other])).max(axis=0)
        largest = np.abs(torch.cat(inputs.rows).numpy()).max(axis=0)
        np.testing.assert_allclose(found, largest**alpha / tops ** (1 - alpha), rtol=1e-5)


def test_a_channel_that_is_always_zero_is_left_alone() -> None:
    inputs, weight = outliers()
    inputs.low[5] = inputs.high[5] = 0.0
    factors = smoothing(inputs.largest, [weight], 0.5)
    assert factors[5] == 1
    assert torch.isfinite(factors).all()


def int8_error(inputs: Inputs, weight: torch.Tensor, factors: np.ndarray) -> float:
    """Squared error of the quantized product, in plain NumPy."""
    rows, matrix = torch.cat(inputs.rows).double().numpy(), weight.double().numpy()
    x, w = rows / factors, matrix * factors
    step = (max(x.max(), 0) - min(x.min(), 0)) / 255
    zero = np.round(-min(x.min(), 0) / step)
    x = (np.clip(np.round(x / step) + zero, 0, 255) - zero) * step
    scales = np.abs(w).max(axis=1, keepdims=True) / 127
    return float(((x @ (np.round(w / scales) * scales).T - rows @ matrix.T) ** 2).sum())


def test_the_searched_alpha_has_the_least_error() -> None:
    inputs, weight = outliers()
    found = best_alpha(inputs, [weight])
    assert found is not None
    losses = {
        alpha: int8_error(inputs, weight, smoothing(inputs.largest, [weight], alpha).double().numpy())
        for alpha in np.arange(0.1, 0.96, 0.05)
    }
    assert losses[min(losses, key=lambda a: abs(a - found))] <= 1.01 * min(losses.values())
    assert min(losses.values()) < 0.1 * int8_error(inputs, weight, np.ones(32))


def test_even_activations_are_left_alone() -> None:
    inputs = Inputs()
    inputs.add(torch.rand(500, 8, generator=GENERATOR) - 0.5, 500)
    weight = torch.ones(4, 8)
    weight[:, 2] = 1e3
    assert best_alpha(inputs, [weight]) in (None, *[a / 100 for a in range(10, 100, 5)])


@pytest.mark.parametrize("knobs", [{}, {"search": False}, {"search": False, "alpha": 0.9}])
@pytest.mark.parametrize("shape", ["bert", "distilbert", "roberta", "electra"])
def test_the_function_stays(shape: str, knobs: dict[str, Any]) -> None:
    draft = tiny_draft(shape)
    before, wanted = copy.deepcopy(draft.module), logits(draft.module)
    SmoothQuant(samples=4, **knobs).apply(draft)
    torch.testing.assert_close(logits(draft.module), wanted, atol=1e-5, rtol=1e-4)
    changed = [not torch.equal(a, b) for a, b in zip(before.parameters(), draft.module.parameters(), strict=True)]
    assert any(changed)


def test_layers_that_share_an_input_share_the_factors_and_a_value_absorbs_them() -> None:
    draft = SmoothQuant(search=False, samples=4).apply(tiny_draft())
    query, key, value = (draft.module.get_submodule(f"{BLOCK}attention.self.{n}") for n in ("query", "key", "value"))
    assert all(isinstance(part, ScaledLinear) for part in (query, key, value))
    assert torch.equal(query.input_scale, key.input_scale)
    assert torch.equal(query.input_scale, value.input_scale)
    assert not torch.equal(query.input_scale, torch.ones(16))
    output = draft.module.get_submodule(f"{BLOCK}attention.output.dense")
    assert type(output) is torch.nn.Linear, "its factors are in the value projection"
    plain = tiny_module("bert").get_submodule(f"{BLOCK}attention.output.dense")
    assert not torch.equal(output.weight, plain.weight)
    assert "6 can be folded" in draft.notes[-1]


def test_a_kept_value_absorbs_nothing() -> None:
    draft = tiny_draft(keep=("value",))
    SmoothQuant(search=False, samples=4).apply(draft)
    assert isinstance(draft.module.get_submodule(f"{BLOCK}attention.output.dense"), ScaledLinear)
    assert type(draft.module.get_submodule(f"{BLOCK}attention.self.value")) is torch.nn.Linear


def test_twice_is_once_more_and_the_function_still_stays() -> None:
    draft = tiny_draft()
    wanted = logits(draft.module)
    SmoothQuant(search=False, samples=4).apply(draft)
    SmoothQuant(search=False, samples=4, alpha=0.8).apply(draft)
    torch.testing.assert_close(logits(draft.module), wanted, atol=1e-5, rtol=1e-4)


def test_a_tied_weight_is_left_alone() -> None:
    module = tiny_module("bert")
    module.bert.pooler.dense.weight = module.bert.encoder.layer[0].attention.self.query.weight
    SmoothQuant(samples=4).apply(as_draft(module))
    assert module.bert.pooler.dense.weight is module.bert.encoder.layer[0].attention.self.query.weight


def test_a_searched_alpha_changes_no_recipe() -> None:
    assert SmoothQuant(alpha=0.9) == SmoothQuant()
    assert SmoothQuant(search=False, alpha=0.9) != SmoothQuant(search=False)


def test_calibration_sees_the_scaled_input() -> None:
    draft = SmoothQuant(search=False, samples=4).apply(tiny_draft())
    StaticInt8(calibration="minmax", samples=4).apply(draft)
    name = f"{BLOCK}intermediate.dense"
    seen = []
    _int8.watch(draft.module, [name], _int8.chunks(draft, 4), lambda n, rows, values, out: seen.append(values.amax()))
    limits = draft.plan.layers[name].input_range
    assert limits is not None
    assert limits[1] == pytest.approx(float(torch.stack(seen).max()), rel=0.02)


def test_it_survives_the_prefix_cache(tmp_path: Path) -> None:
    draft = SmoothQuant(samples=4).apply(DropLayers(count=2).apply(tiny_draft()))
    prefix.save(draft, tmp_path / "kept")
    again = prefix.load(tmp_path / "kept", tiny_draft())
    assert torch.equal(logits(again.module), logits(draft.module))


def test_a_factor_of_a_layer_can_be_scaled_and_comes_back(tmp_path: Path) -> None:
    draft = tiny_draft()
    draft.module.bert.encoder.layer[0].intermediate.dense = Factored(16, 4, 24).eval()
    wanted = logits(draft.module)
    SmoothQuant(search=False, samples=4).apply(draft)
    assert isinstance(draft.module.get_submodule(f"{BLOCK}intermediate.dense.down"), ScaledLinear)
    torch.testing.assert_close(logits(draft.module), wanted, atol=1e-5, rtol=1e-4)
    prefix.save(draft, tmp_path / "kept")
    assert torch.equal(logits(prefix.load(tmp_path / "kept", tiny_draft()).module), logits(draft.module))


# -- on the runtimes -------------------------------------------------------------------------------------------------


def spread() -> Draft:
    """A small model with channels of very different size, so that smoothing has something to do."""
    module = tiny_module("bert", num_hidden_layers=1, hidden_size=32, intermediate_size=64, initializer_range=0.3)
    with torch.no_grad():
        for name, part in module.named_modules():
            if name.endswith("LayerNorm"):
                part.weight[5] *= 30
    draft = as_draft(module)
    draft.data, draft.pad = Sentences(draft.inputs), dict.fromkeys(draft.inputs, 0)
    return draft


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("eager", DynamicInt8()),
        ("onnxruntime", DynamicInt8()),
        ("onnxruntime", StaticInt8(calibration="minmax", samples=8)),
        ("openvino", StaticInt8(calibration="minmax", samples=8)),
    ],
)
def test_every_runtime_gains(name: str, precision: Any, tmp_path: Path) -> None:
    plain, smooth = spread(), SmoothQuant(samples=8).apply(spread())
    wanted = answer(plain, batch := batch_of(plain))
    backend = find("backends", name).make(threads=1, sequence=16)
    gaps = []
    for draft in (plain, smooth):
        backend.lower(precision.apply(draft), folder := tmp_path / str(len(gaps)))
        runner = backend.load(folder)
        gaps.append(float(np.abs(runner(batch) - wanted).max()))
        assert set(runner.effect().layers.values()) == {"int8"}
    assert gaps[-1] <= 0.15 * np.ptp(wanted)
    assert gaps[1] < 0.5 * gaps[0]


def test_pt2e_quantizes_scaled_layers_and_nothing_else() -> None:
    """The graph that inductor compiles; compiling it is tested with plain layers."""
    draft = SmoothQuant(samples=8).apply(spread())
    wanted = answer(draft, batch := batch_of(draft))
    StaticInt8(calibration="minmax", samples=8).apply(draft)
    backend = find("backends", "compiled").make(threads=1, sequence=16)
    with torch.no_grad():
        program = backend._export(_lowering.positional(draft.module, draft.inputs), draft)
        graph, names = _pt2e.quantize(program, draft, _lowering.calibration(draft, 1, 16))
        given = graph(*(torch.from_numpy(batch[key]) for key in draft.inputs)).numpy()
    assert names == list(draft.plan.layers)
    assert sum(".quantize_per_tensor" in str(node.target) for node in graph.graph.nodes) <= len(names)
    assert np.abs(given - wanted).max() <= 0.15 * np.ptp(wanted)
