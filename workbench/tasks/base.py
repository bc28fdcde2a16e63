"""The contract of a task: a model, its data with their splits, and a metric.

A task is *described* cheaply (`describe`, `facts`, `sizes`) and *loaded* late (`module`, `encoded`), in the process
that needs it. `to_json` / `from_json` carry it from the notebook to the runner: a task holds paths and names, never
live objects.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from workbench.draft import Batch, Draft, Example, ModelFacts
from workbench.errors import TrialError, UserError
from workbench.measure.accuracy import Answers, metric
from workbench.measure.outcomes import Outcomes
from workbench.registry import find, unknown

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
    #: class names in the order of the model's logits; () for a task that has no classes
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
        """Label indices of a split, shape (examples,), int64; -1 where there are none."""

    @abstractmethod
    def texts(self, split: str, limit: int | None = None) -> list[tuple[str, ...]]:
        """Raw texts of a split (one string, or two for pairs)."""

    @abstractmethod
    def draft(self) -> Draft:
        """A fresh draft: the module in FP32 and eval mode (or the ONNX file), with the calibration data."""

    @abstractmethod
    def pad(self) -> dict[str, int]:
        """The number that pads each of the model's inputs."""

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

    def outcomes(self, split: str, answers: Iterable[tuple[Batch, np.ndarray]]) -> Answers:
        """What the model answered on a split, from its batches in order, each with its logits.

        Batches are taken one by one, so that a task whose logits are large need not hold them all. Raises
        `TrialError` for logits that are no numbers.
        """
        logits = np.concatenate([np.array(answer, dtype=np.float32) for _, answer in answers])
        broken = int((~np.isfinite(logits)).any(axis=1).sum())
        if broken:
            raise no_numbers(broken, len(logits))
        predictions, confidences = self.predictions(logits)
        return Outcomes(predictions, self.targets(split), confidences, classes=len(self.labels))

    def predictions(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predicted class and its probability from logits of shape (examples, classes)."""
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = shifted / shifted.sum(axis=1, keepdims=True)
        chosen = logits.argmax(axis=1)
        return chosen, probabilities[np.arange(len(chosen)), chosen]


def no_numbers(broken: int, total: int) -> TrialError:
    """The error of a model whose logits are NaN or infinite for `broken` of `total` examples."""
    return TrialError(
        f"The compressed model gives NaN or infinite logits for {broken} of {total} examples.",
        do="leave more layers alone (keep), or choose another precision or calibration",
    )


def task_from_json(data: dict[str, Any]) -> Task:
    """The task that `to_json` described, of whatever kind."""
    kind: type[Task] = find("tasks", data["name"])
    return kind.from_json(data)


def make_task(model: Any = "demo", data: Any = None, *, kind: str | None = None, **options: Any) -> Task:
    """A task from a model (`demo`, a folder, an ONNX file, a hub id, a module) and its data.

    `kind` names the task's plug-in (`text_classification` unless `model` is `demo`); `options` are its fields, such as
    `text=`, `label=`, `metric=`, `reserve=`, `revision=`. Raises `UnknownName` and what the task raises.
    """
    if kind is None:
        kind = "demo" if model == "demo" and data is None else "text_classification"
    chosen: type[Task] = find("tasks", kind)
    if "metric" in options:
        metric(options["metric"])
    known = [name for name in inspect.signature(chosen).parameters if name not in ("model", "data")]
    for name in options:
        if name not in known:
            raise unknown(f"option of the {chosen.name} task", name, known)
    if "data" not in inspect.signature(chosen).parameters:
        return chosen(**options)
    if data is None:
        raise UserError(
            "A model needs data.", allowed="a file, a folder, a hub dataset id or a Dataset", do="give data=…"
        )
    return chosen(model=model, data=data, **options)  # type: ignore[call-arg]
