"""Frontier: spend full evaluations only where the front of drop and cost can move.

Ours. What it takes from others: layers ranked by one scan, as Neural Compressor and NNCF do; expected hypervolume
improvement (Emmerich et al. 2008); tests that end as soon as they are clear (O. Maron, A. Moore, "Hoeffding races",
NeurIPS 1994). Left out: how long a recipe takes to build; but what must be trained is never looked at, only tried.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Generator
from typing import Any

import numpy as np

from workbench.knobs import knob
from workbench.recipe import Choice, Recipe, Space
from workbench.tuning.goal import Goal
from workbench.tuning.questions import Costs, Peek, Question, Row, Scan, Unanswered, ranking
from workbench.tuning.strategies._beliefs import Beliefs
from workbench.tuning.strategies._fresh import listed, pool
from workbench.tuning.strategies._session import Session, Walk, precision_step, quantizing
from workbench.tuning.strategies.base import Search, Strategy

Layers = dict[str, float]
#: A second look at a candidate takes this many times the examples of the first.
CLOSER = 2
#: Looks at techniques alone before the first full evaluation, and the most that may be saved up, both times `looks`.
FIRST = 3
#: About as many recipes as are considered with layers kept along the ranking.
CANDIDATES = 1500
#: Of a space that cannot be listed, as many recipes from its grid, and as many at random.
DRAWN = 100
#: Layers kept together along the ranking: steps of the ladder on which bisection walks.
RUNGS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


class Frontier(Strategy):
    """Rank layers by one scan and by time saved, look before each trial, and try where the front can move.

    Source: the workbench's own; M. Emmerich et al., Leiden 2008 (expected hypervolume improvement). Order: (1) ask the
    profiler what each layer costs, for each runtime and precision, and a scan how much each one hurts; (2) look at the
    cheapest quantized recipe on some examples, and walk by bisection along the layers, ranked by harm for each
    millisecond saved, to the fewest kept that still seem to meet the goal; look at each technique alone; (3) again and
    again: believe drop and cost of every recipe from trials, looks and layer costs; look at the most promising one on
    some examples, closer where the paired interval is not clear, and try it in full only if it stays the most
    promising, until the budget is spent. An unanswered question costs nothing but its help. Cost: a scan, a profile for
    each runtime and precision, a look at each technique, and up to `looks` looks a trial. Helps whenever a trial takes
    much longer than a look.
    """

    name = "frontier"

    samples: int = knob(128, low=1, high=100_000, unit="examples", help="examples of the scan")
    examples: int = knob(256, low=8, high=100_000, unit="examples", help="examples of a first look")
    profiles: int = knob(24, low=0, high=1000, help="most recipes that are profiled by layer beforehand")
    looks: int = knob(4, low=0, high=100, unit="looks", help="most looks for each full evaluation")

    def search(self, space: Space, goal: Goal) -> Search:
        """Yield questions and recipes; ends when the space is exhausted."""
        session = Session(space, goal)
        yield from session.begin()
        plain = _plain(space, session, self.seed)
        if not plain:
            yield from session.rest()
            return
        ms, walls = yield from _profile(plain, self.profiles)
        scores = yield from self._scan(session, plain)
        order = _order(scores, ms, session.layers)
        beliefs = Beliefs(_candidates(space, session, plain, order), goal, session.layers, scores, ms, walls)
        if self.looks:
            yield from self._bisect(session, beliefs, plain, order)
            yield from self._one_at_a_time(beliefs)
        # A task on which no look was answered gives none later either.
        yield from self._refine(session, beliefs, looking=bool(beliefs.looks))
        yield from session.rest()

    # --- (1) -------------------------------------------------------------------------------------------------------

    def _scan(self, session: Session, plain: list[Recipe]) -> Generator[Recipe | Question, Any, Layers]:
        """How much each layer hurts; the last layers most where no scan tells."""
        fallback = {name: 1.0 + i for i, name in enumerate(session.layers)}
        steps = [step for recipe in quantizing(plain) if (step := precision_step(recipe))]
        if not steps or not session.layers:
            return fallback
        # Static ranges hurt most; what is sensitive to them is worth keeping elsewhere too.
        step = next((s for s in steps if "int8_static" in s.precisions), steps[0])
        scores = ranking((yield Scan(step, "kl", samples=self.samples)), session.layers)
        if scores is None:
            return fallback
        worst = max(score for score in scores.values() if math.isfinite(score))
        return {name: score if math.isfinite(score) else 2 * worst for name, score in scores.items()}

    # --- (2) -------------------------------------------------------------------------------------------------------

    def _bisect(self, session: Session, beliefs: Beliefs, plain: list[Recipe], order: list[str]) -> Walk:
        """Look at the cheapest quantized recipe, and where that loses too much, halve the ladder of layers kept."""
        cheap, _ = beliefs.costs()
        where = {recipe.id: i for i, recipe in enumerate(beliefs.recipes)}
        bases = [r for r in quantizing(plain) if all(step.precisions for step in r.steps) and not r.minutes()]
        if not bases:
            return
        base = min(bases, key=lambda r: cheap[where[r.id]])
        row = yield from self._look(beliefs, where[base.id], self.examples)
        if row is None or row["drop"] <= beliefs.allowed:
            return
        ladder = [one for one in _ladder(session, base, order) if one.id in where]
        low, high = 0, len(ladder) - 1
        while low <= high:
            middle = (low + high) // 2
            row = yield from self._look(beliefs, where[ladder[middle].id], self.examples)
            if row is None:
                return
            low, high = (low, middle - 1) if row["drop"] <= beliefs.allowed else (middle + 1, high)

    def _one_at_a_time(self, beliefs: Beliefs) -> Walk:
        """Look at each technique, at each of its settings, alone and where it is cheapest."""
        cost, _ = beliefs.costs()
        alone: dict[str, int] = {}
        for i, recipe in enumerate(beliefs.recipes):
            if len(recipe.steps) == 1 and recipe.keep == beliefs.recipes[0].keep and not recipe.minutes():
                name = repr(recipe.steps[0])
                if name not in alone or cost[i] < cost[alone[name]]:
                    alone[name] = i
        wanted = [i for i in alone.values() if i not in beliefs.looks]
        most = FIRST * self.looks
        # More settings than looks: some of them, evenly spread.
        for i in wanted[:: math.ceil(len(wanted) / most) if wanted else 1]:
            yield from self._look(beliefs, i, self.examples)

    # --- (3) -------------------------------------------------------------------------------------------------------

    def _refine(self, session: Session, beliefs: Beliefs, *, looking: bool) -> Walk:
        done: set[int] = set()
        # What cannot be built, gives no numbers or clearly loses too much is tried last.
        hopeless: set[int] = set()
        looks = self.looks if looking else 0
        while len(done) < len(beliefs.recipes):
            index = _most_promising(beliefs, done | hopeless)
            if index is None:
                looking, looks, hopeless = False, 0, set()
                continue
            wanted = self._next_look(beliefs, index) if looks else 0
            if wanted:
                looks -= 1
                row = yield from self._look(beliefs, index, wanted)
                if row is None or row["low"] > beliefs.allowed:
                    hopeless.add(index)
                continue
            if looking and self._next_look(beliefs, index):
                index = _rather_seen(beliefs, index, done | hopeless)
            done.add(index)
            trial = yield from session.attempt(beliefs.recipes[index])
            beliefs.learn(index, trial)
            if trial and trial.measurement:
                beliefs.score = session.score_of(trial)
            looks = min(looks + self.looks, FIRST * self.looks) if looking else 0

    def _next_look(self, beliefs: Beliefs, index: int) -> int:
        """Examples that the next look at a recipe should take; 0 where it is time for a full evaluation."""
        row = beliefs.looks.get(index)
        if row is None:
            return self.examples if _worth_a_look(beliefs.recipes[index]) else 0
        unclear = row["low"] <= beliefs.allowed < row["high"]
        asked = int(row.get("asked") or row["examples"])
        # A data set that is smaller than what was asked for has nothing more to tell.
        return CLOSER * self.examples if unclear and asked < CLOSER * self.examples and row["examples"] == asked else 0

    def _look(self, beliefs: Beliefs, index: int, examples: int) -> Generator[Recipe | Question, Any, Row | None]:
        """What some examples say of a recipe; None where they say nothing."""
        answer = yield Peek(beliefs.recipes[index], examples)
        if (
            isinstance(answer, Unanswered)
            or not answer
            or any(answer[0].get(k) is None for k in ("drop", "low", "high"))
        ):
            return None
        beliefs.looks[index] = {**answer[0], "asked": examples}
        return beliefs.looks[index]


def _most_promising(beliefs: Beliefs, left_out: set[int]) -> int | None:
    promise = beliefs.promise()
    promise[list(left_out)] = -math.inf
    best = int(np.argmax(promise))
    return best if math.isfinite(promise[best]) else None


def _rather_seen(beliefs: Beliefs, index: int, left_out: set[int]) -> int:
    """What to try where no look is left: the best that was looked at, unless `index`, which was not, promises twice as
    much; beliefs without a look are hopes."""
    unseen = {i for i, recipe in enumerate(beliefs.recipes) if i not in beliefs.looks and _worth_a_look(recipe)}
    best = _most_promising(beliefs, left_out | unseen)
    if best is None:
        return index
    promise = beliefs.promise()
    return best if promise[best] >= promise[index] / 2 else index


def _worth_a_look(recipe: Recipe) -> bool:
    """Not the uncompressed model, and not what must be trained first, which takes longer than the trial."""
    return bool(recipe.steps) and not recipe.minutes()


def _plain(space: Space, session: Session, seed: int) -> list[Recipe]:
    """The space's recipes with its own layers kept: all of them, or a part drawn at random beside the grid's."""
    own = space.keeps()[0]
    every = listed(space)
    if every is None:
        grid = itertools.islice(session.plain(), DRAWN)
        every = tuple({r.id: r for r in (*grid, *pool(space, random.Random(seed), set(), DRAWN))}.values())
    # What will be refused is left for the end, where the study hears why.
    return [r for r in every if r.keep == own and not (session.facts and r.refusal(session.facts))]


def _profile(
    plain: list[Recipe], most: int
) -> Generator[Recipe | Question, Any, tuple[dict[tuple[str, str], Layers], set[tuple[str, str]]]]:
    """Milliseconds by layer for each runtime and precision, of the recipes that do nothing else; and those of them of
    which a whole call was timed as well, to which the layers then add up."""
    found: dict[tuple[str, str], Layers] = {}
    walls: set[tuple[str, str]] = set()
    alone = [r for r in plain if all(step.precisions for step in r.steps) and not r.minutes()]
    # What a kept layer costs is known from the uncompressed model, whether that is in the space or not.
    bare = [Recipe(backend=recipe.backend, keep=recipe.keep) for recipe in alone]
    for recipe in itertools.islice({r.id: r for r in (*bare, *alone)}.values(), most):
        answer = yield Costs(recipe)
        if isinstance(answer, Unanswered) or not answer:
            continue
        ms: Layers = {}
        for row in answer:
            if row.get("ms") is not None:
                ms[str(row["layer"])] = ms.get(str(row["layer"]), 0.0) + row["ms"]
        key, wall, total = (
            (repr(recipe.backend), repr(precision_step(recipe))),
            answer[0].get("wall_ms"),
            sum(ms.values()),
        )
        if wall and total:
            # A profiler costs time at every node, and quantized graphs have the more of them.
            ms = {name: one * wall / total for name, one in ms.items()}
            walls.add(key)
        found[key] = ms
    return found, walls


def _order(scores: Layers, ms: dict[tuple[str, str], Layers], layers: tuple[str, ...]) -> list[str]:
    """Layers to keep first: those that hurt most for each millisecond that their compression saves."""
    saved = dict.fromkeys(layers, 0.0)
    for (backend, step), own in ms.items():
        plain = ms.get((backend, repr(None)))
        if plain and step != repr(None):
            for name in layers:
                saved[name] = max(saved[name], plain.get(name, 0.0) - own.get(name, 0.0))
    # A layer that saves next to nothing must not come first for that alone.
    least = 0.1 * max(saved.values(), default=0.0) or 1.0
    return sorted(layers, key=lambda name: -scores[name] / max(saved[name], least))


def _ladder(session: Session, recipe: Recipe, order: list[str]) -> list[Recipe]:
    """`recipe` with more and more layers kept, along the ranking; where `keep` is open, its choices in that order."""
    free = set(session.free(recipe))
    ranked = [name for name in order if name in free]
    if isinstance(session.space.keep, Choice):
        choices = [recipe.keeping(choice) for choice in session.space.keep.values[1:]]
        return sorted(choices, key=lambda r: -len(session.free(r)))
    found = [session.keeping(recipe, ranked[:count]) for count in RUNGS if count < len(ranked)]
    return [one for one in found if one is not None]


def _candidates(space: Space, session: Session, plain: list[Recipe], order: list[str]) -> list[Recipe]:
    """All that will ever be considered: the plain recipes, and those that set a precision with layers kept."""
    precise = [recipe for recipe in plain if precision_step(recipe)]
    # Many recipes share the budget of candidates; each then has fewer rungs.
    wanted = max(1, CANDIDATES // max(1, len(precise)))
    found = {recipe.id: recipe for recipe in plain}
    for recipe in precise:
        ladder = _ladder(session, recipe, order)
        for one in ladder[:: max(1, math.ceil(len(ladder) / wanted))]:
            found.setdefault(one.id, one)
    return list(found.values())
