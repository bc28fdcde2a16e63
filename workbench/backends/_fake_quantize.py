"""Static INT8 of an OpenVINO graph with ranges that are known: FakeQuantize on input and weight of planned layers.

The CPU plugin turns a MatMul between two FakeQuantize nodes into an INT8 one. Weights are stored as int8 by the same
transformation that NNCF ends with. Specification: OpenVINO's FakeQuantize-1. Left out: embeddings and products of two
activations, which NNCF's own quantizer also takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from workbench.int8 import STEPS, TOP, Range, on_grid, weight_scales


def insert(model: Any, nodes: Mapping[str, str], ranges: Mapping[str, Range], per_channel: bool) -> None:
    """Quantize MatMul nodes of an OpenVINO model in place; `nodes` gives their friendly names by layer."""
    from openvino import opset13 as ops
    from openvino._offline_transformations import compress_quantize_weights_transformation

    wanted = {node: ranges[name] for name, node in nodes.items() if name in ranges}
    done: dict[Any, Any] = {}
    for op in model.get_ordered_ops():
        limits = wanted.get(op.get_friendly_name())
        if limits is None or op.get_type_name() != "MatMul":
            continue
        source, (low, high) = op.input_value(0), on_grid(limits)
        # Layers that share an input and a range share the codes.
        key = source.get_node().get_friendly_name(), source.get_index(), low, high
        if key not in done:
            ends = [np.float32(low), np.float32(high)]
            done[key] = ops.fake_quantize(source, *ends, *ends, levels=STEPS + 1)
        weight = op.input_value(1)
        matrix = _matrix(weight.get_node())
        rows_are_outputs = bool(op.get_attributes()["transpose_b"])
        scales = weight_scales(matrix if rows_are_outputs else matrix.T, per_channel)
        tops = scales.reshape((-1, 1) if rows_are_outputs else (1, -1)) * np.float32(TOP)
        quantized = ops.fake_quantize(ops.constant(matrix), -tops, tops, -tops, tops, levels=2 * TOP + 1)
        op.input(0).replace_source_output(done[key].output(0))
        op.input(1).replace_source_output(quantized.output(0))
    model.validate_nodes_and_infer_types()
    compress_quantize_weights_transformation(model)


def _matrix(op: Any) -> np.ndarray:
    """A stored matrix in float32, through the conversions and transpositions that stand before its use."""
    match op.get_type_name():
        case "Convert":
            return _matrix(op.input_value(0).get_node()).astype(np.float32)
        case "Transpose":
            order = op.input_value(1).get_node().get_data()
            return np.ascontiguousarray(_matrix(op.input_value(0).get_node()).transpose(order))
        case _:
            return np.asarray(op.get_data(), dtype=np.float32)
