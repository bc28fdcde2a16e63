"""What a technique makes of single layers, as functions that can stand in for them one at a time.

The technique is applied once, to a copy of the model; from the copy and its precision plan every layer's compressed
form is taken. INT8 is simulated in float (fake quantization, `workbench.int8`), on the ranges that the plan knows or on
the smallest and largest calibration value where the runtime would find them itself. So a layer is always scored in the
form that the whole technique gives it. Left out: techniques that change more than their layers (SmoothQuant's norms,
dropped layers, narrower widths, training); there is no single layer to blame then.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from workbench.draft import Draft, Plan, Precision
from workbench.errors import Refused
from workbench.int8 import EPS, STEPS, Range
from workbench.loading.structure import replace as replace_module
from workbench.techniques._calibrate import find_ranges
from workbench.techniques._int8 import matrix, quantized, quantized_weight
from workbench.techniques.base import Technique, Trained

if TYPE_CHECKING:
    import torch

#: What of a layer is compressed.
What = Literal["both", "weights", "activations"]
WHATS = ("both", "weights", "activations")
#: Most calibration examples that ranges are found on where the runtime would find them itself.
_SAMPLES = 128


@dataclass(frozen=True)
class Form:
    """A layer's compressed form: `weight` (out, in) and `bias`, `squeeze` for its input and `settle` for its output
    (None: left as they are); or `part`, a module in its place."""

    weight: Any = None
    bias: Any = None
    squeeze: Callable[[Any], Any] | None = None
    settle: Callable[[Any], Any] | None = None
    part: Any = None

    def __call__(self, layer: Any, values: torch.Tensor) -> torch.Tensor:
        """The output of the compressed `layer`."""
        import torch

        if self.part is not None:
            return self.part(values)
        values = self.taken(layer, values)
        output = torch.nn.functional.linear(values, self.weight, self.bias)
        return output if self.settle is None else self.settle(output)

    def taken(self, layer: Any, values: torch.Tensor) -> torch.Tensor:
        """The input as the compressed layer multiplies it."""
        values = scaled(layer, values)
        return values if self.squeeze is None else self.squeeze(values)


@dataclass(frozen=True)
class Compressed:
    """Every layer's form, the draft that they were taken from (with its plan, grids and notes), and the ranges of
    static INT8 inputs by layer."""

    forms: dict[str, Form]
    draft: Draft
    ranges: dict[str, Range]


def scaled(layer: Any, values: torch.Tensor) -> torch.Tensor:
    """What a layer multiplies by its weight: the input, times the scale of a `ScaledLinear`."""
    scale = getattr(layer, "input_scale", None)
    return values if scale is None else values * scale


def compressed(fresh: Draft, technique: Technique, what: What = "both") -> Compressed:
    """The forms that `technique` gives the layers of `fresh`, whose module is not touched.

    Raises `Refused` for a technique that changes more than its layers, or nothing of what was asked for, and whatever
    the technique raises.
    """
    if fresh.module is None:
        raise Refused("Layers are scored on the PyTorch module, and an ONNX file has none.", do="start from the model")
    reason = technique.fits(fresh.facts)
    if reason:
        raise Refused(f"{technique.name} cannot be done here: {reason}")
    if isinstance(technique, Trained):
        raise Refused(
            f"{technique.name} trains the whole model, so no single layer can be scored for it.",
            allowed="techniques that compress layer by layer, such as static_int8, weight_rtn, prune or low_rank",
        )
    draft = technique.apply(
        replace(fresh, module=copy.deepcopy(fresh.module), plan=Plan(), masks={}, grids={}, notes=[], clock=None)
    )
    _only_layers(fresh, draft, technique)
    ranges = _missing_ranges(draft)
    ranges |= {name: one.input_range for name, one in draft.plan.layers.items() if one.input_range is not None}
    found = {}
    for name in fresh.quantizable():
        form = _form(fresh, draft, name, what, ranges)
        if form is not None:
            found[name] = form
    if not found:
        raise Refused(f"{technique.name} leaves the {what} of every layer as they are, so there is nothing to score.")
    return Compressed(found, draft, ranges)


def drafted(fresh: Draft, found: Compressed, names: Iterable[str]) -> Draft:
    """A draft in which the technique is applied to the layers in `names` alone, to be lowered.

    Raises `Refused` for a precision of the whole model, which no single layer can have.
    """
    draft, chosen = found.draft, set(names)
    if draft.plan.base != fresh.plan.base:
        raise Refused(
            f"{draft.plan.base} is the precision of the whole model on most runtimes; single layers cannot be lowered "
            "in it.",
            do="scan it without backend=, which simulates it",
        )
    module = copy.deepcopy(fresh.module)
    for name in chosen:
        replace_module(module, name, copy.deepcopy(draft.module.get_submodule(name)))
    return replace(
        fresh,
        module=module,
        plan=Plan(draft.plan.base, {n: one for n, one in draft.plan.layers.items() if n in chosen}),
        masks={n: mask for n, mask in draft.masks.items() if n in chosen},
        grids={n: grid for n, grid in draft.grids.items() if n in chosen},
        notes=[],
        clock=None,
    )


@contextmanager
def swapped(module: Any, forms: Mapping[str, Form]) -> Iterator[None]:
    """Let the named layers compute as their compressed forms; hooks on them still run."""
    parts = {module.get_submodule(name): form for name, form in forms.items()}
    with standing_in(parts, lambda part: partial(parts[part], part)):
        yield


@contextmanager
def standing_in(parts: Iterable[Any], forward: Callable[[Any], Callable[..., Any]]) -> Iterator[None]:
    """Let each module compute `forward(module)` instead of its own forward; hooks on it still run."""
    # Some modules carry a forward of their own beside that of their class.
    before = {part: part.__dict__.get("forward") for part in parts}
    try:
        for part in before:
            part.forward = forward(part)
        yield
    finally:
        for part, own in before.items():
            if own is None:
                part.__dict__.pop("forward", None)
            else:
                part.forward = own


def per_example(values: torch.Tensor) -> torch.Tensor:
    """`values` (examples, …) on 256 steps between each example's own ends, as dynamic INT8 finds them at run time."""
    import torch

    rows = values.float().flatten(1) if values.ndim > 1 else values.float()[None]
    low, high = rows.amin(dim=1, keepdim=True).clamp(max=0), rows.amax(dim=1, keepdim=True).clamp(min=0)
    scale = ((high - low) / STEPS).clamp(min=EPS)
    zero = (-low / scale).round()
    codes = (rows / scale + zero).round().clamp(0, STEPS)
    # The gradient passes straight through.
    return rows.add(((codes - zero) * scale - rows).detach()).reshape(values.shape).to(torch.float32)


def _form(fresh: Draft, draft: Draft, name: str, what: What, ranges: Mapping[str, Range]) -> Form | None:
    """The form of one layer, or None where nothing of `what` changes."""
    before, after = fresh.module.get_submodule(name), draft.module.get_submodule(name)
    if _outside(after) != _outside(before):
        raise Refused(
            f"{name} has another width after {draft.facts.architecture} was compressed, so it cannot stand in alone.",
            allowed="techniques that compress layer by layer, such as static_int8, weight_rtn, prune or low_rank",
        )
    if type(after) is not type(before):
        # Another module is in its place: its weight, in other words.
        return None if what == "activations" else Form(part=after)
    precision = draft.plan.layers.get(name, Precision(draft.plan.base))
    weight = matrix(after).detach()
    squeeze: Callable[[Any], Any] | None = None
    settle: Callable[[Any], Any] | None = None
    match precision.kind:
        case "int8_static":
            weight = quantized_weight(weight, precision.per_channel)
            squeeze = partial(quantized, limits=ranges[name])
        case "int8_dynamic":
            weight, squeeze = quantized_weight(weight, precision.per_channel), per_example
        case "int8_weight" | "int4_weight":
            weight = draft.grids[name].weight()
        case "bf16" | "fp16":
            squeeze = settle = _rounding(precision.kind)
            weight = _rounding(precision.kind)(weight)
    bias = None if after.bias is None else after.bias.detach()
    plain = matrix(before).detach()
    same_bias = bias is None or bool((bias == before.bias).all())
    if what == "activations":
        weight, bias = plain, None if before.bias is None else before.bias.detach()
        same_bias = True
    if what == "weights":
        squeeze = settle = None
    if squeeze is None and same_bias and weight.shape == plain.shape and bool((weight == plain).all()):
        return None
    return Form(weight.contiguous(), bias, squeeze, settle)


def _outside(part: Any) -> tuple[int, int]:
    """How many numbers a layer takes and gives, whatever stands in its place."""
    shapes = [tuple(matrix(piece).shape) for piece in part.modules() if getattr(piece, "weight", None) is not None]
    return shapes[0][1], shapes[-1][0]


def _rounding(kind: str) -> Callable[[Any], Any]:
    import torch

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[kind]
    return lambda values: values.to(dtype).float()


def _missing_ranges(draft: Draft) -> dict[str, Range]:
    """Ranges for static INT8 layers whose runtime would find them: the smallest and the largest value."""
    lost = [name for name, one in draft.plan.layers.items() if one.kind == "int8_static" and one.input_range is None]
    if not lost:
        return {}
    one = draft.plan.layers[lost[0]]
    return find_ranges(draft, lost, "minmax", min(one.samples, _SAMPLES), even=one.symmetric)


def _only_layers(fresh: Draft, draft: Draft, technique: Technique) -> None:
    """Raise `Refused` where anything but the quantizable layers was changed."""
    inside = tuple(f"{name}." for name in fresh.quantizable())
    before = {name: tensor for name, tensor in fresh.module.state_dict().items() if not name.startswith(inside)}
    after = {name: tensor for name, tensor in draft.module.state_dict().items() if not name.startswith(inside)}
    changed = [name for name in before.keys() | after.keys() if not _equal(before.get(name), after.get(name))]
    if changed or draft.blocks != fresh.blocks:
        raise Refused(
            f"{technique.name} changes more than single layers ({len(changed)} other tensors"
            f"{f', such as {sorted(changed)[0]!r}' if changed else ''}), so no layer can be scored for it alone.",
            allowed="techniques that compress layer by layer, such as static_int8, weight_rtn, prune or low_rank",
        )


def _equal(one: Any, other: Any) -> bool:
    import torch

    # A NaN that was there before is no change.
    both = one is not None and other is not None and one.shape == other.shape
    return both and bool(torch.equal(torch.nan_to_num(one), torch.nan_to_num(other)))
