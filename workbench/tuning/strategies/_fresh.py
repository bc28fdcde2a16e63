"""What strategies that draw at random share: a point of the space whose recipe was not tried yet."""

from __future__ import annotations

import random
from collections.abc import Container
from typing import Any

from workbench.dimensions import draw
from workbench.errors import RecipeError
from workbench.recipe import Recipe, Space

#: Draws in vain before the grid is looked through for what is left.
PATIENCE = 100


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


def at(space: Space, point: dict[str, Any]) -> Recipe | None:
    """The recipe at a point, or None where its techniques contradict each other."""
    try:
        return space.build(point)
    except RecipeError:
        return None
