"""Encoders whose layers hand on fewer tokens than they take: the least attended ones are left behind on the way.

A layer drops tokens between its attention and its feed-forward network, at the norm that stands there, so that the
feed-forward network and all later layers are spared them. The first token, which a classifier reads, stays the first;
padding goes before any real token. Attention is computed by an attention function of our own (transformers lets one be
registered), which hands on to the one that the model's configuration names and knows which tokens are left. This file
needs nothing of the workbench: an exported folder brings a copy of it. Left out: causal models, and numbers of tokens
that depend on more than the length, which no fixed graph has.

Sources: S. Goyal et al., "PoWER-BERT", ICML 2020, arXiv:2001.08950; S. Kim et al., "Learned token pruning for
transformers", KDD 2022, arXiv:2107.00910.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

NAME = "workbench_tokens"
#: Shares are whole thousandths, so that every exporter computes the same numbers of tokens.
WHOLE = 1000
#: A layer from the first one that drops tokens on: the names of its attention and of the norm behind it, and the share
#: of the model's tokens that goes on from there, in thousandths; 0 is the first token alone.
Row = tuple[str, str, int]


class Flow:
    """What the layers of one forward pass tell each other.

    `config` is the model's configuration, `queries` says whose attention counts ("all" or "first"). `length` is the
    number of tokens that came, `mask` (batch, tokens) says which of those left are real (None: all are), `score`
    (batch, tokens) is their importance where the next norm needs it. `taken` holds by layer which tokens went on,
    (batch, tokens left) places among those before; only kept where gradients are, for whoever trains.
    """

    def __init__(self, config: Any, queries: str, rows: Sequence[Row]) -> None:
        self.config, self.queries = config, queries
        self.rows: list[Row] = [(attention, norm, share) for attention, norm, share in rows]
        self.length: Any = 0
        self.mask: Any = None
        self.score: Any = None
        self.taken: dict[int, Any] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Flow:
        # What is left of the last forward pass is nobody's, and may be tensors that cannot be copied.
        other = Flow(copy.deepcopy(self.config, memo), self.queries, self.rows)
        memo[id(self)] = other
        return other

    def begin(self, mask: Any, length: Any) -> None:
        """A forward pass begins, at the first layer of `rows`."""
        self.length, self.mask, self.score, self.taken = length, real(mask), None, {}

    def drop(self, place: int, values: Any) -> Any:
        """Those of `values` (batch, tokens, width) that go on from row `place`."""
        share = self.rows[place][2]
        if share == 0:
            taken = torch.zeros_like(values[:, :1, 0], dtype=torch.long)
            values = values[:, :1]
            self.mask = None if self.mask is None else self.mask[:, :1]
        elif self.score is None:
            raise RuntimeError("a norm that drops tokens came before its attention")
        else:
            # In whole numbers, as ceil(share * length).
            count = (self.length * share + (WHOLE - 1)) // WHOLE
            taken = ranked(self.score, self.mask)[:, :count]
            values, self.mask = gathered(values, taken), None if self.mask is None else self.mask.gather(1, taken)
            self.score = None
        if torch.is_grad_enabled():
            self.taken[place] = taken
        return values


class DroppingNorm(nn.LayerNorm):
    """A layer norm that hands on only the tokens that its attention found important."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self._flow.drop(self._place, super().forward(values))  # type: ignore[no-any-return, operator, union-attr]


def shorten(module: Any, queries: str, rows: Sequence[Row]) -> None:
    """Let the layers named in `rows` drop tokens; names and tensors of the module stay as they are."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _attention)
    flow = Flow(module.config, queries, rows)
    for place, (attention, norm, share) in enumerate(rows):
        owner = module.get_submodule(attention)
        owner.config = copy.copy(owner.config)
        owner.config._attn_implementation = NAME
        owner._flow, owner._place = flow, place
        if share == WHOLE:
            continue
        old = module.get_submodule(norm)
        new = DroppingNorm(old.normalized_shape, eps=old.eps).train(old.training)
        new.weight, new.bias, new._flow, new._place = old.weight, old.bias, flow, place
        parent, _, last = norm.rpartition(".")
        setattr(module.get_submodule(parent), last, new)


def flow_of(module: Any) -> Flow | None:
    """What `shorten` put into the module, or None."""
    found = (getattr(part, "_flow", None) for part in module.modules())
    return next((flow for flow in found if isinstance(flow, Flow)), None)


def kept_tokens(module: Any, layers: int) -> list[Any]:
    """Which of the tokens that came each of the last forward pass's `layers` + 1 hidden states holds, as int64 (batch,
    tokens left), None for all; the first hidden state is the embedding. Known only where gradients are."""
    flow = flow_of(module)
    if flow is None:
        return [None] * (layers + 1)
    before = layers - len(flow.rows)
    found: list[Any] = [None] * (before + 1)
    for place in range(len(flow.rows)):
        taken, last = flow.taken.get(place), found[-1]
        found.append(last if taken is None else taken if last is None else last.gather(1, taken))
    return found


def real(mask: Any) -> Any:
    """Whether each token is real, bool of shape (batch, tokens), from any mask that transformers makes: None, of two
    sizes, or of four with True or 0 where a token is to be seen."""
    if mask is None:
        return None
    if mask.ndim == 2:
        return mask.bool()
    row = mask[:, 0, 0, :]
    return row if row.dtype == torch.bool else row == 0


def received(weights: Any, mask: Any) -> Any:
    """Attention that each token receives, (batch, tokens): mean over heads and real queries of weights (batch, heads,
    queries, tokens). Equation 3 of Kim et al. 2022, with padding left out of the mean."""
    by_query = weights.float().mean(dim=1)
    if mask is None or weights.shape[2] == 1:
        return by_query.mean(dim=1)
    counts = mask.to(by_query.dtype)[:, :, None]
    return (by_query * counts).sum(dim=1) / counts.sum(dim=1)


def ranked(score: Any, mask: Any) -> Any:
    """Places of the tokens, (batch, tokens): the first token, then the others from the highest score (batch, tokens)
    down, and padding last."""
    if mask is not None:
        score = torch.where(mask, score, -torch.ones_like(score))
    # No share of attention is larger than 1.
    score = nn.functional.pad(score[:, 1:], (1, 0), value=2.0)
    return score.argsort(dim=1, descending=True)


def gathered(values: Any, places: Any) -> Any:
    """The tokens of `values` (batch, tokens, width) at `places` (batch, left), as (batch, left, width).

    Whole rows are looked up in one table of all tokens, which every runtime does by copying.
    """
    batch, tokens, width = values.shape
    start = torch.arange(batch, device=values.device)[:, None] * tokens
    return values.reshape(-1, width).index_select(0, (places + start).reshape(-1)).reshape(batch, -1, width)


def _attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    scaling: float | None = None,
    dropout: float = 0.0,
    **rest: Any,
) -> tuple[Any, Any]:
    """Attention over the tokens that are left; `query`, `key`, `value` are (batch, heads, tokens, width of a head)."""
    flow, place = module._flow, module._place
    if place == 0:
        flow.begin(attention_mask, query.shape[2])
    mask, scaling = flow.mask, scaling or query.shape[-1] ** -0.5
    scores = 0 < flow.rows[place][2] < WHOLE
    name = flow.config._attn_implementation
    if name == "eager" or (scores and flow.queries == "all"):
        weights = _weights(query, key, mask, scaling)
        if scores:
            flow.score = received(weights if flow.queries == "all" else weights[:, :, :1], mask)
        weights = nn.functional.dropout(weights, p=dropout, training=module.training)
        return (weights @ value).transpose(1, 2).contiguous(), weights
    if scores:
        flow.score = received(_weights(query[:, :, :1], key, mask, scaling), mask)
    from transformers import AttentionInterface

    # SDPA takes a mask that fits its weights; a function that a backend registers, the mask as it came.
    inner = mask[:, None, None, :] if name == "sdpa" and mask is not None else mask
    answer: tuple[Any, Any] = AttentionInterface()[name](
        module, query, key, value, inner, scaling=scaling, dropout=dropout, **rest
    )
    return answer


def _weights(query: Any, key: Any, mask: Any, scaling: float) -> Any:
    """softmax(Q K^T · scaling) over the real tokens, (batch, heads, queries, tokens)."""
    products = query @ key.transpose(2, 3) * scaling
    if mask is not None:
        products = products.masked_fill(~mask[:, None, None, :], torch.finfo(products.dtype).min)
    return products.softmax(dim=-1)
