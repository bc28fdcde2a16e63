"""Flips: how many answers change."""

from __future__ import annotations

import numpy as np

from workbench.sensitivity.probes._logits import CountProbe


class OutputFlips(CountProbe):
    """Share of examples whose answer is another one than the uncompressed model's.

    Definition: mean of [argmax z' ≠ argmax z]. Source: A. Dutta et al., "Accuracy is not all you need", NeurIPS 2024,
    arXiv:2407.09141, which counts flips either way. Cost: a forward pass over the examples for each layer, from its
    block on; no labels. Helps as the plainest answer to "what changes"; few layers change any of some hundred answers,
    so that most of them tie at 0, where KL still tells them apart.
    """

    name = "flips"
    unit = "fraction"
    share = True
    source = "Dutta et al. 2024, arXiv:2407.09141"

    def compare(self, reference: np.ndarray, changed: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """1 where the largest logit is another one."""
        return np.asarray(reference.argmax(axis=1) != changed.argmax(axis=1), dtype=np.float64)
