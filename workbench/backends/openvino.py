"""OpenVINO: the module converted straight to OpenVINO's graph, quantized by NNCF, run by the CPU plugin.

BF16 is the plugin's inference precision. Static INT8 is NNCF's post-training quantization with SmoothQuant and bias
correction, which also quantizes embeddings and what lies between the planned layers; where the plan knows the ranges
they are written into the graph as they are, and nothing else is quantized. Dynamic INT8 stores int8 weights and lets
the plugin quantize activations in groups as it multiplies. Weight-only INT8 and INT4 leave them in float. Left out:
GPUs and NPUs, NNCF's accuracy control (searching for layers to keep is the workbench's own matter), and sparse weights
decompression (`CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE`). The plugin takes that one with AMX only, for INT8 layers whose
widths 64 divides, and saves the reading of weights with it, not multiplications. On a processor without AMX (Zen 4,
OpenVINO 2026.4, 80 % zeros) it accepts the property and changes nothing: the same kernels in the execution graph,
bit-equal answers, no difference in time.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from workbench.backends import _decompression
from workbench.backends._fake_quantize import insert
from workbench.backends._lowering import (
    calibration,
    example,
    fit,
    honoured,
    known_ranges,
    layer_macs,
    missing_grids,
    one_float,
    positional,
    quiet,
    read_settings,
    shares,
    threads,
    write_settings,
)
from workbench.backends.base import Backend, Effect, NodeTime, Runner, unknown_layer
from workbench.draft import Batch, Draft, Precision
from workbench.errors import Refused
from workbench.knobs import knob

if TYPE_CHECKING:
    import openvino

# OpenVINO and NNCF report to a server what is converted, from a copy of the whole process for each event, unless the
# user has forbidden it. Nobody asked the user; without the package that sends, both of them stay silent.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

MODEL = "model.xml"
_HINTS = {"fp32": "f32", "bf16": "bf16"}
_KINDS = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "i8": "int8", "u8": "int8"}
#: Activations share a scale in groups of this many; it divides the widths of all common models.
_GROUP = 32
#: Where the layer's name stands in the names that OpenVINO gives to what came from a module.
_FROM_MODULE = re.compile(r"^__module\.model\.(?P<layer>.+?)/aten::(linear|addmm|matmul)")


class OpenVINO(Backend):
    """OpenVINO on the CPU: FP32, BF16, static INT8 by NNCF, dynamic INT8, weight-only INT8 and INT4.

    Source: https://docs.openvino.ai; NNCF, https://github.com/openvinotoolkit/nncf.
    """

    name = "openvino"
    title = "OpenVINO"
    realises = frozenset({"fp32", "bf16", "int8_dynamic", "int8_static", "int8_weight", "int4_weight"})
    unable: ClassVar[dict[str, str]] = {"fp16": "OpenVINO's CPU plugin computes FP16 as FP32 on most CPUs; use bf16"}
    install = "pip install openvino nncf"
    from_onnx = True

    shapes: str = knob(
        "dynamic",
        choices=("dynamic", "bounded", "fixed"),
        help="any batch and length, at most `batch` and `sequence`, or that one shape, to which calls are filled up",
    )

    @classmethod
    def available(cls) -> str | None:
        from importlib.util import find_spec

        missing = [name for name in ("openvino", "nncf") if not find_spec(name)]
        return f"{', '.join(missing)} is not installed: {cls.install}" if missing else None

    def lower(self, draft: Draft, folder: Path) -> None:
        """Convert, quantize, and check that every planned layer runs as planned."""
        import openvino

        base = one_float(draft.plan, self.title)
        if base not in _HINTS:
            raise Refused(self.unable[base])
        missing_grids(draft)
        folder.mkdir(parents=True, exist_ok=True)
        with quiet():
            model = _convert(draft) if draft.module is not None else openvino.Core().read_model(str(draft.onnx))
            layers = _linear(model)
            macs = layer_macs(draft, self.sequence) if draft.module is not None else _macs(model, layers, self.sequence)
            _all_found(draft, layers)
            chosen = draft.plan.quantization()
            coded = [*draft.plan.of("int8_weight"), *draft.plan.of("int4_weight")]
            ranges = known_ranges(draft.plan)
            if coded:
                _decompression.pack(model, draft.grids, {name: layers[name] for name in coded})
            elif chosen and ranges:
                insert(model, layers, ranges, chosen.per_channel)
            elif chosen:
                model = self._quantize(model, layers, chosen, draft)
            # FP16 holds more digits than BF16 computes with, but would move the logits of an FP32 model.
            openvino.save_model(model, str(folder / MODEL), compress_to_fp16=base == "bf16" and not chosen)
        write_settings(
            folder,
            base=base,
            inputs=list(draft.inputs),
            pad=draft.pad,
            dynamic_int8=bool(draft.plan.of("int8_dynamic")),
            layers={node: name for name, node in layers.items() if name in macs},
            macs={name: count for name, count in macs.items() if name in layers},
        )
        honoured(draft.plan, self.load(folder).effect().layers, self)

    def load(self, folder: Path) -> OpenVinoRunner:
        import openvino

        settings = read_settings(folder)
        model = openvino.Core().read_model(str(folder / MODEL))
        fixed = (self.batch, self.sequence) if self.shapes == "fixed" else None
        if fixed:
            model.reshape({port: list(fixed) for port in model.inputs})
        if self.shapes == "bounded":
            bounds = [openvino.Dimension(1, self.batch), openvino.Dimension(1, self.sequence)]
            model.reshape({port: openvino.PartialShape(bounds) for port in model.inputs})
        return OpenVinoRunner(model, settings, threads(self.threads), fixed)

    def weights(self, folder: Path, names: Collection[str] | None = None) -> Iterator[tuple[str, np.ndarray]]:
        import openvino

        layers = read_settings(folder)["layers"]
        model = openvino.Core().read_model(str(folder / MODEL))
        for op in model.get_ordered_ops():
            name = _layer_of(op.get_friendly_name(), layers) if op.get_type_name() == "MatMul" else None
            if name and (names is None or name in names):
                matrix = _evaluated(op.input_value(1))
                yield name, matrix if op.get_attributes()["transpose_b"] else matrix.T

    def inputs(self, folder: Path, layer: str) -> Callable[[Batch], np.ndarray]:
        import openvino

        settings = read_settings(folder)
        model = openvino.Core().read_model(str(folder / MODEL))
        multiplying = (op for op in model.get_ordered_ops() if op.get_type_name() == "MatMul")
        found = [op for op in multiplying if _layer_of(op.get_friendly_name(), settings["layers"]) == layer]
        if not found:
            raise unknown_layer(layer)
        model.add_outputs([found[0].input_value(0)])
        hint = {"INFERENCE_PRECISION_HINT": _HINTS[settings["base"]], "PERFORMANCE_HINT": "LATENCY"}
        request = openvino.Core().compile_model(model, "CPU", hint).create_infer_request()

        def look(batch: Batch) -> np.ndarray:
            answer = request.infer([batch[name] for name in settings["inputs"]])
            return np.array(answer[len(answer) - 1], dtype=np.float32)

        return look

    def _quantize(self, model: Any, layers: dict[str, str], precision: Precision, draft: Draft) -> Any:
        import nncf

        planned = set(draft.plan.of(precision.kind))
        ignored = nncf.IgnoredScope(names=[node for name, node in layers.items() if name not in planned])
        if precision.kind == "int8_dynamic":
            embeddings = [op.get_friendly_name() for op in model.get_ordered_ops() if op.get_type_name() == "Gather"]
            ignored = nncf.IgnoredScope(names=[*ignored.names, *embeddings], validate=False)
            return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM, ignored_scope=ignored)
        batches = calibration(draft, precision.samples, self.sequence)
        data = nncf.Dataset([tuple(batch[name] for name in draft.inputs) for batch in batches])
        return nncf.quantize(
            model,
            data,
            subset_size=len(batches),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=ignored,
            advanced_parameters=_advanced(precision),
        )


@dataclass(frozen=True)
class _Node:
    """A node of the execution graph: its name, type, precision, and the layers that it computes."""

    name: str
    kind: str
    precision: str
    layers: list[str]


class OpenVinoRunner(Runner):
    """A compiled model with one infer request that is used again and again."""

    def __init__(self, model: Any, settings: dict[str, Any], count: int, fixed: tuple[int, int] | None) -> None:
        self._model, self._settings, self._fixed, self._threads = model, settings, fixed, count
        self._compiled = self._compile(_GROUP)
        self._request = self._compiled.create_infer_request()
        self._inputs = settings["inputs"]

    def __call__(self, batch: Batch) -> np.ndarray:
        if self._fixed is None:
            return self._infer([batch[name] for name in self._inputs])
        filled = fit(batch, self._fixed, self._settings["pad"])
        return self._infer([filled[name] for name in self._inputs])[: len(batch[self._inputs[0]])]

    def effect(self) -> Effect:
        """Read from the plugin's execution graph, after its own fusions."""
        found = self._nodes(self._compiled)
        nodes = Counter(node.kind for node in found)
        named = {layer: node.precision for node in found for layer in node.layers}
        layers = {name: named[name] for name in self._settings["macs"]}
        constants = (op for op in self._model.get_ordered_ops() if op.get_type_name() == "Constant")
        stored = sum(int(np.prod(op.get_output_shape(0))) for op in constants)
        if self._settings["dynamic_int8"] and not self._quantizes():
            # The execution graph calls a layer i8 for its weights alone.
            layers = dict.fromkeys(layers, self._settings["base"])
        macs = self._settings["macs"]
        return Effect(shares(layers, macs), dict(nodes), layers, stored)

    def profile(self, batch: Batch, calls: int) -> list[NodeTime]:
        """By the plugin's performance counters, of a model that is compiled anew for it.

        A subgraph of several layers shares its time by their MACs.
        """
        compiled = self._compile(_GROUP, counters=True)
        request = compiled.create_infer_request()
        filled = batch if self._fixed is None else fit(batch, self._fixed, self._settings["pad"])
        tensors = [filled[name] for name in self._inputs]
        times: dict[str, list[float]] = {}
        for _ in range(calls):
            request.infer(tensors)
            for one in request.get_profiling_info():
                times.setdefault(one.node_name, []).append(one.real_time.total_seconds() * 1e3)
        found, macs = [], self._settings["macs"]
        for node in self._nodes(compiled):
            ms, whole = times.get(node.name, []), sum(macs[layer] for layer in node.layers)
            shares_ = {layer: macs[layer] / whole for layer in node.layers} or {"": 1.0}
            if any(ms):
                found += [NodeTime(name, node.kind, tuple(t * s for t in ms)) for name, s in shares_.items()]
        return found

    def _nodes(self, compiled: Any) -> list[_Node]:
        """The nodes of a compiled model's execution graph; raises `Refused` where a layer is in none."""
        found: list[_Node] = []
        for node in compiled.get_runtime_model().get_ordered_ops():
            info = {key: value.astype(str) for key, value in node.get_rt_info().items()}
            originals = info["originalLayersNames"].split(",")
            layers = [layer for layer in (_layer_of(name, self._settings["layers"]) for name in originals) if layer]
            # A subgraph compiles several layers into one; of another node only the first name is its own.
            kind = info["layerType"]
            own = layers if kind == "Subgraph" else layers[:1] if kind in ("FullyConnected", "MatMul") else []
            found.append(_Node(node.get_friendly_name(), kind, self._kind(node, info), own))
        return _complete(self._settings["macs"], found)

    def _kind(self, node: Any, info: dict[str, str]) -> str:
        """The precision of a node. Of a layer with an integer weight and an input in float only the weight is integer,
        unless the plugin quantizes the input as it multiplies."""
        found, multiplies = info["runtimePrecision"], info["layerType"] == "FullyConnected"
        if multiplies and not self._settings["dynamic_int8"] and node.input(0).get_element_type().is_real():
            found = _decompression.KINDS.get(found, found)
        return _KINDS.get(found, found)

    def close(self) -> None:
        del self._request, self._compiled

    def _infer(self, tensors: list[np.ndarray]) -> np.ndarray:
        answer: np.ndarray = self._request.infer(tensors, share_inputs=True)[0]
        return answer

    def _compile(self, group: int, *, counters: bool = False) -> openvino.CompiledModel:
        import openvino

        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self._threads,
            "INFERENCE_PRECISION_HINT": _HINTS[self._settings["base"]],
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(group if self._settings["dynamic_int8"] else 0),
        }
        return openvino.Core().compile_model(self._model, "CPU", {**options, "PERF_COUNT": counters})

    def _quantizes(self) -> bool:
        """Whether activations are really quantized: the logits differ from those with int8 weights only."""
        shape = self._fixed or (1, 8)
        tensors = [np.ones(shape, dtype=np.int64) for _ in self._inputs]
        with_groups = self._infer(tensors)
        without = self._compile(0).create_infer_request().infer(tensors)[0]
        return not np.array_equal(with_groups, without)


def _convert(draft: Draft) -> Any:
    """The draft's module as an OpenVINO model with named inputs and open shapes."""
    import openvino

    model = openvino.convert_model(positional(draft.module, draft.inputs), example_input=example(draft.inputs, 1, 8))
    for port, name in zip(model.inputs, draft.inputs, strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_friendly_name(name)
    return model


def _linear(model: Any) -> dict[str, str]:
    """Node by layer for everything that multiplies by a constant matrix; layers of an ONNX file are its nodes."""
    found = {}
    for op in model.get_ordered_ops():
        if op.get_type_name() == "MatMul" and _is_constant(op.input_value(1).get_node()):
            node = op.get_friendly_name()
            layer = node.removesuffix("/WithoutBiases")
            matched = _FROM_MODULE.match(node)
            found[matched["layer"] if matched else layer] = node
    return found


def _is_constant(op: Any) -> bool:
    """Whether a matrix is stored, perhaps in another type or transposed."""
    while op.get_type_name() in ("Convert", "Transpose"):
        op = op.input_value(0).get_node()
    return op.get_type_name() == "Constant"


def _evaluated(output: Any) -> np.ndarray:
    """The value of an output that hangs on constants only, such as a weight with its scales: float32."""
    import openvino

    alone = openvino.Model([openvino.opset13.result(output)], [])
    compiled = openvino.Core().compile_model(alone, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.asarray(compiled([])[0], dtype=np.float32)


def _macs(model: Any, layers: dict[str, str], sequence: int) -> dict[str, int]:
    """MACs by layer of one example, from the shapes that the graph has at `sequence` tokens."""
    clone = model.clone()
    clone.reshape({port: [1, sequence] for port in clone.inputs})
    names = {node: name for name, node in layers.items()}
    found = {}
    for op in clone.get_ordered_ops():
        name = names.get(op.get_friendly_name())
        if name:
            rows = op.input_value(0).get_shape()
            found[name] = int(np.prod(op.output(0).get_shape()) * rows[-1])
    return found


def _all_found(draft: Draft, layers: dict[str, str]) -> None:
    lost = [name for name in draft.plan.layers if name not in layers]
    if lost:
        raise Refused(
            f"{len(lost)} planned layers are not in OpenVINO's graph, such as {lost[0]!r}.",
            do="keep these layers, or use another runtime",
        )


def _layer_of(name: str, layers: dict[str, str]) -> str | None:
    """The layer that a node came from, where its name still tells; NNCF and the plugin append to names."""
    matched = _FROM_MODULE.match(name)
    if matched:
        return matched["layer"] if matched["layer"] in layers.values() else None
    return layers.get(name) or layers.get(name.split("/")[0])


def _complete(order: Iterable[str], nodes: list[_Node]) -> list[_Node]:
    """`nodes` with every layer of `order` in one; layers whose node the plugin renamed take the nameless linear ones,
    in order.

    Raises `Refused` where their numbers differ, so that no layer is ever counted by guessing.
    """
    named = {layer for node in nodes for layer in node.layers}
    missing = [name for name in order if name not in named]
    nameless = [node for node in nodes if node.kind == "FullyConnected" and not node.layers]
    if len(missing) != len(nameless):
        raise Refused(
            f"OpenVINO's execution graph has {len(nameless)} nameless linear nodes for {len(missing)} layers, such as "
            f"{(missing or ['none'])[0]!r}, so it cannot be told what took effect.",
            do="use another runtime for this model",
        )
    for node, name in zip(nameless, missing, strict=True):
        node.layers.append(name)
    return nodes


def _advanced(precision: Precision) -> Any:
    from nncf.common.quantization.structs import QuantizationScheme
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, QuantizationParameters

    weights = None if precision.per_channel else QuantizationParameters(per_channel=False)
    activations = QuantizationParameters(mode=QuantizationScheme.SYMMETRIC) if precision.symmetric else None
    return AdvancedQuantizationParameters(
        weights_quantization_params=weights, activations_quantization_params=activations
    )
