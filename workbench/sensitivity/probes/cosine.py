"""Layer cosine: the angle between a layer's output and its compressed one."""

from __future__ import annotations

import numpy as np

from workbench.sensitivity.probes._outputs import ERROR, GIVEN, PRODUCT, WANTED, OutputProbe


class LayerCosine(OutputProbe):
    """Cosine distance of the layer's own output, compressed against uncompressed, on the same input.

    Definition: 1 - Σ y y' / √(Σ y² Σ y'²), all outputs taken as one vector. Source: D. Wu et al., "EasyQuant",
    arXiv:2006.16669, 2020, which chooses scales by it. Cost: one forward pass for all layers together; no labels. Helps
    where only the direction of an output counts, because a norm follows.
    """

    name = "cosine"
    source = "Wu et al. 2020, arXiv:2006.16669"

    def combine(self, totals: np.ndarray) -> np.ndarray:
        """One less the cosine; an output that vanished is at distance 1."""
        lengths = np.sqrt(totals[..., WANTED] * totals[..., GIVEN])
        with np.errstate(divide="ignore", invalid="ignore"):
            found = 1 - totals[..., PRODUCT] / lengths
        return np.where(lengths == 0, np.where(totals[..., ERROR] == 0, 0.0, 1.0), found)
