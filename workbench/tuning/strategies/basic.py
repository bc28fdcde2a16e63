"""Neural Compressor's `basic`: every setting first, then layers back one by one, then back together.

After Intel Neural Compressor 2.x, `strategy/basic.py`. Left out: its calibration sizes as an outer loop (here a knob of
the technique) and the step from static to dynamic (here a recipe of its own).
"""

from __future__ import annotations

from workbench.recipe import Space
from workbench.tuning.goal import Goal
from workbench.tuning.strategies._session import Session, quantizing
from workbench.tuning.strategies.base import Search, Strategy


class Basic(Strategy):
    """Try every setting, then each layer back in higher precision alone, then layers accumulated.

    Source: Intel Neural Compressor 2.x. Order: (1) every recipe of the grid, fewest techniques first; (2) the quantized
    recipe with the highest score, each layer kept alone, from the last to the first; (3) layers accumulated in the
    order of the score that (2) gave, starting with two. It differs where Neural Compressor stops: one that passes ends
    the repair of this recipe only (and (3) is left out where one layer sufficed), the next best recipe that fails and
    would be cheaper follows, then the rest of the grid. Cost: up to two trials a layer and recipe. Helps with few
    layers, or where the last layers are the sensitive ones. `seed` changes nothing.
    """

    name = "basic"

    def search(self, space: Space, goal: Goal) -> Search:
        """Yield recipes; asks for the layers' names alone."""
        session = Session(space, goal)
        yield from session.begin()
        yield from session.every_plain()
        for recipe in session.to_repair(quantizing(session.plain())):
            before = session.cheapest()
            order = yield from session.one_by_one(recipe, reversed(session.free(recipe)))
            if session.cheapest() == before:
                yield from session.accumulated(recipe, order, start=2)
        yield from session.rest()
