"""NSGA-II: a population of recipes that evolves towards the whole Pareto front of drop and cost.

Deb et al. 2002, in Optuna's implementation. A recipe's genes are everything that its space leaves open: the runtime and
its knobs, which techniques take part, their knobs (layers dropped, widths left, precision), and the layers kept where
`keep` is open; so over dropped layers and widths it is an architecture search. Left out: constraints (the front itself
shows where the goal is met) and surrogate models.
"""

from __future__ import annotations

from typing import Any

from workbench.knobs import knob
from workbench.recipe import Space
from workbench.tuning.goal import Goal
from workbench.tuning.strategies._ask_tell import ask_and_tell
from workbench.tuning.strategies.base import Search, Strategy

#: Points asked for in vain before one is drawn that is new for sure: a generation is made of different recipes.
PATIENCE = 20


class Nsga2(Strategy):
    """Evolve a population of recipes towards the front of accuracy drop and latency (or what the goal minimises).

    Source: K. Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", IEEE Trans. Evolutionary
    Computation 6(2), 2002. Order: `population` recipes at random, then children of the best, by crossover and mutation
    of all that is open. Cost: little beyond its trials. Helps when the space is large and there is time for several
    generations; before that it is a random search.
    """

    name = "nsga2"

    population: int = knob(10, low=2, high=1000, unit="recipes", help="measured recipes in one generation")

    def search(self, space: Space, goal: Goal) -> Search:
        """Yield recipes, none twice; ends when the space is exhausted."""
        yield from ask_and_tell(space, goal, self._sampler, self.seed, PATIENCE)

    def _sampler(self) -> Any:
        import optuna

        return optuna.samplers.NSGAIISampler(population_size=self.population, seed=self.seed)
