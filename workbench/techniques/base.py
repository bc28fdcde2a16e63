"""The contract of a technique: knobs, what it needs, whether it fits, and `apply`.

Adding one is adding one file beside this with one subclass; the maths stands below it as pure functions on tensors.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, ClassVar, Literal

from workbench.draft import Draft, ModelFacts
from workbench.knobs import Knobbed, knob

if TYPE_CHECKING:
    from workbench.training import Pace, Part

Group = Literal["quantization", "pruning", "distillation", "graph optimization", "mixed precision"]
Need = Literal["nothing", "calibration", "training"]


class Technique(Knobbed):
    """One thing that can be done to a model.

    Class variables: `name`; `group`, one of the five that people know; `needs`, the most that it may look at whatever
    its knobs are (see `asks`); `source`, the paper or specification;
    `precisions`, the precision kinds it writes into the plan (empty for a technique that changes the module);
    `phase`, its place in a recipe: techniques stand in ascending phase (0 drop layers, 1 narrow them, 2 mask weights,
    3 train, 4 rescale, 5 precision);
    `excludes`, names of techniques that cannot stand beside it.
    """

    name: ClassVar[str]
    group: ClassVar[Group]
    needs: ClassVar[Need] = "nothing"
    source: ClassVar[str] = ""
    precisions: ClassVar[frozenset[str]] = frozenset()
    phase: ClassVar[int] = 2
    excludes: ClassVar[frozenset[str]] = frozenset()

    def fits(self, facts: ModelFacts) -> str | None:
        """None, or the reason why this model cannot take it. The default wants a module if it changes one."""
        if not facts.has_module and not self.precisions:
            return (
                f"{self.name} changes the PyTorch module, and an ONNX file has none; start from the checkpoint instead"
            )
        return None

    @property
    def note(self) -> str:
        """What a person should know before the run ('' for nothing)."""
        return ""

    @property
    def asks(self) -> Need:
        """What it looks at with its knobs as they are: `needs`, or less."""
        return self.needs

    @property
    def asks_runtime(self) -> bool:
        """Whether the result depends on the recipe's runtime, because it is measured there (`Draft.clock`)."""
        return False

    @abstractmethod
    def apply(self, draft: Draft) -> Draft:
        """Change `draft` and return it. Layers in `draft.kept` stay bit-identical. Deterministic."""


class Trained(Technique):
    """A technique that trains: it brings a `Part` to the one loop of `workbench.training`.

    Such techniques that follow each other in a recipe share the loop; the first one's batch size and learning rate are
    taken, and the longest budget.
    """

    needs: ClassVar[Need] = "training"

    minutes: float = knob(6.0, low=0.01, high=10_000, unit="min", help="time to train; it ends with `steps` if sooner")
    steps: int = knob(0, low=0, high=10_000_000, unit="steps", help="steps to train; 0 = as many as the minutes allow")
    learning_rate: float = knob(1e-4, low=1e-7, high=1e-1, log=True, help="peak of AdamW's learning rate")
    batch_size: int = knob(32, low=1, high=4096, unit="examples", help="examples per step")
    seed: int = knob(0, low=0, high=2**31, help="decides the order of the examples and dropout")

    @abstractmethod
    def part(self, draft: Draft) -> Part:
        """What this technique does in a run on `draft`; raises `Refused` before any training where it cannot."""

    def pace(self) -> Pace:
        """How long and how to train."""
        from workbench.training import Pace

        return Pace(
            steps=self.steps,
            minutes=self.minutes,
            batch=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.seed,
        )

    def apply(self, draft: Draft) -> Draft:
        """Train alone."""
        return train_together([self], draft)


def train_together(steps: Sequence[Trained], draft: Draft) -> Draft:
    """One training run of all `steps`; raises what `workbench.training.train` raises."""
    from workbench.training import train

    train(draft, [step.part(draft) for step in steps], reduce(lambda a, b: a.joined(b), (s.pace() for s in steps)))
    return draft
