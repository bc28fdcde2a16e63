"""Mixed precision: errors by the formula, the plan by its limits, and both precisions in one lowered model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_backends import Sentences, answer, batch_of
from tiny_models import as_draft, onnx_draft, tiny_draft, tiny_module

from workbench.draft import Draft
from workbench.errors import Refused
from workbench.measure.layers import quantizable
from workbench.recipe import Recipe
from workbench.registry import find
from workbench.techniques._calibrate import find_ranges
from workbench.techniques.mixed_precision import MixedPrecision, chosen, layer_errors

HARD = "bert.encoder.layer.0.intermediate.dense"
ISLAND = "bert.encoder.layer.0.output.dense"


def small() -> Draft:
    """A model of one layer, in which one weight has an outlier in every row, so that INT8 hurts there."""
    sizes = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 64, "initializer_range": 0.3}
    module = tiny_module("bert", **sizes)
    with torch.no_grad():
        module.get_submodule(HARD).weight[:, 0] = 60.0
        module.bert.encoder.layer[0].attention.output.LayerNorm.weight[0] = 0.01
    draft = as_draft(module, keep=("classifier",))
    draft.data, draft.pad = Sentences(draft.inputs), dict.fromkeys(draft.inputs, 0)
    return draft


def test_the_error_is_the_normalised_squared_one() -> None:
    draft = tiny_draft()
    name = "bert.pooler.dense"
    ranges = find_ranges(draft, [name], "minmax", 4)
    int8, bf16 = layer_errors(draft, ranges, True, 4)[name]
    seen = []
    handle = draft.module.get_submodule(name).register_forward_pre_hook(lambda part, args: seen.append(args[0]))
    with torch.no_grad():
        for example in draft.data.calibration(4):
            draft.module(**{key: torch.tensor([tokens]) for key, tokens in example.items()})
    handle.remove()
    x = torch.cat(seen).double().numpy()
    w = draft.module.get_submodule(name).weight.detach().double().numpy()
    step, scales = (ranges[name][1] - ranges[name][0]) / 255, np.abs(w).max(axis=1, keepdims=True) / 127
    given = (np.round(x / step) * step) @ (np.round(w / scales) * scales).T
    assert int8 == pytest.approx(((given - x @ w.T) ** 2).sum() / ((x @ w.T) ** 2).sum(), rel=0.02)
    assert 0 < bf16 < 2**-14


def test_the_limits_decide() -> None:
    assert chosen(0.001, 1e-6, 0.01, 1e-3) == "int8_static"
    assert chosen(0.02, 1e-6, 0.01, 1e-3) == "bf16"
    assert chosen(0.02, 0.01, 0.01, 1e-3) == "fp32"
    draft = MixedPrecision(int8_limit=1.0, samples=4).apply(tiny_draft())
    assert set(draft.plan.layers) == set(quantizable(draft.module))
    draft = MixedPrecision(int8_limit=0.0, samples=4).apply(tiny_draft())
    assert draft.plan.kinds() == {"bf16"}
    draft = MixedPrecision(int8_limit=0.0, bf16_limit=0.0, samples=4).apply(tiny_draft())
    assert set(draft.plan.of("fp32")) == set(quantizable(draft.module))
    assert "0 int8_static, 0 bf16, 38 fp32" in draft.notes[0]


def planned() -> Draft:
    draft = MixedPrecision(samples=8).apply(small())
    assert HARD not in draft.plan.layers, "it is left to the base, BF16"
    assert len(draft.plan.of("int8_static")) >= 5
    assert f"{HARD} bf16" in draft.notes[0]
    return draft


def test_openvino_mixes_int8_and_bf16(tmp_path: Path) -> None:
    draft = planned()
    wanted = answer(small(), batch := batch_of(draft))
    backend = find("backends", "openvino").make(threads=1, sequence=16)
    backend.lower(draft, tmp_path)
    runner = backend.load(tmp_path)
    layers = runner.effect().layers
    assert {name for name, kind in layers.items() if kind == "int8"} == set(draft.plan.of("int8_static"))
    assert layers[HARD] == layers["classifier"] == "bf16"
    assert np.abs(runner(batch) - wanted).max() <= 0.2 * np.ptp(wanted)


def test_inductor_mixes_int8_bf16_and_fp32(tmp_path: Path) -> None:
    from dataclasses import replace

    draft = planned()
    wanted = answer(small(), batch := batch_of(draft))
    draft.plan.layers[ISLAND] = replace(draft.plan.layers.get(ISLAND, draft.plan.quantization()), kind="fp32")
    backend = find("backends", "compiled").make(threads=1, sequence=16)
    backend.lower(draft, tmp_path)
    runner = backend.load(tmp_path)
    effect = runner.effect()
    assert {name for name, kind in effect.layers.items() if kind == "int8"} == set(draft.plan.of("int8_static"))
    assert effect.layers[HARD] == effect.layers["classifier"] == "bf16"
    assert effect.layers[ISLAND] == "fp32"
    assert np.abs(runner(batch) - wanted).max() <= 0.2 * np.ptp(wanted)


def test_fp32_beside_bf16_is_refused_where_it_cannot_be(tmp_path: Path) -> None:
    draft = MixedPrecision(int8_limit=0.0, bf16_limit=0.0, samples=8).apply(small())
    backend = find("backends", "openvino").make(threads=1, sequence=16)
    with pytest.raises(Refused, match="raise bf16_limit"):
        backend.lower(draft, tmp_path)


@pytest.mark.parametrize(("name", "word"), [("onnxruntime", "no BF16 kernels"), ("eager", "no static INT8")])
def test_runtimes_that_cannot_mix_refuse(name: str, word: str) -> None:
    facts: Any = tiny_draft().facts
    assert word in (Recipe(MixedPrecision(), backend=find("backends", name).make()).refusal(facts) or "")
    assert "ONNX" in (MixedPrecision().fits(onnx_draft().facts) or "")
