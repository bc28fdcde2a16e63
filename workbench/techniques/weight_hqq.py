"""Weight-only quantization with zero points found by half-quadratic optimization: no data, better than rounding.

The error of a weight is measured in a norm that forgives outliers (|e|^p, p < 1); splitting it into a shrinkage and a
mean gives a few closed-form steps for the zero points, which are fractions then: the gain lies in them. So a weight
of 0 is no longer exactly 0. At 8 bits they are rounded: nothing is lost, and not every runtime can hold a fraction
there. Left out: the authors' later versions of the solver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.draft import Draft, Grid
from workbench.techniques._weight_only import WeightOnly, encode, group_width, grouped, make_grid, matrix, ranges

if TYPE_CHECKING:
    import torch

_STEPS, _NORM, _BETA, _GROWTH = 20, 0.7, 10.0, 1.01


class WeightHqq(WeightOnly):
    """Round weights to 4 or 8 bits with zero points optimized for a norm that forgives outliers: no data needed.

    Source: H. Badri and A. Shaji, "Half-quadratic quantization of large machine learning models", 2023,
    https://mobiusml.github.io/hqq_blog. Cost: seconds. Helps at 4 bits where there are no calibration data; with
    symmetric ranges there is no zero point to optimize, and it is the same as weight_rtn.
    """

    name = "weight_hqq"
    source = "Badri and Shaji 2023, mobiusml.github.io/hqq_blog"

    def apply(self, draft: Draft) -> Draft:
        """Plan the layers and give their grids; `Refused` where none is left."""
        layers = self.layers(draft)
        children = {name: draft.module.get_submodule(name) for name in layers}
        grids = {n: hqq(matrix(c), self.bits, self.group_size, self.symmetric) for n, c in children.items()}
        return self.write(draft, grids)


def hqq(weight: torch.Tensor, bits: int, group: int, symmetric: bool) -> Grid:
    """The grid of a weight (out, in); a group's zero point stays a whole number where that has the smaller error."""
    size = group_width(weight.shape[1], group)
    groups = grouped(weight, size)
    scales, zeros = ranges(groups, bits, symmetric)
    if not symmetric:
        better = optimized_zeros(groups, scales, zeros, bits).clamp(0, 2**bits - 1)
        better = better.round() if bits == 8 else better
        before, after = (norm_error(groups, scales, z, bits) for z in (zeros, better))
        zeros = better.where(after < before, zeros)
    return make_grid(weight, scales, zeros, bits, size)


def optimized_zeros(
    groups: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, bits: int, steps: int = _STEPS
) -> torch.Tensor:
    """Zero points (out, groups), not rounded, that lessen sum |w - (q - z) s|^p; stops when it lessens no more."""
    best, beta = float("inf"), _BETA
    for _ in range(steps):
        codes = encode(groups, scales, zeros, bits)
        kept = (codes - zeros[..., None]) * scales[..., None]
        error = shrink(groups - kept, beta)
        zeros = (codes - (groups - error) / scales[..., None]).mean(dim=-1)
        beta *= _GROWTH
        now = float((groups - kept).abs().mean())
        if now >= best:
            break
        best = now
    return zeros


def shrink(values: torch.Tensor, beta: float) -> torch.Tensor:
    """The generalized soft threshold: the closest value to each that is cheap in the norm |·|^p."""
    size = values.abs()
    return values.sign() * (size - size.clamp(min=1e-12) ** (_NORM - 1) / beta).clamp(min=0)


def norm_error(groups: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, bits: int) -> torch.Tensor:
    """sum |w - (q - z) s|^p of each group, (out, groups)."""
    codes = encode(groups, scales, zeros, bits)
    return ((groups - (codes - zeros[..., None]) * scales[..., None]).abs() ** _NORM).sum(dim=-1)
