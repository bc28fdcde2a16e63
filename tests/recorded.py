"""A study as a table: many measured configurations of one space, and what their scans, profiles and looks said.

Strategies are replayed on it, on equal terms: a recipe of the table is answered with what was measured, any other is
refused; a question is answered from the record, or not at all. `synthetic` makes such a table out of nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from workbench.draft import ModelFacts, resolve_keep
from workbench.errors import RecipeError
from workbench.measure.accuracy import paired_proportions
from workbench.measure.estimate import Estimate, proportion
from workbench.measure.measurement import Measurement
from workbench.recipe import Choice, Open, Recipe, Space
from workbench.trial import Trial
from workbench.tuning.front import hypervolume
from workbench.tuning.goal import Goal
from workbench.tuning.questions import Costs, Facts, Peek, Question, Scan, Unanswered

#: Prefixes of the selection split at which right answers lost and gained are kept.
LOOKS = (32, 64, 128, 256, 512)


@dataclass
class Table:
    """`rows`: recipe id -> what was measured, `error` where nothing was. `scans`: "technique probe" -> layer -> score.
    `costs`: recipe id -> rows of layer and ms. `correct` of `examples` are the baseline's right answers."""

    space: Space
    facts: ModelFacts
    correct: int
    examples: int
    points: list[dict[str, Any]] = field(default_factory=list)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    scans: dict[str, dict[str, float]] = field(default_factory=dict)
    costs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def trial(self, recipe: Recipe, number: int = 1) -> Trial:
        """What came of a recipe: measured, failed, or refused where the table does not hold it."""
        row = self.rows.get(recipe.id)
        if row is None:
            return Trial(-1, recipe, "refused", error="not in the table")
        if row.get("error"):
            return Trial(number, recipe, "failed", error=row["error"], seconds=row.get("seconds", 0.0))
        lost, gained, n = row["lost"], row["gained"], self.examples
        measured = Measurement(
            accuracy=proportion(self.correct - lost + gained, n),
            metric="accuracy",
            drop=paired_proportions(lost, gained, n),
            correct=self.correct - lost + gained,
            flips_lost=lost,
            flips_gained=gained,
            speedup=Estimate(row["speedup"], row.get("low", row["speedup"]), row.get("high", row["speedup"]), 50, "×"),
            size_mb=row.get("size"),
        )
        return Trial(number, recipe, "complete", measured, seconds=row.get("seconds", 0.0))

    def answer(self, question: Question) -> Any:
        """What the record says. A scan with layers kept is read off the scan without: the record holds no other."""
        if isinstance(question, Facts):
            return self.facts
        if isinstance(question, Scan):
            found = self.scans.get(f"{question.technique.name} {question.probe}")
            if found is None:
                return Unanswered("no such scan was recorded")
            kept = resolve_keep(question.keep, self.facts.layers)
            return [{"layer": k, "score": v} for k, v in found.items() if k not in kept]
        if isinstance(question, Costs):
            return self.costs.get(question.recipe.id) or Unanswered("this was not profiled")
        assert isinstance(question, Peek)
        row = self.rows.get(question.recipe.id)
        if row is None or row.get("error"):
            return Unanswered("not in the table")
        size = max([n for n in LOOKS if n <= question.examples] or LOOKS[:1])
        lost, gained = row["looks"][LOOKS.index(size)]
        drop = paired_proportions(lost, gained, size)
        numbers = {"drop": drop.value, "low": drop.low, "high": drop.high}
        hint = {"ratio": 1 / row["speedup_real"]} if row.get("speedup_real") else {}
        return [{"examples": question.examples, "lost": lost, "gained": gained, **numbers, **hint}]

    def best(self, goal: Goal) -> float:
        """The hypervolume of all rows together."""
        return hypervolume(np.array([p for r in self.rows.values() if (p := self._point(r))]), self.reference(goal))

    def reference(self, goal: Goal) -> tuple[float, float]:
        """The corner from which hypervolume counts: the allowed drop, and the baseline's latency."""
        return goal.allowed_drop(self.correct / self.examples), 1.0

    def _point(self, row: dict[str, Any]) -> tuple[float, float] | None:
        return None if row.get("error") else ((row["lost"] - row["gained"]) / self.examples, 1 / row["speedup"])

    # --- files --------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Plain JSON, a line for each configuration; recipes as points of the space."""
        ids = {self.space.build(p).id: p for p in self.points}
        head = {
            "space": self.space.to_json(),
            "facts": {
                "architecture": self.facts.architecture,
                "layers": self.facts.layers,
                "blocks": self.facts.blocks,
            },
            "correct": self.correct,
            "examples": self.examples,
            "scans": self.scans,
            "costs": [[_packed(self.space, ids[k]), v] for k, v in self.costs.items() if k in ids],
        }
        lines = [json.dumps([_packed(self.space, ids[key]), row]) for key, row in self.rows.items()]
        path.write_text(json.dumps(head)[:-1] + ',\n"rows": [\n' + ",\n".join(lines) + "\n]}\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Table:
        """The table that `save` wrote."""
        data = json.loads(path.read_text(encoding="utf-8"))
        space = Space.from_json(data["space"])
        facts = ModelFacts(**{**data["facts"], "layers": tuple(data["facts"]["layers"])})
        table = cls(space, facts, data["correct"], data["examples"], scans=data["scans"])
        for packed, row in data["rows"]:
            table.add(_unpacked(space, packed), row)
        table.costs = {space.build(_unpacked(space, p)).id: rows for p, rows in data["costs"]}
        return table

    def add(self, point: dict[str, Any], row: dict[str, Any]) -> None:
        """One more configuration."""
        self.points.append(point)
        self.rows[self.space.build(point).id] = row


def _packed(space: Space, point: dict[str, Any]) -> dict[str, Any]:
    """A point with its choices by their index, so that it survives JSON."""
    dimensions = space.dimensions()
    return {k: d.values.index(v) if isinstance(d := dimensions[k], Choice) else v for k, v in point.items()}


def _unpacked(space: Space, packed: dict[str, Any]) -> dict[str, Any]:
    dimensions = space.dimensions()
    return {k: d.values[v] if isinstance(d := dimensions[k], Choice) else v for k, v in packed.items()}


# --- replay -------------------------------------------------------------------------------------------------------


@dataclass
class Replay:
    """Hypervolume after each full evaluation, and how many questions were asked by then."""

    areas: list[float]
    questions: dict[str, int]

    def needed(self, area: float) -> int | None:
        """Full evaluations until the hypervolume reached `area`; None where it never did."""
        return next((i + 1 for i, found in enumerate(self.areas) if found >= area), None)


def replay(table: Table, strategy: Any, goal: Goal, limit: int) -> Replay:
    """Drive a strategy on a table for `limit` full evaluations; a failed one counts, a refused one does not."""
    search = strategy.search(table.space, goal)
    points: list[tuple[float, float]] = []
    done = Replay([], {})
    try:
        asked = next(search)
        while len(done.areas) < limit:
            if not isinstance(asked, Recipe):
                done.questions[asked.kind] = done.questions.get(asked.kind, 0) + 1
                asked = search.send(table.answer(asked))
                continue
            trial = table.trial(asked, len(done.areas) + 1)
            if trial.state != "refused":
                measured = trial.measurement
                if measured and measured.drop and measured.speedup:
                    points.append((measured.drop.value, 1 / measured.speedup.value))
                done.areas.append(hypervolume(np.array(points), table.reference(goal)))
            asked = search.send(trial)
    except StopIteration:
        pass
    return done


# --- a table out of nothing ---------------------------------------------------------------------------------------

_ROLES = ("attention.query", "attention.key", "attention.value", "attention.output", "inner", "outer")
LAYERS = (*(f"encoder.{i}.{role}" for i in range(6) for role in _ROLES), "pooler", "classifier")
#: Latency of all layers together, as a share of the baseline's, by runtime and precision.
_SPEEDS = {
    "openvino": {None: 0.86, "bf16": 0.33, "dynamic_int8": 0.45, "static_int8": 0.27},
    "onnxruntime": {None: 0.95, "bf16": None, "dynamic_int8": 0.62, "static_int8": 0.75},
}
_HARM = {None: 0.0, "bf16": 0.02, "dynamic_int8": 0.5, "static_int8": 1.0}
_DROPPED, _NARROWED = {0: 0.0, 1: 0.006, 2: 0.03, 3: 0.12}, {1.0: 0.0, 0.75: 0.008, 0.5: 0.05}


def synthetic(seed: int = 0, *, examples: int = 872) -> Table:
    """Six blocks, two runtimes, four precisions, six choices of kept layers, layers dropped and widths halved.

    A layer's harm is heavy-tailed; harms add up and amplify each other; latencies are the sum over layers with noise;
    answers lost and gained are drawn from what that makes of the error.
    """
    rng = np.random.default_rng(seed)
    harm = dict(zip(LAYERS, rng.lognormal(0, 1.5, len(LAYERS)), strict=True))
    total = sum(harm.values())
    # The scan sees the harm through noise.
    seen = {name: value * float(rng.lognormal(0, 0.4)) for name, value in harm.items()}
    order = sorted(LAYERS, key=lambda name: -seen[name])
    weight = dict(zip(LAYERS, [*([1, 1, 1, 1, 4, 4] * 6), 0.1, 0.05], strict=True))
    whole = sum(weight.values())
    space = Space(
        Open("drop_layers", optional=True, count=Choice(1, 2, 3)),
        Open("prune_structured", optional=True, budget=Choice(0.75, 0.5)),
        "bf16",
        "dynamic_int8",
        "static_int8",
        backends=["openvino", "onnxruntime"],
        keep=Choice((), *(tuple(order[:n]) for n in (1, 2, 4, 8, 16))),
    )
    table = Table(space, ModelFacts("Synthetic", layers=LAYERS, blocks=6), round(0.9 * examples), examples)
    table.scans = {f"static_int8 {probe}": seen for probe in ("kl", "mse", "nmse", "hessian_trace")}
    spoiled = float(rng.uniform(0.02, 0.04))
    for point in space.points():
        try:
            recipe = space.build(point)
        except RecipeError:
            continue
        knobs = {step.name: step for step in recipe.steps}
        kind = next((name for name in knobs if name in _HARM), None)
        speed = _SPEEDS[recipe.backend.name][kind]
        if recipe.id in table.rows or speed is None:
            continue
        kept = resolve_keep(recipe.keep, LAYERS) if recipe.keep else frozenset()
        dropped = getattr(knobs.get("drop_layers"), "count", 0)
        budget = getattr(knobs.get("prune_structured"), "budget", 1.0)
        plain = _SPEEDS[recipe.backend.name][None]
        ms = {name: 10 * weight[name] / whole * (plain if name in kept else speed) for name in LAYERS}
        ms["other"] = 1.0 * (0.6 if kind else 1.0)
        if not ({"drop_layers", "prune_structured"} & knobs.keys()) and not recipe.keep:
            table.costs[recipe.id] = [{"layer": k, "ms": v * float(rng.lognormal(0, 0.1))} for k, v in ms.items()]
        latency = sum(ms.values()) / 11 * (1 - dropped / 6 * 0.95) * (0.15 + 0.85 * budget) * rng.lognormal(0, 0.02)
        left = sum(value for name, value in harm.items() if name not in kept) / total
        parts = [spoiled * _HARM[kind] * left, _DROPPED[dropped], _NARROWED[budget]]
        error = sum(parts) + 8 * (sum(parts) ** 2 - sum(p**2 for p in parts))
        lost, gained = _flips(rng, min(error, 0.4), table)
        looks = [[int(lost[:n].sum()), int(gained[:n].sum())] for n in LOOKS]
        row = {"lost": int(lost.sum()), "gained": int(gained.sum()), "speedup": float(1 / latency), "looks": looks}
        # Over the data's own lengths the second runtime gains more.
        real = (1.0 if recipe.backend.name == "openvino" else 1.4) * rng.lognormal(0, 0.1) / latency
        table.add(point, {**row, "speedup_real": float(real), "seconds": 15.0})
    return table


def _flips(rng: np.random.Generator, error: float, table: Table) -> tuple[np.ndarray, np.ndarray]:
    """Which answers are lost and which gained; what is wrong flips to right about as often as chance has it."""
    right = np.zeros(table.examples, dtype=bool)
    right[rng.permutation(table.examples)[: table.correct]] = True
    base = 0.4 * error + 0.0005
    chance = rng.random(table.examples)
    return right & (chance < error / 0.9 + base), ~right & (chance < min(4 * base, 0.5))
