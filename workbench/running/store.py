"""The store: one Optuna study holds everything that a study of ours knows.

Trials carry recipe, measurement, error and stage as JSON attributes; the task, the sweep and its notes are attributes
of the study. So `optuna-dashboard` can open it, several people can watch it, and nothing is pickled. What is left
out: Optuna's own parameters (recipes are richer) and its heartbeat (that works with `optimize` alone).

A claim is Optuna's atomic WAITING -> RUNNING. A finished trial never changes; what is learned later about it (its
measurement on the report split) is an attribute of the study.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from workbench.errors import ResourceError, StoreError
from workbench.measure.measurement import Measurement
from workbench.recipe import Recipe
from workbench.running.owner import Owner
from workbench.trial import State, Trial

#: Rises when an older workbench can no longer read what this one writes.
FORMAT = 1

#: A claim this young may not have its owner's name yet.
CLAIM_SECONDS = 3.0

_NAME = "workbench"


class Store:
    """The trials and the steering of one study. Safe to open from several processes at once."""

    def __init__(self, folder: Path, url: str | None = None, *, create: bool = True) -> None:
        """Open the store of `folder`, or make it; `url` is any Optuna storage URL (SQLite in the folder by default).

        Raises `StoreError` for one that is locked, read-only, from a newer version, corrupt, or missing.
        """
        self.folder = folder
        self.path = folder / "study.db"
        self.url = url or f"sqlite:///{self.path}"
        local = url is None
        if local and not create and not self.path.exists():
            raise StoreError(
                f"There is no study in {folder}.",
                allowed="a folder in which a sweep was started",
                do="check the path with `workbench runs list`",
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _from_os(error, folder) from error
        if local and self.path.exists():
            _check_sqlite(self.path)
        self._guard = FileLock(str(folder / "store.lock"))
        self._read: dict[tuple[int, bool], Trial] = {}
        with self._translated():
            self._open(create)

    def _open(self, create: bool) -> None:
        import optuna
        from optuna.study import StudyDirection

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        sqlite = self.url.startswith("sqlite")
        options = {"connect_args": {"timeout": 30}} if sqlite else {}
        self._storage: Any = optuna.storages.get_storage(optuna.storages.RDBStorage(self.url, engine_kwargs=options))
        directions = [StudyDirection.MINIMIZE, StudyDirection.MINIMIZE]
        try:
            self._study: int = self._storage.get_study_id_from_name(_name(self.folder, self.url))
        except KeyError:
            if not create:
                raise StoreError(f"{self.url} holds no study called {_name(self.folder, self.url)}.") from None
            self._study = self._storage.create_new_study(directions, _name(self.folder, self.url))
            self._storage.set_study_user_attr(self._study, "format", FORMAT)
            self._storage.set_study_system_attr(self._study, "study:metric_names", ["drop", "latency ratio"])
        found = self._storage.get_study_user_attrs(self._study).get("format", FORMAT)
        if found > FORMAT:
            raise StoreError(
                f"The study in {self.folder} was written by a newer workbench (format {found} > {FORMAT}).",
                do="upgrade: pip install --upgrade compression-workbench; nothing was changed",
            )

    # --- attributes of the study ------------------------------------------------------------------------------

    def attributes(self) -> dict[str, Any]:
        """Everything that is kept about the study as a whole."""
        with self._translated():
            return dict(self._storage.get_study_user_attrs(self._study))

    def get(self, key: str, default: Any = None) -> Any:
        """One attribute of the study."""
        return self.attributes().get(key, default)

    def set(self, key: str, value: Any) -> None:
        """Keep one attribute of the study, plain data."""
        with self._translated():
            self._storage.set_study_user_attr(self._study, key, value)

    # --- trials -----------------------------------------------------------------------------------------------

    def trials(self) -> list[Trial]:
        """Every trial in order of its number, as it stands."""
        reports = {k: v for k, v in self.attributes().items() if k.startswith("report:")}
        found = []
        for row in self._rows():
            # A finished trial never changes, and reading its outcomes again at every look would cost a poll dearly.
            key = (row.number, f"report:{row.number}" in reports)
            trial = self._read.get(key) or _trial(row, reports)
            if trial.finished:
                self._read[key] = trial
            found.append(trial)
        return found

    def find(self, recipe: Recipe) -> Trial | None:
        """The trial of this recipe, if there is one."""
        return next((t for t in self.trials() if t.recipe.id == recipe.id), None)

    def add(self, recipe: Recipe, **meta: Any) -> Trial:
        """The trial of `recipe`, made waiting where there was none: a recipe is never run twice.

        Two processes that add the same recipe at once get the same trial: on one machine by a file lock, over a
        network because the lowest number wins and the other is withdrawn.
        """
        from optuna.trial import TrialState, create_trial

        with self._translated(), self._guard:
            existing = self.find(recipe)
            if existing:
                return existing
            attributes = {"recipe": recipe.to_json(), "recipe_id": recipe.id, "title": recipe.title, "meta": meta}
            template = create_trial(state=TrialState.WAITING, user_attrs=attributes)
            mine = self._storage.create_new_trial(self._study, template)
            first = self.find(recipe)
            if first and self._id(first.number) != mine:
                self._storage.set_trial_user_attr(mine, "withdrawn", True)
                self._storage.set_trial_state_values(mine, TrialState.FAIL)
                return first
        found = self.find(recipe)
        if found is None:
            raise StoreError(f"The trial just added to {self.url} is not there.", do="check the storage's health")
        return found

    def claim(self, number: int, owner: Owner) -> bool:
        """Whether this process now runs trial `number`; False where another one was quicker."""
        from optuna.trial import TrialState

        with self._translated():
            trial = self._id(number)
            try:
                won = self._storage.set_trial_state_values(trial, TrialState.RUNNING)
            except Exception as error:
                if type(error).__name__ != "UpdateFinishedTrialError":
                    raise
                return False
            if won:
                row = {"owner": owner.to_json(), "claimed": time.time(), "stopped": False}
                for key, value in row.items():
                    self._storage.set_trial_user_attr(trial, key, value)
            return bool(won)

    def release(self, number: int, *, stopped: bool = False) -> None:
        """Put a running trial back to waiting: its process died without its fault, or it was stopped by a person."""
        from optuna.trial import TrialState

        with self._translated():
            trial = self._id(number)
            for key, value in {"stage": "", "progress": 0.0, "stopped": stopped}.items():
                self._storage.set_trial_user_attr(trial, key, value)
            self._storage.set_trial_state_values(trial, TrialState.WAITING)

    def progress(self, number: int, stage: str, share: float) -> None:
        """Keep where a running trial is: its stage and the share of the whole that is done."""
        with self._translated():
            trial = self._id(number)
            self._storage.set_trial_user_attr(trial, "stage", stage)
            self._storage.set_trial_user_attr(trial, "progress", round(share, 4))

    def complete(self, number: int, measurement: Measurement, seconds: float) -> None:
        """Finish a trial with its measurement."""
        # The measurement first: a process killed between the two writes has lost nothing, see `recover`.
        with self._translated():
            trial = self._id(number)
            self._storage.set_trial_user_attr(trial, "seconds", seconds)
            self._storage.set_trial_user_attr(trial, "measurement", measurement.to_json())
            self._finish(trial, measurement)

    def fail(self, number: int, error: str, details: str = "", *, seconds: float = 0.0) -> None:
        """Finish a trial with the reason why it has no measurement."""
        from optuna.trial import TrialState

        with self._translated():
            trial = self._id(number)
            row = {"error": error, "details": details[-20_000:], "seconds": seconds}
            for key, value in row.items():
                self._storage.set_trial_user_attr(trial, key, value)
            self._storage.set_trial_state_values(trial, TrialState.FAIL)

    def again(self, number: int) -> Trial:
        """A fresh waiting trial of a failed one's recipe; the old one stays in the store, but is no longer listed."""
        from optuna.trial import TrialState, create_trial

        with self._translated(), self._guard:
            old = next(t for t in self.trials() if t.number == number)
            self.set(f"replaced:{number}", True)
            attributes = {"recipe": old.recipe.to_json(), "recipe_id": old.recipe.id, "title": old.recipe.title}
            attributes["meta"] = {**old.meta, "again": number}
            template = create_trial(state=TrialState.WAITING, user_attrs=attributes)
            self._storage.create_new_trial(self._study, template)
        return self.trials()[-1]

    def adopt(self, trial: Trial, meta: dict[str, Any]) -> Trial:
        """A finished trial of another study as a new one here, in one write; nothing runs it, and nothing resets it."""
        from optuna.trial import TrialState, create_trial

        measured = trial.measurement
        if measured is None:
            raise StoreError(f"Trial {trial.number} has no measurement to take over.", do="choose a complete trial")
        attributes = {"recipe": trial.recipe.to_json(), "recipe_id": trial.recipe.id, "title": trial.recipe.title}
        row = {"seconds": trial.seconds, "measurement": measured.to_json(), "meta": meta}
        with self._translated(), self._guard:
            template = create_trial(
                state=TrialState.COMPLETE, values=_objectives(measured), user_attrs={**attributes, **row}
            )
            self._storage.create_new_trial(self._study, template)
            made = self.trials()[-1]
            if trial.report is not None:
                self.set(f"report:{made.number}", trial.report.to_json())
        return self.trials()[-1]

    def recover(self) -> list[int]:
        """Take care of trials whose process is gone: finish those already measured, put the rest back to waiting.

        Returns the numbers of all that were found.
        """
        found = []
        for row in self._rows():
            if row.state.name != "RUNNING":
                continue
            # Between a claim and its owner's name lies a moment, in which an earlier owner's name may stand there.
            claimed = row.datetime_start.timestamp() if row.datetime_start else 0.0
            if time.time() - claimed < CLAIM_SECONDS or self._owned(row.user_attrs.get("owner")):
                continue
            found.append(row.number)
            with self._translated():
                if "measurement" in row.user_attrs:
                    self._finish(row._trial_id, Measurement.from_json(row.user_attrs["measurement"]))
                else:
                    self.release(row.number)
        return found

    def _owned(self, owner: dict[str, Any] | None) -> bool:
        return owner is not None and Owner.from_json(owner).alive(self.get(f"heartbeat:{owner['id']}"))

    # --- plumbing ---------------------------------------------------------------------------------------------

    def _finish(self, trial: int, measurement: Measurement) -> None:
        from optuna.trial import TrialState

        self._storage.set_trial_state_values(trial, TrialState.COMPLETE, _objectives(measurement))

    def _rows(self) -> list[Any]:
        with self._translated():
            rows = self._storage.get_all_trials(self._study, deepcopy=False)
            gone = {int(key.split(":")[1]) for key in self.attributes() if key.startswith("replaced:")}
        return [
            row
            for row in sorted(rows, key=lambda r: r.number)
            if "recipe" in row.user_attrs and "withdrawn" not in row.user_attrs and row.number not in gone
        ]

    def _id(self, number: int) -> int:
        return int(self._storage.get_trial_id_from_study_id_trial_number(self._study, number))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Errors of the database, in words that say what to do."""
        try:
            yield
        except StoreError:
            raise
        except OSError as error:
            raise _from_os(error, self.folder) from error
        except Exception as error:
            translated = _from_database(error, self.url)
            if translated is None:
                raise
            raise translated from error


def retried(action: Callable[[], Any], *, tries: int = 5, wait: float = 0.5) -> Any:
    """`action()`, tried again while another process holds the store; the last `StoreError` is raised."""
    for attempt in range(tries):
        try:
            return action()
        except StoreError as error:
            if "locked" not in error.what or attempt == tries - 1:
                raise
            time.sleep(wait * (attempt + 1))
    return None


def _name(folder: Path, url: str) -> str:
    # In a shared database the folder's name tells studies apart; in its own file there is only one.
    return _NAME if url == f"sqlite:///{folder / 'study.db'}" else f"{_NAME}/{folder.name}"


def _objectives(measurement: Measurement) -> list[float]:
    """Optuna's two values of a trial: the drop and the latency ratio."""
    drop = measurement.drop.value if measurement.drop else 0.0
    return [drop, 1 / measurement.speedup.value if measurement.speedup else 1.0]


def _trial(row: Any, reports: dict[str, Any]) -> Trial:
    attributes = row.user_attrs
    states: dict[str, State] = {"WAITING": "waiting", "RUNNING": "running", "COMPLETE": "complete"}
    state = states.get(row.state.name, "failed")
    if state == "waiting" and attributes.get("stopped"):
        state = "stopped"
    measurement = attributes.get("measurement")
    report = reports.get(f"report:{row.number}")
    seconds = attributes.get("seconds", 0.0)
    if state == "running":
        seconds = time.time() - attributes.get("claimed", time.time())
    return Trial(
        number=row.number,
        recipe=Recipe.from_json(attributes["recipe"]),
        state=state,
        measurement=Measurement.from_json(measurement) if measurement else None,
        report=Measurement.from_json(report) if report else None,
        error=attributes.get("error", ""),
        details=attributes.get("details", ""),
        seconds=seconds,
        stage=attributes.get("stage", ""),
        progress=attributes.get("progress", 0.0),
        meta=attributes.get("meta", {}),
        filed_under=attributes.get("recipe_id", ""),
    )


def _check_sqlite(path: Path) -> None:
    """Raise `StoreError` for a file that is no healthy SQLite database; a corrupt one is kept aside first."""
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30) as connection:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        problem = None if verdict == "ok" else str(verdict)
    except sqlite3.DatabaseError as error:
        if "locked" in str(error) or "unable to open" in str(error):
            translated = _from_database(error, str(path))
            if translated:
                raise translated from error
        problem = str(error)
    if problem is None:
        return
    aside = path.with_name(f"{path.name}.corrupt-{time.strftime('%Y%m%d-%H%M%S')}")
    path.rename(aside)
    raise StoreError(
        f"The study's store {path} is corrupt ({problem}). It was kept aside as {aside.name}, untouched.",
        do="run the same command again to start afresh, or recover it with `sqlite3 FILE .recover` and put it back",
    )


def _from_database(error: Exception, url: str) -> StoreError | None:
    text = f"{error} {error.__cause__ or ''}".lower()
    known = (
        ("locked", "is locked by another process", "close what holds it open (another sweep, a database browser)"),
        ("readonly", "is read-only", "give this user the right to write there, or name another --study folder"),
        ("unable to open", "cannot be opened", "check that its folder exists and that this user may write there"),
        ("malformed", "is corrupt", "recover it with `sqlite3 FILE .recover`; it was not changed"),
        ("not a database", "is no database", "name another --study folder; the file was not changed"),
        ("disk is full", "cannot grow: the disk is full", "free some space and resume; nothing finished was lost"),
        ("no longer compatible", "was written by another version of Optuna", "upgrade optuna; nothing was changed"),
    )
    for sign, what, do in known:
        if sign in text:
            return StoreError(f"The study's store {url} {what}.", do=do)
    return None


def _from_os(error: OSError, folder: Path) -> ResourceError:
    import errno

    if error.errno == errno.ENOSPC:
        return ResourceError(f"The disk that holds {folder} is full.", do="free some space, or name another folder")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ResourceError(f"No permission to write to {folder}.", do="name a folder that this user may write to")
    return ResourceError(f"{folder} cannot be used: {error.strerror or error}.", do="name another folder")
