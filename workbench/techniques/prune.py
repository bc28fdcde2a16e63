"""Pruning in one shot: the weights that matter least become zero, alone, in N:M patterns or in blocks.

The scores are in `_scores.py`, the patterns in `_patterns.py`. Left out: scores of second order that repair what stays
(SparseGPT), schedules and training (`prune_gradual`), movement, which only training shows, and everything that
physically removes weights (`prune_structured`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.draft import Draft, ModelFacts
from workbench.errors import Refused
from workbench.knobs import knob
from workbench.techniques import _scores
from workbench.techniques._observe import batches, gradients, see_inputs
from workbench.techniques._patterns import Pattern
from workbench.techniques._sparse import HONEST, check_pattern, find_masks, hold, no_sparsity, prunable, told, upright
from workbench.techniques.base import Need, Technique


class Prune(Technique):
    """Set the least important weights of the linear layers to zero: compresses on disk, runs no faster.

    Source: S. Han et al., "Learning both weights and connections for efficient neural networks", NeurIPS 2015,
    arXiv:1506.02626 (magnitude); N. Lee et al., "SNIP", ICLR 2019, arXiv:1810.02340 (gradient; snip_momentum is Intel
    Neural Compressor's); M. Sun et al., "A simple and effective pruning approach for large language models", ICLR 2024,
    arXiv:2306.11695 (wanda). Cost: seconds for magnitude, some forward passes for wanda, as many backward ones for the
    gradients; the drop grows steeply beyond half of the weights, as nothing is trained again. Helps when the file must
    be small in a compressed archive, or to see how much of a model is idle.
    """

    name = "prune"
    group = "pruning"
    needs = "calibration"
    source = "Han et al. 2015, arXiv:1506.02626"
    phase = 2

    sparsity: float = knob(0.5, low=0.0, high=0.99, search=(0.3, 0.5, 0.7), help="share of the weights set to zero")
    score: str = knob(
        "magnitude",
        choices=("magnitude", "gradient", "snip_momentum", "wanda"),
        search=("magnitude", "wanda"),
        help="what says how much a weight matters; all but magnitude look at training examples",
    )
    pattern: str = knob("1x1", help="1x1 = single weights; 4x1 = blocks of outputs x inputs; 2:4 = of 4 inputs 2 stay")
    scope: str = knob(
        "auto",
        choices=("auto", "row", "local", "global"),
        help="weights compete in one output, in one layer, or all together; auto = row for wanda, else local",
    )
    samples: int = knob(256, low=1, high=100_000, unit="examples", help="training examples to look at")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pattern(self.name, self.pattern)

    @property
    def note(self) -> str:
        """What a mask does not do."""
        return HONEST

    @property
    def asks(self) -> Need:
        """Nothing for magnitude; every other score looks at training examples."""
        return "nothing" if self.score == "magnitude" else self.needs

    def fits(self, facts: ModelFacts) -> str | None:
        """None, or the reason: no module, or a pattern that fixes another sparsity."""
        return super().fits(facts) or no_sparsity(self.name, check_pattern(self.name, self.pattern), self.sparsity)

    def apply(self, draft: Draft) -> Draft:
        """Zero weights of the module in place; layers that are kept, or share a weight with one, are not touched.

        Raises `Refused` where `fits` would, where every layer is kept, a pattern does not divide a layer, or a layer
        would be left empty; `DataError` without the training examples that a score asks for.
        """
        reason = self.fits(draft.facts)
        if reason or draft.module is None:
            raise Refused(reason or f"{self.name} needs a PyTorch module")
        pattern = check_pattern(self.name, self.pattern)
        weights = {name: upright(draft.module, name, weight) for name, weight in prunable(draft, self.name).items()}
        masks = find_masks(draft, self._scores(draft, weights), pattern, *self._share(pattern), draft.masks)
        hold(draft, masks)
        draft.notes.append(told(masks))
        return draft

    def _share(self, pattern: Pattern) -> tuple[float, str]:
        """Sparsity and scope."""
        scope = {"auto": "row" if self.score == "wanda" else "local"}.get(self.scope, self.scope)
        return (self.sparsity if pattern.fixed is None else pattern.fixed), scope

    def _scores(self, draft: Draft, weights: Mapping[str, Any]) -> dict[str, Any]:
        """Score by layer name, (out, in)."""
        if self.score == "magnitude":
            return {name: _scores.magnitude(weight) for name, weight in weights.items()}
        if self.score == "wanda":
            lengths = input_norms(draft, list(weights), self.samples)
            return {name: _scores.wanda(weight, lengths[name]) for name, weight in weights.items()}
        return gradient_scores(draft, weights, self.samples, momentum=self.score == "snip_momentum")


def input_norms(draft: Draft, names: list[str], samples: int) -> dict[str, Any]:
    """The length of each layer's inputs over all calibration tokens, (in,)."""
    squares: dict[str, Any] = {}

    def add(name: str, tokens: Any) -> None:
        squares[name] = squares.get(name, 0.0) + (tokens.double() ** 2).sum(dim=0)

    see_inputs(draft.module, names, batches(draft, samples), add)
    unseen = [name for name in names if name not in squares]
    if unseen:
        raise Refused(
            f"{unseen[0]!r} takes no part when the model answers, so wanda cannot score it.", do=f"keep={unseen!r}"
        )
    return {name: total.sqrt() for name, total in squares.items()}


def gradient_scores(draft: Draft, weights: Mapping[str, Any], samples: int, *, momentum: bool) -> dict[str, Any]:
    """|w · g| with the gradient of the mean loss of all examples, or its momentum over batch after batch."""
    data = batches(draft, samples, labels=True)
    count = sum(len(batch.rows) for batch in data)
    total: dict[str, Any] = {}
    for batch, grads in zip(data, gradients(draft.module, list(weights), data), strict=True):
        for name, weight in weights.items():
            grad = upright(draft.module, name, grads[name])
            if momentum:
                total[name] = _scores.snip_momentum(total.get(name, 0.0), weight, grad)
            else:
                total[name] = total.get(name, 0.0) + grad * (len(batch.rows) / count)
    return total if momentum else {name: _scores.gradient(weights[name], grad) for name, grad in total.items()}
