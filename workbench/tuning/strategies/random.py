"""Random search: recipes drawn blindly, none twice. Left out: any look at the results."""

from __future__ import annotations

import random

from workbench.recipe import Space
from workbench.tuning.goal import Goal
from workbench.tuning.strategies._fresh import fresh
from workbench.tuning.strategies.base import Search, Strategy


class RandomSearch(Strategy):
    """Recipes at random, none twice; ends when a finite space is exhausted.

    Source: J. Bergstra, Y. Bengio, "Random search for hyper-parameter optimization", JMLR 13, 2012. Cost: none beyond
    its trials. Helps when the space is too large for a grid, and as the yardstick that a cleverer search has to beat.
    """

    name = "random"

    def search(self, space: Space, goal: Goal) -> Search:
        """Yield recipes drawn with `seed`; what is sent is ignored."""
        rng = random.Random(self.seed)
        seen: set[str] = set()
        while found := fresh(space, rng, seen):
            _, recipe = found
            seen.add(recipe.id)
            yield recipe
