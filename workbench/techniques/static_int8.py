"""Static INT8: weights and activations quantized with ranges fixed beforehand on calibration examples.

The idea is Jacob et al.'s integer-only inference. Either each runtime finds the ranges by its own quantizer and adds
what it knows (NNCF: SmoothQuant and bias correction, ONNX Runtime: the outputs of layers as well), or the workbench
finds them, and every runtime lowers the same ones. Left out: 4 bits, ranges by channel of an activation, and recovery
by training (QAT).
"""

from __future__ import annotations

from workbench.draft import Draft, ModelFacts, Precision
from workbench.errors import Refused
from workbench.knobs import knob
from workbench.techniques._plan import no_layers, plan_layers
from workbench.techniques.base import Technique


class StaticInt8(Technique):
    """Quantize linear layers to INT8 with activation ranges calibrated on training examples: the fastest INT8.

    Source: B. Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only
    inference", CVPR 2018, arXiv:1712.05877; H. Wu et al., "Integer quantization for deep learning inference",
    arXiv:2004.09602, 2020 (percentile, entropy); M. Nagel et al., arXiv:1906.04721, 2019 (bias correction). Cost: half
    a minute for calibration; a quarter of the size. Helps on processors with INT8 units (VNNI, AMX). Where it costs too
    much, keep the most sensitive layers, put smooth_quant before it, or let the workbench calibrate: "mse" and
    "percentile" cut off the outliers that stretch a range.
    """

    name = "static_int8"
    group = "quantization"
    needs = "calibration"
    source = "Jacob et al. 2018, arXiv:1712.05877"
    precisions = frozenset({"int8_static"})
    phase = 5

    calibration: str = knob(
        "runtime",
        choices=("runtime", "minmax", "moving_average", "percentile", "entropy", "mse"),
        help="how activation ranges are found: by the runtime's own quantizer, or by the workbench for all runtimes",
    )
    percentile: float = knob(
        99.99,
        low=90,
        high=100,
        unit="%",
        help="share of activations inside the range; at its default unless calibration is percentile",
    )
    samples: int = knob(
        300, low=1, high=10_000, search=(100, 300), unit="examples", help="training examples to calibrate on"
    )
    per_channel: bool = knob(
        True, help="one scale for each output channel of a weight (more exact), not one for the whole weight"
    )
    symmetric: bool = knob(False, help="activation ranges symmetric around zero")
    bias_correction: bool = knob(
        False, help="take the mean error of each quantized layer from its bias (not with calibration by the runtime)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.calibration != "percentile":
            # It has no say then, and equal recipes must have equal ids.
            object.__setattr__(self, "percentile", self.knobs()["percentile"].default)

    def fits(self, facts: ModelFacts) -> str | None:
        """None, or the reason: nothing to quantize, or the workbench is to calibrate and has no module to run."""
        reason = super().fits(facts) or no_layers(self.name, facts)
        if reason is None and self.calibration != "runtime" and not facts.has_module:
            reason = (
                f"calibration={self.calibration!r} runs the PyTorch module, and an ONNX file has none; use 'runtime'"
            )
        if reason is None and self.calibration == "runtime" and self.bias_correction:
            reason = (
                "bias_correction needs ranges that the workbench found; use another calibration than 'runtime' "
                "(NNCF on OpenVINO corrects biases by itself)"
            )
        return reason

    def apply(self, draft: Draft) -> Draft:
        """Plan static INT8 for every quantizable layer that is not kept.

        Raises `Refused` where no layer or no calibration example is there, `DataError` where the task has no such data,
        too few of them, or where activations are not finite.
        """
        reason = self.fits(draft.facts)
        if reason:
            raise Refused(f"{self.name} cannot be done here: {reason}")
        # One example shows whether there are any; the backend takes the rest when it calibrates.
        if not draft.data.calibration(1):
            raise Refused(
                f"{self.name} needs calibration examples, and this task has none.",
                do="give training data with the task, or use dynamic_int8, which needs none",
            )
        precision = Precision(
            "int8_static",
            per_channel=self.per_channel,
            symmetric=self.symmetric,
            calibration=self.calibration,
            samples=self.samples,
        )
        plan_layers(draft, self.name, precision)
        return draft if self.calibration == "runtime" else self._calibrate(draft)

    def _calibrate(self, draft: Draft) -> Draft:
        """Find the ranges here, and write them into the plan."""
        from dataclasses import replace

        from workbench.techniques._calibrate import find_ranges
        from workbench.techniques._int8 import correct_biases

        names = draft.plan.of("int8_static")
        ranges = find_ranges(draft, names, self.calibration, self.samples, self.percentile, self.symmetric)
        for name, limits in ranges.items():
            draft.plan.layers[name] = replace(draft.plan.layers[name], input_range=limits)
        if self.bias_correction:
            count = correct_biases(draft, names, ranges, self.per_channel, self.samples)
            draft.notes.append(f"static_int8 corrected the biases of {count} of {len(names)} layers")
        return draft
