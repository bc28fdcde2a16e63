"""Weight error: how far a layer's weight moves, as a share of its size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from workbench.sensitivity.probes._weights import changed_weight, plain_weight
from workbench.sensitivity.probes.base import Probe, Seen

if TYPE_CHECKING:
    from workbench.sensitivity.stage import Stage


class WeightError(Probe):
    """Squared error of the layer's weight over its own squares; looks at no data at all.

    Definition: ‖W' - W‖² / ‖W‖², the same in both directions. Source: the weight term of R. Banner et al., "Post
    training 4-bit quantization", NeurIPS 2019, arXiv:1810.05723. Cost: nothing but the technique itself. Helps for
    weight-only quantization and for pruning; it cannot see activations, where INT8 most often goes wrong.
    """

    name = "weight_error"
    sees: ClassVar = "weights"
    parts = ("both", "weights")
    source = "Banner et al. 2019, arXiv:1810.05723"

    def look(self, stage: Stage, layers: Sequence[str]) -> Iterator[Seen]:
        """No evaluation."""
        for layer in layers:
            before, after = plain_weight(stage, layer).double(), changed_weight(stage, layer).double()
            yield Seen(layer, np.array([[float(((after - before) ** 2).sum()), float((before**2).sum())]]))
