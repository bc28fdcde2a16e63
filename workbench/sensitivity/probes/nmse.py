"""Output NMSE: how far the logits move, as a share of their size."""

from __future__ import annotations

import numpy as np

from workbench.sensitivity.probes._logits import LogitsProbe


class OutputNMSE(LogitsProbe):
    """Squared error of the logits over their own squares, against the uncompressed model.

    Definition: Σ (z' - z)² / Σ z² over all examples and classes. Source: the normalised error by which AdaRound and its
    successors choose (M. Nagel et al., ICML 2020, arXiv:2004.10568) taken at the output; mse_v2 of Intel Neural
    Compressor 2.x ranks by the same error unnormalised. Cost: a forward pass over the examples for each layer, from its
    block on; no labels. Helps where probabilities are saturated, which KL does not see through.
    """

    name = "nmse"
    source = "Nagel et al. 2020, arXiv:2004.10568"

    def compare(self, reference: np.ndarray, changed: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Squared error of each row."""
        return squares(changed - reference)

    def weigh(self, reference: np.ndarray) -> np.ndarray:
        """Squares of each row."""
        return squares(reference)


def squares(values: np.ndarray) -> np.ndarray:
    """Sum of squares of each row: (rows, classes) -> (rows,)."""
    return np.asarray((values**2).sum(axis=1))
