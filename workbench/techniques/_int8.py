"""What the INT8 techniques share: what layers take in on calibration examples, and layers on the INT8 grid.

Examples are run at their own length: those of equal length together, so that no padding is ever seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.draft import Draft
from workbench.errors import DataError, Refused
from workbench.int8 import EPS, STEPS, TOP, Range, scale_zero

if TYPE_CHECKING:
    import torch

_BATCH = 16

#: Rows of the calibration examples, and the model's inputs for them.
Chunk = tuple[list[int], dict[str, "torch.Tensor"]]


def chunks(draft: Draft, samples: int) -> list[Chunk]:
    """The first `samples` calibration examples, cut at the draft's longest input, in batches of equal length.

    Raises what `DraftData.calibration` raises, and `Refused` where it gives none.
    """
    import torch

    examples = draft.data.calibration(samples)
    if not examples:
        raise Refused(
            "Calibration needs examples, and this task has none.",
            do="give training data with the task, or use dynamic_int8, which needs none",
        )
    lengths = [min(len(next(iter(one.values()))), draft.sequence) for one in examples]
    found: list[Chunk] = []
    for length in sorted(set(lengths)):
        alike = [row for row, other in enumerate(lengths) if other == length]
        for start in range(0, len(alike), _BATCH):
            rows = alike[start : start + _BATCH]
            tensors = {name: torch.tensor([examples[row][name][:length] for row in rows]) for name in draft.inputs}
            found.append((rows, tensors))
    return found


def watch(
    module: Any, names: Iterable[str], given: Sequence[Chunk], see: Callable[[str, list[int], Any, Any], None]
) -> None:
    """Run the module; `see(layer, rows, input, output)` is called for every call of a layer in `names`.

    The input is the tensor that is quantized: of a `ScaledLinear` the one that is already multiplied.
    """
    import torch

    rows: list[int] = []

    def hook(name: str) -> Callable[..., None]:
        def keep(part: Any, args: tuple, output: Any) -> None:
            see(name, rows, args[0] if _scale(part) is None else args[0] * part.input_scale, output)

        return keep

    handles = [module.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        with torch.no_grad():
            for now, inputs in given:
                rows[:] = now
                module(**inputs)
    finally:
        for handle in handles:
            handle.remove()


def sharing(module: Any, names: Sequence[str], chunk: Chunk) -> list[list[str]]:
    """`names` in groups that take in one and the same tensor (query, key and value), each in the order of `names`.

    Raises `Refused` for a layer that the forward pass does not reach.
    """
    import torch

    groups: list[tuple[Any, Any, list[str]]] = []

    def hook(name: str) -> Callable[..., None]:
        def keep(part: Any, args: tuple) -> None:
            scale = _scale(part)
            for values, other, members in groups:
                same = scale is other or (scale is not None and other is not None and torch.equal(scale, other))
                if values is args[0] and same:
                    members.append(name)
                    return
            groups.append((args[0], scale, [name]))

        return keep

    handles = [module.get_submodule(name).register_forward_pre_hook(hook(name)) for name in names]
    try:
        with torch.no_grad():
            module(**chunk[1])
    finally:
        for handle in handles:
            handle.remove()
    seen: set[str] = set()
    found = []
    for _, _, members in groups:
        fresh = sorted({name for name in members if name not in seen}, key=list(names).index)
        seen.update(fresh)
        found += [fresh] if fresh else []
    for name in names:
        if name not in seen:
            raise Refused(
                f"{name} takes no part in the model's answer, so its range cannot be found.",
                do="keep this layer",
            )
    return found


def finite(name: str, values: torch.Tensor) -> None:
    """Raise `DataError`, naming the layer, where its input is not finite."""
    import torch

    if not bool(torch.isfinite(values).all()):
        raise DataError(
            f"The input of {name} is not finite (NaN or infinite) on the calibration examples.",
            do="look at the model's weights and at the calibration data; no range can be found from this",
        )


def quantized(values: torch.Tensor, limits: Range) -> torch.Tensor:
    """`values` quantized and dequantized on the grid of the range."""
    import torch

    return torch.fake_quantize_per_tensor_affine(values.float(), *scale_zero(limits), 0, STEPS)


def quantized_weight(weight: torch.Tensor, per_channel: bool) -> torch.Tensor:
    """A weight of shape (out, in) quantized and dequantized; its gradient passes straight through."""
    import torch

    tops = weight.detach().abs().float()
    # As `workbench.int8.weight_scales`, where the tensor is.
    scales = ((tops.amax(dim=1) if per_channel else tops.max().expand(len(weight))) / TOP).clamp(min=EPS).contiguous()
    zeros = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_channel_affine(weight.float(), scales, zeros, 0, -TOP, TOP)


def matrix(layer: Any) -> torch.Tensor:
    """A layer's weight as (out, in); GPT-2's Conv1D keeps it the other way round."""
    import torch

    return layer.weight if isinstance(layer, torch.nn.Linear) else layer.weight.T


def error(wanted: torch.Tensor, given: torch.Tensor) -> tuple[float, float]:
    """Sum of squared differences, and of squares of what is wanted: their ratio is the normalised error (NMSE)."""
    return float(((wanted - given).double() ** 2).sum()), float((wanted.double() ** 2).sum())


def correct_biases(
    draft: Draft, names: Sequence[str], ranges: dict[str, Range], per_channel: bool, samples: int
) -> int:
    """Take the mean error of each layer's quantized form, on what the module gives it, from its bias; how many had one.

    M. Nagel et al., "Data-free quantization through weight equalization and bias correction", ICCV 2019,
    arXiv:1906.04721, section 4.2, with the means measured instead of derived from batch norms.
    """
    import torch

    layers = {name: draft.module.get_submodule(name) for name in names}
    layers = {name: layer for name, layer in layers.items() if layer.bias is not None}
    weights = {name: quantized_weight(matrix(layer), per_channel) for name, layer in layers.items()}
    sums = {name: np.zeros(len(weights[name])) for name in layers}
    counts = dict.fromkeys(layers, 0)

    def see(name: str, rows: list[int], values: torch.Tensor, output: torch.Tensor) -> None:
        given = torch.nn.functional.linear(quantized(values, ranges[name]), weights[name], layers[name].bias)
        gap = (given - output).flatten(0, -2)
        sums[name] += gap.double().sum(dim=0).numpy()
        counts[name] += len(gap)

    watch(draft.module, layers, chunks(draft, samples), see)
    with torch.no_grad():
        for name, layer in layers.items():
            layer.bias -= torch.from_numpy(sums[name] / max(counts[name], 1)).to(layer.bias.dtype)
    return len(layers)


def _scale(part: Any) -> Any:
    return getattr(part, "input_scale", None)
