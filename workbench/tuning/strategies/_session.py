"""What the strategies share that leave layers in higher precision one after another: the trials so far, the recipes
with layers kept, and what to try first and last.

A recipe that was tried before is not yielded again; its trial is remembered.
"""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

from workbench.draft import ModelFacts, resolve_keep
from workbench.errors import UserError
from workbench.measure.accuracy import METRICS
from workbench.measure.measurement import Measurement
from workbench.recipe import Choice, Recipe, Space
from workbench.techniques.base import Technique
from workbench.trial import Trial
from workbench.tuning.goal import Goal
from workbench.tuning.questions import Facts, Question, Scan, ranking

#: One try: yields at most one recipe, gives its trial.
Try = Generator[Recipe | Question, Any, Trial | None]
Walk = Generator[Recipe | Question, Any, None]


class Session:
    """The trials of one search by recipe id."""

    def __init__(self, space: Space, goal: Goal) -> None:
        self.space, self.goal = space, goal
        self.trials: dict[str, Trial | None] = {}
        self.facts: ModelFacts | None = None
        self.layers: tuple[str, ...] = ()

    def begin(self) -> Walk:
        """Ask which layers the model has; without an answer none can be kept."""
        answer = yield Facts()
        self.facts = answer if isinstance(answer, ModelFacts) else None
        self.layers = self.facts.layers if self.facts else ()

    # --- trying -----------------------------------------------------------------------------------------------

    def attempt(self, recipe: Recipe) -> Try:
        """Measure `recipe`, or remember what came of it."""
        if recipe.id not in self.trials:
            self.trials[recipe.id] = yield recipe
        return self.trials[recipe.id]

    def attempt_kept(self, recipe: Recipe, kept: Iterable[str]) -> Try:
        """Measure `recipe` with the layers `kept` left alone too; None where the space does not hold that."""
        found = self.keeping(recipe, kept)
        if found is None:
            return None
        return (yield from self.attempt(found))

    def every_plain(self) -> Walk:
        """Each recipe of the grid with the space's own layers kept, fewest techniques first."""
        for recipe in self.plain():
            yield from self.attempt(recipe)

    def rest(self) -> Walk:
        """What is left of the grid."""
        for recipe in self.space.recipes():
            yield from self.attempt(recipe)

    # --- recipes ----------------------------------------------------------------------------------------------

    def plain(self) -> Iterator[Recipe]:
        """The grid's recipes with the space's own layers kept."""
        own = self.space.keeps()[0]
        return (recipe for recipe in self.space.recipes() if recipe.keep == own)

    def keeping(self, recipe: Recipe, kept: Iterable[str]) -> Recipe | None:
        """`recipe` with more layers kept, in the model's order; None where no layer would be left, or where an open
        `keep` has no such choice."""
        return keeping(self.space, self.layers, recipe, kept)

    def free(self, recipe: Recipe) -> list[str]:
        """Layers that `recipe` does not keep, in the model's order."""
        try:
            kept = resolve_keep(recipe.keep, self.layers)
        except UserError:
            kept = frozenset()
        return [name for name in self.layers if name not in kept]

    # --- looking at results -----------------------------------------------------------------------------------

    def met(self, trial: Trial | None) -> bool:
        """Whether a trial was measured and meets the goal."""
        measured = trial.measurement if trial else None
        return measured is not None and self.goal.met(measured, baseline_of(measured))

    def score_of(self, trial: Trial) -> float:
        """The baseline's score, as a trial tells it."""
        return baseline_of(trial.measurement) if trial.measurement else 0.0

    def cheapest(self) -> float:
        """The least cost of all trials that meet the goal; infinite where none does."""
        costs = [self.goal.cost(t.measurement) for t in self.trials.values() if t and t.measurement and self.met(t)]
        return min(costs, default=math.inf)

    def to_repair(self, wanted: Sequence[Recipe]) -> Iterator[Recipe]:
        """Those of `wanted` that miss the goal, from the smallest drop; the later one of two equals first, as Neural
        Compressor takes the last best. One that is no cheaper than what meets the goal already is left out."""
        failed = [
            (trial.measurement.drop.value, -i, recipe)
            for i, recipe in enumerate(wanted)
            if (trial := self.trials.get(recipe.id)) and trial.measurement and trial.measurement.drop
            if not self.met(trial)
        ]
        for _, _, recipe in sorted(failed, key=lambda row: row[:2] if math.isfinite(row[0]) else (math.inf, row[1])):
            trial = self.trials[recipe.id]
            if trial and trial.measurement and self.goal.cost(trial.measurement) < self.cheapest():
                yield recipe

    # --- walks that several strategies take ----------------------------------------------------------------------

    def one_by_one(self, recipe: Recipe, order: Iterable[str]) -> Generator[Recipe | Question, Any, list[str]]:
        """Keep each layer of `order` alone; gives them by what that leaves of the drop, the least first."""
        left: list[tuple[float, str]] = []
        for name in order:
            trial = yield from self.attempt_kept(recipe, (name,))
            if trial and trial.measurement and trial.measurement.drop:
                left.append((trial.measurement.drop.value, name))
        left.sort(key=lambda row: row[0] if math.isfinite(row[0]) else math.inf)
        return [name for _, name in left]

    def accumulated(self, recipe: Recipe, order: Sequence[str], start: int = 1) -> Walk:
        """Keep the first `start` layers of `order` together, then one more at a time, until the goal is met."""
        for count in range(start, len(order) + 1):
            trial = yield from self.attempt_kept(recipe, order[:count])
            if self.met(trial):
                return

    def ranked(
        self, technique: Technique | None, probe: str, layers: Sequence[str], **how: Any
    ) -> Generator[Recipe | Question, Any, list[str] | None]:
        """`layers` from the worst score of a scan to the best; None where it gives nothing to rank by."""
        if technique is None:
            return None
        scores = ranking((yield Scan(technique, probe, **how)), layers)
        return None if scores is None else sorted(layers, key=lambda name: -scores[name])


def keeping(space: Space, layers: Sequence[str], recipe: Recipe, kept: Iterable[str]) -> Recipe | None:
    """See `Session.keeping`."""
    wanted = set(kept)
    try:
        already = resolve_keep(recipe.keep, layers) if layers else frozenset()
    except UserError:
        return None
    if wanted and already | wanted >= set(layers):
        return None
    if isinstance(space.keep, Choice):
        for choice in space.keep.values:
            if resolve_keep(choice, layers) == already | wanted:
                return recipe.keeping(choice)
        return None
    more = [name for name in layers if name in wanted and name not in already]
    return recipe.keeping((*recipe.keep, *more)) if more else recipe


def quantizing(recipes: Iterable[Recipe]) -> list[Recipe]:
    """Recipes with integer layers; where there are none, those that set any precision."""
    known = list(recipes)
    integer = [r for r in known if any(kind.startswith("int") for kind in r.precisions())]
    return integer or [r for r in known if precision_step(r)]


def precision_step(recipe: Recipe) -> Technique | None:
    """The step that sets the precision of layers; None where there is none."""
    return next((step for step in recipe.steps if step.precisions), None)


def roles(layers: Iterable[str]) -> dict[str, list[str]]:
    """Layers by what they do, over all blocks: names that differ in numbers alone, in order of appearance."""
    found: dict[str, list[str]] = {}
    for name in layers:
        found.setdefault(re.sub(r"(?<![^.])\d+(?![^.])", "*", name), []).append(name)
    return found


def baseline_of(measured: Measurement) -> float:
    """The baseline's score, from a measurement's own and its drop."""
    if measured.drop is None:
        return measured.accuracy.value
    known = METRICS.get(measured.metric)
    sign = 1 if known is None or known.higher_is_better else -1
    return measured.accuracy.value + sign * measured.drop.value
