"""Language modelling: how well a causal language model tells the next token of a text, as perplexity.

    CausalLM("./stories", "stories.txt")                      a folder, plain text (documents parted by <|endoftext|>)
    CausalLM("owner/name", "./wikitext", sequence=256)        a hub id; train.txt, valid.txt and test.txt in a folder
    CausalLM("./stories", "reviews.csv", text="body")         one document in each row of a table

Texts are cut into windows of `sequence` tokens, each with the beginning-of-text token in front; every token is
scored once. The model scores whole windows, without a cache of keys and values: what is timed is this, the work of
reading a prompt. Left out: generating text, ONNX files, live modules, windows that overlap.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from workbench.draft import Batch, Draft, Example, ModelFacts
from workbench.errors import DataError, ModelError, UnknownName, UserError
from workbench.loading.causal import CausalFolder
from workbench.loading.folder import refuse_file
from workbench.loading.hashing import hash_json
from workbench.loading.passages import SEPARATOR, find_texts, read_documents, windows
from workbench.loading.splits import role, set_aside
from workbench.loading.tokens import TokenizerEncoder
from workbench.measure.accuracy import Answers
from workbench.measure.windows import Windows, score_window, text_hash
from workbench.quick import CALIBRATED, MEASURED, NOTE, TRAINED, at_most, in_a_hurry
from workbench.tasks._located import absolute, located
from workbench.tasks.base import SPLITS, Progress, Task, no_numbers

#: With fewer windows than this none are set aside for calibration.
_TOO_FEW_TO_PART = 50


@dataclass(frozen=True)
class CausalLM(Task):
    """A causal language model and text.

    `model`: a Hugging Face folder or a hub id (at `revision`). `data`: a .txt file, a folder of them, a table, a
    folder of tables, or a hub id (at `data_revision`); `text` names a table's column, `separator` what parts the
    documents of a .txt file. `split`: the split to measure on. `reserve`: the share of its windows that is kept back
    for the report. `limit`: at most so many windows are measured.
    """

    name: ClassVar[str] = "causal_lm"
    title: ClassVar[str] = "Language modelling"

    model: str
    data: str
    text: tuple[str, ...] = ()
    separator: str = SEPARATOR
    revision: str | None = None
    data_revision: str | None = None
    trust_remote_code: bool = False
    tokenizer: str | None = None
    reserve: float = 0.0
    limit: int | None = None
    split: str | None = None
    metric: str = field(default="perplexity", kw_only=True)
    sequence: int = field(default=128, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    _kept: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.metric != "perplexity":
            raise UnknownName(f"{self.metric!r} is no metric of a language model.", allowed="perplexity")
        if self.limit is not None and self.limit < 1:
            raise UserError(f"limit = {self.limit!r} leaves nothing.", allowed="a whole number from 1")
        if not 0 <= self.reserve < 1:
            raise UserError(f"reserve = {self.reserve!r} is no share.", allowed="0 (nothing) to below 1")
        for name in ("model", "data"):
            object.__setattr__(self, name, absolute(str(getattr(self, name))))
        columns = (self.text,) if isinstance(self.text, str) else tuple(self.text)
        object.__setattr__(self, "text", tuple(name for name in columns if name))

    @property
    def labels(self) -> tuple[str, ...]:  # type: ignore[override]
        """A language model has no classes."""
        return ()

    def prepare(self, progress: Progress | None = None) -> None:
        """Download what is missing, then check that model, text and window length fit."""
        tell = progress or (lambda share, what: None)
        self._kept["model path"] = located(
            "model", self.model, self.revision, progress, ask=True, code=self.trust_remote_code
        )
        self._kept["data path"] = located("data", self.data, self.data_revision, progress, ask=True)
        tell(0.8, "checking the model")
        source = self.source()
        source.check()
        longest = source.longest()
        if self.sequence < 2 or (longest is not None and self.sequence > longest):
            raise UserError(
                f"sequence = {self.sequence} does not fit the model.",
                allowed=f"2 to {longest} tokens" if longest else "at least 2 tokens",
                do="choose another sequence=",
            )
        tell(0.9, "reading the text")
        largest, size = max(max(window) for window in self._windows("select")), source.vocabulary()
        if size is not None and largest >= size:
            raise ModelError(
                f"The tokenizer gives the number {largest}, and the model knows tokens 0 to {size - 1}.",
                do="put the tokenizer that the model was trained with into its folder, or name it with tokenizer=",
            )
        tell(1.0, "ready")

    def source(self) -> CausalFolder:
        """The model on this machine."""
        if "source" not in self._kept:
            path = self._path("model", self.model, self.revision)
            if path.is_file():
                refuse_file(path)
            named = TokenizerEncoder(located("tokenizer", self.tokenizer, None)) if self.tokenizer else None
            self._kept["source"] = CausalFolder(path, trust_remote_code=self.trust_remote_code, tokenizer=named)
        return self._kept["source"]

    def facts(self) -> ModelFacts:
        return self.source().facts()

    def sizes(self) -> dict[str, int]:
        return {split: len(self._windows(split)) for split in SPLITS}

    def encoded(self, split: str, limit: int | None = None) -> list[Example]:
        return [self._example(window) for window in self._windows(split)[:limit]]

    def targets(self, split: str, limit: int | None = None) -> np.ndarray:
        return np.full(len(self._windows(split)[:limit]), -1, dtype=np.int64)

    def texts(self, split: str, limit: int | None = None) -> list[tuple[str, ...]]:
        return [(self._encoder().text(window),) for window in self._windows(split)[:limit]]

    def tokenize(self, texts: Sequence[tuple[str, ...]]) -> list[Example]:
        encoder = self._encoder()
        begin = encoder.begin()
        head = [] if begin is None else [begin]
        return [self._example([*head, *row][: self.sequence]) for row in encoder.plain([text[0] for text in texts])]

    def outcomes(self, split: str, answers: Iterable[tuple[Batch, np.ndarray]]) -> Answers:
        expected = self._windows(split)
        losses: list[float] = []
        hits: list[np.ndarray] = []
        for _, logits in answers:
            for one in logits[: len(expected) - len(losses)]:
                window = expected[len(losses)]
                if len(one) < len(window):
                    raise UserError(
                        f"Windows of {len(window)} tokens were cut to {len(one)}.",
                        allowed="a backend whose sequence is at least the task's",
                        do=f"give the backend sequence={self.sequence}, or the task a smaller sequence",
                    )
                loss, right = score_window(one, window)
                losses.append(loss)
                hits.append(right)
        if broken := int((~np.isfinite(losses)).sum()):
            raise no_numbers(broken, len(losses))
        tokens = [len(right) for right in hits]
        return Windows(np.array(losses), np.array(tokens), np.concatenate(hits), text_hash(expected))

    def draft(self) -> Draft:
        source = self.source()
        return Draft(
            facts=self.facts(),
            data=WindowData(self),
            inputs=source.inputs(),
            pad=self.pad(),
            labels=(),
            module=source.load(),
            original=source.load,
        )

    def pad(self) -> dict[str, int]:
        return self._encoder().pad(self.source().inputs())

    def save_tokenizer(self, folder: Path) -> None:
        self._encoder().save(folder)

    def fingerprint(self) -> str:
        if "fingerprint" not in self._kept:
            parts = {split: hash_json(self._windows(split)) for split in SPLITS}
            settings = [self.name, self.metric, self.sequence]
            self._kept["fingerprint"] = hash_json([settings, self.source().fingerprint(), parts])[:16]
        return self._kept["fingerprint"]

    def to_json(self) -> dict[str, Any]:
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}
        found = {key: str(self._kept[key]) for key in ("model path", "data path") if key in self._kept}
        return {"name": self.name, **fields, "text": list(self.text), "found": found}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> CausalLM:
        task = cls(**{key: value for key, value in data.items() if key not in ("name", "found")})
        task._kept.update({key: Path(path) for key, path in data.get("found", {}).items() if Path(path).exists()})
        return task

    def describe(self) -> dict[str, Any]:
        sizes, facts = self.sizes(), self.facts()
        begin = self._encoder().begin()
        scored = sum(len(window) - 1 for window in self._windows("select"))
        notes = [*self._splits()[1], *([NOTE] if in_a_hurry() else [])]
        if not sizes["report"]:
            notes.append("Selection and report use the same text: there is no other split (see reserve=).")
        return {
            "model": self.model,
            "revision": self.revision,
            "data": self.data,
            "task": self.name,
            "architecture": facts.architecture,
            "parameters": facts.parameters,
            "blocks": facts.blocks,
            "metric": self.metric,
            "sequence": self.sequence,
            "windows": f"at most {self.sequence} tokens each, "
            + ("no token in front" if begin is None else "the beginning-of-text token in front"),
            "scored_tokens": scored,
            "inputs": list(self.source().inputs()),
            "splits": sizes,
            "reported_on": "report" if sizes["report"] else "select",
            "notes": notes,
        }

    def _example(self, window: list[int]) -> Example:
        plain = {"input_ids": window, "attention_mask": [1] * len(window)}
        return {name: plain[name] for name in self.source().inputs()}

    def _encoder(self) -> TokenizerEncoder:
        encoder = self.source().encoder()
        assert isinstance(encoder, TokenizerEncoder)  # `source` gives no other
        return encoder

    def _path(self, kind: str, name: str, revision: str | None) -> Path:
        if f"{kind} path" not in self._kept:
            self._kept[f"{kind} path"] = located(kind, name, revision, code=self.trust_remote_code)
        return self._kept[f"{kind} path"]

    def _windows(self, split: str) -> list[list[int]]:
        return self._splits()[0][split]

    def _splits(self) -> tuple[dict[str, list[list[int]]], list[str]]:
        """Windows by split, and what to know about them."""
        if "splits" not in self._kept:
            encoder, found = self._encoder(), {}
            for name, files in find_texts(self._path("data", self.data, self.data_revision)).items():
                documents = encoder.plain(read_documents(files, separator=self.separator, text=self.text))
                found[name] = windows(documents, self.sequence, encoder.begin())
            self._kept["splits"] = self._assign({name: cut for name, cut in found.items() if cut})
        return self._kept["splits"]

    def _assign(self, found: dict[str, list[list[int]]]) -> tuple[dict[str, list[list[int]]], list[str]]:
        """Every trial is measured on the validation text (else the test text, else what there is), the front again on
        the test text or a reserved share; calibration takes the training text, or windows set aside."""
        if not found:
            raise DataError("No text is long enough for one window.", allowed="documents of at least two tokens")
        train, test = role(found, "train"), role(found, "test")
        if self.split is not None and self.split not in found:
            raise DataError(f"The data have no split {self.split!r}.", allowed=", ".join(found))
        chosen = self.split or role(found, "validation") or test or train or next(iter(found))
        random, notes = np.random.default_rng(self.seed), []
        select, report = found[chosen], []
        if train not in (None, chosen):
            calibration = found[str(train)]
        elif len(select) >= _TOO_FEW_TO_PART:
            aside = set(random.choice(len(select), set_aside(len(select)), replace=False).tolist())
            calibration = [window for i, window in enumerate(select) if i in aside]
            select = [window for i, window in enumerate(select) if i not in aside]
            notes.append(f"There is no training text: {len(calibration)} windows of {chosen} are set aside for it.")
        else:
            calibration = select
            notes.append(f"There are only {len(select)} windows: calibration and measurement share them.")
        if self.reserve > 0:
            aside = set(random.choice(len(select), round(self.reserve * len(select)), replace=False).tolist())
            report = [window for i, window in enumerate(select) if i in aside]
            select = [window for i, window in enumerate(select) if i not in aside]
        elif test not in (None, chosen):
            report = found[str(test)]
        calibration = [calibration[i] for i in random.permutation(len(calibration))]
        parts = {"calibration": calibration, "select": select, "report": report}
        limit = at_most(self.limit, MEASURED)
        for split in ("select", "report"):
            if limit is not None and limit < len(parts[split]):
                notes.append(f"Limited to {limit} of the {len(parts[split])} windows for {split}.")
                rows = np.sort(random.choice(len(parts[split]), limit, replace=False))
                parts[split] = [parts[split][i] for i in rows]
        return parts, notes


@dataclass(frozen=True)
class WindowData:
    """The windows that a technique or a backend may look at; keeps `DraftData`."""

    task: CausalLM

    def calibration(self, samples: int) -> list[Example]:
        """The first `samples` windows of the calibration text; raises `DataError` where there are fewer."""
        there, samples = self.task.sizes()["calibration"], at_most(samples, CALIBRATED)
        if samples > there:
            raise DataError(
                f"{samples} calibration windows were asked for, and the calibration text has {there}.",
                allowed=f"at most {there}",
                do="lower `samples`, or give more training text",
            )
        return self.task.encoded("calibration", samples)

    def training(self) -> tuple[list[Example], np.ndarray]:
        """Every window of the training text, without labels; raises `DataError` where that text is measured."""
        if self.task.texts("calibration") and set(self.task.texts("calibration")) <= set(self.task.texts("select")):
            raise DataError(
                "The only text is what is measured; a model trained on it would be measured on what it has seen.",
                allowed="data with a training split",
                do="give training text with the task (train.txt), or take a technique that needs none",
            )
        few = at_most(None, TRAINED)
        return self.task.encoded("calibration", few), self.task.targets("calibration", few)

    def key(self) -> str:
        """The task's fingerprint."""
        return self.task.fingerprint()
