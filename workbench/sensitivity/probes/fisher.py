"""Fisher: the KL divergence that a layer's error would cause, by the diagonal of the Fisher information."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from workbench.sensitivity.probes._fisher import fisher_terms
from workbench.sensitivity.probes.base import Probe, Seen

if TYPE_CHECKING:
    from workbench.sensitivity.stage import Stage


class Fisher(Probe):
    """Fisher information of the layer's weight and input, weighted with the error that compression makes.

    Definition: ½ Σ E[g²] δ² over the numbers of weight and input, δ their error, g the gradient of log p(y|x), y drawn
    from the model's own answers (all of them where there are few): KL of the answers to second order, its diagonal.
    Source: L. Theis et al., "Faster gaze prediction with dense networks and Fisher pruning", arXiv:1801.05787, 2018.
    Cost: a forward and some backward passes over the examples one by one, for all layers together; no labels. Helps
    where layers are many and a forward pass for each would take too long.
    """

    name = "fisher"
    sees: ClassVar = "gradients"
    unit = "nats"
    source = "Theis et al. 2018, arXiv:1801.05787"

    def look(self, stage: Stage, layers: Sequence[str]) -> Iterator[Seen]:
        """One pass for all layers together."""
        terms, passes = fisher_terms(stage, layers, weighted)
        for layer in layers:
            yield Seen(layer, terms[layer], (1 + 2 * passes) / len(layers))


def weighted(gradient: Any, error: Any) -> float:
    """Σ g² δ², for tensors of one shape."""
    return float((gradient.double() ** 2 * error.double() ** 2).sum())
