"""Weight-only layers in an ONNX graph: `MatMulNBits` of ONNX Runtime, packed from the draft's grids.

The operator decodes blocks of a power of two of inputs; 4 bits lie two in a byte, the even input in the lower half.
A group per output is written as several blocks with one scale. Source: the operator's page in ONNX Runtime's
ContribOperators.md (com.microsoft). Left out: `g_idx`, and activations quantized to INT8 (accuracy level 4).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from workbench.backends._onnx import linear_nodes
from workbench.draft import Grid
from workbench.errors import Refused

OPERATOR, DOMAIN = "MatMulNBits", "com.microsoft"
#: Blocks that the operator takes on the CPU.
_BLOCKS = (16, 32, 64, 128, 256)


def pack(model: Any, grids: dict[str, Grid], planned: list[str]) -> None:
    """Put a `MatMulNBits` in the place of each of the `planned` linear nodes of `model`, which is changed.

    Raises `Refused` for a grid that the operator cannot hold.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    wanted = {node.name: node for node in linear_nodes(graph) if node.name in planned}
    for name, node in wanted.items():
        tensors, attributes = packed(grids[name], name)
        graph.initializer.extend(numpy_helper.from_array(array, key) for key, array in tensors.items())
        # A Gemm adds its bias itself.
        biased = node.op_type == "Gemm" and len(node.input) > 2
        answer = f"{name}_product" if biased else node.output[0]
        new = [helper.make_node(OPERATOR, [node.input[0], *tensors], [answer], name, domain=DOMAIN, **attributes)]
        if biased:
            new.append(helper.make_node("Add", [answer, node.input[2]], [node.output[0]], f"{name}_bias"))
        place = list(graph.node).index(node)
        graph.node.remove(node)
        for i, one in enumerate(new):
            graph.node.insert(place + i, one)
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    if DOMAIN not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))


def packed(grid: Grid, name: str) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The operator's inputs by name, weights first, and its attributes, for one layer."""
    outside, inside = grid.codes.shape
    block = _block(grid, name)
    count = -(-inside // block)
    codes = np.zeros((outside, count * block), dtype=np.uint8)
    codes[:, :inside] = grid.codes.numpy()
    codes = codes.reshape(outside, count, block)
    # One group for all inputs of an output is written as equal blocks.
    scales, zeros = (np.broadcast_to(t.numpy(), (outside, count)) for t in (grid.scales, grid.zeros))
    tensors = {
        f"{name}_codes": _two_in_a_byte(codes) if grid.bits == 4 else codes,
        f"{name}_scales": np.ascontiguousarray(scales, dtype=np.float32),
    }
    if not grid.symmetric:
        tensors[f"{name}_zeros"] = _zeros(zeros, grid, name)
    return tensors, {"K": inside, "N": outside, "bits": grid.bits, "block_size": block, "accuracy_level": 1}


def layers(graph: Any) -> dict[str, str]:
    """Precision kind by layer of every `MatMulNBits` in a graph that `pack` has changed."""
    found = {}
    for name, node in nodes(graph).items():
        bits = next(attribute.i for attribute in node.attribute if attribute.name == "bits")
        found[name] = f"int{bits}_weight"
    return found


def nodes(graph: Any) -> dict[str, Any]:
    """Every `MatMulNBits` by its layer."""
    return {node.input[1].removesuffix("_codes"): node for node in graph.node if node.op_type == OPERATOR}


def matrices(graph: Any, names: Collection[str] | None = None) -> Iterator[tuple[str, np.ndarray]]:
    """(layer, weight) of every `MatMulNBits`, decoded: float32 of shape (out, in); only `names` where given."""
    from onnx import numpy_helper

    stored = {tensor.name: tensor for tensor in graph.initializer}
    for name, node in nodes(graph).items():
        if names is not None and name not in names:
            continue
        shape = {attribute.name: attribute.i for attribute in node.attribute}
        codes, scales, *zeros = (numpy_helper.to_array(stored[key]) for key in node.input[1:4])
        yield name, _decoded(codes, scales, zeros[0] if zeros else None, shape)


def _decoded(codes: np.ndarray, scales: np.ndarray, zeros: np.ndarray | None, shape: dict[str, int]) -> np.ndarray:
    outside, count = codes.shape[:2]
    four = shape["bits"] == 4
    whole = _each(codes) if four else codes
    middle: Any = 2.0 ** (shape["bits"] - 1)
    if zeros is not None:
        middle = (_each(zeros) if four and zeros.dtype == np.uint8 else zeros).reshape(outside, -1)[:, :count, None]
    weight = (whole.astype(np.float32) - middle) * scales.reshape(outside, count, 1)
    return np.ascontiguousarray(weight.reshape(outside, -1)[:, : shape["K"]], dtype=np.float32)


def _each(codes: np.ndarray) -> np.ndarray:
    """The codes of 4 bits that lie two in a byte, one by one."""
    return np.stack((codes & 15, codes >> 4), axis=-1).reshape(*codes.shape[:-1], -1)


def _block(grid: Grid, name: str) -> int:
    """The operator's block for a grid: its group, or the block that wastes least where a row is one group."""
    inside = grid.codes.shape[1]
    if grid.group in _BLOCKS:
        return grid.group
    if grid.group < inside:
        raise Refused(
            f"ONNX Runtime's {OPERATOR} cannot hold groups of {grid.group} inputs, as {name!r} has them.",
            allowed=f"groups of {', '.join(map(str, _BLOCKS))}, or one for all inputs",
            do="choose another group_size, or another runtime",
        )
    return min(_BLOCKS, key=lambda block: -(-inside // block) * (block * grid.bits / 8 + 4))


def _zeros(zeros: np.ndarray, grid: Grid, name: str) -> np.ndarray:
    if not grid.whole:
        if grid.bits == 8:
            raise Refused(
                f"ONNX Runtime's {OPERATOR} holds zero points of 8-bit weights as whole numbers, and those of {name!r} "
                "are fractions.",
                do="use another technique, 4 bits, or another runtime",
            )
        return np.ascontiguousarray(zeros, dtype=np.float32)
    whole = zeros.astype(np.uint8)
    if grid.bits == 8:
        return np.ascontiguousarray(whole)
    return _two_in_a_byte(np.pad(whole, ((0, 0), (0, whole.shape[1] % 2))))


def _two_in_a_byte(codes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(codes[..., 0::2] | (codes[..., 1::2] << 4))
