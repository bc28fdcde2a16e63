"""Dynamic INT8: weights quantized once, activation ranges found anew for every input.

The oldest and simplest post-training quantization; no data are needed. Only the precision plan changes, each runtime
quantizes by its own means. Left out: four-bit weights, and weights quantized while activations stay float.
"""

from __future__ import annotations

from workbench.draft import Draft, ModelFacts, Precision
from workbench.knobs import knob
from workbench.techniques._plan import no_layers, plan_layers
from workbench.techniques.base import Technique


class DynamicInt8(Technique):
    """Quantize linear layers to INT8 with activation ranges found at run time: no data needed.

    Source: O. Zafrir et al., "Q8BERT: quantized 8bit BERT", arXiv:1910.06188, 2019 (its dynamic variant); R.
    Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", arXiv:1806.08342, 2018.
    Cost: seconds, a quarter of the weights' size. Helps where there are no calibration data, or where ranges differ
    much between inputs; static INT8 is faster because it need not look for the ranges.
    """

    name = "dynamic_int8"
    group = "quantization"
    source = "Zafrir et al. 2019, arXiv:1910.06188"
    precisions = frozenset({"int8_dynamic"})
    phase = 5

    per_channel: bool = knob(
        True, help="one scale for each output channel of a weight (more exact), not one for the whole weight"
    )

    def fits(self, facts: ModelFacts) -> str | None:
        """None, or the reason why this model has nothing to quantize."""
        return super().fits(facts) or no_layers(self.name, facts)

    def apply(self, draft: Draft) -> Draft:
        """Plan dynamic INT8 for every quantizable layer that is not kept; `Refused` where none is left."""
        return plan_layers(draft, self.name, Precision("int8_dynamic", per_channel=self.per_channel))
