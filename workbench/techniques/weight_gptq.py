"""Weight-only quantization by GPTQ: the rounding error of a column is made good in the columns that come after it.

Optimal brain surgery with a fixed order of columns, on the second moments of what each layer sees. Layers follow each
other in the order in which the model runs them, so that each is fitted to what the quantized ones before it give.
torchao's prototype wants a GPU and unquantized inputs, so it is written out here. Left out: ranges searched by error.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from workbench.draft import Draft, Grid
from workbench.errors import Refused
from workbench.knobs import knob
from workbench.techniques._weight_only import (
    WeightOnly,
    encode,
    group_width,
    grouped,
    matrix,
    ranges,
    round_to_nearest,
    stages,
)

if TYPE_CHECKING:
    import torch

#: Columns whose corrections to the rest are made at once.
_BLOCK = 128


class WeightGptq(WeightOnly):
    """Quantize weights to 4 or 8 bits so that each layer's output on calibration data changes least (GPTQ).

    Source: E. Frantar et al., "GPTQ: accurate post-training quantization for generative pre-trained transformers",
    2022, arXiv:2210.17323. Cost: a forward pass over the calibration data for each stage of each block, and a matrix
    inverse for each layer: a minute for small models. Helps most at 4 bits and with large groups; the calibration text
    should be of the kind that the model will meet.
    """

    name = "weight_gptq"
    needs = "calibration"
    source = "Frantar et al. 2022, arXiv:2210.17323"

    samples: int = knob(
        128, low=1, high=10_000, search=(64, 128), unit="examples", help="training examples that show the inputs"
    )
    damping: float = knob(
        0.01, low=1e-6, high=1.0, log=True, help="share of the mean second moment that is added to the diagonal"
    )
    act_order: bool = knob(
        False, help="quantize the columns with the largest inputs first; groups keep the ranges of their own weights"
    )

    def apply(self, draft: Draft) -> Draft:
        """Plan the layers and give their grids; `Refused` without layers or calibration examples."""
        layers, grids = self.layers(draft), {}
        examples = draft.data.calibration(self.samples)
        if not examples:
            raise Refused(
                f"{self.name} needs calibration examples, and this task has none.",
                do="give training data with the task, or use weight_hqq, which needs none",
            )
        module = copy.deepcopy(draft.module)
        for done, (names, inputs) in enumerate(stages(module, layers, examples)):
            for name in names:
                child = module.get_submodule(name)
                weight = matrix(child)
                grid = gptq(
                    weight, inputs.hessian, self.bits, self.group_size, self.symmetric, self.damping, self.act_order
                )
                _set(child, grid.weight())
                grids[name] = grid
            draft.work.tell(len(grids) / len(layers), f"GPTQ: stage {done + 1}, {len(grids)} of {len(layers)} layers")
        for name in layers:
            # What no forward pass reaches has no inputs to be fitted to.
            if name not in grids:
                weight = matrix(module.get_submodule(name))
                grids[name] = round_to_nearest(weight, self.bits, self.group_size, self.symmetric)
        return self.write(draft, {name: grids[name] for name in layers})


def gptq(
    weight: torch.Tensor,
    hessian: torch.Tensor,
    bits: int,
    group: int,
    symmetric: bool = False,
    damping: float = 0.01,
    act_order: bool = False,
) -> Grid:
    """The grid of `weight` (out, in) for inputs with second moments `hessian` (in, in).

    With `act_order` columns go by falling second moment and groups keep the ranges of the original weights; without it
    a group's range is that of its weights as corrected when its turn comes. Source: Frantar et al. 2022, algorithm 1.
    """
    import torch

    inside, size = weight.shape[1], group_width(weight.shape[1], group)
    moments = hessian.double().clone()
    # An input that never occurs takes part in nothing.
    unused = moments.diagonal() == 0
    moments[unused, unused] = 1.0
    moments.diagonal().add_(damping * moments.diagonal().mean())
    order = moments.diagonal().argsort(descending=True) if act_order else torch.arange(inside)
    upper = _inverse_root(moments[order][:, order])
    left = weight.double()[:, order]
    scales, zeros = ranges(grouped(weight.double(), size), bits, symmetric)
    codes = torch.empty_like(left)
    for start in range(0, inside, _BLOCK):
        stop = min(start + _BLOCK, inside)
        errors = torch.zeros_like(left[:, start:stop])
        for i in range(start, stop):
            place = int(order[i]) // size
            if not act_order and i % size == 0:
                scales[:, place], zeros[:, place] = ranges(left[:, i : i + size], bits, symmetric)
            scale, zero = scales[:, place], zeros[:, place]
            codes[:, i] = encode(left[:, i : i + 1], scale, zero, bits)[:, 0]
            error = (left[:, i] - (codes[:, i] - zero) * scale) / upper[i, i]
            left[:, i:stop] -= error[:, None] * upper[i, i:stop]
            errors[:, i - start] = error
        left[:, stop:] -= errors @ upper[start:stop, stop:]
    ordered = torch.empty_like(codes)
    ordered[:, order] = codes
    return Grid(bits, size, ordered.to(torch.uint8), scales.float(), zeros.float())


def _inverse_root(moments: torch.Tensor) -> torch.Tensor:
    """The upper Cholesky factor of the inverse of a positive definite matrix."""
    import torch

    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(moments)), upper=True)


def _set(child: torch.nn.Module, weight: torch.Tensor) -> None:
    import torch

    with torch.no_grad():
        child.weight.copy_(weight if isinstance(child, torch.nn.Linear) else weight.T)  # type: ignore[operator]
