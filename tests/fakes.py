"""A task, two techniques and a backend without any model: the doubles that tests of the store and the runner use.

They are installed as plug-ins through entry points, as another package would install its own: `fake_plugins` in
`conftest.py` puts a `.dist-info` folder on the path. The fake's logits are the labels, less what the recipe's
techniques spoil; its speed is a sleep.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from workbench.backends.base import Backend, Effect, Runner
from workbench.draft import Draft, ModelFacts, Precision
from workbench.errors import DataError
from workbench.knobs import knob
from workbench.recipe import Space
from workbench.sensitivity.probes.base import Probe, Seen
from workbench.tasks.base import Task
from workbench.techniques.base import Technique
from workbench.tuning.goal import Goal
from workbench.tuning.questions import Facts, Peek, Scan, Unanswered
from workbench.tuning.strategies.base import Search, Strategy

ENTRY_POINTS = """\
[workbench.tasks]
fake = fakes:FakeTask
[workbench.techniques]
spoil = fakes:Spoil
trouble = fakes:Trouble
[workbench.backends]
fake = fakes:Fake
[workbench.probes]
sleepy = fakes:Sleepy
[workbench.strategies]
in_order = fakes:InOrder
asker = fakes:Asker
"""

LABELS = np.arange(40) % 2


class FakeTask(Task):
    """Forty examples of two classes; `report` more where asked."""

    name = "fake"
    title = "Fake"
    metric = "accuracy"
    labels = ("no", "yes")

    def __init__(self, report: bool = False, broken: str = "", metric: str = "accuracy", sequence: int = 128) -> None:
        self.report, self.broken = report, broken

    def prepare(self, progress: Any = None) -> None:
        if self.broken:
            raise DataError(self.broken, do="give better data")

    def facts(self) -> ModelFacts:
        return ModelFacts("Fake", layers=("layer.0", "layer.1", "classifier"), blocks=2, parameters=10, baseline="fake")

    def sizes(self) -> dict[str, int]:
        return {"calibration": 0, "select": 40, "report": 40 if self.report else 0}

    def encoded(self, split: str, limit: int | None = None) -> list[Any]:
        return [{"input_ids": [int(label), index]} for index, label in enumerate(LABELS)][:limit]

    def targets(self, split: str, limit: int | None = None) -> np.ndarray:
        return LABELS[:limit]

    def texts(self, split: str, limit: int | None = None) -> list[tuple[str, ...]]:
        return [(f"text {i}",) for i in range(40)][:limit]

    def draft(self) -> Draft:
        return Draft(facts=self.facts(), data=None, inputs=("input_ids",), pad=self.pad(), labels=self.labels)  # type: ignore[arg-type]

    def pad(self) -> dict[str, int]:
        return {"input_ids": 0}

    def save_tokenizer(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    def tokenize(self, texts: Any) -> list[Any]:
        return [{"input_ids": [0, 0]} for _ in texts]

    def fingerprint(self) -> str:
        return f"fake-{self.report}"

    def to_json(self) -> dict[str, Any]:
        return {"name": "fake", "report": self.report, "broken": self.broken}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> FakeTask:
        return cls(data["report"], data["broken"])

    def describe(self) -> dict[str, Any]:
        return {"model": "fake", "notes": []}


class Spoil(Technique):
    """Answer the first `count` examples wrongly."""

    name = "spoil"
    group = "quantization"
    precisions: ClassVar[frozenset[str]] = frozenset({"bf16"})
    count: int = knob(1, low=0, high=40, search=tuple(range(20)), help="examples answered wrongly")

    def apply(self, draft: Draft) -> Draft:
        draft.notes.append(json.dumps({"spoil": self.count}))
        return draft


class Trouble(Technique):
    """Do something bad while the model is being compressed."""

    name = "trouble"
    group = "pruning"
    precisions: ClassVar[frozenset[str]] = frozenset({"fp16"})
    what: str = knob("raise", choices=("raise", "exit", "hang", "segfault", "nan"), help="what goes wrong")

    def apply(self, draft: Draft) -> Draft:
        match self.what:
            case "raise":
                raise RuntimeError("the technique broke <b>down</b>")
            case "exit":
                print("last words", flush=True)
                os._exit(3)
            case "hang":
                time.sleep(3600)
            case "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
        draft.plan.layers["layer.0"] = Precision("fp16")
        return draft


class Sleepy(Probe):
    """Sleep before every layer, and score layers by the length of their names."""

    name = "sleepy"
    sees: ClassVar[Any] = "layers"
    wait: float = knob(0.0, low=0.0, high=10.0, help="seconds for each layer")

    def look(self, stage: Any, layers: Any) -> Any:
        for layer in layers:
            time.sleep(self.wait)
            yield Seen(layer, np.array([[float(len(layer)), 1.0], [3.0, 1.0]]), 1.0)


class InOrder(Strategy):
    """The recipes of the space, one after the other."""

    name = "in_order"

    def search(self, space: Space, goal: Goal) -> Search:
        yield from space.recipes()


class Asker(Strategy):
    """Ask what can and what cannot be answered; then the recipes of the space, those that spoil most first."""

    name = "asker"

    def search(self, space: Space, goal: Goal) -> Search:
        facts = yield Facts()
        assert facts.layers == ("layer.0", "layer.1", "classifier")
        recipes = list(space.recipes())
        assert isinstance((yield Scan(recipes[0].steps[0], "no such probe")), Unanswered)
        looks = []
        for recipe in recipes:
            seen = yield Peek(recipe, 20)
            looks.append({"lost": 0} if isinstance(seen, Unanswered) else seen[0])
        order = sorted(range(len(recipes)), key=lambda i: -looks[i]["lost"])
        for i in order:
            yield recipes[i]


class Fake(Backend):
    """Looks answers up."""

    name = "fake"
    title = "Fake"
    realises: ClassVar[frozenset[str]] = frozenset({"fp32", "bf16", "fp16"})
    unable: ClassVar[dict[str, str]] = {"int8_static": "the fake has no INT8"}
    wait: float = knob(0.0, low=0.0, high=10.0, help="seconds that lowering takes")

    @classmethod
    def available(cls) -> str | None:
        return None

    def lower(self, draft: Draft, folder: Path) -> None:
        time.sleep(self.wait)
        nan = "fp16" in draft.plan.kinds()
        spoiled = sum(json.loads(note)["spoil"] for note in draft.notes)
        (folder / "fake.json").write_text(json.dumps({"spoiled": spoiled, "nan": nan}), encoding="utf-8")

    def load(self, folder: Path) -> Runner:
        return FakeRunner(json.loads((folder / "fake.json").read_text(encoding="utf-8")))


class FakeRunner(Runner):
    """Logits that favour the label, but for spoiled examples."""

    def __init__(self, model: dict[str, Any]) -> None:
        self._model = model

    def __call__(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        time.sleep(0.0005 / (1 + self._model["spoiled"]))
        label, index = batch["input_ids"][:, 0] % 2, batch["input_ids"][:, 1]
        answer = np.where(index < self._model["spoiled"], 1 - label, label)
        logits = np.stack([1.0 - answer, answer], axis=1).astype(np.float32)
        return logits * np.nan if self._model["nan"] else logits

    def effect(self) -> Effect:
        return Effect({"fp32": 1.0})
