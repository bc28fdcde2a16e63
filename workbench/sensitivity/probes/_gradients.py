"""What the probes of gradients share: the model with leaves for its layers' weights and inputs, differentiated.

`only`: gradients are those of the uncompressed model. `all_but`: those of the model in which everything is compressed,
passed straight through the rounding. Either way one pass serves all layers. Attention is computed plainly, because its
fused kernels cannot be differentiated twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from workbench.errors import Refused
from workbench.sensitivity.forms import Form, scaled, swapped
from workbench.sensitivity.stage import logits
from workbench.techniques._int8 import matrix

if TYPE_CHECKING:
    import torch

    from workbench.sensitivity.stage import Batch, Stage

#: Classes up to which an expectation is taken over all of them, not over one draw.
_CLASSES = 4


@dataclass
class Leaves:
    """What is differentiated by: `weights` by layer, as they are stored; `inputs` of the last pass by layer, and the
    error (as the input) that its compressed form makes of each."""

    weights: dict[str, torch.Tensor]
    inputs: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    errors: dict[str, list[torch.Tensor]] = field(default_factory=dict)


@contextmanager
def leaves(stage: Stage, layers: Sequence[str], *, inputs: bool = False) -> Iterator[Leaves]:
    """The stage's model, differentiable by its layers' weights, and by their inputs where asked."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    module = stage.module
    around = {name: _smooth(name, form) for name, form in stage.surroundings.items()}
    weights = {n: around[n].weight if n in around else module.get_submodule(n).weight for n in layers}
    found = Leaves(weights)
    flags = {parameter: parameter.requires_grad for parameter in module.parameters()}

    def hook(name: str) -> Callable[..., Any]:
        def take(part: Any, args: tuple) -> tuple:
            # A view of its own, so that what else reads this tensor is no part of the gradient.
            own = args[0].view_as(args[0]) if args[0].requires_grad else args[0].detach().requires_grad_(True)
            plain, form = scaled(part, own.detach()), stage.forms[name]
            found.inputs.setdefault(name, []).append(own)
            error = torch.zeros_like(plain) if form.part is not None else form.taken(part, own.detach()) - plain
            found.errors.setdefault(name, []).append(error)
            return (own, *args[1:])

        return take

    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        stack.enter_context(swapped(module, around))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        try:
            for parameter in flags:
                parameter.requires_grad_(False)
            for weight in weights.values():
                weight.requires_grad_(True)
            if inputs:
                for name in layers:
                    stack.callback(module.get_submodule(name).register_forward_pre_hook(hook(name)).remove)
            yield found
        finally:
            for parameter, flag in flags.items():
                parameter.requires_grad_(flag)
            for form in around.values():
                form.weight.requires_grad_(False)


def one_by_one(stage: Stage) -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
    """Every example by itself, without padding: its place and its inputs (1, length)."""
    for batch in stage.batches:
        for i, row in enumerate(batch.rows):
            yield row, {name: tensor[i : i + 1, : batch.lengths[i]] for name, tensor in batch.inputs.items()}


def expected(module: Any, inputs: dict[str, torch.Tensor], generator: torch.Generator) -> tuple[int, list[Any]]:
    """What the Fisher information of one example is the expected squared gradient of.

    Gives how many answers it is the sum of (1, or the predicted tokens of a language model) and pairs of a probability
    and a log-likelihood: one for each class where there are few, else of one draw from the model's own distribution.
    """
    import torch

    found = logits(module(**inputs)).float()
    rows = found[0, :-1] if found.ndim == 3 else found
    likely = torch.log_softmax(rows, dim=-1)
    if len(likely) == 1 and likely.shape[1] <= _CLASSES:
        return 1, [(float(likely[0, c].detach().exp()), likely[0, c]) for c in range(likely.shape[1])]
    drawn = torch.multinomial(likely.detach().exp(), 1, generator=generator)
    return len(likely), [(1.0, likely.gather(1, drawn).sum())]


def label_loss(module: Any, batch: Batch) -> tuple[torch.Tensor, int]:
    """Mean cross-entropy of a batch and the number of answers in it; an unlabelled example stands for the model's own
    answer, a language model's labels are its next tokens."""
    import torch

    found = logits(module(**batch.inputs)).float()
    if found.ndim == 3:
        inside = torch.arange(1, found.shape[1])[None] < torch.from_numpy(batch.lengths)[:, None]
        targets = batch.inputs["input_ids"][:, 1:][inside]
        return torch.nn.functional.cross_entropy(found[:, :-1][inside], targets), len(targets)
    given = torch.from_numpy(batch.labels)
    targets = torch.where(given >= 0, given, found.argmax(dim=1))
    return torch.nn.functional.cross_entropy(found, targets), len(targets)


def upright(stage: Stage, layer: str, gradient: torch.Tensor) -> torch.Tensor:
    """A gradient by a weight as it is stored, as (out, in)."""
    return gradient if stage.surroundings or _is_linear(stage, layer) else gradient.T


def _is_linear(stage: Stage, layer: str) -> bool:
    part = stage.module.get_submodule(layer)
    return matrix(part) is part.weight


def _smooth(name: str, form: Form) -> Form:
    """The form with a weight of its own, its rounding passed straight through."""
    if form.part is not None:
        raise Refused(
            f"The compressed form of {name} is no single matrix, so no gradient by it is compared.",
            do="take the direction 'only', or a probe of outputs, such as kl",
        )
    return replace(form, weight=form.weight.clone(), squeeze=_straight(form.squeeze), settle=_straight(form.settle))


def _straight(rounding: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    return None if rounding is None else lambda values: values + (rounding(values) - values).detach()
