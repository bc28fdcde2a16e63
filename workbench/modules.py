"""The modules that stand in the place of a linear layer, plain enough for every exporter.

Techniques put there what cannot be written as a change of weights; `loading.structure` writes that down and builds it
again. `PackedLinear` is what PyTorch's backends make of a layer whose weight is held as codes. An exported folder
brings its own copy of all of them (`standalone/eager.py`).
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


class PackedLinear(nn.Module):
    """A linear layer that keeps its weight as codes (see `draft.Grid`) and decodes it whenever it is called.

    Codes of 4 bits lie two in a byte, the even input in the lower half. The weight takes the float type of its input.
    `scaled` layers multiply their input by `input_scale` first; `centred` ones have all zero points in the middle,
    `whole` ones store them as bytes.
    """

    def __init__(
        self,
        inside: int,
        outside: int,
        bits: int,
        group: int,
        bias: bool = True,
        scaled: bool = False,
        centred: bool = False,
        whole: bool = True,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.bits, self.group = inside, outside, bits, group
        groups = -(-inside // group)
        self.register_buffer("codes", torch.zeros(outside, -(-inside * bits // 8), dtype=torch.uint8))
        self.register_buffer("scales", torch.ones(outside, groups))
        kind = torch.uint8 if whole else torch.float32
        self.register_buffer("zeros", None if centred else torch.zeros(outside, groups, dtype=kind))
        self.register_buffer("bias", torch.zeros(outside) if bias else None)
        self.register_buffer("input_scale", torch.ones(inside) if scaled else None)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if self.input_scale is not None:
            values = values * self.input_scale.to(values.dtype)
        bias = None if self.bias is None else self.bias.to(values.dtype)
        return nn.functional.linear(values, self.weight().to(values.dtype), bias)

    def weight(self) -> torch.Tensor:
        """The decoded weight, float32 of shape (out, in)."""
        codes, scales, zeros = (getattr(self, name) for name in ("codes", "scales", "zeros"))
        # Everything is looked up column by column: of a decoded matrix that is cut to its width, inductor (torch 2.13)
        # compiles code that reads it as if it were not.
        column = torch.arange(self.in_features, device=codes.device)
        if self.bits == 4:
            codes = (codes[:, column // 2] >> (column % 2 * 4).to(torch.uint8)) & 15
        place = column // self.group
        middle = 2.0 ** (self.bits - 1) if zeros is None else zeros[:, place].float()
        return (codes.float() - middle) * scales[:, place]

    def stored(self) -> int:
        """How many numbers it holds, two codes in a byte counted as two."""
        floats = (self.scales, self.zeros, self.bias, self.input_scale)
        return self.in_features * self.out_features + sum(t.numel() for t in floats if t is not None)


def packed(child: Any, grid: Any) -> tuple[PackedLinear, dict[str, Any]]:
    """The layer that holds `grid` in the place of the linear layer `child`, and the arguments that build it again."""
    outside, inside = grid.codes.shape
    scale = getattr(child, "input_scale", None)
    shape = {
        "inside": inside,
        "outside": outside,
        "bits": grid.bits,
        "group": grid.group,
        "bias": child.bias is not None,
        "scaled": scale is not None,
        "centred": grid.symmetric,
        "whole": grid.whole,
    }
    layer = PackedLinear(**shape)
    codes = grid.codes
    if grid.bits == 4:
        codes = nn.functional.pad(codes, (0, inside % 2))
        codes = codes[:, 0::2] | (codes[:, 1::2] << 4)
    tensors = {"codes": codes, "scales": grid.scales, "zeros": grid.zeros, "bias": child.bias, "input_scale": scale}
    with torch.no_grad():
        for name, tensor in tensors.items():
            if getattr(layer, name) is not None:
                getattr(layer, name).copy_(tensor)
    return layer.eval(), shape
