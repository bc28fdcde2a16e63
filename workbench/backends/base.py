"""The contract of a backend, a runtime that executes a model, and the padding that all of them share.

`lower` writes a draft into a folder, `load` reads that folder in a fresh process without the original model. What
really took effect is read from the lowered model (`Effect`), never from the recipe.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from workbench.draft import Batch, Draft, Example, ModelFacts
from workbench.errors import Refused, UserError
from workbench.knobs import Knobbed, knob


@dataclass(frozen=True)
class Effect:
    """What the lowered model really does.

    `precision`: share of the linear layers' MACs by precision kind (`fp32`, `bf16`, `int8`), adding to 1;
    `nodes`: number of nodes by type; `layers`: precision by layer name where the runtime tells;
    `parameters`: stored numbers.
    """

    precision: dict[str, float]
    nodes: dict[str, int] = field(default_factory=dict)
    layers: dict[str, str] = field(default_factory=dict)
    parameters: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain data for the trial's `in_effect`."""
        return asdict(self)


@dataclass(frozen=True)
class NodeTime:
    """What the runtime's own profiler says of one node: the `layer` it computes ('' for none), its operator type
    (`kind`), and its milliseconds in every call."""

    layer: str
    kind: str
    ms: tuple[float, ...]


class Runner(ABC):
    """A loaded model. Calling it takes `Batch` (int64 arrays of shape (batch, sequence)) and returns logits, float32
    of shape (batch, classes), or (batch, length, vocabulary) of a language model, `length` at least the batch's."""

    @abstractmethod
    def __call__(self, batch: Batch) -> np.ndarray: ...

    @abstractmethod
    def effect(self) -> Effect:
        """What took effect, read from the loaded model."""

    def profile(self, batch: Batch, calls: int) -> list[NodeTime]:
        """Where the time of `calls` calls with `batch` goes; raises `Refused` where the runtime cannot tell.

        Profiling costs time itself, so the sum is more than a call takes without.
        """
        raise Refused("This runtime does not tell what single layers take.", do="use openvino, onnxruntime or eager")

    def close(self) -> None:  # noqa: B027 - most runtimes need nothing
        """Free the runtime's threads and memory."""


#: Knobs of every backend that say how much work a call is; the baseline of a trial has the same.
WORKLOAD = ("threads", "batch", "sequence")


class Backend(Knobbed):
    """One runtime with its knobs.

    Class variables: `name`; `title`, as people write it; `realises`, precision kinds it can lower;
    `unable`, the reason by precision kind it cannot lower, with what to do instead;
    `install`, the line that installs it; `from_onnx`, whether it can start from an ONNX file.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    realises: ClassVar[frozenset[str]]
    unable: ClassVar[dict[str, str]] = {}
    install: ClassVar[str] = ""
    from_onnx: ClassVar[bool] = False

    threads: int = knob(0, low=0, high=1024, help="intra-op threads; 0 = every core this process may use")
    batch: int = knob(1, low=1, high=4096, search=(1, 8, 32), help="examples per call", unit="examples")
    sequence: int = knob(
        128, low=2, high=8192, search=(64, 128), help="longest sequence; longer ones are cut", unit="tokens"
    )
    padding: str = knob(
        "batch",
        choices=("batch", "fixed", "buckets"),
        help="pad to the longest of the batch, to `sequence`, or to the next power of two",
    )

    @classmethod
    @abstractmethod
    def available(cls) -> str | None:
        """None, or the reason why this machine cannot run it, with the line that installs it."""

    def refuses(self, kinds: frozenset[str], facts: ModelFacts) -> str | None:
        """None, or the reason why it cannot realise these precision kinds for this model."""
        if not facts.has_module and not self.from_onnx:
            return f"{self.title} runs PyTorch modules, and this task is an ONNX file; use onnxruntime or openvino"
        for kind in sorted(kinds - self.realises):
            return self.unable.get(kind, f"{self.title} cannot run {kind}")
        return None

    @abstractmethod
    def lower(self, draft: Draft, folder: Path) -> None:
        """Write the draft into `folder`, self-contained, no pickle. Raises `Refused` for what it cannot realise."""

    @abstractmethod
    def load(self, folder: Path) -> Runner:
        """A runner from a folder that `lower` wrote with equal knobs."""

    def weights(self, folder: Path, names: Collection[str] | None = None) -> Iterator[tuple[str, np.ndarray]]:
        """(layer, weight) of what `lower` wrote, in the model's order; only `names` where they are given.

        The weight is the matrix that the runtime multiplies by, codes decoded: float32 of shape (out, in). Raises
        `Refused` where it cannot be read back.
        """
        raise Refused(
            f"{self.title} keeps weights in a layout of its own, which cannot be read back.",
            do="look at a trial of another runtime",
        )

    def inputs(self, folder: Path, layer: str) -> Callable[[Batch], np.ndarray]:
        """A function that gives what `layer` multiplies by its weight for a batch of any shape: float32, (…, in).

        Read from what `lower` wrote. What lies on a grid there (static INT8) is given decoded; what the runtime
        quantizes only as it multiplies (dynamic INT8), as it was before. Raises `Refused` where it cannot be read,
        `UserError` for a layer that is not there.
        """
        raise Refused(
            f"{self.title} makes one piece of the model, whose inner values cannot be read.",
            do="look at a trial of another runtime",
        )

    def batches(self, examples: Sequence[Example], pad: dict[str, int]) -> Iterator[Batch]:
        """`examples` in order as padded batches under this backend's `batch`, `sequence` and `padding` knobs.

        The last batch may be smaller, except with fixed shapes, where a backend fills and cuts it itself.
        """
        for start in range(0, len(examples), self.batch):
            chunk = examples[start : start + self.batch]
            yield collate(chunk, self.length(chunk), pad)

    def length(self, examples: Sequence[Example]) -> int:
        """The padded length of one batch of `examples` under the padding policy."""
        longest = max(len(next(iter(example.values()))) for example in examples)
        if self.padding == "fixed":
            return self.sequence
        if self.padding == "buckets":
            return next((size for size in self.buckets() if size >= longest), self.sequence)
        return min(longest, self.sequence)

    def buckets(self) -> list[int]:
        """Padded lengths under the `buckets` policy: 16, 32, 64 … up to `sequence`."""
        sizes = [size for size in (16, 32, 64, 128, 256, 512, 1024, 2048, 4096) if size < self.sequence]
        return [*sizes, self.sequence]


def unknown_layer(layer: str) -> UserError:
    """What is raised for a layer that a stored model has not."""
    return UserError(f"The stored model has no layer {layer!r}.", do="see `layer_table` for its layers")


def collate(examples: Sequence[Example], length: int, pad: dict[str, int]) -> Batch:
    """Arrays of shape (len(examples), length): each example cut or padded on the right with `pad[input]`."""
    batch: Batch = {}
    for name in examples[0]:
        array = np.full((len(examples), length), pad.get(name, 0), dtype=np.int64)
        for row, example in enumerate(examples):
            tokens = example[name][:length]
            array[row, : len(tokens)] = tokens
        batch[name] = array
    return batch


def require_module(draft: Draft, backend: Backend) -> Any:
    """The draft's module, or `Refused` where there is none."""
    if draft.module is None:
        raise Refused(backend.refuses(draft.plan.kinds(), draft.facts) or f"{backend.title} needs a PyTorch module")
    return draft.module
