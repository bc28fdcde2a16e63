"""PT2E: static INT8 of an exported program by torchao's X86 inductor quantizer.

Layers are chosen by exact name (`set_module_name_qconfig`; a pattern would silently do nothing), and which linear
nodes came out quantized is read from the converted graph. Ranges are MinMax, or the mean over the calibration batches
of a percentile. Left out: quantization-aware training, dynamic INT8, other operators than linear.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.draft import Batch, Draft, Precision

if TYPE_CHECKING:
    import torch

#: The inner name that `positional` gives to the module.
_PREFIX = "model."


def quantize(
    program: torch.export.ExportedProgram, draft: Draft, precision: Precision, batches: list[Batch]
) -> tuple[torch.fx.GraphModule, list[str]]:
    """The converted graph, and the names of the layers whose weight and input are quantized in it."""
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import X86InductorQuantizer

    quantizer = X86InductorQuantizer()
    config = _config(precision)
    for name in draft.plan.of("int8_static"):
        quantizer.set_module_name_qconfig(_PREFIX + name, config)
    prepared = prepare_pt2e(program.module(), quantizer)
    for batch in batches:
        prepared(*(torch.from_numpy(batch[name]) for name in draft.inputs))
    converted = convert_pt2e(prepared)
    return converted, quantized_layers(converted)


def quantized_layers(graph: torch.fx.GraphModule) -> list[str]:
    """Layers whose linear node takes a dequantized input and a dequantized weight."""
    names = []
    for node in graph.graph.nodes:
        if "linear" in str(node.target) or "addmm" in str(node.target):
            dequantized = [arg for arg in node.args if "dequantize" in str(getattr(arg, "target", ""))]
            stack = list((node.meta.get("nn_module_stack") or {}).values())
            if len(dequantized) == 2 and stack:
                names.append(stack[-1][0].removeprefix(_PREFIX))
    return names


def _config(precision: Precision) -> Any:
    """The quantizer's configuration: unsigned activations per tensor, signed weights per channel or per tensor."""
    import torch
    from torchao.quantization.pt2e import MinMaxObserver, PerChannelMinMaxObserver
    from torchao.quantization.pt2e.quantizer import QuantizationSpec
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import QuantizationConfig

    observer = MinMaxObserver if precision.calibration == "minmax" else _percentile_observer(precision.percentile)
    activations = QuantizationSpec(
        dtype=torch.uint8,
        quant_min=0,
        quant_max=255,
        qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=observer.with_args(eps=2**-12),
    )
    weights = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_channel_symmetric if precision.per_channel else torch.per_tensor_symmetric,
        ch_axis=0 if precision.per_channel else None,
        observer_or_fake_quant_ctr=(PerChannelMinMaxObserver if precision.per_channel else MinMaxObserver).with_args(
            eps=2**-12
        ),
    )
    return QuantizationConfig(activations, activations, weights, None, False)


def _percentile_observer(percentile: float) -> Any:
    """An observer whose range is the mean over batches of the (100 - p)-th and p-th percentile (Wu et al. 2020)."""
    from torchao.quantization.pt2e import MinMaxObserver

    class PercentileObserver(MinMaxObserver):
        batches = 0

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            flat = values.detach().float().flatten()
            count = max(1, round(flat.numel() * (1 - percentile / 100)))
            ends = flat.kthvalue(count).values, flat.kthvalue(flat.numel() - count + 1).values
            for buffer, end in zip((self.min_val, self.max_val), ends, strict=True):
                mean = end if not self.batches else buffer + (end - buffer) / (self.batches + 1)
                buffer.resize_(end.shape).copy_(mean)
            self.batches += 1
            return values

    return PercentileObserver
