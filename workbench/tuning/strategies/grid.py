"""Grid search: every combination once, in order. Left out: any look at the results."""

from __future__ import annotations

from workbench.recipe import Space
from workbench.tuning.goal import Goal
from workbench.tuning.strategies.base import Search, Strategy


class Grid(Strategy):
    """Every combination once, fewest techniques first, so that a small budget sees each one alone.

    Ranges are cut into as many points as they say. Cost: grows with the product of all choices. Helps when the space is
    small or the front must leave nothing out. `seed` changes nothing.
    """

    name = "grid"

    def search(self, space: Space, goal: Goal) -> Search:
        """Yield `space.recipes()`; what is sent is ignored."""
        yield from space.recipes()
