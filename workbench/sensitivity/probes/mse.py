"""Layer MSE: the squared error of a layer's own output."""

from __future__ import annotations

import numpy as np

from workbench.sensitivity.probes._outputs import COUNT, ERROR, OutputProbe


class LayerMSE(OutputProbe):
    """Mean squared error of the layer's own output, compressed against uncompressed, on the same input.

    Definition: mean of (y' - y)² over examples, tokens and outputs. Source: strategy mse of Intel Neural Compressor
    2.x, which ranks operators by it. Cost: one forward pass for all layers together; no labels. Helps as a quick look;
    layers with large outputs seem worse than they are, which `sqnr` corrects.
    """

    name = "mse"
    source = "Intel Neural Compressor 2.x, strategy mse"

    def combine(self, totals: np.ndarray) -> np.ndarray:
        """Squared errors by their count."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(totals[..., ERROR] / totals[..., COUNT])
