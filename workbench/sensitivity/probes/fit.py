"""FIT: the trace of the Fisher information times the mean power of the quantization noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from workbench.sensitivity.probes._fisher import fisher_terms
from workbench.sensitivity.probes.base import Probe, Seen

if TYPE_CHECKING:
    from workbench.sensitivity.stage import Stage


class FIT(Probe):
    """Trace of the Fisher information of the layer's weight and input, times the mean square of their errors.

    Definition: ½ (tr I(W) ‖δW‖²/n + tr I(x) ‖δx‖²/m), n and m the numbers in weight and input. Source: B. Zandonati et
    al., "FIT: a metric for model sensitivity", ICLR 2023, arXiv:2210.08502, with the error that is measured instead of
    the one a uniform noise would make, and the model's own answers instead of labels. Cost: a forward and some backward
    passes over the examples one by one, for all layers together; no labels. Helps like `fisher`, with less noise: it
    takes the error to be spread evenly.
    """

    name = "fit"
    sees: ClassVar = "gradients"
    unit = "nats"
    source = "Zandonati et al. 2023, arXiv:2210.08502"

    def look(self, stage: Stage, layers: Sequence[str]) -> Iterator[Seen]:
        """One pass for all layers together."""
        terms, passes = fisher_terms(stage, layers, traced)
        for layer in layers:
            yield Seen(layer, terms[layer], (1 + 2 * passes) / len(layers))


def traced(gradient: Any, error: Any) -> float:
    """Σ g² times the mean of δ², for tensors of one shape."""
    return float((gradient.double() ** 2).sum() * (error.double() ** 2).mean())
