"""What the techniques share that hold weights at zero: which weights, the checks, and writing the masks down.

A mask in the draft has the weight's own shape; scores and patterns think of a weight as (out, in), which GPT-2's
Conv1D keeps the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.draft import Draft
from workbench.errors import KnobError, Refused
from workbench.techniques._patterns import ALLOWED, Pattern, mask, parse

#: Said before every run that sets weights to zero.
HONEST = "zeros alone run no faster on these runtimes and take the same memory; they only compress better on disk"


def prunable(draft: Draft, name: str) -> dict[str, Any]:
    """Weight by layer name: each tensor once, and none that a kept layer shares; `Refused` where none is left."""
    taken = {id(draft.module.get_submodule(layer).weight) for layer in draft.kept}
    weights: dict[str, Any] = {}
    for layer in draft.quantizable():
        weight = draft.module.get_submodule(layer).weight
        if id(weight) not in taken:
            taken.add(id(weight))
            weights[layer] = weight
    if not weights:
        raise Refused(
            f"{name} has no layer left to prune: every one is kept.",
            allowed="at least one linear layer that `keep` does not match",
            do="take patterns out of `keep`",
        )
    return weights


def upright(module: Any, layer: str, tensor: Any) -> Any:
    """`tensor`, of the shape of the layer's weight, as (out, in), or one that is (out, in) as the weight: a view."""
    import torch

    return tensor if isinstance(module.get_submodule(layer), torch.nn.Linear) else tensor.T


def check_pattern(name: str, text: str) -> Pattern:
    """The pattern of a knob; raises `KnobError` for none."""
    try:
        return parse(text)
    except ValueError as error:
        raise KnobError(f"{name}.pattern = {text!r} is not possible.", allowed=ALLOWED) from error


def no_sparsity(name: str, pattern: Pattern, sparsity: float) -> str | None:
    """None, or the reason why a pattern cannot have this sparsity: N:M fixes it."""
    if pattern.fixed is None or abs(pattern.fixed - sparsity) < 0.005:
        return None
    return f"{name}: the pattern {pattern} fixes the sparsity at {pattern.fixed:.3g}; set sparsity to it"


def find_masks(
    draft: Draft, scores: Mapping[str, Any], pattern: Pattern, sparsity: float, scope: str, held: Mapping[str, Any]
) -> dict[str, Any]:
    """The masks of `scores` (out, in) as tensors of the weights' shapes; what `held` has at zero stays there.

    Raises `Refused`, with the layer's name, where a pattern does not divide a layer or not one weight of it is left.
    """
    import torch

    check_shapes(scores, pattern)
    before = {layer: upright(draft.module, layer, zeros) for layer, zeros in held.items() if layer in scores}
    if pattern.single:
        # What is held is counted among the zeros that are asked for.
        lowest = torch.tensor(-torch.inf)
        scores = {
            layer: torch.where(before[layer].to(score.device), lowest.to(score.device), score)
            if layer in before
            else score
            for layer, score in scores.items()
        }
    found = mask(scores, pattern, sparsity if pattern.fixed is None else min(sparsity, pattern.fixed), scope)
    for layer, zeros in before.items():
        found[layer] = found[layer] | zeros.to(found[layer].device)
    for layer, zeros in found.items():
        if bool(zeros.all()):
            raise Refused(
                f"A sparsity of {sparsity:g} with scope {scope!r} leaves nothing of {layer!r}.",
                allowed="at least one weight of every layer",
                do=f"lower the sparsity, or keep={(layer,)!r}",
            )
    return {layer: upright(draft.module, layer, zeros) for layer, zeros in found.items()}


def check_shapes(weights: Mapping[str, Any], pattern: Pattern) -> None:
    """`Refused`, with the layers' names, where a pattern does not divide a weight (out, in)."""
    wrong = [layer for layer, weight in weights.items() if not pattern.divides(tuple(weight.shape))]
    if wrong:
        out, inside = weights[wrong[0]].shape
        raise Refused(
            f"The pattern {pattern} does not divide {wrong[0]!r}, which has {out} outputs and {inside} inputs.",
            allowed=f"outputs that {pattern.rows} divides, and inputs that {pattern.columns} divides",
            do=f"keep={tuple(wrong)!r}",
        )


def hold(draft: Draft, masks: Mapping[str, Any]) -> None:
    """Set the weights to zero and have whoever trains leave them there."""
    import torch

    with torch.no_grad():
        for layer, zeros in masks.items():
            draft.module.get_submodule(layer).weight.masked_fill_(zeros, 0.0)
            draft.masks[layer] = zeros.contiguous()


def told(masks: Mapping[str, Any]) -> str:
    """What was done, for a draft's notes."""
    zeros, total = sum(int(m.sum()) for m in masks.values()), sum(m.numel() for m in masks.values())
    return f"{zeros} of {total} weights in {len(masks)} linear layers set to zero; {HONEST}"
