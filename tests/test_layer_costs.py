"""What single layers cost: every runtime's profiler, mapped back to the model's layers, and what is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny_models import tiny_draft

from workbench.backends._ort_profile import node_layers, node_times, plain
from workbench.backends.base import Effect, NodeTime, Runner
from workbench.backends.compiled import CompiledRunner
from workbench.backends.eager import Eager
from workbench.backends.onnxruntime import OnnxRuntime
from workbench.backends.openvino import OpenVINO
from workbench.errors import DataError, Refused
from workbench.recipe import Recipe
from workbench.registry import find
from workbench.sensitivity.cost import by_layer, cost_rows, frame, value_map

BATCH = {"input_ids": np.arange(3, 19).reshape(1, 16), "attention_mask": np.ones((1, 16), dtype=np.int64)}
#: Those that lower longest are in the slow lane; each runtime has one in the default lane.
CASES = [
    (OnnxRuntime, "static_int8"),
    (OpenVINO, None),
    (Eager, "dynamic_int8"),
    *(
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (
            (OnnxRuntime, None),
            (OnnxRuntime, "dynamic_int8"),
            (OnnxRuntime, "weight_rtn"),
            (OpenVINO, "static_int8"),
            (Eager, None),
        )
    ),
]


@pytest.mark.parametrize(("backend", "technique"), CASES, ids=lambda one: getattr(one, "name", one))
def test_every_layer_has_its_time(backend: Any, technique: str | None, tmp_path: Path) -> None:
    draft, runtime = tiny_draft(num_hidden_layers=2), backend(threads=1, sequence=16)
    if technique:
        kind = find("techniques", technique)
        draft = kind(**({"samples": 4} if "samples" in kind.knobs() else {})).apply(draft)
    runtime.lower(draft, tmp_path)
    runner = runtime.load(tmp_path)
    answer = runner(BATCH)
    found = frame(cost_rows(runner, BATCH, 3), Recipe(backend=runtime))
    layers = found[found.layer != ""]
    assert list(layers.layer) == list(draft.facts.layers)
    assert (layers.ms > 0).all()
    assert set(layers.precision) == set(runner.effect().layers.values())
    rest = found[found.layer == ""]
    assert len(rest) > 2
    assert not rest.kind.duplicated().any()
    assert found.share.sum() == pytest.approx(1)
    assert (found.ms_low <= found.ms).all()
    assert (found.ms <= found.ms_high).all()
    assert found.attrs["wall_ms"] > 0
    # Looking changed nothing.
    assert np.array_equal(answer, runner(BATCH))
    runner.close()


def test_runtimes_that_cannot_tell_say_so() -> None:
    class Silent(Runner):
        def __call__(self, batch: Any) -> Any: ...

        def effect(self) -> Any:
            return Effect({"fp32": 1.0})

    with pytest.raises(Refused, match="does not tell"):
        Silent().profile({}, 1)
    with pytest.raises(Refused, match="does not tell"):
        cost_rows(Silent(), {}, 3)
    # A search is content with the whole.
    (row,) = cost_rows(Silent(), {}, 3, whole=True)
    assert (row["layer"], row["kind"]) == ("", "all")
    assert row["ms_low"] <= row["ms"] == row["wall_ms"] <= row["ms_high"]
    with pytest.raises(Refused, match="fused kernels"):
        CompiledRunner.profile(object.__new__(CompiledRunner), {}, 1)


def test_calls_are_added_up_by_layer_and_type() -> None:
    nodes = [
        NodeTime("b", "MatMul", (1.0, 2.0)),
        NodeTime("", "Gelu", (0.5, 0.5)),
        NodeTime("a", "MatMul", (3.0, 4.0)),
        NodeTime("a", "Add", (0.1, 0.2)),
        NodeTime("", "Softmax", (5.0, 6.0)),
        NodeTime("", "Gelu", (0.25, 0.25)),
    ]
    found = by_layer(nodes, ["a", "b"])
    assert list(found) == [("a", "MatMul"), ("b", "MatMul"), ("", "Softmax"), ("", "Gelu")]
    assert found["a", "MatMul"].tolist() == [3.1, 4.2]
    assert found["", "Gelu"].tolist() == [0.75, 0.75]


def test_onnx_runtimes_events_become_times() -> None:
    from onnx import helper

    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["y"], "one"),
        helper.make_node("QLinearMatMul", ["y", "s", "z", "w2_quantized"], ["q"], "two"),
        helper.make_node("DequantizeLinear", ["w2_quantized"], ["d"], "none"),
        helper.make_node("MatMulNBits", ["q", "codes"], ["r"], "layer.three"),
    ]
    graph = helper.make_graph(nodes, "g", [], [])
    weights = {"w1": "layer.one", "w2": "layer.two", "w3": "layer.three"}
    owners = node_layers(graph, weights)
    assert owners == {"one": "layer.one", "two": "layer.two", "layer.three": "layer.three"}
    assert plain("w2_Transposed_quantized") == "w2"
    times = {"one": (1000, 2000), "two": (30, 50), "layer.three": (7, 9), "none": (1, 1)}
    events = [
        {"cat": "Node", "name": f"{name}_kernel_time", "dur": times[name][call], "args": {"op_name": "X"}}
        for call in (0, 1)
        for name in times
    ]
    events.append({"cat": "Session", "name": "model_run", "dur": 1, "args": {}})
    found = {one.layer: one.ms for one in node_times(events, owners, list(weights.values()), 2)}
    assert found == {
        "layer.one": (1.0, 2.0),
        "layer.two": (0.03, 0.05),
        "layer.three": (0.007, 0.009),
        "": (0.001, 0.001),
    }
    with pytest.raises(Refused, match="no node for 1 of 4 layers, such as 'lost'"):
        node_times(events, owners, [*weights.values(), "lost"], 2)


def test_the_value_map_sets_time_against_score() -> None:
    scores = pd.DataFrame(
        {"layer": ["a", "b"], "macs": [1, 2], "score": [0.5, 0.0], "score_low": 0.0, "score_high": 1.0, "rank": [1, 2]}
    )
    before = pd.DataFrame({"layer": ["b", "a", ""], "ms": [4.0, 3.0, 1.0]})
    after = pd.DataFrame({"layer": ["a", "b", ""], "ms": [1.0, 3.5, 1.5]})
    found = value_map(scores, before, after).set_index("layer")
    assert found.saved_ms.to_dict() == {"a": 2.0, "b": 0.5}
    assert found.saved_share["a"] == pytest.approx(0.25)
    assert found.per_score["a"] == 4.0
    assert np.isinf(found.per_score["b"])
    with pytest.raises(DataError, match="in no table of costs, such as 'b'"):
        value_map(scores, before, after[after.layer != "b"])
    with pytest.raises(DataError, match="several rows"):
        value_map(pd.concat([scores, scores]), before, after)
