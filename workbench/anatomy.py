"""Where a model keeps its transformer layers.

The blocks are found by shape, not by a list of architectures: the longest `nn.ModuleList` whose items are all of one
class. That is `distilbert.transformer.layer`, `bert.encoder.layer`, `model.layers` …, and also what a user's own
module most likely means. Left out: models that repeat one block by sharing it (ALBERT), or that stack blocks in an
`nn.Sequential`; they have no block path.
"""

from __future__ import annotations

from typing import Any


def find_blocks(module: Any) -> tuple[str, int]:
    """Path and number of the transformer blocks of an `nn.Module`, or ("", 0) where none were found.

    The longest `nn.ModuleList` of at least two items of one class; of equally long ones the one with more parameters,
    then the first. Lists inside a block (experts, heads) lose to the list that holds the block.
    """
    from torch import nn

    best: tuple[int, int, str] | None = None
    for name, part in module.named_modules():
        if not isinstance(part, nn.ModuleList) or len(part) < 2 or len({type(item) for item in part}) > 1:
            continue
        if best is not None and name.startswith(best[2] + "."):
            continue
        weight = sum(p.numel() for p in part.parameters())
        if best is None or (len(part), weight) > best[:2]:
            best = (len(part), weight, name)
    return (best[2], best[0]) if best else ("", 0)
