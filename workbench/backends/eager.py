"""PyTorch eager: the module as it is, rebuilt from its configuration; the baseline of every comparison.

Dynamic INT8 packs the weights for PyTorch's quantized linear operator (fbgemm/oneDNN); they are stored as int8, so the
file shrinks as well. Weight-only INT8 and INT4 are stored as codes and decoded at every call, which saves memory and
disk, not time. A `ScaledLinear` keeps the scale of its input. Left out: static INT8, which eager mode would need
rewritten modules for; the compiled backend has it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from workbench.backends._lowering import (
    example,
    honoured,
    layer_macs,
    logits,
    missing_grids,
    one_float,
    quiet,
    read_settings,
    shares,
    threads,
    write_settings,
)
from workbench.backends._torch_profile import profile
from workbench.backends.base import Backend, Effect, NodeTime, Runner, require_module, unknown_layer
from workbench.draft import Batch, Draft, ModelFacts
from workbench.errors import Refused
from workbench.knobs import knob
from workbench.loading.structure import WEIGHTS, build, distinct, fill, replace, save_structure

if TYPE_CHECKING:
    import torch

#: Suffixes under which an int8 layer's weight and its scales are stored.
_QUANTIZED, _SCALES = ".weight_int8", ".weight_scales"


class Eager(Backend):
    """PyTorch eager: no compiler, no export; FP32, BF16, dynamic INT8, weight-only INT8 and INT4.

    Source: Ansel et al., "PyTorch 2", ASPLOS 2024; dynamic INT8 by `torch.ao.nn.quantized.dynamic.Linear`.
    """

    name = "eager"
    title = "PyTorch eager"
    realises = frozenset({"fp32", "bf16", "fp16", "int8_dynamic", "int8_weight", "int4_weight"})
    unable: ClassVar[dict[str, str]] = {
        "int8_static": "PyTorch eager has no static INT8; use compiled, openvino or onnxruntime"
    }
    install = "pip install torch transformers"

    device: str = knob("cpu", choices=("cpu", "cuda"), help="where the model runs")

    @classmethod
    def available(cls) -> str | None:
        from importlib.util import find_spec

        return None if find_spec("torch") else f"PyTorch is not installed: {cls.install}"

    def refuses(self, kinds: frozenset[str], facts: ModelFacts) -> str | None:
        reason = super().refuses(kinds, facts) or missing_device(self.device)
        if reason:
            return reason
        if self.device == "cuda" and "int8_dynamic" in kinds:
            return "PyTorch's dynamic INT8 runs on the CPU only; use device='cpu'"
        if self.device == "cpu" and "fp16" in kinds:
            return "FP16 is emulated on CPUs and slower than FP32; use bf16, or device='cuda'"
        return None

    def lower(self, draft: Draft, folder: Path) -> None:
        """Write structure and weights into `folder`; `Refused` for a module that cannot be built again."""
        import torch
        from safetensors.torch import save_file

        module = require_module(draft, self)
        base = one_float(draft.plan, self.title)
        missing_grids(draft)
        quantized = draft.plan.of("int8_dynamic")
        if quantized and base != "fp32":
            raise Refused("PyTorch's dynamic INT8 layers take FP32 inputs.", do="leave the rest of the model in FP32")
        with quiet():
            save_structure(module, draft.factory, folder)
            tensors = _tensors(module, getattr(torch, _DTYPES[base]), quantized, draft)
            shapes = _pack(module, draft, tensors)
            write_settings(folder, base=base, int8=quantized, packed=shapes, macs=layer_macs(draft, self.sequence))
            save_file(tensors, str(folder / WEIGHTS))
        runner = self.load(folder)
        honoured(draft.plan, runner.effect().layers, self)
        _compare(runner, module, draft, exact=base == "fp32" and draft.plan.quantization() is None)

    def load(self, folder: Path) -> EagerRunner:
        import torch

        settings = read_settings(folder)
        torch.set_num_threads(threads(self.threads))
        with quiet():
            module = _load(folder, settings)
        return EagerRunner(module.to(self.device), settings["macs"])

    def weights(self, folder: Path, names: Collection[str] | None = None) -> Iterator[tuple[str, np.ndarray]]:
        settings = read_settings(folder)
        with quiet():
            module = _load(folder, settings)
        for name in settings["macs"]:
            if names is None or name in names:
                yield name, _matrix(module.get_submodule(name))

    def inputs(self, folder: Path, layer: str) -> Callable[[Batch], np.ndarray]:

        runner = self.load(folder)
        if layer not in runner.macs:
            raise unknown_layer(layer)
        part = runner.module.get_submodule(layer)
        seen: list[torch.Tensor] = []
        part.register_forward_pre_hook(lambda part, args: seen.append(_multiplied(part, args[0])))

        def look(batch: Batch) -> np.ndarray:
            seen.clear()
            runner(batch)
            return np.asarray(seen[-1].float().cpu().numpy())

        return look


class EagerRunner(Runner):
    """A module called under `torch.inference_mode`."""

    def __init__(self, module: torch.nn.Module, macs: dict[str, int]) -> None:
        import torch

        self.module, self.macs = module, macs
        self._device = next((p.device for p in module.parameters()), torch.device("cpu"))
        self._from_numpy, self._inference = torch.from_numpy, torch.inference_mode

    def __call__(self, batch: Batch) -> np.ndarray:
        with self._inference():
            tensors = {name: self._from_numpy(array).to(self._device) for name, array in batch.items()}
            answer: np.ndarray = logits(self.module(**tensors)).float().cpu().numpy()
        return answer

    def profile(self, batch: Batch, calls: int) -> list[NodeTime]:
        """By PyTorch's profiler, with every layer marked; the rest is the own time of operators outside of layers."""
        return profile(self.module, list(self.macs), lambda: self(batch), calls)

    def effect(self) -> Effect:
        children = dict(self.module.named_modules())
        layers = {name: _precision(children[name]) for name in self.macs}
        packed = [child for child in children.values() if _is_int8(child)]
        plain = [child for child in children.values() if not any(child.children())]
        plain = [child for child in plain if child._get_name() != "LinearPackedParams"]
        stored = sum(p.numel() for p in self.module.parameters())
        stored += sum(child.stored() for child in children.values() if _is_packed(child))  # type: ignore[operator]
        stored += sum(t.numel() for child in packed for t in child._weight_bias() if t is not None)  # type: ignore[operator]
        nodes = dict(Counter(child._get_name() for child in (*plain, *packed)))
        return Effect(shares(layers, self.macs), nodes, layers, stored)


def missing_device(device: str) -> str | None:
    """None, or the reason why PyTorch cannot use this device here."""
    if device == "cpu":
        return None
    import torch

    return None if torch.cuda.is_available() else "PyTorch sees no CUDA device on this machine; use device='cpu'"


_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def quantize(weight: torch.Tensor, per_channel: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Symmetric int8 of a weight of shape (out, in), and the scale of each output, shape (out,)."""
    import torch

    largest = weight.abs().amax(dim=1) if per_channel else weight.abs().max().expand(len(weight))
    scales = (largest / 127).clamp(min=torch.finfo(torch.float32).eps)
    return (weight / scales[:, None]).round().clamp(-127, 127).to(torch.int8), scales.contiguous()


def _tensors(module: Any, dtype: torch.dtype, quantized: list[str], draft: Draft) -> dict[str, torch.Tensor]:
    """Everything that is stored: each tensor once, floats in `dtype`, the weights of quantized layers as int8."""
    children = dict(module.named_modules())
    stored: dict[str, torch.Tensor] = {}
    for name, tensor in distinct(module).items():
        layer = name.rpartition(".")[0]
        if layer in quantized and name.endswith(".weight"):
            matrix = tensor if _is_linear(children[layer]) else tensor.T
            weights, scales = quantize(matrix.float(), draft.plan.layers[layer].per_channel)
            stored |= {layer + _QUANTIZED: weights, layer + _SCALES: scales}
        else:
            stored[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    return stored


def _pack(module: Any, draft: Draft, tensors: dict[str, torch.Tensor]) -> dict[str, dict[str, Any]]:
    """Put codes in the place of weight-only layers' weights among the stored `tensors`; what builds each layer."""
    from workbench.modules import packed

    shapes = {}
    for name in (*draft.plan.of("int8_weight"), *draft.plan.of("int4_weight")):
        layer, shapes[name] = packed(module.get_submodule(name), draft.grids[name])
        for part in ("weight", "bias", "input_scale"):
            tensors.pop(f"{name}.{part}", None)
        tensors |= {f"{name}.{part}": tensor.contiguous() for part, tensor in layer.state_dict().items()}
    return shapes


def _load(folder: Path, settings: dict[str, Any]) -> torch.nn.Module:
    import torch
    from safetensors.torch import load_file

    from workbench.modules import PackedLinear

    tensors = load_file(str(folder / WEIGHTS))
    module = build(folder).to(getattr(torch, _DTYPES[settings["base"]]))
    for name, shape in settings.get("packed", {}).items():
        replace(module, name, PackedLinear(**shape).eval())
    packed = {name: _int8_linear(tensors, name) for name in settings["int8"]}
    fill(module, tensors, ready=tuple(packed))
    for name, layer in packed.items():
        replace(module, name, layer)
    return module


def _int8_linear(tensors: dict[str, torch.Tensor], name: str) -> torch.nn.Module:
    """The packed layer called `name`, taken out of the stored `tensors`."""
    import torch
    from torch.ao.nn.quantized import dynamic

    weights, scales = tensors.pop(name + _QUANTIZED), tensors.pop(name + _SCALES)
    bias = tensors.pop(name + ".bias", None)
    zeros = torch.zeros(len(scales), dtype=torch.long)
    packed = torch._make_per_channel_quantized_tensor(weights, scales.double(), zeros, 0)
    layer = dynamic.Linear(weights.shape[1], weights.shape[0], bias_=bias is not None, dtype=torch.qint8)
    layer.set_weight_bias(packed, bias)
    scale = tensors.pop(name + ".input_scale", None)
    if scale is not None:
        layer.register_buffer("input_scale", scale)
        layer.register_forward_pre_hook(lambda part, args: (args[0] * part.input_scale,))
    return layer


def _compare(runner: EagerRunner, module: Any, draft: Draft, *, exact: bool) -> None:
    """Refuse an artifact that does not answer as the module does; a precision change may move the logits a little."""
    import torch

    batch = dict(zip(draft.inputs, example(draft.inputs, 1, 8), strict=True))
    with torch.inference_mode():
        wanted = logits(module(**batch)).float().numpy()
    given = runner({name: tensor.numpy() for name, tensor in batch.items()})
    if given.shape != wanted.shape or (exact and not np.allclose(given, wanted, atol=1e-4)):
        raise Refused(
            "The module built again from its configuration answers otherwise than the original: something was changed "
            "that a configuration cannot say.",
            do="name a factory that builds the module as it is now, or use another runtime, which exports its graph",
        )


def _is_int8(child: Any) -> bool:
    from torch.ao.nn.quantized import dynamic

    return isinstance(child, dynamic.Linear)


def _is_packed(child: Any) -> bool:
    from workbench.modules import PackedLinear

    return isinstance(child, PackedLinear)


def _is_linear(child: Any) -> bool:
    import torch

    return isinstance(child, torch.nn.Linear)


def _matrix(child: Any) -> np.ndarray:
    """What a layer multiplies by, float32 of shape (out, in)."""
    if _is_int8(child):
        weight = child.weight().dequantize()
    elif _is_packed(child):
        weight = child.weight()
    else:
        # Conv1D keeps its weight the other way round.
        weight = child.weight if _is_linear(child) else child.weight.T
    matrix: np.ndarray = weight.detach().float().cpu().numpy()
    return matrix


def _multiplied(child: Any, values: torch.Tensor) -> torch.Tensor:
    """What a layer multiplies by its weight of what it is given."""
    scale = getattr(child, "input_scale", None)
    # An int8 layer is given it scaled already, by a hook that stands before.
    return values if scale is None or _is_int8(child) else values * scale.to(values.dtype)


def _precision(child: Any) -> str:
    if _is_int8(child):
        return "int8"
    if _is_packed(child):
        return f"int{child.bits}_weight"
    return {"torch.float32": "fp32", "torch.bfloat16": "bf16", "torch.float16": "fp16"}[str(child.weight.dtype)]
