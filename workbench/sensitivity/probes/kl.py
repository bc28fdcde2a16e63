"""Output KL: how far the answer's probabilities move."""

from __future__ import annotations

import numpy as np

from workbench.sensitivity.probes._logits import LogitsProbe, log_softmax


class OutputKL(LogitsProbe):
    """Kullback-Leibler divergence of the model's answers from the uncompressed model's, in nats.

    Definition: mean over examples of KL(p || q) = Σ p (log p - log q), p the uncompressed model's probabilities.
    Source: S. Kullback and R. Leibler, 1951; by layer as in Y. Cai et al., "ZeroQ", CVPR 2020, arXiv:2001.00281. Cost:
    a forward pass over the examples for each layer, from its block on; no labels. Helps as the first look: it moves
    long before an answer flips, and needs few examples.
    """

    name = "kl"
    unit = "nats"
    source = "Cai et al. 2020, arXiv:2001.00281"

    def compare(self, reference: np.ndarray, changed: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """KL divergence of each row."""
        return divergence(reference, changed)


def divergence(reference: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """KL(softmax(reference) || softmax(changed)) in nats, row by row: (rows, classes) twice -> (rows,)."""
    p, q = log_softmax(reference), log_softmax(changed)
    return np.asarray((np.exp(p) * (p - q)).sum(axis=1))
