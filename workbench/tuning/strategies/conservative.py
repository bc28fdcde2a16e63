"""Neural Compressor's `conservative`: from FP32 on, quantize what the goal lets pass.

After Intel Neural Compressor 2.x, `strategy/conservative.py`. Left out: what `basic.py` leaves out.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from workbench.recipe import Recipe, Space
from workbench.tuning.goal import Goal
from workbench.tuning.questions import Question
from workbench.tuning.strategies._session import Session, Walk, quantizing, roles
from workbench.tuning.strategies.base import Search, Strategy


class Conservative(Strategy):
    """Start from the uncompressed layers and quantize kind after kind, as long as the goal is met.

    Source: Intel Neural Compressor 2.x. Order: for each quantized recipe of the grid, all layers kept; then kind by
    kind, in order of appearance, all layers of that kind quantized together; where that misses the goal, its layers one
    by one, each staying quantized where the goal is met. It differs in what a kind is: layers of one role over all
    blocks, since in a transformer all are of one operator type; in going through several recipes; and in ending with
    the rest of the grid. Cost: a trial for each kind, and for each layer of a kind that fails. Helps where most of the
    model must stay as it is, and to always have something that passes.
    """

    name = "conservative"

    def search(self, space: Space, goal: Goal) -> Search:
        """Yield recipes; asks for the layers' names alone."""
        session = Session(space, goal)
        yield from session.begin()
        for recipe in quantizing(session.plain()):
            yield from _grow(session, recipe)
        yield from session.rest()


def _grow(session: Session, recipe: Recipe) -> Walk:
    free = session.free(recipe)
    quantized: set[str] = set()
    for alike in roles(free).values():
        if (yield from _try(session, recipe, free, quantized | set(alike))):
            quantized |= set(alike)
            continue
        # Of a single layer this was the answer already.
        for name in alike if len(alike) > 1 else ():
            if (yield from _try(session, recipe, free, quantized | {name})):
                quantized.add(name)


def _try(
    session: Session, recipe: Recipe, free: list[str], quantized: set[str]
) -> Generator[Recipe | Question, Any, bool]:
    """Whether the goal is met when the layers `quantized` are quantized, and no others."""
    trial = yield from session.attempt_kept(recipe, [name for name in free if name not in quantized])
    return session.met(trial)
