"""A module as an ONNX graph whose nodes are called like the module's layers, so that a plan can be followed in it.

`torch.onnx.export` (the TorchDynamo exporter) writes into each node's metadata the modules it came from; the nodes of
linear layers take their layer's name. Batch and sequence length stay open. Left out: the older TorchScript exporter,
which is deprecated, and external data: one file holds at most 2 GB.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.backends._attention import fused_attention
from workbench.backends._lowering import example, positional, quiet
from workbench.draft import Draft
from workbench.errors import Refused

if TYPE_CHECKING:
    import onnx

_SCOPES = "pkg.torch.onnx.name_scopes"
#: The inner name that `positional` gives to the module.
_PREFIX = "model."


def export(draft: Draft, sequence: int, *, fuse: bool = False) -> onnx.ModelProto:
    """The draft's module in FP32 as an ONNX model; its linear nodes are called like the module's layers.

    With `fuse` attention becomes one node where it can.

    Raises `Refused` where a layer of the module is not found in the graph, or the graph is too large for one file.
    """
    import torch

    names = list(draft.inputs)
    batch, length = torch.export.Dim("batch", min=1, max=4096), torch.export.Dim("sequence", min=2, max=sequence)
    with quiet(), torch.no_grad(), fused_attention(draft.module) if fuse else nullcontext():
        program = torch.onnx.export(
            positional(draft.module, names),
            example(names, 2, min(sequence, 16)),
            dynamo=True,
            dynamic_shapes=(tuple({0: batch, 1: length} for _ in names),),
            input_names=names,
            output_names=["logits"],
            verbose=False,
        )
    model = program.model_proto
    if model.ByteSize() >= 2**31 - 1:
        raise Refused("The model is larger than the 2 GB that one ONNX file can hold.", do="use another runtime")
    # onnxruntime.quantization infers shapes itself and stumbles over the exporter's, but it cannot see through nodes
    # that are not ONNX's own.
    foreign = {name for node in model.graph.node if node.domain == "com.microsoft" for name in node.output}
    known = [info for info in model.graph.value_info if info.name in foreign]
    del model.graph.value_info[:]
    model.graph.value_info.extend(known)
    for node in linear_nodes(model.graph):
        scopes = {entry.key: entry.value for entry in node.metadata_props}.get(_SCOPES)
        if scopes:
            node.name = ast.literal_eval(scopes)[-2].removeprefix(_PREFIX)
    for node in model.graph.node:
        # Stack traces hold paths of the exporting machine.
        del node.metadata_props[:]
    found = {node.name for node in linear_nodes(model.graph)}
    lost = [name for name in draft.plan.layers if name not in found]
    if lost:
        raise Refused(
            f"{len(lost)} planned layers are not in the exported graph, such as {lost[0]!r}.",
            do="keep these layers, or use another runtime",
        )
    return model


def linear_nodes(graph: Any) -> Iterator[Any]:
    """The nodes that multiply by a constant matrix: linear layers."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        weight = constants.get(node.input[1]) if node.op_type in ("MatMul", "Gemm") else None
        if weight is not None and len(weight.dims) == 2:
            yield node


def matrices(
    graph: Any, layers: Mapping[str, str], names: Collection[str] | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """(layer, weight) of every linear layer in a stored graph, in float or INT8: float32 of shape (out, in).

    `layers` gives the layer's name by that of its weight before it was quantized; `names` are those wanted, or all.
    """
    from onnx import numpy_helper

    stored = {tensor.name: tensor for tensor in graph.initializer}
    for name, node, source in multiplications(graph, layers):
        plain = source.removesuffix("_quantized")
        if source not in stored or (names is not None and name not in names):
            continue
        matrix = numpy_helper.to_array(stored[source]).astype(np.float32)
        flipped = any(a.name == "transB" and a.i for a in node.attribute)
        matrix = matrix if flipped else matrix.T
        if source != plain:
            # One scale for each output, or one for all; both quantizers give these names.
            scale, zero = (numpy_helper.to_array(stored[f"{plain}_{part}"]) for part in ("scale", _zero(plain, stored)))
            matrix = (matrix - zero.astype(np.float32).reshape(-1, 1)) * scale.reshape(-1, 1)
        yield name, np.ascontiguousarray(matrix, dtype=np.float32)


def multiplications(graph: Any, layers: Mapping[str, str]) -> Iterator[tuple[str, Any, str]]:
    """(layer, its node, its weight's name as it is stored) of a stored graph, in float or INT8."""
    decoded = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    for node in graph.node:
        if node.op_type not in ("MatMul", "Gemm", "MatMulInteger"):
            continue
        source = decoded[node.input[1]].input[0] if node.input[1] in decoded else node.input[1]
        # The dynamic quantizer turns the weight of a Gemm round first.
        name = layers.get(source.removesuffix("_quantized").removesuffix("_Transposed"))
        if name is not None:
            yield name, node, source


def entering(graph: Any, node: Any) -> str:
    """The name of the float tensor that a linear node multiplies: before it is quantized where that happens in the
    call (dynamic INT8), decoded from its grid where the grid is stored."""
    makers = {name: one for one in graph.node for name in one.output}
    maker = makers.get(node.input[0])
    return str(maker.input[0] if maker is not None and maker.op_type == "DynamicQuantizeLinear" else node.input[0])


def _zero(plain: str, stored: Mapping[str, Any]) -> str:
    """The last part of the zero point's name: ONNX Runtime's quantizer and ours differ in it."""
    return "zero_point" if f"{plain}_zero_point" in stored else "zero"


def file_macs(graph: Any, sequence: int) -> dict[str, int]:
    """MACs by linear node of one example, for a graph that came without its module.

    A MatMul is taken to multiply every token and a Gemm one row (the pooled one), as PyTorch's exporters write them.
    """
    dims = {tensor.name: tensor.dims for tensor in graph.initializer}
    rows = {"MatMul": sequence, "Gemm": 1}
    return {n.name: rows[n.op_type] * dims[n.input[1]][0] * dims[n.input[1]][1] for n in linear_nodes(graph)}
