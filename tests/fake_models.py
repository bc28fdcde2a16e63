"""A study of a few trials with made-up answers, and models without a process: what looks at trials is tested on them.

The baseline is right in all but every tenth example; the others have flipped the examples that are given.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

import workbench
from workbench.errors import TrialError, UserError
from workbench.measure.estimate import Estimate
from workbench.measure.measurement import Measurement
from workbench.measure.outcomes import Outcomes
from workbench.recipe import Recipe
from workbench.running.models import Dropped
from workbench.table import frame_of, row_of
from workbench.trial import Trial

EXAMPLES = 40
NAMES = ("negative", "positive")
LAYERS = (*tuple(f"encoder.layer.{i}.{part}" for i in range(2) for part in ("query", "dense")), "classifier")
#: number -> (techniques, runtime, flipped examples with the confidence in the new answer)
TRIALS: dict[int, tuple[tuple, str, dict[int, float]]] = {
    0: ((), "Eager", {}),
    1: (("StaticInt8",), "OpenVINO", {3: 0.9, 10: 0.6, 7: 0.75}),
    2: (("DropLayers", "StaticInt8"), "OpenVINO", {3: 0.99, 4: 0.8, 5: 0.7, 20: 0.55}),
}


def outcomes(flipped: dict[int, float], names: int = 2) -> Outcomes:
    """Every answer with 0.8; the flipped ones with their own confidence."""
    labels = np.arange(EXAMPLES) % 2
    predictions = np.where(np.arange(EXAMPLES) % 10 == 0, 1 - labels, labels)
    sure = np.full(EXAMPLES, 0.8)
    for example, confidence in flipped.items():
        predictions[example], sure[example] = 1 - predictions[example], confidence
    return Outcomes(predictions, labels, sure, classes=names)


def measurement(number: int, found: Outcomes, base: Outcomes) -> Measurement:
    speed = Estimate(1.0 + number, 0.9 + number, 1.1 + number, 12, "×")
    layers = {name: "int8" if number and name != "classifier" else "fp32" for name in LAYERS}
    effect = {"precision": {"int8": 0.9, "fp32": 0.1}, "layers": layers, "nodes": {"Convert": 3, "MatMul": 5}}
    from workbench.measure.accuracy import score_of

    made = Measurement(
        accuracy=score_of("accuracy", found),
        metric="accuracy",
        split="select",
        correct=found.correct,
        latency_ms={"p50": 40 / (1 + number), "p90": 41.0, "p99": 45.0},
        speedup=speed,
        noise=Estimate(1.0, 0.98, 1.02, 12, "×"),
        size_mb=91.0 / (1 + number),
        parameters=22_000_000,
        macs=1_400_000_000,
        in_effect=effect,
        machine={"cpu": "no machine"},
        outcomes=found,
    )
    return made.against(Measurement(accuracy=made.accuracy, metric="accuracy", outcomes=base))


class LookedAt:
    """Stands for a `Study`: three trials, whose artifacts are folders that need not be there."""

    def __init__(self, folder: str | Path = "looked-at", evil: str = "", trials: int = 3) -> None:
        self.folder, self.name, self.evil = Path(folder), Path(folder).name, evil
        self.prepared = {"labels": [f"{name}{evil}" for name in NAMES], "describe": {"model": f"./model{evil}"}}
        self.task = SimpleNamespace(name="demo", to_json=lambda: {"name": "demo"}, labels=NAMES)
        self.goal, self.sweep, self.calls = None, None, []
        self.timed: dict[str, pd.DataFrame] = {}
        self.scanned_layers: dict[str, float] = {}
        base = outcomes({})
        self.trials = [
            Trial(n, recipe(n), "complete", measurement(n, outcomes(TRIALS[n][2]), base)) for n in range(trials)
        ]
        self.trials.append(Trial(trials, recipe(1), "failed", error=f"The compiler gave up.{evil}"))

    def to_json(self) -> dict[str, Any]:
        return {"sweep": self.sweep and self.sweep.to_json()}

    def code(self, trial: Trial) -> str:
        return f"Study('x').run({trial.recipe!r})"

    def frame(self) -> Any:
        self.calls.append("frame")
        return frame_of([row_of(trial, self.code(trial)) for trial in self.trials])

    def costs(self, recipe: Recipe) -> pd.DataFrame:
        """A layer takes a millisecond, more with each technique, and 5 go elsewhere."""
        ms = [1.0 + len(recipe.steps)] * len(LAYERS)
        rows = {
            "layer": [*LAYERS, "", ""],
            "kind": [*["MatMul"] * len(LAYERS), "Add", "Softmax"],
            "ms": [*ms, 3.0, 2.0],
        }
        self.timed[recipe.id] = pd.DataFrame(rows)
        return self.timed[recipe.id]

    def costed(self, recipe: Recipe) -> pd.DataFrame | None:
        return self.timed.get(recipe.id)

    def scans(self) -> pd.DataFrame:
        rows = [("1", "cost", "costs", "done"), ("2", "scan", f"kl of static_int8{self.evil}", "done")]
        rows.append(("3", "scan", "one that runs", "running"))
        return pd.DataFrame(rows if self.scanned_layers else [], columns=["id", "kind", "title", "state"])

    def scanned(self, name: str) -> pd.DataFrame:
        assert name == "2"
        return pd.DataFrame({"layer": list(self.scanned_layers), "score": list(self.scanned_layers.values())})

    def artifact(self, number: int) -> Any:
        trial = next((t for t in self.trials if t.number == number), None)
        if trial is None:
            raise UserError(f"no trial {number}")
        if trial.measurement is None:
            raise TrialError(f"Trial {number} left no model.")
        blocks = [0, 1] if number != 2 else [0]
        manifest = {
            "recipe": trial.recipe.to_json(),
            "recipe_id": trial.recipe.id,
            "blocks": blocks,
            "block_path": "encoder.layer",
            "labels": list(NAMES),
            "task": "fingerprint",
            "notes": [f"a note{self.evil}"],
            "created": "2026-01-01T00:00:00",
            "machine": {"cpu": "no machine"},
        }
        return SimpleNamespace(folder=self.folder / "artifacts" / str(number), manifest=manifest)


def recipe(number: int) -> Recipe:
    techniques, runtime, _ = TRIALS[number]
    return Recipe(*(getattr(workbench, name)() for name in techniques), backend=getattr(workbench, runtime)())


class FakeModels:
    """Stands for `Models`: trial 0 says positive to what holds "good", the others to everything that is long."""

    def __init__(self, evil: str = "", error: Exception | None = None) -> None:
        self.evil, self.error, self.asked = evil, error, []

    def ask(self, do: str, *, say: Any = lambda text: None, dropped: Any = lambda: False, **request: Any) -> dict:
        if dropped():
            raise Dropped
        self.asked.append((do, request))
        if self.error:
            raise self.error
        return getattr(self, do)(**request)

    def examples(self, task: dict, split: str, limit: int | None) -> dict[str, Any]:
        return {"texts": [[f"text {i}{self.evil}"] for i in range(EXAMPLES)][:limit]}

    def answer(self, folder: str, texts: list, calls: int) -> dict[str, Any]:
        base = Path(folder).name == "0"
        odds = [0.9 if ("good" in text[0] if base else len(text[0]) > 8) else 0.2 for text in texts]
        names = [f"{name}{self.evil}" for name in NAMES]
        return {"labels": names, "probabilities": [[1 - o, o] for o in odds], "ms": [4.0 if base else 1.5] * len(texts)}

    def layers(self, folder: str) -> dict[str, Any]:
        layers = LAYERS if Path(folder).name != "2" else tuple(n for n in LAYERS if ".1." not in n)
        rows = {f"{n}{self.evil}": {"macs": 100, "outside": 8, "inside": 4, "sparsity": 0.25} for n in layers}
        return {"layers": rows, "why": ""}

    def histogram(self, layers: list, bins: int) -> dict[str, Any]:
        facts = {"count": 32, "zeros": 0.25, "deviation": 0.1, "low": -1.0, "high": 1.0}
        return {
            "edges": np.linspace(-1, 1, bins + 1).tolist(),
            "counts": [[1] * bins for _ in layers],
            "facts": [facts for _ in layers],
            "noise_db": 40.0 if len(layers) > 1 else None,
            "found": [True] * len(layers),
        }

    def activations(self, layers: list, texts: list, bins: int) -> dict[str, Any]:
        found = self.histogram(layers, bins)
        return {**found, "noise_db": None, "facts": [{**one, "distinct": 30} for one in found["facts"]]}
