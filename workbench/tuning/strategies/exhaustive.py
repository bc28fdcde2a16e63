"""Neural Compressor's `exhaustive`, which is a grid. Left out: any look at the results."""

from __future__ import annotations

from workbench.recipe import Space
from workbench.tuning.goal import Goal
from workbench.tuning.strategies.base import Search, Strategy


class Exhaustive(Strategy):
    """Every combination once, in order: grid under the name that Neural Compressor gave it.

    Source: Intel Neural Compressor 2.x, `strategy/exhaustive.py`. Cost: grows with the product of all choices. Helps
    when the space is small. `seed` changes nothing.
    """

    name = "exhaustive"

    def search(self, space: Space, goal: Goal) -> Search:
        """Yield `space.recipes()`; what is sent is ignored."""
        yield from space.recipes()
