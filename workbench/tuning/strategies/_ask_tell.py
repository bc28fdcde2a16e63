"""What the strategies share that are a sampler of Optuna's: a study in memory that is asked and told.

Replaying the search rebuilds it, so nothing of it is stored. Left out: pruning, constraints.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable
from typing import Any

from workbench.dimensions import Choice, Range
from workbench.recipe import Space
from workbench.trial import Trial
from workbench.tuning.front import point
from workbench.tuning.goal import Goal
from workbench.tuning.strategies._fresh import at, fresh
from workbench.tuning.strategies.base import Search


def ask_and_tell(space: Space, goal: Goal, sampler: Callable[[], Any], seed: int, patience: int) -> Search:
    """Yield recipes, none twice; ends when the space is exhausted.

    A measured trial is told to the sampler with its objectives, any other finished one as failed; one that another
    runner still measures stays open. A point that contradicts itself or was tried before is told as failed; after
    `patience` such points in a row a new one is drawn at random.
    """
    study = _study(sampler)
    rng = random.Random(seed)
    distributions = {name: _distribution(dimension) for name, dimension in space.dimensions().items()}
    seen: set[str] = set()
    in_vain = 0
    while True:
        trial = study.ask(distributions)
        recipe = at(space, _decode(space, trial.params))
        if recipe is not None and recipe.id not in seen:
            in_vain = 0
            seen.add(recipe.id)
            answer = yield recipe
            if answer is not None and answer.state not in ("waiting", "running"):
                _tell(study, trial, objectives(answer, goal))
            continue
        _tell(study, trial, None)
        in_vain += 1
        if in_vain >= patience:
            found = fresh(space, rng, seen)
            if found is None:
                return
            study.enqueue_trial(_encode(space, found[0]))


def objectives(trial: Trial | None, goal: Goal) -> tuple[float, float] | None:
    """Drop (points of the metric) and what the goal minimises; None where the trial has no such numbers."""
    measured = trial.measurement if trial is not None else None
    if measured is None or measured.drop is None or (goal.minimise == "latency" and measured.speedup is None):
        return None
    drop, cost = point(measured, goal)
    return (drop, cost) if math.isfinite(drop) and math.isfinite(cost) else None


def _study(sampler: Callable[[], Any]) -> Any:
    """A study in memory, made without Optuna's line about it on the user's screen."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.create_study(directions=["minimize", "minimize"], sampler=sampler())
    finally:
        optuna.logging.set_verbosity(verbosity)


def _tell(study: Any, trial: Any, values: tuple[float, float] | None) -> None:
    from optuna.trial import TrialState

    if values is None:
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, values)


def _distribution(dimension: Choice | Range) -> Any:
    """Choices by their index, because Optuna's categories must be plain values and a knob's need not be."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(dimension, Choice):
        return CategoricalDistribution(tuple(range(len(dimension.values))))
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _decode(space: Space, params: dict[str, Any]) -> dict[str, Any]:
    """A point of the space from Optuna's parameters."""
    dimensions = space.dimensions()
    return {k: d.values[v] if isinstance(d := dimensions[k], Choice) else v for k, v in params.items()}


def _encode(space: Space, point: dict[str, Any]) -> dict[str, Any]:
    """Optuna's parameters from a point of the space."""
    dimensions = space.dimensions()
    return {k: d.values.index(v) if isinstance(d := dimensions[k], Choice) else v for k, v in point.items()}
