"""Several studies side by side: rename, copy, delete, compare, and take a trial over from another one.

Nothing here touches a study whose sweep is running: its runner writes by the folder's name. Left out: studies in a
shared database, which are known there by their folder's name; they can be compared, but not renamed or copied.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import DataError, Refused, ResourceError, StoreError, UserError
from workbench.measure.estimate import Estimate
from workbench.measure.machine import Machine
from workbench.paths import is_inside
from workbench.running.store import Store
from workbench.study import Study, studies
from workbench.trial import Trial

if TYPE_CHECKING:
    import pandas as pd

#: What a copy of a study leaves behind: who runs it and what was ordered belong to the original.
_OF_THE_MOMENT = ("runner:", "heartbeat:", "queue:")


@dataclass(frozen=True)
class StudyRow:
    """A study on disk as a list shows it; `problem` says why it cannot be read, `best` is the best trial's title."""

    folder: Path
    state: str = ""
    trials: int = 0
    failed: int = 0
    best: str = ""
    model: str = ""
    size_mb: float = 0.0
    changed: float = 0.0
    problem: str = ""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def running(self) -> bool:
        """Whether a sweep works on it now."""
        return self.state in ("running", "stopping")


def list_studies(root: str | Path = "runs") -> list[StudyRow]:
    """The studies below `root`, the newest first; one that cannot be read is listed with its problem."""
    base = Path(root).expanduser()
    return [_row(folder) for folder in studies(base) if folder != base and is_inside(folder, base)]


def _row(folder: Path) -> StudyRow:
    about: dict[str, Any] = {"size_mb": round(_bytes(folder) / 1e6, 1), "changed": _changed(folder)}
    try:
        study = Study(folder)
        status, trials = study.status(), study.trials
        best = next((trial for trial in trials if trial.number == status.best), None)
        task = study.task.to_json()
        return StudyRow(
            folder,
            status.state,
            len(trials),
            sum(trial.state == "failed" for trial in trials),
            best.recipe.title if best and best.number else "",
            str(task.get("model") or task.get("name") or ""),
            **about,
        )
    except UserError as error:
        return StudyRow(folder, problem=error.what, **about)


# --- one study -------------------------------------------------------------------------------------------------------


def rename_study(folder: str | Path, name: str) -> Path:
    """Give the study another name in the same folder of studies; returns its new folder.

    Raises `UserError` for a name that is taken or no name, and for a study that is running.
    """
    here = _resting(folder, "renamed")
    target = _free(here.parent, name)
    _own_store(here, "renamed")
    try:
        here.rename(target)
    except OSError as error:
        raise _disk(error, here) from error
    return target


def duplicate_study(folder: str | Path, name: str = "") -> Path:
    """Copy the study, trials and models, beside the original; without a `name` it is called `…-copy`.

    Raises `UserError` for a name that is taken or no name, and for a study that is running.
    """
    here = _resting(folder, "copied")
    _own_store(here, "copied")
    target = _free(here.parent, name or _copy_name(here))
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        _copy_database(here / "study.db", partial / "study.db")
        if (here / "artifacts").is_dir():
            shutil.copytree(here / "artifacts", partial / "artifacts", copy_function=_link)
        partial.rename(target)
    except (OSError, sqlite3.Error, shutil.Error) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise _disk(error, target) from error
    _disown(Store(target, create=False), here.name)
    return target


def _copy_database(source: Path, target: Path) -> None:
    """By SQLite's own backup: a file that another process has open is copied whole."""
    with (
        contextlib.closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as original,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        original.backup(copy)


def _disown(store: Store, original: str) -> None:
    """Forget who runs the original and what was ordered of it."""
    for key in [key for key in store.attributes() if key.startswith(_OF_THE_MOMENT)]:
        store.set(key, None)
    for key, value in {"created": time.time(), "copy_of": original}.items():
        store.set(key, value)


def delete_study(folder: str | Path) -> None:
    """Remove the study with everything in it; raises `UserError` for one that is running: nothing is stopped here."""
    here = _resting(folder, "deleted", readable=False)
    try:
        shutil.rmtree(here)
    except OSError as error:
        raise _disk(error, here) from error


def _resting(folder: str | Path, what: str, *, readable: bool = True) -> Path:
    """The study's folder; raises unless it holds a study on which no sweep works."""
    here = Path(folder).expanduser().absolute()
    if not any((here / mark).is_file() for mark in ("study.db", "store.url")):
        raise StoreError(f"{here} is no study.", do="name a folder that `workbench runs list` shows")
    try:
        state = Study(here).status().state
    except UserError:
        if readable:
            raise
        # What cannot be read has no runner that could write to it; it may be thrown away.
        return here
    if state in ("running", "stopping"):
        raise UserError(
            f"The study {here.name} is {state}: it cannot be {what} now.",
            allowed="a study on which no sweep works",
            do="stop it first, or wait for its end",
        )
    return here


def _free(parent: Path, name: str) -> Path:
    """The folder for a new name; raises where it is no plain name or is taken."""
    target = parent / plain_name(name)
    if target.exists():
        raise UserError(f"There is something called {name!r} in {parent} already.", do="choose another name")
    return target


def plain_name(name: str) -> str:
    """`name`, or `UserError` where it is no plain folder name (it may come from a browser)."""
    if not re.fullmatch(r"\w[\w.-]{0,99}", name):
        raise UserError(
            f"{name!r} is no name for a study.", allowed="letters, digits, '-', '_' and '.'", do="choose another name"
        )
    return name


def _copy_name(here: Path) -> str:
    names = [f"{here.name}-copy", *(f"{here.name}-copy-{i}" for i in range(2, 1000))]
    return next(name for name in names if not (here.parent / name).exists())


def _own_store(here: Path, what: str) -> None:
    if (here / "store.url").is_file():
        raise Refused(
            f"The study {here.name} lies in a shared database, which knows it by its name: it cannot be {what}.",
            allowed="studies with a study.db of their own",
            do="start a new study folder, and take trials over from this one",
        )


def _link(source: str, target: str) -> str:
    """A second name for an artifact's file, which never changes; a copy where the disk knows no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def _disk(error: Exception, where: Path) -> ResourceError:
    return ResourceError(
        f"{where} could not be written or removed: {getattr(error, 'strerror', None) or error}.",
        do="check the permissions and the free space of that disk",
    )


def _bytes(folder: Path) -> int:
    found = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                found += (Path(place) / name).stat().st_size
    return found


def _changed(folder: Path) -> float:
    marks = [folder / "study.db", folder / "store.url", folder]
    return next(mark.stat().st_mtime for mark in marks if mark.exists())


# --- two studies -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """Two studies, recipe by recipe. `frame`: one row per recipe that either has measured, with number, score and
    speed-up in both (`number_1`, `accuracy_1`, `accuracy_1_low` …), the paired `drop` from the first to the second
    where both answered the same examples, and a `verdict` on the speed; `notes`: why the numbers are no equals."""

    first: str
    second: str
    frame: pd.DataFrame
    notes: list[str] = field(default_factory=list)


def compare_studies(first: str | Path, second: str | Path) -> Comparison:
    """Two studies, recipe by recipe; raises `StoreError` for what is no study."""
    import pandas as pd

    one, two = Study(first), Study(second)
    sides = [{t.recipe.id: t for t in study.trials if t.measurement is not None} for study in (one, two)]
    order = dict.fromkeys([*sides[0], *sides[1]])
    rows = [_side_by_side(sides[0].get(key), sides[1].get(key)) for key in order]
    return Comparison(one.name, two.name, pd.DataFrame(rows, columns=_COLUMNS), _differences(one, two))


_ENDS = ("", "_low", "_high")
_COLUMNS = [
    *("title", "metric", "number_1", "number_2"),
    *(f"{what}_{side}{end}" for what in ("accuracy", "speedup") for side in (1, 2) for end in _ENDS),
    *("drop", "drop_low", "drop_high", "verdict"),
]


def _side_by_side(one: Trial | None, two: Trial | None) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for side, trial in ((1, one), (2, two)):
        if trial is None or trial.measurement is None:
            continue
        row |= {"title": trial.recipe.title, "metric": trial.measurement.metric, f"number_{side}": trial.number}
        row |= _ends(f"accuracy_{side}", trial.measurement.accuracy) | _ends(f"speedup_{side}", _speedup(trial))
    if one is None or two is None:
        return {**row, "verdict": f"in the {'second' if one is None else 'first'} only"}
    return {**row, **_ends("drop", _drop(one, two)), "verdict": _verdict(_speedup(one), _speedup(two))}


def _speedup(trial: Trial) -> Estimate | None:
    """Of the uncompressed model it is one by definition; what was measured of it is the noise."""
    return None if trial.number == 0 or trial.measurement is None else trial.measurement.speedup


def _ends(name: str, found: Estimate | None) -> dict[str, float | None]:
    values = (found.value, found.low, found.high) if found else (None, None, None)
    return {f"{name}{end}": value for end, value in zip(_ENDS, values, strict=True)}


def _drop(one: Trial, two: Trial) -> Estimate | None:
    """What the second lost against the first on the same examples; None where they are not the same."""
    first, second = one.measurement, two.measurement
    if first is None or second is None or first.metric != second.metric:
        return None
    try:
        return second.against(first).drop
    except DataError:
        return None


def _verdict(one: Estimate | None, two: Estimate | None) -> str:
    """Whether the second study's speed-up differs: only intervals that do not meet tell."""
    if one is None or two is None:
        return ""
    if two.low > one.high:
        return "faster in the second"
    return "slower in the second" if two.high < one.low else "no difference"


def _differences(one: Study, two: Study) -> list[str]:
    """What differs around the numbers, a plain sentence each."""
    found = []
    tasks = [_task_of(study) for study in (one, two)]
    for name in sorted({*tasks[0], *tasks[1]}):
        first, second = tasks[0].get(name), tasks[1].get(name)
        if first != second:
            found.append(f"{name}: {first} in {one.name}, {second} in {two.name}")
    machines = [_machine(study) for study in (one, two)]
    if machines[0] and machines[1]:
        if machines[0].fingerprint() != machines[1].fingerprint():
            found.append("They were measured on different machines: speed-ups may differ for that reason alone.")
        said = machines[0].differences(machines[1])
        found += [line.replace(" here, ", f" in {one.name}, ").replace(" there", f" in {two.name}") for line in said]
    return found


def _task_of(study: Study) -> dict[str, Any]:
    """Model, data and settings, without where they were found on this machine; empty settings left out."""
    return {key: value for key, value in study.task.to_json().items() if key != "found" and value not in (None, [], "")}


def _machine(study: Study) -> Machine | None:
    """The machine of the first measurement."""
    measured = next((t.measurement for t in study.trials if t.measurement is not None), None)
    return Machine.from_json(measured.machine) if measured and measured.machine else None


def import_trial(study: str | Path, source: str | Path, number: int, *, other_machine: bool = False) -> Trial:
    """Take trial `number` of the study `source` over into `study`, with its model; returns the new trial.

    Raises `UserError` where it has no measurement, stands there already or is of another model or other data, and, as
    measurements of different machines never share a front unasked, of another machine unless `other_machine`.
    """
    into, origin = Study(_resting(study, "added to")), Study(source)
    _own_store(into.folder, "added to")
    trial = next((t for t in origin.trials if t.number == number), None)
    if trial is None or trial.measurement is None:
        raise UserError(f"{origin.name} has no measured trial {number}.", do="choose a complete trial")
    measured = trial.measurement
    _check_same(into, origin)
    if into.baseline is None or into.baseline.measurement is None:
        raise UserError(f"{into.name} has no measured baseline yet.", do="run a sweep in it first")
    mine = Machine.from_json(into.baseline.measurement.machine)
    if mine.fingerprint() != Machine.from_json(measured.machine).fingerprint() and not other_machine:
        raise Refused(
            f"Trial {number} of {origin.name} was measured on another machine ({measured.machine['cpu']}).",
            allowed=f"trials measured on the machine of {into.name} ({mine.cpu})",
            do="run its recipe here, or ask for it with other_machine=True",
        )
    if known := next((t for t in into.trials if t.recipe.id == trial.recipe.id), None):
        raise UserError(f"{into.name} holds this recipe already, as trial {known.number}.")
    folder = origin.folder / "artifacts" / trial.folder
    target = into.folder / "artifacts" / trial.recipe.id
    if folder.is_dir() and not target.exists():
        shutil.copytree(folder, target, copy_function=_link)
    taken = {"study": origin.name, "number": number, "at": round(time.time())}
    return Store(into.folder, create=False).adopt(trial, {"imported": taken})


def _check_same(into: Study, origin: Study) -> None:
    """Raise `Refused` unless both are of the same model, data and metric."""
    prints = [study.prepared.get("fingerprint") for study in (into, origin)]
    same = prints[0] == prints[1] if all(prints) else _task_of(into) == _task_of(origin)
    if not same:
        raise Refused(
            f"{origin.name} is of another task than {into.name}.",
            allowed="trials of the same model, data, metric and length",
            do="compare the two studies instead",
        )
