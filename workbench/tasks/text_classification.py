"""Text classification, single sentences and pairs, on the user's own model and data.

    TextClassification("./my-model", "./my-data")                       a folder, split files in a folder
    TextClassification("owner/name", "glue/sst2", revision="v1.0")      hub ids
    TextClassification("model.onnx", "reviews.csv", text="body", label="stars", labels_map={"5": "positive", …})
    TextClassification("my_models:build", "dev.tsv", tokenizer="bert-base-uncased")

The model and the data may also be live objects (an `nn.Module`, a `datasets.Dataset`, a pandas frame): they are
written to the cache by content, because a sweep runs in another process. Constructing reads nothing else; `prepare`
downloads and checks everything. Left out: several labels per text, regression, labels per token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from workbench.errors import DataError, UserError
from workbench.loading.data import find_tables, read_split
from workbench.loading.factory import FactoryModule, is_factory, load_factory
from workbench.loading.folder import HFFolder, refuse_file
from workbench.loading.live import FACTORY_FILE, data_path, model_path, tokenizer_path
from workbench.loading.onnx_file import OnnxFile
from workbench.loading.source import Source
from workbench.loading.splits import Splits, assign, role
from workbench.loading.tokens import CollateEncoder, Encoder, TokenizerEncoder
from workbench.measure.accuracy import class_metric
from workbench.quick import MEASURED, at_most
from workbench.tasks._classification import Classification, Rows
from workbench.tasks._located import absolute, located
from workbench.tasks.base import Progress


@dataclass(frozen=True)
class TextClassification(Classification):
    """A sequence classifier and labelled texts.

    `model`: a Hugging Face folder, a hub id (at `revision`), an ONNX file, "package.module:function", or a live
    module (`factory` names what builds it again, where it is no PreTrainedModel). `tokenizer`: its folder or hub id
    where it does not lie with the model; `collate`: a function "package.module:function" instead of a tokenizer.
    `data`: a file (CSV, TSV, JSON Lines, JSON, Parquet), a folder of split files, a hub id with configuration (at
    `data_revision`), or a live data set. `text`, `label`: column names, guessed where they are not given.
    `labels_map`: value in the data -> class of the model. `split`: the split to measure on. `reserve`: the share of
    it that is kept back for the report. `limit`: at most so many examples are measured.
    """

    name: ClassVar[str] = "text_classification"
    title: ClassVar[str] = "Text classification"

    model: str
    data: str
    text: tuple[str, ...] = ()
    label: str | None = None
    revision: str | None = None
    data_revision: str | None = None
    trust_remote_code: bool = False
    reserve: float = 0.0
    limit: int | None = None
    split: str | None = None
    labels_map: dict[str, str | int] | None = None
    tokenizer: str | None = None
    collate: str | None = None
    factory: str | None = None

    def __post_init__(self) -> None:
        class_metric(self.metric)
        model: Any = self.model
        data: Any = self.data
        tokenizer: Any = self.tokenizer
        if not isinstance(model, str | Path):
            model = model_path(model, tokenizer, self.factory)
            tokenizer = None if hasattr(tokenizer, "save_pretrained") else tokenizer
        if tokenizer is not None and not isinstance(tokenizer, str | Path):
            tokenizer = tokenizer_path(tokenizer)
        if not isinstance(data, str | Path):
            data = data_path(data)
        self._set("model", absolute(str(model)))
        self._set("data", absolute(str(data)))
        self._set("tokenizer", None if tokenizer is None else absolute(str(tokenizer)))
        self._set("text", _columns(self.text))
        if self.labels_map is not None:
            self._set("labels_map", {str(value): target for value, target in self.labels_map.items()})

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def __hash__(self) -> int:
        return hash((self.model, self.data, self.text, self.label, self.metric, self.seed))

    def prepare(self, progress: Progress | None = None) -> None:
        """Download what is missing, then check model, data, labels and that they fit."""
        self._fetch_model(_part(progress, 0.0, 0.5), ask=True)
        self._fetch_data(_part(progress, 0.5, 0.8), ask=True)
        tell = progress or (lambda share, what: None)
        tell(0.8, "checking the model")
        self.source().check()
        tell(0.9, "reading the data")
        self.check()
        tell(1.0, "ready")

    def model_folder(self) -> Path:
        """The model's folder or file on this machine, downloaded when missing."""
        return self._fetch_model()

    def source(self) -> Source:
        if "source" not in self._kept:
            self._kept["source"] = self._open()
        return self._kept["source"]

    def rows(self, split: str) -> Rows:
        part = getattr(self._splits(), split)
        return part.texts, part.targets

    @property
    def labels(self) -> tuple[str, ...]:  # type: ignore[override]
        """The model's class names, or the data's where the model only numbers them."""
        return self._splits().names or self.source().labels()

    def notes(self) -> list[str]:
        return [*self._splits().notes, *super().notes()]

    def describe(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "revision": self.revision,
            "data": self.data,
            "origin": self._splits().origin,
            **super().describe(),
        }

    def to_json(self) -> dict[str, Any]:
        """Beside the fields, where things lie on this machine once they were fetched: no process asks the hub twice."""
        found = {
            key: str(self._kept[key]) for key in ("model path", "data path", "tokenizer path") if key in self._kept
        }
        return {**super().to_json(), "found": found}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TextClassification:
        task = super().from_json({key: value for key, value in data.items() if key != "found"})
        for key, path in data.get("found", {}).items():
            if Path(path).exists():
                task._kept[key] = Path(path)
        return task

    def _open(self) -> Source:
        encoder = self._encoder()
        if is_factory(self.model) and not Path(self.model).exists():
            return FactoryModule(self.model, encoder=encoder)
        path = self._fetch_model()
        if path.suffix.lower() == ".onnx":
            return OnnxFile(path, encoder=encoder)
        if path.is_file():
            refuse_file(path)
        if (path / FACTORY_FILE).is_file():
            return FactoryModule.from_folder(path, encoder)
        graphs = sorted(path.glob("*.onnx"))
        if len(graphs) == 1 and not list(path.glob("*.safetensors")):
            return OnnxFile(graphs[0], encoder=encoder)
        return HFFolder(path, trust_remote_code=self.trust_remote_code, tokenizer=encoder)

    def _encoder(self) -> Encoder | None:
        """The encoder that the user named, or None for the one beside the model."""
        if self.collate is not None:
            return CollateEncoder(self.collate, load_factory(self.collate))
        if self.tokenizer is None:
            return None
        if "tokenizer path" not in self._kept:
            self._kept["tokenizer path"] = located("tokenizer", self.tokenizer, None)
        return TokenizerEncoder(self._kept["tokenizer path"], self.trust_remote_code)

    def _fetch_model(self, progress: Progress | None = None, *, ask: bool = False) -> Path:
        if "model path" not in self._kept and not (is_factory(self.model) and not Path(self.model).exists()):
            self._kept["model path"] = located(
                "model", self.model, self.revision, progress, ask=ask, code=self.trust_remote_code
            )
        return self._kept.get("model path", Path())

    def _fetch_data(self, progress: Progress | None = None, *, ask: bool = False) -> Path:
        if "data path" not in self._kept:
            self._kept["data path"] = located("data", self.data, self.data_revision, progress, ask=ask)
        return self._kept["data path"]

    def _splits(self) -> Splits:
        if "splits" not in self._kept:
            self._kept["splits"] = self._read()
        return self._kept["splits"]

    def _read(self) -> Splits:
        labels = self.source().labels()
        options = {"text": self.text, "label": self.label, "labels_map": self.labels_map}
        files = find_tables(self._fetch_data())
        found, notes, names = {}, [], None
        for name, paths in files.items():
            found[name], told, own = read_split(paths, labels, **options)  # type: ignore[arg-type]
            notes += told
            names = names or own
        if not any(part.labelled for part in found.values()):
            likely = next((n for p in ("validation", "test", "train") if (n := role(files, p))), next(iter(files)))
            read_split(files[likely], labels, **options, must=True)  # type: ignore[arg-type]
        widths = {len(part.texts[0]) for part in found.values()}
        if len(widths) > 1:
            raise DataError(
                f"Some splits of {self.data} have one text column and some have two.",
                do="name the text column with text=, or give one file instead of the folder",
            )
        parted = assign(
            found, split=self.split, reserve=self.reserve, seed=self.seed, limit=at_most(self.limit, MEASURED)
        )
        return Splits(parted.calibration, parted.select, parted.report, parted.origin, [*notes, *parted.notes], names)


def _columns(text: Any) -> tuple[str, ...]:
    """Column names from a name, several separated by commas, or a sequence."""
    parts = text.split(",") if isinstance(text, str) else list(text or ())
    names = tuple(str(part).strip() for part in parts)
    if len(names) > 2 or not all(names):
        raise UserError(f"text = {text!r} names {len(names)} columns.", allowed="one column, or two for pairs")
    return names


def _part(progress: Progress | None, low: float, high: float) -> Progress | None:
    """`progress` for one part of the work, from `low` to `high` of the whole."""
    if progress is None:
        return None
    tell: Callable[[float, str], None] = progress
    return lambda share, what: tell(low + (high - low) * share, what)
