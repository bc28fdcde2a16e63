"""ONNX Runtime: the exported graph on its CPU provider, quantized by `onnxruntime.quantization`.

Dynamic INT8 quantizes the planned linear nodes; static INT8 writes the QDQ format, which keeps what is quantized
visible and is what ONNX Runtime recommends on CPUs. Ranges that the plan knows are written as they are; without them
ONNX Runtime's quantizer takes the minimum and maximum. Weights are signed and, by default, per channel; activations
are unsigned. Weight-only INT8 and INT4 are the runtime's own operator `MatMulNBits`, which computes in FP32. Attention
becomes one node while the module is exported (`_attention.py`). Left out: CUDA and other providers, INT8 embeddings
(the plan names linear layers only), and `onnxruntime.transformers.optimizer`, which finds no attention to fuse in
today's exports.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from workbench.backends import _nbits
from workbench.backends._lowering import (
    calibration,
    honoured,
    known_ranges,
    layer_macs,
    missing_grids,
    quiet,
    read_settings,
    shares,
    spread,
    threads,
    write_settings,
)
from workbench.backends._onnx import entering, export, file_macs, linear_nodes, matrices, multiplications
from workbench.backends._ort_profile import node_layers, node_times
from workbench.backends._qdq import insert
from workbench.backends.base import Backend, Effect, NodeTime, Runner, unknown_layer
from workbench.draft import Batch, Draft, Precision
from workbench.knobs import knob

if TYPE_CHECKING:
    import onnx
    import onnxruntime

MODEL = "model.onnx"
_LEVELS = {"none": "DISABLE_ALL", "basic": "ENABLE_BASIC", "extended": "ENABLE_EXTENDED", "all": "ENABLE_ALL"}
#: Operators that multiply with int8 weights.
_INT8 = ("MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm")


class OnnxRuntime(Backend):
    """ONNX Runtime on the CPU: FP32, dynamic INT8, static INT8 (QDQ), weight-only INT8 and INT4.

    Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    """

    name = "onnxruntime"
    title = "ONNX Runtime"
    realises = frozenset({"fp32", "int8_dynamic", "int8_static", "int8_weight", "int4_weight"})
    unable: ClassVar[dict[str, str]] = {
        "bf16": "ONNX Runtime's CPU provider has no BF16 kernels; use openvino, compiled or eager",
        "fp16": "ONNX Runtime's CPU provider computes FP16 by casting to FP32; use int8, or bf16 on another runtime",
    }
    install = "pip install onnx onnxscript onnxruntime"
    from_onnx = True

    attention: str = knob(
        "fused", choices=("fused", "plain"), help="one node for each attention where the model allows, or a dozen"
    )
    optimization: str = knob("all", choices=tuple(_LEVELS), help="graph optimization level")

    @classmethod
    def available(cls) -> str | None:
        from importlib.util import find_spec

        missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if not find_spec(name)]
        return f"{', '.join(missing)} is not installed: {cls.install}" if missing else None

    def lower(self, draft: Draft, folder: Path) -> None:
        """Export, quantize, and check that every planned layer runs as planned."""
        import onnx

        missing_grids(draft)
        folder.mkdir(parents=True, exist_ok=True)
        if draft.module is None:
            model = onnx.load(str(draft.onnx))
            macs = file_macs(model.graph, self.sequence)
        else:
            macs = layer_macs(draft, self.sequence)
            model = export(draft, self.sequence, fuse=self.attention == "fused")
        weights = {node.input[1]: node.name for node in linear_nodes(model.graph) if node.name in macs}
        chosen, ranges = draft.plan.quantization(), known_ranges(draft.plan)
        coded = [*draft.plan.of("int8_weight"), *draft.plan.of("int4_weight")]
        if coded:
            _nbits.pack(model, draft.grids, coded)
        elif ranges and chosen:
            insert(model.graph, [n for n in linear_nodes(model.graph) if n.name in ranges], ranges, chosen.per_channel)
        if chosen and not coded and not ranges:
            with quiet(), tempfile.TemporaryDirectory(dir=folder) as scratch:
                source = Path(scratch) / "fp32.onnx"
                onnx.save(model, source)
                del model
                self._quantize(source, folder / MODEL, chosen, draft)
        else:
            onnx.save(model, folder / MODEL)
        write_settings(folder, macs={name: macs[name] for name in weights.values()}, weights=weights)
        honoured(draft.plan, self.load(folder).effect().layers, self)

    def load(self, folder: Path) -> OnnxRunner:
        settings = read_settings(folder)
        session = _session(folder / MODEL, self._options())
        return OnnxRunner(session, folder / MODEL, self, settings)

    def weights(self, folder: Path, names: Collection[str] | None = None) -> Iterator[tuple[str, np.ndarray]]:
        import onnx

        graph = onnx.load(str(folder / MODEL)).graph
        layers = read_settings(folder)["weights"]
        yield from matrices(graph, layers, names)
        yield from _nbits.matrices(graph, names)

    def inputs(self, folder: Path, layer: str) -> Callable[[Batch], np.ndarray]:
        import onnx

        model = onnx.load(str(folder / MODEL))
        layers = read_settings(folder)["weights"]
        nodes = {name: node for name, node, _ in multiplications(model.graph, layers)} | _nbits.nodes(model.graph)
        if layer not in nodes:
            raise unknown_layer(layer)
        wanted = entering(model.graph, nodes[layer])
        model.graph.output.append(onnx.helper.make_tensor_value_info(wanted, onnx.TensorProto.FLOAT, None))
        session = _session(model.SerializeToString(), self._options())

        def look(batch: Batch) -> np.ndarray:
            return np.asarray(session.run([wanted], batch)[0], dtype=np.float32)

        return look

    def _quantize(self, source: Path, target: Path, precision: Precision, draft: Draft) -> None:
        from onnxruntime.quantization import (
            QuantFormat,
            QuantType,
            quantize_dynamic,
            quantize_static,
        )

        planned = draft.plan.of(precision.kind)
        common: dict[str, Any] = {
            "op_types_to_quantize": ["MatMul", "Gemm"],
            # The dynamic quantizer splits a Gemm first, and asks for its MatMul under this name.
            "nodes_to_quantize": [*planned, *(f"{name}_MatMul" for name in planned)],
            "per_channel": precision.per_channel,
            "weight_type": QuantType.QInt8,
        }
        if precision.kind == "int8_dynamic":
            quantize_dynamic(source, target, **common, extra_options={"DefaultTensorType": 1})
            return
        reader = _Reader(calibration(draft, precision.samples, self.sequence))
        quantize_static(
            source,
            target,
            reader,
            **common,
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            # Rounds of one example, despite the option's name: examples differ in length, and memory is finite.
            extra_options={"CalibStridedMinMax": 1, "ActivationSymmetric": precision.symmetric},
        )

    def _options(self) -> onnxruntime.SessionOptions:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads(self.threads)
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.graph_optimization_level = getattr(
            onnxruntime.GraphOptimizationLevel, f"ORT_{_LEVELS[self.optimization]}"
        )
        # Threads may spin within a call, where it helps, but not after it: the baseline is timed in the same process.
        options.add_session_config_entry("session.intra_op.allow_spinning", "1")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # Left to the system, two threads now and then share a core for a whole session, which then takes nearly twice
        # as long: of 16 sessions of one INT8 MiniLM two did, of 16 with workers that stay where they are none.
        if cores := spread(options.intra_op_num_threads):
            workers = ";".join(str(core + 1) for core in cores[1:])
            options.add_session_config_entry("session.intra_op_thread_affinities", workers)
        return options


class OnnxRunner(Runner):
    """An inference session on the CPU provider."""

    def __init__(self, session: Any, path: Path, backend: OnnxRuntime, settings: dict[str, Any]) -> None:
        self._run, self._path, self._backend, self._settings = session.run, path, backend, settings

    def __call__(self, batch: Batch) -> np.ndarray:
        answer: np.ndarray = self._run(None, batch)[0]
        return answer

    def effect(self) -> Effect:
        """Read from the graph as ONNX Runtime optimized it: which operator multiplies by each layer's weight."""
        graph = self._optimized().graph
        layers = dict.fromkeys(self._settings["macs"], "fp32")
        for node in graph.node:
            if node.op_type in _INT8:
                layers |= dict.fromkeys(filter(None, map(self._layer, node.input)), "int8")
        layers |= {name: kind for name, kind in _nbits.layers(graph).items() if name in layers}
        stored = sum(int(np.prod(tensor.dims)) for tensor in graph.initializer)
        nodes = dict(Counter(node.op_type for node in graph.node))
        return Effect(shares(layers, self._settings["macs"]), nodes, layers, stored)

    def profile(self, batch: Batch, calls: int) -> list[NodeTime]:
        """By ONNX Runtime's profiling of a session of its own; a quantized layer's own node, not what quantizes its
        input. Raises `Refused` where a layer's node is not found."""
        import onnx

        with tempfile.TemporaryDirectory() as scratch:
            options = self._backend._options()
            options.optimized_model_filepath = str(Path(scratch) / "optimized.onnx")
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(scratch) / "profile")
            session = _session(self._path, options)
            for _ in range(calls):
                session.run(None, batch)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
            graph = onnx.load(options.optimized_model_filepath).graph
        owners = node_layers(graph, self._settings["weights"])
        return node_times(events, owners, list(self._settings["macs"]), calls)

    def _layer(self, tensor: str) -> str | None:
        """The layer whose weight this is, under the names that quantizer and optimizer give it."""
        plain = tensor.removesuffix("_quantized").removesuffix("_Transposed")
        return self._settings["weights"].get(plain) if tensor.endswith("_quantized") else None

    def _optimized(self) -> onnx.ModelProto:
        import onnx

        options = self._backend._options()
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "optimized.onnx"
            options.optimized_model_filepath = str(path)
            _session(self._path, options)
            return onnx.load(path)


class _Reader:
    """Calibration batches as ONNX Runtime reads them, in rounds: it keeps all tensors of a round, and stacks them."""

    def __init__(self, batches: list[Batch]) -> None:
        self._batches, self._round = batches, iter(batches)

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._round = iter(self._batches[start_index:end_index])

    def get_next(self) -> Batch | None:
        return next(self._round, None)


def _session(model: Path | bytes, options: Any) -> Any:
    import onnxruntime

    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
