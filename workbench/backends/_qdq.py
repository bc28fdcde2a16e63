"""Static INT8 of an ONNX graph with ranges that are known: QuantizeLinear and DequantizeLinear around planned layers.

`onnxruntime.quantization` would run its own calibration, quantize the outputs of a layer as well as its inputs, and
give one range to a tensor whoever reads it; here every layer has exactly the range that the plan says, and its output
stays float. Specification: https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html. Left out: operators that multiply
two activations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from workbench.int8 import Range, scale_zero, weight_codes, weight_scales


def insert(graph: Any, nodes: list[Any], ranges: Mapping[str, Range], per_channel: bool) -> None:
    """Quantize the linear `nodes` (MatMul, Gemm with a constant weight) of an ONNX graph in place.

    `ranges` gives the range of a node's input by the node's name. A weight called W becomes the int8 initializer
    W_quantized. The bias of a Gemm becomes int32 in units of both scales, as ONNX Runtime's QGemm takes it.
    """
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    done: dict[Any, str] = {}
    before: dict[str, list[Any]] = {}

    def store(name: str, array: np.ndarray) -> str:
        graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def dequantize(node: Any, codes: str, scale: str, zero: str, axis: int = 0) -> str:
        out = codes.removesuffix("_quantized") + "_dequantized"
        made = helper.make_node("DequantizeLinear", [codes, scale, zero], [out], f"{out}_node", axis=axis)
        before.setdefault(node.name, []).append(made)
        return out

    for node in nodes:
        source, limits = node.input[0], ranges[node.name]
        scale, zero = scale_zero(limits)
        # Layers that share an input and a range share the codes.
        if (source, scale, zero) not in done:
            stem = f"{node.name}.input"
            names = (
                store(f"{stem}_scale", np.array(scale, dtype=np.float32)),
                store(f"{stem}_zero", np.array(zero, dtype=np.uint8)),
            )
            made = helper.make_node("QuantizeLinear", [source, *names], [f"{stem}_quantized"], f"{stem}_quantize")
            before.setdefault(node.name, []).append(made)
            done[source, scale, zero] = dequantize(node, f"{stem}_quantized", *names)
        weight = node.input[1]
        flipped = node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute)
        matrix = numpy_helper.to_array(constants[weight])
        matrix = matrix if flipped else matrix.T
        scales = weight_scales(matrix, per_channel)
        if weight not in done:
            codes = weight_codes(matrix, scales)
            stored = store(f"{weight}_quantized", np.ascontiguousarray(codes if flipped else codes.T))
            shape = scales if per_channel else scales.reshape(())
            names = store(f"{weight}_scale", shape), store(f"{weight}_zero", np.zeros(shape.shape, dtype=np.int8))
            done[weight] = dequantize(node, stored, *names, axis=0 if flipped else 1)
        if len(node.input) > 2 and node.input[2] in constants:
            bias = node.input[2]
            units = (scales * np.float32(scale)).astype(np.float32)
            limit = np.iinfo(np.int32)
            whole = np.clip(np.rint(numpy_helper.to_array(constants[bias]) / units), limit.min, limit.max)
            stem = f"{node.name}.bias"
            # ONNX Runtime wants as many units as the weight has scales.
            units = units if per_channel else units.reshape(())
            names = store(f"{stem}_scale", units), store(f"{stem}_zero", np.zeros(units.shape, dtype=np.int32))
            node.input[2] = dequantize(node, store(f"{stem}_quantized", whole.astype(np.int32)), *names)
        node.input[0], node.input[1] = done[source, scale, zero], done[weight]
    ordered = [made for node in graph.node for made in (*before.get(node.name, []), node)]
    del graph.node[:]
    graph.node.extend(ordered)
    read = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)
    _spell_out_relu(graph, {output for node in nodes if node.op_type == "Gemm" for output in node.output})


def _spell_out_relu(graph: Any, outputs: set[str]) -> None:
    """Write every `Relu` of `outputs` as `Max` with 0.

    ONNX Runtime takes a ReLU behind a quantized Gemm for the clipping of the QuantizeLinear that comes next; where
    something else comes (a layer kept in float, a smoothed one), or a grid that goes below 0, it leaves the Gemm in
    float.
    """
    from onnx import numpy_helper

    for node in graph.node:
        if node.op_type == "Relu" and node.input[0] in outputs:
            zero = f"{node.output[0]}_floor"
            graph.initializer.append(numpy_helper.from_array(np.array(0, dtype=np.float32), zero))
            node.op_type = "Max"
            node.input.append(zero)
