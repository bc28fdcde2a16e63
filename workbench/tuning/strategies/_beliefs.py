"""What a search believes of recipes that it has not tried: their drop and their cost, each with its doubt.

The drop is learned from trials and from looks at some examples, each as sure as its interval; the cost from trials,
around what the layers' own milliseconds add up to where a profiler told them. Both are an additive model with a
Gaussian process for what does not add up. Left out: how drop and cost depend on each other.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from workbench.draft import resolve_keep
from workbench.errors import UserError
from workbench.measure.estimate import Z
from workbench.recipe import Recipe
from workbench.trial import Trial
from workbench.tuning.goal import Goal
from workbench.tuning.questions import Row
from workbench.tuning.strategies._ask_tell import objectives
from workbench.tuning.strategies._features import features
from workbench.tuning.strategies._gp import fit, hypervolume_improvement, phi, transformed
from workbench.tuning.strategies._session import precision_step

#: The least that is taken for the allowed drop when drops are put on one scale, in points of the metric.
_LEAST_DROP = 0.002
#: Doubt of a cost that was measured, that some calls or a look were seen to take, and that was added up from layers, as
#: shares of it.
_MEASURED, _SEEN, _ADDED = 0.03, 0.12, 0.3


@dataclass
class Beliefs:
    """Over `recipes`, which are fixed; `ms` holds milliseconds by layer (and by what is none) by runtime and precision,
    `scores` the sensitivity of each layer; of the `walls` among them whole calls were timed. `score` is the baseline's
    once it is known."""

    recipes: Sequence[Recipe]
    goal: Goal
    layers: Sequence[str]
    scores: Mapping[str, float]
    ms: Mapping[tuple[str, str], Mapping[str, float]]
    walls: Collection[tuple[str, str]] = ()
    trials: dict[int, tuple[float, float]] = field(default_factory=dict)
    looks: dict[int, Row] = field(default_factory=dict)
    score: float = 1.0
    margin: float = 0.0

    def __post_init__(self) -> None:
        bare = features([recipe.keeping(()) for recipe in self.recipes])
        kept = [_resolved(recipe, self.layers) for recipe in self.recipes]
        self._x = np.column_stack([bare, [self._unprotected(r, k) for r, k in zip(self.recipes, kept, strict=True)]])
        self._prior = np.array([self._added_up(r, k) for r, k in zip(self.recipes, kept, strict=True)])
        known = self._prior[np.isfinite(self._prior)]
        # Until a trial says what that is of the baseline's, the slowest is taken to be as slow as it.
        usual = float(np.median(known)) if len(known) else 0.0
        self._prior = np.where(np.isfinite(self._prior), self._prior, usual) - (known.max() if len(known) else 0.0)
        plain = [i for i, r in enumerate(self.recipes) if r.keep == self.recipes[0].keep and _only_precise(r)]
        self._timed = [i for i in plain if self._key(self.recipes[i]) in self.walls]
        self._untouched = [i for i, r in enumerate(self.recipes) if not r.steps]
        backends = sorted({repr(r.backend) for r in self.recipes})
        self._runtime = np.array([[repr(r.backend) == name for name in backends] for r in self.recipes], dtype=float)

    # --- learning ---------------------------------------------------------------------------------------------

    def learn(self, index: int, trial: Trial | None) -> None:
        """Take in what a trial measured; one without numbers teaches nothing."""
        values = objectives(trial, self.goal)
        if values and trial and trial.measurement:
            self.trials[index] = values
            self.margin = max(self.margin, self.goal.bound(trial.measurement) - values[0])

    @property
    def allowed(self) -> float:
        """The drop up to which the front counts, in points of the metric."""
        return max(self.goal.allowed_drop(self.score), 1e-9)

    # --- believing --------------------------------------------------------------------------------------------

    @property
    def scale(self) -> float:
        """Drops run from nothing to all there is: the inverse hyperbolic sine of a drop over this is what is believed
        to be normal, so that what matters is as wide as the rest."""
        return max(self.allowed, _LEAST_DROP)

    def drops(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of every recipe's drop, on the scale above."""
        seen: dict[int, tuple[float, float]] = dict.fromkeys(self._untouched, (0.0, self.scale / 10))
        seen |= {i: (row["drop"], max((row["high"] - row["low"]) / 2 / Z, 1e-6)) for i, row in self.looks.items()}
        seen |= {i: (drop, self.scale / 20) for i, (drop, _) in self.trials.items()}
        if not seen:
            return np.zeros(len(self.recipes)), np.ones(len(self.recipes))
        where = list(seen)
        drop, doubt = (np.array([seen[i][k] for i in where]) for k in (0, 1))
        y, noise = np.arcsinh(drop / self.scale), doubt / np.sqrt(drop**2 + self.scale**2)
        return self._regress(self._x[where], y, noise, self._x, smooth=0.3, linear=1.0)

    def costs(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the logarithm of every recipe's cost (of its negative inverse, a throughput).

        Where latency is the cost, calls that were timed before any trial count too: they are what is believed
        beforehand, and little can be wrong with it. So does the time that looks took, less what it is off by on each
        runtime: looks run over the data's own lengths.
        """
        latency = self.goal.minimise in ("latency", "latency_p90")
        seen = {i: r["ratio"] for i, r in self.looks.items() if latency and r.get("ratio") and i not in self.trials}
        timed = [i for i in self._timed if latency and i not in self.trials]
        if not self.trials and not seen and not timed:
            return self._prior, np.full(len(self.recipes), _ADDED)
        tried, looked = list(self.trials), list(seen)
        measured = np.array([self._positive(self.trials[i][1]) for i in tried] + [seen[i] for i in looked])
        y = np.log(np.maximum(measured, 1e-9)) - self._prior[tried + looked]
        known = y[: len(tried)] if tried else y
        centre = float(np.median(known)) if tried or not timed else 0.0
        y = np.concatenate([y - centre, np.zeros(len(timed))])
        noise = np.array([_MEASURED] * len(tried) + [_SEEN] * (len(looked) + len(timed)))
        where = tried + looked + timed
        # One more slope for each runtime, which only looks have: what they are off by.
        by_look = np.zeros_like(self._runtime[where])
        by_look[len(tried) : len(tried) + len(looked)] = 3.0 * self._runtime[looked]
        x = np.column_stack([self._x[where], by_look])
        every = np.column_stack([self._x, np.zeros_like(self._runtime)])
        mean, deviation = self._regress(x, y, noise, every, smooth=0.05, linear=0.1)
        return self._prior + centre + mean, deviation

    def promise(self) -> np.ndarray:
        """What a full evaluation of each recipe is expected to bring: growth of the front's area, and where a single
        recipe is wanted, its expected advantage too. Both are shares of what is there."""
        drop, cost = self.drops(), self.costs()
        known = np.array(list(self.trials.values())).reshape(-1, 2)
        worst = self._worst(known, cost[0])
        less = transformed(*drop, lambda z: self.scale * np.sinh(np.clip(z, -8, 8)))
        cheaper = transformed(*cost, lambda z: self._signed(np.exp(z)))
        grown = hypervolume_improvement(known, (self.allowed, worst), less, cheaper)
        grown = grown / (self.allowed * abs(worst) + 1e-12)
        if self.goal.front:
            return grown
        passing = known[known[:, 0] <= self.allowed - self.margin + 1e-12]
        best = float(passing[:, 1].min()) if len(passing) else worst
        limit = np.arcsinh((self.allowed - self.margin) / self.scale)
        return grown + phi((limit - drop[0]) / drop[1]) * cheaper(best) / (abs(best) + 1e-12)

    def _worst(self, known: np.ndarray, cost: np.ndarray) -> float:
        if self.goal.minimise in ("latency", "latency_p90"):
            return 1.0
        return float(max([self._signed(np.exp(cost)).max(), *known[:, 1]]))

    def _positive(self, cost: float) -> float:
        return -1 / min(cost, -1e-12) if self.goal.minimise == "throughput" else cost

    def _signed(self, positive: np.ndarray) -> np.ndarray:
        return -1 / positive if self.goal.minimise == "throughput" else positive

    def _regress(
        self, x: np.ndarray, y: np.ndarray, noise: np.ndarray, at: np.ndarray, *, smooth: float, linear: float
    ) -> tuple[np.ndarray, np.ndarray]:
        lengths = np.full(x.shape[1], np.sqrt(self._x.shape[1]) / 2)
        return fit(x, y, noise, lengths, smooth, linear).predict(at)

    # --- what is known beforehand -------------------------------------------------------------------------------

    def _unprotected(self, recipe: Recipe, kept: frozenset[str]) -> float:
        """The share of the layers' sensitivity that a recipe with a precision step leaves exposed; 0 without one."""
        if precision_step(recipe) is None:
            return 0.0
        total = sum(self.scores.values())
        return sum(s for name, s in self.scores.items() if name not in kept) / total if total > 0 else 1.0

    def _key(self, recipe: Recipe) -> tuple[str, str]:
        return repr(recipe.backend), repr(precision_step(recipe))

    def _added_up(self, recipe: Recipe, kept: frozenset[str]) -> float:
        """Logarithm of the milliseconds that the layers' own add up to, kept ones at their uncompressed cost; NaN
        where they are not known. What changes the module is left for the trials to tell."""
        step, own = precision_step(recipe), self.ms.get(self._key(recipe))
        if own is None:
            return math.nan
        plain = self.ms.get((repr(recipe.backend), repr(None)), own)
        total = sum(plain.get(name, ms) if step and name in kept else ms for name, ms in own.items())
        return math.log(total) if total > 0 else math.nan


def _only_precise(recipe: Recipe) -> bool:
    return all(step.precisions for step in recipe.steps) and not recipe.minutes()


def _resolved(recipe: Recipe, layers: Sequence[str]) -> frozenset[str]:
    try:
        return resolve_keep(recipe.keep, layers) if layers else frozenset()
    except UserError:
        return frozenset()
