"""The Fisher information of weights and of inputs, example by example, and what two probes make of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.sensitivity.probes._gradients import expected, leaves, one_by_one, upright
from workbench.sensitivity.probes._weights import changed_weight, plain_weight

if TYPE_CHECKING:
    from workbench.sensitivity.stage import Stage

#: Of gradients (as the tensor) and the tensor's error: a number.
Measure = Callable[[Any, Any], float]


def fisher_terms(stage: Stage, layers: Sequence[str], measure: Measure) -> tuple[dict[str, np.ndarray], int]:
    """For each layer (examples, 2): half the expectation of `measure(gradient, error)` over the model's own answers,
    of weight and input together, and the number of answers; and how many backward passes an example took."""
    import torch

    found = {name: np.zeros((stage.size, 2)) for name in layers}
    errors = {name: changed_weight(stage, name) - plain_weight(stage, name) for name in layers}
    generator, passes = torch.Generator().manual_seed(0), 0
    with leaves(stage, layers, inputs=True) as leaf:
        for row, inputs in one_by_one(stage):
            leaf.inputs.clear()
            leaf.errors.clear()
            answers, pairs = expected(stage.module, inputs, generator)
            passes = len(pairs)
            called = [name for name in layers if name in leaf.inputs]
            tensors = [leaf.weights[name] for name in layers] + [x for name in called for x in leaf.inputs[name]]
            for i, (probability, likelihood) in enumerate(pairs):
                last = i == len(pairs) - 1
                grads = iter(torch.autograd.grad(likelihood, tensors, retain_graph=not last, materialize_grads=True))
                for name in layers:
                    gradient = upright(stage, name, next(grads))
                    found[name][row, 0] += 0.5 * probability * measure(gradient, errors[name])
                for name in called:
                    for error in leaf.errors[name]:
                        found[name][row, 0] += 0.5 * probability * measure(next(grads), error)
            for name in layers:
                found[name][row, 1] = answers
    return found, passes
