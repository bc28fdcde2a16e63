"""What a space holds and what it will cost, before anything runs: how many recipes, how long, what is refused.

Recipes are counted, not listed: techniques fall into groups that exclude nothing of each other, so the numbers of the
groups multiply, and a space of millions is counted at once. Time comes from trials that were measured, where there
are any, and from the minutes that a technique was given to train in. Left out: what the cache will spare.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from workbench.dimensions import Choice, Range
from workbench.draft import ModelFacts
from workbench.errors import UserError
from workbench.recipe import Open, Recipe, Space, contradiction, plugin
from workbench.registry import find
from workbench.techniques.base import Technique, Trained
from workbench.tuning.goal import Goal


@dataclass(frozen=True)
class Effort:
    """`recipes` that can be run, how many of them train, and the minutes of training of all together."""

    recipes: int
    training: int = 0
    training_minutes: float = 0.0

    def minutes(self, seconds: float, trials: int | None = None) -> float:
        """Minutes for `trials` of them (None for all), at so many seconds each besides the training."""
        count = self.recipes if trials is None else min(trials, self.recipes)
        share = count / self.recipes if self.recipes else 0.0
        return count * seconds / 60 + share * self.training_minutes


def effort(space: Space | Recipe, facts: ModelFacts | None = None) -> Effort:
    """What there is to run. What a runtime refuses is not counted; with `facts`, neither is what the model refuses."""
    space = as_space(space)
    known = facts or ModelFacts(architecture="this model")
    total = Effort(0)
    for opened in space.backends:
        backend = _sample("backends", opened)
        if backend.available():
            continue
        steps = []
        for step in space.steps:
            made: Technique = _sample("techniques", step)
            refused = backend.refuses(made.precisions, known) if made.precisions else None
            if refused is None and facts is not None:
                refused = made.fits(facts)
            steps.append((step, made, refused is None))
        if any(not (fits or step.optional) for step, _, fits in steps):
            continue
        plain = not backend.refuses(frozenset({"fp32"}), known)
        found = _counted([(step, made) for step, made, fits in steps if fits], len(space.keeps()), plain)
        factor = _values("backends", opened)
        total = Effort(
            total.recipes + factor * found.recipes,
            total.training + factor * found.training,
            total.training_minutes + factor * found.training_minutes,
        )
    return total


def as_space(space: Space | Recipe) -> Space:
    """A recipe as a space that holds it alone; a space as it is."""
    if isinstance(space, Space):
        return space
    steps = [Open(step.name, **step.settings(changed=True)) for step in space.steps]
    return Space(*steps, backends=[Open(space.backend.name, **space.backend.settings(changed=True))], keep=space.keep)


def refusals(
    techniques: Iterable[str], backends: Iterable[str], facts: ModelFacts | None
) -> list[tuple[str, str, str]]:
    """(technique, runtime, reason) of every pair that cannot be realised; the runtime is '' where the model itself
    does not fit, which is known with `facts` only."""
    neutral = ModelFacts(architecture="this model")
    found = []
    for technique in techniques:
        kind: Any = find("techniques", technique)
        unfit = kind().fits(facts) if facts else None
        if unfit:
            found.append((technique, "", unfit))
            continue
        for name in backends:
            backend: Any = find("backends", name)()
            reason = backend.available() or backend.refuses(kind.precisions or frozenset({"fp32"}), facts or neutral)
            if reason:
                found.append((technique, name, reason))
    return found


def typical_seconds(trials: Iterable[tuple[Sequence[str], float]]) -> tuple[float, int] | None:
    """(the median seconds of a trial that trains nothing, how many there are) from (techniques, seconds) of measured
    trials; None where there is none."""
    seconds = [s for names, s in trials if math.isfinite(s) and s > 0 and not any(map(_trains, names))]
    return (median(seconds), len(seconds)) if seconds else None


def seconds_left(
    goal: Goal, done: float, spent: float, seconds: float | None, recipes: int | None = None
) -> float | None:
    """How long a sweep will still take, None where nothing is known: `done` of its trials (with the running one's
    share), `spent` seconds, `seconds` of a typical trial, `recipes` of its space."""
    ends = []
    if goal.minutes is not None:
        ends.append(60 * goal.minutes - spent)
    most = [n for n in (goal.trials, recipes) if n is not None]
    if most and seconds is not None:
        ends.append((min(most) - done) * seconds)
    return max(min(ends), 0.0) if ends else None


def _trains(name: str) -> bool:
    try:
        return issubclass(find("techniques", name), Trained)
    except UserError:  # A plug-in that is not installed here; whether it trained is not known.
        return False


def _sample(family: str, one: Open) -> Any:
    """The plug-in with what is fixed of its knobs."""
    return plugin(family, one.name, **one.fixed())


def _values(family: str, one: Open) -> int:
    """How many settings a grid tries of one plug-in."""
    count = 1
    for name, dimension in one.opened().items():
        values: Sequence[Any] = dimension.values if isinstance(dimension, Choice) else dimension.grid()
        if isinstance(dimension, Range) and find(family, one.name).knobs()[name].kind == "int":  # type: ignore[attr-defined]
            values = [round(value) for value in values]
        count *= len(set(values))
    return count


def _minutes(one: Open, made: Technique) -> float:
    """The minutes that a step trains; the mean where they are open."""
    if not isinstance(made, Trained):
        return 0.0
    opened = one.opened().get("minutes")
    if opened is None:
        return made.minutes
    values = opened.values if isinstance(opened, Choice) else opened.grid()
    return sum(values) / len(values)


#: Of a set of recipes, by whether a precision is set: how many, how many train, minutes of training.
_Sums = dict[bool, tuple[int, int, float]]


def _counted(steps: list[tuple[Open, Technique]], keeps: int, plain: bool) -> Effort:
    """The recipes of these steps on one runtime, with `keeps` choices of layers to keep where a precision is set;
    not `plain` where the runtime refuses what sets none."""
    sums: _Sums = {False: (1, 0, 0.0), True: (0, 0, 0.0)}
    for group in _groups(steps):
        sums = _times(sums, _alone(group))
    parts = [sums[False]] * plain + [sums[True]] * keeps
    return Effort(sum(p[0] for p in parts), sum(p[1] for p in parts), sum(p[2] for p in parts))


def _groups(steps: list[tuple[Open, Technique]]) -> list[list[tuple[Open, Technique]]]:
    """Steps that have to be looked at together: what excludes another, and what trains, as it shares one run."""
    groups: list[list[tuple[Open, Technique]]] = []
    for step in steps:
        near = [g for g in groups if any(_tied(other[1], step[1]) for other in g)]
        groups = [g for g in groups if g not in near] + [[*itertools.chain(*near), step]]
    # In the space's order, as `contradiction` minds it.
    return [[step for step in steps if step in group] for group in groups]


def _tied(one: Technique, other: Technique) -> bool:
    return (isinstance(one, Trained) and isinstance(other, Trained)) or contradiction((one, other)) is not None


def _alone(group: list[tuple[Open, Technique]]) -> _Sums:
    """Every choice from one group, left out or in."""
    sums: _Sums = {False: (0, 0, 0.0), True: (0, 0, 0.0)}

    def extend(i: int, chosen: list[Technique], count: int, minutes: float) -> None:
        if i == len(group):
            precise = any(made.precisions for made in chosen)
            n, training, spent = sums[precise]
            trains = any(isinstance(made, Trained) for made in chosen)
            sums[precise] = (n + count, training + count * trains, spent + count * minutes)
            return
        step, made = group[i]
        if step.optional:
            extend(i + 1, chosen, count, minutes)
        if all(contradiction((other, made)) is None for other in chosen):
            extend(i + 1, [*chosen, made], count * _values("techniques", step), max(minutes, _minutes(step, made)))

    extend(0, [], 1, 0.0)
    return sums


def _times(one: _Sums, other: _Sums) -> _Sums:
    """Every choice of the one with every choice of the other; only one of the two trains."""
    found: _Sums = {False: (0, 0, 0.0), True: (0, 0, 0.0)}
    for (a, left), (b, right) in itertools.product(one.items(), other.items()):
        n, training, minutes = found[a or b]
        found[a or b] = (
            n + left[0] * right[0],
            training + left[1] * right[0] + right[1] * left[0],
            minutes + left[2] * right[0] + right[2] * left[0],
        )
    return found
