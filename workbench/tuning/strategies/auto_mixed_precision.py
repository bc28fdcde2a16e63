"""Neural Compressor's `auto_mixed_precision`: BF16 everywhere, and layers back to FP32 where that costs too much.

After Intel Neural Compressor 2.x, `strategy/auto_mixed_precision.py`. Left out: FP8.
"""

from __future__ import annotations

from workbench.recipe import Space
from workbench.tuning.goal import Goal
from workbench.tuning.strategies._session import Session, precision_step
from workbench.tuning.strategies.base import Search, Strategy


class AutoMixedPrecision(Strategy):
    """Lower every layer to a smaller float, then put layers back to FP32 one by one, then together.

    Source: Intel Neural Compressor 2.x. Order: (1) the recipes of the grid that use BF16 or FP16; (2) for the one with
    the highest score that fails, each layer kept alone, from the last to the first; (3) layers accumulated in the order
    of the score that (2) gave, starting with two; (4) the rest of the grid. It differs in going on with the next recipe
    that fails, as `basic` does. Cost: one trial where BF16 just works, which it mostly does. Helps on processors with
    BF16 units (AMX), as the first thing to try.
    """

    name = "auto_mixed_precision"

    def search(self, space: Space, goal: Goal) -> Search:
        """Yield recipes; asks for the layers' names alone."""
        session = Session(space, goal)
        yield from session.begin()
        floats = [r for r in session.plain() if precision_step(r) and r.precisions() & {"bf16", "fp16"}]
        for recipe in floats:
            yield from session.attempt(recipe)
        for recipe in session.to_repair(floats):
            before = session.cheapest()
            order = yield from session.one_by_one(recipe, reversed(session.free(recipe)))
            if session.cheapest() == before:
                yield from session.accumulated(recipe, order, start=2)
        yield from session.rest()
