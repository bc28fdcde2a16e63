"""The runner: a process of its own that owns a sweep and has one trial executed at a time.

    python -m workbench.running.runner FOLDER [STORAGE_URL]

It replays the strategy from its start and answers from the store whatever is already known, so starting it again *is*
resuming. A trial's crash, hang or hunger becomes a failed trial with its reason. SIGTERM, or a stop written to the
store, ends the running trial at once and puts it back; a pause lets it end first.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.compress import check
from workbench.draft import ModelFacts
from workbench.errors import UserError, WorkbenchError
from workbench.measure.measurement import Measurement
from workbench.quick import TIMING_SECONDS, at_most
from workbench.recipe import Recipe
from workbench.running.bench import baseline_recipe
from workbench.running.budget import asked_enough, spent
from workbench.running.child import Child, Crashed
from workbench.running.failures import BaselineFailed, Described, TrialFailed, crash_reason
from workbench.running.lock import exclusive
from workbench.running.owner import Owner
from workbench.running.questions import NO_TIME, keep_answer, known_answer
from workbench.running.scans import carry_out, waiting
from workbench.running.store import CLAIM_SECONDS, Store, retried
from workbench.running.sweep import Sweep
from workbench.trial import Trial
from workbench.tuning.front import front
from workbench.tuning.goal import Goal
from workbench.tuning.questions import Question

#: Megabytes of free memory under which a trial is ended before the system ends something else.
LEAST_MEMORY_MB = 150
#: A trial's process is replaced when it has grown beyond this many megabytes over its first trial.
GROWTH_MB = 3000
_HEARTBEAT_SECONDS = 15.0
#: How often the store is asked for a stop; less often while something is timed. SIGTERM is heard at once.
_STOP_POLL_SECONDS, _STOP_POLL_TIMING = 0.5, 1.5


class Stopped(Exception):
    """A person asked for an end; the message says which ('' for a stop)."""


class OverLimit(Exception):
    """The running trial passed its limit of time or memory; the message is for a person."""


class Runner:
    """One process's work on one study."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.me = Owner.me()
        self.sweep: Sweep | None = None
        self._task: dict[str, Any] = {}
        self._facts: ModelFacts | None = None
        self._sizes: dict[str, int] = {}
        self._child: Child | None = None
        self._child_mb = 0.0
        self._terminated = False
        self._polled = self._beaten = self._began = self._granted = 0.0
        self._timing = False

    # --- the whole --------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Do all there is to do: what waits, the sweep, the report. Returns when nothing is left."""
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "_terminated", True))
        known = self.store.get("sweep")
        self.sweep = Sweep.from_json(known) if known else None
        self._task = self.store.get("task")
        state, message = "done", ""
        try:
            self._beat()
            self._take_over()
            self._prepare()
            self._scans()
            if not self._trials_wanted():
                return
            self._baseline()
            self._waiting()
            if self.sweep and self.sweep.state == "running":
                self._search(self.sweep)
            self._report()
        except Stopped as end:
            state, message = "stopped", str(end) or "stopped by request"
        except UserError as error:
            state, message = "failed", str(error)
        finally:
            self._retire()
            self._say("")
            if self.sweep and self.sweep.state == "running":
                self.store.set("sweep", self.sweep.now(state, message).to_json())  # type: ignore[arg-type]
            self.store.set(f"runner:{self.me.id}", None)

    def _take_over(self) -> None:
        """Put back what a killed runner was at, also what it had claimed a moment ago: the search has to find it
        waiting, and must not pass over it."""
        self.store.recover()
        if any(trial.state == "running" for trial in self.store.trials()):
            time.sleep(CLAIM_SECONDS)
            self.store.recover()

    def _prepare(self) -> None:
        self._say("prepare", "preparing model and data")
        answer = self._ask({"do": "prepare", "task": self._task}, "prepare")
        facts = answer["facts"]
        self._facts = ModelFacts(**{**facts, "layers": tuple(facts["layers"])})
        self._sizes = answer["sizes"]
        self.store.set(
            "prepared", {key: answer[key] for key in ("sizes", "describe", "labels", "metric", "fingerprint")}
        )

    def _baseline(self) -> None:
        assert self._facts is not None  # set by _prepare
        backend = self.sweep.open_space().workload() if self.sweep else None
        trials = self.store.trials()
        recipe = trials[0].recipe if trials else baseline_recipe(self._facts, backend)
        answer = self._answer(recipe, {"origin": "baseline"})
        while answer is None:
            # Another runner measures it now.
            self._watch()
            time.sleep(0.5)
            self.store.recover()
            answer = self._answer(recipe, {"origin": "baseline"})
        if answer.measurement is None:
            raise BaselineFailed(answer.error)

    def _waiting(self) -> None:
        """Scans and recipes that somebody queued, and trials that were put back."""
        self._scans()
        for key, value in self.store.attributes().items():
            if key.startswith("queue:") and value:
                self._answer(Recipe.from_json(value["recipe"]), {"origin": "run", **value.get("meta", {})})
                self.store.set(key, None)
        for trial in self.store.trials():
            if trial.state in ("waiting", "stopped"):
                self._answer(trial.recipe, trial.meta)

    def _scans(self) -> None:
        """Scans that somebody ordered. What is looked at is not timed, but would disturb what is."""
        for key in waiting(self.store):
            with exclusive(self._watch):
                self._say("scan", "reading the model")
                request = self._order(None, "select", None)
                carry_out(self.store, key, request, self._stream, self._say_scan)

    def _say_scan(self, words: str, share: float) -> None:
        self._say("scan", words, None, share)

    def _stream(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The events of a request without a limit of time; a child that dies is replaced at the next one."""
        self._began, self._timing = 0.0, False
        try:
            yield from self._ready_child().request(request, self._watch)
        except (Crashed, OverLimit):
            self._retire()
            raise

    def _trials_wanted(self) -> bool:
        """Whether there is anything to do but scans: a sweep, a queued recipe, a trial that was begun."""
        queued = any(key.startswith("queue:") and value for key, value in self.store.attributes().items())
        began = any(not trial.finished for trial in self.store.trials())
        return queued or began or bool(self.sweep and self.sweep.state == "running")

    def _search(self, sweep: Sweep) -> None:
        goal = sweep.open_goal()
        search = sweep.open_strategy().search(sweep.open_space(), goal)
        meta = {"origin": "sweep", "sweep": sweep.id}
        with contextlib.suppress(StopIteration):
            asked = next(search)
            while not spent(self.store, sweep):
                if self.store.get("pause") == sweep.id:
                    raise Stopped("paused; resume goes on with the next trial")
                if isinstance(asked, Recipe):
                    asked = search.send(self._answer(asked, meta))
                else:
                    asked = search.send(self._reply(asked, sweep))
                self._waiting()
        while any(trial.state == "running" for trial in self.store.trials()):
            # Another runner still measures; if it dies, its trial is taken over.
            self._watch()
            time.sleep(0.5)
            self.store.recover()
            self._waiting()

    def _reply(self, question: Question, sweep: Sweep) -> Any:
        """What a strategy wants to know; found once, and read from the study ever after."""
        known = known_answer(self.store, question, self._facts, sweep.id)
        if known is not None:
            return known
        if asked_enough(self.store, sweep):
            return keep_answer(self.store, question, None, NO_TIME, sweep.id, 0.0)
        began, rows, error = time.time(), None, ""
        order = {**self._order(self.store.trials()[0].recipe, "select", None), "do": "question"}
        try:
            with exclusive(self._watch):
                self._say("question", f"{question.kind}: the strategy looks before it tries")
                rows = self._ask({**order, "question": question.to_json()}, "question")["rows"]
        except TrialFailed as failure:
            error = failure.reason
        return keep_answer(self.store, question, rows, error, sweep.id, time.time() - began)

    def _report(self) -> None:
        """Measure the front again on data that did not choose it."""
        if not self._sizes.get("report"):
            return
        trials = self.store.trials()
        members = front(trials, self.sweep.open_goal() if self.sweep else Goal())
        wanted = [trials[0], *(t for t in trials if t.number in members and t.number != trials[0].number)]
        reports: dict[int, Measurement] = {t.number: t.report for t in trials if t.report}
        for trial in wanted:
            if trial.number in reports or trial.measurement is None:
                continue
            with exclusive(self._watch):
                self._say("report", f"measuring trial {trial.number} again on the report split")
                baseline = reports.get(trials[0].number)
                answer = self._ask(self._order(trial.recipe, "report", baseline), "report")
            reports[trial.number] = Measurement.from_json(answer)
            self.store.set(f"report:{trial.number}", answer)

    # --- one trial --------------------------------------------------------------------------------------------

    def _answer(self, recipe: Recipe, meta: dict[str, Any]) -> Trial | None:
        """What is known of `recipe`, measured now where nothing is; None while another runner measures it."""
        known = self.store.find(recipe)
        if known and known.finished:
            return known
        reason = self._refusal(recipe)
        if reason:
            self.store.set(
                f"refused:{recipe.id}", {"recipe": recipe.to_json(), "title": recipe.title, "reason": reason}
            )
            return Trial(-1, recipe, "refused", error=reason)
        trial = self.store.add(recipe, **meta)
        if not retried(lambda: self.store.claim(trial.number, self.me)):
            return None
        self._execute(trial)
        return self.store.find(recipe)

    def _refusal(self, recipe: Recipe) -> str | None:
        try:
            check(Described(self._facts), recipe)  # type: ignore[arg-type]
        except UserError as error:
            return str(error)
        return None

    def _execute(self, trial: Trial) -> None:
        began = time.time()
        self._granted = 60 * trial.recipe.minutes()
        baseline = None if trial.number == 0 else self.store.trials()[0].measurement
        order = self._order(trial.recipe, "select", baseline)
        try:
            with exclusive(self._watch):
                self._say("trial", trial.recipe.title, trial.number)
                answer = self._ask(order, "trial", trial.number)
        except (Stopped, KeyboardInterrupt):
            self._retire()
            self.store.release(trial.number, stopped=True)
            raise Stopped from None
        except TrialFailed as failure:
            self.store.fail(trial.number, failure.reason, failure.details, seconds=time.time() - began)
            return
        retried(lambda: self.store.complete(trial.number, Measurement.from_json(answer), time.time() - began))

    def _order(self, recipe: Recipe | None, split: str, baseline: Measurement | None) -> dict[str, Any]:
        return {
            "do": "trial",
            "task": self._task,
            "recipe": recipe.to_json() if recipe else None,
            "split": split,
            "baseline": baseline.to_json() if baseline else None,
            "artifacts": str(self.store.folder / "artifacts"),
            "seconds": self.sweep.timing_seconds if self.sweep else at_most(Sweep.timing_seconds, TIMING_SECONDS),
        }

    def _ask(self, message: dict[str, Any], what: str, number: int | None = None) -> dict[str, Any]:
        """The child's answer; a child that is killed from outside is replaced and asked once more."""
        for attempt in (1, 2):
            try:
                return self._ask_once(message, what, number)
            except Crashed as crash:
                tail = self._child.tail() if self._child else ""
                self._retire()
                if crash.code != -signal.SIGKILL or attempt == 2:
                    raise TrialFailed(crash_reason(crash.code), tail) from None
            except OverLimit as limit:
                tail = self._child.tail() if self._child else ""
                self._retire()
                raise TrialFailed(str(limit), tail) from None
        raise AssertionError("unreachable")

    def _ask_once(self, message: dict[str, Any], what: str, number: int | None) -> dict[str, Any]:
        child = self._ready_child()
        self._began, self._timing = time.time(), False
        for event in child.request(message, self._watch):
            if "done" in event:
                self._child_mb = self._child_mb or child.memory_mb()
                if child.memory_mb() > self._child_mb + GROWTH_MB:
                    self._retire()
                return dict(event["done"])
            if "error" in event:
                if what == "prepare":
                    raise UserError(event["error"])
                raise TrialFailed(event["error"], event["details"])
            if "stage" in event:
                self._timing = event["stage"] == "time"
                if number is not None:
                    self.store.progress(number, event["stage"], event["progress"])
            elif "message" in event:
                self._say(what, event["message"], number, event["progress"])
        raise Crashed(0)

    # --- watching ---------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Called a few times a second while something works; raises `Stopped` or `OverLimit`."""
        now = time.time()
        if self._terminated:
            raise Stopped
        if now - self._polled > (_STOP_POLL_TIMING if self._timing else _STOP_POLL_SECONDS):
            self._polled = now
            if self.sweep and self.store.get("stop") == self.sweep.id:
                raise Stopped
            self._check_limits(now)
        if now - self._beaten > _HEARTBEAT_SECONDS and not self._timing:
            self._beat()

    def _check_limits(self, now: float) -> None:
        import psutil

        # Time that the recipe itself was given to train in is not the limit's business.
        limit = self._granted + (self.sweep.trial_seconds if self.sweep else Sweep({}, {}, {}).trial_seconds)
        if self._child and self._began and now - self._began > limit:
            raise OverLimit(f"took longer than the time limit of {limit:g} s for one trial")
        if self._child and psutil.virtual_memory().available < LEAST_MEMORY_MB * 1e6:
            raise OverLimit(
                f"ran out of memory: the trial held {self._child.memory_mb():.0f} MB and almost none was left"
            )

    def _beat(self) -> None:
        self._beaten = time.time()
        self.store.set(f"heartbeat:{self.me.id}", self._beaten)

    def _say(self, phase: str, message: str = "", number: int | None = None, share: float = 0.0) -> None:
        row = {"owner": self.me.to_json(), "phase": phase, "message": message, "trial": number, "progress": share}
        self.store.set(f"runner:{self.me.id}", row)

    def _ready_child(self) -> Child:
        if self._child is None:
            log = self.store.folder / "logs" / f"trials-{self.me.id}.log"
            self._child = Child("workbench.running.trial_process", log)
            self._child_mb = 0.0
        return self._child

    def _retire(self) -> None:
        if self._child:
            self._child.kill()
            self._child = None
        self._began = 0.0


def main(arguments: list[str] | None = None) -> None:
    """Run what the study in FOLDER has to do."""
    folder, *rest = arguments or sys.argv[1:]
    try:
        Runner(Store(Path(folder), rest[0] if rest else None, create=False)).run()
    except WorkbenchError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
