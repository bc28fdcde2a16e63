"""The stage on a real runtime: every layer is lowered and run there. Slow, and the measure of what a probe is worth.

It gives the same pairs of logits as `Stage`, against the uncompressed model on the same runtime.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from workbench.backends.base import Backend
from workbench.draft import Draft, Example
from workbench.errors import Refused
from workbench.sensitivity.forms import Compressed, drafted
from workbench.sensitivity.stage import Batch, Direction, Pair, pair


class LoweredStage:
    """What probes of the model's answers ask of a stage, on `backend`."""

    def __init__(
        self,
        draft: Draft,
        found: Compressed,
        examples: Sequence[Example],
        labels: np.ndarray | None,
        direction: Direction,
        backend: Backend,
    ) -> None:
        reason = backend.available() or backend.refuses(found.draft.plan.kinds(), draft.facts)
        if reason:
            raise Refused(f"Layers cannot be lowered for {backend.title}: {reason}")
        self.direction, self.size, self.has_labels = direction, len(examples), labels is not None
        self._draft, self._found, self._backend = draft, found, backend
        self._labels = np.full(len(examples), -1, dtype=np.int64) if labels is None else np.asarray(labels)
        self._examples = list(examples)

    @cached_property
    def reference(self) -> list[np.ndarray]:
        """Logits of the uncompressed model on this runtime, batch by batch."""
        return self._run(())

    @cached_property
    def everything(self) -> list[np.ndarray]:
        """Logits of the model with every layer compressed."""
        return self._run(self._found.forms)

    def in_order(self, layers: Sequence[str]) -> list[str]:
        """`layers` as they are."""
        return list(layers)

    def pairs(self, layer: str) -> Iterator[Pair]:
        """As `Stage.pairs`."""
        names = [layer] if self.direction == "only" else [name for name in self._found.forms if name != layer]
        return self._pairs(self._run(names))

    def all_pairs(self) -> Iterator[Pair]:
        """As `Stage.all_pairs`."""
        return self._pairs(self.everything)

    def _pairs(self, changed: list[np.ndarray]) -> Iterator[Pair]:
        for batch, one, other in zip(self._batches, self.reference, changed, strict=True):
            yield pair(batch, one, other)

    @cached_property
    def _batches(self) -> list[Batch]:
        import torch

        found = []
        batches = self._backend.batches(self._examples, self._draft.pad)
        for number, arrays in enumerate(batches):
            rows = list(range(number * self._backend.batch, min((number + 1) * self._backend.batch, self.size)))
            lengths = [min(len(next(iter(self._examples[r].values()))), self._backend.sequence) for r in rows]
            tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
            found.append(Batch(rows, tensors, np.array(lengths), self._labels[rows]))
        return found

    def _run(self, names: Iterable[str]) -> list[np.ndarray]:
        """Logits with the technique on `names` alone, lowered into a folder that is gone afterwards."""
        with tempfile.TemporaryDirectory() as folder:
            self._backend.lower(drafted(self._draft, self._found, names), Path(folder))
            runner = self._backend.load(Path(folder))
            try:
                return [
                    np.array(runner({name: tensor.numpy() for name, tensor in batch.inputs.items()}), dtype=np.float32)
                    for batch in self._batches
                ]
            finally:
                runner.close()
