"""What every text classification task shares: encoding, targets, drafts, facts and fingerprints.

A subclass is a frozen dataclass that says where the model lies (`model_folder`, or `source` for another kind of
model) and which rows each split has (`rows`); it keeps tasks thin, and lets members of the family not know each other.
Left out: several labels per text, labels per token, regression.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from workbench.draft import Draft, Example, ModelFacts
from workbench.errors import DataError, ModelError, UserError
from workbench.loading.folder import HFFolder
from workbench.loading.hashing import hash_json
from workbench.loading.source import Source
from workbench.quick import CALIBRATED, NOTE, TRAINED, at_most, in_a_hurry
from workbench.tasks.base import SPLITS, Task

#: Raw texts, one or two strings each, with class indices, int64 of shape (examples,); -1 where there is no label.
Rows = tuple[list[tuple[str, ...]], np.ndarray]


@dataclass(frozen=True)
class CalibrationData:
    """The training examples that a technique or a backend may look at; keeps `DraftData`."""

    task: Classification

    def calibration(self, samples: int) -> list[Example]:
        """The first `samples` tokenized training examples; raises `DataError` where there are fewer."""
        there, samples = self.task.sizes()["calibration"], at_most(samples, CALIBRATED)
        if samples > there:
            raise DataError(
                f"{samples} calibration examples were asked for, and the training data has {there}.",
                allowed=f"at most {there}" if there else "data with a training split",
                do="lower `samples`, or give more training data",
            )
        return self.task.encoded("calibration", samples)

    def training(self) -> tuple[list[Example], np.ndarray]:
        """Every training example with its class; raises `DataError` where there are none."""
        if not self.task.sizes()["calibration"]:
            raise DataError(
                "This task has no training examples.",
                allowed="data with a training split",
                do="give training data with the task, or take a technique that needs none",
            )
        texts, targets = self.task.rows("calibration")
        if set(texts) <= set(self.task.rows("select")[0]):
            raise DataError(
                "The only examples are those that are measured; a model trained on them would be measured on what it "
                "has seen.",
                allowed="data with a training split, or at least 50 examples",
                do="give training data with the task, or take a technique that needs none",
            )
        few = at_most(None, TRAINED)
        return self.task.encoded("calibration", few), targets[:few]

    def key(self) -> str:
        """The task's fingerprint."""
        return self.task.fingerprint()


@dataclass(frozen=True)
class Classification(Task):
    """A sequence classifier with its rows.

    `sequence`: longer texts are cut to this many tokens. `seed`: decides every shuffle and split.
    """

    # Declared for every subclass; keyword-only so that a subclass may have positional fields of its own.
    metric: str = field(default="accuracy", kw_only=True)
    sequence: int = field(default=128, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    #: What this process has read already; never part of the task's identity.
    _kept: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    what: ClassVar[str] = "text classification"

    @abstractmethod
    def model_folder(self) -> Path:
        """The Hugging Face folder of the model, made or downloaded when missing."""

    @abstractmethod
    def rows(self, split: str) -> Rows:
        """Texts and class indices of a split, always in the same order; both empty where there is no such split."""

    def source(self) -> Source:
        """The model; a Hugging Face folder unless a subclass knows better."""
        if "source" not in self._kept:
            self._kept["source"] = HFFolder(self.model_folder())
        return self._kept["source"]

    def notes(self) -> list[str]:
        """What a person should know about how the data were read and split."""
        return [NOTE] if in_a_hurry() else []

    @property
    def labels(self) -> tuple[str, ...]:  # type: ignore[override]
        """Class names in the order of the logits."""
        return self.source().labels()

    def facts(self) -> ModelFacts:
        if "facts" not in self._kept:
            self._kept["facts"] = self.source().facts()
        return self._kept["facts"]

    def sizes(self) -> dict[str, int]:
        return {split: len(self.rows(split)[0]) for split in SPLITS}

    def texts(self, split: str, limit: int | None = None) -> list[tuple[str, ...]]:
        return self.rows(split)[0][:limit]

    def targets(self, split: str, limit: int | None = None) -> np.ndarray:
        chosen = self.rows(split)[1][:limit]
        if (chosen < 0).any():
            raise DataError(f"The {split} examples have no labels.", do="give a training split with labels")
        return chosen

    def encoded(self, split: str, limit: int | None = None) -> list[Example]:
        texts = self.texts(split, limit)
        kept = self._kept.get(f"encoded {split}", [])
        if len(kept) < len(texts):
            kept = [*kept, *self.tokenize(texts[len(kept) :])]
            self._kept[f"encoded {split}"] = kept
        return kept[: len(texts)]

    def tokenize(self, texts: Sequence[tuple[str, ...]]) -> list[Example]:
        source = self.source()
        return source.encoder().encode(texts, self.inputs(), self.sequence)

    def inputs(self) -> tuple[str, ...]:
        """The model's inputs, in the order in which its forward takes them."""
        if "inputs" not in self._kept:
            self._kept["inputs"] = self.source().inputs()
        return self._kept["inputs"]

    def check(self) -> None:
        """Raise unless tokenizer, sequence length and model fit each other; reads the data, not the weights."""
        source = self.source()
        longest = source.longest()
        if self.sequence < 2 or (longest is not None and self.sequence > longest):
            raise UserError(
                f"sequence = {self.sequence} does not fit the model.",
                allowed=f"2 to {longest} tokens" if longest else "at least 2 tokens",
                do="choose another sequence=",
            )
        ids = [number for example in self.encoded("select", 64) for number in example.get("input_ids", [])]
        size = source.vocabulary()
        if size is not None and max(ids, default=0) >= size:
            raise ModelError(
                f"The tokenizer gives the number {max(ids)}, and the model knows tokens 0 to {size - 1}.",
                allowed="the tokenizer that the model was trained with",
                do="put it into the model's folder, or name it with tokenizer=",
            )

    def draft(self) -> Draft:
        source = self.source()
        return Draft(
            facts=self.facts(),
            data=CalibrationData(self),
            inputs=self.inputs(),
            pad=self.pad(),
            labels=self.labels,
            module=source.load(),
            onnx=source.onnx,
            factory=source.factory,
            original=None if source.onnx else source.load,
        )

    def pad(self) -> dict[str, int]:
        return self.source().encoder().pad(self.inputs())

    def save_tokenizer(self, folder: Path) -> None:
        self.source().encoder().save(folder)

    def fingerprint(self) -> str:
        if "fingerprint" not in self._kept:
            rows = {split: [self.rows(split)[0], self.rows(split)[1].tolist()] for split in SPLITS}
            settings = [self.name, self.metric, self.sequence, self.labels]
            parts = [settings, self.source().fingerprint(), {split: hash_json(part) for split, part in rows.items()}]
            self._kept["fingerprint"] = hash_json(parts)[:16]
        return self._kept["fingerprint"]

    def to_json(self) -> dict[str, Any]:
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}
        return {"name": self.name, **{k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return cls(**{key: value for key, value in data.items() if key != "name"})

    def preview(self, split: str = "select", limit: int = 5) -> list[dict[str, Any]]:
        """The first examples of a split: `text` (tuple of strings), `label`, `tokens` and their number `length`."""
        encoder, (texts, targets) = self.source().encoder(), self.rows(split)
        return [
            {
                "text": text,
                "label": self.labels[target] if target >= 0 else None,
                "tokens": encoder.tokens(example),
                "length": len(next(iter(example.values()))),
            }
            for text, target, example in zip(texts, targets[:limit], self.encoded(split, limit), strict=False)
        ]

    def describe(self) -> dict[str, Any]:
        sizes, facts = self.sizes(), self.facts()
        counts = np.bincount(self.rows("select")[1], minlength=len(self.labels))
        return {
            "task": self.name,
            "architecture": facts.architecture,
            "parameters": facts.parameters,
            "blocks": facts.blocks,
            "labels": list(self.labels),
            "label_counts": dict(zip(self.labels, counts.tolist(), strict=True)),
            "metric": self.metric,
            "sequence": self.sequence,
            "inputs": list(self.inputs()),
            "splits": sizes,
            "reported_on": "report" if sizes["report"] else "select",
            "one_percent": one_percent(sizes["select"]),
            "notes": [*self.notes(), *self._cut(), *(() if sizes["report"] else (SAME_EXAMPLES,))],
        }

    def _cut(self) -> list[str]:
        """Whether texts are cut, as far as a part of them tells."""
        lengths = [len(next(iter(example.values()))) for example in self.encoded("select", 1000)]
        full = sum(length >= self.sequence for length in lengths)
        told = f"{full} of {len(lengths)} texts looked at fill all {self.sequence} tokens; longer ones are cut there."
        return [told] if full else []


SAME_EXAMPLES = "Selection and report use the same examples: there is no further labelled data (see reserve=)."


def one_percent(examples: int) -> str:
    """What one percentage point of accuracy is in answers: of 872 examples, 8.7 answers."""
    return f"one percentage point of {examples} examples is {examples / 100:.1f} answers"
