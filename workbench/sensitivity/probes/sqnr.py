"""Layer SQNR: signal to quantization noise of a layer's own output, in decibels."""

from __future__ import annotations

import numpy as np

from workbench.sensitivity.probes._outputs import ERROR, WANTED, OutputProbe


class LayerSQNR(OutputProbe):
    """Noise of the layer's own output against its signal, in dB: the SQNR with its sign turned.

    Definition: -10 log10(Σ y² / Σ (y' - y)²); -40 is a noise of a ten-thousandth. Source: D. Lin et al., "Fixed point
    quantization of deep convolutional networks", ICML 2016, arXiv:1511.06393. Cost: one forward pass for all layers
    together; no labels. Helps to compare layers of any size at almost no cost; it does not know which layers matter.
    """

    name = "sqnr"
    unit = "-dB"
    source = "Lin et al. 2016, arXiv:1511.06393"

    def combine(self, totals: np.ndarray) -> np.ndarray:
        """Decibels; minus infinity for no error is cut at -200 dB."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.maximum(10 * np.log10(totals[..., ERROR] / totals[..., WANTED]), -200.0)
