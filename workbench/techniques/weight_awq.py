"""Weight-only quantization by AWQ: inputs that are large on average get finer codes, by scaling their columns first.

A column is multiplied by s and its input divided by s, which changes nothing until the weight is rounded. The paper's
search for the exponent is done for each layer by itself, with the exact error of its output from the inputs' second
moments. The division is a `ScaledLinear`: folding it into the layer before would bind all that share its output to one
scale. Left out: that folding, and the search for narrower ranges (clipping).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.draft import Draft, Grid
from workbench.errors import Refused
from workbench.knobs import knob
from workbench.techniques._weight_only import (
    Inputs,
    WeightOnly,
    matrix,
    output_error,
    round_to_nearest,
    stages,
)

if TYPE_CHECKING:
    import torch


class WeightAwq(WeightOnly):
    """Scale the columns that meet large inputs, then round weights to 4 or 8 bits (activation-aware, AWQ).

    Source: J. Lin et al., "AWQ: activation-aware weight quantization for LLM compression and acceleration", 2023,
    arXiv:2306.00978. Cost: two passes over the calibration data for each stage; one multiplication of each layer's
    input at run time. Helps at 4 bits where some inputs are much larger than others; it fits the calibration data
    less closely than GPTQ, which makes it safer on other data.
    """

    name = "weight_awq"
    needs = "calibration"
    source = "Lin et al. 2023, arXiv:2306.00978"

    samples: int = knob(
        128, low=1, high=10_000, search=(64, 128), unit="examples", help="training examples that show the inputs"
    )
    steps: int = knob(20, low=2, high=200, help="exponents tried for each layer, from 0 (no scaling) to 1")

    def apply(self, draft: Draft) -> Draft:
        """Scale and plan the layers, and give their grids; `Refused` without layers or calibration examples."""
        layers = self.layers(draft)
        examples = draft.data.calibration(self.samples)
        if not examples:
            raise Refused(
                f"{self.name} needs calibration examples, and this task has none.",
                do="give training data with the task, or use weight_hqq, which needs none",
            )
        grids: dict[str, Grid] = {}
        scaled: dict[str, torch.Tensor] = {}
        for names, inputs in stages(draft.module, layers, examples):
            for name in names:
                weight = matrix(draft.module.get_submodule(name))
                scale, grids[name] = search(weight, inputs, self.bits, self.group_size, self.symmetric, self.steps)
                if scale is not None:
                    scaled[name] = scale
            draft.work.tell(len(grids) / len(layers), f"AWQ: {len(grids)} of {len(layers)} layers")
        for name in layers:
            # What no forward pass reaches has no inputs to be scaled for.
            if name not in grids:
                weight = matrix(draft.module.get_submodule(name))
                grids[name] = round_to_nearest(weight, self.bits, self.group_size, self.symmetric)
        for name, scale in scaled.items():
            _scale(draft.module, name, scale)
        draft.notes.append(f"{len(scaled)} of {len(layers)} layers have their inputs scaled")
        return self.write(draft, {name: grids[name] for name in layers})


def search(
    weight: torch.Tensor, inputs: Inputs, bits: int, group: int, symmetric: bool, steps: int = 20
) -> tuple[torch.Tensor | None, Grid]:
    """The scale (in,) of the columns of `weight` (out, in) with the least error of the output, and the grid of the
    scaled weight; None where no scale is better than none."""
    grid = round_to_nearest(weight, bits, group, symmetric)
    least, best = output_error(grid.weight() - weight, inputs.hessian), None
    for step in range(1, steps + 1):
        scale = column_scale(inputs.mean_abs, step / steps).to(weight.dtype)
        tried = round_to_nearest(weight * scale, bits, group, symmetric)
        error = output_error(tried.weight() / scale - weight, inputs.hessian)
        if error < least:
            least, best, grid = error, scale, tried
    return best, grid


def column_scale(mean_abs: torch.Tensor, exponent: float) -> torch.Tensor:
    """mean|x|^exponent, divided by the root of its smallest times its largest value: (in,) -> (in,)."""
    scale = mean_abs.clamp(min=1e-4) ** exponent
    return scale / (scale.max() * scale.min()).sqrt()


def _scale(module: Any, name: str, scale: torch.Tensor) -> None:
    """Put a `ScaledLinear` with the scaled weight in the place of a layer."""
    import torch

    from workbench.modules import ScaledLinear

    child = module.get_submodule(name)
    weight = matrix(child)
    new = ScaledLinear(weight.shape[1], weight.shape[0], child.bias is not None)
    before = child.input_scale if isinstance(child, ScaledLinear) else torch.ones(weight.shape[1])
    with torch.no_grad():
        new.weight.copy_(weight * scale)
        new.input_scale.copy_(before / scale)
        if child.bias is not None:
            new.bias.copy_(child.bias)
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, new.eval())
