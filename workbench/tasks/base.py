"""The contract of a task: a model, its data with their splits, and a metric.

A task is *described* cheaply (`describe`, `facts`, `sizes`) and *loaded* late (`module`, `encoded`), in the process
that needs it. `to_json` / `from_json` carry it from the notebook to the runner: a task holds paths and names, never
live objects.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from workbench.draft import Draft, Example, ModelFacts

#: Splits by what they are for. `select`: every trial is measured on it; `report`: the front is measured again on it
#: (absent where there is no further labelled data); `calibration`: training data that techniques may look at.
SPLITS = ("calibration", "select", "report")

#: Called with the share done (0 … 1) and what is being done.
Progress = Callable[[float, str], None]


class Task(ABC):
    """A model, its data and a metric. Equal tasks have equal `fingerprint`s."""

    name: ClassVar[str]
    title: ClassVar[str]

    #: name of the metric, a key of `workbench.measure.accuracy.METRICS`
    metric: str
    #: class names in the order of the model's logits
    labels: tuple[str, ...]

    @abstractmethod
    def prepare(self, progress: Progress | None = None) -> None:
        """Download, train or convert whatever is missing, and check that model and data fit. Raises `UserError`s."""

    @abstractmethod
    def facts(self) -> ModelFacts:
        """What is known of the model without loading its weights."""

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """Number of examples by split; `report` is 0 where selection and report must share examples."""

    @abstractmethod
    def encoded(self, split: str, limit: int | None = None) -> list[Example]:
        """Tokenized examples of a split, not padded, in the order of `targets`."""

    @abstractmethod
    def targets(self, split: str, limit: int | None = None) -> np.ndarray:
        """Label indices of a split, shape (examples,), int64."""

    @abstractmethod
    def texts(self, split: str, limit: int | None = None) -> list[tuple[str, ...]]:
        """Raw texts of a split (one string, or two for pairs)."""

    @abstractmethod
    def draft(self) -> Draft:
        """A fresh draft: the module in FP32 and eval mode (or the ONNX file), with the calibration data."""

    @abstractmethod
    def save_tokenizer(self, folder: Path) -> None:
        """Write what is needed to tokenize text into `folder`."""

    @abstractmethod
    def tokenize(self, texts: Sequence[tuple[str, ...]]) -> list[Example]:
        """Tokenize raw texts as the model wants them, not padded."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A short hash of everything that decides a measurement: model, data, columns, metric, splits."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """`{"name": …, …}`: all that `from_json` needs in another process on this machine."""

    @classmethod
    @abstractmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The task that `to_json` described."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What a person wants to see: model, architecture, data, labels, splits, what one percent means."""

    def predictions(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predicted class and its probability from logits of shape (examples, classes)."""
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = shifted / shifted.sum(axis=1, keepdims=True)
        chosen = logits.argmax(axis=1)
        return chosen, probabilities[np.arange(len(chosen)), chosen]
