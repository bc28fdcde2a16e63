"""Quantization-aware training: the module trained with its layers on the INT8 grid, and the ranges with it.

Rounding passes the gradient straight through. A range moves by its own gradient: what it clips pulls at the end that
clips it (as in PACT), what it rounds at its step (LSQ). It begins as a calibrator finds it, and what was learned is
lowered. Weights are quantized with the scales that their largest values give at every step, which is
how they are lowered. Left out: learned scales of weights, other widths than 8 bits, folding of norms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from workbench.draft import Draft, ModelFacts, Precision
from workbench.errors import Refused
from workbench.int8 import STEPS, Range, on_grid
from workbench.knobs import knob
from workbench.techniques._calibrate import METHODS, find_ranges
from workbench.techniques._int8 import chunks, matrix, quantized_weight, sharing
from workbench.techniques._plan import no_layers, plan_layers
from workbench.techniques.base import Trained
from workbench.training import Part, Run

#: A range's end is its first value times exp(gain * t), and t is trained at the learning rate of the weights.
_GAIN = 10.0


class Qat(Trained):
    """Train the model with INT8 layers and learn their ranges: wins back what static INT8 loses.

    Source: S. Esser et al., "Learned step size quantization", ICLR 2020, arXiv:1902.08153; J. Choi et al., "PACT",
    arXiv:1805.06085, 2018 (ends of a range); B. Jacob et al., arXiv:1712.05877, 2018 (fake quantization). Cost: minutes
    of training, each step about half as long again as without. Helps where static_int8 loses too much, also with
    calibration and smooth_quant. It learns from the labels; with distil right before it, from the teacher, in one run.
    """

    name = "qat"
    group = "quantization"
    source = "Esser et al. 2020, arXiv:1902.08153"
    precisions = frozenset({"int8_static"})
    phase = 5

    learning_rate: float = knob(2e-5, low=1e-7, high=1e-1, log=True, help="peak of AdamW's learning rate")
    calibration: str = knob("mse", choices=METHODS, help="how the ranges are found that the training begins with")
    samples: int = knob(128, low=1, high=10_000, unit="examples", help="training examples to calibrate on")
    learn: bool = knob(True, help="learn the ranges too, not the weights alone")
    per_channel: bool = knob(
        True, help="one scale for each output channel of a weight (more exact), not one for the whole weight"
    )

    def fits(self, facts: ModelFacts) -> str | None:
        """None, or the reason: no module to train, or nothing to quantize."""
        if not facts.has_module:
            return (
                f"{self.name} trains the PyTorch module, and an ONNX file has none; start from the checkpoint instead"
            )
        return super().fits(facts) or no_layers(self.name, facts)

    def part(self, draft: Draft) -> Part:
        """Quantize what may be quantized; raises `Refused` where that is nothing."""
        reason = self.fits(draft.facts)
        if reason:
            raise Refused(f"{self.name} cannot be done here: {reason}")
        if not draft.quantizable():
            plan_layers(draft, self.name, Precision("int8_static"))
        return Quantizing(self)


class Quantizing(Part):
    """Layers on the grid while the run lasts; their forward passes are replaced, so names and parameters stay."""

    def __init__(self, technique: Qat) -> None:
        self._of = technique
        self._groups: list[list[str]] = []
        self._first: list[Range] = []
        self._moved: Any = None

    def begin(self, run: Run) -> None:
        """Calibrate, and put every layer on the grid."""
        import torch

        draft, of = run.draft, self._of
        names = draft.quantizable()
        first = find_ranges(draft, names, of.calibration, of.samples)
        self._groups = sharing(draft.module, names, chunks(draft, of.samples)[0])
        self._first = [first[group[0]] for group in self._groups]
        # One row of numbers, so that they do not decay: only matrices do.
        self._moved = torch.zeros(2 * len(self._groups), requires_grad=of.learn)
        for place, group in enumerate(self._groups):
            for name in group:
                layer = draft.module.get_submodule(name)
                layer.forward = self._forward(layer, place)

    def parameters(self) -> list[Any]:
        """How far the ends of the ranges have moved."""
        return [self._moved] if self._of.learn else []

    def end(self, run: Run) -> None:
        """Take the layers off the grid, and write the ranges into the plan."""
        ends = self._ends().detach().tolist()
        learned = [on_grid((low, high)) for low, high in zip(ends[::2], ends[1::2], strict=True)]
        for group, limits in zip(self._groups, learned, strict=True):
            for name in group:
                del run.module.get_submodule(name).forward
                run.draft.plan.layers[name] = Precision(
                    "int8_static",
                    per_channel=self._of.per_channel,
                    calibration="learned" if self._of.learn else self._of.calibration,
                    samples=self._of.samples,
                    input_range=limits,
                )
        # In the model's order, as every plan is.
        layers = run.draft.plan.layers
        run.draft.plan.layers = {name: layers[name] for name in run.draft.quantizable()}
        ratios = [(b[1] - b[0]) / (a[1] - a[0]) for a, b in zip(self._first, learned, strict=True)]
        run.draft.notes.append(
            f"qat trained {len(layers)} layers in INT8; the {len(ratios)} ranges became "
            f"{min(ratios):.2f} to {max(ratios):.2f} times as wide as calibrated (median {np.median(ratios):.2f})"
        )

    def _ends(self) -> Any:
        import torch

        first = torch.tensor(self._first).flatten().to(self._moved.device)
        return first * torch.exp(_GAIN * self._moved)

    def _forward(self, layer: Any, place: int) -> Callable[[Any], Any]:
        import torch

        def forward(values: Any) -> Any:
            scale = getattr(layer, "input_scale", None)
            values = values.float() if scale is None else values.float() * scale
            low, high = self._ends()[2 * place : 2 * place + 2]
            weight = quantized_weight(matrix(layer), self._of.per_channel)
            return torch.nn.functional.linear(on_learned_grid(values, low, high), weight, layer.bias)

        return forward


def on_learned_grid(values: Any, low: Any, high: Any) -> Any:
    """`values` quantized and dequantized on 256 levels between the scalars `low` ≤ 0 ≤ `high`, for training.

    Gradients: of the values, straight through where they are inside, 0 where they are clipped; of an end, 1 for each
    value that it clips, and for each value inside ±(rounded - exact) / 255 in steps, because the step is
    (high - low) / 255 (equation 3 of Esser et al.). Those of the ends are multiplied by 1 / sqrt(255 * number of
    values), their section 2.2.
    """
    import torch

    class Learned(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, values: Any, low: Any, high: Any) -> Any:
            step = (high - low).clamp(min=1e-8) / STEPS
            zero = torch.round(-low / step)
            exact = values / step
            rounded = torch.round(exact)
            below, above = rounded < -zero, rounded > STEPS - zero
            context.save_for_backward(rounded - exact, below, above)
            return torch.where(below, -zero, torch.where(above, STEPS - zero, rounded)) * step

        @staticmethod
        def backward(context: Any, gradient: Any) -> Any:
            off, below, above = context.saved_tensors
            inside = gradient.masked_fill(below | above, 0.0)
            scale = (STEPS * gradient.numel()) ** -0.5
            steps = (inside * off).sum() / STEPS
            return inside, scale * ((gradient * below).sum() - steps), scale * ((gradient * above).sum() + steps)

    return Learned.apply(values, low, high)
