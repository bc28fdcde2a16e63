"""Recipes as numbers, so that what was measured of one says something of the next.

Every plug-in is a feature, 1 where it takes part; a knob that is a number is one, scaled over the recipes at hand; any
other knob is one feature for each value; so is each layer kept, all together at most as far apart as one plug-in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from workbench.knobs import Knobbed
from workbench.recipe import Recipe


def features(recipes: Sequence[Recipe]) -> np.ndarray:
    """Features (recipes, n) of `recipes`, those that never change left out; the order of columns is fixed."""
    rows = [_raw(recipe) for recipe in recipes]
    names = sorted({name for row in rows for name in row})
    table = np.array([[row.get(name, 0.0) for name in names] for row in rows]).reshape(len(rows), len(names))
    if not table.size:
        return np.zeros((len(rows), 1))
    low, high = table.min(axis=0), table.max(axis=0)
    changing = high > low
    return (table[:, changing] - low[changing]) / (high - low)[changing] if changing.any() else np.zeros((len(rows), 1))


@lru_cache(maxsize=20_000)
def _raw(recipe: Recipe) -> dict[str, float]:
    found: dict[str, float] = {f"keep {pattern}": 1.0 for pattern in recipe.keep}
    if recipe.keep:
        found["kept"] = 1.0
    for one in (*recipe.steps, recipe.backend):
        found[one.name] = 1.0
        found |= {f"{one.name}.{name}": value for name, value in _numbers(one).items()}
    return found


def _numbers(one: Knobbed) -> dict[str, float]:
    found = {}
    for name, value in one.settings().items():
        declared = one.knobs()[name]
        if declared.kind in ("int", "float", "bool"):
            low = declared.low or 1e-9
            # One more than the least, so that a technique that takes part is told from one that does not.
            found[name] = 1.0 + (math.log(max(value, low) / low) if declared.log else float(value))
        else:
            found[f"{name}={value}"] = 1.0
    return found
