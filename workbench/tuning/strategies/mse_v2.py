"""Neural Compressor's `mse_v2`: scan, put one layer back, scan again; then try to quantize layers again.

After Intel Neural Compressor 2.x, `strategy/mse_v2.py`. Left out: what `basic.py` leaves out.
"""

from __future__ import annotations

from workbench.knobs import knob
from workbench.recipe import Recipe, Space
from workbench.tuning.goal import Goal
from workbench.tuning.strategies._session import Session, Walk, precision_step, quantizing
from workbench.tuning.strategies.base import Search, Strategy


class MseV2(Strategy):
    """Put back the layer that hurts the model's output most, look again, and so on; then quantize some again.

    Source: Intel Neural Compressor 2.x. Order: (1) every recipe of the grid; (2) for the quantized recipe with the
    highest score: scan the error of the model's output when all are quantized but one more layer, keep the layer that
    helps most, try, and scan again, until the goal is met; (3) while it is met and more than one layer is kept: scan
    the kept ones, quantize again the one that hurts least and gives a set that was not tried, try. It differs in (3),
    whose scan quantizes that layer alone, and in going on with the next best recipe that fails, then the rest of the
    grid. A scan that fails puts back the last layer that is left. Cost: a scan for each trial. Helps where layers
    interact, which a single scan cannot see.
    """

    name = "mse_v2"

    samples: int = knob(64, low=1, high=100_000, unit="examples", help="examples of each scan")

    def search(self, space: Space, goal: Goal) -> Search:
        """Yield recipes, each of (2) and (3) after a scan."""
        session = Session(space, goal)
        yield from session.begin()
        yield from session.every_plain()
        for recipe in session.to_repair(quantizing(session.plain())):
            yield from self._repair(session, recipe)
        yield from session.rest()

    def _repair(self, session: Session, recipe: Recipe) -> Walk:
        step, free = precision_step(recipe), session.free(recipe)
        kept: list[str] = []
        records: list[frozenset[str]] = []
        met = False
        while not met and len(kept) < len(free):
            left = [name for name in free if name not in kept]
            own = session.keeping(recipe, kept)
            already = own.keep if own else recipe.keep
            ranked = yield from session.ranked(
                step, "nmse", left, direction="all_but", samples=self.samples, keep=already
            )
            # In this direction the score is what keeping this layer too regains.
            kept.append(ranked[0] if ranked else left[-1])
            records.append(frozenset(kept))
            met = session.met((yield from session.attempt_kept(recipe, kept)))
        while met and len(kept) > 1:
            ranked = yield from session.ranked(step, "nmse", kept, samples=self.samples, keep=recipe.keep)
            order = [name for name in reversed(ranked or kept) if frozenset(kept) - {name} not in records]
            if not order:
                return
            kept.remove(order[0])
            records.append(frozenset(kept))
            met = session.met((yield from session.attempt_kept(recipe, kept)))
