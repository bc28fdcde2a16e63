"""What strategies that draw at random share: a point of the space whose recipe was not tried yet."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Container
from functools import lru_cache
from typing import Any

from workbench.dimensions import Range, draw
from workbench.errors import RecipeError
from workbench.recipe import Recipe, Space

#: Draws in vain before the grid is looked through for what is left.
PATIENCE = 100
#: Most points of a space that are listed rather than drawn from.
LISTED = 5000


def fresh(space: Space, rng: random.Random, seen: Container[str]) -> tuple[dict[str, Any], Recipe] | None:
    """A point and its recipe, whose id is not in `seen`; None when there is nothing left.

    Each dimension is drawn on its own. When that finds nothing new, one of the grid's recipes that are left is drawn;
    a range of real numbers never runs out.
    """
    dimensions = space.dimensions()
    for _ in range(PATIENCE):
        point = {name: draw(dimension, rng) for name, dimension in dimensions.items()}
        recipe = at(space, point)
        if recipe is not None and recipe.id not in seen:
            return point, recipe
    left = [(point, recipe) for point in space.points() if (recipe := at(space, point)) and recipe.id not in seen]
    return rng.choice(left) if left else None


def pool(space: Space, rng: random.Random, seen: Container[str], size: int) -> list[Recipe]:
    """Up to `size` different recipes at random whose ids are not in `seen`; empty when there is nothing left."""
    every = listed(space)
    if every is not None:
        left = [recipe for recipe in every if recipe.id not in seen]
        return rng.sample(left, min(size, len(left)))
    found: dict[str, Recipe] = {}
    dimensions = space.dimensions()
    for _ in range(2 * size):
        point = {name: draw(dimension, rng) for name, dimension in dimensions.items()}
        recipe = at(space, point)
        if recipe is not None and recipe.id not in seen:
            found[recipe.id] = recipe
        if len(found) == size:
            break
    if not found and (last := fresh(space, rng, seen)):
        found[last[1].id] = last[1]
    return list(found.values())


def listed(space: Space) -> tuple[Recipe, ...] | None:
    """Every recipe of a finite space; None where a range of numbers is open, or there are too many."""
    return _listed(json.dumps(space.to_json(), sort_keys=True))


@lru_cache(maxsize=8)
def _listed(space: str) -> tuple[Recipe, ...] | None:
    opened = Space.from_json(json.loads(space))
    if any(isinstance(dimension, Range) for dimension in opened.dimensions().values()):
        return None
    found = tuple(itertools.islice(opened.recipes(), LISTED + 1))
    return found if len(found) <= LISTED else None


def at(space: Space, point: dict[str, Any]) -> Recipe | None:
    """The recipe at a point, or None where its techniques contradict each other."""
    try:
        return space.build(point)
    except RecipeError:
        return None
