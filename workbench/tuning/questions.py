"""What a strategy may ask before it spends a trial: facts of the model, a layer scan, costs by layer, a quick look.

A question is plain data. The runner answers it (`workbench.running.questions`) and keeps the answer in the study, so
that a replay is answered as the first run was. What could not be answered is an `Unanswered`; a strategy must go on
without it.
"""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from workbench.recipe import Recipe, plugin
from workbench.techniques.base import Technique

Direction = Literal["only", "all_but"]
Row = dict[str, Any]


class Question(ABC):
    """Base of all; equal questions have equal keys. `kind` names it in JSON."""

    kind: ClassVar[str]

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Plain data, `kind` among it."""

    @property
    def key(self) -> str:
        """A short hash under which the answer is kept."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Facts(Question):
    """What is known of the model: answered with a `ModelFacts`."""

    kind: ClassVar[str] = "facts"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"kind": self.kind}


@dataclass(frozen=True)
class Scan(Question):
    """How sensitive each layer is to `technique` by `probe`: rows of `layer` and `score`, larger is more sensitive.

    `direction`: what compressing this layer "only" does, or what is regained when "all_but" this one are compressed.
    `keep` are layers that are left alone already, and not scored. `samples` counts examples.
    """

    kind: ClassVar[str] = "scan"
    technique: Technique
    probe: str = "kl"
    direction: Direction = "only"
    samples: int = 256
    keep: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        plain = {name: getattr(self, name) for name in ("probe", "direction", "samples")}
        return {"kind": self.kind, "technique": self.technique.to_json(), **plain, "keep": list(self.keep)}


@dataclass(frozen=True)
class Costs(Question):
    """The milliseconds of each layer under `recipe` by its runtime's own profiler: rows of `layer` and `ms`; what is
    no layer has rows too, so that their sum is one call."""

    kind: ClassVar[str] = "costs"
    recipe: Recipe

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"kind": self.kind, "recipe": self.recipe.to_json()}


@dataclass(frozen=True)
class Peek(Question):
    """The answers of `recipe` to the first `examples` of the selection split: one row of `examples`, `lost` and
    `gained` (right answers against the baseline's), and `drop` with `low` and `high`, in points of the metric.

    `ratio` is the time that this took over the baseline's: no measurement, but a hint.
    """

    kind: ClassVar[str] = "peek"
    recipe: Recipe
    examples: int = 128

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"kind": self.kind, "recipe": self.recipe.to_json(), "examples": self.examples}


@dataclass(frozen=True)
class Unanswered:
    """A question that could not be answered, and why."""

    reason: str


def question_from_json(data: dict[str, Any]) -> Question:
    """The question that `to_json` wrote."""
    match data["kind"]:
        case "facts":
            return Facts()
        case "scan":
            technique = plugin("techniques", **data["technique"])
            plain = {name: data[name] for name in ("probe", "direction", "samples")}
            return Scan(technique, **plain, keep=tuple(data["keep"]))
        case "costs":
            return Costs(Recipe.from_json(data["recipe"]))
        case "peek":
            return Peek(Recipe.from_json(data["recipe"]), data["examples"])
    raise ValueError(f"no kind of question: {data['kind']!r}")


def ranking(answer: Any, layers: Iterable[str], value: str = "score") -> dict[str, float] | None:
    """Number by layer from the rows of an answer, in the order of `layers`.

    A layer whose number is missing or NaN is taken for the worst (infinite). None where the question was not answered,
    or with no number at all: then there is nothing to rank by.
    """
    if isinstance(answer, Unanswered) or not answer:
        return None
    found = {row.get("layer"): _number(row.get(value)) for row in answer}
    scores = {name: found.get(name, math.inf) for name in layers}
    return scores if any(math.isfinite(score) for score in scores.values()) else None


def _number(value: Any) -> float:
    return math.inf if value is None or math.isnan(value) else float(value)
