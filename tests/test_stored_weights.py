"""Weights, and what they are multiplied with, read from what each runtime stored: the module's own, but for what the
precision costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import tiny_draft

from workbench.errors import Refused, UserError
from workbench.registry import find
from workbench.techniques.bf16 import Bf16
from workbench.techniques.dynamic_int8 import DynamicInt8
from workbench.techniques.smooth_quant import SmoothQuant
from workbench.techniques.static_int8 import StaticInt8
from workbench.techniques.weight_hqq import WeightHqq
from workbench.techniques.weight_rtn import WeightRtn

LAYER = "bert.encoder.layer.0.intermediate.dense"
#: The largest step of a weight of these models (some 0.1 at most): its range over the codes, and half of it to round.
STEPS = {"fp32": 1e-6, "bf16": 1e-3, "int8": 2e-3, "int4": 2e-2}


def stored(backend, tmp_path, *techniques, names=None):
    """The weights before lowering and those read back, by layer."""
    draft = tiny_draft("bert", hidden_size=32, intermediate_size=64, num_hidden_layers=1)
    for technique in techniques:
        draft = technique.apply(draft)
    grids = {name: grid.weight().numpy() for name, grid in draft.grids.items()}
    before = {n: draft.module.get_submodule(n).weight.detach().numpy().copy() for n in draft.facts.layers} | grids
    runtime = find("backends", backend).make(threads=1, sequence=16)
    runtime.lower(draft, tmp_path)
    return before, dict(runtime.weights(tmp_path, names))


@pytest.mark.parametrize(
    ("backend", "techniques", "step"),
    [
        ("eager", (), "fp32"),
        ("eager", (Bf16(),), "bf16"),
        ("eager", (DynamicInt8(),), "int8"),
        ("eager", (WeightRtn(bits=4, group_size=32),), "fp32"),
        ("onnxruntime", (DynamicInt8(),), "int8"),
        ("onnxruntime", (StaticInt8(samples=2),), "int8"),
        ("onnxruntime", (StaticInt8(samples=2, calibration="minmax"),), "int8"),
        ("onnxruntime", (WeightHqq(bits=4, group_size=32),), "fp32"),
        ("onnxruntime", (WeightRtn(bits=8, group_size=32, symmetric=False),), "fp32"),
        ("openvino", (DynamicInt8(),), "int8"),
        ("openvino", (StaticInt8(samples=2, calibration="minmax"),), "int8"),
        ("openvino", (WeightRtn(bits=4, group_size=32),), "int8"),
    ],
    ids=str,
)
def test_weights_are_those_that_were_lowered(backend, techniques, step, tmp_path):
    before, after = stored(backend, tmp_path, *techniques)
    assert set(after) == set(before)
    for name, matrix in after.items():
        assert matrix.dtype == np.float32
        assert matrix.shape == before[name].shape, name
        np.testing.assert_allclose(matrix, before[name], atol=STEPS[step], err_msg=name)


@pytest.mark.parametrize("backend", ["eager", "openvino"])
def test_only_what_is_asked_for(backend, tmp_path):
    assert list(stored(backend, tmp_path, names=[LAYER])[1]) == [LAYER]


def test_compiled_says_that_it_cannot(tmp_path):
    with pytest.raises(Refused, match="cannot be read back"):
        find("backends", "compiled").make().weights(tmp_path)


def entering(draft, batch):
    """What `LAYER` of the draft's module multiplies by its weight."""
    layer, seen = draft.module.get_submodule(LAYER), []
    handle = layer.register_forward_pre_hook(lambda part, args: seen.append(args[0]))
    with torch.no_grad():
        draft.module(**{name: torch.from_numpy(values) for name, values in batch.items()})
    handle.remove()
    return (seen[0] * getattr(layer, "input_scale", 1.0)).numpy()


@pytest.mark.parametrize(
    ("backend", "techniques", "off"),
    [
        ("eager", (), 1e-5),
        ("eager", (Bf16(),), 5e-2),
        ("eager", (DynamicInt8(),), 5e-2),
        ("eager", (WeightRtn(bits=4, group_size=32),), 1e-1),
        ("onnxruntime", (), 1e-4),
        ("onnxruntime", (DynamicInt8(),), 5e-2),
        ("onnxruntime", (StaticInt8(samples=2),), 1e-1),
        ("onnxruntime", (StaticInt8(samples=2, calibration="minmax"),), 1e-1),
        ("onnxruntime", (SmoothQuant(), StaticInt8(samples=2, calibration="minmax")), 1e-1),
        ("onnxruntime", (WeightRtn(bits=4, group_size=32),), 1e-1),
        ("openvino", (), 1e-4),
        ("openvino", (DynamicInt8(),), 5e-2),
        ("openvino", (StaticInt8(samples=2),), 1e-1),
        ("openvino", (StaticInt8(samples=2, calibration="minmax"),), 1e-1),
        ("openvino", (WeightRtn(bits=4, group_size=32),), 1e-1),
    ],
    ids=str,
)
def test_what_a_layer_multiplies_is_read_from_the_lowered_model(backend, techniques, off, tmp_path):
    draft = tiny_draft("bert", hidden_size=32, intermediate_size=64, num_hidden_layers=1)
    for technique in techniques:
        draft = technique.apply(draft)
    batch = {name: np.arange(1, 13).reshape(1, 12) % 9 + 1 for name in draft.inputs}
    batch |= {name: np.full((1, 12), int("mask" in name)) for name in draft.inputs if name != "input_ids"}
    wanted = entering(draft, batch)
    runtime = find("backends", backend).make(threads=1, sequence=16)
    runtime.lower(draft, tmp_path)
    found = runtime.inputs(tmp_path, LAYER)(batch)
    assert found.shape == wanted.shape == (1, 12, 32)
    assert found.dtype == np.float32
    if any(isinstance(one, StaticInt8) for one in techniques):
        assert len(np.unique(found)) <= 256
    if backend == "openvino" and techniques == (StaticInt8(samples=2),):
        # NNCF's SmoothQuant has scaled every channel.
        found = found * (wanted * found).sum((0, 1)) / (found**2).sum((0, 1))
    # On the mean: few samples leave a range that cuts single values off.
    assert np.abs(found - wanted).mean() <= off * wanted.std()
    with pytest.raises(UserError, match="no layer"):
        runtime.inputs(tmp_path, "nothing")


def test_compiled_has_no_inside_to_look_into(tmp_path):
    with pytest.raises(Refused, match="inner values"):
        find("backends", "compiled").make().inputs(tmp_path, LAYER)
