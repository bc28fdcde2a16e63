"""What a person wants to see of a model and of data before a sweep, as plain data.

    describe_model("path/to/model")                               architecture, parameters, MACs, license, what is wrong
    describe_table("path/to/data")                                columns, splits, labels, the first rows; no model
    describe_data(make_task("path/to/model", "path/to/data"))     tokens, lengths, splits, what one percent means

The first and the last import transformers, some seconds; `running.look` answers for those who must not wait.
Left out: anything that needs the weights themselves.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from workbench.errors import DataError, UserError
from workbench.loading.causal import CausalFolder
from workbench.loading.columns import choose_columns
from workbench.loading.data import find_tables
from workbench.loading.factory import is_factory
from workbench.loading.folder import HFFolder, module_facts
from workbench.loading.model_summary import HEADS, ModelSummary, summarize
from workbench.loading.onnx_file import OnnxFile
from workbench.loading.passages import find_texts, read_documents
from workbench.loading.splits import role
from workbench.loading.tables import concatenated, read_table
from workbench.tasks._located import located
from workbench.tasks.base import Task
from workbench.tasks.demo import LABELS, Settings, demo_folder, is_trained

#: Examples whose lengths are looked at, rows that are shown, label values that are told apart.
LOOKED_AT, SHOWN, VALUES = 1000, 5, 20
#: Longest piece of a raw cell that is shown, in characters.
_CELL = 400


# --- models ----------------------------------------------------------------------------------------------------------


def describe_model(
    model: str = "demo", revision: str | None = None, *, kind: str = "text_classification"
) -> ModelSummary:
    """A model (`demo`, a folder, an ONNX file, a hub id at `revision`) for a task of this `kind`.

    Nothing but a hub model's config.json is downloaded. What is wrong stands in `problem`; nothing is raised for it.
    """
    if model == "demo":
        found = summarize_demo()
        return _deepened(found, demo_folder(), kind) if is_trained() else found
    path = Path(model).expanduser()
    if path.exists():
        return _deepened(summarize(path, kind), path, kind)
    if is_factory(model):
        return ModelSummary(model, "function", architecture="whatever the function builds")
    from workbench.loading.hub_summary import config_of, summarize_hub

    found = summarize_hub(model, revision, kind)
    if found.problem or found.kind != "hub":
        return found
    try:
        return _laid_out(found, config_of(model, revision).parent, kind)
    except (UserError, OSError, ValueError, KeyError, TypeError, RuntimeError):
        # A head that transformers does not know shows when the model is prepared; the hub's facts stand.
        return found


def summarize_demo() -> ModelSummary:
    """The demo's model as far as its settings, and its files once it was trained, tell."""
    shape = Settings()
    about = "DistilBertForSequenceClassification"
    found = ModelSummary("demo", "demo", about, LABELS, layers=shape.layers, license="Apache-2.0, as this package")
    if not is_trained():
        return found
    seen = summarize(demo_folder())
    return replace(found, parameters=seen.parameters, size_mb=seen.size_mb)


def _deepened(found: ModelSummary, path: Path, kind: str) -> ModelSummary:
    """`found` with what the layers tell, and with the problems that only they show."""
    if found.problem or kind not in HEADS:
        return found
    try:
        if found.kind == "onnx":
            graph = path if path.is_file() else next(path.glob("*.onnx"))
            source = OnnxFile(graph)
            source.check()
            return replace(found, labels=source.labels(), parameters=source.facts().parameters)
        folder = CausalFolder(path) if kind == "causal_lm" else HFFolder(path)
        folder.check()
        return _laid_out(found, path, kind, folder.meta)
    except UserError as error:
        return replace(found, problem=error.what, do=error.do)


def _laid_out(found: ModelSummary, folder: Path, kind: str, module: Any = None) -> ModelSummary:
    """`found` with parameters, blocks and MACs of the model on the meta device: every shape, no weight."""
    import torch

    from workbench.measure.layers import macs

    if module is None:
        module = _meta(folder, kind)
    facts = module_facts(module, type(module).__name__)
    length = min(found.sequence, getattr(module.config, "max_position_embeddings", None) or found.sequence)
    counted: int | None = None
    # Without a mask, whose values nobody can ask for here; DeBERTa makes one of its own, and is not counted.
    with contextlib.suppress(RuntimeError, NotImplementedError, TypeError, ValueError), torch.device("meta"):
        counted = macs(module, {"input_ids": torch.ones((1, length), dtype=torch.long)})
    return replace(
        found,
        architecture=facts.architecture,
        parameters=facts.parameters,
        layers=facts.blocks or found.layers,
        macs=counted,
        sequence=length,
    )


def _meta(folder: Path, kind: str) -> Any:
    """The module that `folder`'s config.json describes, without the folder's own code."""
    import torch

    from workbench.loading.quiet import import_models

    import_models()
    import transformers

    auto = CausalFolder.auto if kind == "causal_lm" else HFFolder.auto
    config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
    with torch.device("meta"):
        return getattr(transformers, auto).from_config(config, dtype=torch.float32).eval()


# --- data ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TableSummary:
    """Data as they lie there. `splits`: name -> rows; `columns`: their names; `text`, `label`: those that would be
    taken; `counts`: split -> value of the label column -> rows (the most frequent ones); `rows`: the first rows as
    text by column; `shown`: the split that `rows` are of."""

    data: str
    splits: dict[str, int]
    columns: tuple[str, ...]
    text: tuple[str, ...]
    label: str | None
    counts: dict[str, dict[str, int]]
    rows: list[dict[str, str]]
    shown: str
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The summary that `to_json` wrote."""
        return cls(**{**data, **{name: tuple(data[name]) for name in ("columns", "text", "notes")}})


def describe_table(
    data: str,
    *,
    text: Sequence[str] = (),
    label: str | None = None,
    revision: str | None = None,
    kind: str = "text_classification",
) -> TableSummary:
    """Data files, without a model; raises `DataError` and `HubError`. A hub id is downloaded when missing.

    Columns that were not named are guessed; where no guess can be made, the columns are told and the note says so.
    """
    path = located("data", str(Path(data).expanduser()) if Path(data).expanduser().exists() else data, revision)
    if kind == "causal_lm" and (files := find_texts(path)) and next(iter(files.values()))[0].suffix == ".txt":
        return _documents(data, files)
    splits: dict[str, int] = {}
    counts: dict[str, dict[str, int]] = {}
    tables, notes = {}, []
    for name, found in find_tables(path).items():
        table = concatenated([read_table(file) for file in found])
        chosen: tuple[tuple[str, ...], str | None] = ((), None)
        try:
            columns = choose_columns(table, tuple(text), label)
            table, chosen = columns.table, (columns.text, columns.label)
            notes += [columns.note] if columns.note else []
        except DataError as error:
            notes.append(error.what)
        tables[name], splits[name] = (table, *chosen), len(table)
        if chosen[1] is not None:
            values = [str(value) for value in table.columns[chosen[1]] if value not in (None, "")]
            counts[name] = dict(Counter(values).most_common(VALUES))
    roles = (role(tables, part) for part in ("validation", "test", "train"))
    shown = next(filter(None, roles), next(iter(tables)))
    table, chosen_text, chosen_label = tables[shown]
    rows = [{name: _cut(column[i]) for name, column in table.columns.items()} for i in range(min(SHOWN, len(table)))]
    return TableSummary(
        data, splits, tuple(table.columns), chosen_text, chosen_label, counts, rows, shown, tuple(dict.fromkeys(notes))
    )


def _documents(data: str, files: dict[str, list[Path]]) -> TableSummary:
    """Plain text files: documents are the rows."""
    found = {name: read_documents(paths) for name, paths in files.items()}
    shown = next((name for p in ("validation", "test", "train") if (name := role(found, p))), next(iter(found)))
    rows = [{"text": _cut(document)} for document in found[shown][:SHOWN]]
    return TableSummary(data, {n: len(d) for n, d in found.items()}, ("text",), ("text",), None, {}, rows, shown)


def _cut(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= _CELL else text[:_CELL] + " …"


@dataclass(frozen=True)
class DataSummary:
    """Data as the model sees them. `sizes`: examples by purpose (calibration, select, report); `origin`: the split
    that serves each; `counts`: class -> examples that are measured; `lengths`: tokens of the first examples that are
    measured, after cutting to `sequence`; `rows`: `text`, `label`, `tokens`, `length`; `metric`, `one_percent`."""

    sizes: dict[str, int]
    origin: dict[str, str]
    counts: dict[str, int]
    lengths: list[int]
    sequence: int
    rows: list[dict[str, Any]]
    metric: str
    one_percent: str
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The summary that `to_json` wrote."""
        return cls(**{**data, "notes": tuple(data["notes"])})


def describe_data(task: Task) -> DataSummary:
    """A task's data, tokenized; raises what reading them raises.

    The model of the demo is not trained for this: until it was, its texts are told and their tokens are not.
    """
    from workbench.tasks.demo import Demo

    if isinstance(task, Demo) and not is_trained():
        return _untokenized(task)
    about = task.describe()
    examples = task.encoded("select", LOOKED_AT)
    return DataSummary(
        sizes=task.sizes(),
        origin=dict(about.get("origin", {})),
        counts={str(name): int(count) for name, count in about.get("label_counts", {}).items()},
        lengths=[len(next(iter(example.values()))) for example in examples],
        sequence=int(getattr(task, "sequence", 0) or max(map(len, examples), default=0)),
        rows=_preview(task, examples[:SHOWN]),
        metric=task.metric,
        one_percent=about.get("one_percent") or f"{task.sizes()['select']} windows are measured",
        notes=tuple(about.get("notes", ())),
    )


def _preview(task: Task, examples: Sequence[Any]) -> list[dict[str, Any]]:
    """The first examples that are measured, each with its text, its class and its tokens."""
    count = len(examples)
    targets = task.targets("select", count)
    encoder = task.source().encoder() if hasattr(task, "source") else None
    return [
        {
            "text": [_cut(part) for part in text],
            "label": task.labels[target] if task.labels and target >= 0 else "",
            "tokens": encoder.tokens(example) if encoder else [],
            "length": len(next(iter(example.values()))),
        }
        for text, target, example in zip(task.texts("select", count), targets, examples, strict=True)
    ]


def _untokenized(task: Any) -> DataSummary:
    from workbench.tasks._classification import one_percent

    sizes = {split: len(task.rows(split)[0]) for split in ("calibration", "select", "report")}
    texts, targets = task.rows("select")
    names = [LABELS[target] for target in targets]
    first = zip(texts[:SHOWN], names[:SHOWN], strict=True)
    rows = [{"text": [*text], "label": name, "tokens": [], "length": 0} for text, name in first]
    return DataSummary(
        sizes,
        {"calibration": "train", "select": "validation", "report": "test"},
        dict(Counter(names)),
        [],
        task.sequence,
        rows,
        task.metric,
        one_percent(sizes["select"]),
        ("Tokens are shown once the demo's model was trained, which its first sweep does.",),
    )
