"""Weight-only layers in an OpenVINO graph: constants of 4 or 8 bits that the CPU plugin decodes as it multiplies.

The pattern is the one that NNCF writes and the plugin fuses into its FullyConnected: Constant → Convert → Subtract →
Multiply → Reshape → MatMul, here with scales in float32, so that the numbers are the grid's. A row that is no multiple
of its group is filled up, and so is the layer's input, with zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from workbench.draft import Grid

#: What the plugin says of a layer whose weight it decodes, beside an input in float.
KINDS = {"u4": "int4_weight", "i4": "int4_weight", "u8": "int8_weight", "i8": "int8_weight"}


def pack(model: Any, grids: dict[str, Grid], nodes: dict[str, str]) -> None:
    """Put decoded constants in the place of the weights of `nodes` (layer -> MatMul) of `model`, which is changed."""
    from openvino import opset13 as ops

    places = {node: layer for layer, node in nodes.items()}
    for op in [op for op in model.get_ordered_ops() if op.get_friendly_name() in places]:
        name = op.get_friendly_name()
        grid = grids[places[name]]
        values, short = op.input_value(0), -grid.codes.shape[1] % grid.group
        if short:
            rank = len(values.get_partial_shape())
            ends = np.array([0] * (rank - 1) + [short], dtype=np.int64)
            values = ops.pad(values, np.zeros(rank, dtype=np.int64), ends, "constant", np.float32(0))
        product = ops.matmul(values, weight(grid, short), False, True)
        for port in list(op.output(0).get_target_inputs()):
            port.replace_source_output(product.output(0))
        op.set_friendly_name(f"{name}/replaced")
        product.set_friendly_name(name)
    model.validate_nodes_and_infer_types()


def weight(grid: Grid, short: int) -> Any:
    """The node that gives the weight, float32 of shape (out, in + short); what it is filled up with is 0."""
    import openvino
    from openvino import opset13 as ops

    kind = openvino.Type.u4 if grid.bits == 4 else openvino.Type.u8
    outside = len(grid.codes)
    codes = np.pad(grid.codes.numpy(), ((0, 0), (0, short))).reshape(outside, -1, grid.group)
    scales, zeros = (t.numpy().astype(np.float32)[:, :, None] for t in (grid.scales, grid.zeros))
    node = ops.convert(ops.constant(codes, dtype=kind), np.float32)
    if grid.whole:
        node = ops.subtract(node, ops.convert(ops.constant(zeros.astype(np.uint8), dtype=kind), np.float32))
    else:
        node = ops.subtract(node, ops.constant(zeros))
    node = ops.multiply(node, ops.constant(scales))
    return ops.reshape(node, np.array([outside, -1], dtype=np.int64), False)
