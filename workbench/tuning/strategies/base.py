"""The contract of a strategy: a generator of recipes that sees the trials so far.

The runner drives it with `send`: it yields a recipe and is sent that recipe's `Trial`, or None while another runner is
still measuring it. A recipe that the study already holds is answered at once from the store, so replaying a strategy
from its start *is* resuming it: strategies must be deterministic in (space, goal, seed) and the trials they are sent.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator
from typing import ClassVar

from workbench.knobs import Knobbed, knob
from workbench.recipe import Recipe, Space
from workbench.trial import Trial
from workbench.tuning.goal import Goal

Search = Generator[Recipe, Trial | None, None]


class Strategy(Knobbed):
    """An order in which to try recipes. `name`, `summary`, and a `seed` knob that makes it repeatable."""

    name: ClassVar[str]
    seed: int = knob(0, low=0, high=2**31 - 1, help="makes the order repeatable")

    @abstractmethod
    def search(self, space: Space, goal: Goal) -> Search:
        """Yield recipes of `space`, each at most once where possible; end when there is nothing left to try.

        Recipes that cannot be realised are refused before they are run, and the strategy is sent a refused trial.
        """
