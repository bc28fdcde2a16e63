"""The Pareto front of the trials so far: nothing is both more accurate and faster than its members."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workbench.trial import Trial


def front(trials: Sequence[Trial]) -> list[int]:
    """Numbers of the trials on the front of accuracy drop and speed-up (the baseline may be among them).

    Sorted from the smallest drop to the largest. Equal points are all members.
    """
    measured = [t for t in trials if t.measurement is not None]
    if not measured:
        return []
    costs = np.array([_costs(t) for t in measured])
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


def _costs(trial: Trial) -> tuple[float, float]:
    measured = trial.measurement
    assert measured is not None  # the caller filtered
    drop = measured.drop.value if measured.drop else 0.0
    return drop, 1 / measured.speedup.value if measured.speedup else 1.0
