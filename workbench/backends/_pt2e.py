"""PT2E: static INT8 of an exported program by torchao's X86 inductor quantizer.

Layers are chosen by exact name (`set_module_name_qconfig`; a pattern would silently do nothing), and which linear
nodes came out quantized is read from the converted graph. Ranges are those that the plan knows, otherwise the minimum
and maximum over the calibration batches. Left out: PT2E's own quantization-aware training (the workbench trains the
module before it is exported), dynamic INT8, other operators than linear.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.draft import Batch, Draft, Precision
from workbench.int8 import STEPS, TOP, scale_zero

if TYPE_CHECKING:
    import torch

#: The inner name that `positional` gives to the module.
_PREFIX = "model."


def quantize(
    program: torch.export.ExportedProgram, draft: Draft, batches: list[Batch]
) -> tuple[torch.fx.GraphModule, list[str]]:
    """The converted graph, and the names of the layers whose weight and input are quantized in it.

    `batches` are run to find ranges; where the plan knows them one batch is enough, which shows it the weights.
    """
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import X86InductorQuantizer

    quantizer = X86InductorQuantizer()
    # Layers of equal precision share one configuration, and so an input that they share is quantized once.
    configs = {precision: _config(precision) for precision in set(draft.plan.layers.values())}
    for name in draft.plan.of("int8_static"):
        quantizer.set_module_name_qconfig(_PREFIX + name, configs[draft.plan.layers[name]])
    plain = program.module()
    _name_linear(plain, {_PREFIX + name for name in draft.plan.of("int8_static")})
    prepared = prepare_pt2e(plain, quantizer)
    for batch in batches:
        prepared(*(torch.from_numpy(batch[name]) for name in draft.inputs))
    converted = convert_pt2e(prepared)
    return converted, quantized_layers(converted)


def mix_bf16(graph: torch.fx.GraphModule, names: set[str]) -> None:
    """Let matrix products of a converted graph run in BF16, in place; linear layers in `names` stay in FP32.

    What autocast does, written into the graph, where it survives the export: inputs are cast to BF16, results back to
    FP32. Inductor fuses the casts and takes "dequantize, cast, multiply" for its INT8 kernel with BF16 results.
    """
    import torch

    # Not aten.to: the export writes a check of the type before it, and a second reader hides the pattern from inductor.
    aten, cast = torch.ops.aten, torch.ops.prims.convert_element_type.default
    products = (aten.linear.default, aten.matmul.default, aten.bmm.default, aten.addmm.default)
    for node in list(graph.graph.nodes):
        if node.target not in (*products, aten.scaled_dot_product_attention.default) or _layer(node) in names:
            continue
        with graph.graph.inserting_before(node):
            for source in [source for source in node.all_input_nodes if _is_float(source)]:
                node.replace_input_with(source, graph.graph.call_function(cast, (source, torch.bfloat16)))
        with graph.graph.inserting_after(node):
            back = graph.graph.call_function(cast, (node, torch.float32))
        node.replace_all_uses_with(back, delete_user_cb=lambda user, back=back: user is not back)
    graph.recompile()


def _is_float(node: Any) -> bool:
    """Whether a node gives float32; what PT2E dequantizes carries no type, and is."""
    import torch

    value = node.meta.get("val")
    return "dequantize" in str(node.target) or getattr(value, "dtype", None) == torch.float32


def _layer(node: Any) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]).removeprefix(_PREFIX) if stack else ""


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


def _name_linear(graph: torch.fx.GraphModule, names: set[str]) -> None:
    """Make the layers in `names` be found by the quantizer: it knows a linear node by its module's class, which is
    another one for a `ScaledLinear`; and it must take nothing else in there, such as the multiplication."""
    for node in graph.graph.nodes:
        stack = dict(node.meta.get("nn_module_stack") or {})
        last = next(reversed(stack), None)
        if last is None or stack[last][0] not in names:
            continue
        if "linear" in str(node.target):
            stack[last] = (stack[last][0], "torch.nn.modules.linear.Linear")
        elif node.op == "call_function":
            del stack[last]
        node.meta["nn_module_stack"] = stack


def _config(precision: Precision) -> Any:
    """The quantizer's configuration: unsigned activations per tensor, signed weights per channel or per tensor."""
    import torch
    from torchao.quantization.pt2e import FixedQParamsObserver, MinMaxObserver, PerChannelMinMaxObserver
    from torchao.quantization.pt2e.quantizer import QuantizationSpec
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import QuantizationConfig

    if precision.input_range is None:
        observer = MinMaxObserver.with_args(eps=2**-12)
    else:
        scale, zero = scale_zero(precision.input_range)
        observer = FixedQParamsObserver.with_args(scale=scale, zero_point=zero)
    plain = precision.input_range is not None or not precision.symmetric
    activations = QuantizationSpec(
        dtype=torch.uint8,
        quant_min=0,
        quant_max=STEPS,
        qscheme=torch.per_tensor_affine if plain else torch.per_tensor_symmetric,
        observer_or_fake_quant_ctr=observer,
    )
    weights = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-TOP,
        quant_max=TOP,
        qscheme=torch.per_channel_symmetric if precision.per_channel else torch.per_tensor_symmetric,
        ch_axis=0 if precision.per_channel else None,
        observer_or_fake_quant_ctr=(PerChannelMinMaxObserver if precision.per_channel else MinMaxObserver).with_args(
            eps=torch.finfo(torch.float32).eps
        ),
    )
    return QuantizationConfig(activations, activations, weights, None, False)
