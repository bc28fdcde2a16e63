"""The contract of a strategy: a generator of recipes and questions that sees the trials so far.

The runner drives it with `send`: it yields a recipe and is sent that recipe's `Trial`, or None while another runner is
still measuring it; or it yields a question (`workbench.tuning.questions`) and is sent the answer, or an `Unanswered`.
A recipe or an answer that the study already holds comes at once from the store, so replaying a strategy from its start
*is* resuming it: strategies must be deterministic in (space, goal, seed) and in what they are sent.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator
from typing import Any, ClassVar

from workbench.knobs import Knobbed, knob
from workbench.recipe import Recipe, Space
from workbench.tuning.goal import Goal
from workbench.tuning.questions import Question

#: Yields recipes and questions; is sent a `Trial | None` for the former, an answer for the latter.
Search = Generator[Recipe | Question, Any, None]


class Strategy(Knobbed):
    """An order in which to try recipes. `name`, `summary`, and a `seed` knob that makes it repeatable."""

    name: ClassVar[str]
    seed: int = knob(0, low=0, high=2**31 - 1, help="makes the order repeatable")

    @abstractmethod
    def search(self, space: Space, goal: Goal) -> Search:
        """Yield recipes of `space`, also with more of its layers kept, each at most once; end when nothing is left.

        Recipes that cannot be realised are refused before they are run, and the strategy is sent a refused trial.
        """
