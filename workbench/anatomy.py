"""Where a model keeps its transformer layers, and in them its heads and neurons.

The blocks are found by shape, not by a list of architectures: the longest `nn.ModuleList` whose items are all of one
class. That is `distilbert.transformer.layer`, `bert.encoder.layer`, `model.layers` …, and also what a user's own
module most likely means. Inside a block the linear layers stand in the order in which they are used: query, key,
value, output, then the two of the feed-forward network; their widths tell whether that holds. Left out: models that
repeat one block by sharing it (ALBERT), or that stack blocks in an `nn.Sequential`; they have no block path. Fused
query-key-value matrices, gated feed-forward networks and grouped keys have no layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workbench.errors import Refused

#: Attributes in which an attention says how many numbers a head has.
_HEAD_SIZES = ("attention_head_size", "head_dim", "attention_head_dim")


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


@dataclass(frozen=True)
class Block:
    """One transformer layer: the names of its linear layers and the numbers of a head (`head`).

    `output` takes the heads side by side, `down` takes the neurons: what is removed there is removed from `query`,
    `key`, `value`, and from `up`.
    """

    path: str
    query: str
    key: str
    value: str
    output: str
    up: str
    down: str
    head: int

    @property
    def layers(self) -> tuple[str, ...]:
        """All six."""
        return (self.query, self.key, self.value, self.output, self.up, self.down)


def layout(module: Any) -> list[Block]:
    """The blocks of a BERT-, DistilBERT-, RoBERTa-, ELECTRA- or ViT-style encoder, whatever its names.

    Raises `Refused`, saying what was found instead, for any other.
    """
    path, count = find_blocks(module)
    if not count:
        raise Refused(f"This {type(module).__name__} has no list of transformer layers.")
    return [_block(module, f"{path}.{i}") for i in range(count)]


def _block(module: Any, path: str) -> Block:
    from torch import nn

    linear = {name: part for name, part in module.get_submodule(path).named_modules() if isinstance(part, nn.Linear)}
    shapes = [(part.in_features, part.out_features) for part in linear.values()]
    head = _head_size(module, f"{path}.{next(iter(linear), '')}") if linear else 0
    if not (len(shapes) == 6 and head and _fits(shapes, head)):
        raise Refused(
            f"{path} is no layer whose heads and neurons can be told: its linear layers are "
            f"{', '.join(f'{name} {shape}' for name, shape in zip(linear, shapes, strict=True)) or 'none'}.",
            allowed="query, key, value and output of one width and a feed-forward network of two layers, as in BERT, "
            "DistilBERT, RoBERTa, ELECTRA and ViT",
            do="take a technique that needs no layout, such as drop_layers or static_int8",
        )
    query, key, value, output, up, down = (f"{path}.{name}" for name in linear)
    return Block(path, query, key, value, output, up, down, head)


def _fits(shapes: list[tuple[int, int]], head: int) -> bool:
    query, key, value, output, up, down = shapes
    hidden = query[0]
    attention = query == key == value and output == (query[1], hidden) and query[1] % head == 0
    return attention and up[0] == hidden and down == (up[1], hidden)


def _head_size(module: Any, query: str) -> int:
    """The numbers of a head, as the module that owns the query says; 0 where it does not."""
    owner = module.get_submodule(query.rpartition(".")[0])
    return next((int(getattr(owner, name)) for name in _HEAD_SIZES if getattr(owner, name, None)), 0)
