"""Magnitude pruning: the smallest weights become zero. Unstructured and in one shot.

The idea is LeCun's "optimal brain damage" (1990) made simple by Han et al. 2015. Left out: gradual schedules, recovery
by training, N:M patterns, and everything that physically removes weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.draft import Draft
from workbench.errors import Refused
from workbench.knobs import knob
from workbench.techniques.base import Technique


class PruneMagnitude(Technique):
    """Set the smallest weights of the linear layers to zero: compresses on disk, runs no faster.

    Source: S. Han et al., "Learning both weights and connections for efficient neural networks", NeurIPS 2015,
    arXiv:1506.02626. Cost: seconds; the drop grows steeply beyond half of the weights, as nothing is trained again.
    Helps when the file must be small in a compressed archive, or to see how much of a model is idle.
    """

    name = "prune_magnitude"
    group = "pruning"
    source = "Han et al. 2015, arXiv:1506.02626"
    phase = 2

    sparsity: float = knob(0.5, low=0.0, high=0.99, search=(0.3, 0.5, 0.7), help="share of the weights set to zero")
    scope: str = knob(
        "local",
        choices=("local", "global"),
        help="the same share of each layer, or the smallest weights of all layers together",
    )

    @property
    def note(self) -> str:
        """What a mask does not do."""
        return "zeros alone run no faster on these runtimes and take the same memory; they only compress better on disk"

    def apply(self, draft: Draft) -> Draft:
        """Zero weights of the module in place; layers that are kept, or share a weight with one, are not touched."""
        import torch

        if draft.module is None:
            raise Refused(self.fits(draft.facts) or f"{self.name} needs a PyTorch module")
        weights = prunable(draft)
        if not weights:
            raise Refused(
                f"{self.name} has no layer left to prune: every one is kept.",
                allowed="at least one linear layer that `keep` does not match",
                do="take patterns out of `keep`",
            )
        masks = magnitude_mask(weights, self.sparsity, self.scope)
        with torch.no_grad():
            for name, weight in weights.items():
                weight.masked_fill_(masks[name], 0.0)
        zeros, total = sum(int(m.sum()) for m in masks.values()), sum(m.numel() for m in masks.values())
        draft.notes.append(f"{zeros} of {total} weights in {len(weights)} linear layers set to zero; {self.note}")
        return draft


def prunable(draft: Draft) -> dict[str, Any]:
    """Weight by layer name: each tensor once, and none that a kept layer shares."""
    taken = {id(draft.module.get_submodule(name).weight) for name in draft.kept}
    weights: dict[str, Any] = {}
    for name in draft.quantizable():
        weight = draft.module.get_submodule(name).weight
        if id(weight) not in taken:
            taken.add(id(weight))
            weights[name] = weight
    return weights


def magnitude_mask(weights: Mapping[str, Any], sparsity: float, scope: str = "local") -> dict[str, Any]:
    """What to prune: a bool tensor for each weight, of its shape, True where it becomes zero.

    Exactly `round(sparsity * n)` entries are True, n counted over all weights ("global") or within each ("local").
    Of equal magnitudes the earlier goes first, in the order of the mapping and then of the rows; NaN is kept longest.
    """
    import torch

    sizes = {name: weight.detach().abs().float().nan_to_num(nan=torch.inf) for name, weight in weights.items()}
    if scope == "local":
        return {name: smallest(size.flatten(), sparsity).reshape(size.shape) for name, size in sizes.items()}
    together = smallest(torch.cat([size.flatten() for size in sizes.values()]), sparsity)
    parts = together.split([size.numel() for size in sizes.values()])
    return {name: part.reshape(size.shape) for (name, size), part in zip(sizes.items(), parts, strict=True)}


def smallest(values: Any, share: float) -> Any:
    """A bool tensor (n,), True for exactly the `round(share * n)` smallest of `values` (n,); ties by position."""
    import torch

    count = round(share * values.numel())
    if count == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    threshold = values.kthvalue(count).values
    chosen = values < threshold
    equal = torch.nonzero(values == threshold).flatten()
    chosen[equal[: count - int(chosen.sum())]] = True
    return chosen
