"""PyTorch compiled: the module exported, quantized by PT2E where planned, and compiled ahead of time by inductor.

The artifact is an AOTInductor package: machine code with its weights in one file, which runs without the original
model, without a compiler and without Python in the loop, and is faster than the same model under `torch.compile`.
Weights are frozen, so that they are laid out for the kernels beforehand. Static INT8 is torchao's PT2E flow with the
X86 quantizer; the rest of such a model may be BF16, with single layers in FP32. Weight-only INT8 and INT4 are not
frozen, which would decode them for good: the compiled code decodes them at every call, which saves memory and disk, not
time. Left out: regional compilation, and packages for a machine other than this one.
"""

from __future__ import annotations

import copy
import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

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
from workbench.backends._pt2e import mix_bf16, quantize
from workbench.backends.base import Backend, Effect, NodeTime, Runner, require_module
from workbench.draft import Batch, Draft, ModelFacts
from workbench.errors import Refused
from workbench.knobs import knob
from workbench.loading.structure import replace

if TYPE_CHECKING:
    import torch

MODEL = "model.pt2"
_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
#: Calls of PyTorch kernels in the generated code, such as aoti_torch_cpu__qlinear_pointwise_tensor.
_KERNEL = re.compile(r"\baoti_torch_(?:cpu|cuda)_+(\w+)\(")
#: The tensors that it holds, by number: their types and what they were called in the module.
_TYPE = re.compile(r"constants_info_\[(\d+)\]\.dtype = cached_torch_dtype_(\w+);")
_NAME = re.compile(r'constants_info_\[(\d+)\]\.original_fqn = "([^"]+)";')
#: The inner name that `positional` gives to the module.
_PREFIX = "model."


class Compiled(Backend):
    """PyTorch's inductor, ahead of time: FP32, BF16, static INT8, weight-only INT8 and INT4.

    Source: Ansel et al., "PyTorch 2", ASPLOS 2024; https://docs.pytorch.org/docs/stable/torch.compiler_aot_inductor.html
    """

    name = "compiled"
    title = "PyTorch compiled"
    realises = frozenset({"fp32", "bf16", "fp16", "int8_static", "int8_weight", "int4_weight"})
    unable: ClassVar[dict[str, str]] = {
        "int8_dynamic": "dynamic INT8 needs ranges found anew in every layer, which inductor does not fuse on CPUs, so "
        "that it is no faster than static INT8 and no easier; use static_int8 here, or dynamic_int8 on onnxruntime"
    }
    install = "pip install torch torchao; and a C++ compiler, such as g++"

    shapes: str = knob(
        "dynamic",
        choices=("dynamic", "fixed"),
        help="any batch and length, or one shape (`batch`, `sequence`) to which every call is filled up",
    )
    device: str = knob("cpu", choices=("cpu", "cuda"), help="where the model runs")
    autotune: bool = knob(
        False, help="time several kernels for every matrix product while compiling (max-autotune): minutes longer"
    )

    @classmethod
    def available(cls) -> str | None:
        import os
        import shutil
        from importlib.util import find_spec

        missing = [name for name in ("torch", "torchao") if not find_spec(name)]
        if missing:
            return f"{', '.join(missing)} is not installed: {cls.install}"
        compilers = [os.environ.get("CXX", ""), "g++", "clang++"]
        if not any(shutil.which(name) for name in compilers if name):
            return "no C++ compiler was found: apt install g++, or set CXX"
        return None

    def refuses(self, kinds: frozenset[str], facts: ModelFacts) -> str | None:
        reason = super().refuses(kinds, facts)
        if self.autotune and self.shapes != "fixed":
            return "autotune times kernels at one shape; use shapes='fixed' with it"
        if self.autotune and "int8_static" in kinds:
            return (
                "autotune has no INT8 kernels to choose from that can be told apart in the compiled code; leave it off"
            )
        if reason or self.device == "cpu":
            return reason or ("FP16 is emulated on CPUs; use bf16, or device='cuda'" if "fp16" in kinds else None)
        import torch

        if not torch.cuda.is_available():
            return "PyTorch sees no CUDA device on this machine; use device='cpu'"
        return "the X86 quantizer's INT8 runs on the CPU only; use device='cpu'" if "int8_static" in kinds else None

    def lower(self, draft: Draft, folder: Path) -> None:
        """Export, quantize, compile, and check that the compiled code runs every planned layer as planned."""
        import torch

        from workbench.modules import packed

        module = require_module(draft, self)
        missing_grids(draft)
        macs = layer_macs(draft, self.sequence)
        chosen, base = draft.plan.quantization(), draft.plan.base
        weights = [*draft.plan.of("int8_weight"), *draft.plan.of("int4_weight")]
        mixed = chosen is not None and not weights and base == "bf16"
        # PT2E quantizes an FP32 module; where its rest is to be BF16, single layers may stay as they are.
        islands = set(draft.plan.of("fp32")) if mixed else set()
        if not mixed:
            one_float(draft.plan, self.title)
        if chosen and not weights and base == "fp16":
            raise Refused("PT2E quantizes FP32 modules.", do="leave the rest of the model in FP32 or BF16")
        torch.set_num_threads(threads(self.threads))
        with quiet(), torch.no_grad():
            own = copy.deepcopy(module).to(self.device, torch.float32 if mixed else getattr(torch, _DTYPES[base]))
            for name in weights:
                replace(own, name, packed(own.get_submodule(name), draft.grids[name])[0])
            program = self._export(positional(own, draft.inputs), draft)
            int8: list[str] = []
            if chosen and not weights:
                shape = (self.batch, self.sequence) if self.shapes == "fixed" else None
                samples = 1 if known_ranges(draft.plan) else chosen.samples
                batches = calibration(draft, samples, self.sequence, fixed=shape)
                graph, int8 = quantize(program, draft, batches)
                if mixed:
                    mix_bf16(graph, islands)
                program = self._export(graph, draft)
            folder.mkdir(parents=True, exist_ok=True)
            _compile(program, folder / MODEL, freezing=not weights, autotune=self.autotune)
        floats = dict.fromkeys(macs, base) | dict.fromkeys(islands, "fp32")
        layers = {name: "int8" if name in int8 else floats[name] for name in macs}
        layers |= {name: draft.plan.layers[name].kind for name in weights}
        settings = {"inputs": list(draft.inputs), "pad": draft.pad, "layers": layers, "macs": macs}
        write_settings(folder, **settings, parameters=_stored(program))
        honoured(draft.plan, self.load(folder).effect().layers, self)

    def load(self, folder: Path) -> CompiledRunner:
        import torch

        settings = read_settings(folder)
        torch.set_num_threads(threads(self.threads))
        fixed = (self.batch, self.sequence) if self.shapes == "fixed" else None
        return CompiledRunner(folder / MODEL, settings, fixed, self.device)

    def _export(self, module: Any, draft: Draft) -> torch.export.ExportedProgram:
        """`module`, which takes its inputs by position, as an exported program under the `shapes` knob."""
        import torch

        count = len(draft.inputs)
        if self.shapes == "fixed":
            tensors = example(draft.inputs, self.batch, self.sequence)
            return torch.export.export(module, tuple(t.to(self.device) for t in tensors))
        tensors = tuple(t.to(self.device) for t in example(draft.inputs, 2, min(self.sequence, 16)))
        batch, length = torch.export.Dim("batch", min=1, max=4096), torch.export.Dim("length", min=2, max=self.sequence)
        each = tuple({0: batch, 1: length} for _ in range(count))
        # A module with *tensors has one argument that holds them all; an exported graph has one for each.
        shapes = each if isinstance(module, torch.fx.GraphModule) else (each,)
        return torch.export.export(module, tensors, dynamic_shapes=shapes)


class CompiledRunner(Runner):
    """A loaded AOTInductor package, called without the wrapper that parses its signature at every call."""

    def __init__(self, path: Path, settings: dict[str, Any], fixed: tuple[int, int] | None, device: str) -> None:
        import torch
        import torch._inductor

        self._path, self._settings, self._fixed, self._device = path, settings, fixed, device
        self._package = torch._inductor.aoti_load_package(str(path))
        self._run = self._package.loader.boxed_run
        self._from_numpy, self._inputs = torch.from_numpy, settings["inputs"]

    def __call__(self, batch: Batch) -> np.ndarray:
        rows = len(batch[self._inputs[0]])
        if self._fixed is not None:
            batch = fit(batch, self._fixed, self._settings["pad"])
        tensors = [self._from_numpy(batch[name]) for name in self._inputs]
        if self._device != "cpu":
            tensors = [tensor.to(self._device) for tensor in tensors]
        answer: np.ndarray = self._run(tensors)[0].cpu().numpy()
        return answer[:rows]

    def profile(self, batch: Batch, calls: int) -> list[NodeTime]:
        """Refused: the package is one function of machine code, in which kernels of several layers are fused."""
        raise Refused(
            "PyTorch compiled is one function of fused kernels, which tells no layer's time.",
            do="see where the time goes on openvino, onnxruntime or eager",
        )

    def effect(self) -> Effect:
        """Layers from the graph that was compiled; that it really has as many INT8 kernels is read from its code.

        Raises `Refused` where the code does not agree with the graph.
        """
        nodes = kernels(self._path)
        found = sum(count for name, count in nodes.items() if "qlinear" in name)
        layers, macs = self._settings["layers"], self._settings["macs"]
        wanted = sum(kind == "int8" for kind in layers.values())
        if found != wanted:
            raise Refused(
                f"Inductor compiled {found} of {wanted} quantized layers to INT8 kernels; the rest would run slower "
                "than in FP32.",
                do="keep the other layers, or use openvino or onnxruntime",
            )
        held, coded = constants(self._path), [name for name, kind in layers.items() if kind.endswith("_weight")]
        lost = [name for name in coded if held.get(f"{_PREFIX}{name}.codes") != "uint8"]
        if lost:
            raise Refused(
                f"Inductor decoded the weights of {len(lost)} of {len(coded)} layers for good, such as {lost[0]!r}.",
                do="use another runtime for weight-only quantization",
            )
        return Effect(shares(layers, macs), nodes, layers, self._settings["parameters"])


def kernels(package: Path) -> dict[str, int]:
    """Calls of PyTorch's own kernels in a package's generated code, by name; what inductor fused is not among them."""
    return dict(Counter(_KERNEL.findall(_code(package))))


def constants(package: Path) -> dict[str, str]:
    """Type by name of the tensors that a package's generated code holds."""
    code = _code(package)
    names = dict(_NAME.findall(code))
    return {names[i]: kind for i, kind in _TYPE.findall(code) if i in names}


def _code(package: Path) -> str:
    with zipfile.ZipFile(package) as archive:
        sources = [name for name in archive.namelist() if name.endswith("wrapper.cpp")]
        return "".join(archive.read(name).decode() for name in sources)


def _compile(program: Any, path: Path, *, freezing: bool, autotune: bool) -> None:
    import torch._inductor
    import torch._inductor.config

    with torch._inductor.config.patch(freezing=freezing, max_autotune=autotune):
        torch._inductor.aoti_compile_and_package(program, package_path=str(path))


def _stored(program: Any) -> int:
    """Numbers that the compiled graph uses: parameters, buffers and constants, not what quantization left behind."""
    signature = program.graph_signature
    held = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    held |= signature.inputs_to_lifted_tensor_constants
    tensors = {**program.state_dict, **program.constants}
    used = (node.name for node in program.graph.nodes if node.op == "placeholder" and node.users)
    return sum(tensors[held[name]].numel() for name in used if name in held)
