"""Which heads and neurons to remove: mask gradients, budgeted search, rearrangement. Pure functions on arrays.

W. Kwon et al., "A fast post-training pruning framework for transformers", NeurIPS 2022, arXiv:2204.09656. A mask
multiplies the output of every head and neuron and is 1; the squared gradient of the loss by a mask, summed over
examples, is the diagonal of its empirical Fisher information, and half of it what removing that head costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Costs:
    """What one layer costs with a number of heads and of neurons kept, in MACs or in milliseconds.

    `heads`: shape (heads + 1,), `neurons`: shape (neurons + 1,), entry i for i kept; neither ever falls.
    """

    heads: np.ndarray
    neurons: np.ndarray

    @property
    def whole(self) -> float:
        """The cost of the layer as it is."""
        return float(self.heads[-1] + self.neurons[-1])


def search(heads: np.ndarray, neurons: np.ndarray, costs: Costs, budget: float) -> tuple[np.ndarray, np.ndarray]:
    """Masks (bool, True is kept) of least summed importance lost, at most `budget` times the cost of all layers.

    `heads`: importance, shape (layers, heads); `neurons`: (layers, neurons). Algorithm 1 of Kwon et al.: for every
    number of heads kept (the most important ones of all layers), as many of the most important neurons as the rest of
    the budget pays for. Every layer keeps at least one head and one neuron; what has infinite importance stays. Costs
    that are not linear (latency) are met by giving up the least important neurons until the sum fits (their
    Algorithm 2 takes them by layer). Raises `ValueError` where the budget does not pay for so much.
    """
    layers = len(heads)
    limit = budget * layers * costs.whole
    order = _order(heads)
    # The largest cost that one more neuron can have, so that the first guess is close.
    steps = np.diff(costs.neurons)
    each = max(float(steps.mean()), 1e-12)
    neuron_order = _order(neurons)
    lost_neurons = np.concatenate([[0.0], np.cumsum(neurons.ravel()[neuron_order[::-1]])])
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for count in range(layers, heads.size + 1):
        kept_heads = _kept(order, count, heads.shape)
        left = limit - float(costs.heads[kept_heads.sum(axis=1)].sum())
        affordable = min(neurons.size, layers * int(left / (layers * each)) + layers)
        while affordable >= layers:
            kept_neurons = _kept(neuron_order, affordable, neurons.shape)
            over = float(costs.neurons[kept_neurons.sum(axis=1)].sum()) - left
            if over <= 1e-9 * limit:
                break
            affordable -= max(1, int(0.5 * over / each))
        if affordable < layers:
            continue
        lost = float(heads[~kept_heads].sum() + lost_neurons[neurons.size - affordable])
        if not np.isfinite(lost):  # Something that has to stay would go.
            continue
        if best is None or lost < best[0]:
            best = lost, kept_heads, kept_neurons
    if best is None:
        raise ValueError("the budget does not pay for one head and one neuron in every layer")
    return best[1], best[2]


def rearrange(mask: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """The mask of one layer, with as many kept, chosen by the whole Fisher matrix of the layer and not its diagonal.

    `mask`: bool (units,), True is kept; `gradients`: (examples, units). Section 4.2 of Kwon et al.: one unit after the
    other, in order of importance, may take the place of one that is removed, if the squared length of the removed
    ones' summed gradient falls.
    """
    count = int((~mask).sum())
    if count in (0, len(mask)):
        return mask
    order = np.argsort((gradients**2).sum(axis=0), kind="stable")
    columns = np.ascontiguousarray(gradients.T, dtype=np.float64)
    gone = list(order[:count])
    total = columns[gone].sum(axis=0)
    for unit in order[count:]:
        gone.append(unit)
        total = total + columns[unit]
        # |total - g|^2 = |total|^2 - 2 total·g + |g|^2 for each candidate g to be taken back.
        chosen = columns[gone]
        back = int(np.argmin((chosen**2).sum(axis=1) - 2 * chosen @ total))
        total = total - columns[gone[back]]
        del gone[back]
    kept = np.ones(len(mask), dtype=bool)
    kept[gone] = False
    return kept


def rounded(mask: np.ndarray, importance: np.ndarray, multiple: int) -> np.ndarray:
    """The mask of one layer with a number of kept units that `multiple` divides: the nearest one, at least one
    multiple (or all), the most important ones."""
    wanted = max(round(int(mask.sum()) / multiple), 1) * multiple
    wanted = min(wanted, len(mask))
    if wanted == mask.sum() or mask.all():
        return mask
    # Those that the search chose come first, then by importance.
    order = np.lexsort((-importance, ~mask))
    kept = np.zeros(len(mask), dtype=bool)
    kept[order[:wanted]] = True
    return kept


def block_macs(hidden: int, head: int, heads: int, neurons: int, sequence: int) -> Costs:
    """MACs of one layer of a `sequence` of tokens: four projections and two products of attention for each head, two
    products for each neuron."""
    one_head = 4 * hidden * head * sequence + 2 * sequence * sequence * head
    return Costs(np.arange(heads + 1) * float(one_head), np.arange(neurons + 1) * float(2 * hidden * sequence))


def _order(importance: np.ndarray) -> np.ndarray:
    """Flat places by falling importance, but the best of every row first: no layer may be left without any."""
    rows = np.arange(len(importance))
    first = rows * importance.shape[1] + importance.argmax(axis=1)
    flat = np.argsort(-importance.ravel(), kind="stable")
    return np.concatenate([first, flat[~np.isin(flat, first)]])


def _kept(order: np.ndarray, count: int, shape: Sequence[int]) -> np.ndarray:
    mask = np.zeros(int(np.prod(shape)), dtype=bool)
    mask[order[:count]] = True
    return mask.reshape(shape)
