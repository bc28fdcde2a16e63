"""What a sweep has spent of its budget: trials, and minutes of trials and of questions.

Counted from what the study holds, so that a resumed sweep has spent what the killed one had. Left out: the time between
trials, and the report's.
"""

from __future__ import annotations

from workbench.running.questions import seconds_asked
from workbench.running.store import Store
from workbench.running.sweep import Sweep
from workbench.trial import Trial

#: Share of a budget of minutes that questions may take before the first trial.
ASKING = 0.5


def spent(store: Store, sweep: Sweep) -> bool:
    """Whether nothing of the sweep's budget is left."""
    goal, mine = sweep.open_goal(), _finished(store, sweep)
    trials = goal.trials is not None and len(mine) >= goal.trials
    if goal.minutes is None or trials:
        return trials
    return seconds_asked(store.attributes(), sweep.id) + sum(t.seconds for t in mine) >= 60 * goal.minutes


def asked_enough(store: Store, sweep: Sweep) -> bool:
    """Whether questions took their share of the minutes before anything was tried: a short search must not end with
    nothing but knowledge."""
    minutes = sweep.open_goal().minutes
    if minutes is None or _finished(store, sweep):
        return False
    return seconds_asked(store.attributes(), sweep.id) >= ASKING * 60 * minutes


def _finished(store: Store, sweep: Sweep) -> list[Trial]:
    return [t for t in store.trials() if t.meta.get("sweep") == sweep.id and t.finished]
