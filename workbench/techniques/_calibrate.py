"""Calibration: the range of a tensor's values that loses least when it is cut into 256 steps. Pure functions on arrays.

`minmax`: all that was seen. `moving_average`: the ends of one example after the other, averaged exponentially
(Jacob et al. 2018, arXiv:1712.05877). `percentile`: a share of the values (Wu et al. 2020, arXiv:2004.09602).
`entropy`: the threshold of least Kullback-Leibler divergence (S. Migacz, "8-bit inference with TensorRT", GTC 2017).
`mse`: the ends of least squared error. The last three work on a histogram, so the examples are run twice: first for
its ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from workbench.draft import Draft
from workbench.int8 import Range, fake, on_grid, symmetric
from workbench.techniques._int8 import chunks, finite, sharing, watch

if TYPE_CHECKING:
    import torch

METHODS = ("minmax", "moving_average", "percentile", "entropy", "mse")
#: Bins of a histogram from -m to m; three of them make one of those that entropy looks at. Odd, so that zero is inside
#: one bin.
BINS, _MERGED = 3 * 2049, 3
#: Weight of the newest example in a moving average, as in PyTorch's and ONNX Runtime's observers.
_NEWEST = 0.01
_LEVELS = 128
#: Shares of the seen range that are tried as ends for the least squared error.
_SHARES = np.linspace(1.0, 0.1, 91)


def find_ranges(
    draft: Draft, names: Sequence[str], method: str, samples: int, percentile: float = 99.99, even: bool = False
) -> dict[str, Range]:
    """The input range of each layer in `names`, with zero on its grid; layers that share an input share the range.

    `even` makes it symmetric around zero. Raises `DataError` for inputs that are not finite and where there are fewer
    than `samples` examples, `Refused` for a layer that is not reached.
    """
    import torch

    given = chunks(draft, samples)
    groups = sharing(draft.module, names, given[0])
    # One of each group stands for all.
    first = [group[0] for group in groups]
    count = sum(len(rows) for rows, _ in given)
    lows = {name: np.full(count, np.inf) for name in first}
    highs = {name: np.full(count, -np.inf) for name in first}

    def ends(name: str, rows: list[int], values: torch.Tensor, output: torch.Tensor) -> None:
        finite(name, values)
        # Some layers see all tokens in one row; their ends are those of every example.
        flat = values.flatten(1) if len(values) == len(rows) else values.reshape(1, -1)
        # An architecture may call one layer several times.
        lows[name][rows] = np.minimum(lows[name][rows], flat.amin(dim=1).numpy())
        highs[name][rows] = np.maximum(highs[name][rows], flat.amax(dim=1).numpy())

    watch(draft.module, first, given, ends)
    counts = {name: np.zeros(BINS) for name in first}
    if method in ("percentile", "entropy", "mse"):
        limits = {name: max(-lows[name].min(), highs[name].max(), 1e-12) for name in first}

        def bins(name: str, rows: list[int], values: torch.Tensor, output: torch.Tensor) -> None:
            found = torch.histc(values.float(), BINS, -limits[name], limits[name])
            counts[name] += found.double().numpy()

        watch(draft.module, first, given, bins)
    found = {}
    for group in groups:
        name = group[0]
        limits_ = one_range(method, lows[name], highs[name], counts[name], percentile)
        found.update(dict.fromkeys(group, symmetric(limits_) if even else on_grid(limits_)))
    return {name: found[name] for name in names}


def one_range(method: str, lows: np.ndarray, highs: np.ndarray, counts: np.ndarray, percentile: float = 99.99) -> Range:
    """The range by one of `METHODS`, from the ends by example, shape (examples,), and the histogram of all values."""
    seen = float(lows.min()), float(highs.max())
    match method:
        case "minmax":
            return seen
        case "moving_average":
            return moving_average(lows), moving_average(highs)
    edges = np.linspace(-1, 1, BINS + 1) * max(-seen[0], seen[1], 1e-12)
    match method:
        case "percentile":
            found = percentile_range(counts, edges, percentile)
        case "entropy":
            merged = counts.reshape(-1, _MERGED).sum(axis=1)
            found = entropy_range(merged, edges[::_MERGED])
        case "mse":
            found = mse_range(counts, edges, seen)
        case _:
            raise ValueError(f"{method!r} is not one of {METHODS}")
    return max(found[0], seen[0]), min(found[1], seen[1])


def moving_average(values: np.ndarray, newest: float = _NEWEST) -> float:
    """The exponential moving average of values (examples,) in order; it starts at the first one."""
    mean = float(values[0])
    for value in values[1:]:
        mean += newest * (float(value) - mean)
    return mean


def percentile_range(counts: np.ndarray, edges: np.ndarray, percentile: float) -> Range:
    """The range that holds `percentile` % of the values and leaves out as many at either end.

    `counts` (bins,), `edges` (bins + 1,); between the edges of a bin values are taken to be spread evenly.
    """
    below = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
    outside = (1 - percentile / 100) / 2
    # Where nothing was counted `below` stands still: the last edge of such a stretch is the lower end, the first one
    # the upper end.
    low = np.interp(outside, below, edges) if outside else edges[np.flatnonzero(counts)[0]]
    high = np.interp(1 - outside, below, edges) if outside else edges[np.flatnonzero(counts)[-1] + 1]
    return float(low), float(high)


def entropy_range(counts: np.ndarray, edges: np.ndarray, levels: int = _LEVELS) -> Range:
    """The threshold t, as (-t, t), whose clipped histogram loses least information when merged into `levels` bins.

    `counts` (bins,) with zero in the middle one, `edges` (bins + 1,). For each candidate the reference P is the
    histogram inside it with what lies outside added to its end bins; Q is the histogram inside it, merged into
    `levels` bins and spread again over those of its bins that are not empty; KL(P || Q) is to be least.
    """
    middle = len(counts) // 2
    best, threshold = np.inf, len(counts) - 1
    left, right = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    for half in range(levels // 2, middle + 1):
        start, end = middle - half, middle + half + 1
        inside = counts[start:end]
        reference = inside.copy()
        reference[0] += left[start - 1] if start else 0.0
        reference[-1] += right[end] if end < len(counts) else 0.0
        group = np.minimum(np.arange(len(inside)) // (len(inside) // levels), levels - 1)
        filled = reference > 0
        totals = np.bincount(group, weights=inside, minlength=levels)
        places = np.bincount(group, weights=filled, minlength=levels)
        merged = np.where(filled, totals[group] / np.maximum(places[group], 1), 0.0)
        divergence = kl(reference, merged)
        if divergence < best:
            best, threshold = divergence, end
    return -float(edges[threshold]), float(edges[threshold])


def kl(reference: np.ndarray, other: np.ndarray, least: float = 1e-4) -> float:
    """KL divergence of two histograms (bins,), each made to sum to 1; an empty bin of `other` counts as `least`."""
    if not other.any():
        return float("inf")
    p, q = reference / reference.sum(), np.maximum(other / other.sum(), least / len(other))
    some = p > 0
    return float((p[some] * np.log(p[some] / q[some])).sum())


def mse_range(counts: np.ndarray, edges: np.ndarray, seen: Range) -> Range:
    """The ends of least squared error on a histogram: both drawn in together first, then each alone."""
    filled = counts > 0
    weights, centres = counts[filled], (edges[:-1] + edges[1:])[filled] / 2

    def loss(limits: Range) -> float:
        return float((weights * (fake(centres, limits) - centres) ** 2).sum())

    low, high = min(((seen[0] * s, seen[1] * s) for s in _SHARES), key=loss)
    low, high = min(((seen[0] * s, high) for s in _SHARES), key=loss)
    return min(((low, seen[1] * s) for s in _SHARES), key=loss)
