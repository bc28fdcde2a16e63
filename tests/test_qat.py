"""Quantization-aware training: its gradients, and that what was learned is what gets lowered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import logits, onnx_draft, tiny_draft, tiny_module

from workbench import compress, int8
from workbench.errors import Refused
from workbench.measure.layers import quantizable
from workbench.modules import ScaledLinear
from workbench.registry import find
from workbench.techniques._calibrate import find_ranges
from workbench.techniques.base import train_together
from workbench.techniques.distil import Distil
from workbench.techniques.prune import Prune
from workbench.techniques.qat import Qat, on_learned_grid
from workbench.techniques.smooth_quant import SmoothQuant

SHORT: dict[str, Any] = {"steps": 3, "minutes": 5.0, "batch_size": 4, "samples": 8, "learning_rate": 1e-3}
SMALL: dict[str, Any] = {"num_hidden_layers": 2, "initializer_range": 0.3}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))


def test_the_forward_pass_is_the_grid() -> None:
    values = torch.randn(500, generator=torch.Generator().manual_seed(0)) * 3
    low, high = int8.on_grid((-2.0, 5.0))
    given = on_learned_grid(values, torch.tensor(low), torch.tensor(high))
    np.testing.assert_allclose(given.numpy(), int8.fake(values.numpy(), (low, high)), atol=1e-6)


def test_gradients_are_those_of_the_papers() -> None:
    generator = torch.Generator().manual_seed(0)
    values = (torch.randn(4, 100, generator=generator) * 3).requires_grad_()
    ends = int8.on_grid((-2.0, 5.0))
    low, high = (torch.tensor(end, requires_grad=True) for end in ends)
    upstream = torch.randn(4, 100, generator=generator)
    (on_learned_grid(values, low, high) * upstream).sum().backward()
    x, g = values.detach().double().numpy(), upstream.double().numpy()
    step = (ends[1] - ends[0]) / 255
    code = np.round(x / step)
    below, above = code < round(ends[0] / step), code > round(ends[1] / step)
    inside = ~(below | above)
    assert below.any()
    assert above.any()
    np.testing.assert_allclose(values.grad, g * inside, atol=1e-6)
    slope = (g * inside * (code - x / step)).sum() / 255
    factor = 1 / np.sqrt(255 * x.size)
    assert float(low.grad) == pytest.approx(factor * ((g * below).sum() - slope), rel=1e-3)
    assert float(high.grad) == pytest.approx(factor * ((g * above).sum() + slope), rel=1e-3)


def test_ranges_are_learned_and_the_module_is_left_plain() -> None:
    draft = tiny_draft(keep=("classifier",), examples=8, num_hidden_layers=2)
    first = find_ranges(draft, draft.quantizable(), "mse", 8)
    before = draft.module.bert.encoder.layer[0].output.dense.weight.clone()
    Qat(**SHORT).apply(draft)
    assert list(draft.plan.layers) == [name for name in quantizable(draft.module) if name != "classifier"]
    learned = {name: precision.input_range for name, precision in draft.plan.layers.items()}
    assert any(abs(learned[name][1] / first[name][1] - 1) > 1e-3 for name in learned)
    assert {precision.calibration for precision in draft.plan.layers.values()} == {"learned"}
    assert all(type(part) is torch.nn.Linear for part in quantizable(draft.module).values())
    assert not any("forward" in vars(part) for part in draft.module.modules())
    assert not torch.equal(draft.module.bert.encoder.layer[0].output.dense.weight, before)
    block = "bert.encoder.layer.1.attention.self."
    assert len({learned[f"{block}{name}"] for name in ("query", "key", "value")}) == 1
    assert "13 layers in INT8" in " ".join(draft.notes)


def test_ranges_can_stay_as_they_were_calibrated() -> None:
    draft = tiny_draft(examples=8, num_hidden_layers=2)
    first = find_ranges(draft, draft.quantizable(), "minmax", 8)
    Qat(**SHORT, learn=False, calibration="minmax").apply(draft)
    for name, precision in draft.plan.layers.items():
        assert precision.input_range == pytest.approx(first[name], rel=1e-4)
        assert precision.calibration == "minmax"


def test_the_learned_ranges_are_the_ones_that_are_lowered(tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    draft = Qat(**SHORT).apply(tiny_draft(examples=8, num_hidden_layers=2))
    find("backends", "onnxruntime").make(threads=1, sequence=16).lower(draft, tmp_path)
    graph = onnx.load(tmp_path / "model.onnx").graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {out: node for node in graph.node for out in node.output}
    linear = [node for node in graph.node if node.name in draft.plan.layers]
    assert len(linear) == len(draft.plan.layers) == 14
    for node in linear:
        limits = draft.plan.layers[node.name].input_range
        scale, zero = int8.scale_zero(limits)
        given, weight = makers[node.input[0]], makers[node.input[1]]
        assert constants[given.input[1]] == pytest.approx(scale, rel=1e-6)
        assert abs(int(constants[given.input[2]]) - zero) <= 1
        own = draft.module.get_submodule(node.name).weight.detach().abs().amax(dim=1).numpy() / 127
        np.testing.assert_allclose(constants[weight.input[1]], own, rtol=1e-5)


def test_a_teacher_beside_it_shares_the_loop() -> None:
    recipe = [Distil(steps=4, minutes=5.0, batch_size=4, hidden=1.0), Qat(**SHORT)]
    assert compress.together(recipe) == [tuple(recipe)]
    draft = train_together(recipe, tiny_draft(examples=8, num_hidden_layers=2))
    assert sum("trained for 4 steps" in note for note in draft.notes) == 1
    assert draft.plan.kinds() == {"fp32", "int8_static"}
    assert torch.isfinite(logits(draft.module)).all()


def test_training_on_the_grid_brings_the_quantized_model_nearer_to_its_teacher() -> None:
    """With coarse ranges, which cut off most of what there is, so that much is to be won back."""

    def gap(draft: Any, ranges: Any) -> float:
        from workbench.techniques._int8 import quantized, quantized_weight

        wanted = logits(tiny_module("bert", **SMALL))
        for name, limits in ranges.items():
            layer = draft.module.get_submodule(name)

            def forward(values: Any, layer: Any = layer, limits: Any = limits) -> Any:
                weight = quantized_weight(layer.weight, True)
                return torch.nn.functional.linear(quantized(values, limits), weight, layer.bias)

            layer.forward = forward
        return float((logits(draft.module) - wanted).abs().mean())

    def percentile(draft: Any) -> dict[str, Any]:
        return find_ranges(draft, draft.quantizable(), "percentile", 20)

    kept: dict[str, Any] = {"examples": 20, **SMALL}
    narrow = {name: (low / 3, high / 3) for name, (low, high) in percentile(tiny_draft(**kept)).items()}
    before = gap(tiny_draft(**kept), narrow)
    draft = tiny_draft(**kept)
    pair = [Distil(steps=30, minutes=5.0, batch_size=20, hidden=0.0, loss="mse", learning_rate=1e-3), Qat(**SHORT)]
    train_together(pair, draft)
    after = gap(draft, {name: p.input_range for name, p in draft.plan.layers.items()})
    assert after < 0.7 * before


def test_masked_weights_stay_zero() -> None:
    draft = Prune(sparsity=0.5).apply(tiny_draft(examples=8, num_hidden_layers=2))
    name = "bert.encoder.layer.0.output.dense"
    draft.masks[name] = draft.module.get_submodule(name).weight == 0
    Qat(**SHORT).apply(draft)
    weight = draft.module.get_submodule(name).weight
    assert bool((weight[draft.masks[name]] == 0).all())


def test_a_smoothed_module_is_trained_behind_its_scales() -> None:
    draft = SmoothQuant(search=False, samples=8).apply(tiny_draft(examples=8, num_hidden_layers=2))
    name = "bert.encoder.layer.0.intermediate.dense"
    scale = draft.module.get_submodule(name).input_scale.clone()
    first = find_ranges(draft, draft.quantizable(), "mse", 8)
    Qat(**{**SHORT, "learning_rate": 1e-6}).apply(draft)
    assert isinstance(draft.module.get_submodule(name), ScaledLinear)
    assert torch.equal(draft.module.get_submodule(name).input_scale, scale)
    assert draft.plan.layers[name].input_range == pytest.approx(first[name], rel=1e-2)


def test_it_needs_a_module_and_a_layer() -> None:
    assert "ONNX" in (Qat().fits(onnx_draft().facts) or "")
    with pytest.raises(Refused, match="kept"):
        Qat(**SHORT).apply(tiny_draft(keep=("*",)))
