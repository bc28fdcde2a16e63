"""Token pruning: from layer to layer the least attended tokens are left behind, down to a share of the text.

How many go on is a schedule by layer and by the length of the batch, as in PoWER-BERT and the Length-Adaptive
Transformer, so that the graph has it; which ones is seen anew for every text, by the attention they receive, as in
LTP. In the last layer only the first token goes on, since a classifier reads nothing else: that is exact. The module's
new wiring is in `workbench.shortening`. Left out: learned thresholds (LTP) and learned schedules (PoWER-BERT), whose
numbers of tokens depend on the text, and putting tokens back at the end for answers to every token.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from workbench.draft import Draft, ModelFacts
from workbench.errors import Refused
from workbench.knobs import knob
from workbench.techniques.base import Technique


class PruneTokens(Technique):
    """Leave the least attended tokens behind from layer to layer: less work for every text, no weight changes.

    Source: S. Goyal et al., "PoWER-BERT", ICML 2020, arXiv:2001.08950 (attention received, schedule by layer); S. Kim
    et al., "Learned token pruning for transformers", KDD 2022, arXiv:2107.00910; G. Kim, K. Cho, "Length-adaptive
    transformer", ACL 2021, arXiv:2010.07003. Cost: none to build. Of the 784 right answers of MiniLM-L6 on SST-2,
    without padding and training, 782 are left by share=0.6, 767 by 0.2 (mean 67 and 50 % of the tokens); distil can
    follow. Helps classifiers on every runtime in proportion to the tokens left, most on long texts, and where every
    call is filled up to one length: padding goes first. With share=1.0 it is exact and spares the last layer's
    feed-forward network.
    """

    name = "prune_tokens"
    group = "pruning"
    source = "Goyal et al. 2020, arXiv:2001.08950"
    # Layers must be gone and narrowed before; whatever is trained afterwards must see fewer tokens.
    phase = 2

    share: float = knob(
        0.5, low=0.02, high=1.0, search=(0.3, 0.5, 0.7), help="share of the tokens that is left in the end"
    )
    schedule: str = knob(
        "linear",
        choices=("linear", "geometric"),
        help="tokens fall by equal numbers or by equal shares, layer by layer",
    )
    first: int = knob(1, low=0, high=48, unit="layers", help="layers at the beginning that drop nothing")
    queries: str = knob(
        "all",
        choices=("all", "first"),
        help="whose attention makes a token important: every token's (far more exact), or the first one's (which "
        "leaves attention fused)",
    )
    last: bool = knob(True, help="in the last layer only the first token goes on, as nothing else is read: exact")

    @property
    def note(self) -> str:
        """What to expect of it alone."""
        return "" if self.share >= 0.4 else "few tokens are left without training: add distil"

    def fits(self, facts: ModelFacts) -> str | None:
        """None, or the reason: no module, an answer that needs more than the first token, or too few layers."""
        reason = super().fits(facts)
        if reason:
            return reason
        if not facts.architecture.endswith("ForSequenceClassification"):
            return (
                f"{self.name} needs a text classifier that reads the first token alone, and {facts.architecture} is "
                "none (question answering, language models and images need every token or have no first one)"
            )
        if not facts.blocks:
            return f"{self.name} found no list of transformer layers in this {facts.architecture}"
        return None

    def apply(self, draft: Draft) -> Draft:
        """Rewire the module; no tensor of it changes.

        Raises `Refused` where `fits` would, for an architecture without a layout, a model whose answer needs more than
        the first token, and where no layer is left to drop tokens in.
        """
        from workbench.anatomy import layout
        from workbench.shortening import flow_of, shorten

        reason = self.fits(draft.facts)
        if reason or draft.module is None:
            raise Refused(reason or f"{self.name} needs a PyTorch module")
        if flow_of(draft.module) is not None:
            raise Refused(f"{self.name} has been done to this module already.", do="take one of them out")
        blocks = layout(draft.module)
        shares = self._shares(len(blocks))
        rows = [
            (block.query.rpartition(".")[0], norm_after(draft.module, block), share)
            for block, share in zip(blocks, shares, strict=True)
        ]
        rows = rows[next((i for i, share in enumerate(shares) if share < 1000), len(rows)) :]
        if rows:
            check(draft.module, self.queries, rows, self.name)
            shorten(draft.module, self.queries, rows)
        draft.notes.append(told(shares))
        if draft.kept:
            draft.notes.append(f"{len(draft.kept)} kept layers see fewer tokens too; no weight was changed")
        return draft

    def _shares(self, layers: int) -> list[int]:
        """By layer the thousandths of the tokens that go on; the schedule ends before a last layer that keeps one."""
        steps = layers - self.first - self.last
        if steps < 1:
            raise Refused(
                f"{self.name} has no layer to drop tokens in: first = {self.first} of {layers} layers.",
                allowed=f"first up to {layers - 1 - self.last}",
            )
        return [1000] * self.first + schedule(self.share, steps, self.schedule) + [0] * self.last


def schedule(share: float, steps: int, kind: str) -> list[int]:
    """Thousandths of the tokens that go on from each of `steps` layers, down to `share` after the last one: "linear"
    1 - (1 - share) i / steps, "geometric" share^(i / steps)."""
    if kind == "linear":
        exact = [1 - (1 - share) * i / steps for i in range(1, steps + 1)]
    else:
        exact = [share ** (i / steps) for i in range(1, steps + 1)]
    return [max(1, round(1000 * one)) for one in exact]


def told(shares: Sequence[int]) -> str:
    """The schedule in one line."""
    listed = ", ".join("the first" if share == 0 else f"{share / 10:g} %" for share in shares)
    mean = sum(shares) / len(shares) / 10
    return f"of the tokens go on from layer to layer: {listed} (mean {mean:.1f} %)"


def norm_after(module: Any, block: Any) -> str:
    """The layer norm that stands between attention and feed-forward network; `Refused` where none does."""
    from torch import nn

    names = [name for name, _ in module.get_submodule(block.path).named_modules(prefix=block.path)]
    between = names[names.index(block.output) + 1 : names.index(block.up)]
    found = next((name for name in between if isinstance(module.get_submodule(name), nn.LayerNorm)), None)
    if found is None:
        raise Refused(
            f"{block.path} has no layer norm between its attention and its feed-forward network.",
            allowed="layers as in BERT, DistilBERT, RoBERTa and ELECTRA, with the norm behind the sum",
        )
    return found


def check(module: Any, queries: str, rows: Sequence[tuple[str, str, int]], name: str) -> None:
    """Raise `Refused` where the module would not do what `rows` say, or where its answer needs the dropped tokens.

    It is tried on a copy: what the answer depends on is read from its gradient by the last layer's output.
    """
    import torch

    from workbench.shortening import kept_tokens, shorten

    owners = [module.get_submodule(attention) for attention, _, _ in rows]
    causal = any(getattr(owner, "is_causal", False) or getattr(owner, "is_decoder", False) for owner in owners)
    plain = getattr(module, "_supports_attention_backend", False) and all(hasattr(owner, "config") for owner in owners)
    if causal or not plain or module.config._attn_implementation not in ("sdpa", "eager"):
        raise Refused(
            f"{name} cannot take part in the attention of this {type(module).__name__}.",
            allowed="an encoder whose attention transformers lets be exchanged (BERT, DistilBERT, RoBERTa, ELECTRA)",
        )
    tokens = torch.arange(3, 11).remainder(module.config.vocab_size)[None]
    other = copy.deepcopy(module).eval()
    with torch.enable_grad():
        answer = other(input_ids=tokens, output_hidden_states=True)
        by_last = torch.autograd.grad(answer.logits.sum(), answer.hidden_states[-1])[0]
    if bool(by_last[:, 1:].any()):
        raise Refused(
            f"The answer of this {type(module).__name__} needs every token, not the first one alone.",
            allowed="classifiers that read the first token",
        )
    shorten(other, queries, rows)
    try:
        with torch.enable_grad():
            states = other(input_ids=tokens, output_hidden_states=True).hidden_states
    except RuntimeError as error:
        raise Refused(
            f"The layers of this {type(module).__name__} add up what they took and what they give after the norm, so "
            "that tokens cannot be dropped there.",
            allowed="layers with the norm behind the sum, as in BERT",
        ) from error
    left = [state.shape[1] for state in states]
    wanted = [8 if kept is None else kept.shape[1] for kept in kept_tokens(other, len(states) - 1)]
    if left != wanted:
        raise Refused(f"The layers of this {type(module).__name__} do not hand on the tokens that they should.")
