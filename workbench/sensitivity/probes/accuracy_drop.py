"""Accuracy drop: right answers lost, less those gained."""

from __future__ import annotations

import numpy as np

from workbench.sensitivity.probes._logits import CountProbe


class AccuracyDrop(CountProbe):
    """How much accuracy falls, on labelled examples: right answers lost less those gained.

    Definition: mean of [argmax z = y] - [argmax z' = y]. Source: the fallback of Intel Neural Compressor 2.x (basic),
    which tries every operator so. Cost: a forward pass over the examples for each layer, from its block on; needs
    labels (the next tokens, for a language model). Helps where the metric itself is what counts and examples are many;
    losses and gains cancel, so that it is the noisiest of all.
    """

    name = "accuracy_drop"
    unit = "fraction"
    needs_labels = True
    source = "Intel Neural Compressor 2.x, strategy basic"

    def compare(self, reference: np.ndarray, changed: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """1 for a right answer lost, -1 for one gained."""
        was, now = (z.argmax(axis=1) == labels for z in (reference, changed))
        return np.asarray(was, dtype=np.float64) - now
