"""What a technique sees when it runs the model over training examples: the inputs of its layers, and gradients.

Left out: anything that would look at the data that is measured on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from workbench.draft import Draft
from workbench.errors import DataError, Refused
from workbench.training import Batch, label_loss

#: Examples that pass through the model together.
_BATCH = 32


def batches(draft: Draft, samples: int, *, labels: bool = False) -> list[Batch]:
    """The first `samples` training examples in batches of like length, with their labels where they are asked for (-1
    where there is none); a note in the draft says so where there are fewer.

    Raises `DataError` where there are no examples.
    """
    import numpy as np
    import torch

    if labels:
        examples, targets = draft.data.training()
        examples, targets = examples[:samples], targets[:samples]
    else:
        examples = draft.data.calibration(samples)
        targets = np.full(len(examples), -1, dtype=np.int64)
    if not examples:
        raise DataError("This needs training examples, and the task has none.", do="give training data with the task")
    if len(examples) < samples:
        draft.notes.append(f"looked at {len(examples)} training examples; there are not {samples}")
    lengths = [len(next(iter(example.values()))) for example in examples]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    found = []
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        longest = lengths[rows[-1]]
        inputs = {
            name: torch.tensor([[*examples[r][name], *[draft.pad.get(name, 0)] * (longest - lengths[r])] for r in rows])
            for name in draft.inputs
        }
        found.append(Batch(inputs, torch.from_numpy(np.asarray(targets)[rows]), rows))
    return found


def see_inputs(module: Any, names: Sequence[str], data: Sequence[Batch], see: Callable[[str, Any], None]) -> None:
    """Run `module` over `data` and call `see(name, tokens)` for each layer and batch, with what the layer takes as
    (tokens, in), padding left out. Raises `Refused`, with the layer's name, where that is not finite.
    """
    import torch

    def look(name: str, values: Any, mask: Any) -> None:
        tokens = real_tokens(values, mask)
        if not torch.isfinite(tokens).all():
            raise Refused(
                f"The inputs of {name!r} are not all finite numbers on the training examples.",
                do="look at the model's weights, or keep this layer",
            )
        see(name, tokens)

    mask: Any = None
    handles = [
        module.get_submodule(name).register_forward_pre_hook(lambda part, args, name=name: look(name, args[0], mask))
        for name in names
    ]
    try:
        with torch.no_grad():
            for batch in data:
                mask = batch.inputs.get("attention_mask")
                module(**batch.inputs)
    finally:
        for handle in handles:
            handle.remove()


def real_tokens(values: Any, mask: Any) -> Any:
    """`values` (…, in) as (tokens, in) without padding, where `mask` (batch, length) fits its first two sizes."""
    if mask is not None and values.ndim == 3 and tuple(mask.shape) == tuple(values.shape[:2]):
        return values[mask.bool()]
    return values.reshape(-1, values.shape[-1])


def gradients(module: Any, names: Sequence[str], data: Sequence[Batch]) -> Iterator[dict[str, Any]]:
    """For each batch the gradient of its mean loss by the weight of each layer: name -> (as the weight).

    Unlabelled examples stand for the model's own answer. A layer that the loss does not reach has zeros. Raises
    `Refused`, with the layer's name, where a gradient is not finite.
    """
    import torch

    weights = {name: module.get_submodule(name).weight for name in names}
    with _only(module, list(weights.values())):
        for batch in data:
            with torch.enable_grad():
                output = module(**batch.inputs)
                logits = output.logits if hasattr(output, "logits") else output
                targets = batch.targets
                if logits.ndim == 2:
                    targets = torch.where(targets >= 0, targets, logits.argmax(dim=1))
                loss = label_loss(output, Batch(batch.inputs, targets, batch.rows))
                found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            grads = {
                name: torch.zeros_like(weight) if grad is None else grad
                for (name, weight), grad in zip(weights.items(), found, strict=True)
            }
            for name, grad in grads.items():
                if not torch.isfinite(grad).all():
                    raise Refused(
                        f"The gradient of {name!r} is not finite on the training examples.",
                        do="look at the model's weights, or keep this layer",
                    )
            yield grads


@contextmanager
def _only(module: Any, wanted: Sequence[Any]) -> Iterator[None]:
    """Gradients by the tensors `wanted` alone."""
    flags = {parameter: parameter.requires_grad for parameter in module.parameters()}
    chosen = {id(tensor) for tensor in wanted}
    try:
        for parameter in flags:
            parameter.requires_grad_(id(parameter) in chosen)
        yield
    finally:
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
