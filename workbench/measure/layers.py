"""The structure of a module: its quantizable layers, parameters, zeros and MACs.

MACs (multiply-accumulates) are half of the floating-point operations that PyTorch's flop counter sees in one forward
pass: linear layers, convolutions and the two matrix products of attention. Embedding look-ups, norms, softmax and
activations are not counted, as is usual. The MACs of a `Layer` are its own matrix product only. A sparse weight
counts in full, because no CPU runtime here skips its zeros.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from workbench.errors import ModelError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Layer:
    """A quantizable layer: `kind` is `linear` or `conv1d` (GPT-2's transposed linear layer).

    `parameters` counts weight and bias, `sparsity` is the share of zeros in the weight, `macs` are for the inputs
    given (0 where the forward pass does not reach the layer).
    """

    name: str
    kind: str
    in_features: int
    out_features: int
    parameters: int
    sparsity: float
    macs: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def quantizable(module: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """The layers that can be quantized or pruned, by name, in the module's order; a shared layer stands once."""
    return {name: child for name, child in module.named_modules() if _kind(child)}


def layers(module: torch.nn.Module, inputs: Mapping[str, Any]) -> list[Layer]:
    """Every quantizable layer with its MACs in one forward pass of `inputs` (see `example_inputs`)."""
    found = quantizable(module)
    counts = dict.fromkeys(found, 0)

    def count(name: str) -> Any:
        def hook(child: torch.nn.Module, args: tuple, output: torch.Tensor) -> None:
            # += because some architectures (ALBERT) run one layer several times.
            counts[name] += args[0].numel() * _features(child)[1]

        return hook

    handles = [child.register_forward_hook(count(name)) for name, child in found.items()]
    try:
        with _inference(module):
            module(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    return [_describe(name, child, counts[name]) for name, child in found.items()]


def macs(module: torch.nn.Module, inputs: Mapping[str, Any]) -> int:
    """MACs of one forward pass of `inputs`, attention's matrix products included."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    # The counter knows the attention kernels of GPUs only; without this, SDPA on a CPU would count as nothing.
    attention = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
    with _inference(module), FlopCounterMode(display=False, custom_mapping=attention) as counter:
        module(**inputs)
    return int(counter.get_total_flops() // 2)


def example_inputs(module: torch.nn.Module, sequence: int = 128, batch: int = 1) -> dict[str, torch.Tensor]:
    """Inputs of shape (batch, sequence) for a text model: token ids and, where it takes one, a mask of ones.

    Raises `ModelError` for a module whose `forward` has no `input_ids`; pass its inputs yourself then.
    """
    import torch

    accepted = inspect.signature(module.forward).parameters
    if "input_ids" not in accepted:
        raise ModelError(
            f"{type(module).__name__} takes {', '.join(accepted) or 'nothing'}, so no example input can be made up.",
            allowed="a text model with input_ids, or inputs given by hand",
        )
    ones = torch.ones((batch, sequence), dtype=torch.long)
    return {name: ones for name in ("input_ids", "attention_mask") if name in accepted}


def parameters(module: torch.nn.Module) -> int:
    """The number of parameters, tied ones counted once; buffers are not parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def nonzero_parameters(module: torch.nn.Module) -> int:
    """The number of parameters that are not zero, tied ones counted once."""
    return sum(int(parameter.count_nonzero()) for parameter in module.parameters())


def sparsity(module: torch.nn.Module) -> dict[str, float]:
    """Share of zeros in the weight of each quantizable layer, by name."""
    return {name: _zeros(child) for name, child in quantizable(module).items()}


def _attention_flops(query: tuple, key: tuple, value: tuple, *_: Any, **__: Any) -> int:
    """Two per MAC of the scores and of the context; shapes are (batch, heads, length, width)."""
    batch, heads, length, width = query
    return int(2 * batch * heads * length * key[2] * (width + value[3]))


def _kind(module: torch.nn.Module) -> str:
    import torch

    if isinstance(module, torch.nn.Linear):
        return "linear"
    # A Conv1D can exist only where transformers was imported already; no need to load it to ask.
    transposed = getattr(sys.modules.get("transformers.pytorch_utils"), "Conv1D", None)
    return "conv1d" if transposed is not None and isinstance(module, transposed) else ""


def _features(module: Any) -> tuple[int, int]:
    """(in, out) features; Conv1D keeps its weight as (in, out), Linear as (out, in)."""
    rows, columns = module.weight.shape
    return (columns, rows) if _kind(module) == "linear" else (rows, columns)


def _zeros(module: Any) -> float:
    weight = module.weight
    return 1 - int(weight.count_nonzero()) / weight.numel() if weight.numel() else 0.0


def _describe(name: str, module: torch.nn.Module, macs: int) -> Layer:
    inside, outside = _features(module)
    return Layer(name, _kind(module), inside, outside, parameters(module), _zeros(module), macs)


@contextmanager
def _inference(module: torch.nn.Module) -> Iterator[None]:
    """Evaluation without gradients; the training flags are put back."""
    import torch

    flags = {child: child.training for child in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for child, flag in flags.items():
            child.training = flag
