"""The INT8 grid: what a range means, said once for whoever finds ranges and for every runtime that lowers them.

Activations are unsigned and have one range for the whole tensor: real = (code - zero) * scale with codes 0 … 255, as in
B. Jacob et al., CVPR 2018, arXiv:1712.05877. Weights are signed and symmetric: real = code * scale with codes
-127 … 127, one scale for each output channel or one for all. Pure functions on numbers and arrays.
"""

from __future__ import annotations

import numpy as np

Range = tuple[float, float]

#: Steps of an activation's range, and the largest code of a weight.
STEPS, TOP = 255, 127
#: The smallest scale.
EPS = float(np.finfo(np.float32).eps)


def scale_zero(limits: Range) -> tuple[float, int]:
    """Scale (float32) and zero point (0 … 255) of the range (low, high), widened to hold zero.

    Raises `ValueError` for a range that is not finite.
    """
    low, high = min(float(limits[0]), 0.0), max(float(limits[1]), 0.0)
    if not np.isfinite([low, high]).all():
        raise ValueError(f"a range of {limits} is not finite")
    scale = float(np.float32(max((high - low) / STEPS, EPS)))
    return scale, int(np.clip(np.rint(-low / scale), 0, STEPS))


def on_grid(limits: Range) -> Range:
    """The range moved a little, so that zero is a code: what `scale_zero` makes of it is then exact."""
    scale, zero = scale_zero(limits)
    return -zero * scale, (STEPS - zero) * scale


def symmetric(limits: Range) -> Range:
    """The smallest range around zero that holds `limits`: its zero point is 128, its largest code the largest value."""
    largest = max(abs(float(limits[0])), abs(float(limits[1])), EPS)
    return -largest * (TOP + 1) / TOP, largest


def union(ranges: list[Range]) -> Range:
    """The smallest range that holds all `ranges`."""
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def fake(values: np.ndarray, limits: Range) -> np.ndarray:
    """`values` quantized and dequantized on the grid of the range, clipped to it."""
    scale, zero = scale_zero(limits)
    rounded: np.ndarray = (np.clip(np.rint(values / scale) + zero, 0, STEPS) - zero) * scale
    return rounded


def weight_scales(weight: np.ndarray, per_channel: bool) -> np.ndarray:
    """Scales of a weight of shape (out, in): (out,), or (1,) where all outputs share one."""
    largest = np.abs(weight).max(axis=1) if per_channel else np.abs(weight).max(keepdims=True).reshape(1)
    scales: np.ndarray = np.maximum(largest / TOP, EPS).astype(np.float32)
    return scales


def weight_codes(weight: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """int8 codes of a weight of shape (out, in) under `scales` (out,) or (1,)."""
    codes: np.ndarray = np.clip(np.rint(weight / scales[:, None]), -TOP, TOP).astype(np.int8)
    return codes
