"""What the probes of a layer's own output share: the layer and its compressed form on one and the same input.

`only`: the input is that of the uncompressed model. `all_but`: it is that of the model in which everything else is
compressed, so the score is the error that this layer adds there. Either way one pass of the model serves all layers.
Left out: errors that grow on their way to the answer; that is what the probes of the logits see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from workbench.sensitivity.forms import swapped
from workbench.sensitivity.probes.base import Probe, Seen

if TYPE_CHECKING:
    from workbench.sensitivity.stage import Stage

#: Columns of the terms.
ERROR, WANTED, GIVEN, PRODUCT, COUNT = range(5)


class OutputProbe(Probe):
    """A formula of sums over all numbers of a layer's output, padding left out: squared errors, squares wanted and
    given, products of both, and their count (`ERROR`, `WANTED`, `GIVEN`, `PRODUCT`, `COUNT`)."""

    sees: ClassVar = "layers"

    def look(self, stage: Stage, layers: Sequence[str]) -> Iterator[Seen]:
        """One evaluation for all layers together."""
        terms = output_terms(stage, layers)
        for layer in layers:
            yield Seen(layer, terms[layer], 1 / len(layers))


def output_terms(stage: Stage, layers: Sequence[str]) -> dict[str, np.ndarray]:
    """Sums by example, (examples, 5), for each layer."""
    import torch

    found = {name: np.zeros((stage.size, 5)) for name in layers}
    batch = stage.batches[0]

    def hook(name: str) -> Any:
        form = stage.forms[name]

        def see(part: Any, args: tuple, output: Any) -> None:
            wanted, given = type(part).forward(part, args[0]), form(part, args[0])
            for column, values in enumerate((given - wanted, wanted, given)):
                found[name][batch.rows, column] += by_example(values.double() ** 2, batch)
            found[name][batch.rows, PRODUCT] += by_example(wanted.double() * given.double(), batch)
            found[name][batch.rows, COUNT] += by_example(torch.ones_like(wanted, dtype=torch.double), batch)

        return see

    with ExitStack() as stack, torch.no_grad(), swapped(stage.module, stage.surroundings):
        for name in layers:
            stack.callback(stage.module.get_submodule(name).register_forward_hook(hook(name)).remove)
        for batch in stage.batches:
            stage.module(**batch.inputs)
    return found


def by_example(values: Any, batch: Any) -> np.ndarray:
    """Sums over all but the first size, (batch,), without padding where `values` has a place for every token.

    A layer that sees the whole batch in one row shares its sum evenly.
    """
    import torch

    count = len(batch.rows)
    if values.ndim == 3 and values.shape[:2] == (count, max(batch.lengths)):
        inside = torch.arange(values.shape[1])[None] < torch.from_numpy(batch.lengths)[:, None]
        values = values * inside[..., None]
    if values.ndim < 2 or len(values) != count:
        return np.full(count, float(values.sum()) / count)
    return np.asarray(values.flatten(1).sum(dim=1).numpy())
