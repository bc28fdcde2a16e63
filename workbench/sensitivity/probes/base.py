"""The contract of a probe, a per-layer sensitivity metric. No probe is built yet; the contract stands.

A probe is one function behind a class that carries its name, direction and cost.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from workbench.knobs import Knobbed


class Probe(Knobbed):
    """Scores how much one layer's compression changes the model.

    Class variables: `name`; `higher_is_worse`; `needs_labels`; `source`, the paper.
    """

    name: ClassVar[str]
    higher_is_worse: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False
    source: ClassVar[str] = ""

    @abstractmethod
    def score(self, reference: np.ndarray, changed: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        """Per-example scores from FP32 and compressed logits, both (examples, classes); NaN where undefined."""
