"""Static INT8: weights and activations quantized with ranges fixed beforehand on calibration examples.

The idea is Jacob et al.'s integer-only inference. Only the precision plan changes; each runtime quantizes by its own
quantizer and adds what it knows (SmoothQuant, bias correction …). Left out: entropy calibration, mixed widths, and
recovery by training (QAT).
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
    arXiv:2004.09602, 2020 (percentile calibration). Cost: half a minute for calibration; a quarter of the size.
    Helps on processors with INT8 units (VNNI, AMX). Where it costs too much, keep the most sensitive layers, or try
    percentile calibration, which cuts off the outliers that stretch the range.
    """

    name = "static_int8"
    group = "quantization"
    needs = "calibration"
    source = "Jacob et al. 2018, arXiv:1712.05877"
    precisions = frozenset({"int8_static"})
    phase = 5

    calibration: str = knob(
        "minmax",
        choices=("minmax", "percentile"),
        help="the activation range: all that was seen, or the share of it that `percentile` says",
    )
    percentile: float = knob(
        99.99, low=90, high=100, unit="%", help="share of activations inside the range (percentile calibration only)"
    )
    samples: int = knob(
        300, low=1, high=10_000, search=(100, 300), unit="examples", help="training examples to calibrate on"
    )
    per_channel: bool = knob(
        True, help="one scale for each output channel of a weight (more exact), not one for the whole weight"
    )

    def fits(self, facts: ModelFacts) -> str | None:
        """None, or the reason why this model has nothing to quantize."""
        return super().fits(facts) or no_layers(self.name, facts)

    def apply(self, draft: Draft) -> Draft:
        """Plan static INT8 for every quantizable layer that is not kept.

        Raises `Refused` where no layer or no calibration example is there, `DataError` where the task has no such data.
        """
        # One example shows whether there are any; the backend takes the rest when it calibrates.
        if not draft.data.calibration(1):
            raise Refused(
                f"{self.name} needs calibration examples, and this task has none.",
                do="give training data with the task, or use dynamic_int8, which needs none",
            )
        precision = Precision(
            "int8_static",
            per_channel=self.per_channel,
            calibration=self.calibration,
            percentile=self.percentile,
            samples=self.samples,
        )
        return plan_layers(draft, self.name, precision)
