"""What the weight-only techniques share: groups and their ranges, codes, and the inputs that layers see.

A group is that many neighbouring inputs of one output; all of it shares a scale and a zero point (the last one of a
row may be shorter). Codes are whole numbers from 0 to 2^bits - 1 and weight = (code - zero) * scale, whether the range
is symmetric (zero stays in the middle) or not. Rounding gives whole zero points, so that a weight of 0 stays exactly
0. Left out: codes of other widths, scales in 8 bits, outliers kept in float.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.draft import Draft, Example, Grid, ModelFacts, Precision
from workbench.errors import DataError, Refused
from workbench.knobs import knob
from workbench.techniques._plan import no_layers
from workbench.techniques.base import Technique

if TYPE_CHECKING:
    import torch

#: Calibration examples of one length that are run together.
_BATCH = 16


class WeightOnly(Technique):
    """A technique that gives linear layers integer weights and leaves activations as they are."""

    group = "quantization"
    precisions = frozenset({"int8_weight", "int4_weight"})
    phase = 5

    bits: int = knob(4, choices=(4, 8), search=(4, 8), unit="bits", help="width of a weight's code")
    group_size: int = knob(
        64,
        choices=(0, 32, 64, 128),
        search=(32, 64, 128),
        unit="inputs",
        help="inputs that share a scale; 0 = all of an output's; smaller is more exact and larger on disk",
    )
    symmetric: bool = knob(False, help="ranges around 0, without zero points; less exact, a little smaller")

    def fits(self, facts: ModelFacts) -> str | None:
        """None, or the reason why this model has no weights to quantize."""
        if not facts.has_module:
            return (
                f"{self.name} quantizes a PyTorch module, and an ONNX file has none; start from the checkpoint instead"
            )
        return no_layers(self.name, facts)

    def precision(self) -> Precision:
        """What it writes into the plan."""
        return Precision(f"int{self.bits}_weight", symmetric=self.symmetric, group=self.group_size)

    def layers(self, draft: Draft) -> list[str]:
        """The layers to quantize: those not kept, and whose weight is no embedding's too; `Refused` where none is left.

        An embedding that is tied to the output layer stays in float anyway: codes beside it would only add to it.
        """
        if draft.module is None:
            raise Refused(self.fits(draft.facts) or f"{self.name} needs a PyTorch module")
        names = draft.quantizable()
        tied = set(_tied(draft.module, names))
        if tied:
            draft.notes.append(
                f"{len(tied)} layers share their weight with an embedding and stay in float: {', '.join(sorted(tied))}"
            )
        left = [name for name in names if name not in tied]
        if not left:
            raise Refused(
                f"{self.name} has no layer left to quantize: every one is kept or tied to an embedding.",
                allowed="at least one linear layer that `keep` does not match",
                do="take patterns out of `keep`",
            )
        return left

    def write(self, draft: Draft, grids: dict[str, Grid]) -> Draft:
        """Put the grids and their precision into the draft, with a note of the mean error."""
        draft.grids.update(grids)
        draft.plan.layers.update(dict.fromkeys(grids, self.precision()))
        size = f"groups of {self.group_size}" if self.group_size else "one group per output"
        draft.notes.append(f"{len(grids)} layers have weights of {self.bits} bits in {size}")
        return draft


# -- groups and codes ------------------------------------------------------------------------------------------------


def matrix(child: Any) -> torch.Tensor:
    """A copy of a layer's weight as float32 of shape (out, in); GPT-2's layers keep theirs the other way round."""
    import torch

    weight = child.weight.detach().float()
    return (weight if isinstance(child, torch.nn.Linear) else weight.T).clone()


def grouped(values: torch.Tensor, size: int) -> torch.Tensor:
    """(out, in) as (out, groups, size); the last group is filled up with zeros."""
    import torch

    short = -values.shape[1] % size
    return torch.nn.functional.pad(values, (0, short)).reshape(len(values), -1, size)


def ranges(groups: torch.Tensor, bits: int, symmetric: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero point of each group from its smallest and largest weight: (…, size) -> two of (…,).

    0 lies in every range, so it has a code of its own.
    """
    import torch

    low, high = groups.amin(dim=-1).clamp(max=0), groups.amax(dim=-1).clamp(min=0)
    if symmetric:
        high = torch.maximum(-low, high)
        low = -high
    top = 2**bits - 1
    scales = (high - low) / top
    # Groups of zeros alone have no range; any scale will do.
    scales = torch.where(scales > 0, scales, torch.ones_like(scales))
    zeros = torch.full_like(scales, 2 ** (bits - 1)) if symmetric else (-low / scales).round().clamp(0, top)
    return scales, zeros


def encode(groups: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, bits: int) -> torch.Tensor:
    """The nearest codes: weights (…, size) with scales and zeros (…,) -> float tensor of whole numbers (…, size)."""
    return (groups / scales[..., None] + zeros[..., None]).round().clamp(0, 2**bits - 1)


def make_grid(weight: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, bits: int, size: int) -> Grid:
    """The grid of `weight` (out, in) rounded to the nearest codes of given scales and zeros (out, groups)."""
    import torch

    codes = encode(grouped(weight, size), scales, zeros, bits)
    flat = codes.reshape(len(weight), -1)[:, : weight.shape[1]].to(torch.uint8)
    return Grid(bits, size, flat.contiguous(), scales.contiguous(), zeros.contiguous())


def round_to_nearest(weight: torch.Tensor, bits: int, group: int, symmetric: bool) -> Grid:
    """The grid of a weight (out, in) whose ranges are those of its groups; `group` 0 is all inputs."""
    size = group_width(weight.shape[1], group)
    scales, zeros = ranges(grouped(weight, size), bits, symmetric)
    return make_grid(weight, scales, zeros, bits, size)


def group_width(inside: int, group: int) -> int:
    """The number of inputs in a group of a layer with `inside` inputs."""
    return min(group, inside) if group else inside


def output_error(error: torch.Tensor, hessian: torch.Tensor) -> float:
    """Mean squared error of a layer's output for an error (out, in) of its weight, with the mean of the inputs'
    products, `hessian` (in, in): E[(ΔW x)²] = tr(ΔW H ΔWᵀ)."""
    return float(((error.to(hessian.dtype) @ hessian) * error).sum() / len(error))


# -- what layers see -------------------------------------------------------------------------------------------------


@dataclass
class Inputs:
    """What layers that take the same tensor see: `hessian` (in, in), the mean of the products of their inputs, in
    float64; `mean_abs` (in,), the mean absolute input."""

    hessian: torch.Tensor
    mean_abs: torch.Tensor


def stages(module: Any, layers: Sequence[str], examples: Sequence[Example]) -> Iterator[tuple[list[str], Inputs]]:
    """The layers in the order in which the module runs them, those that take one tensor together, with their inputs.

    Inputs are found when a stage is asked for: what was changed in the module before shows in them. Every example is
    run as it is, without padding. Layers that no forward pass reaches are left out. Raises `DataError` for inputs
    that are no numbers.
    """
    import torch

    pending, batches = dict.fromkeys(layers), list(_batches(examples))
    while pending:
        with torch.no_grad():
            names, inputs = _next_stage(module, list(pending), batches)
        if not names or inputs is None:
            return
        yield names, inputs
        for name in names:
            del pending[name]


class _Seen(Exception):
    """Raised inside a forward pass when it has seen enough."""


def _next_stage(module: Any, pending: list[str], batches: list[dict[str, Any]]) -> tuple[list[str], Inputs | None]:
    from workbench.modules import ScaledLinear

    names: list[str] = []
    shared: list[Any] = []
    total: Inputs | None = None
    count = 0

    def hook(name: str) -> Any:
        def look(child: Any, args: tuple[Any, ...]) -> None:
            # A layer that scales its input sees something of its own.
            scales = isinstance(child, ScaledLinear)
            if not shared:
                shared.extend((args[0], scales))
            elif shared[0] is not args[0] or scales or shared[1]:
                raise _Seen
            if name not in names:
                names.append(name)

        return look

    handles = [module.get_submodule(name).register_forward_pre_hook(hook(name)) for name in pending]
    try:
        for batch in batches:
            shared.clear()
            with contextlib.suppress(_Seen):
                module(**batch)
            if not shared:
                return [], None
            child = module.get_submodule(names[0])
            seen = shared[0] * child.input_scale if isinstance(child, ScaledLinear) else shared[0]
            rows = seen.flatten(0, -2).double()
            if not bool(rows.isfinite().all()):
                raise DataError(
                    f"The input of the layer {names[0]!r} holds NaN or infinite numbers on the calibration data.",
                    do="look at the calibration data and at what the recipe did before",
                )
            count += len(rows)
            part = Inputs(rows.T @ rows, rows.abs().sum(dim=0))
            total = Inputs(total.hessian + part.hessian, total.mean_abs + part.mean_abs) if total else part
    finally:
        for handle in handles:
            handle.remove()
    return names, Inputs(total.hessian / count, total.mean_abs / count) if total else None


def _batches(examples: Sequence[Example]) -> Iterator[dict[str, Any]]:
    """Examples of equal length together, as tensors of shape (examples, length)."""
    import torch

    by_length: dict[int, list[Example]] = {}
    for example in examples:
        by_length.setdefault(len(next(iter(example.values()))), []).append(example)
    for alike in by_length.values():
        for start in range(0, len(alike), _BATCH):
            chunk = alike[start : start + _BATCH]
            yield {name: torch.tensor([one[name] for one in chunk]) for name in chunk[0]}


def _tied(module: Any, names: Sequence[str]) -> list[str]:
    """The layers among `names` whose weight is another module's too."""
    owners: dict[int, set[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), set()).add(name)
    return [name for name in names if len(owners.get(id(module.get_submodule(name).weight), ())) > 1]
