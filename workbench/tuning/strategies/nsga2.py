"""NSGA-II: a population of recipes that evolves towards the whole Pareto front of drop and cost.

Deb et al. 2002, in Optuna's implementation, on a study in memory: replaying the search rebuilds it, so nothing of it is
stored. Left out: constraints (the front itself shows where the goal is met) and surrogate models.
"""

from __future__ import annotations

import math
import random
from typing import Any

from workbench.dimensions import Choice, Range
from workbench.knobs import knob
from workbench.recipe import Space
from workbench.trial import Trial
from workbench.tuning.goal import Goal
from workbench.tuning.strategies._fresh import at, fresh
from workbench.tuning.strategies.base import Search, Strategy

#: Points asked for in vain before one is drawn that is new for sure.
PATIENCE = 20


class Nsga2(Strategy):
    """Evolve a population of recipes towards the front of accuracy drop and latency (or what the goal minimises).

    Source: K. Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", IEEE Trans. Evolutionary
    Computation 6(2), 2002. Cost: little beyond its trials; the first `population` of them are drawn at random.
    Helps when the space is large and there is time for several generations; before that it is a random search.
    """

    name = "nsga2"

    population: int = knob(10, low=2, high=1000, unit="recipes", help="measured recipes in one generation")

    def search(self, space: Space, goal: Goal) -> Search:
        """Yield recipes, none twice; ends when the space is exhausted.

        A measured trial is told to the sampler with its objectives, any other finished one as failed; one that another
        runner still measures stays open. A point that contradicts itself or was tried before is told as failed, so that
        a generation is made of different recipes; after `PATIENCE` such points in a row a new one is drawn at random.
        """
        study = _study(self.seed, self.population)
        rng = random.Random(self.seed)
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
            if in_vain >= PATIENCE:
                found = fresh(space, rng, seen)
                if found is None:
                    return
                study.enqueue_trial(_encode(space, found[0]))


def objectives(trial: Trial | None, goal: Goal) -> tuple[float, float] | None:
    """Drop (points of the metric) and cost, both to be minimised; None where the trial has no such numbers.

    The cost is the share of the baseline's latency, or MB of disk or memory, as the goal says.
    """
    measured = trial.measurement if trial is not None else None
    if measured is None or measured.drop is None:
        return None
    if goal.minimise == "latency":
        cost = 1 / measured.speedup.value if measured.speedup and measured.speedup.value > 0 else math.nan
    else:
        weight = measured.size_mb if goal.minimise == "size" else measured.peak_mb
        cost = math.nan if weight is None else weight
    return (measured.drop.value, cost) if math.isfinite(measured.drop.value) and math.isfinite(cost) else None


def _study(seed: int, population: int) -> Any:
    """A study in memory, made without Optuna's line about it on the user's screen."""
    import optuna

    sampler = optuna.samplers.NSGAIISampler(population_size=population, seed=seed)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
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
