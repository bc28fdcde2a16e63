"""What the probes of weights and gradients share: a layer's weight as it was and as its compressed form holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.errors import Refused
from workbench.techniques._int8 import matrix

if TYPE_CHECKING:
    from workbench.sensitivity.stage import Stage


def plain_weight(stage: Stage, layer: str) -> Any:
    """The layer's weight, (out, in)."""
    return matrix(stage.module.get_submodule(layer)).detach()


def changed_weight(stage: Stage, layer: str) -> Any:
    """The weight of the layer's compressed form, (out, in); of two factors their product.

    Raises `Refused` for a form that is no single matrix.
    """
    form = stage.forms[layer]
    if form.part is None:
        return form.weight
    pieces = [part.weight.detach() for part in form.part.modules() if hasattr(part, "weight")]
    whole = pieces[0] if pieces else None
    for piece in pieces[1:]:
        whole = piece @ whole
    if whole is None or whole.shape != plain_weight(stage, layer).shape:
        raise Refused(f"The compressed form of {layer} is no single matrix.", do="use a probe of outputs, such as kl")
    return whole
