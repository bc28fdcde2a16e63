"""Neural Compressor's `hawq_v2`: layers back together in the order of their Hessian's trace.

After Intel Neural Compressor 2.x, `strategy/hawq_v2.py`. Left out: what `basic.py` leaves out, and HAWQ's own choice of
bit widths by an integer program.
"""

from __future__ import annotations

from workbench.knobs import knob
from workbench.recipe import Space
from workbench.tuning.goal import Goal
from workbench.tuning.strategies._session import Session, precision_step, quantizing
from workbench.tuning.strategies.base import Search, Strategy


class HawqV2(Strategy):
    """Put layers back in higher precision together, those with the largest Hessian trace first.

    Source: Intel Neural Compressor 2.x; Z. Dong et al., "HAWQ-V2", NeurIPS 2020, arXiv:1911.03852. Order: (1) every
    recipe of the grid; (2) for the quantized recipe with the highest score, one scan of the traces; layers kept
    together, one more at a time, the largest first, until the goal is met. It differs in going on with the next best
    recipe that fails, then the rest of the grid. A scan that fails leaves the order from the last layer to the first.
    Cost: a scan with gradients and up to one trial a layer and recipe. Helps where several layers must go back at once.
    """

    name = "hawq_v2"

    samples: int = knob(128, low=1, high=100_000, unit="examples", help="examples of the scan")

    def search(self, space: Space, goal: Goal) -> Search:
        """Yield recipes, and one scan for each recipe that is repaired."""
        session = Session(space, goal)
        yield from session.begin()
        yield from session.every_plain()
        for recipe in session.to_repair(quantizing(session.plain())):
            free = session.free(recipe)
            ranked = yield from session.ranked(precision_step(recipe), "hessian_trace", free, samples=self.samples)
            yield from session.accumulated(recipe, ranked or free[::-1])
        yield from session.rest()
