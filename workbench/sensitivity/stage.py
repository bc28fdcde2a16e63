"""The model with its examples, on which single layers take their compressed form and the rest stands still.

What is before the layer in question never changes from one layer of a block to the next, so the network up to that
block is run once: the blocks before are replaced by what they gave. Whether a model allows that (every block is called
once, and nothing else remembers) is checked on its own answers before it is relied on. Examples are run sorted by
length, in batches with little padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from workbench.anatomy import find_blocks
from workbench.draft import Draft, Example
from workbench.errors import DataError, Refused
from workbench.sensitivity.forms import Form, standing_in, swapped

if TYPE_CHECKING:
    import torch

Direction = Literal["only", "all_but"]
DIRECTIONS = ("only", "all_but")
#: Examples that pass together, and the most padding among them.
_BATCH, _PADDING = 32, 1.15
#: Bytes of logits that are kept in memory for comparison.
_MOST = 2 * 10**9


@dataclass(frozen=True)
class Batch:
    """`rows`: places of the examples; `inputs`: tensors (batch, length) by name; `lengths` of the examples; `labels`
    (batch,), -1 where there is none."""

    rows: list[int]
    inputs: dict[str, torch.Tensor]
    lengths: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Pair:
    """Logits of one batch, row by row: `reference` and `changed` (rows, classes), `labels` (rows,), and `owners`
    (rows,), the example that a row is of. A language model has a row for every predicted token."""

    reference: np.ndarray
    changed: np.ndarray
    labels: np.ndarray
    owners: np.ndarray


class _Done(Exception):
    """Raised inside a forward pass when it has gone far enough."""


class Stage:
    """`forms` are the compressed layers; `direction` says whether one of them is compressed at a time (`only`), or all
    but one (`all_but`)."""

    def __init__(
        self,
        draft: Draft,
        forms: dict[str, Form],
        examples: Sequence[Example],
        labels: np.ndarray | None = None,
        direction: Direction = "only",
    ) -> None:
        if not examples:
            raise DataError("A scan needs examples, and there are none.", do="give data with the task")
        self.module, self.forms, self.direction = draft.module.eval(), forms, direction
        self.size, self.has_labels = len(examples), labels is not None
        given = np.full(len(examples), -1, dtype=np.int64) if labels is None else np.asarray(labels)
        self.batches = batches(draft, examples, given)
        path, count = find_blocks(self.module)
        self._blocks = [self.module.get_submodule(f"{path}.{i}") for i in range(count)]
        #: How many blocks have given their output before a layer is called, by layer.
        self.levels = self._find_levels()
        self._level, self._checked = 0, False
        self._before: list[Any] = [None] * len(self.batches)

    # --- what probes ask for ----------------------------------------------------------------------------------

    @cached_property
    def reference(self) -> list[np.ndarray]:
        """Logits of the uncompressed model, batch by batch; raises `DataError` where they are no numbers."""
        found = list(self._logits({}, 0))
        broken = sum(int((~np.isfinite(one)).any(axis=tuple(range(1, one.ndim))).sum()) for one in found)
        if broken:
            raise DataError(
                f"The uncompressed model itself gives NaN or infinite logits for {broken} of {self.size} examples.",
                do="look at the model's weights and data; nothing can be compared with this",
            )
        return found

    @cached_property
    def everything(self) -> list[np.ndarray]:
        """Logits of the model with every layer compressed, batch by batch."""
        return list(self._logits(self.forms, 0))

    def in_order(self, layers: Sequence[str]) -> list[str]:
        """`layers` in the order in which they are run, so that the network before them is run once."""
        return sorted(layers, key=lambda name: (self.levels[name], list(self.levels).index(name)))

    def pairs(self, layer: str) -> Iterator[Pair]:
        """The uncompressed model's logits and those with the layer in question, batch by batch."""
        reference = self.reference
        self._advance(self.levels[layer])
        changed = self._logits(self.active(layer), self._level)
        for batch, one, other in zip(self.batches, reference, changed, strict=True):
            yield pair(batch, one, other)

    def all_pairs(self) -> Iterator[Pair]:
        """The uncompressed model's logits and those with every layer compressed."""
        for batch, one, other in zip(self.batches, self.reference, self.everything, strict=True):
            yield pair(batch, one, other)

    def active(self, layer: str) -> dict[str, Form]:
        """The forms that are in use when `layer` is in question."""
        if self.direction == "only":
            return {layer: self.forms[layer]}
        return {name: form for name, form in self.forms.items() if name != layer}

    @property
    def surroundings(self) -> dict[str, Form]:
        """The forms in use around a layer in question, whatever it is itself: none, or all."""
        return {} if self.direction == "only" else self.forms

    # --- running ----------------------------------------------------------------------------------------------

    def _logits(self, forms: dict[str, Form], level: int) -> Iterator[np.ndarray]:
        import torch

        held = 0
        for number, batch in enumerate(self.batches):
            # The module is itself again whenever the caller has the word.
            with torch.no_grad(), swapped(self.module, forms), self._skipping(number, level):
                found = logits(self.module(**batch.inputs)).float().numpy()
            held += found.nbytes
            if held > _MOST:
                raise Refused(
                    f"The logits of {self.size} examples take more than {_MOST / 1e9:g} GB of memory.",
                    do="scan with fewer samples, or cut the texts (sequence=)",
                )
            yield found

    @contextmanager
    def _skipping(self, number: int, level: int) -> Iterator[None]:
        """Let the first `level` blocks give what they gave before for batch `number`."""
        with standing_in(self._blocks[:level], lambda block: lambda *args, **options: self._before[number]):
            yield

    def _advance(self, level: int) -> None:
        """Have the outputs of the first `level` blocks ready, in the surroundings of any layer behind them."""
        import torch

        if level < self._level:
            self._level, self._before = 0, [None] * len(self.batches)
        while self._level < level:
            block, found = self._blocks[self._level], list[Any]()

            def keep(part: Any, args: tuple, output: Any, found: list = found) -> None:
                found.append(output)
                raise _Done

            with torch.no_grad(), swapped(self.module, self.surroundings):
                for number, batch in enumerate(self.batches):
                    handle = block.register_forward_hook(keep)
                    try:
                        with self._skipping(number, self._level):
                            self.module(**batch.inputs)
                    except _Done:
                        pass
                    finally:
                        handle.remove()
            self._before, self._level = found, self._level + 1
        if level and not self._checked:
            self._check()

    def _check(self) -> None:
        """Compare an answer of the shortened network with the whole one's; run everything whole where they differ."""
        import torch

        self._checked, batch = True, self.batches[0]
        with torch.no_grad(), swapped(self.module, self.surroundings):
            whole = logits(self.module(**batch.inputs))
            with self._skipping(0, self._level):
                short = logits(self.module(**batch.inputs))
        if not torch.equal(torch.nan_to_num(whole), torch.nan_to_num(short)):
            self.levels = dict.fromkeys(self.levels, 0)
            self._level, self._before = 0, [None] * len(self.batches)

    def _find_levels(self) -> dict[str, int]:
        """For every layer with a form, in order of its first call, how many blocks are done then; all 0 where the
        blocks are not called one after the other, each once. Raises `Refused` for a layer that is never called."""
        import torch

        entered: list[int] = []
        left: list[int] = []
        found: dict[str, int] = {}

        def saw(name: str) -> Any:
            def note(part: Any, args: tuple) -> None:
                found.setdefault(name, len(left))

            return note

        with ExitStack() as stack, torch.no_grad():
            for i, block in enumerate(self._blocks):
                handles = [
                    block.register_forward_pre_hook(lambda part, args, i=i: entered.append(i)),
                    block.register_forward_hook(lambda part, args, output, i=i: left.append(i)),
                ]
                for handle in handles:
                    stack.callback(handle.remove)
            for name in self.forms:
                stack.callback(self.module.get_submodule(name).register_forward_pre_hook(saw(name)).remove)
            self.module(**self.batches[0].inputs)
        for name in self.forms:
            if name not in found:
                raise Refused(f"{name} takes no part in the model's answer, so it has no score.", do="keep this layer")
        ordered = entered == left == list(range(len(self._blocks)))
        return found if ordered else dict.fromkeys(found, 0)


def batches(draft: Draft, examples: Sequence[Example], labels: np.ndarray) -> list[Batch]:
    """Examples cut at the draft's longest input, sorted by length, in batches with little padding; with none at all
    where the model takes no mask."""
    import torch

    lengths = np.array([min(len(next(iter(one.values()))), draft.sequence) for one in examples])
    most = _PADDING if "attention_mask" in draft.inputs else 1.0
    groups: list[list[int]] = []
    # The longest first: the largest memory is taken at once.
    for row in np.argsort(-lengths, kind="stable").tolist():
        group = groups[-1] if groups else []
        filled = len(group) + 1
        if group and filled <= _BATCH and lengths[group[0]] * filled <= most * (lengths[group].sum() + lengths[row]):
            group.append(row)
        else:
            groups.append([row])

    def padded(row: int, name: str, length: int) -> list[int]:
        tokens = examples[row][name][:length]
        return [*tokens, *[draft.pad.get(name, 0)] * (length - len(tokens))]

    found = []
    for rows in groups:
        longest = int(lengths[rows[0]])
        inputs = {name: torch.tensor([padded(r, name, longest) for r in rows]) for name in draft.inputs}
        found.append(Batch(rows, inputs, lengths[rows], labels[rows]))
    return found


def by_token(values: torch.Tensor, batch: Batch) -> torch.Tensor:
    """What a layer takes or gives as (tokens, numbers), padding left out where there is a place for every token."""
    import torch

    if values.ndim == 3 and values.shape[:2] == (len(batch.rows), int(max(batch.lengths))):
        return values[torch.arange(values.shape[1])[None] < torch.from_numpy(batch.lengths)[:, None]]
    return values.reshape(-1, values.shape[-1])


def logits(output: Any) -> torch.Tensor:
    """The logits in what a module returned: itself, `.logits`, or the first of several."""
    found = getattr(output, "logits", output)
    return found[0] if isinstance(found, tuple | list) else found


def pair(batch: Batch, reference: np.ndarray, changed: np.ndarray) -> Pair:
    """The logits of one batch as rows; those of a language model, (batch, length, vocabulary), have one for every
    token that is predicted by what stands before it."""
    rows = np.asarray(batch.rows)
    if reference.ndim == 2:
        return Pair(reference, changed, batch.labels, rows)
    length = reference.shape[1]
    inside = np.arange(length - 1)[None, :] < batch.lengths[:, None] - 1
    tokens = batch.inputs["input_ids"].numpy()[:, 1:length]
    owners = np.broadcast_to(rows[:, None], inside.shape)
    return Pair(reference[:, :-1][inside], changed[:, :-1][inside], tokens[inside], owners[inside])
