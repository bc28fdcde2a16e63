"""The modules that techniques put in the place of a linear layer, plain enough for every exporter.

Only what cannot be written as a change of weights is here. `loading.structure` writes them down and builds them again;
an exported folder brings its own copy (`standalone/eager.py`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class ScaledLinear(nn.Linear):
    """A linear layer whose input of shape (…, in) is multiplied by `input_scale` of shape (in,) first."""

    def __init__(self, inside: int, outside: int, bias: bool = True) -> None:
        super().__init__(inside, outside, bias)
        self.register_buffer("input_scale", torch.ones(inside))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return super().forward(values * self.input_scale)


class Factored(nn.Sequential):
    """A linear layer as the product of two: `down` to `rank` numbers, then `up`, which has the bias."""

    def __init__(self, inside: int, rank: int, outside: int, bias: bool = True) -> None:
        super().__init__()
        self.down = nn.Linear(inside, rank, bias=False)
        self.up = nn.Linear(rank, outside, bias=bias)

    @property
    def shape(self) -> tuple[int, int, int, bool]:
        """What `__init__` takes."""
        up: Any = self.up
        return self.down.in_features, self.down.out_features, up.out_features, up.bias is not None
