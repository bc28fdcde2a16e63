"""What ONNX Runtime's profile says of the layers: events by node, and which node multiplies by which layer's weight."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from workbench.backends.base import NodeTime
from workbench.errors import Refused

_KERNEL = "_kernel_time"
#: What quantizers, and the optimizer when it lays a weight out for its kernel, append to the weight's name.
_ENDINGS = ("_quantized", "_Transposed", "_transposed", "_scale", "_zero_point", "_Q4", "_Bits")


def node_layers(graph: Any, weights: Mapping[str, str]) -> dict[str, str]:
    """Layer by name of the node that multiplies by its weight, in an optimized graph; `weights` names the layers."""
    found, layers = {}, set(weights.values())
    for node in graph.node:
        if node.op_type == "MatMulNBits" and node.name in layers:
            found[node.name] = node.name
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        for tensor in node.input:
            layer = weights.get(tensor) or weights.get(plain(tensor))
            if layer is not None:
                found[node.name] = layer
                break
    return found


def plain(tensor: str) -> str:
    """A weight's name without what was appended to it."""
    for ending in _ENDINGS:
        tensor = tensor.removesuffix(ending)
    return tensor


def node_times(
    events: Sequence[Mapping[str, Any]], owners: Mapping[str, str], layers: Sequence[str], calls: int
) -> list[NodeTime]:
    """Milliseconds by node and call; raises `Refused` where a layer has no node.

    `events` are of `calls` calls one after the other, in which every node runs as often.
    """
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            name = event["name"].removesuffix(_KERNEL)
            times[name, event["args"]["op_name"]].append(event["dur"] / 1e3)
    found = []
    for (name, kind), ms in times.items():
        each = len(ms) // calls
        if each:
            by_call = tuple(sum(ms[i * each : i * each + each]) for i in range(calls))
            found.append(NodeTime(owners.get(name, ""), kind, by_call))
    lost = sorted(set(layers) - {one.layer for one in found})
    if lost:
        raise Refused(
            f"ONNX Runtime's profile has no node for {len(lost)} of {len(layers)} layers, such as {lost[0]!r}.",
            do="see where the time goes on openvino or eager",
        )
    return found
