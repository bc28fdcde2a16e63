"""Ranges that the plan knows: every runtime lowers exactly these, and all of them give the same answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_backends import answer, batch_of, drafted
from tiny_models import as_draft, tiny_module

from workbench import int8
from workbench.backends import _lowering, _pt2e
from workbench.draft import Draft, Plan, Precision
from workbench.errors import Refused
from workbench.registry import find

SIZES = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 64, "initializer_range": 0.3}
RUNTIMES = ("onnxruntime", "openvino", "compiled")
BLOCK = "bert.encoder.layer.0."
SHARED = [f"{BLOCK}attention.self.{name}" for name in ("query", "key", "value")]


def make(per_channel: bool = True) -> Draft:
    """A draft with another range for every layer, but one for the three that share their input."""
    template = drafted("bert", "fp32")
    draft = as_draft(tiny_module("bert", **SIZES), keep=("classifier",))
    draft.inputs, draft.data, draft.pad = template.inputs, template.data, template.pad
    for i, name in enumerate(draft.quantizable()):
        limits = (-2.5, 3.0) if name in SHARED else (-1.5 - 0.2 * i, 2.0 + 0.1 * i)
        draft.plan.layers[name] = Precision("int8_static", per_channel=per_channel, input_range=int8.on_grid(limits))
    return draft


@pytest.fixture(scope="module")
def lowered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Draft, Path, Any]]:
    found = {}
    for name in RUNTIMES:
        draft, folder = make(), tmp_path_factory.mktemp(name)
        backend = find("backends", name).make(threads=1, sequence=16)
        backend.lower(draft, folder)
        found[name] = draft, folder, backend.load(folder)
    return found


def test_onnx_holds_the_scales_that_were_planned(lowered: Any) -> None:
    import onnx
    from onnx import numpy_helper

    draft, folder, _ = lowered["onnxruntime"]
    graph = onnx.load(folder / "model.onnx").graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {out: node for node in graph.node for out in node.output}
    checked = 0
    for node in graph.node:
        if node.name not in draft.plan.layers:
            continue
        given, weight = makers[node.input[0]], makers[node.input[1]]
        scale, zero = int8.scale_zero(draft.plan.layers[node.name].input_range)
        assert constants[given.input[1]] == pytest.approx(scale, rel=1e-6)
        assert abs(int(constants[given.input[2]]) - zero) <= 1
        own = draft.module.get_submodule(node.name).weight.detach().numpy()
        np.testing.assert_allclose(constants[weight.input[1]], np.abs(own).max(axis=1) / 127, rtol=1e-5)
        assert constants[weight.input[0]].dtype == np.int8
        checked += 1
    assert checked == len(draft.plan.layers) == 7
    assert sum(node.op_type == "QuantizeLinear" for node in graph.node) == 5, "query, key and value share one"


def test_openvino_holds_the_limits_that_were_planned(lowered: Any) -> None:
    import openvino

    draft, folder, _ = lowered["openvino"]
    wanted = {p.input_range for p in draft.plan.layers.values()}
    nodes = openvino.Core().read_model(folder / "model.xml").get_ordered_ops()
    fakes = [op for op in nodes if op.get_type_name() == "FakeQuantize"]
    limits = sorted(tuple(float(op.input_value(i).get_node().get_data().item()) for i in (1, 2)) for op in fakes)
    np.testing.assert_allclose(limits, sorted(wanted), rtol=1e-6)
    assert {op.get_attributes()["levels"] for op in fakes} == {256}
    stored = [op for op in nodes if op.get_type_name() == "Constant" and op.get_element_type().get_type_name() == "i8"]
    assert len(stored) == 7, "weights are stored as int8"


def test_pt2e_quantizes_with_the_scales_that_were_planned() -> None:
    draft = make()
    backend = find("backends", "compiled").make(threads=1, sequence=16)
    with torch.no_grad():
        program = backend._export(_lowering.positional(draft.module, draft.inputs), draft)
        graph, names = _pt2e.quantize(program, draft, _lowering.calibration(draft, 1, 16))
    assert set(names) == set(draft.plan.layers)
    nodes = [
        n for n in graph.graph.nodes if "quantize_per_tensor" in str(n.target) and "dequantize" not in str(n.target)
    ]
    found = {(round(float(node.args[1]), 7), int(node.args[2])) for node in nodes}
    scales = [int8.scale_zero(p.input_range) for p in draft.plan.layers.values()]
    assert found == {(round(scale, 7), zero) for scale, zero in scales}
    weights = [n for n in graph.graph.nodes if "dequantize_per_channel" in str(n.target)]
    tops = sorted(float(getattr(graph, node.args[1].target).max()) for node in weights)
    own = sorted(float(draft.module.get_submodule(n).weight.detach().abs().max()) / 127 for n in draft.plan.layers)
    np.testing.assert_allclose(tops, own, rtol=1e-5)


def reference(draft: Draft, batch: dict[str, np.ndarray]) -> np.ndarray:
    """The module's answer with every planned layer computed in NumPy on the INT8 grid."""
    handles = []
    for name, precision in draft.plan.layers.items():

        def hook(part: Any, args: tuple, output: Any, precision: Precision = precision) -> Any:
            weight = part.weight.numpy()
            scales = np.abs(weight).max(axis=1) / 127 if precision.per_channel else np.abs(weight).max() / 127
            scales = np.reshape(scales, (-1, 1))
            low, high = precision.input_range or (0, 0)
            step = (high - low) / 255
            values = np.clip(np.round(args[0].numpy() / step), round(low / step), round(high / step)) * step
            return torch.from_numpy((values @ (np.round(weight / scales) * scales).T).astype(np.float32)) + part.bias

        handles.append(draft.module.get_submodule(name).register_forward_hook(hook))
    with torch.no_grad():
        for parameter in draft.module.parameters():
            parameter.requires_grad_(False)
        found = answer(draft, batch)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("name", RUNTIMES)
def test_every_runtime_computes_what_the_ranges_say(lowered: Any, name: str) -> None:
    draft, _, runner = lowered[name]
    batch = batch_of(draft)
    wanted, plain = reference(draft, batch), answer(draft, batch)
    gap = np.abs(runner(batch) - wanted).max()
    assert gap <= 0.02 * np.ptp(plain)
    assert gap < 0.5 * np.abs(wanted - plain).max(), "nearer to the quantized module than that is to the plain one"
    assert {n: kind for n, kind in runner.effect().layers.items() if kind == "int8"}.keys() == set(draft.plan.layers)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_one_scale_for_a_whole_weight(name: str, tmp_path: Path) -> None:
    draft = make(per_channel=False)
    backend = find("backends", name).make(threads=1, sequence=16)
    backend.lower(draft, tmp_path)
    batch = batch_of(draft)
    wanted = reference(draft, batch)
    assert np.abs(backend.load(tmp_path)(batch) - wanted).max() <= 0.02 * np.ptp(wanted)


@pytest.mark.parametrize("keep", [(), ("classifier",)])
def test_a_relu_behind_a_layer_leaves_it_in_int8(keep: tuple[str, ...], tmp_path: Path) -> None:
    """DistilBERT's head: ONNX Runtime takes the ReLU for a clipping, which it is only before quantized values."""
    template = drafted("distilbert", "fp32")
    draft = as_draft(tiny_module("distilbert", n_layers=1, initializer_range=0.3), keep=keep)
    draft.inputs, draft.data, draft.pad = template.inputs, template.data, template.pad
    for name in draft.quantizable():
        draft.plan.layers[name] = Precision("int8_static", input_range=int8.on_grid((-2.5, 3.0)))
    backend = find("backends", "onnxruntime").make(threads=1, sequence=16)
    backend.lower(draft, tmp_path)
    runner, batch = backend.load(tmp_path), batch_of(draft)
    assert {name for name, kind in runner.effect().layers.items() if kind != "int8"} == set(keep)
    wanted = reference(draft, batch)
    assert np.abs(runner(batch) - wanted).max() <= 0.02 * np.ptp(wanted)


def test_ranges_for_some_layers_only_are_refused() -> None:
    plan = Plan(layers={"a": Precision("int8_static", input_range=(-1, 1)), "b": Precision("int8_static")})
    with pytest.raises(Refused, match=r"1 of 2 .* 'b'"):
        _lowering.known_ranges(plan)
    assert _lowering.known_ranges(Plan(layers={"b": Precision("int8_static")})) == {}


# -- the grid ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [(-1.0, 3.0), (0.5, 2.0), (-4.0, -1.0), (-0.001, 10.0), (0.0, 0.0)])
def test_zero_is_always_a_code(limits: tuple[float, float]) -> None:
    scale, zero = int8.scale_zero(limits)
    low, high = int8.on_grid(limits)
    assert 0 <= zero <= 255
    assert low == pytest.approx(-zero * scale)
    assert high - low == pytest.approx(255 * scale)
    assert abs(low - min(limits[0], 0)) <= scale
    assert int8.fake(np.zeros(1), limits) == 0
    assert int8.scale_zero((low, high))[1] == zero


def test_a_symmetric_range_has_its_zero_in_the_middle() -> None:
    low, high = int8.symmetric((-3.0, 2.0))
    assert high == 3.0
    assert int8.scale_zero((low, high))[1] == 128


def test_fake_quantization_agrees_with_pytorch() -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 3
    scale, zero = int8.scale_zero((-2.0, 5.0))
    theirs = torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, 255)
    np.testing.assert_allclose(int8.fake(values.numpy(), (-2.0, 5.0)), theirs.numpy(), atol=1e-6)


def test_a_range_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(ValueError, match="finite"):
        int8.scale_zero((float("nan"), 1.0))
