"""The contract of a technique: knobs, what it needs, whether it fits, and `apply`.

Adding one is adding one file beside this with one subclass; the maths stands below it as pure functions on tensors.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

from workbench.draft import Draft, ModelFacts
from workbench.knobs import Knobbed

Group = Literal["quantization", "pruning", "distillation", "graph optimization", "mixed precision"]
Need = Literal["nothing", "calibration", "training"]


class Technique(Knobbed):
    """One thing that can be done to a model.

    Class variables: `name`; `group`, one of the five that people know; `needs`; `source`, the paper or specification;
    `precisions`, the precision kinds it writes into the plan (empty for a technique that changes the module);
    `phase`, its place in a recipe: techniques stand in ascending phase (0 remove, 1 mask, 2 train, 3 precision);
    `excludes`, names of techniques that cannot stand beside it.
    """

    name: ClassVar[str]
    group: ClassVar[Group]
    needs: ClassVar[Need] = "nothing"
    source: ClassVar[str] = ""
    precisions: ClassVar[frozenset[str]] = frozenset()
    phase: ClassVar[int] = 1
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

    @abstractmethod
    def apply(self, draft: Draft) -> Draft:
        """Change `draft` and return it. Layers in `draft.kept` stay bit-identical. Deterministic."""
