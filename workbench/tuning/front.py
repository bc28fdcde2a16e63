"""The Pareto front of the trials so far: nothing is both more accurate and cheaper than its members.

Its hypervolume is the measure of a search: the area, in the plane of drop and cost, of all that some trial beats.
Source: E. Zitzler, L. Thiele, "Multiobjective evolutionary algorithms: a comparative case study and the strength
Pareto approach", IEEE Trans. Evolutionary Computation 3(4), 1999. Left out: more than two objectives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.errors import DataError
from workbench.measure.accuracy import drop as paired_drop
from workbench.measure.measurement import Measurement
from workbench.trial import Trial
from workbench.tuning.goal import Goal

#: What a front is of where no goal says otherwise.
_LATENCY = Goal()


def front(trials: Sequence[Trial], goal: Goal = _LATENCY) -> list[int]:
    """Numbers of the trials on the front of accuracy drop and of what `goal` minimises, latency by default (the
    baseline may be among them).

    Sorted from the smallest drop to the largest. Equal points are all members.
    """
    measured = [t for t in trials if t.measurement is not None]
    if not measured:
        return []
    costs = np.array([point(t.measurement, goal) for t in measured if t.measurement])
    numbers = [t.number for t in measured]
    kept = nondominated(costs)
    return [numbers[i] for i in sorted(kept, key=lambda i: tuple(costs[i]))]


def nondominated(costs: np.ndarray) -> list[int]:
    """Indices of the rows of `costs`, shape (points, objectives), smaller is better, that no other row dominates."""
    found = []
    for i, row in enumerate(costs):
        dominated = ((costs <= row).all(axis=1) & (costs < row).any(axis=1)).any()
        if not dominated and np.isfinite(row).all():
            found.append(i)
    return found


def point(measured: Measurement, goal: Goal = _LATENCY) -> tuple[float, float]:
    """(drop in points of the metric, cost), both to be minimised."""
    return (measured.drop.value if measured.drop else 0.0), goal.cost(measured)


def hypervolume(costs: np.ndarray, reference: Sequence[float]) -> float:
    """The area between the points `costs`, shape (points, 2), smaller is better, and `reference`, shape (2,).

    Exact. Points that are not better than the reference in both objectives add nothing; NaN and infinite ones neither.
    Raises `DataError` for another number of objectives.
    """
    points = np.asarray(costs, dtype=float).reshape(-1, np.shape(costs)[-1] if np.size(costs) else 2)
    if points.shape[1] != 2 or len(reference) != 2:
        raise DataError(f"A hypervolume of {points.shape[1]} objectives.", allowed="2 objectives")
    inside = points[np.isfinite(points).all(axis=1) & (points < np.asarray(reference)).all(axis=1)]
    area, ceiling = 0.0, float(reference[1])
    for x, y in sorted(map(tuple, inside)):
        if y < ceiling:
            area += (reference[0] - x) * (ceiling - y)
            ceiling = y
    return float(area)


@dataclass(frozen=True)
class Step:
    """The hypervolume after one more trial: its number, how many were measured, the minutes they took, the area."""

    number: int
    trials: int
    minutes: float
    hypervolume: float


def reference_point(trials: Sequence[Trial], goal: Goal) -> tuple[float, float] | None:
    """The corner from which a study's hypervolume is counted: the largest allowed drop, and the baseline's cost.

    Where the goal allows no drop at all, the largest drop measured stands in. None before the baseline was measured.
    """
    measured = [t.measurement for t in trials if t.measurement is not None]
    if not measured:
        return None
    allowed = goal.allowed_drop(measured[0].accuracy.value)
    drops = [m.drop.value for m in measured if m.drop and np.isfinite(m.drop.value)]
    # The A/A run of the baseline is one time itself, but for noise.
    cost = 1.0 if goal.minimise == "latency" else goal.cost(measured[0])
    # A throughput is counted negatively, so that the corner of no gain is the baseline's own.
    return (allowed if allowed > 0 else max([0.0, *drops]) or 1.0), cost


def history(trials: Sequence[Trial], goal: Goal, reference: Sequence[float] | None = None) -> list[Step]:
    """The hypervolume after every measured trial but the baseline, in order of their numbers.

    A failed trial counts with its minutes. `reference` is `reference_point` unless it is given.
    """
    corner = reference or reference_point(trials, goal)
    found: list[Step] = []
    if corner is None:
        return found
    points, seconds = [], 0.0
    for trial in sorted(trials, key=lambda t: t.number)[1:]:
        if not trial.finished:
            continue
        seconds += trial.seconds
        if trial.measurement is not None:
            points.append(point(trial.measurement, goal))
        area = hypervolume(np.array(points).reshape(-1, 2), corner)
        found.append(Step(trial.number, len(found) + 1, seconds / 60, area))
    return found


def holds(trials: Sequence[Trial], goal: Goal) -> dict[int, str]:
    """Front members that were measured again on the report split: number -> '' where it holds, else why it does not.

    It does not hold where it met the goal's drop when it was selected and misses it now, or where another member that
    costs no more is clearly more accurate on the report split (the whole paired 95 % interval says so).
    """
    again = {t.number: t for t in trials if t.report is not None and t.measurement is not None}
    first = trials[0] if trials else None
    if first is None or first.number not in again:
        return {}
    return {number: _broken(trial, again, first, goal) for number, trial in again.items()}


def _broken(trial: Trial, again: dict[int, Trial], first: Trial, goal: Goal) -> str:
    then, now = trial.measurement, trial.report
    was, base = first.measurement, first.report
    assert then is not None  # `holds` filtered
    assert now is not None
    assert was is not None
    assert base is not None
    if goal.met(then, was.accuracy.value) and not goal.met(now, base.accuracy.value):
        return "it met the goal where it was selected, and misses it on the report split"
    for other in again.values():
        rival, cost = other.report, other.measurement
        assert rival is not None
        assert cost is not None
        if other.number == trial.number or rival.outcomes is None or now.outcomes is None:
            continue
        cheaper = goal.cost(cost) <= goal.cost(then)
        if cheaper and paired_drop(rival.outcomes, now.outcomes, now.metric).low > 0:
            return f"trial {other.number} costs no more and is clearly better on the report split"
    return ""
