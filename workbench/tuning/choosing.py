"""Which trial is the answer to a goal, and where none is, which ones come nearest and what they miss."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.trial import Trial
from workbench.tuning.goal import Goal


def best(trials: Sequence[Trial], goal: Goal) -> Trial | None:
    """The trial that meets the goal and costs least; the baseline where no other does, None before it was measured."""
    if not trials or trials[0].measurement is None:
        return None
    base = trials[0].measurement.accuracy.value
    passing = [t for t in trials if t.measurement and goal.met(t.measurement, base)]
    return min(passing or trials[:1], key=lambda t: goal.cost(t.measurement))  # type: ignore[arg-type]


def nearest(trials: Sequence[Trial], goal: Goal, count: int = 3) -> list[tuple[Trial, float]]:
    """Up to `count` trials that miss the goal, with the points of the metric that each misses; the nearest first, of
    equals the cheapest. The baseline is not among them; a NaN comes last."""
    if not trials or trials[0].measurement is None:
        return []
    base = trials[0].measurement.accuracy.value
    missing = [(t, goal.missing(t.measurement, base)) for t in trials[1:] if t.measurement]
    far = [(t, points) for t, points in missing if points != 0]
    return sorted(far, key=lambda row: (row[1] != row[1], row[1], goal.cost(row[0].measurement)))[:count]  # type: ignore[arg-type]
