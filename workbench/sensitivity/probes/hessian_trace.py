"""Hessian trace: curvature of the loss by a layer's weight, times the weight's error (HAWQ-V2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from workbench.knobs import knob
from workbench.sensitivity.probes._gradients import label_loss, leaves
from workbench.sensitivity.probes._weights import changed_weight, plain_weight
from workbench.sensitivity.probes.base import Probe, Seen

if TYPE_CHECKING:
    from workbench.sensitivity.stage import Stage


class HessianTrace(Probe):
    """Mean trace of the loss's Hessian by the layer's weight, times the squared error of the weight.

    Definition: tr(H)/n ‖δW‖², n the numbers in the weight, tr(H) = E[vᵀHv] with v of ±1 (Hutchinson), drawn anew for
    every batch and for all layers at once. The interval is over draws and batches; the loss of unlabelled examples is
    that of the model's own answer. Source: Z. Dong et al., "HAWQ-V2", NeurIPS 2020, arXiv:1911.03852. Cost: two
    differentiations for each draw, for all layers together; much memory. Helps for weight-only quantization of trained
    models; it does not see activations.
    """

    name = "hessian_trace"
    sees: ClassVar = "gradients"
    parts = ("both", "weights")
    source = "Dong et al. 2020, arXiv:1911.03852"

    draws: int = knob(4, low=1, high=1000, help="random vectors for every batch")

    def look(self, stage: Stage, layers: Sequence[str]) -> Iterator[Seen]:
        """One pass for all layers together."""
        terms = {name: np.array(rows) for name, rows in traces(stage, layers, self.draws).items()}
        for layer in layers:
            error = float(((changed_weight(stage, layer) - plain_weight(stage, layer)).double() ** 2).mean())
            terms[layer][:, 0] *= error
            yield Seen(layer, terms[layer], (3 + 6 * self.draws) / len(layers))


def traces(stage: Stage, layers: Sequence[str], draws: int) -> dict[str, list[tuple[float, int]]]:
    """vᵀHv times the number of answers, and that number, for each batch and draw, by layer."""
    import torch

    found: dict[str, list[tuple[float, int]]] = {name: [] for name in layers}
    generator = torch.Generator().manual_seed(0)
    with leaves(stage, layers) as leaf:
        weights = [leaf.weights[name] for name in layers]
        for batch in stage.batches:
            loss, count = label_loss(stage.module, batch)
            first = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
            # A layer whose gradient does not depend on any weight has no curvature.
            curved = [gradient for gradient in first if gradient.requires_grad]
            for draw in range(draws):
                signs = [torch.randint(0, 2, w.shape, generator=generator).to(w.dtype) * 2 - 1 for w in weights]
                along = [v for v, gradient in zip(signs, first, strict=True) if gradient.requires_grad]
                second = torch.autograd.grad(
                    curved, weights, along, retain_graph=draw < draws - 1, materialize_grads=True
                )
                for name, v, hv in zip(layers, signs, second, strict=True):
                    found[name].append((float((v.double() * hv.double()).sum()) * count, count))
    return found
