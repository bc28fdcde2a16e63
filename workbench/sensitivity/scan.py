"""The scan: one row per layer (and per value of a knob, where asked) with what its compression does to the model.

    scan(task, "static_int8", "kl")                                  each layer compressed alone
    scan(task, StaticInt8(calibration="mse"), "flips", "all_but")    all compressed but this one
    scan(task, "prune", knobs={"sparsity": (0.3, 0.5, 0.7)})         a row for each layer and sparsity

Compression is simulated on the PyTorch module, because lowering for every layer costs minutes; with `backend=` each
layer is really lowered and run there. Rows are kept in the cache as they come, by model, data, technique and probe, so
a scan that is cut short goes on where it stood. A score that is no number stays as a row, with a note, and ranks first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from workbench.backends.base import Backend
from workbench.draft import Draft, Example, resolve_keep, silent
from workbench.errors import DataError, Refused, UnknownName, UserError
from workbench.measure.estimate import finite
from workbench.measure.layers import layers as describe_layers
from workbench.measure.machine import Machine
from workbench.paths import cache_dir
from workbench.quick import SCANNED, at_most
from workbench.recipe import plugin
from workbench.sensitivity.forms import WHATS, compressed
from workbench.sensitivity.lowered import LoweredStage
from workbench.sensitivity.probes.base import Probe, Seen
from workbench.sensitivity.stage import DIRECTIONS, Stage
from workbench.tasks.base import Task
from workbench.techniques.base import Technique

if TYPE_CHECKING:
    import pandas as pd

#: Raised when what is written, or what a probe says, changes its meaning: nothing older is taken then.
FORMAT = 1
COLUMNS = ("layer", "kind", "parameters", "macs")
SCORES = ("score", "score_low", "score_high", "remains", "rank", "evaluations", "seconds", "note")

#: Called with the share that is done (0 … 1) and words.
Tell = Callable[[float, str], None]
Row = dict[str, Any]


class Stopped(Exception):
    """The `stop` of a scan said so; what was found so far is in the cache."""


@dataclass(frozen=True)
class Order:
    """What to scan. `what`: both, weights or activations; `samples` examples of `split` are looked at; `layers`
    (patterns, empty: all) are scored, `keep` (patterns) are compressed in no case; `knobs`: values by knob of the
    technique; `backend`: where layers are really lowered, or None."""

    technique: Technique
    probe: Probe
    direction: str = "only"
    what: str = "both"
    samples: int = 256
    split: str = "select"
    layers: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    knobs: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    backend: Backend | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("direction", DIRECTIONS), ("what", WHATS), ("split", ("select", "calibration"))):
            if getattr(self, name) not in allowed:
                raise UserError(f"{name} = {getattr(self, name)!r} is not possible.", allowed=" | ".join(allowed))
        if self.samples < 1:
            raise UserError(f"samples = {self.samples} leaves nothing to look at.", allowed="a whole number from 1")
        if self.backend is not None and (self.probe.sees != "logits" or self.what != "both"):
            raise Refused(
                f"On a real runtime only the model's answers are seen, and {self.probe.name} looks at "
                f"{self.probe.sees if self.probe.sees != 'logits' else self.what + ' alone'}.",
                allowed="probes of the logits (kl, nmse, flips, accuracy_drop) with what='both'",
                do="leave backend= away",
            )
        if self.what not in self.probe.parts:
            raise Refused(f"{self.probe.name} cannot look at {self.what} alone.", allowed=" | ".join(self.probe.parts))
        list(self.techniques())  # A wrong value is told before any work.

    def techniques(self) -> Iterator[tuple[dict[str, Any], Technique]]:
        """The technique at every combination of its knobs, with their values."""
        names = [name for name, _ in self.knobs]
        for values in itertools.product(*(given for _, given in self.knobs)):
            chosen = dict(zip(names, values, strict=True))
            yield chosen, self.technique.replace(**chosen) if chosen else self.technique

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plugins = {"technique": self.technique.to_json(), "probe": self.probe.to_json()}
        return {**plain, **plugins, "backend": self.backend.to_json() if self.backend else None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The order that `to_json` wrote, tuples made lists in between or not."""
        return cls(
            **{
                **data,
                "technique": plugin("techniques", **data["technique"]),
                "probe": plugin("probes", **data["probe"]),
                "backend": plugin("backends", **data["backend"]) if data["backend"] else None,
                "layers": tuple(data["layers"]),
                "keep": tuple(data["keep"]),
                "knobs": tuple((name, tuple(values)) for name, values in data["knobs"]),
            }
        )

    def key(self, fingerprint: str, technique: Technique) -> str:
        """Under which rows are kept: model and data (`fingerprint`) and all that decides a row at one combination of
        the knobs; not which layers."""
        parts = {**self.to_json(), "technique": technique.to_json(), "layers": None, "knobs": None}
        parts |= {"fingerprint": fingerprint, "format": FORMAT}
        if self.backend is not None:
            parts["machine"] = Machine.here().fingerprint()
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=list).encode()).hexdigest()[:20]

    @property
    def title(self) -> str:
        """In words: `kl of static_int8, only this layer`."""
        how = {"only": "only this layer", "all_but": "all but this layer"}[self.direction]
        part = "" if self.what == "both" else f", {self.what} alone"
        where = f", on {self.backend.title}" if self.backend else ""
        return f"{self.probe.name} of {self.technique.name}, {how}{part}{where}"


def order(
    technique: Technique | str = "static_int8",
    probe: Probe | str = "kl",
    direction: str = "only",
    layers: Iterable[str] | None = None,
    *,
    knobs: Mapping[str, Iterable[Any]] | None = None,
    **options: Any,
) -> Order:
    """The order of a scan, names and lists made objects; raises `UnknownName` and `UserError`."""
    made = plugin("techniques", technique) if isinstance(technique, str) else technique
    looked = plugin("probes", probe) if isinstance(probe, str) else probe
    values = tuple((name, tuple(given)) for name, given in (knobs or {}).items())
    options["keep"] = tuple(options.get("keep", ()))
    options["samples"] = at_most(options.get("samples", Order.samples), SCANNED)
    return Order(made, looked, direction, layers=tuple(layers or ()), knobs=values, **options)


def scan(
    task: Task,
    technique: Technique | str = "static_int8",
    probe: Probe | str = "kl",
    direction: str = "only",
    layers: Iterable[str] | None = None,
    *,
    what: str = "both",
    samples: int = 256,
    split: str = "select",
    keep: Iterable[str] = (),
    knobs: Mapping[str, Iterable[Any]] | None = None,
    backend: Backend | None = None,
    tell: Tell = silent,
    stop: Callable[[], bool] | None = None,
    known: Iterable[Row] = (),
) -> pd.DataFrame:
    """One row per layer, in the model's order; a larger score is a more sensitive layer, and `rank` 1 the most.

    `direction` "only": the score of the model in which this layer alone is compressed. "all_but": what leaving this
    layer alone regains when all others are compressed, of probes that look at answers; `remains` is what then still
    is lost. `score_low` and `score_high` are a 95 % bootstrap interval over examples. `evaluations` are passes over all
    examples; `seconds` what the row took, the first one with all that the rows share.

    Raises `Refused`, `DataError` and what the technique raises; `Stopped` when `stop()` says so.
    """
    given = order(
        technique, probe, direction, layers,
        what=what, samples=samples, split=split, keep=keep, knobs=knobs, backend=backend,
    )  # fmt: skip
    return frame(rows(task, given, tell=tell, stop=stop, known=known), given)


def rows(
    task: Task,
    given: Order,
    *,
    tell: Tell = silent,
    stop: Callable[[], bool] | None = None,
    known: Iterable[Row] = (),
) -> Iterator[Row]:
    """The rows of `scan` as plain data, as they come; what the cache or `known` holds comes first."""
    fingerprint, kept, there = task.fingerprint(), {}, list(known)
    for values, technique in given.techniques():
        place = tuple(values.values())
        kept[place] = _Kept(cache_dir("scans") / f"{given.key(fingerprint, technique)}.jsonl")
        there += [{**row, **values} for row in kept[place].read()]
    draft = task.draft()
    draft.sequence = given.backend.sequence if given.backend else getattr(task, "sequence", draft.sequence)
    examples, labels = _data(task, given)
    names = [name for name, _ in given.knobs]
    for row in draft_rows(draft, examples, labels, given, tell=tell, stop=stop, known=there):
        kept[tuple(row[name] for name in names)].add({k: v for k, v in row.items() if k not in names})
        yield row


def draft_rows(
    draft: Draft,
    examples: Sequence[Example],
    labels: np.ndarray | None,
    given: Order,
    *,
    tell: Tell = silent,
    stop: Callable[[], bool] | None = None,
    known: Iterable[Row] = (),
) -> Iterator[Row]:
    """`rows` of a draft instead of a task, nothing kept."""
    stopped = stop or (lambda: False)
    if draft.module is None:
        raise Refused("A scan runs the PyTorch module, and an ONNX file has none.", do="start from the checkpoint")
    draft.kept |= resolve_keep(given.keep, draft.facts.layers)
    there = {_place(row, given): dict(row) for row in known}
    facts = _facts(draft)
    combinations = list(given.techniques())
    wanted = draft.quantizable()
    if given.layers:
        try:
            chosen = resolve_keep(given.layers, wanted)
        except UnknownName as error:
            raise UnknownName(error.what.replace("keep", "layers", 1), allowed=error.allowed, do=error.do) from None
        wanted = [name for name in wanted if name in chosen]
    total, done, began, fresh = len(wanted) * len(combinations), 0, time.perf_counter(), 0
    for values, technique in combinations:
        places = {name: (name, *values.values()) for name in wanted}
        for name in [name for name in wanted if places[name] in there]:
            done += 1
            yield there[places[name]]
        left = [name for name in wanted if places[name] not in there]
        if not left:
            continue
        before = time.perf_counter()
        tell(done / total, f"{given.probe.name}: preparing {technique.name}")
        for seen in _seen(draft, examples, labels, given, technique, left):
            now = time.perf_counter()
            row = {**facts[seen.layer], **values, **_score(given.probe, seen), "seconds": now - before}
            before, done, fresh = now, done + 1, fresh + 1
            seconds = (now - began) / fresh * (total - done)
            tell(done / total, f"{given.probe.name}: {done} of {total} layers, {seconds:.0f} s left")
            yield row
            if stopped() and done < total:
                raise Stopped


def frame(found: Iterable[Row], given: Order) -> pd.DataFrame:
    """Rows as a table in the model's order, with ranks; `attrs` hold the order."""
    import pandas as pd

    table = pd.DataFrame(list(found))
    values = [name for name, _ in given.knobs]
    if table.empty:
        table = pd.DataFrame(columns=[*COLUMNS, "index", *values, *SCORES])
    for name in ("score", "score_low", "score_high", "remains"):
        table[name] = pd.to_numeric(table[name], errors="coerce").astype(float)
    table = table.sort_values(["index", *values], kind="stable").reset_index(drop=True)
    groups = [group for _, group in table.groupby(values)] if values and len(table) else [table]
    table["rank"] = pd.concat([ranks(group["score"]) for group in groups]).reindex(table.index).astype(int)
    table = table[[*COLUMNS, *values, *SCORES]]
    table.attrs = {"order": given.to_json(), "title": given.title, "unit": given.probe.unit}
    return table


def ranks(scores: pd.Series) -> pd.Series:
    """Rank of each score, 1 for the largest; what is no number comes first, equal ones keep the model's order."""
    import pandas as pd

    placed = scores.fillna(math.inf).sort_values(ascending=False, kind="stable").index
    return pd.Series(range(1, len(scores) + 1), index=placed).reindex(scores.index)


def _seen(
    draft: Draft,
    examples: Sequence[Example],
    labels: np.ndarray | None,
    given: Order,
    technique: Technique,
    wanted: Sequence[str],
) -> Iterator[Seen]:
    """What the probe sees of the wanted layers; those that the technique leaves alone are seen as unchanged."""
    found = compressed(draft, technique, given.what)  # type: ignore[arg-type]
    stage: Any
    if given.backend is not None:
        stage = LoweredStage(draft, found, examples, labels, given.direction, given.backend)  # type: ignore[arg-type]
    else:
        stage = Stage(draft, found.forms, examples, labels, given.direction)  # type: ignore[arg-type]
    touched = [name for name in wanted if name in found.forms]
    if touched:
        yield from given.probe.look(stage, touched)
    for name in wanted:
        if name not in found.forms:
            yield Seen(name, np.empty((0, 2)))


def _score(probe: Probe, seen: Seen) -> Row:
    if not len(seen.terms):
        return {**_plain(0.0, 0.0, 0.0, math.nan), "evaluations": 0.0, "note": "left as it is by the technique"}
    found = probe.estimate(seen.terms)
    broken = int(np.isnan(seen.terms).any(axis=1).sum())
    note = f"no numbers for {broken} of {len(seen.terms)} examples" if broken else ""
    if not note and not math.isfinite(found.value):
        note = "the score is no number"
    return {**_plain(found.value, found.low, found.high, seen.remains), "evaluations": seen.evaluations, "note": note}


def _plain(value: float, low: float, high: float, remains: float) -> Row:
    numbers = {"score": value, "score_low": low, "score_high": high, "remains": remains}
    return {name: finite(float(number)) for name, number in numbers.items()}


def _facts(draft: Draft) -> dict[str, Row]:
    """What is known of every layer; MACs are of one example of the longest length that will be met."""
    import torch

    shape = (1, draft.sequence)
    ones = {name: (torch.zeros if "type" in name else torch.ones)(shape, dtype=torch.long) for name in draft.inputs}
    return {
        one.name: {"layer": one.name, "index": i, "kind": one.kind, "parameters": one.parameters, "macs": one.macs}
        for i, one in enumerate(describe_layers(draft.module, ones))
    }


def _place(row: Row, given: Order) -> tuple[Any, ...]:
    return (row["layer"], *(row.get(name) for name, _ in given.knobs))


def _data(task: Task, given: Order) -> tuple[list[Example], np.ndarray | None]:
    examples = task.encoded(given.split, given.samples)
    if not examples:
        raise DataError(f"This task has no {given.split} examples.", do="scan on the other split (split=)")
    try:
        return examples, task.targets(given.split, given.samples)
    except DataError:
        if given.probe.needs_labels:
            raise
        return examples, None


class _Kept:
    """Rows in a file of JSON lines; a line that was cut off by a kill is not read."""

    def __init__(self, path: Path) -> None:
        self._path, self._there = path, set[str]()

    def read(self) -> list[Row]:
        found = []
        with contextlib.suppress(FileNotFoundError):
            for line in self._path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    found.append(json.loads(line))
                    self._there.add(_line(found[-1]))
        return found

    def add(self, row: Row) -> None:
        if _line(row) in self._there:
            return
        self._there.add(_line(row))
        # A cache that cannot be written costs time, never a result.
        with contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            # A new line first: the last one may have been cut off.
            file.write(f"\n{_line(row)}\n")


def _line(row: Row) -> str:
    return json.dumps(row, sort_keys=True, default=float)
