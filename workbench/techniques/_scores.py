"""How much a weight matters: the scores by which unstructured pruning chooses. Pure functions on tensors.

A weight is a tensor (out, in), its gradient has the same shape, and so has every score; the lowest score goes first.
Left out: second-order scores (optimal brain surgeon, SparseGPT), which change the weights that stay.
"""

from __future__ import annotations

from typing import Any

#: How much of the last score stays, and how much of the new one is added (`SnipMomentumCriterion`: alpha and beta).
SNIP_DECAY, SNIP_GAIN = 0.9, 1.0


def magnitude(weight: Any) -> Any:
    """|w|. S. Han et al., "Learning both weights and connections for efficient neural networks", arXiv:1506.02626."""
    return weight.detach().float().abs()


def gradient(weight: Any, grad: Any) -> Any:
    """|w · g|, how much the loss changes without the weight, to first order.

    N. Lee, T. Ajanthan, P. Torr, "SNIP: single-shot network pruning based on connection sensitivity", ICLR 2019,
    arXiv:1810.02340, whose division by the sum over all weights changes no order. `grad` is of the mean loss.
    """
    return (weight.detach().float() * grad.float()).abs()


def snip_momentum(previous: Any, weight: Any, grad: Any, decay: float = SNIP_DECAY, gain: float = SNIP_GAIN) -> Any:
    """decay · previous + gain · |w · g|, one step after another, from zeros.

    What Intel Neural Compressor 2.x calls `snip_momentum`, its default: `SnipMomentumCriterion` in
    neural_compressor/compression/pruner/criteria.py, with alpha = 0.9 and beta = 1, taken before each step of the
    optimizer. It is no average: the sum of a constant score tends to ten times the score.
    """
    return decay * previous + gain * gradient(weight, grad)


def movement(previous: Any, weight: Any, grad: Any) -> Any:
    """previous − w · g: high for weights that training moves away from zero, low for those that it moves towards it.

    V. Sanh, T. Wolf, A. Rush, "Movement pruning: adaptive sparsity by fine-tuning", NeurIPS 2020, arXiv:2005.07683,
    equation 3. The constant step of their scores' gradient descent, which changes no order, is 1. `weight` holds, under
    a mask as well, the weight itself, and `grad` is the gradient by what took its place (straight through).
    """
    return previous - weight.detach().float() * grad.float()


def wanda(weight: Any, norms: Any) -> Any:
    """|w| · ‖x‖ with `norms` (in,), the length of each input over all calibration tokens.

    M. Sun et al., "A simple and effective pruning approach for large language models", ICLR 2024, arXiv:2306.11695.
    The paper compares the scores of one output (a row) with each other.
    """
    return magnitude(weight) * norms.to(weight.device).float()
