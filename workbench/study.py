"""The study: a task, a store and its trials. The one object that most people touch.

It reads the store and steers the runner, and never compresses, evaluates or times anything itself. Closing the
notebook changes nothing; `Study(folder)` shows the study as it stands.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.compress import Artifact
from workbench.errors import StoreError, TrialError, UserError, WorkbenchError
from workbench.quick import TIMING_SECONDS, at_most
from workbench.recipe import Recipe, Space, plugin
from workbench.running.ordering import Ordering
from workbench.running.owner import Owner
from workbench.running.questions import seconds_asked
from workbench.running.scans import Scans
from workbench.running.status import Status, state_of
from workbench.running.store import Store
from workbench.running.sweep import Sweep
from workbench.table import row_of
from workbench.tasks.base import Task, make_task, task_from_json
from workbench.trial import Trial, no_model
from workbench.tuning.choosing import best, nearest
from workbench.tuning.effort import as_space
from workbench.tuning.front import Step, front, history, holds
from workbench.tuning.goal import Goal, affordable

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Status", "Study", "make_task", "studies"]

#: How long `stop` waits for the runner to end the running trial, in seconds.
STOP_SECONDS = 10.0


def _same(task: Task, known: dict[str, Any]) -> bool:
    """Whether `task` is the stored one. What one of them names and the other guessed makes no difference."""
    if task.to_json() == known:
        return True
    if known["name"] != task.name:
        return False
    try:
        return task.fingerprint() == task_from_json(known).fingerprint()
    except WorkbenchError:
        return False


class Study(Ordering, Scans):
    """`Study("runs/demo", make_task("demo"))` opens or creates; `Study("runs/demo")` opens.

    Raises `StoreError` for a store that cannot be used, and `UserError` where `task` is another one than the study's.
    """

    def __init__(self, folder: str | Path, task: Task | None = None, *, store: str | None = None) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self._url = store or _remembered_url(self.folder)
        self._store = Store(self.folder, self._url, create=task is not None)
        if store:
            (self.folder / "store.url").write_text(store, encoding="utf-8")
        known = self._store.get("task")
        if known is None and task is None:
            raise StoreError(f"The study in {self.folder} has no task.", do="open it with a task: Study(folder, task)")
        if known is None and task is not None:
            self._store.set("task", task.to_json())
            self._store.set("created", time.time())
        elif task is not None and known is not None and not _same(task, known):
            raise UserError(
                f"The study in {self.folder} is of another task.",
                allowed=f"its own: {_short(known)}",
                do="name another study folder for this model and these data",
            )
        self._task = task

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def task(self) -> Task:
        """Model, data and metric."""
        if self._task is None:
            self._task = task_from_json(self._store.get("task"))
        return self._task

    @property
    def trials(self) -> list[Trial]:
        """Every trial in order of its number, as it stands now."""
        return self._store.trials()

    @property
    def baseline(self) -> Trial | None:
        """Trial 0, the uncompressed model; None before it was started."""
        return next(iter(self.trials), None)

    @property
    def goal(self) -> Goal | None:
        """The goal of the latest sweep."""
        return Goal(**known["goal"]) if (known := self._store.get("sweep")) else None

    @property
    def prepared(self) -> dict[str, Any]:
        """Sizes, labels, metric and description of the task, once a runner has prepared it; empty before."""
        return self._store.get("prepared") or {}

    @property
    def notes(self) -> list[str]:
        """What a reader of the numbers should know, such as that selection and report used the same examples."""
        first, goal = self.baseline, self.goal
        caution = goal.caution(first.measurement.accuracy.value) if goal and first and first.measurement else ""
        return [*self.prepared.get("describe", {}).get("notes", []), *filter(None, [caution])]

    def refused(self) -> list[dict[str, Any]]:
        """Recipes that were refused before any work: `recipe`, `title`, `reason`."""
        return [v for k, v in self._store.attributes().items() if k.startswith("refused:") and v]

    # --- seeing -----------------------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        """One plain row per trial, as `workbench front --all --json` prints it."""
        trials, goal = self.trials, self.goal or Goal()
        kept, first = holds(trials, goal), trials[0].measurement if trials else None
        sure = [goal.sure(t.measurement, first.accuracy.value) if t.measurement and first else None for t in trials]
        return [
            {**row_of(t, self.code(t), kept.get(t.number)), "goal": s and s.word, "goal_text": s and s.text}
            for t, s in zip(trials, sure, strict=True)
        ]

    def frame(self) -> pd.DataFrame:
        """One row per trial; estimates are split into `name`, `name_low`, `name_high`."""
        from workbench.table import frame_of

        return frame_of(self.rows())

    def front(self) -> list[int]:
        """Numbers of the trials that nothing beats in both accuracy and speed (or what the goal minimises), smallest
        drop first."""
        return front(self.trials, self.goal or Goal())

    def history(self, goal: Goal | None = None) -> list[Step]:
        """The hypervolume of the front after every trial."""
        return history(self.trials, goal or self.goal or Goal())

    def best(self, goal: Goal | None = None) -> Trial:
        """The trial that meets the goal and minimises what it says; the baseline where nothing else does.

        Raises `TrialError` before the baseline has been measured.
        """
        found = best(self.trials, goal or self.goal or Goal())
        if found is None:
            raise TrialError("Nothing has been measured yet.", do="run a sweep first: study.tune(space)")
        return found

    def nearest(self, goal: Goal | None = None, count: int = 3) -> list[tuple[Trial, float]]:
        """Trials that miss the goal by least, with the points of the metric that each misses."""
        return nearest(self.trials, goal or self.goal or Goal(), count)

    def code(self, trial: Trial) -> str:
        """The line of Python that runs this trial's recipe in this study."""
        return f"Study({str(self.folder)!r}).run({trial.recipe!r})"

    def to_json(self) -> dict[str, Any]:
        """The object that `workbench sweep --json` and `workbench front --all --json` print."""
        trials = self.trials
        base = trials[0] if trials else None
        return {
            "study": str(self.folder),
            "task": self._store.get("task"),
            "machine": base.measurement.machine if base and base.measurement else {},
            "baseline": base.number if base else None,
            "front": self.front(),
            "trials": self.rows(),
            "refused": self.refused(),
            "notes": self.notes,
            "sweep": self._store.get("sweep"),
        }

    # --- steering ---------------------------------------------------------------------------------------------

    def start(
        self,
        space: Space | Recipe,
        strategy: str = "frontier",
        goal: Goal | None = None,
        *,
        seed: int = 0,
        trial_seconds: float = 1800.0,
        timing_seconds: float = 6.0,
    ) -> None:
        """Have a runner search `space` (or measure one recipe) in the background; returns at once.

        Raises `UserError` where a sweep of this study is running already, or nothing of the space can be built.
        """
        if self.status().state in ("running", "stopping"):
            raise UserError("A sweep of this study is running already.", do="stop it first, or wait for its end")
        space = as_space(space)
        if next(space.recipes(), None) is None:
            raise UserError("This space holds no recipe that is free of contradiction.", do="make techniques optional")
        limits = {"trial_seconds": trial_seconds, "timing_seconds": at_most(timing_seconds, TIMING_SECONDS)}
        sweep = Sweep.new(space, plugin("strategies", strategy, seed=seed), affordable(goal or Goal()), **limits)
        self._store.set("sweep", sweep.to_json())
        self._spawn()

    def tune(self, space: Space, strategy: str = "frontier", goal: Goal | None = None, **options: Any) -> Trial:
        """`start`, then wait for the end; gives the best trial. Raises `TrialError` where the sweep failed."""
        self.start(space, strategy, goal, **options)
        self.wait()
        return self.best()

    def rerun(self, number: int, keep_add: Iterable[str] = (), keep_remove: Iterable[str] = ()) -> Trial:
        """Run trial `number` with layers added to, or taken from, those left alone; the new trial knows its parent.

        Raises what `run` raises, and `UserError` for layers that the model has not, or that were not kept.
        """
        old = self._trial(number)
        recipe = old.recipe.edited(keep_add, keep_remove, self.task.facts().layers)
        return self.run(recipe, {"origin": "edit", "parent": number})

    def resume(self) -> None:
        """Go on with the latest sweep and with scans where they stood; nothing finished is run again."""
        known = self._store.get("sweep")
        if self.status().state in ("running", "stopping"):
            return
        if not self._reopen() and not known:
            raise UserError("This study has no sweep to resume.", do="start one: study.start(space)")
        if known:
            self._store.set("sweep", {**known, "state": "running", "message": ""})
        self._spawn()

    def pause(self) -> None:
        """Let the running trial end, then the sweep; `resume` goes on. Returns at once; a no-op when idle."""
        if self._runners() and (known := self._store.get("sweep")):
            self._store.set("pause", known["id"])

    def stop(self, *, wait: bool = True) -> None:
        """End the running trial at once (it is put back, not lost) and the sweep with it; a no-op when idle."""
        owners = self._runners()
        if known := self._store.get("sweep"):
            self._store.set("stop", known["id"])
        for owner in owners:
            if owner.alive() and owner.host == Owner.me().host:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(owner.pid, signal.SIGTERM)
        end = time.time() + STOP_SECONDS
        while wait and any(owner.alive() for owner in owners) and time.time() < end:
            time.sleep(0.05)

    def status(self) -> Status:
        """What is happening now."""
        attributes = self._store.attributes()
        known, runners = attributes.get("sweep"), self._runners(attributes)
        trials = self.trials
        state, message = state_of(known, runners, attributes)
        said = [v for k, v in attributes.items() if k.startswith("runner:") and v]
        row: dict[str, Any] = said[0] if runners and said else {}
        running = next((t for t in trials if t.state == "running"), None) if runners else None
        mine = [t for t in trials if known and t.meta.get("sweep") == known["id"]]
        measured = bool(trials) and trials[0].measurement is not None
        spent = sum(t.seconds for t in mine) + (seconds_asked(attributes, known["id"]) if known else 0.0)
        return Status(
            state=state,
            message=message or row.get("message", ""),
            trial=running.number if running else None,
            title=running.recipe.title if running else "",
            stage=running.stage if running else row.get("phase", ""),
            progress=running.progress if running else row.get("progress", 0.0),
            done=sum(t.finished for t in mine),
            planned=known["goal"]["trials"] if known else None,
            seconds=time.time() - known["created"] if known and runners else spent,
            best=self.best().number if measured else None,
        )

    def wait(self, until: Callable[[], bool] | None = None, *, tick: Callable[[Status], None] | None = None) -> None:
        """Block until the runner is done (or `until` says so); `tick` is called about twice a second.

        Raises `TrialError` where the sweep failed as a whole.
        """
        while True:
            status = self.status()
            if tick:
                tick(status)
            if status.state == "failed":
                raise TrialError(f"The sweep failed: {status.message}", do=f"see the logs in {self.folder / 'logs'}")
            if (until and until()) or status.state not in ("running", "stopping"):
                return
            # A look costs some milliseconds of a core; they are kept away from what is being timed.
            time.sleep(2.0 if status.stage == "time" else 0.5)

    def export(self, number: int, folder: str | Path) -> Path:
        """Write trial `number` as a folder that runs without this package; see `workbench.export`."""
        # `export` stands a floor above; this is a convenience that most people look for here.
        return Path(importlib.import_module("workbench.export").export(self, number, folder))

    def artifact(self, number: int) -> Artifact:
        """The lowered model of trial `number`; raises `TrialError` where it has none."""
        trial = self._trial(number)
        places = [self.folder / "artifacts" / name for name in (trial.folder, trial.recipe.id)]
        folder = next((place for place in places if place.exists()), places[-1])
        if trial.measurement is None or not folder.exists():
            raise no_model(trial, folder)
        return Artifact.open(folder)

    def delete(self) -> None:
        """Stop the sweep and remove the study's folder with everything in it."""
        self.stop()
        if not (self.folder / "study.db").exists() and not (self.folder / "store.url").exists():
            raise StoreError(f"{self.folder} is no study.", do="name a folder that `workbench runs list` shows")
        shutil.rmtree(self.folder)

    # --- plumbing ---------------------------------------------------------------------------------------------

    def _trial(self, number: int) -> Trial:
        for trial in self.trials:
            if trial.number == number:
                return trial
        raise UserError(f"This study has no trial {number}.", allowed=f"0 … {len(self.trials) - 1}")

    def _runners(self, attributes: dict[str, Any] | None = None) -> list[Owner]:
        attributes = attributes if attributes is not None else self._store.attributes()
        rows = [v for k, v in attributes.items() if k.startswith("runner:") and v]
        owners = [Owner.from_json(row["owner"]) for row in rows]
        return [o for o in owners if o.alive(attributes.get(f"heartbeat:{o.id}"))]

    def _spawn(self) -> None:
        """Start a runner in a session of its own, and wait until it has said so or has died."""
        for order in ("stop", "pause"):
            self._store.set(order, None)
        before = {owner.id for owner in self._runners()}
        log = self.folder / "logs" / "runner.log"
        log.parent.mkdir(exist_ok=True)
        url = [self._url] if self._url else []
        command = [sys.executable, "-m", "workbench.running.runner", str(self.folder), *url]
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        _REAPED.append(process)
        end = time.time() + 60
        while time.time() < end and process.poll() is None:
            if {owner.id for owner in self._runners()} - before:
                return
            time.sleep(0.05)
        if process.poll():
            tail = log.read_text(encoding="utf-8", errors="replace")[-1500:]
            raise TrialError(f"The runner could not start: {tail}", do=f"see {log}")


#: Runners started from this process: polled now and then, so that an ended one does not stay as a zombie.
_REAPED: list[subprocess.Popen] = []


def studies(root: str | Path = "runs") -> Iterator[Path]:
    """Folders below `root` (and `root` itself) that hold a study, the newest first."""
    base = Path(root).expanduser()
    marks = [*base.glob("study.db"), *base.glob("*/study.db"), *base.glob("store.url"), *base.glob("*/store.url")]
    yield from sorted({m.parent for m in marks}, key=lambda f: -f.stat().st_mtime)


def _remembered_url(folder: Path) -> str | None:
    path = folder / "store.url"
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def _short(task: dict[str, Any]) -> str:
    return ", ".join(f"{k}={v}" for k, v in task.items() if k in ("name", "model", "data"))
