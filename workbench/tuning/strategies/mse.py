"""Neural Compressor's `mse`: layers back in the order of the error of their outputs.

After Intel Neural Compressor 2.x, `strategy/mse.py`. Left out: what `basic.py` leaves out.
"""

from __future__ import annotations

from workbench.knobs import knob
from workbench.recipe import Space
from workbench.tuning.goal import Goal
from workbench.tuning.strategies._session import Session, precision_step, quantizing
from workbench.tuning.strategies.base import Search, Strategy


class Mse(Strategy):
    """Like basic, but layers go back in the order of the squared error of their outputs, the largest first.

    Source: Intel Neural Compressor 2.x. Order: (1) every recipe of the grid; (2) for the quantized recipe with the
    highest score, one scan of the squared error of each layer's output; each layer kept alone, the largest error first;
    (3) accumulated in the order of the score that (2) gave, starting with two. It differs from Neural Compressor as
    `basic` does. A scan that fails leaves `basic`'s order, from the last layer. Cost: a scan and up to two trials a
    layer and recipe. Helps little: a layer's own error says little of the model's answer.
    """

    name = "mse"

    samples: int = knob(256, low=1, high=100_000, unit="examples", help="examples of the scan")

    def search(self, space: Space, goal: Goal) -> Search:
        """Yield recipes, and one scan for each recipe that is repaired."""
        session = Session(space, goal)
        yield from session.begin()
        yield from session.every_plain()
        for recipe in session.to_repair(quantizing(session.plain())):
            free, before = session.free(recipe), session.cheapest()
            ranked = yield from session.ranked(precision_step(recipe), "mse", free, samples=self.samples)
            order = yield from session.one_by_one(recipe, ranked or free[::-1])
            if session.cheapest() == before:
                yield from session.accumulated(recipe, order, start=2)
        yield from session.rest()
