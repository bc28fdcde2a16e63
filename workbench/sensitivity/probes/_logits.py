"""What the probes of the model's answers share: pairs of logits, compared row by row, summed by example.

`only`: the score is that of the model in which this layer alone is compressed. `all_but`: it is what is regained by
leaving this layer alone when all others are compressed, the score of all less the score of all but this one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from workbench.measure.accuracy import paired_proportions
from workbench.measure.estimate import Estimate, proportion
from workbench.sensitivity.probes.base import Probe, Seen

if TYPE_CHECKING:
    from workbench.sensitivity.stage import Pair, Stage


class LogitsProbe(Probe):
    """A mean over examples (tokens, for a language model) of a distance between two answers."""

    sees: ClassVar = "logits"

    @abstractmethod
    def compare(self, reference: np.ndarray, changed: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """One number per row, shape (rows,), from logits (rows, classes) and true classes (rows,)."""

    def weigh(self, reference: np.ndarray) -> np.ndarray:
        """What a row counts in the mean, shape (rows,); 1 by default."""
        return np.ones(len(reference))

    def look(self, stage: Stage, layers: Sequence[str]) -> Iterator[Seen]:
        """One evaluation for each layer, and one of the uncompressed model."""
        everything = self.terms(stage.all_pairs(), stage.size) if stage.direction == "all_but" else None
        for layer in stage.in_order(layers):
            terms, remains = self.terms(stage.pairs(layer), stage.size), float("nan")
            if everything is not None:
                remains = float(self.combine(terms.sum(axis=0)))
                terms = np.stack([everything[:, 0] - terms[:, 0], terms[:, 1]], axis=1)
            yield Seen(layer, terms, 1.0, remains)

    def terms(self, pairs: Iterable[Pair], size: int) -> np.ndarray:
        """Sums by example, (size, 2): of the distances, and of the weights."""
        found = np.zeros((size, 2))
        for pair in pairs:
            reference, changed = pair.reference.astype(np.float64), pair.changed.astype(np.float64)
            broken = ~np.isfinite(changed).all(axis=1)
            changed[broken] = 0.0
            distance = np.asarray(self.compare(reference, changed, pair.labels), dtype=np.float64)
            # Logits that are no numbers are at no distance from anything.
            distance[broken] = np.nan
            for column, values in enumerate((distance, self.weigh(reference))):
                found[:, column] += np.bincount(pair.owners, values, size)
        return found


class CountProbe(LogitsProbe):
    """A mean of what each example adds to or takes from a count: 1, 0 or -1 (`share`: in one direction 1 or 0)."""

    share: ClassVar[bool] = False

    def estimate(self, terms: np.ndarray, seed: int = 0) -> Estimate:
        """Wilson's interval of a share, Bonett and Price's of a difference of two; neither is a point where nothing
        was counted, as a bootstrap would be. The bootstrap for a language model, whose tokens go together."""
        counts = terms[:, 0]
        if np.isnan(counts).any() or not (terms[:, 1] == 1).all():
            return super().estimate(terms, seed)
        up, down, n = int((counts > 0).sum()), int((counts < 0).sum()), len(counts)
        return proportion(up, n) if self.share and not down else paired_proportions(up, down, n)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the probabilities, (rows, classes)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
