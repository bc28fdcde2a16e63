"""The contract of a probe, a per-layer sensitivity metric.

Adding one is adding one file beside this. A probe looks at a stage (the model with its examples, on which layers take
their compressed form) and gives for each layer terms that add up over examples; its score is a formula of their sums,
so that every probe has the same bootstrap over examples. Whatever the probe, a larger score is a more sensitive layer.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from workbench.knobs import Knobbed
from workbench.measure.estimate import Estimate

if TYPE_CHECKING:
    from workbench.sensitivity.stage import Stage

#: What a probe looks at: the model's answers, the layer's own output, its weight, gradients of the loss.
Sees = Literal["logits", "layers", "weights", "gradients"]

_RESAMPLES = 1000


@dataclass(frozen=True, eq=False)
class Seen:
    """What a probe saw of one layer.

    `terms`, shape (examples, k), add up over examples. `evaluations` are the passes over all examples that it cost (a
    backward pass counts as two). `remains`, for `all_but`, is the score of all the other layers together.
    """

    layer: str
    terms: np.ndarray
    evaluations: float = 0.0
    remains: float = float("nan")


class Probe(Knobbed):
    """Scores how much one layer's compression changes the model; a larger score is a more sensitive layer.

    Class variables: `name`; `sees`; `parts`, what of a layer's compression it can look at; `needs_labels`; `unit` of
    the score; `source`, the paper.
    """

    name: ClassVar[str]
    sees: ClassVar[Sees]
    parts: ClassVar[tuple[str, ...]] = ("both", "weights", "activations")
    needs_labels: ClassVar[bool] = False
    unit: ClassVar[str] = ""
    source: ClassVar[str] = ""

    @abstractmethod
    def look(self, stage: Stage, layers: Sequence[str]) -> Iterator[Seen]:
        """What is seen of each of `layers`, in any order, as it comes. Deterministic."""

    def combine(self, totals: np.ndarray) -> np.ndarray:
        """Scores (…) from sums of terms (…, k); by default the first over the last, a mean."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(totals[..., 0] / totals[..., -1])

    def estimate(self, terms: np.ndarray, seed: int = 0) -> Estimate:
        """The score of terms (examples, k) with its bootstrap interval over examples; NaN where a term is.

        A single row of terms is taken as exact.
        """
        terms = np.asarray(terms, dtype=np.float64)
        value, n = float(self.combine(terms.sum(axis=0))), len(terms)
        if np.isnan(value) or n < 2:
            return Estimate(value, value, value, n, self.unit)
        drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES) @ terms
        found = self.combine(drawn)
        if np.isnan(found).all() or not np.isfinite(value):
            return Estimate(value, value, value, n, self.unit)
        low, high = np.nanquantile(found, (0.025, 0.975))
        return Estimate(value, float(low), float(high), n, self.unit)
