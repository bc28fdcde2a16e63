"""What a task needs of a model, wherever it comes from: a Hugging Face folder, an ONNX file, a factory.

A source lies on this machine already (a hub id has become a folder by then), is described without its weights, and
gives a fresh module each time it is loaded. Left out: heads other than one label per text.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from workbench.draft import ModelFacts
from workbench.loading.tokens import Encoder


class Source(ABC):
    """A model on this machine with what turns text into its inputs.

    `onnx` is the file where there is no module; `factory` is the "package.module:function" that builds the module
    where no configuration describes it.
    """

    onnx: Path | None = None
    factory: str | None = None

    @abstractmethod
    def check(self) -> None:
        """Raise a `ModelError` or `ResourceError` for everything that can be seen without loading the weights."""

    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the logits; `LABEL_0` … where the model has no names, () where unknown."""

    @abstractmethod
    def facts(self) -> ModelFacts:
        """Architecture, layers and blocks, found without the weights."""

    @abstractmethod
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs, in the order in which the model takes them."""

    @abstractmethod
    def encoder(self) -> Encoder:
        """Text to inputs."""

    @abstractmethod
    def load(self) -> Any:
        """A fresh module in float32 and eval mode, or None for an ONNX file."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of the content: equal on every machine and in every process."""

    def longest(self) -> int | None:
        """The longest sequence that the model can take, in tokens; None where nothing limits it."""
        return self.encoder().longest()

    def vocabulary(self) -> int | None:
        """The number of tokens that the model knows; None where it does not say."""
        return None


def generic(labels: tuple[str, ...]) -> bool:
    """Whether the names are the ones that transformers gives to a model without names (`LABEL_0`, `LABEL_1` …)."""
    return all(name.upper() == f"LABEL_{i}" for i, name in enumerate(labels))
