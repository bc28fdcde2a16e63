"""Bayesian search: a Gaussian process over all that is open, and the recipe from which it expects most.

Left out: Neural Compressor's single objective; here drop and cost have a process each, and what is expected is growth
of the front's hypervolume.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from workbench.knobs import knob
from workbench.recipe import Recipe, Space
from workbench.tuning.goal import Goal
from workbench.tuning.strategies._ask_tell import objectives
from workbench.tuning.strategies._features import features
from workbench.tuning.strategies._fresh import pool
from workbench.tuning.strategies._gp import fit, hypervolume_improvement, normal
from workbench.tuning.strategies.base import Search, Strategy

#: Recipes that were not tried yet among which the next one is chosen.
POOL = 128


class Bayesian(Strategy):
    """Gaussian processes of drop and cost over all that is open; try where the front is expected to grow most.

    Source: D. R. Jones et al., J. Global Optimization 13, 1998; M. Emmerich et al., Leiden 2008 (expected hypervolume
    improvement). Order: `startup` recipes at random, then, of 128 at random, the one that promises most. Cost: some
    milliseconds a trial, growing with the cube of their number. Helps with few trials and knobs that act smoothly.
    """

    name = "bayesian"

    startup: int = knob(8, low=2, high=1000, unit="recipes", help="recipes drawn at random before the model is used")

    def search(self, space: Space, goal: Goal) -> Search:
        """Yield recipes, none twice; ends when the space is exhausted. What has no numbers teaches nothing."""
        rng = random.Random(self.seed)
        seen: set[str] = set()
        known: list[tuple[Recipe, tuple[float, float]]] = []
        while True:
            left = pool(space, rng, seen, 1 if len(known) < self.startup else POOL)
            if not left:
                return
            recipe = left[0] if len(left) == 1 else left[promising(known, left)]
            seen.add(recipe.id)
            values = objectives((yield recipe), goal)
            if values:
                known.append((recipe, values))


def promising(known: list[tuple[Recipe, tuple[float, float]]], left: list[Recipe]) -> int:
    """The index of the recipe in `left` whose measurement is expected to enlarge the front of `known` most."""
    x = features([*(recipe for recipe, _ in known), *left])
    y = np.array([values for _, values in known])
    centre, scale = y.mean(axis=0), y.std(axis=0) + 1e-9
    y = (y - centre) / scale
    lengths = np.full(x.shape[1], np.sqrt(x.shape[1]) / 2)
    noise = np.full(len(y), 0.05)
    beliefs: list[Any] = [fit(x[: len(y)], y[:, i], noise, lengths).predict(x[len(y) :]) for i in (0, 1)]
    drop, cost = (normal(*belief) for belief in beliefs)
    return int(np.argmax(hypervolume_improvement(y, y.max(axis=0) + 0.1, drop, cost)))
